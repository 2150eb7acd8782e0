"""A lock that the kernel lets go of, however the process that has it ends."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

POLL_S = 0.5


@contextmanager
def locked(path: Path, *, wait: bool, shared: bool = False) -> Iterator[None]:
    """Hold a lock that ends with this process, however it ends.

    Args:
        path: Of the lock.
        wait: For others to let go of it.
        shared: Others that say so too may have it at the same time.

    Raises:
        BlockingIOError: Another process has it, and `wait` is False.
    """
    while True:
        with path.open("a") as file:  # "w" would say that it was used now
            try:
                # Polled: an exception of a signal's handler comes through, whatever Python does with the call.
                fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except BlockingIOError:
                if not wait:
                    raise
                time.sleep(POLL_S)
                continue
            if not _is_at(file.fileno(), path):
                continue  # who had it has removed the file
            os.utime(path)
            yield
            return


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
