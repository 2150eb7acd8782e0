"""The difference of two datasets: which images and labels are the same, and how the rest is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline import dataset_diff
from plumbline.dataset_diff import DatasetDiff, diff_datasets
from plumbline.formats.reading import ImageRecord, LabelRow, ReadResult, build_dataset
from plumbline.image_scan import ImageScan
from plumbline.manifest import Dataset

CLASS_NAMES = ("cat", "dog")
Box = tuple[float, float, float, float]
PLACE, NEAR, FAR = (10.0, 10.0, 30.0, 30.0), (12.0, 10.0, 32.0, 30.0), (60.0, 60.0, 90.0, 90.0)


def label(image: str, class_name: str, xyxy: Box | None = PLACE, **details) -> LabelRow:
    class_id = CLASS_NAMES.index(class_name) if class_name in CLASS_NAMES else -1
    return LabelRow(image, class_id, class_name, xyxy, "labels", 1, **details)


def dataset(images: dict[str, str], rows: Sequence[LabelRow], class_names: tuple[str, ...] = CLASS_NAMES) -> Dataset:
    """Make a dataset of images (name -> sha256) and labels."""
    scan = ImageScan("", 100, 100, 0, readable=True, brightness=0, contrast=0, sharpness=0, problem="")
    scans = {name: replace(scan, sha256=sha256) for name, sha256 in images.items()}
    records = [ImageRecord(name, "", name) for name in images]
    return build_dataset(records, scans, ReadResult(rows=list(rows)), class_names, Path("nowhere"))


def one_image(*rows: LabelRow) -> Dataset:
    return dataset({"a": "A"}, rows)


def image_changes(diff: DatasetDiff) -> list[tuple[str, str, str]]:
    return list(diff.images.replace("^images/", "", regex=True).itertuples(index=False, name=None))


def label_changes(diff: DatasetDiff) -> list[tuple[str, str, str]]:
    return list(diff.labels[["change", "class_a", "class_b"]].itertuples(index=False, name=None))


def test_a_dataset_does_not_differ_from_itself_and_is_left_alone():
    data = dataset({"a": "A", "b": "B"}, [label("a", "cat"), label("a", "cat"), label("b", "dog", None)])
    before = [frame.copy() for frame in (data.images, data.annotations)]
    diff = diff_datasets(data, data)
    assert diff.is_empty
    assert (diff.num_images, diff.num_labels) == ((2, 2), (3, 3))
    for frame, copy in zip((data.images, data.annotations), before, strict=True):
        pd.testing.assert_frame_equal(frame, copy)


def test_images_are_the_same_by_content_first_then_by_path():
    a = dataset({"same": "S", "from": "R", "edited": "E1", "gone": "G"}, [])
    b = dataset({"same": "S", "to": "R", "edited": "E2", "new": "N"}, [])
    assert image_changes(diff_datasets(a, b)) == [
        ("added", "", "new"),
        ("removed", "gone", ""),
        ("changed", "edited", "edited"),
        ("renamed", "from", "to"),
    ]


def test_images_that_changed_places_are_renamed():
    diff = diff_datasets(dataset({"x": "1", "y": "2"}, []), dataset({"x": "2", "y": "1"}, []))
    assert image_changes(diff) == [("renamed", "x", "y"), ("renamed", "y", "x")]


def test_of_the_same_bytes_twice_the_one_at_its_path_stays():
    a = dataset({"m": "1", "n": "1"}, [])
    b = dataset({"k": "1", "n": "1", "o": "1"}, [])
    assert image_changes(diff_datasets(a, b)) == [("added", "", "o"), ("renamed", "m", "k")]


def test_labels_go_with_their_image_when_it_is_renamed():
    a = dataset({"old": "A", "z": "Z"}, [label("old", "cat"), label("z", "dog")])
    b = dataset({"z": "Z", "zz": "A"}, [label("zz", "cat"), label("z", "dog")])
    diff = diff_datasets(a, b)
    assert image_changes(diff) == [("renamed", "old", "zz")]
    assert diff.labels.empty


def test_labels_of_added_and_removed_images_are_counted_apart():
    a = dataset({"a": "A", "gone": "G"}, [label("a", "cat"), label("gone", "dog"), label("gone", "dog", FAR)])
    b = dataset({"a": "A", "new": "N"}, [label("a", "cat"), label("new", "cat")])
    diff = diff_datasets(a, b)
    assert diff.labels.empty
    assert diff.classes[["before", "after", "in_added_images", "in_removed_images"]].to_dict("index") == {
        "cat": {"before": 1, "after": 2, "in_added_images": 1, "in_removed_images": 0},
        "dog": {"before": 2, "after": 0, "in_added_images": 0, "in_removed_images": 2},
    }


@pytest.mark.parametrize(
    ("a", "b", "changes"),
    [
        ([("cat", PLACE)], [("cat", NEAR)], [("moved", "cat", "cat")]),
        ([("cat", PLACE)], [("cat", FAR)], [("added", "", "cat"), ("removed", "cat", "")]),
        ([("cat", PLACE)], [("dog", PLACE)], [("reclassified", "cat", "dog")]),
        ([("cat", PLACE)], [("dog", NEAR)], [("reclassified", "cat", "dog")]),
        ([("cat", PLACE)], [("cat", PLACE), ("cat", PLACE)], [("added", "", "cat")]),
        ([("cat", PLACE), ("cat", PLACE)], [("cat", PLACE)], [("removed", "cat", "")]),
        # The same corners say more than an overlap, and an overlap in one class more than in two.
        ([("cat", PLACE)], [("cat", NEAR), ("dog", PLACE)], [("added", "", "cat"), ("reclassified", "cat", "dog")]),
        ([("cat", PLACE)], [("cat", (16, 10, 36, 30)), ("dog", NEAR)], [("added", "", "dog"), ("moved", "cat", "cat")]),
        ([("cow", PLACE)], [("hen", PLACE)], [("reclassified", "cow", "hen")]),
        # Without area there is no overlap, but a place.
        ([("cat", (5, 5, 5, 5))], [("dog", (5, 5, 5, 5))], [("reclassified", "cat", "dog")]),
        ([("cat", (0.0, 5, 9, 9))], [("cat", (-0.0, 5, 9, 9))], []),
        # Rounding is no move, on which side of a rounded number it may fall.
        ([("cat", (1 / 3, 5, 9, 9))], [("cat", (0.333333, 5, 9, 9))], []),
        ([("cat", (0.005, 5, 9, 9))], [("cat", (0.0050001, 5, 9, 9))], []),
        ([("cat", (0.004, 5, 9, 9))], [("cat", (0.006, 5, 9, 9))], []),
        ([("cat", (0, 5, 9, 9))], [("cat", (0.02, 5, 9, 9))], [("moved", "cat", "cat")]),
        ([("cat", (-1e308, 0, 1e308, 1))], [("cat", (-1e308, 0, 1e308, 1))], []),
        ([("cat", None)], [("cat", None)], []),
        ([("cat", None)], [("dog", None)], [("reclassified", "cat", "dog")]),
        ([("cat", None)], [("cat", PLACE)], [("added", "", "cat"), ("removed", "cat", "")]),
        ([("cat", None), ("dog", None)], [("dog", None)], [("removed", "cat", "")]),
    ],
)
def test_labels_of_one_image(a, b, changes):
    one, other = (one_image(*(label("a", *row) for row in rows)) for rows in (a, b))
    assert label_changes(diff_datasets(one, other)) == changes


def test_of_several_the_pair_that_overlaps_most_is_one():
    rows = [label("a", "cat", (0, 0, 10, 10)), label("a", "cat", (3, 0, 13, 10))]
    (change,) = diff_datasets(one_image(*rows), one_image(label("a", "cat", (1, 0, 11, 10)))).labels.to_dict("records")[
        :1
    ]
    assert change["change"] == "removed"
    assert change["x1_a"] == 3
    both = diff_datasets(one_image(*rows), one_image(label("a", "cat", (1, 0, 11, 10)))).labels
    moved = both[both["change"] == "moved"].iloc[0]
    assert (moved["x1_a"], moved["x1_b"]) == (0, 1)
    assert moved["iou"] == pytest.approx(9 / 11)


def test_labels_are_never_paired_across_images():
    a = dataset({"a": "A", "b": "B"}, [label("a", "cat")])
    b = dataset({"a": "A", "b": "B"}, [label("b", "cat", NEAR)])
    assert label_changes(diff_datasets(a, b)) == [("added", "", "cat"), ("removed", "cat", "")]


RING = (1.0, 1.0, 9.0, 1.0, 9.0, 9.0)


@pytest.mark.parametrize(
    ("a", "b", "differs"),
    [
        ({}, {"difficult": True}, True),
        ({"truncated": True}, {}, True),
        ({"crowd": True}, {"crowd": True}, False),
        ({"rle": "{}"}, {}, True),
        ({"polygon": (RING,)}, {"polygon": (RING,)}, False),
        ({"polygon": (RING,)}, {"polygon": ((*RING[:-1], RING[-1] + 1e-9),)}, False),
        ({"polygon": (RING,)}, {"polygon": (RING[:-2],)}, True),
        ({"polygon": (RING,)}, {}, True),
        ({"polygon": (RING,)}, {"polygon": (RING, RING)}, True),
        ({"polygon": (RING,)}, {"polygon": ((*RING[:-1], 8.0),)}, True),
    ],
)
def test_flags_and_masks_are_details(a, b, differs):
    diff = diff_datasets(one_image(label("a", "cat", **a)), one_image(label("a", "cat", **b)))
    assert label_changes(diff) == ([("details", "cat", "cat")] if differs else [])
    assert diff.classes.loc["cat", "details"] == int(differs)


def test_another_list_of_classes_is_a_change_by_itself():
    a, b = dataset({"a": "A"}, []), dataset({"a": "A"}, [], class_names=("dog", "cat"))
    diff = diff_datasets(a, b)
    assert (len(diff.images), len(diff.labels)) == (0, 0)
    assert not diff.is_empty


def test_nothing_and_something():
    nothing, something = dataset({}, []), one_image(label("a", "cat"))
    assert diff_datasets(nothing, nothing).is_empty
    assert image_changes(diff_datasets(nothing, something)) == [("added", "", "a")]
    assert image_changes(diff_datasets(something, nothing)) == [("removed", "a", "")]


corner = st.integers(0, 4).map(float)
boxes = st.one_of(st.none(), st.tuples(corner, corner, corner, corner))
labels = st.lists(st.builds(label, st.sampled_from("abc"), st.sampled_from(["cat", "dog", "cow"]), boxes), max_size=12)
images = st.fixed_dictionaries({}, optional=dict.fromkeys("abc", st.sampled_from("ABC")))


@st.composite
def datasets(draw) -> Dataset:
    of = draw(images)
    return dataset(of, [row for row in draw(labels) if row.image in of])


@settings(max_examples=70, deadline=None)
@given(a=datasets(), b=datasets(), pairs_at_a_time=st.integers(1, 5))
def test_what_changed_adds_up_and_mirrors(a, b, pairs_at_a_time):
    diff = diff_datasets(a, b)
    counts = diff.classes
    gained = counts[["in_added_images", "added", "reclassified_to"]].sum(axis=1)
    lost = counts[["in_removed_images", "removed", "reclassified_from"]].sum(axis=1)
    assert (counts["before"] + gained - lost == counts["after"]).all()
    assert counts[["before", "after"]].sum().tolist() == list(diff.num_labels)

    mirror = diff_datasets(b, a)
    swap = {"added": "removed", "removed": "added"}
    turned = mirror.images.replace({"change": swap})[["change", "path_b", "path_a"]]
    assert sorted(turned.itertuples(index=False, name=None)) == sorted(diff.images.itertuples(index=False, name=None))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset_diff, "_PAIRS_AT_A_TIME", pairs_at_a_time)
        pd.testing.assert_frame_equal(diff_datasets(a, b).labels, diff.labels)


@settings(max_examples=25, deadline=None)
@given(data=datasets(), seed=st.integers(0, 9))
def test_the_order_of_the_rows_changes_nothing(data, seed):
    rng = np.random.default_rng(seed)
    shuffled = replace(
        data,
        images=data.images.iloc[rng.permutation(len(data.images))],
        annotations=data.annotations.iloc[rng.permutation(len(data.annotations))],
    )
    assert diff_datasets(data, shuffled).is_empty
    assert diff_datasets(shuffled, data).is_empty


def test_hashes_that_collide_still_find_the_same_labels(monkeypatch):
    rows = [label("a", "cat"), label("a", "dog"), label("b", "cat", FAR), label("b", "cat", None)]
    a = dataset({"a": "A", "b": "B"}, rows)
    b = dataset({"a": "A", "b": "B"}, [*rows[1:], label("a", "cat", NEAR)])
    expected = diff_datasets(a, b).labels
    assert len(expected) == 1
    monkeypatch.setattr(dataset_diff, "_hashes", lambda side: np.zeros(len(side.image), np.uint64))
    pd.testing.assert_frame_equal(diff_datasets(a, b).labels, expected)
