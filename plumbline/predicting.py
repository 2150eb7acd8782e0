"""Run the images of a split through an artifact: what evaluate scores, and what a threshold is chosen on."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import ModuleType

import pandas as pd

from plumbline.dataset_images import load_image
from plumbline.manifest import Dataset
from plumbline.runtime.session import Session

PROGRESS_S = 5.0


def predict_images(
    session: Session,
    images: pd.DataFrame,
    data: Dataset,
    *,
    scoring: ModuleType,
    confidence_floor: float,
    tell: Callable[[str], None],
) -> pd.DataFrame:
    """Run every image through the session, telling now and then how far it is.

    Args:
        session: The artifact.
        images: Rows of the images table.
        data: Knows where their files are.
        scoring: The room ``scoring`` of the artifact's task.
        confidence_floor: What is less confident is not kept.
        tell: Gets a line every few seconds and at the end.

    Returns:
        Columns of the room's `PREDICTIONS_SCHEMA`, in the order of image_id, the most confident first within an image.
    """
    frames = []
    told = time.monotonic()
    for number, row in enumerate(images.itertuples(index=False), start=1):
        found = session.predict(load_image(data, row.path), confidence=confidence_floor)
        frames.append(pd.DataFrame(scoring.prediction_rows(row.image_id, found)))
        if time.monotonic() - told > PROGRESS_S or number == len(images):
            tell(f"{session.artifact.name}: {number} of {len(images)} images")
            told = time.monotonic()
    return pd.concat(frames, ignore_index=True)
