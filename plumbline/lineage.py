"""Where an artifact comes from: commits, hashes and versions that go into `artifact.json`."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from plumbline.files import sha256_of

ROOMS = ("pipelines", "stages", "plumbline")


def git_commit(folder: Path) -> str:
    """Return the commit that is checked out, with ``-dirty`` when code or params differ from it.

    Empty outside of a repository, or without git. DVC's own records (dvc.lock, metrics) change with every run and do
    not count.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return ""
    tracked = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", ":!dvc.lock", ":!reports")
    new_code = _git(folder, "status", "--porcelain", "--untracked-files=all", "--", *ROOMS)
    return f"{commit}-dirty" if tracked or new_code else commit


def dataset_sha256(labels: Path) -> str:
    """Return one hash of a dataset: its tables hold every box and the sha256 of every image."""
    parts = [sha256_of(labels / name) for name in ("images.parquet", "annotations.parquet")]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def hash_of_hashes(hashes: Iterable[str]) -> str:
    """Return one sha256 over many, in the order given."""
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def toolchain(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of the named packages and of Python; a package that is not installed is left out."""
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
