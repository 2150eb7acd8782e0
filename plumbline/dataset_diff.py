"""What changed between two datasets: images and labels added, removed and changed, by class.

**Images** are the same where their bytes are: at the same path first, then at another one (renamed). Of what is left,
those of the same path are one image whose content changed. The rest are removed or added, and their labels with them.

**Labels of the images in both** are the same where class and corners are. What is left is paired within its image, each
at most once: first those with the same corners (another class, so reclassified), then those of one class that overlap
by at least `MIN_IOU` (moved), then those of two classes that do (reclassified); of several, the pair that overlaps
most. Labels of whole images are paired in their order. The rest are removed or added. Pairs whose corners are equal but
whose flags or masks are not are changed in their details. Corners are the same within `SAME_PX`: less is rounding, such
as that of YOLO's fractions.

Classes are compared by name: their numbers are the order in which each dataset lists them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from plumbline.boxes import paired_iou
from plumbline.manifest import Dataset

MIN_IOU = 0.5
SAME_PX = 0.01
IMAGE_CHANGES = ("added", "removed", "changed", "renamed")
LABEL_CHANGES = ("added", "removed", "moved", "reclassified", "details")
# They add up: after = before + the next three - the three behind.
CLASS_COLUMNS = (
    "before",
    "after",
    "in_added_images",
    "added",
    "reclassified_to",
    "in_removed_images",
    "removed",
    "reclassified_from",
    "moved",
    "details",
)

_XYXY = ["x1", "y1", "x2", "y2"]
_CORNERS_A = ["x1_a", "y1_a", "x2_a", "y2_a"]
_CORNERS_B = ["x1_b", "y1_b", "x2_b", "y2_b"]
LABEL_COLUMNS = ["change", "path_a", "path_b", "class_a", "class_b", *_CORNERS_A, *_CORNERS_B, "iou"]

# Pairs of leftovers that are compared at a time: bounds the memory when two datasets have little in common.
_PAIRS_AT_A_TIME = 2_000_000

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class DatasetDiff:
    """What changed from dataset `a` to dataset `b`.

    Attributes:
        num_images: Of a and of b.
        num_labels: Of a and of b.
        class_names: Of a and of b.
        images: One row per change: ``change`` (one of `IMAGE_CHANGES`), ``path_a``, ``path_b`` ("" where there is
            none), sorted.
        labels: One row per change in an image of both: columns `LABEL_COLUMNS`; what has no side is "" and NaN, a label
            of a whole image has no corners; ``iou`` is 0 where there are not two boxes. Sorted by the order of
            `LABEL_CHANGES`, then by image and box.
        classes: One row per class that has a label on either side, by its name, columns `CLASS_COLUMNS`.
    """

    num_images: tuple[int, int]
    num_labels: tuple[int, int]
    class_names: tuple[tuple[str, ...], tuple[str, ...]]
    images: pd.DataFrame
    labels: pd.DataFrame
    classes: pd.DataFrame

    @property
    def is_empty(self) -> bool:
        """Say whether nothing changed."""
        return self.images.empty and self.labels.empty and self.class_names[0] == self.class_names[1]


def diff_datasets(a: Dataset, b: Dataset) -> DatasetDiff:
    """Compare two datasets; neither is changed."""
    pairs_a, pairs_b, by_content = _pair_images(a.images, b.images)
    names = sorted({*a.annotations["class_name"].unique(), *b.annotations["class_name"].unique()})
    side_a, side_b = _Side.of(a, pairs_a, names), _Side.of(b, pairs_b, names)
    labels = _label_changes(side_a, side_b, _match_labels(side_a, side_b))
    return DatasetDiff(
        num_images=(len(a.images), len(b.images)),
        num_labels=(len(a.annotations), len(b.annotations)),
        class_names=(a.class_names, b.class_names),
        images=_image_changes(a.images, b.images, pairs_a, pairs_b, by_content),
        labels=labels,
        classes=_count_classes(side_a, side_b, labels, names),
    )


# Images


def _pair_images(a: pd.DataFrame, b: pd.DataFrame) -> tuple[Ints, Ints, npt.NDArray[np.bool_]]:
    """Return the row numbers of the images in both, of a and of b, and whether the bytes are the same."""
    keys = [["sha256", "path"], ["sha256"], ["path"]]
    left, right = _numbered(a), _numbered(b)
    found: list[pd.DataFrame] = []
    for columns in keys:
        # Of several images of the same bytes, the first of a goes with the first of b.
        ranks = [frame.assign(rank=frame.groupby(columns, sort=False).cumcount()) for frame in (left, right)]
        pairs = ranks[0].merge(ranks[1], on=[*columns, "rank"], suffixes=("_a", "_b"))[["row_a", "row_b"]]
        found.append(pairs.assign(by_content="sha256" in columns))
        left = left[~left["row"].isin(pairs["row_a"])]
        right = right[~right["row"].isin(pairs["row_b"])]
    both = pd.concat(found).sort_values("row_a")
    return both["row_a"].to_numpy(np.int64), both["row_b"].to_numpy(np.int64), both["by_content"].to_numpy(bool)


def _numbered(images: pd.DataFrame) -> pd.DataFrame:
    frame = images[["path", "sha256"]].reset_index(drop=True)
    return frame.assign(row=np.arange(len(frame))).sort_values("path", kind="stable")


def _image_changes(
    a: pd.DataFrame, b: pd.DataFrame, pairs_a: Ints, pairs_b: Ints, by_content: npt.NDArray[np.bool_]
) -> pd.DataFrame:
    paths_a, paths_b = a["path"].to_numpy(object), b["path"].to_numpy(object)
    both_a, both_b = paths_a[pairs_a], paths_b[pairs_b]
    renamed = by_content & (both_a != both_b)
    only_a = np.setdiff1d(np.arange(len(a)), pairs_a)
    only_b = np.setdiff1d(np.arange(len(b)), pairs_b)
    frames = [
        pd.DataFrame({"change": "added", "path_a": "", "path_b": paths_b[only_b]}),
        pd.DataFrame({"change": "removed", "path_a": paths_a[only_a], "path_b": ""}),
        pd.DataFrame({"change": "changed", "path_a": both_a[~by_content], "path_b": both_b[~by_content]}),
        pd.DataFrame({"change": "renamed", "path_a": both_a[renamed], "path_b": both_b[renamed]}),
    ]
    return pd.concat([frame.sort_values(["path_a", "path_b"]) for frame in frames], ignore_index=True)


# Labels


@dataclass(frozen=True)
class _Side:
    """The labels of one dataset as arrays, one element per row of `frame`.

    Attributes:
        frame: The annotations.
        image: Number of the image among those in both; -1 where the other dataset does not have it.
        class_code: Number of the class' name among those of both.
        xyxy: Shape (N, 4), pixels; NaN for a label of the whole image.
        paths: Of the images in both, by their number.
    """

    frame: pd.DataFrame
    image: Ints
    class_code: Ints
    xyxy: Floats
    paths: npt.NDArray[np.object_]

    @classmethod
    def of(cls, dataset: Dataset, pairs: Ints, names: list[str]) -> _Side:
        number = pd.Series(np.arange(len(pairs)), index=dataset.images["image_id"].to_numpy()[pairs])
        image = number.reindex(dataset.annotations["image_id"]).fillna(-1).to_numpy(np.int64)
        xyxy = dataset.annotations[_XYXY].to_numpy(np.float64)
        class_code = pd.Index(names, dtype=object).get_indexer(dataset.annotations["class_name"]).astype(np.int64)
        return cls(dataset.annotations, image, class_code, xyxy, dataset.images["path"].to_numpy(object)[pairs])


@dataclass(frozen=True)
class _Matches:
    """Row numbers of labels: those that belong together, and those that are left, all in images of both."""

    pairs_a: Ints
    pairs_b: Ints
    only_a: Ints
    only_b: Ints


def _match_labels(a: _Side, b: _Side) -> _Matches:
    in_both_a, in_both_b = np.flatnonzero(a.image >= 0), np.flatnonzero(b.image >= 0)
    same_a, same_b = _match_exactly(_hashes(a)[in_both_a], _hashes(b)[in_both_b])
    same_a, same_b = in_both_a[same_a], in_both_b[same_b]
    # Two different labels may have one hash, about once in 100,000 comparisons of ten million labels: they go on.
    true = (a.image[same_a] == b.image[same_b]) & (a.class_code[same_a] == b.class_code[same_b])
    true &= _same_corners(a.xyxy[same_a], b.xyxy[same_b])
    same_a, same_b = same_a[true], same_b[true]
    left_a, left_b = _without(in_both_a, same_a, len(a.image)), _without(in_both_b, same_b, len(b.image))
    near_a, near_b = _match_leftovers(a, b, left_a, left_b)
    return _Matches(
        pairs_a=np.concatenate([same_a, near_a]),
        pairs_b=np.concatenate([same_b, near_b]),
        only_a=_without(left_a, near_a, len(a.image)),
        only_b=_without(left_b, near_b, len(b.image)),
    )


def _without(rows: Ints, others: Ints, num_rows: int) -> Ints:
    """Return those rows that are not among the others."""
    other = np.zeros(num_rows, dtype=bool)
    other[others] = True
    return rows[~other[rows]]


def _hashes(side: _Side) -> Hashes:
    """Return one number per label that tells image, class and rounded corners; shape (N,)."""
    # + 0.0 makes -0.0 a plain zero; and there is one NaN for all of them.
    with np.errstate(over="ignore"):
        rounded = np.round(side.xyxy / SAME_PX) + 0.0
    corners = np.where(np.isnan(rounded), np.nan, rounded).view(np.uint64)
    result = np.zeros(len(side.image), dtype=np.uint64)
    for values in (side.image.view(np.uint64), side.class_code.view(np.uint64), *corners.T):
        result = _mix(result ^ values)
    return result


def _mix(values: Hashes) -> Hashes:
    """Spread 64 bits, one to one.

    Source: S. Vigna's public-domain splitmix64, its finalizer.
    """
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _match_exactly(a: Hashes, b: Hashes) -> tuple[Ints, Ints]:
    """Pair equal numbers, each element once: the first of a with the first of b.

    >>> pairs = _match_exactly(np.array([7, 5, 5], np.uint64), np.array([5, 9, 5, 5], np.uint64))
    >>> [side.tolist() for side in pairs]
    [[1, 2], [0, 2]]
    """
    order_a, order_b = np.argsort(a, kind="stable"), np.argsort(b, kind="stable")
    sorted_a, sorted_b = a[order_a], b[order_b]
    # The k-th of its kind in a stands at the place of the k-th of its kind in b, if b has so many.
    place = np.searchsorted(sorted_b, sorted_a) + _rank_in_run(sorted_a)
    inside = place < len(sorted_b)
    inside[inside] = sorted_b[place[inside]] == sorted_a[inside]
    return order_a[inside], order_b[place[inside]]


def _rank_in_run(values: Hashes) -> Ints:
    """Count within runs of equal values.

    >>> _rank_in_run(np.array([3, 3, 3, 8], np.uint64)).tolist()
    [0, 1, 2, 0]
    """
    index = np.arange(len(values))
    starts = np.where(np.concatenate([[True], values[1:] != values[:-1]])[: len(values)], index, 0)
    return index - np.maximum.accumulate(starts)


def _same_corners(a: Floats, b: Floats) -> npt.NDArray[np.bool_]:
    return np.all((np.abs(a - b) <= SAME_PX) | (np.isnan(a) & np.isnan(b)), axis=1)


def _match_leftovers(a: _Side, b: _Side, left_a: Ints, left_b: Ints) -> tuple[Ints, Ints]:
    """Pair labels of one image that are not equal, as this module's head says."""
    found: list[tuple[Ints, Ints, Floats]] = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    for one, other in _pairs_of_one_image(a.image, b.image, left_a, left_b):
        iou = paired_iou(a.xyxy[one], b.xyxy[other])
        # Also two boxes without area, and two labels of the whole image, are at the same place.
        iou[_same_corners(a.xyxy[one], b.xyxy[other])] = np.inf
        near = iou >= MIN_IOU
        found.append((one[near], other[near], iou[near]))
    rows_a, rows_b, iou = (np.concatenate(part) for part in zip(*found, strict=True))
    other_class = a.class_code[rows_a] != b.class_code[rows_b]
    best_first = np.lexsort([rows_b, rows_a, -iou, other_class, ~np.isinf(iou)])
    free_a, free_b = set(rows_a.tolist()), set(rows_b.tolist())
    pairs: list[tuple[int, int]] = []
    for pair in zip(rows_a[best_first].tolist(), rows_b[best_first].tolist(), strict=True):
        if pair[0] in free_a and pair[1] in free_b:
            free_a.remove(pair[0])
            free_b.remove(pair[1])
            pairs.append(pair)
    matched = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return matched[:, 0], matched[:, 1]


def _pairs_of_one_image(image_a: Ints, image_b: Ints, left_a: Ints, left_b: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Yield every pair of leftovers of one image, many at a time: row numbers of a and of b."""
    left_b = left_b[np.argsort(image_b[left_b], kind="stable")]
    start = np.searchsorted(image_b[left_b], image_a[left_a], side="left")
    count = np.searchsorted(image_b[left_b], image_a[left_a], side="right") - start
    batch = np.cumsum(count) // _PAIRS_AT_A_TIME
    edges = [0, *(np.flatnonzero(np.diff(batch)) + 1).tolist(), len(left_a)]
    for begin, end in pairwise(edges):
        some, counts = left_a[begin:end], count[begin:end]
        offset = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        yield np.repeat(some, counts), left_b[np.repeat(start[begin:end], counts) + offset]


def _label_changes(a: _Side, b: _Side, matches: _Matches) -> pd.DataFrame:
    change = _pair_changes(a, b, matches.pairs_a, matches.pairs_b)
    differs = np.flatnonzero(change != "")
    none_a, none_b = np.full(len(matches.only_b), -1), np.full(len(matches.only_a), -1)
    rows_a = np.concatenate([matches.pairs_a[differs], matches.only_a, none_a]).astype(np.int64)
    rows_b = np.concatenate([matches.pairs_b[differs], none_b, matches.only_b]).astype(np.int64)
    changes = np.concatenate([change[differs], np.full(len(none_b), "removed"), np.full(len(none_a), "added")])
    image = np.where(rows_a >= 0, a.image[rows_a] if len(a.image) else -1, b.image[rows_b] if len(b.image) else -1)
    columns: dict[str, Any] = {"change": changes.astype(object), "path_a": a.paths[image], "path_b": b.paths[image]}
    for side, rows, suffix in ((a, rows_a, "a"), (b, rows_b, "b")):
        columns[f"class_{suffix}"] = _taken(side.frame["class_name"].to_numpy(object), rows, "")
        corners = _taken(side.xyxy, rows, np.nan)
        columns.update({f"{name}_{suffix}": corners[:, i] for i, name in enumerate(_XYXY)})
    frame = pd.DataFrame(columns)
    frame["iou"] = paired_iou(frame[_CORNERS_A].to_numpy(np.float64), frame[_CORNERS_B].to_numpy(np.float64))
    order = frame["change"].map({name: i for i, name in enumerate(LABEL_CHANGES)}).to_numpy(np.int64)
    by = np.lexsort([rows_b, rows_a, image, order])
    return frame[LABEL_COLUMNS].iloc[by].reset_index(drop=True)


def _taken(values: npt.NDArray[Any], rows: Ints, absent: object) -> npt.NDArray[Any]:
    """Return the rows' values, and `absent` for row -1."""
    result = np.full((len(rows), *values.shape[1:]), absent, dtype=values.dtype)
    result[rows >= 0] = values[rows[rows >= 0]]
    return result


def _pair_changes(a: _Side, b: _Side, pairs_a: Ints, pairs_b: Ints) -> npt.NDArray[np.object_]:
    """Return for each pair one of `LABEL_CHANGES`, or ""."""
    change = np.full(len(pairs_a), "", dtype=object)
    change[_details_differ(a.frame, b.frame, pairs_a, pairs_b)] = "details"
    change[~_same_corners(a.xyxy[pairs_a], b.xyxy[pairs_b])] = "moved"
    change[a.class_code[pairs_a] != b.class_code[pairs_b]] = "reclassified"
    return change


def _details_differ(a: pd.DataFrame, b: pd.DataFrame, pairs_a: Ints, pairs_b: Ints) -> npt.NDArray[np.bool_]:
    differ = np.zeros(len(pairs_a), dtype=bool)
    for column in ("difficult", "truncated", "crowd", "rle"):
        values = (frame[column].to_numpy()[rows] for frame, rows in ((a, pairs_a), (b, pairs_b)))
        differ |= np.not_equal(*values).astype(bool)
    polygons_a, polygons_b = (f["polygon"].to_numpy(object)[rows] for f, rows in ((a, pairs_a), (b, pairs_b)))
    has_a, has_b = pd.notna(polygons_a), pd.notna(polygons_b)
    differ |= has_a != has_b
    for pair in np.flatnonzero(has_a & has_b & ~differ):
        differ[pair] = not _same_rings(polygons_a[pair], polygons_b[pair])
    return differ


def _same_rings(a: Any, b: Any) -> bool:
    return len(a) == len(b) and all(
        len(one) == len(other) and np.allclose(one, other, rtol=0, atol=SAME_PX)
        for one, other in zip(a, b, strict=True)
    )


def _count_classes(a: _Side, b: _Side, labels: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Return `CLASS_COLUMNS` by class."""

    def counts(values: pd.Series) -> pd.Series:
        return values.value_counts().reindex(names, fill_value=0)

    def changed(change: str, column: str) -> pd.Series:
        return counts(labels.loc[labels["change"] == change, column])

    name_a, name_b = a.frame["class_name"], b.frame["class_name"]
    frame = pd.DataFrame(
        {
            "before": counts(name_a),
            "after": counts(name_b),
            "in_added_images": counts(name_b[b.image < 0]),
            "added": changed("added", "class_b"),
            "reclassified_to": changed("reclassified", "class_b"),
            "in_removed_images": counts(name_a[a.image < 0]),
            "removed": changed("removed", "class_a"),
            "reclassified_from": changed("reclassified", "class_a"),
            "moved": changed("moved", "class_b"),
            "details": changed("details", "class_b"),
        },
        index=pd.Index(names, name="class_name", dtype=object),
    )
    return frame[list(CLASS_COLUMNS)].astype(np.int64)
