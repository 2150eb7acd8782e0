"""Images, or frames of videos, without any labels.

It is never recognised by itself: labels in a format that is not known, or in a folder that was forgotten, would be
passed over in silence. It must be chosen: ``dataset.format: unlabelled``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from plumbline.formats.reading import ReadResult, list_images, missing_labels
from plumbline.formats.writing import Losses, place_images
from plumbline.image_scan import ImageScan
from plumbline.manifest import Dataset

if TYPE_CHECKING:
    from plumbline.sources import Source

LAYOUT = "images alone, only when it is chosen"

_NEVER_HELD = frozenset({"polygon", "rle", "crowd", "difficult", "truncated"})  # they are parts of boxes


def sniff(source: Source) -> bool:  # noqa: ARG001
    """Say no: see this module's head."""
    return False


def find_images(source: Source) -> list[str]:
    """Return every image."""
    return list_images(source)


def read(source: Source, class_names: tuple[str, ...], scans: Mapping[str, ImageScan]) -> ReadResult:  # noqa: ARG001
    """Return no rows, and a finding for each image; see `plumbline.formats.Format.read`."""
    where = "one in a known format (dataset.format says: unlabelled)"
    return ReadResult(findings=missing_labels(source, sorted(scans), set(), where))


def write(dataset: Dataset, folder: Path) -> list[str]:
    """Write the images where they stand; see `plumbline.formats.Format.write`."""
    place_images(dataset, folder, str)
    return Losses(dataset, "a folder of images", _NEVER_HELD | {"negatives"}).sentences()
