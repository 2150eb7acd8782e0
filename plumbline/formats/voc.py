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

**Parts.** ``train.txt``, ``val.txt`` and ``test.txt`` in ``ImageSets/Main/``, in ``ImageSets/``, or at the top;
``trainval.txt`` is for training where there is neither of its halves. Where there is no such list, folders called
train, val, valid or test.

**Precision.** A corner comes back as the same float64: a whole number is written without a point, any other with all
of its digits. Other tools read whole numbers only, and round the rest or refuse it.

Source: M. Everingham, J. Winn, "The PASCAL Visual Object Classes Challenge 2012 Development Kit", section 4.
"""

from __future__ import annotations

import posixpath
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element
from xml.sax.saxutils import escape

from plumbline.errors import DatasetError
from plumbline.faults import MALFORMED_LABEL, MISSING_IMAGE, SECOND_LABEL
from plumbline.formats.image_lists import deal, places_of, read_list
from plumbline.formats.image_names import size_findings, split_of_folder
from plumbline.formats.json_lines import short_number
from plumbline.formats.reading import (
    LabelRow,
    MalformedError,
    ReadFinding,
    ReadResult,
    list_images,
    missing_labels,
    names_ending,
    to_class_id,
)
from plumbline.formats.voc_xml import VocXml, number_in
from plumbline.formats.writing import (
    ImageEntry,
    Losses,
    boxes_by_image,
    image_entries,
    inside,
    label_places,
    names_below,
    place_images,
)
from plumbline.image_scan import ImageScan
from plumbline.manifest import Dataset

if TYPE_CHECKING:
    from plumbline.sources import Source

LAYOUT = "*.xml files with an <annotation>, in Annotations/ with the images in JPEGImages/ or images/, or beside them"

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_LABEL_FOLDERS = ("annotations", "labels", "xml", "xmls")
_IMAGE_FOLDERS = ("JPEGImages", "images", "Images", "")
# VOC keeps masks there, as PNG files named like the images.
_MASK_FOLDERS = {"SegmentationClass", "SegmentationObject"}
_LISTS = ("train", "val", "test", "trainval")
_ROOT = re.compile(rb"<annotation[\s>]")
_HOLDS = frozenset({"boxes", "difficult", "truncated", "negatives", "split"})
# What XML 1.0 cannot hold, not even escaped.
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


def sniff(source: Source) -> bool:
    """Say whether some XML file begins as a VOC label does, or, begun as no other kind, stands in ``Annotations/``."""
    for name in names_ending(source, (".xml",)):
        try:
            head = source.read(name)[:4096].replace(b"\0", b"")
        except OSError:
            continue
        if _ROOT.search(head) or ("Annotations" in name.split("/")[:-1] and b"<annotations" not in head):
            return True
    return False


def find_images(source: Source) -> list[str]:
    """Return every image of the source but VOC's masks."""
    return [name for name in list_images(source) if not _MASK_FOLDERS.intersection(name.split("/"))]


def read(source: Source, class_names: tuple[str, ...], scans: Mapping[str, ImageScan]) -> ReadResult:
    """Read every XML file; see `plumbline.formats.Format.read`."""
    by_stem = {_stem(name): name for name in sorted(scans, reverse=True)}
    labels = names_ending(source, (".xml",))
    # Read in the order that is cheap, told in the order of names.
    read_files = {name: _read_file(source, name, class_names, (scans, by_stem)) for name in source.order(labels)}
    result = ReadResult()
    splits = _read_splits(source, scans, result.findings)
    if splits is None:
        splits = {image: split for image in sorted(scans) if (split := split_of_folder(image))}
    result.splits.update(splits)
    label_of: dict[str, str] = {}
    for name in labels:
        image, rows, findings = read_files[name]
        result.findings.extend(findings)
        if image in label_of:
            # Its boxes would be found again as repeats of the first file's.
            message = f"a second label file for {image}, which {label_of[image]} is about; remove one of them"
            result.findings.append(ReadFinding(source.where(name), 0, SECOND_LABEL, message, image))
        elif image:
            label_of[image] = source.where(name)
            result.rows.extend(rows)
    result.findings.extend(missing_labels(source, sorted(scans), set(label_of), "an XML file that names it"))
    return result


def _stem(name: str) -> str:
    return posixpath.splitext(name)[0]


def _read_file(
    source: Source,
    name: str,
    class_names: tuple[str, ...],
    images: tuple[Mapping[str, ImageScan], Mapping[str, str]],
) -> tuple[str, list[LabelRow], list[ReadFinding]]:
    """Return the image, rows and findings of one XML file.

    Args:
        source: Where it is.
        name: Its name.
        class_names: Index is class_id.
        images: The scans, and the path of each image without suffix -> with it.
    """
    source_file = source.where(name)
    try:
        label = VocXml(source.read(name), source_file)
    except OSError as error:
        image = _find_image(name, "", *images)
        message = f"cannot be read ({error}); make it readable"
        return image, [], [ReadFinding(source_file, 0, MALFORMED_LABEL, message, image)]
    except MalformedError as error:
        image = _find_image(name, "", *images)
        return image, [], [ReadFinding(source_file, error.line, error.code, str(error), image)]
    image = _find_image(name, label.text("filename"), *images)
    findings = [replace(finding, image=image) for finding in label.findings]
    if not image:
        message = f"no image {label.text('filename')!r} for this label file; add the image, or remove the label file"
        findings.append(ReadFinding(source_file, 0, MISSING_IMAGE, message))
    else:
        findings.extend(_check_size(label, source_file, image, images[0][image]))
    rows = []
    for item in label.root.findall("object"):
        try:
            rows.append(_row(item, image, class_names, (source_file, label.line(item))))
        except MalformedError as error:
            findings.append(ReadFinding(source_file, label.line(item), error.code, str(error), image))
    return image, rows if image else [], findings


def _find_image(label: str, filename: str, scans: Mapping[str, ImageScan], by_stem: Mapping[str, str]) -> str:
    """Return the name of the image that an XML file is about, or "" if there is none.

    Args:
        label: Name of the XML file.
        filename: What it says in ``<filename>``, "" for nothing; Windows and Unix folders in it are ignored.
        scans: By name of the image.
        by_stem: Name of the image without suffix -> with it.
    """
    parent, _, own = _stem(label).rpartition("/")
    folders = _image_folders(parent)
    for named in (filename, filename.replace("\\", "/").rpartition("/")[2]):
        for folder in folders if named else ():
            if posixpath.join(folder, named) in scans:
                return posixpath.join(folder, named)
    stems = (posixpath.join(folder, own) for folder in folders)
    return next((by_stem[stem] for stem in stems if stem in by_stem), "")


@lru_cache
def _image_folders(folder: str) -> list[str]:
    """Return where the images of a folder of XML files can be, the likeliest first.

    >>> _image_folders("a/Annotations/b")
    ['a/JPEGImages/b', 'a/images/b', 'a/Images/b', 'a/b', 'a/Annotations/b']
    >>> _image_folders("annotations/xmls")[:4]
    ['JPEGImages', 'images', 'Images', '']
    """
    parts = folder.split("/")
    is_label_folder = [part.lower() in _LABEL_FOLDERS for part in parts]
    found = []
    for last in reversed(range(len(parts))):
        for first in range(last + 1):
            if all(is_label_folder[first : last + 1]):
                found += [_join(*parts[:first], name, *parts[last + 1 :]) for name in _IMAGE_FOLDERS]
    return [*found, folder]


def _join(*parts: str) -> str:
    return "/".join(part for part in parts if part)


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
    flags = _flag(item, "difficult"), _flag(item, "truncated")
    return LabelRow(image, to_class_id(class_name, class_names), class_name, _corners(box), *where, *flags)


def _corners(box: Element) -> tuple[float, float, float, float]:
    """Return the four numbers of a ``<bndbox>``."""
    x1, y1, x2, y2 = texts = [box.findtext(tag) or "" for tag in _CORNERS]
    # Nearly every file holds short whole numbers, of which nothing can be wrong.
    if all(map(str.isdecimal, texts)) and max(map(len, texts)) < 16:
        return float(x1), float(y1), float(x2), float(y2)
    x, y, right, lower = (number_in(box, tag) for tag in _CORNERS)
    return x, y, right, lower


def _flag(item: Element, tag: str) -> bool:
    """Return a flag, which VOC writes as a number; an absent, empty or "Unspecified" one is False."""
    text = item.findtext(tag) or ""
    if text in {"0", "1"}:
        return text == "1"
    text = text.strip().lower()
    return text == "true" or (text not in {"", "false", "unspecified"} and number_in(item, tag) != 0)


def _check_size(label: VocXml, source_file: str, image: str, scan: ImageScan) -> list[ReadFinding]:
    """Return a finding if the label's size is not the image's; a size of 0, or none, says nothing."""
    size = label.root.find("size")
    if size is None:
        return []
    line = label.line(size)
    try:
        width, height = (number_in(size, tag) for tag in ("width", "height"))
    except MalformedError as error:
        return [ReadFinding(source_file, line, error.code, f"<size>: {error}", image)]
    return size_findings((width, height), scan, image, (source_file, line))


def _read_splits(source: Source, images: Iterable[str], findings: list[ReadFinding]) -> dict[str, str] | None:
    """Return image -> train, val or test, as the lists of each VOC folder in the source say; None for no list."""
    lists: dict[tuple[str, str], dict[str, str]] = {}
    for name in names_ending(source, (".txt",)):
        folder, _, file = name.rpartition("/")
        if file.removesuffix(".txt") in _LISTS and (not folder or "ImageSets" in folder.split("/")[-2:]):
            base = folder.removesuffix("/Main").removesuffix("ImageSets").rstrip("/")
            lists.setdefault((base, folder), {})[file.removesuffix(".txt")] = name
    splits: dict[str, str] = {}
    done: set[str] = set()
    ordered = sorted(images)
    # The deepest folder first: ImageSets/Main before ImageSets before the top.
    for base, folder in sorted(lists, key=lambda key: (key[0], -len(key[1]))):
        found = lists[base, folder]
        if base in done:
            continue
        if "train" not in found and "val" not in found and "trainval" in found:
            found["train"] = found["trainval"]
        find = _image_finder(ordered, base)
        told: list[ReadFinding] = []
        parts: dict[str, list[str]] = {
            part: read_list(source, found[part], find, told) for part in ("train", "val", "test") if part in found
        }
        # A text at the top that names no image is no list.
        if folder or any(parts.values()):
            done.add(base)
            findings.extend(told)
            splits.update(deal(parts, source.where, findings))
    return splits if done else None


def _image_finder(images: Sequence[str], base: str) -> Callable[[str], str]:
    """Return what finds the image that a line of a list names, below a folder: VOC's own way is without suffix.

    Args:
        images: Names of all images, sorted.
        base: The folder, "" for the top.
    """
    # A data set can have as many such folders as images; "0" is what comes after "/".
    below = images[bisect_left(images, f"{base}/") : bisect_left(images, f"{base}0")] if base else images
    known: dict[str, str] = {}
    paths = [(image, image.removeprefix(base).lstrip("/")) for image in below]
    inner = [(image, _inner(path)) for image, path in paths]
    for shorten in (_stem, str):
        for image, path in [*inner, *paths]:
            known.setdefault(shorten(path), image)
    bare: dict[str, list[str]] = {}
    for image, path in paths:
        bare.setdefault(_stem(path.rpartition("/")[2]), []).append(image)

    def find(line: str) -> str:
        path = line.replace("\\", "/")
        places = places_of(line, [""]) if set(path.split("/")).intersection(_IMAGE_FOLDERS[:-1]) else [path]
        alone = bare.get(path, ())
        return next((known[place] for place in places if place in known), alone[0] if len(alone) == 1 else "")

    return find


def _inner(path: str) -> str:
    """Return a path without the folder of images that it begins with."""
    first, _, rest = path.partition("/")
    return rest if rest and first in _IMAGE_FOLDERS else path


def write(dataset: Dataset, folder: Path) -> list[str]:
    """Write ``Annotations/``, ``JPEGImages/`` and ``ImageSets/Main/``; see `plumbline.formats.Format.write`.

    Raises:
        DatasetError: A class name cannot stand in XML, or two images would share one label file.
    """
    losses = Losses(dataset, "Pascal VOC", _HOLDS)
    places = names_below(image_entries(dataset), "JPEGImages")
    ids = {name: _list_id(place.removeprefix("JPEGImages/")) for name, place in places.items()}
    labels = label_places(places, lambda place: f"Annotations/{_stem(place.removeprefix('JPEGImages/'))}.xml")
    place_images(dataset, folder, places.__getitem__)
    # Without a list, a folder's name would be taken for a split.
    splits: dict[str, list[str]] = {"train": []} if any(map(split_of_folder, places.values())) else {}
    for entry, rows in boxes_by_image(dataset):
        path = inside(folder, labels[entry.name])
        path.parent.mkdir(parents=True, exist_ok=True)
        boxes = [row for row in rows if row.xyxy is not None]
        path.write_text(_xml(entry, places[entry.name], boxes), encoding="utf-8", newline="")
        losses.add("spaces around a class name", sum(row.class_name != row.class_name.strip() for row in boxes))
        if entry.split:
            splits.setdefault(entry.split, []).append(ids[entry.name])
    for split, names in splits.items():
        path = folder / "ImageSets" / "Main" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{name}\n" for name in sorted(names)), encoding="utf-8", newline="")
    return losses.sentences()


def _list_id(path: str) -> str:
    """Return what ImageSets call an image: its path without suffix, but for one that would be an empty line.

    >>> _list_id("x/a.jpg"), _list_id(" .jpg")
    ('x/a', ' .jpg')
    """
    return _stem(path) if _stem(path).strip() else path


def _xml(entry: ImageEntry, place: str, rows: list[LabelRow]) -> str:
    """Return one XML file as LabelImg writes it.

    The number of channels is not in the dataset; 3 is what LabelImg says of every image but a grey one.
    """
    folder, _, file = place.rpartition("/")
    lines = [
        "<annotation>",
        f"\t<folder>{_text(folder.rpartition('/')[2])}</folder>",
        f"\t<filename>{_text(file)}</filename>",
        "\t<source>\n\t\t<database>Unknown</database>\n\t</source>",
        f"\t<size>\n\t\t<width>{entry.width}</width>\n\t\t<height>{entry.height}</height>",
        "\t\t<depth>3</depth>\n\t</size>\n\t<segmented>0</segmented>",
    ]
    for row in rows:
        lines += [
            f"\t<object>\n\t\t<name>{_text(row.class_name)}</name>\n\t\t<pose>Unspecified</pose>",
            f"\t\t<truncated>{row.truncated:d}</truncated>\n\t\t<difficult>{row.difficult:d}</difficult>\n\t\t<bndbox>",
            *(
                f"\t\t\t<{tag}>{short_number(value)}</{tag}>"
                for tag, value in zip(_CORNERS, row.xyxy or (), strict=True)
            ),
            "\t\t</bndbox>\n\t</object>",
        ]
    return "\n".join([*lines, "</annotation>", ""])


def _text(text: str) -> str:
    """Return a text for between two tags.

    >>> _text("<R & D>")
    '&lt;R &amp; D&gt;'
    """
    if _NOT_XML.search(text):
        raise DatasetError(f"{text!r}: holds a character that XML cannot, expected plain text; rename it")
    return escape(text, {"\r": "&#13;"})
