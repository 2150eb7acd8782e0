"""The evaluator is COCO's: pycocotools, run here by itself on the same detections, must say the same."""

import contextlib
import io
import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from plumbline.coco_evaluation import XYXY, evaluate_detections
from plumbline.errors import EvaluationError

CLASSES = ("zero", "one", "two")


def truth_rows(rows):
    return pd.DataFrame(rows, columns=["image_id", "class_id", *XYXY])


def found_rows(rows):
    return pd.DataFrame(rows, columns=["image_id", "class_id", "confidence", *XYXY])


def evaluate(truth, found, image_ids=range(6), class_names=CLASSES, threshold=0.5):
    return evaluate_detections(truth, found, list(image_ids), class_names, confidence_threshold=threshold)


def random_scene(seed, num_images=6, num_classes=3, ties=False):
    """Labels, and detections that are labels moved a little, of another class, twice, or nothing at all."""
    rng = np.random.default_rng(seed)
    truth, found = [], []
    for image_id in range(num_images):
        for _ in range(rng.integers(0, 8)):
            x, y, w, h = rng.uniform(0, 80), rng.uniform(0, 80), rng.uniform(4, 50), rng.uniform(4, 50)
            class_id = int(rng.integers(num_classes))
            truth.append((image_id, class_id, x, y, x + w, y + h))
            for _ in range(rng.integers(0, 4)):
                moved = np.array([x, y, x + w, y + h]) + rng.normal(0, rng.choice([0.5, 3, 12]), 4)
                moved[2:] = np.maximum(moved[2:], moved[:2] + 1)
                seen = class_id if rng.random() < 0.8 else int(rng.integers(num_classes))
                found.append((image_id, seen, rng.random(), *moved))
        for _ in range(rng.integers(0, 4)):
            x, y = rng.uniform(0, 80, 2)
            found.append((image_id, int(rng.integers(num_classes)), rng.random(), x, y, x + 20, y + 20))
    found = found_rows(found)
    if ties:
        found["confidence"] = found["confidence"].round(1)
    return truth_rows(truth), found


def pycocotools_says(truth, found, image_ids=range(6), num_classes=3):
    """Run pycocotools on plain COCO JSON; return its arrays of precision and recall, and its matches at IoU 0.5."""

    def annotations(frame):
        return [
            {
                "id": number,
                "image_id": int(row.image_id),
                "category_id": int(row.class_id) + 1,
                "bbox": [row.x1, row.y1, row.x2 - row.x1, row.y2 - row.y1],
                "area": (row.x2 - row.x1) * (row.y2 - row.y1),
                "iscrowd": int(getattr(row, "crowd", False)),
                **({"score": float(row.confidence)} if hasattr(row, "confidence") else {}),
            }
            for number, row in enumerate(frame.itertuples(), start=1)
        ]

    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = {
            "images": [{"id": image_id} for image_id in image_ids],
            "categories": [{"id": index + 1, "name": str(index)} for index in range(num_classes)],
            "annotations": annotations(truth),
        }
        gt.createIndex()
        result = COCOeval(gt, gt.loadRes(json.loads(json.dumps(annotations(found)))), "bbox")
        result.evaluate()
        result.accumulate()
        result.summarize()
    matches = [
        (score, bool(match))
        for image in result.evalImgs
        if image is not None and image["aRng"] == [0, 1e10]
        for score, match in zip(image["dtScores"], image["dtMatches"][0], strict=True)
    ]
    return result, matches


@pytest.mark.parametrize("seed", range(12))
def test_it_says_what_pycocotools_says(seed):
    truth, found = random_scene(seed)
    metrics = evaluate(truth, found).metrics
    theirs, matches = pycocotools_says(truth, found)
    assert metrics["map50_95"] == pytest.approx(theirs.stats[0], abs=1e-6)
    assert metrics["map50"] == pytest.approx(theirs.stats[1], abs=1e-6)
    assert metrics["map75"] == pytest.approx(theirs.stats[2], abs=1e-6)
    assert metrics["ar100"] == pytest.approx(theirs.stats[8], abs=1e-6)
    for index, name in enumerate(CLASSES):
        precision = theirs.eval["precision"][:, :, index, 0, 2]
        assert metrics[f"class_{name}_map50_95"] == pytest.approx(precision.mean(), abs=1e-6)
        assert metrics[f"class_{name}_map50"] == pytest.approx(precision[0].mean(), abs=1e-6)
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
    metrics = evaluate(truth, found, range(12)).metrics
    theirs, _ = pycocotools_says(truth, found, range(12))
    assert metrics["map50_95"] == pytest.approx(theirs.stats[0], abs=1e-6)
    assert metrics["ar100"] == pytest.approx(theirs.stats[8], abs=1e-6)
    assert metrics["map50_95"] != pytest.approx(
        evaluate(truth.drop(columns="crowd"), found, range(12)).metrics["map50_95"]
    )
    assert metrics["num_boxes"] == (~truth["crowd"]).sum()


@pytest.mark.parametrize("seed", range(6))
def test_equal_confidences_are_settled_as_pycocotools_does_on_sorted_rows(seed):
    truth, found = random_scene(seed, ties=True)
    truth = truth.sort_values(["image_id", "class_id", *XYXY])
    found = found.sort_values(["image_id", "confidence", "class_id", *XYXY], ascending=[True, False, *[True] * 5])
    theirs, _ = pycocotools_says(truth, found)
    assert evaluate(truth, found).metrics["map50_95"] == pytest.approx(theirs.stats[0], abs=1e-6)


def test_more_than_a_hundred_detections_of_a_class_in_an_image_are_cut_as_pycocotools_cuts():
    rng = np.random.default_rng(3)
    xy = rng.uniform(0, 400, (150, 2))
    boxes = np.hstack([xy, xy + 12])
    truth = truth_rows([(0, 0, *box) for box in boxes])
    found = found_rows([(0, 0, c, *box) for c, box in zip(rng.random(150), boxes, strict=True)])
    theirs, _ = pycocotools_says(truth, found)
    metrics = evaluate(truth, found).metrics
    assert metrics["map50_95"] == pytest.approx(theirs.stats[0], abs=1e-6)
    assert metrics["ar100"] == pytest.approx(100 / 150)


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
    metrics = evaluate(*changed, image_ids=range(offset + 3, offset + 9)).metrics
    assert metrics == pytest.approx(evaluate(truth, found).metrics, abs=1e-12)


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
    metrics = evaluate(truth_rows([(0, 0, 0, 0, 10, 10)]), found_rows([])).metrics
    assert metrics == {
        "num_images": 6,
        "num_boxes": 1,
        "num_detections": 0,
        "confidence_threshold": 0.5,
        "map50_95": 0.0,
        "map50": 0.0,
        "map75": 0.0,
        "ar100": 0.0,
        "class_zero_map50_95": 0.0,
        "class_zero_map50": 0.0,
        "precision": 0.0,
        "recall": 0.0,
        "f1": 0.0,
        "best_f1": 0.0,
    }


def test_a_class_without_ground_truth_is_left_out_and_does_not_pull_the_mean():
    truth = truth_rows([(0, 1, 0, 0, 10, 10)])
    found = found_rows([(0, 1, 0.9, 0, 0, 10, 10), (0, 2, 0.8, 50, 50, 60, 60)])
    metrics = evaluate(truth, found).metrics
    assert metrics["map50_95"] == pytest.approx(1.0)
    assert [name for name in metrics if name.startswith("class_")] == ["class_one_map50_95", "class_one_map50"]
    assert metrics["precision"] == 0.5  # the false alarm of a class without boxes still counts here
    assert np.isnan(evaluate(truth, found).precision_at_50).all(axis=0).tolist() == [True, False, True]


def test_without_any_box_only_what_is_defined_is_told():
    counts = {"num_images": 6, "num_boxes": 0, "confidence_threshold": 0.5}
    assert evaluate(truth_rows([]), found_rows([])).metrics == {**counts, "num_detections": 0}
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
