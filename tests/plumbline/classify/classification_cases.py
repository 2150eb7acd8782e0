"""Random classifications with what makes them hard: classes without images, equal probabilities, classes not given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from plumbline.manifest import IMAGES_SCHEMA, table
from plumbline.scores import ScoringSettings

SETTINGS = ScoringSettings(
    confidence_threshold=0.5, confidence_floor=0.001, difficult="count", slices=(), slice_bins=3, worst=4
)


@dataclass(frozen=True)
class Case:
    """Tables as the stage gives them, and the same as arrays for scikit-learn."""

    truth: pd.DataFrame
    predictions: pd.DataFrame
    images: pd.DataFrame
    class_names: tuple[str, ...]
    actual: np.ndarray
    probabilities: np.ndarray

    @property
    def predicted(self):
        return self.probabilities.argmax(axis=1)

    @property
    def with_images(self):
        return np.unique(self.actual)


def images_table(count, groups=None):
    rows = [
        {"image_id": 3 * i, "path": f"images/{i}.png", "source": f"in/{i}.png", "brightness": float(i % 7)}
        | {"group": "" if groups is None else groups[i]}
        for i in range(count)
    ]
    return table(rows, IMAGES_SCHEMA)


def make_case(actual, probabilities, groups=None):
    """Image ids are 0, 3, 6...; rows are in that order."""
    actual, probabilities = np.asarray(actual, np.int64), np.asarray(probabilities, np.float32)
    images = images_table(len(actual), groups)
    predictions = pd.DataFrame(
        {
            "image_id": images["image_id"],
            "class_id": probabilities.argmax(axis=1),
            "confidence": probabilities.max(axis=1),
            "probabilities": list(probabilities),
        }
    )
    truth = pd.DataFrame({"image_id": images["image_id"], "class_id": actual})
    names = tuple(f"c{number}" for number in range(probabilities.shape[1]))
    return Case(truth, predictions, images, names, actual, probabilities)


def random_case(seed, num_images, num_classes, *, coarse=False, groups=None):
    """`coarse` gives multiples of 1/8, so many equal probabilities."""
    rng = np.random.default_rng(seed)
    used = rng.choice(num_classes, rng.integers(1, num_classes + 1), replace=False)
    actual = rng.choice(used, num_images)
    if coarse:
        probabilities = rng.multinomial(8, np.full(num_classes, 1 / num_classes), num_images) / 8
    else:
        logits = rng.normal(0, 1.5, (num_images, num_classes)) + rng.normal(0, 1, num_classes)
        logits[np.arange(num_images), actual] += rng.uniform(0, 3)
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return make_case(actual, probabilities, groups)


CASES = st.builds(random_case, st.integers(0, 2**32), st.integers(1, 60), st.integers(2, 9), coarse=st.booleans())
