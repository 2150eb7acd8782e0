"""What the user says must stay together: images of one folder, of one value in a column, or of one name's part."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt
import pandas as pd

from plumbline.errors import DatasetError
from plumbline.manifest import IMAGES_SCHEMA

NONE = "none"
FOLDER = "folder"
REGEX = "regex:"
_IMAGES = "images/"


def check_group_by(group_by: str) -> str:
    r"""Return the value if it says how to group.

    Raises:
        ValueError: It does not; the message says what was expected.

    >>> check_group_by(r"regex:^(patient\d+)_")
    'regex:^(patient\\d+)_'
    """
    if group_by.startswith(REGEX):
        try:
            pattern = re.compile(group_by.removeprefix(REGEX))
        except re.error as error:
            raise ValueError(f"a regular expression after `{REGEX}` ({error})") from error
        if pattern.groups == 0:
            raise ValueError(f"a regular expression with a group in parentheses, such as {REGEX}^(patient\\d+)_")
    elif group_by not in (NONE, FOLDER, *IMAGES_SCHEMA.names):
        known = ", ".join(IMAGES_SCHEMA.names)
        raise ValueError(f"{NONE}, {FOLDER}, {REGEX}<pattern>, or a column of images.parquet ({known})")
    return group_by


def named_groups(images: pd.DataFrame, group_by: str) -> npt.NDArray[np.object_] | None:
    r"""Return the name of each image's group, shape (N,), "" for an image that has none; None when none are asked for.

    The name of an image is its path in its source. `folder` is the folder it stands in, without what stands in none;
    `regex:` searches the name, and the first group of the pattern names the group.

    Args:
        images: Columns of `IMAGES_SCHEMA`.
        group_by: As `check_group_by` returns it.

    Raises:
        DatasetError: There is not one image with a group.

    >>> images = pd.DataFrame({"path": ["images/p1_a.jpg", "images/p1_b.jpg", "images/c.jpg"]})
    >>> named_groups(images, r"regex:^(p\d+)_").tolist()
    ['p1', 'p1', '']
    """
    if group_by == NONE:
        return None
    names = [path.removeprefix(_IMAGES) for path in images["path"]]
    if group_by.startswith(REGEX):
        search = re.compile(group_by.removeprefix(REGEX)).search
        groups = [(found.group(1) or "") if (found := search(name)) else "" for name in names]
    elif group_by == FOLDER:
        groups = [str(PurePosixPath(name).parent) if "/" in name else "" for name in names]
    else:
        groups = ["" if pd.isna(value) else str(value) for value in images[group_by]]
    if not any(groups):
        raise DatasetError(
            f"split.group_by {group_by!r} gives no image a group, expected it to (a name is, say,"
            f" {names[0] if names else ''!r}); correct it in params.yaml, or set it to {NONE}"
        )
    return np.array(groups, dtype=object)
