from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plumbline.drawing import (
    PALETTE_HEX,
    captioned,
    choose_places,
    class_color,
    cut_text,
    draw_boxes,
    draw_sample,
    printable_name,
    resize,
    scale_for_viewing,
    sheet,
    text_size,
    wrap_text,
)

BOX = np.array([[20.0, 60.0, 80.0, 100.0]])
BLUE = (255, 0, 0)


def gray(height: int, width: int, level: int = 128) -> np.ndarray:
    return np.full((height, width, 3), level, dtype=np.uint8)


def test_given_image_and_boxes_stay_as_they_were():
    image, boxes = gray(160, 160), BOX.copy()
    image.flags.writeable = False
    boxes.flags.writeable = False
    drawn = draw_sample(image, boxes, boxes, ["seven 0.93"], [BLUE])
    assert (image == 128).all()
    assert drawn.shape == image.shape
    assert (drawn != 128).any()
    assert not np.shares_memory(drawn, image)


def test_outline_is_on_the_half_open_box():
    drawn = draw_boxes(gray(160, 160), BOX, [""], [BLUE], thickness=1)
    ys, xs = np.nonzero((drawn == BLUE).all(axis=2))
    # Half-open: the last column and row that belong to the box are 79 and 99.
    assert (xs.min(), ys.min(), xs.max(), ys.max()) == (20, 60, 79, 99)
    assert (drawn[70:90, 30:70] == 128).all(), "the inside is left free"


def test_nothing_to_draw_gives_the_same_pixels():
    none = np.zeros((0, 4))
    assert (draw_sample(gray(20, 30), none, none, [], []) == 128).all()


def test_label_is_drawn_in_the_color_of_its_box():
    plain = draw_boxes(gray(160, 160), BOX, [""], [BLUE])
    named = draw_boxes(gray(160, 160), BOX, ["seven 0.93"], [BLUE])
    changed = (plain != named).any(axis=2)
    width, height = text_size("seven 0.93")
    assert changed.sum() > width * height / 2
    assert (named[changed] == BLUE).all(axis=1).mean() > 0.3, "the plate behind the text"


def test_labels_of_the_same_box_do_not_cover_each_other():
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    drawn = draw_boxes(gray(300, 300), np.repeat([[100.0, 100.0, 200.0, 200.0]], 3, axis=0), ["one"] * 3, colors)
    width, height = text_size("one")
    for color in colors:
        plate = (drawn == color).all(axis=2).sum()
        assert plate > width * height * 0.4


@pytest.mark.parametrize("box", [[-30.0, -30.0, 10.0, 10.0], [150.0, 150.0, 400.0, 400.0], [5.0, 5.0, 5.0, 5.0]])
def test_boxes_beyond_the_image_and_empty_ones_do_not_stop_the_drawing(box):
    drawn = draw_boxes(gray(160, 160), np.array([box]), ["a name that is wider than its image 0.50"], [BLUE])
    assert drawn.shape == (160, 160, 3)
    assert (drawn == BLUE).all(axis=2).any()


def test_truth_is_seen_on_black_and_on_white():
    for level in (0, 255):
        drawn = draw_sample(gray(160, 160, level), BOX, np.zeros((0, 4)), [], [])
        # Half of the outline, 2 x (60 + 40) - 4 pixels long.
        assert 80 < (drawn != level).any(axis=2).sum() < 120


rectangles = st.lists(
    st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(1, 30), st.integers(1, 10)), min_size=1, max_size=8
)


@given(rectangles)
def test_labels_with_room_never_cover_each_other(items):
    # As many free rows below the rest as there are labels: there is always a place.
    candidates = []
    for left, top, width, height in items:
        rows = [(left, top)] + [(0, 100 + 20 * row) for row in range(len(items))]
        candidates.append(np.array([(x, y, x + width, y + height) for x, y in rows], dtype=float))
    chosen = choose_places(candidates, np.array([[0.0, 0.0, 20.0, 20.0]]))
    placed = [np.array([0.0, 0.0, 20.0, 20.0])]
    for places, index in zip(candidates, chosen, strict=True):
        box = places[index]
        for other in placed:
            shared = np.minimum(box[2:], other[2:]) - np.maximum(box[:2], other[:2])
            assert (shared <= 0).any()
        placed.append(box)


def test_colors_are_distinct_and_fixed():
    assert len(set(PALETTE_HEX)) == len(PALETTE_HEX) == 12
    assert class_color(1) == (0, 94, 213)  # Okabe and Ito's vermilion, as BGR


@pytest.mark.parametrize(("name", "shown"), [("WBC", "WBC"), ("Zellkörper", "Zellkorper"), ("赤血球", "class 7")])
def test_names_are_printable(name, shown):
    assert printable_name(name, 7) == shown


@pytest.mark.parametrize(("height", "width"), [(160, 160), (3000, 4000), (480, 640), (50, 900)])
def test_images_are_brought_to_a_size_that_can_be_read(height, width):
    image = resize(gray(height, width), scale_for_viewing(height, width))
    assert 480 <= max(image.shape[:2]) <= 640
    assert abs(image.shape[1] / image.shape[0] / (width / height) - 1) < 0.02


def test_sheet_holds_every_image_whole():
    images = [gray(40, 60, level) for level in (10, 20, 30, 40, 50)] + [gray(70, 30, 60)]
    page = sheet(images, 4)
    for image in images:
        level = image[0, 0, 0]
        assert (page == level).all(axis=2).sum() == image.shape[0] * image.shape[1]
    assert page.shape[1] > page.shape[0]
    assert sheet(images[:1], 4).shape[1] < 100, "no empty columns"


def test_long_captions_are_cut():
    image = captioned(gray(100, 120), "a text that is much longer than the picture is wide")
    assert image.shape == (124, 120, 3)
    assert (image[:24] < 200).any()
    assert (image[24:] == 128).all()


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200), st.integers(30, 200))
def test_wrapped_lines_fit_and_lose_nothing(text, width):
    lines = wrap_text(text, width, most_lines=10_000)
    assert all(text_size(line)[0] <= width for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_wrapped_text_that_is_too_long_ends_with_dots():
    lines = wrap_text("one two three four five six seven", text_size("one two...")[0], 2)
    assert len(lines) == 2
    assert lines[0] == "one two"
    assert lines[1].endswith("...")
    assert all(text_size(line)[0] <= text_size("one two...")[0] for line in lines)


def test_cut_text_is_as_long_as_fits():
    assert cut_text("short", 500) == "short"
    width = text_size("a longer te...")[0]
    assert cut_text("a longer text than that", width) == "a longer te..."
    assert cut_text("a longer text", 4) == ""


def test_labels_rather_cover_a_box_than_a_label():
    first, box = [0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0]
    candidates = [np.array([first]), np.array([[5.0, 0.0, 15.0, 10.0], box])]
    assert choose_places(candidates, np.array([box])) == [0, 0]
    assert choose_places(candidates, np.array([box]), label_weight=100.0) == [0, 1]
