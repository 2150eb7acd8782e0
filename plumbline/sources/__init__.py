"""Where labelled images come from: an explicit table of kinds, one module each, all with the names of `Source`.

A source is a tree of files that can be read by name: a folder, an archive, a prefix of an object store, the frames of
videos. Label formats read from a source, and so know nothing of where it stands.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from typing import Protocol, cast

from plumbline.errors import DatasetError
from plumbline.formats.reading import ReadFinding

# In the order in which they are asked; the first that takes the address opens it.
SOURCES = {
    "embedded": "plumbline.sources.embedded",
    "s3": "plumbline.sources.s3",
    "archive": "plumbline.sources.archive",
    "video": "plumbline.sources.video",
    "folder": "plumbline.sources.folder",
}


class Source(Protocol):
    """A tree of files that is only ever read.

    Every name is relative, has forward slashes and printable characters, and leads nowhere else: what does not is a
    finding, and no file. Hidden files and folders, and macOS' ``__MACOSX``, are left out. Threads may read from it.
    """

    address: str
    """What `open_source` was given: opens the same source again, in another process too."""

    def files(self) -> Mapping[str, int]:
        """Return the size in bytes of each file by its name, sorted by name; -1 where it is not known.

        The first call may take long: videos are decoded to choose their frames. `read` does not need it.
        """

    def findings(self) -> list[ReadFinding]:
        """Return what is wrong with names and entries that are therefore no files here."""

    def read(self, name: str) -> bytes:
        """Return a file's bytes.

        Raises:
            OSError: It cannot be read, or holds more than it may.
        """

    def stamp(self, name: str) -> str:
        """Return a text that changes when the file's content does: its size and time, checksum or tag.

        Raises:
            OSError: There is no such file.
        """

    def where(self, name: str) -> str:
        """Return how a file is named to people: a path that can be opened where there is one, else the like.

        Examples: ``photos/a.jpg``, ``photos.zip/a.jpg``, ``s3://bucket/photos/a.jpg``.
        """

    def group(self, name: str) -> str:
        """Return what must never be parted by a split (the video of a frame), or "" ."""

    def order(self, names: Iterable[str]) -> list[str]:
        """Return the names in the order in which reading them is cheapest."""


class Kind(Protocol):
    """What a module of `SOURCES` offers."""

    LAYOUT: str
    """What it takes, in words; "" for what only the line itself asks for."""

    def takes(self, address: str) -> bool:
        """Say whether an address is of this kind."""

    def open_source(self, address: str) -> Source:
        """Open it.

        Raises:
            DatasetError: It cannot be opened or is refused as a whole.
        """


def open_source(address: str) -> Source:
    """Open a folder, archive, ``s3://`` prefix, or video.

    Raises:
        DatasetError: There is no such thing, or it cannot be read.
    """
    kinds = [cast("Kind", importlib.import_module(module)) for module in SOURCES.values()]
    for kind in kinds:
        if kind.takes(address):
            return kind.open_source(address)
    layouts = "; ".join(kind.LAYOUT for kind in kinds if kind.LAYOUT)
    raise DatasetError(f"{address}: nothing there to read images from, expected {layouts}; correct dataset.source")
