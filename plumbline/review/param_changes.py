"""Rows of what changed in params.yaml."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from plumbline.review.changes import Change, Verdict
from plumbline.review.wording import cut

_MOST = 200  # characters of a value


def param_rows(base: Mapping[str, Any], head: Mapping[str, Any]) -> Iterator[Change]:
    """Make a row for each value that differs, by its key with dots in it.

    >>> [(row.metric, row.base, row.head) for row in param_rows({"a": {"b": 1, "c": 2}}, {"a": {"b": 3, "c": 2}})]
    [('a.b', '1', '3')]
    """
    before, after = dict(_leaves(base)), dict(_leaves(head))
    for key in [*after, *(key for key in before if key not in after)]:
        if key in before and key in after and before[key] == after[key]:
            continue
        verdict = Verdict.CHANGED if key in before and key in after else Verdict.NEW if key in after else Verdict.GONE
        yield Change(
            kind="params", artifact="", metric=key[:400], title=key[:400], verdict=verdict,
            base=_text(before[key]) if key in before else None, head=_text(after[key]) if key in after else None,
        )  # fmt: skip


def _leaves(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{name}.")
        else:
            yield name, value


def _text(value: object) -> str:
    return cut(str(value), _MOST)
