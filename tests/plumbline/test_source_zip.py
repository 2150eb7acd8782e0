"""Zip archives that are hostile, damaged or unusual."""

from __future__ import annotations

import random
import stat
import struct
import tracemalloc
import zipfile

import pytest
from hostile_archives import codes, overlapping_zip, pack_zip

from plumbline.errors import DatasetError
from plumbline.faults import UNSAFE_MEMBER, UNSAFE_NAME
from plumbline.sources import bombs, open_source


def test_zip_links_devices_encrypted_and_unknown_packing(tmp_path):
    link, pipe = zipfile.ZipInfo("link.jpg"), zipfile.ZipInfo("pipe.jpg")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    pipe.external_attr = (stat.S_IFIFO | 0o777) << 16
    path = pack_zip(tmp_path / "a.zip", [(link, b"/etc/passwd"), (pipe, b""), ("good.jpg", b"g")])
    source = open_source(str(path))
    assert list(source.files()) == ["good.jpg"]
    assert "link" in source.findings()[0].message
    assert "pipe" in source.findings()[1].message

    data = bytearray(pack_zip(path, [("secret.jpg", b"s"), ("odd.jpg", b"o"), ("good.jpg", b"g")]).read_bytes())
    first = data.index(b"PK\1\2")
    second = data.index(b"PK\1\2", first + 4)
    struct.pack_into("<H", data, first + 8, 1)
    struct.pack_into("<H", data, second + 10, 14)
    path.write_bytes(data)
    source = open_source(str(path))
    assert list(source.files()) == ["good.jpg"]
    assert [("encrypted" in f.message, "method 14" in f.message) for f in source.findings()] == [(0, 1), (1, 0)]


@pytest.mark.parametrize("is_flagged", [True, False])
def test_zip_names_that_are_not_utf8(tmp_path, is_flagged):
    path = pack_zip(tmp_path / "a.zip", [("é.jpg", b"e"), ("good.jpg", b"g")])
    data = bytearray(path.read_bytes().replace("é".encode(), b"\xe9\xff"))
    if not is_flagged:
        struct.pack_into("<H", data, data.index(b"PK\1\2") + 8, 0)
    path.write_bytes(data)
    source = open_source(str(path))
    assert list(source.files()) == ["good.jpg"]
    assert codes(source) == [UNSAFE_NAME]
    assert "\\xe9\\xff.jpg" in source.findings()[0].message


def test_zip_names_that_are_utf8_without_saying_so_as_macos_writes_them(tmp_path):
    path = pack_zip(tmp_path / "a.zip", [("é.jpg", b"e")])
    path.write_bytes(path.read_bytes().replace(struct.pack("<2H", 0x800, 8), struct.pack("<2H", 0, 8)))
    source = open_source(str(path))
    assert source.read("é.jpg") == b"e"


def test_zip_a_wrong_checksum_or_size_is_an_oserror(tmp_path):
    content = random.Random(0).randbytes(400)
    path = pack_zip(tmp_path / "a.zip", [("a.jpg", content), ("b.jpg", b"b")], zipfile.ZIP_STORED)
    good = path.read_bytes()
    path.write_bytes(good.replace(content, content[:-1] + bytes([content[-1] ^ 1])))
    with pytest.raises(OSError, match="checksum"):
        open_source(str(path)).read("a.jpg")
    assert open_source(str(path)).read("b.jpg") == b"b"

    data = bytearray(pack_zip(path, [("a.jpg", bytes(5000)), ("b.jpg", b"b")]).read_bytes())
    for declared, text in ((4999, "more than"), (5001, "cut short")):
        struct.pack_into("<I", data, data.index(b"PK\1\2") + 24, declared)
        path.write_bytes(data)
        with pytest.raises(OSError, match=text):
            open_source(str(path)).read("a.jpg")
    data[data.index(b"a.jpg")] = ord("c")
    path.write_bytes(data)
    with pytest.raises(OSError, match="disagree"):
        open_source(str(path)).read("a.jpg")
    data[:4] = b"none"
    path.write_bytes(data)
    with pytest.raises(OSError, match="no entry"):
        open_source(str(path)).read("a.jpg")


def test_zip_an_entry_that_unpacks_to_more_than_it_says_is_not_unpacked_to_the_end(tmp_path):
    path = pack_zip(tmp_path / "a.zip", [("a.jpg", bytes(50_000_000))])
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"PK\1\2") + 24, 1000)
    path.write_bytes(data)
    source = open_source(str(path))
    tracemalloc.start()
    with pytest.raises(OSError, match="more than the 1000 bytes"):
        source.read("a.jpg")
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_zip_entries_that_lie_over_each_other(tmp_path):
    data = overlapping_zip(tmp_path / "bomb.zip", 500)
    source = open_source(str(tmp_path / "bomb.zip"))
    assert dict(source.files()) == {"a.jpg": len(data)}
    assert source.read("a.jpg") == data
    assert codes(source) == [UNSAFE_MEMBER] * 499


def test_zip_an_entry_beyond_the_end(tmp_path):
    path = pack_zip(tmp_path / "a.zip", [("a.jpg", b"a"), ("b.jpg", b"b")])
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"PK\1\2") + 42, 0xFFFFFFF0)
    path.write_bytes(data)
    source = open_source(str(path))
    assert list(source.files()) == ["b.jpg"]
    assert codes(source) == [UNSAFE_MEMBER]


def test_zip_bombs(tmp_path, monkeypatch):
    path = pack_zip(tmp_path / "a.zip", [("a.bmp", bytes(3_000_000)), ("b.bmp", bytes(900_000)), ("c.jpg", b"c")])
    monkeypatch.setattr(bombs, "ENTRY_BYTES", 1_000_000)
    source = open_source(str(path))
    assert list(source.files()) == ["b.bmp", "c.jpg"]
    assert "at most 200 times" in source.findings()[0].message
    monkeypatch.setattr(bombs, "TOTAL_BYTES", 800_000)
    with pytest.raises(DatasetError, match="this is no data set"):
        open_source(str(path))


def test_zip_behind_a_program_with_a_comment_and_with_64_bit_fields(tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(b"#!/bin/sh\nexit\n")
    with zipfile.ZipFile(path, "a") as archive:
        with archive.open(zipfile.ZipInfo("a.jpg"), "w", force_zip64=True) as file:
            file.write(b"a" * 1000)
        archive.comment = b"PK\5\6 is not the end"
    assert open_source(str(path)).read("a.jpg") == b"a" * 1000
    # As `cat program archive > both` leaves it: all places in the archive are off.
    path.write_bytes(b"#!/bin/sh\nexit\n" + path.read_bytes())
    assert open_source(str(path)).read("a.jpg") == b"a" * 1000

    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        # zipfile writes 64-bit fields from these on.
        patch.setattr(zipfile, "ZIP64_LIMIT", 10)
        patch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
        pack_zip(path, [("a.jpg", bytes(100)), ("b.jpg", b"b" * 50)], zipfile.ZIP_STORED)
    assert b"PK\6\6" in path.read_bytes()
    path.write_bytes(b"#!/bin/sh\nexit\n" + path.read_bytes())
    source = open_source(str(path))
    assert source.read("b.jpg") == b"b" * 50
    assert not source.findings()


def test_zip_cut_short_is_refused(tmp_path):
    path = pack_zip(tmp_path / "a.zip", [("a.jpg", random.Random(0).randbytes(1000)), ("b.jpg", b"b")])
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DatasetError, match="cut short"):
        open_source(str(path))
