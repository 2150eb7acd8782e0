"""Writing a version into a bucket: all its files, then the manifest; nothing that is there is ever written over.

Every file stands below its own hash, so a publish that was killed half-way is simply run again, one with other content
finds nothing in its way, and of two at once the one whose manifest comes first has the version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from plumbline.published import MANIFEST, Manifest, PublishedFile, PublishError, read_manifest, to_bytes
from plumbline.published_store import Store


def folder_of(manifest: Manifest) -> str:
    """Return where a version stands in its store, such as ``digits/v1.0.0``."""
    return f"{manifest.model}/{manifest.version}"


def is_published(store: Store, manifest: Manifest) -> bool:
    """Tell whether just this version is published already.

    Raises:
        PublishError: Another content is, under the same version.
    """
    key = f"{folder_of(manifest)}/{MANIFEST}"
    there = store.read(key)
    if there is None:
        return False
    if there != to_bytes(manifest):
        other = read_manifest(there, store.where(key))
        raise PublishError(
            f"{store.where(key)}: version {manifest.version} is published already, {_difference(other, manifest)};"
            " it stays as it is: publish this one under a new version"
        )
    return True


def upload(store: Store, manifest: Manifest, content: Mapping[str, Path], file: PublishedFile) -> bool:
    """Write one file of a version, and see that the store has all of it.

    Args:
        store: Where to.
        manifest: The version.
        content: `PublishedFile.key` -> the file here.
        file: Which one.

    Returns:
        Whether it was written; False where it was there already.

    Raises:
        PublishError: The store refuses, cannot be reached, or holds other bytes there.
    """
    key, path = f"{folder_of(manifest)}/{file.key}", content[file.key]
    written = store.put_new(key, path, file)
    if not store.holds(key, file, path):
        raise PublishError(
            f"{store.where(key)}: damaged, expected {file.size} bytes of sha256 {file.sha256}; remove that object and"
            " publish again"
        )
    return written


def check_refuses(store: Store, manifest: Manifest, content: Mapping[str, Path]) -> None:
    """See that the store keeps the promise that all this rests on: it refuses to write an object that is there.

    Raises:
        PublishError: It wrote the version's smallest file, which was there, once more.
    """
    file = next(manifest.files())
    if store.put_new(f"{folder_of(manifest)}/{file.key}", content[file.key], file):
        raise PublishError(
            f"{store.address}: the store writes over objects though it is told not to (If-None-Match), so a published"
            " version would not be safe there; use one that knows conditional writes"
        )


def upload_manifest(store: Store, manifest: Manifest) -> bool:
    """Write the manifest, with which the version is published.

    Returns:
        Whether it was written; False where the same one was there already.

    Raises:
        PublishError: Another content was published under this version, or the store refuses.
    """
    data = to_bytes(manifest)
    file = PublishedFile(MANIFEST, len(data), hashlib.sha256(data).hexdigest())
    written = store.put_new(f"{folder_of(manifest)}/{MANIFEST}", data, file)
    if not is_published(store, manifest):
        where = store.where(f"{folder_of(manifest)}/{MANIFEST}")
        raise PublishError(f"{where}: gone though it was just written; look who removes objects there")
    return written


def _difference(there: Manifest, here: Manifest) -> str:
    """Say in a few words what is other in the published one."""
    if there.git_commit != here.git_commit:
        return f"from commit {there.git_commit[:12]}, expected this one, {here.git_commit[:12]}"
    if set(there.targets) != set(here.targets):
        return f"with the targets {', '.join(there.targets)}, expected {', '.join(here.targets)}"
    changed = [name for name, target in here.targets.items() if target.files != there.targets[name].files]
    if changed:
        return f"with other files of {', '.join(changed)}, expected those here"
    return "with other records of the same files, expected those here"
