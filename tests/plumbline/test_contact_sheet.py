from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plumbline.contact_sheet import LegendEntry, Tile, TileBox, draw_sheet, view_window

RED = (0, 0, 255)
BLUE = (255, 0, 0)
WH = (240, 200)


def count(page, color, near=40):
    return int((np.abs(page.astype(int) - color).max(axis=2) <= near).sum())


@pytest.fixture
def photo(tmp_path):
    """A grey image of 400 x 300 with a yellow object at 200..220, 100..130."""
    image = np.full((300, 400, 3), 90, dtype=np.uint8)
    image[100:130, 200:220] = (0, 255, 255)
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), image)
    return path


OBJECT = (200.0, 100.0, 220.0, 130.0)


def test_the_focus_is_shown_larger_with_its_surroundings(photo):
    whole = draw_sheet([Tile(photo, "")], tile_wh=WH)
    close = draw_sheet([Tile(photo, "", focus_xyxy=OBJECT)], tile_wh=WH)
    assert whole.shape == close.shape
    assert count(close, (0, 255, 255)) > 5 * count(whole, (0, 255, 255)) > 0
    assert count(close, (90, 90, 90)) > 4 * count(close, (0, 255, 255)), "as much around it as the object itself"


def test_a_box_is_drawn_outside_of_the_edge_of_its_object(photo):
    plain = draw_sheet([Tile(photo, "", focus_xyxy=OBJECT)], tile_wh=WH)
    boxed = draw_sheet([Tile(photo, "", (TileBox(OBJECT, RED),), OBJECT)], tile_wh=WH)
    inside = count(plain, (0, 255, 255))
    assert count(boxed, (0, 255, 255)) > 0.93 * inside
    assert 200 < count(boxed, RED) < inside / 3, "a thin line"


def test_a_dashed_box_leaves_what_is_below_it_to_be_seen(photo):
    below, above = TileBox(OBJECT, BLUE), TileBox(OBJECT, RED, dashed=True)
    solid = count(draw_sheet([Tile(photo, "", (below,), OBJECT)], tile_wh=WH), BLUE)
    both = draw_sheet([Tile(photo, "", (below, above), OBJECT)], tile_wh=WH)
    assert 0.3 * solid < count(both, BLUE) < 0.7 * solid
    assert 0.3 * solid < count(both, RED) < 0.7 * solid


def test_a_thin_box_has_less_weight(photo):
    thick = draw_sheet([Tile(photo, "", (TileBox(OBJECT, RED),), OBJECT)], tile_wh=WH)
    thin = draw_sheet([Tile(photo, "", (TileBox(OBJECT, RED, thin=True),), OBJECT)], tile_wh=WH)
    assert 0 < count(thin, RED) < 0.6 * count(thick, RED)


def test_a_box_without_area_is_ringed(photo):
    point = (300.0, 200.0, 300.0, 200.0)
    assert count(draw_sheet([Tile(photo, "", (TileBox(point, RED),))], tile_wh=WH), RED) > 50


def test_the_text_of_a_box_is_on_a_plate_of_its_color(photo):
    plain = draw_sheet([Tile(photo, "", (TileBox(OBJECT, RED),), OBJECT)], tile_wh=WH)
    named = draw_sheet([Tile(photo, "", (TileBox(OBJECT, RED, "Thrombozyt"),), OBJECT)], tile_wh=WH)
    assert count(named, RED) > count(plain, RED) + 500


def test_what_lies_beyond_the_image_is_paper(photo):
    beyond = (380.0, 100.0, 420.0, 130.0)
    page = draw_sheet([Tile(photo, "", (TileBox(beyond, RED),), beyond)], tile_wh=WH)
    paper = (page == 225).all(axis=2)
    assert paper.sum() > 0.05 * WH[0] * WH[1]


@pytest.mark.parametrize("kind", ["none", "missing", "empty", "text", "null"])
def test_an_image_that_cannot_be_shown_is_a_grey_tile(kind, tmp_path, photo):
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "text").write_text("no image", encoding="utf-8")
    path = None if kind == "none" else tmp_path / ("a\0b" if kind == "null" else kind)
    page = draw_sheet([Tile(path, "caption", (TileBox(OBJECT, RED),), OBJECT), Tile(photo, "fine")], tile_wh=WH)
    picture = page[: WH[1] + 12, : WH[0] + 12]
    assert (picture == 225).all(axis=2).mean() > 0.85
    assert (picture < 160).any(), "it says so"
    assert count(page, (90, 90, 90)) > 0.8 * WH[0] * WH[1], "the other tile is there"


def test_an_image_that_is_cut_short_says_nothing_on_stderr(tmp_path, capfd):
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "whole.tif"), image)
    data = (tmp_path / "whole.tif").read_bytes()
    (tmp_path / "cut.tif").write_bytes(data[: len(data) * 2 // 3])
    level = cv2.utils.logging.getLogLevel()
    assert draw_sheet([Tile(tmp_path / "cut.tif", "")], tile_wh=WH).shape
    assert capfd.readouterr().err == ""
    assert cv2.utils.logging.getLogLevel() == level


def test_nothing_to_show_is_said():
    page = draw_sheet([], title="Findings")
    assert page.shape[0] < 400
    assert page.shape[1] < 400
    assert (page < 160).any()


def test_rows_and_columns(photo):
    tiles = [Tile(photo, f"number {number}") for number in range(5)]
    page = draw_sheet(tiles, columns=2, tile_wh=WH)
    assert page.shape[1] == 2 * WH[0] + 3 * 12
    assert 3 * WH[1] < page.shape[0] < 3 * (WH[1] + 60)
    assert draw_sheet(tiles[:1], columns=2, tile_wh=WH).shape[1] == WH[0] + 2 * 12


def test_captions_of_any_length_and_script_keep_the_width(photo):
    word = "a" * 5000
    captions = ["", "one\ntwo", "long words " * 500, word, "Körper 血小板\t\x00", "a\n" * 50]
    page = draw_sheet([Tile(photo, caption) for caption in captions], columns=3, tile_wh=WH)
    assert page.shape[1] == 3 * WH[0] + 4 * 12
    assert page.shape[0] < 2 * (WH[1] + 100)


def test_title_and_legend_are_above_the_tiles(photo):
    plain = draw_sheet([Tile(photo, "")] * 3, tile_wh=WH)
    legend = [LegendEntry("as labelled", BLUE), LegendEntry("what the model sees", RED, dashed=True)]
    headed = draw_sheet([Tile(photo, "")] * 3, tile_wh=WH, title="Label errors " * 30, legend=legend)
    height = headed.shape[0] - plain.shape[0]
    assert 50 < height < 120
    assert np.array_equal(headed[height:], plain)
    assert count(headed[:height], BLUE) > 20
    assert count(headed[:height], RED) > 20


def test_the_same_tiles_give_the_same_picture(photo):
    tiles = [Tile(photo, "x", (TileBox(OBJECT, RED, "a"), TileBox(OBJECT, BLUE, "b", dashed=True)), OBJECT)]
    assert np.array_equal(draw_sheet(tiles), draw_sheet(tiles))


def test_two_texts_at_one_box_are_both_seen(photo):
    low = (0.0, 270.0, 60.0, 300.0)
    boxes = (TileBox(low, BLUE, "nine"), TileBox(low, RED, "seven 0.93", dashed=True))
    alone = [count(draw_sheet([Tile(photo, "", (box,), low)], tile_wh=WH), box.color) for box in boxes]
    both = draw_sheet([Tile(photo, "", boxes, low)], tile_wh=WH)
    assert count(both, RED) > 0.95 * alone[1]
    assert count(both, BLUE) > 0.5 * alone[0]


numbers = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True), st.floats(-500, 900), st.sampled_from([0.0, -1e300, 1e300, 400.0])
)
boxes = st.tuples(numbers, numbers, numbers, numbers)


@given(st.lists(boxes, max_size=4), st.none() | boxes)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
def test_no_box_can_stop_the_sheet(photo, items, focus):
    tile = Tile(photo, "c", tuple(TileBox(box, RED, "text") for box in items), focus)
    page = draw_sheet([tile], tile_wh=WH)
    assert page.dtype == np.uint8
    assert page.shape == draw_sheet([Tile(photo, "c")], tile_wh=WH).shape
    finite = [box for box in items if all(math.isfinite(value) for value in box)]
    assert finite or count(page, RED) == 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (3, 40)])
def test_images_of_any_shape_are_shown(shape, tmp_path):
    cv2.imwrite(str(tmp_path / "i.png"), np.full((*shape, 3), 30, dtype=np.uint8))
    for focus in (None, (0.0, 0.0, 1.0, 1.0), (0.0, 0.0, 5000.0, 5000.0)):
        page = draw_sheet([Tile(tmp_path / "i.png", "", (), focus)], tile_wh=WH)
        assert page.shape[:2] == (WH[1] + 24, WH[0] + 24)
        assert (page < 150).any(), "something of the image"


inside = st.tuples(st.floats(0, 390), st.floats(0, 290), st.floats(0, 400), st.floats(0, 300))


@given(inside)
def test_a_view_holds_its_box_and_stays_in_the_image(values):
    left, top, width, height = values
    box = (left, top, min(left + width, 400.0), min(top + height, 300.0))
    x1, y1, x2, y2 = view_window(box, (400, 300), WH)
    assert 0 <= x1 <= box[0]
    assert box[2] <= x2 <= 400
    assert 0 <= y1 <= box[1]
    assert box[3] <= y2 <= 300
    assert x2 - x1 >= 64
    assert y2 - y1 >= 64
    # At least the box's own size around it, where the image has so much.
    assert x2 - x1 >= min(3 * (box[2] - box[0]), 400) - 1
    assert y2 - y1 >= min(3 * (box[3] - box[1]), 300) - 1
