"""What a classifier said of every image, checked, and put beside the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from plumbline.errors import EvaluationError
from plumbline.runtime.classification import Classification

PREDICTIONS_SCHEMA = pa.schema(
    [
        ("image_id", pa.int64()),
        ("class_id", pa.int64()),  # the most probable
        ("confidence", pa.float32()),  # its probability
        ("probabilities", pa.list_(pa.float32())),  # of every class; they add up to 1
    ]
)

# An int8 softmax in an engine adds up to 1 within a few of its steps of 1/256; ours is computed in float.
_SUM_TOLERANCE = 1e-3
_SAME = 1e-6


@dataclass(frozen=True)
class Scored:
    """Labels and predictions of the same images, in the order of image_id.

    Attributes:
        image_id: Shape (N,).
        actual: Shape (N,), the label's class_id.
        predicted: Shape (N,), the most probable class_id.
        confidence: Shape (N,), float32, its probability.
        probabilities: Shape (N, C), float32.
    """

    image_id: npt.NDArray[np.int64]
    actual: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float32]
    probabilities: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.image_id)

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Shape (N,): where the most probable class is the label's."""
        return self.predicted == self.actual

    def only(self, rows: npt.NDArray[np.bool_]) -> Scored:
        """Return those of some rows."""
        return Scored(
            self.image_id[rows],
            self.actual[rows],
            self.predicted[rows],
            self.confidence[rows],
            self.probabilities[rows],
        )


def prediction_rows(image_id: int, prediction: Classification) -> dict[str, Any]:
    """Return the columns of `PREDICTIONS_SCHEMA` for one image: one row."""
    return {
        "image_id": np.array([image_id], dtype=np.int64),
        "class_id": np.array([prediction.class_id], dtype=np.int64),
        "confidence": np.array([prediction.confidence], dtype=np.float32),
        "probabilities": [prediction.probabilities.astype(np.float32)],
    }


def put_together(
    truth: pd.DataFrame, predictions: pd.DataFrame, images: pd.DataFrame, class_names: Sequence[str]
) -> Scored:
    """Check predictions and put them beside the labels.

    Args:
        truth: Columns image_id and class_id; rows of other images are left alone.
        predictions: Columns of `PREDICTIONS_SCHEMA`, one row for each of the images.
        images: Column image_id; all that are scored.
        class_names: Index is class_id.

    Raises:
        EvaluationError: No image, an image twice, an image without label or prediction or with two, a prediction of
            another image, a class_id without a name, or probabilities that are none.
    """
    ids = np.sort(images["image_id"].to_numpy(np.int64))
    if len(ids) == 0:
        raise EvaluationError("no images to score, expected one or more; give the split some images")
    if (ids[1:] == ids[:-1]).any():
        raise EvaluationError("an image is named twice, expected each image_id once; score it once")
    labels = truth[truth["image_id"].isin(ids)].sort_values("image_id")
    found = predictions.sort_values("image_id", kind="stable")
    _check_ids(labels, ids, "truth", "label")
    _check_ids(found, ids, "predictions", "prediction")
    for rows, name in ((labels, "truth"), (found, "predictions")):
        _check_classes(rows, name, len(class_names))
    probabilities = _probabilities(found, len(class_names))
    return Scored(
        image_id=ids,
        actual=labels["class_id"].to_numpy(np.int64),
        predicted=found["class_id"].to_numpy(np.int64),
        confidence=found["confidence"].to_numpy(np.float32),
        probabilities=probabilities,
    )


def _check_ids(rows: pd.DataFrame, ids: npt.NDArray[np.int64], name: str, thing: str) -> None:
    have = rows["image_id"]
    faults = (
        (have[~have.isin(ids)], f"expected only the images scored, got a {thing} of another; score it too"),
        (have[have.duplicated()], f"expected one {thing}, got two or more; keep one"),
        (pd.Series(ids)[~np.isin(ids, have)], f"expected one {thing}, got none; give it one, or do not score it"),
    )
    for wrong, text in faults:
        if len(wrong):
            raise EvaluationError(f"{name}: image_id {int(wrong.iloc[0])}: {text}")


def _check_classes(rows: pd.DataFrame, name: str, num_classes: int) -> None:
    unknown = rows[~rows["class_id"].between(0, num_classes - 1)]
    if len(unknown):
        row = unknown.iloc[0]
        raise EvaluationError(
            f"{name}: image_id {int(row['image_id'])}: expected a class_id of 0..{num_classes - 1}, got"
            f" {int(row['class_id'])} ({len(unknown)} such rows); score with the class names it was made with"
        )


def _probabilities(found: pd.DataFrame, num_classes: int) -> npt.NDArray[np.float32]:
    """Return them as shape (N, num_classes), checked, and against class_id and confidence too."""
    lengths = found["probabilities"].map(len).to_numpy()
    _refuse(found, lengths != num_classes, lengths, f"{num_classes} probabilities", "score with its own class names")
    values = np.stack(found["probabilities"].tolist()).astype(np.float32)
    broken = "the model or its decoding is broken"
    lowest = values.min(axis=1)
    sums = values.sum(axis=1, dtype=np.float64)  # NaN or infinite where one is
    _refuse(found, np.asarray(~np.isfinite(sums)), sums, "finite probabilities", broken)
    _refuse(found, lowest < 0, lowest, "probabilities of 0 or more", broken)
    _refuse(found, np.asarray(np.abs(sums - 1) > _SUM_TOLERANCE), sums, "probabilities that add up to 1", broken)
    confidence = found["confidence"].to_numpy(np.float32)
    of_class = values[np.arange(len(values)), found["class_id"].to_numpy(np.int64)]
    same = (np.abs(confidence - of_class) <= _SAME) & (of_class >= values.max(axis=1) - _SAME)
    _refuse(found, ~same, confidence, "the confidence and the class_id of the highest probability", broken)
    return values


def _refuse(found: pd.DataFrame, wrong: npt.NDArray[np.bool_], got: npt.NDArray[Any], expected: str, do: str) -> None:
    if wrong.any():
        place = int(wrong.argmax())
        raise EvaluationError(
            f"predictions: image_id {int(found['image_id'].iloc[place])}: expected {expected}, got {got[place]:g}"
            f" ({int(wrong.sum())} such rows); {do}"
        )
