"""Polygons of several rings, in formats that have one shape for each ring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from plumbline.formats.reading import LabelRow
from plumbline.formats.writing import Losses
from plumbline.manifest import CLASS_OUT_OF_RANGE_ID

Box = tuple[float, float, float, float]


def ring_bounds(*rings: Sequence[float]) -> Box:
    """Return the box around rings, xyxy.

    Args:
        rings: x, y, x, y...

    >>> ring_bounds([0, 5, 3, 0, 6, 5], [6, 6, 8, 6, 8, 8])
    (0, 0, 8, 8)
    """
    x = [value for ring in rings for value in ring[::2]]
    y = [value for ring in rings for value in ring[1::2]]
    return min(x), min(y), max(x), max(y)


class ObjectRows:
    """The rows of one image, where polygons of one class and one group are the rings of one object.

    Attributes:
        rows: In the order of their first rings.
    """

    def __init__(self) -> None:
        self.rows: list[LabelRow] = []
        self._first: dict[tuple[str, int | str], int] = {}

    def add(self, row: LabelRow, group: int | str | None) -> None:
        """Add a row; or the ring of a polygon to the object that it is of.

        Args:
            row: A box, a class of the whole image, or a polygon.
            group: What its shape shares with the others of the object; None for nothing.
        """
        if row.polygon is None or group is None:
            self.rows.append(row)
            return
        at = self._first.setdefault((row.class_name, group), len(self.rows))
        if at == len(self.rows):
            self.rows.append(row)
            return
        first = self.rows[at]
        rings = (*(first.polygon or ()), *row.polygon)
        flags = {name: getattr(first, name) or getattr(row, name) for name in ("difficult", "truncated", "crowd")}
        self.rows[at] = replace(first, polygon=rings, xyxy=ring_bounds(*rings), **flags)


def count_inexact(rows: Sequence[LabelRow], losses: Losses) -> None:
    """Count what a format loses that has class names instead of numbers, and a polygon instead of its box."""
    beyond = sum(row.class_id == CLASS_OUT_OF_RANGE_ID for row in rows)
    losses.add("class numbers beyond the list became names like any other", beyond)
    other = sum(row.polygon is not None and row.xyxy != ring_bounds(*row.polygon) for row in rows)
    losses.add("boxes became the bounds of their polygons", other)
