"""Finders for one box by itself: no area, reversed, outside its image, tiny, giant, extreme, a repeat."""

from __future__ import annotations

import numpy as np
import pandas as pd

from plumbline.checks.view import CheckSettings, Mask, View, box_findings, corners, is_tiny, number
from plumbline.faults import (
    BOX_OUT_OF_BOUNDS,
    DUPLICATE_BOX,
    EXTREME_ASPECT_BOX,
    GIANT_BOX,
    REVERSED_BOX,
    TINY_BOX,
    ZERO_AREA_BOX,
)


def find_zero_area_box(view: View, settings: CheckSettings) -> pd.DataFrame:  # noqa: ARG001
    """Find boxes without width or height, or with a corner that is no number."""
    messages = [f"box has no area, expected x1 < x2 and y1 < y2, got {corners(row)}" for row in view.xyxy[view.no_area]]
    return box_findings(ZERO_AREA_BOX, view.dataset, view.no_area, messages)


def find_reversed_box(view: View, settings: CheckSettings) -> pd.DataFrame:  # noqa: ARG001
    """Find boxes whose right corner is left of the left one, or whose lower one is above."""
    rows = view.xyxy[view.is_reversed]
    messages = [f"box has reversed corners, expected x1 < x2 and y1 < y2, got {corners(row)}" for row in rows]
    return box_findings(REVERSED_BOX, view.dataset, view.is_reversed, messages)


def find_box_out_of_bounds(view: View, settings: CheckSettings) -> pd.DataFrame:  # noqa: ARG001
    """Find boxes with a corner outside their image by more than rounding."""
    outside = view.is_outside
    messages = [
        f"box is outside its image, expected 0 <= x <= {wh[0]:.0f} and 0 <= y <= {wh[1]:.0f}, got {corners(row)}"
        for row, wh in zip(view.xyxy[outside], view.image_wh[outside], strict=True)
    ]
    return box_findings(BOX_OUT_OF_BOUNDS, view.dataset, outside, messages)


def find_tiny_box(view: View, settings: CheckSettings) -> pd.DataFrame:
    """Find boxes on their image with a side of fewer than `tiny_px` pixels."""
    tiny = _tiny(view, settings)
    messages = [
        f"box is tiny, expected sides of {number(settings.tiny_px)} pixels or more, got {_size(wh)}"
        for wh in view.side_wh[tiny]
    ]
    return box_findings(TINY_BOX, view.dataset, tiny, messages)


def find_giant_box(view: View, settings: CheckSettings) -> pd.DataFrame:
    """Find boxes of more than `giant_share` of their image; a crowd may be as large as it likes."""
    giant = _giant(view, settings)
    messages = [
        f"box is giant, expected at most {number(settings.giant_share)} of its image, got {number(share)}"
        for share in _share(view)[giant]
    ]
    return box_findings(GIANT_BOX, view.dataset, giant, messages)


def find_extreme_aspect_box(view: View, settings: CheckSettings) -> pd.DataFrame:
    """Find boxes whose sides differ by more than `extreme_aspect` times; a tiny or giant one is that before."""
    with np.errstate(all="ignore"):
        aspect = view.side_wh.max(axis=1, initial=-np.inf) / view.side_wh.min(axis=1, initial=np.inf)
        extreme = _judgeable(view) & _single(view) & (aspect > settings.extreme_aspect)
    extreme &= ~_tiny(view, settings) & ~_giant(view, settings)
    messages = [
        f"box is extremely long, expected one side at most {number(settings.extreme_aspect)} times the other,"
        f" got {_size(wh)}"
        for wh in view.side_wh[extreme]
    ]
    return box_findings(EXTREME_ASPECT_BOX, view.dataset, extreme, messages)


def find_duplicate_box(view: View, settings: CheckSettings) -> pd.DataFrame:  # noqa: ARG001
    """Find the second and later boxes of one image, class and corners."""
    names = view.dataset.annotations["class_name"][view.is_repeat]
    messages = [
        f"box has been seen before, expected every box once, got {name!r} at {corners(row)} again"
        for name, row in zip(names, view.xyxy[view.is_repeat], strict=True)
    ]
    return box_findings(DUPLICATE_BOX, view.dataset, view.is_repeat, messages)


def _judgeable(view: View) -> Mask:
    """Boxes whose size means something: on their image, which is large enough itself."""
    images = view.dataset.images
    tiny = np.append(is_tiny(images) & images["readable"].to_numpy(bool), False)
    return view.is_inside & ~tiny[view.image_row]


def _single(view: View) -> Mask:
    return ~view.dataset.annotations["crowd"].to_numpy(bool)


def _share(view: View) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return each box's share of its image's area, shape (N,); NaN where the image cannot be read."""
    with np.errstate(all="ignore"):
        return view.side_wh.prod(axis=1) / view.image_wh.prod(axis=1)


def _tiny(view: View, settings: CheckSettings) -> Mask:
    return _judgeable(view) & (view.side_wh < settings.tiny_px).any(axis=1)


def _giant(view: View, settings: CheckSettings) -> Mask:
    return _judgeable(view) & _single(view) & (_share(view) > settings.giant_share) & ~_tiny(view, settings)


def _size(wh: np.ndarray[tuple[int], np.dtype[np.float64]]) -> str:
    return f"{number(float(wh[0]))} x {number(float(wh[1]))}"
