"""Quantization-aware fine-tuning: the trained network learns to say in int8 what it says in float.

The network that ships is its own teacher: its raw outputs on the train images are what the rounded copy is trained to
repeat. So there is one fine-tune for detectors and classifiers, without labels and without the loss of any training.

It learns to live with the very levels that its weights are rounded to, so these must be the backend's: a small network
tuned for weights of 7 bits was 14 times as wrong with 8 as before, and one tuned for 8 no better with 7.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from plumbline.errors import TrainingError
from plumbline.networks import Network
from plumbline.quantization.distillation import Distance, distance_for
from plumbline.quantization.fake_quantization import INPUT_LEVELS, FakeQuantized, Levels

SECONDS_BETWEEN_LINES = 30.0
WARMUP_SHARE = 0.05

Tensors = Sequence[npt.NDArray[np.float32]]
# A batch of images, and the teacher's outputs for it.
_Pair = tuple[torch.Tensor, tuple[torch.Tensor, ...]]


@dataclass(frozen=True)
class AwareSettings:
    """How the fine-tune goes.

    Attributes:
        steps: Of the optimizer.
        batch: Images per step.
        learning_rate: The highest, of Adam: warm-up to it, then a cosine down to 0.
        seed: Of the images' order.
        activations: ``asymmetric`` (uint8 with a zero point) or ``symmetric`` (int8), as the backend has them.
        largest_weight: The largest integer that the backend gives a weight, the smallest being minus it: 127, or 64
            where weights have 7 bits.
    """

    steps: int
    batch: int
    learning_rate: float
    seed: int
    activations: str
    largest_weight: int


def fine_tune(network: Network, tensors: Tensors, settings: AwareSettings, say: Callable[[str], None]) -> Network:
    """Return a copy whose int8 form says what the network says in float; its weights are float, ready for a hub.

    On the CPU the same input gives the same bytes. A GPU is used where there is one.

    Args:
        network: Not changed.
        tensors: Inputs of train images, each (1, 3, H, W), as the runtime makes them.
        settings: See `AwareSettings`.
        say: Gets a line now and then.

    Raises:
        TrainingError: There are no images, or the loss or its gradient is no number.
    """
    if not len(tensors):
        raise TrainingError("no images to fine-tune on, expected those of the split train; add images to it")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images = _Images(tensors, settings.batch, device)
    teacher = copy.deepcopy(network.module).to(device).eval().requires_grad_(False)
    student = copy.deepcopy(teacher).requires_grad_(True)
    weights = Levels(-settings.largest_weight, settings.largest_weight)
    rounded = FakeQuantized(student, INPUT_LEVELS[settings.activations], weights)
    # Once: with ranges taken again as the weights move, the result was the same (loss 0.0190 against 0.0188).
    rounded.calibrate(images.once())
    distance = distance_for(network.outputs)
    before = _apart(rounded, teacher, images, distance)
    _train(student, rounded, _pairs(images, teacher, settings), distance, settings, say)
    after = _apart(rounded, teacher, images, distance)
    rounded.remove()
    better = after < before
    say(f"fine-tune for int8: loss over all {len(tensors)} images {before:.4g} before, {after:.4g} after")
    if not better:
        say("fine-tune for int8: it did not help, the weights stay as they were")
    return dataclasses.replace(network, module=(student.requires_grad_(False) if better else teacher).to("cpu"))


def _apart(rounded: FakeQuantized, teacher: torch.nn.Module, images: _Images, distance: Distance) -> float:
    """Return the mean distance over all images."""
    total = 0.0
    with torch.no_grad():
        for batch in images.once():
            total += len(batch) * float(distance(rounded(batch), teacher(batch)))
    return total / len(images.tensors)


def _pairs(images: _Images, teacher: torch.nn.Module, settings: AwareSettings) -> Iterator[_Pair]:
    for batch in images.shuffled(settings.seed, settings.steps):
        with torch.no_grad():
            wanted = teacher(batch)
        yield batch, wanted


def _train(  # noqa: PLR0917 - used once
    module: torch.nn.Module,
    rounded: FakeQuantized,
    pairs: Iterator[_Pair],
    distance: Distance,
    settings: AwareSettings,
    say: Callable[[str], None],
) -> None:
    told = time.monotonic()
    parameters = list(module.parameters())
    optimizer = torch.optim.Adam(parameters, lr=settings.learning_rate)
    for step, (batch, wanted) in enumerate(pairs):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * schedule(step, settings.steps)
        loss = distance(rounded(batch), wanted)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.get_total_norm([one.grad for one in parameters if one.grad is not None])
        if not torch.isfinite(loss.detach() + norm):
            raise TrainingError(
                f"step {step + 1} of {settings.steps} of the fine-tune for int8: the loss is {loss.item():.4g} and its"
                f" gradient {norm.item():.4g}, expected finite numbers; lower its learning rate, now"
                f" {settings.learning_rate:g}"
            )
        optimizer.step()
        if time.monotonic() - told > SECONDS_BETWEEN_LINES:
            say(f"fine-tune for int8: step {step + 1} of {settings.steps}, loss {loss.item():.4g}")
            told = time.monotonic()


@dataclass(frozen=True)
class _Images:
    """Batches of images, on a device."""

    tensors: Tensors
    batch: int
    device: torch.device

    def at(self, rows: Sequence[int]) -> torch.Tensor:
        return torch.from_numpy(np.concatenate([self.tensors[row] for row in rows])).to(self.device)

    def once(self) -> Iterator[torch.Tensor]:
        """Yield all, in their order."""
        for first in range(0, len(self.tensors), self.batch):
            yield self.at(range(first, min(first + self.batch, len(self.tensors))))

    def shuffled(self, seed: int, steps: int) -> Iterator[torch.Tensor]:
        """Yield so many full batches; every image is seen before one is seen again."""
        rng = np.random.default_rng(seed)
        rows: list[int] = []
        for _ in range(steps):
            while len(rows) < self.batch:
                rows += rng.permutation(len(self.tensors)).tolist()
            yield self.at(rows[: self.batch])
            rows = rows[self.batch :]


def schedule(step: int, steps: int) -> float:
    """Return the factor of the learning rate at a step, from 0: a short line up to 1, then half a cosine.

    >>> [round(schedule(step, 100), 2) for step in (0, 4, 5, 52, 99)]
    [0.2, 1.0, 1.0, 0.51, 0.0]
    """
    warmup = max(1, round(WARMUP_SHARE * steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 + 0.5 * math.cos(math.pi * (step - warmup) / max(1, steps - warmup))
