"""Conversions undo each other, and overlap is what geometry says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from plumbline.boxes import box_area, box_iou, cxcywhn_to_xyxy, xyxy_to_cxcywhn, xyxy_to_xywh

SIZES = st.tuples(st.integers(1, 4096), st.integers(1, 4096))


@st.composite
def boxes(draw, most=6):
    count = draw(st.integers(0, most))
    corners = draw(arrays(np.float64, (count, 4), elements=st.floats(-500, 5000, width=32)))
    low, high = np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:])
    return np.concatenate([low, high], axis=1)


@settings(deadline=None)
@given(boxes(), SIZES)
def test_yolo_fractions_come_back_as_the_same_corners(xyxy, resolution_wh):
    back = cxcywhn_to_xyxy(xyxy_to_cxcywhn(xyxy, resolution_wh), resolution_wh)
    np.testing.assert_allclose(back, xyxy, atol=1e-8)


@settings(deadline=None)
@given(boxes())
def test_coco_width_and_height_come_back_as_the_same_corners(xyxy):
    xywh = xyxy_to_xywh(xyxy)
    np.testing.assert_allclose(np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1), xyxy, atol=1e-8)
    np.testing.assert_allclose(box_area(xyxy), xywh[:, 2] * xywh[:, 3])


@settings(deadline=None)
@given(boxes(), boxes())
def test_iou_is_symmetric_and_within_0_and_1(a, b):
    iou = box_iou(a, b)
    assert iou.shape == (len(a), len(b))
    assert ((iou >= 0) & (iou <= 1 + 1e-12)).all()
    np.testing.assert_allclose(iou, box_iou(b, a).T)


@settings(deadline=None)
@given(boxes())
def test_a_box_is_all_of_itself_unless_it_has_no_area(xyxy):
    np.testing.assert_allclose(np.diag(box_iou(xyxy, xyxy)), (box_area(xyxy) > 0).astype(float))


def test_known_values():
    a = np.array([[0.0, 0.0, 640.0, 480.0]])
    assert xyxy_to_cxcywhn(a, (640, 480)).tolist() == [[0.5, 0.5, 1.0, 1.0]]
    assert box_iou(a, np.array([[0.0, 0.0, 320.0, 480.0]])).tolist() == [[0.5]]
    assert box_area(np.array([[5.0, 5.0, 4.0, 4.0]])).tolist() == [0.0]


@pytest.mark.parametrize("function", [xyxy_to_xywh, box_area])
def test_no_boxes_are_no_fault(function):
    assert len(function(np.zeros((0, 4)))) == 0
