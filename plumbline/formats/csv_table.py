"""CSV: tables with a row per image, and its class in a column of it.

**Columns.** The header names them, in any case: the image is in the first of image, path, file, filename, filepath,
file_name or image_path; the class in the first of class, label, class_name, category or target; where there is a column
split, it says train, val, valid, validation, test or nothing. Other columns are passed over. They are parted by commas,
semicolons or tabs, and quoted as RFC 4180 has it. A class is a name as it is written, also where it is a number. A
table with a column of boxes (such as xmin, x1 or bbox) is none of this format, and is refused.

**Which image.** The one at that path from the CSV's own folder, else from the top of the source, else the only one of
that file name. Nothing is opened by what a table says: an absolute path, or one that leads out, can only be found by
its file name.

**Splits.** The column, else the file's name: train.csv, val.csv, test.csv. A table with a split and no class beside one
with classes only deals images.

Source: RFC 4180, "Common Format and MIME Type for Comma-Separated Values (CSV) Files".
"""

from __future__ import annotations

import csv
import io
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from plumbline.faults import MALFORMED_LABEL, MALFORMED_ROW, MISSING_IMAGE, SECOND_LABEL
from plumbline.formats.reading import (
    SPLIT_NAMES,
    LabelRow,
    ReadFinding,
    ReadResult,
    decode_text,
    list_images,
    missing_labels,
    names_ending,
    to_class_id,
)
from plumbline.formats.writing import Losses, boxes_by_image, image_entries, names_below, place_images
from plumbline.image_scan import ImageScan
from plumbline.manifest import Dataset

if TYPE_CHECKING:
    from plumbline.sources import Source

IMAGE_COLUMNS = ("image", "path", "file", "filename", "filepath", "file_name", "image_path")
CLASS_COLUMNS = ("class", "label", "class_name", "category", "target")
SPLIT_COLUMN = "split"
# Of tables with a row per box, which would be read as rows of classes of the whole image.
BOX_COLUMNS = {"xmin", "x_min", "x1", "bbox", "bndbox"}
LAYOUT = "a .csv or .tsv file with a header that names an image column and a class column, and none of boxes"

_SUFFIXES = (".csv", ".tsv")
_DELIMITERS = (",", ";", "\t")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HOLDS = frozenset({"whole_image", "negatives", "split", "polygon", "rle", "crowd", "difficult", "truncated"})


def sniff(source: Source) -> bool:
    """Say whether the header of some CSV file names an image and a class."""
    for name in names_ending(source, _SUFFIXES):
        try:
            text, _ = decode_text(source.read(name), source.where(name))
        except OSError:
            continue
        header = _parse_header(text)
        if header is not None and header.class_name >= 0:
            return True
    return False


def find_images(source: Source) -> list[str]:
    """Return every image."""
    return list_images(source)


def read(source: Source, class_names: tuple[str, ...], scans: Mapping[str, ImageScan]) -> ReadResult:
    """Read every table; see `plumbline.formats.Format.read`.

    A CSV file without such a header is passed over where another one has it: data sets come with other lists, too.
    """
    tables = _Tables(source, class_names, scans)
    foreign = []
    for name in source.order(names_ending(source, _SUFFIXES)):
        finding = tables.read_file(name)
        if finding is not None:
            foreign.append(finding)
    result = tables.result
    if not tables.num_read:
        result.findings.extend(foreign)
    where = "a row that names it, in a .csv or .tsv file"
    result.findings.extend(missing_labels(source, sorted(scans), tables.labelled, where))
    return result


def write(dataset: Dataset, folder: Path) -> list[str]:
    """Write labels.csv, and the images below images/; see `plumbline.formats.Format.write`.

    A row without a class would be malformed: what has a split and no class is in splits.csv.
    """
    losses = Losses(dataset, "a CSV table", _HOLDS)
    places = names_below(image_entries(dataset), "images")
    place_images(dataset, folder, places.__getitem__)
    rows: list[tuple[str, str, str]] = []
    dealt: list[tuple[str, str]] = []
    for entry, labels in boxes_by_image(dataset):
        names = [label.class_name for label in labels if label.xyxy is None]
        rows.extend((places[entry.name], name, entry.split) for name in names)
        dealt.extend([(places[entry.name], entry.split)] if entry.split and not names else [])
        losses.add("classes that do not come back as they were", sum(not _is_plain(name) for name in names))
    _write_rows(folder / "labels.csv", [("image", "class", SPLIT_COLUMN), *rows])
    if dealt:
        _write_rows(folder / "splits.csv", [("image", SPLIT_COLUMN), *dealt])
    return losses.sentences()


def _write_rows(path: Path, rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


@dataclass(frozen=True)
class _Header:
    """Where a table has what.

    Attributes:
        delimiter: Parts the columns.
        image: Index of the column.
        class_name: Index of the column; -1 for none, where there is one of splits.
        split: Index of the column; -1 for none.
        num_columns: Of the header.
        line: The last line of the header, 1-based.
    """

    delimiter: str
    image: int
    class_name: int
    split: int
    num_columns: int
    line: int


def _parse_header(text: str) -> _Header | None:
    r"""Return what the first row that is not blank says, or None if it names no image, or neither class nor split.

    >>> _parse_header("id;File;Label\n")
    _Header(delimiter=';', image=1, class_name=2, split=-1, num_columns=3, line=1)
    """
    lines = _Lines(text)
    for delimiter in _DELIMITERS:
        lines.at = 0
        rows = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
        try:
            row: list[str] = next((row for row in rows if any(row)), [])
        except csv.Error:
            continue
        columns = [cell.strip().lower() for cell in row]
        image, class_name = _first(columns, IMAGE_COLUMNS), _first(columns, CLASS_COLUMNS)
        split = _first(columns, (SPLIT_COLUMN,))
        if image >= 0 and max(class_name, split) >= 0 and BOX_COLUMNS.isdisjoint(columns):
            return _Header(delimiter, image, class_name, split, len(columns), lines.at)
    return None


def _first(columns: Sequence[str], names: Sequence[str]) -> int:
    """Return the index of the first of the names that is a column, or -1."""
    return next((columns.index(name) for name in names if name in columns), -1)


class _Lines:
    """Lines for `csv.reader`, from a place that can be set back between two rows."""

    def __init__(self, text: str) -> None:
        self.lines = list(io.StringIO(text, newline=""))
        self.at = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self.at >= len(self.lines):
            raise StopIteration
        self.at += 1
        return self.lines[self.at - 1]


@dataclass(frozen=True)
class _Row:
    """One row of a table.

    Attributes:
        line: On which it begins, 1-based.
        image: As written; "" where it cannot be told.
        class_name: As written; "" in a table without classes.
        split: As written; "" for none.
        problem: What is wrong with it; "" for nothing.
    """

    line: int
    image: str
    class_name: str
    split: str
    problem: str


def _rows(text: str, header: _Header) -> Iterator[_Row]:
    """Yield every row that is not blank.

    A quote that is not closed would swallow the rows behind it: after a bad row, reading goes on at the next line.
    """
    lines = _Lines(text)
    lines.at = header.line
    reader = csv.reader(lines, delimiter=header.delimiter, skipinitialspace=True, strict=True)
    while lines.at < len(lines.lines):
        first = lines.at
        try:
            cells = next(reader)
            problem = ""
        except csv.Error as error:
            cells = lines.lines[first].replace('"', "").split(header.delimiter)
            problem = f"a row that is no CSV ({error}), expected every quote closed; correct it"
        cells = [cell.strip() for cell in cells]
        if any(cells):
            row = _row(first + 1, cells, header, problem)
            if row.problem:
                lines.at = first + 1
            yield row


def _row(line: int, cells: list[str], header: _Header, problem: str) -> _Row:
    def cell(column: int) -> str:
        return cells[column] if 0 <= column < len(cells) else ""

    image, class_name, split = cell(header.image), cell(header.class_name), cell(header.split)
    if not problem and len(cells) != header.num_columns:
        problem = f"expected {header.num_columns} columns as in the header, got {len(cells)}; correct the row"
    named = [("image", image), ("class", class_name)] if header.class_name >= 0 else [("image", image)]
    for what, text in named:
        if not problem and (not text or _CONTROL.search(text)):
            problem = f"expected the name of its {what}, without control characters, got {text!r}; correct it"
    if not problem and split and split.lower() not in SPLIT_NAMES:
        problem = f"expected one of {', '.join(SPLIT_NAMES)} or nothing as split, got {split!r}; correct it"
    return _Row(line, image, class_name, split, problem)


class _Tables:
    """All tables of a source, read one after the other.

    Attributes:
        result: Rows, findings and splits so far.
        labelled: Images that some row is about, be it a malformed one.
        num_read: Files that were tables.
    """

    def __init__(self, source: Source, class_names: tuple[str, ...], scans: Mapping[str, ImageScan]) -> None:
        self.result = ReadResult()
        self.labelled: set[str] = set()
        self.num_read = 0
        self._source = source
        self._class_names = class_names
        self._images = _Images(scans)
        self._seen: dict[tuple[str, str], str] = {}  # image and class -> where

    def read_file(self, name: str) -> ReadFinding | None:
        """Read one file; return a finding instead where it is no table."""
        source_file = self._source.where(name)
        try:
            text, findings = decode_text(self._source.read(name), source_file)
        except OSError as error:
            message = f"cannot be read ({error.strerror or error}), expected a CSV table; make it readable"
            self.result.findings.append(ReadFinding(source_file, 0, MALFORMED_LABEL, message))
            return None
        header = _parse_header(text)
        if header is None:
            message = (
                f"no table of images, expected a header with one of {', '.join(IMAGE_COLUMNS)} and one of"
                f" {', '.join(CLASS_COLUMNS)}, and no boxes; name the columns"
            )
            return ReadFinding(source_file, 1, MALFORMED_LABEL, message)
        self.num_read += header.class_name >= 0
        self.result.findings.extend(findings)
        split_of_file = SPLIT_NAMES.get(PurePosixPath(name).stem.lower(), "")
        for row in _rows(text, header):
            image = self._images.find(name, row.image)
            if image and header.class_name >= 0:
                self.labelled.add(image)
            finding = self._add(row, image, source_file, split_of_file)
            self.result.findings.extend([finding] if finding else [])
        return None

    def _add(self, row: _Row, image: str, source_file: str, split_of_file: str) -> ReadFinding | None:
        """Add a row; return a finding instead where it cannot be one."""
        where = (source_file, row.line)
        if row.problem:
            return ReadFinding(*where, MALFORMED_ROW, row.problem, image)
        if not image:
            message = f"no image {row.image!r} for this row, expected a file; add the image, or remove the row"
            return ReadFinding(*where, MISSING_IMAGE, message)
        split = SPLIT_NAMES.get(row.split.lower(), split_of_file)
        if split:
            self.result.splits.setdefault(image, split)
        if not row.class_name:  # a table that only deals images
            return None
        key = (image, row.class_name)
        if key in self._seen:
            message = f"a second row for {image} with the class of {self._seen[key]}, expected one; remove it"
            return ReadFinding(*where, SECOND_LABEL, message, image)
        self._seen[key] = f"{source_file}:{row.line}"
        class_id = to_class_id(row.class_name, self._class_names)
        self.result.rows.append(LabelRow(image, class_id, row.class_name, None, *where))
        return None


class _Images:
    """Finds an image by what a table calls it."""

    def __init__(self, names: Mapping[str, ImageScan]) -> None:
        self._names = names
        self._by_file_name: dict[str, str] = {}
        for name in names:
            file_name = PurePosixPath(name).name
            # "" for several of one name.
            self._by_file_name[file_name] = "" if file_name in self._by_file_name else name

    def find(self, table: str, written: str) -> str:
        """Return an image's name, or "" for none.

        Args:
            table: Name of the CSV file in the source.
            written: The cell; Windows' backslashes are read as slashes where no name has them.
        """
        path = written.replace("\\", "/")
        for base in (posixpath.dirname(table), ""):
            for way in (written, path):
                name = posixpath.normpath(posixpath.join(base, way))
                if name in self._names:
                    return name
        return self._by_file_name.get(posixpath.basename(path), "")


def _is_plain(class_name: str) -> bool:
    """Say whether a class comes back from a cell as it went in."""
    return class_name.strip() == class_name != "" and not _CONTROL.search(class_name)
