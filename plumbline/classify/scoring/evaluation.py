"""The one evaluator of classifications: every number about their quality that this project shows comes from here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from plumbline.classify.scoring.class_metrics import (
    TOP,
    by_class,
    calibration_error,
    calibration_rows,
    class_counts,
    in_top,
    log_loss,
)
from plumbline.classify.scoring.one_vs_rest import POINTS, Floats, OneVsRest, one_vs_rest
from plumbline.classify.scoring.predictions import Scored, put_together
from plumbline.confidence_curve import confidence_rows
from plumbline.scores import Scores, ScoringSettings, Threshold, ThresholdRule, free_name
from plumbline.slices import BOX_SIZE, image_slices
from plumbline.thresholds import choose

HEADLINE = ("top1", "macro_f1", "top5")

# Column of the table `classes` -> the metric of their mean.
_MEANS = {
    "precision": "macro_precision",
    "recall": "macro_recall",
    "f1": "macro_f1",
    "roc_auc": "roc_auc",
}
_SLICE_METRICS = ("top1", "top5", "macro_f1", "coverage", "accepted_precision")


def evaluate(
    truth: pd.DataFrame,
    predictions: pd.DataFrame,
    images: pd.DataFrame,
    class_names: Sequence[str],
    settings: ScoringSettings,
) -> Scores:
    """Score classifications.

    The metrics: ``top1`` and ``top5``, the share of images whose class is the most probable, or among the five most
    probable; ``macro_precision``, ``macro_recall``, ``macro_f1`` and ``roc_auc`` (one class against the rest), means
    over the classes with images, and ``class_<name>_...`` of each; ``calibration_error``; ``log_loss``; ``num_images``;
    ``confidence_threshold``, ``coverage`` (the share of images with a confidence at or above it, which are accepted)
    and ``accepted_precision`` (of those, the share that is right). The order of the rows does not matter.

    Tables, beside those that every task has: ``roc_curve`` (fpr, tpr, class; the first class is the mean over all) and
    ``calibration`` (confidence, accuracy, num_images, one row for each bin that is not empty).

    Args:
        truth: From `truth_of`.
        predictions: Columns of `PREDICTIONS_SCHEMA`, one row for each image.
        images: Those to score.
        class_names: Index is class_id.
        settings: Its `difficult` and `confidence_floor` mean nothing here: a label of a whole image is never called
            difficult, and every image has a prediction.

    Raises:
        EvaluationError: See `put_together`; or a slice's column is not there.
    """
    images = images.sort_values("image_id", ignore_index=True)
    scored = put_together(truth, predictions, images, class_names)
    threshold = float(settings.confidence_threshold)
    curves = one_vs_rest(scored.probabilities, scored.actual)
    classes = _class_rows(scored, curves, class_names)
    metrics = {"num_images": len(scored), **_whole(scored, threshold), **_of_classes(classes)}
    undefined = _reasons(metrics, classes)
    columns = [column for column in settings.slices if column != BOX_SIZE]
    if len(columns) < len(settings.slices):
        undefined["slices by box_size"] = "an image of the task classify has no boxes"
    return Scores(
        metrics={name: value for name, value in metrics.items() if not np.isnan(value)},
        undefined=undefined,
        tables={
            "pr_curve": _curve_rows("recall", "precision", curves.precision, class_names),
            "roc_curve": _curve_rows("fpr", "tpr", curves.true_positive_rate, class_names),
            "confidence_curve": confidence_rows(
                scored.confidence, scored.right, len(scored), lowest=0.0, marked=[threshold]
            ),
            "calibration": _calibration(scored),
            "confusion": _confusion(scored, class_names),
            "classes": classes,
            "slices": _slices(scored, images, columns, settings.slice_bins, threshold),
        },
    )


def choose_threshold(
    truth: pd.DataFrame,
    predictions: pd.DataFrame,
    images: pd.DataFrame,
    class_names: Sequence[str],
    rule: ThresholdRule,
) -> Threshold:
    """Choose from which confidence on an image's class is accepted.

    Precision is that of the accepted images, recall the share of all images that are accepted and right.

    Raises:
        EvaluationError: See `put_together`; or no threshold gives the precision that is demanded.
    """
    scored = put_together(truth, predictions, images, class_names)
    return choose(scored.confidence, scored.right, len(scored), rule)


def _whole(scored: Scored, threshold: float) -> dict[str, float]:
    """Return the metrics that need no class of its own; NaN where undefined."""
    accepted = scored.confidence >= threshold
    many = scored.probabilities.shape[1] > TOP
    return {
        "top1": float(scored.right.mean()),
        "top5": float(in_top(scored.probabilities, scored.actual).mean()) if many else float("nan"),
        "calibration_error": calibration_error(scored.confidence, scored.right),
        "log_loss": log_loss(scored.probabilities, scored.actual),
        "confidence_threshold": threshold,
        "coverage": float(accepted.mean()),
        "accepted_precision": float(scored.right[accepted].mean()) if accepted.any() else float("nan"),
    }


def _class_rows(scored: Scored, curves: OneVsRest, class_names: Sequence[str]) -> pd.DataFrame:
    hits, num_objects, given = class_counts(scored.actual, scored.predicted, len(class_names))
    found = by_class(hits, num_objects, given)
    return pd.DataFrame(
        {
            "class": list(class_names),
            "num_objects": num_objects,
            "precision": found.precision,
            "recall": found.recall,
            "f1": found.f1,
            "roc_auc": curves.roc_auc,
        }
    )


def _of_classes(classes: pd.DataFrame) -> dict[str, float]:
    with_images = classes[classes["num_objects"] > 0]
    metrics = {mean: float(with_images[column].mean()) for column, mean in _MEANS.items()}
    for row in classes.to_dict("records"):
        metrics |= {f"class_{row['class']}_{column}": float(row[column]) for column in _MEANS}
    return metrics


def _reasons(metrics: dict[str, float], classes: pd.DataFrame) -> dict[str, str]:
    """Say of every metric that is NaN why it is."""
    num_images = dict(zip(classes["class"], classes["num_objects"], strict=True))
    reasons = {
        "top5": f"with {len(classes)} classes, the five most probable say little or nothing",
        "accepted_precision": "no image has a confidence at or above the threshold",
        "roc_auc": "all images are of one class",
    }
    for name, count in num_images.items():
        for column in _MEANS:
            reasons[f"class_{name}_{column}"] = "all images are of this class" if count else "no image of this class"
        if not count:
            reasons[f"class_{name}_precision"] = "no image of this class, and none was given it"
    return {name: reasons[name] for name, value in metrics.items() if np.isnan(value)}


def _curve_rows(across: str, up: str, values: Floats, class_names: Sequence[str]) -> pd.DataFrame:
    """Return the curves of shape (101, C) as rows: the mean of those that there are, then each of them."""
    known = np.flatnonzero(~np.isnan(values[0])).tolist()
    if not known:
        return pd.DataFrame({across: [], up: [], "class": []})
    names = [free_name("all", class_names), *(class_names[index] for index in known)]
    columns = [values[:, known].mean(axis=1), *(values[:, index] for index in known)]
    return pd.DataFrame(
        {across: np.tile(POINTS, len(names)), up: np.concatenate(columns), "class": np.repeat(names, len(POINTS))}
    )


def _calibration(scored: Scored) -> pd.DataFrame:
    confidence, accuracy, count = calibration_rows(scored.confidence, scored.right)
    return pd.DataFrame({"confidence": confidence, "accuracy": accuracy, "num_images": count.astype(np.int64)})


def _confusion(scored: Scored, class_names: Sequence[str]) -> pd.DataFrame:
    names = np.array(class_names, dtype=object)
    order = np.lexsort((scored.predicted, scored.actual))
    return pd.DataFrame({"actual": names[scored.actual[order]], "predicted": names[scored.predicted[order]]})


def _slices(scored: Scored, images: pd.DataFrame, columns: Sequence[str], bins: int, threshold: float) -> pd.DataFrame:
    num_classes = scored.probabilities.shape[1]
    metrics = [name for name in _SLICE_METRICS if name != "top5" or num_classes > TOP]
    rows = []
    for part in image_slices(images, columns, bins):
        some = scored.only(part.images)
        counts = class_counts(some.actual, some.predicted, num_classes)
        values = {**_whole(some, threshold), "macro_f1": float(np.nanmean(by_class(*counts).f1))}
        rows.append([part.column, part.name, len(some), len(some), *(values[name] for name in metrics)])
    return pd.DataFrame(rows, columns=["column", "slice", "num_images", "num_objects", *metrics])
