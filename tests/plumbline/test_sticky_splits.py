"""Images that were dealt never move, new ones never leak, and what would join two splits is left out."""

import xml.etree.ElementTree as ET
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline.image_scan import scan_image
from plumbline.near_duplicates import group_images
from plumbline.split_leaks import find_leaks
from plumbline.splitting import assign_splits, deal_images, worst_class_share_deviation

FRACTIONS = {"train": 0.7, "val": 0.15, "test": 0.15}
NOWHERE = ""


@dataclass
class World:
    """Images as they might come, of which a part is there at a time."""

    images: pd.DataFrame
    counts: np.ndarray
    bits: int

    def part(self, rows):
        """Return the rows, renumbered as ingest numbers them, and their counts."""
        images = self.images.iloc[rows].sort_values("path")
        counts = self.counts[images.index.to_numpy()]
        return images.assign(image_id=np.arange(len(images))).reset_index(drop=True), counts

    def deal(self, rows, earlier, seed=0):
        """Deal the rows given path -> split of earlier ones, and return path -> split, and the whole result."""
        images, counts = self.part(rows)
        placed = images["path"].map(lambda path: earlier.get(path, NOWHERE)).to_numpy(object)
        placed[placed == "left_out"] = NOWHERE
        dealing = deal_images(images, counts, placed, FRACTIONS, seed=seed, bits=self.bits)
        return dict(zip(images["path"], dealing.splits, strict=True)), dealing


@st.composite
def worlds(draw):
    """12 to 60 images in which groups, repeats and near-duplicates are common, also in chains."""
    count = draw(st.integers(12, 60))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    hashes = random.integers(0, 2**64, count, dtype=np.uint64)
    for row in np.flatnonzero(random.random(count) < draw(st.sampled_from([0.0, 0.3, 0.6]))):
        hashes[row] = hashes[random.integers(count)] ^ (np.uint64(1) << np.uint64(random.integers(64)))
    images = pd.DataFrame(
        {
            "image_id": np.arange(count),
            "path": [f"images/{n:03d}.jpg" for n in random.permutation(count)],
            "group": random.choice(np.array(["", "", "", "", "a", "b", "c", "d"], dtype=object), count),
            "sha256": [f"sha{n if random.random() < 0.9 else random.integers(count)}" for n in range(count)],
            "phash": hashes,
            "readable": random.random(count) < 0.95,
        }
    )
    counts = random.poisson([8.0, 1.0, 0.2], (count, 3))
    return World(images, counts, draw(st.integers(0, 3))), random


def deal_some(world, random, share):
    """Deal a random part of the world afresh, or nothing where it has too few groups."""
    rows = np.flatnonzero(random.random(len(world.images)) < share)
    if len(rows) == 0 or group_images(world.part(rows)[0], world.bits).groups.max() < 2:
        return None, {}
    return rows, world.deal(rows, {})[0]


@settings(deadline=None)
@given(worlds(), st.integers(0, 3))
def test_the_first_deal_is_that_of_assign_splits(drawn, seed):
    world, random = drawn
    rows, _ = deal_some(world, random, 0.8)
    if rows is None:
        return
    images, counts = world.part(rows)
    groups = group_images(images, world.bits).groups
    expected = assign_splits(groups, counts, images["sha256"].tolist(), FRACTIONS, seed)
    found, dealing = world.deal(rows, {}, seed)
    assert list(found.values()) == expected.tolist()
    assert dealing.groups.tolist() == groups.tolist()
    assert dealing.bridges == []


@settings(deadline=None, max_examples=200)
@given(worlds(), st.sampled_from([0.3, 0.6, 0.9]))
def test_adding_images_moves_none_and_parts_no_group(drawn, share):
    world, random = drawn
    rows, before = deal_some(world, random, share)
    if rows is None:
        return
    everything = np.arange(len(world.images))
    after, dealing = world.deal(everything, before)
    assert {path: after[path] for path in before} == before
    images, _ = world.part(everything)
    # By what joins images directly, not by what the dealing itself says.
    assert find_leaks(images, dealing.splits, world.bits) == []
    dealt = dealing.splits != "left_out"
    assert (dealing.groups[dealt] == group_images(images[dealt], world.bits).groups).all()
    assert set(dealing.groups[~dealt]) <= {-1}
    assert len(dealing.bridges) == (~dealt).sum()


@settings(deadline=None, max_examples=200)
@given(worlds(), st.sampled_from([0.3, 0.6]))
def test_only_what_would_join_two_splits_is_left_out(drawn, share):
    world, random = drawn
    rows, before = deal_some(world, random, share)
    if rows is None:
        return
    everything = np.arange(len(world.images))
    _, dealing = world.deal(everything, before)
    images, _ = world.part(everything)
    groups = group_images(images, world.bits).groups
    out = images["path"][dealing.splits == "left_out"].tolist()
    for path in out:
        assert path not in before
        together = images["path"][groups == groups[images["path"] == path][0]]
        assert len({before[p] for p in together if p in before}) > 1
        line = next(line for line in dealing.bridges if line.startswith(f"{path}: "))
        assert sum(f" in {split}" in line for split in FRACTIONS) >= 2


@settings(deadline=None)
@given(worlds())
def test_removing_images_moves_none(drawn):
    world, random = drawn
    rows, before = deal_some(world, random, 0.9)
    if rows is None:
        return
    paths = world.images["path"].to_numpy()
    # One of each split stays, or its place would have to be filled.
    needed = [next(row for row in rows if before[paths[row]] == name) for name in FRACTIONS]
    stay = sorted(set(needed) | {int(row) for row in rows if random.random() < 0.5})
    assert world.deal(stay, before)[0] == {paths[row]: before[paths[row]] for row in world.images.index[stay]}


@settings(deadline=None)
@given(worlds())
def test_dealing_again_changes_nothing(drawn):
    world, random = drawn
    rows, before = deal_some(world, random, 0.6)
    if rows is None:
        return
    everything = np.arange(len(world.images))
    once, _ = world.deal(everything, before)
    assert world.deal(everything, once, seed=7)[0] == once


@settings(deadline=None)
@given(worlds(), st.randoms(use_true_random=False))
def test_the_order_of_rows_moves_no_image(drawn, shuffler):
    world, random = drawn
    rows, before = deal_some(world, random, 0.5)
    if rows is None:
        return
    images, counts = world.part(np.arange(len(world.images)))
    placed = images["path"].map(lambda path: before.get(path, NOWHERE)).to_numpy(object)
    order = list(range(len(images)))
    shuffler.shuffle(order)
    one = deal_images(images, counts, placed, FRACTIONS, seed=0, bits=world.bits)
    other = deal_images(images.iloc[order], counts[order], placed[order], FRACTIONS, seed=0, bits=world.bits)
    assert other.splits.tolist() == one.splits[order].tolist()
    assert other.groups.tolist() == one.groups[order].tolist()
    assert other.bridges == one.bridges


def far_apart(count):
    return np.random.default_rng(0).integers(0, 2**64, count, dtype=np.uint64)


def small_world(hashes, groups=None):
    """Images a, b, c... with one box each."""
    count = len(hashes)
    images = pd.DataFrame(
        {
            "image_id": np.arange(count),
            "path": [chr(ord("a") + n) for n in range(count)],
            "group": groups or [""] * count,
            "sha256": [f"sha{n}" for n in range(count)],
            "phash": np.array(hashes, dtype=np.uint64),
            "readable": True,
        }
    )
    return World(images, np.ones((count, 1), dtype=np.int64), 2)


EARLIER = {"a": "train", "b": "val", "c": "test"}


def test_a_new_image_goes_where_its_twin_is():
    hashes = far_apart(6)
    hashes[3:6] = hashes[0:3] ^ np.uint64(0b11)
    splits, _ = small_world(hashes).deal(range(6), EARLIER)
    assert splits == EARLIER | {"d": "train", "e": "val", "f": "test"}


def test_a_new_image_between_two_splits_is_left_out_and_all_three_are_named():
    hashes = far_apart(5)
    hashes[1] = hashes[0] ^ np.uint64(0b1111)
    hashes[3] = hashes[0] ^ np.uint64(0b0011)  # 2 bits from a and from b
    splits, dealing = small_world(hashes).deal(range(5), EARLIER)
    assert splits["d"] == "left_out"
    assert splits["e"] in FRACTIONS
    assert dealing.bridges == [
        "d: left out, as it belongs to a in train (near-duplicates that differ in 2 bits) and to b in val"
        " (near-duplicates that differ in 2 bits)"
    ]


def test_what_hangs_on_a_left_out_image_is_left_out_with_it():
    hashes = far_apart(5)
    hashes[3] = hashes[0] ^ np.uint64(0b11)  # d is near a
    splits, dealing = small_world(hashes, ["", "pool", "", "film", "film"]).deal(range(5), EARLIER)
    assert (splits["d"], splits["e"]) == ("train", "train")
    assert dealing.bridges == []
    groups = ["", "pool", "", "film", "film"]
    hashes[4] = hashes[1] ^ np.uint64(0b1)  # and e near b; d and e are one film
    splits, dealing = small_world(hashes, groups).deal(range(5), EARLIER)
    assert (splits["d"], splits["e"]) == ("left_out", "left_out")
    assert dealing.bridges == [
        "d: left out, as it belongs to a in train (near-duplicates that differ in 2 bits) and to b in val through e"
        " (near-duplicates that differ in 1 bit)",
        "e: left out, as it belongs to a in train through d (near-duplicates that differ in 2 bits) and to b in val"
        " (near-duplicates that differ in 1 bit)",
    ]


def test_where_old_images_leak_already_a_new_one_goes_with_its_own_twin():
    hashes = far_apart(5)
    hashes[1] = hashes[0] ^ np.uint64(0b11)
    hashes[3] = hashes[0] ^ np.uint64(0b11 << 60)  # near a, not near b
    splits, dealing = small_world(hashes).deal(range(5), EARLIER)
    assert splits["d"] == "train"
    assert dealing.bridges == []
    assert len(find_leaks(small_world(hashes).images, dealing.splits, 2)) >= 1


@pytest.fixture(scope="module")
def bccd_world(bccd):
    """The images and box counts of BCCD, and the split of its ImageSets for each image."""
    paths = sorted((bccd / "JPEGImages").glob("*.jpg"))
    scans = [scan_image(path) for path in paths]
    names = ["RBC", "WBC", "Platelets"]
    counts = np.zeros((len(paths), 3), dtype=np.int64)
    for row, path in enumerate(paths):
        for item in ET.parse(bccd / "Annotations" / f"{path.stem}.xml").iter("object"):
            counts[row, names.index(item.findtext("name"))] += 1
    images = pd.DataFrame(
        {
            "image_id": np.arange(len(paths)),
            "path": [f"images/{path.name}" for path in paths],
            "group": "",
            "sha256": [scan.sha256 for scan in scans],
            "phash": np.array([scan.phash for scan in scans], dtype=np.uint64),
            "readable": True,
        }
    )
    split_of = {
        f"images/{stem}.jpg": name
        for name in FRACTIONS
        for stem in (bccd / "ImageSets" / "Main" / f"{name}.txt").read_text().split()
    }
    return World(images, counts, 6), np.array([split_of[path] for path in images["path"]], dtype=object)


def test_the_near_duplicates_of_bccd_stay_together(bccd_world):
    world, _ = bccd_world
    splits, dealing = world.deal(range(len(world.images)), {})
    assert dealing.num_near_duplicate_pairs == 1
    assert splits["images/BloodImage_00037.jpg"] == splits["images/BloodImage_00038.jpg"]
    assert worst_class_share_deviation(dealing.splits, world.counts, FRACTIONS) < 0.01


def test_the_official_split_of_bccd_leaks(bccd_world):
    world, official = bccd_world
    (leak,) = find_leaks(world.images, official, 6)
    assert str(leak).startswith("images/BloodImage_00037.jpg (val) and images/BloodImage_00038.jpg (train): near-dup")


@pytest.mark.parametrize("seed", range(3))
def test_bccd_grown_by_a_tenth_ten_times_stays_balanced_with_none_moved(bccd_world, seed):
    world, _ = bccd_world
    rows = np.random.default_rng(seed).permutation(len(world.images))
    sizes = [int(len(rows) * 1.1 ** (step - 10)) for step in range(11)]
    splits = {}
    for size in sizes:
        before = splits
        splits, dealing = world.deal(rows[:size], before)
        assert {path: splits[path] for path in before} == before
        deviation = worst_class_share_deviation(dealing.splits, world.part(rows[:size])[1], FRACTIONS)
        assert deviation < 0.02
    assert len(splits) == len(rows)
