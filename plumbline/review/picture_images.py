"""The images that both revisions scored, and what one artifact of each says of them: for sheets of changed images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd

from plumbline.errors import EvaluationError, PlumblineError
from plumbline.review.revision import Revision
from plumbline.score_comparison import HERE, as_in, pair_images

_LEAST_WIDTH = 880  # pixels of all tiles of a row


@dataclass(frozen=True)
class SharedImages:
    """What one artifact of both revisions says of the images that both scored; all ids are the head's.

    Attributes:
        images: Rows of the head's images.
        class_names: Index is class_id: the head's, behind them those that only the base has.
        base: Predictions of the base, also those below its threshold.
        head: The head's.
        base_threshold: Confidence threshold in use in the base.
        head_threshold: The head's.
    """

    images: pd.DataFrame
    class_names: tuple[str, ...]
    base: pd.DataFrame
    head: pd.DataFrame
    base_threshold: float
    head_threshold: float


def shared_images(base: Revision, head: Revision, artifact: str) -> SharedImages:
    """Pair the images of two revisions by their bytes, and give the base's predictions the head's ids.

    A class that the base had and the head has not keeps its name behind those of the head: what the base took an object
    for is a fact also where the head cannot say so any more.

    Raises:
        EvaluationError: The tasks differ, a revision has no such artifact, or no image is in both.
    """
    if base.run.task != head.run.task:
        raise EvaluationError(
            f"the task of {base.name} is {base.run.task}, expected {head.run.task} as in {head.name}; compare revisions"
            " of one task"
        )
    for revision in (base, head):
        if artifact not in revision.run.predictions:
            raise EvaluationError(f"{revision.name} has no predictions of {artifact}; run dvc repro in that revision")
    pairs = pair_images(base.run.images, head.run.images)
    if pairs.empty:
        raise EvaluationError(
            f"{base.name} and {head.name} scored no image in common ({len(base.run.images)} and"
            f" {len(head.run.images)} images); compare revisions with the same images"
        )
    names = head.run.data.class_names
    names += tuple(name for name in base.run.data.class_names if name not in names)
    images = head.run.images[head.run.images["image_id"].isin(pairs[HERE])]
    found = head.run.predictions[artifact]
    return SharedImages(
        images=images.sort_values("image_id", ignore_index=True),
        class_names=names,
        # Only the columns that need no list of classes of the same length.
        base=as_in(_without_probabilities(base.run.predictions[artifact]), pairs, base.run.data.class_names, names),
        head=found[found["image_id"].isin(pairs[HERE])].reset_index(drop=True),
        base_threshold=base.threshold[artifact],
        head_threshold=head.threshold[artifact],
    )


def _without_probabilities(predictions: pd.DataFrame) -> pd.DataFrame:
    return predictions.drop(columns="probabilities", errors="ignore")


def image_and_caption(head: Revision, path: str, caption: str) -> tuple[Path | None, str]:
    """Return the file of an image, or None and the reason in the caption's last line."""
    try:
        return head.image_file(path), caption
    except PlumblineError as error:
        return None, f"{caption}\n{error}"


def tile_wh(usual_wh: tuple[int, int], count: int) -> tuple[int, int]:
    """Return the size of a sheet's tiles: wider where they are few, or title and legend had no room above them.

    >>> tile_wh((320, 270), 9), tile_wh((320, 270), 1)
    ((320, 270), (880, 270))
    """
    return max(usual_wh[0], _LEAST_WIDTH // count), usual_wh[1]


def short_path(path: str) -> str:
    """Return the name of an image's file.

    >>> short_path("images/a/b.png")
    'b.png'
    """
    return PurePosixPath(path).name


def number_of(count: int, noun: str) -> str:
    """Write a count with its noun.

    >>> number_of(1, "image"), number_of(1200, "image")
    ('1 image', '1,200 images')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
