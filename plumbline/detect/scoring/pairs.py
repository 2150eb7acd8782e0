"""Which box of the labels a detection shows, whatever their classes: for the confusion matrix and the mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from plumbline.box_matching import match_greedily
from plumbline.boxes import box_area, box_iou
from plumbline.detect.scoring.matching import XYXY, flags

MIN_IOU = 0.5
NONE = -1
COUNT, IGNORE = "count", "ignore"  # `plumbline.scores.ScoringSettings.difficult`

_Ints = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.floating[Any]]


def ignored_boxes(truth: pd.DataFrame, difficult: str) -> npt.NDArray[np.bool_]:
    """Return which labels count neither as found nor as missed, shape (N,): crowds, and difficult ones if so asked.

    Args:
        truth: Columns crowd and difficult may be missing: then none is.
        difficult: ``count`` or ``ignore``.
    """
    crowd = flags(truth, "crowd")
    return crowd | flags(truth, "difficult") if difficult == IGNORE else crowd


def pair_boxes(
    truth: pd.DataFrame,
    found: pd.DataFrame,
    image_ids: Sequence[int],
    *,
    confidence_threshold: float,
    difficult: str = COUNT,
) -> pd.DataFrame:
    """Pair boxes at IoU 0.5 whatever their classes, the most confident detection first.

    Of labels in one place, a detection takes that of its own class. Ignored labels are in no pair, nor are detections
    that find no other label and take an ignored one: a difficult box, which only one can take, or a crowd, on which any
    number may lie with half of their own area, as COCO has it.

    Args:
        truth: As for `plumbline.detect.scoring.coco_evaluation.evaluate_detections`, and so are the others.
        found: Those below the threshold are left out.
        image_ids: The images to look at, each once.
        confidence_threshold: What the artifact shows to a person.
        difficult: ``count`` or ``ignore``.

    Returns:
        Columns image_id, truth and found: positions in the tables given, `NONE` for a label that nothing found and
        for a detection of nothing; every counted label and every counted detection once. In the order of `image_ids`,
        pairs and false alarms first, by falling confidence, then what was missed.
    """
    labels, seen = _in_order(truth, found, image_ids, confidence_threshold)
    of_label, of_seen = labels.groupby("image_id").indices, seen.groupby("image_id").indices
    nothing = np.zeros(0, dtype=np.int64)
    rows: list[tuple[int, int, int]] = []
    arrays = _Arrays(labels, ignored_boxes(labels, difficult), seen)
    for image_id in image_ids:
        pairs = arrays.pairs(of_label.get(image_id, nothing), of_seen.get(image_id, nothing))
        rows += [(image_id, label, detection) for label, detection in pairs]
    return pd.DataFrame(rows, columns=["image_id", "truth", "found"]).astype(np.int64)


def _in_order(
    truth: pd.DataFrame, found: pd.DataFrame, image_ids: Sequence[int], confidence_threshold: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the labels of the images and the detections that are shown; the index is the row in the tables given.

    Sorted by all that they have, so that equal confidences and overlaps are settled alike whatever the order of rows.
    """
    labels, seen = truth.reset_index(drop=True), found.reset_index(drop=True)
    labels = labels[labels["image_id"].isin(image_ids)].sort_values(["image_id", "class_id", *XYXY])
    seen = seen[seen["image_id"].isin(image_ids) & (seen["confidence"] >= confidence_threshold)]
    ascending = [True, False, *[True] * 5]
    return labels, seen.sort_values(["image_id", "confidence", "class_id", *XYXY], ascending=ascending)


class _Arrays:
    """The ordered tables as arrays, to take one image after the other from."""

    def __init__(self, labels: pd.DataFrame, ignored: npt.NDArray[np.bool_], seen: pd.DataFrame) -> None:
        self._label_xyxy, self._seen_xyxy = (frame[XYXY].to_numpy(np.float64) for frame in (labels, seen))
        self._label_class, self._seen_class = labels["class_id"].to_numpy(), seen["class_id"].to_numpy()
        self._label_place, self._seen_place = labels.index.to_numpy(), seen.index.to_numpy()
        self._ignored = ignored
        self._crowd = flags(labels, "crowd")

    def pairs(self, labels: _Ints, seen: _Ints) -> list[tuple[int, int]]:
        """Return (position of the label, position of the detection) of one image's pairs."""
        counted, ignored = labels[~self._ignored[labels]], labels[self._ignored[labels]]
        iou = box_iou(self._seen_xyxy[seen], self._label_xyxy[counted])
        same = self._seen_class[seen][:, None] == self._label_class[counted][None, :]
        matched = match_greedily(np.where(iou >= MIN_IOU, iou + 1e-9 * same, 0.0), MIN_IOU)
        elsewhere = np.zeros(len(seen), dtype=bool)
        elsewhere[matched < 0] = self._on_ignored(seen[matched < 0], ignored)
        place = np.append(self._label_place[counted], NONE)[matched]  # -1, no label, is the one at the end
        pairs = list(zip(place[~elsewhere].tolist(), self._seen_place[seen][~elsewhere].tolist(), strict=True))
        missed = np.setdiff1d(np.arange(len(counted)), matched)
        return pairs + [(label, NONE) for label in self._label_place[counted][missed].tolist()]

    def _on_ignored(self, seen: _Ints, ignored: _Ints) -> npt.NDArray[np.bool_]:
        crowd, single = ignored[self._crowd[ignored]], ignored[~self._crowd[ignored]]
        taken = match_greedily(box_iou(self._seen_xyxy[seen], self._label_xyxy[single]), MIN_IOU) >= 0
        covered = _covered(self._seen_xyxy[seen], self._label_xyxy[crowd])
        return np.asarray(taken | (covered >= MIN_IOU).any(axis=1))


def _covered(boxes: _Floats, regions: _Floats) -> _Floats:
    """Return the share of each box that lies in each region, shape (N, M).

    >>> _covered(np.array([[0.0, 0.0, 2.0, 2.0]]), np.array([[1.0, 0.0, 9.0, 9.0]])).tolist()
    [[0.5]]
    """
    top_left = np.maximum(boxes[:, None, :2], regions[None, :, :2])
    bottom_right = np.minimum(boxes[:, None, 2:], regions[None, :, 2:])
    shared = np.maximum(bottom_right - top_left, 0).prod(axis=2)
    area = np.broadcast_to(box_area(boxes)[:, None], shared.shape)
    return np.divide(shared, area, out=np.zeros_like(shared), where=area > 0)
