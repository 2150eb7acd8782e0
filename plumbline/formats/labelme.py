"""Labelme: one JSON file beside each image, with a list of shapes.

**Shapes.** A ``rectangle`` is two opposite corners, in whichever order they were drawn (or all four, as some versions
write them); its box is their bounds. A ``polygon`` is kept as a ring, with its bounds as the box; polygons of one label
and one ``group_id`` are the rings of one object, as Labelme's own export to COCO takes them. A ``circle`` is its centre
and a point on it; its box is exact. A point, a line, a line strip or a mask has no box and is refused. Coordinates are
pixels from the upper left corner, 0-based, and are taken as they are.

**Flags.** A flag of the file that is true is a class of the whole image. Of the flags of a shape ``difficult``,
``truncated`` and ``crowd`` are read and written; others are passed over.

**Which image.** ``imagePath`` from the folder of the JSON file; its last name there, or in ``images/`` beside the
folder of the labels; or else the image with the JSON file's own stem. Where there is none, ``imageData`` may hold the
image itself: `wrap` makes a file of it. A file that is there goes before what is embedded.

**Which split.** The key ``split``, which Labelme keeps as it keeps every key that it does not know, or else the image's
folder (``train``, ``val``, ``valid``, ``test``).

Source: Labelme, https://github.com/wkentaro/labelme: ``labelme/_label_file.py``, ``labelme/shape.py`` and
``examples/instance_segmentation/labelme2coco.py``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from plumbline.faults import MALFORMED_LABEL, MALFORMED_ROW, MISSING_IMAGE, NOT_FINITE, SECOND_LABEL, UNSUPPORTED_SHAPE
from plumbline.formats.image_names import ImageFinder, size_findings, split_of_folder
from plumbline.formats.json_lines import (
    Member,
    clean_text,
    elements,
    finite_numbers,
    flag,
    members,
    read_members,
    shown,
)
from plumbline.formats.labelme_images import decode_image, find_image, wrap
from plumbline.formats.labelme_writing import write
from plumbline.formats.reading import (
    SPLIT_NAMES,
    LabelRow,
    MalformedError,
    ReadFinding,
    ReadResult,
    decode_text,
    list_images,
    missing_labels,
    names_ending,
    to_class_id,
)
from plumbline.formats.rings import Box, ObjectRows, ring_bounds
from plumbline.image_scan import ImageScan

if TYPE_CHECKING:
    from plumbline.sources import Source

__all__ = ["LAYOUT", "find_images", "read", "sniff", "wrap", "write"]

LAYOUT = "a *.json file with a list of shapes beside each image"

_SHAPES = re.compile(rb'"shapes"\s*:\s*\[')
_FILES_SNIFFED = 10
_SIZE = ("imageWidth", "imageHeight")

Points = Sequence[Sequence[float]]


def sniff(source: Source) -> bool:
    """Say whether one of the first JSON files has a list of shapes."""
    names = names_ending(source, (".json",))
    # From all over: a data set can have folders of other JSON files, too.
    return any(_has_shapes(source, name) for name in names[:: len(names) // _FILES_SNIFFED + 1])


def _has_shapes(source: Source, name: str) -> bool:
    try:
        return _SHAPES.search(source.read(name)) is not None
    except OSError:
        return False


def find_images(source: Source) -> list[str]:
    """Return every image of the source; with those that labels hold themselves, where it comes from `wrap`."""
    return list_images(source)


def read(source: Source, class_names: tuple[str, ...], scans: Mapping[str, ImageScan]) -> ReadResult:
    """Read every JSON file; see `plumbline.formats.Format.read`."""
    finder = ImageFinder(scans)
    names = names_ending(source, (".json",))
    found = {name: _read_file(source, name, class_names, scans, finder) for name in source.order(names)}
    result = ReadResult()
    label_of: dict[str, str] = {}
    for name in names:
        image, line, one = found[name]
        # The same objects twice would be found a second time, as duplicates.
        result.rows.extend([] if image in label_of else one.rows)
        result.findings.extend(one.findings)
        result.splits.update(one.splits)
        if image in label_of:
            message = f"a second label file for {image}, which {label_of[image]} is about; remove one of the two"
            result.findings.append(ReadFinding(source.where(name), line, SECOND_LABEL, message, image))
        elif image:
            label_of[image] = source.where(name)
    result.findings.extend(missing_labels(source, sorted(scans), set(label_of), "a JSON file of it"))
    return result


def _read_file(
    source: Source, name: str, class_names: tuple[str, ...], scans: Mapping[str, ImageScan], finder: ImageFinder
) -> tuple[str, int, ReadResult]:
    """Return the image that a JSON file is about, the line that says so, and what it says."""
    where = source.where(name)
    image = find_image(finder, name, "")
    result = ReadResult()
    try:
        text, odd = decode_text(source.read(name), where)
        label = _open_label(where, text)
    except OSError as error:
        message = f"cannot be read ({error}), expected a Labelme file; replace it"
        result.findings.append(ReadFinding(where, 0, MALFORMED_LABEL, message, image))
        return image, 0, result
    except MalformedError as error:
        result.findings.append(ReadFinding(where, error.line, error.code, str(error), image))
        return image, 0, result
    image = find_image(finder, name, label.image_path)
    result.findings.extend(replace(finding, image=image) for finding in odd)
    _read_label(label, image, scans.get(image), class_names, result)
    if split := _split(label, image):
        result.splits[image] = split
    return image, label.line("imagePath"), result


def _split(label: _Label, image: str) -> str:
    """Return the split that a label file tells, or else the image's folder."""
    if "split" not in label.members:
        return split_of_folder(image)
    return SPLIT_NAMES.get(str(label.value("split")).lower(), "") if image else ""


@dataclass(frozen=True)
class _Label:
    """One JSON file that is checked, and whose shapes are not yet read."""

    where: str
    text: str
    members: Mapping[str, Member]

    def value(self, key: str) -> Any:
        return self.members[key].value if key in self.members else None

    def line(self, key: str) -> int:
        return self.members[key].line if key in self.members else 1

    @property
    def image_path(self) -> str:
        written = self.value("imagePath")
        return written if isinstance(written, str) else ""


def _open_label(where: str, text: str) -> _Label:
    label = _Label(where, text, read_members(text, ("shapes",)))
    if "shapes" not in label.members or not label.members["shapes"].is_array:
        message = "no list of shapes, expected a Labelme file; correct or remove it"
        raise MalformedError(message, label.line("shapes"), MALFORMED_LABEL)
    return label


def _read_label(
    label: _Label, image: str, scan: ImageScan | None, class_names: tuple[str, ...], result: ReadResult
) -> None:
    """Add the rows and findings of one JSON file to `result`."""
    found = _about_the_image(label, image, scan)
    objects = ObjectRows()
    where = _Where(image, label.where, class_names)
    for line, shape in elements(label.text, label.members["shapes"]):
        try:
            objects.add(_row(shape, where, line), _group(shape))
        except MalformedError as error:
            found.append(ReadFinding(label.where, line, error.code, f"shape: {error}", image))
    flags, wrong = _flags(label, where)
    result.findings.extend([*found, *wrong])
    result.rows.extend([*flags, *objects.rows] if scan is not None else [])


def _about_the_image(label: _Label, image: str, scan: ImageScan | None) -> list[ReadFinding]:
    """Return what is wrong with what a label says of its image."""
    if label.value("imageData"):
        try:
            decode_image(label.value("imageData"))
        except MalformedError as error:
            return [ReadFinding(label.where, label.line("imageData"), error.code, str(error), image)]
    if scan is None:
        message = f"no image {shown(label.value('imagePath'))} for this label file; add it, or remove the label file"
        return [ReadFinding(label.where, label.line("imagePath"), MISSING_IMAGE, message)]
    size = [label.value(key) for key in _SIZE]
    if None in size:
        return []
    line = label.line("imageWidth")
    try:
        width, height = finite_numbers(size, "imageWidth and imageHeight as numbers")
    except MalformedError as error:
        return [ReadFinding(label.where, line, error.code, str(error), image)]
    return size_findings((width, height), scan, image, (label.where, line))


@dataclass(frozen=True)
class _Where:
    """What all rows of one label file share."""

    image: str
    source_file: str
    class_names: tuple[str, ...]

    def row(self, class_name: str, xyxy: Box | None, line: int) -> LabelRow:
        class_id = to_class_id(class_name, self.class_names)
        return LabelRow(self.image, class_id, class_name, xyxy, self.source_file, line)


def _flags(label: _Label, where: _Where) -> tuple[list[LabelRow], list[ReadFinding]]:
    """Return the classes of the whole image, and the findings."""
    rows: list[LabelRow] = []
    findings: list[ReadFinding] = []
    flags = label.value("flags")
    if flags is not None and not isinstance(flags, dict):
        message = f"flags: expected an object {{...}}, got {shown(flags)}; correct it"
        findings.append(ReadFinding(label.where, label.line("flags"), MALFORMED_ROW, message, where.image))
    for key, member in members(label.text, label.members["flags"]).items() if isinstance(flags, dict) else ():
        try:
            if flag({key: member.value}, key):
                rows.append(where.row(clean_text(key, "a class"), None, member.line))
        except MalformedError as error:
            findings.append(ReadFinding(label.where, member.line, error.code, f"flags: {error}", where.image))
    return rows, findings


def _group(shape: dict[str, Any]) -> int | str | None:
    """Return what the shapes of one object share, None for none."""
    group = shape.get("group_id")
    if group is None or type(group) is int or type(group) is str:
        return group
    raise MalformedError(f"group_id: expected null or a whole number, got {shown(group)}; correct it")


def _row(shape: Any, where: _Where, line: int) -> LabelRow:
    """Make the row of one shape.

    Raises:
        MalformedError: A part is missing or of the wrong kind, or the shape has no box.
    """
    if not isinstance(shape, dict):
        raise MalformedError(f"expected an object {{...}}, got {shown(shape)}; correct it")
    class_name = clean_text(shape.get("label"), "a label")
    kind = shape.get("shape_type")
    # Labelme knew only polygons before it wrote what a shape is.
    kind = "polygon" if kind is None else clean_text(kind, "a shape_type")
    if kind not in _BOXES:
        message = f"shape_type {shown(kind)} has no box, expected one of: {', '.join(_BOXES)}; draw one of these"
        raise MalformedError(message, code=UNSUPPORTED_SHAPE)
    points = _points(shape.get("points"))
    xyxy = _BOXES[kind](points)
    if not all(map(math.isfinite, xyxy)):
        raise MalformedError(
            f"expected a {kind} of finite size, got {shown(shape['points'])}; correct it", code=NOT_FINITE
        )
    flags = shape.get("flags") or {}
    if not isinstance(flags, dict):
        raise MalformedError(f"flags: expected an object {{...}}, got {shown(flags)}; correct it")
    return replace(
        where.row(class_name, xyxy, line),
        polygon=(_flat(points),) if kind == "polygon" else None,
        difficult=flag(flags, "difficult"),
        truncated=flag(flags, "truncated"),
        crowd=flag(flags, "crowd"),
    )


def _points(values: object) -> Points:
    if not isinstance(values, list):
        raise MalformedError(f"expected points [[x, y], ...], got {shown(values)}; correct it")
    points = [finite_numbers(value, "a point [x, y]") for value in values]
    if any(len(point) != 2 for point in points):
        raise MalformedError(f"expected points [[x, y], ...], got {shown(values)}; correct it")
    return points


def _flat(points: Points) -> tuple[float, ...]:
    return tuple(value for point in points for value in point)


def _polygon_box(points: Points) -> Box:
    if len(points) < 3:
        raise MalformedError(f"expected a polygon of three points or more, got {len(points)}; correct it")
    return ring_bounds(_flat(points))


def _rectangle_box(points: Points) -> Box:
    if len(points) not in {2, 4}:
        raise MalformedError(f"expected a rectangle of two opposite corners, got {len(points)}; correct it")
    x1, y1, x2, y2 = ring_bounds(_flat(points))
    if any(x not in {x1, x2} or y not in {y1, y2} for x, y in points):
        raise MalformedError("a turned rectangle, expected an upright one; draw a polygon", code=UNSUPPORTED_SHAPE)
    return x1, y1, x2, y2


def _circle_box(points: Points) -> Box:
    """Return the box of a circle.

    >>> _circle_box([(10.0, 10.0), (13.0, 14.0)])
    (5.0, 5.0, 15.0, 15.0)
    """
    if len(points) != 2:
        raise MalformedError(f"expected a circle's centre and a point on it, got {len(points)} points; correct it")
    (x, y), edge = points
    radius = math.dist((x, y), edge)
    return x - radius, y - radius, x + radius, y + radius


_BOXES = {"rectangle": _rectangle_box, "polygon": _polygon_box, "circle": _circle_box}
