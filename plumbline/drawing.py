"""Draw boxes and their names on images, for people to look at. Images are uint8 BGR arrays, as cv2 has them."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from plumbline.boxes import Boxes

Image = npt.NDArray[np.uint8]
Color = tuple[int, int, int]  # blue, green, red, 0..255

# Okabe and Ito's palette for colour-blind readers without its black, then five of Paul Tol's "muted" that differ from
# it. Source: https://jfly.uni-koeln.de/color/ and https://personal.sron.nl/~pault/
PALETTE_HEX = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9",
    "#882255", "#999933", "#332288", "#AA4499", "#117733", "#F0E442",
)  # fmt: skip
BLACK: Color = (0, 0, 0)
WHITE: Color = (255, 255, 255)
INK: Color = (40, 40, 40)

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FONT_SCALE = 0.45  # about 10 px capitals, the smallest that stays legible with anti-aliasing
_PAD = 3
_DASH = 5  # pixels
_DETECTION_THICKNESS = 3


def class_color(class_id: int) -> Color:
    """Return the fixed colour of a class, as BGR; after twelve classes the colours repeat.

    >>> class_color(0)
    (178, 114, 0)
    >>> class_color(12) == class_color(0)
    True
    """
    red, green, blue = bytes.fromhex(PALETTE_HEX[class_id % len(PALETTE_HEX)][1:])
    return blue, green, red


def printable_name(class_name: str, class_id: int) -> str:
    """Return a name that cv2's ASCII-only fonts can draw: without accents, or the class_id where that is not enough.

    >>> printable_name("Thrombozyt", 2), printable_name("Körper", 0), printable_name("血小板", 2)
    ('Thrombozyt', 'Korper', 'class 2')
    """
    plain = _without_accents(class_name)
    return plain if plain.isascii() and plain.strip() else f"class {class_id}"


def printable_text(text: str) -> str:
    """Return a text that cv2's ASCII-only fonts can draw: without accents, and a question mark for what they lack.

    >>> printable_text("Körper 1.jpg"), printable_text("血小板.jpg")
    ('Korper 1.jpg', '???.jpg')
    """
    return "".join(c if " " <= c <= "~" else "?" for c in _without_accents(text))


def _without_accents(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def text_size(text: str) -> tuple[int, int]:
    """Return width and height in pixels of a label with its padding."""
    (width, height), baseline = cv2.getTextSize(text, _FONT, _FONT_SCALE, 1)
    return width + 2 * _PAD, height + baseline + _PAD


def choose_places(candidates: Sequence[Boxes], obstacles: Boxes, label_weight: float = 1.0) -> list[int]:
    """Choose one place for each label so that labels cover neither one another nor the obstacles.

    Greedy, in the order given: each label takes the first of its places with the least area in common with the
    obstacles and the labels placed before it.

    Args:
        candidates: For each label an array (K, 4) of xyxy places, the best liked first.
        obstacles: Shape (M, 4), xyxy.
        label_weight: How much worse it is to cover a label than to cover an obstacle.

    Returns:
        For each label the index of its place.

    >>> place = np.array([[0.0, 0.0, 9.0, 9.0], [10.0, 0.0, 19.0, 9.0]])
    >>> choose_places([place, place], np.zeros((0, 4)))
    [0, 1]
    """
    taken = np.asarray(obstacles, dtype=np.float64).reshape(-1, 4)
    num_obstacles = len(taken)
    chosen = []
    for places in candidates:
        top_left = np.maximum(places[:, None, :2], taken[None, :, :2])
        bottom_right = np.minimum(places[:, None, 2:], taken[None, :, 2:])
        areas = np.maximum(bottom_right - top_left, 0).prod(axis=2)
        shared = areas[:, :num_obstacles].sum(axis=1) + label_weight * areas[:, num_obstacles:].sum(axis=1)
        best = int(np.argmin(shared))
        chosen.append(best)
        taken = np.concatenate([taken, places[best : best + 1]])
    return chosen


def draw_boxes(
    image_bgr: Image,
    boxes_xyxy: npt.NDArray[np.floating[Any]],
    labels: Sequence[str],
    colors: Sequence[Color],
    *,
    thickness: int = 2,
) -> Image:
    """Return a copy with boxes and their labels; the given image is left as it was.

    Args:
        image_bgr: Shape (H, W, 3), uint8.
        boxes_xyxy: Shape (N, 4), pixels, 0-based, half-open.
        labels: N texts of ASCII; an empty one draws no label.
        colors: N colours, BGR.
        thickness: Of the outline, pixels.
    """
    drawn = image_bgr.copy()
    for (left, top, right, bottom), color in zip(_pixels(boxes_xyxy), colors, strict=True):
        cv2.rectangle(drawn, (left, top), (right, bottom), color, thickness)
    draw_labels(drawn, boxes_xyxy, labels, colors)
    return drawn


def draw_sample(
    image_bgr: Image,
    truth_xyxy: npt.NDArray[np.floating[Any]],
    detected_xyxy: npt.NDArray[np.floating[Any]],
    labels: Sequence[str],
    colors: Sequence[Color],
) -> Image:
    """Return a copy with detections thick and named, and the ground truth thin and dashed over them.

    Args:
        image_bgr: Shape (H, W, 3), uint8.
        truth_xyxy: Shape (M, 4), pixels.
        detected_xyxy: Shape (N, 4), pixels.
        labels: N texts, of the detections.
        colors: N colours, of the detections.
    """
    drawn = draw_boxes(image_bgr, detected_xyxy, [""] * len(labels), colors, thickness=_DETECTION_THICKNESS)
    outline = np.zeros(drawn.shape[:2], dtype=np.uint8)
    for left, top, right, bottom in _pixels(truth_xyxy):
        cv2.rectangle(outline, (left, top), (right, bottom), 1, 1)
    ys, xs = np.nonzero(outline)
    # Black and white in turn: one of the two is seen on any image, and on the detection's own line.
    drawn[ys, xs] = np.where(((xs + ys) // _DASH % 2 == 0)[:, None], WHITE, BLACK)
    draw_labels(drawn, detected_xyxy, labels, colors)
    return drawn


def scale_for_viewing(height: int, width: int, smallest: int = 480, largest: int = 640) -> float:
    """Return the factor that brings an image's longer side to between two lengths in pixels.

    >>> scale_for_viewing(160, 160), scale_for_viewing(480, 640), scale_for_viewing(1000, 1280)
    (3.0, 1.0, 0.5)
    """
    longer = max(height, width)
    return min(max(longer, smallest), largest) / longer


def resize(image_bgr: Image, scale: float) -> Image:
    """Return a larger or smaller copy; lines and text are drawn after this, so that they stay sharp."""
    if scale == 1:
        return image_bgr.copy()
    interpolation = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    return cv2.resize(image_bgr, None, fx=scale, fy=scale, interpolation=interpolation)


def captioned(image_bgr: Image, text: str) -> Image:
    """Return the image with one line of text in a white strip above it; a text that is too long is cut with dots."""
    strip = np.full((24, image_bgr.shape[1], 3), 255, dtype=np.uint8)
    write_line(strip, cut_text(text, strip.shape[1]), (_PAD, 16))
    return np.concatenate([strip, image_bgr])


def cut_text(text: str, width: int) -> str:
    """Return the text, or as much of its beginning as fits into so many pixels with dots behind it."""
    if text_size(text)[0] <= width:
        return text
    fits = bisect_right(range(len(text)), width, key=lambda n: text_size(text[:n] + "...")[0]) - 1
    return text[:fits] + "..." if fits >= 0 else ""


def wrap_text(text: str, width: int, most_lines: int) -> list[str]:
    """Return lines of at most so many pixels: broken at spaces, inside a word only where it is too long for a line.

    Args:
        text: Its own line breaks stay.
        width: Pixels.
        most_lines: What does not fit into so many is cut off, and the last line ends with dots.

    >>> wrap_text("one two three", text_size("one two")[0], 9)
    ['one two', 'three']
    """
    lines = [line for paragraph in text.split("\n") for line in _wrapped(paragraph, width)]
    if len(lines) > most_lines:
        lines = lines[:most_lines]
        # One that is sure to be too long is cut to what fits before the dots.
        last = f"{lines[-1]}..."
        lines[-1] = last if text_size(last)[0] <= width else cut_text(last + last, width)
    return lines


def _wrapped(paragraph: str, width: int) -> Iterator[str]:
    line = ""
    for word in paragraph.split():
        joined = f"{line} {word}" if line else word
        if line and text_size(joined)[0] > width:
            yield line
            joined = word
        while len(joined) > 1 and text_size(joined)[0] > width:
            fits = max(bisect_right(range(len(joined)), width, key=lambda n: text_size(joined[:n])[0]) - 1, 1)
            yield joined[:fits]
            joined = joined[fits:]
        line = joined
    yield line


def write_line(image_bgr: Image, text: str, left_baseline: tuple[int, int], color: Color = INK) -> None:
    """Write one line of ASCII into the image itself."""
    cv2.putText(image_bgr, text, left_baseline, _FONT, _FONT_SCALE, color, 1, cv2.LINE_AA)


def sheet(images: Sequence[Image], columns: int, *, gap: int = 8) -> Image:
    """Return one image with the given ones in rows from left to right, each at the top left of its white cell.

    Args:
        images: At least one, of any sizes, uint8 BGR.
        columns: Cells per row, at least 1.
        gap: White pixels between cells and around the sheet.
    """
    rows = -(-len(images) // columns)
    height = max(image.shape[0] for image in images) + gap
    width = max(image.shape[1] for image in images) + gap
    page = np.full((rows * height + gap, min(columns, len(images)) * width + gap, 3), 255, dtype=np.uint8)
    for index, image in enumerate(images):
        top, left = gap + index // columns * height, gap + index % columns * width
        page[top : top + image.shape[0], left : left + image.shape[1]] = image
    return page


def _pixels(boxes_xyxy: npt.NDArray[np.floating[Any]]) -> list[list[int]]:
    # The last pixel inside a half-open box is one before its end.
    rounded = np.rint(np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4)).astype(int)
    rounded[:, 2:] = np.maximum(rounded[:, 2:] - 1, rounded[:, :2])
    corners: list[list[int]] = rounded.tolist()
    return corners


def draw_labels(
    drawn: Image,
    boxes_xyxy: npt.NDArray[np.floating[Any]],
    labels: Sequence[str],
    colors: Sequence[Color],
    *,
    obstacles: Boxes | None = None,
    label_weight: float = 1.0,
) -> None:
    """Write the names of boxes on plates of their colours into the image itself.

    Args:
        drawn: Shape (H, W, 3), uint8; changed.
        boxes_xyxy: Shape (N, 4), pixels.
        labels: N texts of ASCII; an empty one draws no label.
        colors: N colours, BGR.
        obstacles: Shape (M, 4), what the plates shall not cover where they have a choice.
        label_weight: As for `choose_places`.
    """
    named = [(box, text, color) for box, text, color in zip(_pixels(boxes_xyxy), labels, colors, strict=True) if text]
    height, width = drawn.shape[:2]
    candidates = [_label_places(box, text_size(text), (width, height)) for box, text, _ in named]
    taken = np.zeros((0, 4)) if obstacles is None else obstacles
    for (_, text, color), places, best in zip(
        named, candidates, choose_places(candidates, taken, label_weight), strict=True
    ):
        left, top, right, bottom = places[best].astype(int).tolist()
        cv2.rectangle(drawn, (left, top), (right - 1, bottom - 1), color, cv2.FILLED)
        blue, green, red = color
        ink = BLACK if 0.114 * blue + 0.587 * green + 0.299 * red > 130 else WHITE
        write_line(drawn, text, (left + _PAD, bottom - _PAD - 3), ink)


def _label_places(box: list[int], size_wh: tuple[int, int], resolution_wh: tuple[int, int]) -> Boxes:
    left, top, right, bottom = box
    width, height = size_wh
    xs = (left, right - width, (left + right - width) // 2)
    # Above the box, below it, then inside it at the top and at the bottom.
    ys = (top - height, bottom, top, bottom - height)
    places = np.array([(x, y) for y in ys for x in xs], dtype=np.float64)
    limit = np.maximum(np.array(resolution_wh) - size_wh, 0)
    places = np.clip(places, 0, limit)
    return np.concatenate([places, places + size_wh], axis=1)
