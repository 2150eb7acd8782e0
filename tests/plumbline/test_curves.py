"""Precision-recall curves and confusion pairs."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline.coco_evaluation import XYXY, evaluate_detections
from plumbline.curves import confusion_rows, precision_recall_rows

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
    assert rows.loc[rows["class"] == "all", "precision"].unique().tolist() == [0.5]


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
