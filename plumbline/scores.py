"""What the room ``scoring`` of a task takes and gives; the same words for every task.

Its verbs::

    PREDICTIONS_SCHEMA                                # of predictions.parquet: image_id, class_id, confidence...
    HEADLINE                                          # keys of metrics that the report compares; the first decides
    truth_of(dataset, images) -> truth                # the images' labels; EvaluationError where they do not fit
    prediction_rows(image_id, prediction) -> columns  # what a session's predict gave for one image
    choose_threshold(truth, predictions, images, class_names, rule) -> Threshold
    evaluate(truth, predictions, images, class_names, settings) -> Scores
    curves_picture(scores, title) -> bytes              # PNG
    worst_sheet(dataset, images, truth, predictions, settings, title) -> BGR image
    bootstrap(truth, images, class_names, predictions, reference, settings) -> {name: {metric: Interval}}

``images`` are rows of `plumbline.manifest.IMAGES_SCHEMA`, all that are scored, also those with no label and no
prediction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True)
class ScoringSettings:
    """How predictions are scored.

    Attributes:
        confidence_threshold: What the artifact shows to a person.
        confidence_floor: Predictions below were not kept.
        difficult: ``count`` a box that a label calls difficult as any other, as COCO does, or ``ignore`` it: neither
            found nor missed, as in Pascal VOC's own evaluation.
        slices: Columns of the images table, and ``box_size``, by which the metrics are also given.
        slice_bins: A column of numbers is cut into so many parts with the same number of images.
        worst: Images on the sheet of the worst mistakes.
    """

    confidence_threshold: float
    confidence_floor: float
    difficult: str
    slices: tuple[str, ...]
    slice_bins: int
    worst: int


# Every task gives these, because one dvc.yaml names them as plots.
TABLES = ("pr_curve", "confidence_curve", "confusion", "classes", "slices")


def free_name(name: str, taken: Sequence[str]) -> str:
    """Put brackets around a name of ours that a class has already.

    >>> free_name("all", ["cat"]), free_name("all", ["all"])
    ('all', '(all)')
    """
    while name in taken:
        name = f"({name})"
    return name


@dataclass(frozen=True)
class Scores:
    """What `evaluate` found.

    Attributes:
        metrics: Flat numbers. What is undefined is not in it: the AP of a class without ground truth, say.
        undefined: Key of a metric that is not there -> why, in words for a person.
        tables: Stem of a CSV file -> rows: `TABLES` for every task, and what else a task's own pictures show:
            ``pr_curve`` (recall, precision, class; the first class is the mean over all),
            ``confidence_curve`` (confidence, precision, recall, f1),
            ``confusion`` (actual, predicted; one row per pair),
            ``classes`` (class, num_objects, then a column per metric),
            ``slices`` (column, slice, num_images, num_objects, then a column per metric).
            Cells that are undefined are NaN.
    """

    metrics: dict[str, float]
    undefined: dict[str, str]
    tables: dict[str, pd.DataFrame]


@dataclass(frozen=True)
class ThresholdRule:
    """How an artifact's confidence threshold is chosen.

    Attributes:
        rule: ``best_f1``, or ``precision``: the lowest threshold with at least that precision, which finds the most.
        precision: Demanded by the rule ``precision``, 0..1.
        difficult: See `ScoringSettings`.
    """

    rule: str
    precision: float
    difficult: str = "count"


@dataclass(frozen=True)
class Threshold:
    """A chosen confidence threshold, and what it gives on the images it was chosen on.

    Attributes:
        confidence: 0..1; predictions at or above it are shown.
        precision: 0..1; of all predictions shown, those that are right.
        recall: 0..1; of all objects, those found.
        f1: 0..1.
    """

    confidence: float
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class BootstrapSettings:
    """How intervals are found.

    Attributes:
        samples: Of the images, with replacement, as many as there are.
        level: 0.95 for a 95 % interval.
        seed: Of the samples.
        difficult: See `ScoringSettings`.
    """

    samples: int
    level: float
    seed: int
    difficult: str


@dataclass(frozen=True)
class Interval:
    """A metric, and its difference to the reference on the same samples of images; percentile intervals.

    Attributes:
        value: On all images.
        low: Lower end of the interval.
        high: Upper end.
        difference: ``value`` minus that of the reference; 0 for the reference itself.
        difference_low: Lower end of the paired interval.
        difference_high: Upper end.
    """

    value: float
    low: float
    high: float
    difference: float
    difference_low: float
    difference_high: float


Intervals = Mapping[str, Mapping[str, Interval]]
