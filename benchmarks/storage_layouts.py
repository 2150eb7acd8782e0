"""The same made-up images as loose files and as tar shards, and what is written when some of them change."""

from __future__ import annotations

import hashlib
import os
import random
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

SHARD_SIZE = 500
# JPEGs do not compress, and neither do these; slices of one pool are made faster than fresh bytes.
POOL = random.Random(0).randbytes(1 << 20)  # noqa: S311 - no secret


@dataclass(frozen=True)
class Image:
    """One image, of which the bytes follow from what it is.

    Attributes:
        name: Path below the images' folder.
        version: Goes up when the image's bytes change.
        mean_bytes: About how large it is.
    """

    name: str
    version: int
    mean_bytes: int

    def data(self) -> bytes:
        """Return its bytes, 0.7 to 1.3 times the mean."""
        digest = hashlib.sha256(f"{self.name}\0{self.version}".encode()).digest()
        size = int(self.mean_bytes * (0.7 + 0.6 * digest[0] / 255))
        start = int.from_bytes(digest[1:4], "big") % (len(POOL) - size)
        return digest + POOL[start : start + size - len(digest)]


def make_images(count: int, mean_bytes: int, batch: str = "", seed: int = 0) -> list[Image]:
    """Return images in order of arrival.

    Args:
        count: How many.
        mean_bytes: Of one.
        batch: Folder that they come in; "" for batches of 1,000 whose folders are not in order of arrival, so that an
            image may sort anywhere.
        seed: Other names.
    """
    names = (hashlib.sha256(f"{seed} {index}".encode()).hexdigest() for index in range(count))
    return [Image(f"{batch or name[:2]}/{name[2:14]}.jpg", 0, mean_bytes) for name in names]


@dataclass(frozen=True)
class Collection:
    """A data set at one time.

    Attributes:
        images: Those that count, in order of arrival.
        log: All that ever came, in order of arrival, with those that were changed or removed since.
    """

    images: tuple[Image, ...]
    log: tuple[Image, ...]

    def add(self, new: Sequence[Image]) -> Collection:
        """Return the data set with more images."""
        return Collection((*self.images, *new), (*self.log, *new))

    def change(self, chosen: set[str]) -> Collection:
        """Return the data set with other bytes in some images."""
        images = tuple(replace(one, version=one.version + 1) if one.name in chosen else one for one in self.images)
        return Collection(images, (*self.log, *(one for one in images if one.name in chosen)))

    def remove(self, chosen: set[str]) -> Collection:
        """Return the data set without some images."""
        return Collection(tuple(one for one in self.images if one.name not in chosen), self.log)


# File name -> the images in it.
Files = dict[str, list[Image]]


def _loose(data: Collection) -> Files:
    return {one.name: [one] for one in data.images}


def _by_arrival(data: Collection) -> Files:
    """Fill shards in order of arrival. Nothing leaves a full shard: what is superseded has no row in the tables."""
    return _numbered(data.log)


def _by_name(data: Collection) -> Files:
    return _numbered(sorted(data.images, key=lambda one: one.name))


def _cut_by_name(data: Collection) -> Files:
    """Cut the sorted names where a name's hash says so: the set of names alone decides, and a cut does not move."""
    files: Files = {}
    current: list[Image] = []
    for one in sorted(data.images, key=lambda one: one.name):
        starts = int.from_bytes(hashlib.sha256(one.name.encode()).digest()[-4:], "big") % SHARD_SIZE == 0
        if starts or not current:
            current = files[f"{one.name.replace('/', '-')}.tar"] = []
        current.append(one)
    return files


def _numbered(images: Sequence[Image]) -> Files:
    return {
        f"{start // SHARD_SIZE:06d}.tar": list(images[start : start + SHARD_SIZE])
        for start in range(0, len(images), SHARD_SIZE)
    }


LAYOUTS: dict[str, Callable[[Collection], Files]] = {
    "loose": _loose,
    "arrival": _by_arrival,
    "name": _by_name,
    "name_cut": _cut_by_name,
}


def write(layout: str, data: Collection, folder: Path, before: Collection | None = None) -> dict[str, int]:
    """Write the files, or only those that differ from what stands there.

    Returns:
        How many files and bytes were written, and how many files were removed.
    """
    files, old = LAYOUTS[layout](data), LAYOUTS[layout](before) if before else {}
    gone = old.keys() - files.keys()
    for name in gone:
        (folder / name).unlink()
    written = [name for name, images in files.items() if old.get(name) != images]
    total = 0
    for name in written:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # it may be a link into DVC's cache
        content = tar(files[name]) if name.endswith(".tar") else files[name][0].data()
        path.write_bytes(content)
        total += len(content)
    return {"files_written": len(written), "bytes_written": total, "files_removed": len(gone)}


def tar(images: Iterable[Image]) -> bytes:
    """Return an uncompressed tar; the same images give the same bytes."""
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for one in images:
            content = one.data()
            entry = tarfile.TarInfo(f"{one.name}.{one.version}")
            entry.size = len(content)
            archive.addfile(entry, BytesIO(content))
    return buffer.getvalue()


@dataclass(frozen=True)
class Place:
    """Where an image's bytes are."""

    path: Path
    offset: int
    size: int


def places(folder: Path) -> Iterator[Place]:
    """Find all images below a folder, loose or in shards."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.suffix == ".tar":
            with tarfile.open(path) as archive:
                yield from (Place(path, entry.offset_data, entry.size) for entry in archive)
        else:
            yield Place(path, 0, path.stat().st_size)


class Reader:
    """Reads single images; a shard's file stays open, as a door in the library would keep it."""

    def __init__(self) -> None:
        self._open: dict[Path, int] = {}

    def read(self, place: Place) -> bytes:
        """Return an image's bytes."""
        if place.path.suffix != ".tar":
            return place.path.read_bytes()
        if place.path not in self._open:
            self._open[place.path] = os.open(place.path, os.O_RDONLY)
        return os.pread(self._open[place.path], place.size, place.offset)

    def close(self) -> None:
        """Close the shards."""
        for number in self._open.values():
            os.close(number)
        self._open.clear()


def forget_pages(paths: Iterable[Path]) -> None:
    """Let the kernel drop what it holds of these files, so that the next read is from the disk."""
    for path in paths:
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)  # what is not on the disk yet cannot be dropped
            os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(number)
