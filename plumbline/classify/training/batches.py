"""Batches of images, as a device will see them: decoded, resized and normalised by `plumbline.runtime.preprocess`."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from plumbline.classify.training.augmentation import Augmentation, augment
from plumbline.classify.training.labels import Labelled
from plumbline.dataset_images import load_image
from plumbline.runtime.artifact import Preprocessing
from plumbline.runtime.preprocess import Image, preprocess, resize_image

# Decoded images of one split, bytes: 14,000 of 224 x 224. Beyond it each image is decoded whenever it is needed.
MEMORY_LIMIT = 2 * 1024**3
DECODERS = 4
# Parts of the seed, so that the order of the images and their changes are independent of each other.
ORDER, CHANGES = 0, 1


@dataclass(frozen=True)
class Share:
    """Which part of every batch is this process's.

    Attributes:
        rank: 0..world - 1.
        world: Processes that train together.
    """

    rank: int = 0
    world: int = 1


class Batch(NamedTuple):
    """One optimizer step's images, over all processes.

    Attributes:
        epoch: From 0; it changes how images are augmented.
        rows: Of the split, shape (N,).
    """

    epoch: int
    rows: npt.NDArray[np.int64]


class BatchOrder(torch.utils.data.Sampler[Batch]):
    """All images of a split, cut into batches of nearly one size, shuffled anew in each epoch.

    No batch is a small rest, which would make a noisy step, and with batch norm and a rest of one image none at all.
    """

    def __init__(self, num_images: int, batch: int, *, seed: int | None, first_epoch: int = 0) -> None:
        """Make the order.

        Args:
            num_images: At least 1.
            batch: The most images of one batch.
            seed: Of the shuffling; None keeps the order.
            first_epoch: From 0; a run that goes on begins there.
        """
        self._num_images, self._seed, self._epoch = num_images, seed, first_epoch
        self._num_batches = -(-num_images // batch)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, from 0, that the next iteration belongs to; the trainer calls it."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._num_batches

    def __iter__(self) -> Iterator[Batch]:
        rows = np.arange(self._num_images)
        if self._seed is not None:
            rows = np.random.default_rng([self._seed, ORDER, self._epoch]).permutation(rows)
        return iter([Batch(self._epoch, part) for part in np.array_split(rows, self._num_batches)])


@dataclass(frozen=True)
class Feeding:
    """How images of a split become tensors.

    Attributes:
        image_size: Side of the network's input, pixels.
        preprocessing: From an image to that input.
        augmentation: None changes nothing.
        seed: Of the augmentation.
        class_weights: Shape (C,).
    """

    image_size: int
    preprocessing: Preprocessing
    augmentation: Augmentation | None
    seed: int
    class_weights: npt.NDArray[np.float64]


class Images(torch.utils.data.Dataset[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]):
    """The images of a split; indexed with a `Batch`."""

    def __init__(self, labelled: Labelled, feeding: Feeding, share: Share) -> None:
        self._labelled, self._feeding, self._share = labelled, feeding, share
        self._decoded: npt.NDArray[np.uint8] | None = None

    def decode_all(self, limit: int = MEMORY_LIMIT) -> None:
        """Keep all images in memory, where they fit `limit` bytes.

        Raises:
            DatasetError: An image cannot be decoded.
        """
        side, paths = self._feeding.image_size, self._labelled.paths
        if len(paths) * side * side * 3 > limit:
            return
        decoded = np.empty((len(paths), side, side, 3), dtype=np.uint8)
        with ThreadPoolExecutor(DECODERS) as pool:
            for row, image in enumerate(pool.map(self._decode, range(len(paths)))):
                decoded[row] = image
        self._decoded = decoded

    def __getitem__(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return this process's share of a batch.

        Returns:
            Images of shape (n, 3, S, S), float32; their classes of shape (n,); the sum of the class weights of the
            whole batch, a scalar.
        """
        feeding, class_ids = self._feeding, self._labelled.class_ids
        rows = np.array_split(batch.rows, self._share.world)[self._share.rank]
        tensor = np.empty((len(rows), 3, feeding.image_size, feeding.image_size), dtype=np.float32)
        for place, row in enumerate(rows.tolist()):
            tensor[place] = self._tensor(row, batch.epoch)
        total_weight = feeding.class_weights[class_ids[batch.rows]].sum()
        return (
            torch.from_numpy(tensor),
            torch.from_numpy(class_ids[rows]),
            torch.tensor(total_weight, dtype=torch.float32),
        )

    def _tensor(self, row: int, epoch: int) -> npt.NDArray[np.float32]:
        feeding = self._feeding
        image = self._decode(row) if self._decoded is None else self._decoded[row]
        if feeding.augmentation is not None:
            image_id = int(self._labelled.image_ids[row])
            rng = np.random.default_rng([feeding.seed, CHANGES, epoch, image_id])
            image = augment(image, feeding.augmentation, rng)
        # Of the network's size already: this does the rest of what a device does, by the same code.
        size_wh = (feeding.image_size, feeding.image_size)
        return preprocess(image, size_wh, feeding.preprocessing)[0][0]

    def _decode(self, row: int) -> Image:
        size_wh = (self._feeding.image_size, self._feeding.image_size)
        image = load_image(self._labelled.dataset, self._labelled.paths[row])
        return resize_image(image, size_wh, self._feeding.preprocessing)[0]
