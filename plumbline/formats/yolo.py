"""YOLO: one text file per image, one row per object: ``class cx cy w h`` or ``class x1 y1 x2 y2 x3 y3...``.

**Coordinates** are fractions of the image's size after EXIF orientation, which is how the tools that write and read
this format see the image. A row of 1 + 2n numbers, n >= 3, is a polygon; its box is the polygon's bounds.

**Which label.** For ``.../images/a/b.jpg`` it is ``.../labels/a/b.txt`` (the last component named ``images`` is
replaced), else the ``.txt`` beside the image.

**Which class.** A number is an index into ``names`` of data.yaml, or into the lines of LabelImg's classes.txt, and its
name is looked up in class_names; where there is neither file, a number is the class_id itself.

Source: Ultralytics, "Object Detection Datasets Overview" and "Instance Segmentation Datasets Overview".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

import numpy as np
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from plumbline.boxes import cxcywhn_to_xyxy
from plumbline.errors import DatasetError
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

LAYOUT = "*.txt files in labels/ with the images in images/, or beside the images; data.yaml with names"

_DATA_FILES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_CLASSES_FILE = "classes.txt"
_ROW_FORMS = "expected 5 numbers (class cx cy w h), or 1 + 2n of them (class and a polygon of n >= 3 points)"


def sniff(folder: Path) -> bool:
    """Say whether there is a data.yaml with names, a text file in ``labels/``, or one beside its image."""
    if any(b"names" in (folder / name).read_bytes() for name in _DATA_FILES if (folder / name).is_file()):
        return True
    texts = list_files(folder, (".txt",))
    if any("labels" in PurePosixPath(name).parts for name in texts):
        return True
    return not {_stem(name) for name in texts}.isdisjoint(_stem(name) for name in list_images(folder))


def find_images(folder: Path) -> list[str]:
    """Return every image below the folder; where some are in ``images/``, others only count with a label."""
    images = list_images(folder)
    inside = [name for name in images if "images" in PurePosixPath(name).parts[:-1]]
    if not inside:
        return images
    labelled = _labelled(images, list_files(folder, (".txt",)))
    return sorted({*inside, *(name for name in images if name in labelled)})


def read(folder: Path, class_names: tuple[str, ...], scans: Mapping[str, ImageScan]) -> ReadResult:
    """Read every label file; see `plumbline.formats.Format.read`."""
    texts = [name for name in list_files(folder, (".txt",)) if PurePosixPath(name).name != _CLASSES_FILE]
    names = _names(folder)
    labelled = _labelled(sorted(scans), texts)
    result = ReadResult()
    for image, text in labelled.items():
        _read_label(folder, text, (image, scans[image]), (names, class_names), result)
    for text in sorted(set(texts) - set(labelled.values())):
        if _is_label(folder, text):
            message = "no image for this label file; add the image, or remove the label file"
            result.findings.append(ReadFinding(as_opened(folder, text), 0, "missing_image", message))
    where = "a .txt file in labels/ or beside it"
    result.findings.extend(missing_labels(folder, sorted(scans), set(labelled), where))
    return result


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _labelled(images: Iterable[str], texts: Iterable[str]) -> dict[str, str]:
    """Return image -> its label file, for those that have one."""
    by_stem = {_stem(name): name for name in texts}
    found: dict[str, str] = {}
    for image in images:
        for stem in _label_stems(image):
            if stem in by_stem:
                found[image] = by_stem[stem]
                break
    return found


def _label_stems(image: str) -> list[str]:
    """Return where the label file of an image can be, without its suffix, the likeliest first.

    >>> _label_stems("images/train/images/a.b.jpg")
    ['images/train/labels/a.b', 'images/train/images/a.b']
    """
    *folders, _ = PurePosixPath(image).parts
    beside = _stem(image)
    if "images" not in folders:
        return [beside]
    at = len(folders) - 1 - folders[::-1].index("images")
    replaced = PurePosixPath(*folders[:at], "labels", *folders[at + 1 :], PurePosixPath(beside).name)
    return [str(replaced), beside]


def _is_label(folder: Path, text: str) -> bool:
    """Say whether a text file without an image is a label: all in ``labels/`` are; elsewhere its first row tells."""
    if "labels" in PurePosixPath(text).parts[:-1]:
        return True
    words = (folder / text).read_bytes().split(b"\n", 1)[0].decode("latin-1").split()
    try:
        return len([to_number(word) for word in words]) >= 5
    except MalformedError:
        return False


def _names(folder: Path) -> dict[int, str] | None:
    """Return the data set's own names by index, or None where it has none.

    Raises:
        DatasetError: data.yaml or classes.txt cannot be read.
    """
    for path in (folder / name for name in _DATA_FILES):
        if path.is_file():
            return _yaml_names(path)
    for path in (folder / _CLASSES_FILE, folder / "labels" / _CLASSES_FILE):
        if path.is_file():
            try:
                lines = path.read_text(encoding="utf-8-sig").split("\n")
            except UnicodeDecodeError as error:
                raise DatasetError(f"{path}: not UTF-8 ({error}), expected one class per line; save it so") from error
            return {index: line.strip() for index, line in enumerate(lines) if line.strip()}
    return None


def _yaml_names(path: Path) -> dict[int, str] | None:
    try:
        values = YAML(typ="safe", pure=True).load(path.read_bytes())
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise DatasetError(f"{path}:{line}: not YAML ({error.problem}), expected `names:`; mend the line") from error
    except (YAMLError, ValueError) as error:
        raise DatasetError(f"{path}: not YAML ({' '.join(str(error).split())}), expected `names:`; mend it") from error
    if isinstance(values, dict) and "kpt_shape" in values:
        raise DatasetError(f"{path}: expected boxes or polygons, got keypoints (kpt_shape); export the boxes alone")
    names = values.get("names") if isinstance(values, dict) else None
    if names is None:
        return None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not all(isinstance(key, int) for key in names):
        raise DatasetError(f"{path}: expected `names` as a list, or a mapping of number to name, got {names!r}")
    return {key: str(name).strip() for key, name in names.items()}


def _read_label(
    folder: Path,
    text: str,
    image: tuple[str, ImageScan],
    classes: tuple[dict[int, str] | None, tuple[str, ...]],
    result: ReadResult,
) -> None:
    """Add the rows and findings of one label file to `result`."""
    name, scan = image
    source_file = as_opened(folder, text)
    try:
        # Not splitlines(): it also breaks at characters that no editor counts as a line.
        lines = (folder / text).read_bytes().decode("utf-8-sig").replace("\r\n", "\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        message = f"cannot be read ({error}), expected UTF-8 text; correct the file"
        result.findings.append(ReadFinding(source_file, 0, "malformed_label", message, name))
        return
    rows = [(number, line.split()) for number, line in enumerate(lines, start=1) if line.strip()]
    if rows and not scan.readable:
        message = f"{len(rows)} rows cannot be placed in pixels, because {name} cannot be decoded; mend the image"
        result.findings.append(ReadFinding(source_file, 0, "unreadable_image", message, name))
        return
    for number, words in rows:
        try:
            result.rows.append(_row(words, image, classes, (source_file, number)))
        except MalformedError as error:
            result.findings.append(ReadFinding(source_file, number, "malformed_label", str(error), name))


def _row(
    words: list[str],
    image: tuple[str, ImageScan],
    classes: tuple[dict[int, str] | None, tuple[str, ...]],
    where: tuple[str, int],
) -> LabelRow:
    """Make the row of one line.

    Raises:
        MalformedError: The number of columns is wrong, or one is no number.
    """
    if len(words) != 5 and (len(words) < 7 or len(words) % 2 == 0):
        raise MalformedError(f"{_ROW_FORMS}, got {len(words)} columns; correct the row")
    index, *values = (to_number(word) for word in words)
    if index != int(index):
        raise MalformedError(f"expected a whole number as class, got {words[0]!r}; correct it")
    class_name, class_id = _class(int(index), *classes)
    name, scan = image
    with np.errstate(over="ignore", invalid="ignore"):  # looked at below
        xyxy, polygon = _geometry(np.array(values), (scan.width, scan.height))
    if not np.isfinite(xyxy).all():
        raise MalformedError("expected fractions of the image's size, got numbers too large for any; correct the row")
    return LabelRow(name, class_id, class_name, xyxy, *where, polygon=polygon)


def _class(index: int, names: dict[int, str] | None, class_names: tuple[str, ...]) -> tuple[str, int]:
    """Return (class_name, class_id) of a class number; one out of range is its own name, with -1."""
    known = dict(enumerate(class_names)) if names is None else names
    if index not in known:
        return str(index), -1
    return known[index], to_class_id(known[index], class_names)


def _geometry(
    values: np.ndarray[tuple[int], np.dtype[np.float64]], resolution_wh: tuple[int, int]
) -> tuple[tuple[float, float, float, float], tuple[float, ...] | None]:
    """Return the box in pixels, and the polygon in pixels if there is one.

    Args:
        values: Fractions: shape (4,) of a box, or (2n,) of a polygon.
        resolution_wh: Width and height of the image in pixels.
    """
    if len(values) == 4:
        x1, y1, x2, y2 = cxcywhn_to_xyxy(values[None], resolution_wh)[0].tolist()
        return (x1, y1, x2, y2), None
    points = values.reshape(-1, 2) * np.array(resolution_wh)
    (x1, y1), (x2, y2) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return (x1, y1, x2, y2), tuple(points.ravel().tolist())
