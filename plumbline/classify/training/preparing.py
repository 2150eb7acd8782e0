"""From settings and labels to a network that is ready to learn."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from plumbline.classify.training.architectures import build, normalization
from plumbline.classify.training.augmentation import Augmentation
from plumbline.classify.training.batches import Feeding
from plumbline.classify.training.devices import Devices
from plumbline.classify.training.fitting import Feed, num_workers
from plumbline.classify.training.labels import Labelled
from plumbline.classify.training.learner import Learner, Schedule
from plumbline.classify.training.losses import Criterion, balanced_class_weights
from plumbline.classify.training.weights_file import ClassifierWeights
from plumbline.runtime.artifact import Preprocessing
from plumbline.training_settings import ClassifyTraining

# Part of the seed, beside those in `plumbline.classify.training.batches` and `.learner`.
FIRST_WEIGHTS = 3


def prepare(  # noqa: PLR0917
    train: Labelled,
    val: Labelled,
    num_classes: int,
    settings: ClassifyTraining,
    devices: Devices,
    first_epoch: int,
    say: Callable[[str], None],
) -> tuple[Learner, ClassifierWeights, Feed]:
    """Return what learns, how its weights are written (without any yet), and what it learns from.

    Args:
        train: Images of the train split.
        val: Images of the val split.
        num_classes: Of the data set.
        settings: Section ``train.classify``.
        devices: See `Devices`.
        first_epoch: From 0; a run that goes on begins there.
        say: Is told what came of the pretrained weights.

    Raises:
        TrainingError: The model or its pretrained weights cannot be had.
    """
    torch.manual_seed(int(np.random.SeedSequence([settings.seed, FIRST_WEIGHTS]).generate_state(1)[0]))
    # A run that goes on has its weights in its checkpoint.
    pretrained = "none" if first_epoch else settings.pretrained
    network = build(settings.model, num_classes, settings.image_size, pretrained, say)
    mean, std = normalization(settings.model, settings.pretrained)
    preprocessing = Preprocessing(resize=settings.resize, mean=mean, std=std)
    class_weights = np.ones(num_classes)
    if settings.class_weights == "balanced":
        class_weights = balanced_class_weights(train.class_ids, num_classes)
    feed = _feed(train, val, settings, preprocessing, class_weights, devices, first_epoch)
    learner = Learner(
        network,
        Criterion(class_weights, smoothing=settings.label_smoothing, gamma=settings.focal_gamma),
        _schedule(settings, len(feed.train_order())),
        auxiliary_weight=settings.auxiliary_weight,
        seed=settings.seed,
    )
    return learner, ClassifierWeights(settings.model, num_classes, settings.image_size, preprocessing, {}), feed


def _feed(  # noqa: PLR0917
    train: Labelled,
    val: Labelled,
    settings: ClassifyTraining,
    preprocessing: Preprocessing,
    class_weights: npt.NDArray[np.float64],
    devices: Devices,
    first_epoch: int,
) -> Feed:
    augmentation = Augmentation(
        settings.flip_horizontal, settings.rotate_degrees, settings.shift, settings.zoom, settings.color_jitter
    )
    plain = Feeding(settings.image_size, preprocessing, None, settings.seed, class_weights)
    changed = dataclasses.replace(plain, augmentation=augmentation)
    return Feed(train, val, changed, plain, settings.batch, num_workers(devices), first_epoch)


def _schedule(settings: ClassifyTraining, steps_per_epoch: int) -> Schedule:
    total = settings.epochs * steps_per_epoch
    # In a run of few epochs the warm-up takes no more than half of it, or the learning rate would never be reached.
    warmup = min(settings.warmup_epochs * steps_per_epoch, total // 2)
    return Schedule(settings.optimizer, settings.learning_rate, settings.weight_decay, warmup, total)
