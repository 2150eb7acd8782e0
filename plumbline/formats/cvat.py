"""CVAT for images 1.1: one XML file about all images of a task, with their boxes, polygons and tags.

**Boxes.** ``xtl, ytl, xbr, ybr`` are pixels from the upper left corner, 0-based, and are taken as they are. A
``polygon`` is kept as a ring, with its bounds as the box; polygons of one label and one ``group_id`` other than 0 are
the rings of one object, as CVAT's own export to COCO takes them. A ``tag`` is a class of the whole image. A mask, an
ellipse, a polyline, points, a cuboid, a skeleton, the track of a video and a box that is turned are refused.

**Flags.** An ``<attribute>`` named ``difficult`` or ``truncated`` is read and written; others are passed over. So is
``occluded``, which says that something stands before the object: no column of this line means that.

**Which image.** ``name`` from the folder of the XML file, or from ``images/`` or ``images/<subset>/`` there; or else
the only image whose path ends so, or that has its last name. **Which split.** ``subset``, or else what the name or
folder of the XML file says. **Which classes.** Those in ``<meta>``, without the parts of skeletons.

The file is read as a stream, and never as a whole tree. Entities are refused, and nothing is ever fetched.

Source: CVAT, https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/ and
https://docs.cvat.ai/docs/manual/advanced/xml_format/, "Annotation".
"""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from plumbline.faults import MALFORMED_LABEL, MISSING_IMAGE, SECOND_LABEL, UNSUPPORTED_SHAPE
from plumbline.formats.cvat_writing import write
from plumbline.formats.cvat_xml import CvatImage, CvatShape, parse
from plumbline.formats.image_names import ImageFinder, image_folders, size_findings, split_of_folder, split_of_label
from plumbline.formats.json_lines import clean_text, shown
from plumbline.formats.reading import (
    LabelRow,
    MalformedError,
    ReadFinding,
    ReadResult,
    decode_text,
    list_images,
    missing_labels,
    names_ending,
    to_class_id,
    to_number,
    with_images,
)
from plumbline.formats.rings import Box, ObjectRows, ring_bounds
from plumbline.image_scan import ImageScan

if TYPE_CHECKING:
    from plumbline.sources import Source

__all__ = ["LAYOUT", "find_images", "read", "sniff", "write"]

LAYOUT = "an annotations.xml that begins with <annotations>, with the images in images/ or beside it"

_ROOT = re.compile(rb"<annotations[\s>]")
_HEAD = 4096
_FILES_SNIFFED = 10
_CORNERS = ("xtl", "ytl", "xbr", "ybr")
_FLAG_TEXTS = {"": False, "0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}


def sniff(source: Source) -> bool:
    """Say whether one of the largest XML files begins as CVAT's do."""
    sizes = source.files()
    # VOC has an XML file for each image, which would take long to read; the one file of CVAT is larger.
    names = sorted(names_ending(source, (".xml",)), key=lambda name: (-sizes[name], name))[:_FILES_SNIFFED]
    return any(_has_root(source, name) for name in names)


def _has_root(source: Source, name: str) -> bool:
    try:
        return _ROOT.search(source.read(name)[:_HEAD]) is not None
    except OSError:
        return False


def find_images(source: Source) -> list[str]:
    """Return every image of the source."""
    return list_images(source)


def read(source: Source, class_names: tuple[str, ...], scans: Mapping[str, ImageScan]) -> ReadResult:
    """Read every XML file; see `plumbline.formats.Format.read`."""
    finder = ImageFinder(scans)
    result = ReadResult()
    declared: dict[str, None] = {}
    labelled: dict[str, str] = {}
    broken: list[ReadFinding] = []
    # Few files, of which each depends on those before it: read by name, not in the source's own order.
    for name in names_ending(source, (".xml",)):
        where = source.where(name)
        try:
            file = _File(name, where, class_names, scans, finder, labelled)
            text, odd = decode_text(source.read(name), where)
            names = parse(text, file.take)
            file.finish()
        except OSError as error:
            message = f"cannot be read ({error}), expected CVAT's XML; replace it"
            broken.append(ReadFinding(where, 0, MALFORMED_LABEL, message))
        except MalformedError as error:
            broken.append(ReadFinding(where, error.line, error.code, str(error)))
        else:
            result.rows.extend(file.rows)
            result.findings.extend([*odd, *file.findings])
            result.splits.update(file.splits)
            labelled.update(file.labelled)
            declared.update(dict.fromkeys(names))
    unlabelled = [image for image in sorted(scans) if image not in labelled]
    result.findings.extend(missing_labels(source, unlabelled, set(), "an <image> of it in CVAT's XML"))
    result.findings.extend(with_images(broken, unlabelled))
    return replace(result, declared_names=tuple(declared))


@dataclass
class _File:
    """What one XML file says; of no use if the file turns out to be broken.

    Attributes:
        taken: The images that other files are about, and where.
        labelled: The images that this file is about, and where.
    """

    name: str
    where: str
    class_names: tuple[str, ...]
    scans: Mapping[str, ImageScan]
    finder: ImageFinder
    taken: dict[str, str]
    labelled: dict[str, str] = field(default_factory=dict)
    rows: list[LabelRow] = field(default_factory=list)
    findings: list[ReadFinding] = field(default_factory=list)
    splits: dict[str, str] = field(default_factory=dict)
    _folders: dict[str, list[str]] = field(default_factory=dict)
    _unmatched: list[CvatImage] = field(default_factory=list)

    def take(self, item: CvatImage) -> None:
        """Add an <image>; one that has only a loose match waits, so that it takes none that has an exact one."""
        if item.kind != "image":
            message = "the track of a video has no image, expected CVAT for images; export the task in that format"
            self._add_finding(item.line, UNSUPPORTED_SHAPE, message)
            return
        try:
            clean_text(item.attributes.get("name"), "an image with a name")
        except MalformedError as error:
            self._add_finding(item.line, error.code, str(error))
            return
        subset = item.attributes.get("subset", "")
        if subset not in self._folders:
            self._folders[subset] = image_folders(self.name, [subset] if subset else [])
        image = self.finder.find(item.attributes["name"], self._folders[subset])
        if image:
            self._add_image(item, image)
        else:
            self._unmatched.append(item)

    def finish(self) -> None:
        """Add those that waited."""
        for item in self._unmatched:
            image = self.finder.find_anywhere(
                item.attributes["name"], self._split(item), ChainMap(self.labelled, self.taken)
            )
            if image:
                self._add_image(item, image)
            else:
                message = f"no image {shown(item.attributes['name'])}, or more than one; add it, or remove this <image>"
                self._add_finding(item.line, MISSING_IMAGE, message)

    def _add_finding(self, line: int, code: str, message: str, image: str = "") -> None:
        self.findings.append(ReadFinding(self.where, line, code, message, image))

    def _split(self, item: CvatImage) -> str:
        return split_of_folder(item.attributes.get("subset", "") + "/") or split_of_label(self.name)

    def _add_image(self, item: CvatImage, image: str) -> None:
        first = ChainMap(self.labelled, self.taken).get(image)
        if first:
            message = f"a second <image> for {image}, which {first} is about; remove one of the two"
            self._add_finding(item.line, SECOND_LABEL, message, image)
        else:
            self.labelled[image] = f"{self.where}:{item.line}"
            if split := self._split(item):
                self.splits[image] = split
            self.findings.extend(self._wrong_size(item, image))
        objects = ObjectRows()
        for shape in item.shapes:
            try:
                objects.add(self._row(shape, image), _group(shape))
            except MalformedError as error:
                self._add_finding(shape.line, error.code, f"<{shape.kind}>: {error}", image)
        self.rows.extend(objects.rows)

    def _wrong_size(self, item: CvatImage, image: str) -> list[ReadFinding]:
        if not {"width", "height"} <= item.attributes.keys():
            return []
        try:
            size_wh = (_number(item.attributes, "width"), _number(item.attributes, "height"))
        except MalformedError as error:
            return [ReadFinding(self.where, item.line, error.code, f"<image>: {error}", image)]
        return size_findings(size_wh, self.scans[image], image, (self.where, item.line))

    def _row(self, shape: CvatShape, image: str) -> LabelRow:
        """Make the row of one shape.

        Raises:
            MalformedError: A part is missing or no number, or the shape has no box.
        """
        if shape.kind not in {"box", "polygon", "tag"}:
            message = "it has no box, expected a <box>, a <polygon> or a <tag>; draw one of these"
            raise MalformedError(message, code=UNSUPPORTED_SHAPE)
        class_name = clean_text(shape.attributes.get("label"), "a label")
        ring = _ring(shape.attributes) if shape.kind == "polygon" else ()
        xyxy = ring_bounds(ring) if ring else None
        return LabelRow(
            image=image,
            class_id=to_class_id(class_name, self.class_names),
            class_name=class_name,
            xyxy=_box(shape.attributes) if shape.kind == "box" else xyxy,
            source_file=self.where,
            source_line=shape.line,
            difficult=_flag(shape, "difficult"),
            truncated=_flag(shape, "truncated"),
            polygon=(ring,) if ring else None,
        )


def _number(attributes: Mapping[str, str], name: str) -> float:
    try:
        return to_number(attributes.get(name, ""))
    except MalformedError as error:
        raise MalformedError(f"{name}: {error}", code=error.code) from error


def _box(attributes: Mapping[str, str]) -> Box:
    if "rotation" in attributes and _number(attributes, "rotation") % 360:
        message = f"turned by {attributes['rotation']} degrees, expected an upright one; draw a polygon"
        raise MalformedError(message, code=UNSUPPORTED_SHAPE)
    x1, y1, x2, y2 = (_number(attributes, corner) for corner in _CORNERS)
    return x1, y1, x2, y2


def _ring(attributes: Mapping[str, str]) -> tuple[float, ...]:
    """Return a polygon as x, y, x, y...

    >>> _ring({"points": "0,0;4,0;4,3"})
    (0.0, 0.0, 4.0, 0.0, 4.0, 3.0)
    """
    points = attributes.get("points", "").split(";")
    if len(points) < 3 or any(point.count(",") != 1 for point in points):
        raise MalformedError(
            f'expected points="x,y;x,y;x,y..." of three or more, got {shown(";".join(points))}; correct it'
        )
    return tuple(to_number(value) for point in points for value in point.split(","))


def _group(shape: CvatShape) -> str | None:
    """Return what the shapes of one object share; CVAT writes 0, or nothing, for none."""
    group = shape.attributes.get("group_id", "0").strip()
    return None if group in {"", "0"} else group


def _flag(shape: CvatShape, name: str) -> bool:
    text = shape.flags.get(name, "")
    if text.lower() not in _FLAG_TEXTS:
        raise MalformedError(f"attribute {name}: expected true or false, got {text!r}; correct it")
    return _FLAG_TEXTS[text.lower()]
