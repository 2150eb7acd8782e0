"""Boxes: float64 arrays of shape (N, 4), `xyxy` in pixels, 0-based, half-open, unless a name says otherwise.

Half-open means that a box over the whole of a 640 x 480 image is (0, 0, 640, 480) and its width is x2 - x1.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Boxes = npt.NDArray[np.floating[Any]]


def xyxy_to_xywh(xyxy: Boxes) -> Boxes:
    """Convert corners to (left, top, width, height), as COCO writes them.

    >>> xyxy_to_xywh(np.array([[10.0, 20.0, 30.0, 60.0]])).tolist()
    [[10.0, 20.0, 20.0, 40.0]]
    """
    return np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1)


def xyxy_to_cxcywhn(xyxy: Boxes, resolution_wh: tuple[int, int]) -> Boxes:
    """Convert corners in pixels to centre and size as fractions of the image, as YOLO writes them.

    Args:
        xyxy: Shape (N, 4), pixels.
        resolution_wh: Width and height of the image in pixels.

    >>> xyxy_to_cxcywhn(np.array([[0.0, 0.0, 50.0, 50.0]]), (100, 200)).tolist()
    [[0.25, 0.125, 0.5, 0.25]]
    """
    scale = np.array([*resolution_wh, *resolution_wh], dtype=np.float64)
    return np.concatenate([(xyxy[:, :2] + xyxy[:, 2:]) / 2, xyxy[:, 2:] - xyxy[:, :2]], axis=1) / scale


def cxcywhn_to_xyxy(cxcywhn: Boxes, resolution_wh: tuple[int, int]) -> Boxes:
    """Convert centre and size as fractions of the image to corners in pixels; undoes `xyxy_to_cxcywhn`.

    >>> cxcywhn_to_xyxy(np.array([[0.25, 0.125, 0.5, 0.25]]), (100, 200)).tolist()
    [[0.0, 0.0, 50.0, 50.0]]
    """
    scale = np.array([*resolution_wh, *resolution_wh], dtype=np.float64)
    centre, half = cxcywhn[:, :2], cxcywhn[:, 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=1) * scale


def box_area(xyxy: Boxes) -> npt.NDArray[np.floating[Any]]:
    """Return areas, shape (N,), in square pixels; a reversed or empty box has area 0.

    >>> box_area(np.array([[0.0, 0.0, 2.0, 3.0], [5.0, 5.0, 4.0, 9.0]])).tolist()
    [6.0, 0.0]
    """
    wh = np.maximum(xyxy[:, 2:] - xyxy[:, :2], 0)
    return wh[:, 0] * wh[:, 1]


def paired_iou(a: Boxes, b: Boxes) -> npt.NDArray[np.float64]:
    """Return the intersection over union of each row's two boxes, shape (N,); 0 where the union is empty or a NaN.

    >>> paired_iou(np.array([[0.0, 0.0, 2.0, 2.0]]), np.array([[1.0, 0.0, 3.0, 2.0]])).round(3).tolist()
    [0.333]
    """
    with np.errstate(all="ignore"):  # an infinite box has no IoU
        wh = np.maximum(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0)
        inter = wh[:, 0] * wh[:, 1]
        union = box_area(a) + box_area(b) - inter
        return np.divide(inter, union, out=np.zeros(len(inter)), where=union > 0)


def box_iou(a: Boxes, b: Boxes) -> npt.NDArray[np.floating[Any]]:
    """Return the intersection over union of every pair, shape (N, M); 0 where the union is empty.

    >>> box_iou(np.array([[0.0, 0.0, 2.0, 2.0]]), np.array([[1.0, 0.0, 3.0, 2.0]])).round(3).tolist()
    [[0.333]]
    """
    top_left = np.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = np.minimum(a[:, None, 2:], b[None, :, 2:])
    wh = np.maximum(bottom_right - top_left, 0)
    inter = wh[..., 0] * wh[..., 1]
    union = box_area(a)[:, None] + box_area(b)[None, :] - inter
    return np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)
