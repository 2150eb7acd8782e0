"""Archives that are hostile or damaged: each bad entry is a finding, and the others stay readable."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import tarfile
import zipfile
from contextlib import suppress

import pytest
from hostile_archives import codes, pack_tar, pack_zip, tar_info, with_header
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plumbline.errors import DatasetError
from plumbline.faults import UNSAFE_MEMBER, UNSAFE_NAME
from plumbline.sources import names, open_source

LEAVING = ["../up.jpg", "a/../../up.jpg", "/rooted.jpg", "C:drive.jpg", "C:/drive.jpg", "back\\slash.jpg", "..\\up.jpg"]
UNSHOWN = ["bell\x07.jpg", "new\nline.jpg", "n" * 300 + ".jpg", "/".join(["deep"] * 300) + "/a.jpg", "bidi\u202e.jpg"]


@pytest.fixture(params=["zip", "tar", "tar.gz"])
def pack(request, tmp_path):
    """Return a function that packs {name: bytes} pairs and opens the archive."""

    def open_packed(entries):
        path = tmp_path / f"photos.{request.param}"
        if request.param == "zip":
            # zipfile itself would turn some names into others.
            infos = []
            for name, data in entries:
                infos.append((zipfile.ZipInfo("placeholder"), data))
                infos[-1][0].filename = name
            pack_zip(path, infos)
        else:
            pack_tar(path, [tar_info(name, data) for name, data in entries], f"w:{request.param[4:]}")
        return open_source(str(path))

    return open_packed


def test_names_that_leave_the_archive(pack):
    source = pack([("good.jpg", b"g"), *((name, b"x") for name in LEAVING), ("last.jpg", b"l")])
    assert list(source.files()) == ["good.jpg", "last.jpg"]
    assert source.read("last.jpg") == b"l"
    assert codes(source) == [UNSAFE_MEMBER] * len(LEAVING)
    for name, finding in zip(LEAVING, source.findings(), strict=True):
        assert finding.source_file == source.address
        assert ascii(name) in finding.message


def test_names_that_cannot_be_shown_or_stored(pack):
    source = pack([*((name, b"x") for name in UNSHOWN), ("good.jpg", b"g"), ("no break\u00a0space.jpg", b"n")])
    assert list(source.files()) == ["good.jpg", "no break\u00a0space.jpg"]
    assert codes(source) == [UNSAFE_NAME] * len(UNSHOWN)
    assert all(finding.message.isprintable() and len(finding.message) < 400 for finding in source.findings())


def test_the_same_name_twice_and_a_file_that_is_also_a_folder(pack):
    source = pack([("a.jpg", b"1"), ("./a.jpg", b"2"), ("b.jpg", b"b"), ("b.jpg/c.jpg", b"c"), ("x//y.jpg", b"y")])
    assert dict(source.files()) == {"a.jpg": 1, "b.jpg": 1, "x/y.jpg": 1}
    assert source.read("a.jpg") == b"2"
    assert codes(source) == [UNSAFE_MEMBER] * 2


def test_an_archive_within_is_not_opened(pack, tmp_path):
    inner = pack_zip(tmp_path / "inner.zip", [("../up.jpg", b"x")]).read_bytes()
    source = pack([("in.zip", inner), ("a.jpg", b"a")])
    assert list(source.files()) == ["a.jpg", "in.zip"]
    assert not source.findings()


def test_entries_larger_than_may_be(pack, monkeypatch):
    monkeypatch.setattr(names, "MAX_OTHER_BYTES", 1000)
    monkeypatch.setattr(names, "MAX_TEXT_BYTES", 2000)
    source = pack([("a.jpg", bytes(1001)), ("b.jpg", bytes(1000)), ("c.json", bytes(2000)), ("d.json", bytes(2001))])
    assert list(source.files()) == ["b.jpg", "c.json"]
    assert codes(source) == [UNSAFE_MEMBER] * 2


def test_nothing_is_written(pack, tmp_path):
    source = pack([("a.jpg", b"a"), ("../up.jpg", b"x")])
    before = sorted(tmp_path.rglob("*"))
    [source.read(name) for name in source.files()]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
@pytest.mark.parametrize(
    "data", [b"", b"PK", b"\x1f\x8b", bytes(10), random.Random(0).randbytes(2000), b"<html>" * 200]
)
def test_what_is_no_archive_is_refused(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DatasetError, match=f"{name}: no (zip|tar) archive") as caught:
        open_source(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def read_all(path):
    try:
        source = open_source(str(path))
    except DatasetError:
        return
    for finding in source.findings():
        assert finding.message.isprintable()
    for name in source.order(source.files()):
        assert names.is_plain(name)
        assert not names.escape_of(name)
        with suppress(OSError):
            assert len(source.read(name)) == source.files()[name]


SEEDS = {
    "zip": [("a.jpg", b"a" * 300), ("b/é.txt", b"b"), ("c.json", bytes(2000))],
    "tar": [("a.jpg", b"a" * 300), ("n" * 120 + ".txt", b"b"), ("c.json", bytes(2000))],
}


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeds")
    tar = pack_tar(folder / "a.tar", [tar_info(name, data) for name, data in SEEDS["tar"]]).read_bytes()
    gnu = pack_tar(folder / "a.tar", [tar_info(n, d) for n, d in SEEDS["tar"]], form=tarfile.GNU_FORMAT).read_bytes()
    return {
        "zip": [pack_zip(folder / "a.zip", SEEDS["zip"]).read_bytes(),
                pack_zip(folder / "a.zip", SEEDS["zip"], zipfile.ZIP_BZIP2).read_bytes()],
        "tar": [tar, gnu, gzip.compress(tar), bz2.compress(tar), lzma.compress(tar)],
    }  # fmt: skip


CHANGES = st.lists(st.tuples(st.integers(0, 1 << 16), st.binary(min_size=1, max_size=8)), min_size=1, max_size=6)
MANY = settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@MANY
@given(kind=st.sampled_from(["zip", "tar"]), which=st.integers(0, 9), changes=CHANGES, cut=st.integers(0, 200))
def test_mutated_archives_do_no_harm(tmp_path, seeds, kind, which, changes, cut):
    data = bytearray(seeds[kind][which % len(seeds[kind])])
    for where, new in changes:
        at = where % len(data)
        data[at : at + len(new)] = new
    path = tmp_path / f"a.{kind}"
    path.write_bytes(data[: len(data) - cut] if cut < 50 else data)
    read_all(path)
    assert {file.name for file in tmp_path.iterdir()} <= {"a.zip", "a.tar"}


BYTES = st.sampled_from([b"\0", b"\xff", b"7", b"x", b"L", b"S", b"-"])


@MANY
@given(changes=st.lists(st.tuples(st.integers(0, 2047), BYTES), min_size=1, max_size=5))
def test_tar_headers_with_a_right_checksum_do_no_harm(tmp_path, seeds, changes):
    data = bytearray(seeds["tar"][1])
    for at, new in changes:
        data[at] = new[0]
    for block in range(0, 2048, 512):
        data[block : block + 512] = with_header(data[block : block + 512])
    path = tmp_path / "a.tar"
    path.write_bytes(data)
    read_all(path)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300), name=st.sampled_from(["a.zip", "a.tar"]))
def test_arbitrary_bytes_do_no_harm(tmp_path, data, name):
    (tmp_path / name).write_bytes(data)
    read_all(tmp_path / name)
