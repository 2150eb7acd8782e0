"""What every label format shares: the rows it reads, the files it walks, and the tables made from them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from plumbline.errors import DatasetError
from plumbline.image_scan import IMAGE_SUFFIXES, ImageScan
from plumbline.manifest import ANNOTATIONS_SCHEMA, FINDINGS_SCHEMA, IMAGES_SCHEMA, Dataset, table


@dataclass(frozen=True)
class LabelRow:
    """One box, as the label file says it.

    Attributes:
        image: Path of the image, relative to the source folder, with forward slashes.
        class_id: Index in class_names; -1 for a class that is not among them.
        class_name: As the label file writes it.
        xyxy: Pixels, 0-based, half-open; neither clipped nor put in order.
        source_file: The label file, as it can be opened.
        source_line: 1-based.
        difficult: Hard to recognise, says the labeller.
        truncated: Cut by the image's edge or hidden in part, says the labeller.
        polygon: x, y, x, y... in pixels, or None.
    """

    image: str
    class_id: int
    class_name: str
    xyxy: tuple[float, float, float, float]
    source_file: str
    source_line: int
    difficult: bool = False
    truncated: bool = False
    polygon: tuple[float, ...] | None = None


@dataclass(frozen=True, order=True)
class ReadFinding:
    """Something in the source that could not become a row.

    Attributes:
        source_file: As it can be opened.
        source_line: 1-based; 0 when the whole file is meant.
        code: A key of ``validate.severity`` in params.yaml.
        message: What is wrong, what was expected, what to do.
        image: Path of the image relative to the source folder; "" when none is meant.
    """

    source_file: str
    source_line: int
    code: str
    message: str
    image: str = ""


@dataclass(frozen=True)
class ReadResult:
    """All that a format read; the order of `rows` within an image is that of its label file."""

    rows: list[LabelRow] = field(default_factory=list)
    findings: list[ReadFinding] = field(default_factory=list)


@dataclass(frozen=True)
class ImageRecord:
    """One image of the dataset to be.

    Attributes:
        name: What the rows call it: its path relative to the source folder.
        group: Images of one group are never parted by a split; "" for none.
        source: Where it came from.
    """

    name: str
    group: str
    source: str


class MalformedError(Exception):
    """One label row, or file, that cannot be read; a reader turns it into a finding.

    Attributes:
        line: 1-based, where the reader itself knows no better one; 0 when the whole file is meant.
    """

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


def list_files(folder: Path, suffixes: Sequence[str]) -> list[str]:
    """Return the files below a folder with one of the suffixes, relative, sorted, links followed.

    Hidden files and folders, and macOS' ``__MACOSX``, are left out.

    Raises:
        DatasetError: A file name is not UTF-8, or holds a line break or the like.
    """
    found: list[str] = []
    seen: set[str] = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        # A link to a folder above would go round for ever.
        real = os.path.realpath(root)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        wanted = (Path(root, name) for name in files if not name.startswith("."))
        found += [p.relative_to(folder).as_posix() for p in wanted if p.suffix.lower() in suffixes and p.is_file()]
    for name in found:
        if not name.isprintable():
            raise DatasetError(f"{folder}: the file name {name!r} holds unprintable characters; rename the file")
    return sorted(found)


def list_images(folder: Path) -> list[str]:
    """Return every image file below a folder, relative, sorted."""
    return list_files(folder, IMAGE_SUFFIXES)


def as_opened(folder: Path, name: str) -> str:
    """Return how a file of the source is named to people."""
    return (folder / name).as_posix()


def to_number(text: str) -> float:
    """Return a finite number.

    Raises:
        MalformedError: The text is no number, or NaN, or infinite.

    >>> to_number(" 1e2 ")
    100.0
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    # Python reads 1_000 as a number; no label format does.
    if not math.isfinite(value) or "_" in text:
        raise MalformedError(f"expected a finite number, got {text!r}; correct it")
    return value


def to_class_id(class_name: str, class_names: Sequence[str]) -> int:
    """Return the index of a class, or -1.

    >>> to_class_id("dog", ("cat", "dog")), to_class_id("cow", ("cat", "dog"))
    (1, -1)
    """
    return class_names.index(class_name) if class_name in class_names else -1


def missing_labels(folder: Path, images: Iterable[str], labelled: set[str], where: str) -> list[ReadFinding]:
    """Return a finding for each image that no label file is about.

    Args:
        folder: The source.
        images: All images.
        labelled: Those with a label file, be it empty or malformed.
        where: What kind of label file was looked for.
    """
    message = f"no label file for this image, expected {where}; it is kept as an image without objects"
    return [
        ReadFinding(as_opened(folder, image), 0, "missing_label", message, image)
        for image in images
        if image not in labelled
    ]


def build_dataset(
    records: Sequence[ImageRecord],
    scans: Mapping[str, ImageScan],
    result: ReadResult,
    class_names: tuple[str, ...],
    root: Path,
) -> Dataset:
    """Number the images and boxes, and make the canonical tables.

    Args:
        records: One per image, in any order.
        scans: By `ImageRecord.name`.
        result: What the label files say about these images.
        class_names: Index is class_id.
        root: The folder that holds, or will hold, ``images/<name>``.
    """
    ordered = sorted(records, key=lambda record: record.name)
    ids = {record.name: image_id for image_id, record in enumerate(ordered)}
    images = [_image_row(image_id, record, scans[record.name]) for image_id, record in enumerate(ordered)]
    rows = sorted(result.rows, key=lambda row: (ids[row.image], row.source_file, row.source_line))
    annotations = [_annotation_row(ann_id, ids[row.image], row) for ann_id, row in enumerate(rows)]
    findings = [_finding_row(finding, ids) for finding in sorted(result.findings)]
    return Dataset(
        images=table(images, IMAGES_SCHEMA),
        annotations=table(annotations, ANNOTATIONS_SCHEMA),
        findings=table(findings, FINDINGS_SCHEMA),
        class_names=class_names,
        root=root,
    )


def _image_row(image_id: int, record: ImageRecord, scan: ImageScan) -> dict[str, object]:
    return {
        "image_id": image_id,
        "path": str(PurePosixPath("images", record.name)),
        "sha256": scan.sha256,
        "width": scan.width,
        "height": scan.height,
        "phash": scan.phash,
        "group": record.group,
        "source": record.source,
        "readable": scan.readable,
        "brightness": scan.brightness,
        "contrast": scan.contrast,
        "sharpness": scan.sharpness,
    }


def _annotation_row(ann_id: int, image_id: int, row: LabelRow) -> dict[str, object]:
    x1, y1, x2, y2 = row.xyxy
    return {
        "image_id": image_id,
        "ann_id": ann_id,
        "class_id": row.class_id,
        "class_name": row.class_name,
        "x1": x1,
        "y1": y1,
        "x2": x2,
        "y2": y2,
        "difficult": row.difficult,
        "truncated": row.truncated,
        "polygon": None if row.polygon is None else list(row.polygon),
        "source_file": row.source_file,
        "source_line": row.source_line,
    }


def _finding_row(finding: ReadFinding, ids: Mapping[str, int]) -> dict[str, object]:
    return {
        "code": finding.code,
        "severity": "",
        "source_file": finding.source_file,
        "source_line": finding.source_line,
        "message": finding.message,
        "image_id": ids.get(finding.image, -1),
        "ann_id": -1,
    }
