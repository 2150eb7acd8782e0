"""Which artifact to take for a stated need: the fastest, the smallest or the most accurate."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from plumbline.report_acceptance import times_as_fast
from plumbline.report_build import Speedup
from plumbline.report_markdown import fraction, in_points, points_with_interval
from plumbline.report_rows import WEIGHTS, Row


@dataclass(frozen=True)
class Budget:
    """What an int8 artifact may lose, in points of the task's headline metric.

    Attributes:
        max_drop: Of the loss itself.
        max_drop_upper: Of the upper end of its interval.
    """

    max_drop: float
    max_drop_upper: float


@dataclass(frozen=True)
class Choice:
    """What to take for a need.

    Attributes:
        need: In words.
        name: Of the artifact; None where there is none.
        reason: Why it, in numbers, or why none.
        ties: Names of others that the noise does not tell from it, and what speaks for each, which may be "".
    """

    need: str
    name: str | None
    reason: str
    ties: tuple[tuple[str, str], ...] = ()


def keeps_budget(row: Row, budget: Budget) -> bool | None:
    """Tell whether an artifact's loss on the scored split, as the page shows it, is inside the budget.

    None where the loss is undefined. An int8 artifact was judged on val already: there this is only told.
    """
    if row.interval is None or math.isnan(row.interval.difference):
        return None
    return -in_points(row.interval.difference) <= budget.max_drop


def recommend(rows: Sequence[Row], budget: Budget, title: str) -> list[Choice]:
    """Choose among the float artifacts and the accepted int8 ones.

    Args:
        rows: Of all artifacts; the trained weights are no candidate.
        budget: A float artifact is judged by its loss on the scored split, an int8 one was on val.
        title: Of the headline metric.
    """
    usable = [row for row in rows if row.name != WEIGHTS and (row.precision != "int8" or row.verdict.accepted)]
    inside = [row for row in usable if row.precision == "int8" or keeps_budget(row, budget)]
    timed = [row for row in inside if row.latency_ms_p50 is not None]
    scored = [row for row in usable if row.score is not None]

    def loss_of(row: Row) -> str:
        return _loss(row, title, budget)

    return [
        _fastest("fastest inside the budget", timed, loss_of),
        _smallest("smallest inside the budget", inside, loss_of),
        _most_accurate("most accurate", scored, loss_of, title),
    ]


def is_faster(row: Row, other: Row) -> bool:
    """Tell whether one artifact is faster than another, by more than the noise where the noise is known."""
    one, two = _ratio(row), _ratio(other)
    if one is not None and two is not None:
        return _low(one) > _high(two)
    if row.latency_ms_p50 is None or other.latency_ms_p50 is None:
        return False
    return row.latency_ms_p50 < other.latency_ms_p50


def _fastest(need: str, timed: Sequence[Row], loss_of: Callable[[Row], str]) -> Choice:
    if not timed:
        return Choice(need, None, "no artifact inside the budget has a latency that was measured here")
    # Of one interleaved run; latencies of runs one after the other also differ by what the machine did meanwhile.
    if all(_ratio(row) for row in timed):
        best = min(timed, key=lambda row: (-_value(row), row.size_bytes, row.name))
        tied = [row for row in timed if not is_faster(best, row) and row is not best]
    else:
        best = min(timed, key=lambda row: (row.latency_ms_p50 or 0.0, row.size_bytes, row.name))
        tied = [row for row in timed if row.latency_ms_p50 == best.latency_ms_p50 and row is not best]
    speed = f"{best.latency_ms_p50:.2f} ms (p50)"
    ratio = _ratio(best)
    if ratio is not None:
        speed = f"{times_as_fast(ratio)} as ONNX fp32, {speed}"
    return Choice(need, best.name, f"{speed}; {loss_of(best)}", _ties(best, tied, (_smaller, _nearer)))


def _smallest(need: str, inside: Sequence[Row], loss_of: Callable[[Row], str]) -> Choice:
    if not inside:
        return Choice(need, None, "no artifact is known to be inside the budget")
    best = min(inside, key=lambda row: (row.size_bytes, row.latency_ms_p50 or math.inf, row.name))
    tied = [row for row in inside if _megabytes(row) == _megabytes(best) and row is not best]
    return Choice(need, best.name, f"{_megabytes(best)}; {loss_of(best)}", _ties(best, tied, (_faster, _nearer)))


def _most_accurate(need: str, scored: Sequence[Row], loss_of: Callable[[Row], str], title: str) -> Choice:
    if not scored:
        return Choice(need, None, f"{title} is undefined")
    best = min(
        scored, key=lambda row: (-in_points(row.score or 0.0), row.latency_ms_p50 or math.inf, row.size_bytes, row.name)
    )
    tied = [row for row in scored if _may_be_as_accurate(row, best) and row is not best]
    reason = f"{title} {fraction(best.score)}; {loss_of(best)}"
    return Choice(need, best.name, reason, _ties(best, tied, (_faster, _smaller)))


def _may_be_as_accurate(row: Row, best: Row) -> bool:
    """Tell whether the intervals of both differences from the trained weights have a value in common."""
    one, two = row.interval, best.interval
    if one is None or two is None or math.isnan(one.difference_high) or math.isnan(two.difference_low):
        return row.score is not None and best.score is not None and in_points(row.score) == in_points(best.score)
    return in_points(one.difference_high) >= in_points(two.difference_low)


def _loss(row: Row, title: str, budget: Budget) -> str:
    interval = row.interval
    shown = points_with_interval(None if interval is None else interval.difference, interval)
    notes = [f"for {row.build.chip}"] if row.build.chip else []
    notes += [f"scored by the {row.build.stands_in}"] if row.build.stands_in else []
    notes += ["past the budget on these images"] if keeps_budget(row, budget) is False else []
    about = f" ({', '.join(notes)})" if notes else ""
    return f"{shown} points of {title}{about}"


_Advantage = Callable[[Row, Row], str]


def _ties(best: Row, tied: Sequence[Row], advantages: Sequence[_Advantage]) -> tuple[tuple[str, str], ...]:
    return tuple((row.name, ", ".join(filter(None, (of(row, best) for of in advantages)))) for row in tied)


def _smaller(row: Row, best: Row) -> str:
    return f"smaller: {_megabytes(row)}" if row.size_bytes < best.size_bytes else ""


def _faster(row: Row, best: Row) -> str:
    ratio = _ratio(row)
    if not is_faster(row, best):
        return ""
    return f"faster: {row.latency_ms_p50:.2f} ms" if ratio is None else f"faster: {times_as_fast(ratio)} as ONNX fp32"


def _nearer(row: Row, best: Row) -> str:
    one, two = row.interval, best.interval
    if one is None or two is None or not in_points(one.difference) > in_points(two.difference):
        return ""
    return f"more accurate: {points_with_interval(one.difference, one)} points"


def _megabytes(row: Row) -> str:
    return f"{row.size_bytes / 1e6:.2f} MB"


def _ratio(row: Row) -> Speedup | None:
    return row.speedups.get("speedup_onnx_fp32")


def _value(row: Row) -> float:
    ratio = _ratio(row)
    return 0.0 if ratio is None else ratio.value


def _low(ratio: Speedup) -> float:
    return ratio.value if ratio.low is None else ratio.low


def _high(ratio: Speedup) -> float:
    return ratio.value if ratio.high is None else ratio.high
