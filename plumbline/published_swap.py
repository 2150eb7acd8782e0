"""A new folder takes an old one's place: whoever looks sees one of them, after a kill or a power cut, too.

Beside the folder ``model`` stand, while a fetch is under way, ``.model.fetching``, in which it gathers the new one, and
for a moment, on a file system that cannot exchange two folders, ``.model.replaced``, the old one.

A device reads this module: it imports nothing but Python's own library.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from pathlib import Path

# Source: renameat2(2), linux/fs.h and fcntl.h
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def staging_of(to: Path) -> Path:
    """Return the folder in which the new one is gathered."""
    return to.with_name(f".{to.name}.fetching")


def restore(to: Path) -> None:
    """Bring back the old folder, where a fetch was killed in the moment that had none; else remove what is left of it.

    Call it, as all of this module, with no other fetch under way.
    """
    old = _old_of(to)
    if not old.exists():
        return
    if _is_vacant(to):
        old.rename(to)
        _flush(to.parent)
    else:
        shutil.rmtree(old, ignore_errors=True)


def put_in_place(to: Path) -> None:
    """Let the folder of `staging_of` take the place of `to`, which is empty, missing, or goes."""
    staging = staging_of(to)
    # Else a power cut can leave the new names with none of their bytes.
    for path in staging.rglob("*"):
        _flush(path)
    _flush(staging)
    if _is_vacant(to):
        staging.rename(to)
    elif not _exchange(staging, to):
        _replace(staging, to)
    _flush(to.parent)
    clear(to)


def clear(to: Path) -> None:
    """Remove what fetches, also killed ones, have left beside the folder, which is as wanted."""
    for path in (staging_of(to), _old_of(to)):
        shutil.rmtree(path, ignore_errors=True)


def _old_of(to: Path) -> Path:
    return to.with_name(f".{to.name}.replaced")


def _is_vacant(folder: Path) -> bool:
    """Tell whether a rename can put a folder there."""
    return not folder.exists() or not any(folder.iterdir())


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders take each other's place in one step; False where the system or the file system cannot."""
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError):  # not Linux, or an old C library
        return False
    paths = _AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other)
    return bool(renameat2(*paths, ctypes.c_uint(_RENAME_EXCHANGE)) == 0)


def _replace(staging: Path, to: Path) -> None:
    """Do it in two steps; see `restore` for a kill between them."""
    to.rename(_old_of(to))
    try:
        staging.rename(to)
    except BaseException:
        restore(to)
        raise


def _flush(path: Path) -> None:
    """Wait until the disk has a file's bytes, or a folder's names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems know it of files only
            raise
    finally:
        os.close(descriptor)
