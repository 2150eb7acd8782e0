"""Training of detectors; see `plumbline.trained`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from plumbline.files import replacing
from plumbline.manifest import Dataset
from plumbline.trained import Trained
from plumbline.training_settings import DetectTraining

PACKAGES = ("torch", "torchvision", "ultralytics", "numpy", "opencv-python-headless")


def train(
    dataset: Dataset,
    splits: pd.DataFrame,
    settings: DetectTraining,
    *,
    work: Path,
    tensorboard: Path,
    say: Callable[[str], None],
) -> Trained:
    """Train a detector, or go on with the run that was interrupted in the same `work`.

    Raises:
        TrainingError: See `plumbline.trained`.
    """
    # ultralytics and torch take seconds to import; params.yaml is checked with the stage's models.
    from plumbline.yolo.training import SCORE, train_detector
    from plumbline.yolo.view import write_training_view

    view = work / "view"
    if not (view / "data.yaml").is_file():
        shutil.rmtree(view, ignore_errors=True)
        with replacing(view) as temporary:
            write_training_view(dataset, splits, temporary, view)
    result = train_detector(view / "data.yaml", settings, work, tensorboard=tensorboard, say=say)

    from plumbline.networks import count_gflops, count_parameters
    from plumbline.yolo.network import load_network

    network = load_network(result.weights)
    return Trained(
        weights=result.weights,
        epochs=result.epochs,
        score=SCORE,
        resumed_from_epoch=result.resumed_from_epoch,
        num_parameters=count_parameters(network.module),
        gflops=count_gflops(network),
    )
