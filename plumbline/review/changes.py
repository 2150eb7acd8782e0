"""The rows of a comparison: a number before and after, what is known of its noise, and a verdict."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

# In the order of the page.
Kind = Literal["score", "class", "size", "slice", "device", "data", "validation", "params"]
KINDS: tuple[Kind, ...] = ("score", "class", "size", "slice", "device", "data", "validation", "params")
# Of these, numbers are 0..1.
SCORES: tuple[Kind, ...] = ("score", "class", "size", "slice")


class Verdict(StrEnum):
    """What a change is.

    Attributes:
        BETTER: By more than noise.
        WORSE: By more than noise.
        WITHIN_NOISE: It differs by no more than chance, or than two measurements of the same thing.
        UNCHANGED: The same number.
        CHANGED: It differs, and no direction is the better one.
        NEW: The base has no such number.
        GONE: The base has it, and this revision has not.
        OTHER_MACHINE: Both were measured, on machines that differ.
        OTHER_TEST_SET: Both were scored, on images or by labels that differ.
    """

    BETTER = "better"
    WORSE = "worse"
    WITHIN_NOISE = "within noise"
    UNCHANGED = "unchanged"
    CHANGED = "changed"
    NEW = "new"
    GONE = "gone"
    OTHER_MACHINE = "other machine"
    OTHER_TEST_SET = "other test set"


# Of these nobody can tell a drop or a rise.
ELSEWHERE = (Verdict.OTHER_MACHINE, Verdict.OTHER_TEST_SET)

# Bounded, as a review may come from anybody: a number too large for a float, or a page of text.
Count = Annotated[int, Field(ge=-(10**15), le=10**15)]
Text = Annotated[str, Field(max_length=400)]


class Change(BaseModel):
    """One row.

    Numbers of kinds score, class, size and slice are 0..1; an interval is of ``head - base``, on the same samples.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    kind: Kind
    artifact: str = Field(max_length=200, description="`weights`, a target; empty for data, validation and params.")
    metric: str = Field(max_length=400, description="Its key, by which gates know it: map50_95, latency_ms_p50.")
    title: str = Field(max_length=400, description="For people: mAP50-95, `nine`, box_size small.")
    base: float | Count | Text | None = Field(description="None: undefined, or not there.")
    head: float | Count | Text | None
    whole: float | None = Field(
        default=None,
        description="Of all that the head scored, by which an absolute gate judges; None where that is `head` itself.",
    )
    low: float | None = Field(default=None, description="Lower end of the interval of the difference.")
    high: float | None = None
    higher_is_better: bool | None = Field(default=None, description="None: neither is.")
    verdict: Verdict
    note: str = Field(default="", max_length=1000, description="What must be known to read it.")

    @model_validator(mode="after")
    def _is_whole_of_a_number(self) -> Change:
        if self.whole is not None and not isinstance(self.head, int | float):
            raise ValueError("whole without head")
        return self

    @model_validator(mode="after")
    def _is_text_of_a_param(self) -> Change:
        if self.kind != "params" and (isinstance(self.base, str) or isinstance(self.head, str)):
            raise ValueError(f"a text as the number of kind {self.kind}")
        return self

    @property
    def difference(self) -> float | None:
        """``head - base``, or None where one of them is no number."""
        if isinstance(self.base, str) or isinstance(self.head, str) or self.base is None or self.head is None:
            return None
        return self.head - self.base

    @property
    def is_significant(self) -> bool:
        """Whether the difference is more than noise; of a number that has none, whether there is any."""
        return self.verdict in (Verdict.BETTER, Verdict.WORSE, Verdict.CHANGED)

    @property
    def is_comparable(self) -> bool:
        """Whether both numbers are of the same images, or of the same machine."""
        return self.verdict not in ELSEWHERE


def judge(
    base: float | None,
    head: float | None,
    *,
    higher_is_better: bool | None,
    low: float | None = None,
    high: float | None = None,
    noise: float = 0.0,
) -> Verdict:
    """Give the verdict on a number.

    Args:
        base: Before; None where there is none.
        head: After.
        higher_is_better: None where neither is.
        low: Of the interval of the difference, where there is one: then it alone decides.
        high: Its upper end.
        noise: Without an interval: the share of `base` by which two measurements of the same thing may differ.

    >>> judge(0.80, 0.79, higher_is_better=True, low=-0.02, high=0.001).value
    'within noise'
    >>> judge(10.0, 12.0, higher_is_better=False, noise=0.1).value
    'worse'
    """
    if base is None or head is None:
        return Verdict.UNCHANGED if base is head else Verdict.NEW if base is None else Verdict.GONE
    difference = head - base
    if low is not None and high is not None and not math.isnan(low + high):
        if low <= 0 <= high:
            return Verdict.UNCHANGED if difference == low == high == 0 else Verdict.WITHIN_NOISE
        difference = low  # both ends are on one side of 0: its sign is the difference's
    elif difference == 0:
        return Verdict.UNCHANGED
    elif abs(difference) <= noise * abs(base):
        return Verdict.WITHIN_NOISE
    if higher_is_better is None:
        return Verdict.CHANGED
    return Verdict.BETTER if (difference > 0) is higher_is_better else Verdict.WORSE
