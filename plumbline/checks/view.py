"""What the finders are given: the thresholds, and the tables with what several of them need computed once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from plumbline.boxes import Boxes
from plumbline.manifest import FINDINGS_SCHEMA, Dataset

XYXY = ["x1", "y1", "x2", "y2"]

# A corner so little outside is what six decimals of a YOLO row leave of the border of a large image.
ROUNDING_PX = 0.01

# ultralytics leaves smaller images out of training.
SMALLEST_SIDE = 10  # pixels

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class CheckSettings:
    """How strict the gate is; the values are those of params.yaml's `validate` and `near_duplicates`.

    Attributes:
        severity: Code -> error, warning or off, for every code of `plumbline.faults.FAULTS`.
        fix: Codes of `plumbline.checks.repairs.REPAIRS` to repair.
        undo: The edit_id of each repair that shall not be made.
        clip_px: A corner outside its image by no more pixels may be moved onto the border.
        tiny_px: A box with a side of fewer pixels is tiny.
        giant_share: A box of more than this share of its image's area is giant.
        extreme_aspect: The longer side of a box divided by the shorter, above which it is extreme.
        near_duplicate_iou: Boxes of one class with at least this intersection over union are near-duplicates.
        two_classes_iou: Boxes of two classes with at least this intersection over union are one box.
        min_boxes_per_class: A class of fewer boxes is small.
        max_imbalance: Boxes of the commonest class divided by a class's own, above which that class is rare.
        max_hash_bits: Images whose perceptual hashes differ by no more bits are near-duplicates.
    """

    severity: Mapping[str, str]
    fix: tuple[str, ...]
    undo: tuple[str, ...]
    clip_px: float
    tiny_px: float
    giant_share: float
    extreme_aspect: float
    near_duplicate_iou: float
    two_classes_iou: float
    min_boxes_per_class: int
    max_imbalance: float
    max_hash_bits: int


@dataclass(frozen=True)
class View:
    """A dataset with the geometry of its boxes; every array has one row per row of `dataset.annotations`.

    Of what is wrong with a box, the first of these explains the rest, and the later ones do not find it: no box at
    all (a label of the whole image), no area, reversed corners, outside its image, tiny, giant, extremely long. An
    image that cannot be read, or is tiny, goes with its boxes, so that nothing is said of where they lie on it.
    """

    dataset: Dataset

    @cached_property
    def xyxy(self) -> Floats:
        """Corners, shape (N, 4), pixels."""
        return self.dataset.annotations[XYXY].to_numpy(np.float64)

    @cached_property
    def side_wh(self) -> Floats:
        """Width and height, shape (N, 2), pixels; negative where corners are reversed."""
        return self.xyxy[:, 2:] - self.xyxy[:, :2]

    @cached_property
    def is_box(self) -> Mask:
        """False for a label of the whole image, which has no corner."""
        return np.asarray(~np.isnan(self.xyxy).all(axis=1), dtype=bool)

    @cached_property
    def no_area(self) -> Mask:
        """A side of exactly 0, or a corner that is no number."""
        return self.is_box & ~(np.abs(self.side_wh) > 0).all(axis=1)

    @cached_property
    def is_reversed(self) -> Mask:
        """A right corner left of the left one, or a lower one above, in a box with area."""
        return self.is_box & ~self.no_area & (self.side_wh < 0).any(axis=1)

    @cached_property
    def is_sound(self) -> Mask:
        """A box with area and its corners in order."""
        return self.is_box & (self.side_wh > 0).all(axis=1)

    @cached_property
    def image_row(self) -> Ints:
        """Row of the box's image in `dataset.images`; -1 where there is none."""
        rows = pd.Index(self.dataset.images["image_id"]).get_indexer(self.dataset.annotations["image_id"])
        return rows.astype(np.int64)

    @cached_property
    def image_wh(self) -> Floats:
        """Width and height of the box's image, shape (N, 2), pixels; NaN where it cannot be read, or is tiny."""
        images = self.dataset.images
        wh = images[["width", "height"]].to_numpy(np.float64, copy=True)
        wh[~images["readable"].to_numpy(bool) | is_tiny(images)] = np.nan
        # Row -1, of a box without an image, is the last one.
        return np.concatenate([wh, np.full((1, 2), np.nan)])[self.image_row]

    @cached_property
    def on_image(self) -> Floats:
        """Corners moved onto the image, shape (N, 4), pixels; NaN where `image_wh` is."""
        return np.minimum(np.maximum(self.xyxy, 0.0), np.tile(self.image_wh, 2))

    @cached_property
    def outside_px(self) -> Floats:
        """How far the corner that is farthest outside is, pixels; 0 for none, and where that cannot be known."""
        with np.errstate(invalid="ignore"):
            far = np.abs(self.xyxy - self.on_image).max(axis=1, initial=0.0)
        return np.where(self.is_sound & ~np.isnan(far), far, 0.0)

    @cached_property
    def is_outside(self) -> Mask:
        """A sound box with a corner outside its image by more than rounding."""
        return self.outside_px > ROUNDING_PX

    @cached_property
    def is_inside(self) -> Mask:
        """A sound box whose every corner is on its image, as far as that can be known."""
        return self.is_sound & ~self.is_outside

    def clippable(self, clip_px: float) -> Mask:
        """Boxes outside by no more than so many pixels, of which clipping leaves something."""
        left = (self.on_image[:, 2:] > self.on_image[:, :2]).all(axis=1)
        return self.is_outside & (self.outside_px <= clip_px) & left

    @cached_property
    def is_repeat(self) -> Mask:
        """The second and later sound boxes of one image, class and corners, in the order of ann_id."""
        boxes = self.dataset.annotations
        rows = np.flatnonzero(self.is_sound)
        # Equal boxes have equal sums, and sums are quick to compare: only what shares one is looked at in full.
        sums = pd.DataFrame({"image": boxes["image_id"].to_numpy()[rows], "sum": self.xyxy[rows].sum(axis=1)})
        rows = rows[sums.duplicated(keep=False).to_numpy()]
        keys = boxes.iloc[rows][["image_id", "ann_id", "class_id", "crowd"]].reset_index(drop=True)
        # Two unknown classes have one class_id, and yet are not the same.
        keys["name"] = boxes["class_name"].iloc[rows].where(boxes["class_id"].iloc[rows] < 0, "").to_numpy()
        keys[XYXY] = self.xyxy[rows]
        keys = keys.sort_values("ann_id")
        again = keys.duplicated(["image_id", "class_id", "name", "crowd", *XYXY])
        repeats = np.zeros(len(boxes), dtype=bool)
        repeats[rows[keys.index[again].to_numpy(np.int64)]] = True
        return repeats


def box_findings(code: str, dataset: Dataset, mask: Mask, messages: list[str]) -> pd.DataFrame:
    """Return one finding for each masked row of `dataset.annotations`; the messages are in the order of those rows."""
    boxes = dataset.annotations.loc[mask, ["source_file", "source_line", "image_id", "ann_id"]]
    return boxes.assign(code=code, severity="", message=messages)[FINDINGS_SCHEMA.names]


def image_findings(code: str, images: pd.DataFrame, messages: list[str]) -> pd.DataFrame:
    """Return one finding for each row of `images`, with the file that it was made from."""
    filled = images[["image_id"]].assign(code=code, severity="", source_file=images["source"], source_line=0)
    return filled.assign(ann_id=-1, message=messages)[FINDINGS_SCHEMA.names]


def readable_images(dataset: Dataset) -> pd.DataFrame:
    """Return the images that were decoded, by image_id: an unreadable one says nothing about its content."""
    return dataset.images[dataset.images["readable"].to_numpy(bool)].sort_values("image_id")


def is_tiny(images: pd.DataFrame) -> Mask:
    """Say of each image whether it is too small to train on; an unreadable one has no size, and is."""
    return (images[["width", "height"]].to_numpy(np.int64) < SMALLEST_SIDE).any(axis=1)


def corners(row: Boxes) -> str:
    """Render one box, in pixels.

    >>> corners(np.array([0.0, 1.25, 10.0, 1e9]))
    '(x1, y1, x2, y2) = (0, 1.25, 10, 1000000000)'
    """
    return f"(x1, y1, x2, y2) = ({', '.join(number(float(value)) for value in row)})"


def number(value: float) -> str:
    """Render a number with up to three decimals.

    >>> number(1.0), number(0.12345), number(float("nan"))
    ('1', '0.123', 'nan')
    """
    return f"{round(value, 3):.12g}" if math.isfinite(value) else str(value)
