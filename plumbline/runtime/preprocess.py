"""From a file or a camera frame to the network's input tensor, and back from its pixels to the image's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from plumbline.errors import DatasetError
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
    data = np.fromfile(path, np.uint8)
    # Not imread: OpenCV 5.0's gives nothing for a TIFF that EXIF turns by 90 degrees, which imdecode reads.
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    if image is None:
        raise DatasetError(
            f"{path}: cannot be decoded, expected a JPEG, PNG, BMP, WebP or TIFF image; replace the file"
        )
    return image


def preprocess(
    image: Image, size_wh: tuple[int, int], spec: Preprocessing
) -> tuple[npt.NDArray[np.float32], Letterbox]:
    """Letterbox an image and scale it to the network's range.

    Args:
        image: BGR, shape (H, W, 3), uint8.
        size_wh: Of the network's input.
        spec: From the artifact.

    Returns:
        The tensor, RGB, shape (1, 3, H, W), float32, contiguous; and where the image lies in it.
    """
    height, width = image.shape[:2]
    scale = min(size_wh[0] / width, size_wh[1] / height)
    inner_wh = (max(1, round(width * scale)), max(1, round(height * scale)))
    # The odd pixel goes to the right and bottom, as ultralytics does when it trains (round(x - 0.1)).
    left, top = (round((outer - inner) / 2 - 0.1) for outer, inner in zip(size_wh, inner_wh, strict=True))
    resized = image if inner_wh == (width, height) else cv2.resize(image, inner_wh, interpolation=cv2.INTER_LINEAR)
    if inner_wh != tuple(size_wh):
        canvas = np.full((size_wh[1], size_wh[0], 3), spec.pad_value, dtype=np.uint8)
        canvas[top : top + inner_wh[1], left : left + inner_wh[0]] = resized
        resized = canvas
    tensor = np.empty((1, 3, size_wh[1], size_wh[0]), dtype=np.float32)
    np.multiply(resized[..., ::-1].transpose(2, 0, 1), np.float32(spec.scale), out=tensor[0])
    return tensor, Letterbox(scale, (left, top), (width, height))
