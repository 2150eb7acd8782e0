"""Whole groups are dealt, every image once, balanced by class, and the order of rows means nothing."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline.errors import DatasetError
from plumbline.splitting import assign_splits, count_classes, worst_class_share_deviation

FRACTIONS = {"train": 0.7, "val": 0.15, "test": 0.15}
NOWHERE = ""


def deal(groups, counts, fractions, seed, keys=None):
    keys = [f"{n}" for n in range(len(groups))] if keys is None else keys
    return assign_splits(groups, counts, keys, fractions, seed)


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
    message = (
        rf"expected at least 3 .*got {len(set(groups))} from {len(groups)} images; .*near_duplicates\.max_hash_bits"
    )
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


def test_boxes_of_no_known_class_are_not_counted():
    boxes = pd.DataFrame({"image_id": [3, 3, 3], "class_id": [-1, 1, 2]})
    assert count_classes(pd.DataFrame({"image_id": [3]}), boxes, 2).tolist() == [[0, 1]]


def test_other_fractions_move_no_old_image_and_new_ones_go_where_most_is_lacking():
    groups, counts = np.arange(100), np.ones((100, 1), dtype=np.int64)
    before = deal(groups[:50], counts[:50], FRACTIONS, 0)
    placed = np.array([*before, *[NOWHERE] * 50], dtype=object)
    other = {"train": 0.4, "val": 0.3, "test": 0.3}
    after = assign_splits(groups, counts, [f"{n}" for n in groups], other, 0, placed=placed)
    assert after[:50].tolist() == before.tolist()
    assert [(after == name).sum() for name in other] == [40, 30, 30]


def test_a_split_that_lost_its_images_is_filled_or_the_reason_told():
    groups, counts, keys = np.arange(4), np.ones((4, 1), dtype=np.int64), ["a", "b", "c", "d"]
    placed = np.array(["train", "train", "test", NOWHERE], dtype=object)
    assert assign_splits(groups, counts, keys, FRACTIONS, 0, placed=placed)[3] == "val"
    placed[3] = "test"
    with pytest.raises(
        DatasetError, match=r"expected at least 1 \(one for each of val\), got 0 from 0 images; .*delete"
    ):
        assign_splits(groups, counts, keys, FRACTIONS, 0, placed=placed)


def test_an_image_of_two_places_is_the_callers_mistake():
    placed = np.array(["train", "val", NOWHERE], dtype=object)
    with pytest.raises(ValueError, match="different splits"):
        assign_splits(np.zeros(3, dtype=np.int64), np.ones((3, 1), dtype=np.int64), "abc", FRACTIONS, 0, placed=placed)
