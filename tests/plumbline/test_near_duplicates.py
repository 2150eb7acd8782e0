"""No near pair is missed, and what must stay together is the connected part, whatever the order of rows."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline import near_duplicates
from plumbline.near_duplicates import group_images, near_pairs


def images_table(hashes, groups=None, shas=None, readable=None):
    count = len(hashes)
    return pd.DataFrame(
        {
            "image_id": np.arange(count, dtype=np.int64),
            "group": groups if groups is not None else [""] * count,
            "sha256": shas if shas is not None else [f"sha{i}" for i in range(count)],
            "phash": np.array(hashes, dtype=np.uint64),
            "readable": readable if readable is not None else [True] * count,
        }
    )


@st.composite
def image_tables(draw):
    """Hashes of few bits, few groups and few shas, so that there is much to join."""
    rows = draw(
        st.lists(
            st.tuples(
                st.integers(0, 2**12 - 1).map(lambda n: n * 0x0010_0100_1001_0001 % 2**64),
                st.sampled_from(["", "", "", "a", "b", "c"]),
                st.integers(0, 30),
                st.booleans() | st.just(True),
            ),
            min_size=1,
            max_size=40,
        )
    )
    hashes, groups, shas, readable = zip(*rows, strict=True)
    return images_table(hashes, list(groups), [f"sha{n}" for n in shas], list(readable))


@st.composite
def hash_lists(draw):
    """Hashes of which many are near: random ones, those a few bits off, and repeats; some all alike in most bits."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    kept = np.uint64(draw(st.sampled_from([2**64 - 1, 0xFF, 0xF0F0, 0x0101_0101_0101_0101])))
    centres = random.integers(0, 2**64, draw(st.integers(0, 12)), dtype=np.uint64) & kept
    hashes = np.repeat(centres, draw(st.integers(1, 12)))
    for _ in range(draw(st.integers(0, 9))):
        hashes = hashes ^ (np.uint64(1) << random.integers(0, 64, len(hashes), dtype=np.uint64))
    return random.permutation(hashes)


def pairs_of(hashes, bits):
    """The pairs, one by one."""
    values = [int(value) for value in hashes]
    return [(i, j) for j in range(len(values)) for i in range(j) if (values[i] ^ values[j]).bit_count() <= bits]


def found_by(hashes, bits):
    return sorted(pair for i, j in near_pairs(hashes, bits) for pair in zip(i.tolist(), j.tolist(), strict=True))


@settings(deadline=None)
@given(hash_lists(), st.integers(0, 16))
def test_every_near_pair_is_found_once(hashes, bits):
    assert found_by(hashes, bits) == sorted(pairs_of(hashes, bits))


@settings(deadline=None, max_examples=50)
@given(hash_lists(), st.integers(0, 16), st.integers(1, 3), st.sampled_from([3, 8, 1000]))
def test_bands_find_what_comparing_all_finds(hashes, bits, equal, longest_run):
    with pytest.MonkeyPatch.context() as patch:
        # For so few, comparing all would be the cheapest; here it is left for what bands have looked at once.
        def bands(hashes, bits, positions):
            return equal if len(positions) == 64 or (len(hashes) > 4 and len(positions) > 57 and equal == 1) else 0

        patch.setattr(near_duplicates, "_bands_to_agree", bands)
        patch.setattr(near_duplicates, "_LONGEST_RUN", longest_run)
        bits = bits if equal == 1 else min(bits, 3)
        assert found_by(hashes, bits) == sorted(pairs_of(hashes, bits))


def test_blocks_of_any_size_hold_the_same_pairs(monkeypatch):
    hashes = np.random.default_rng(0).integers(0, 2**10, 60, dtype=np.uint64)
    expected = sorted(pairs_of(hashes, 2))
    for distances, pairs in ((1, 1), (61, 3), (200, 10**6), (10**6, 10)):
        monkeypatch.setattr(near_duplicates, "_DISTANCES_AT_ONCE", distances)
        monkeypatch.setattr(near_duplicates, "_PAIRS_AT_ONCE", pairs)
        assert found_by(hashes, 2) == expected


def many_hashes(kind):
    """30,000 distinct hashes or so, and the pairs that were planted among them at most 6 bits apart."""
    random = np.random.default_rng(0)
    if kind == "random":
        hashes = random.integers(0, 2**64, 30_000, dtype=np.uint64)
    elif kind == "alike":  # 30 bits are the same in all, as in frames of one scene
        hashes = random.integers(0, 2**64, 30_000, dtype=np.uint64) & np.uint64(0x3FFF_FFFF_F000_0000 >> 14)
    else:  # a third has one value in three quarters of the bits, the others are random
        hashes = random.integers(0, 2**64, 30_000, dtype=np.uint64)
        hashes[:10_000] &= np.uint64(0x0101_0303_0101_0F0F)
    return np.unique(hashes)


@pytest.mark.parametrize(("kind", "bits"), [("random", 6), ("alike", 3), ("mixed", 2), ("mixed", 4)])
def test_many_hashes_are_searched_by_bands_without_a_miss(kind, bits):
    hashes = many_hashes(kind)
    hashes = np.unique(np.concatenate([hashes, hashes[::100] ^ np.uint64(0x8000_0001_0000_0000)]))
    positions = tuple(range(64))
    assert near_duplicates._bands_to_agree(hashes, bits, positions) > 0
    expected = sum(len(i) for i, _ in near_duplicates._all_pairs(hashes, bits))
    pairs = [(i, j) for i, j in near_pairs(hashes, bits)]
    i, j = (np.concatenate(side) for side in zip(*pairs, strict=True))
    assert (np.bitwise_count(hashes[i] ^ hashes[j]) <= bits).all()
    assert (i < j).all()
    assert len(set(zip(i.tolist(), j.tolist(), strict=True))) == len(i) == expected > 0


def test_hashes_that_are_all_near_are_compared_all_with_all():
    # Bands would give each of these pairs many times.
    hashes = np.unique(np.array([1 << a | 1 << b for a in range(64) for b in range(64)], dtype=np.uint64))
    assert near_duplicates._bands_to_agree(hashes, 6, tuple(range(64))) == 0
    assert sum(len(i) for i, _ in near_pairs(hashes, 6)) == len(hashes) * (len(hashes) - 1) // 2


def must_join(images, bits, keys=None):
    """Every pair that must stay together, by the definition, one by one."""
    for a in images.itertuples():
        for b in images.itertuples():
            near = a.readable and b.readable and (int(a.phash) ^ int(b.phash)).bit_count() <= bits
            named = keys is not None and keys[a.image_id] and keys[a.image_id] == keys[b.image_id]
            if a.image_id < b.image_id and (near or named or a.sha256 == b.sha256 or (a.group and a.group == b.group)):
                yield a.image_id, b.image_id


@settings(deadline=None)
@given(image_tables(), st.integers(0, 8), st.none() | st.integers(0, 2**32))
def test_groups_are_the_connected_parts_of_what_must_stay_together(images, bits, state):
    choices = np.array(["", "", "a", "k1", "k2"], dtype=object)
    keys = None if state is None else np.random.default_rng(state).choice(choices, len(images))
    groups = group_images(images, bits, keys).groups
    reached = {i: {i} for i in images["image_id"]}
    for a, b in must_join(images, bits, keys):
        joined = reached[a] | reached[b]
        for member in joined:
            reached[member] = joined
    expected = {frozenset(part) for part in reached.values()}
    found = {frozenset(np.flatnonzero(groups == number).tolist()) for number in np.unique(groups)}
    assert found == expected
    # Numbered from 0 in the order of the lowest image_id.
    firsts = [int(np.flatnonzero(groups == number)[0]) for number in range(groups.max() + 1)]
    assert firsts == sorted(firsts)


def test_long_chains_are_one_group():
    order = np.random.default_rng(0).permutation(3000)
    # Each image shares a group with the one before and its bytes with the one behind.
    groups, shas = [f"g{n // 2}" for n in order], [f"s{(n + 1) // 2}" for n in order]
    images = images_table([0] * 3000, groups, shas, [False] * 3000)
    assert group_images(images, 0).groups.tolist() == [0] * 3000


@settings(deadline=None)
@given(image_tables(), st.integers(0, 8))
def test_near_duplicate_pairs_are_counted_one_by_one(images, bits):
    hashes = images.loc[images["readable"], "phash"]
    assert group_images(images, bits).num_near_duplicate_pairs == len(pairs_of(hashes, bits))


def test_unreadable_images_are_joined_by_group_and_bytes_only():
    images = images_table([0, 0, 0, 0], groups=["g", "g", "", ""], shas=["a", "b", "c", "c"], readable=[False] * 4)
    assert group_images(images, 16).groups.tolist() == [0, 0, 1, 1]
    images = images_table([0, 0, 0], readable=[True, False, True])
    assert group_images(images, 0).groups.tolist() == [0, 1, 0]


def test_the_empty_group_is_no_group():
    images = images_table([0, 2**40 - 1])
    assert group_images(images, 6).groups.tolist() == [0, 1]
    assert group_images(images, 6, np.array(["", ""], dtype=object)).groups.tolist() == [0, 1]


@settings(deadline=None)
@given(image_tables(), st.integers(0, 8), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_no_group(images, bits, random):
    order = list(range(len(images)))
    random.shuffle(order)
    keys = np.array([f"k{n}" if n % 7 == 0 else "k" * (n % 3 == 0) for n in range(len(images))], dtype=object)
    groups = group_images(images, bits, keys).groups
    np.testing.assert_array_equal(group_images(images.iloc[order], bits, keys[order]).groups, groups[order])


def test_what_is_given_stays_as_it_is():
    images = images_table([3, 3, 1], groups=["g", "", "g"])
    before = images.copy(deep=True)
    hashes = images["phash"].to_numpy().copy()
    group_images(images, 2)
    list(near_pairs(hashes, 2))
    pd.testing.assert_frame_equal(images, before)
    assert hashes.tolist() == [3, 3, 1]
