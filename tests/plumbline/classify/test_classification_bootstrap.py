"""The bootstrap gives what a plain loop with scikit-learn gives on the same resampled rows."""

from __future__ import annotations

import numpy as np
import pytest
from classification_cases import make_case, random_case
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from plumbline.classify.scoring import bootstrap, evaluate
from plumbline.errors import EvaluationError
from plumbline.resampling import image_weights
from plumbline.scores import BootstrapSettings, ScoringSettings

SCORING = ScoringSettings(0.5, 0.001, "count", (), 3, 4)


def by_scikit_learn(case, rows):
    actual, predicted = case.actual[rows], case.predicted[rows]
    given_to = {"labels": np.unique(actual), "average": "macro", "zero_division": 0}
    values = {"top1": sk.accuracy_score(actual, predicted), "macro_f1": sk.f1_score(actual, predicted, **given_to)}
    if len(case.class_names) > 5:
        labels = range(len(case.class_names))
        values["top5"] = sk.top_k_accuracy_score(actual, case.probabilities[rows], k=5, labels=labels)
    return values


def worse(case, seed):
    rng = np.random.default_rng(seed)
    noisy = case.probabilities * rng.uniform(0.2, 1, case.probabilities.shape)
    return make_case(case.actual, noisy / noisy.sum(axis=1, keepdims=True), case.images["group"])


@settings(max_examples=7)
@given(st.integers(0, 2**32), st.integers(1, 25), st.integers(2, 8), st.integers(0, 99), st.booleans())
def test_is_the_plain_loop(seed, num_images, num_classes, sample_seed, grouped):
    groups = [f"g{i % 4}" if grouped and i % 3 else "" for i in range(num_images)]
    case = random_case(seed, num_images, num_classes, groups=groups)
    other = worse(case, seed)
    rules = BootstrapSettings(samples=12, level=0.9, seed=sample_seed, difficult="count")
    predictions = {"weights": case.predictions, "int8": other.predictions}
    have = bootstrap(case.truth, case.images, case.class_names, predictions, "weights", rules)

    samples = [
        np.repeat(np.arange(num_images), row) for chunk in image_weights(case.images, 12, sample_seed) for row in chunk
    ]
    reference = [by_scikit_learn(case, rows) for rows in samples]
    for name, scored in (("weights", case), ("int8", other)):
        values = [by_scikit_learn(scored, rows) for rows in samples]
        assert set(have[name]) == set(values[0])
        for metric, interval in have[name].items():
            one = np.array([value[metric] for value in values])
            difference = one - [value[metric] for value in reference]
            assert [interval.low, interval.high] == pytest.approx(np.quantile(one, [0.05, 0.95]))
            ends = [interval.difference_low, interval.difference_high]
            assert ends == pytest.approx(np.quantile(difference, [0.05, 0.95]), abs=1e-12)
            whole = by_scikit_learn(scored, np.arange(num_images))[metric]
            assert interval.value == pytest.approx(whole)


def test_the_value_is_the_evaluators_and_the_reference_differs_from_itself_by_nothing():
    case = random_case(5, 60, 7)
    rules = BootstrapSettings(samples=30, level=0.95, seed=1, difficult="count")
    have = bootstrap(case.truth, case.images, case.class_names, {"weights": case.predictions}, "weights", rules)
    metrics = evaluate(case.truth, case.predictions, case.images, case.class_names, SCORING).metrics
    assert set(have["weights"]) == {"top1", "macro_f1", "top5"}
    for metric, interval in have["weights"].items():
        assert interval.value == pytest.approx(metrics[metric])
        assert interval.low <= interval.value <= interval.high
        assert (interval.difference, interval.difference_low, interval.difference_high) == (0, 0, 0)


def test_a_pair_that_makes_the_same_mistakes_differs_by_less_than_each_varies():
    case = random_case(11, 200, 4)
    other = case.predictions.copy()
    # One image more that is right: the difference is a hundredth or two at most, whatever the sample.
    place = int(np.flatnonzero(case.predicted != case.actual)[0])
    sure = np.full(4, 0.1, np.float32)
    sure[case.actual[place]] = 0.7
    other["probabilities"] = [sure if i == place else row for i, row in enumerate(other["probabilities"])]
    other.loc[place, ["class_id", "confidence"]] = int(case.actual[place]), np.float32(0.7)
    other = other.astype({"class_id": "int64", "confidence": "float32"})
    rules = BootstrapSettings(samples=500, level=0.95, seed=0, difficult="count")
    both = {"weights": case.predictions, "better": other}
    interval = bootstrap(case.truth, case.images, case.class_names, both, "weights", rules)["better"]["top1"]
    assert interval.difference == pytest.approx(1 / 200)
    assert interval.difference_low >= 0
    assert interval.difference_high - interval.difference_low < (interval.high - interval.low) / 2


def test_the_order_of_rows_and_of_names_does_not_matter():
    case = random_case(2, 40, 3)
    rules = BootstrapSettings(samples=20, level=0.95, seed=3, difficult="count")
    both = {"weights": case.predictions, "a": worse(case, 1).predictions}
    straight = bootstrap(case.truth, case.images, case.class_names, both, "weights", rules)
    mixed = {name: both[name].sample(frac=1, random_state=1) for name in ("a", "weights")}
    other = bootstrap(case.truth, case.images.iloc[::-1], case.class_names, mixed, "weights", rules)
    assert straight == other


def test_without_the_reference_there_is_nothing_to_compare_with():
    case = random_case(2, 10, 3)
    rules = BootstrapSettings(samples=5, level=0.95, seed=3, difficult="count")
    with pytest.raises(EvaluationError, match="no predictions of weights to compare with, got those of int8"):
        bootstrap(case.truth, case.images, case.class_names, {"int8": case.predictions}, "weights", rules)
