"""All pictures of a comparison, as PNG: for the comment of a pull request, and for the page.

One that cannot be made, for a revision has not what it needs, becomes a small picture that says why.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2

from plumbline.drawing import Image, resize
from plumbline.errors import PlumblineError
from plumbline.review.picture_confusion import confusion_picture
from plumbline.review.picture_curves import curves_picture
from plumbline.review.picture_latency import latency_picture
from plumbline.review.picture_notice import notice_picture
from plumbline.review.revision import Revision
from plumbline.tasks import task_module

MOST_BYTES = 1_500_000  # of a picture: a comment loads four of them
MOST_CHANGED = 9  # images on the sheet; fewer where they would be too many bytes
_LEAST_CHANGED = 3
_SMALLER = 0.8

__all__ = ["changed_picture", "confusion_picture", "curves_picture", "draw_all", "latency_picture"]


def draw_all(base: Revision, head: Revision, artifact: str) -> dict[str, bytes]:
    """Draw every picture of a comparison; the same revisions give the same bytes.

    Args:
        base: What the head is compared with.
        head: Its labels and images count.
        artifact: That curves, confusion matrix and changed images are of.

    Returns:
        ``curves``, ``confusion``, ``latency`` and ``changed`` -> the bytes of a PNG.
    """
    drawn: dict[str, Callable[[], bytes]] = {
        "curves": lambda: curves_picture(base, head, artifact),
        "confusion": lambda: confusion_picture(base, head, artifact),
        "latency": lambda: latency_picture(base, head),
        "changed": lambda: changed_picture(base, head, artifact),
    }
    return {stem: _or_why_not(draw) for stem, draw in drawn.items()}


def _or_why_not(draw: Callable[[], bytes]) -> bytes:
    try:
        return draw()
    except PlumblineError as error:  # nothing else: a fault of ours keeps its traceback
        return notice_picture(f"This picture cannot be drawn: {error}")


def changed_picture(base: Revision, head: Revision, artifact: str) -> bytes:
    """Draw the images that got worse, as the task's ``changed_sheet`` does, in at most `MOST_BYTES`.

    Raises:
        EvaluationError: The tasks differ, a revision has no such artifact, or no image is in both.
    """
    sheet_of: Callable[..., Image] = task_module(head.run.task, "reviewing.changed").changed_sheet
    data, most = b"", MOST_CHANGED
    while most >= _LEAST_CHANGED:  # fewer images first: a smaller picture's words cannot be read
        sheet = sheet_of(base, head, artifact, most)
        data = _png(sheet)
        if len(data) <= MOST_BYTES:
            return data
        most -= 3
    while len(data) > MOST_BYTES:
        sheet = resize(sheet, _SMALLER)
        data = _png(sheet)
    return data


def _png(image: Image) -> bytes:
    encoded, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    assert encoded, "cv2 cannot encode a PNG"
    return bytes(data.tobytes())
