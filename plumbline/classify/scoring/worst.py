"""A sheet of the worst mistakes: images whose class was taken for another with the most confidence."""

from __future__ import annotations

import numpy as np
import pandas as pd

from plumbline.classify.scoring.predictions import Scored, put_together
from plumbline.contact_sheet import Tile, draw_sheet
from plumbline.drawing import Image, printable_name
from plumbline.manifest import Dataset
from plumbline.scores import ScoringSettings

_TILE_WH = (230, 230)  # a whole image needs less room than a cut-out with boxes; one of 32 pixels is enlarged 7 times
_COLUMNS = 6


def worst_sheet(  # noqa: PLR0917 (the verbs of plumbline.scores)
    dataset: Dataset,
    images: pd.DataFrame,
    truth: pd.DataFrame,
    predictions: pd.DataFrame,
    settings: ScoringSettings,
    title: str,
) -> Image:
    """Draw the images with the most confident wrong class, the most confident first.

    Args:
        dataset: Knows where the image files are.
        images: Those scored.
        truth: From `truth_of`.
        predictions: Columns of `PREDICTIONS_SCHEMA`.
        settings: ``worst`` is how many to show.
        title: What was scored.

    Returns:
        Shape (H, W, 3), uint8 BGR.

    Raises:
        EvaluationError: See `put_together`.
    """
    scored = put_together(truth, predictions, images, dataset.class_names)
    tiles = worst_tiles(dataset, images, scored, settings)
    num_wrong = int((~scored.right).sum())
    return draw_sheet(tiles, columns=_COLUMNS, tile_wh=_TILE_WH, title=_title(title, len(tiles), num_wrong))


def worst_tiles(dataset: Dataset, images: pd.DataFrame, scored: Scored, settings: ScoringSettings) -> list[Tile]:
    """Return what `worst_sheet` shows."""
    wrong = np.flatnonzero(~scored.right)
    # They are in the order of image_id: of equal confidences the first comes first.
    places = wrong[np.argsort(-scored.confidence[wrong], kind="stable")][: settings.worst].tolist()
    paths = dict(zip(images["image_id"], images["path"], strict=True))
    names = [printable_name(name, class_id) for class_id, name in enumerate(dataset.class_names)]
    shown = [(place, paths[scored.image_id[place]]) for place in places]
    return [
        Tile(dataset.image_path(path), _caption(scored, place, names, path, settings.confidence_threshold))
        for place, path in shown
    ]


def _caption(scored: Scored, place: int, names: list[str], path: str, threshold: float) -> str:
    actual, predicted = int(scored.actual[place]), int(scored.predicted[place])
    confidence = scored.confidence[place]
    aside = "" if confidence >= threshold else ", not accepted"
    return (
        f"{names[actual]}, taken for {names[predicted]}\n"
        f"{names[predicted]} {confidence:.3f}{aside}\n"
        f"{names[actual]} {scored.probabilities[place, actual]:.3f}\n{path}"
    )


def _title(title: str, num_shown: int, num_wrong: int) -> str:
    """Say how many of the mistakes are shown.

    >>> _title("x", 2, 1234), _title("x", 2, 2), _title("x", 0, 0)
    ('x: the 2 most confident of 1,234 mistakes', 'x: all 2 mistakes', 'x: no mistake')
    """
    if num_wrong == 0:
        return f"{title}: no mistake"
    if num_shown < num_wrong:
        return f"{title}: the {num_shown} most confident of {num_wrong:,} mistakes"
    return f"{title}: all {num_wrong} mistakes" if num_wrong > 1 else f"{title}: the one mistake"
