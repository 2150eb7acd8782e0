"""The samples of the bootstrap: whole groups, as many as there are, and the same whatever the order and the chunk."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline.errors import EvaluationError
from plumbline.resampling import image_weights, interval, num_drawn, paired_intervals

GROUPS = st.lists(st.sampled_from(["", "", "a", "b", "c"]), min_size=1, max_size=20)


def images(groups):
    return pd.DataFrame({"image_id": [7 * i + 2 for i in range(len(groups))], "group": groups})


def weights_of(table, samples=50, seed=0, **chunk):
    return np.concatenate(list(image_weights(table, samples, seed, **chunk)))


@settings(max_examples=60)
@given(GROUPS, st.integers(0, 1000))
def test_a_sample_holds_as_many_units_as_there_are_and_never_a_part_of_a_group(groups, seed):
    weights = weights_of(images(groups), seed=seed)
    names = [group or f"image {i}" for i, group in enumerate(groups)]
    units = sorted(set(names))
    firsts = [names.index(unit) for unit in units]
    assert weights.shape == (50, len(groups))
    assert weights.dtype == np.int64
    assert (weights >= 0).all()
    assert (weights[:, firsts].sum(axis=1) == len(units)).all()
    for place, name in enumerate(names):
        assert (weights[:, place] == weights[:, names.index(name)]).all()
    assert num_drawn(images(groups)) == len(units)


@settings(max_examples=60)
@given(GROUPS, st.integers(0, 1000), st.integers(1, 60))
def test_neither_the_chunk_nor_the_order_of_the_rows_matters(groups, seed, chunk):
    table = images(groups)
    want = weights_of(table, seed=seed)
    assert (weights_of(table, seed=seed, chunk=chunk) == want).all()
    assert (weights_of(table[::-1], seed=seed) == want[:, ::-1]).all()


def test_every_image_is_drawn_once_on_average_and_as_often_as_a_binomial_says():
    weights = weights_of(images([""] * 40), samples=20_000)
    assert weights.mean(axis=0) == pytest.approx(np.ones(40), abs=0.05)
    # Of 40 draws with 1/40 each: the variance is 1 - 1/40, and 0 comes with (39/40)^40.
    assert weights.var(axis=0) == pytest.approx(np.full(40, 39 / 40), abs=0.08)
    assert (weights == 0).mean() == pytest.approx((39 / 40) ** 40, abs=0.01)


def test_other_seeds_give_other_samples():
    assert (weights_of(images([""] * 10), seed=0) != weights_of(images([""] * 10), seed=1)).any()


def test_no_image():
    with pytest.raises(EvaluationError, match="no images to draw samples from"):
        weights_of(images([]))
    assert num_drawn(images([])) == 0


def test_a_missing_group_is_none():
    table = images(["", None, np.nan, "a", "a"])
    assert num_drawn(table) == 4


def test_a_sample_without_a_value_counts_for_neither_end():
    sampled = np.array([1.0, 2.0, 3.0, np.nan])
    reference = np.array([1.0, np.nan, 1.0, 1.0])
    found = interval(2.0, sampled, 1.0, reference, 0.5)
    assert (found.low, found.high) == tuple(np.quantile([1, 2, 3], [0.25, 0.75]))
    assert (found.difference_low, found.difference_high) == tuple(np.quantile([0, 2], [0.25, 0.75]))
    never = interval(2.0, np.full(3, np.nan), 1.0, np.ones(3), 0.5)
    assert np.isnan([never.low, never.high, never.difference_low, never.difference_high]).all()


def test_the_mean_of_normal_numbers_has_the_interval_that_theory_gives_it():
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, 400)
    weights = weights_of(images([""] * 400), samples=4000)
    means = weights @ values / weights.sum(axis=1)
    found = interval(values.mean(), means, values.mean(), means, 0.95)
    half = 1.96 * values.std() / 20
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.01)


def test_what_the_reference_lacks_is_left_out():
    values = {"weights": {"a": 1.0}, "int8": {"a": 0.5, "b": 0.5}}
    sampled = {name: {key: np.full(3, value) for key, value in of.items()} for name, of in values.items()}
    found = paired_intervals(values, sampled, "weights", 0.95)
    assert list(found["int8"]) == ["a"]
    assert found["int8"]["a"].difference == -0.5
    assert found["weights"]["a"].difference_low == 0
