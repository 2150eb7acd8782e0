"""Intervals of mAP, and of its differences between artifacts, by drawing the images anew.

Each sample's mAP is exactly what pycocotools gives on the images drawn, those drawn twice as two images (next to one
another in the order of image_id, which decides between equal confidences). But no detection is matched again: what a
detection finds depends on its own image alone. A sample is only a weight for each image, and its mAP a few cumulated
sums over detections that are sorted once, for many samples side by side.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from plumbline.detect.scoring.average_precision import MAX_DETECTIONS, RECALL_POINTS, TINY, interpolated_precision
from plumbline.detect.scoring.coco_evaluation import check
from plumbline.detect.scoring.matching import ALL_AREAS, IOU_50, IOU_75, IOU_THRESHOLDS, Matches, match
from plumbline.resampling import check_reference, image_weights, paired_intervals
from plumbline.scores import BootstrapSettings, Interval

HEADLINE = ("map50_95", "map50", "map75")
_MOST_WEIGHTS = 4_000_000  # of a detection in a sample that are held at once: about 200 MB with what is made of them

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


def bootstrap(  # noqa: PLR0917 (the verbs of plumbline.scores)
    truth: pd.DataFrame,
    images: pd.DataFrame,
    class_names: Sequence[str],
    predictions: Mapping[str, pd.DataFrame],
    reference: str,
    settings: BootstrapSettings,
) -> dict[str, dict[str, Interval]]:
    """Give each artifact's mAP, and its difference to the reference, an interval; all on the same samples of images.

    A class that has no box in a sample does not count there, as in pycocotools; a sample without any box is left out.

    Args:
        truth: As for `plumbline.detect.scoring.coco_evaluation.evaluate_detections`.
        images: All that are scored; columns image_id and group. Images of one group are drawn together.
        class_names: Index is class_id.
        predictions: Name of an artifact -> its detections.
        reference: The name that the others are compared with.
        settings: See `BootstrapSettings`.

    Returns:
        Name of an artifact -> metric of `HEADLINE` -> interval; none where there is no box to find.

    Raises:
        EvaluationError: As `evaluate_detections` does; or there are no predictions of the reference.
    """
    check_reference(predictions, reference)
    image_ids = images["image_id"].tolist()
    matched: dict[str, Matches] = {}
    for name, found in predictions.items():
        check(truth, found, image_ids, len(class_names))
        arguments = (truth, found, image_ids, len(class_names))
        matched[name] = match(*arguments, difficult=settings.difficult, areas=ALL_AREAS)
    values = {name: _values(matches) for name, matches in matched.items()}
    prepared = {name: _prepare(matches, images) for name, matches in matched.items()}
    chunk = max(1, _MOST_WEIGHTS // max(len(images), *(classes.largest for classes in prepared.values())))
    sampled: dict[str, list[Floats]] = {name: [] for name in predictions}
    for weights in image_weights(images, settings.samples, settings.seed, min(chunk, settings.samples)):
        drawn = weights.astype(np.int32)
        for name, classes in prepared.items():
            sampled[name].append(_sampled_map(classes, drawn))
    columns = {name: dict(zip(HEADLINE, np.concatenate(parts, axis=1), strict=True)) for name, parts in sampled.items()}
    return paired_intervals(values, columns, reference, settings.level)


def sampled_map(matches: Matches, images: pd.DataFrame, weights: npt.NDArray[np.integer]) -> Floats:
    """Return mAP when images count more than once, or not at all.

    Args:
        matches: Of the range of areas ``all``.
        images: Column image_id; all that were matched.
        weights: Shape (samples, num_images), how often each row of `images` counts.

    Returns:
        Shape (3, samples), in the order of `HEADLINE`; NaN for a sample without a counted box.
    """
    return _sampled_map(_prepare(matches, images), weights.astype(np.int32))


def sampled_class_map(matches: Matches, images: pd.DataFrame, weights: npt.NDArray[np.integer]) -> Floats:
    """Return each class's AP50-95 when images count more than once, or not at all.

    Args:
        matches: Of the range of areas ``all``.
        images: Column image_id; all that were matched.
        weights: Shape (samples, num_images), how often each row of `images` counts.

    Returns:
        Shape (num_classes, samples); NaN where a sample has no counted box of the class.
    """
    drawn = weights.astype(np.int32)
    result = np.full((matches.num_classes, len(drawn)), np.nan)
    for one in _prepare(matches, images).classes:
        num_boxes = drawn.take(one.box_image, axis=1).sum(axis=1)
        mean = _average_precision(one, drawn, num_boxes).mean(axis=0)
        result[one.class_id] = np.where(num_boxes > 0, mean, np.nan)
    return result


def _values(matches: Matches) -> dict[str, float]:
    precision = interpolated_precision(matches)
    known = matches.num_counted() > 0
    if not known.any():
        return {}
    parts = (precision, precision[IOU_50], precision[IOU_75])
    return {name: float(part[..., known].mean()) for name, part in zip(HEADLINE, parts, strict=True)}


@dataclass(frozen=True)
class _Class:
    """One class's detections, by falling confidence, and boxes.

    Attributes:
        class_id: Which it is.
        image: Shape (N,), row of the images table.
        hits: Shape (10, N), bool.
        kept: Shape (10, N), bool: hits and false alarms.
        repeat: Shape (N,), 0 for most. Detections of one image with equal confidence, some right and some wrong, of
            which copies of the image make a run that repeats itself (right, wrong, right, wrong): the first detection
            of such a run has its length here, the others -1.
        box_image: Shape (M,), row of the images table of each counted box.
    """

    class_id: int
    image: Ints
    hits: Flags
    kept: Flags
    repeat: Ints
    box_image: Ints


@dataclass(frozen=True)
class _Classes:
    """All classes that have a counted box; the others count in no sample.

    Attributes:
        classes: In the order of class_id.
        largest: Detections of the class that has most.
    """

    classes: list[_Class]
    largest: int


def _prepare(matches: Matches, images: pd.DataFrame) -> _Classes:
    ids = images["image_id"].to_numpy(np.int64)
    by_id = np.argsort(ids)
    area = matches.areas["all"]
    within = matches.rank < MAX_DETECTIONS
    image = by_id[np.searchsorted(ids, matches.image_id, sorter=by_id)]
    box_image = by_id[np.searchsorted(ids, matches.box_image_id, sorter=by_id)]
    classes = []
    for class_id, (begin, end) in enumerate(itertools.pairwise(matches.class_start.tolist())):
        boxes = box_image[area.counted & (matches.box_class_id == class_id)]
        if not len(boxes):
            continue
        hits = area.hits[:, begin:end] & within[begin:end]
        kept = ~area.ignored[:, begin:end] & within[begin:end]
        counts = np.flatnonzero(kept.any(axis=0))
        own, hits, kept = image[begin:end][counts], hits[:, counts], kept[:, counts]
        repeat = _runs(own, matches.confidence[begin:end][counts], hits, kept)
        last = _end(hits, repeat)
        classes.append(_Class(class_id, own[:last], hits[:, :last], kept[:, :last], repeat[:last], boxes))
    return _Classes(classes, max((len(one.image) for one in classes), default=0))


def _end(hits: Flags, repeat: Ints) -> int:
    """Return how many detections count: after the last hit, and the run that it is in, none changes a precision."""
    places = np.flatnonzero(hits.any(axis=0))
    if not len(places):
        return 0
    end = int(places[-1]) + 1
    while end < len(repeat) and repeat[end] < 0:
        end += 1
    return end


def _runs(image: Ints, confidence: npt.NDArray[np.floating], hits: Flags, kept: Flags) -> Ints:
    """Return `_Class.repeat`."""
    equal = (np.diff(image) == 0) & (np.diff(confidence) == 0)
    first = np.flatnonzero(np.append(True, ~equal)) if len(image) else np.zeros(0, dtype=np.int64)
    length = np.diff(first, append=len(image))
    repeat = np.zeros(len(image), dtype=np.int64)
    for begin, size in zip(first[length > 1].tolist(), length[length > 1].tolist(), strict=True):
        run = slice(begin, begin + size)
        right, wrong = hits[:, run].any(axis=1), (kept & ~hits)[:, run].any(axis=1)
        if (right & wrong).any():
            repeat[run] = -1
            repeat[begin] = size
    return repeat


def _sampled_map(prepared: _Classes, drawn: npt.NDArray[np.int32]) -> Floats:
    """Return mAP of samples, shape (3, S), from how often each has each image, shape (S, num_images)."""
    sums = np.zeros((len(IOU_THRESHOLDS), len(drawn)))
    present = np.zeros(len(drawn))
    for one in prepared.classes:
        num_boxes = drawn.take(one.box_image, axis=1).sum(axis=1)
        sums += _average_precision(one, drawn, num_boxes)
        present += num_boxes > 0
    means = np.divide(sums, present, out=np.full(sums.shape, np.nan), where=present > 0)
    return np.stack([means.mean(axis=0), means[IOU_50], means[IOU_75]])


def _average_precision(one: _Class, drawn: npt.NDArray[np.int32], num_boxes: npt.NDArray[np.integer]) -> Floats:
    """Return the average precision of one class, shape (10, S); 0 where the class has no box."""
    order, weights = _weights(one, drawn)
    hits, kept = one.hits[:, order], one.kept[:, order]
    result = np.zeros((len(hits), len(drawn)))
    # What is ignored is the same at most thresholds, and without crowds nothing is.
    patterns, which = np.unique(kept, axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        shown = np.cumsum(weights if pattern.all() else weights * pattern, axis=1, dtype=np.int32)
        for threshold in np.flatnonzero(which == number).tolist():
            places = np.flatnonzero(hits[threshold])
            if len(places):
                hit = np.cumsum(weights.take(places, axis=1), axis=1, dtype=np.int32)
                result[threshold] = _area_under(hit, shown.take(places, axis=1), num_boxes)
    return result


def _area_under(
    found: npt.NDArray[np.int32], shown: npt.NDArray[np.int32], num_boxes: npt.NDArray[np.integer]
) -> Floats:
    """Return the mean of the best precision at each recall point or beyond, shape (S,).

    A hit that counts n times raises precision with each; so only that after the last can be the best, which is why one
    column is enough for it. One that counts 0 times is below the hit before, and no recall point falls to it.

    Args:
        found: Shape (S, H): hits down to and with each hit.
        shown: Shape (S, H): all detections down to and with it.
        num_boxes: Shape (S,).
    """
    best = np.maximum.accumulate((found / (shown + TINY))[:, ::-1], axis=1)[:, ::-1]
    points = np.searchsorted(RECALL_POINTS, found / np.maximum(num_boxes, 1)[:, None], side="right")
    # The recall of 0 is reached before the first hit, where the best precision is that of the whole curve.
    points = np.diff(points, axis=1, prepend=0)
    return np.einsum("sh,sh->s", best, points) / len(RECALL_POINTS)


def _weights(one: _Class, drawn: npt.NDArray[np.int32]) -> tuple[Ints, npt.NDArray[np.int32]]:
    """Return the detections in the order in which they count, and how often each, shape (S, columns).

    That is once each, but for runs that repeat themselves: these are written out as often as any sample has an image,
    each time with the weight 1 where a sample has their image so often.
    """
    if not one.repeat.any():
        return np.arange(len(one.image)), drawn.take(one.image, axis=1)
    first = np.flatnonzero(one.repeat >= 0)
    is_run = one.repeat[first] > 0
    size = np.where(is_run, one.repeat[first], 1)
    columns = size * np.where(is_run, int(drawn.max()), 1)
    # The place of each column within its run and the copies of it.
    place = np.arange(columns.sum()) - np.repeat(np.cumsum(columns) - columns, columns)
    copy, offset = np.divmod(place, np.repeat(size, columns))
    order = np.repeat(first, columns) + offset
    weights = drawn.take(one.image[order], axis=1)
    repeated = np.repeat(is_run, columns)
    weights[:, repeated] = weights[:, repeated] > copy[repeated]
    return order, weights
