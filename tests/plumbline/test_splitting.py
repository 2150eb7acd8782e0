"""What belongs together is never parted, every image is dealt once, and the order of rows means nothing."""

import os
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline.errors import DatasetError
from plumbline.image_scan import scan_image
from plumbline.splitting import (
    assign_splits,
    count_classes,
    group_images,
    near_pairs,
    worst_class_share_deviation,
)

FRACTIONS = {"train": 0.7, "val": 0.15, "test": 0.15}


def deal(groups, counts, fractions, seed, keys=None):
    keys = [f"{n}" for n in range(len(groups))] if keys is None else keys
    return assign_splits(groups, counts, keys, fractions, seed)


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


def must_join(images, bits):
    """Every pair that must stay together, by the definition, one by one."""
    for a in images.itertuples():
        for b in images.itertuples():
            near = a.readable and b.readable and (int(a.phash) ^ int(b.phash)).bit_count() <= bits
            if a.image_id < b.image_id and (near or a.sha256 == b.sha256 or (a.group and a.group == b.group)):
                yield a.image_id, b.image_id


@settings(deadline=None)
@given(image_tables(), st.integers(0, 8))
def test_groups_are_the_connected_parts_of_what_must_stay_together(images, bits):
    groups = group_images(images, bits).groups
    reached = {i: {i} for i in images["image_id"]}
    for a, b in must_join(images, bits):
        joined = reached[a] | reached[b]
        for member in joined:
            reached[member] = joined
    expected = {frozenset(part) for part in reached.values()}
    found = {frozenset(np.flatnonzero(groups == number).tolist()) for number in np.unique(groups)}
    assert found == expected
    # Numbered from 0 in the order of the lowest image_id.
    firsts = [int(np.flatnonzero(groups == number)[0]) for number in range(groups.max() + 1)]
    assert firsts == sorted(firsts)


@settings(deadline=None)
@given(image_tables(), st.integers(0, 8))
def test_near_duplicate_pairs_are_counted_one_by_one(images, bits):
    hashes = [int(value) for value in images.loc[images["readable"], "phash"]]
    near = [(a ^ b).bit_count() <= bits for i, a in enumerate(hashes) for b in hashes[:i]]
    assert group_images(images, bits).num_near_duplicate_pairs == sum(near)


def test_near_pairs_are_the_same_in_small_blocks(monkeypatch):
    hashes = np.random.default_rng(0).integers(0, 2**10, 60, dtype=np.uint64)
    expected = {(i, j) for i in range(60) for j in range(i + 1, 60) if int(hashes[i] ^ hashes[j]).bit_count() <= 2}
    for at_once in (1, 61, 200, 10**6):
        monkeypatch.setattr("plumbline.splitting._DISTANCES_AT_ONCE", at_once)
        found = [pair for i, j in near_pairs(hashes, 2) for pair in zip(i.tolist(), j.tolist(), strict=True)]
        assert len(found) == len(expected)
        assert set(found) == expected


def test_unreadable_images_are_joined_by_group_and_bytes_only():
    images = images_table([0, 0, 0, 0], groups=["g", "g", "", ""], shas=["a", "b", "c", "c"], readable=[False] * 4)
    assert group_images(images, 16).groups.tolist() == [0, 0, 1, 1]
    images = images_table([0, 0, 0], readable=[True, False, True])
    assert group_images(images, 0).groups.tolist() == [0, 1, 0]


def test_the_empty_group_is_no_group():
    assert group_images(images_table([0, 2**40 - 1]), 6).groups.tolist() == [0, 1]


@settings(deadline=None)
@given(image_tables(), st.integers(0, 8), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_no_group(images, bits, random):
    order = list(range(len(images)))
    random.shuffle(order)
    groups = group_images(images, bits).groups
    np.testing.assert_array_equal(group_images(images.iloc[order], bits).groups, groups[order])


@st.composite
def dealings(draw, fewest_groups=3):
    """Groups of each image, boxes of each class in each image, fractions, seed."""
    sizes = draw(st.lists(st.integers(1, 9), min_size=fewest_groups, max_size=25))
    groups = np.repeat(np.arange(len(sizes)), sizes)
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    groups = random.permutation(groups)
    counts = random.poisson(draw(st.sampled_from([0.0, 0.3, 5.0])), (len(groups), draw(st.integers(1, 4))))
    parts = np.array(draw(st.tuples(*[st.integers(1, 20)] * 3)), dtype=float)
    fractions = dict(zip(FRACTIONS, (parts / parts.sum()).tolist(), strict=True))
    return groups, counts, fractions, draw(st.integers(0, 5))


@settings(deadline=None)
@given(dealings())
def test_whole_groups_are_dealt_and_no_split_is_empty(dealing):
    groups, counts, fractions, seed = dealing
    splits = deal(groups, counts, fractions, seed)
    assert splits.shape == groups.shape
    assert set(splits) == set(fractions)
    for number in np.unique(groups):
        assert len(set(splits[groups == number])) == 1


@settings(deadline=None)
@given(dealings(fewest_groups=6))
def test_fractions_are_reached_within_the_largest_group(dealing):
    groups, counts, fractions, seed = dealing
    splits = deal(groups, counts, fractions, seed)
    groups_of = [len(np.unique(groups[splits == name])) for name in fractions]
    largest = np.bincount(groups).max()
    for name, fraction in fractions.items():
        # A split that only has its one guaranteed group took it from another's share.
        if min(groups_of) > 1:
            assert abs((splits == name).sum() - fraction * len(groups)) <= largest + 1e-9


@settings(deadline=None)
@given(dealings(), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_no_split(dealing, random):
    groups, counts, fractions, seed = dealing
    order = list(range(len(groups)))
    random.shuffle(order)
    splits = deal(groups, counts, fractions, seed)
    np.testing.assert_array_equal(
        deal(groups[order], counts[order], fractions, seed, keys=[f"{n}" for n in order]), splits[order]
    )


def test_another_seed_deals_otherwise():
    groups, counts = np.arange(60), np.ones((60, 1), dtype=np.int64)
    dealt = {tuple(deal(groups, counts, FRACTIONS, seed)) for seed in range(3)}
    assert len(dealt) == 3


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 9))
def test_class_shares_follow_the_fractions(state, seed):
    random = np.random.default_rng(state)
    counts = random.poisson([12.0, 1.0, 1.0], (300, 3))
    splits = deal(np.arange(300), counts, FRACTIONS, seed)
    # A random deal is off by about 0.03 here.
    assert worst_class_share_deviation(splits, counts, FRACTIONS) < 0.01


def test_more_groups_than_are_swapped_are_dealt_as_well(monkeypatch):
    counts = np.random.default_rng(0).poisson([12.0, 1.0, 1.0], (300, 3))
    monkeypatch.setattr("plumbline.splitting._MOST_GROUPS_TO_SWAP", 0)
    splits = deal(np.arange(300), counts, FRACTIONS, 0)
    assert worst_class_share_deviation(splits, counts, FRACTIONS) < 0.02


@pytest.mark.parametrize("groups", [[], [0, 0, 0, 0], [0, 1, 1, 0]])
def test_too_few_groups_are_refused_with_the_reason(groups):
    message = rf"expected at least 3 .*got {len(set(groups))} from {len(groups)} images; .*near_duplicate_bits"
    with pytest.raises(DatasetError, match=message):
        deal(np.array(groups, dtype=np.int64), np.zeros((len(groups), 1), dtype=np.int64), FRACTIONS, 0)


def test_deviation_is_of_the_worst_class_and_empty_classes_do_not_count():
    counts = np.array([[8, 0, 0], [1, 1, 0], [1, 1, 0]])
    splits = np.array(["train", "val", "test"])
    assert worst_class_share_deviation(splits, counts, FRACTIONS) == pytest.approx(0.7)
    assert worst_class_share_deviation(splits, counts[:, 2:], FRACTIONS) == 0.0


def test_boxes_are_counted_per_image_and_class():
    images = pd.DataFrame({"image_id": [5, 3]})
    boxes = pd.DataFrame({"image_id": [3, 5, 3], "class_id": [1, 0, 1]})
    assert count_classes(images, boxes, 2).tolist() == [[1, 0], [0, 2]]
    with pytest.raises(DatasetError, match="image_id 3"):
        count_classes(images[:1], boxes, 2)


ROOT = Path(__file__).parents[2]
BCCD = Path(os.environ.get("PLUMBLINE_BCCD", ROOT / "../shared/data/bccd"))


@pytest.mark.skipif(not (BCCD / "JPEGImages").is_dir(), reason="BCCD is not here: set PLUMBLINE_BCCD to its folder")
def test_the_near_duplicates_of_bccd_stay_together():
    paths = sorted((BCCD / "JPEGImages").glob("*.jpg"))
    scans = [scan_image(path) for path in paths]
    images = images_table([scan.phash for scan in scans], shas=[scan.sha256 for scan in scans])
    names = ["RBC", "WBC", "Platelets"]
    counts = np.zeros((len(paths), 3), dtype=np.int64)
    for row, path in enumerate(paths):
        for item in ET.parse(BCCD / "Annotations" / f"{path.stem}.xml").iter("object"):
            counts[row, names.index(item.findtext("name"))] += 1
    grouping = group_images(images, 6)
    assert grouping.num_near_duplicate_pairs == 1
    splits = dict(zip((path.stem for path in paths), deal(grouping.groups, counts, FRACTIONS, 0), strict=True))
    assert splits["BloodImage_00037"] == splits["BloodImage_00038"]
    assert worst_class_share_deviation(np.array(list(splits.values())), counts, FRACTIONS) < 0.01
