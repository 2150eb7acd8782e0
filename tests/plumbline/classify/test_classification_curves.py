"""The tables of a classification: curves against scikit-learn's, and rows that add up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from classification_cases import CASES, SETTINGS, make_case, random_case
from hypothesis import given, settings
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from plumbline.classify.scoring import evaluate
from plumbline.errors import EvaluationError

POINTS = np.linspace(0, 1, 101)


def tables_of(case, **changed):
    return evaluate(case.truth, case.predictions, case.images, case.class_names, replace(SETTINGS, **changed)).tables


def curves(table, column):
    return {name: rows[column].to_numpy() for name, rows in table.groupby("class", sort=False)}


@settings(max_examples=40)
@given(CASES)
def test_precision_is_the_best_at_each_recall_or_more(case):
    table = tables_of(case)["pr_curve"]
    have = curves(table, "precision")
    assert list(have) == ["all", *(case.class_names[index] for index in case.with_images)]
    for index in case.with_images:
        precision, recall, _ = sk.precision_recall_curve(case.actual == index, case.probabilities[:, index])
        # Its last point is (recall 0, precision 1), at no threshold.
        want = [precision[:-1][recall[:-1] >= point].max() for point in POINTS]
        assert have[case.class_names[index]] == pytest.approx(want)
    each = [have[case.class_names[index]] for index in case.with_images]
    assert have["all"] == pytest.approx(np.mean(each, axis=0))
    assert (table["recall"].to_numpy().reshape(-1, 101) == POINTS).all()


@settings(max_examples=40)
@given(CASES)
def test_the_roc_curve_is_scikit_learns(case):
    have = curves(tables_of(case)["roc_curve"], "tpr")
    if len(case.with_images) == 1:
        assert have == {}
        return
    for index in case.with_images:
        fpr, tpr, _ = sk.roc_curve(case.actual == index, case.probabilities[:, index], drop_intermediate=False)
        highest = {rate: tpr[fpr == rate].max() for rate in fpr}
        # np.interp where the curve does not rise straight up, its upper end where it does.
        want = [highest.get(point, np.interp(point, fpr, tpr)) for point in POINTS]
        assert have[case.class_names[index]] == pytest.approx(want)
    assert have["all"] == pytest.approx(np.mean([have[case.class_names[index]] for index in case.with_images], axis=0))


@settings(max_examples=40)
@given(CASES)
def test_the_rows_against_the_threshold(case):
    table = tables_of(case, confidence_threshold=0.437)["confidence_curve"]
    confidence, right = case.probabilities.max(axis=1), case.predicted == case.actual
    assert 0.437 in table["confidence"].to_numpy()
    for row in table.itertuples():
        accepted = confidence >= np.float32(row.confidence)
        assert row.recall == pytest.approx(right[accepted].sum() / len(right))
        assert np.isnan(row.precision) == (not accepted.any())
        if accepted.any():
            assert row.precision == pytest.approx(right[accepted].mean())
            assert row.f1 == pytest.approx(2 * right[accepted].sum() / (accepted.sum() + len(right)))


@settings(max_examples=40)
@given(CASES)
def test_the_confusion_matrix_is_scikit_learns(case):
    table = tables_of(case)["confusion"]
    assert len(table) == len(case.actual)
    names = list(case.class_names)
    have = sk.confusion_matrix(table["actual"], table["predicted"], labels=names)
    assert (have == sk.confusion_matrix(case.actual, case.predicted, labels=range(len(names)))).all()
    assert table["actual"].map(names.index).is_monotonic_increasing


def test_the_reliability_is_scikit_learns():
    case = random_case(7, 400, 4)
    rows = tables_of(case)["calibration"]
    right = case.predicted == case.actual
    want = calibration_curve(right, case.probabilities.max(axis=1), n_bins=15)
    assert rows["accuracy"].to_numpy() == pytest.approx(want[0])
    assert rows["confidence"].to_numpy() == pytest.approx(want[1])
    assert rows["num_images"].sum() == 400


@settings(max_examples=30)
@given(CASES)
def test_a_slice_is_scored_as_its_images_alone(case):
    table = tables_of(case, slices=("brightness", "box_size"), slice_bins=3)["slices"]
    assert table["num_images"].sum() == len(case.images)
    assert set(table["column"]) == {"brightness"}
    weights = table["num_images"]
    assert (table["top1"] * weights).sum() / weights.sum() == pytest.approx((case.predicted == case.actual).mean())
    assert ("top5" in table) == (len(case.class_names) > 5)
    if len(table) == 1:
        whole = evaluate(case.truth, case.predictions, case.images, case.class_names, SETTINGS).metrics
        assert table["macro_f1"][0] == pytest.approx(whole["macro_f1"])


def test_slices_by_a_column_of_the_images():
    case = random_case(3, 70, 4)  # brightness is 0..6, ten images each
    table = tables_of(case, slices=("brightness",), slice_bins=7)["slices"]
    assert len(table) == 7
    for brightness, row in enumerate(table.itertuples()):
        rows = case.images["brightness"] == brightness
        actual, predicted = case.actual[rows], case.predicted[rows]
        assert row.num_images == row.num_objects == 10
        assert row.top1 == pytest.approx(sk.accuracy_score(actual, predicted))
        want = sk.f1_score(actual, predicted, labels=np.unique(actual), average="macro", zero_division=0)
        assert row.macro_f1 == pytest.approx(want)


def test_images_have_no_boxes_to_slice_by_and_no_other_columns():
    case = random_case(0, 10, 3)
    settings = replace(SETTINGS, slices=("box_size",))
    scores = evaluate(case.truth, case.predictions, case.images, case.class_names, settings)
    assert scores.undefined["slices by box_size"] == "an image of the task classify has no boxes"
    assert list(scores.tables["slices"])[:4] == ["column", "slice", "num_images", "num_objects"]
    assert scores.tables["slices"].empty
    with pytest.raises(EvaluationError, match="brightnes"):
        tables_of(case, slices=("brightnes",))


def test_a_class_that_is_called_all_is_not_taken_for_the_mean():
    case = make_case([0, 1, 1], [[0.6, 0.4], [0.3, 0.7], [0.8, 0.2]])
    table = evaluate(case.truth, case.predictions, case.images, ("all", "b"), SETTINGS).tables["pr_curve"]
    assert table["class"].unique().tolist() == ["(all)", "all", "b"]
