"""The other half of `plumbline.formats.labelme`: write a dataset as Labelme files."""

from __future__ import annotations

import json
import posixpath
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from plumbline.formats.json_lines import LineWriter, short_number
from plumbline.formats.reading import LabelRow
from plumbline.formats.rings import count_inexact
from plumbline.formats.writing import (
    ImageEntry,
    Losses,
    boxes_by_image,
    image_entries,
    inside,
    names_below,
    place_images,
)
from plumbline.manifest import Dataset

_HOLDS = frozenset({"boxes", "whole_image", "polygon", "crowd", "difficult", "truncated", "negatives", "split"})
# The oldest that reads all of it.
_VERSION = "5.0.0"


def write(dataset: Dataset, folder: Path) -> list[str]:
    """Write ``images/`` with a JSON file beside each image, without embedded images.

    See `plumbline.formats.Format.write`.
    """
    places = names_below(image_entries(dataset), "images")
    place_images(dataset, folder, places.__getitem__)
    stems = Counter(posixpath.splitext(place)[0] for place in places.values())
    losses = Losses(dataset, "Labelme", _HOLDS)
    for entry, rows in boxes_by_image(dataset):
        place = places[entry.name]
        stem = posixpath.splitext(place)[0]
        # a.jpg and a.png would share a.json, so they get a.jpg.json and a.png.json.
        label = f"{stem if stems[stem] == 1 else place}.json"
        _write_label(entry, posixpath.basename(place), rows, inside(folder, label))
        count_inexact(rows, losses)
        losses.add("reversed boxes put in order", sum(map(_is_reversed, rows)))
        whole = [row.class_name for row in rows if row.xyxy is None]
        losses.add("repeated classes of a whole image written once", len(whole) - len(set(whole)))
    return losses.sentences()


def _is_reversed(row: LabelRow) -> bool:
    return row.xyxy is not None and row.polygon is None and (row.xyxy[0] > row.xyxy[2] or row.xyxy[1] > row.xyxy[3])


def _write_label(entry: ImageEntry, image_path: str, rows: Sequence[LabelRow], path: Path) -> None:
    flags = {row.class_name: True for row in rows if row.xyxy is None}
    with path.open("w", encoding="utf-8", newline="\n") as file:
        flags_text = json.dumps(flags, ensure_ascii=False)
        file.write(f'{{\n"version": "{_VERSION}",\n"flags": {flags_text},\n"shapes": [')
        lines = LineWriter(file)
        for number, row in enumerate(rows, start=1):
            for shape in _shapes(row, number):
                lines.add(shape)
        name = json.dumps(image_path, ensure_ascii=False)
        file.write(f'\n],\n"imagePath": {name},\n"imageData": null,\n')
        size = f'"imageHeight": {entry.height},\n"imageWidth": {entry.width}'
        # Said of every image, or else the folder's name would say it.
        file.write(f'{size},\n"split": "{entry.split}"\n}}\n')


def _shapes(row: LabelRow, number: int) -> Iterator[dict[str, object]]:
    """Yield one shape for a box, or one for each ring of a polygon; none for a class of the whole image.

    Args:
        row: The box.
        number: Of no other row of its image; the rings of one object share it.
    """
    if row.xyxy is None:
        return
    rings = row.polygon or (row.xyxy,)
    for ring in rings:
        values = list(map(short_number, ring))
        yield {
            "label": row.class_name,
            "points": [values[at : at + 2] for at in range(0, len(values), 2)],
            "group_id": number if len(rings) > 1 else None,
            "description": "",
            "shape_type": "polygon" if row.polygon else "rectangle",
            "flags": {name: True for name in ("difficult", "truncated", "crowd") if getattr(row, name)},
        }
