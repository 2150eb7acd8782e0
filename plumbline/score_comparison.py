"""Compare two runs' predictions on the images that both scored, image by image, by the labels of one of them.

Images are known by their bytes: image_id is a place in a sorted list, which another image moves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from plumbline.errors import EvaluationError
from plumbline.manifest import Dataset
from plumbline.resampling import num_drawn
from plumbline.scores import BootstrapSettings, Interval
from plumbline.tasks import task_module

_LABEL = ["class_name", "x1", "y1", "x2", "y2", "difficult", "crowd"]
THERE, HERE = "there", "here"


@dataclass(frozen=True)
class ScoredRun:
    """What one commit's line scored.

    Attributes:
        name: For messages: ``main``, ``the working tree``.
        task: A row of `plumbline.tasks.TASKS`.
        data: The validated dataset.
        images: The rows of `data.images` that were scored.
        predictions: Name of an artifact -> its predictions, columns of the task's ``PREDICTIONS_SCHEMA``.
    """

    name: str
    task: str
    data: Dataset
    images: pd.DataFrame
    predictions: Mapping[str, pd.DataFrame]


@dataclass(frozen=True)
class ScoreComparison:
    """Two runs' scores on the same images.

    Attributes:
        there: Name of the run compared with.
        here: Name of the run whose labels count.
        task: Of both.
        num_images: Scored in both.
        num_drawn: Images and groups among them that a bootstrap sample draws from.
        num_only_there: Images left out, as the other run did not score them.
        num_only_here: As `num_only_there`.
        num_other_labels: Of `num_images`, those that the runs label differently.
        intervals: Artifact in both -> metric -> its interval here, with the difference to there.
        only_there: Artifacts.
        only_here: Artifacts.
        settings: Of the bootstrap.
    """

    there: str
    here: str
    task: str
    num_images: int
    num_drawn: int
    num_only_there: int
    num_only_here: int
    num_other_labels: int
    intervals: Mapping[str, Mapping[str, Interval]]
    only_there: tuple[str, ...]
    only_here: tuple[str, ...]
    settings: BootstrapSettings


def compare_runs(there: ScoredRun, here: ScoredRun, settings: BootstrapSettings) -> ScoreComparison:
    """Score both runs' predictions on the images that both scored, by the labels of `here`.

    Raises:
        EvaluationError: The tasks or classes differ, no image or no artifact is in both, or predictions are broken.
    """
    _check_same_kind(there, here)
    pairs = pair_images(there.images, here.images)
    if pairs.empty:
        raise EvaluationError(
            f"{there.name} and {here.name} scored no image in common ({len(there.images)} and {len(here.images)}"
            " images), expected the same test images; compare commits with the same data set and data/splits.csv"
        )
    images = here.images[here.images["image_id"].isin(pairs[HERE])].sort_values("image_id", ignore_index=True)
    scoring = task_module(here.task, "scoring")
    truth = scoring.truth_of(here.data, images)
    intervals = {}
    for name in [name for name in here.predictions if name in there.predictions]:
        found = {
            HERE: _of_images(here.predictions[name], images),
            THERE: as_in(there.predictions[name], pairs, there.data.class_names, here.data.class_names),
        }
        intervals[name] = scoring.bootstrap(truth, images, here.data.class_names, found, THERE, settings)[HERE]
    return ScoreComparison(
        there=there.name,
        here=here.name,
        task=here.task,
        num_images=len(images),
        num_drawn=num_drawn(images),
        num_only_there=len(there.images) - len(images),
        num_only_here=len(here.images) - len(images),
        num_other_labels=count_other_labels(there.data.annotations, here.data.annotations, pairs),
        intervals=intervals,
        only_there=tuple(name for name in there.predictions if name not in here.predictions),
        only_here=tuple(name for name in here.predictions if name not in there.predictions),
        settings=settings,
    )


def _check_same_kind(there: ScoredRun, here: ScoredRun) -> None:
    if there.task != here.task:
        raise EvaluationError(
            f"{there.name}: its task is {there.task}, expected {here.task} as in {here.name}; compare runs of one task"
        )
    other = sorted(set(there.data.class_names) ^ set(here.data.class_names))
    if other:
        raise EvaluationError(
            f"{there.name}: expected the classes of {here.name}, {', '.join(here.data.class_names)}, got"
            f" {', '.join(there.data.class_names)}; compare runs with the same classes (not in both:"
            f" {', '.join(other)})"
        )
    if not set(there.predictions) & set(here.predictions):
        raise EvaluationError(
            f"{there.name} and {here.name} scored no artifact of the same name, got {', '.join(there.predictions)} and"
            f" {', '.join(here.predictions)}; run dvc repro"
        )


def pair_images(there: pd.DataFrame, here: pd.DataFrame) -> pd.DataFrame:
    """Return the image_id of each image in both runs, columns ``there`` and ``here``, in the order of ``here``.

    The same bytes twice in a run are paired in the order of their paths, as far as both runs have them.

    Args:
        there: Columns image_id, sha256 and path.
        here: The same.

    >>> there = pd.DataFrame({"image_id": [0, 1], "sha256": ["b", "a"], "path": ["x", "y"]})
    >>> here = pd.DataFrame({"image_id": [5, 6], "sha256": ["c", "b"], "path": ["z", "w"]})
    >>> pair_images(there, here).values.tolist()
    [[0, 6]]
    """
    keyed = []
    for images, name in ((there, THERE), (here, HERE)):
        rows = images.sort_values(["path", "image_id"])
        rows = rows.assign(copy=rows.groupby("sha256").cumcount())
        keyed.append(rows[["sha256", "copy", "image_id"]].rename(columns={"image_id": name}))
    pairs = keyed[0].merge(keyed[1], on=["sha256", "copy"], validate="one_to_one")
    return pairs[[THERE, HERE]].sort_values(HERE, ignore_index=True)


def as_in(
    predictions: pd.DataFrame, pairs: pd.DataFrame, there: tuple[str, ...], here: tuple[str, ...]
) -> pd.DataFrame:
    """Return the other run's predictions with this run's image_ids and class_ids, of the paired images alone.

    Args:
        predictions: Columns image_id and class_id, and where there is one, ``probabilities`` of every class.
        pairs: From `pair_images`.
        there: The other run's class names.
        here: This run's: the same, in any order.
    """
    ids = dict(zip(pairs[THERE], pairs[HERE], strict=True))
    found = predictions[predictions["image_id"].isin(pairs[THERE])]
    classes = np.array([here.index(name) for name in there], dtype=np.int64)
    known = found["class_id"].between(0, len(classes) - 1)
    if not known.all():
        wrong = int(found.loc[~known, "class_id"].iloc[0])
        raise EvaluationError(f"predictions: class_id {wrong}, expected 0..{len(classes) - 1}; run dvc repro there")
    changed: dict[str, Any] = {
        "image_id": found["image_id"].map(ids).astype(np.int64),
        "class_id": classes[found["class_id"].to_numpy(np.int64)],
    }
    if "probabilities" in found:
        order = np.argsort(classes)
        changed["probabilities"] = [np.asarray(values)[order] for values in found["probabilities"]]
    return found.assign(**changed).sort_values("image_id", kind="stable", ignore_index=True)


def _of_images(predictions: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    return predictions[predictions["image_id"].isin(images["image_id"])].reset_index(drop=True)


def count_other_labels(there: pd.DataFrame, here: pd.DataFrame, pairs: pd.DataFrame) -> int:
    """Return how many of the paired images have other labels in the two runs, in whatever order they stand.

    Args:
        there: Columns of `plumbline.manifest.ANNOTATIONS_SCHEMA`.
        here: The same.
        pairs: From `pair_images`.
    """
    ours, theirs = _labels_of(here), _labels_of(there)
    return sum(
        theirs.get(other, []) != ours.get(image, [])
        for other, image in zip(pairs[THERE].tolist(), pairs[HERE].tolist(), strict=True)
    )


def _labels_of(annotations: pd.DataFrame) -> dict[int, list[str]]:
    labels: dict[int, list[str]] = {}
    values = annotations[_LABEL].to_numpy(object).tolist()
    for image_id, row in zip(annotations["image_id"].tolist(), values, strict=True):
        labels.setdefault(image_id, []).append(repr(row))  # as text, NaN is equal to NaN, and all sorts
    return {image_id: sorted(rows) for image_id, rows in labels.items()}


def is_more_than_chance(interval: Interval) -> bool | None:
    """Say whether the difference's interval excludes 0; None where the interval is undefined.

    >>> is_more_than_chance(Interval(0.8, 0.7, 0.9, 0.02, 0.01, 0.03))
    True
    """
    low, high = interval.difference_low, interval.difference_high
    if math.isnan(low) or math.isnan(high):
        return None
    return low > 0 or high < 0
