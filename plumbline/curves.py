"""What a person looks at beside the metrics: precision-recall curves and the confusion matrix, as rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from plumbline.box_matching import match_greedily
from plumbline.boxes import box_iou
from plumbline.coco_evaluation import RECALL_POINTS, XYXY, Evaluation, in_order, without_crowds


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
    curves = [(_free_name("all", evaluation.class_names), precision[:, known].mean(axis=1))]
    curves += [(evaluation.class_names[index], precision[:, index]) for index in known.tolist()]
    return pd.concat(
        [pd.DataFrame({"recall": RECALL_POINTS, "precision": y, "class": name}) for name, y in curves],
        ignore_index=True,
    )


def confusion_rows(
    ground_truth: pd.DataFrame,
    detections: pd.DataFrame,
    image_ids: Sequence[int],
    class_names: Sequence[str],
    *,
    confidence_threshold: float,
) -> pd.DataFrame:
    """Pair boxes at IoU 0.5 whatever their classes, most confident detection first, and name both classes.

    A box that nothing found is a pair with the predicted class ``background``; a detection of nothing is one
    with the actual class ``background``. So the row of a class adds up to its boxes, the column to its
    detections.

    Args:
        ground_truth: As for `plumbline.coco_evaluation.evaluate_detections`, and so are the others.
        detections: Those below the threshold are left out.
        image_ids: The images to count.
        class_names: Index is class_id.
        confidence_threshold: What the artifact shows to a person.

    Returns:
        Columns actual and predicted, one row per pair, in the order of class_id with background last.
    """
    kept = detections[detections["confidence"] >= confidence_threshold]
    truth, found = in_order(without_crowds(ground_truth), kept, image_ids)
    truths, founds = dict(iter(truth.groupby("image_id"))), dict(iter(found.groupby("image_id")))
    background = len(class_names)
    pairs = [
        pair
        for image_id in image_ids
        for pair in _image_pairs(truths.get(image_id, truth[:0]), founds.get(image_id, found[:0]), background)
    ]
    names = [*class_names, _free_name("background", class_names)]
    rows = [(names[actual], names[predicted]) for actual, predicted in sorted(pairs)]
    return pd.DataFrame(rows, columns=["actual", "predicted"])


def _image_pairs(truth: pd.DataFrame, found: pd.DataFrame, background: int) -> list[tuple[int, int]]:
    iou = box_iou(found[XYXY].to_numpy(dtype=np.float64), truth[XYXY].to_numpy(dtype=np.float64))
    actual, predicted = truth["class_id"].to_numpy(), found["class_id"].to_numpy()
    # Two labels on one object overlap a detection alike: then the one of its own class is meant.
    same = predicted[:, None] == actual[None, :]
    matched = match_greedily(np.where(iou >= 0.5, iou + 1e-9 * same, 0.0), 0.5)
    named = np.append(actual, background)[matched]  # -1, no box, is the background at the end
    missed = actual[np.setdiff1d(np.arange(len(actual)), matched)]
    pairs = [*zip(named.tolist(), predicted.tolist(), strict=True)]
    return pairs + [(class_id, background) for class_id in missed.tolist()]


def _free_name(name: str, taken: Sequence[str]) -> str:
    """Put brackets around a name of ours that a class has already.

    >>> _free_name("all", ["cat"]), _free_name("all", ["all"])
    ('all', '(all)')
    """
    while name in taken:
        name = f"({name})"
    return name
