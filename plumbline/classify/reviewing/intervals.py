"""The scores of two revisions of a classifier, with paired intervals: overall, by class, by slice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from plumbline.classify.reporting import WORDS
from plumbline.classify.scoring.class_metrics import by_class
from plumbline.classify.scoring.intervals import class_counts, headline
from plumbline.classify.scoring.predictions import Scored, put_together
from plumbline.review.differences import Difference, Pair, Weights, paired, slice_key, telling_slices
from plumbline.scores import BootstrapSettings
from plumbline.slices import Slice

Floats = npt.NDArray[np.float64]
_CHUNK = 64


def overall(pair: Pair, settings: BootstrapSettings) -> list[Difference]:
    """Give top-1, macro F1 and, with more than five classes, top-5 of all images."""
    base, head = _scored(pair, pair.images)
    found = paired(
        lambda weights: headline(base, weights), lambda weights: headline(head, weights), pair.images, settings, _CHUNK
    )
    return [Difference("score", name, WORDS.score_of(name).title, each) for name, each in found.items()]


def details(pair: Pair, slices: Sequence[Slice], settings: BootstrapSettings) -> list[Difference]:
    """Give F1 of each class, and top-1 of each slice of the images.

    Args:
        pair: The predictions.
        slices: Of ``pair.images``.
        settings: Of the bootstrap.
    """
    base, head = _scored(pair, pair.images)
    names = pair.class_names
    found = paired(
        lambda weights: _f1(base, weights, names), lambda weights: _f1(head, weights, names), pair.images, settings,
        _CHUNK,
    )  # fmt: skip
    rows = [Difference("class", f"class_{name}_f1", name, each) for name, each in found.items()]
    for part in telling_slices(slices):
        images = pair.images[part.images].reset_index(drop=True)
        rows += _of_slice(pair, part, images, settings)
    return rows


def _of_slice(pair: Pair, part: Slice, images: pd.DataFrame, settings: BootstrapSettings) -> list[Difference]:
    base, head = _scored(pair, images)
    found = paired(lambda weights: _top1(base, weights), lambda weights: _top1(head, weights), images, settings, _CHUNK)
    key, title = slice_key(part.column, part.name, "top1"), f"{part.column}: {part.name}"
    return [Difference("slice", key, title, each) for each in found.values()]


def _scored(pair: Pair, images: pd.DataFrame) -> tuple[Scored, Scored]:
    ids = images["image_id"]
    truth = pair.truth[pair.truth["image_id"].isin(ids)].reset_index(drop=True)
    base, head = (
        put_together(truth, side[side["image_id"].isin(ids)], images, list(pair.class_names))
        for side in (pair.base, pair.head)
    )
    return base, head


def _top1(scored: Scored, weights: Weights) -> dict[str, Floats]:
    return {"top1": weights @ scored.right.astype(np.int64) / weights.sum(axis=1)}


def _f1(scored: Scored, weights: Weights, names: Sequence[str]) -> dict[str, Floats]:
    return dict(zip(names, by_class(*class_counts(scored, weights)).f1.T, strict=True))
