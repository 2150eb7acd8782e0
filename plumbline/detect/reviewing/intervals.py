"""The scores of two revisions of a detector, with paired intervals: overall, by class, by size of boxes, by slice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from plumbline.detect.reporting import WORDS
from plumbline.detect.scoring.intervals import HEADLINE, sampled_class_map, sampled_map
from plumbline.detect.scoring.matching import ALL_AREAS, AREAS, IOU_50, Matches, match
from plumbline.review.differences import Difference, Pair, Weights, paired, slice_key, telling_slices
from plumbline.scores import BootstrapSettings
from plumbline.slices import Slice

Floats = npt.NDArray[np.float64]
SIZES = ("small", "medium", "large")
_MOST_WEIGHTS = 4_000_000  # of a detection in a sample that are held at once


def overall(pair: Pair, settings: BootstrapSettings) -> list[Difference]:
    """Give mAP, and precision, recall and F1 at each revision's own threshold, of all images."""
    sides = [_Side(pair, one, pair.images, settings) for one in ("base", "head")]
    found = paired(sides[0].overall, sides[1].overall, pair.images, settings, _chunk(pair))
    return [Difference("score", name, WORDS.score_of(name).title, each) for name, each in found.items()]


def details(pair: Pair, slices: Sequence[Slice], settings: BootstrapSettings) -> list[Difference]:
    """Give AP50-95 of each class, and mAP50-95 of each size of boxes and each slice of the images.

    Args:
        pair: The predictions.
        slices: Of ``pair.images``.
        settings: Of the bootstrap.
    """
    rows: list[Difference] = []
    sides = [_Side(pair, one, pair.images, settings) for one in ("base", "head")]
    found = paired(sides[0].by_class, sides[1].by_class, pair.images, settings, _chunk(pair))
    rows += [Difference("class", f"class_{name}_map50_95", name, each) for name, each in found.items()]
    found = paired(sides[0].by_size, sides[1].by_size, pair.images, settings, _chunk(pair))
    rows += [Difference("size", f"map_{name}", f"boxes: {name}", each) for name, each in found.items()]
    for part in telling_slices(slices):
        images = pair.images[part.images].reset_index(drop=True)
        sides = [_Side(pair, one, images, settings) for one in ("base", "head")]
        found = paired(sides[0].headline, sides[1].headline, images, settings, _chunk(pair))
        key, title = slice_key(part.column, part.name, HEADLINE[0]), f"{part.column}: {part.name}"
        rows += [Difference("slice", key, title, each) for each in found.values()]
    return rows


def _chunk(pair: Pair) -> int:
    return max(1, min(64, _MOST_WEIGHTS // max(len(pair.images), len(pair.base), len(pair.head), 1)))


class _Side:
    """One revision's detections, matched once, and its scores on samples of the images."""

    def __init__(self, pair: Pair, side: str, images: pd.DataFrame, settings: BootstrapSettings) -> None:
        self._images = images
        self._names = pair.class_names
        self._threshold = pair.base_threshold if side == "base" else pair.head_threshold
        found = pair.base if side == "base" else pair.head
        self._arguments = (pair.truth, found, images["image_id"].tolist(), len(pair.class_names))
        self._difficult = settings.difficult
        self._by_area: dict[str, Matches] = {}

    def _matches(self, area: str = "all") -> Matches:
        """Match, once for each range of areas, under the name that `sampled_map` reads."""
        if area not in self._by_area:
            areas: Mapping[str, tuple[float, float]] = {"all": AREAS[area]} if area != "all" else ALL_AREAS
            self._by_area[area] = match(*self._arguments, difficult=self._difficult, areas=areas)
        return self._by_area[area]

    def headline(self, weights: Weights) -> dict[str, Floats]:
        """Return mAP50-95."""
        return {HEADLINE[0]: sampled_map(self._matches(), self._images, weights)[0]}

    def overall(self, weights: Weights) -> dict[str, Floats]:
        """Return mAP, precision, recall and F1."""
        maps = dict(zip(HEADLINE, sampled_map(self._matches(), self._images, weights), strict=True))
        return {**maps, **self._at_threshold(weights)}

    def by_class(self, weights: Weights) -> dict[str, Floats]:
        """Return AP50-95 by class name."""
        return dict(zip(self._names, sampled_class_map(self._matches(), self._images, weights), strict=True))

    def by_size(self, weights: Weights) -> dict[str, Floats]:
        """Return mAP50-95 of the boxes of each size."""
        return {size: sampled_map(self._matches(size), self._images, weights)[0] for size in SIZES}

    def _at_threshold(self, weights: Weights) -> dict[str, Floats]:
        """Return precision, recall and F1 at IoU 0.5, of the detections that reach the threshold."""
        matches = self._matches()
        found = matches.areas["all"]
        shown = (matches.confidence >= self._threshold) & ~found.ignored[IOU_50]
        hits = weights @ self._per_image(matches.image_id[shown & found.hits[IOU_50]])
        given = weights @ self._per_image(matches.image_id[shown])
        boxes = weights @ self._per_image(matches.box_image_id[found.counted])
        with np.errstate(invalid="ignore", divide="ignore"):
            return {"precision": hits / given, "recall": hits / boxes, "f1": 2 * hits / (given + boxes)}

    def _per_image(self, image_id: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Count by row of the images table."""
        counts = pd.Series(image_id).value_counts()
        return self._images["image_id"].map(counts).fillna(0).to_numpy(np.int64)
