"""From a source of any kind, in any format, to the canonical dataset, with the images' bytes in one folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from plumbline.errors import DatasetError
from plumbline.faults import UNSUPPORTED_IMAGE
from plumbline.formats import open_format, sniff
from plumbline.formats.reading import (
    ImageRecord,
    LabelRow,
    ReadFinding,
    ReadResult,
    build_dataset,
    list_images,
    names_ending,
    to_class_id,
)
from plumbline.image_scan import IMAGE_SUFFIXES, ImageScan
from plumbline.image_shards import pack
from plumbline.manifest import CLASS_OUT_OF_RANGE_ID, Dataset
from plumbline.scan_shards import scan_source
from plumbline.sources import Source, open_source
from plumbline.sources.video import VIDEO_SUFFIXES

# Files that a person would count among the images, and that nothing here can read.
OTHER_IMAGE_SUFFIXES = (
    *(".arw", ".avif", ".cr2", ".dng", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpe", ".jxl", ".mpo", ".nef"),
    *(".pbm", ".pgm", ".pnm", ".ppm", ".tga"),
)
# A folder's videos are frames by now: these are in an archive or a bucket, or of a kind that is not read.
OTHER_VIDEO_SUFFIXES = (*VIDEO_SUFFIXES, ".3gp", ".flv", ".mpeg", ".mpg", ".wmv")

Tell = Callable[[str], None]


@dataclass(frozen=True)
class ScanSettings:
    """How the images are scanned; nothing here changes a result.

    Attributes:
        workers: Processes; 0 for as many as there are cores.
        shard_size: Images that are one task, and that are not done again after a kill.
        cluster: Address of a Dask scheduler (``tcp://host:port``) that shares this file system; "" for processes here.
    """

    workers: int = 0
    shard_size: int = 500
    cluster: str = ""


def read_source(
    address: str,
    format_name: str,
    class_names: tuple[str, ...] | None,
    work: Path,
    tell: Tell,
    *,
    settings: ScanSettings | None = None,
    copy: bool = True,
) -> Dataset:
    """Read labels and images; what is wrong with one of them is a row or a finding, for the checks to judge.

    Args:
        address: What `plumbline.sources.open_source` takes.
        format_name: A row of `plumbline.formats.FORMATS`, or ``auto``.
        class_names: Index is class_id. None for the data set's own list, or else the names that its labels use, sorted.
        work: A folder for the images' bytes, below ``images/``, and for what is done when a run is cut short: the same
            call with the same folder goes on from there. Nothing else may be in it.
        tell: Called with a line now and then.
        settings: How the images are scanned.
        copy: Whether the images' bytes are put into `work`; without, there are only the tables.

    Returns:
        The dataset with `work` as its root.

    Raises:
        DatasetError: There is no such source, no image in it, or no known format.
    """
    source = open_source(address)
    if not source.files():
        raise DatasetError(f"{address}: empty, expected images and their labels; correct dataset.source")
    format_name = sniff(source) if format_name == "auto" else format_name
    module = open_format(format_name)
    # Labelme's files can hold the images themselves.
    source = module.wrap(source) if hasattr(module, "wrap") else source
    if not list_images(source):
        raise DatasetError(
            f"{address}: no image there, expected files ending in {', '.join(IMAGE_SUFFIXES)}; correct dataset.source"
        )
    tell(f"{address}: {len(source.files())} files, labels of the format {format_name}")
    names = module.find_images(source)
    _tell_what_is_left_out(source, names, tell)
    scans = scan(source, names, work, tell, settings or ScanSettings(), copy=copy)
    result = module.read(source, class_names or (), scans)
    if class_names is None:
        class_names, result = _name_classes(result)
    result = replace(result, findings=[*source.findings(), *_unsupported(source), *result.findings])
    records = [ImageRecord(name, source.group(name), source.where(name)) for name in names]
    return build_dataset(records, scans, result, class_names, work)


def scan(
    source: Source, names: Sequence[str], work: Path, tell: Tell, settings: ScanSettings, *, copy: bool = True
) -> Mapping[str, ImageScan]:
    """Scan the images by shards and, if asked, copy their bytes to ``work/images/<name>``."""

    def progress(done: int, total: int) -> None:
        tell(f"{done} of {total} images scanned")

    scans = scan_source(
        source,
        names,
        work,
        shard_size=settings.shard_size,
        workers=settings.workers,
        cluster=settings.cluster,
        copy=copy,
        progress=progress,
    )
    if copy:
        _remove_others(work / "images", set(names))
    return scans


def finish(work: Path, dataset: Dataset, folder: Path, images_per_shard: int, tell: Tell) -> None:
    """Put the images' bytes into the dataset folder, and forget what was done.

    The record of what is done goes first: without the bytes it would be wrong.

    Args:
        work: As `read_source` had it.
        dataset: What it gave.
        folder: The dataset folder.
        images_per_shard: On average; 0 for loose files.
        tell: Called with a line.
    """
    shutil.rmtree(work / "shards", ignore_errors=True)
    if images_per_shard:
        number = pack(work, dataset.images["path"].tolist(), folder, images_per_shard)
        tell(f"{len(dataset.images)} images in {number} shards")
    else:
        shutil.move(work / "images", folder / "images")  # the data folder may be on another disk
    shutil.rmtree(work, ignore_errors=True)


def _remove_others(folder: Path, names: set[str]) -> None:
    """Remove what an interrupted run copied of images that are no longer in the source."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.relative_to(folder).as_posix() not in names:
            path.unlink()


def _name_classes(result: ReadResult) -> tuple[tuple[str, ...], ReadResult]:
    """Return the data set's own classes, and its rows numbered by them.

    Rows of a data set with its own list keep a number beyond that list as such.
    """
    names = result.declared_names or tuple(sorted({row.class_name for row in result.rows}, key=_natural))

    def numbered(row: LabelRow) -> LabelRow:
        if result.declared_names and row.class_id == CLASS_OUT_OF_RANGE_ID:
            return row
        return replace(row, class_id=to_class_id(row.class_name, names))

    return names, replace(result, rows=[numbered(row) for row in result.rows])


def _natural(name: str) -> tuple[int, int, str]:
    """Sort numbers by value, before other names.

    >>> sorted(["10", "cat", "9"], key=_natural)
    ['9', '10', 'cat']
    """
    return (0, int(name), name) if name.isdecimal() else (1, 0, name)


def _unsupported(source: Source) -> list[ReadFinding]:
    message = "the line does not read images of this type, expected JPEG, PNG, WebP, BMP or TIFF; convert it"
    return [
        ReadFinding(source.where(name), 0, UNSUPPORTED_IMAGE, message)
        for name in names_ending(source, OTHER_IMAGE_SUFFIXES)
    ]


def _tell_what_is_left_out(source: Source, names: Sequence[str], tell: Tell) -> None:
    """Name image files that are in another place than the format's, and videos that are not read."""
    taken = set(names)
    left = [name for name in list_images(source) if name not in taken]
    videos = names_ending(source, OTHER_VIDEO_SUFFIXES)
    for what, those in (
        ("image files left out, for they are in another place than the format's", left),
        (f"videos left out, for only {', '.join(VIDEO_SUFFIXES)} in a folder are read", videos),
    ):
        if those:
            more = f" and {len(those) - 10} more" if len(those) > 10 else ""
            tell(f"{what}: {len(those)}: {', '.join(those[:10])}{more}")
