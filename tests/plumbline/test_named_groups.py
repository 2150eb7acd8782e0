"""A group that the user names is found by folder, column or part of the name; what makes no sense is refused."""

import numpy as np
import pandas as pd
import pytest

from plumbline.errors import DatasetError
from plumbline.named_groups import check_group_by, named_groups

IMAGES = pd.DataFrame(
    {
        "path": ["images/p1_a.jpg", "images/p1_b.jpg", "images/other/p2_c.jpg", "images/other/deep/x.jpg"],
        "source": ["one", "two", "one", ""],
        "width": [10, 20, 10, 10],
        "brightness": [1.5, np.nan, 1.5, 2.0],
    }
)


@pytest.mark.parametrize(
    ("group_by", "expected"),
    [
        ("folder", ["", "", "other", "other/deep"]),
        ("source", ["one", "two", "one", ""]),
        ("width", ["10", "20", "10", "10"]),
        ("brightness", ["1.5", "", "1.5", "2.0"]),
        (r"regex:^(p\d+)_", ["p1", "p1", "", ""]),
        (r"regex:(?:^|/)(p\d+)_", ["p1", "p1", "p2", ""]),
        (r"regex:^(other)?", ["", "", "other", "other"]),
        (r"regex:(a)|(b)\.", ["a", "", "", ""]),
    ],
)
def test_groups_are_named(group_by, expected):
    assert named_groups(IMAGES, check_group_by(group_by)).tolist() == expected


def test_none_is_no_groups():
    assert named_groups(IMAGES, check_group_by("none")) is None


@pytest.mark.parametrize("group_by", ["regex:^(q)", "folder"])
def test_groups_that_no_image_has_are_refused(group_by):
    with pytest.raises(DatasetError, match=r"gives no image a group, .*'p1_a\.jpg'.* set it to none"):
        named_groups(IMAGES[:2], group_by)


@pytest.mark.parametrize(
    ("group_by", "expected"),
    [
        ("patient", r"a column of images\.parquet \(image_id, path, "),
        ("", "none, folder, regex:"),
        ("regex:", "with a group in parentheses"),
        (r"regex:^p\d+", "with a group in parentheses"),
        ("regex:(", "a regular expression after `regex:` .*unterminated"),
    ],
)
def test_what_names_no_group_is_refused(group_by, expected):
    with pytest.raises(ValueError, match=expected):
        check_group_by(group_by)
