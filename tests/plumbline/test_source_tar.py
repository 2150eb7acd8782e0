"""Tar archives that are hostile, damaged or unusual."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import tarfile

import pytest
from hostile_archives import codes, pack_tar, tar_info, with_header

from plumbline.errors import DatasetError
from plumbline.faults import UNSAFE_MEMBER, UNSAFE_NAME
from plumbline.sources import bombs, open_source, tar_archive


def test_tar_links_devices_and_other_kinds(tmp_path):
    kinds = {"sym": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "char": tarfile.CHRTYPE, "block": tarfile.BLKTYPE,
             "pipe": tarfile.FIFOTYPE, "what": b"Q"}  # fmt: skip
    odd = [tar_info(f"{name}.jpg", type=kind, linkname="good.jpg") for name, kind in kinds.items()]
    holes = tar_info("holes.jpg", b"x", pax_headers={"GNU.sparse.major": "1"})
    contiguous = tar_info("contiguous.jpg", b"c", type=tarfile.CONTTYPE)
    path = pack_tar(tmp_path / "a.tar", [*odd, holes, contiguous, tar_info("good.jpg", b"g")])
    source = open_source(str(path))
    assert {name: source.read(name) for name in source.files()} == {"contiguous.jpg": b"c", "good.jpg": b"g"}
    assert codes(source) == [UNSAFE_MEMBER] * 7


def test_tar_a_file_below_a_link(tmp_path):
    """What a careless reader would write through the link."""
    link = tar_info("out", type=tarfile.SYMTYPE, linkname="/etc")
    source = open_source(str(pack_tar(tmp_path / "a.tar", [link, tar_info("out/passwd", b"x")])))
    assert not source.files()
    assert codes(source) == [UNSAFE_MEMBER] * 2


def test_tar_names_that_are_not_utf8(tmp_path):
    for form in (tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT):
        infos = [tar_info("caf\udce9.jpg", b"x"), tar_info("good.jpg", b"g")]
        source = open_source(str(pack_tar(tmp_path / "a.tar", infos, form=form)))
        assert list(source.files()) == ["good.jpg"]
        assert codes(source) == [UNSAFE_NAME]


def test_tar_every_way_to_write_a_long_name_and_a_number(tmp_path):
    long = "/".join(["folder" * 5] * 6) + "/é.jpg"
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT):
        infos = [tar_info(long, b"l"), tar_info("b.jpg", b"b", uid=2**40 if form != tarfile.USTAR_FORMAT else 1)]
        source = open_source(str(pack_tar(tmp_path / "a.tar", infos, form=form)))
        assert {name: source.read(name) for name in source.files()} == {long: b"l", "b.jpg": b"b"}


@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
@pytest.mark.parametrize(
    ("size", "text"),
    [
        (b"00000002000\0", "checksum|number|ends too early"),  # swallows the next entries
        (b"77777777777\0", "ends too early"),
        (b"\x80" + b"\xff" * 11, "this is no data set|ends too early"),
        (b"\xff" * 12, "no number"),  # -1: tarfile goes round for ever (CVE-2025-8194)
        (b"-0000000001\0", "no number"),
        (b"00000000000\0", "checksum|number"),  # its content is taken for a header
    ],
)
def test_tar_headers_that_lie_about_the_size(tmp_path, suffix, size, text):
    path = pack_tar(tmp_path / "a.tar", [tar_info(f"{k}.jpg", b"x" * 100) for k in range(3)])
    data = path.read_bytes()
    data = with_header(data[:512], size=size) + data[512:]
    path = tmp_path / f"lie.{suffix}"
    path.write_bytes(gzip.compress(data) if suffix == "tar.gz" else data)
    with pytest.raises(DatasetError, match=text):
        open_source(str(path))


def test_tar_a_damaged_header_in_the_middle_does_not_end_it_in_silence(tmp_path):
    path = pack_tar(tmp_path / "a.tar", [tar_info(f"{k}.jpg", b"x" * 100) for k in range(3)])
    data = bytearray(path.read_bytes())
    data[1024 + 3] ^= 1
    path.write_bytes(data)
    with tarfile.open(path) as lenient:
        assert lenient.getnames() == ["0.jpg"]
    with pytest.raises(DatasetError, match=r"damaged after '0\.jpg'.*wrong checksum"):
        open_source(str(path))


@pytest.mark.parametrize("packing", ["", "gz", "bz2", "xz"])
def test_tar_cut_short_is_refused_or_told(tmp_path, packing):
    path = tmp_path / f"a.tar{'.' + packing if packing else ''}"
    pack_tar(path, [tar_info(f"{k}.jpg", random.Random(0).randbytes(3000)) for k in range(5)], f"w:{packing}")
    whole = path.read_bytes()
    for share in (0.3, 0.5, 0.9):
        path.write_bytes(whole[: int(len(whole) * share)])
        if not packing and share == 0.9:  # only blocks of the end mark are gone
            continue
        with pytest.raises(DatasetError, match=r"cut short or damaged (after '|at its beginning)"):
            open_source(str(path))
    if packing:
        # All entries are there, the checksum of the whole is not.
        path.write_bytes(whole[:-2])
        with pytest.raises(DatasetError, match="cut short"):
            open_source(str(path))


def test_tar_without_an_end_mark_or_with_more_behind_it_is_told(tmp_path):
    path = pack_tar(tmp_path / "a.tar", [tar_info("a.jpg", b"a")])
    data = path.read_bytes()
    path.write_bytes(data[:1024])
    source = open_source(str(path))
    assert source.read("a.jpg") == b"a"
    assert "no end mark" in source.findings()[0].message
    path.write_bytes(data[:513])
    assert "no end mark" in open_source(str(path)).findings()[0].message
    for packed in (data + data, gzip.compress(data) + gzip.compress(data)):
        path.write_bytes(packed)
        source = open_source(str(path))
        assert codes(source) == [UNSAFE_MEMBER]
        assert "two archives" in source.findings()[0].message


def test_tar_names_and_pax_records_out_of_measure(tmp_path):
    good = pack_tar(tmp_path / "good.tar", [tar_info("a.jpg", b"a")]).read_bytes()
    path = tmp_path / "a.tar.gz"
    for kind in (b"L", b"x", b"g"):
        size = 3 << 20
        header = with_header(good[:512], kind=kind, size=b"%011o\0" % size)
        path.write_bytes(gzip.compress(header + b"9" * size + good, 1))
        with pytest.raises(DatasetError, match="a name or other word of"):
            open_source(str(path))
    for record in (
        b"9" * 500_000,
        b"0 a=b\n",
        b"12 a=b\n",
        b"99999999999999999999 a=b\n",
        b"7 size=-1\n",
        b"10 size=x\n",
    ):
        header = with_header(good[:512], kind=b"x", size=b"%011o\0" % len(record))
        path.write_bytes(gzip.compress(header + record + bytes(-len(record) % 512) + good, 1))
        with pytest.raises(DatasetError, match=r"pax|number"):
            open_source(str(path))


def test_tar_endless_headers_of_headers_end(tmp_path):
    good = pack_tar(tmp_path / "good.tar", [tar_info("a.jpg", b"a")]).read_bytes()
    header = with_header(good[:512], kind=b"L", size=b"%011o\0" % 6) + b"b.jpg".ljust(512, b"\0")
    path = tmp_path / "a.tar"
    path.write_bytes(header * 5000 + good)
    assert list(open_source(str(path)).files()) == ["b.jpg"]


def test_tar_bombs(tmp_path, monkeypatch):
    monkeypatch.setattr(bombs, "TOTAL_BYTES", 2_000_000)
    path = tmp_path / "a.tar.gz"
    pack_tar(path, [tar_info(f"{k}.bmp", bytes(500_000)) for k in range(6)], "w:gz")
    with pytest.raises(DatasetError, match="this is no data set"):
        open_source(str(path))
    good = pack_tar(tmp_path / "good.tar", [tar_info("a.jpg", b"a")]).read_bytes()
    path.write_bytes(gzip.compress(good + bytes(3_000_000)))  # behind the end mark
    with pytest.raises(DatasetError, match="this is no data set"):
        open_source(str(path))


def test_tar_by_what_it_holds_not_by_its_name(tmp_path):
    data = pack_tar(tmp_path / "a.tar", [tar_info("PK.jpg", b"a")]).read_bytes()
    for packed in (data, gzip.compress(data), bz2.compress(data), lzma.compress(data)):
        for name in ("b.tar", "b.tgz", "b.TAR.XZ"):
            (tmp_path / name).write_bytes(packed)
            assert open_source(str(tmp_path / name)).read("PK.jpg") == b"a"


class CountingStream(tar_archive._Stream):
    opened = 0

    def __init__(self, path):
        super().__init__(path)
        CountingStream.opened += 1


def test_tar_compressed_is_unpacked_once_in_order_and_labels_are_kept(tmp_path, monkeypatch):
    entries = [tar_info(f"{k}.{'txt' if k % 2 else 'jpg'}", str(k).encode() * 5) for k in range(40)]
    path = pack_tar(tmp_path / "a.tar.gz", entries, "w:gz")
    monkeypatch.setattr(tar_archive, "_Stream", CountingStream)
    CountingStream.opened = 0
    source = open_source(str(path))
    images = source.order(name for name in source.files() if name.endswith("jpg"))
    assert images == [f"{k}.jpg" for k in range(0, 40, 2)]
    for name in sorted(source.files(), reverse=True):
        assert name.endswith("jpg") or source.read(name)
    assert CountingStream.opened == 1  # the index
    assert [source.read(name) for name in images] == [str(k).encode() * 5 for k in range(0, 40, 2)]
    assert CountingStream.opened == 2
    # Nearly in order, as threads read: no more than the few readers that stay behind.
    again = open_source(str(path))
    swapped = [images[k ^ 1] for k in range(len(images))]
    assert [again.read(name) for name in swapped] == [data * 5 for data in (n[:-4].encode() for n in swapped)]
    assert CountingStream.opened <= 2 + 1 + 3


def test_tar_labels_beyond_the_bound_are_still_read(tmp_path, monkeypatch):
    monkeypatch.setattr(tar_archive, "KEPT_TOTAL_BYTES", 30)
    path = pack_tar(tmp_path / "a.tar.gz", [tar_info(f"{k}.txt", bytes([k]) * 10) for k in range(9)], "w:gz")
    source = open_source(str(path))
    for k in reversed(range(9)):
        assert source.read(f"{k}.txt") == bytes([k]) * 10
