"""The images whose class a revision newly takes for another: right in the base, wrong in the head."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from plumbline.classify.scoring import truth_of
from plumbline.contact_sheet import Tile, draw_sheet
from plumbline.drawing import Image, printable_name
from plumbline.review.picture_images import image_and_caption, number_of, shared_images, short_path, tile_wh
from plumbline.review.revision import Revision

NEWLY_WRONG, NEWLY_RIGHT, OTHERWISE_WRONG = "newly wrong", "newly right", "otherwise wrong"
COLUMNS = ["image_id", "change", "class_id", "before", "after", "confidence_before", "confidence_after"]
_TILE_WH = (236, 200)
_COLUMNS = 4


def changed_classes(truth: pd.DataFrame, base: pd.DataFrame, head: pd.DataFrame) -> pd.DataFrame:
    """Return the images that two sets of predictions do not take for the same class, the worst first.

    Args:
        truth: Columns image_id and class_id, one row per image.
        base: Columns image_id, class_id and confidence, one row per image.
        head: As `base`, of the same images.

    Returns:
        Columns `COLUMNS`: ``change`` is `NEWLY_WRONG`, `NEWLY_RIGHT` or `OTHERWISE_WRONG` (both are, each in its own
        way); ``class_id`` is the label's; ``before`` and ``after`` the class_id given by base and head. First the newly
        wrong, the most confident first.

    >>> truth = pd.DataFrame({"image_id": [0, 1], "class_id": [0, 1]})
    >>> base = truth.assign(confidence=[0.9, 0.8])
    >>> head = truth.assign(class_id=[0, 0], confidence=[0.9, 0.7])
    >>> changed_classes(truth, base, head).values.tolist()
    [[1, 'newly wrong', 1, 1, 0, 0.8, 0.7]]
    """
    rows = truth[["image_id", "class_id"]]
    for found, when in ((base, "before"), (head, "after")):
        said = found[["image_id", "class_id", "confidence"]]
        said = said.rename(columns={"class_id": when, "confidence": f"confidence_{when}"})
        rows = rows.merge(said, on="image_id", validate="one_to_one")
    rows = rows[rows["before"] != rows["after"]]
    right_before, right_after = rows["before"] == rows["class_id"], rows["after"] == rows["class_id"]
    change = np.where(right_before, NEWLY_WRONG, np.where(right_after, NEWLY_RIGHT, OTHERWISE_WRONG))
    rows = rows.assign(change=change, better=change != NEWLY_WRONG)
    order = ["better", "change", "confidence_after", "image_id"]
    return rows.sort_values(order, ascending=[True, True, False, True], ignore_index=True)[COLUMNS]


def changed_sheet(base: Revision, head: Revision, artifact: str, most: int) -> Image:
    """Draw the images that are newly wrong, by the labels of the head, the most confident mistake first.

    Args:
        base: What the head is compared with.
        head: Its labels count, and its images are drawn; one that is not to be had is said so on its tile.
        artifact: Scored in both.
        most: Images on the sheet.

    Returns:
        Shape (H, W, 3), uint8 BGR; a small sheet that says so where no image is newly wrong.

    Raises:
        EvaluationError: The tasks differ, a revision has no such artifact, or no image is in both.
    """
    shared = shared_images(base, head, artifact)
    rows = changed_classes(truth_of(head.run.data, shared.images), shared.base, shared.head)
    names = [printable_name(name, class_id) for class_id, name in enumerate(shared.class_names)]
    path_of = dict(zip(shared.images["image_id"], shared.images["path"], strict=True))
    wrong = rows[rows["change"] == NEWLY_WRONG]
    tiles = []
    for number, row in enumerate(wrong.head(most).to_dict("records"), start=1):
        path = path_of[row["image_id"]]
        file, caption = image_and_caption(head, path, _caption(number, row, names, path, shared.head_threshold))
        tiles.append(Tile(file, caption))
    title = f"{artifact}: {head.name} against {base.name}. {_totals(rows, len(tiles), len(shared.images))}"
    if not tiles:
        return draw_sheet([], 1, (880, 90), title)
    return draw_sheet(tiles, _COLUMNS, tile_wh(_TILE_WH, len(tiles)), title)


def _caption(number: int, row: dict[str, Any], names: list[str], path: str, threshold: float) -> str:
    aside = "" if row["confidence_after"] >= threshold else ", not accepted"
    before, after = (f"{names[row[when]]} {row[f'confidence_{when}']:.2f}" for when in ("before", "after"))
    return f"{number}.  {before} -> {after}{aside}\n{short_path(path)}"


def _totals(rows: pd.DataFrame, num_shown: int, num_images: int) -> str:
    """Say what changed on all images, and which are shown."""
    count = rows["change"].value_counts()
    num_wrong = int(count.get(NEWLY_WRONG, 0))
    others = f"{count.get(NEWLY_RIGHT, 0):,} newly right, {count.get(OTHERWISE_WRONG, 0):,} wrong in another way"
    of_all = f"Of {number_of(num_images, 'image')} scored in both"
    if num_wrong == 0:
        return f"{of_all}, none is newly wrong; {others}."
    shown = "all of them" if num_shown == num_wrong else f"the {num_shown} most confident"
    return f"{of_all}, {num_wrong:,} newly wrong ({others}). Here: {shown}."
