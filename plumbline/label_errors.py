"""Rank labels by how likely they are wrong, from what a model that never saw them says of their images.

Four kinds, each with a score in 0..1 on one scale, 1 for the surest:

- ``missing_label``: the model sees an object where no box is. Score: its confidence.
- ``wrong_class``: it sees another class in the box's place. Score: its confidence, times the doubt in the box.
- ``badly_placed``: it sees the same class, but not where the box lies. Score: its confidence, times how far the
  overlap falls short of what is typical of the class on this data.
- ``spurious_label``: it sees nothing there. Score: the doubt in the box, times the model's own recall of the class: a
  model that often overlooks a class says nothing by not seeing one.

The doubt in a box is one minus the confidence that speaks for it, to the power of `DOUBT_POWER`: nearly all labels are
right, so a lack of support must be near complete to count as much as a detection does. Scores order suspects; they are
no probabilities.

Source: the idea of scoring overlooked, swapped and badly located boxes by a model's confidence and the overlap is that
of ObjectLab (Tkachenko, Thyagarajan, Mueller: "ObjectLab: Automated Diagnosis of Mislabeled Images in Object Detection
Data", 2023, https://arxiv.org/abs/2309.00832); that what is normal is measured per class on the data itself is that of
confident learning (Northcutt, Jiang, Chuang 2021, https://arxiv.org/abs/1911.00068). The scores are this project's own.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from plumbline.box_matching import match_greedily
from plumbline.boxes import Boxes, box_area, box_iou
from plumbline.errors import EvaluationError
from plumbline.runtime.decode import suppress

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

KINDS = ("missing_label", "wrong_class", "badly_placed", "spurious_label")
XYXY = ["x1", "y1", "x2", "y2"]
PREDICTED_XYXY = ["predicted_x1", "predicted_y1", "predicted_x2", "predicted_y2"]
COLUMNS = [
    "score",  # 0..1
    "kind",  # one of KINDS
    "image_id",
    "ann_id",  # of the given box; -1 for a missing label
    "class_id",  # of the given box; -1 for a missing label
    *XYXY,  # the given box, pixels; NaN for a missing label
    "predicted_class_id",  # -1 for a spurious label
    "confidence",  # of the prediction; of what speaks most for the box, for a spurious label
    *PREDICTED_XYXY,  # pixels; NaN for a spurious label
    "iou",  # of both boxes, 0..1; NaN where there is only one
    "message",
]

# Measured with benchmarks/label_errors.py: 3 to 5 are equally good; with 1 the list is full of objects that are hard.
DOUBT_POWER = 4
# A prediction of the box's class that overlaps it by so much is its own; COCO's lowest threshold.
MATCH_IOU = 0.5
# Between these overlaps a prediction comes to speak about a box ...
_AT_PLACE = (0.25, MATCH_IOU)
# ... and between these it is at least near it: a box with something near is no spurious one.
_NEAR = (0.1, 0.4)
_MISPLACED = 0.4  # a box that overlaps the one that the model sees by less is as badly placed as one can be
_SURE = 0.3  # matched predictions of so much confidence show what overlap is typical
_SEEN = 0.1  # a box that is supported by so much confidence counts as found, for the recall
_TYPICAL_IOU = 0.8  # where there is too little to measure it
_BORROWED = 5  # boxes of all classes that a class's own numbers are mixed with: few boxes say little
_MOST_PER_IMAGE = 1000


@dataclass(frozen=True)
class _Image:
    """The labels and predictions of one image, and how they lie to each other.

    Attributes:
        image_id: As in the tables.
        given: Shape (G,), rows of the annotations that are judged.
        classes: Shape (G,), of the given boxes.
        difficult: Shape (G,), bool.
        predicted: Shape (P,), rows of the predictions, the most confident first.
        xyxy: Shape (P, 4), of the predictions.
        confidence: Shape (P, 1).
        iou: Shape (P, G).
        same: Shape (P, G), bool: of one class.
        taken: Shape (P,), the given box of the same class that a prediction explains, or -1.
        elsewhere: Shape (P,), bool: on a region that is not judged, such as a crowd.
    """

    image_id: int
    given: Ints
    classes: Ints
    difficult: Flags
    predicted: Ints
    xyxy: Floats
    confidence: Floats
    iou: Floats
    same: Flags
    taken: Ints
    elsewhere: Flags


@dataclass(frozen=True)
class _Suspects:
    """Suspects of one image, shape (N,) each.

    Attributes:
        image_id: Of the image.
        kind: Index into KINDS.
        score: 0..1.
        given: Row of the annotations, or -1.
        predicted: Row of the predictions, or -1.
        confidence: Of the prediction, or of what speaks most for the box.
        iou: Of both boxes, or NaN.
    """

    image_id: Ints
    kind: Ints
    score: Floats
    given: Ints
    predicted: Ints
    confidence: Floats
    iou: Floats


@dataclass(frozen=True)
class _Typical:
    """What is normal for each class on this data, shape (C,) each: the overlap of a match, and the recall."""

    iou: Floats
    recall: Floats


def rank_label_errors(
    annotations: pd.DataFrame,
    predictions: pd.DataFrame,
    class_names: Sequence[str],
    image_ids: Collection[int],
    *,
    min_score: float = 0.0,
) -> pd.DataFrame:
    """Return the labels and places that are likely wrong, the worst first.

    A given box is a suspect once, of the kind with the highest score. Crowds, boxes without an area and boxes of a
    class that has no number are not judged, nor is what the model sees on them. A box that is marked as difficult
    is never a spurious one.

    Args:
        annotations: Columns image_id, ann_id, class_id, x1..y2 (pixels); difficult and crowd where there are such.
        predictions: Columns image_id, class_id, confidence, x1..y2 (pixels), of a model that was not trained on these
            images; down to a low confidence, or every object that is hard to see becomes a spurious label.
        class_names: Index is class_id.
        image_ids: The images that the model was run on; others are not judged.
        min_score: Suspects below are left out.

    Returns:
        Columns of `COLUMNS`. The order of the given rows does not matter.

    Raises:
        EvaluationError: A prediction is on another image or of another class.
    """
    wanted = sorted({int(image_id) for image_id in image_ids})
    _check(predictions, class_names, wanted)
    # Twice, because the overlaps of all images at once would be large.
    compared = functools.partial(_compared, annotations, predictions, len(class_names), wanted)
    typical = _typical(compared(), len(class_names))
    suspects = _table([part for image in compared() for part in _suspects_of(image, typical)], annotations, predictions)
    suspects = suspects[(suspects["score"] >= min_score) & (suspects["score"] > 0)]
    order = suspects.assign(kind=suspects["kind"].map(KINDS.index), score=-suspects["score"])
    keys = ["score", "kind", "image_id", "ann_id", "predicted_class_id", "confidence", *PREDICTED_XYXY]
    suspects = suspects.loc[order.sort_values(keys, kind="stable").index].reset_index(drop=True)
    messages = [_message(row, class_names) for row in suspects.to_dict("records")]
    return suspects.assign(message=pd.Series(messages, dtype=object))[COLUMNS]


def _table(parts: list[_Suspects], annotations: pd.DataFrame, predictions: pd.DataFrame) -> pd.DataFrame:
    """Return all suspects with the columns of `COLUMNS` but the message."""

    def joined(name: str, dtype: type) -> npt.NDArray[Any]:
        return np.concatenate([np.zeros(0, dtype), *(getattr(part, name) for part in parts)])

    given, predicted = joined("given", np.int64), joined("predicted", np.int64)
    taken = {name: _rows(annotations[name], given, -1) for name in ("ann_id", "class_id")}
    taken |= {name: _rows(annotations[name], given, np.nan) for name in XYXY}
    taken["predicted_class_id"] = _rows(predictions["class_id"], predicted, -1)
    names = zip(XYXY, PREDICTED_XYXY, strict=True)
    taken |= {to: _rows(predictions[name], predicted, np.nan) for name, to in names}
    kinds = np.array(KINDS, dtype=object)[joined("kind", np.int64)]
    own = {name: joined(name, np.float64) for name in ("score", "confidence", "iou")}
    return pd.DataFrame({"kind": kinds, "image_id": joined("image_id", np.int64), **own, **taken})


def _rows(column: pd.Series, rows: Ints, otherwise: float) -> npt.NDArray[Any]:
    """Return a column's values at these rows, and another value for row -1."""
    dtype = np.int64 if otherwise == -1 else np.float64
    values = np.append(column.to_numpy(dtype), dtype(otherwise))
    return values[rows]


def _check(predictions: pd.DataFrame, class_names: Sequence[str], image_ids: list[int]) -> None:
    strange = predictions[~predictions["image_id"].isin(image_ids)]
    if len(strange):
        raise EvaluationError(
            f"{len(strange)} predictions are on other images than those that shall be judged, such as image_id"
            f" {strange['image_id'].iloc[0]}; run evaluate again"
        )
    classes = predictions["class_id"]
    beyond = classes[(classes < 0) | (classes >= len(class_names))]
    if len(beyond):
        raise EvaluationError(
            f"a prediction is of class_id {beyond.iloc[0]}, expected one of the {len(class_names)} classes of the"
            " labels; run evaluate again"
        )


def _compared(
    annotations: pd.DataFrame, predictions: pd.DataFrame, num_classes: int, image_ids: list[int]
) -> Iterator[_Image]:
    given_xyxy, seen_xyxy = annotations[XYXY].to_numpy(np.float64), predictions[XYXY].to_numpy(np.float64)
    classes, seen_classes = annotations["class_id"].to_numpy(np.int64), predictions["class_id"].to_numpy(np.int64)
    confidence = predictions["confidence"].to_numpy(np.float64)
    crowd, difficult = (_flags(annotations, name) for name in ("crowd", "difficult"))
    judged = (classes >= 0) & (classes < num_classes) & ~crowd & (box_area(given_xyxy) > 0)
    # The order of the tables' rows must not decide anything.
    given_order = np.argsort(annotations["ann_id"].to_numpy(np.int64), kind="stable")
    seen_order = np.lexsort((*seen_xyxy.T[::-1], seen_classes, -confidence))
    given_of = _by_image(annotations, given_order[np.isfinite(given_xyxy[given_order]).all(axis=1)])
    sound = np.isfinite(seen_xyxy).all(axis=1) & np.isfinite(confidence)
    seen_of = _by_image(predictions, seen_order[sound[seen_order]])
    none = np.zeros(0, dtype=np.int64)
    for image_id in image_ids:
        all_given, predicted = given_of.get(image_id, none), seen_of.get(image_id, none)
        given, ignored = all_given[judged[all_given]], all_given[~judged[all_given]]
        xyxy = seen_xyxy[predicted]
        iou = box_iou(xyxy, given_xyxy[given]).astype(np.float64)
        same = np.equal(seen_classes[predicted][:, None], classes[given][None])
        yield _Image(
            image_id, given, classes[given], difficult[given], predicted, xyxy, confidence[predicted][:, None], iou,
            same, match_greedily(np.where(same, iou, 0.0), MATCH_IOU), _on(xyxy, given_xyxy[ignored]),
        )  # fmt: skip


def _flags(annotations: pd.DataFrame, name: str) -> Flags:
    return annotations[name].to_numpy(bool) if name in annotations else np.zeros(len(annotations), dtype=bool)


def _by_image(table: pd.DataFrame, rows: Ints) -> dict[int, Ints]:
    """Return image_id -> those of the rows that are on it, in their order."""
    image_ids = table["image_id"].to_numpy(np.int64)[rows]
    order = np.argsort(image_ids, kind="stable")
    found, starts = np.unique(image_ids[order], return_index=True)
    return dict(zip(found.tolist(), np.split(rows[order], starts[1:]), strict=False))


def _on(boxes: Boxes, regions: Boxes) -> Flags:
    """Say of each box whether half of it or more lies in one of the regions, shape (N,)."""
    top_left = np.maximum(boxes[:, None, :2], regions[None, :, :2])
    wh = np.maximum(np.minimum(boxes[:, None, 2:], regions[None, :, 2:]) - top_left, 0)
    shares = wh.prod(axis=2) / np.maximum(box_area(boxes), 1e-9)[:, None]
    return np.asarray((shares >= MATCH_IOU).any(axis=1), dtype=bool)


def _typical(images: Iterable[_Image], num_classes: int) -> _Typical:
    overlaps: list[tuple[Ints, Floats]] = []
    founds: list[tuple[Ints, Floats]] = []
    for image in images:
        sure = np.flatnonzero((image.taken >= 0) & (image.confidence[:, 0] >= _SURE))
        overlaps.append((image.classes[image.taken[sure]], image.iou[sure, image.taken[sure]]))
        support = np.where(image.same & (image.iou >= _NEAR[1]), image.confidence, 0.0).max(axis=0, initial=0.0)
        founds.append((image.classes, (support >= _SEEN).astype(np.float64)))
    return _Typical(
        _per_class(overlaps, num_classes, np.median, _TYPICAL_IOU), _per_class(founds, num_classes, np.mean, 1.0)
    )


def _per_class(parts: list[tuple[Ints, Floats]], num_classes: int, statistic: Any, otherwise: float) -> Floats:
    """Return a statistic of each class's values, drawn towards that of all classes where a class has few."""
    classes = np.concatenate([part[0] for part in parts]) if parts else np.zeros(0, dtype=np.int64)
    values = np.concatenate([part[1] for part in parts]) if parts else np.zeros(0)
    overall = float(statistic(values)) if len(values) >= _BORROWED else otherwise
    result = np.full(num_classes, overall)
    for class_id in np.unique(classes):
        own = values[classes == class_id]
        result[class_id] = (len(own) * float(statistic(own)) + _BORROWED * overall) / (len(own) + _BORROWED)
    return result


def _suspects_of(image: _Image, typical: _Typical) -> Iterator[_Suspects]:
    # What a prediction of a box's own says is said of no other box, save that one of the same class supports both:
    # a model that sees one of two objects in a heap is no witness against the other.
    free = np.asarray(image.taken < 0, dtype=bool)
    own = np.zeros(image.iou.shape, dtype=bool)
    own[np.flatnonzero(~free), image.taken[~free]] = True
    yield _suspect_boxes(image, free[:, None] | own, typical)
    yield _missing(image, free, np.asarray(own.any(axis=0), dtype=bool))


def _suspect_boxes(image: _Image, may_speak: Flags, typical: _Typical) -> _Suspects:
    """Return one suspect per given box: the likeliest of what may be wrong with it."""
    typical_iou, recall = typical.iou[image.classes], typical.recall[image.classes]
    at_place = image.confidence * _rise(image.iou, *_AT_PLACE)
    support = np.where(image.same, at_place, 0.0).max(axis=0, initial=0.0)
    near = image.confidence * _rise(image.iou, *_NEAR)
    near = np.where(image.same | may_speak, near, 0.0).max(axis=0, initial=0.0)
    rival, rivals = _best(np.where(~image.same & may_speak, at_place, 0.0))
    overlapping = image.same & may_speak & (image.iou > _NEAR[0])
    _, places = _best(np.where(overlapping, image.confidence * image.iou, 0.0))
    falls_short = _rise(typical_iou - _at(image.iou, places), 0.0, typical_iou - _MISPLACED)
    confidence = np.broadcast_to(image.confidence, image.iou.shape)
    scores = np.stack([
        rival * (1 - support) ** DOUBT_POWER,
        _at(confidence, places) * falls_short,
        ((1 - near) * recall) ** DOUBT_POWER * ~image.difficult,
    ])  # fmt: skip
    kind = scores.argmax(axis=0)
    seen = np.choose(kind, [rivals, places, np.full(len(kind), -1)])
    return _Suspects(
        image_id=np.full(len(kind), image.image_id), kind=kind + 1, score=scores.max(axis=0), given=image.given,
        predicted=np.where(seen >= 0, np.append(image.predicted, -1)[seen], -1),
        confidence=np.where(seen >= 0, _at(confidence, seen), near),
        iou=np.where(seen >= 0, _at(image.iou, seen), np.nan),
    )  # fmt: skip


def _missing(image: _Image, free: Flags, explained: Flags) -> _Suspects:
    """Return one suspect per place where the model sees something and no box is."""
    # Beside a box that has its own prediction a second object may stand closer than beside one that has none.
    near = np.where(explained[None], _rise(image.iou, *_AT_PLACE), _rise(image.iou, *_NEAR)).max(axis=1, initial=0.0)
    scores = np.where(free & ~image.elsewhere, image.confidence[:, 0] * (1 - near), 0.0)
    rows = np.argsort(-scores, kind="stable")
    rows = rows[scores[rows] > 0]
    # One object is one suspect, whatever classes the model hesitates between.
    rows = rows[suppress(image.xyxy[rows], np.zeros(len(rows), dtype=np.int64), MATCH_IOU, _MOST_PER_IMAGE)]
    none = np.full(len(rows), -1)
    return _Suspects(
        image_id=np.full(len(rows), image.image_id), kind=none + 1, score=scores[rows], given=none,
        predicted=image.predicted[rows], confidence=image.confidence[rows, 0], iou=np.full(len(rows), np.nan),
    )  # fmt: skip


def _rise(values: Floats, low: Any, high: Any) -> Floats:
    """Return 0 below `low`, 1 above `high`, and a straight line between.

    >>> _rise(np.array([0.0, 0.3, 0.9]), 0.1, 0.5).round(2).tolist()
    [0.0, 0.5, 1.0]
    """
    risen: Floats = np.clip((values - low) / np.maximum(high - low, 1e-9), 0.0, 1.0)
    return risen


def _best(values: Floats) -> tuple[Floats, Ints]:
    """Return the largest value of each column and its row; 0 and row -1 where there is none above 0."""
    if not len(values):
        return np.zeros(values.shape[1]), np.full(values.shape[1], -1)
    largest = values.max(axis=0)
    return largest, np.where(largest > 0, values.argmax(axis=0), -1)


def _at(values: npt.NDArray[Any], rows: Ints) -> Floats:
    """Return one value of each column; 0 for row -1."""
    if not len(values):
        return np.zeros(len(rows))
    return np.where(rows >= 0, values[np.maximum(rows, 0), np.arange(len(rows))], 0.0)


def _message(row: dict[Any, Any], class_names: Sequence[str]) -> str:
    sees = f"the model sees {class_names[row['predicted_class_id']]} ({row['confidence']:.2f})"
    if row["kind"] == "missing_label":
        return f"no box where {sees}; add one if it is there"
    label = f"labelled {class_names[row['class_id']]}"
    if row["kind"] == "wrong_class":
        return f"{label}, {sees} there; correct the class if it is one"
    if row["kind"] == "badly_placed":
        return f"{label}, {sees} in a box that shares only {row['iou']:.0%} with this one; move the box if it is wrong"
    return f"{label}, the model sees next to nothing there ({row['confidence']:.2f}); remove the box if it is wrong"
