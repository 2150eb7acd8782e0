"""Images in tar shards: what DVC hashes, pushes and fetches is some hundred files, and not one for each image.

At 100,000 images that is 20 to 100 times as fast (`make bench-storage`). A dataset folder then holds, in place of the
images themselves:

    images/<name>.tar      some hundred images, uncompressed, in the order of their paths
    images/index.parquet   where in which shard the bytes of each path are

Sorted paths are cut where a path's own hash says so: which shards there are follows from the set of paths alone, and
a new image changes the one shard that it falls into. Readers that need a file get one, unpacked beside the dataset.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from plumbline.errors import DatasetError
from plumbline.files import replacing

INDEX = "images/index.parquet"
INDEX_SCHEMA = pa.schema(
    [
        ("path", pa.string()),  # as images.path has it
        ("shard", pa.string()),  # file name in images/
        ("offset", pa.int64()),  # of the first byte, in the shard
        ("size", pa.int64()),  # bytes
        ("sha256", pa.binary(32)),
    ]
)
UNPACKED = ".unpacked"  # beside the dataset folder; by content, so that it serves every version of it
LARGEST = 4  # times the mean size: a run of hashes that cut nowhere is cut here


def cut(paths: Sequence[str], mean_size: int) -> Iterator[list[str]]:
    """Deal sorted paths into shards.

    Args:
        paths: Of all images, each once, in any order.
        mean_size: Images in a shard, on average.

    >>> [len(shard) for shard in cut([f"{number}.png" for number in range(100)], 40)]
    [7, 19, 58, 16]
    """
    shard: list[str] = []
    for path in sorted(paths):
        begins = int.from_bytes(hashlib.sha256(path.encode()).digest()[-4:]) % mean_size == 0
        if shard and (begins or len(shard) == LARGEST * mean_size):
            yield shard
            shard = []
        shard.append(path)
    if shard:
        yield shard


def pack(work: Path, paths: Sequence[str], folder: Path, mean_size: int) -> int:
    """Write shards and their index from loose files; the same files give the same bytes.

    Args:
        work: Holds the files at `paths`; one that is not there (an image that could not be opened) is left out.
        paths: As images.path has them.
        folder: The dataset folder, which has no ``images/`` yet.
        mean_size: Images in a shard, on average.

    Returns:
        How many shards there are.
    """
    (folder / INDEX).parent.mkdir(parents=True)
    rows: list[tuple[str, str, int, int, bytes]] = []
    shards = list(cut([path for path in paths if (work / path).is_file()], mean_size))
    for shard in shards:
        # By its first path: cut there or nowhere.
        name = f"{hashlib.sha256(shard[0].encode()).hexdigest()[:16]}.tar"
        rows += [(path, name, *place) for path, place in _write_shard(work, shard, folder / "images" / name)]
    columns = zip(*rows, strict=True) if rows else [[] for _ in INDEX_SCHEMA]
    table = pa.table([list(column) for column in columns], schema=INDEX_SCHEMA)
    pq.write_table(table, folder / INDEX, compression="zstd")
    return len(shards)


def _write_shard(work: Path, paths: Iterable[str], target: Path) -> Iterator[tuple[str, tuple[int, int, bytes]]]:
    """Write one tar; give each path with its offset, size and sha256."""
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as archive:
        for path in paths:
            data = (work / path).read_bytes()
            entry = tarfile.TarInfo(path)  # no time, no owner: the same files give the same bytes
            entry.size, entry.mode = len(data), 0o644
            header = len(entry.tobuf(tarfile.PAX_FORMAT, archive.encoding, archive.errors))
            offset = archive.offset + header
            archive.addfile(entry, io.BytesIO(data))
            yield path, (offset, len(data), hashlib.sha256(data).digest())


class ShardedImages:
    """The images of a dataset folder whose bytes are in shards.

    Args:
        root: The dataset folder.

    Raises:
        DatasetError: Its index cannot be read.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        try:
            table = pq.read_table(root / INDEX, schema=INDEX_SCHEMA)
        except (OSError, pa.ArrowInvalid) as error:
            raise DatasetError(f"{root / INDEX}: not a readable index of shards; run ingest again") from error
        rows = zip(*(table[name].to_pylist() for name in INDEX_SCHEMA.names[1:]), strict=True)
        self._places = dict(zip(table["path"].to_pylist(), rows, strict=True))

    def __contains__(self, path: str) -> bool:
        return path in self._places

    def shard_of(self, path: str) -> str:
        """Return the file name in ``images/`` of the shard that holds an image."""
        return str(self._places[path][0])

    def data(self, path: str) -> bytes:
        """Return the bytes of one image.

        Raises:
            DatasetError: The shard is not there, or not what the index says.
        """
        shard, offset, size, sha256 = self._places[path]
        where = self._root / "images" / shard
        try:
            with where.open("rb") as file:
                data = os.pread(file.fileno(), size, offset)
        except OSError as error:
            raise DatasetError(f"{where}: cannot be read ({error.strerror}); `dvc checkout` brings it back") from error
        if hashlib.sha256(data).digest() != sha256:
            raise DatasetError(f"{where}: damaged at {path}, expected its sha256 as in {INDEX}; run ingest again")
        return data

    def unpacked(self, path: str) -> Path:
        """Return a file with the bytes of one image; it is made when it is first asked for.

        Raises:
            DatasetError: As `data`.
        """
        digest = self._places[path][3].hex()
        target = self._root.parent / UNPACKED / digest[:2] / f"{digest}{PurePosixPath(path).suffix.lower()}"
        if not target.is_file():
            data = self.data(path)
            with replacing(target) as temporary:
                temporary.write_bytes(data)
        return target


def open_shards(root: Path) -> ShardedImages | None:
    """Return the shards of a dataset folder, or None where its images are loose files."""
    try:
        stat = (root / INDEX).stat()
    except OSError:
        return None
    # All three: a file system's clock may tick so seldom that two files have one time.
    return _opened(root.absolute(), (stat.st_mtime_ns, stat.st_ino, stat.st_size))


@lru_cache(maxsize=4)
def _opened(root: Path, version: tuple[int, int, int]) -> ShardedImages:  # noqa: ARG001 - part of the cache's key
    return ShardedImages(root)
