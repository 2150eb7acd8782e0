"""Ranges from histograms, against numpy's own quantiles and a plain search over real values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from plumbline.errors import BackendError
from plumbline.quantization.ranges import CLIPPINGS, MAX_BINS, Ranges

FINITE = st.floats(-(2.0**100), 2.0**100, width=32)
ARRAYS = hnp.arrays(np.float32, st.integers(1, 40), elements=FINITE)
BATCHES = st.lists(ARRAYS, min_size=1, max_size=5)


def observed(arrays):
    ranges = Ranges()
    for array in arrays:
        ranges.observe("x", array)
    return ranges


@given(BATCHES)
def test_minmax_is_exact_and_holds_zero(arrays):
    values = np.concatenate(arrays).astype(float)
    ranges = observed(arrays)
    assert ranges.low_high("x", "minmax") == (min(values.min(), 0), max(values.max(), 0))
    assert ranges.absmax("x", "minmax") == np.abs(values).max()


@given(BATCHES, st.randoms(use_true_random=False))
def test_order_of_images_changes_nothing(arrays, random):
    shuffled = list(arrays)
    random.shuffle(shuffled)
    one, other = observed(arrays), observed(shuffled)
    assert [one.low_high("x", c) for c in CLIPPINGS] == [other.low_high("x", c) for c in CLIPPINGS]
    assert [one.absmax("x", c) for c in CLIPPINGS] == [other.absmax("x", c) for c in CLIPPINGS]


@given(BATCHES)
def test_every_clipping_lies_within_what_was_seen(arrays):
    ranges = observed(arrays)
    low, high = ranges.low_high("x", "minmax")
    for clipping in CLIPPINGS:
        clipped = ranges.low_high("x", clipping)
        assert low <= clipped[0] <= 0 <= clipped[1] <= high
        assert 0 <= ranges.absmax("x", clipping) <= ranges.absmax("x", "minmax")


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["normal", "standard_cauchy", "exponential"]),
    st.floats(-5, 5),
    st.floats(1e-6, 1e6),
    st.sampled_from([99.9, 99.0, 90.0]),
)
def test_percentiles_are_numpys_to_within_two_bins(seed, distribution, shift, scale, percent):
    rng = np.random.default_rng(seed)
    arrays = [((getattr(rng, distribution)(size=500) + shift) * scale).astype(np.float32) for _ in range(4)]
    values = np.concatenate(arrays).astype(float)
    ranges = observed(arrays)
    # The numbers next to the wanted place: between them a quantile is anybody's choice.
    cut = (1 - percent / 100) / 2
    bin_width = 2 * (max(values.max(), 0) - min(values.min(), 0)) / (MAX_BINS / 2)

    def agrees(got, of, share):
        below, above = np.quantile(of, max(share - 1e-3, 0)), np.quantile(of, min(share + 1e-3, 1))
        return below - bin_width <= got <= above + bin_width

    low, high = ranges.low_high("x", f"percentile_{percent}")
    assert agrees(low, values, cut) or low == 0
    assert agrees(high, values, 1 - cut) or high == 0
    assert agrees(ranges.absmax("x", f"percentile_{percent}"), np.abs(values), percent / 100)


def squared_error(values, low, high, levels):
    step = (high - low) / levels
    zero = np.round(-low / step)
    return np.mean(((np.clip(np.round(values / step) + zero, 0, levels) - zero) * step - values) ** 2)


def symmetric_error(values, end):
    step = end / 127
    return np.mean((np.clip(np.round(values / step), -127, 127) * step - values) ** 2)


@pytest.mark.parametrize("distribution", ["normal", "laplace", "exponential", "outlier", "silu"])
def test_mse_is_near_the_best_of_a_plain_search_over_the_values(distribution):
    rng = np.random.default_rng(7)
    values = rng.normal(size=20000)
    if distribution in ("laplace", "exponential"):
        values = getattr(rng, distribution)(size=20000)
    elif distribution == "outlier":
        values[0] = 60.0
    elif distribution == "silu":
        values = 3 * values / (1 + np.exp(-3 * values))
    values = values.astype(np.float32)
    ranges = observed(np.split(values, 4))
    wide = ranges.low_high("x", "minmax")
    got = squared_error(values, *ranges.low_high("x", "mse"), 255)
    shares = np.linspace(0.02, 1, 50)
    lows = shares * wide[0] if wide[0] < 0 else [0.0]
    best = min(squared_error(values, low, high, 255) for low in lows for high in shares * wide[1])
    assert got <= 1.1 * best
    end = ranges.absmax("x", "mse")
    assert symmetric_error(values, end) <= 1.05 * min(symmetric_error(values, s * abs(values).max()) for s in shares)
    if distribution == "outlier":
        assert end < ranges.absmax("x", "minmax")


@pytest.mark.parametrize("value", [0.0, 5.0, -1000.0, 1e-40, -1e30])
def test_a_constant_tensor_has_a_range_to_zero(value):
    ranges = observed([np.full((2, 3), value, dtype=np.float32)])
    for clipping in CLIPPINGS:
        low, high = ranges.low_high("x", clipping)
        assert low <= 0 <= high
        assert ranges.absmax("x", clipping) == pytest.approx(abs(value), rel=0.01)


def test_inputs_stay_as_they_were_and_any_shape_and_width_is_taken():
    ranges = Ranges()
    array = np.arange(-4, 4, dtype=np.float64).reshape(2, 2, 2)
    array.flags.writeable = False
    ranges.observe("a", array)
    ranges.observe("b", array.astype(np.float16)[:, ::2])
    ranges.observe("c", np.zeros((0, 3), dtype=np.float32))
    assert ranges.names == ("a", "b")
    assert ranges.low_high("b", "minmax") == (-4, 1)
    with pytest.raises(KeyError):
        ranges.low_high("c", "minmax")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_number_names_its_tensor(bad):
    with pytest.raises(BackendError, match=r"tensor /body\.2/Conv: a value is not finite"):
        Ranges().observe("/body.2/Conv", np.array([0, bad], dtype=np.float32))
