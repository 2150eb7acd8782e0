"""Numbers, tables and lists as the report's Markdown writes them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from plumbline.scores import Interval

UNDEFINED = "–"  # noqa: RUF001 - a hyphen reads as the beginning of a number
MOST_CHARACTERS = 120  # of one value


def fraction(value: float | None) -> str:
    """Write 0..1 with three digits.

    >>> fraction(0.8314), fraction(None) == UNDEFINED
    ('0.831', True)
    """
    return UNDEFINED if value is None or math.isnan(value) else f"{value:.3f}"


def points(difference: float | None) -> str:
    """Write a difference of two values of 0..1 in points, which are hundredths.

    >>> points(-0.0002), points(-1e-9)
    ('-0.02', '+0.00')
    """
    # A tiny negative difference must not read as "-0.00".
    return UNDEFINED if difference is None else f"{in_points(difference) + 0.0:+.2f}"


def in_points(difference: float) -> float:
    """Return a difference in points, as exactly as the report writes it."""
    return round(difference * 100, 2)


def points_with_interval(difference: float | None, interval: Interval | None) -> str:
    """Write a difference and its interval in points.

    >>> points_with_interval(-0.0002, Interval(0.8, 0.7, 0.9, -0.0002, -0.001, 0.0005))
    '-0.02 [-0.10, +0.05]'
    """
    if difference is None or interval is None or math.isnan(interval.difference_low):
        return points(difference)
    return f"{points(difference)} [{points(interval.difference_low)}, {points(interval.difference_high)}]"


def fraction_with_interval(value: float | None, interval: Interval | None) -> str:
    """Write 0..1 with its own interval.

    >>> fraction_with_interval(0.8, Interval(0.8, 0.75, 0.85, 0.0, 0.0, 0.0))
    '0.800 [0.750, 0.850]'
    """
    if value is None or interval is None or math.isnan(interval.low):
        return fraction(value)
    return f"{fraction(value)} [{fraction(interval.low)}, {fraction(interval.high)}]"


def percent(share: float) -> str:
    """Write a share as a person says it.

    >>> percent(0.95), percent(0.995)
    ('95 %', '99.5 %')
    """
    return f"{share * 100:.6g} %"


def enumerated(names: Sequence[str]) -> str:
    """Join names as a sentence does.

    >>> enumerated(["a"]), enumerated(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def first_names(names: Sequence[str], most: int = 12) -> str:
    """Join the first names and count the rest.

    >>> first_names(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most:,} more"


def cell(text: object) -> str:
    r"""Return a text that is one cell of a table, and no tag of HTML: a class may be called ``<unknown>``.

    >>> cell("<a|b>")
    '&lt;a\\|b>'
    """
    return _one_line(text).replace("<", "&lt;")


def _one_line(text: object) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")


def code(value: object) -> str:
    """Write any value as code, cut where it is long; a mapping as its keys and values."""
    if value is None or value == "":
        return UNDEFINED
    if isinstance(value, dict):
        return ", ".join(f"{cell(key)} {code(value[key])}" for key in sorted(value))
    if isinstance(value, float):
        value = round(value, 3)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    cut = text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 3] + "..."
    return f"`{_one_line(cut)}`"


def markdown_table(head: Sequence[str], body: Sequence[Sequence[str]], *, left: int, escaped: bool = False) -> str:
    """Return a table whose first `left` columns are text and whose rest are numbers.

    Args:
        head: One text per column.
        body: Rows of texts.
        left: Columns that are text.
        escaped: Whether `body` is cells already.
    """
    lines = [
        [cell(text) for text in head],
        ["---" if index < left else "---:" for index in range(len(head))],
        *([text if escaped else cell(text) for text in row] for row in body),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def facts(described: Mapping[str, Mapping[str, Any]]) -> str:
    """Write what is agreed on once, with whom it is about where that is not everyone; then a table of what differs."""
    shared, own = shared_and_own(described)
    lines = []
    for key, value in shared.items():
        having = [name for name, one in described.items() if key in one]
        about = "" if len(having) == len(described) else f" ({cell(', '.join(having))})"
        lines.append(f"- {cell(key)}: {code(value)}{about}")
    parts = ["\n".join(lines)] if lines else []
    if own:
        keys = sorted({key for one in own.values() for key in one})
        body = [
            [cell(name), *(code(one[key]) if key in one else UNDEFINED for key in keys)] for name, one in own.items()
        ]
        parts.append(markdown_table(["Artifact", *keys], body, left=len(keys) + 1, escaped=True))
    return "\n\n".join(parts) or "Nothing was recorded."


def shared_and_own(
    described: Mapping[str, Mapping[str, Any]],
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Part what all that have a key agree on from what is each one's own.

    >>> shared_and_own({"a": {"cpu": "X", "heat": 40}, "b": {"cpu": "X", "heat": 50}, "c": {}})
    ({'cpu': 'X'}, {'a': {'heat': 40}, 'b': {'heat': 50}})
    """
    each = list(described.values())
    values = {key: [one[key] for one in each if key in one] for key in sorted({key for one in each for key in one})}
    shared = {key: found[0] for key, found in values.items() if all(value == found[0] for value in found)}
    own = {name: {key: one[key] for key in sorted(one) if key not in shared} for name, one in described.items()}
    return shared, {name: rest for name, rest in own.items() if rest}
