"""Zip and tar archives as nobody should make them."""

from __future__ import annotations

import io
import struct
import tarfile
import warnings
import zipfile
import zlib


def pack_zip(path, entries, method=zipfile.ZIP_DEFLATED):
    """Write a zip of (name or ZipInfo, bytes) pairs."""
    with zipfile.ZipFile(path, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a name is there twice
        for name, data in entries:
            archive.writestr(name, data)
    return path


def tar_info(name, data=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def pack_tar(path, entries, mode="w", form=tarfile.PAX_FORMAT):
    """Write a tar of (TarInfo, bytes) pairs."""
    with tarfile.open(path, mode, format=form) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return path


def codes(source):
    return [finding.code for finding in source.findings()]


def with_header(block, **fields):
    """Return a tar header with fields replaced and its checksum made right."""
    block = bytearray(block)
    for field, value in fields.items():
        start, end = {"size": (124, 136), "kind": (156, 157)}[field]
        block[start:end] = value
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def overlapping_zip(path, copies):
    """Write one packed block and an index that names it many times (D. Fifield, "A better zip bomb", 2019)."""
    data = bytes(100_000)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(data) + packer.flush()
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 8, 0, 0, zlib.crc32(data), len(packed), len(data), 5, 0)
    block = local + b"a.jpg" + packed
    index = b""
    for k in range(copies):
        name = b"a.jpg" if k == 0 else b"%04d." % k
        index += struct.pack(
            "<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 8, 0, 0, zlib.crc32(data), len(packed), len(data), 5, 0, 0, 0, 0, 0, 0
        )
        index += name
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, copies, copies, len(index), len(block), 0)
    path.write_bytes(block + index + end)
    return data
