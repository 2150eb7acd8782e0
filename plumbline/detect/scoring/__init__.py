"""The room ``scoring`` of the task detect; what its verbs take and give is in `plumbline.scores`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from plumbline.detect.scoring.coco_evaluation import choose_threshold, evaluate_detections
from plumbline.detect.scoring.curves import confusion_rows, precision_recall_rows, threshold_rows
from plumbline.detect.scoring.detection_slices import slice_rows
from plumbline.detect.scoring.intervals import HEADLINE, bootstrap
from plumbline.detect.scoring.matching import XYXY
from plumbline.detect.scoring.worst import worst_sheet
from plumbline.errors import EvaluationError
from plumbline.manifest import Dataset
from plumbline.runtime.detections import Detections
from plumbline.scores import Scores, ScoringSettings

__all__ = [
    "HEADLINE",
    "PREDICTIONS_SCHEMA",
    "bootstrap",
    "choose_threshold",
    "curves_picture",
    "evaluate",
    "prediction_rows",
    "truth_of",
    "worst_sheet",
]

PREDICTIONS_SCHEMA = pa.schema(
    [
        ("image_id", pa.int64()),
        ("class_id", pa.int64()),  # index into the artifact's class_names
        ("confidence", pa.float32()),
        ("x1", pa.float32()),  # pixels of the image, 0-based, half-open
        ("y1", pa.float32()),
        ("x2", pa.float32()),
        ("y2", pa.float32()),
    ]
)


def truth_of(dataset: Dataset, images: pd.DataFrame) -> pd.DataFrame:
    """Return the labels of the images, rows of `plumbline.manifest.ANNOTATIONS_SCHEMA`.

    Raises:
        EvaluationError: A label is a class of the whole image.
    """
    labels = dataset.annotations
    labels = labels[labels["image_id"].isin(images["image_id"])].reset_index(drop=True)
    whole = labels[labels[XYXY].isna().all(axis=1)]
    if len(whole):
        first = whole.iloc[0]
        line = f":{first['source_line']}" if first["source_line"] else ""
        raise EvaluationError(
            f"{first['source_file']}{line}: a class of a whole image, expected boxes for the task detect, got"
            f" {len(whole)} label{'' if len(whole) == 1 else 's'} without; set task: classify in params.yaml"
        )
    return labels


def prediction_rows(image_id: int, prediction: Detections) -> dict[str, Any]:
    """Return columns of `PREDICTIONS_SCHEMA` of one image's detections, the most confident first."""
    boxes = dict(zip(XYXY, prediction.xyxy.T, strict=True))
    image_ids = np.full(len(prediction), image_id, dtype=np.int64)
    return {"image_id": image_ids, "class_id": prediction.class_id, "confidence": prediction.confidence, **boxes}


def evaluate(
    truth: pd.DataFrame,
    predictions: pd.DataFrame,
    images: pd.DataFrame,
    class_names: Sequence[str],
    settings: ScoringSettings,
) -> Scores:
    """Score detections with the one evaluator, and lay out what a person looks at.

    Raises:
        EvaluationError: As `evaluate_detections` and `slice_rows` do.
    """
    image_ids = images["image_id"].tolist()
    scored = truth, predictions, image_ids, class_names
    threshold, difficult = settings.confidence_threshold, settings.difficult
    evaluation = evaluate_detections(*scored, confidence_threshold=threshold, difficult=difficult)
    tables = {
        "pr_curve": precision_recall_rows(evaluation),
        "confidence_curve": threshold_rows(evaluation, settings.confidence_floor),
        "confusion": confusion_rows(*scored, confidence_threshold=threshold, difficult=difficult),
        "classes": evaluation.classes,
        "slices": slice_rows(truth, predictions, images, class_names, settings, evaluation=evaluation),
    }
    return Scores(evaluation.metrics, evaluation.undefined, tables)


def curves_picture(scores: Scores, title: str) -> bytes:
    """Draw the tables of `evaluate` as a PNG."""
    from plumbline import score_picture

    return score_picture.curves_picture(
        scores.tables,
        title,
        scores.metrics["confidence_threshold"],
        class_metric="map50_95",
        class_metric_label="AP50-95",
        matching="IoU 0.5",
    )
