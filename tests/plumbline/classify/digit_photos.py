"""Handwritten digits as photograph-like images: coloured, lit differently, noisy."""

import cv2
import numpy as np
from sklearn.datasets import load_digits

from plumbline.runtime.artifact import Preprocessing
from plumbline.runtime.preprocess import preprocess


def digit_photos(count, size_wh=(40, 32), seed=0):
    """Return images (BGR, uint8) and their classes, 0..9 in turn as scikit-learn has them."""
    rng = np.random.default_rng(seed)
    digits = load_digits()
    photos = []
    for ink in digits.images[:count]:
        large = np.clip(cv2.resize(ink / 16, size_wh, interpolation=cv2.INTER_CUBIC), 0, 1)[..., None]
        paper, pen = rng.uniform(0, 90, 3), rng.uniform(120, 255, 3)
        photo = (paper + (pen - paper) * large) * rng.uniform(0.6, 1) + rng.normal(0, 4, large.shape)
        photos.append(np.clip(photo, 0, 255).astype(np.uint8))
    return photos, digits.target[:count]


def digit_tensors(count, side, spec=None, seed=0):
    """Return network inputs of shape (1, 3, side, side), and their classes."""
    photos, classes = digit_photos(count, seed=seed)
    return [preprocess(photo, (side, side), spec or Preprocessing())[0] for photo in photos], classes
