"""From a file or a camera frame to the network's input tensor, and back from its pixels to the image's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from plumbline.errors import BackendError, DatasetError
from plumbline.runtime.artifact import Preprocessing

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Letterbox:
    """Where an image lies in the network's input.

    Attributes:
        scale: Input pixels per image pixel.
        offset_xy: Left and top padding, input pixels.
        resolution_wh: Of the original image, pixels.
    """

    scale: float
    offset_xy: tuple[int, int]
    resolution_wh: tuple[int, int]

    def to_image(self, xyxy: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
        """Return boxes of shape (N, 4) in input pixels as pixels of the original image, clipped to it."""
        width, height = self.resolution_wh
        left, top = self.offset_xy
        moved = (xyxy - np.array([left, top, left, top])) / self.scale
        return np.clip(moved, 0, np.array([width, height, width, height])).astype(np.float32)


def read_image(path: Path | str) -> Image:
    """Decode an image file to BGR of shape (H, W, 3), with its EXIF orientation applied.

    Raises:
        DatasetError: The file is missing or cannot be decoded.
    """
    path = Path(path)
    if not path.is_file():
        raise DatasetError(f"{path}: no such image file; check the path")
    return decode_image(np.fromfile(path, np.uint8), str(path))


def decode_image(data: npt.NDArray[np.uint8], name: str) -> Image:
    """Decode the bytes of an image file to BGR of shape (H, W, 3), with its EXIF orientation applied.

    Args:
        data: Shape (N,).
        name: Of the file, for the error.

    Raises:
        DatasetError: They cannot be decoded.
    """
    # Not imread: OpenCV 5.0's gives nothing for a TIFF that EXIF turns by 90 degrees, which imdecode reads.
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    if image is None:
        raise DatasetError(
            f"{name}: cannot be decoded, expected a JPEG, PNG, BMP, WebP or TIFF image; replace the file"
        )
    return image


def preprocess(
    image: Image, size_wh: tuple[int, int], spec: Preprocessing
) -> tuple[npt.NDArray[np.float32], Letterbox]:
    """Resize an image and bring its values into the network's range.

    Args:
        image: BGR, shape (H, W, 3), uint8.
        size_wh: Of the network's input.
        spec: From the artifact.

    Returns:
        The tensor, RGB, shape (1, 3, H, W), float32, contiguous; and where the image lies in it, which is meant for
        boxes and true of a letterbox alone.

    Raises:
        BackendError: The artifact asks for what this runtime does not know.
    """
    resized, letterbox = resize_image(image, size_wh, spec)
    tensor = np.empty((1, 3, size_wh[1], size_wh[0]), dtype=np.float32)
    np.multiply(resized[..., ::-1].transpose(2, 0, 1), np.float32(spec.scale), out=tensor[0])
    if any(spec.mean):
        tensor -= np.array(spec.mean, dtype=np.float32).reshape(1, 3, 1, 1)
    if spec.std != (1.0, 1.0, 1.0):
        tensor /= np.array(spec.std, dtype=np.float32).reshape(1, 3, 1, 1)
    return tensor, letterbox


def resize_image(image: Image, size_wh: tuple[int, int], spec: Preprocessing) -> tuple[Image, Letterbox]:
    """Do the first half of `preprocess`: return BGR of shape (size_h, size_w, 3), uint8, and where the image lies."""
    if spec.resize not in _RESIZES or spec.interpolation != "linear":
        raise BackendError(
            f"the artifact asks for resize {spec.resize!r} and interpolation {spec.interpolation!r}, expected resize"
            f" {', '.join(_RESIZES)} and interpolation linear; run it with the version that exported it"
        )
    return _RESIZES[spec.resize](image, size_wh, spec.pad_value)


def _letterbox(image: Image, size_wh: tuple[int, int], pad_value: int) -> tuple[Image, Letterbox]:
    height, width = image.shape[:2]
    scale = min(size_wh[0] / width, size_wh[1] / height)
    inner_wh = (max(1, round(width * scale)), max(1, round(height * scale)))
    # The odd pixel goes to the right and bottom, as ultralytics does when it trains (round(x - 0.1)).
    left, top = (round((outer - inner) / 2 - 0.1) for outer, inner in zip(size_wh, inner_wh, strict=True))
    resized = _resized(image, inner_wh)
    if inner_wh != tuple(size_wh):
        canvas = np.full((size_wh[1], size_wh[0], 3), pad_value, dtype=np.uint8)
        canvas[top : top + inner_wh[1], left : left + inner_wh[0]] = resized
        resized = canvas
    return resized, Letterbox(scale, (left, top), (width, height))


def _crop(image: Image, size_wh: tuple[int, int], _pad_value: int) -> tuple[Image, Letterbox]:
    height, width = image.shape[:2]
    scale = max(size_wh[0] / width, size_wh[1] / height)
    # Cut off first: a strip of 1 x 60,000 pixels would not fit into memory once it is enlarged to fill the input.
    inner_wh = (min(width, max(1, round(size_wh[0] / scale))), min(height, max(1, round(size_wh[1] / scale))))
    left, top = ((outer - inner) // 2 for outer, inner in zip((width, height), inner_wh, strict=True))
    middle = image[top : top + inner_wh[1], left : left + inner_wh[0]]
    return _resized(middle, size_wh), Letterbox(scale, (-round(left * scale), -round(top * scale)), (width, height))


def _stretch(image: Image, size_wh: tuple[int, int], _pad_value: int) -> tuple[Image, Letterbox]:
    height, width = image.shape[:2]
    return _resized(image, size_wh), Letterbox(size_wh[0] / width, (0, 0), (width, height))


def _resized(image: Image, wh: tuple[int, int]) -> Image:
    same = tuple(wh) == (image.shape[1], image.shape[0])
    return image if same else cv2.resize(image, wh, interpolation=cv2.INTER_LINEAR)


# Value of `Preprocessing.resize` -> how.
_RESIZES = {"letterbox": _letterbox, "crop": _crop, "stretch": _stretch}
