"""Curves against recall and confidence, and confusion pairs."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline.detect.scoring.coco_evaluation import XYXY, evaluate_detections
from plumbline.detect.scoring.curves import confusion_rows, precision_recall_rows, threshold_rows

CLASSES = ("cat", "dog", "owl")


def truth_rows(rows):
    return pd.DataFrame(rows, columns=["image_id", "class_id", *XYXY])


def found_rows(rows):
    return pd.DataFrame(rows, columns=["image_id", "class_id", "confidence", *XYXY])


def pairs(truth, found, image_ids=(0, 1), class_names=CLASSES):
    rows = confusion_rows(truth_rows(truth), found_rows(found), image_ids, class_names, confidence_threshold=0.25)
    assert list(rows) == ["actual", "predicted"]
    return list(rows.itertuples(index=False, name=None))


def boxes(with_confidence):
    """Rows on a coarse grid, so that many overlap by half and more."""
    corner = st.integers(0, 4).map(lambda n: 10.0 * n)
    row = st.tuples(st.integers(0, 1), st.integers(0, 2), st.sampled_from([0.1, 0.25, 0.5, 0.9]), corner, corner)
    return st.lists(row, max_size=12).map(
        lambda rows: [(i, k, *([c] if with_confidence else []), x, y, x + 20, y + 15) for i, k, c, x, y in rows]
    )


def curves_of(truth, found):
    evaluation = evaluate_detections(truth_rows(truth), found_rows(found), [0, 1], CLASSES, confidence_threshold=0.25)
    return evaluation, precision_recall_rows(evaluation)


@settings(max_examples=40, deadline=None)
@given(truth=boxes(with_confidence=False), found=boxes(with_confidence=True))
def test_the_mean_height_of_a_curve_is_its_average_precision(truth, found):
    evaluation, rows = curves_of(truth, found)
    heights = rows.groupby("class")["precision"].mean().to_dict()
    expected = {
        name: evaluation.metrics[f"class_{name}_map50"]
        for name in CLASSES
        if f"class_{name}_map50" in evaluation.metrics
    }
    if expected:
        expected["all"] = evaluation.metrics["map50"]
    assert heights == pytest.approx(expected, abs=1e-9)
    assert rows.groupby("class")["precision"].apply(lambda p: p.is_monotonic_decreasing).all()


def test_a_curve_has_101_points_and_all_comes_first():
    _, rows = curves_of([(0, 2, 0, 0, 9, 9), (0, 0, 0, 0, 9, 9)], [(0, 2, 0.9, 0, 0, 9, 9)])
    assert rows["class"].unique().tolist() == ["all", "cat", "owl"]
    assert np.allclose(rows.loc[rows["class"] == "owl", "recall"], np.linspace(0, 1, 101))
    assert np.allclose(rows.loc[rows["class"] == "all", "precision"], 0.5)


def test_no_ground_truth_gives_no_curve():
    _, rows = curves_of([], [(0, 2, 0.9, 0, 0, 9, 9)])
    assert (list(rows), len(rows)) == (["recall", "precision", "class"], 0)


@settings(max_examples=60, deadline=None)
@given(truth=boxes(with_confidence=False), found=boxes(with_confidence=True))
def test_every_box_and_every_detection_is_in_one_pair(truth, found):
    rows = pairs(truth, found)
    names = np.array(CLASSES)
    actual = sorted(a for a, _ in rows if a != "background")
    predicted = sorted(p for _, p in rows if p != "background")
    assert actual == sorted(names[class_id] for _, class_id, *_ in truth)
    assert predicted == sorted(names[row[1]] for row in found if row[2] >= 0.25)
    assert ("background", "background") not in rows
    assert rows == pairs(truth[::-1], found[::-1])


def test_a_box_seen_as_another_class_a_missed_one_and_a_false_alarm():
    truth = [(0, 0, 0, 0, 10, 10), (0, 1, 50, 50, 60, 60), (1, 2, 0, 0, 10, 10)]
    found = [
        (0, 1, 0.9, 0, 0, 10, 9),
        (0, 0, 0.3, 80, 80, 90, 90),
        (1, 2, 0.8, 0, 0, 10, 10),
        (1, 2, 0.24, 40, 40, 50, 50),
    ]
    assert pairs(truth, found) == [("cat", "dog"), ("dog", "background"), ("owl", "owl"), ("background", "cat")]


def test_the_more_confident_detection_takes_the_box():
    truth = [(0, 0, 0, 0, 10, 10)]
    found = [(0, 0, 0.6, 0, 0, 10, 10), (0, 1, 0.7, 0, 0, 10, 9)]
    assert pairs(truth, found) == [("cat", "dog"), ("background", "cat")]


@pytest.mark.parametrize("class_id", [0, 1, 2])
def test_of_boxes_in_one_place_a_detection_takes_that_of_its_class(class_id):
    truth = [(0, other, 0, 0, 10, 10) for other in range(3)]
    assert (CLASSES[class_id], CLASSES[class_id]) in pairs(truth, [(0, class_id, 0.9, 0, 0, 10, 8)])


def test_boxes_that_overlap_by_exactly_half_are_a_pair_and_by_less_are_not():
    truth = [(0, 0, 0, 0, 10, 10)]
    assert pairs(truth, [(0, 0, 0.9, 0, 0, 10, 5)]) == [("cat", "cat")]
    assert pairs(truth, [(0, 0, 0.9, 0, 0, 10, 4.99)]) == [("cat", "background"), ("background", "cat")]


def test_classes_called_like_ours_are_kept_apart():
    names = ("background", "all", "owl")
    assert pairs([(0, 0, 0, 0, 10, 10)], [], class_names=names) == [("background", "(background)")]


@settings(max_examples=25, deadline=None)
@given(truth=boxes(with_confidence=False), found=boxes(with_confidence=True))
def test_the_curve_against_confidence_is_what_the_evaluator_gives_at_each_threshold(truth, found):
    evaluation, _ = curves_of(truth, found)
    rows = threshold_rows(evaluation, 0.05)
    assert rows["confidence"].min() == 0.05
    assert 0.25 in rows["confidence"].tolist()
    assert 90 <= len(rows) <= 110
    for row in rows[rows["confidence"].isin([0.05, 0.1, 0.25, 0.5, 0.51, 0.9, 1.0])].itertuples():
        at = evaluate_detections(
            truth_rows(truth), found_rows(found), [0, 1], CLASSES, confidence_threshold=row.confidence
        )
        expected = [at.metrics.get(name, np.nan) for name in ("precision", "recall", "f1")]
        assert [row.precision, row.recall, row.f1] == pytest.approx(expected, nan_ok=True)


def test_the_curve_against_confidence_reaches_the_best_f1():
    rng = np.random.default_rng(0)
    truth = [(0, 0, x, 0, x + 9, 9) for x in range(0, 500, 10)]
    found = [(0, 0, rng.beta(3, 2) if x < 400 else rng.beta(2, 3), x, y, x + 9, y + 9)
             for x in range(0, 500, 10) for y in (0, 100)]  # fmt: skip
    evaluation, _ = curves_of(truth, found)
    assert threshold_rows(evaluation, 0.001)["f1"].max() == pytest.approx(evaluation.metrics["best_f1"])


ignorable = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=12, max_size=12)


@settings(max_examples=60, deadline=None)
@given(
    truth=boxes(with_confidence=False),
    found=boxes(with_confidence=True),
    marks=ignorable,
    difficult=st.sampled_from(["count", "ignore"]),
)
def test_of_one_class_the_pairs_are_the_evaluators_counts_also_with_crowds_and_difficult_boxes(
    truth, found, marks, difficult
):
    labels, seen = truth_rows(truth).assign(class_id=0), found_rows(found).assign(class_id=0)
    labels["crowd"], labels["difficult"] = ([mark[i] for mark in marks[: len(labels)]] for i in (0, 1))
    rules = {"confidence_threshold": 0.25, "difficult": difficult}
    rows = confusion_rows(labels, seen, [0, 1], ["cat"], **rules).value_counts().to_dict()
    metrics = evaluate_detections(labels, seen, [0, 1], ["cat"], **rules).metrics
    hits, missed = rows.get(("cat", "cat"), 0), rows.get(("cat", "background"), 0)
    assert hits + missed == metrics["num_boxes"]
    assert hits + rows.get(("background", "cat"), 0) == metrics["num_detections"]
    if metrics["num_boxes"]:
        assert hits == pytest.approx(metrics["recall"] * metrics["num_boxes"])


def test_a_detection_on_an_ignored_box_of_another_class_is_no_false_alarm():
    crowd = truth_rows([(0, 1, 0, 0, 100, 100)]).assign(crowd=True)
    seen = found_rows([(0, 0, 0.9, 0, 0, 10, 10), (0, 0, 0.8, 90, 90, 110, 110), (0, 0, 0.7, 300, 0, 310, 10)])
    rows = confusion_rows(crowd, seen, [0], CLASSES, confidence_threshold=0.25)
    assert rows.to_numpy().tolist() == [["background", "cat"]] * 2
