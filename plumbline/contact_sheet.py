"""A sheet of small pictures, each an image's cut-out with boxes and a caption: to look at many places at once.

Nothing that a data set can hold stops it: what cannot be drawn is said on its tile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from plumbline.drawing import (
    BLACK,
    INK,
    WHITE,
    Color,
    Image,
    cut_text,
    draw_labels,
    printable_text,
    resize,
    sheet,
    text_size,
    wrap_text,
    write_line,
)
from plumbline.files import replacing

Xyxy = tuple[float, float, float, float]

GREY: Color = (110, 110, 110)
PAPER: Color = (225, 225, 225)  # where a tile shows no image

# Less of the image shows no surroundings to know the object by.
_SMALLEST_VIEW = 64  # pixels
_SMALLEST_SHARE = 0.25  # of the image's shorter side
_CONTEXT = 1.0  # of the box's own size, on every side
_LARGEST_SCALE = 8.0
_BEYOND = 0.25  # of the image's size: so much outside of it is shown at most, for a box that lies there
_FRAME = 8  # pixels; a box of a smaller side gets a ring, or nobody would see it
_DASH = 6
_GAP = 12
_LABEL_WEIGHT = 100.0  # that labels can be read comes before that they cover no box
_LINE_HEIGHT = 18
_MOST_LINES = 4
_TITLE_LINES = 3


@dataclass(frozen=True)
class TileBox:
    """One box on a tile.

    Attributes:
        xyxy: Pixels of the image, 0-based, half-open; corners in any order. One that is not finite is not drawn.
        color: BGR, 0..255.
        text: Written on a plate beside the box; "" for none.
        dashed: Drawn with a broken line, for the one of two boxes that is only a proposal.
        thin: Drawn with a line of one pixel, for what is there for orientation only.
    """

    xyxy: Xyxy
    color: Color
    text: str = ""
    dashed: bool = False
    thin: bool = False


@dataclass(frozen=True)
class Tile:
    """One picture of the sheet.

    Attributes:
        path: The image file, or None where there is none.
        caption: Below the picture; its line breaks are kept, what is too long is cut.
        boxes: Drawn in this order, so the last is on top.
        focus_xyxy: What to show with its surroundings, pixels of the image; the whole image when None.
    """

    path: Path | None
    caption: str
    boxes: tuple[TileBox, ...] = ()
    focus_xyxy: Xyxy | None = None


@dataclass(frozen=True)
class LegendEntry:
    """What a kind of line on the tiles means."""

    text: str
    color: Color
    dashed: bool = False
    thin: bool = False


def draw_sheet(
    tiles: Sequence[Tile],
    columns: int = 4,
    tile_wh: tuple[int, int] = (360, 300),
    title: str = "",
    legend: Sequence[LegendEntry] = (),
) -> Image:
    """Draw the tiles in rows from left to right under a title.

    A missing or undecodable image gives a grey tile that says so.

    Args:
        tiles: In the order in which they shall be seen; none gives a small picture that says so.
        columns: Tiles per row, at least 1.
        tile_wh: Of each tile's picture in pixels; the caption comes below.
        title: Above all tiles.
        legend: Below the title: what the colours of the boxes mean.

    Returns:
        Shape (H, W, 3), uint8 BGR.
    """
    if tiles:
        captions = [_caption_lines(tile.caption, tile_wh[0]) for tile in tiles]
        most = max(len(lines) for lines in captions)
        cells = [
            np.concatenate([_picture(tile, tile_wh), _caption(lines, most, tile_wh[0])])
            for tile, lines in zip(tiles, captions, strict=True)
        ]
    else:
        cells = [_notice("nothing to show", tile_wh)]
    page = sheet(cells, columns, gap=_GAP)
    return np.concatenate([_heading(title, legend, page.shape[1]), page])


def write_jpeg(path: Path, image: Image) -> None:
    """Write a sheet in one step."""
    encoded, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])
    if not encoded:
        raise RuntimeError("cv2 cannot encode a JPEG")
    with replacing(path) as temporary:
        temporary.write_bytes(data.tobytes())


def _heading(title: str, legend: Sequence[LegendEntry], width: int) -> Image:
    lines = wrap_text(_printable(title), width - 2 * _GAP, _TITLE_LINES) if title else []
    height = _LINE_HEIGHT * (len(lines) + bool(legend)) + (_GAP if lines or legend else 0)
    strip = np.full((height, width, 3), 255, dtype=np.uint8)
    for number, line in enumerate(lines):
        write_line(strip, line, (_GAP, _GAP + 10 + number * _LINE_HEIGHT))
    left, middle = _GAP, _GAP + 6 + len(lines) * _LINE_HEIGHT
    for entry in legend:
        strip[middle - 5 : middle + 6, left : left + 22] = GREY if entry.thin else PAPER
        _outline(strip, (left, middle - 5, left + 22, middle + 6), entry)
        text = cut_text(printable_text(entry.text), max(width - left - 30, 0))
        write_line(strip, text, (left + 28, middle + 4))
        left += 28 + text_size(text)[0] + 2 * _GAP
    return strip


def _printable(text: str) -> str:
    return "\n".join(printable_text(line) for line in text.splitlines())


def _caption_lines(caption: str, width: int) -> list[str]:
    return wrap_text(_printable(caption), width, _MOST_LINES) if caption.strip() else []


def _caption(lines: Sequence[str], most: int, width: int) -> Image:
    strip = np.full((_LINE_HEIGHT * most + (4 if most else 0), width, 3), 255, dtype=np.uint8)
    for number, line in enumerate(lines):
        write_line(strip, line, (0, 16 + number * _LINE_HEIGHT), INK if number == 0 else GREY)
    return strip


def _notice(text: str, tile_wh: tuple[int, int]) -> Image:
    canvas = np.full((tile_wh[1], tile_wh[0], 3), PAPER, dtype=np.uint8)
    shown = cut_text(text, tile_wh[0])
    write_line(canvas, shown, ((tile_wh[0] - text_size(shown)[0]) // 2, tile_wh[1] // 2), GREY)
    return canvas


def _picture(tile: Tile, tile_wh: tuple[int, int]) -> Image:
    if tile.path is None:
        return _notice("no image", tile_wh)
    try:
        encoded = np.frombuffer(tile.path.read_bytes(), dtype=np.uint8)
    except (OSError, ValueError):  # ValueError: a name with a null character
        return _notice("the image is missing", tile_wh)
    image = _decoded(encoded)
    if image is None:
        return _notice("the image cannot be decoded", tile_wh)
    shown, corner, scale = _view(image, tile.focus_xyxy, tile_wh)
    _draw_tile_boxes(shown, tile.boxes, corner, scale)
    canvas = np.full((tile_wh[1], tile_wh[0], 3), PAPER, dtype=np.uint8)
    height, width = shown.shape[:2]
    top, left = (tile_wh[1] - height) // 2, (tile_wh[0] - width) // 2
    canvas[top : top + height, left : left + width] = shown
    return canvas


def _decoded(encoded: npt.NDArray[np.uint8]) -> Image | None:
    """Decode what can be decoded of an image, shape (H, W, 3); None for nothing."""
    level = cv2.utils.logging.getLogLevel()
    # The tile says it; lines of OpenCV's own on stderr would only alarm.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        image = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
    except cv2.error:  # empty, or larger than cv2 decodes
        return None
    finally:
        cv2.utils.logging.setLogLevel(level)
    return None if image is None else image.astype(np.uint8, copy=False)


def _view(image: Image, focus: Xyxy | None, tile_wh: tuple[int, int]) -> tuple[Image, tuple[int, int], float]:
    """Return what of the image is shown, scaled; the image's coordinates of its corner; and the scale."""
    height, width = image.shape[:2]
    left, top, right, bottom = view_window(focus, (width, height), tile_wh)
    inner = image[max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
    beyond = max(-top, 0), max(bottom - height, 0), max(-left, 0), max(right - width, 0)
    if any(beyond):
        inner = cv2.copyMakeBorder(inner, *beyond, cv2.BORDER_CONSTANT, value=PAPER).astype(np.uint8, copy=False)
    scale = min(tile_wh[0] / (right - left), tile_wh[1] / (bottom - top), _LARGEST_SCALE)
    if min(right - left, bottom - top) * scale < 1:  # a strip that would vanish is made thicker
        thicker = cv2.resize(inner, (max(right - left, round(1 / scale)), max(bottom - top, round(1 / scale))))
        inner = thicker.astype(np.uint8, copy=False)
    return resize(inner, scale)[: tile_wh[1], : tile_wh[0]], (left, top), scale


def view_window(
    focus: Xyxy | None, resolution_wh: tuple[int, int], tile_wh: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Return the part of an image that a tile shows, xyxy in pixels; it may reach a little outside the image.

    The box with at least its own size around it on every side, in the tile's shape where the image has room. The
    whole image for no box, and for one that is not finite or lies outside.

    >>> view_window((100, 100, 110, 110), (640, 480), (360, 300))
    (33, 45, 177, 165)
    >>> view_window(None, (640, 480), (360, 300))
    (0, 0, 640, 480)
    """
    size = np.array(resolution_wh, dtype=np.float64)
    whole = (0, 0, *resolution_wh)
    if focus is None or not all(math.isfinite(value) for value in focus):
        return whole
    low, high = np.minimum(focus[:2], focus[2:]), np.maximum(focus[:2], focus[2:])
    if (high < 0).any() or (low > size).any():
        return whole
    # Where the box goes beyond the image, so does the picture: a grey margin shows it.
    first, last = (
        np.maximum(np.minimum(low, 0), -_BEYOND * size),
        np.minimum(np.maximum(high, size), (1 + _BEYOND) * size),
    )
    low, high = np.maximum(low, first), np.minimum(high, last)
    wh = np.maximum((high - low) * (1 + 2 * _CONTEXT), max(_SMALLEST_VIEW, _SMALLEST_SHARE * size.min()))
    aspect = tile_wh[0] / tile_wh[1]
    wh = np.maximum(wh, [wh[1] * aspect, wh[0] / aspect])
    corner = (low + high - wh) / 2
    corner = np.maximum(np.minimum(corner, last - wh), first)
    end = np.minimum(corner + wh, last)
    left, top = np.floor(corner).astype(int).tolist()
    right, bottom = np.ceil(end).astype(int).tolist()
    return left, top, right, bottom


def _draw_tile_boxes(shown: Image, boxes: Sequence[TileBox], corner: tuple[int, int], scale: float) -> None:
    size = np.array([shown.shape[1], shown.shape[0]] * 2)
    placed: list[tuple[TileBox, npt.NDArray[np.float64]]] = []
    for box in boxes:
        if not all(math.isfinite(value) for value in box.xyxy):
            continue
        corners = np.array([*np.minimum(box.xyxy[:2], box.xyxy[2:]), *np.maximum(box.xyxy[:2], box.xyxy[2:])])
        on_tile = (corners - [*corner, *corner]) * scale
        if (on_tile[2:] < 0).any() or (on_tile[:2] > size[:2]).any():
            continue
        # Clipped just outside the tile: coordinates of 1e300 are no pixels, and sides beyond stay unseen.
        placed.append((box, np.clip(on_tile, -_FRAME, size + _FRAME)))
    for box, on_tile in placed:
        left, top, right, bottom = np.rint(on_tile).astype(int).tolist()
        if min(right - left, bottom - top) < _FRAME:
            centre = (left + right) // 2, (top + bottom) // 2
            cv2.circle(shown, centre, 2 * _FRAME, WHITE, 3, cv2.LINE_AA)
            cv2.circle(shown, centre, 2 * _FRAME, box.color, 2, cv2.LINE_AA)
        _outline(shown, (left, top, max(right, left + 1), max(bottom, top + 1)), box)
    if placed:
        inside = np.clip(np.stack([on_tile for _, on_tile in placed]), 0, size)
        texts = [cut_text(printable_text(box.text), shown.shape[1]) for box, _ in placed]
        draw_labels(
            shown, inside, texts, [box.color for box, _ in placed], obstacles=inside, label_weight=_LABEL_WEIGHT
        )


def _outline(image: Image, xyxy: tuple[int, int, int, int], style: TileBox | LegendEntry) -> None:
    """Draw a line of two pixels just outside a half-open box; a whole one has a hair of the opposite around it."""
    left, top, right, bottom = xyxy
    outline = np.zeros(image.shape[:2], dtype=np.uint8)
    if not style.thin:
        cv2.rectangle(outline, (left - 3, top - 3), (right + 2, bottom + 2), 1, 1)
        cv2.rectangle(outline, (left - 2, top - 2), (right + 1, bottom + 1), 2, 1)
    cv2.rectangle(outline, (left - 1, top - 1), (right, bottom), 2, 1)
    ys, xs = np.nonzero(outline == 2)
    if style.dashed:
        # What is below shows through: another box may have the same edge.
        on = (xs + ys) // _DASH % 2 == 0
        ys, xs = ys[on], xs[on]
    else:
        blue, green, red = style.color
        image[outline == 1] = BLACK if 0.114 * blue + 0.587 * green + 0.299 * red > 130 else WHITE
    image[ys, xs] = style.color
