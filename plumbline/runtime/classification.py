"""What a classifier says of one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from plumbline.errors import BackendError


@dataclass(frozen=True)
class Classification:
    """The classes of one image.

    Attributes:
        probabilities: Shape (C,), float32, of every class; they add up to 1.
        confidence_threshold: Of the artifact, or what the caller asked for.
    """

    probabilities: npt.NDArray[np.float32]
    confidence_threshold: float

    @property
    def class_id(self) -> int:
        """Index of the most probable class, the first of equals."""
        return int(self.probabilities.argmax())

    @property
    def confidence(self) -> float:
        """Probability of that class."""
        return float(self.probabilities[self.class_id])

    @property
    def accepted(self) -> bool:
        """Whether the confidence reaches the threshold; below it, let a person look."""
        # In float32, as `Detections.above` compares: 0.7 and float32's 0.7 are one threshold.
        return bool(self.probabilities[self.class_id] >= float(self.confidence_threshold))

    def top(self, count: int) -> list[tuple[int, float]]:
        """Return (class_id, probability) of the `count` most probable classes, the best first."""
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [(int(index), float(self.probabilities[index])) for index in order]


def classify(
    outputs: Sequence[npt.NDArray[np.floating[Any]]], num_classes: int, confidence_threshold: float
) -> Classification:
    """Turn logits into probabilities.

    Args:
        outputs: One tensor of shape (1, C), or of more axes of length 1.
        num_classes: C, of the artifact's class names.
        confidence_threshold: See `Classification`.

    Raises:
        BackendError: There are more or fewer logits than classes, or one is NaN or infinite.

    >>> classify([np.array([[0.0, np.log(3.0)]])], 2, 0.5).top(1)
    [(1, 0.75)]
    """
    logits = outputs[0].reshape(-1).astype(np.float64)
    if len(logits) != num_classes:
        raise BackendError(
            f"the network gives scores of shape {outputs[0].shape}, expected one for each of the {num_classes} classes"
            " of artifact.json; export the artifact again"
        )
    if not np.isfinite(logits).all():
        raise BackendError("the class scores are not finite, expected numbers; export the artifact again")
    weights = np.exp(logits - logits.max())
    return Classification((weights / weights.sum()).astype(np.float32), confidence_threshold)
