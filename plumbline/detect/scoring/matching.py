"""Which detection finds which box: COCO's matching, of all images at once.

Everything that is said of detections comes from here: mAP, precision and recall, the bootstrap, the curves and the
worst misses read the same flags. It is pycocotools' matching to the last bit, also of overlaps that lie exactly on a
threshold and of equal ones, but as arrays over all images: pycocotools walks through every image, class, area range and
IoU in Python.

Crowds are COCO's: a detection on a crowd, measured by the share of the detection that lies in it, is ignored, and a
crowd takes any number of them. Boxes that are ignored for another reason (their area, or a label that calls them
difficult) take one detection each, at the usual overlap. A detection takes such a box only when no counted one is left
for it.

Source: `evaluateImg` of https://github.com/cocodataset/cocoapi/blob/master/PythonAPI/pycocotools/cocoeval.py and
`bbIou` of https://github.com/cocodataset/cocoapi/blob/master/common/maskApi.c
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from plumbline.boxes import xyxy_to_xywh

XYXY = ["x1", "y1", "x2", "y2"]
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
IOU_50, IOU_75 = 0, 5  # places in IOU_THRESHOLDS
# Of a box's width times height, square pixels, both ends included; COCO's. COCO's own labels bring the area of a mask,
# which boxes do not have.
AREAS: Mapping[str, tuple[float, float]] = {
    "all": (0.0, 1e10),
    "small": (0.0, 32.0**2),
    "medium": (32.0**2, 96.0**2),
    "large": (96.0**2, 1e10),
}
ALL_AREAS = {"all": AREAS["all"]}
_MOST_PAIRS = 4_000_000  # of a detection and a box that are held at once: about 500 MB

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class AreaMatches:
    """What was found among the boxes of one range of areas; N detections and M boxes in the order of `Matches`.

    Attributes:
        hits: Shape (10, N), bool, by IoU threshold: the detection found a counted box.
        ignored: Shape (10, N), bool: it is neither a hit nor a false alarm.
        box: Shape (10, N), int32: the box that it took, counted or not; -1 for none.
        counted: Shape (M,), bool: the box counts as found or missed.
    """

    hits: Flags
    ignored: Flags
    box: npt.NDArray[np.int32]
    counted: Flags

    def found(self, threshold: int) -> Flags:
        """Return which boxes a detection took at one of the IoU thresholds, shape (M,), bool."""
        taken = np.zeros(len(self.counted), dtype=bool)
        taken[self.box[threshold][self.box[threshold] >= 0]] = True
        return taken


@dataclass(frozen=True)
class Matches:
    """All detections and boxes of the images scored, and what they have to do with each other.

    Detections stand in the order of class_id, then falling confidence, then image_id, then coordinates; boxes in that
    of image_id, class_id, coordinates. So the order of the rows given does not matter.

    Attributes:
        row: Shape (N,), place of the detection in the table given.
        image_id: Shape (N,).
        class_id: Shape (N,).
        confidence: Shape (N,), of the type given.
        rank: Shape (N,), 0 for the most confident of its image and class; COCO's maxDets 100 counts those below 100.
        class_start: Shape (num_classes + 1,): the detections of class c are ``class_start[c]:class_start[c + 1]``.
        box_row: Shape (M,), place of the box in the table given.
        box_image_id: Shape (M,).
        box_class_id: Shape (M,).
        areas: Name of a range -> what was found there.
    """

    row: Ints
    image_id: Ints
    class_id: Ints
    confidence: npt.NDArray[np.floating[Any]]
    rank: Ints
    class_start: Ints
    box_row: Ints
    box_image_id: Ints
    box_class_id: Ints
    areas: dict[str, AreaMatches]

    @property
    def num_classes(self) -> int:
        """Return how many classes there are."""
        return len(self.class_start) - 1

    def num_counted(self, area: str = "all") -> Ints:
        """Return the counted boxes of each class, shape (num_classes,)."""
        return np.bincount(self.box_class_id[self.areas[area].counted], minlength=self.num_classes)

    def counted_at_50(self) -> tuple[npt.NDArray[np.floating[Any]], Flags]:
        """Return confidence and hits at IoU 0.5 of the detections that are not ignored."""
        kept = ~self.areas["all"].ignored[IOU_50]
        return self.confidence[kept], self.areas["all"].hits[IOU_50][kept]


@dataclass(frozen=True)
class _Boxes:
    """Boxes in the order of image and class.

    Attributes:
        row: Shape (N,), place in the table given.
        key: Shape (N,), rising: number of the image times the number of classes, plus the class.
        xywh: Shape (4, N): left, top, width, height in pixels.
        area: Shape (N,).
    """

    row: Ints
    key: Ints
    xywh: Floats
    area: Floats


@dataclass(frozen=True)
class _Pairs:
    """Detections and boxes of one image and class that overlap by half or more: what may be a match.

    Attributes:
        found: Shape (P,), of a detection, rising.
        truth: Shape (P,), of a box; those of a detection in the order of preference: more overlap, then the later box.
        iou: Shape (P,).
    """

    found: Ints
    truth: Ints
    iou: Floats


def match(
    truth: pd.DataFrame,
    found: pd.DataFrame,
    image_ids: Sequence[int] | npt.NDArray[np.integer[Any]],
    num_classes: int,
    *,
    difficult: str = "count",
    areas: Mapping[str, tuple[float, float]] = AREAS,
) -> Matches:
    """Give every detection the box that COCO's protocol gives it, at each IoU threshold and in each range of areas.

    Args:
        truth: Columns image_id, class_id (0..num_classes - 1), x1, y1, x2, y2 (pixels, finite); crowd and difficult
            where there are such. Rows of other images are left alone.
        found: The same columns and confidence; rows of other images are left alone.
        image_ids: The images to score.
        num_classes: How many classes there are.
        difficult: ``count`` such boxes as any other, or ``ignore`` them.
        areas: Name -> smallest and largest area of the boxes that count.
    """
    ids = np.unique(np.asarray(image_ids, dtype=np.int64))
    crowd, hard = flags(truth, "crowd"), flags(truth, "difficult")
    boxes = _in_order(truth, ids, num_classes, np.zeros(len(truth)), crowd, hard)
    confidence = confidence_of(found)
    seen = _in_order(found, ids, num_classes, -confidence)
    crowd = crowd[boxes.row]
    ignored = crowd | hard[boxes.row] if difficult == "ignore" else crowd
    pairs = _overlapping(seen, boxes, crowd)
    # From the order of images to that of `Matches`.
    order = np.lexsort((-confidence[seen.row], seen.key % num_classes))
    class_id, box_class_id = seen.key[order] % num_classes, boxes.key % num_classes
    first = np.flatnonzero(np.diff(seen.key, prepend=-1))
    rank = np.arange(len(seen.key)) - np.repeat(first, np.diff(first, append=len(seen.key)))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    return Matches(
        row=seen.row[order],
        image_id=ids[seen.key[order] // num_classes],
        class_id=class_id,
        confidence=confidence[seen.row[order]],
        rank=rank[order],
        class_start=np.searchsorted(class_id, np.arange(num_classes + 1)),
        box_row=boxes.row,
        box_image_id=ids[boxes.key // num_classes],
        box_class_id=box_class_id,
        areas={
            name: _match_area(
                seen, pairs, place, ignored=ignored | _outside(boxes.area, limits), crowd=crowd, limits=limits
            )
            for name, limits in areas.items()
        },
    )


def flags(frame: pd.DataFrame, column: str) -> Flags:
    """Return a column of flags, shape (N,); all False where the table has none."""
    return frame[column].to_numpy(bool) if column in frame else np.zeros(len(frame), dtype=bool)


def confidence_of(found: pd.DataFrame) -> npt.NDArray[np.floating[Any]]:
    """Return the confidences in their own type: what a session compares with a threshold as float32 stays float32."""
    confidence = found["confidence"].to_numpy()
    return confidence if confidence.dtype.kind == "f" else confidence.astype(np.float64)


def _in_order(
    frame: pd.DataFrame, ids: Ints, num_classes: int, first: npt.NDArray[np.floating[Any]], *last: Flags
) -> _Boxes:
    """Sort the boxes of the images by image and class, then by `first`, their coordinates and `last`."""
    image_id = frame["image_id"].to_numpy(np.int64)
    number = np.searchsorted(ids, image_id)
    rows = np.flatnonzero((number < len(ids)) & (ids[np.minimum(number, len(ids) - 1)] == image_id))
    key = (number * num_classes + frame["class_id"].to_numpy(np.int64))[rows]
    xyxy = frame[XYXY].to_numpy(np.float64)
    order = np.lexsort((first[rows], key))
    # Equal confidences within an image and class are rare: only these rows are sorted by all that they have.
    equal = (np.diff(key[order]) == 0) & (np.diff(first[rows][order]) == 0)
    tied = np.flatnonzero(np.append(equal, False) | np.append(False, equal))
    own = rows[order[tied]]
    keys = [*(flag[own] for flag in reversed(last)), *xyxy[own].T[::-1], first[own], key[order[tied]]]
    order[tied] = order[tied][np.lexsort(keys)]
    rows, key = rows[order], key[order]
    xywh: Floats = np.ascontiguousarray(xyxy_to_xywh(xyxy[rows]).T)
    return _Boxes(rows, key, xywh, xywh[2] * xywh[3])


def _outside(area: Floats, limits: tuple[float, float]) -> Flags:
    return (area < limits[0]) | (area > limits[1])


def _overlapping(seen: _Boxes, boxes: _Boxes, crowd: Flags) -> _Pairs:
    """Return the pairs of one image and class with an IoU of the lowest threshold or more."""
    keys, starts, counts = np.unique(boxes.key, return_index=True, return_counts=True)
    group = np.searchsorted(keys, seen.key)
    known = np.flatnonzero(np.append(keys, -1)[group] == seen.key)
    starts, counts = starts[group[known]], counts[group[known]]
    # Of many images at once: as many whole detections as make so many pairs.
    cuts = np.append(np.flatnonzero(np.diff(np.cumsum(counts) // _MOST_PAIRS, prepend=-1)), len(known))
    parts = [_Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    for begin, end in itertools.pairwise(cuts.tolist()):
        count = counts[begin:end]
        found = np.repeat(known[begin:end], count)
        truth = np.arange(len(found)) + np.repeat(starts[begin:end] - (np.cumsum(count) - count), count)
        iou = _iou(seen, found, boxes, truth, crowd)
        near = np.flatnonzero(iou >= IOU_THRESHOLDS[0])
        near = near[np.lexsort((-truth[near], -iou[near], found[near]))]
        parts.append(_Pairs(found[near], truth[near], iou[near]))
    return _Pairs(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("found", "truth", "iou")))


def _iou(seen: _Boxes, found: Ints, boxes: _Boxes, truth: Ints, crowd: Flags) -> Floats:
    """Return the overlap of each pair with pycocotools' own arithmetic, so that equal numbers stay equal.

    That is: the right edge is left plus width, which need not be the x2 that the width came from.
    """
    sides = []
    for low, extent in ((0, 2), (1, 3)):
        a, b = seen.xywh[low][found], boxes.xywh[low][truth]
        end = np.minimum(seen.xywh[extent][found] + a, boxes.xywh[extent][truth] + b)
        sides.append(np.maximum(end - np.maximum(a, b), 0.0))
    inter = sides[0] * sides[1]
    union = seen.area[found]
    union = np.where(crowd[truth], union, union + boxes.area[truth] - inter)
    return np.divide(inter, union, out=np.zeros(len(inter)), where=inter > 0)


def _match_area(
    seen: _Boxes, pairs: _Pairs, place: Ints, *, ignored: Flags, crowd: Flags, limits: tuple[float, float]
) -> AreaMatches:
    """Match at every threshold, and bring the flags into the order of `Matches`.

    Args:
        seen: The detections.
        pairs: What may be a match.
        place: Shape (N,), of each detection in `Matches`.
        ignored: Shape (M,): boxes that do not count.
        crowd: Shape (M,).
        limits: Of the area.
    """
    found, taken = _assign(seen.key, pairs, ignored, crowd)
    shape = (len(IOU_THRESHOLDS), len(place))
    box = np.full(shape, -1, dtype=np.int32)
    hits = np.zeros(shape, dtype=bool)
    outside = np.empty(len(place), dtype=bool)
    outside[place] = _outside(seen.area, limits)
    neither = np.broadcast_to(outside, shape).copy()
    columns, has = place[found], taken >= 0
    on_ignored = has & np.append(ignored, False)[taken]
    box[:, columns], hits[:, columns] = taken, has & ~on_ignored
    # A detection with a box is ignored with that box alone; its own area does not matter then.
    neither[:, columns] = on_ignored | (~has & neither[:, columns])
    return AreaMatches(hits, neither, box, ~ignored)


def _assign(key: Ints, pairs: _Pairs, ignored: Flags, crowd: Flags) -> tuple[Ints, npt.NDArray[np.int32]]:
    """Let the detections choose, the most confident of each image and class first, at all thresholds side by side.

    The first of all images and classes choose in one step, for they have no box in common; then the second of all, and
    so on.

    Returns:
        The detections that had a choice, shape (D,), and the box that each took, or -1, shape (10, D).
    """
    # Counted boxes first; within these the order of preference stays.
    order = np.lexsort((ignored[pairs.truth], pairs.found))
    found, first = np.unique(pairs.found, return_index=True)
    count = np.diff(first, append=len(pairs.found))
    new_group = np.flatnonzero(np.diff(key[found], prepend=-1))
    turn = np.arange(len(found)) - np.repeat(new_group, np.diff(new_group, append=len(found)))
    by_turn = np.argsort(turn, kind="stable")
    lengths = count[by_turn]
    starts = np.cumsum(lengths) - lengths
    order = order[np.arange(len(order)) + np.repeat(first[by_turn] - starts, lengths)]
    truth, iou = pairs.truth[order], pairs.iou[order]
    enough = iou[:, None] >= np.minimum(IOU_THRESHOLDS, 1 - 1e-10)
    free = np.ones((len(ignored), len(IOU_THRESHOLDS)), dtype=bool)
    chosen = np.full((len(found), len(IOU_THRESHOLDS)), -1, dtype=np.int32)
    turns = np.searchsorted(turn[by_turn], np.arange(int(turn.max(initial=-1)) + 2))
    bounds = np.append(starts, len(order))
    for begin, end in itertools.pairwise(turns.tolist()):
        part = slice(bounds[begin], bounds[end])
        can = enough[part] & free[truth[part]]
        wanted = np.where(can, np.arange(len(can), dtype=np.int32)[:, None], np.int32(len(can)))
        best = np.minimum.reduceat(wanted, starts[begin:end] - starts[begin], axis=0)
        took, threshold = np.nonzero(best < len(can))
        box = truth[part][best[took, threshold]]
        chosen[begin + took, threshold] = box
        single = ~crowd[box]
        free[box[single], threshold[single]] = False
    return found[by_turn], chosen.T
