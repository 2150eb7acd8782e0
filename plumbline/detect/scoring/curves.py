"""What a person looks at beside the metrics, as rows: curves, confusion matrix, slices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from plumbline.confidence_curve import confidence_rows
from plumbline.detect.scoring.average_precision import RECALL_POINTS
from plumbline.detect.scoring.coco_evaluation import Evaluation
from plumbline.detect.scoring.pairs import COUNT, pair_boxes
from plumbline.scores import free_name

BACKGROUND = "background"


def precision_recall_rows(evaluation: Evaluation) -> pd.DataFrame:
    """Return the curve at IoU 0.5 of all classes together and of each class with ground truth.

    ``all`` is the mean over the classes, so the mean height of its curve is map50.

    Returns:
        Columns recall, precision, class: 101 rows per curve, ``all`` first, then in the order of class_id.
    """
    precision = evaluation.precision_at_50
    known = np.flatnonzero(~np.isnan(precision[0]))
    if len(known) == 0:
        return pd.DataFrame({"recall": [], "precision": [], "class": pd.Series([], dtype=object)})
    curves = [(free_name("all", evaluation.class_names), precision[:, known].mean(axis=1))]
    curves += [(evaluation.class_names[index], precision[:, index]) for index in known.tolist()]
    return pd.concat(
        [pd.DataFrame({"recall": RECALL_POINTS, "precision": y, "class": name}) for name, y in curves],
        ignore_index=True,
    )


def threshold_rows(evaluation: Evaluation, confidence_floor: float) -> pd.DataFrame:
    """Return precision, recall and F1 of all classes together at IoU 0.5 against the confidence threshold.

    The artifact's own threshold and the one with the best F1 have rows of their own.

    Args:
        evaluation: Of the artifact.
        confidence_floor: Detections below were not kept: the curve begins there.

    Returns:
        As `plumbline.confidence_curve.confidence_rows`.
    """
    metrics = evaluation.metrics
    marked = [metrics[name] for name in ("confidence_threshold", "best_f1_confidence") if name in metrics]
    confidence, hits = evaluation.matches.counted_at_50()
    return confidence_rows(confidence, hits, int(metrics["num_boxes"]), lowest=confidence_floor, marked=marked)


def confusion_rows(
    ground_truth: pd.DataFrame,
    detections: pd.DataFrame,
    image_ids: Sequence[int],
    class_names: Sequence[str],
    *,
    confidence_threshold: float,
    difficult: str = COUNT,
) -> pd.DataFrame:
    """Pair boxes at IoU 0.5 whatever their classes, most confident detection first, and name both classes.

    A box that nothing found is a pair with the predicted class ``background``; a detection of nothing is one
    with the actual class ``background``. So the row of a class adds up to its boxes, the column to its
    detections, without those that `pair_boxes` ignores.

    Args:
        ground_truth: As for `plumbline.detect.scoring.coco_evaluation.evaluate_detections`, and so are the others.
        detections: Those below the threshold are left out.
        image_ids: The images to count.
        class_names: Index is class_id.
        confidence_threshold: What the artifact shows to a person.
        difficult: ``count`` or ``ignore``.

    Returns:
        Columns actual and predicted, one row per pair, in the order of class_id with background last.
    """
    pairs = pair_boxes(
        ground_truth, detections, image_ids, confidence_threshold=confidence_threshold, difficult=difficult
    )
    names = np.array([*class_names, free_name(BACKGROUND, class_names)], dtype=object)
    background = len(class_names)
    actual = _classes(ground_truth, pairs["truth"], background)
    predicted = _classes(detections, pairs["found"], background)
    order = np.lexsort((predicted, actual))
    return pd.DataFrame({"actual": names[actual[order]], "predicted": names[predicted[order]]})


def _classes(boxes: pd.DataFrame, rows: pd.Series, background: int) -> npt.NDArray[np.int64]:
    class_ids = np.append(boxes["class_id"].to_numpy(dtype=np.int64), background)
    return class_ids[rows.to_numpy()]  # `pairs.NONE`, -1, is the one at the end
