"""Cutting images into slices."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline.errors import EvaluationError
from plumbline.slices import MOST_SLICES, folders, image_slices


def cut(values, column="brightness", bins=3):
    images = pd.DataFrame({column: values})
    before = images.copy(deep=True)
    parts = image_slices(images, [column], bins)
    pd.testing.assert_frame_equal(images, before)
    return parts


def members(values, **options):
    return {part.name: np.flatnonzero(part.images).tolist() for part in cut(values, **options)}


def says(name, value):
    """Whether the words of a slice of numbers are true of a value."""
    if name.startswith("all"):
        return True
    if name == "unknown":
        return not np.isfinite(value)
    if match := re.fullmatch(r"below (\S+)", name):
        return value < float(match[1])
    if match := re.fullmatch(r"(\S+) and above", name):
        return value >= float(match[1])
    if match := re.fullmatch(r"(\S+) to below (\S+)", name):
        return float(match[1]) <= value < float(match[2])
    return value == pytest.approx(float(name), rel=1e-3)


numbers = st.one_of(st.floats(-1e9, 1e9), st.integers(0, 20).map(float), st.sampled_from([np.nan, np.inf]))


@settings(max_examples=300, deadline=None)
@given(values=st.lists(numbers, min_size=1, max_size=60), bins=st.integers(1, 6))
def test_numbers_are_parted_and_every_name_is_true(values, bins):
    parts = cut(values, bins=bins)
    assert (np.sum([part.images for part in parts], axis=0) == 1).all()
    assert all(part.images.any() for part in parts)
    assert len(parts) <= bins + 1
    assert len({part.name for part in parts}) == len(parts)
    for part in parts:
        for value in np.array(values)[part.images]:
            assert says(part.name, value), (part.name, value)


@settings(max_examples=100, deadline=None)
@given(values=st.lists(st.text("abc/", max_size=5), min_size=1, max_size=60), column=st.sampled_from(["path", "split"]))
def test_texts_are_parted_into_few_slices_that_do_not_depend_on_the_order_of_rows(values, column):
    parts = cut(values, column=column)
    assert (np.sum([part.images for part in parts], axis=0) == 1).all()
    assert len(parts) <= MOST_SLICES + 1
    assert len({part.name for part in parts}) == len(parts)
    backwards = {part.name: part.images[::-1].tolist() for part in cut(values[::-1], column=column)}
    assert backwards == {part.name: part.images.tolist() for part in parts}


@pytest.mark.parametrize("bins", [2, 3, 5])
def test_quantiles_give_parts_of_nearly_the_same_size(bins):
    values = np.random.default_rng(0).permutation(1000) / 7
    sizes = [int(part.images.sum()) for part in cut(values, bins=bins)]
    assert len(sizes) == bins
    assert max(sizes) - min(sizes) <= 5


def test_few_values_are_slices_of_their_own():
    assert members([640, 320, 640, 480], column="width") == {"320": [1], "480": [3], "640": [0, 2]}


def test_many_images_of_one_value_stay_together():
    assert members([0.0] * 8 + [1.0, 2.0, 3.0]) == {"below 1": list(range(8)), "1 and above": [8, 9, 10]}


@pytest.mark.parametrize(
    ("values", "name"),
    [([7.0] * 5, "all: 7"), (["test"] * 5, "all: test"), (["a/b/1", "a/b/2"], "all: b"), ([True, True], "all: yes")],
)
def test_a_column_with_one_value_is_one_slice_that_says_so(values, name):
    column = "path" if "/" in str(values[0]) else "split"
    assert members(values, column=column) == {name: list(range(len(values)))}


def test_a_text_that_is_another_for_every_image_is_one_slice():
    names = members([f"sha{n:05}" for n in range(500)], column="sha256")
    assert list(names) == ["all (another value for every image)"]


def test_images_without_folders_are_not_cut_by_their_names():
    assert len(members([f"digits:{n}" for n in range(50)], column="source")) == 1


def test_folders_say_nothing_of_the_machine():
    paths = pd.Series([f"/home/somebody/data/{camera}/{n}.jpg" for camera in ("left", "right/low") for n in range(3)])
    assert folders(paths).tolist() == ["left"] * 3 + ["right/low"] * 3
    assert members(paths.tolist(), column="source") == {"left": [0, 1, 2], "right/low": [3, 4, 5]}


def test_the_most_frequent_values_are_named_and_the_rest_are_others():
    values = [f"camera {n:02}" for n in range(30) for _ in range(40 - n)]
    names = members(values, column="group")
    assert [*names] == [*(f"camera {n:02}" for n in range(MOST_SLICES)), "others (20 values)"]
    assert sum(map(len, names.values())) == len(values)


def test_what_is_missing_is_unknown():
    assert members([1.0, np.nan, 2.0]) == {"1": [0], "2": [2], "unknown": [1]}
    assert members(["a", None, "a", ""], column="group") == {"unknown": [1, 3], "a": [0, 2]}


def test_an_unknown_column_names_the_nearest():
    with pytest.raises(EvaluationError, match=r"evaluate\.slices: no column 'brightnes'.*did you mean brightness\?"):
        image_slices(pd.DataFrame({"width": [1], "brightness": [2.0]}), ["brightnes"], 3)
