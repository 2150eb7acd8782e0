"""Finders for images: unreadable, damaged, tiny, the same bytes twice, nearly the same picture."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from plumbline.checks.view import (
    SMALLEST_SIDE,
    XYXY,
    CheckSettings,
    View,
    image_findings,
    is_tiny,
    readable_images,
)
from plumbline.faults import (
    DAMAGED_IMAGE,
    DUPLICATE_IMAGE,
    DUPLICATE_IMAGE_OTHER_LABELS,
    NEAR_DUPLICATE_IMAGE,
    TINY_IMAGE,
    UNREADABLE_IMAGE,
)
from plumbline.near_duplicates import near_pairs

# Two labels of one image are equal when no corner differs by more; conversions between formats round.
_LABEL_STEPS_PER_PX = 10


def find_unreadable_image(view: View, settings: CheckSettings) -> pd.DataFrame:  # noqa: ARG001
    """Find files that are no image, or not one that can be decoded."""
    images = view.dataset.images
    bad = images[~images["readable"].to_numpy(bool) & ~images["damaged"].to_numpy(bool)]
    messages = [f"image cannot be decoded ({_because(why)}), expected a whole image" for why in bad["problem"]]
    return image_findings(UNREADABLE_IMAGE, bad, messages)


def find_damaged_image(view: View, settings: CheckSettings) -> pd.DataFrame:  # noqa: ARG001
    """Find images whose content is cut short or damaged."""
    images = view.dataset.images
    bad = images[~images["readable"].to_numpy(bool) & images["damaged"].to_numpy(bool)]
    messages = [f"image is damaged ({_because(why)}), expected a whole image" for why in bad["problem"]]
    return image_findings(DAMAGED_IMAGE, bad, messages)


def find_tiny_image(view: View, settings: CheckSettings) -> pd.DataFrame:  # noqa: ARG001
    """Find readable images with a side of fewer than `SMALLEST_SIDE` pixels."""
    images = readable_images(view.dataset)
    tiny = images[is_tiny(images)]
    messages = [
        f"image is tiny, expected sides of {SMALLEST_SIDE} pixels or more, got {width} x {height}"
        for width, height in zip(tiny["width"], tiny["height"], strict=True)
    ]
    return image_findings(TINY_IMAGE, tiny, messages)


def find_duplicate_image(view: View, settings: CheckSettings) -> pd.DataFrame:  # noqa: ARG001
    """Find the second and later images of equal bytes whose labels are those of the first, the lowest image_id."""
    again, first = _same_bytes(view)
    same = _label_keys(view, again["image_id"]) == _label_keys(view, first["image_id"])
    messages = [
        f"image has been seen before, expected every image once, got the bytes and labels of {path}"
        for path in first["source"][same]
    ]
    return image_findings(DUPLICATE_IMAGE, again[same], messages)


def find_duplicate_image_other_labels(view: View, settings: CheckSettings) -> pd.DataFrame:  # noqa: ARG001
    """Find the second and later images of equal bytes whose labels are not those of the first."""
    again, first = _same_bytes(view)
    other = _label_keys(view, again["image_id"]) != _label_keys(view, first["image_id"])
    counts = view.dataset.annotations["image_id"].value_counts()
    here, there = (counts.reindex(rows["image_id"][other], fill_value=0) for rows in (again, first))
    messages = [
        f"image has the bytes of {path} and other labels, expected the same, got {_labels(a)} here and {b} there"
        for path, a, b in zip(first["source"][other], here, there, strict=True)
    ]
    return image_findings(DUPLICATE_IMAGE_OTHER_LABELS, again[other], messages)


def find_near_duplicate_image(view: View, settings: CheckSettings) -> pd.DataFrame:
    """Find images whose perceptual hash is nearly that of another; equal bytes have a code of their own."""
    images = readable_images(view.dataset)
    # A tiny image goes anyway, and has too little in it for a hash.
    images = images[~is_tiny(images)].drop_duplicates("sha256")
    other = first_near(images["phash"].to_numpy(np.uint64), settings.max_hash_bits)
    found = images[other >= 0]
    twins = images.iloc[other[other >= 0]]
    bits = np.bitwise_count(found["phash"].to_numpy(np.uint64) ^ twins["phash"].to_numpy(np.uint64))
    messages = [
        f"image looks like {path}, expected hashes that differ by more than {settings.max_hash_bits} bits, got {n}"
        for path, n in zip(twins["source"], bits, strict=True)
    ]
    return image_findings(NEAR_DUPLICATE_IMAGE, found, messages)


def first_near(hashes: npt.NDArray[np.uint64], max_bits: int) -> npt.NDArray[np.int64]:
    """Return for each hash the index of the first other one that is near, shape (N,); -1 where there is none.

    Args:
        hashes: Shape (N,), 64-bit.
        max_bits: Largest Hamming distance that is near.

    >>> first_near(np.array([0, 255, 1, 0], np.uint64), 1).tolist()
    [2, -1, 0, 0]
    """
    none = len(hashes)
    # A folder of black frames has one hash for all: distinct ones are compared, or it would be all with all.
    distinct, which = np.unique(hashes, return_inverse=True)
    first, second = np.full((2, len(distinct)), none, dtype=np.int64)
    rows = np.arange(len(hashes))
    np.minimum.at(first, which, rows)
    later = rows[first[which] != rows]
    np.minimum.at(second, which[later], later)
    near = np.full(len(distinct), none, dtype=np.int64)
    for a, b in near_pairs(distinct, max_bits):
        np.minimum.at(near, a, first[b])
        np.minimum.at(near, b, first[a])
    own = np.where(first[which] == rows, second[which], first[which])
    best = np.minimum(own, near[which])
    return np.where(best == none, -1, best)


def _same_bytes(view: View) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the second and later images of equal bytes, and beside each, with its index, the first of them."""
    images = readable_images(view.dataset)
    again = images[images.duplicated("sha256")]
    first = images.drop_duplicates("sha256").set_index("sha256").loc[again["sha256"]]
    return again, first.set_index(again.index)


def _label_keys(view: View, image_ids: pd.Series[int]) -> npt.NDArray[np.object_]:
    """Return a key of each image's labels, which is equal for equal multisets of classes and rounded corners."""
    if image_ids.empty:
        return np.empty(0, dtype=object)
    boxes = view.dataset.annotations
    rows = np.flatnonzero(boxes["image_id"].isin(image_ids.unique()).to_numpy())
    steps = np.nan_to_num(view.xyxy[rows] * _LABEL_STEPS_PER_PX, nan=-1e15, posinf=1e15, neginf=-1e15)
    labels = pd.DataFrame(np.rint(steps), columns=XYXY).assign(
        image_id=boxes["image_id"].to_numpy()[rows],
        class_id=boxes["class_id"].to_numpy()[rows],
        name=boxes["class_name"].where(boxes["class_id"] < 0, "").to_numpy()[rows],
    )
    columns = ["class_id", "name", *XYXY]
    labels = labels.sort_values(["image_id", *columns])
    keys: dict[int, list[tuple[object, ...]]] = {}
    for image_id, key in zip(labels["image_id"], labels[columns].itertuples(index=False, name=None), strict=True):
        keys.setdefault(image_id, []).append(key)
    array = np.empty(len(image_ids), dtype=object)
    array[:] = [tuple(keys.get(image_id, ())) for image_id in image_ids]
    return array


def _labels(count: int) -> str:
    return f"{count} label" if count == 1 else f"{count} labels"


def _because(problem: str) -> str:
    return problem or "for a reason that the scan did not tell"
