"""Every number of a classification is scikit-learn's."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from classification_cases import CASES, SETTINGS, make_case, random_case
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from plumbline.classify.scoring import HEADLINE, choose_threshold, evaluate
from plumbline.classify.scoring.class_metrics import calibration_error, in_top
from plumbline.errors import EvaluationError
from plumbline.scores import ThresholdRule


def scores_of(case, **changed):
    return evaluate(case.truth, case.predictions, case.images, case.class_names, replace(SETTINGS, **changed))


@settings(max_examples=80)
@given(CASES)
def test_accuracy_and_the_means_over_classes_are_scikit_learns(case):
    have = scores_of(case).metrics
    given_to = {"labels": case.with_images, "average": "macro", "zero_division": 0}
    assert have["num_images"] == len(case.actual)
    assert have["top1"] == pytest.approx(sk.accuracy_score(case.actual, case.predicted))
    for name in ("precision", "recall", "f1"):
        want = getattr(sk, f"{name}_score")(case.actual, case.predicted, **given_to)
        assert have[f"macro_{name}"] == pytest.approx(want), name
    assert have["log_loss"] == pytest.approx(
        sk.log_loss(case.actual, case.probabilities, labels=range(len(case.class_names))), rel=1e-4, abs=1e-6
    )


@settings(max_examples=80)
@given(CASES)
def test_the_numbers_of_each_class_are_scikit_learns_or_have_a_reason(case):
    scores = scores_of(case)
    each = sk.precision_recall_fscore_support(
        case.actual, case.predicted, labels=range(len(case.class_names)), average=None, zero_division=0
    )
    for index, name in enumerate(case.class_names):
        present, given_to = index in case.with_images, index in case.predicted
        for column, values, defined in (
            ("precision", each[0], present or given_to),
            ("recall", each[1], present),
            ("f1", each[2], present),
        ):
            key = f"class_{name}_{column}"
            assert (key in scores.metrics, key in scores.undefined) == (defined, not defined)
            if defined:
                assert scores.metrics[key] == pytest.approx(values[index])
        assert scores.tables["classes"]["num_objects"][index] == each[3][index]


@settings(max_examples=80)
@given(CASES)
def test_the_area_below_the_roc_curve_is_scikit_learns(case):
    scores, areas = scores_of(case), []
    for index, name in enumerate(case.class_names):
        positive = case.actual == index
        key = f"class_{name}_roc_auc"
        if positive.any() and not positive.all():
            areas.append(sk.roc_auc_score(positive, case.probabilities[:, index]))
            assert scores.metrics[key] == pytest.approx(areas[-1])
        else:
            assert key not in scores.metrics
            assert scores.undefined[key] == (
                "all images are of this class" if positive.all() else "no image of this class"
            )
    if areas:
        assert scores.metrics["roc_auc"] == pytest.approx(np.mean(areas))
    else:
        assert scores.undefined["roc_auc"] == "all images are of one class"


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(6, 12))
def test_top5_is_scikit_learns(seed, num_images, num_classes):
    case = random_case(seed, num_images, num_classes)
    want = sk.top_k_accuracy_score(case.actual, case.probabilities, k=5, labels=range(num_classes))
    assert scores_of(case).metrics["top5"] == pytest.approx(want)


@settings(max_examples=60)
@given(CASES, st.integers(1, 9))
def test_the_first_of_equal_classes_comes_first(case, count):
    order = np.argsort(-case.probabilities, axis=1, kind="stable")[:, :count]
    want = (order == case.actual[:, None]).any(axis=1)
    assert (in_top(case.probabilities, case.actual, count) == want).all()


def test_with_five_classes_top5_says_nothing():
    scores = scores_of(random_case(0, 20, 5))
    assert "top5" not in scores.metrics
    assert "5 classes" in scores.undefined["top5"]


@settings(max_examples=80)
@given(st.lists(st.tuples(st.integers(1, 30).map(lambda n: n / 30), st.booleans()), min_size=1, max_size=40))
def test_the_calibration_error_is_that_of_a_plain_loop(pairs):
    # Guo et al. (2017): bins ((m - 1) / 15, m / 15]; thirtieths lie on the edges and between.
    total = 0.0
    for number in range(1, 16):
        members = [(c, right) for c, right in pairs if (number - 1) * 2 < round(c * 30) <= number * 2]
        if members:
            total += abs(sum(c for c, _ in members) - sum(right for _, right in members))
    confidence, right = (np.array(column) for column in zip(*pairs, strict=True))
    assert calibration_error(confidence, right) == pytest.approx(total / len(pairs))


@settings(max_examples=60)
@given(CASES, st.floats(0, 1) | st.integers(0, 8).map(lambda n: n / 8))
def test_coverage_and_accepted_precision(case, threshold):
    scores = scores_of(case, confidence_threshold=threshold)
    accepted = case.probabilities.max(axis=1) >= np.float32(threshold)
    assert scores.metrics["confidence_threshold"] == threshold
    assert scores.metrics["coverage"] == pytest.approx(accepted.mean())
    if accepted.any():
        want = (case.predicted == case.actual)[accepted].mean()
        assert scores.metrics["accepted_precision"] == pytest.approx(want)
    else:
        assert "no image has a confidence" in scores.undefined["accepted_precision"]


def test_a_confidence_at_the_threshold_is_accepted_although_it_is_float32():
    # float32's 0.7 lies below 0.7, its 0.6 above 0.6.
    case = make_case([0, 0], [[0.7, 0.3], [0.6, 0.4]])
    assert scores_of(case, confidence_threshold=0.7).metrics["coverage"] == 0.5
    assert scores_of(case, confidence_threshold=0.6).metrics["coverage"] == 1.0


@settings(max_examples=30)
@given(CASES, st.integers(0, 99))
def test_the_order_of_the_rows_does_not_matter_and_nothing_given_is_changed(case, seed):
    before = [frame.copy() for frame in (case.truth, case.images)]
    straight = scores_of(case, slices=("brightness",))
    mixed = [frame.sample(frac=1, random_state=seed) for frame in (case.truth, case.predictions, case.images)]
    other = evaluate(*mixed, case.class_names, replace(SETTINGS, slices=("brightness",)))
    assert straight.metrics == other.metrics
    assert straight.undefined == other.undefined
    for stem, rows in straight.tables.items():
        assert rows.equals(other.tables[stem]), stem
    assert case.truth.equals(before[0])
    assert case.images.equals(before[1])


@settings(max_examples=60)
@given(CASES)
def test_every_metric_is_a_number_that_json_can_hold(case):
    scores = scores_of(case)
    json.dumps(scores.metrics, allow_nan=False)
    assert not set(scores.metrics) & set(scores.undefined)
    assert all(scores.undefined.values())
    assert set(HEADLINE) <= set(scores.metrics) | set(scores.undefined)


def test_a_class_that_is_never_given_has_the_precision_0_and_one_without_images_has_none():
    #          actual c0, c0, c1; c1 and c2 are never given
    scores = scores_of(make_case([0, 0, 1], [[0.8, 0.1, 0.1]] * 3))
    assert scores.metrics["class_c0_precision"] == pytest.approx(2 / 3)
    assert scores.metrics["class_c1_precision"] == 0.0
    assert scores.metrics["macro_precision"] == pytest.approx(1 / 3)
    assert scores.undefined["class_c2_precision"] == "no image of this class, and none was given it"
    assert scores.undefined["class_c2_recall"] == "no image of this class"
    assert scores.undefined["class_c2_roc_auc"] == "no image of this class"


@settings(max_examples=60)
@given(CASES)
def test_the_chosen_threshold_has_the_best_f1_of_all(case):
    confidence, right = case.probabilities.max(axis=1), case.predicted == case.actual
    arguments = case.truth, case.predictions, case.images, case.class_names, ThresholdRule("best_f1", 0.0)
    if not right.any():
        with pytest.raises(EvaluationError):
            choose_threshold(*arguments)
        return
    chosen = choose_threshold(*arguments)

    def f1(threshold):
        accepted = confidence >= np.float32(threshold)
        return 2 * right[accepted].sum() / (accepted.sum() + len(right))

    assert chosen.f1 == pytest.approx(max(f1(value) for value in confidence))
    assert f1(chosen.confidence) == pytest.approx(chosen.f1)
