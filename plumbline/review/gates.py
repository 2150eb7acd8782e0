"""What params.yaml demands of a change before it may be merged.

A gate is one line, by a name of its own::

    gates:
      floor: weights.map50_95 >= 0.6
      no_loss: map50_95 drop <= 0.01 and significant
      latency: "*-int8.latency_ms_p50 rise <= 20 %"
      labels: num_errors <= 0

- ``METRIC OPERATOR NUMBER``: the number of this revision, whatever the base has.
- ``METRIC drop|rise OPERATOR NUMBER [%] [and significant]``: how far it fell or rose from the base, in the metric's own
  unit or in percent of the base. With ``and significant`` a difference that is within noise passes, however large.

``METRIC`` is a key of a row; ``ARTIFACT.METRIC``, where ARTIFACT may hold ``*``, is that of some artifacts; without it,
that of every artifact that has the key (the trained weights too), or of the data. A metric that the base has and this
revision has not fails its gates; one that neither has is a mistake in the gate, not a pass. Latency and speed that were
measured on machines that differ cannot be told to have dropped or risen, nor can a score without an interval whose two
numbers are of other images or labels: such a gate passes, marked as not judged.

The key of a slice, ``slice_brightness_below 113.4_map50_95``, holds the slice's name; the parts of a column of numbers
are named by the data, so gate the slices of a column of texts.
"""

from __future__ import annotations

import difflib
import fnmatch
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from plumbline.errors import ParamsError
from plumbline.review.changes import Change, Verdict
from plumbline.review.review import GateResult
from plumbline.review.wording import cut, difference_text, number_text

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt,
}  # fmt: skip
_RULE = re.compile(
    r"(?P<metric>\S.*?)(?:\s+(?P<change>drop|rise))?\s*(?P<operator><=|>=|<|>)\s*(?P<number>[-+]?[\d.]+(?:[eE][-+]?\d+)?)"
    r"\s*(?P<percent>%)?(?:\s+and\s+(?P<significant>significant))?"
)
_EXPECTED = "`map50_95 >= 0.6`, `map50_95 drop <= 0.01 and significant` or `*-int8.latency_ms_p50 rise <= 20 %`"
_MOST_WHY = 1000  # characters of a reason
_MOST_TOLD = 3  # rows in the reason of one gate
_ROUNDING = 1e-9  # 0.80 - 0.79 is 0.010000000000000009
_UNJUDGED = {
    Verdict.OTHER_MACHINE: "measured on another machine", Verdict.OTHER_TEST_SET: "scored on other images or labels",
}  # fmt: skip
# By these a gate finds its rows; the others say what changed, not how good it is.
GATED = ("score", "class", "size", "slice", "device", "data", "validation")


@dataclass(frozen=True)
class Gate:
    """One demand.

    Attributes:
        name: Its key in params.yaml.
        rule: The line as it stands there.
        metric: ``METRIC``, or ``ARTIFACT.METRIC``.
        change: ``drop``, ``rise``, or empty for the number itself.
        holds: Compares the number with `limit`.
        limit: In the metric's unit; with `percent` in percent of the base.
        percent: See `limit`.
        significant: Whether a difference within noise passes.
    """

    name: str
    rule: str
    metric: str
    change: str
    holds: Callable[[float, float], bool]
    limit: float
    percent: bool
    significant: bool


def parse_gate(name: str, rule: str) -> Gate:
    """Read one line.

    Raises:
        ValueError: It is none.

    >>> gate = parse_gate("no_loss", "weights.map50_95 drop <= 1 % and significant")
    >>> gate.metric, gate.change, gate.limit, gate.percent, gate.significant
    ('weights.map50_95', 'drop', 1.0, True, True)
    """
    found = _RULE.fullmatch(rule.strip())
    if found is None:
        raise ValueError(f"{rule!r} is no gate, expected a line such as {_EXPECTED}")
    change, percent, significant = found["change"] or "", bool(found["percent"]), bool(found["significant"])
    if not change and (percent or significant):
        raise ValueError(
            f"{rule!r}: `%` and `and significant` are of a drop or a rise, expected one of these before it"
        )
    if change and found["operator"] not in ("<=", "<"):
        raise ValueError(f"{rule!r}: a {change} has an upper limit, expected <= or <, got {found['operator']}")
    try:
        limit = float(found["number"])
    except ValueError as error:
        raise ValueError(f"{rule!r}: {found['number']!r} is no number, expected one such as 0.01") from error
    return Gate(name, rule, found["metric"], change, OPERATORS[found["operator"]], limit, percent, significant)


def judge_gates(gates: Mapping[str, str], changes: Sequence[Change]) -> tuple[GateResult, ...]:
    """Hold the rows of a comparison against the gates, in their order.

    Raises:
        ParamsError: A gate cannot be read, or names a metric that neither revision has.
    """
    return tuple(_judge(_parsed(name, rule), changes) for name, rule in gates.items())


def gates_in_force(base: Mapping[str, Any], head: Mapping[str, Any]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Choose the gates by which a change is judged: the base's, and those that the change adds.

    A change that loosens or removes a gate is judged by the gate as it was; the new one holds from the merge on.

    Args:
        base: Section ``gates`` of the base's params.yaml; empty where it has none.
        head: That of the change.

    Returns:
        Name -> rule; and a sentence for each gate that the change alters or removes.
    """
    told = [
        f"Gate {name} {'is removed' if name not in head else 'becomes `' + str(head[name]) + '`'} by this change; it is"
        f" judged by the base's `{rule}`."
        for name, rule in base.items()
        if head.get(name) != rule
    ]
    return {**{name: str(rule) for name, rule in head.items()}, **{k: str(v) for k, v in base.items()}}, tuple(told)


def _parsed(name: str, rule: str) -> Gate:
    try:
        return parse_gate(name, rule)
    except ValueError as error:
        raise ParamsError(f"params.yaml: gates.{name}: {error}; correct it") from error


def _judge(gate: Gate, changes: Sequence[Change]) -> GateResult:
    rows = [row for row in changes if _is_meant(gate, row)]
    if not rows:
        raise ParamsError(f"params.yaml: gates.{gate.name}: {_unknown(gate, changes)}")
    said = [(row, _fault(gate, row)) for row in rows]
    faults = [text for _, text in said if text]
    if faults:
        return GateResult(name=gate.name, rule=gate.rule, passed=False, why=cut(_first(faults), _MOST_WHY))
    judged = [row for row in rows if _is_judged(gate, row)]
    why = _closest(gate, judged) if judged else ""
    if len(judged) < len(rows):
        other = next(row for row in rows if not _is_judged(gate, row))
        how = f" ({other.note})" if other.verdict == Verdict.OTHER_MACHINE else ""
        count = f"{len(rows) - len(judged)} of {len(rows)}"
        why = f"not judged, as {_UNJUDGED[other.verdict]}{how}: {count}; {why}"
    return GateResult(
        name=gate.name,
        rule=gate.rule,
        passed=True,
        judged=len(judged) == len(rows),
        why=cut(why.removesuffix("; "), _MOST_WHY),
    )


def _first(faults: Sequence[str]) -> str:
    more = f"; and {len(faults) - _MOST_TOLD} more" if len(faults) > _MOST_TOLD else ""
    return "; ".join(faults[:_MOST_TOLD]) + more


def _is_meant(gate: Gate, row: Change) -> bool:
    if row.kind not in GATED:
        return False
    if row.metric == gate.metric:  # first, as the key of a slice may hold a dot
        return True
    artifact, _, metric = gate.metric.partition(".")
    return row.metric == metric and bool(row.artifact) and fnmatch.fnmatchcase(row.artifact, artifact)


def _unknown(gate: Gate, changes: Sequence[Change]) -> str:
    known = list(dict.fromkeys(row.metric for row in changes if row.kind in GATED))
    artifact, _, metric = gate.metric.partition(".")
    if metric in known:
        artifacts = list(dict.fromkeys(row.artifact for row in changes if row.metric == metric and row.artifact))
        return (
            f"no artifact {artifact!r} has {metric} in either revision, expected one of:"
            f" {', '.join(artifacts) or 'none: write it without an artifact'}; correct the gate"
        )
    near = difflib.get_close_matches(gate.metric, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"expected one such as {', '.join(known[:6]) or 'none'};"
    return f"neither revision has a metric {gate.metric!r}, {hint} correct the gate"


def _where(row: Change) -> str:
    return f"{row.artifact} {row.title}" if row.artifact else row.title


def _fault(gate: Gate, row: Change) -> str:
    """Say what is wrong, or nothing."""
    if row.verdict == Verdict.GONE:
        return f"{_where(row)} is gone: it was {number_text(row, row.base)}"
    value = _value(gate, row)
    if value is None:
        return f"{_where(row)} is undefined" + (f" ({row.note})" if row.note else "")
    if not gate.change:
        why = f" ({row.note})" if row.note and row.kind == "validation" else ""
        return "" if gate.holds(value, gate.limit) else f"{_where(row)} is {number_text(row, value)}{why}"
    if row.difference is None or not _is_judged(gate, row):  # what is new has nothing to fall from
        return ""
    return _fault_of_move(gate, row)


def _value(gate: Gate, row: Change) -> float | None:
    """Return the number that an absolute gate judges: of all that this revision scored."""
    value = row.whole if row.whole is not None and not gate.change else row.head
    assert not isinstance(value, str)  # only params have texts, and no gate is on them
    return value


def _is_judged(gate: Gate, row: Change) -> bool:
    """Whether the gate can say anything: not of a drop or rise between machines, or between test sets."""
    return not gate.change or row.is_comparable


def _fault_of_move(gate: Gate, row: Change) -> str:
    moved = _moved(gate, row)
    if math.isclose(moved, gate.limit, rel_tol=0.0, abs_tol=_ROUNDING):
        moved = gate.limit
    if gate.holds(moved, gate.limit) or (gate.significant and not row.is_significant):
        return ""
    return f"{_where(row)}: {number_text(row, row.base)} → {number_text(row, row.head)}, {difference_text(row)}"


def _moved(gate: Gate, row: Change) -> float:
    """Return the drop or rise, in the gate's unit."""
    difference = row.difference
    assert difference is not None
    assert isinstance(row.base, int | float)
    moved = -difference if gate.change == "drop" else difference
    if not gate.percent:
        return moved
    if row.base == 0:
        return 0.0 if moved == 0 else float("inf") if moved > 0 else float("-inf")
    return 100 * moved / abs(row.base)


def _closest(gate: Gate, rows: Sequence[Change]) -> str:
    """Say which row came closest to failing."""
    known = [row for row in rows if _value(gate, row) is not None]
    if gate.change:
        known = [row for row in known if isinstance(row.base, int | float)]
        if not known:
            return "new: there is nothing to compare with"
        row = max(known, key=lambda row: _moved(gate, row))
        return f"{_where(row)}: {number_text(row, row.base)} → {number_text(row, row.head)}, {row.verdict.value}"
    is_floor = gate.holds(1.0, 0.0)
    row = (min if is_floor else max)(known, key=lambda row: float(_value(gate, row) or 0))
    return f"{_where(row)} is {number_text(row, _value(gate, row))}"
