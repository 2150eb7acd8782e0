"""Label formats: an explicit table, and one module per row with the same verbs.

To add a format: write a module with the names of `Format`, add its row to `FORMATS`, and a folder of its own to
``tests/golden``; the contract test then holds it to what every format must do.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from plumbline.errors import DatasetError
from plumbline.formats.reading import ReadResult
from plumbline.image_scan import ImageScan
from plumbline.manifest import Dataset

if TYPE_CHECKING:
    from plumbline.sources import Source

FORMATS = {
    "voc": "plumbline.formats.voc",
    "yolo": "plumbline.formats.yolo",
    "coco": "plumbline.formats.coco",
    "labelme": "plumbline.formats.labelme",
    "cvat": "plumbline.formats.cvat",
    "imagefolder": "plumbline.formats.imagefolder",
    "csv": "plumbline.formats.csv_table",
    "unlabelled": "plumbline.formats.unlabelled",
}


class Format(Protocol):
    """What a format's module offers."""

    LAYOUT: str
    """What `sniff` looks for, in words."""

    def sniff(self, source: Source) -> bool:
        """Say whether a source holds labels of this format."""

    def find_images(self, source: Source) -> list[str]:
        """Return the names of the images that the labels are about, sorted."""

    def read(self, source: Source, class_names: tuple[str, ...], scans: Mapping[str, ImageScan]) -> ReadResult:
        """Read every label of a source; what cannot be read is a finding, and stops nothing else.

        Args:
            source: Where the files are.
            class_names: Index is class_id; a name that is not among them gets UNKNOWN_CLASS_ID.
            scans: A scan for each name of `find_images`.

        Raises:
            DatasetError: A file that all labels depend on (such as YOLO's data.yaml) cannot be read.
        """

    def write(self, dataset: Dataset, folder: Path) -> list[str]:
        """Write labels and images into an empty folder, so that `read` gives the same rows back.

        Returns:
            One sentence for each kind of thing that the format cannot hold, with a count; nothing is lost in silence.
        """


def open_format(name: str) -> Format:
    """Import the module of one format.

    Raises:
        DatasetError: There is no such format.
    """
    if name not in FORMATS:
        raise DatasetError(f"{name}: no such label format, expected one of: {', '.join(FORMATS)}; set dataset.format")
    return cast("Format", importlib.import_module(FORMATS[name]))


def sniff(source: Source) -> str:
    """Return the name of the one format whose labels a source holds.

    Raises:
        DatasetError: None is recognised, or more than one.
    """
    found = [name for name in FORMATS if open_format(name).sniff(source)]
    if len(found) == 1:
        return found[0]
    if found:
        raise DatasetError(
            f"{source.address}: labels of more than one format, expected one, got {' and '.join(found)}; "
            "set dataset.format in params.yaml (of a command: --from) to the one to read"
        )
    layouts = "; ".join(f"{name}: {open_format(name).LAYOUT}" for name in FORMATS)
    raise DatasetError(
        f"{source.address}: no labels of a known format, expected one of ({layouts}); "
        "correct the path, or set dataset.format in params.yaml (of a command: --from)"
    )
