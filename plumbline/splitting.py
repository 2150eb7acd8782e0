"""Deal images to train, val and test so that what belongs together is never parted, and what was dealt stays.

`plumbline.near_duplicates` finds what must stay together; here whole groups are dealt. Images that were dealt before
keep their place, and new ones join what they belong to, or go where most is lacking. All of it depends on the images
themselves alone, never on the order of the rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from plumbline.errors import DatasetError
from plumbline.near_duplicates import Grouping, Ints, Keys, group_images, near_pairs
from plumbline.split_assignment import LEFT_OUT, SPLITS, SPLITS_SCHEMA, Names
from plumbline.split_leaks import Ties, closest_in_another_part

__all__ = [
    "SPLITS_SCHEMA",
    "Dealing",
    "Grouping",
    "assign_splits",
    "count_classes",
    "deal_images",
    "group_images",
    "near_pairs",
    "worst_class_share_deviation",
]

# Up to so many new groups, swaps are tried; with more, each is so small that the first dealing is as good.
_MOST_GROUPS_TO_SWAP = 512


@dataclass(frozen=True)
class Dealing:
    """Where every image stands.

    Attributes:
        splits: train, val, test or left_out, shape (N,).
        groups: As `Grouping.groups`, of the images that are dealt, shape (N,); -1 for left_out.
        num_near_duplicate_pairs: As in `Grouping`, of all images.
        bridges: One line for each image that is left out, sorted: what it would have joined.
    """

    splits: Names
    groups: Ints
    num_near_duplicate_pairs: int
    bridges: list[str]


def deal_images(
    images: pd.DataFrame,
    class_counts: Ints,
    placed: Names,
    fractions: Mapping[str, float],
    *,
    seed: int,
    bits: int,
    keys: Keys | None = None,
) -> Dealing:
    """Deal the images that have no place yet; those that have one never move.

    A new image goes where the images that it belongs to are. Where these are in different splits, it belongs in
    neither and would leak from each to the other, so it is left out.

    Args:
        images: Columns image_id, path, group, sha256, phash, readable of `IMAGES_SCHEMA`, in any order.
        class_counts: Boxes of each class in each image, shape (N, C).
        placed: Split of each image that has one, "" for the others, shape (N,).
        fractions: As for `assign_splits`; of train, val and test.
        seed: As for `assign_splits`.
        bits: As for `group_images`.
        keys: As for `group_images`.

    Raises:
        DatasetError: There are not enough new groups for the splits that are empty.
    """
    grouping = group_images(images, bits, keys)
    placed, bridges = _follow(images, grouping.groups, placed, bits, keys)
    dealt = np.flatnonzero(placed != LEFT_OUT)
    groups = np.full(len(images), -1, dtype=np.int64)
    # What an image joined is two groups once it is left out.
    groups[dealt] = (
        grouping.groups if not bridges else group_images(images.iloc[dealt], bits, _take(keys, dealt)).groups
    )
    splits = placed.copy()
    content = images["sha256"].to_numpy(object)[dealt].tolist()
    splits[dealt] = assign_splits(groups[dealt], class_counts[dealt], content, fractions, seed, placed=placed[dealt])
    return Dealing(splits, groups, grouping.num_near_duplicate_pairs, bridges)


def assign_splits(
    groups: Ints,
    class_counts: Ints,
    keys: Sequence[str],
    fractions: Mapping[str, float],
    seed: int,
    *,
    placed: Names | None = None,
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
        placed: Split of each image that stays where it is, "" for the others, shape (N,); the others of its group go
            with it. None when no image has a place yet.

    Returns:
        Name of each image's split, shape (N,).

    Raises:
        DatasetError: There are fewer new groups than empty splits.
    """
    names = list(fractions)
    standing = _standing(groups, names, placed)
    free = np.flatnonzero(standing < 0)
    numbers, members = np.unique(groups[free], return_inverse=True)
    # Column 0 is the images themselves; a class without a box has no share to keep.
    counts = np.column_stack([np.ones(len(groups)), class_counts])
    taken = np.zeros((len(names), counts.shape[1]), dtype=np.float64)
    np.add.at(taken, standing[standing >= 0], counts[standing >= 0])
    _check_enough(len(numbers), len(free), [name for name, row in zip(names, taken, strict=True) if row[0] == 0])
    held = np.zeros((len(numbers), counts.shape[1]), dtype=np.float64)
    np.add.at(held, members, counts[free])
    total = np.maximum(held.sum(axis=0) + taken.sum(axis=0), 1)
    shares = held / total
    lacks = np.array([fractions[name] for name in names])[:, None] - taken / total
    sizes = np.bincount(members, minlength=len(numbers))
    ties = _ties(members, [keys[row] for row in free.tolist()], seed)
    order = sorted(range(len(numbers)), key=lambda group: (-sizes[group], ties[group]))
    chosen = _deal(order, shares, lacks, taken[:, 0] == 0)
    if len(numbers) <= _MOST_GROUPS_TO_SWAP:
        chosen = _swap(chosen, sizes, shares, lacks)
    standing[free] = chosen[members]
    return np.array(names)[standing]


def _standing(groups: Ints, names: list[str], placed: Names | None) -> Ints:
    """Return the number of each image's split, shape (N,), -1 where neither it nor its group is placed."""
    standing = np.full(len(groups), -1, dtype=np.int64)
    if placed is None:
        return standing
    for number, name in enumerate(names):
        standing[placed == name] = number
    rows = np.flatnonzero(standing >= 0)
    _, which = np.unique(groups, return_inverse=True)
    lowest, highest = (np.full(len(groups), empty, dtype=np.int64) for empty in (len(names), -1))
    np.minimum.at(lowest, which[rows], standing[rows])
    np.maximum.at(highest, which[rows], standing[rows])
    free = standing < 0
    if (free & (lowest < highest)[which]).any():
        raise ValueError("an image without a place belongs to images in different splits")
    return np.where(free, highest[which], standing)


def _check_enough(num_groups: int, num_images: int, empty: list[str]) -> None:
    if num_groups < len(empty):
        raise DatasetError(
            f"too few independent groups of images, expected at least {len(empty)} (one for each of"
            f" {', '.join(empty)}), got {num_groups} from {num_images} images; add images that are no"
            " near-duplicates of each other, declare smaller groups, lower near_duplicates.max_hash_bits in"
            " params.yaml, or, where images were dealt before, delete the file of their splits to deal all afresh"
        )


def _follow(images: pd.DataFrame, groups: Ints, placed: Names, bits: int, keys: Keys | None) -> tuple[Names, list[str]]:
    """Settle the new images of groups that stand in several splits.

    Returns:
        `placed`, where such an image has the one split that it is tied to, or left_out; and a line for each of these.
    """
    stands = np.zeros((int(groups.max(initial=-1)) + 1, len(SPLITS)), dtype=bool)
    for number, name in enumerate(SPLITS):
        stands[groups[placed == name], number] = True
    in_several = (stands.sum(axis=1) > 1)[groups]
    if not (in_several & (placed == "")).any():
        return placed, []
    rows = np.flatnonzero(in_several)
    rows = rows[np.argsort(images["path"].to_numpy(object)[rows], kind="stable")]
    part, part_placed, part_keys = images.iloc[rows], placed[rows], _take(keys, rows)
    new = np.flatnonzero(part_placed == "")
    # New images that belong together go together, and each is tied to whatever any of them is tied to.
    sets = group_images(part.iloc[new], bits, _take(part_keys, new)).groups
    tied = np.zeros((int(sets.max()) + 1, len(SPLITS)), dtype=bool)
    for number, name in enumerate(SPLITS):
        either = np.flatnonzero((part_placed == "") | (part_placed == name))
        joined = group_images(part.iloc[either], bits, _take(part_keys, either)).groups
        is_new = part_placed[either] == ""
        tied[sets, number] = np.isin(joined[is_new], joined[~is_new])
    splits = np.array(SPLITS, dtype=object)[tied.argmax(axis=1)]
    splits[tied.sum(axis=1) > 1] = LEFT_OUT
    part_placed = part_placed.copy()
    part_placed[new] = splits[sets]
    settled = placed.copy()
    settled[rows] = part_placed
    return settled, _bridges(part, part_placed, dict(zip(new.tolist(), sets.tolist(), strict=True)), bits, part_keys)


def _bridges(images: pd.DataFrame, splits: Names, set_of: Mapping[int, int], bits: int, keys: Keys | None) -> list[str]:
    """Return a line for each image that is left out: an image of each split that it, or one of its set, is tied to."""
    paths = images["path"].to_numpy(object)
    out = np.flatnonzero(splits == LEFT_OUT).tolist()
    words: dict[int, list[str]] = {row: [] for row in out}
    for name in SPLITS:
        parts = np.full(len(images), -1, dtype=np.int64)
        parts[out], parts[splits == name] = 0, 1
        ties = closest_in_another_part(images, parts, bits, keys)
        # Of each set the first image with a tie, for those that have none themselves.
        first = {set_of[row]: row for row in reversed(out) if ties.partners[row] >= 0}
        for row in out:
            by = row if ties.partners[row] >= 0 else first.get(set_of[row])
            if by is not None:
                words[row].append(_tie_words(paths, name, row, by, ties))
    return [f"{paths[row]}: left out, as it belongs to {' and to '.join(words[row])}" for row in out]


def _tie_words(paths: Names, split: str, row: int, by: int, ties: Ties) -> str:
    through = "" if by == row else f" through {paths[by]}"
    return f"{paths[ties.partners[by]]} in {split}{through} ({ties.whys[by]})"


def _take(keys: Keys | None, rows: Ints) -> Keys | None:
    return None if keys is None else keys[rows]


def _deal(
    order: list[int], shares: npt.NDArray[np.float64], lacks: npt.NDArray[np.float64], empty: npt.NDArray[np.bool_]
) -> Ints:
    """Return the split of each group, shape (G,).

    Args:
        order: Groups, in the order in which they are dealt.
        shares: What each group holds, shape (G, 1 + C); column 0 is the images.
        lacks: What each split still lacks of its quota, shape (S, 1 + C).
        empty: Which splits hold no image yet, shape (S,).
    """
    lacks, empty = lacks.copy(), empty.copy()
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


def _swap(chosen: Ints, sizes: Ints, shares: npt.NDArray[np.float64], lacks: npt.NDArray[np.float64]) -> Ints:
    """Return the split of each group, shape (G,), after every swap of two groups of one size that helps, best first.

    Args:
        chosen: Split of each group, shape (G,).
        sizes: Images of each group, shape (G,).
        shares: As for `_deal`.
        lacks: As for `_deal`: before any of these groups was dealt.
    """
    if len(chosen) == 0:
        return chosen
    chosen = chosen.copy()
    taken = np.stack([shares[chosen == split].sum(axis=0) for split in range(len(lacks))])
    lacks = lacks - taken
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
    """Return the boxes of each class in each image, shape (N, C), in the order of `images`; others do not count.

    Raises:
        DatasetError: A box names an image that is not in `images`.
    """
    rows = pd.Index(images["image_id"]).get_indexer(annotations["image_id"])
    if (rows < 0).any():
        lost = annotations["image_id"].to_numpy()[rows < 0][0]
        raise DatasetError(f"a box is on image_id {lost}, expected one of the images table; run validate again")
    class_ids = annotations["class_id"].to_numpy(np.int64)
    known = (class_ids >= 0) & (class_ids < num_classes)
    counts = np.bincount(rows[known] * num_classes + class_ids[known], minlength=len(images) * num_classes)
    return counts.astype(np.int64).reshape(len(images), num_classes)


def _ties(members: Ints, keys: Sequence[str], seed: int) -> list[bytes]:
    """Return a shuffling hash of each group: of the smallest key in it."""
    smallest: dict[int, str] = {}
    for member, key in zip(members.tolist(), keys, strict=True):
        smallest[member] = min(key, smallest.get(member, key))
    return [hashlib.sha256(f"{seed}:{smallest[group]}".encode()).digest() for group in range(len(smallest))]
