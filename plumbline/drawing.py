"""Draw boxes and their names on images, for people to look at. Images are uint8 BGR arrays, as cv2 has them."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
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
    plain = "".join(c for c in unicodedata.normalize("NFKD", class_name) if not unicodedata.combining(c))
    return plain if plain.isascii() and plain.strip() else f"class {class_id}"


def text_size(text: str) -> tuple[int, int]:
    """Return width and height in pixels of a label with its padding."""
    (width, height), baseline = cv2.getTextSize(text, _FONT, _FONT_SCALE, 1)
    return width + 2 * _PAD, height + baseline + _PAD


def choose_places(candidates: Sequence[Boxes], obstacles: Boxes) -> list[int]:
    """Choose one place for each label so that labels cover neither one another nor the obstacles.

    Greedy, in the order given: each label takes the first of its places with the least area in common with the
    obstacles and the labels placed before it.

    Args:
        candidates: For each label an array (K, 4) of xyxy places, the best liked first.
        obstacles: Shape (M, 4), xyxy.

    Returns:
        For each label the index of its place.

    >>> place = np.array([[0.0, 0.0, 9.0, 9.0], [10.0, 0.0, 19.0, 9.0]])
    >>> choose_places([place, place], np.zeros((0, 4)))
    [0, 1]
    """
    taken = np.asarray(obstacles, dtype=np.float64).reshape(-1, 4)
    chosen = []
    for places in candidates:
        top_left = np.maximum(places[:, None, :2], taken[None, :, :2])
        bottom_right = np.minimum(places[:, None, 2:], taken[None, :, 2:])
        shared = np.maximum(bottom_right - top_left, 0).prod(axis=2).sum(axis=1)
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
    return _draw_labels(drawn, boxes_xyxy, labels, colors)


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
    return _draw_labels(drawn, detected_xyxy, labels, colors)


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
    shown = text
    while shown and text_size(shown)[0] > strip.shape[1]:
        shown = shown.removesuffix("...")[:-1] + "..." if len(shown) > 3 else ""
    cv2.putText(strip, shown, (_PAD, 16), _FONT, _FONT_SCALE, INK, 1, cv2.LINE_AA)
    return np.concatenate([strip, image_bgr])


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


def _draw_labels(
    drawn: Image, boxes_xyxy: npt.NDArray[np.floating[Any]], labels: Sequence[str], colors: Sequence[Color]
) -> Image:
    named = [(box, text, color) for box, text, color in zip(_pixels(boxes_xyxy), labels, colors, strict=True) if text]
    height, width = drawn.shape[:2]
    candidates = [_label_places(box, text_size(text), (width, height)) for box, text, _ in named]
    for (_, text, color), places, best in zip(
        named, candidates, choose_places(candidates, np.zeros((0, 4))), strict=True
    ):
        left, top, right, bottom = places[best].astype(int).tolist()
        cv2.rectangle(drawn, (left, top), (right - 1, bottom - 1), color, cv2.FILLED)
        blue, green, red = color
        ink = BLACK if 0.114 * blue + 0.587 * green + 0.299 * red > 130 else WHITE
        cv2.putText(drawn, text, (left + _PAD, bottom - _PAD - 3), _FONT, _FONT_SCALE, ink, 1, cv2.LINE_AA)
    return drawn


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
