"""The evaluator is COCO's: pycocotools, run here by itself on the same detections, must say the same."""

import numpy as np
import pandas as pd
import pytest
from coco_reference import STATS, XYXY, coco_says, found_rows, matches_at_50, random_scene, sorted_rows, truth_rows
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline.detect.scoring.coco_evaluation import choose_threshold, evaluate_detections
from plumbline.errors import EvaluationError
from plumbline.scores import ThresholdRule

CLASSES = ("zero", "one", "two")


def evaluate(truth, found, image_ids=range(6), class_names=CLASSES, threshold=0.5, **more):
    return evaluate_detections(truth, found, list(image_ids), class_names, confidence_threshold=threshold, **more)


def assert_equal_to_coco(evaluation, theirs):
    """All of COCO's twelve numbers, and what the reader is told of those that are undefined."""
    for name, value in zip(STATS, theirs.stats, strict=True):
        if value == -1:
            assert name not in evaluation.metrics
            assert evaluation.undefined[name].startswith(("no box is", "there is no box"))
        else:
            assert evaluation.metrics[name] == pytest.approx(value, abs=1e-12), name


@pytest.mark.parametrize("seed", range(12))
def test_it_says_what_pycocotools_says(seed):
    truth, found = random_scene(seed)
    evaluation = evaluate(truth, found)
    metrics = evaluation.metrics
    theirs = coco_says(truth, found, range(6), 3)
    assert_equal_to_coco(evaluation, theirs)
    for index, name in enumerate(CLASSES):
        precision = theirs.eval["precision"][:, :, index, 0, 2]
        row = evaluation.classes.set_index("class").loc[name]
        assert metrics[f"class_{name}_map50_95"] == row["map50_95"] == pytest.approx(precision.mean(), abs=1e-12)
        assert metrics[f"class_{name}_map50"] == row["map50"] == pytest.approx(precision[0].mean(), abs=1e-12)
        recall = theirs.eval["recall"][:, index, 0, 2].mean()
        assert metrics[f"class_{name}_ar100"] == row["ar100"] == pytest.approx(recall, abs=1e-12)
    matches = matches_at_50(theirs)
    kept = [match for score, match in matches if score >= 0.5]
    assert metrics["num_detections"] == len(kept)
    assert metrics["precision"] == pytest.approx(np.mean(kept))
    assert metrics["recall"] == pytest.approx(np.sum(kept) / len(truth))
    best = max(
        2
        * sum(match for score, match in matches if score >= threshold)
        / (sum(score >= threshold for score, _ in matches) + len(truth))
        for threshold, _ in matches
    )
    assert metrics["best_f1"] == pytest.approx(best)


@pytest.mark.parametrize("seed", range(8))
def test_a_crowd_is_what_pycocotools_takes_it_for(seed):
    truth, found = random_scene(seed, num_images=12)
    truth = truth.assign(crowd=np.random.default_rng(seed).random(len(truth)) < 0.3)
    evaluation = evaluate(truth, found, range(12))
    metrics = evaluation.metrics
    theirs = coco_says(truth, found, range(12), 3)
    assert_equal_to_coco(evaluation, theirs)
    kept = [hit for confidence, hit in matches_at_50(theirs) if confidence >= 0.5]
    assert (metrics["num_detections"], metrics["precision"]) == (len(kept), pytest.approx(np.mean(kept)))
    assert metrics["map50_95"] != pytest.approx(
        evaluate(truth.drop(columns="crowd"), found, range(12)).metrics["map50_95"]
    )
    assert metrics["num_boxes"] == (~truth["crowd"]).sum()


@pytest.mark.parametrize("seed", range(6))
def test_equal_confidences_are_settled_as_pycocotools_does_on_sorted_rows(seed):
    truth, found = random_scene(seed, ties=True)
    assert_equal_to_coco(evaluate(truth, found), coco_says(*sorted_rows(truth, found), range(6), 3))


def test_more_than_a_hundred_detections_of_a_class_in_an_image_are_cut_as_pycocotools_cuts():
    rng = np.random.default_rng(3)
    xy = rng.uniform(0, 400, (150, 2))
    boxes = np.hstack([xy, xy + 12])
    truth = truth_rows([(0, 0, *box) for box in boxes])
    found = found_rows([(0, 0, c, *box) for c, box in zip(rng.random(150), boxes, strict=True)])
    evaluation = evaluate(truth, found, threshold=0.0)
    assert_equal_to_coco(evaluation, coco_says(truth, found, range(6), 3))
    assert evaluation.metrics["ar100"] == pytest.approx(100 / 150)
    # What a person is shown is not cut.
    assert (evaluation.metrics["num_detections"], evaluation.metrics["recall"]) == (150, 1.0)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), shuffle=st.integers(0, 10_000))
def test_the_order_of_rows_and_images_changes_nothing(seed, shuffle):
    truth, found = random_scene(seed, ties=True)
    rng = np.random.default_rng(shuffle)
    mixed = [frame.iloc[rng.permutation(len(frame))] for frame in (truth, found)]
    assert evaluate(truth, found).metrics == evaluate(*mixed, image_ids=rng.permutation(6).tolist()).metrics


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_perfect_detections_score_one(seed):
    truth, _ = random_scene(seed)
    found = truth.assign(confidence=0.9)
    metrics = evaluate(truth, found).metrics
    if truth.empty:
        assert "map50_95" not in metrics
    else:
        named = ("map50_95", "map50", "map75", "precision", "recall", "f1", "best_f1")
        assert {name: metrics[name] for name in named} == pytest.approx(dict.fromkeys(named, 1.0))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), factor=st.sampled_from([0.25, 2.0, 64.0]), offset=st.integers(-3, 3))
def test_it_depends_on_neither_scale_nor_the_numbers_of_images(seed, factor, offset):
    truth, found = random_scene(seed)
    changed = [frame.copy() for frame in (truth, found)]
    for frame in changed:
        frame[XYXY] *= factor
        frame["image_id"] += offset + 3
    changed = evaluate(*changed, image_ids=range(offset + 3, offset + 9)).metrics
    before = evaluate(truth, found).metrics
    sizes = ("small", "medium", "large")  # these do depend on scale
    before, changed = (
        {name: value for name, value in one.items() if not name.endswith(sizes)} for one in (before, changed)
    )
    assert changed == pytest.approx(before, abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_what_stays_below_every_hit_cannot_raise_the_score(seed):
    truth, found = random_scene(seed)
    before = evaluate(truth, found).metrics
    worse = pd.concat([found, found_rows([(0, 0, -1.0, 500, 500, 510, 510)])], ignore_index=True)
    after = evaluate(truth, worse).metrics
    assert after.get("map50_95") == pytest.approx(before.get("map50_95"))
    # Above every hit it is a false alarm that costs.
    alarms = pd.concat([found, found_rows([(0, 0, 2.0, 500, 500, 510, 510)])], ignore_index=True)
    assert evaluate(truth, alarms).metrics.get("map50", 0) <= before.get("map50", 0) + 1e-12


def test_no_detections_at_all_score_zero():
    evaluation = evaluate(truth_rows([(0, 0, 0, 0, 10, 10)]), found_rows([]))
    assert evaluation.metrics == {
        "num_images": 6,
        "num_boxes": 1,
        "num_detections": 0,
        "confidence_threshold": 0.5,
        "map50_95": 0.0,
        "map50": 0.0,
        "map75": 0.0,
        "map_small": 0.0,
        "ar1": 0.0,
        "ar10": 0.0,
        "ar100": 0.0,
        "ar_small": 0.0,
        "class_zero_map50_95": 0.0,
        "class_zero_map50": 0.0,
        "class_zero_ar100": 0.0,
        "recall": 0.0,
        "f1": 0.0,
        "best_f1": 0.0,
    }
    assert evaluation.undefined["precision"] == "nothing is detected at or above the confidence threshold"
    assert evaluation.undefined["best_f1_confidence"] == "no detection finds a box"


def test_a_class_without_ground_truth_is_left_out_and_does_not_pull_the_mean():
    truth = truth_rows([(0, 1, 0, 0, 10, 10)])
    found = found_rows([(0, 1, 0.9, 0, 0, 10, 10), (0, 2, 0.8, 50, 50, 60, 60)])
    evaluation = evaluate(truth, found)
    metrics = evaluation.metrics
    assert metrics["map50_95"] == pytest.approx(1.0)
    keys = [f"class_one_{metric}" for metric in ("map50_95", "map50", "ar100")]
    assert [name for name in metrics if name.startswith("class_")] == keys
    assert evaluation.undefined["class_two_map50"] == "no box is of the class two"
    assert evaluation.undefined["map_large"] == "no box is larger than 96 x 96 pixels"
    classes = evaluation.classes.set_index("class")
    assert classes["num_detections"].tolist() == [0, 1, 1]
    assert classes["map50"].isna().tolist() == classes["recall"].isna().tolist() == [True, False, True]
    assert classes["precision"].isna().tolist() == [True, False, False]
    assert metrics["precision"] == 0.5  # the false alarm of a class without boxes still counts here
    assert np.isnan(evaluate(truth, found).precision_at_50).all(axis=0).tolist() == [True, False, True]


def test_without_any_box_only_what_is_defined_is_told():
    counts = {"num_images": 6, "num_boxes": 0, "confidence_threshold": 0.5}
    nothing = evaluate(truth_rows([]), found_rows([]))
    assert nothing.metrics == {**counts, "num_detections": 0}
    assert nothing.undefined["map50_95"] == nothing.undefined["recall"] == "there is no box to find"
    assert nothing.undefined["f1"].startswith("there is no box to find, and nothing is detected")
    alarm = evaluate(truth_rows([]), found_rows([(0, 0, 0.9, 0, 0, 5, 5)])).metrics
    assert alarm == {**counts, "num_detections": 1, "precision": 0.0, "f1": 0.0}


def test_labels_of_other_images_do_not_count():
    truth = truth_rows([(0, 0, 0, 0, 10, 10), (7, 0, 0, 0, 10, 10)])
    metrics = evaluate(truth, found_rows([(0, 0, 0.9, 0, 0, 10, 10)]), image_ids=[0]).metrics
    assert (metrics["num_boxes"], metrics["recall"]) == (1, 1.0)


def test_the_threshold_keeps_what_is_at_it():
    truth = truth_rows([(0, 0, 0, 0, 10, 10), (0, 0, 50, 50, 60, 60)])
    found = found_rows([(0, 0, 0.5, 0, 0, 10, 10), (0, 0, 0.4, 50, 50, 60, 60), (0, 0, 0.4, 80, 80, 90, 90)])
    metrics = evaluate(truth, found).metrics
    assert (metrics["precision"], metrics["recall"]) == (1.0, 0.5)
    # A threshold of 0.4 lets the hit and the false alarm in together: they cannot be parted.
    assert metrics["best_f1"] == pytest.approx(0.8)
    assert metrics["best_f1_confidence"] == 0.4


def test_what_it_was_given_stays_as_it_was():
    truth, found = random_scene(1)
    copies = truth.copy(), found.copy()
    evaluate(truth, found)
    pd.testing.assert_frame_equal(truth, copies[0])
    pd.testing.assert_frame_equal(found, copies[1])


@pytest.mark.parametrize(
    ("truth", "found", "image_ids", "text"),
    [
        ([], [(3, 0, np.nan, 0, 0, 1, 1)], range(6), r"image_id 3: expected finite numbers, got .*'confidence': nan"),
        ([], [(3, 0, 0.5, 0, 0, np.inf, 1)], range(6), "image_id 3: expected finite numbers"),
        ([(2, 0, np.nan, 0, 1, 1)], [], range(6), "ground truth: image_id 2: expected finite numbers"),
        ([], [(3, 3, 0.5, 0, 0, 1, 1)], range(6), r"expected a class_id of 0..2, got 3"),
        ([(3, -1, 0, 0, 1, 1)], [], range(6), r"expected a class_id of 0..2, got -1"),
        ([], [(9, 0, 0.5, 0, 0, 1, 1)], range(6), "got image_id 9"),
        ([], [], [], "no images to score"),
        ([], [], [1, 1], "named twice"),
    ],
)
def test_broken_input_is_refused_with_one_line(truth, found, image_ids, text):
    with pytest.raises(EvaluationError, match=text) as caught:
        evaluate(truth_rows(truth), found_rows(found), image_ids=image_ids)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("bottom", "recall"), [(5.0, 1.0), (4.99, 0.0)])
def test_an_overlap_of_exactly_half_is_a_hit_and_less_is_none(bottom, recall):
    metrics = evaluate(truth_rows([(0, 0, 0, 0, 10, 10)]), found_rows([(0, 0, 0.9, 0, 0, 10, bottom)])).metrics
    assert (metrics["recall"], metrics["map50"]) == (recall, pytest.approx(recall))


@pytest.mark.parametrize("seed", range(10))
def test_difficult_boxes_are_counted_or_ignored_as_asked(seed):
    truth, found = random_scene(seed, num_images=12)
    truth = truth.assign(difficult=np.random.default_rng(seed).random(len(truth)) < 0.3)
    counted, ignored = (evaluate(truth, found, range(12), difficult=how) for how in ("count", "ignore"))
    assert_equal_to_coco(counted, coco_says(truth, found, range(12), 3))
    theirs = coco_says(truth, found, range(12), 3, ignore_difficult=True)
    assert_equal_to_coco(ignored, theirs)
    kept = [hit for confidence, hit in matches_at_50(theirs) if confidence >= 0.5]
    assert ignored.metrics["num_detections"] == len(kept)
    assert ignored.metrics["precision"] == pytest.approx(np.mean(kept))
    assert ignored.metrics["recall"] == pytest.approx(np.sum(kept) / (~truth["difficult"]).sum())
    assert counted.metrics["num_boxes"] == len(truth)


def test_per_class_precision_and_recall_add_up_to_those_of_all():
    truth, found = random_scene(3, num_images=12)
    evaluation = evaluate(truth, found, range(12))
    classes, metrics = evaluation.classes, evaluation.metrics
    hits = (classes["precision"] * classes["num_detections"]).sum()
    assert hits / classes["num_detections"].sum() == pytest.approx(metrics["precision"])
    assert (classes["recall"] * classes["num_objects"]).sum() / len(truth) == pytest.approx(metrics["recall"])
    own = evaluate(
        truth[truth["class_id"] == 1].assign(class_id=0), found[found["class_id"] == 1].assign(class_id=0),
        range(12), ["only"],
    )  # fmt: skip
    row = classes.set_index("class").loc["one"]
    assert [row[name] for name in ("precision", "recall", "f1")] == pytest.approx(
        [own.metrics[name] for name in ("precision", "recall", "f1")]
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_chosen_threshold_gives_what_it_says_on_the_same_images(dtype):
    truth, found = random_scene(5, num_images=12)
    found = found.assign(confidence=found["confidence"].astype(dtype))
    images = pd.DataFrame({"image_id": range(12)})
    for rule in (ThresholdRule("best_f1", 0.0), ThresholdRule("precision", 0.4)):
        chosen = choose_threshold(truth, found, images, CLASSES, rule)
        metrics = evaluate(truth, found, range(12), threshold=chosen.confidence).metrics
        assert [metrics[name] for name in ("precision", "recall", "f1")] == pytest.approx(
            [chosen.precision, chosen.recall, chosen.f1]
        )
        if rule.rule == "best_f1":
            assert chosen.f1 == metrics["best_f1"]
        else:
            assert chosen.precision >= 0.4


def test_an_unreachable_precision_and_a_model_that_finds_nothing_are_told():
    images = pd.DataFrame({"image_id": range(6)})
    truth = truth_rows([(0, 0, 0, 0, 10, 10)])
    found = found_rows([(0, 0, 0.75, 0, 0, 10, 10), (0, 0, 0.9, 40, 40, 50, 50)])
    with pytest.raises(EvaluationError, match=r"precision of 0\.9 or more, got 0\.5 at the best one, 0\.75"):
        choose_threshold(truth, found, images, CLASSES, ThresholdRule("precision", 0.9))
    with pytest.raises(EvaluationError, match="none of 1 predictions finds any of 1 objects"):
        choose_threshold(truth, found[1:], images, CLASSES, ThresholdRule("best_f1", 0.9))
