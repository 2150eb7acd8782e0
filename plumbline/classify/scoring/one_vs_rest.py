"""Curves of one class against all others, over every threshold on its probability: precision-recall and ROC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

POINTS = np.linspace(0.0, 1.0, 101)  # of recall, as COCO has them; of the false-positive rate too


@dataclass(frozen=True)
class OneVsRest:
    """The curves of every class.

    Attributes:
        precision: Shape (101, C): the highest precision at a recall of at least each of `POINTS`, as COCO and Pascal
            VOC interpolate; NaN for a class without images.
        true_positive_rate: Shape (101, C): of the class's images, the share found at a share of each of `POINTS` of
            the others; between two thresholds on a line. NaN where there is no image of the class, or no other.
        roc_auc: Shape (C,): the area below the ROC curve; NaN as above.
    """

    precision: Floats
    true_positive_rate: Floats
    roc_auc: Floats


def one_vs_rest(probabilities: npt.NDArray[np.floating[Any]], actual: npt.NDArray[np.int64]) -> OneVsRest:
    """Draw the curves of every class.

    Args:
        probabilities: Shape (N, C).
        actual: Shape (N,), class_id.
    """
    num_classes = probabilities.shape[1]
    precision = np.full((len(POINTS), num_classes), np.nan)
    true_positive_rate = precision.copy()
    roc_auc = np.full(num_classes, np.nan)
    for class_id in np.unique(actual).tolist():
        of_class = actual == class_id
        hits, false = cumulated(probabilities[:, class_id], of_class)
        recall = hits / hits[-1]
        precision[:, class_id] = _interpolated(recall, hits / (hits + false))
        if false[-1]:
            rates = np.append(0.0, false / false[-1]), np.append(0.0, recall)
            roc_auc[class_id] = np.trapezoid(rates[1], rates[0])
            true_positive_rate[:, class_id] = _on_roc(*rates)
    return OneVsRest(precision, true_positive_rate, roc_auc)


def cumulated(
    scores: npt.NDArray[np.floating[Any]], positive: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Count hits and false alarms at every threshold that is one of the scores, the highest first.

    Equal scores are one threshold.

    >>> [counts.tolist() for counts in cumulated(np.array([0.1, 0.9, 0.9]), np.array([True, True, False]))]
    [[1, 2], [1, 1]]
    """
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    last = np.append(np.flatnonzero(falling[1:] != falling[:-1]), len(falling) - 1)
    hits = np.cumsum(positive[order])[last]
    return hits, last + 1 - hits


def _interpolated(recall: Floats, precision: Floats) -> Floats:
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    return best_from_here[np.searchsorted(recall, POINTS, side="left")]


def _on_roc(false_positive_rate: Floats, true_positive_rate: Floats) -> Floats:
    """Read a ROC curve, which rises straight up in places, at `POINTS`; at each the highest value."""
    places = np.searchsorted(false_positive_rate, POINTS, side="right") - 1
    after = np.minimum(places + 1, len(false_positive_rate) - 1)
    width = false_positive_rate[after] - false_positive_rate[places]
    share = np.divide(POINTS - false_positive_rate[places], width, out=np.zeros(len(POINTS)), where=width > 0)
    return true_positive_rate[places] + share * (true_positive_rate[after] - true_positive_rate[places])
