"""Training of classifiers; what it takes and gives stands in `plumbline.trained`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from plumbline.classify.training.labels import Labelled, labelled_images
from plumbline.errors import TrainingError
from plumbline.manifest import Dataset
from plumbline.trained import WEIGHTS, Trained
from plumbline.training_settings import ClassifyTraining

PACKAGES = ("torch", "torchvision", "timm", "ultralytics", "lightning", "numpy", "opencv-python-headless")

Say = Callable[[str], None]


def train(
    dataset: Dataset, splits: pd.DataFrame, settings: ClassifyTraining, *, work: Path, tensorboard: Path, say: Say
) -> Trained:
    """Train a classifier, or go on with the run that was interrupted in the same `work`.

    Args:
        dataset: The validated one, with one label for each image of train and val.
        splits: Columns image_id and split; the test split is not looked at.
        settings: Section ``train.classify``.
        work: Folder of the run, kept when interrupted; the caller removes it when all is safe.
        tensorboard: Folder for event files.
        say: Gets one line per epoch, and more where an epoch is long.

    Raises:
        TrainingError: The labels do not fit, a split is empty, the model, weights or device cannot be had, or a loss is
            NaN.
        DatasetError: An image cannot be decoded.
    """
    train_images, val_images = (labelled_images(dataset, splits, name) for name in ("train", "val"))
    num_classes = len(dataset.class_names)
    _refuse_one_class(train_images, val_images, dataset.class_names, say)
    # Read when torch loads its OpenMP. Threads that spin at every barrier, which is the default, made an epoch of LeNet
    # eight times slower on two cores with other work on them; asleep, they cost nothing that was measured.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Torch and Lightning take seconds to import: what is wrong with the labels is said before.
    from plumbline.classify.training import keeping
    from plumbline.classify.training.devices import resolve_devices
    from plumbline.classify.training.fitting import fit
    from plumbline.classify.training.preparing import prepare

    devices = resolve_devices(settings.device, settings.precision)
    work.mkdir(parents=True, exist_ok=True)
    done = keeping.kept_rows(work, say)
    if done:
        say(f"train: going on after epoch {len(done)} of {settings.epochs}, from {work / keeping.LAST}")
    if not keeping.is_over(done, settings.epochs, settings.patience):
        learner, weights, feed = prepare(train_images, val_images, num_classes, settings, devices, len(done), say)
        kept = keeping.Kept(work, tensorboard, weights, settings.epochs, settings.patience, done)
        fit(learner, feed, kept, devices, say)
    rows = keeping.kept_rows(work, say)
    shutil.copyfile(keeping.best_path(work, rows), work / WEIGHTS)
    epochs = pd.DataFrame(rows, columns=list(keeping.COLUMNS)).astype({"epoch": np.int64})
    return Trained(work / WEIGHTS, epochs, keeping.SCORE, len(done), *_size(work / WEIGHTS))


def _refuse_one_class(train: Labelled, val: Labelled, class_names: tuple[str, ...], say: Say) -> None:
    counts = np.bincount(train.class_ids, minlength=len(class_names))
    present = [name for name, count in zip(class_names, counts, strict=True) if count]
    absent = [name for name, count in zip(class_names, counts, strict=True) if not count]
    if len(present) == 1:
        raise TrainingError(
            f"every image of the split train is of class {present[0]!r}, expected two classes or more; add images of"
            " another class, or deal the splits again (delete the file of splits)"
        )
    if not np.isin(val.class_ids, train.class_ids).any():
        raise TrainingError(
            "no image of the split val is of a class that the split train has, expected some; deal the splits again"
            " (delete the file of splits)"
        )
    if absent:
        say(f"train: no image of the split train is of class {', '.join(absent)}: it cannot be learned")


def _size(weights: Path) -> tuple[int, float]:
    """Return the parameters and the gigaflops of the network as it is shipped."""
    from plumbline.classify.network import load_network
    from plumbline.networks import count_gflops, count_parameters

    network = load_network(weights)
    return count_parameters(network.module), count_gflops(network)
