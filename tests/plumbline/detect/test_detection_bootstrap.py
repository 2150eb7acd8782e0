"""The bootstrap of mAP: each sample is what pycocotools says of the images drawn, copies and all."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from coco_reference import coco_says, crowded_scene, found_rows, random_scene, sorted_rows, truth_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline.detect.scoring import intervals as module
from plumbline.detect.scoring.coco_evaluation import evaluate_detections
from plumbline.detect.scoring.intervals import HEADLINE, bootstrap, sampled_map
from plumbline.detect.scoring.matching import ALL_AREAS, match
from plumbline.errors import EvaluationError
from plumbline.resampling import image_weights
from plumbline.scores import BootstrapSettings

CLASSES = ("zero", "one", "two")
SETTINGS = BootstrapSettings(samples=60, level=0.9, seed=4, difficult="count")


def images_of(num_images, groups=None):
    return pd.DataFrame({"image_id": range(num_images), "group": groups or [""] * num_images})


def drawn_rows(frame, weights):
    """Return the rows of the images drawn, each copy an image of its own, in the order of image_id."""
    copies = np.repeat(np.arange(len(weights)), weights)
    parts = [frame[frame["image_id"] == image_id].assign(image_id=place) for place, image_id in enumerate(copies)]
    return pd.concat([frame[:0], *parts], ignore_index=True)


def assert_samples_are_coco(truth, found, num_images, seed, samples=3, difficult="count"):
    rng = np.random.default_rng(seed)
    weights = np.stack([np.bincount(rng.integers(0, num_images, num_images), minlength=num_images)] * samples)
    for place in range(1, samples):
        weights[place] = rng.permutation(weights[0]) * rng.integers(0, 4, num_images)
    truth, found = sorted_rows(truth, found)
    matches = match(truth, found, range(num_images), 3, difficult=difficult, areas=ALL_AREAS)
    ours = sampled_map(matches, images_of(num_images), weights)
    for column, one in enumerate(weights):
        theirs = coco_says(
            drawn_rows(truth, one), drawn_rows(found, one), range(one.sum()), 3, ignore_difficult=difficult == "ignore"
        )
        np.testing.assert_allclose(np.nan_to_num(ours[:, column], nan=-1), theirs.stats[:3], atol=1e-12, rtol=0)


@settings(max_examples=40)
@given(seed=st.integers(0, 1_000_000), difficult=st.sampled_from(["count", "ignore"]))
def test_samples_of_hard_boxes_are_what_pycocotools_says(seed, difficult):
    assert_samples_are_coco(*crowded_scene(seed), 5, seed, difficult=difficult)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_samples_are_what_pycocotools_says_of_the_images_drawn(seed, ties):
    truth, found = random_scene(seed, num_images=8, ties=ties)
    truth = truth.assign(crowd=np.random.default_rng(seed).random(len(truth)) < 0.2)
    assert_samples_are_coco(truth, found, 8, seed)


def test_copies_of_an_image_whose_detections_are_equally_confident_take_turns():
    truth = truth_rows([(0, 0, 0, 0, 10, 10)])
    found = found_rows([(0, 0, 0.5, 0, 0, 10, 10), (0, 0, 0.5, 60, 60, 70, 70)])
    matches = match(truth, found, [0], 1, areas=ALL_AREAS)
    # Right, wrong, right, wrong: the second hit has a precision of 2 / 3, from which 50 of 101 recall points have it.
    value = sampled_map(matches, images_of(1), np.array([[2]]))[1, 0]
    assert value == pytest.approx((51 + 50 * 2 / 3) / 101, abs=1e-12)


def test_weights_of_one_are_the_metrics_themselves():
    truth, found = random_scene(7, num_images=20, ties=True)
    metrics = evaluate_detections(truth, found, range(20), CLASSES, confidence_threshold=0.5).metrics
    matches = match(truth, found, range(20), 3, areas=ALL_AREAS)
    ours = sampled_map(matches, images_of(20), np.ones((1, 20), int))
    assert dict(zip(HEADLINE, ours[:, 0], strict=True)) == pytest.approx(
        {name: metrics[name] for name in HEADLINE}, abs=1e-12
    )


def two_artifacts():
    truth, found = random_scene(2, num_images=12)
    worse = found.assign(x1=found["x1"] - 3)
    return truth, {"weights": found, "int8": worse, "same": found}


def test_intervals_are_the_percentiles_of_the_samples_and_of_their_paired_differences():
    truth, predictions = two_artifacts()
    images = images_of(12)
    intervals = bootstrap(truth, images, CLASSES, predictions, "weights", SETTINGS)
    weights = np.concatenate(list(image_weights(images, 60, 4)))
    sampled = {
        name: sampled_map(match(truth, found, range(12), 3, areas=ALL_AREAS), images, weights)
        for name, found in predictions.items()
    }
    for name, found in predictions.items():
        metrics = evaluate_detections(truth, found, range(12), CLASSES, confidence_threshold=0.5).metrics
        for place, metric in enumerate(HEADLINE):
            one, own = intervals[name][metric], sampled[name][place]
            assert one.value == pytest.approx(metrics[metric], abs=1e-12)
            assert [one.low, one.high] == pytest.approx(np.quantile(own, [0.05, 0.95]).tolist())
            paired = own - sampled["weights"][place]
            assert [one.difference_low, one.difference_high] == pytest.approx(
                np.quantile(paired, [0.05, 0.95]).tolist()
            )
    assert intervals["same"] == intervals["weights"]
    one = intervals["same"]["map50"]
    assert (one.difference, one.difference_low, one.difference_high) == (0, 0, 0)
    assert intervals["int8"]["map50_95"].difference < 0


def test_the_order_of_rows_changes_nothing():
    truth, predictions = two_artifacts()
    expected = bootstrap(truth, images_of(12), CLASSES, predictions, "weights", SETTINGS)
    rng = np.random.default_rng(0)
    mixed = {name: found.iloc[rng.permutation(len(found))] for name, found in predictions.items()}
    images = images_of(12).iloc[rng.permutation(12)]
    assert bootstrap(truth.iloc[rng.permutation(len(truth))], images, CLASSES, mixed, "weights", SETTINGS) == expected


@pytest.mark.parametrize("most", [1, 500])
def test_many_samples_at_once_or_a_few_are_the_same(monkeypatch, most):
    truth, predictions = two_artifacts()
    expected = bootstrap(truth, images_of(12), CLASSES, predictions, "weights", SETTINGS)
    monkeypatch.setattr(module, "_MOST_WEIGHTS", most)
    again = bootstrap(truth, images_of(12), CLASSES, predictions, "weights", SETTINGS)
    for name, intervals in expected.items():
        for metric, one in intervals.items():
            assert dataclasses.asdict(again[name][metric]) == pytest.approx(dataclasses.asdict(one), abs=1e-12)


def test_images_of_one_group_are_drawn_together():
    truth, predictions = two_artifacts()
    alone = bootstrap(truth, images_of(12), CLASSES, predictions, "weights", SETTINGS)
    together = bootstrap(truth, images_of(12, ["video"] * 12), CLASSES, predictions, "weights", SETTINGS)
    # There is one group: every sample is the set itself.
    for name, intervals in together.items():
        for metric, one in intervals.items():
            assert one.low == pytest.approx(one.value, abs=1e-12) == one.high
            assert one.value == alone[name][metric].value
            assert alone[name][metric].high > alone[name][metric].low


def test_without_any_box_there_is_nothing_to_give_an_interval():
    truth, predictions = two_artifacts()
    assert bootstrap(truth[:0], images_of(12), CLASSES, predictions, "weights", SETTINGS) == {
        name: {} for name in predictions
    }


def test_a_box_in_one_image_alone_leaves_out_the_samples_without_that_image():
    truth, found = truth_rows([(0, 0, 0, 0, 10, 10)]), found_rows([(0, 0, 0.9, 0, 0, 10, 10)])
    one = bootstrap(truth, images_of(12), CLASSES, {"weights": found}, "weights", SETTINGS)["weights"]["map50"]
    assert (one.value, one.low, one.high) == (pytest.approx(1.0), pytest.approx(1.0), pytest.approx(1.0))


def test_broken_input_is_refused():
    truth, predictions = two_artifacts()
    with pytest.raises(EvaluationError, match="no predictions of hub to compare with, got those of weights, int8"):
        bootstrap(truth, images_of(12), CLASSES, predictions, "hub", SETTINGS)
    predictions["int8"] = predictions["int8"].assign(confidence=np.nan)
    with pytest.raises(EvaluationError, match="expected finite numbers"):
        bootstrap(truth, images_of(12), CLASSES, predictions, "weights", SETTINGS)
