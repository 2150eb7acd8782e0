"""What every `write` shares: names, copies of the images, the rows of each image, and what a format cannot hold."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import Any

from plumbline.errors import DatasetError
from plumbline.formats.image_names import IMAGE_FOLDERS
from plumbline.formats.reading import LabelRow
from plumbline.manifest import Dataset

_FLAGS = ("difficult", "truncated", "crowd")
_CORNERS = ("x1", "y1", "x2", "y2")
_COLUMNS = ("class_id", "class_name", *_CORNERS, "polygon", "rle", *_FLAGS, "source_file", "source_line")


@dataclass(frozen=True)
class ImageEntry:
    """One row of images, as writers need it.

    Attributes:
        image_id: 0.. in the order of path.
        path: As in images.parquet: ``images/<name>``.
        name: Path without its first ``images/``; what `LabelRow.image` says in the rows of `boxes_by_image`.
        width: Pixels, after EXIF orientation; 0 when unreadable.
        height: Pixels, after EXIF orientation; 0 when unreadable.
        split: train, val, test or "".
    """

    image_id: int
    path: str
    name: str
    width: int
    height: int
    split: str


@dataclass(frozen=True)
class _Loss:
    """One thing that some format does not hold.

    Attributes:
        part: What a writer that holds it names in `holds`.
        what: What becomes of it, for people; `Losses` puts the count behind.
    """

    part: str
    what: str


_PARTS = (
    _Loss("boxes", "boxes left out"),
    _Loss("whole_image", "classes of a whole image left out"),
    _Loss("polygon", "polygons became their boxes"),
    _Loss("rle", "masks became their boxes"),
    _Loss("crowd", "crowd regions became boxes like any other"),
    _Loss("difficult", "boxes no longer marked as difficult"),
    _Loss("truncated", "boxes no longer marked as truncated"),
    _Loss("negatives", "images without a label left out"),
    _Loss("split", "images no longer dealt to train, val or test"),
    _Loss("group", "images no longer marked as of one group"),
)


class Losses:
    """Count what a format cannot hold, and say it.

    Args:
        dataset: What is written.
        title: The format's name for people, such as ``Pascal VOC``.
        holds: The parts of ``boxes, whole_image, polygon, rle, crowd, difficult, truncated, negatives, split, group``
            that the format holds; all others are counted here. What it holds only in some cases belongs in `holds`
            too, and the writer counts the other cases with `add`.
    """

    def __init__(self, dataset: Dataset, title: str, holds: frozenset[str]) -> None:
        self._title = title
        self._counts: Counter[str] = Counter()
        present = _present(dataset)
        for loss in _PARTS:
            if loss.part not in holds:
                self._counts[loss.what] += present[loss.part]

    def add(self, what: str, count: int = 1) -> None:
        """Count something more, such as ``polygons of several rings became their boxes``."""
        self._counts[what] += count

    def sentences(self) -> list[str]:
        """Return one sentence for each kind that was lost at least once, as `write` returns them."""
        return [f"{what} ({self._title} cannot hold more): {n}" for what, n in self._counts.items() if n]


def _present(dataset: Dataset) -> dict[str, int]:
    """Return how often each part of `_PARTS` occurs in a dataset."""
    images, annotations = dataset.images, dataset.annotations
    whole = annotations["x1"].isna()
    return {
        "boxes": int((~whole).sum()),
        "whole_image": int(whole.sum()),
        "polygon": int(annotations["polygon"].notna().sum()),
        "rle": int((annotations["rle"] != "").sum()),
        "negatives": int((~images["image_id"].isin(annotations["image_id"])).sum()),
        "split": int((images["split"] != "").sum()),
        "group": int((images["group"] != "").sum()),
        **{flag: int(annotations[flag].sum()) for flag in _FLAGS},
    }


def image_name(path: str) -> str:
    """Return the name of an image from its `images.path`.

    >>> image_name("images/a/b.jpg"), image_name("images/JPEGImages/b.jpg")
    ('a/b.jpg', 'JPEGImages/b.jpg')
    """
    return path.removeprefix("images/")


def names_below(entries: Sequence[ImageEntry], folder: str) -> dict[str, str]:
    """Return, for the name of each image, its place in a folder, where all may already stand in one called so.

    Another format's folder of images becomes this one's, so that names do not grow from format to format.

    >>> names_below([ImageEntry(0, "images/x/a.jpg", "x/a.jpg", 1, 1, "")], "images")
    {'x/a.jpg': 'images/x/a.jpg'}
    >>> names_below([ImageEntry(0, "images/images/a.jpg", "images/a.jpg", 1, 1, "")], "images")
    {'images/a.jpg': 'images/a.jpg'}
    >>> names_below([ImageEntry(0, "images/JPEGImages/a.jpg", "JPEGImages/a.jpg", 1, 1, "")], "images")
    {'JPEGImages/a.jpg': 'images/a.jpg'}
    """
    tops = {entry.name.partition("/")[0] if "/" in entry.name else "" for entry in entries}
    replaced = f"{tops.pop()}/" if len(tops) == 1 and tops <= {folder, *IMAGE_FOLDERS} else ""
    return {entry.name: f"{folder}/{entry.name.removeprefix(replaced)}" for entry in entries}


def image_entries(dataset: Dataset) -> list[ImageEntry]:
    """Return the images in the order of image_id."""
    columns = ["image_id", "path", "width", "height", "split"]
    rows = dataset.images.sort_values("image_id", kind="stable")[columns].itertuples(index=False, name=None)
    return [ImageEntry(int(i), path, image_name(path), int(w), int(h), split) for i, path, w, h, split in rows]


def boxes_by_image(dataset: Dataset) -> Iterator[tuple[ImageEntry, list[LabelRow]]]:
    """Yield every image with its rows, in the order of image_id and ann_id; none for a negative."""
    annotations = dataset.annotations.sort_values(["image_id", "ann_id"], kind="stable")
    columns = (annotations[name].tolist() for name in ("image_id", *_COLUMNS))
    by_image = groupby(zip(*columns, strict=True), key=itemgetter(0))
    image_id, group = next(by_image, (-1, iter(())))
    for entry in image_entries(dataset):
        if entry.image_id != image_id:
            yield entry, []
            continue
        yield entry, [_label_row(entry.name, dict(zip(_COLUMNS, values, strict=True))) for _, *values in group]
        image_id, group = next(by_image, (-1, iter(())))


def _label_row(image: str, values: dict[str, Any]) -> LabelRow:
    xyxy = tuple(values.pop(corner) for corner in _CORNERS)
    rings = values.pop("polygon")
    polygon = None if rings is None else tuple(tuple(map(float, ring)) for ring in rings)
    return LabelRow(image=image, xyxy=None if math.isnan(xyxy[0]) else xyxy, polygon=polygon, **values)


def place_images(dataset: Dataset, folder: Path, place: Callable[[str], str]) -> None:
    """Copy the bytes of every image.

    Args:
        dataset: Its images stand at `Dataset.image_path`.
        folder: Where to.
        place: Gives, for `ImageEntry.name`, where the image goes below `folder`.

    Raises:
        DatasetError: An image is not there, a place lies outside of the folder, or two images have one place.
    """
    taken: set[Path] = set()
    for entry in image_entries(dataset):
        target = inside(folder, place(entry.name))
        if target in taken:
            raise DatasetError(f"{entry.path}: another image has the place {target} too; rename one of them")
        taken.add(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            target.write_bytes(dataset.image_data(entry.path))
        except OSError as error:
            original = dataset.root / entry.path
            raise DatasetError(f"{original}: cannot be copied ({error.strerror}); run ingest again") from error


def label_places(places: dict[str, str], label: Callable[[str], str]) -> dict[str, str]:
    """Return, for the name of each image, where its label file goes.

    Args:
        places: Name of the image -> its place.
        label: Gives the label's place for the image's.

    Raises:
        DatasetError: Two images (a.jpg and a.png) would share one label file.
    """
    found = {name: label(place) for name, place in places.items()}
    owner: dict[str, str] = {}
    for name, place in found.items():
        if place in owner:
            raise DatasetError(f"{name}: would share the label file {place} with {owner[place]}; rename one of them")
        owner[place] = name
    return found


def inside(folder: Path, name: str) -> Path:
    """Return a path below a folder.

    Raises:
        DatasetError: The name leads elsewhere.
    """
    relative = PurePosixPath(name)
    if relative.is_absolute() or not relative.parts or ".." in relative.parts or "\0" in name:
        raise DatasetError(f"{name!r}: leads out of {folder}, expected a name inside it; rename the image")
    return folder / relative
