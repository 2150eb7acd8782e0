"""A zip or tar archive, read without unpacking it; nothing is ever written.

What could do harm is a finding and no file: a name that leads out, a link, a device, an encrypted entry, one that
unpacks to something enormous, or that lies over another. An archive that is cut short, damaged in its index, or made to
fill the memory is refused. Archives within an archive are not opened.

A zip or a plain tar is read in any order at the same cost. A compressed tar can only be unpacked forward: once for the
index, and once more for reading in the order that `order` gives. Its small files that are no images are kept from the
index on, so that labels can be read in any order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from plumbline.errors import DatasetError
from plumbline.faults import UNSAFE_MEMBER
from plumbline.formats.reading import ReadFinding
from plumbline.sources.names import admit, unsafe_member
from plumbline.sources.tar_archive import TarArchive
from plumbline.sources.zip_archive import ZipArchive

LAYOUT = "a .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz archive"

_ZIP_SUFFIXES = (".zip",)
_TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


class Entry(Protocol):
    """What the entries of both kinds of archive share."""

    @property
    def name(self) -> str:
        """Return the name as it is written; bytes that are not UTF-8 are surrogates."""

    @property
    def size(self) -> int:
        """Return the bytes when it is unpacked."""

    @property
    def problem(self) -> str:
        """Return why it is not read, and what was expected; "" when it is."""

    @property
    def offset(self) -> int:
        """Return its place: who reads in this order goes forward."""

    @property
    def stamp(self) -> str:
        """Return what changes with the content."""


class Archive(Protocol):
    """What both kinds of archive share."""

    @property
    def entries(self) -> Sequence[Entry]:
        """Return all entries that are no folders, as they come."""

    @property
    def warnings(self) -> Sequence[str]:
        """Return what is wrong with the archive as a whole, though it can be read."""

    def read(self, number: int) -> bytes:
        """Return the bytes of an entry by its place in `entries`; OSError where they are not what it says."""


def is_archive(address: str) -> bool:
    """Say whether a name ends like that of an archive.

    >>> is_archive("a.tar.gz"), is_archive("s3://b/photos.ZIP"), is_archive("photos")
    (True, True, False)
    """
    return address.lower().endswith(_ZIP_SUFFIXES + _TAR_SUFFIXES)


def takes(address: str) -> bool:
    """Say whether there is a file with an archive's name."""
    return is_archive(address) and Path(address).is_file()


def open_source(address: str) -> ArchiveSource:
    """Open an archive; see `plumbline.sources.Kind`."""
    return ArchiveSource(address)


def _open(path: Path) -> Archive:
    return ZipArchive(path) if path.name.lower().endswith(_ZIP_SUFFIXES) else TarArchive(path)


class ArchiveSource:
    """See `plumbline.sources.Source`; threads may read from it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._path = Path(address)
        try:
            self._archive = _open(self._path)
        except OSError as error:
            raise DatasetError(f"{address}: cannot be read ({error.strerror or error}); make it readable") from error
        entries = self._archive.entries
        where = self._path.as_posix()
        admitted, unsafe = admit(where, ((entry.name, number) for number, entry in enumerate(entries)))
        self._numbers = {name: number for name, number in admitted.items() if not entries[number].problem}
        self._files = {name: entries[number].size for name, number in self._numbers.items()}
        self._findings = [ReadFinding(where, 0, UNSAFE_MEMBER, warning) for warning in self._archive.warnings]
        remedy = "make the archive again from plain files"
        for name, number in admitted.items():
            if problem := entries[number].problem:
                self._findings.append(unsafe_member(where, name, problem, remedy))
        self._findings += unsafe

    def files(self) -> Mapping[str, int]:  # noqa: D102 - as in the protocol, like all below
        return self._files

    def findings(self) -> list[ReadFinding]:  # noqa: D102
        return list(self._findings)

    def read(self, name: str) -> bytes:  # noqa: D102
        return self._archive.read(self._number(name))

    def stamp(self, name: str) -> str:  # noqa: D102
        return self._archive.entries[self._number(name)].stamp

    def where(self, name: str) -> str:  # noqa: D102
        return (self._path / name).as_posix()

    def group(self, name: str) -> str:  # noqa: D102, ARG002
        return ""

    def order(self, names: Iterable[str]) -> list[str]:  # noqa: D102
        entries = self._archive.entries
        places = {name: entries[number].offset for name, number in self._numbers.items()}
        return sorted(names, key=lambda name: (places.get(name, -1), name))

    def _number(self, name: str) -> int:
        if name not in self._numbers:
            raise FileNotFoundError(2, "no such file in the archive", name)
        return self._numbers[name]
