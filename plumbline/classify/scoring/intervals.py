"""How sure the metrics are: the paired bootstrap over images, from counts, with no metric computed twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from plumbline.classify.scoring.class_metrics import TOP, Floats, by_class, in_top
from plumbline.classify.scoring.predictions import Scored, put_together
from plumbline.resampling import Weights, check_reference, image_weights, paired_intervals
from plumbline.scores import BootstrapSettings, Interval


def bootstrap(  # noqa: PLR0917 (the verbs of plumbline.scores)
    truth: pd.DataFrame,
    images: pd.DataFrame,
    class_names: Sequence[str],
    predictions: Mapping[str, pd.DataFrame],
    reference: str,
    settings: BootstrapSettings,
) -> dict[str, dict[str, Interval]]:
    """Return the intervals of ``top1``, ``macro_f1`` and ``top5`` (with more than five classes) of each artifact.

    On a sample in which a class has no image, the mean of F1 is over the others.

    Args:
        truth: From `truth_of`.
        images: Those to score; drawn with replacement, whole groups where they have groups.
        class_names: Index is class_id.
        predictions: Name of an artifact -> columns of `PREDICTIONS_SCHEMA`.
        reference: The name that the others are compared with.
        settings: Its `difficult` means nothing here.

    Raises:
        EvaluationError: See `put_together`; or there are no predictions of the reference.
    """
    check_reference(predictions, reference)
    images = images.sort_values("image_id", ignore_index=True)
    scored = {name: put_together(truth, rows, images, class_names) for name, rows in sorted(predictions.items())}
    once = np.ones((1, len(images)), dtype=np.int64)
    values = {
        name: {key: float(value[0]) for key, value in headline(rows, once).items()} for name, rows in scored.items()
    }
    parts: dict[str, dict[str, list[Floats]]] = {name: {key: [] for key in values[name]} for name in scored}
    for weights in image_weights(images, settings.samples, settings.seed):
        for name, rows in scored.items():
            for key, value in headline(rows, weights).items():
                parts[name][key].append(value)
    sampled = {name: {key: np.concatenate(part) for key, part in of.items()} for name, of in parts.items()}
    return paired_intervals(values, sampled, reference, settings.level)


def headline(scored: Scored, weights: Weights) -> dict[str, Floats]:
    """Compute the metrics on many samples at once.

    Args:
        scored: N images.
        weights: Shape (S, N): how often each is in each sample.

    Returns:
        Metric -> shape (S,).
    """
    num_classes = scored.probabilities.shape[1]
    total = weights.sum(axis=1)
    hits, images, given = class_counts(scored, weights)
    values = {"top1": hits.sum(axis=1) / total, "macro_f1": np.nanmean(by_class(hits, images, given).f1, axis=1)}
    if num_classes > TOP:
        values["top5"] = weights @ in_top(scored.probabilities, scored.actual).astype(np.int64) / total
    return values


def class_counts(scored: Scored, weights: Weights) -> tuple[Weights, Weights, Weights]:
    """Count the right images, all images, and the images given to each class, on many samples at once.

    Args:
        scored: N images.
        weights: Shape (S, N): how often each is in each sample.

    Returns:
        Three arrays of shape (S, num_classes), as `by_class` takes them.
    """
    num_classes = scored.probabilities.shape[1]
    images = _sums(weights, scored.actual, num_classes)
    given = _sums(weights, scored.predicted, num_classes)
    return _sums(weights * scored.right, scored.actual, num_classes), images, given


def _sums(weights: Weights, class_id: npt.NDArray[np.int64], num_classes: int) -> Weights:
    """Add up the columns of each class: shape (S, num_classes), exact."""
    order = np.argsort(class_id, kind="stable")
    present, starts = np.unique(class_id[order], return_index=True)
    sums = np.zeros((len(weights), num_classes), dtype=np.int64)
    sums[:, present] = np.add.reduceat(weights[:, order], starts, axis=1)
    return sums
