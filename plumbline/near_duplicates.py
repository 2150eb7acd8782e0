"""Find the images that look alike, and what must stay together because of it.

Two images are near-duplicates when their 64-bit perceptual hashes differ in few bits. Comparing all with all is 5e11
distances for a million images; here only those are compared that agree in parts of their hash, and none is missed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice

import numpy as np
import numpy.typing as npt
import pandas as pd

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Keys = npt.NDArray[np.object_]
Pairs = Iterator[tuple[Ints, Ints]]

HASH_BITS = 64

# 2^20 distances at a time: tens of MiB, however many images there are.
_DISTANCES_AT_ONCE = 1 << 20
# So many pairs make a block: less, and the caller's work on each block would cost more than the search.
_PAIRS_AT_ONCE = 1 << 18
# More hashes than this with one value in the compared bits are searched by their other bits.
_LONGEST_RUN = 4096
# Nanoseconds, measured on one core: one distance of all with all, one of a run, one hash sorted by a key.
_ALL_NS, _RUN_NS, _SORT_NS = 3.0, 10.0, 150.0
_MOST_KEYS = 1000
# Which hashes, and which keys of them, the cost is estimated from.
_SAMPLE, _KEYS_SAMPLED = 4096, 16


@dataclass(frozen=True)
class Grouping:
    """Which images must stay together.

    Attributes:
        groups: Group of each row of images, shape (N,), numbered 0.. in the order of each group's lowest image_id.
        num_near_duplicate_pairs: Pairs of readable images whose hashes differ by no more than the asked-for bits.
    """

    groups: Ints
    num_near_duplicate_pairs: int


def group_images(images: pd.DataFrame, bits: int, keys: Keys | None = None) -> Grouping:
    """Join images that share a declared group, a key, their bytes, or nearly their perceptual hash; chains join too.

    A group is a connected part: when a is near b and b is near c, all three are one group, also where a and c are far
    apart. To part them would put near-duplicates into two splits.

    An unreadable image has no hash and is joined by group, key and bytes only. Flat images (all black, say) have one
    hash and are joined: to a detector they are the same image.

    Args:
        images: Columns image_id, group, sha256, phash, readable of `IMAGES_SCHEMA`, in any order.
        bits: Largest Hamming distance of two 64-bit hashes that counts as near; 0 for equal hashes only.
        keys: A further group of each row by its name, shape (N,), "" for none (see `plumbline.named_groups`).
    """
    order = np.argsort(images["image_id"].to_numpy(np.int64), kind="stable")
    rows = images.iloc[order]
    parents = np.arange(len(rows), dtype=np.int64)
    columns = [rows["group"], rows["sha256"]] if keys is None else [rows["group"], rows["sha256"], keys[order]]
    for column in columns:
        _join_equal(parents, np.asarray(column, dtype=object))
    hashed = np.flatnonzero(rows["readable"].to_numpy(bool))
    num_pairs = _join_near(parents, hashed, rows["phash"].to_numpy(np.uint64)[hashed], bits)
    # The root of a group is its first row, so the numbers go by the lowest image_id.
    _, numbers = np.unique(parents, return_inverse=True)
    groups = np.empty(len(rows), dtype=np.int64)
    groups[order] = numbers
    return Grouping(groups, num_pairs)


def near_pairs(hashes: Hashes, bits: int) -> Pairs:
    """Give every pair i < j within `bits` once, in blocks.

    Exact. A million distinct hashes take about ten seconds at 6 bits; memory is that of the hashes and one block. The
    number of pairs of equal hashes is quadratic, so where there may be many, give each hash once (`np.unique`).

    How: the bits are dealt into bands, `bits` and k more. Two hashes that differ in no more than `bits` bits agree in
    k bands or more, so it is enough to compare, for each choice of k bands, the hashes that agree in these.
    Source: M. Norouzi et al., "Fast Search in Hamming Space with Multi-Index Hashing", 2012, section 2; the choice of k
    bands: G. S. Manku et al., "Detecting Near-Duplicates for Web Crawling", 2007, section 3.

    Args:
        hashes: Shape (N,), uint64.
        bits: Largest Hamming distance.

    >>> [(i.tolist(), j.tolist()) for i, j in near_pairs(np.array([0, 255, 1], np.uint64), 1)]
    [([0], [2])]
    """
    first: list[Ints] = []
    second: list[Ints] = []
    held = 0
    for i, j in _search(np.ascontiguousarray(hashes, dtype=np.uint64), bits, tuple(range(HASH_BITS))):
        first.append(i)
        second.append(j)
        held += len(i)
        if held >= _PAIRS_AT_ONCE:
            yield np.concatenate(first), np.concatenate(second)
            first, second, held = [], [], 0
    if held:
        yield np.concatenate(first), np.concatenate(second)


def _search(hashes: Hashes, bits: int, positions: Sequence[int]) -> Pairs:
    """Give the pairs i < j within `bits` of hashes that differ at `positions` alone."""
    equal = _bands_to_agree(hashes, bits, positions)
    if equal == 0:
        yield from _all_pairs(hashes, bits)
        return
    bands = _bands(positions, bits + equal)
    masks = [_mask(band) for band in bands]
    for chosen in combinations(range(len(bands)), equal):
        others = [p for band in range(len(bands)) if band not in chosen for p in bands[band]]
        # Hashes that agree in more bands than these are found under their first ones alone.
        earlier = [masks[band] for band in range(chosen[-1]) if band not in chosen]
        key = np.bitwise_or.reduce([masks[band] for band in chosen])
        for i, j in _agreeing(hashes, bits, key, others):
            differing = hashes[i] ^ hashes[j]
            here = np.ones(len(i), dtype=bool)
            for mask in earlier:
                here &= (differing & mask) != 0
            if here.any():
                yield i[here], j[here]


def _bands_to_agree(hashes: Hashes, bits: int, positions: Sequence[int]) -> int:
    """Return the number of bands to compare hashes by that is cheapest; 0 for comparing all with all."""
    count = len(hashes)
    best, least = 0, _ALL_NS * count * count / 2
    sample = hashes[:: max(1, count // _SAMPLE)]
    for equal in range(1, len(positions) - bits + 1):
        keys = math.comb(bits + equal, equal)
        if keys > _MOST_KEYS or keys * _SORT_NS * count >= least:
            break
        share = _agreeing_share(sample, _bands(positions, bits + equal), equal)
        cost = keys * (_SORT_NS * count + _RUN_NS * share * count * count / 2)
        if cost < least:
            best, least = equal, cost
    return best


def _agreeing_share(sample: Hashes, bands: Sequence[Sequence[int]], equal: int) -> float:
    """Return about which share of all pairs agree in `equal` given bands; never less than of random hashes."""
    every = max(1, math.comb(len(bands), equal) // _KEYS_SAMPLED)
    shares, pairs = [], max(1, len(sample) * (len(sample) - 1) / 2)
    for chosen in islice(combinations(bands, equal), 0, None, every):
        _, counts = np.unique(sample & _mask([position for band in chosen for position in band]), return_counts=True)
        shares.append(float((counts * (counts - 1) / 2).sum()) / pairs)
    width = sum(len(band) for band in bands) * equal / len(bands)
    return max(2.0**-width, sum(shares) / len(shares))


def _bands(positions: Sequence[int], number: int) -> list[Sequence[int]]:
    """Deal positions into bands; neighbouring bits of a perceptual hash are alike, so each takes from everywhere."""
    return [positions[start::number] for start in range(number)]


def _mask(positions: Sequence[int]) -> np.uint64:
    return np.uint64(sum(1 << position for position in positions))


def _agreeing(hashes: Hashes, bits: int, key: np.uint64, others: Sequence[int]) -> Pairs:
    """Give the pairs i < j within `bits` of hashes that agree in the bits of `key`; `others` are all other bits."""
    order = np.argsort(hashes & key, kind="stable")
    ordered = hashes[order]
    keyed = ordered & key
    starts = np.flatnonzero(np.concatenate([[True], keyed[1:] != keyed[:-1]]))
    ends = np.append(starts[1:], len(hashes))
    long = ends - starts > _LONGEST_RUN
    for start, end in zip(starts[long].tolist(), ends[long].tolist(), strict=True):
        for i, j in _search(ordered[start:end], bits, others):
            yield order[start + i], order[start + j]
    # Each with its next, each with its next but one... until the longest of the short runs is done.
    end_of = np.repeat(np.where(long, starts, ends), ends - starts)
    left = np.arange(len(hashes))
    step = 0
    while True:
        step += 1
        left = left[left + step < end_of[left]]
        if len(left) == 0:
            return
        near = left[np.bitwise_count(ordered[left] ^ ordered[left + step]) <= bits]
        if len(near):
            # The sort is stable, so within a run the indices rise.
            yield order[near], order[near + step]


def _all_pairs(hashes: Hashes, bits: int) -> Pairs:
    """Give the pairs i < j within `bits` by comparing all with all."""
    rows_at_once = max(1, _DISTANCES_AT_ONCE // max(1, len(hashes)))
    for start in range(0, len(hashes), rows_at_once):
        block = hashes[start : start + rows_at_once]
        distances = np.bitwise_count(block[:, None] ^ hashes[None, start:])
        i, j = np.nonzero(distances <= bits)
        later = j > i
        if later.any():
            yield i[later] + start, j[later] + start


def _join_equal(parents: Ints, keys: Keys) -> None:
    """Join the rows of equal keys, the empty key aside; changes `parents`."""
    codes, _ = pd.factorize(keys)
    rows = np.flatnonzero((codes >= 0) & (keys != ""))
    _, first, which = np.unique(codes[rows], return_index=True, return_inverse=True)
    _join(parents, rows[first][which], rows)


def _join_near(parents: Ints, rows: Ints, hashes: Hashes, bits: int) -> int:
    """Join the rows whose hashes are near, and return how many pairs are; changes `parents`."""
    # Equal hashes are joined to the first of them, and compared once.
    distinct, first, which, counts = np.unique(hashes, return_index=True, return_inverse=True, return_counts=True)
    _join(parents, rows[first][which], rows)
    num_pairs = int((counts * (counts - 1) // 2).sum())
    for i, j in near_pairs(distinct, bits):
        num_pairs += int((counts[i] * counts[j]).sum())
        _join(parents, rows[first[i]], rows[first[j]])
    return num_pairs


def _join(parents: Ints, a: Ints, b: Ints) -> None:
    """Join the groups of a[k] and b[k] for every k; changes `parents`, which holds the lowest row of each row's group.

    Source: Y. Shiloach and U. Vishkin, "An O(log n) Parallel Connectivity Algorithm", 1982.
    """
    while True:
        a, b = parents[a], parents[b]
        apart = a != b
        if not apart.any():
            return
        a, b = a[apart], b[apart]
        np.minimum.at(parents, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(above := parents[parents], parents):
            parents[:] = above
