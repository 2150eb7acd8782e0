"""One network learning: Lightning's module, with the loss, the optimizer, and the scores of each epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt
import torch

from plumbline.classify.training.losses import Criterion, batch_loss
from plumbline.classify.training.quiet import quiet_lightning
from plumbline.errors import TrainingError

# Here, and not where the trainer starts: a process that the trainer spawns imports this first.
quiet_lightning()

MOMENTUM = 0.9  # of SGD
# Part of the seed, beside those in `plumbline.classify.training.batches`.
STEPS = 2

Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Schedule:
    """How fast is learned; see `plumbline.training_settings.ClassifyTraining`.

    Attributes:
        optimizer: ``SGD``, ``Adam`` or ``AdamW``.
        learning_rate: The highest.
        weight_decay: Not of biases and of norms' scales, which have one dimension.
        warmup_steps: Until the highest learning rate.
        total_steps: Until the learning rate is 0.
    """

    optimizer: str
    learning_rate: float
    weight_decay: float
    warmup_steps: int
    total_steps: int

    def factor(self, step: int) -> float:
        """Return the share of the highest learning rate at a step, from 0: a line up, then half a cosine down.

        >>> schedule = Schedule("SGD", 0.1, 0.0, warmup_steps=2, total_steps=6)
        >>> [round(schedule.factor(step), 3) for step in range(6)]
        [0.5, 1.0, 1.0, 0.854, 0.5, 0.146]
        """
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


class Learner(pl.LightningModule):
    """The network with its loss; `scores` holds those of the epoch that ended last."""

    def __init__(
        self, network: torch.nn.Module, criterion: Criterion, schedule: Schedule, *, auxiliary_weight: float, seed: int
    ) -> None:
        super().__init__()
        self.network, self.criterion = network, criterion
        self.schedule, self.auxiliary_weight, self.seed = schedule, auxiliary_weight, seed
        self.scores: dict[str, float] = {}
        self._train_loss: list[torch.Tensor] = []
        self._val_loss: list[torch.Tensor] = []
        self._confusion: torch.Tensor | None = None

    def on_train_batch_start(self, batch: Tensors, batch_idx: int) -> None:  # noqa: ARG002
        """Seed what is random in the network: dropout of a step is the same whatever happened before it."""
        words = [self.seed, STEPS, self.trainer.current_epoch, batch_idx, self.global_rank]
        torch.manual_seed(int(np.random.SeedSequence(words).generate_state(1)[0]))

    def training_step(self, batch: Tensors, batch_idx: int) -> torch.Tensor:
        """Return the loss of this process's share of a batch.

        Raises:
            TrainingError: It is NaN or infinite.
        """
        images, class_ids, total_weight = batch
        loss = batch_loss(self.criterion, self.network(images), class_ids, total_weight, self.auxiliary_weight)
        if not torch.isfinite(loss):
            self._refuse("loss", f"epoch {self.trainer.current_epoch + 1}, batch {batch_idx + 1}", float(loss.detach()))
        # Weighted by images, for the epoch's mean. The sum over processes is the loss of the batch.
        self._train_loss.append(torch.stack([loss.detach() * total_weight, total_weight / self.trainer.world_size]))
        # Processes average their gradients, and each has its part of a sum: the average times their number is the sum.
        return loss * self.trainer.world_size

    def validation_step(self, batch: Tensors, batch_idx: int) -> None:  # noqa: ARG002
        """Gather the loss and the confusion matrix of this process's share of a batch."""
        images, class_ids, _ = batch
        logits = self.network(images)
        losses, weights = self.criterion(logits, class_ids).sum(), self.criterion.class_weights[class_ids].sum()
        self._val_loss.append(torch.stack([losses, weights]))
        num_classes = logits.shape[1]
        pairs = torch.bincount(class_ids * num_classes + logits.argmax(1), minlength=num_classes**2)
        self._confusion = pairs if self._confusion is None else self._confusion + pairs

    def on_train_epoch_end(self) -> None:
        """Set `scores`; Lightning has validated by now.

        Raises:
            TrainingError: The loss on val is NaN or infinite.
        """
        train_loss, val_loss = self._mean(self._train_loss), self._mean(self._val_loss)
        if not math.isfinite(val_loss):
            self._refuse("loss on val", f"epoch {self.trainer.current_epoch + 1}", val_loss)
        assert self._confusion is not None
        confusion = self._sum(self._confusion).cpu().numpy()
        side = math.isqrt(len(confusion))
        top1, macro_f1 = top1_and_macro_f1(confusion.reshape(side, side))
        self._train_loss, self._val_loss, self._confusion = [], [], None
        self.scores = {
            "train_loss": train_loss,
            "val_loss": val_loss,
            "learning_rate": self.schedule.learning_rate * self.schedule.factor(self.global_step - 1),
            "val_top1": top1,
            "val_macro_f1": macro_f1,
        }

    def configure_optimizers(self) -> Any:
        """Return the optimizer, and the schedule that changes its learning rate at every step."""
        schedule = self.schedule
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": schedule.weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        options = {"momentum": MOMENTUM, "nesterov": True} if schedule.optimizer == "SGD" else {}
        optimizer = getattr(torch.optim, schedule.optimizer)(groups, lr=schedule.learning_rate, **options)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule.factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the sum over all processes."""
        return self.trainer.strategy.reduce(tensor, reduce_op="sum")

    def _mean(self, sums: list[torch.Tensor]) -> float:
        loss, weight = self._sum(torch.stack(sums).double().sum(0)).tolist()
        return loss / weight if weight else math.nan

    def _refuse(self, what: str, where: str, value: float) -> None:
        raise TrainingError(
            f"{where}: the {what} is {value}, expected a number; lower train.classify.learning_rate"
            f" ({self.schedule.learning_rate:g}), or raise warmup_epochs, in params.yaml"
        )


def top1_and_macro_f1(confusion: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Return the share of right answers, and the mean F1 of the classes that have images, as the evaluator has them.

    Args:
        confusion: Shape (C, C): images of each class (row) that were called each class (column).

    >>> top1_and_macro_f1(np.array([[1, 1, 0], [0, 2, 1], [0, 0, 0]]))
    (0.6, 0.6666666666666666)
    """
    right, images = np.diag(confusion), confusion.sum(axis=1)
    there = images > 0
    f1 = 2 * right[there] / (images + confusion.sum(axis=0))[there]
    return float(right.sum() / confusion.sum()), float(f1.mean())
