"""Synthetic labels and detections that are like COCO's val2017 in what costs an evaluator time.

That is: 7.2 boxes per image over 80 classes, from common to rare, of which 41 % are small, 34 % medium and 25 % large,
1 % crowds; detections down to a low confidence, some of which lie on one box many times over, and most on nothing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

NUM_CLASSES = 80
CLASS_NAMES = tuple(f"class{number:02d}" for number in range(NUM_CLASSES))
WIDTH, HEIGHT = 640, 480
BOXES_PER_IMAGE = 7.2
XYXY = ["x1", "y1", "x2", "y2"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def make_images(num_images: int) -> pd.DataFrame:
    """Return the images; each is a group of its own."""
    return pd.DataFrame({"image_id": np.arange(num_images), "group": ""})


def make_truth(num_images: int, seed: int) -> pd.DataFrame:
    """Return labels of exactly `BOXES_PER_IMAGE` on average."""
    rng = np.random.default_rng(seed)
    count = round(num_images * BOXES_PER_IMAGE)
    truth = pd.DataFrame(_boxes(count, rng), columns=XYXY)
    truth.insert(0, "image_id", np.sort(rng.integers(0, num_images, count)))
    truth.insert(1, "class_id", _classes(count, rng))
    return truth.assign(crowd=rng.random(count) < 0.01, difficult=False)


def make_detections(truth: pd.DataFrame, num_images: int, per_image: int, seed: int, skill: float) -> pd.DataFrame:
    """Return what a detector may have found.

    Nine in ten boxes are seen, by one good detection and some worse ones of lower confidence; the rest, up to
    `per_image` on average, lies anywhere, half of it of a class that the image has.

    Args:
        truth: From `make_truth`.
        num_images: As there.
        per_image: Detections per image, on average.
        seed: The same gives the same.
        skill: 1 places boxes as a good detector does, less places them worse.
    """
    rng = np.random.default_rng(seed)
    seen = np.flatnonzero(rng.random(len(truth)) < 0.9)
    copies = 1 + rng.poisson(3, len(seen))
    source = np.repeat(seen, copies)
    first = np.zeros(len(source), dtype=bool)
    first[np.cumsum(copies) - copies] = True
    xyxy = truth[XYXY].to_numpy()[source]
    size = np.tile(xyxy[:, 2:] - xyxy[:, :2], 2)
    near = xyxy + rng.normal(0, 1, xyxy.shape) * size * (np.where(first, 0.06, 0.15) / skill)[:, None]
    class_id = truth["class_id"].to_numpy()[source]
    class_id = np.where(rng.random(len(source)) < 0.9, class_id, _classes(len(source), rng))
    confidence = np.where(first, rng.beta(5, 2, len(source)), rng.beta(1, 8, len(source)))
    rest = max(num_images * per_image - len(source), 0)
    image_id = rng.integers(0, num_images, rest)
    return _table(
        np.concatenate([truth["image_id"].to_numpy()[source], image_id]),
        np.concatenate([class_id, _classes_there(truth, image_id, rng)]),
        np.concatenate([confidence, rng.beta(1, 20, rest)]),
        np.concatenate([near, _boxes(rest, rng)]),
    )


def _table(image_id: Ints, class_id: Ints, confidence: Floats, xyxy: Floats) -> pd.DataFrame:
    """Return detections as an artifact writes them: float32, an image's most confident first."""
    xyxy = np.hstack([np.minimum(xyxy[:, :2], xyxy[:, 2:]), np.maximum(xyxy[:, :2], xyxy[:, 2:])])
    found = pd.DataFrame(xyxy.astype(np.float32), columns=XYXY)
    found.insert(0, "image_id", image_id)
    found.insert(1, "class_id", class_id)
    found.insert(2, "confidence", confidence.astype(np.float32))
    keys, rising = ["image_id", "confidence", "class_id", *XYXY], [True, False, *[True] * 5]
    return found.sort_values(keys, ascending=rising, ignore_index=True)


def _boxes(count: int, rng: np.random.Generator) -> Floats:
    """Return boxes of COCO's sizes, shape (count, 4), which may reach beyond the image."""
    shares = np.array([0.41, 0.34, 0.25])
    low, high = np.array([8.0, 32.0, 96.0]), np.array([32.0, 96.0, 400.0])
    kind = rng.choice(3, count, p=shares)
    side = np.exp(rng.uniform(np.log(low[kind]), np.log(high[kind])))
    aspect = np.exp(rng.normal(0, 0.4, count))
    wh = np.stack([side * aspect, side / aspect], axis=1)
    centre = rng.uniform([0, 0], [WIDTH, HEIGHT], (count, 2))
    return np.hstack([centre - wh / 2, centre + wh / 2])


def _classes(count: int, rng: np.random.Generator) -> Ints:
    commonness = 1 / np.arange(1, NUM_CLASSES + 1)
    return rng.choice(NUM_CLASSES, count, p=commonness / commonness.sum())


def _classes_there(truth: pd.DataFrame, image_id: Ints, rng: np.random.Generator) -> Ints:
    """Return for each image a class that it has, or any other, as often the one as the other."""
    ids, class_id = truth["image_id"].to_numpy(), truth["class_id"].to_numpy()
    begin, end = np.searchsorted(ids, image_id, "left"), np.searchsorted(ids, image_id, "right")
    one = class_id[np.minimum(begin + (rng.random(len(begin)) * (end - begin)).astype(int), len(ids) - 1)]
    return np.where((rng.random(len(begin)) < 0.5) & (end > begin), one, _classes(len(begin), rng))
