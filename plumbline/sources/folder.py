"""A folder on disk, with the folders below it; links are followed, as people link large sets together."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from plumbline.errors import DatasetError
from plumbline.formats.reading import ReadFinding
from plumbline.sources.names import is_hidden, is_plain, unsafe_member, unsafe_name

LAYOUT = "a folder"


def takes(address: str) -> bool:
    """Say whether there is a folder."""
    # Path("") is the current folder, which nobody means by an empty text.
    return bool(address) and Path(address).is_dir()


def open_source(address: str) -> FolderSource:
    """Open a folder; see `plumbline.sources.Kind`."""
    return FolderSource(address)


class FolderSource:
    """See `plumbline.sources.Source`."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._folder = Path(address)
        self._findings: list[ReadFinding] = []
        self._files = dict(sorted(self._list()))

    def files(self) -> Mapping[str, int]:  # noqa: D102 - as in the protocol, like all below
        return self._files

    def findings(self) -> list[ReadFinding]:  # noqa: D102
        return list(self._findings)

    def read(self, name: str) -> bytes:  # noqa: D102
        return self._path(name).read_bytes()

    def stamp(self, name: str) -> str:  # noqa: D102
        status = self._path(name).stat()
        return f"{status.st_size}:{status.st_mtime_ns}"

    def where(self, name: str) -> str:  # noqa: D102
        return (self._folder / name).as_posix()

    def group(self, name: str) -> str:  # noqa: D102, ARG002
        return ""

    def order(self, names: Iterable[str]) -> list[str]:  # noqa: D102
        return sorted(names)

    def _path(self, name: str) -> Path:
        # A label may name any file of this machine: only what was listed is read.
        if name not in self._files:
            raise FileNotFoundError(2, "no such file in the source", name)
        return self._folder / name

    def _list(self) -> Iterator[tuple[str, int]]:
        where = self._folder.as_posix()
        for name in walk(self._folder):
            if not is_plain(name):
                self._findings.append(unsafe_name(where, name))
                continue
            try:
                status = (self._folder / name).stat()
            except OSError:
                # Such as a link to nothing: it is a file, and reading it says what is wrong.
                yield name, -1
                continue
            if stat.S_ISREG(status.st_mode):
                yield name, status.st_size
            else:
                # To read from a pipe is to wait for ever.
                self._findings.append(unsafe_member(where, name, "is a device or pipe, expected a file", "remove it"))


def walk(folder: Path) -> Iterator[str]:
    """Yield the name of everything below a folder that is no folder and not hidden, relative to it.

    Raises:
        DatasetError: A folder cannot be listed.
    """

    def refuse(error: OSError) -> None:
        raise DatasetError(f"{error.filename}: cannot be listed ({error.strerror}); make it readable") from error

    # Real paths of the folders above each one: a link to one of them would go round for ever.
    above: dict[str, frozenset[str]] = {str(folder): frozenset()}
    for root, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        parents = above.pop(root)
        real = os.path.realpath(root)
        if real in parents:
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        above.update((os.path.join(root, name), parents | {real}) for name in folders)  # noqa: PTH118 - as os.walk does
        below = "" if root == str(folder) else f"{Path(root).relative_to(folder).as_posix()}/"
        for name in sorted(files):
            if not is_hidden(name):
                yield below + name
