"""The sharded scan: one result from every engine, nothing done twice after a kill, one clear error when it breaks."""

from __future__ import annotations

import io
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from plumbline import scan_shards
from plumbline.errors import DatasetError
from plumbline.image_scan import scan_image
from plumbline.scan_shards import ScanTable, scan_source
from plumbline.sources import open_source

NUM_IMAGES = 30


def write_images(folder: Path, count: int, side: int = 64) -> None:
    rng = np.random.default_rng(0)
    for index in range(count):
        image = rng.integers(0, 255, (side, side + index % 7, 3), dtype=np.uint8)
        path = folder / f"part{index % 3}" / f"{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image)


@pytest.fixture(scope="module")
def photos_folder(tmp_path_factory) -> Path:
    """A folder of small images in three folders, with one cut short, one that is no image and an empty one."""
    folder = tmp_path_factory.mktemp("photos")
    write_images(folder, NUM_IMAGES)
    cut = folder / "part0" / "0003.png"
    cut.write_bytes(cut.read_bytes()[:500])
    (folder / "part1" / "0004.png").write_text("no image")
    (folder / "part2" / "0005.png").write_bytes(b"")
    return folder


def silent(done: int, total: int) -> None:
    pass


def scan(source, work: Path, *, shard_size=4, workers=1, cluster="", copy=True, progress=silent):
    names = [name for name in source.files() if name.endswith(".png")]
    options = {"shard_size": shard_size, "workers": workers, "cluster": cluster, "copy": copy, "progress": progress}
    return scan_source(source, names, work, **options)


def result_files(work: Path) -> dict[str, tuple[int, int]]:
    """Return name -> (inode, time) of the finished shards: what is done again is another file."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (work / "shards").glob("*.parquet")}


@pytest.fixture(scope="module")
def expected(photos_folder) -> dict[str, object]:
    return {
        path.relative_to(photos_folder).as_posix(): scan_image(path) for path in sorted(photos_folder.rglob("*.png"))
    }


def check_copies(photos_folder: Path, work: Path) -> None:
    copies = sorted(path for path in (work / "images").rglob("*") if path.is_file())
    assert len(copies) == NUM_IMAGES
    for path in copies:
        assert path.read_bytes() == (photos_folder / path.relative_to(work / "images")).read_bytes()


def test_every_image_is_scanned_and_copied_and_faults_are_results(photos_folder, tmp_path, expected):
    told = []
    scans = scan(open_source(str(photos_folder)), tmp_path, progress=lambda *counts: told.append(counts))
    assert list(scans) == sorted(expected)
    assert dict(scans) == expected
    assert [name for name in scans if not scans[name].readable] == [
        "part0/0003.png",
        "part1/0004.png",
        "part2/0005.png",
    ]
    assert scans["part0/0003.png"].damaged
    check_copies(photos_folder, tmp_path)
    assert told == [*((done, NUM_IMAGES) for done in range(4, NUM_IMAGES, 4)), (NUM_IMAGES, NUM_IMAGES)]


def test_the_table_is_a_mapping(photos_folder, tmp_path, expected):
    scans = scan(open_source(str(photos_folder)), tmp_path)
    assert isinstance(scans, ScanTable)
    assert len(scans) == NUM_IMAGES
    assert "part0/0000.png" in scans
    assert "part0/0001.png" not in scans
    assert scans == expected
    with pytest.raises(KeyError):
        scans["zzz"]


@pytest.mark.parametrize("shard_size", [1, 7, 500])
def test_the_size_of_a_shard_does_not_matter(photos_folder, tmp_path, expected, shard_size):
    assert scan(open_source(str(photos_folder)), tmp_path, shard_size=shard_size) == expected


def test_a_pool_gives_the_same(photos_folder, tmp_path, expected, monkeypatch):
    monkeypatch.chdir(photos_folder.parent)  # a relative address opens in the workers too
    assert scan(open_source(photos_folder.name), tmp_path, workers=2) == expected
    check_copies(photos_folder, tmp_path)


def test_a_dask_cluster_gives_the_same(photos_folder, tmp_path, expected, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.chdir(photos_folder.parent)
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        local_directory=str(tmp_path / "dask"),
    ) as cluster:
        work = tmp_path / "work"
        told = []
        address = cluster.scheduler_address
        got = scan(open_source(photos_folder.name), work, cluster=address, progress=lambda *counts: told.append(counts))
        assert got == expected
        check_copies(photos_folder, work)
        assert told[-1] == (NUM_IMAGES, NUM_IMAGES)
        # A worker that lives on sees what is new in the source.
        (photos_folder / "new.png").write_bytes((photos_folder / "part0" / "0000.png").read_bytes())
        try:
            again = scan(open_source(str(photos_folder)), work, cluster=address)
        finally:
            (photos_folder / "new.png").unlink()
        assert again["new.png"] == expected["part0/0000.png"]


def test_no_scheduler_is_one_clear_error(photos_folder, tmp_path):
    pytest.importorskip("distributed")
    with pytest.raises(DatasetError, match="no address of a scheduler: no Dask scheduler answers"):
        scan(open_source(str(photos_folder)), tmp_path, cluster="no address of a scheduler")


@pytest.mark.parametrize("workers", [1, 2])
def test_an_archive_that_is_read_forward_gives_the_same(photos_folder, tmp_path, expected, workers):
    path = tmp_path / "photos.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        # Another order than that of the names.
        for name in sorted(expected, key=lambda name: name[::-1]):
            info = tarfile.TarInfo(name)
            data = (photos_folder / name).read_bytes()
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    assert scan(open_source(str(path)), tmp_path / "work", workers=workers) == expected


def test_only_shards_whose_images_changed_are_done_again(photos_folder, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(photos_folder, folder)
    scan(open_source(str(folder)), tmp_path / "work")
    before = result_files(tmp_path / "work")
    scan(open_source(str(folder)), tmp_path / "work")
    assert result_files(tmp_path / "work") == before
    changed = folder / "part1" / "0004.png"
    changed.write_bytes((folder / "part1" / "0001.png").read_bytes())
    got = scan(open_source(str(folder)), tmp_path / "work")
    after = result_files(tmp_path / "work")
    assert got["part1/0004.png"] == got["part1/0001.png"]
    assert len(after) == len(before) == 8
    assert len(set(after.items()) - set(before.items())) == 1
    assert (tmp_path / "work" / "images" / "part1" / "0004.png").read_bytes() == changed.read_bytes()


def test_other_code_scans_again(photos_folder, tmp_path, monkeypatch):
    scan(open_source(str(photos_folder)), tmp_path)
    before = result_files(tmp_path)
    monkeypatch.setattr(scan_shards, "_code_version", lambda: "another")
    scan(open_source(str(photos_folder)), tmp_path)
    assert not set(before) & set(result_files(tmp_path))


@pytest.mark.parametrize("harm", ["copy lost", "result cut"])
def test_what_was_lost_since_is_made_again(photos_folder, tmp_path, expected, harm):
    scan(open_source(str(photos_folder)), tmp_path)
    if harm == "copy lost":
        (tmp_path / "images" / "part2" / "0008.png").unlink()
    else:
        path = sorted((tmp_path / "shards").glob("*.parquet"))[2]
        path.write_bytes(path.read_bytes()[:100])
    assert scan(open_source(str(photos_folder)), tmp_path) == expected
    check_copies(photos_folder, tmp_path)


def test_a_file_that_cannot_be_opened_is_a_scan_with_its_reason(photos_folder, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(photos_folder, folder)
    source = open_source(str(folder))
    (folder / "part0" / "0006.png").unlink()
    got = scan(source, tmp_path / "work")["part0/0006.png"]
    assert (got.readable, got.damaged, got.problem) == (False, False, "cannot be opened (No such file or directory)")
    assert not (tmp_path / "work" / "images" / "part0" / "0006.png").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_copy_that_cannot_be_written_stops_with_its_path(photos_folder, tmp_path, workers):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "part1").write_text("in the way")
    with pytest.raises(DatasetError, match=r"images/part1/\d+.png: cannot be written"):
        scan(open_source(str(photos_folder)), tmp_path, workers=workers)


def test_no_images_are_no_scans(tmp_path):
    (tmp_path / "empty").mkdir()
    assert dict(scan(open_source(str(tmp_path / "empty")), tmp_path / "work")) == {}


def test_without_copies_nothing_is_copied(photos_folder, tmp_path, expected):
    assert scan(open_source(str(photos_folder)), tmp_path, copy=False) == expected
    assert not (tmp_path / "images").exists()


# What is killed, at its own sixth shard; the guard is for its workers, which import it too.
SCAN_SCRIPT = """
import os, signal, sys
from pathlib import Path
from plumbline.scan_shards import scan_source
from plumbline.sources import open_source

def progress(done, total):
    if done >= 24:
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    source = open_source(sys.argv[1])
    scan_source(source, list(source.files()), Path(sys.argv[2]), shard_size=4, workers=int(sys.argv[3]), cluster="",
                copy=True, progress=progress)
"""


def live_processes_with(text: str) -> list[int]:
    """Return the processes whose command line or environment names something, by Linux' /proc."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and text.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux' /proc")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_scan_goes_on_without_doing_finished_shards_again(tmp_path, workers):
    folder, work = tmp_path / "photos", tmp_path / "work"
    write_images(folder, 160)
    script = tmp_path / "scan.py"
    script.write_text(SCAN_SCRIPT)
    mark = f"killed-{tmp_path.name}-{workers}"
    environment = {**os.environ, "PLUMBLINE_TEST_MARK": mark}
    process = subprocess.run([sys.executable, script, folder, work, str(workers)], env=environment)
    assert process.returncode == -signal.SIGKILL
    patience = time.monotonic() + 60
    # The workers end with the process that started them.
    while live_processes_with(mark):
        assert time.monotonic() < patience
        time.sleep(0.02)
    finished = result_files(work)
    assert 6 <= len(finished) < 40
    source = open_source(str(folder))
    scans = scan(source, work)
    after = result_files(work)
    assert len(after) == 40
    assert all(after[name] == finished[name] for name in finished)
    assert scans == scan(source, tmp_path / "fresh")
    assert all(path.name.endswith(".parquet") for path in (work / "shards").iterdir())


def test_a_killed_worker_is_one_error_that_says_to_go_on(photos_folder, tmp_path, expected):
    def kill(done: int, total: int) -> None:
        for child in multiprocessing.active_children():
            child.kill()

    with pytest.raises(DatasetError, match=r"of 30 images done; run it again to go on from there"):
        scan(open_source(str(photos_folder)), tmp_path, shard_size=1, workers=2, progress=kill)
    finished = result_files(tmp_path)
    assert finished
    assert scan(open_source(str(photos_folder)), tmp_path, shard_size=1) == expected
    after = result_files(tmp_path)
    assert all(after[name] == finished[name] for name in finished)
