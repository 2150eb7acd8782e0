"""What every kind of source must do, on one tree of files."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import random
import tarfile
import zipfile
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from object_store import fill_bucket, object_store

from plumbline.sources import SOURCES, open_source

FILES = {
    "b.jpg": bytes(range(256)) * 40,
    "a.txt": b"a label\n",
    "deep/er/c.png": b"\x89PNG" + bytes(5000),
    "deep/empty.txt": b"",
    "Größe 1.jpg": b"not ASCII",
    "z" * 120 + "/" + "z" * 120 + "/long.json": b"{}",
    ".hidden.jpg": b"h",
    "__MACOSX/b.jpg": b"m",
}
SHOWN = {name: data for name, data in FILES.items() if not name.startswith((".", "__MACOSX"))}
KINDS = ("folder", "zip", "stored.zip", "tar", "tar.gz", "tar.bz2", "tar.xz", "gnu.tar", "s3", "video", "labelme")


def write_files(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def write_tar(path, mode, form, files):
    with tarfile.open(path, mode, format=form) as tar:
        folder = tarfile.TarInfo("deep")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def write_zip(path, files, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("deep/", b"")
        for name, data in files.items():
            archive.writestr(name, data)


def write_video(path, num_frames):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (64, 48))
    rng = np.random.default_rng(0)
    for _ in range(num_frames):
        writer.write(cv2.resize(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8), (64, 48)))
    writer.release()


def make(kind, folder, files):
    """Put the files into a new source and return its address."""
    folder.mkdir(parents=True)
    if kind == "s3":
        bucket = f"bucket-{folder.name}"
        fill_bucket(bucket, {f"top/{name}": data for name, data in files.items()})
        return f"s3://{bucket}/top"
    if kind in {"folder", "video", "labelme"}:
        write_files(folder, files)
        if kind == "labelme":
            return f"labelme://{folder}"
        if kind == "video":
            write_video(folder / "clip.avi", 40)
        return str(folder)
    path = folder / f"files.{kind}"
    if kind.endswith("zip"):
        write_zip(path, files, zipfile.ZIP_STORED if kind == "stored.zip" else zipfile.ZIP_DEFLATED)
    else:
        packing = kind.rpartition(".")[2]
        mode = "w" if packing == "tar" else f"w:{packing}"
        write_tar(path, mode, tarfile.GNU_FORMAT if kind == "gnu.tar" else tarfile.PAX_FORMAT, files)
    return str(path)


@pytest.fixture(scope="module")
def addresses(tmp_path_factory):
    root = tmp_path_factory.mktemp("sources")
    with object_store():
        yield {kind: make(kind, root / kind / "one", FILES) for kind in KINDS}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def source(addresses, kind):
    return open_source(addresses[kind])


def test_every_row_of_the_table_is_tested(addresses):
    modules = {type(open_source(address)).__module__ for address in addresses.values()}
    # The images within Labelme's files are opened by their own module, and read by the format's.
    own = {"plumbline.sources.embedded": "plumbline.formats.labelme_images"}
    assert modules == {own.get(module, module) for module in SOURCES.values()}


def test_files_are_sorted_and_complete(source, kind):
    files = source.files()
    assert list(files) == sorted(files)
    frames = {name for name in files if name.startswith("clip/frame_")}
    assert set(files) - frames == set(SHOWN)
    assert len(frames) == (4 if kind == "video" else 0)
    assert {name: files[name] for name in SHOWN} == {name: len(data) for name, data in SHOWN.items()}
    assert not source.findings()


def test_read_gives_the_bytes_in_any_order_and_from_threads(source):
    names = list(source.files()) * 3
    random.Random(0).shuffle(names)
    alone = {name: source.read(name) for name in source.files()}
    assert {name: alone[name] for name in SHOWN} == SHOWN
    with ThreadPoolExecutor(8) as pool:
        for name, data in zip(names, pool.map(source.read, names), strict=True):
            assert data == alone[name]


def test_order_is_a_permutation(source):
    names = list(source.files())
    assert sorted(source.order(names)) == names
    assert sorted(source.order(reversed(names))) == names
    assert source.order(names) == source.order(reversed(names))
    assert sorted(source.order([*names[2:4], "unheard of"])) == sorted([*names[2:4], "unheard of"])


def test_where_names_the_file_below_the_address(source, addresses, kind):
    for name in SHOWN:
        assert source.where(name) == f"{addresses[kind].removeprefix('labelme://')}/{name}"
    assert len({source.where(name) for name in source.files()}) == len(source.files())


def test_stamps_are_stable_and_change_with_the_content(source, addresses, kind, tmp_path_factory):
    again = open_source(addresses[kind])
    assert [source.stamp(name) for name in source.files()] == [again.stamp(name) for name in again.files()]
    assert all(source.stamp(name).isprintable() for name in source.files())
    changed = open_source(make(kind, tmp_path_factory.mktemp("changed") / kind.replace(".", "-"), {"b.jpg": b"other"}))
    assert changed.stamp("b.jpg") != source.stamp("b.jpg")


def test_only_its_own_files_can_be_read(source):
    for name in ("absent.jpg", "../one/a.txt", "/etc/passwd", "deep", "", ".hidden.jpg", "clip/frame_000001.png"):
        assert name not in source.files()
        for ask in (source.read, source.stamp):
            with pytest.raises(OSError, match="no such"):
                ask(name)


def test_groups_are_the_videos(source):
    groups = {source.group(name) for name in source.files() if name.startswith("clip/")}
    assert groups <= {"clip.avi"}
    assert {source.group(name) for name in SHOWN} == {""}


def digests(addresses):
    """Return the sha256 of every file of every source; runs in a process of its own, too."""
    sources = [open_source(address) for address in addresses]
    return {
        source.address: {name: hashlib.sha256(source.read(name)).hexdigest() for name in source.order(source.files())}
        for source in sources
    }


def test_another_process_reads_the_same_by_the_address(addresses):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        there = pool.submit(digests, list(addresses.values()))
        here = digests(addresses.values())
        assert list(here) == list(addresses.values())
        assert there.result() == here
