"""Label formats: an explicit table, and one module per row with the same verbs.

To add a format: write a module with the names of `Format`, add its row to `FORMATS`, and a folder of its own to
``tests/golden``; the contract test then holds it to what every format must do.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, cast

from plumbline.errors import DatasetError
from plumbline.formats.reading import ReadResult
from plumbline.image_scan import ImageScan

FORMATS = {
    "voc": "plumbline.formats.voc",
    "yolo": "plumbline.formats.yolo",
}


class Format(Protocol):
    """What a format's module offers."""

    LAYOUT: str
    """What `sniff` looks for, in words."""

    def sniff(self, folder: Path) -> bool:
        """Say whether a folder holds labels of this format."""

    def find_images(self, folder: Path) -> list[str]:
        """Return the images that the labels are about, sorted, relative to the folder."""

    def read(self, folder: Path, class_names: tuple[str, ...], scans: Mapping[str, ImageScan]) -> ReadResult:
        """Read every label of `folder`; what cannot be read is a finding.

        Args:
            folder: The source.
            class_names: Index is class_id; a name that is not among them gets -1.
            scans: A scan for each path of `find_images`.

        Raises:
            DatasetError: A file that all labels depend on (such as YOLO's data.yaml) cannot be read.
        """


def open_format(name: str) -> Format:
    """Import the module of one format.

    Raises:
        DatasetError: There is no such format.
    """
    if name not in FORMATS:
        raise DatasetError(f"{name}: no such label format, expected one of: {', '.join(FORMATS)}; set dataset.format")
    return cast("Format", importlib.import_module(FORMATS[name]))


def sniff(folder: Path) -> str:
    """Return the name of the one format whose labels a folder holds.

    Raises:
        DatasetError: None is recognised, or more than one.
    """
    found = [name for name in FORMATS if open_format(name).sniff(folder)]
    if len(found) == 1:
        return found[0]
    if found:
        raise DatasetError(
            f"{folder}: labels of more than one format, expected one, got {' and '.join(found)}; "
            "set dataset.format in params.yaml to the one to read"
        )
    layouts = "; ".join(f"{name}: {open_format(name).LAYOUT}" for name in FORMATS)
    raise DatasetError(
        f"{folder}: no labels of a known format, expected one of ({layouts}); "
        "correct dataset.source in params.yaml, or set dataset.format"
    )
