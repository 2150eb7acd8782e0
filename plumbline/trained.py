"""What the room ``training`` of a task gives.

It has ``PACKAGES``, whose versions are written beside the weights, and::

    train(dataset, splits, settings, *, work, tensorboard, say) -> Trained

- ``dataset``: the validated `plumbline.manifest.Dataset`; ``splits``: columns image_id and split.
- ``settings``: the section ``train.<task>``, of `plumbline.training_settings`.
- ``work``: a folder that outlives a killed run: the next call with it goes on where that stopped, and ends with the
  weights that an uninterrupted run gives. The caller removes it when the result is safe.
- ``tensorboard``: a folder for event files; what an earlier, uninterrupted run left there is removed.
- ``say``: gets one line per epoch, and one more now and then where an epoch is long.

It raises `plumbline.errors.TrainingError` for labels that do not fit the task, an empty split, weights that do not fit,
or a loss that is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

WEIGHTS = "best.pt"


@dataclass(frozen=True)
class Trained:
    """What came out of training.

    Attributes:
        weights: The best epoch's checkpoint, in a form that the task's room ``network`` loads with no other file, and
            with the same bytes for the same numbers.
        epochs: One row per epoch: ``epoch`` from 1, ``learning_rate``, losses (``train_..._loss``, ``val_..._loss``)
            and scores on val (``val_...``).
        score: The column of `epochs` that chose the best epoch; higher is better.
        resumed_from_epoch: 0 for a run in one go.
        num_parameters: Numbers that inference uses.
        gflops: Billions of floating-point operations of one image's inference; a multiply-add is two.
    """

    weights: Path
    epochs: pd.DataFrame
    score: str
    resumed_from_epoch: int
    num_parameters: int
    gflops: float
