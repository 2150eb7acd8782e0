"""Bring one artifact of a published version into a folder: every hash checked, and never half of it.

What is brought goes into a folder beside the one asked for, and takes its place when all of it is there and right. A
fetch that was cut short goes on from there; one killed while the folders change places leaves one of them whole, which
the next fetch finds, store or no store.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from plumbline.files import sha256_of
from plumbline.published import (
    LABELS,
    LATEST,
    MANIFEST,
    Manifest,
    PublishedFile,
    PublishError,
    is_manifest,
    read_manifest,
    split_reference,
    target_of,
)
from plumbline.published_client import Tell
from plumbline.published_store import Store
from plumbline.published_swap import clear, put_in_place, restore, staging_of
from plumbline.published_upload import folder_of


@dataclass(frozen=True)
class Fetched:
    """What a fetch did.

    Attributes:
        manifest: Of the version.
        target: Of the artifact.
        num_fetched: Files that came from the store.
        num_there: Files that were here already, with the right hash.
    """

    manifest: Manifest
    target: str
    num_fetched: int
    num_there: int


def fetch(store: Store, reference: str, target: str | None, to: Path, tell: Tell, *, labels: bool = True) -> Fetched:
    """Make `to` the folder of one published artifact, with its manifest.

    Args:
        store: Where from.
        reference: ``MODEL@VERSION`` or ``MODEL@latest``.
        target: Which artifact; None where the version has only one.
        to: The folder: a new one, an empty one, or one that was fetched before.
        tell: Gets a line of progress now and then.
        labels: Whether labels.csv comes too.

    Raises:
        PublishError: There is no such version or target, an object is damaged, the store cannot be reached, or the
            folder holds what no fetch brought.
    """
    model, version = split_reference(reference)
    to = to.resolve()  # a link stays one, and what it leads to is replaced
    _check_place(to)
    with _alone(to, tell):
        restore(to)
        data, manifest = _read(store, model, version)
        _check_content(to, manifest)
        target = target_of(manifest, target, store.where(f"{folder_of(manifest)}/{MANIFEST}"))
        wanted = list(manifest.targets[target].files) + ([manifest.labels.file] if labels else [])
        if _is_complete(to, data, wanted):
            clear(to)
            return Fetched(manifest, target, 0, len(wanted))
        num_there = _gather(store, manifest, wanted, to, tell)
        staging = staging_of(to)
        (staging / MANIFEST).write_bytes(data)
        _prune(staging, {MANIFEST, *(file.path for file in wanted)})
        put_in_place(to)
    return Fetched(manifest, target, len(wanted) - num_there, num_there)


def _read(store: Store, model: str, version: str) -> tuple[bytes, Manifest]:
    """Return a version's manifest, as it is published and read.

    Raises:
        PublishError: There is none, or it is of another version.
    """
    if version == LATEST:
        version = store.latest(model)
    base = f"{model}/{version}"
    where = store.where(f"{base}/{MANIFEST}")
    data = store.read(f"{base}/{MANIFEST}")
    if data is None:
        raise PublishError(f"{where}: no such version, expected {_known(store, model)}; name one of them")
    manifest = read_manifest(data, where)
    if (manifest.model, manifest.version) != (model, version):
        raise PublishError(f"{where}: is of {manifest.model}@{manifest.version}, expected {base}; look who wrote it")
    return data, manifest


def _gather(store: Store, manifest: Manifest, wanted: Sequence[PublishedFile], to: Path, tell: Tell) -> int:
    """Bring what is wanted into the folder beside `to`; return how many files were here already."""
    staging = staging_of(to)
    staging.mkdir(exist_ok=True)
    there = {file.path for file in wanted if _take(file, to, staging)}
    for file in wanted:
        if file.path not in there:
            tell(f"{file.path}: {file.size / 1e6:.2f} MB")
            store.download(f"{folder_of(manifest)}/{file.key}", file, staging / file.path)
    return len(there)


def _known(store: Store, model: str) -> str:
    versions = [each for each in store.versions(model) if store.read(f"{model}/{each}/{MANIFEST}") is not None]
    return f"one of: {', '.join(versions[:10])}" if versions else f"any of {model}, of which none is published there"


def _check_place(to: Path) -> None:
    """Refuse what cannot be replaced.

    Raises:
        PublishError: It is a file or a mount point.
    """
    if to.is_mount():
        raise PublishError(f"{to}: a mount point, which cannot be replaced in one step; name a folder in it")
    if to.exists() and not to.is_dir():
        raise PublishError(f"{to}: a file, expected a folder, or none yet; name another one")


def _check_content(to: Path, manifest: Manifest) -> None:
    """Refuse to replace what no fetch has brought.

    Args:
        to: The folder.
        manifest: Of the version that is wanted: a file with one of its hashes is not lost.

    Raises:
        PublishError: It holds other things.
    """
    known, hashes = _names_of(to, manifest), {file.sha256 for file in manifest.files()}
    here = sorted(path for path in to.rglob("*") if not path.is_dir()) if to.exists() else []
    for path in here:
        name = path.relative_to(to).as_posix()
        if name not in known and not (path.is_file() and sha256_of(path) in hashes):
            raise PublishError(
                f"{to}: holds {name}, which no fetch brought, expected an empty folder or a fetched one; name another"
            )


def _names_of(to: Path, wanted: Manifest) -> set[str]:
    """Return which files a fetch may have brought, by the manifest that is there.

    One that is no JSON was ours: a power cut leaves a file empty or cut short. What stood in it is taken to be what is
    wanted now.
    """
    if not (to / MANIFEST).is_file():
        return set()
    data = (to / MANIFEST).read_bytes()
    if is_manifest(data):
        wanted = read_manifest(data, str(to / MANIFEST))
    elif _is_json(data):
        return set()
    return {MANIFEST, LABELS, *(file.path for target in wanted.targets.values() for file in target.files)}


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except ValueError:
        return False
    return True


@contextmanager
def _alone(to: Path, tell: Tell) -> Iterator[None]:
    """Let one fetch at a time work in the folder that `to` is in."""
    to.parent.mkdir(parents=True, exist_ok=True)
    place = os.open(to.parent, os.O_RDONLY)
    try:
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell(f"{to.parent}: another fetch is under way there; waiting for its end")
            fcntl.flock(place, fcntl.LOCK_EX)
        yield
    finally:
        os.close(place)


def _take(file: PublishedFile, to: Path, staging: Path) -> bool:
    """Take a file that is here already, if its bytes are right: from an earlier try, or from the folder itself."""
    path = staging / file.path
    if _is_right(path, file):
        return True
    path.unlink(missing_ok=True)
    if not _is_right(to / file.path, file):
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(to / file.path, path)
    except OSError:  # a file system without hard links
        shutil.copyfile(to / file.path, path)
    return True


def _is_complete(to: Path, manifest: bytes, wanted: Sequence[PublishedFile]) -> bool:
    """Tell whether the folder holds just what is wanted."""
    names = {MANIFEST, *(file.path for file in wanted)}
    here = {path.relative_to(to).as_posix() for path in to.rglob("*") if not path.is_dir()} if to.is_dir() else set()
    return here == names and (to / MANIFEST).read_bytes() == manifest and all(_is_right(to / f.path, f) for f in wanted)


def _is_right(path: Path, file: PublishedFile) -> bool:
    return path.is_file() and path.stat().st_size == file.size and sha256_of(path) == file.sha256


def _prune(staging: Path, names: set[str]) -> None:
    """Remove what an earlier try left of another version."""
    for path in sorted(staging.rglob("*"), reverse=True):
        if path.is_dir():
            with contextlib.suppress(OSError):  # not empty
                path.rmdir()
        elif path.relative_to(staging).as_posix() not in names:
            path.unlink()
