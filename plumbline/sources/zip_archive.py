"""The entries of a zip archive, read at their place in the file.

Not `zipfile`: one name that is not the UTF-8 it says, or one odd extra field, makes it refuse the whole archive, and
before Python 3.11.8 it does not notice entries that lie over each other (the bombs that pack best).

Source: PKWARE, APPNOTE.TXT 6.3.10, sections 4.3 to 4.5.
"""

from __future__ import annotations

import bz2
import stat
import struct
import threading
import weakref
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from plumbline.errors import DatasetError
from plumbline.sources.bombs import refuse_bomb, too_large

_END = struct.Struct("<4s4H2IH")
_END64_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ2H2I4Q")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
_ENCRYPTED = 0x0001 | 0x0040 | 0x2000
_STORED, _DEFLATED, _BZIP2 = 0, 8, 12
_ZIP64_EXTRA = 1
_MAX_COMMENT = 0xFFFF
_PLAIN_KINDS = {0, stat.S_IFREG, stat.S_IFDIR}


@dataclass(frozen=True, slots=True)
class ZipEntry:
    """One entry, as the archive's index says.

    Attributes:
        name: Bytes that are not UTF-8 are surrogates.
        size: Bytes when it is unpacked.
        problem: Why it is not read, and what was expected; "" when it is.
        offset: Where its own header begins in the file.
        packed: Bytes in the file.
        crc: CRC-32 of the unpacked bytes.
        method: How it is packed.
        raw_name: The name's bytes.
    """

    name: str
    size: int
    problem: str
    offset: int
    packed: int
    crc: int
    method: int
    raw_name: bytes

    @property
    def stamp(self) -> str:
        """Return what changes with the content."""
        return f"{self.crc:08x}:{self.size}"


class ZipArchive:
    """An open zip archive; threads may read from it."""

    def __init__(self, path: Path) -> None:
        """Read the index.

        Raises:
            DatasetError: It is no zip archive, its end is missing, or it is a bomb.
            OSError: It cannot be opened.
        """
        self._file: BinaryIO = path.open("rb")
        weakref.finalize(self, self._file.close)
        self._lock = threading.Lock()
        try:
            index, index_at, before = _read_index(self._file)
            entries = list(_parse_index(index, before))
        except (struct.error, ValueError) as error:
            raise DatasetError(
                f"{path}: no zip archive, or cut short or damaged ({error}), expected a whole one; fetch or make it"
                " again"
            ) from error
        self.entries: Sequence[ZipEntry] = _without_overlaps(entries, index_at)
        self.warnings: Sequence[str] = ()
        refuse_bomb(path, sum(entry.size for entry in self.entries if not entry.problem))

    def read(self, number: int) -> bytes:
        """Return the unpacked bytes of one entry, by its place in `entries`.

        Raises:
            OSError: They are not what the index says.
        """
        entry = self.entries[number]
        header = self._read_at(entry.offset, _LOCAL.size)
        if len(header) < _LOCAL.size or not header.startswith(b"PK\3\4"):
            raise OSError("the archive is damaged: there is no entry where its index says; fetch or make it again")
        name_size, extra_size = _LOCAL.unpack(header)[-2:]
        rest = self._read_at(entry.offset + _LOCAL.size, name_size + extra_size + entry.packed)
        packed = rest[name_size + extra_size :]
        if rest[:name_size] != entry.raw_name or len(packed) != entry.packed:
            raise OSError("the archive is damaged: its index and the entry disagree; fetch or make it again")
        data = _unpack(packed, entry)
        if zlib.crc32(data) != entry.crc:
            raise OSError("the entry is damaged: it has a wrong checksum; fetch or make the archive again")
        return data

    def _read_at(self, offset: int, size: int) -> bytes:
        with self._lock:
            self._file.seek(offset)
            return self._file.read(size)


def _unpack(packed: bytes, entry: ZipEntry) -> bytes:
    """Unpack no more than one byte beyond what the index says.

    Raises:
        OSError: It is damaged, or of another size.
    """
    try:
        if entry.method == _STORED:
            data = packed
        elif entry.method == _DEFLATED:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, entry.size + 1)
        else:
            data = bz2.BZ2Decompressor().decompress(packed, entry.size + 1)
    except (zlib.error, OSError, ValueError) as error:
        raise OSError(f"the entry is damaged ({error}); fetch or make the archive again") from error
    if len(data) > entry.size:
        raise OSError(f"the entry holds more than the {entry.size} bytes that it says; make the archive again")
    if len(data) < entry.size:
        raise OSError("the entry is cut short; fetch or make the archive again")
    return data


def _read_index(file: BinaryIO) -> tuple[bytes, int, int]:
    """Return the central directory, where it begins, and how many bytes (of a program) stand before the archive.

    Raises:
        ValueError: There is none.
        struct.error: It is cut short.
    """
    size = file.seek(0, 2)
    tail_at = max(0, size - _END.size - _MAX_COMMENT - _END64_LOCATOR.size)
    file.seek(tail_at)
    tail = file.read()
    at = _find_end(tail)
    *_, index_size, index_at, _comment = _END.unpack_from(tail, at)
    end_at = tail_at + at
    if at >= _END64_LOCATOR.size and tail.startswith(b"PK\6\7", at - _END64_LOCATOR.size):
        # Right before its locator, whatever stands before the archive.
        end_at -= _END64_LOCATOR.size + _END64.size
        file.seek(max(0, end_at))
        end64 = file.read(_END64.size)
        if not end64.startswith(b"PK\6\6"):
            raise ValueError("its ZIP64 end is missing")
        *_, index_size, index_at = _END64.unpack(end64)
    before = end_at - index_size - index_at
    if before < 0:
        raise ValueError("its index is not where its end says")
    file.seek(before + index_at)
    return file.read(index_size), before + index_at, before


def _find_end(tail: bytes) -> int:
    """Return where the end record begins: the last one whose comment fills the file, else the last."""
    last = at = tail.rfind(b"PK\5\6")
    while at >= 0:
        if at + _END.size <= len(tail) and at + _END.size + _END.unpack_from(tail, at)[-1] == len(tail):
            return at
        at = tail.rfind(b"PK\5\6", 0, at)
    if last < 0:
        raise ValueError("its end is missing")
    return last


def _parse_index(index: bytes, before: int) -> Iterator[ZipEntry]:
    """Yield the entries that are no folders.

    Raises:
        ValueError: The index is damaged.
        struct.error: It is cut short.
    """
    at = 0
    while at < len(index):
        magic, _made, _need, flags, method, _time, _date, *rest = _CENTRAL.unpack_from(index, at)
        crc, packed, size, name_size, extra_size, comment_size, _disk, _inner, outer, offset = rest
        if magic != b"PK\1\2":
            raise ValueError(f"its index is damaged at byte {at}")
        at += _CENTRAL.size
        raw_name = index[at : at + name_size]
        extra = index[at + name_size : at + name_size + extra_size]
        at += name_size + extra_size + comment_size
        size, packed, offset = _widen(extra, size, packed, offset)
        if raw_name.endswith(b"/"):
            continue
        # macOS writes UTF-8 without setting the flag for it; a machine's own code page is nearly never valid UTF-8.
        name = raw_name.decode("utf-8", "surrogateescape")
        problem = _problem(flags, method, outer >> 16, size, packed) or too_large(name, size, packed)
        yield ZipEntry(name, size, problem, before + offset, packed, crc, method, raw_name)


def _widen(extra: bytes, *fields: int) -> tuple[int, ...]:
    """Replace the fields that do not fit 32 bits by those of the ZIP64 extra field (section 4.5.3)."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == _ZIP64_EXTRA:
            wide = iter(struct.unpack_from(f"<{length // 8}Q", extra.ljust(at + 4 + length, b"\0"), at + 4))
            return tuple(next(wide, field) if field == 0xFFFFFFFF else field for field in fields)
        at += 4 + length
    return fields


def _problem(flags: int, method: int, mode: int, size: int, packed: int) -> str:
    if flags & _ENCRYPTED:
        return "is encrypted, expected a plain file"
    if stat.S_IFMT(mode) not in _PLAIN_KINDS:
        return f"is a {'link' if stat.S_ISLNK(mode) else 'device or pipe'}, expected a plain file"
    if method not in {_STORED, _DEFLATED, _BZIP2}:
        return f"is packed by method {method}, expected 0 (stored), 8 (deflate) or 12 (bzip2)"
    if method == _STORED and size != packed:
        return f"says {size} bytes and has {packed}, expected one size"
    return ""


def _without_overlaps(entries: Sequence[ZipEntry], end: int) -> list[ZipEntry]:
    """Mark each entry that begins within another one before it, or that does not end before the index does."""
    problem = "lies over another one or beyond the end, expected a place of its own"
    marked = list(entries)
    reached = 0
    for at in sorted(range(len(entries)), key=lambda at: entries[at].offset):
        entry = entries[at]
        stop = entry.offset + _LOCAL.size + len(entry.raw_name) + entry.packed
        if entry.offset < reached or stop > end:
            marked[at] = replace(entry, problem=entry.problem or problem)
        reached = max(reached, min(stop, end))
    return marked
