"""Rows of what was measured on a device, and of what an artifact takes there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from plumbline.review.changes import Change, Verdict, judge
from plumbline.review.revision import Revision, Scored

# Key in benchmark/<artifact>.json -> title; whether more is better.
_MEASURED = {
    "latency_ms_p50": ("Latency p50", False),
    "latency_ms_p90": ("Latency p90", False),
    "latency_ms_p99": ("Latency p99", False),
    "inference_ms_p50": ("Inference p50", False),
    "speedup_onnx_fp32": ("Times ONNX fp32", True),
    "speedup_own_fp32": ("Times its own fp32", True),
}
_SIZE_NOISE = 0.001  # a converter writes its version and its paths into the file
# What two measurements must have in common to be held against each other.
_MACHINE = ("architecture", "cpu_model", "usable_cores")


def device_rows(base: Revision, head: Revision, latency_noise: float) -> Iterator[Change]:
    """Make the rows of latency, speed and size of every artifact of both.

    Args:
        base: The base.
        head: The head.
        latency_noise: Share by which two measurements of the same thing may differ. A speedup, which was measured turn
            by turn, has an interval of its own instead, where both files have it.
    """
    for name in [*head.scored, *(name for name in base.scored if name not in head.scored)]:
        before, after = base.scored.get(name), head.scored.get(name)
        yield from _measured(name, before, after, latency_noise)
        yield from _size(name, before, after)
        yield from _accepted(name, before, after)


def _measured(name: str, before: Scored | None, after: Scored | None, noise: float) -> Iterator[Change]:
    other = _other_machine(before, after)
    for metric, (title, higher_is_better) in _MEASURED.items():
        base, head = (None if one is None else one.device.get(metric) for one in (before, after))
        if base is None and head is None:
            continue
        overlap = _overlap(metric, before, after) if metric.startswith("speedup") else None
        verdict = judge(base, head, higher_is_better=higher_is_better, noise=noise if overlap is None else 0.0)
        note = ""
        if overlap and verdict in (Verdict.BETTER, Verdict.WORSE):
            verdict, note = Verdict.WITHIN_NOISE, "the intervals of the two ratios overlap"
        if other and base is not None and head is not None:
            verdict, note = Verdict.OTHER_MACHINE, other
        yield Change(
            kind="device", artifact=name, metric=metric, title=title, base=base, head=head,
            higher_is_better=higher_is_better, verdict=verdict, note=note,
        )  # fmt: skip


def _overlap(metric: str, before: Scored | None, after: Scored | None) -> bool | None:
    """Say whether the intervals of two ratios overlap; None where one has none."""
    ends = [one.device.get(f"{metric}_{end}") if one else None for one in (before, after) for end in ("low", "high")]
    if any(end is None for end in ends):
        return None
    base_low, base_high, low, high = (float(end or 0) for end in ends)
    return low <= base_high and base_low <= high


def _other_machine(before: Scored | None, after: Scored | None) -> str:
    """Say how the machines differ, or nothing."""
    if before is None or after is None:
        return ""
    for key in _MACHINE:
        base, head = _told(before.machine, key), _told(after.machine, key)
        if base != head:
            return f"{key}: {base}, here {head}"
    threads = before.device.get("threads"), after.device.get("threads")
    return "" if threads[0] == threads[1] else f"threads: {threads[0]}, here {threads[1]}"


def _told(machine: Mapping[str, Any], key: str) -> str:
    return str(machine.get(key, "unknown"))[:100]


def _size(name: str, before: Scored | None, after: Scored | None) -> Iterator[Change]:
    base, head = (None if one is None else one.row.get("size_bytes") for one in (before, after))
    if base is not None or head is not None:
        yield Change(
            kind="device", artifact=name, metric="size_bytes", title="Size", base=base, head=head,
            higher_is_better=False, verdict=judge(base, head, higher_is_better=False, noise=_SIZE_NOISE),
        )  # fmt: skip


def _accepted(name: str, before: Scored | None, after: Scored | None) -> Iterator[Change]:
    """Whether an int8 artifact is inside its budget, as 1 or 0."""
    base, head = (None if one is None else one.row.get("accepted") for one in (before, after))
    if base is None and head is None:
        return
    base, head = (None if value is None else int(bool(value)) for value in (base, head))
    why = str(after.row.get("accepted_why") or "") if after else ""
    yield Change(
        kind="device", artifact=name, metric="accepted", title="Accepted as int8", base=base, head=head,
        higher_is_better=True, verdict=judge(base, head, higher_is_better=True), note=why[:1000],
    )  # fmt: skip
