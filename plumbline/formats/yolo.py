"""YOLO: one text file per image, one row per object: ``class cx cy w h`` or ``class x1 y1 x2 y2 x3 y3...``.

**Coordinates** are fractions of the image's size after EXIF orientation, which is how the tools that write and read
this format see the image. A row of 1 + 2n numbers, n >= 3, is a polygon; its box is the polygon's bounds.

**Which label.** For ``.../images/a/b.jpg`` it is ``.../labels/a/b.txt`` (the last component named ``images`` is
replaced; ``Images`` and ``Labels`` will do), else the ``.txt`` beside the image.

**Which class.** A number is an index into ``names`` of data.yaml, or into the lines of LabelImg's classes.txt or of
Darknet's obj.names, and its name is looked up in class_names; where there is no such file, a number is the class_id
itself.

**Parts.** ``train``, ``val`` and ``test`` of data.yaml: folders, lists of images, or several. Where it says nothing,
lists called train.txt, val.txt and test.txt; where there are none, folders of these names.

**Precision.** What is written comes back to within 1e-9 of the box's largest coordinate, as fractions of the size are
not whole numbers of it: all digits are written, and two roundings are left. One ring of three points or more is
written as a polygon if its bounds are the box (to 0.05 pixels, as COCO rounds); its box is then exactly its bounds.

Source: Ultralytics, "Object Detection Datasets Overview" and "Instance Segmentation Datasets Overview".
"""

from __future__ import annotations

import json
import math
import posixpath
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from plumbline.errors import DatasetError
from plumbline.faults import DAMAGED_IMAGE, MISSING_IMAGE, NOT_FINITE, SECOND_LABEL, UNREADABLE_IMAGE
from plumbline.formats.reading import (
    LabelRow,
    MalformedError,
    ReadFinding,
    ReadResult,
    list_images,
    missing_labels,
    names_ending,
    read_text,
    split_lines,
    to_class_id,
    to_number,
)
from plumbline.formats.writing import (
    Losses,
    boxes_by_image,
    image_entries,
    inside,
    label_places,
    names_below,
    place_images,
)
from plumbline.formats.yolo_data import YoloData, data_file, is_class_list, read_data, read_splits
from plumbline.image_scan import ImageScan
from plumbline.manifest import CLASS_OUT_OF_RANGE_ID, Dataset

if TYPE_CHECKING:
    from plumbline.sources import Source

LAYOUT = "*.txt files in labels/ with the images in images/, or beside the images; data.yaml with names"

_ROW_FORMS = "expected 5 numbers (class cx cy w h), or 1 + 2n of them (class and a polygon of n >= 3 points)"
_HOLDS = frozenset({"boxes", "polygon", "negatives", "split"})
_SAME_BOUNDS_PX = 0.05

# Class number -> (class_name, class_id).
_Classes = Callable[[int], tuple[str, int]]


def sniff(source: Source) -> bool:
    """Say whether there is a data.yaml with names, a text file in ``labels/``, or one beside its image."""
    texts = _texts(source)
    if any(map(_is_in_labels, texts)):
        return True
    if not {_stem(name) for name in texts}.isdisjoint(_stem(name) for name in list_images(source)):
        return True
    try:
        file = data_file(source)
        return bool(file) and b"names" in source.read(file)
    except (DatasetError, OSError):
        return True


def find_images(source: Source) -> list[str]:
    """Return the images; where some are in ``images/``, others only with a label, or where data.yaml names them."""
    images = list_images(source)
    inside_images = [name for name in images if "images" in name.split("/")[:-1]]
    if not inside_images:
        return images
    labelled = _labelled(images, _texts(source))
    data = read_data(source)
    named = read_splits(source, data, images, []) if data.parts else {}
    return sorted({*inside_images, *labelled, *named})


def read(source: Source, class_names: tuple[str, ...], scans: Mapping[str, ImageScan]) -> ReadResult:
    """Read every label file; see `plumbline.formats.Format.read`."""
    data = read_data(source)
    result = ReadResult(declared_names=data.declared_names)
    result.splits.update(read_splits(source, data, sorted(scans), result.findings))
    texts = _texts(source)
    labelled = _labelled(sorted(scans), texts)
    images_of: dict[str, list[str]] = {}
    for image, text in labelled.items():
        images_of.setdefault(text, []).append(image)
    classes = _class_table(data, class_names)
    # Read in the order that is cheap, told in the order of names.
    read_files = {text: _read_file(source, text, images_of[text], scans, classes) for text in source.order(images_of)}
    for text in sorted(images_of):
        result.rows.extend(read_files[text][0])
        result.findings.extend(read_files[text][1])
    claims = {stem: image for image in sorted(scans, reverse=True) for stem in _label_stems(image)}
    for text in texts:
        if text not in images_of:
            result.findings.extend(_unused(source, text, claims.get(_stem(text), ""), labelled))
    where = "a .txt file in labels/ or beside it"
    result.findings.extend(missing_labels(source, sorted(scans), set(labelled), where))
    return result


def _texts(source: Source) -> list[str]:
    """Return every text file that can be a label."""
    return [name for name in names_ending(source, (".txt",)) if not is_class_list(name)]


def _stem(name: str) -> str:
    return posixpath.splitext(name)[0]


def _labelled(images: Iterable[str], texts: Iterable[str]) -> dict[str, str]:
    """Return image -> its label file, for those that have one."""
    by_stem = {_stem(name): name for name in texts}
    found: dict[str, str] = {}
    for image in images:
        text = next((by_stem[stem] for stem in _label_stems(image) if stem in by_stem), None)
        if text is not None:
            found[image] = text
    return found


def _label_stems(image: str) -> list[str]:
    """Return where the label file of an image can be, without its suffix, the likeliest first.

    >>> _label_stems("images/train/images/a.b.jpg")
    ['images/train/labels/a.b', 'images/train/images/a.b']
    >>> _label_stems("Images/a.jpg")
    ['Labels/a', 'labels/a', 'Images/a']
    """
    beside = _stem(image)
    stems = []
    # The first is where other tools look: what is written goes there.
    for images, labels in (("images", "labels"), ("Images", "Labels"), ("Images", "labels")):
        before, found, after = f"/{beside}".rpartition(f"/{images}/")
        stems += [f"{before}/{labels}/{after}"[1:]] if found else []
    return [*stems, beside]


def _is_in_labels(name: str) -> bool:
    return "labels" in name.lower().split("/")[:-1]


def _unused(source: Source, text: str, image: str, labelled: Mapping[str, str]) -> list[ReadFinding]:
    """Return a finding for a text file that is no image's label, if it is a label at all.

    Args:
        source: Where it is.
        text: Its name; in ``labels/`` all but notes in words are labels, elsewhere the first row tells.
        image: The image that it could be about but that has another label, or "".
        labelled: Image -> its label.
    """
    if not _is_label(source, text):
        return []
    where = source.where(text)
    if image:
        message = f"a second label file for {image}, which {source.where(labelled[image])} is about; remove one of them"
        return [ReadFinding(where, 0, SECOND_LABEL, message, image)]
    message = "no image for this label file; add the image, or remove the label file"
    return [ReadFinding(where, 0, MISSING_IMAGE, message)]


def _is_label(source: Source, text: str) -> bool:
    try:
        words = source.read(text).lstrip().split(b"\n", 1)[0].decode("latin-1").split()
    except OSError:
        return _is_in_labels(text)
    numbers = list(map(_is_number, words))
    return not numbers or any(numbers) if _is_in_labels(text) else len(numbers) >= 5 and all(numbers)


def _is_number(word: str) -> bool:
    try:
        to_number(word)
    except MalformedError as error:
        return error.code == NOT_FINITE
    return True


def _class_table(data: YoloData, class_names: tuple[str, ...]) -> _Classes:
    """Return what gives (class_name, class_id) of a class number; one out of range is its own name."""
    names = dict(enumerate(class_names)) if data.names is None else data.names
    known = {index: (name, to_class_id(name, class_names)) for index, name in names.items()}
    return lambda index: known.get(index) or (str(index), CLASS_OUT_OF_RANGE_ID)


def _read_file(
    source: Source, text: str, images: list[str], scans: Mapping[str, ImageScan], classes: _Classes
) -> tuple[list[LabelRow], list[ReadFinding]]:
    """Return the rows and findings of one label file, for each of its images (a.jpg and a.png have one in common)."""
    source_file = source.where(text)
    try:
        content, findings = read_text(source, text, images[0])
    except MalformedError as error:
        return [], [ReadFinding(source_file, error.line, error.code, str(error), image) for image in images]
    rows: list[LabelRow] = []
    # Python reads 1_000 as a number; the careful way does not, and says what is wrong.
    convert = to_number if "_" in content else float
    lines = [(number, words) for number, line in enumerate(split_lines(content), 1) if (words := line.split())]
    for image in images:
        scan = scans[image]
        if lines and not (scan.width and scan.height):
            code = DAMAGED_IMAGE if scan.damaged else UNREADABLE_IMAGE
            message = f"{len(lines)} rows cannot be placed in pixels, because {image} cannot be decoded; mend the image"
            findings.append(ReadFinding(source_file, 0, code, message, image))
            continue
        named = image, scan.width, scan.height
        for number, words in lines:
            try:
                rows.append(_row(words, named, classes, (source_file, number), convert))
            except MalformedError as error:
                findings.append(ReadFinding(source_file, number, error.code, str(error), image))
    return rows, findings


def _row(
    words: list[str],
    image: tuple[str, int, int],
    classes: _Classes,
    where: tuple[str, int],
    convert: Callable[[str], float],
) -> LabelRow:
    """Make the row of one line.

    Args:
        words: Of the line.
        image: Name, width and height.
        classes: Gives the class of a number.
        where: Label file and line.
        convert: Makes a number of a word; what it refuses, `to_number` refuses too.

    Raises:
        MalformedError: The number of columns is wrong, or one is no number.
    """
    if len(words) != 5 and (len(words) < 7 or len(words) % 2 == 0):
        raise MalformedError(f"{_ROW_FORMS}, got {len(words)} columns; correct the row")
    try:
        index, *values = map(convert, words)
    except ValueError:
        index, *values = map(to_number, words)
    if index % 1 != 0:
        to_number(words[0])  # says so if it is NaN or infinite
        raise MalformedError(f"expected a whole number as class, got {words[0]!r}; correct it")
    name, width, height = image
    if len(values) == 4:
        # As boxes.cxcywhn_to_xyxy: of a few numbers, an array is most of the time it takes.
        cx, cy, w, h = values
        xyxy = (cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height
        polygon, total = None, sum(xyxy)
    else:
        xs, ys = [x * width for x in values[::2]], [y * height for y in values[1::2]]
        xyxy = min(xs), min(ys), max(xs), max(ys)
        polygon, total = (tuple(value for point in zip(xs, ys, strict=True) for value in point),), sum(xs) + sum(ys)
    # One look at the sum, which nothing hides in; the slow way finds which word it is.
    if not math.isfinite(total):
        _refuse(words, xyxy)
    class_name, class_id = classes(int(index))
    return LabelRow(name, class_id, class_name, xyxy, *where, polygon=polygon)


def _refuse(words: list[str], xyxy: tuple[float, ...]) -> None:
    """Raise for the first word, or else the corner, that is no finite number."""
    for word in words:
        to_number(word)
    if not all(map(math.isfinite, xyxy)):
        message = "expected fractions of the image's size, got numbers too large for any; correct the row"
        raise MalformedError(message, code=NOT_FINITE)


def write(dataset: Dataset, folder: Path) -> list[str]:
    """Write ``images/``, ``labels/``, data.yaml and a list of images for each part; see `Format.write`.

    Raises:
        DatasetError: Two images would share one label file.
    """
    losses = Losses(dataset, "YOLO", _HOLDS)
    entries = image_entries(dataset)
    places = names_below(entries, "images")
    labels = label_places(places, lambda place: f"{_label_stems(place)[0]}.txt")
    place_images(dataset, folder, places.__getitem__)
    names, numbers = _class_numbers(dataset)
    for entry, rows in boxes_by_image(dataset):
        path = inside(folder, labels[entry.name])
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = []
        for row in rows:
            line = _line(row, (entry.width, entry.height), losses)
            lines += [f"{numbers[row.class_id, row.class_name]} {line}\n"] if line else []
            losses.add("spaces around a class name", int(bool(line) and row.class_name != row.class_name.strip()))
        path.write_text("".join(lines), encoding="utf-8", newline="")
    lists: dict[str, list[str]] = {"train": [], "val": []}
    for entry in entries:
        if entry.split:
            lists.setdefault(entry.split, []).append(f"./{places[entry.name]}\n")
    for split, images in lists.items():
        if images:
            (folder / f"{split}.txt").write_text("".join(images), encoding="utf-8", newline="")
    # Without images a part is said to be empty: no folder's name shall be taken for it.
    parts = [f"{split}: {f'{split}.txt' if images else '[]'}\n" for split, images in lists.items()]
    classes = [f"  {number}: {_quoted(name)}\n" for number, name in enumerate(names)]
    text = "".join([*parts, "names:\n" if classes else "names: []\n", *classes])
    (folder / "data.yaml").write_text(text, encoding="utf-8", newline="")
    return losses.sentences()


def _class_numbers(dataset: Dataset) -> tuple[list[str], dict[tuple[int, str], int]]:
    """Return the names for data.yaml, and the number of each (class_id, class_name) among the annotations.

    Names that are not in class_names follow those; a number that was out of range stays the number that it was, as
    long as it is out of range here.
    """
    pairs = dataset.annotations[["class_id", "class_name"]].drop_duplicates()
    used = sorted((int(class_id), name) for class_id, name in pairs.itertuples(index=False, name=None))
    outside = {name for class_id, name in used if class_id == CLASS_OUT_OF_RANGE_ID}
    names = list(dict.fromkeys([*dataset.class_names, *(name for _, name in used if name not in outside)]))
    numbers: dict[tuple[int, str], int] = {}
    for class_id, name in used:
        if name in outside and name not in names and _is_outside(name, len(names) + len(outside)):
            numbers[class_id, name] = int(name)
            continue
        if name not in names:
            names.append(name)
        numbers[class_id, name] = names.index(name)
    return names, numbers


def _is_outside(name: str, num_names: int) -> bool:
    try:
        return not 0 <= int(name) < num_names and str(int(name)) == name
    except ValueError:
        return False


def _line(row: LabelRow, resolution_wh: tuple[int, int], losses: Losses) -> str:
    """Return a row without its class; "" for what cannot be written, which `losses` then counts."""
    width, height = resolution_wh
    if row.xyxy is None:
        return ""
    if not (width and height):
        losses.add("boxes of images that cannot be decoded")
        return ""
    ring = row.polygon[0] if row.polygon is not None and len(row.polygon) == 1 else ()
    xs, ys = ring[::2], ring[1::2]
    if len(ys) >= 3 and _near((min(xs), min(ys), max(xs), max(ys)), row.xyxy):
        values = [value for x, y in zip(xs, ys, strict=True) for value in (x / width, y / height)]
    else:
        losses.add("polygons became their boxes", int(row.polygon is not None))
        x1, y1, x2, y2 = row.xyxy
        values = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
    if not all(map(math.isfinite, values)):
        losses.add("boxes too large for any fraction")
        return ""
    return " ".join(map(repr, values))


def _near(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return all(abs(x - y) <= _SAME_BOUNDS_PX for x, y in zip(a, b, strict=True))


def _quoted(text: str) -> str:
    r"""Return a text for YAML, in which nothing can be taken for a number, a truth or a comment.

    >>> print(_quoted("no"), _quoted('a "b"'))
    "no" "a \"b\""
    """
    quoted = json.dumps(text, ensure_ascii=False)
    # YAML refuses what cannot be printed.
    return "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in quoted)
