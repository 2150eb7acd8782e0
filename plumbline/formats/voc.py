"""Pascal VOC: one XML file per image, with an ``<object>`` per box.

**Corners.** A box is read as it is written: ``(xmin, ymin, xmax, ymax)`` are taken for 0-based, half-open pixel
corners and nothing is subtracted. The VOC development kit defines them as 1-based and inclusive, which would be
``(xmin - 1, ymin - 1, xmax, ymax)``, but the tools that write VOC files today do not follow it: LabelImg stores the
corners of the rectangle that was drawn, so ``xmin == xmax`` is a click without a drag, and lifts 0 to 1 (in its
``convertPoints2BndBox``), which is why such files hold no 0. BCCD fits that: xmin is 1 for 237 boxes, 0 for none,
xmax is the width for 237, the width + 1 for none, and two boxes have xmin == xmax and ymin == ymax. Subtracting 1
would turn those two clicks into healthy boxes of one pixel; not subtracting moves the left and top edge of a box that
does follow the standard by one pixel. A fault that stays visible is worth that pixel.

**Which image.** The one that ``<filename>`` names (its last component), or else the one with the XML's own stem, in
the XML's folder or, for an XML in ``Annotations/``, in ``JPEGImages/``, ``images/`` or the folder above.

Source: M. Everingham, J. Winn, "The PASCAL Visual Object Classes Challenge 2012 Development Kit", section 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree.ElementTree import Element, ParseError, TreeBuilder

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from plumbline.formats.reading import (
    LabelRow,
    MalformedError,
    ReadFinding,
    ReadResult,
    as_opened,
    list_files,
    list_images,
    missing_labels,
    to_class_id,
    to_number,
)
from plumbline.image_scan import ImageScan

LAYOUT = "*.xml files with an <annotation>, in Annotations/ with the images in JPEGImages/ or images/, or beside them"

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_LABEL_FOLDERS = ("annotations", "labels", "xml", "xmls")
_IMAGE_FOLDERS = ("JPEGImages", "images", "Images", "")
# VOC keeps masks there, as PNG files named like the images.
_MASK_FOLDERS = {"SegmentationClass", "SegmentationObject"}


def sniff(folder: Path) -> bool:
    """Say whether some XML file stands in a folder ``Annotations``, or begins as a VOC label does."""
    for name in list_files(folder, (".xml",)):
        if "Annotations" in PurePosixPath(name).parts:
            return True
        with (folder / name).open("rb") as file:
            if b"<annotation" in file.read(4096):
                return True
    return False


def find_images(folder: Path) -> list[str]:
    """Return every image below the folder but VOC's masks."""
    return [name for name in list_images(folder) if not _MASK_FOLDERS.intersection(PurePosixPath(name).parts)]


def read(folder: Path, class_names: tuple[str, ...], scans: Mapping[str, ImageScan]) -> ReadResult:
    """Read every XML file; see `plumbline.formats.Format.read`."""
    by_stem = {str(PurePosixPath(name).with_suffix("")): name for name in sorted(scans, reverse=True)}
    result = ReadResult()
    label_of: dict[str, str] = {}
    for name in list_files(folder, (".xml",)):
        source_file = as_opened(folder, name)
        try:
            label = _Label(folder / name)
        except MalformedError as error:
            image = _find_image(name, "", scans, by_stem)
            result.findings.append(ReadFinding(source_file, error.line, "malformed_label", str(error), image))
        else:
            image = _find_image(name, label.text("filename"), scans, by_stem)
            _read_label(label, source_file, (image, scans.get(image)), class_names, result)
        if image in label_of:
            message = f"a second label file for {image}, which {label_of[image]} is about; remove one of them"
            result.findings.append(ReadFinding(source_file, 0, "malformed_label", message, image))
        elif image:
            label_of[image] = source_file
    result.findings.extend(missing_labels(folder, sorted(scans), set(label_of), "an XML file that names it"))
    return result


class _Label:
    """One parsed XML file.

    Raises:
        MalformedError: It is not XML, is dangerous XML, or is no VOC label.
    """

    def __init__(self, path: Path) -> None:
        parser = DefusedXMLParser(target=_LinedBuilder())
        builder = parser.target
        builder.expat = parser.parser
        try:
            parser.feed(path.read_bytes())
            self.root: Element = parser.close()
        except ParseError as error:
            message = f"not well-formed XML ({error}), expected an <annotation>; correct or remove the file"
            raise MalformedError(message, error.position[0]) from error
        except DefusedXmlException as error:
            message = f"entities in XML are refused ({error!r}), expected none; remove its DOCTYPE"
            raise MalformedError(message, parser.parser.CurrentLineNumber) from error
        except (OSError, ValueError, LookupError) as error:
            raise MalformedError(f"cannot be read ({error}), expected XML in UTF-8; correct the file") from error
        self.lines: dict[Element, int] = builder.lines
        if self.root.tag != "annotation":
            message = f"expected <annotation>, got <{self.root.tag}>; remove the file"
            raise MalformedError(message, self.lines[self.root])

    def text(self, path: str) -> str:
        return (self.root.findtext(path) or "").strip()


class _LinedBuilder:
    """A tree builder that remembers on which line each element begins."""

    def __init__(self) -> None:
        self.lines: dict[Element, int] = {}
        self.expat: Any = None
        self._builder = TreeBuilder()
        self.data = self._builder.data
        self.end = self._builder.end
        self.close = self._builder.close

    def start(self, tag: str, attributes: dict[str, str]) -> Element:
        element = self._builder.start(tag, attributes)
        self.lines[element] = self.expat.CurrentLineNumber
        return element


def _find_image(label: str, filename: str, scans: Mapping[str, ImageScan], by_stem: Mapping[str, str]) -> str:
    """Return the path of the image that an XML file is about, or "" if there is none.

    Args:
        label: Path of the XML file, relative to the source.
        filename: What it says in ``<filename>``, "" for nothing; Windows and Unix folders in it are ignored.
        scans: By path of the image.
        by_stem: Path of the image without suffix -> with it.
    """
    folders = _image_folders(PurePosixPath(label).parent)
    named = filename.replace("\\", "/").rpartition("/")[2]
    if named:
        for folder in folders:
            if str(folder / named) in scans:
                return str(folder / named)
    stem = PurePosixPath(label).stem
    return next((by_stem[str(folder / stem)] for folder in folders if str(folder / stem) in by_stem), "")


def _image_folders(folder: PurePosixPath) -> list[PurePosixPath]:
    """Return where the images of a folder of XML files can be.

    >>> [str(p) for p in _image_folders(PurePosixPath("a/Annotations/b"))]
    ['a/JPEGImages/b', 'a/images/b', 'a/Images/b', 'a/b', 'a/Annotations/b']
    >>> [str(p) for p in _image_folders(PurePosixPath("annotations/xmls"))]
    ['JPEGImages', 'images', 'Images', '.', 'annotations/xmls']
    """
    parts = folder.parts
    is_label_folder = [part.lower() in _LABEL_FOLDERS for part in parts]
    if not any(is_label_folder):
        return [folder]
    first = last = len(parts) - 1 - is_label_folder[::-1].index(True)
    while first > 0 and is_label_folder[first - 1]:
        first -= 1
    return [PurePosixPath(*parts[:first], name, *parts[last + 1 :]) for name in _IMAGE_FOLDERS] + [folder]


def _read_label(
    label: _Label,
    source_file: str,
    image: tuple[str, ImageScan | None],
    class_names: tuple[str, ...],
    result: ReadResult,
) -> None:
    """Add the rows and findings of one XML file to `result`."""
    name, scan = image
    if scan is None:
        message = f"no image {label.text('filename')!r} for this label file; add the image, or remove the label file"
        result.findings.append(ReadFinding(source_file, 0, "missing_image", message))
    elif scan.readable:
        result.findings.extend(_size_mismatch(label, source_file, name, scan))
    for item in label.root.findall("object"):
        try:
            row = _row(item, name, class_names, (source_file, label.lines[item]))
        except MalformedError as error:
            finding = ReadFinding(source_file, label.lines[item], "malformed_label", str(error), name)
            result.findings.append(finding)
        else:
            result.rows.extend([row] if scan is not None else [])


def _row(item: Element, image: str, class_names: tuple[str, ...], where: tuple[str, int]) -> LabelRow:
    """Make the row of one ``<object>``.

    Raises:
        MalformedError: A part is missing or is no number.
    """
    class_name = (item.findtext("name") or "").strip()
    if not class_name:
        raise MalformedError("no <name> in this <object>, expected its class; add it")
    box = item.find("bndbox")
    if box is None:
        raise MalformedError("no <bndbox> in this <object>, expected xmin, ymin, xmax, ymax; add it")
    x1, y1, x2, y2 = (_number(box, corner) for corner in _CORNERS)
    return LabelRow(
        image=image,
        class_id=to_class_id(class_name, class_names),
        class_name=class_name,
        xyxy=(x1, y1, x2, y2),
        source_file=where[0],
        source_line=where[1],
        difficult=_flag(item, "difficult"),
        truncated=_flag(item, "truncated"),
    )


def _number(parent: Element, tag: str) -> float:
    try:
        return to_number(parent.findtext(tag) or "")
    except MalformedError as error:
        raise MalformedError(f"<{tag}>: {error}") from error


def _flag(item: Element, tag: str) -> bool:
    """Return a flag, which VOC writes as a number; an absent, empty or "Unspecified" one is False."""
    text = (item.findtext(tag) or "").strip().lower()
    return text == "true" or (text not in {"", "false", "unspecified"} and _number(item, tag) != 0)


def _size_mismatch(label: _Label, source_file: str, image: str, scan: ImageScan) -> list[ReadFinding]:
    """Return a finding if the label's size is not the image's; a size of 0, or none, says nothing."""
    size = label.root.find("size")
    if size is None:
        return []
    try:
        width, height = (_number(size, tag) for tag in ("width", "height"))
    except MalformedError as error:
        return [ReadFinding(source_file, label.lines[size], "malformed_label", f"<size>: {error}", image)]
    if (width, height) == (scan.width, scan.height) or 0 in (width, height):
        return []
    message = (
        f"<size> says {width:g} x {height:g}, but {image} has {scan.width} x {scan.height} pixels"
        " (after EXIF orientation); check that the boxes fit, then correct it"
    )
    return [ReadFinding(source_file, label.lines[size], "size_mismatch", message, image)]
