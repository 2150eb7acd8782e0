"""Deal images to train, val and test so that what belongs together is never parted.

Two steps: `group_images` finds what must stay together, `assign_splits` deals whole groups. Both depend on the images
themselves alone, never on the order of the rows. They do not remember an earlier dealing: when images are added, others
change their split too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from plumbline.errors import DatasetError

SPLITS_SCHEMA = pa.schema(
    [
        ("image_id", pa.int64()),  # as in images.parquet, ascending
        ("split", pa.string()),  # train, val or test
        ("group", pa.int64()),  # images of one number are never parted
    ]
)

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]

# Up to so many groups, swaps are tried; with more, each is so small that the first dealing is as good.
_MOST_GROUPS_TO_SWAP = 512

# 2^20 distances at a time: tens of MiB, however many images there are.
_DISTANCES_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Grouping:
    """Which images must stay together.

    Attributes:
        groups: Group of each row of images, shape (N,), numbered 0.. in the order of each group's lowest image_id.
        num_near_duplicate_pairs: Pairs of readable images whose hashes differ by no more than the asked-for bits.
    """

    groups: Ints
    num_near_duplicate_pairs: int


def group_images(images: pd.DataFrame, bits: int) -> Grouping:
    """Join images that share a declared group, or their bytes, or nearly their perceptual hash; and so on in chains.

    An unreadable image has no hash and is joined by group and bytes only. Flat images (all black, say) have one hash
    and are joined: to a detector they are the same image.

    Args:
        images: Columns image_id, group, sha256, phash, readable of `IMAGES_SCHEMA`, in any order.
        bits: Largest Hamming distance of two 64-bit hashes that counts as near; 0 for equal hashes only.
    """
    order = np.argsort(images["image_id"].to_numpy(np.int64), kind="stable")
    rows = images.iloc[order]
    parents = list(range(len(rows)))
    for column in ("group", "sha256"):
        _join_equal(parents, rows[column].fillna("").to_numpy(object))
    hashed = np.flatnonzero(rows["readable"].to_numpy(bool))
    num_pairs = _join_near(parents, hashed, rows["phash"].to_numpy(np.uint64)[hashed], bits)
    # The root of a group is its first row, so the numbers go by the lowest image_id.
    _, numbers = np.unique(_roots(parents), return_inverse=True)
    groups = np.empty(len(rows), dtype=np.int64)
    groups[order] = numbers
    return Grouping(groups, num_pairs)


def near_pairs(hashes: Hashes, bits: int) -> Iterator[tuple[Ints, Ints]]:
    """Give every pair i < j within `bits`, in blocks, by comparing all with all.

    Exact, and quick enough: 20,000 hashes are 2e8 distances, about a second. Memory is that of one block.

    Args:
        hashes: Shape (N,), uint64.
        bits: Largest Hamming distance.

    >>> [(i.tolist(), j.tolist()) for i, j in near_pairs(np.array([0, 255, 1], np.uint64), 1)]
    [([0], [2])]
    """
    rows_at_once = max(1, _DISTANCES_AT_ONCE // max(1, len(hashes)))
    for start in range(0, len(hashes), rows_at_once):
        block = hashes[start : start + rows_at_once]
        distances = np.bitwise_count(block[:, None] ^ hashes[None, start:])
        i, j = np.nonzero(distances <= bits)
        later = j > i
        yield i[later] + start, j[later] + start


def assign_splits(
    groups: Ints, class_counts: Ints, keys: Sequence[str], fractions: Mapping[str, float], seed: int
) -> npt.NDArray[np.str_]:
    """Deal whole groups, the largest first, each to the split that lacks most of what the group holds.

    What a split lacks is counted in shares: of the images, and of every class's boxes. A split may take a group only
    while at least half of it fits its quota of images (or, when that is so for none, the one that lacks the most
    images); by that each split's number of images ends within one group's size of its quota. When only as many
    groups are left as there are empty splits, those get them. At the end groups of one size change places while that
    brings the shares nearer.

    Args:
        groups: Group of each image, shape (N,).
        class_counts: Boxes of each class in each image, shape (N, C).
        keys: A name of each image's content (its sha256), length N: they decide ties, not numbers, which would change
            for all images behind one that is added.
        fractions: Of train, val and test; they sum to 1.
        seed: Of the order among groups of one size.

    Returns:
        Name of each image's split, shape (N,).

    Raises:
        DatasetError: There are fewer groups than splits.
    """
    names = list(fractions)
    numbers, members = np.unique(groups, return_inverse=True)
    if len(numbers) < len(names):
        raise DatasetError(
            f"too few independent groups of images, expected at least {len(names)} (one for each of"
            f" {', '.join(names)}), got {len(numbers)} from {len(groups)} images; add images that are no"
            " near-duplicates of each other, declare smaller groups, or lower split.near_duplicate_bits in params.yaml"
        )
    sizes = np.bincount(members)
    # Column 0 is the images themselves; a class without a box has no share to keep.
    held = np.zeros((len(numbers), 1 + class_counts.shape[1]), dtype=np.float64)
    np.add.at(held, members, np.column_stack([np.ones(len(groups)), class_counts]))
    shares = held / np.maximum(held.sum(axis=0), 1)
    ties = _ties(members, keys, seed)
    order = sorted(range(len(numbers)), key=lambda group: (-sizes[group], ties[group]))
    quotas = np.array([fractions[name] for name in names])
    chosen = _deal(order, shares, quotas)
    if len(numbers) <= _MOST_GROUPS_TO_SWAP:
        chosen = _swap(chosen, sizes, shares, quotas)
    return np.array(names)[chosen[members]]


def _deal(order: list[int], shares: npt.NDArray[np.float64], quotas: npt.NDArray[np.float64]) -> Ints:
    """Return the split of each group, shape (G,), given shares of shape (G, 1 + C) whose column 0 is the images."""
    lacks = np.repeat(quotas[:, None], shares.shape[1], axis=1)
    empty = np.ones(len(quotas), dtype=bool)
    chosen = np.zeros(len(shares), dtype=np.int64)
    for place, group in enumerate(order):
        if len(order) - place <= empty.sum():
            may = empty.copy()
        else:
            may = lacks[:, 0] >= shares[group, 0] / 2
            may = may if may.any() else lacks[:, 0] == lacks[:, 0].max()
        # The derivative of the squared distance to all quotas: what the group holds much of weighs much.
        gain = np.where(may, lacks @ shares[group], -np.inf)
        split = int(np.argmax(gain))
        chosen[group] = split
        lacks[split] -= shares[group]
        empty[split] = False
    return chosen


def _swap(chosen: Ints, sizes: Ints, shares: npt.NDArray[np.float64], quotas: npt.NDArray[np.float64]) -> Ints:
    """Return the split of each group, shape (G,), after every swap of two groups of one size that helps, best first."""
    chosen = chosen.copy()
    taken = np.stack([shares[chosen == split].sum(axis=0) for split in range(len(quotas))])
    lacks = quotas[:, None] - taken
    products = shares @ shares.T
    norms = np.diag(products)
    while True:
        # What each group adds to the squared distance in its own split and in the other's, by the binomial formula.
        pull = shares @ lacks[chosen].T
        own = np.diag(pull)
        change = 2 * (own[:, None] + own[None] - pull - pull.T) + 2 * (norms[:, None] + norms[None] - 2 * products)
        change[(chosen[:, None] == chosen[None]) | (sizes[:, None] != sizes[None])] = 0.0
        a, b = np.unravel_index(np.argmin(change), change.shape)
        if change[a, b] > -1e-12:
            return chosen
        lacks[chosen[a]] += shares[a] - shares[b]
        lacks[chosen[b]] += shares[b] - shares[a]
        chosen[[a, b]] = chosen[[b, a]]


def worst_class_share_deviation(
    splits: npt.NDArray[np.str_], class_counts: Ints, fractions: Mapping[str, float]
) -> float:
    """Return the largest distance between a class's share of boxes in a split and that split's fraction, 0..1.

    Args:
        splits: Name of each image's split, shape (N,).
        class_counts: Boxes of each class in each image, shape (N, C); classes without a box do not count.
        fractions: As given to `assign_splits`.

    >>> worst_class_share_deviation(np.array(["a", "b"]), np.array([[3], [1]]), {"a": 0.5, "b": 0.5})
    0.25
    """
    totals = class_counts.sum(axis=0)
    present = totals > 0
    worst = 0.0
    for name, fraction in fractions.items():
        share = class_counts[splits == name].sum(axis=0)[present] / totals[present]
        worst = max(worst, float(np.abs(share - fraction).max(initial=0.0)))
    return worst


def count_classes(images: pd.DataFrame, annotations: pd.DataFrame, num_classes: int) -> Ints:
    """Return the boxes of each class in each image, shape (N, C), in the order of `images`.

    Raises:
        DatasetError: A box names an image that is not in `images`.
    """
    counts = np.zeros((len(images), num_classes), dtype=np.int64)
    rows = pd.Index(images["image_id"]).get_indexer(annotations["image_id"])
    if (rows < 0).any():
        lost = annotations["image_id"].to_numpy()[rows < 0][0]
        raise DatasetError(f"a box is on image_id {lost}, expected one of the images table; run validate again")
    np.add.at(counts, (rows, annotations["class_id"].to_numpy(np.int64)), 1)
    return counts


def _join_equal(parents: list[int], keys: npt.NDArray[np.object_]) -> None:
    """Join the rows of equal keys, the empty key aside; changes `parents`."""
    first: dict[str, int] = {}
    for row, key in enumerate(keys):
        if key:
            _join(parents, first.setdefault(key, row), row)


def _join_near(parents: list[int], rows: Ints, hashes: Hashes, bits: int) -> int:
    """Join the rows whose hashes are near, and return how many pairs are; changes `parents`."""
    distinct, which, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    # Equal hashes are joined to the first of them, and compared once.
    first = np.full(len(distinct), len(parents), dtype=np.int64)
    np.minimum.at(first, which, rows)
    for row, head in zip(rows.tolist(), first[which].tolist(), strict=True):
        _join(parents, head, row)
    num_pairs = int((counts * (counts - 1) // 2).sum())
    for i, j in near_pairs(distinct, bits):
        if len(i) == 0:
            continue
        num_pairs += int((counts[i] * counts[j]).sum())
        # Most pairs of a large cluster tell nothing new: one per pair of present groups is enough.
        roots = _roots(parents)
        a, b = roots[first[i]], roots[first[j]]
        news = np.unique((a * len(parents) + b)[a != b])
        for pair in news.tolist():
            _join(parents, *divmod(pair, len(parents)))
    return num_pairs


def _join(parents: list[int], a: int, b: int) -> None:
    a, b = _root(parents, a), _root(parents, b)
    parents[max(a, b)] = min(a, b)


def _root(parents: list[int], row: int) -> int:
    while parents[row] != row:
        parents[row] = parents[parents[row]]
        row = parents[row]
    return row


def _roots(parents: list[int]) -> Ints:
    """Return the root of every row, shape (N,)."""
    roots = np.array(parents, dtype=np.int64)
    while True:
        above = roots[roots]
        if np.array_equal(above, roots):
            return roots
        roots = above


def _ties(members: Ints, keys: Sequence[str], seed: int) -> list[bytes]:
    """Return a shuffling hash of each group: of the smallest key in it."""
    smallest: dict[int, str] = {}
    for member, key in zip(members.tolist(), keys, strict=True):
        smallest[member] = min(key, smallest.get(member, key))
    return [hashlib.sha256(f"{seed}:{smallest[group]}".encode()).digest() for group in range(len(smallest))]
