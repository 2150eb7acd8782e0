"""The other half of `plumbline.formats.cvat`: write a dataset as CVAT's XML."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

from plumbline.errors import DatasetError
from plumbline.formats.json_lines import short_number
from plumbline.formats.reading import LabelRow
from plumbline.formats.rings import count_inexact
from plumbline.formats.writing import ImageEntry, Losses, boxes_by_image, image_entries, names_below, place_images
from plumbline.manifest import UNKNOWN_CLASS_ID, Dataset

_HOLDS = frozenset({"boxes", "whole_image", "polygon", "difficult", "truncated", "negatives", "split"})

# What XML 1.0 cannot hold, not even escaped, and what it takes for spaces.
_NOT_XML = re.compile("[\x00-\x1f\ufffe\uffff]")


def write(dataset: Dataset, folder: Path) -> list[str]:
    """Write ``annotations.xml`` and ``images/``.

    See `plumbline.formats.Format.write`.

    Raises:
        DatasetError: A class name cannot stand in XML.
    """
    for class_name in sorted({*dataset.class_names, *dataset.annotations["class_name"].unique()}):
        if _NOT_XML.search(class_name):
            raise DatasetError(
                f"{class_name!r}: holds a character that CVAT's XML cannot, expected plain text; rename it"
            )
    places = names_below(image_entries(dataset), "images")
    place_images(dataset, folder, places.__getitem__)
    losses = Losses(dataset, "CVAT", _HOLDS)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "annotations.xml").open("w", encoding="utf-8", newline="\n") as file:
        file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n')
        file.writelines(_meta(dataset))
        for entry, rows in boxes_by_image(dataset):
            file.writelines(_image(entry, places[entry.name].removeprefix("images/"), rows))
            count_inexact(rows, losses)
        file.write("</annotations>\n")
    return losses.sentences()


def _meta(dataset: Dataset) -> Iterator[str]:
    """Yield the list of classes: those of class_names in their order, and behind them those that are not in it."""
    annotations = dataset.annotations
    unknown = set(annotations.loc[annotations["class_id"] == UNKNOWN_CLASS_ID, "class_name"])
    yield "  <meta>\n    <task>\n      <labels>\n"
    for name in (*dataset.class_names, *sorted(unknown)):
        yield f"        <label><name>{escape(name)}</name></label>\n"
    yield "      </labels>\n    </task>\n  </meta>\n"


def _image(entry: ImageEntry, name: str, rows: Iterable[LabelRow]) -> Iterator[str]:
    subset = {"subset": entry.split} if entry.split else {}
    size = {"width": entry.width, "height": entry.height}
    yield f"  <image{_attributes({'id': entry.image_id, 'name': name, **subset, **size})}>\n"
    for number, row in enumerate(rows, start=1):
        yield from _shapes(row, number)
    yield "  </image>\n"


def _shapes(row: LabelRow, number: int) -> Iterator[str]:
    """Yield an element for a tag or a box, or one for each ring of a polygon.

    Args:
        row: The box.
        number: Of no other row of its image; the rings of one object share it.
    """
    flags = "".join(
        f'\n      <attribute name="{name}">true</attribute>'
        for name in ("difficult", "truncated")
        if getattr(row, name)
    )
    label: dict[str, object] = {"label": row.class_name, "source": "file"}
    if row.xyxy is None:
        shapes = [("tag", label)]
    elif row.polygon is None:
        corners = dict(zip(("xtl", "ytl", "xbr", "ybr"), map(short_number, row.xyxy), strict=True))
        shapes = [("box", {**label, "occluded": 0, **corners, "z_order": 0})]
    else:
        group = {"group_id": number} if len(row.polygon) > 1 else {}
        shapes = [
            ("polygon", {**label, "occluded": 0, "points": _points(ring), "z_order": 0, **group})
            for ring in row.polygon
        ]
    for kind, attributes in shapes:
        content = f"{flags}\n    " if flags else ""
        yield f"    <{kind}{_attributes(attributes)}>{content}</{kind}>\n"


def _points(ring: tuple[float, ...]) -> str:
    return ";".join(f"{short_number(x)},{short_number(y)}" for x, y in zip(ring[::2], ring[1::2], strict=True))


def _attributes(attributes: Mapping[str, object]) -> str:
    return "".join(f" {name}={quoteattr(str(value))}" for name, value in attributes.items())
