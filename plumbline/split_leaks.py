"""Find the images that stand in two splits and should not: a score on what was trained on is no score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from plumbline.near_duplicates import Hashes, Ints, Keys, near_pairs
from plumbline.split_assignment import SPLITS

# What ties two images, the strongest first; from _NEAR on it is the number of bits in which their hashes differ.
_BYTES, _GROUP, _KEY, _NEAR = range(4)


@dataclass(frozen=True, order=True)
class Leak:
    """Two images that belong together and stand in two splits.

    Attributes:
        path: Of the one image, the first of the two by name.
        other_path: Of the other.
        split: Of the one.
        other_split: Of the other.
        why: What ties them: ``identical bytes``, ``near-duplicates that differ in 3 bits``, ``group 'video.mp4'``...
    """

    path: str
    other_path: str
    split: str
    other_split: str
    why: str

    def __str__(self) -> str:
        return f"{self.path} ({self.split}) and {self.other_path} ({self.other_split}): {self.why}"


@dataclass(frozen=True)
class Ties:
    """The image of another part that each image is tied to most strongly.

    Attributes:
        partners: Row of that image, shape (N,); -1 for none.
        whys: What ties them, length N; "" for none.
    """

    partners: Ints
    whys: list[str]


def find_leaks(
    images: pd.DataFrame, splits: npt.NDArray[np.object_], bits: int, keys: Keys | None = None
) -> list[Leak]:
    """Return what ties images of train, val and test to one another, sorted by path.

    Every image that has a twin in another split is named at least once, with the strongest tie that it has: so the
    list is no longer than the data set, also where a thousand frames of one video are near a thousand others.

    Args:
        images: Columns path, group, sha256, phash, readable of `IMAGES_SCHEMA`, in any order.
        splits: Of each row of `images`; what is none of train, val and test cannot leak.
        bits: As for `plumbline.near_duplicates.group_images`.
        keys: As for `plumbline.near_duplicates.group_images`.
    """
    parts = np.full(len(images), -1, dtype=np.int64)
    for number, name in enumerate(SPLITS):
        parts[splits == name] = number
    ties = closest_in_another_part(images, parts, bits, keys)
    paths = images["path"].to_numpy(object)
    leaks = set()
    for row in np.flatnonzero(ties.partners >= 0).tolist():
        a, b = sorted((row, int(ties.partners[row])), key=lambda index: paths[index])
        leaks.add(Leak(paths[a], paths[b], str(splits[a]), str(splits[b]), ties.whys[row]))
    return sorted(leaks)


def closest_in_another_part(images: pd.DataFrame, parts: Ints, bits: int, keys: Keys | None = None) -> Ties:
    """Return for each image the one in another part that it is tied to most strongly, the first by path of equals.

    Args:
        images: As for `find_leaks`.
        parts: Number of each row's part, shape (N,); -1 for an image that is in none.
        bits: As for `find_leaks`.
        keys: As for `find_leaks`.
    """
    order = np.argsort(images["path"].to_numpy(object), kind="stable")
    rows, part_of, count = images.iloc[order], parts[order], len(images)
    columns = {_BYTES: rows["sha256"].to_numpy(object), _GROUP: rows["group"].to_numpy(object)}
    if keys is not None:
        columns[_KEY] = keys[order]
    # Tie and partner in one number: the least is the strongest tie, and the first of these.
    best = np.full(count, _NEAR + bits + 1, dtype=np.int64) * count
    for tie, column in columns.items():
        has = np.flatnonzero((part_of >= 0) & (column != "") & ~pd.isna(column))
        codes, _ = pd.factorize(column[has])
        elsewhere = _first_elsewhere(_first_rows(codes, part_of[has], has, count), count)[codes, part_of[has]]
        best[has] = np.minimum(best[has], np.where(elsewhere < count, tie * count + elsewhere, best[has]))
    has = np.flatnonzero((part_of >= 0) & rows["readable"].to_numpy(bool))
    hashes = rows["phash"].to_numpy(np.uint64)[has]
    best[has] = np.minimum(best[has], _near_ties(hashes, part_of[has], has, count, bits))
    tied = best < (_NEAR + bits + 1) * count
    partners = np.full(count, -1, dtype=np.int64)
    partners[order[tied]] = order[best[tied] % count]
    whys = [""] * count
    for row in np.flatnonzero(tied).tolist():
        tie = int(best[row] // count)
        whys[order[row]] = _why(tie, "" if tie not in columns else columns[tie][row])
    return Ties(partners, whys)


def _first_rows(codes: Ints, parts: Ints, rows: Ints, count: int) -> Ints:
    """Return the lowest of `rows` for each code and part, shape (codes, parts); `count` where there is none."""
    shape = (int(codes.max(initial=-1)) + 1, int(parts.max(initial=-1)) + 1)
    first = np.full(shape, count, dtype=np.int64)
    np.minimum.at(first, (codes, parts), rows)
    return first


def _first_elsewhere(first: Ints, count: int) -> Ints:
    """Return the lowest row in any other part, shape (codes, parts)."""
    elsewhere = np.full_like(first, count)
    for part in range(first.shape[1]):
        elsewhere[:, part] = np.delete(first, part, axis=1).min(axis=1, initial=count)
    return elsewhere


def _near_ties(hashes: Hashes, parts: Ints, rows: Ints, count: int, bits: int) -> Ints:
    """Return tie and partner of each of `rows` by its hash alone, in one number, shape of `rows`."""
    distinct, which = np.unique(hashes, return_inverse=True)
    first = _first_rows(which, parts, rows, count)
    elsewhere = _first_elsewhere(first, count)
    none = (_NEAR + bits + 1) * count
    best = np.where(elsewhere < count, _NEAR * count + elsewhere, none)
    for i, j in near_pairs(distinct, bits):
        distances = np.bitwise_count(distinct[i] ^ distinct[j]).astype(np.int64)[:, None]
        for here, there in ((i, j), (j, i)):
            partner = elsewhere[there]
            tie = np.where(partner < count, (_NEAR + distances) * count + partner, none)
            np.minimum.at(best, here, tie)
    return best[which, parts]


def _why(tie: int, name: object) -> str:
    if tie == _BYTES:
        return "identical bytes"
    if tie == _GROUP:
        return f"group {name!r}"
    if tie == _KEY:
        return f"{name!r} by split.group_by"
    bits = tie - _NEAR
    return f"near-duplicates that differ in {bits} {'bit' if bits == 1 else 'bits'}"
