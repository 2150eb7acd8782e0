"""What is too large for its archive to be meant: a small file that unpacks to fill memory or time."""

from __future__ import annotations

from pathlib import Path

from plumbline.errors import DatasetError
from plumbline.sources.names import max_bytes

# Deflate packs at most 1032 to 1, and that only what is all one byte; label files reach about 20.
RATIO = 200
# A flat BMP of 20 megapixels passes.
ENTRY_BYTES = 64 << 20
TOTAL_BYTES = 10 << 30


def too_large(name: str, size: int, packed: int | None = None) -> str:
    """Return why an entry is not read, or "" .

    Args:
        name: Of the entry.
        size: Bytes when it is unpacked, as the archive says.
        packed: Bytes in the archive; None where each entry is not packed by itself.

    >>> too_large("a.jpg", 10 << 30)
    'holds 10737418240 bytes, expected at most 536870912'
    >>> too_large("a.bmp", 100 << 20, 100)
    'unpacks from 100 to 104857600 bytes, expected at most 200 times as many'
    """
    if size > max_bytes(name):
        return f"holds {size} bytes, expected at most {max_bytes(name)}"
    if packed is not None and size > ENTRY_BYTES and size > RATIO * packed:
        return f"unpacks from {packed} to {size} bytes, expected at most {RATIO} times as many"
    return ""


def refuse_bomb(path: Path, size: int) -> None:
    """Refuse an archive whose entries together are out of all proportion.

    Args:
        path: The archive.
        size: Bytes of all entries when they are unpacked.

    Raises:
        DatasetError: They are.
    """
    if size > TOTAL_BYTES and size > RATIO * (packed := path.stat().st_size):
        raise DatasetError(
            f"{path}: unpacks from {packed} to {size} bytes or more, expected at most {RATIO} times as many;"
            " this is no data set"
        )
