"""The bootstrap over images: which image counts how often in which sample, and intervals from what the samples give.

A metric of a split is an estimate from these images; others of the same kind would have given another number. Drawing
the split's images anew, with replacement, shows how far such numbers lie apart. Two networks are compared on the same
samples (paired): what makes a sample hard is hard for both, and drops out of their difference.

Images of one group (scenes drawn from one pool, frames of one video) are not independent, so a group is drawn whole.

Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapters 8 (what is drawn) and 13 (percentiles).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from plumbline.errors import EvaluationError
from plumbline.scores import Interval

CHUNK = 64  # samples that are held at once: 64 of 100,000 images take 51 MB

Weights = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


def check_reference(predictions: Mapping[str, Any], reference: str) -> None:
    """Refuse a comparison with an artifact that has no predictions.

    Raises:
        EvaluationError: It names those that there are.
    """
    if reference not in predictions:
        names = ", ".join(predictions)
        raise EvaluationError(f"no predictions of {reference} to compare with, got those of {names}; evaluate it")


def image_weights(images: pd.DataFrame, samples: int, seed: int, chunk: int = CHUNK) -> Iterator[Weights]:
    """Draw samples of images, whole groups where there are groups, as many as there are, with replacement.

    A sample of groups of unlike sizes holds a little more or fewer images than there are.

    Args:
        images: Columns image_id and group, ``""`` for an image that is a group of its own.
        samples: How many, over all chunks.
        seed: The same seed and images, in whatever order of rows, give the same samples, whatever the chunk.
        chunk: Samples in each array, but for the last.

    Yields:
        Shape (chunk, num_images): how often the image of each row of `images` is in the sample.

    Raises:
        EvaluationError: There is no image.
    """
    if images.empty:
        raise EvaluationError("no images to draw samples from, expected one or more; give the split some images")
    unit_of = _units(images)
    num_units = int(unit_of.max()) + 1
    rng = np.random.default_rng(seed)
    for start in range(0, samples, chunk):
        size = min(chunk, samples - start)
        drawn = rng.integers(0, num_units, (size, num_units)) + num_units * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * num_units).reshape(size, num_units)
        yield counts[:, unit_of]


def num_drawn(images: pd.DataFrame) -> int:
    """Return how many images and groups a sample is drawn from; fewer than about 20 give intervals of little worth."""
    return int(_units(images).max(initial=-1)) + 1


def _units(images: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Number what is drawn as one, in the order of its first image_id; shape (num_images,).

    >>> _units(pd.DataFrame({"image_id": [5, 3, 4, 1], "group": ["b", "", "b", ""]})).tolist()
    [2, 1, 2, 0]
    """
    ids, groups = images["image_id"].to_numpy(np.int64), images["group"].fillna("").to_numpy(object)
    numbers: dict[tuple[str, int], int] = {}
    units = np.empty(len(ids), dtype=np.int64)
    for place in np.argsort(ids, kind="stable").tolist():
        key = (str(groups[place]), -1) if groups[place] else ("", int(ids[place]))
        units[place] = numbers.setdefault(key, len(numbers))
    return units


def interval(
    value: float, sampled: Floats, reference_value: float, reference_sampled: Floats, level: float
) -> Interval:
    """Make percentile intervals of a metric and of its difference to the reference on the same samples.

    A sample on which the metric is undefined (NaN) counts for neither; where it always is, the ends are NaN.

    Args:
        value: On all images.
        sampled: Shape (samples,), in the order of `image_weights`.
        reference_value: Of the reference, on all images.
        reference_sampled: Of the reference, on the same samples.
        level: 0.95 for a 95 % interval.

    >>> a, b = np.arange(101.0), np.arange(101.0) + 1
    >>> interval(50.0, a, 51.0, b, 0.5)
    Interval(value=50.0, low=25.0, high=75.0, difference=-1.0, difference_low=-1.0, difference_high=-1.0)
    """
    low, high = _percentiles(sampled, level)
    difference_low, difference_high = _percentiles(sampled - reference_sampled, level)
    return Interval(value, low, high, value - reference_value, difference_low, difference_high)


def _percentiles(sampled: npt.NDArray[np.floating[Any]], level: float) -> tuple[float, float]:
    known = sampled[~np.isnan(sampled)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_intervals(
    values: Mapping[str, Mapping[str, float]],
    sampled: Mapping[str, Mapping[str, Floats]],
    reference: str,
    level: float,
) -> dict[str, dict[str, Interval]]:
    """Make the interval of every metric of every artifact.

    Args:
        values: Name of an artifact -> metric -> its value on all images; an undefined one is not there.
        sampled: Name -> metric -> shape (samples,), for all that `values` has.
        reference: The name that the others are compared with; a metric that it lacks is left out for all.
        level: 0.95 for a 95 % interval.
    """
    base, base_sampled = values[reference], sampled[reference]
    return {
        name: {
            metric: interval(value, sampled[name][metric], base[metric], base_sampled[metric], level)
            for metric, value in metrics.items()
            if metric in base
        }
        for name, metrics in values.items()
    }
