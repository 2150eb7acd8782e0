"""One run of Lightning's trainer, quiet, on one device or several."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy

from plumbline.classify.training.batches import MEMORY_LIMIT, BatchOrder, Feeding, Images, Share
from plumbline.classify.training.devices import Devices
from plumbline.classify.training.keeping import LAST, Keeper, Kept
from plumbline.classify.training.labels import Labelled
from plumbline.classify.training.learner import Learner
from plumbline.errors import TrainingError

# Of processes that decode and augment for one GPU. A CPU that trains has no core to spare for them.
MOST_WORKERS = 8
# What torch's batch normalisation says where one image has shrunk to one pixel: it has no variance.
SINGLE_VALUE = "Expected more than 1 value per channel when training"
ONE_IMAGE = (
    "a batch has one image for a device, and the network's batch normalisation needs two; raise train.classify.batch in"
    " params.yaml, or add images to the split train"
)


@dataclass(frozen=True)
class Feed:
    """The images of both splits, on their way to the network.

    Attributes:
        train: Labels of the train split.
        val: Labels of the val split.
        train_feeding: With augmentation.
        val_feeding: Without.
        batch: Images per optimizer step, over all processes.
        workers: Processes that decode and augment, for each that trains.
        first_epoch: From 0; a run that goes on begins there.
    """

    train: Labelled
    val: Labelled
    train_feeding: Feeding
    val_feeding: Feeding
    batch: int
    workers: int
    first_epoch: int

    def train_order(self) -> BatchOrder:
        """Return the order of the train split."""
        return BatchOrder(len(self.train.paths), self.batch, seed=self.train_feeding.seed, first_epoch=self.first_epoch)

    def val_order(self) -> BatchOrder:
        """Return the order of the val split."""
        return BatchOrder(len(self.val.paths), self.batch, seed=None)


class Loaders(pl.LightningDataModule):
    """Decodes the images once in each process, and feeds them."""

    def __init__(self, feed: Feed) -> None:
        super().__init__()
        self._feed = feed

    def train_dataloader(self) -> torch.utils.data.DataLoader:
        """Return the batches of the train split."""
        feed = self._feed
        return self._loader(feed.train, feed.train_feeding, feed.train_order())

    def val_dataloader(self) -> torch.utils.data.DataLoader:
        """Return the batches of the val split."""
        feed = self._feed
        return self._loader(feed.val, feed.val_feeding, feed.val_order())

    def _loader(self, labelled: Labelled, feeding: Feeding, order: BatchOrder) -> torch.utils.data.DataLoader:
        assert self.trainer is not None
        images = Images(labelled, feeding, Share(self.trainer.global_rank, self.trainer.world_size))
        images.decode_all(MEMORY_LIMIT // self.trainer.world_size)
        # The order gives whole batches: batch_size None says that the loader is not to make any.
        return torch.utils.data.DataLoader(
            images,
            batch_size=None,
            sampler=order,
            num_workers=self._feed.workers,
            pin_memory=self.trainer.strategy.root_device.type == "cuda",
        )


def num_workers(devices: Devices) -> int:
    """Return how many processes decode and augment for each that trains."""
    if devices.accelerator == "cpu":
        return 0
    return max(1, min(MOST_WORKERS, (os.cpu_count() or 1) // len(devices.indices) - 1))


def fit(learner: Learner, feed: Feed, kept: Kept, devices: Devices, say: Callable[[str], None]) -> None:
    """Train to the end; the results are in the folder of the run.

    Raises:
        TrainingError: A loss is NaN, a batch is smaller than the number of devices or than the network can learn from,
            or a GPU's memory is too small.
    """
    world = len(devices.indices)
    smallest = min(len(part) for order in (feed.train_order(), feed.val_order()) for _, part in order)
    if smallest < world:
        raise TrainingError(
            f"a batch has {smallest} images for {world} devices, expected one for each; raise train.classify.batch, or"
            " set train.classify.device to one of them in params.yaml"
        )
    with _torch_state_kept():
        trainer = pl.Trainer(
            accelerator=devices.accelerator,
            devices=list(devices.indices) if devices.accelerator == "gpu" else world,
            strategy=_strategy(devices) if world > 1 else "auto",
            # Never SLURM's or a cluster's: this process is the whole run, or starts what else it needs.
            plugins=[LightningEnvironment()],
            precision=devices.precision,
            sync_batchnorm=world > 1 and devices.accelerator == "gpu",
            # Some of CUDA's kernels have no deterministic form: the gradient of AlexNet's and VGG's adaptive pooling.
            deterministic=True if devices.accelerator == "cpu" else "warn",
            max_epochs=kept.epochs,
            callbacks=[Keeper(kept, _picklable(say) if world > 1 else say)],
            default_root_dir=kept.work,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        last = kept.work / LAST
        with _said_as_ours():
            trainer.fit(learner, Loaders(feed), ckpt_path=last if kept.rows else None, weights_only=True)


def _strategy(devices: Devices) -> DDPStrategy:
    # Spawned: Lightning's other way runs the whole command line again for each GPU, and with it all that the stage does
    # before and after.
    backend = "nccl" if devices.accelerator == "gpu" else "gloo"
    return DDPStrategy(start_method="spawn", process_group_backend=backend)


def _picklable(say: Callable[[str], None]) -> Callable[[str], None]:
    """Return `say` where a spawned process can have it, and elsewhere `print`, which writes to the same terminal."""
    try:
        pickle.dumps(say)
    except (pickle.PicklingError, AttributeError, TypeError):
        return print
    return say


@contextmanager
def _said_as_ours() -> Iterator[None]:
    """Turn what a person can mend into a `TrainingError`, also out of another process."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            "the GPU's memory is too small for train.classify.batch; lower it, or image_size, in params.yaml"
        ) from error
    except ValueError as error:
        if SINGLE_VALUE not in str(error):
            raise
        raise TrainingError(ONE_IMAGE) from error
    except torch.multiprocessing.ProcessRaisedException as error:
        # All that comes out of a spawned process is its traceback's text.
        if SINGLE_VALUE in str(error):
            raise TrainingError(ONE_IMAGE) from error
        ours = re.search(r"(?:TrainingError|DatasetError): (.+)", str(error))
        if ours is None:
            raise
        raise TrainingError(ours.group(1)) from error


@contextmanager
def _torch_state_kept() -> Iterator[None]:
    """Give back what the trainer sets for the whole process."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark
