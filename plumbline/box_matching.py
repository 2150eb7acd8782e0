"""Pairing detections with ground-truth boxes, as COCO does it: the most confident detection chooses first."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def match_greedily(iou: npt.NDArray[np.floating[Any]], min_iou: float) -> npt.NDArray[np.int64]:
    """Give every detection the free ground-truth box that it overlaps most, if it overlaps it enough.

    No detection's box depends on a less confident one, so the pairs above any confidence threshold are a
    prefix of these: one pass serves every threshold.

    Args:
        iou: Shape (num_detections, num_truths), the rows in the order of falling confidence.
        min_iou: A pair overlaps at least so much.

    Returns:
        Shape (num_detections,): the index of the ground-truth box, or -1.

    Source: `evaluateImg` of
        https://github.com/cocodataset/cocoapi/blob/master/PythonAPI/pycocotools/cocoeval.py,
    for boxes that are neither ignored nor crowds; of equal overlaps the last one wins, as there.

    >>> match_greedily(np.array([[0.9, 0.6], [0.8, 0.0], [0.7, 0.7]]), 0.5).tolist()
    [0, -1, 1]
    """
    matched = np.full(len(iou), -1, dtype=np.int64)
    if iou.size == 0:
        return matched
    free = np.where(iou >= min_iou, iou, -1.0)
    for row in np.flatnonzero(free.max(axis=1) >= 0):
        column = free.shape[1] - 1 - int(free[row, ::-1].argmax())
        if free[row, column] >= 0:
            matched[row] = column
            free[:, column] = -1.0
    return matched
