"""How the numbers of a comparison are written for people."""

from __future__ import annotations

from collections.abc import Sequence

from plumbline.report_markdown import fraction, points
from plumbline.review.changes import SCORES, Change, Verdict


def number_text(row: Change, value: float | int | str | None, *, sign: bool = False) -> str:
    """Write one of a row's numbers in the row's unit.

    >>> from plumbline.review.changes import Verdict
    >>> row = Change(kind="device", artifact="a", metric="latency_ms_p50", title="Latency", base=1.0, head=2.0,
    ...              verdict=Verdict.WORSE)
    >>> number_text(row, 12.3456), number_text(row, 2.0, sign=True)
    ('12.35 ms', '+2.00 ms')
    """
    if value is None:
        return "undefined"
    return value if isinstance(value, str) else _with_unit(row, value, "+" if sign else "")


def _with_unit(row: Change, value: float, plus: str) -> str:
    if row.kind in SCORES:
        return f"{points(value)} points" if plus else fraction(value)
    for part, scale, unit in (("_ms", 1, " ms"), ("_bytes", 1e6, " MB")):
        if part in row.metric:
            return f"{value / scale:{plus}.2f}{unit}"
    return f"{int(value):{plus},}" if float(value).is_integer() else f"{value:{plus}.3f}"


def difference_text(row: Change) -> str:
    """Write the difference, with its interval where it has one; empty where there is none, or of two test sets."""
    difference = row.difference
    if difference is None or row.verdict == Verdict.OTHER_TEST_SET:
        return ""
    text = number_text(row, difference, sign=True)
    if row.low is not None and row.high is not None:
        low, high = (number_text(row, end, sign=True).removesuffix(" points") for end in (row.low, row.high))
        return f"{text} [{low}, {high}]"
    if row.kind == "device" and isinstance(row.base, int | float) and row.base:
        return f"{text} ({difference / abs(row.base):+.0%})"
    return text


def tally(rows: Sequence[Change]) -> str:
    """Count the verdicts of rows.

    >>> row = Change(kind="score", artifact="a", metric="m", title="M", base=1.0, head=1.0,
    ...              verdict=Verdict.UNCHANGED)
    >>> tally([row, row])
    '2 unchanged'
    """
    counts = {verdict: sum(row.verdict == verdict for row in rows) for verdict in Verdict}
    return ", ".join(f"{count:,} {verdict.value}" for verdict, count in counts.items() if count)


def cut(text: str, most: int) -> str:
    """Shorten a text to so many characters, and show that it was.

    >>> cut("a long text", 10), cut("short", 10)
    ('a long ...', 'short')
    """
    return text if len(text) <= most else text[: most - 4] + " ..."
