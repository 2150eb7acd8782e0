"""Objects of DVC's cache to and from a DVC remote, by their hashes; what does not have its hash is never kept.

Not ``dvc push`` and ``dvc pull``: they leave out outputs that DVC does not cache (``cache: false``), and of an object
that is damaged in the remote a pull says nothing, or takes it (DVC 3.67; with ``verify`` it only leaves it out).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Any

from plumbline.errors import PlumblineError

DIR = ".dir"  # ends the hash of a folder: its object lists the files. Source: dvc_data/hashfile/hash_info.py

# Of botocore and DVC, by name: botocore is only there where the remote is S3.
LASTING = frozenset(
    {
        *("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "ParamValidationError", "AuthError"),
        *("ConfigError", "NoRemoteError", "RemoteConfigError", "RemoteNotFoundError", "RemoteMissingDepsError"),
    }
)


class UnusableError(PlumblineError):
    """The remote lacks objects, or has others in their place.

    Attributes:
        hashes: Theirs.
    """

    def __init__(self, remote: str, found: dict[str, str]) -> None:
        self.hashes = sorted(found)
        first = self.hashes[0]
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        super().__init__(
            f"{remote}/{first[:2]}/{first[2:]}: object {first}{more} is {found[first]} in the DVC remote and was not "
            "used; remove it there, then `dvc push` it from a machine that has it"
        )


def parts_of(tree: Any, only: Iterable[str]) -> list[str]:
    """Return the hashes of a folder's files: of all, or of those that stand at or below a path of `only`."""
    wanted = [PurePosixPath(part).parts for part in only]
    return sorted(
        {info.value for key, _, info in tree if not wanted or any(key[: len(part)] == part for part in wanted)}
    )


class Objects:
    """The cache of a project and its remote.

    Args:
        repo: A `dvc.repo.Repo`.
        remote: The remote's name; "" for DVC's default one.
    """

    def __init__(self, repo: Any, remote: str) -> None:
        self.cache = repo.cache.local
        self.remote = repo.cloud.get_remote_odb(remote or None, "push")
        self._repo = repo
        self._name = remote or None

    @property
    def address(self) -> str:
        """Where the remote is, as people write it."""
        return str(self.remote.fs.unstrip_protocol(self.remote.path))

    def pull(self, hashes: dict[str, list[str]]) -> int:
        """Bring what the cache lacks of objects, and of the files of folders.

        Args:
            hashes: Of files and folders -> the parts of a folder that are wanted; none: all.

        Returns:
            How many objects came.

        Raises:
            UnusableError: The remote lacks one, or has something else in its place.
        """
        came = self._fetch(list(hashes))
        files: set[str] = set()
        for value, only in hashes.items():
            if value.endswith(DIR):
                files.update(parts_of(self.tree(value), only))
        return came + self._fetch(sorted(files))

    def _fetch(self, hashes: list[str]) -> int:
        lacking = [value for value in hashes if not self.cache.exists(value)]
        errors: dict[str, BaseException] = {}
        if lacking:
            places = [self.remote.oid_to_path(value) for value in lacking]
            try:
                # It hashes what came, and takes what is wrong away again.
                self.cache.add(
                    places, self.remote.fs, lacking, verify=True, on_error=errors.__setitem__, check_exists=False
                )
            except FileNotFoundError:  # of a temporary file, where the only one has failed (dvc-objects 5.2)
                if not errors:
                    raise
        if others := [error for error in errors.values() if not isinstance(error, FileNotFoundError)]:
            raise others[0]
        found = {
            value: "missing" if value in errors else "damaged" for value in lacking if not self.cache.exists(value)
        }
        if found:
            raise UnusableError(self.address, found)
        return len(lacking)

    def push(self, hashes: Iterable[str], again: Iterable[str]) -> int:
        """Send what the remote lacks of objects, and of the files of folders; all of them are in the cache.

        Args:
            hashes: Of files and folders.
            again: Those of objects that are damaged in the remote: they are sent whatever it has.

        Returns:
            How many objects were sent.
        """
        from dvc_data.hashfile.hash_info import HashInfo

        whole = set(hashes)
        for value in [value for value in whole if value.endswith(DIR)]:
            whole.update(parts_of(self.tree(value), ()))
        # Not by DVC's push: where a folder's list is in the remote, its files are taken to be there too.
        repaired = [value for value in again if self.cache.exists(value)]
        if repaired:
            places = [self.cache.oid_to_path(value) for value in repaired]
            self.remote.add(places, self.cache.fs, repaired, check_exists=False)
        with _errors_of_dvc() as errors:
            sent = self._repo.cloud.push({HashInfo("md5", value) for value in whole}, remote=self._name)
        if sent.failed:
            raise errors[0] if errors else OSError(f"{len(sent.failed)} objects could not be sent")
        return len(sent.transferred) + len(repaired)

    def tree(self, value: str) -> Any:
        """Return a folder's object, which is in the cache."""
        from dvc_data.hashfile.hash_info import HashInfo
        from dvc_data.hashfile.tree import Tree

        return Tree.load(self.cache, HashInfo("md5", value))

    def has(self, value: str) -> bool:
        """Tell whether the cache has an object and, of a folder, every file."""
        if not self.cache.exists(value):
            return False
        return not value.endswith(DIR) or all(self.cache.exists(each) for each in parts_of(self.tree(value), ()))

    def keep(self, path: str) -> str:
        """Put a file or folder into the cache, where it may have no other use, and return its hash."""
        from dvc.fs import localfs
        from dvc_data.hashfile.build import build
        from dvc_data.hashfile.transfer import transfer

        staging, _, made = build(self.cache, path, localfs, "md5", ignore=self._repo.dvcignore)
        transfer(staging, self.cache, {made.hash_info}, shallow=False)
        return str(made.hash_info.value)


@contextmanager
def _errors_of_dvc() -> Iterator[list[BaseException]]:
    """Collect the errors of single objects, which DVC only logs."""
    errors: list[BaseException] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info and record.exc_info[1]:
                errors.append(record.exc_info[1])

    loggers = [logging.getLogger(name) for name in ("dvc_data", "dvc_objects", "dvc")]
    collector = Collector(logging.ERROR)
    for logger in loggers:
        logger.addHandler(collector)
    try:
        yield errors
    finally:
        for logger in loggers:
            logger.removeHandler(collector)


def is_lasting(error: BaseException) -> bool:
    """Tell whether an error of a remote stays however often one tries: wrong names, settings, credentials, rights.

    >>> is_lasting(PermissionError("AccessDenied")), is_lasting(ConnectionError("refused"))
    (True, False)
    """
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, PermissionError | FileNotFoundError | PlumblineError) or type(at).__name__ in LASTING:
            return True
        at = at.__cause__
    return False
