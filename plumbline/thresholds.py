"""The confidence threshold above which predictions are shown to a person, chosen from predictions that were judged."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from plumbline.errors import EvaluationError
from plumbline.scores import Threshold, ThresholdRule

Floats = npt.NDArray[np.floating[Any]]
FEWEST_DECIMALS = 6


class NothingFoundError(EvaluationError):
    """No prediction is right: there is nothing to choose a threshold by."""


def choose(confidence: Floats, hits: npt.NDArray[np.bool_], num_objects: int, rule: ThresholdRule) -> Threshold:
    """Choose a threshold by a rule.

    ``best_f1`` takes the best F1, the highest threshold of equals; ``precision`` the lowest threshold with at least the
    precision demanded, which finds the most. Predictions of equal confidence are shown together or not at all.

    Args:
        confidence: Shape (N,), of every prediction that counts, in any order; in the type that a session compares.
        hits: Shape (N,), bool: the prediction is right.
        num_objects: What there was to find.
        rule: See `ThresholdRule`.

    Returns:
        The threshold is rounded down as far as it lets in no other prediction.

    Raises:
        NothingFoundError: No prediction is right.
        EvaluationError: No threshold has the precision demanded.

    >>> choose(np.array([0.9, 0.8, 0.7]), np.array([True, True, False]), 2, ThresholdRule("best_f1", 0.0))
    Threshold(confidence=0.8, precision=1.0, recall=1.0, f1=1.0)
    """
    if not hits.any():
        raise NothingFoundError(
            f"none of {len(hits)} predictions finds any of {num_objects} objects, expected some to choose a confidence"
            " threshold by; train longer, or look at the labels"
        )
    falling, precision, f1 = _by_threshold(confidence, hits, num_objects)
    if rule.rule == "best_f1":
        place = int(f1.argmax())
    elif rule.rule == "precision":
        enough = np.flatnonzero(precision >= rule.precision)
        if not len(enough):
            best = int(precision.argmax())
            raise EvaluationError(
                f"expected a confidence threshold with a precision of {rule.precision:g} or more, got"
                f" {precision[best]:.4g} at the best one, {falling[best]:.4g}; lower threshold.precision, or take the"
                " rule best_f1"
            )
        place = int(enough[-1])
    else:
        raise EvaluationError(f"threshold.rule: expected best_f1 or precision, got {rule.rule!r}")
    shown = confidence >= falling[place]
    lower = falling[place + 1] if place + 1 < len(falling) else None
    return Threshold(
        confidence=_rounded_down(falling[place], lower),
        precision=float(precision[place]),
        recall=float(hits[shown].sum()) / num_objects,
        f1=float(f1[place]),
    )


def best_f1(confidence: Floats, hits: npt.NDArray[np.bool_], num_objects: int) -> tuple[float, float | None]:
    """Return the best F1 of any threshold, and the highest threshold that has it; none where nothing is right.

    >>> best_f1(np.array([0.9, 0.8, 0.7]), np.array([True, True, False]), 2)
    (1.0, 0.8)
    """
    if not hits.any():
        return 0.0, None
    falling, _, f1 = _by_threshold(confidence, hits, num_objects)
    return float(f1.max()), float(falling[f1.argmax()])


def _by_threshold(confidence: Floats, hits: npt.NDArray[np.bool_], num_objects: int) -> tuple[Floats, Floats, Floats]:
    """Return every confidence that occurs, falling, and precision and F1 with it as the threshold."""
    order = np.argsort(-confidence, kind="stable")
    falling, num_hits = confidence[order], np.cumsum(hits[order])
    num_shown = np.arange(1, len(order) + 1)
    # A threshold cannot part equal confidences: only the last of each run is one.
    last = np.append(falling[:-1] != falling[1:], True)
    precision, f1 = num_hits / num_shown, 2 * num_hits / (num_shown + num_objects)
    return falling[last], precision[last], f1[last]


def _rounded_down(confidence: np.floating[Any], lower: np.floating[Any] | None) -> float:
    """Write a confidence with few decimals, so that it stays above the next lower one, also as float32.

    >>> _rounded_down(np.float32(0.7), np.float32(0.1)), _rounded_down(np.float64(0.12345678), np.float64(0.12345674))
    (0.699999, 0.12345678)
    """
    exact = float(confidence)
    for decimals in range(FEWEST_DECIMALS, 16):
        rounded = float(np.floor(exact * 10**decimals) / 10**decimals)
        if rounded <= exact and (lower is None or np.float32(lower) < np.float32(rounded)):
            return rounded
    return exact
