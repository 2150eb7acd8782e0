"""The one evaluator: every number about quality that this project shows comes from here.

mAP is COCO's, equal to pycocotools' on the same detections: IoU 0.50 to 0.95 in steps of 0.05, 101 recall points, the
100 most confident detections per image and class (COCO's standard maxDets; what an artifact emits beyond that does not
count for it), the mean over the classes that have ground truth. Crowds and areas are COCO's, too, see `matching`; the
area of a box is its width times its height.

Where pycocotools lets the order of rows decide, between equal confidences in one image, this sorts by coordinates.

Source: https://cocodataset.org/#detection-eval
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from plumbline import thresholds
from plumbline.confidence_curve import share
from plumbline.detect.scoring.average_precision import highest_recall, interpolated_precision
from plumbline.detect.scoring.matching import ALL_AREAS, IOU_50, IOU_75, XYXY, Matches, match
from plumbline.errors import EvaluationError
from plumbline.scores import Threshold, ThresholdRule

Floats = npt.NDArray[np.float64]
_SIZES = {"small": "smaller than 32 x 32", "medium": "between 32 x 32 and 96 x 96", "large": "larger than 96 x 96"}
_NO_BOX = "there is no box to find"
_NOTHING_SHOWN = "nothing is detected at or above the confidence threshold"


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate_detections` found.

    Attributes:
        metrics: Flat numbers. What is undefined is not in it: the AP of a class without ground truth, say.
        undefined: Key of a metric that is not there -> why.
        classes: One row per class: class, num_objects, num_detections (at or above the threshold), map50_95, map50,
            ar100, precision, recall, f1; NaN for what is undefined.
        precision_at_50: Shape (101, num_classes): the interpolated precision at IoU 0.5 for each of
            `average_precision.RECALL_POINTS`; NaN for a class without ground truth.
        class_names: Index is class_id.
        matches: What found what, for curves, slices and sheets.
    """

    metrics: dict[str, float]
    undefined: dict[str, str]
    classes: pd.DataFrame
    precision_at_50: Floats
    class_names: tuple[str, ...]
    matches: Matches


def evaluate_detections(
    ground_truth: pd.DataFrame,
    detections: pd.DataFrame,
    image_ids: Sequence[int],
    class_names: Sequence[str],
    *,
    confidence_threshold: float,
    difficult: str = "count",
) -> Evaluation:
    """Score detections against ground truth on the images named.

    Over all detections given: ``map50_95``, ``map50``, ``map75``; ``map_small``, ``map_medium``, ``map_large`` (as
    map50_95, of boxes of one size); ``ar1``, ``ar10``, ``ar100`` (with so many detections per image and class),
    ``ar_small``, ``ar_medium``, ``ar_large``; ``class_<name>_map50_95``, ``class_<name>_map50`` and
    ``class_<name>_ar100``.

    Of all boxes of all classes together at IoU 0.5, over the detections at or above the threshold: ``precision``,
    ``recall``, ``f1``; and the ``best_f1`` of any threshold, and the ``best_f1_confidence`` to reach it. Here every
    detection of an image counts, also beyond the 100th.

    ``num_images``, ``num_boxes`` (that count), ``num_detections`` (that count, at or above the threshold) and
    ``confidence_threshold``. The order of the rows does not matter.

    Args:
        ground_truth: Columns image_id, class_id, x1, y1, x2, y2 (pixels), and crowd and difficult where there are
            any; rows of other images are left alone.
        detections: The same columns and confidence; every row is of one of the images.
        image_ids: The images to score, also those with no box at all.
        class_names: Index is class_id.
        confidence_threshold: What the artifact shows to a person.
        difficult: ``count`` boxes that a label calls difficult as any other, as COCO does, which has no such flag; or
            ``ignore`` them: neither found nor missed.

    Raises:
        EvaluationError: No image, an image twice, NaN or infinite values, a class_id without a name, or a
            detection on another image.
    """
    check(ground_truth, detections, image_ids, len(class_names))
    matches = match(ground_truth, detections, image_ids, len(class_names), difficult=difficult)
    precision, recall = interpolated_precision(matches), highest_recall(matches)
    classes = _class_rows(matches, precision, recall, class_names, confidence_threshold)
    reasons = _reasons(matches, class_names)
    values: dict[str, float] = {
        "map50_95": _mean(precision),
        "map50": _mean(precision[IOU_50]),
        "map75": _mean(precision[IOU_75]),
        "ar1": _mean(highest_recall(matches, max_detections=1)),
        "ar10": _mean(highest_recall(matches, max_detections=10)),
        "ar100": _mean(recall),
        "confidence_threshold": float(confidence_threshold),
        "num_images": len(image_ids),
    }
    for size in _SIZES:
        values[f"map_{size}"] = _mean(interpolated_precision(matches, size))
        values[f"ar_{size}"] = _mean(highest_recall(matches, size))
    for row in classes.to_dict("records"):
        values |= {f"class_{row['class']}_{name}": row[name] for name in ("map50_95", "map50", "ar100")}
    values |= _threshold_metrics(matches, confidence_threshold)
    metrics = {name: value for name, value in values.items() if not np.isnan(value)}
    undefined = {name: reasons[name] for name in values if name not in metrics}
    return Evaluation(metrics, undefined, classes, precision[IOU_50], tuple(class_names), matches)


def choose_threshold(
    truth: pd.DataFrame,
    predictions: pd.DataFrame,
    images: pd.DataFrame,
    class_names: Sequence[str],
    rule: ThresholdRule,
) -> Threshold:
    """Choose the confidence threshold of all classes together, by what each gives at IoU 0.5.

    Args:
        truth: As for `evaluate_detections`, and so are predictions and class_names.
        predictions: Down to a confidence below any threshold that may be chosen.
        images: The images to choose on; column image_id.
        class_names: Index is class_id.
        rule: See `ThresholdRule`.

    Raises:
        EvaluationError: As `evaluate_detections` and `plumbline.thresholds.choose` do.
    """
    image_ids = images["image_id"].tolist()
    check(truth, predictions, image_ids, len(class_names))
    matches = match(truth, predictions, image_ids, len(class_names), difficult=rule.difficult, areas=ALL_AREAS)
    return thresholds.choose(*matches.counted_at_50(), int(matches.num_counted().sum()), rule)


def check(ground_truth: pd.DataFrame, detections: pd.DataFrame, image_ids: Sequence[int], num_classes: int) -> None:
    """Refuse what cannot be scored.

    Raises:
        EvaluationError: See `evaluate_detections`.
    """
    if len(image_ids) == 0:
        raise EvaluationError("no images to score, expected one or more; give the split some images")
    known = np.unique(np.asarray(image_ids))
    if len(known) != len(image_ids):
        raise EvaluationError("an image is named twice, expected each image_id once; score it once")
    truth = ground_truth[ground_truth["image_id"].isin(known)]
    _check_rows(truth, "ground truth", XYXY, num_classes)
    _check_rows(detections, "detections", [*XYXY, "confidence"], num_classes)
    strangers = np.setdiff1d(detections["image_id"].to_numpy(), known)
    if len(strangers):
        raise EvaluationError(f"detections: expected only the images scored, got image_id {strangers[0]}; score it too")


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


def _mean(values: Floats) -> float:
    """Average over all that is known; NaN where nothing is. Classes are the last axis."""
    known = ~np.isnan(values.reshape(-1, values.shape[-1])[0])
    return float(values[..., known].mean()) if known.any() else float("nan")


def _class_rows(
    matches: Matches, precision: Floats, recall: Floats, class_names: Sequence[str], threshold: float
) -> pd.DataFrame:
    """Return the table `Evaluation.classes`."""
    found = matches.areas["all"]
    shown = (matches.confidence >= threshold) & ~found.ignored[IOU_50]
    num_objects = matches.num_counted()
    num_shown, num_hits = (
        np.bincount(matches.class_id[kept], minlength=len(class_names)) for kept in (shown, shown & found.hits[IOU_50])
    )
    return pd.DataFrame(
        {
            "class": list(class_names),
            "num_objects": num_objects,
            "num_detections": num_shown,
            "map50_95": precision.mean(axis=(0, 1)),
            "map50": precision[IOU_50].mean(axis=0),
            "ar100": recall.mean(axis=0),
            "precision": share(num_hits, num_shown),
            "recall": share(num_hits, num_objects),
            "f1": share(2 * num_hits, num_shown + num_objects),
        }
    )


def _threshold_metrics(matches: Matches, threshold: float) -> dict[str, float]:
    """Return precision, recall and F1 at one threshold, and the best F1 of all; NaN for what is undefined.

    F1 is 2 TP / (detections + boxes), the harmonic mean of the two.
    """
    confidence, hits = matches.counted_at_50()
    shown = confidence >= threshold
    num_shown, num_hits, num_boxes = int(shown.sum()), int(hits[shown].sum()), int(matches.num_counted().sum())
    precision, recall, f1 = share(
        np.array([num_hits, num_hits, 2 * num_hits]), np.array([num_shown, num_boxes, num_shown + num_boxes])
    ).tolist()
    best, at = thresholds.best_f1(confidence, hits, num_boxes) if num_boxes else (np.nan, None)
    return {
        "num_boxes": num_boxes,
        "num_detections": num_shown,
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "best_f1": best,
        "best_f1_confidence": np.nan if at is None else at,
    }


def _reasons(matches: Matches, class_names: Sequence[str]) -> dict[str, str]:
    """Return why a metric would be undefined, if it is."""
    no_box = _NO_BOX if matches.num_counted().sum() == 0 else ""
    names = ("map50_95", "map50", "map75", "ar1", "ar10", "ar100", "recall", "best_f1")
    reasons = dict.fromkeys(names, no_box)
    for size, words in _SIZES.items():
        reasons |= dict.fromkeys((f"map_{size}", f"ar_{size}"), no_box or f"no box is {words} pixels")
    for name in class_names:
        keys = (f"class_{name}_{metric}" for metric in ("map50_95", "map50", "ar100"))
        reasons |= dict.fromkeys(keys, no_box or f"no box is of the class {name}")
    reasons["precision"] = _NOTHING_SHOWN
    reasons["f1"] = f"{_NO_BOX}, and {_NOTHING_SHOWN}"
    reasons["best_f1_confidence"] = no_box or "no detection finds a box"
    return reasons
