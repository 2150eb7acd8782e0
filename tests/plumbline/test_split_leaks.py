"""Every image with a twin in another split is named with it, and no other."""

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline.split_leaks import Leak, find_leaks


def images_table(hashes, **columns):
    count = len(hashes)
    plain = {
        "path": [f"{n:02d}" for n in range(count)],
        "group": [""] * count,
        "sha256": [f"sha{n}" for n in range(count)],
        "phash": np.array(hashes, dtype=np.uint64),
        "readable": [True] * count,
    }
    return pd.DataFrame(plain | columns)


def ties(images, splits, bits, keys):
    """Every leaking pair by its paths, in order, with its strongest tie, one by one."""
    rows = list(zip(images.itertuples(), splits, keys, strict=True))
    found = {}
    for a, split_a, key_a in rows:
        for b, split_b, key_b in rows:
            if a.path >= b.path or split_a == split_b or "left_out" in (split_a, split_b):
                continue
            distance = (int(a.phash) ^ int(b.phash)).bit_count() if a.readable and b.readable else 64
            if a.sha256 == b.sha256:
                found[a.path, b.path] = (0, "identical bytes")
            elif a.group and a.group == b.group:
                found[a.path, b.path] = (1, f"group {a.group!r}")
            elif key_a and key_a == key_b:
                found[a.path, b.path] = (2, f"{key_a!r} by split.group_by")
            elif distance <= bits:
                words = f"near-duplicates that differ in {distance} {'bit' if distance == 1 else 'bits'}"
                found[a.path, b.path] = (3 + distance, words)
    return found


@st.composite
def dealt_images(draw):
    count = draw(st.integers(1, 30))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    images = images_table(
        random.integers(0, 2**10, count, dtype=np.uint64) * np.uint64(0x0010_0100_1001_0001),
        path=[f"{n:02d}" for n in random.permutation(count)],
        group=random.choice(["", "", "", "", "a", "b"], count),
        sha256=[f"sha{n}" for n in random.integers(0, 3 * count, count)],
        readable=random.random(count) < 0.9,
    )
    splits = random.choice(np.array(["train", "train", "val", "test", "left_out"], dtype=object), count)
    keys = random.choice(np.array(["", "", "", "k", "l"], dtype=object), count)
    return images, splits, keys, draw(st.integers(0, 8))


@settings(deadline=None, max_examples=300)
@given(dealt_images())
def test_each_image_that_leaks_is_named_with_its_strongest_tie(dealt):
    images, splits, keys, bits = dealt
    expected = ties(images, splits, bits, keys)
    leaks = find_leaks(images, splits, bits, keys)
    assert leaks == sorted(leaks)
    split_of = dict(zip(images["path"], splits, strict=True))
    for leak in leaks:
        assert expected[leak.path, leak.other_path][1] == leak.why
        assert (leak.split, leak.other_split) == (split_of[leak.path], split_of[leak.other_path])
    named = {(leak.path, leak.other_path) for leak in leaks}
    assert len(named) == len(leaks)
    for path in images["path"]:
        strongest = min((tie for pair, tie in expected.items() if path in pair), default=None)
        assert strongest is None or strongest in [expected[pair] for pair in named if path in pair]


@settings(deadline=None)
@given(dealt_images(), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_no_leak(dealt, random):
    images, splits, keys, bits = dealt
    order = list(range(len(images)))
    random.shuffle(order)
    leaks = find_leaks(images.iloc[order], splits[order], bits, keys[order])
    assert leaks == find_leaks(images, splits, bits, keys)


def test_a_leak_names_both_files_both_splits_and_why():
    splits = np.array(["val", "train", "test"], dtype=object)
    (leak,) = find_leaks(images_table([0b111, 0, 2**40 - 1]), splits, 3)
    assert leak == Leak("00", "01", "val", "train", "near-duplicates that differ in 3 bits")
    assert str(leak) == "00 (val) and 01 (train): near-duplicates that differ in 3 bits"
    assert find_leaks(images_table([0b1111, 0, 2**40 - 1]), splits, 3) == []


def test_a_thousand_frames_near_a_thousand_others_are_a_list_of_that_length():
    splits = np.array(["train", "val"] * 1000, dtype=object)
    images = images_table([0] * 2000, path=[f"{n:04d}" for n in range(2000)])
    assert len(find_leaks(images, splits, 0)) == 1999
    assert len(find_leaks(images.assign(group="film"), splits, 0)) == 1999


def test_no_images_are_no_leaks():
    assert find_leaks(images_table([]), np.array([], dtype=object), 6) == []
