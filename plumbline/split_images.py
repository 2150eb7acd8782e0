"""Which image stands in which split."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from plumbline.errors import EvaluationError


def read_splits(splits: Path) -> pd.DataFrame:
    """Read the columns image_id and split of the split stage's table.

    Raises:
        EvaluationError: It is missing or is no such table.
    """
    try:
        return pd.read_parquet(splits, columns=["image_id", "split"])
    except (OSError, ValueError) as error:
        raise EvaluationError(
            f"{splits}: not a readable table of image_id and split; run the split stage again"
        ) from error


def images_of_split(images: pd.DataFrame, splits: Path, split: str) -> pd.DataFrame:
    """Return the rows of `images` that a split holds, in the order of image_id; no split holds what is left_out.

    Args:
        images: Columns of `plumbline.manifest.IMAGES_SCHEMA`.
        splits: The table of the split stage: image_id, split, group.
        split: ``train``, ``val`` or ``test``.

    Raises:
        EvaluationError: The table is missing, the split has no image, or it names an image that is not there.
    """
    table = read_splits(splits)
    wanted = table.loc[table["split"] == split, "image_id"]
    if wanted.empty:
        raise EvaluationError(
            f"{splits}: expected one or more images in the split {split!r}, got none; change split.fractions in"
            " params.yaml, or use more images"
        )
    unknown = sorted(set(wanted) - set(images["image_id"]))
    if unknown:
        raise EvaluationError(
            f"{splits}: image_id {unknown[0]} of the split {split!r} is not in the dataset; run the split stage again"
        )
    return images[images["image_id"].isin(wanted)].sort_values("image_id", ignore_index=True)
