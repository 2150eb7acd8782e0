"""What a task's room ``reviewing`` gives: the scores of two revisions on the same images, with paired intervals.

The room has these functions::

    overall(pair, settings) -> list[Difference]             # of all images, quick
    details(pair, slices, settings) -> list[Difference]     # by class, size of boxes and slice; as often as slow
    changed_sheet(base, head, artifact, most) -> Image      # see `plumbline.review.pictures`
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from plumbline.resampling import image_weights, interval
from plumbline.review.changes import Kind
from plumbline.scores import BootstrapSettings, Interval
from plumbline.slices import Slice

Floats = npt.NDArray[np.float64]
Weights = npt.NDArray[np.int64]
# Metric -> its value on each sample, shape (samples,), from how often each has each image, shape (samples, num_images).
Sampled = Callable[[Weights], Mapping[str, Floats]]


@dataclass(frozen=True)
class Pair:
    """One artifact's predictions in both revisions, on the images that both scored, by the labels of the head.

    Attributes:
        truth: From the task's ``truth_of``.
        images: Rows of the head's images table, sorted by image_id.
        class_names: Index is class_id, the head's.
        base: Predictions, in the head's image_ids and class_ids.
        head: Predictions.
        base_threshold: Confidence threshold in use, 0..1.
        head_threshold: The same of the head.
    """

    truth: pd.DataFrame
    images: pd.DataFrame
    class_names: Sequence[str]
    base: pd.DataFrame
    head: pd.DataFrame
    base_threshold: float
    head_threshold: float


@dataclass(frozen=True)
class Difference:
    """One score of both revisions.

    Attributes:
        kind: Of the row.
        metric: Its key: as in metrics.json, or ``slice_<column>_<slice>_<metric>``.
        title: For people.
        interval: Of the head, with the difference to the base.
        higher_is_better: As a rule.
    """

    kind: Kind
    metric: str
    title: str
    interval: Interval
    higher_is_better: bool = True


def paired(
    base: Sampled, head: Sampled, images: pd.DataFrame, settings: BootstrapSettings, chunk: int
) -> dict[str, Interval]:
    """Compute metrics of both revisions on all images and on the same samples of them.

    Args:
        base: Computes the base's.
        head: Computes the head's.
        images: Columns image_id and group.
        settings: Of the bootstrap.
        chunk: Samples at a time.

    Returns:
        Metric -> interval, in the order of `head`; a metric that is undefined on all images in either is left out.
    """
    once = np.ones((1, len(images)), dtype=np.int64)
    values = [{name: float(value[0]) for name, value in side(once).items()} for side in (base, head)]
    parts: list[list[Mapping[str, Floats]]] = [[], []]
    for weights in image_weights(images, settings.samples, settings.seed, chunk):
        for side, part in zip((base, head), parts, strict=True):
            part.append(side(weights))
    found: dict[str, Interval] = {}
    for name, value in values[1].items():
        before = values[0].get(name, np.nan)
        if np.isnan(value) or np.isnan(before):
            continue
        ours, theirs = (np.concatenate([sample[name] for sample in part]) for part in (parts[1], parts[0]))
        found[name] = interval(value, ours, before, theirs, settings.level)
    return found


def slice_key(column: str, name: str, metric: str) -> str:
    """Return the key by which a gate knows a slice's score.

    >>> slice_key("source", "camera 2", "map50_95")
    'slice_source_camera 2_map50_95'
    """
    return f"slice_{column}_{name}_{metric}"


def telling_slices(slices: Iterable[Slice]) -> list[Slice]:
    """Leave out a slice that is all images: it says what the score of all says."""
    return [part for part in slices if part.images.any() and not part.images.all()]
