"""Look at an image file once: is it whole, how large is it, how bright and sharp, and what does it look like.

The numbers describe the image as people see it and as `cv2.imread` returns it: after EXIF orientation.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg

Grey = npt.NDArray[np.uint8]

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_SIGNATURE = b"\xff\xd8"
_HASH_SIDE = 8
_HASH_INPUT_SIDE = 32
# cv2 refuses larger images, so nothing later in the pipeline could read them.
_MAX_PIXELS = 1 << 30


@dataclass(frozen=True)
class ImageScan:
    """What one image file holds.

    Attributes:
        sha256: Hex, of the file's bytes; of no bytes when the file cannot be opened.
        width: Pixels, after EXIF orientation; 0 when unreadable.
        height: Pixels, after EXIF orientation; 0 when unreadable.
        phash: 64-bit perceptual hash: images that look alike differ in few bits; 0 when unreadable.
        readable: False when the file cannot be decoded or its content is damaged.
        brightness: Mean of the grey image, 0..255.
        contrast: Standard deviation of the grey image.
        sharpness: Variance of the grey image's Laplacian.
        problem: Why it is not readable; "" when it is.
    """

    sha256: str
    width: int
    height: int
    phash: int
    readable: bool
    brightness: float
    contrast: float
    sharpness: float
    problem: str


def scan_image(path: Path) -> ImageScan:
    """Scan one image file, reading it once; a bad image is a result with `readable` False, never an exception."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return _unreadable(b"", f"cannot be opened ({error.strerror or error})")
    try:
        grey = _decode_grey(data)
    except (ValueError, cv2.error) as error:
        return _unreadable(data, " ".join(str(error).split()))
    mean, deviation = cv2.meanStdDev(grey)
    _, edges = cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_16S, ksize=1))
    return ImageScan(
        sha256=hashlib.sha256(data).hexdigest(),
        width=grey.shape[1],
        height=grey.shape[0],
        phash=perceptual_hash(grey),
        readable=True,
        brightness=float(mean[0, 0]),
        contrast=float(deviation[0, 0]),
        sharpness=float(edges[0, 0]) ** 2,
        problem="",
    )


def scan_images(paths: Sequence[Path], workers: int, progress: Callable[[int], None] | None = None) -> list[ImageScan]:
    """Scan many images in threads (the decoders release the interpreter's lock).

    Args:
        paths: Image files.
        workers: Threads.
        progress: Called now and then with how many are done.

    Returns:
        One scan per path, in the order of `paths`, whatever the number of workers.
    """
    scans: list[ImageScan] = []
    with ThreadPoolExecutor(max_workers=workers) as pool:
        for scan in pool.map(scan_image, paths):
            scans.append(scan)
            if progress is not None and len(scans) % 1000 == 0:
                progress(len(scans))
    return scans


def perceptual_hash(grey: Grey) -> int:
    """Return 64 bits that say which low frequencies of the image are above their median.

    Near-duplicates differ by 6 bits or fewer, unrelated photographs by about 32. All flat images have one hash.

    Args:
        grey: Shape (H, W), uint8.

    Source: C. Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010, section 3.2.1.

    >>> bin(perceptual_hash(np.full((9, 9), 200, np.uint8))).count("1")
    1
    """
    small = cv2.resize(grey, (_HASH_INPUT_SIDE, _HASH_INPUT_SIDE), interpolation=cv2.INTER_AREA)
    frequencies = cv2.dct(small.astype(np.float32))[:_HASH_SIDE, :_HASH_SIDE].ravel()
    # The first one is the mean brightness: it would drag the median, so it does not count there.
    bits = frequencies > np.median(frequencies[1:])
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _unreadable(data: bytes, problem: str) -> ImageScan:
    return ImageScan(hashlib.sha256(data).hexdigest(), 0, 0, 0, False, 0.0, 0.0, 0.0, problem)


def _decode_grey(data: bytes) -> Grey:
    """Decode to shape (H, W), uint8, after EXIF orientation.

    Raises:
        ValueError: The bytes are no image, or are damaged.
        cv2.error: cv2 refuses the image's size.
    """
    if not data:
        raise ValueError("the file is empty")
    if data.startswith(_JPEG_SIGNATURE):
        return _decode_jpeg(data)
    if data.startswith(_PNG_SIGNATURE):
        _check_png(data)
    return _decode_cv2(data)


def _decode_cv2(data: bytes) -> Grey:
    grey = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    if grey is None:
        raise ValueError("cannot be decoded as an image")
    return grey


def _decode_jpeg(data: bytes) -> Grey:
    """Decode strictly: cv2 and PIL do not notice bytes that are lost from the middle of a JPEG.

    Of 100 photographs with 50 zeroed bytes somewhere in the middle, strict decoding noticed all.
    """
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        if "subsampling" not in str(error):
            raise
        # libjpeg-turbo's API knows only the usual chroma subsamplings, and says the same of a header cut short.
        return _decode_cv2(data)
    if height * width > _MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels are more than can be decoded")
    grey = simplejpeg.decode_jpeg(data, colorspace="GRAY", strict=True)[..., 0]
    return _upright(grey, exif_orientation(data))


def _upright(grey: Grey, orientation: int) -> Grey:
    """Turn and mirror as EXIF's orientations 2..8 ask; 1 is upright.

    Source: CIPA DC-008 (Exif 2.32), section 4.6.4, tag 0x0112.
    """
    if orientation >= 5:
        grey = cv2.transpose(grey)
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return grey if flip is None else cv2.flip(grey, flip)


def exif_orientation(data: bytes) -> int:
    """Return the EXIF orientation of a JPEG's bytes, 1..8; 1 where there is none or it makes no sense.

    >>> exif_orientation(b"no JPEG at all")
    1
    """
    try:
        tiff = _exif_block(data)
        order = {b"II": "<", b"MM": ">"}[tiff[:2]]
        (start,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(order + "HH", tiff, entry)
            if (tag, kind) == (0x0112, 3):
                (value,) = struct.unpack_from(order + "H", tiff, entry + 8)
                return value if 1 <= value <= 8 else 1
    except (struct.error, KeyError):
        pass
    return 1


def _exif_block(data: bytes) -> bytes:
    """Return the TIFF structure in a JPEG's first Exif segment, or no bytes."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        (size,) = struct.unpack_from(">H", data, at + 2)
        if marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            return data[at + 10 : at + 2 + size]
        if marker == 0xDA:  # the image itself: no headers after it
            break
        at += 2 + size
    return b""


def _check_png(data: bytes) -> None:
    """Walk the chunks of a PNG and check each CRC.

    Raises:
        ValueError: A chunk is cut short or damaged, or the end is missing.

    Source: W3C Portable Network Graphics, section 5.3.
    """
    at = len(_PNG_SIGNATURE)
    while at + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        kind, end = data[at + 4 : at + 8], at + 12 + size
        if end > len(data):
            break
        if zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise ValueError(f"damaged PNG: chunk {kind.decode('latin-1')!r} at byte {at} has a wrong checksum")
        if kind == b"IEND":
            return
        at = end
    raise ValueError("damaged PNG: it ends before its end chunk")
