"""What a detector says of one image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Detections:
    """Boxes of one image, the most confident first.

    Attributes:
        xyxy: Shape (N, 4), float32, pixels of the original image, clipped to it.
        confidence: Shape (N,), float32, 0..1.
        class_id: Shape (N,), int64, index into the artifact's class_names.
    """

    xyxy: npt.NDArray[np.float32]
    confidence: npt.NDArray[np.float32]
    class_id: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.confidence)

    def above(self, confidence: float) -> Detections:
        """Return those at or above a confidence."""
        keep = self.confidence >= confidence
        return Detections(self.xyxy[keep], self.confidence[keep], self.class_id[keep])
