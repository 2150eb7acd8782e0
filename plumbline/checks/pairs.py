"""Finders for two labels of one image that say nearly the same, or that contradict each other."""

from __future__ import annotations

import numpy as np
import pandas as pd

from plumbline.boxes import Boxes, paired_iou
from plumbline.checks.view import CheckSettings, Floats, Ints, Mask, View, box_findings, corners
from plumbline.faults import NEAR_DUPLICATE_BOX, TWO_CLASSES


def find_near_duplicate_box(view: View, settings: CheckSettings) -> pd.DataFrame:
    """Find boxes that nearly cover an earlier one of the same class; exact repeats have a code of their own."""
    rows, a, b, iou = _pairs(view, settings.near_duplicate_iou)
    class_ids = view.dataset.annotations["class_id"].to_numpy(np.int64)
    same = class_ids[rows[a]] == class_ids[rows[b]]
    later, earlier, ious = _later_ones(view, rows[a[same]], rows[b[same]], iou[same])
    names = view.dataset.annotations["class_name"].to_numpy()[later]
    messages = [
        f"box nearly covers another, expected every object once, got {name!r} at {corners(row)} with IoU {iou:.3f} to"
        f" {place}"
        for name, row, place, iou in zip(names, view.xyxy[later], _places(view, earlier), ious, strict=True)
    ]
    return box_findings(NEAR_DUPLICATE_BOX, view.dataset, _mask(view, later), messages)


def find_two_classes(view: View, settings: CheckSettings) -> pd.DataFrame:
    """Find boxes that nearly cover an earlier one of another class, and images labelled with two classes."""
    rows, a, b, iou = _pairs(view, settings.two_classes_iou)
    class_ids = view.dataset.annotations["class_id"].to_numpy(np.int64)
    other = class_ids[rows[a]] != class_ids[rows[b]]
    later, earlier, ious = _later_ones(view, rows[a[other]], rows[b[other]], iou[other])
    names = view.dataset.annotations["class_name"].to_numpy()
    of_boxes = [
        f"two classes on one box, expected one, got {names[row]!r} with IoU {iou:.3f} to {names[first]!r}, {place}"
        for row, first, place, iou in zip(later, earlier, _places(view, earlier), ious, strict=True)
    ]
    found = box_findings(TWO_CLASSES, view.dataset, _mask(view, later), of_boxes)
    labels, firsts = _contradicting_labels(view)
    of_images = [
        f"two classes on one image, expected one, got {names[row]!r} after {names[first]!r}"
        for row, first in zip(labels, firsts, strict=True)
    ]
    return pd.concat([found, box_findings(TWO_CLASSES, view.dataset, _mask(view, labels), of_images)])


def overlapping_pairs(groups: Ints, xyxy: Boxes, min_iou: float) -> tuple[Ints, Ints, Floats]:
    """Return every pair of boxes of one group that overlap by so much, and their intersection over union.

    Boxes are sorted by group and left edge. Since IoU >= t needs the later left edge to lie within (1 - t) of the
    earlier box's width, only such neighbours are compared: first each box with the next, then with the one after, as
    long as there are any. 10 million boxes of a million images take seconds.

    Args:
        groups: Shape (N,), the image of each box.
        xyxy: Shape (N, 4), pixels, all with area.
        min_iou: Above 0.

    Returns:
        Indices of the two boxes and their IoU, shape (P,) each, in no particular order.

    >>> boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [50, 0, 60, 10.0]])
    >>> a, b, iou = overlapping_pairs(np.array([0, 0, 0]), boxes, 0.9)
    >>> a.tolist(), b.tolist(), iou.tolist()
    ([0], [1], [0.9])
    """
    order = np.lexsort((xyxy[:, 0], groups))
    group, box = groups[order], xyxy[order]
    # A little more than (1 - t), so that rounding loses no pair.
    reach = box[:, 0] + (box[:, 2] - box[:, 0]) * (1 - min_iou + 1e-9)
    active = np.arange(len(order) - 1)
    found: list[tuple[Ints, Ints, Floats]] = []
    step = 0
    while len(active):
        step += 1
        active = active[: np.searchsorted(active, len(order) - step)]
        near = (group[active] == group[active + step]) & (box[active + step, 0] <= reach[active])
        active = active[near]
        iou = paired_iou(box[active], box[active + step])
        hit = iou >= min_iou
        found.append((order[active[hit]], order[active[hit] + step], iou[hit]))
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    first, second, ious = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return first, second, ious


def _pairs(view: View, min_iou: float) -> tuple[Ints, Ints, Ints, Floats]:
    """Return the rows that are compared, and `overlapping_pairs` among them."""
    boxes = view.dataset.annotations
    # A repeat is found as one; what has no class is left out; a crowd covers what it likes.
    compared = view.is_sound & ~view.is_repeat & (boxes["class_id"] >= 0).to_numpy() & ~boxes["crowd"].to_numpy(bool)
    rows = np.flatnonzero(compared)
    return rows, *overlapping_pairs(boxes["image_id"].to_numpy(np.int64)[rows], view.xyxy[rows], min_iou)


def _later_ones(view: View, a: Ints, b: Ints, iou: Floats) -> tuple[Ints, Ints, Floats]:
    """Return each row that is the later of a pair, once and ascending, with the row it overlaps most, and that IoU."""
    ann_ids = view.dataset.annotations["ann_id"].to_numpy(np.int64)
    a_is_later = ann_ids[a] > ann_ids[b]
    later, earlier = np.where(a_is_later, a, b), np.where(a_is_later, b, a)
    order = np.lexsort((ann_ids[earlier], -iou, later))
    later, earlier, iou = later[order], earlier[order], iou[order]
    _, first = np.unique(later, return_index=True)
    return later[first], earlier[first], iou[first]


def _contradicting_labels(view: View) -> tuple[Ints, Ints]:
    """Return the rows of labels of whole images that another one contradicts, and the row of the first for each."""
    boxes = view.dataset.annotations
    rows = np.flatnonzero(~view.is_box & (boxes["class_id"] >= 0).to_numpy())
    labels = boxes.iloc[rows][["image_id", "ann_id", "class_id"]].assign(row=rows).sort_values("ann_id")
    firsts = labels.groupby("image_id")[["class_id", "row"]].transform("first")
    other = (labels["class_id"] != firsts["class_id"]).to_numpy()
    rows, first = labels["row"].to_numpy(np.int64)[other], firsts["row"].to_numpy(np.int64)[other]
    order = np.argsort(rows)
    return rows[order], first[order]


def _mask(view: View, rows: Ints) -> Mask:
    mask = np.zeros(len(view.dataset.annotations), dtype=bool)
    mask[rows] = True
    return mask


def _places(view: View, rows: Ints) -> list[str]:
    """Render where each of the rows is written, by its line where the format has lines."""
    lines = view.dataset.annotations["source_line"].to_numpy(np.int64)[rows].tolist()
    places = zip(lines, view.xyxy[rows], strict=True)
    return [f"that of line {line}" if line > 0 else f"that at {corners(row)}" for line, row in places]
