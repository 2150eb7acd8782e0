"""The entries of a tar archive, plain or compressed, read at their place in it.

Not `tarfile`: at a damaged header in the middle it stops as if the archive ended there, and so loses the rest in
silence; and before Python 3.11.14 some headers make it run for hours or for ever (CVE-2024-6232, CVE-2025-8194).

Source: IEEE Std 1003.1-2017, pax, "ustar Interchange Format" and "pax Header Block"; GNU tar's "Basic Tar Format".
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import threading
import weakref
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from plumbline.errors import DatasetError
from plumbline.image_scan import IMAGE_SUFFIXES
from plumbline.sources.bombs import refuse_bomb, too_large
from plumbline.sources.forward import ForwardReaders
from plumbline.sources.names import shown

_BLOCK = 512
_UNPACKERS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
# Of names and other words that stand before an entry: a thousand times what anyone needs.
_MAX_WORDS = 1 << 20
_DRAIN = 1 << 20
# Small files that are no images, of a compressed archive: labels may then be read in any order.
KEPT_BYTES = 1 << 20
KEPT_TOTAL_BYTES = 64 << 20
_PROBLEMS = {
    b"1": "is a hard link, expected a plain file",
    b"2": "is a link, expected a plain file",
    b"3": "is a device, expected a plain file",
    b"4": "is a device, expected a plain file",
    b"6": "is a pipe, expected a plain file",
    b"S": "is a file with holes, expected a plain one",
}
_NO_DATA = b"123456"
_FILES = b"\0" + b"07"
# Folders, with or without a list of what they held, and the label of a tape.
_NO_FILES = b"5DV"
# An xz archive may ask for 4 GiB to unpack it.
_UNPACKING_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError, MemoryError)


@dataclass(frozen=True, slots=True)
class TarEntry:
    """One entry, as its header says.

    Attributes:
        name: Bytes that are not UTF-8 are surrogates.
        size: Bytes.
        problem: Why it is not read, and what was expected; "" when it is.
        offset: Where its bytes begin in the unpacked archive.
        time: As the header writes it.
    """

    name: str
    size: int
    problem: str
    offset: int
    time: str

    @property
    def stamp(self) -> str:
        """Return what changes with the content: tar has no checksum of it."""
        return f"{self.size}:{self.time}:{self.offset}"


class _Stream:
    """An archive's bytes, unpacked; see `plumbline.sources.forward.ForwardReader`."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            magic = file.read(6)
        # By what it holds: browsers unpack a .tar.gz on its way and leave the name.
        unpack = next((unpack for start, unpack in _UNPACKERS.items() if magic.startswith(start)), None)
        self.packed = unpack is not None
        self._file: IO[bytes] = path.open("rb") if unpack is None else unpack(path)
        weakref.finalize(self, self._file.close)
        self._size = path.stat().st_size

    @property
    def position(self) -> int:
        return self._file.tell() if self.packed else 0

    def seek(self, offset: int) -> None:
        """Go to a place; EOFError when it is beyond the end."""
        if (not self.packed and offset > self._size) or self._file.seek(offset) != offset:
            raise EOFError("it ends too early")

    def read(self, size: int) -> bytes:
        """Read so many bytes; fewer only at the end."""
        return self._file.read(size)

    def close(self) -> None:
        self._file.close()


class TarArchive:
    """A tar archive; threads may read from it, best in the order of `TarEntry.offset`."""

    def __init__(self, path: Path) -> None:
        """Read the index, which goes through the whole archive.

        Raises:
            DatasetError: It is no tar archive, is cut short or damaged, or is a bomb.
            OSError: It cannot be opened.
        """
        self._path = path
        self._kept: dict[int, bytes] = {}
        self._kept_total = 0
        self._lock = threading.Lock()
        self._streams = ForwardReaders(lambda _: _Stream(path))
        self.warnings: list[str] = []
        entries: list[TarEntry] = []
        stream = _Stream(path)
        try:
            for entry in self._index(stream):
                entries.append(entry)
                self._keep(entry, stream)
        except _UNPACKING_ERRORS as error:
            if isinstance(error, DatasetError):
                raise
            last = f"after {shown(entries[-1].name)}" if entries else "at its beginning"
            raise DatasetError(
                f"{path}: no tar archive, or cut short or damaged {last} ({error}), expected a whole one; fetch or make"
                " it again"
            ) from error
        finally:
            stream.close()
        self.entries: Sequence[TarEntry] = entries

    def read(self, number: int) -> bytes:
        """Return the bytes of one entry, by its place in `entries`.

        Raises:
            OSError: They cannot be read.
        """
        entry = self.entries[number]
        if entry.offset in self._kept:
            return self._kept[entry.offset]
        with self._lock:
            stream = self._streams.take("", entry.offset)
            try:
                stream.seek(entry.offset)
                data = stream.read(entry.size)
            except _UNPACKING_ERRORS as error:
                raise OSError(f"the archive is damaged ({error}); fetch or make it again") from error
            self._streams.give("", stream)
        if len(data) != entry.size:
            raise OSError("the entry is cut short; fetch or make the archive again")
        return data

    def _keep(self, entry: TarEntry, stream: _Stream) -> None:
        is_image = PurePosixPath(entry.name).suffix.lower() in IMAGE_SUFFIXES
        if entry.problem or is_image or not stream.packed or entry.size > KEPT_BYTES:
            return
        if self._kept_total + entry.size <= KEPT_TOTAL_BYTES:
            stream.seek(entry.offset)
            self._kept[entry.offset] = stream.read(entry.size)
            self._kept_total += entry.size

    def _index(self, stream: _Stream) -> Iterator[TarEntry]:
        """Yield the entries that are no folders.

        Raises:
            ValueError: A header is damaged.
            EOFError: The archive is cut short.
            DatasetError: It is a bomb.
        """
        at = 0
        words: dict[str, bytes] = {}
        while (header := self._header(stream, at)) is not None:
            kind = header[156:157]
            size = _number(words.get("size", b"")) if "size" in words else _number(header[124:136])
            at += -at % _BLOCK + _BLOCK
            if kind == b"S":
                at = _skip_holes(stream, header, at)
            length = 0 if kind in _NO_DATA else size
            refuse_bomb(self._path, at + length)
            if kind in b"xXgLK":
                words.update(_words(stream, kind, at, length))
            else:
                name = _name(header, words)
                if kind not in _NO_FILES and not (kind in b"\0" + b"0" and name.endswith("/")):
                    yield TarEntry(name, size, _problem(kind, words, name, size), at, _time(header, words))
                words = {}
            at += length
            stream.seek(at)
        self._check_rest(stream, at)

    def _header(self, stream: _Stream, at: int) -> bytes | None:
        """Return the header of the block after `at`, which is where the stream stands, or None at the end."""
        padding = -at % _BLOCK
        # The last entry's bytes need not fill their block.
        header = stream.read(padding + _BLOCK)[padding:]
        if not header and at:
            self.warnings.append("there is no end mark, so that it may be cut short; fetch or make it again")
            return None
        if len(header) < _BLOCK:
            raise EOFError("it ends too early")
        if not header.strip(b"\0"):
            return None
        total = sum(header[:148]) + 8 * ord(" ") + sum(header[156:])
        if _number(header[148:156]) != total:
            raise ValueError(f"the header at byte {at} has a wrong checksum")
        return header

    def _check_rest(self, stream: _Stream, at: int) -> None:
        """Read to the end, where a compressed archive has its checksum; after the end mark there is nothing."""
        while data := stream.read(_DRAIN):
            at += len(data)
            refuse_bomb(self._path, at)
            if data.strip(b"\0") and not self.warnings:
                self.warnings.append(
                    "there is more after its end mark, which is not read (two archives put together?); make it again"
                )
                if not stream.packed:
                    return


def _number(field: bytes) -> int:
    r"""Read a number: octal digits, or the bytes of a large one after 0x80; ValueError when it is neither.

    >>> _number(b"0000644 "), _number(b"\x80" + bytes(10) + b"\x05")
    (420, 5)
    """
    if field.startswith(b"\x80"):
        return int.from_bytes(field[1:], "big")
    text = field.split(b"\0")[0].strip()
    if not all(byte in b"01234567" for byte in text):
        raise ValueError("a header holds no number where one must be")
    return int(text or b"0", 8)


def _text(field: bytes) -> str:
    return field.split(b"\0")[0].decode("utf-8", "surrogateescape")


def _time(header: bytes, words: dict[str, bytes]) -> str:
    return words.get("mtime", header[136:148].strip(b" \0")).decode("ascii", "backslashreplace")


def _name(header: bytes, words: dict[str, bytes]) -> str:
    if "path" in words:
        # No end at a NUL: a name that holds one is refused as such.
        return words["path"].decode("utf-8", "surrogateescape")
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    return f"{prefix}/{_text(header[:100])}" if prefix else _text(header[:100])


def _problem(kind: bytes, words: dict[str, bytes], name: str, size: int) -> str:
    if any(word.startswith("GNU.sparse") for word in words):
        kind = b"S"
    if kind in _FILES:
        return too_large(name, size)
    return _PROBLEMS.get(kind, f"is of type {kind!r}, expected a plain file")


def _skip_holes(stream: _Stream, header: bytes, at: int) -> int:
    """Return where the bytes of a file with holes begin: after blocks that say where the holes are."""
    more = header[482]
    while more:
        stream.seek(at)
        block = stream.read(_BLOCK)
        if len(block) < _BLOCK:
            raise EOFError("it ends too early")
        more = block[504]
        at += _BLOCK
    return at


def _words(stream: _Stream, kind: bytes, at: int, size: int) -> dict[str, bytes]:
    """Read what stands before an entry and replaces or adds to its header."""
    if size > _MAX_WORDS:
        raise ValueError(f"a name or other word of {size} bytes")
    stream.seek(at)
    data = stream.read(size)
    if len(data) < size:
        raise EOFError("it ends too early")
    if kind == b"L":
        return {"path": data.split(b"\0")[0]}
    # What is said of the whole archive (g) cannot be a name or a size, and a link's target (K) is not followed.
    return dict(_pax(data)) if kind in b"xX" else {}


def _pax(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the records, each ``<length> <key>=<value>`` and a new line; the size as octal digits."""
    at = 0
    while at < len(data) and data[at]:
        length_text = data[at : at + 20].split(b" ")[0]
        length = int(length_text) if length_text.isdigit() else 0
        key, equals, value = data[at + len(length_text) + 1 : at + length].partition(b"=")
        if not equals or not value.endswith(b"\n") or at + length > len(data):
            raise ValueError("a damaged pax header")
        value = value[:-1]
        if key == b"size":
            value = f"{int(value):o}".encode() if value.isdigit() else b"?"
        yield key.decode("utf-8", "replace"), value
        at += length
