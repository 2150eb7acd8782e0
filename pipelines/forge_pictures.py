"""The pictures of a report that anybody may have made: decoded here, and written anew."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from plumbline.errors import EvaluationError

MOST_BYTES = 4_000_000
MOST_SIDE = 8_000  # pixels
MOST_PICTURES = 20
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">8sI4sII")  # signature; length and name of the first chunk; width and height
_EXPECTED = f"expected a PNG of {MOST_BYTES:,} bytes or fewer with sides of {MOST_SIDE:,} pixels or fewer"
_TODO = "run make pr-report again"


def regular_file(path: Path) -> Path:
    """Give the path back, if it is a file of its folder: a link may lead to what the poster alone can read.

    Raises:
        EvaluationError: It is missing, or something else.
    """
    if path.is_symlink() or not path.is_file():
        raise EvaluationError(f"{path}: no file, expected what make pr-report writes; {_TODO}")
    return path


def read_pictures(folder: Path, names: Mapping[str, str]) -> dict[str, bytes]:
    """Read pictures, and check them.

    Args:
        folder: Of the report.
        names: Stem -> file in it.

    Returns:
        Stem -> PNG with the same pixels and nothing else that the file held.

    Raises:
        EvaluationError: One is missing or is no such picture.
    """
    if len(names) > MOST_PICTURES:
        raise EvaluationError(f"{folder}: {len(names)} pictures, expected {MOST_PICTURES} or fewer; {_TODO}")
    return {stem: _written_anew(regular_file(folder / name)) for stem, name in names.items()}


def _written_anew(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise EvaluationError(f"{path}: more than {MOST_BYTES:,} bytes, {_EXPECTED}; {_TODO}")
    # Sides first: a file of a few kilobytes may unpack to gigabytes.
    if len(data) < _HEADER.size:
        raise EvaluationError(f"{path}: no PNG, {_EXPECTED}; {_TODO}")
    signature, _, chunk, width, height = _HEADER.unpack_from(data)
    if signature != _SIGNATURE or chunk != b"IHDR":
        raise EvaluationError(f"{path}: no PNG, {_EXPECTED}; {_TODO}")
    if not 0 < width <= MOST_SIDE or not 0 < height <= MOST_SIDE:
        raise EvaluationError(f"{path}: {width} x {height} pixels, {_EXPECTED}; {_TODO}")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise EvaluationError(f"{path}: cannot be decoded, {_EXPECTED}; {_TODO}")
    done, png = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    assert done, "what OpenCV has decoded, it encodes"
    return png.tobytes()
