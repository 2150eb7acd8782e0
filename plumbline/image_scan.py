"""Look at an image file once: is it whole, how large is it, how bright and sharp, and what does it look like.

The numbers describe the image as people see it and as `cv2.imread` returns it: after EXIF orientation.

What damage is found was measured on photographs of BCCD, 244 or more of each kind:

==============================  ====================================================================================
cut short                       all, of every type; with a forged end marker all of JPEG and PNG, and 299 of 300 in a
                                progressive JPEG, whose last bits are of the finest detail
64 bytes lost (zeroed)          all in PNG, lossless WebP, TIFF of deflate and of JPEG, and a baseline JPEG (of 32 bytes
                                too); 95% in a progressive one, 99% in TIFF of LZW; 12% in lossy WebP; none in
                                BMP and TIFF without compression, which are whole as long as they are complete
one bit flipped                 all in PNG and deflated TIFF, which have checksums; 31% in a JPEG, which has none: any
                                other is a picture like the true one; 46% in a progressive one
==============================  ====================================================================================
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg

from plumbline.image_damage import DamagedImageError, Header, read_header

Grey = npt.NDArray[np.uint8]

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

_HASH_SIDE = 8
_HASH_INPUT_SIDE = 32
_REDUCED_SIDE = 45
_REDUCTIONS = (8, 4, 2)


@dataclass(frozen=True)
class ImageScan:
    """What one image file holds.

    Brightness, contrast, sharpness and the hash are those of the grey image made smaller by `reduction`, each of its
    pixels the mean of a square: of the same picture they do not depend on the type of the file.

    Attributes:
        sha256: Hex, of the file's bytes; of no bytes when the file cannot be opened.
        width: Pixels, after EXIF orientation; 0 when unreadable.
        height: Pixels, after EXIF orientation; 0 when unreadable.
        phash: 64-bit perceptual hash: images that look alike differ in few bits; 0 when unreadable.
        readable: False when the file cannot be decoded or its content is damaged.
        brightness: Mean of the reduced grey image, 0..255.
        contrast: Standard deviation of the reduced grey image.
        sharpness: Variance of the reduced grey image's Laplacian: a blur smaller than `reduction` is not in it.
        problem: Why it is not readable; "" when it is.
        damaged: It is an image, but cut short or damaged; it is not readable then.
        exif_orientation: 1..8, as EXIF numbers them; 1 is upright. `width` and `height` are those after turning.
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
    damaged: bool = False
    exif_orientation: int = 1


def scan_image(path: Path) -> ImageScan:
    """Scan one image file, reading it once; a bad image is a result with `readable` False, never an exception."""
    try:
        with path.open("rb", buffering=0) as file:
            data = file.read()
    except OSError as error:
        return unreadable_scan(b"", f"cannot be opened ({error.strerror or error})")
    return scan_bytes(data)


def scan_bytes(data: bytes) -> ImageScan:
    """Scan the bytes of an image file; a bad image is a result with `readable` False, never an exception."""
    try:
        header = read_header(data)
        grey, width, height = _decode(data, header)
    except (ValueError, cv2.error) as error:
        return unreadable_scan(data, " ".join(str(error).split()), damaged=isinstance(error, DamagedImageError))
    mean, deviation = cv2.meanStdDev(grey)
    _, edges = cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_16S, ksize=1))
    return ImageScan(
        sha256=hashlib.sha256(data).hexdigest(),
        width=width,
        height=height,
        phash=perceptual_hash(grey),
        readable=True,
        brightness=float(mean[0, 0]),
        contrast=float(deviation[0, 0]),
        sharpness=float(edges[0, 0]) ** 2,
        problem="",
        exif_orientation=header.orientation,
    )


def unreadable_scan(data: bytes, problem: str, *, damaged: bool = False) -> ImageScan:
    """Return the scan of an image that cannot be read, and why."""
    return ImageScan(hashlib.sha256(data).hexdigest(), 0, 0, 0, False, 0.0, 0.0, 0.0, problem, damaged)


def reduction(width: int, height: int) -> int:
    """Return by how much an image is made smaller before it is measured: 8, 4, 2 or 1.

    It is the most that leaves the shorter side 45 pixels or more, enough for the hash. A JPEG of such a size is
    decoded from fewer of its frequencies, and so in less time; all of its bytes are looked at nevertheless.

    >>> reduction(500, 375), reduction(320, 240), reduction(89, 500)
    (8, 4, 1)
    """
    return next((factor for factor in _REDUCTIONS if min(width, height) >= factor * _REDUCED_SIDE), 1)


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
    rest = len(frequencies) - 1
    bits = frequencies > np.partition(frequencies[1:], rest // 2)[rest // 2]
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _decode(data: bytes, header: Header) -> tuple[Grey, int, int]:
    """Decode to the reduced grey image, shape (H, W), and the whole one's width and height, after EXIF orientation.

    Raises:
        DamagedImageError: The content is damaged.
        ValueError: It is of a kind that cv2 does not decode.
        cv2.error: cv2 refuses it.
    """
    factor = reduction(header.width, header.height)
    if header.kind == "jpeg":
        grey = _decode_jpeg(data, header, factor)
        if grey is not None:
            size_wh = header.width, header.height
            return _upright(grey, header.orientation), *(size_wh if header.orientation < 5 else size_wh[::-1])
    # In grey, too, cv2 turns the image as EXIF asks.
    full = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    if full is None and header.kind in ("bmp", "tiff"):  # of which there are many kinds that cv2 does not know
        raise ValueError(f"a {header.kind.upper()} that cannot be decoded, damaged or of a kind that is not read")
    if full is None:
        raise DamagedImageError(f"damaged {header.kind.upper()}: it cannot be decoded")
    height, width = full.shape
    return _reduce(full, factor), width, height


def _reduce(grey: Grey, factor: int) -> Grey:
    """Take the mean of each square of `factor` pixels, as libjpeg does; those at the edges are filled as it does."""
    if factor == 1:
        return grey
    height, width = grey.shape
    whole = cv2.copyMakeBorder(grey, 0, -height % factor, 0, -width % factor, cv2.BORDER_REPLICATE)
    return cv2.resize(whole, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)


def _decode_jpeg(data: bytes, header: Header, factor: int) -> Grey | None:
    """Decode strictly; None for a whole JPEG of a kind whose grey only cv2 can make.

    cv2 and Pillow do not notice bytes that are lost from the middle of a JPEG.
    """
    # libjpeg makes the smallest image that has these sides; without them, the whole.
    sides = {} if factor == 1 else {"min_height": -(-header.height // factor), "min_width": -(-header.width // factor)}
    try:
        grey: Grey = simplejpeg.decode_jpeg(data, colorspace="GRAY", strict=True, **sides)[..., 0]
    except KeyError as error:
        raise DamagedImageError(f"damaged JPEG: {error}") from error
    except ValueError as error:
        # libjpeg-turbo's API knows only the usual chroma subsamplings, and can do no strict decoding of others.
        if "subsampling" in str(error) and b"\xff\xd9" in data[-4096:]:
            return None
        raise DamagedImageError(f"damaged JPEG: {error}") from error
    # For grey, libjpeg gives the first of the four inks.
    return None if header.num_channels == 4 else grey


def _upright(grey: Grey, orientation: int) -> Grey:
    """Turn and mirror as EXIF's orientations 2..8 ask; 1 is upright.

    Source: CIPA DC-008 (Exif 2.32), section 4.6.4, tag 0x0112.
    """
    if orientation >= 5:
        grey = cv2.transpose(grey)
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return grey if flip is None else cv2.flip(grey, flip)
