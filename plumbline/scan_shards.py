"""Scan the images of a source shard by shard: in this process, in a pool of processes, or on a Dask cluster.

A shard is some hundred images and one task. Its result is one Parquet file, written as the last step under a name that
holds what it was made from; a run that was killed therefore goes on with the shards that have no file yet. Nothing
passes between the processes but names, so memory stays flat however many images there are.

Shards follow the order in which the source is cheapest to read. Where it can only be read forward (a compressed tar, a
video), each process reads on from its last shard, and so unpacks the whole once: several workers gain what the scan
itself costs, one worker costs the least work.
"""

from __future__ import annotations

import bisect
import hashlib
import importlib
import os
import shutil
import signal
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context, parent_process
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import simplejpeg

from plumbline import image_damage, image_scan
from plumbline.errors import DatasetError
from plumbline.files import replacing
from plumbline.image_scan import ImageScan, scan_bytes, unreadable_scan
from plumbline.sources import Source, open_source

SCANS_SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("sha256", pa.binary(32)),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("phash", pa.uint64()),
        ("readable", pa.bool_()),
        ("brightness", pa.float64()),
        ("contrast", pa.float64()),
        ("sharpness", pa.float64()),
        ("problem", pa.string()),
        ("damaged", pa.bool_()),
        ("exif_orientation", pa.int8()),
    ]
)

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Shard:
    """One task: which images to scan, and where the result goes.

    Attributes:
        names: Of the images in the source.
        result: The Parquet file, of `SCANS_SCHEMA`, one row per name in their order.
        images: The folder that the images' bytes are copied to; None for no copies.
    """

    names: tuple[str, ...]
    result: Path
    images: Path | None

    def is_done(self) -> bool:
        """Say whether its result is there, and every copy that it says was made."""
        try:
            digests = pq.read_table(self.result, columns=["sha256"])["sha256"].to_pylist()
        except (OSError, pa.ArrowInvalid):  # none, or what a power failure left of it
            return False
        if self.images is None:
            return True
        opened = [name for name, digest in zip(self.names, digests, strict=True) if digest != _NO_BYTES]
        return all((self.images / name).is_file() for name in opened)


_NO_BYTES = hashlib.sha256(b"").digest()


class ScanTable(Mapping[str, ImageScan]):
    """The scans by the images' names, in their order; 150 bytes each beside the names."""

    def __init__(self, names: Sequence[str], rows: pa.Table) -> None:
        """Keep the columns.

        Args:
            names: In the order of the rows.
            rows: Columns of `SCANS_SCHEMA`; `name` is not looked at.
        """
        order = sorted(range(len(names)), key=names.__getitem__)
        self._names = [names[row] for row in order]
        self._columns = {name: rows[name].combine_chunks() for name in SCANS_SCHEMA.names if name != "name"}
        self._rows = np.array(order, np.int64)

    def __getitem__(self, name: str) -> ImageScan:
        at = bisect.bisect_left(self._names, name)
        if at == len(self._names) or self._names[at] != name:
            raise KeyError(name)
        row = int(self._rows[at])
        values = {column: array[row].as_py() for column, array in self._columns.items()}
        return ImageScan(**{**values, "sha256": values["sha256"].hex()})

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def scan_source(
    source: Source,
    names: Sequence[str],
    work: Path,
    *,
    shard_size: int,
    workers: int,
    cluster: str,
    copy: bool,
    progress: Progress,
) -> Mapping[str, ImageScan]:
    """Scan images of a source and, if asked, copy their bytes; shards that an earlier call finished are not done again.

    The result does not depend on the workers, the cluster or the size of the shards.

    Args:
        source: Is opened again by its address in each worker.
        names: Of the images, each once.
        work: The folder for ``shards/`` and ``images/``; the same one lets a later call go on from here.
        shard_size: Images in one task.
        workers: Processes on this machine at most; 0 for one per core. One worker is this process itself.
        cluster: Address of a Dask scheduler (``tcp://host:port``) whose workers see the same files; "" for none.
        copy: Whether each image's bytes are written to ``work/images/<name>``.
        progress: Called after each shard with how many images are done, and of how many.

    Raises:
        DatasetError: A worker died, the cluster does not answer, or the results cannot be written.
    """
    work = work.absolute()
    (work / "shards").mkdir(parents=True, exist_ok=True)
    if copy:
        (work / "images").mkdir(exist_ok=True)
    ordered = source.order(names)
    shards = [ordered[at : at + shard_size] for at in range(0, len(ordered), shard_size)]
    images = work / "images" if copy else None
    results: list[Path] = []

    def planned() -> Iterator[Shard]:
        for number, part in enumerate(shards):
            results.append(work / "shards" / f"{number:06d}-{_key(source, part, copy=copy)}.parquet")
            yield Shard(tuple(part), results[-1], images)

    if cluster:
        _scan_on_cluster(source, planned(), cluster, Count(progress, len(ordered)))
    elif (workers := _useful_workers(workers, len(shards))) > 1:
        _scan_in_pool(source, planned(), workers, Count(progress, len(ordered)))
    else:
        _scan_here(source, planned(), Count(progress, len(ordered)))
    return ScanTable(ordered, _read_results(work / "shards", results))


def _useful_workers(workers: int, num_shards: int) -> int:
    """Return how many workers to start: a process needs longer to start than a shard or two.

    >>> _useful_workers(8, 1), _useful_workers(8, 6), _useful_workers(2, 100)
    (0, 3, 2)
    """
    return min(workers or os.cpu_count() or 1, num_shards // 2)


@dataclass
class Count:
    """How many images are done.

    Attributes:
        progress: Is told.
        total: Of all images.
        done: So far.
    """

    progress: Progress
    total: int
    done: int = 0

    def add(self, shard: Shard) -> None:
        """Count a shard."""
        self.done += len(shard.names)
        self.progress(self.done, self.total)


def scan_shard(address: str, run: str, shard: Shard) -> None:
    """Scan one shard in any process; this is the task that every engine runs.

    Args:
        address: Of the source, such that it opens from any folder.
        run: Differs from call to call of `scan_source`: a worker that outlives one call lists the source again.
        shard: The task.
    """
    _scan_into(_opened(address, run), shard)


@lru_cache(maxsize=1)
def _opened(address: str, run: str) -> Source:  # noqa: ARG001 - part of the cache's key
    return open_source(address)


def _scan_into(source: Source, shard: Shard) -> None:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # the cores are taken by the other workers
    try:
        scans = [_scan_one(source, name, shard.images) for name in shard.names]
    finally:
        cv2.setNumThreads(threads)
    columns: dict[str, list[object]] = {
        name: [getattr(scan, name) for scan in scans] for name in SCANS_SCHEMA.names[1:]
    }
    columns["name"] = list(shard.names)
    columns["sha256"] = [bytes.fromhex(scan.sha256) for scan in scans]
    try:
        with replacing(shard.result) as temporary:
            pq.write_table(pa.table(columns, schema=SCANS_SCHEMA), temporary, compression="zstd")
    except OSError as error:
        raise _unwritable(shard.result, error) from error


def _scan_one(source: Source, name: str, images: Path | None) -> ImageScan:
    try:
        data = source.read(name)
    except OSError as error:
        if images is not None:
            (images / name).unlink(missing_ok=True)
        return unreadable_scan(b"", f"cannot be opened ({error.strerror or error})")
    if images is not None:
        _copy(data, images / name)
    return scan_bytes(data)


def _copy(data: bytes, path: Path) -> None:
    """Write a file that a kill may leave cut: then its shard is not done either."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> DatasetError:
    return DatasetError(f"{path}: cannot be written ({error.strerror or error}); make room and run it again")


def _key(source: Source, names: Sequence[str], *, copy: bool) -> str:
    """Return what a shard's result is made from: the code, the images and what happens with them."""
    digest = hashlib.sha256(f"{_code_version()} {copy}\n".encode())
    for name in names:
        try:
            stamp = source.stamp(name)
        except OSError as error:
            stamp = f"cannot be opened: {error.errno}"
        digest.update(f"{name}\0{stamp}\n".encode())
    return digest.hexdigest()[:24]


@lru_cache(maxsize=1)
def _code_version() -> str:
    code = b"".join(Path(str(module.__file__)).read_bytes() for module in (image_scan, image_damage))
    libraries = f"{cv2.__version__} {simplejpeg.__version__} {SCANS_SCHEMA}"
    return hashlib.sha256(code + libraries.encode()).hexdigest()


def _scan_here(source: Source, shards: Iterator[Shard], count: Count) -> None:
    for shard in shards:
        if not shard.is_done():
            _scan_into(source, shard)
        count.add(shard)


def _scan_in_pool(source: Source, shards: Iterator[Shard], workers: int, count: Count) -> None:
    # Not fork: a lock that one of this process's threads holds would stay locked in the child for ever.
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_end_with_parent)
    try:
        with _closing(pool):
            _scan_by(pool, source, shards, 2 * workers, count)
    except BrokenProcessPool as error:
        raise DatasetError(
            f"{source.address}: a worker of the scan was killed, perhaps for want of memory, with {count.done} of"
            f" {count.total} images done; run it again to go on from there, with a smaller scan.workers"
        ) from error


def _scan_on_cluster(source: Source, shards: Iterator[Shard], cluster: str, count: Count) -> None:
    try:
        distributed = importlib.import_module("distributed")
    except ImportError as error:
        hint = "install the package distributed, or empty scan.cluster"
        raise DatasetError(f"{cluster}: a Dask cluster needs Dask's own package; {hint}") from error
    try:
        client = distributed.Client(cluster, timeout=10, set_as_default=False)
    except (OSError, ValueError) as error:
        hint = "start one there, or correct scan.cluster"
        raise DatasetError(f"{cluster}: no Dask scheduler answers, expected one at tcp://host:port; {hint}") from error
    try:
        # Not pure: the task is its effect, whatever the scheduler remembers.
        with client, _closing(client.get_executor(pure=False)) as executor:
            in_flight = 2 * max(sum(client.nthreads().values()), 1)
            _scan_by(executor, source, shards, in_flight, count)
    except (distributed.KilledWorker, CancelledError) as error:
        raise DatasetError(
            f"{cluster}: the cluster gave up ({error or 'its scheduler is gone'}), with {count.done} of {count.total}"
            " images done; run it again to go on from there"
        ) from error


@contextmanager
def _closing(executor: Executor) -> Iterator[Executor]:
    """Shut an executor down; when something failed, without doing what is still waiting."""
    try:
        yield executor
    except BaseException:
        if isinstance(executor, ProcessPoolExecutor):
            executor.shutdown(wait=True, cancel_futures=True)
        else:
            executor.shutdown(wait=False)
        raise
    executor.shutdown()


def _scan_by(executor: Executor, source: Source, shards: Iterator[Shard], in_flight: int, count: Count) -> None:
    """Hand out the shards that are not done, a bounded number at a time."""
    address, run = _from_anywhere(source.address), uuid.uuid4().hex
    running: dict[Future[None], Shard] = {}

    def collect(at_most: int) -> None:
        while len(running) > at_most:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                shard = running.pop(future)
                future.result()
                count.add(shard)

    for shard in shards:
        if shard.is_done():
            count.add(shard)
        else:
            running[executor.submit(scan_shard, address, run, shard)] = shard
            collect(in_flight - 1)
    collect(0)


def _from_anywhere(address: str) -> str:
    """Return an address that opens the same from any folder.

    >>> _from_anywhere("s3://bucket/photos")
    's3://bucket/photos'
    """
    return address if "://" in address else str(Path.cwd() / address)


def _end_with_parent() -> None:
    """End this worker when the process that started it is gone: killed, it leaves its workers waiting for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends us

    def watch() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _read_results(folder: Path, results: Sequence[Path]) -> pa.Table:
    """Read the shards' files and remove those of other runs."""
    columns = SCANS_SCHEMA.names[1:]
    tables = [pq.read_table(path, columns=columns) for path in results]
    used = {path.name for path in results}
    for path in folder.iterdir():
        if path.is_dir():  # where a killed worker was writing
            shutil.rmtree(path)
        elif path.name not in used:
            path.unlink()
    empty = pa.table({name: [] for name in columns}, schema=pa.schema([SCANS_SCHEMA.field(name) for name in columns]))
    return pa.concat_tables([empty, *tables])
