"""Whether an int8 artifact is worth its name: inside the budget, in int8 in fact, and no slower than fp32."""

from __future__ import annotations

from dataclasses import dataclass

from plumbline.report_build import Quantized, Speedup


@dataclass(frozen=True)
class Verdict:
    """What became of an int8 artifact.

    Attributes:
        accepted: None for a float artifact, and for one that does not tell how it was quantized.
        short: For a cell of a table.
        why: For a sentence: why it is not accepted, or what could not be judged; empty where nothing is to be said.
    """

    accepted: bool | None
    short: str
    why: str


def judge(precision: str, quantized: Quantized | None, own: Speedup | None) -> Verdict:
    """Judge an artifact.

    Args:
        precision: That its weights are stored in.
        quantized: How it was quantized.
        own: How many times as fast as the same backend's fp32 it was on the machine that measured it.

    >>> judge("int8", Quantized(inside_budget=True, num_int8=9), Speedup(1.9, 1.8, 2.0))
    Verdict(accepted=True, short='yes', why='')
    >>> judge("int8", Quantized(inside_budget=True, num_int8=9), Speedup(0.64, 0.6, 0.7)).short
    'no: slower than its fp32'
    """
    if precision != "int8":
        return Verdict(None, "", "")
    if quantized is None or quantized.inside_budget is None or quantized.num_int8 is None:
        return Verdict(None, "", "its artifact.json does not tell how it was quantized: export it again")
    faults = _faults(quantized, quantized.inside_budget, own)
    if faults:
        return Verdict(False, f"no: {', '.join(faults)}", "; ".join(faults.values()))
    if own is None:
        return Verdict(True, "yes, speed not measured", "its speed against its backend's fp32 was not measured here")
    return Verdict(True, "yes", "")


def is_slower(own: Speedup) -> bool:
    """Tell whether the whole interval lies below 1; without an interval, whether the ratio does.

    >>> is_slower(Speedup(0.98, 0.95, 1.01)), is_slower(Speedup(0.98, None, None))
    (False, True)
    """
    return (own.value if own.high is None else own.high) < 1


def _faults(quantized: Quantized, inside: bool, own: Speedup | None) -> dict[str, str]:
    """Return each fault in short and in full."""
    faults = {}
    if not quantized.num_int8:
        faults["nothing in int8"] = "nothing of it is computed in int8"
    elif not inside:
        faults["not inside the budget"] = f"it is not inside the budget: {quantized.reason or _lost(quantized)}"
    if own is not None and is_slower(own):
        faults["slower than its fp32"] = f"it is slower than its backend's fp32: {times_as_fast(own)}"
    return faults


def _lost(quantized: Quantized) -> str:
    return "no reason is told" if quantized.drop is None else f"{quantized.drop:.2f} points lost on val"


def times_as_fast(speedup: Speedup) -> str:
    """Write a ratio of speeds as a sentence does.

    >>> times_as_fast(Speedup(1.934, 1.9, 1.97))
    '1.93 [1.90, 1.97] times as fast'
    """
    return f"{times(speedup)} times as fast"


def times(speedup: Speedup) -> str:
    """Write a ratio of speeds with its interval.

    >>> times(Speedup(1.934, None, None))
    '1.93'
    """
    if speedup.low is None or speedup.high is None:
        return f"{speedup.value:.2f}"
    return f"{speedup.value:.2f} [{speedup.low:.2f}, {speedup.high:.2f}]"
