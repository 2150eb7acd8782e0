"""Each check of boxes finds its fault, and nothing that another one explains."""

import numpy as np
import pytest
from dataset_rows import NAN4, box, dataset, found, image, messages
from hypothesis import example, given, settings
from hypothesis import strategies as st

from plumbline.boxes import box_iou
from plumbline.checks.pairs import overlapping_pairs


def codes(xyxy, **values):
    return [code for code, ann_id in found(dataset(boxes=[box(0, xyxy)]), **values) if ann_id == 0]


@pytest.mark.parametrize(
    "xyxy", [(10, 10, 10, 20), (10, 10, 20, 10), (5, 5, 5, 5), (20, 10, 10, 10), (np.nan, 1, 2, 3)]
)
def test_a_box_without_area_is_found(xyxy):
    assert codes(xyxy) == ["E301"]


@pytest.mark.parametrize("xyxy", [(20, 10, 10, 20), (10, 20, 20, 10), (20, 20, 10, 10), (-9, 20, -20, 10)])
def test_reversed_corners_are_found(xyxy):
    assert codes(xyxy) == ["E302"]


@pytest.mark.parametrize(
    ("xyxy", "outside"),
    [
        ((0, 0, 90, 50), False),
        ((-0.009, 0, 10, 10), False),  # six decimals of a fraction of a large image
        ((90, 0, 100.009, 10), False),
        ((-0.02, 0, 10, 10), True),
        ((0, -2, 10, 10), True),
        ((90, 0, 101, 10), True),
        ((90, 0, 95, 51.5), True),
        ((90, 0, np.inf, 10), True),
        ((200, 200, 210, 210), True),
        ((-30, -30, 300, 300), True),
        ((-1, 0, 1, 40), True),
    ],
)
def test_a_box_outside_its_image_is_found_and_is_nothing_else(xyxy, outside):
    assert codes(xyxy) == (["E303"] if outside else [])


def test_the_message_says_what_was_expected():
    assert messages(dataset(boxes=[box(0, (-9, 0, 9.25, 9))])) == [
        "box is outside its image, expected 0 <= x <= 100 and 0 <= y <= 50, got (x1, y1, x2, y2) = (-9, 0, 9.25, 9)"
    ]


def test_a_box_of_an_unreadable_image_is_not_compared_with_it():
    data = dataset([image(0), image(1, readable=False, width=0, height=0)], [box(0, (0, 0, 500, 500), image_id=1)])
    assert found(data) == [("E101", -1)]


@pytest.mark.parametrize(
    ("xyxy", "expected"),
    [
        ((10, 10, 11.9, 30), ["E304"]),
        ((10, 10, 12, 30), []),
        ((10, 10, 60, 11), ["E304"]),  # extremely long, because it is tiny
        ((0, 0, 100, 50), ["E305"]),
        ((0, 0, 100, 48), []),
        ((1, 10, 99, 14.8), ["E306"]),
        ((1, 10, 99, 15), []),
        ((10, 1, 12.4, 50), ["E306"]),
    ],
)
def test_odd_sizes_are_found_once(xyxy, expected):
    assert codes(xyxy) == expected


def test_the_thresholds_are_the_callers():
    assert codes((10, 10, 13, 30), tiny_px=4.0) == ["E304"]
    assert codes((0, 0, 60, 50), giant_share=0.5) == ["E305"]
    assert codes((10, 10, 40, 20), extreme_aspect=2.0) == ["E306"]


def test_a_crowd_may_be_giant_long_and_cover_others():
    crowd = [box(0, (0, 0, 100, 50), crowd=True), box(1, (1, 10, 99, 14), crowd=True)]
    assert found(dataset(boxes=[*crowd, box(2, (1, 1, 9, 9), crowd=True, image_id=1)])) == []
    # One object and a crowd with its corners are two things, as are a box and a crowd of another class.
    assert found(dataset(boxes=[box(0), box(1, crowd=True), box(2, crowd=True, class_id=1)])) == []
    assert found(dataset(boxes=[box(0, crowd=True), box(1, crowd=True)])) == [("E307", 1)]


def test_labels_of_whole_images_are_no_boxes():
    labels = [box(n, NAN4, image_id=1, class_id=0) for n in range(3)]
    assert found(dataset(boxes=labels)) == []


def test_repeats_are_the_second_and_later_ones():
    boxes = [box(0), box(1), box(2, image_id=1), box(3, (10, 10, 20, 22)), box(4), box(5, (10, 10, 20, 22))]
    assert found(dataset(boxes=boxes)) == [("E307", 1), ("E307", 4), ("E307", 5)]
    assert found(dataset(boxes=[box(0), box(1, (10, 10, 20, 20), class_id=1)])) == [("E309", 1)]


def test_two_unknown_classes_at_one_place_are_no_repeat():
    boxes = [box(0, class_id=-1, class_name="a"), box(1, class_id=-1, class_name="b")]
    boxes += [box(2, class_id=-1, class_name="b")]
    assert found(dataset(boxes=boxes)) == [("E206", 0), ("E206", 1), ("E206", 2), ("E307", 2)]


def test_near_duplicates_are_the_later_of_two_with_the_one_that_they_cover_most():
    boxes = [box(0, (10, 10, 30, 30)), box(1, (10, 10, 30, 29)), box(2, (10, 10, 30, 29.2)), box(3, image_id=1)]
    data = dataset(boxes=boxes)
    assert found(data) == [("E308", 1), ("E308", 2)]
    assert [message.rpartition("with ")[2] for message in messages(data)] == [
        "IoU 0.950 to that of line 10", "IoU 0.990 to that of line 11",
    ]  # fmt: skip
    assert found(data, near_duplicate_iou=0.97) == [("E308", 2)]


def test_a_repeat_is_not_also_a_near_duplicate():
    boxes = [box(0, (10, 10, 30, 30)), box(1, (10, 10, 30, 30)), box(2, (10, 10, 30, 29))]
    assert found(dataset(boxes=boxes)) == [("E307", 1), ("E308", 2)]


def test_two_classes_on_one_box_are_found_at_the_later_one():
    boxes = [box(0, (10, 10, 30, 30), class_id=1, source_line=0), box(1, (10, 10, 30, 29))]
    data = dataset(boxes=boxes)
    assert found(data) == [("E309", 1)]
    assert messages(data) == [
        "two classes on one box, expected one, got 'RBC' with IoU 0.950 to 'WBC',"
        " that at (x1, y1, x2, y2) = (10, 10, 30, 30)"
    ]
    assert found(data, two_classes_iou=0.96) == []
    assert found(dataset(boxes=[boxes[0], box(1, (10, 10, 30, 29), image_id=1)])) == []


def test_two_classes_on_one_image_are_found_at_the_later_label():
    labels = [box(0, NAN4), box(1, NAN4, class_id=1), box(2, NAN4, image_id=1), box(3, NAN4, class_id=1)]
    data = dataset(boxes=labels)
    assert found(data) == [("E309", 1), ("E309", 3)]
    assert messages(data)[0] == "two classes on one image, expected one, got 'WBC' after 'RBC'"


def test_nothing_is_said_of_where_boxes_lie_on_a_tiny_image():
    images = [image(0), image(1, width=9, height=40)]
    boxes = [box(0, (0, 0, 9, 40), image_id=1), box(1, (1, 1, 2, 30)), box(2, (0, 0, 90, 1), image_id=1)]
    assert found(dataset(images, boxes)) == [("E111", -1), ("E304", 1)]


# Nearly equal ones among others, and steps of a tenth of a side, where IoU is just what is asked for.
LEFT = st.one_of(st.integers(0, 3), st.floats(0, 20, width=16))
SIDE = st.one_of(st.integers(7, 10), st.floats(0.5, 20, width=16))
SOUND = st.tuples(LEFT, LEFT, SIDE, SIDE, st.integers(0, 2))


@settings(max_examples=150, deadline=None)
@given(st.lists(SOUND, max_size=25), st.sampled_from([0.5, 0.7, 0.9, 1.0]))
@example([(0, 0, 10, 10, 0), (1, 0, 9, 10, 0)], 0.9)
def test_every_overlapping_pair_of_a_group_is_found_once(rows, min_iou):
    xyxy = np.array([(x, y, x + w, y + h) for x, y, w, h, _ in rows], dtype=float).reshape(-1, 4)
    groups = np.array([row[4] for row in rows], dtype=np.int64)
    a, b, iou = overlapping_pairs(groups, xyxy, min_iou)
    expected = np.triu(box_iou(xyxy, xyxy) >= min_iou, 1) & (groups[:, None] == groups[None])
    pairs = [tuple(sorted(pair)) for pair in zip(a.tolist(), b.tolist(), strict=True)]
    assert sorted(pairs) == sorted(zip(*(axis.tolist() for axis in np.nonzero(expected)), strict=True))
    assert np.allclose(iou, box_iou(xyxy, xyxy)[a, b])
