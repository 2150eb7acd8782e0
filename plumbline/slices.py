"""Cut a set of images into slices by a column of the images table, to give the metrics of each.

Every image is in exactly one slice of a column, and the slices' names say what is in them, so that a row of a report
can be read alone.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt
import pandas as pd

from plumbline.errors import EvaluationError

BOX_SIZE = "box_size"  # no column of images: the size of the boxes, which only detection has
OTHERS = "others"
ALL = "all"
UNKNOWN = "unknown"
MOST_SLICES = 10  # of a column of texts; the rest are one slice together
_PATHS = ("path", "source")  # cut by their folders: a file's own name is another for each image


@dataclass(frozen=True)
class Slice:
    """Some of the images.

    Attributes:
        column: Of the images table.
        name: What these images have in common there.
        images: Shape (num_images,), bool: which rows of the table are in it.
    """

    column: str
    name: str
    images: npt.NDArray[np.bool_]


def image_slices(images: pd.DataFrame, columns: Sequence[str], bins: int) -> list[Slice]:
    """Cut the images by each of the columns.

    Numbers are cut at quantiles into `bins` parts with about as many images each, named by their range; numbers of no
    more than `bins` values, by value. ``path`` and ``source`` are cut by folder, other texts by value: the
    `MOST_SLICES` most frequent, and the rest together. A column that has one value, or another text for every image,
    is one slice that says so.

    Args:
        images: One row per image, at least one.
        columns: Of `images`.
        bins: At least 1.

    Raises:
        EvaluationError: There is no such column.

    >>> images = pd.DataFrame({"brightness": [10.0, 20.0, 30.0, 40.0], "source": ["a/1", "a/2", "b/1", "b/2"]})
    >>> [(cut.name, int(cut.images.sum())) for cut in image_slices(images, ["brightness", "source"], 2)]
    [('below 25', 2), ('25 and above', 2), ('a', 2), ('b', 2)]
    """
    return [part for column in columns for part in _column_slices(images, column, bins)]


def check_slice_columns(columns: Sequence[str], known: Sequence[str]) -> None:
    """Refuse a column that the images do not have.

    Raises:
        EvaluationError: It names the nearest one.
    """
    for column in columns:
        if column not in known:
            near = difflib.get_close_matches(column, known, n=1, cutoff=0.0)
            raise EvaluationError(
                f"evaluate.slices: no column {column!r}, expected one of {', '.join(known)}"
                f"{f'; did you mean {near[0]}?' if near else ''}"
            )


def _column_slices(images: pd.DataFrame, column: str, bins: int) -> list[Slice]:
    check_slice_columns([column], list(images.columns))
    values = images[column]
    if pd.api.types.is_bool_dtype(values):
        return _by_text(column, values.map({True: "yes", False: "no"}))
    if pd.api.types.is_numeric_dtype(values):
        return _by_number(column, values.to_numpy(), bins)
    texts = values.fillna("").astype(str)
    if column in _PATHS and texts.str.contains("/").any():
        texts = folders(texts)
    return _by_text(column, texts)


def _by_number(column: str, values: npt.NDArray[np.generic], bins: int) -> list[Slice]:
    numbers = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(numbers)
    distinct = np.unique(numbers[finite])
    if len(distinct) <= max(bins, 1):
        parts = _alone([Slice(column, _number(value, distinct), numbers == value) for value in distinct.tolist()])
    else:
        cuts = _cuts(numbers[finite], bins)
        place = np.where(finite, np.searchsorted(cuts, numbers, side="right"), -1)
        parts = [Slice(column, name, place == number) for number, name in enumerate(_ranges(cuts))]
    return _filled([*parts, Slice(column, UNKNOWN, ~finite)])


def _cuts(numbers: npt.NDArray[np.float64], bins: int) -> npt.NDArray[np.float64]:
    """Return where to cut, rising: the quantiles, rounded as they will be named, so that a name says what is in it."""
    ends = np.array([numbers.min(), numbers.max()])
    quantiles = np.quantile(numbers, np.linspace(0, 1, bins + 1)[1:-1])
    # Many images that share the smallest value are one part, beside those that have more.
    second = numbers[numbers > ends[0]].min()
    cuts = np.maximum(quantiles, second)
    rounded = np.unique([float(_number(value, np.append(cuts, ends))) for value in cuts.tolist()])
    return rounded[(rounded > ends[0]) & (rounded <= ends[1])]


def _ranges(cuts: npt.NDArray[np.float64]) -> list[str]:
    if len(cuts) == 0:
        return [ALL]
    texts = [_number(cut, cuts) for cut in cuts.tolist()]
    between = [f"{low} to below {high}" for low, high in itertools.pairwise(texts)]
    return [f"below {texts[0]}", *between, f"{texts[-1]} and above"]


def _number(value: float, among: npt.NDArray[np.float64]) -> str:
    """Write a number with four digits, or as many more as it takes to tell those beside it apart.

    >>> _number(86.6667, np.array([1.0, 86.6667])), _number(1.00001, np.array([1.0, 1.00001]))
    ('86.67', '1.00001')
    """
    if value == round(value) and abs(value) < 1e15:
        return f"{value:.0f}"
    distinct = np.unique(among).tolist()
    digits = next((n for n in range(4, 17) if len({f"{one:.{n}g}" for one in distinct}) == len(distinct)), 17)
    return f"{value:.{digits}g}"


def _by_text(column: str, texts: pd.Series) -> list[Slice]:
    counts = texts.value_counts()
    # Of equal counts the first in the alphabet, whatever the order of the rows.
    order = sorted(counts.index, key=lambda text: (-counts[text], text))
    if len(order) == len(texts) > 1:
        return [Slice(column, f"{ALL} (another value for every image)", np.ones(len(texts), dtype=bool))]
    shown = order if len(order) <= MOST_SLICES + 1 else order[:MOST_SLICES]
    parts = _alone([Slice(column, text or UNKNOWN, (texts == text).to_numpy()) for text in sorted(shown)])
    rest = ~texts.isin(shown).to_numpy()
    return _filled([*parts, Slice(column, f"{OTHERS} ({len(order) - len(shown)} values)", rest)])


def _alone(parts: list[Slice]) -> list[Slice]:
    """Say of a slice that has no other beside it that it is all there is."""
    return [replace(part, name=f"{ALL}: {part.name}") for part in parts] if len(parts) == 1 else parts


def _filled(parts: list[Slice]) -> list[Slice]:
    return [part for part in parts if part.images.any()]


def folders(paths: pd.Series) -> pd.Series:
    """Return the folder of each path below the one that all have in common: what differs, and nothing of the machine.

    >>> folders(pd.Series(["/d/x/a/1.jpg", "/d/x/a/2.jpg", "/d/x/b/c/1.jpg", "/d/x/3.jpg"])).tolist()
    ['a', 'a', 'b/c', '.']
    >>> folders(pd.Series(["/d/x/1.jpg", "/d/x/2.jpg"])).tolist()
    ['x', 'x']
    """
    parents = [PurePosixPath(path).parent for path in paths]
    first = set(parents)
    if len(first) == 1:
        return pd.Series([parent.name or "." for parent in parents], index=paths.index, dtype=object)
    low, high = min(parent.parts for parent in first), max(parent.parts for parent in first)
    # What the first and the last in order have in common, all between them have too.
    shared = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(low, high, strict=False)))
    names = ["/".join(parent.parts[shared:]) or "." for parent in parents]
    return pd.Series(names, index=paths.index, dtype=object)
