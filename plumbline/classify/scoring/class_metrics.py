"""Numbers of a classification: accuracy, precision, recall and F1 by class, calibration error, log loss.

They are scikit-learn's, and the tests hold them to it. A mean over classes ("macro") is over the classes with images:
another number of images of a class does not change its weight, and a class without images has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

TOP = 5
CALIBRATION_BINS = 15  # as Guo et al. have it

# The smallest probability that the log loss sees, as scikit-learn has it for float32: one certain mistake would else
# make it infinite.
_LEAST_PROBABILITY = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class ByClass:
    """Precision, recall and F1 of each class, shape (..., C); NaN where undefined.

    Attributes:
        precision: Of the images given the class, those that have it; 0 where none was given it although it has images
            (scikit-learn's ``zero_division=0``), undefined where it has no images either.
        recall: Of its images, those given it; undefined where it has none.
        f1: 2 TP / (its images + images given it), the harmonic mean of the two; undefined where it has no images.
    """

    precision: Floats
    recall: Floats
    f1: Floats


def by_class(hits: npt.NDArray[Any], images: npt.NDArray[Any], given: npt.NDArray[Any]) -> ByClass:
    """Divide counts of shape (..., C).

    Args:
        hits: Images of the class that were given it.
        images: Images of the class.
        given: Images that were given the class.

    >>> by_class(np.array([1, 0, 0]), np.array([2, 1, 0]), np.array([1, 0, 2])).precision.tolist()
    [1.0, 0.0, 0.0]
    """
    hits, images, given = (np.asarray(counts, dtype=np.float64) for counts in (hits, images, given))
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(given > 0, hits / given, np.where(images > 0, 0.0, np.nan))
        recall = np.where(images > 0, hits / images, np.nan)
        f1 = np.where(images > 0, 2 * hits / (images + given), np.nan)
    return ByClass(precision, recall, f1)


def class_counts(actual: Ints, predicted: Ints, num_classes: int) -> tuple[Ints, Ints, Ints]:
    """Return hits, images and given of `by_class`, each of shape (C,).

    >>> [counts.tolist() for counts in class_counts(np.array([0, 0, 1]), np.array([0, 1, 1]), 2)]
    [[1, 1], [2, 1], [1, 2]]
    """
    hits, images, given = (
        np.bincount(ids, minlength=num_classes) for ids in (actual[actual == predicted], actual, predicted)
    )
    return hits, images, given


def in_top(probabilities: npt.NDArray[np.floating[Any]], actual: Ints, count: int = TOP) -> npt.NDArray[np.bool_]:
    """Return where the label's class is among the `count` most probable; of equal ones the first come first.

    Args:
        probabilities: Shape (N, C).
        actual: Shape (N,).
        count: 1 or more.

    >>> in_top(np.array([[0.2, 0.4, 0.4], [0.2, 0.4, 0.4]]), np.array([1, 2]), 1).tolist()
    [True, False]
    """
    own = probabilities[np.arange(len(actual)), actual][:, None]
    earlier = np.arange(probabilities.shape[1]) < actual[:, None]
    ahead = (probabilities > own) | ((probabilities == own) & earlier)
    return ahead.sum(axis=1) < count


def calibration_rows(confidence: npt.NDArray[np.floating[Any]], right: npt.NDArray[np.bool_]) -> tuple[Floats, ...]:
    """Sort predictions into bins of equal width by their confidence, (0, 1/15] to (14/15, 1]; empty bins are left out.

    Returns:
        Mean confidence, share that is right, and number of predictions of each bin that has any.

    >>> [column.tolist() for column in calibration_rows(np.array([0.5, 0.5, 1.0]), np.array([True, False, True]))]
    [[0.5, 1.0], [0.5, 1.0], [2.0, 1.0]]
    """
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    values = np.asarray(confidence, dtype=np.float64)
    # side=left: a confidence on an edge belongs to the bin below. The sum of rounded probabilities may pass 1.
    bins = np.clip(np.searchsorted(edges, values, side="left") - 1, 0, CALIBRATION_BINS - 1)
    count = np.bincount(bins, minlength=CALIBRATION_BINS).astype(np.float64)
    filled = count > 0
    sums = (np.bincount(bins, weights=what, minlength=CALIBRATION_BINS) for what in (values, right.astype(np.float64)))
    mean_confidence, accuracy = (total[filled] / count[filled] for total in sums)
    return mean_confidence, accuracy, count[filled]


def calibration_error(confidence: npt.NDArray[np.floating[Any]], right: npt.NDArray[np.bool_]) -> float:
    """Return the expected calibration error: how far confidence and accuracy lie apart, the mean over predictions.

    Source: Guo et al., On Calibration of Modern Neural Networks, 2017, equation 3. https://arxiv.org/abs/1706.04599

    >>> calibration_error(np.array([0.9, 0.9]), np.array([True, False]))
    0.4
    """
    mean_confidence, accuracy, count = calibration_rows(confidence, right)
    return float((np.abs(mean_confidence - accuracy) * count).sum() / count.sum())


def log_loss(probabilities: npt.NDArray[np.floating[Any]], actual: Ints) -> float:
    """Return the mean of -log of the probability of the label's class, which is never taken below float32's epsilon.

    >>> round(log_loss(np.array([[0.5, 0.5]]), np.array([0])), 6)
    0.693147
    """
    own = probabilities[np.arange(len(actual)), actual].astype(np.float64)
    return float(-np.log(np.clip(own, _LEAST_PROBABILITY, 1)).mean())
