"""COCO: one JSON file, or one for each split, with lists of images, annotations and categories.

**Boxes.** ``bbox`` is ``[x, y, width, height]`` in pixels from the image's upper left corner, 0-based; width and height
are added to the corner, and nothing else is done. A segmentation is kept: polygons as rings, a run-length mask
(``counts``, ``size``) as its JSON. ``iscrowd`` is kept; ``area`` is not read, as it follows from the rest. The keys
``difficult`` and ``truncated`` of an annotation, which COCO's own tools pass over, are read and written.

**Which files.** Every JSON file whose object has the lists ``images`` and ``annotations``, but not the files of COCO's
other tasks (captions, keypoints...) that describe the same images. One that cannot be read takes every image with it
that is in no other: what is on it is not known, which is not the same as nothing.

**Which image.** ``file_name`` from the folder of the JSON file, the one above ``annotations/``, ``images/`` there, or
the split's folder in either (``train2017/``); or else the only image whose path ends so, or that has its last name.

**Which split.** What the JSON file's name says (``instances_train2017.json``), or else its folder
(``valid/_annotations.coco.json``).

Source: "COCO data format", https://cocodataset.org/#format-data, sections 1 and 2.
"""

from __future__ import annotations

import json
import math
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from plumbline.faults import (
    MALFORMED_LABEL,
    MALFORMED_ROW,
    MISSING_IMAGE,
    NOT_FINITE,
    SECOND_LABEL,
)
from plumbline.formats.coco_writing import write
from plumbline.formats.image_names import ImageFinder, image_folders, size_findings, split_of_label
from plumbline.formats.json_lines import (
    Member,
    clean_text,
    elements,
    finite_numbers,
    flag,
    read_members,
    shown,
)
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
    with_images,
)
from plumbline.image_scan import ImageScan
from plumbline.manifest import CLASS_OUT_OF_RANGE_ID

if TYPE_CHECKING:
    from plumbline.sources import Source

__all__ = ["LAYOUT", "find_images", "read", "sniff", "write"]

LAYOUT = "*.json files with lists of images, annotations and categories, in annotations/ or beside the images"

_ARRAYS = ("images", "annotations", "categories")
_OWN_NAME = re.compile(r"instances.*\.json|.*[._]coco\.json")
# COCO's own files about the same images, for other tasks: they have no boxes, or the same ones.
_OTHER_TASKS = re.compile(r"(captions|image_info|panoptic|person_keypoints|stuff)_")
_LISTS = [re.compile(rb'"' + name + rb'"\s*:\s*\[') for name in (b"images", b"annotations")]
_FILES_SNIFFED = 10

Polygon = tuple[tuple[float, ...], ...]


def sniff(source: Source) -> bool:
    """Say whether a JSON file is named as COCO's are, or one of the largest has the two lists."""
    names = _label_files(source)
    if any(_OWN_NAME.fullmatch(posixpath.basename(name)) for name in names):
        return True
    # Labelme has a JSON file for each image, which would take long to read; the one file of COCO is larger.
    sizes = source.files()
    largest = sorted(names, key=lambda name: (-sizes[name], name))[:_FILES_SNIFFED]
    return any(_has_lists(source, name) for name in largest)


def _has_lists(source: Source, name: str) -> bool:
    try:
        data = source.read(name)
    except OSError:
        return False
    return all(pattern.search(data) for pattern in _LISTS)


def find_images(source: Source) -> list[str]:
    """Return every image of the source."""
    return list_images(source)


def read(source: Source, class_names: tuple[str, ...], scans: Mapping[str, ImageScan]) -> ReadResult:
    """Read every JSON file; see `plumbline.formats.Format.read`."""
    state = _State(class_names, scans, ImageFinder(scans))
    broken: list[ReadFinding] = []
    # Few files, of which each depends on those before it: read by name, not in the source's own order.
    for name in _label_files(source):
        try:
            text, odd = decode_text(source.read(name), source.where(name))
            file = _open_file(name, source.where(name), text)
        except OSError as error:
            message = f"cannot be read ({error}), expected a COCO file; replace it"
            broken.append(ReadFinding(source.where(name), 0, MALFORMED_LABEL, message))
        except MalformedError as error:
            broken.append(ReadFinding(source.where(name), error.line, error.code, str(error)))
        else:
            if file is not None:
                state.findings.extend(odd)
                _read_file(file, state)
    unlabelled = [image for image in sorted(scans) if image not in state.labelled]
    state.findings.extend(missing_labels(source, unlabelled, set(), "an entry of it in a COCO file"))
    state.findings.extend(with_images(broken, unlabelled))
    # Numbers before names, each in their order.
    declared = sorted(state.declared, key=lambda category: (isinstance(category[0], str), category))
    return ReadResult(state.rows, state.findings, state.splits, tuple(dict.fromkeys(name for _, name in declared)))


def _label_files(source: Source) -> list[str]:
    """Return the JSON files but those of COCO's other tasks, where the file with the boxes stands beside them."""
    names = names_ending(source, (".json",))
    there = set(names)

    def is_other(name: str) -> bool:
        folder, last = posixpath.split(name)
        return last.startswith("image_info_") or (
            _OTHER_TASKS.match(last) is not None
            and posixpath.join(folder, _OTHER_TASKS.sub("instances_", last, count=1)) in there
        )

    return [name for name in names if not is_other(name)]


@dataclass
class _State:
    """What is known so far, of all JSON files."""

    class_names: tuple[str, ...]
    scans: Mapping[str, ImageScan]
    finder: ImageFinder
    rows: list[LabelRow] = field(default_factory=list)
    findings: list[ReadFinding] = field(default_factory=list)
    splits: dict[str, str] = field(default_factory=dict)
    declared: set[tuple[int | str, str]] = field(default_factory=set)
    labelled: dict[str, str] = field(default_factory=dict)  # image -> the file and line that are about it


@dataclass(frozen=True)
class _File:
    """One JSON file that is checked, and whose lists are not yet read."""

    name: str
    where: str
    text: str
    members: Mapping[str, Member]

    def entries(self, key: str) -> Iterator[tuple[int, Any]]:
        return elements(self.text, self.members[key]) if key in self.members else iter(())

    def finding(self, line: int, code: str, message: str, image: str = "") -> ReadFinding:
        return ReadFinding(self.where, line, code, message, image)


def _open_file(name: str, where: str, text: str) -> _File | None:
    """Return a COCO file, or None for JSON that is something else.

    Raises:
        MalformedError: It is no JSON; or was meant for COCO, and is not.
    """
    is_own = _OWN_NAME.fullmatch(posixpath.basename(name)) is not None
    if not is_own and text.lstrip()[:1] == "[":  # such as the detections that COCO's evaluator takes
        return None
    members = read_members(text, _ARRAYS)
    wrong = [key for key in ("images", "annotations") if key not in members or not members[key].is_array]
    if not wrong and ("categories" not in members or members["categories"].is_array):
        return _File(name, where, text, members)
    if len(wrong) == 2 and not is_own:
        return None
    line = members[wrong[0]].line if wrong and wrong[0] in members else 1
    lists = " and ".join(wrong or ["categories"])
    raise MalformedError(f"no list of {lists}, expected a COCO file; correct or remove it", line, MALFORMED_LABEL)


def _read_file(file: _File, state: _State) -> None:
    """Add the rows and findings of one JSON file."""
    categories = _read_categories(file, state)
    images = _read_images(file, state)
    for line, entry in file.entries("annotations"):
        image = ""
        try:
            image = _image_of(entry, images)
            if image:
                state.rows.append(_row(entry, image, categories, (file.where, line)))
        except MalformedError as error:
            state.findings.append(file.finding(line, error.code, f"annotation: {error}", image))


def _read_categories(file: _File, state: _State) -> dict[int | str, tuple[int, str]]:
    """Return class_id and class_name by the id of the category."""
    found: dict[int | str, tuple[int, str]] = {}
    for line, entry in file.entries("categories"):
        try:
            key = _identifier(entry, "id")
            class_name = clean_text(entry.get("name"), "a name")
        except MalformedError as error:
            state.findings.append(file.finding(line, error.code, f"category: {error}"))
            continue
        if key in found and found[key][1] != class_name:
            message = f"category: a second name for the id {key!r}, expected one; correct it"
            state.findings.append(file.finding(line, MALFORMED_ROW, message))
            continue
        found[key] = (to_class_id(class_name, state.class_names), class_name)
        state.declared.add((key, class_name))
    return found


def _read_images(file: _File, state: _State) -> dict[int | str, str]:
    """Return the image by its id, "" for one that is not there."""
    found: dict[int | str, str] = {}
    unmatched: list[_ImageEntry] = []
    folders = image_folders(file.name)
    # Two rounds, so that a loose match never takes an image that an exact one is about.
    for line, entry in file.entries("images"):
        try:
            item = _image_entry(entry, line)
        except MalformedError as error:
            state.findings.append(file.finding(line, error.code, f"image: {error}"))
            continue
        image = state.finder.find(item.written, folders)
        if image:
            _take_image(item, image, file, state, found)
        else:
            unmatched.append(item)
    split = split_of_label(file.name)
    for item in unmatched:
        _take_image(item, state.finder.find_anywhere(item.written, split, state.labelled), file, state, found)
    return found


@dataclass(frozen=True)
class _ImageEntry:
    key: int | str
    written: str
    size: list[Any]
    line: int


def _image_entry(entry: Any, line: int) -> _ImageEntry:
    key, written = _identifier(entry, "id"), clean_text(entry.get("file_name"), "a file_name")
    return _ImageEntry(key, written, [entry.get("width"), entry.get("height")], line)


def _take_image(item: _ImageEntry, image: str, file: _File, state: _State, found: dict[int | str, str]) -> None:
    """Note that an entry is about an image, and what is wrong with that."""
    if not image:
        message = f"no image {shown(item.written)}, or more than one; add it, or remove this entry"
        state.findings.append(file.finding(item.line, MISSING_IMAGE, message))
    doubtful: tuple[str, ...] = ()
    if item.key in found:
        # Whose the annotations are is not known: both are faulty.
        doubtful = (found[item.key], image)
        message = f"a second image with the id {item.key!r}, expected each id once; give it another"
    elif image in state.labelled:
        doubtful = (image,)
        message = f"a second entry for {image}, which {state.labelled[image]} is about; remove one of the two"
    for name in sorted(set(filter(None, doubtful))):
        state.findings.append(file.finding(item.line, SECOND_LABEL, message, name))
    found.setdefault(item.key, image)
    if image and image not in state.labelled:
        state.labelled[image] = f"{file.where}:{item.line}"
        if split := split_of_label(file.name):
            state.splits[image] = split
        state.findings.extend(_wrong_size(item, state.scans[image], image, file))


def _wrong_size(item: _ImageEntry, scan: ImageScan, image: str, file: _File) -> list[ReadFinding]:
    if None in item.size:
        return []
    try:
        width, height = finite_numbers(item.size, "width and height as numbers")
    except MalformedError as error:
        return [file.finding(item.line, error.code, f"image: {error}", image)]
    return size_findings((width, height), scan, image, (file.where, item.line))


def _identifier(entry: Any, key: str) -> int | str:
    """Return what an entry writes as an id; tables saved as JSON write 1 as 1.0.

    Raises:
        MalformedError: The entry is no object, or its id is neither a whole number nor text.
    """
    if not isinstance(entry, dict):
        raise MalformedError(f"expected an object {{...}}, got {shown(entry)}; correct it")
    value = entry.get(key)
    # Not isinstance: True is an int to it.
    if type(value) is int or type(value) is str:
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise MalformedError(f"{key}: expected a whole number, got {shown(value)}; correct it")


def _image_of(entry: Any, images: Mapping[int | str, str]) -> str:
    """Return the image that an annotation is about, "" where the file's own entry for it leads to none.

    Raises:
        MalformedError: It names none, or one that the file does not list.
    """
    key = _identifier(entry, "image_id")
    if key not in images:
        message = f"image_id: no image has the id {shown(key)}; add the image, or remove the annotation"
        raise MalformedError(message, code=MISSING_IMAGE)
    return images[key]


def _row(
    entry: dict[str, Any], image: str, categories: Mapping[int | str, tuple[int, str]], where: tuple[str, int]
) -> LabelRow:
    """Make the row of one annotation.

    Raises:
        MalformedError: A part is missing or of the wrong kind.
    """
    key = _identifier(entry, "category_id")
    # As text it keeps what was written, be it a number or a word.
    class_id, class_name = categories.get(key) or (CLASS_OUT_OF_RANGE_ID, clean_text(str(key), "a category_id"))
    bbox = finite_numbers(entry.get("bbox"), "a bbox [x, y, width, height]")
    if len(bbox) != 4:
        raise MalformedError(f"expected a bbox [x, y, width, height], got {shown(entry['bbox'])}; correct it")
    x1, y1, width, height = bbox
    x2, y2 = x1 + width, y1 + height
    if not (math.isfinite(x2) and math.isfinite(y2)):
        raise MalformedError(
            f"expected a bbox of finite corners, got {shown(entry['bbox'])}; correct it", code=NOT_FINITE
        )
    polygon, rle = _segmentation(entry.get("segmentation"))
    return LabelRow(
        image=image,
        class_id=class_id,
        class_name=class_name,
        xyxy=(x1, y1, x2, y2),
        source_file=where[0],
        source_line=where[1],
        difficult=flag(entry, "difficult"),
        truncated=flag(entry, "truncated"),
        crowd=flag(entry, "iscrowd"),
        polygon=polygon,
        rle=rle,
    )


def _segmentation(value: object) -> tuple[Polygon | None, str]:
    """Return an annotation's rings, or its run-length mask as JSON; (None, "") where it has none.

    Raises:
        MalformedError: It is neither; or a ring has fewer than three points.

    >>> _segmentation([[0, 0, 2, 0, 2, 2]]), _segmentation({"counts": [1, 3], "size": [2, 2]})
    ((((0.0, 0.0, 2.0, 0.0, 2.0, 2.0),), ''), (None, '{"counts": [1, 3], "size": [2, 2]}'))
    """
    if not value:
        return None, ""
    if isinstance(value, dict):
        return None, _run_lengths(value)
    expected = "a segmentation [[x, y, x, y, x, y, ...], ...]"
    if not isinstance(value, list):
        raise MalformedError(f"expected {expected}, got {shown(value)}; correct it")
    rings = tuple(finite_numbers(ring, expected) for ring in value if ring != [])
    if any(len(ring) < 6 or len(ring) % 2 for ring in rings):
        raise MalformedError(f"expected {expected} of three points or more, got {shown(value)}; correct it")
    return rings or None, ""


def _run_lengths(mask: dict[str, Any]) -> str:
    size: Any = mask.get("size")
    counts: Any = mask.get("counts")
    is_mask = isinstance(size, list) and len(size) == 2 and all(type(side) is int and side > 0 for side in size)
    if is_mask and isinstance(counts, list):
        is_mask = all(type(count) is int and count >= 0 for count in counts) and sum(counts) == math.prod(size)
    else:
        is_mask = is_mask and isinstance(counts, str) and re.fullmatch("[0-o]+", counts) is not None
    if not is_mask:
        raise MalformedError(f"expected a run-length mask of size and counts, got {shown(mask)}; correct it")
    return json.dumps({key: mask[key] for key in mask if key in {"size", "counts"}})
