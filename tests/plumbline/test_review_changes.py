"""The verdict on a number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from plumbline.review.changes import KINDS, Change, Verdict, judge

NUMBERS = st.floats(-1, 1)


@pytest.mark.parametrize(
    ("base", "head", "more", "expected"),
    [
        (0.8, 0.9, {"low": 0.05, "high": 0.15}, Verdict.BETTER),
        (0.9, 0.8, {"low": -0.15, "high": -0.05}, Verdict.WORSE),
        (0.9, 0.8, {"low": -0.15, "high": 0.0}, Verdict.WITHIN_NOISE),
        (0.8, 0.8, {"low": 0.0, "high": 0.0}, Verdict.UNCHANGED),
        (0.8, 0.8, {"low": -0.1, "high": 0.1}, Verdict.WITHIN_NOISE),
        (0.8, 0.9, {"low": float("nan"), "high": float("nan")}, Verdict.BETTER),
        (10.0, 10.9, {"noise": 0.1}, Verdict.WITHIN_NOISE),
        (10.0, 11.1, {"noise": 0.1}, Verdict.BETTER),
        (None, 1.0, {}, Verdict.NEW),
        (1.0, None, {}, Verdict.GONE),
        (None, None, {}, Verdict.UNCHANGED),
        (0, 0, {}, Verdict.UNCHANGED),
    ],
)
def test_verdicts(base, head, more, expected):
    assert judge(base, head, higher_is_better=True, **more) is expected


@given(base=NUMBERS, head=NUMBERS, low=NUMBERS, high=NUMBERS)
def test_what_is_better_one_way_is_worse_the_other(base, head, low, high):
    low, high = min(low, high), max(low, high)
    other = {Verdict.BETTER: Verdict.WORSE, Verdict.WORSE: Verdict.BETTER}
    up = judge(base, head, higher_is_better=True, low=low, high=high)
    down = judge(base, head, higher_is_better=False, low=low, high=high)
    assert down is other.get(up, up)
    neither = judge(base, head, higher_is_better=None, low=low, high=high)
    assert (neither is Verdict.CHANGED) is (up in other)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["base", "head"])
def test_only_a_param_has_a_text_for_a_number(kind, side):
    row = {"kind": kind, "artifact": "", "metric": "m", "title": "M", "base": 1, "head": 2, "verdict": Verdict.CHANGED}
    assert Change(**row).difference == 1
    if kind == "params":
        assert Change(**{**row, side: "1e-3"}).difference is None
        return
    with pytest.raises(ValidationError, match=f"a text as the number of kind {kind}"):
        Change(**{**row, side: "0.5"})
