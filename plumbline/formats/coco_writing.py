"""The other half of `plumbline.formats.coco`: write a dataset as COCO files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

import numpy as np

from plumbline.formats.json_lines import LineWriter, short_number
from plumbline.formats.reading import LabelRow
from plumbline.formats.writing import Losses, boxes_by_image, image_entries, names_below, place_images
from plumbline.manifest import CLASS_OUT_OF_RANGE_ID, UNKNOWN_CLASS_ID, Dataset

_HOLDS = frozenset({"boxes", "polygon", "rle", "crowd", "difficult", "truncated", "negatives", "split"})


def write(dataset: Dataset, folder: Path) -> list[str]:
    """Write ``annotations/instances.json``, or one file for each split, and ``images/``.

    Each image and each annotation has a line of its own, so that a difference reads well. Ids begin with 1, as
    pycocotools takes an annotation 0 for none.

    See `plumbline.formats.Format.write`.
    """
    places = names_below(image_entries(dataset), "images")
    place_images(dataset, folder, places.__getitem__)
    categories = _categories(dataset)
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    for split in sorted(set(dataset.images["split"])) or [""]:
        name = f"instances_{split}.json" if split else "instances.json"
        with (folder / "annotations" / name).open("w", encoding="utf-8", newline="\n") as file:
            _write_file(dataset, split, places, categories, file)
    return Losses(dataset, "COCO", _HOLDS).sentences()


def _categories(dataset: Dataset) -> dict[str, int]:
    """Return the id of each class, in the order of class_names, and behind them those that are not in it."""
    annotations = dataset.annotations
    unknown = set(annotations.loc[annotations["class_id"] == UNKNOWN_CLASS_ID, "class_name"])
    return {name: number for number, name in enumerate([*dataset.class_names, *sorted(unknown)], start=1)}


def _write_file(
    dataset: Dataset, split: str, places: Mapping[str, str], categories: Mapping[str, int], file: TextIO
) -> None:
    """Write one file; what goes into it passes by twice, so that it need not be held."""
    file.write('{\n"info": {"description": "written by plumbline"},\n"images": [')
    lines = LineWriter(file)
    for entry in image_entries(dataset):
        if entry.split == split:
            file_name = places[entry.name].removeprefix("images/")
            size = {"width": entry.width, "height": entry.height}
            lines.add({"id": entry.image_id + 1, "file_name": file_name, **size})
    file.write('\n],\n"annotations": [')
    lines = LineWriter(file)
    for entry, rows in boxes_by_image(dataset):
        for row in rows if entry.split == split else ():
            if row.xyxy is not None:
                lines.add({"id": lines.written + 1, "image_id": entry.image_id + 1, **_annotation(row, categories)})
    file.write('\n],\n"categories": [')
    lines = LineWriter(file)
    for name, number in categories.items():
        lines.add({"id": number, "name": name})
    file.write("\n]\n}\n")


def _annotation(row: LabelRow, categories: Mapping[str, int]) -> dict[str, object]:
    assert row.xyxy is not None
    x1, y1, x2, y2 = row.xyxy
    # A number beyond the list stays beyond it as text, whatever the categories' numbers are here.
    category = row.class_name if row.class_id == CLASS_OUT_OF_RANGE_ID else categories[row.class_name]
    segmentation: object = [list(map(short_number, ring)) for ring in row.polygon or ()]
    flags = {name: 1 for name in ("difficult", "truncated") if getattr(row, name)}
    return {
        "category_id": category,
        "bbox": [short_number(value) for value in (x1, y1, x2 - x1, y2 - y1)],
        "area": short_number(_area(row)),
        "iscrowd": int(row.crowd),
        "segmentation": json.loads(row.rle) if row.rle else segmentation,
        **flags,
    }


def _area(row: LabelRow) -> float:
    """Return the pixels of the mask, or else of the polygon, or else of the box."""
    assert row.xyxy is not None
    if row.rle:
        return _mask_area(json.loads(row.rle))
    if row.polygon:
        return sum(map(ring_area, row.polygon))
    x1, y1, x2, y2 = row.xyxy
    return max(0.0, x2 - x1) * max(0.0, y2 - y1)


def ring_area(ring: Sequence[float]) -> float:
    """Return the area of a polygon in square pixels, by the shoelace formula.

    Args:
        ring: x, y, x, y... in pixels, in either direction.

    >>> ring_area([0, 0, 4, 0, 4, 3])
    6.0
    """
    x, y = np.asarray(ring, dtype=np.float64).reshape(-1, 2).T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


def _mask_area(mask: dict[str, object]) -> float:
    """Return the area of a run-length mask in pixels.

    >>> _mask_area({"counts": [1, 3], "size": [2, 2]})
    3
    """
    if isinstance(mask["counts"], list):
        return sum(mask["counts"][1::2])
    from pycocotools import mask as coco_mask

    return int(coco_mask.area({**mask, "counts": str(mask["counts"]).encode()}))
