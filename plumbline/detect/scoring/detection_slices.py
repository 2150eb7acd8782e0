"""The metrics of some of the images, or of boxes of some size: where a detector is weak, an average does not show."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from plumbline.detect.scoring.average_precision import interpolated_precision
from plumbline.detect.scoring.coco_evaluation import Evaluation, evaluate_detections
from plumbline.detect.scoring.matching import IOU_50
from plumbline.scores import ScoringSettings
from plumbline.slices import BOX_SIZE, check_slice_columns, image_slices

METRICS = ("map50_95", "map50", "precision", "recall", "f1")
COLUMNS = ("column", "slice", "num_images", "num_objects", *METRICS)
# The ranges of `plumbline.detect.scoring.matching.AREAS`, in words.
_SIZES = {
    "small": "small: up to 32 x 32 pixels",
    "medium": "medium: 32 x 32 to 96 x 96 pixels",
    "large": "large: from 96 x 96 pixels",
}


def slice_rows(
    truth: pd.DataFrame,
    predictions: pd.DataFrame,
    images: pd.DataFrame,
    class_names: Sequence[str],
    settings: ScoringSettings,
    *,
    evaluation: Evaluation,
) -> pd.DataFrame:
    """Score each slice of the images with the one evaluator, and the sizes of boxes as COCO does.

    Args:
        truth: As for `evaluate_detections`, and so are predictions and class_names.
        predictions: Of all images.
        images: Rows of the images table.
        class_names: Index is class_id.
        settings: Which columns, and into how many parts.
        evaluation: Of all images: it knows the boxes by size.

    Returns:
        `COLUMNS`, in the order of the settings; NaN for what is undefined.

    Raises:
        EvaluationError: There is no such column.
    """
    check_slice_columns(settings.slices, [*images.columns, BOX_SIZE])
    rows: list[dict[str, object]] = []
    for column in settings.slices:
        if column == BOX_SIZE:
            rows += [_size_row(evaluation, size, settings.confidence_threshold) for size in _SIZES]
            continue
        for part in image_slices(images, [column], settings.slice_bins):
            image_ids = images["image_id"][part.images].tolist()
            of_slice = evaluate_detections(
                truth, predictions[predictions["image_id"].isin(image_ids)], image_ids, class_names,
                confidence_threshold=settings.confidence_threshold, difficult=settings.difficult,
            ).metrics  # fmt: skip
            counts = {"num_images": len(image_ids), "num_objects": int(of_slice["num_boxes"])}
            values = {name: of_slice.get(name, np.nan) for name in METRICS}
            rows.append({"column": column, "slice": part.name, **counts, **values})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _size_row(evaluation: Evaluation, size: str, threshold: float) -> dict[str, object]:
    """Score the boxes of one size: others are ignored, and so are detections of another size that find none."""
    matches, found = evaluation.matches, evaluation.matches.areas[size]
    shown = (matches.confidence >= threshold) & ~found.ignored[IOU_50]
    num_shown, num_hits = int(shown.sum()), int((shown & found.hits[IOU_50]).sum())
    num_objects = int(found.counted.sum())
    at_50 = interpolated_precision(matches, size)[IOU_50]
    known = ~np.isnan(at_50[0])
    return {
        "column": BOX_SIZE,
        "slice": _SIZES[size],
        "num_images": len(np.unique(matches.box_image_id[found.counted])),
        "num_objects": num_objects,
        "map50_95": evaluation.metrics.get(f"map_{size}", np.nan),
        "map50": at_50[:, known].mean() if known.any() else np.nan,
        "precision": num_hits / num_shown if num_shown else np.nan,
        "recall": num_hits / num_objects if num_objects else np.nan,
        "f1": 2 * num_hits / (num_shown + num_objects) if num_shown + num_objects else np.nan,
    }
