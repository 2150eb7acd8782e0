"""What training does to an image before the network sees it: moved, turned, scaled, mirrored and recoloured at random.

The random state is a function of the seed, the epoch and the image alone, so that neither the number of worker
processes nor a run that was killed and goes on changes what the network sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from plumbline.runtime.preprocess import Image

# Of the luma of ITU-R BT.601, for blue, green and red.
GREY_WEIGHTS = np.array([0.114, 0.587, 0.299], dtype=np.float32)


@dataclass(frozen=True)
class Augmentation:
    """How much is changed; see `plumbline.training_settings.ClassifyTraining`.

    Attributes:
        flip_horizontal: Probability.
        rotate_degrees: Turned by up to so much, either way.
        shift: Moved by up to this share of the side, either way, in x and y.
        zoom: Scaled by 1 - zoom to 1 + zoom.
        color_jitter: Brightness, contrast and saturation times 1 - this to 1 + this.
    """

    flip_horizontal: float
    rotate_degrees: float
    shift: float
    zoom: float
    color_jitter: float

    @property
    def moves(self) -> bool:
        """Whether pixels change their place."""
        return any((self.flip_horizontal, self.rotate_degrees, self.shift, self.zoom))


def augment(image: Image, how: Augmentation, rng: np.random.Generator) -> Image:
    """Return a changed image; what comes in from outside repeats the border's pixels.

    Repeated, not grey: that goes on as the image's own background or its letterbox's padding does.

    Args:
        image: BGR, shape (H, W, 3), uint8; not changed.
        how: See `Augmentation`.
        rng: Always asked for the same number of values, so that one setting does not change another's draw.
    """
    turn, zoom, shift_x, shift_y, flip, *colors = rng.random(8).tolist()
    if how.moves:
        height, width = image.shape[:2]
        matrix = affine_matrix(
            (width, height),
            degrees=how.rotate_degrees * (2 * turn - 1),
            scale=1 + how.zoom * (2 * zoom - 1),
            shift_xy=(how.shift * width * (2 * shift_x - 1), how.shift * height * (2 * shift_y - 1)),
            mirrored=flip < how.flip_horizontal,
        )
        image = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    if how.color_jitter:
        image = recolored(image, *(1 + how.color_jitter * (2 * color - 1) for color in colors))
    return image


def affine_matrix(
    size_wh: tuple[int, int], *, degrees: float, scale: float, shift_xy: tuple[float, float], mirrored: bool
) -> npt.NDArray[np.float64]:
    """Return the matrix of shape (2, 3) that takes a pixel's centre to its new place, about the image's centre.

    >>> affine_matrix((5, 3), degrees=0, scale=1, shift_xy=(0, 0), mirrored=True).tolist()
    [[-1.0, 0.0, 4.0], [0.0, 1.0, 0.0]]
    """
    # Pixel centres are whole numbers in warpAffine: the middle of five pixels is 2.
    center = np.array([(size_wh[0] - 1) / 2, (size_wh[1] - 1) / 2])
    cos, sin = scale * np.cos(np.deg2rad(degrees)), scale * np.sin(np.deg2rad(degrees))
    linear = np.array([[cos, sin], [-sin, cos]])
    if mirrored:
        linear = linear @ np.diag([-1.0, 1.0])
    return np.column_stack([linear, center + shift_xy - linear @ center]) + 0.0


def recolored(image: Image, brightness: float, contrast: float, saturation: float) -> Image:
    """Return an image with changed brightness, contrast (about its mean grey) and saturation (about each pixel's grey).

    Args:
        image: BGR, shape (H, W, 3), uint8.
        brightness: Factor; 1 changes nothing.
        contrast: Factor.
        saturation: Factor.
    """
    values: npt.NDArray[np.floating[Any]] = image.astype(np.float32) * np.float32(brightness)
    grey = values @ GREY_WEIGHTS
    values = grey[..., None] + (values - grey[..., None]) * np.float32(saturation)
    mean = grey.mean()
    values = mean + (values - mean) * np.float32(contrast)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
