"""From the raw outputs of a split head to boxes: numpy alone, the same for every engine.

Why outside of the network: scores (0..1) and boxes (0..640) in one tensor share one int8 scale, which leaves nothing of
the scores; and most boxes need never be decoded, because their scores are filtered first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from plumbline.boxes import box_area
from plumbline.errors import BackendError
from plumbline.runtime.artifact import OutputSpec
from plumbline.runtime.detections import Detections

Floats = npt.NDArray[np.floating[Any]]

# More candidates than this are cut by score before suppression; ultralytics' figure.
MAX_CANDIDATES = 30_000


def decode(
    outputs: Sequence[Floats], spec: OutputSpec, confidence: float, iou: float, max_detections: int
) -> Detections:
    """Decode one image.

    One cell may give several detections, one for each class above the threshold: that is what COCO's metric wants and
    what the one-to-one head was trained for.

    Args:
        outputs: In the order of ``spec.names``: per stride box (1, 4 * reg_max, h, w), then class logits (1, C, h, w).
        spec: From the artifact.
        confidence: Keep scores above this.
        iou: Suppress a box that overlaps a better one of its class by more; unused for a head without suppression.
        max_detections: Keep so many at the most.

    Returns:
        Boxes in pixels of the network's input.

    Raises:
        BackendError: A score is NaN.
    """
    floor = _logit(confidence)
    per_stride = [
        _decode_stride(outputs[2 * level], outputs[2 * level + 1], stride, spec.reg_max, floor)
        for level, stride in enumerate(spec.strides)
    ]
    xyxy, score, class_id = (np.concatenate(parts) for parts in zip(*per_stride, strict=True))
    order = np.argsort(-score, kind="stable")[: max_detections if spec.nms_free else MAX_CANDIDATES]
    xyxy, score, class_id = xyxy[order], score[order], class_id[order]
    if not spec.nms_free:
        keep = suppress(xyxy, class_id, iou, max_detections)
        xyxy, score, class_id = xyxy[keep], score[keep], class_id[keep]
    return Detections(xyxy, score, class_id)


def _decode_stride(
    box: Floats, logits: Floats, stride: int, reg_max: int, floor: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return xyxy (N, 4), scores (N,), class_id (N,) of the logits above `floor`, in the order of class, then cell."""
    num_classes, _, width = logits.shape[1:]
    flat = logits.reshape(num_classes, -1)
    best = flat.max()
    if np.isnan(best):
        # A comparison with NaN is false: a broken engine would look like an image without objects.
        raise BackendError(f"the class scores at stride {stride} hold NaN, expected numbers; export the artifact again")
    if best <= floor:  # most images have nothing at one scale or another
        return np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64)
    class_id, cell = np.divmod(np.flatnonzero(flat > floor), flat.shape[1])
    score = np.reciprocal(1 + np.exp(-flat[class_id, cell].astype(np.float32)))
    sides = _side_lengths(box.reshape(4, reg_max, -1)[..., cell].astype(np.float32))
    centre = np.stack([cell % width, cell // width]).astype(np.float32) + np.float32(0.5)
    xyxy = np.concatenate([centre - sides[:2], centre + sides[2:]]).T * np.float32(stride)
    return xyxy, score, class_id


def _side_lengths(box: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the distances left, top, right, bottom of shape (4, N), in cells, from shape (4, reg_max, N).

    With several bins, a side is the expectation of the softmax over them.
    Source: X. Li et al., "Generalized Focal Loss", https://arxiv.org/abs/2006.04388, eq. 3.
    """
    if box.shape[1] == 1:
        return box[:, 0]
    weights = np.exp(box - box.max(axis=1, keepdims=True))
    bins = np.arange(box.shape[1], dtype=np.float32)
    return np.einsum("sbn,b->sn", weights, bins) / weights.sum(axis=1)


def _logit(probability: float) -> float:
    """Return the logit; 0 and 1 give the infinities, so that nothing or everything is cut.

    >>> _logit(0.5), _logit(0.0)
    (0.0, -inf)
    """
    with np.errstate(divide="ignore"):
        return float(np.log(np.float64(probability)) - np.log1p(-np.float64(probability)))


def suppress(xyxy: Floats, class_id: npt.NDArray[np.int64], iou: float, max_detections: int) -> npt.NDArray[np.int64]:
    """Greedy non-maximum suppression within each class.

    Args:
        xyxy: Shape (N, 4), the best first.
        class_id: Shape (N,).
        iou: A box that overlaps a kept one by more is dropped.
        max_detections: Stop after so many.

    Returns:
        Indices of the kept boxes, the best first.

    >>> suppress(np.array([[0, 0, 4, 4], [0, 0, 4, 5], [9, 9, 12, 12]]), np.array([1, 1, 1]), 0.7, 10).tolist()
    [0, 2]
    """
    # Classes are moved apart, so that one pass never compares two of them.
    apart = xyxy + (class_id * (float(np.abs(xyxy).max(initial=0)) * 2 + 1))[:, None]
    area = box_area(apart)
    alive = np.arange(len(xyxy))
    kept: list[int] = []
    while alive.size and len(kept) < max_detections:
        best, rest = alive[0], alive[1:]
        kept.append(int(best))
        wh = np.minimum(apart[best, 2:], apart[rest, 2:]) - np.maximum(apart[best, :2], apart[rest, :2])
        inter = np.clip(wh, 0, None).prod(axis=1)
        alive = rest[inter <= iou * (area[best] + area[rest] - inter)]
    return np.array(kept, dtype=np.int64)
