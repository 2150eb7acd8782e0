"""The one evaluator: every number about quality that this project shows comes from here.

mAP is COCO's, computed by faster-coco-eval and equal to pycocotools' on the same detections: IoU 0.50 to 0.95
in steps of 0.05, 101 recall points, all areas, the 100 most confident detections per image and class (COCO's
standard maxDets; what an artifact emits beyond that does not count), the mean over the classes that have
ground truth.

A box that a label file calls difficult counts as any other: COCO has no such flag, and its nearest one,
`iscrowd`, would change how overlap is measured.

Source: https://cocodataset.org/#detection-eval
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from plumbline.box_matching import match_greedily
from plumbline.boxes import box_iou, xyxy_to_xywh
from plumbline.errors import EvaluationError

XYXY = ["x1", "y1", "x2", "y2"]
MAX_DETECTIONS = 100  # per image and class: COCO's
RECALL_POINTS = np.linspace(0.0, 1.0, 101)  # COCO's
IOU_50, IOU_75 = 0, 5  # places in COCO's 0.50, 0.55 ... 0.95

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate_detections` found.

    Attributes:
        metrics: Flat numbers. What is undefined is not in it: the AP of a class without ground truth, say.
        precision_at_50: Shape (101, num_classes): the interpolated precision at IoU 0.5 for each of
            `RECALL_POINTS`; NaN for a class without ground truth.
        class_names: Index is class_id.
    """

    metrics: dict[str, float]
    precision_at_50: Floats
    class_names: tuple[str, ...]


def evaluate_detections(
    ground_truth: pd.DataFrame,
    detections: pd.DataFrame,
    image_ids: Sequence[int],
    class_names: Sequence[str],
    *,
    confidence_threshold: float,
) -> Evaluation:
    """Score detections against ground truth on the images named.

    The metrics: ``map50_95``, ``map50``, ``map75``, ``ar100`` and ``class_<name>_map50_95``,
    ``class_<name>_map50`` over all detections given; ``precision``, ``recall``, ``f1`` of all boxes of all
    classes together at IoU 0.5 over those at or above the threshold; ``best_f1`` and the
    ``best_f1_confidence`` to reach it; ``num_images``, ``num_boxes`` and ``num_detections`` (at or above the
    threshold). Where there was something to find and nothing was found, they are 0. The order of the rows
    does not matter.

    Args:
        ground_truth: Columns image_id, class_id, x1, y1, x2, y2 (pixels), and crowd where there are any; rows of
            other images are left alone.
        detections: The same columns and confidence; every row is of one of the images.
        image_ids: The images to score, also those with no box at all.
        class_names: Index is class_id.
        confidence_threshold: What the artifact shows to a person.

    Raises:
        EvaluationError: No image, an image twice, NaN or infinite values, a class_id without a name, or a
            detection on another image.
    """
    _check_image_ids(image_ids)
    truth, found = in_order(ground_truth, detections, image_ids)
    _check_rows(truth, "ground truth", XYXY, len(class_names))
    _check_rows(found, "detections", [*XYXY, "confidence"], len(class_names))
    strangers = sorted(set(found["image_id"]) - set(image_ids))
    if strangers:
        raise EvaluationError(f"detections: expected only the images scored, got image_id {strangers[0]}; score it too")

    precision, recall = _coco_precision_recall(truth, found, image_ids, len(class_names))
    truth = without_crowds(truth)
    metrics: dict[str, float] = {"num_images": len(image_ids), "num_boxes": len(truth)}
    metrics |= _average_precision(precision, recall, class_names)
    confidence, hits = found["confidence"].to_numpy(), _hits(truth, found)
    metrics |= _threshold_metrics(confidence, hits, len(truth), confidence_threshold)
    return Evaluation(metrics, precision[IOU_50], tuple(class_names))


def in_order(
    ground_truth: pd.DataFrame, detections: pd.DataFrame, image_ids: Sequence[int]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the boxes of the images named, and the detections, those of an image by falling confidence.

    Sorted by everything else too, so that equal confidences and overlaps are settled the same way whatever the order
    of the rows.
    """
    truth = ground_truth[ground_truth["image_id"].isin(image_ids)]
    ascending = [True, False, True, True, True, True, True]
    found = detections.sort_values(["image_id", "confidence", "class_id", *XYXY], ascending=ascending)
    return truth.sort_values(["image_id", "class_id", *XYXY]), found


def _check_image_ids(image_ids: Sequence[int]) -> None:
    if len(image_ids) == 0:
        raise EvaluationError("no images to score, expected one or more; give the split some images")
    if len(set(image_ids)) != len(image_ids):
        raise EvaluationError("an image is named twice, expected each image_id once; score it once")


def _check_rows(frame: pd.DataFrame, name: str, numbers: list[str], num_classes: int) -> None:
    bad = ~np.isfinite(frame[numbers].to_numpy(dtype=np.float64)).all(axis=1)
    if bad.any():
        row = frame[bad].iloc[0]
        values = {column: float(row[column]) for column in numbers}
        raise EvaluationError(
            f"{name}: image_id {int(row['image_id'])}: expected finite numbers, got {values}"
            f" ({int(bad.sum())} such rows); the model or its decoding is broken"
        )
    unknown = frame[(frame["class_id"] < 0) | (frame["class_id"] >= num_classes)]
    if len(unknown):
        row = unknown.iloc[0]
        raise EvaluationError(
            f"{name}: image_id {int(row['image_id'])}: expected a class_id of 0..{num_classes - 1}, got"
            f" {int(row['class_id'])} ({len(unknown)} such rows); score with the class names it was made with"
        )


def _coco_precision_recall(
    truth: pd.DataFrame, found: pd.DataFrame, image_ids: Sequence[int], num_classes: int
) -> tuple[Floats, Floats]:
    """Run COCO's protocol.

    Returns:
        Precision, shape (10 IoUs, 101 recall points, num_classes), and the recall reached, shape (10,
        num_classes); both NaN for a class without ground truth, where COCO writes -1.
    """
    # Inside, so that checking params.yaml does not wait for it.
    from faster_coco_eval import COCO, COCOeval_faster

    frame = {
        "images": [{"id": int(image_id)} for image_id in image_ids],
        "categories": [{"id": index + 1, "name": str(index)} for index in range(num_classes)],
    }
    both = []
    for rows in (truth, found):
        coco = COCO()
        coco.dataset = {**frame, "annotations": _coco_annotations(rows)}
        coco.createIndex()
        both.append(coco)
    evaluator = COCOeval_faster(*both, "bbox")
    evaluator.params.maxDets = [MAX_DETECTIONS]
    evaluator.params.areaRng = evaluator.params.areaRng[:1]  # all
    evaluator.params.areaRngLbl = evaluator.params.areaRngLbl[:1]
    evaluator.evaluate()
    evaluator.accumulate()
    precision = np.asarray(evaluator.eval["precision"], dtype=np.float64)[:, :, :, 0, 0]
    recall = np.asarray(evaluator.eval["recall"], dtype=np.float64)[:, :, 0, 0]
    return np.where(precision < 0, np.nan, precision), np.where(recall < 0, np.nan, recall)


def _coco_annotations(frame: pd.DataFrame) -> list[dict[str, Any]]:
    xywh = xyxy_to_xywh(frame[XYXY].to_numpy(dtype=np.float64))
    confidence = frame["confidence"] if "confidence" in frame else np.zeros(len(frame))
    rows = zip(frame["image_id"], frame["class_id"], confidence, xywh.tolist(), _crowd(frame), strict=True)
    return [
        # From 1: an annotation with the id 0 counts as unmatched in COCO's code.
        {
            "id": number,
            "image_id": int(image_id),
            "category_id": int(class_id) + 1,
            "score": float(score),
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": int(is_crowd),
        }
        for number, (image_id, class_id, score, box, is_crowd) in enumerate(rows, start=1)
    ]


def without_crowds(boxes: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that are single objects; all of them where the table has no column `crowd`."""
    return boxes[~_crowd(boxes)]


def _crowd(frame: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Return which rows are crowds, shape (N,); none where the table has no such column."""
    return frame["crowd"].to_numpy(bool) if "crowd" in frame else np.zeros(len(frame), dtype=bool)


def _average_precision(precision: Floats, recall: Floats, class_names: Sequence[str]) -> dict[str, float]:
    """Average over recall points, IoUs and the classes with ground truth; leave out what has none."""
    known = ~np.isnan(recall[0])
    if not known.any():
        return {}
    metrics = {
        "map50_95": float(precision[:, :, known].mean()),
        "map50": float(precision[IOU_50][:, known].mean()),
        "map75": float(precision[IOU_75][:, known].mean()),
        "ar100": float(recall[:, known].mean()),
    }
    for index in np.flatnonzero(known).tolist():
        metrics[f"class_{class_names[index]}_map50_95"] = float(precision[:, :, index].mean())
        metrics[f"class_{class_names[index]}_map50"] = float(precision[IOU_50][:, index].mean())
    return metrics


def _hits(truth: pd.DataFrame, found: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Return which detections find a box of their class at IoU 0.5, in the order of the rows of `found`."""
    places_of_truth = truth.groupby(["image_id", "class_id"]).indices
    truth_xyxy, found_xyxy = truth[XYXY].to_numpy(np.float64), found[XYXY].to_numpy(np.float64)
    hits = np.zeros(len(found), dtype=bool)
    for key, places in found.groupby(["image_id", "class_id"]).indices.items():
        if key in places_of_truth:
            iou = box_iou(found_xyxy[places], truth_xyxy[places_of_truth[key]])
            hits[places] = match_greedily(iou, 0.5) >= 0
    return hits


def _threshold_metrics(
    confidence: npt.NDArray[np.floating[Any]], hits: npt.NDArray[np.bool_], num_boxes: int, threshold: float
) -> dict[str, float]:
    """Precision, recall and F1 at one threshold, and the best F1 of all; undefined ones are left out.

    Precision is 0 when nothing is found although there was something to find (scikit-learn's
    zero_division=0); it is undefined when there was nothing either. F1 is 2 TP / (detections + boxes), the
    harmonic mean of the two.
    """
    kept = confidence >= threshold
    num_detections, num_hits = int(kept.sum()), int(hits[kept].sum())
    metrics: dict[str, float] = {"confidence_threshold": float(threshold), "num_detections": num_detections}
    if num_detections or num_boxes:
        metrics["precision"] = num_hits / num_detections if num_detections else 0.0
        metrics["f1"] = 2 * num_hits / (num_detections + num_boxes)
    if num_boxes:
        metrics["recall"] = num_hits / num_boxes
        metrics |= _best_f1(confidence, hits, num_boxes)
    return metrics


def _best_f1(
    confidence: npt.NDArray[np.floating[Any]], hits: npt.NDArray[np.bool_], num_boxes: int
) -> dict[str, float]:
    """Find the threshold with the best F1, the highest of equals; there is none when nothing was ever hit.

    >>> _best_f1(np.array([0.9, 0.8, 0.7]), np.array([True, True, False]), 2)
    {'best_f1': 1.0, 'best_f1_confidence': 0.8}
    """
    if not hits.any():
        return {"best_f1": 0.0}
    order = np.argsort(-confidence, kind="stable")
    falling = confidence[order]
    f1 = 2 * np.cumsum(hits[order]) / (np.arange(1, len(order) + 1) + num_boxes)
    # A threshold cannot part equal confidences: only the last of each run is one.
    f1[:-1][falling[:-1] == falling[1:]] = -1.0
    best = int(f1.argmax())
    return {"best_f1": float(f1[best]), "best_f1_confidence": float(falling[best])}
