"""What every label format shares: the rows it reads, how it names files, and the tables made from them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from plumbline.faults import BYTE_ORDER_MARK, MALFORMED_LABEL, MALFORMED_ROW, MISSING_LABEL, NOT_FINITE, NOT_UTF8
from plumbline.image_scan import IMAGE_SUFFIXES, ImageScan
from plumbline.manifest import ANNOTATIONS_SCHEMA, FINDINGS_SCHEMA, IMAGES_SCHEMA, UNKNOWN_CLASS_ID, Dataset, table

if TYPE_CHECKING:
    from plumbline.sources import Source

BOM = b"\xef\xbb\xbf"

# What data sets call their parts -> what this line calls them.
SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class LabelRow:
    """One box, or one class of a whole image, as the label says it.

    Attributes:
        image: Name of the image in its source.
        class_id: Index in class_names; UNKNOWN_CLASS_ID or CLASS_OUT_OF_RANGE_ID for a class that is not among them.
        class_name: As the label file writes it.
        xyxy: Pixels, 0-based, half-open; neither clipped nor put in order. None for a class of the whole image.
        source_file: The label file, as `Source.where` names it.
        source_line: 1-based; 0 where the format has no lines.
        difficult: Hard to recognise, says the labeller.
        truncated: Cut by the image's edge or hidden in part, says the labeller.
        crowd: A region of many that counts neither as found nor as missed (COCO's iscrowd).
        polygon: Rings of x, y, x, y... in pixels, or None.
        rle: COCO's run-length mask as JSON, or "".
    """

    image: str
    class_id: int
    class_name: str
    xyxy: tuple[float, float, float, float] | None
    source_file: str
    source_line: int
    difficult: bool = False
    truncated: bool = False
    crowd: bool = False
    polygon: tuple[tuple[float, ...], ...] | None = None
    rle: str = ""


@dataclass(frozen=True, order=True)
class ReadFinding:
    """Something in the source that could not become a row.

    Attributes:
        source_file: As `Source.where` names it.
        source_line: 1-based; 0 when the whole file is meant.
        code: A row of `plumbline.faults.FAULTS`.
        message: What is wrong, what was expected, what to do.
        image: Name of the image in its source; "" when none is meant.
    """

    source_file: str
    source_line: int
    code: str
    message: str
    image: str = ""


@dataclass(frozen=True)
class ReadResult:
    """All that a format read; the order of `rows` within an image is that of its label file.

    Attributes:
        rows: One per box, or per class of a whole image.
        findings: What could not become a row, and what is odd about a file.
        splits: Image -> train, val or test, for those that the data set itself deals.
        declared_names: The data set's own list of classes, in its order, where it has one.
    """

    rows: list[LabelRow] = field(default_factory=list)
    findings: list[ReadFinding] = field(default_factory=list)
    splits: dict[str, str] = field(default_factory=dict)
    declared_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageRecord:
    """One image of the dataset to be.

    Attributes:
        name: What the rows call it: its name in the source.
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
        code: What it is, a row of `plumbline.faults.FAULTS`.
    """

    def __init__(self, message: str, line: int = 0, code: str = MALFORMED_ROW) -> None:
        super().__init__(message)
        self.line = line
        self.code = code


def list_images(source: Source) -> list[str]:
    """Return every image file of a source, sorted."""
    return names_ending(source, IMAGE_SUFFIXES)


def names_ending(source: Source, suffixes: Sequence[str]) -> list[str]:
    """Return the files of a source with one of the suffixes, in small letters, sorted."""
    endings = tuple(suffixes)
    return [name for name in source.files() if name.lower().endswith(endings)]


def decode_text(data: bytes, source_file: str, image: str = "") -> tuple[str, list[ReadFinding]]:
    r"""Return a label file's text without a byte order mark, and what is odd about its encoding.

    What is not UTF-8 is read as Latin-1, which every byte is: numbers come out right in either, and a class name that
    does not is then an unknown class.

    >>> decode_text("\u00e9".encode("latin-1"), "a.txt")[0] == "\u00e9"
    True
    """
    findings = []
    if data.startswith(BOM):
        data = data.removeprefix(BOM)
        message = "the file begins with a byte order mark, expected plain UTF-8; save it without"
        findings.append(ReadFinding(source_file, 1, BYTE_ORDER_MARK, message, image))
    try:
        return data.decode("utf-8"), findings
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"byte {data[error.start]:#04x} is not UTF-8; the file was read as Latin-1; save it as UTF-8"
        findings.append(ReadFinding(source_file, line, NOT_UTF8, message, image))
        return data.decode("latin-1"), findings


def read_text(source: Source, name: str, image: str = "") -> tuple[str, list[ReadFinding]]:
    """Return what `decode_text` makes of a file of a source.

    Raises:
        MalformedError: It cannot be read, or holds what no text does.
    """
    try:
        data = source.read(name)
    except OSError as error:
        raise MalformedError(f"cannot be read ({error}); make it readable", code=MALFORMED_LABEL) from error
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise MalformedError("binary data, expected text in UTF-8; correct the file", line, MALFORMED_LABEL)
    return decode_text(data, source.where(name), image)


def split_lines(text: str) -> list[str]:
    r"""Split a text at its line breaks: of Unix, Windows, and the Macs of old.

    Not `str.splitlines`: that breaks at characters, too, that no editor counts as the end of a line.

    >>> split_lines("a\r\nb\rc\nd\u2028e") == ["a", "b", "c", "d\u2028e"]
    True
    """
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def to_number(text: str) -> float:
    """Return a finite number.

    Raises:
        MalformedError: The text is no number; or it is NaN or infinite, which has a code of its own.

    >>> to_number(" 1e2 ")
    100.0
    """
    try:
        value = float(text)
    except ValueError:
        raise MalformedError(f"expected a number, got {text!r}; correct it") from None
    # Python reads 1_000 as a number; no label format does.
    if "_" in text:
        raise MalformedError(f"expected a number, got {text!r}; correct it")
    if not math.isfinite(value):
        raise MalformedError(f"expected a finite number, got {text!r}; correct it", code=NOT_FINITE)
    return value


def to_class_id(class_name: str, class_names: Sequence[str]) -> int:
    """Return the index of a class, or UNKNOWN_CLASS_ID.

    >>> to_class_id("dog", ("cat", "dog")), to_class_id("cow", ("cat", "dog"))
    (1, -1)
    """
    return class_names.index(class_name) if class_name in class_names else UNKNOWN_CLASS_ID


def missing_labels(source: Source, images: Iterable[str], labelled: set[str], where: str) -> list[ReadFinding]:
    """Return a finding for each image that no label is about.

    Args:
        source: The source.
        images: All images.
        labelled: Those with a label, be it empty or malformed.
        where: What kind of label was looked for.
    """
    message = f"no label for this image, expected {where}; it is kept as an image without objects"
    return [
        ReadFinding(source.where(image), 0, MISSING_LABEL, message, image) for image in images if image not in labelled
    ]


def with_images(broken: Sequence[ReadFinding], unlabelled: Sequence[str]) -> list[ReadFinding]:
    """Return the findings about files that cannot be read, with the images whose labels may be in them.

    Of many such files the first stands for all, or there would be as many findings as files times images.

    Args:
        broken: One per file.
        unlabelled: Images that are in no other file.

    >>> [finding.image for finding in with_images([ReadFinding("a", 0, "E201", ""), ReadFinding("b", 0, "E201", "")],
    ...                                           ["x.jpg", "y.jpg"])]
    ['x.jpg', 'y.jpg', '']
    """
    return [replace(finding, image=image) for finding in broken[:1] for image in unlabelled or [""]] + [*broken[1:]]


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
    images = [
        _image_row(image_id, record, scans[record.name], result.splits.get(record.name, ""))
        for image_id, record in enumerate(ordered)
    ]
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


def _image_row(image_id: int, record: ImageRecord, scan: ImageScan, split: str) -> dict[str, object]:
    return {
        "image_id": image_id,
        "path": str(PurePosixPath("images", record.name)),
        "sha256": scan.sha256,
        "width": scan.width,
        "height": scan.height,
        "phash": scan.phash,
        "group": record.group,
        "source": record.source,
        "split": split,
        "readable": scan.readable,
        "problem": scan.problem,
        "damaged": scan.damaged,
        "exif_orientation": scan.exif_orientation,
        "brightness": scan.brightness,
        "contrast": scan.contrast,
        "sharpness": scan.sharpness,
    }


def _annotation_row(ann_id: int, image_id: int, row: LabelRow) -> dict[str, object]:
    x1, y1, x2, y2 = (math.nan,) * 4 if row.xyxy is None else row.xyxy
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
        "crowd": row.crowd,
        "polygon": None if row.polygon is None else [list(ring) for ring in row.polygon],
        "rle": row.rle,
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
