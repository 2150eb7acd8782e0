"""What a run keeps on disk, so that one that was killed goes on where it stopped, and its best weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pandas as pd
from lightning.pytorch.callbacks import Checkpoint

from plumbline.classify.training.weights_file import ClassifierWeights, write_weights
from plumbline.event_files import EpochEvents
from plumbline.torch_files import DamagedFileError, check_torch_file, read_torch_file

LAST = "last.ckpt"
COLUMNS = ("epoch", "train_loss", "val_loss", "learning_rate", "val_top1", "val_macro_f1")
SCORE = "val_top1"
SECONDS_BETWEEN_LINES = 30.0

Row = dict[str, float]


def best_of(rows: list[Row]) -> Row:
    """Return the epoch with the best score; of equals that with the lowest loss on val, then the first."""
    return max(rows, key=lambda row: (row[SCORE], -row["val_loss"]))


def is_over(rows: list[Row], epochs: int, patience: int) -> bool:
    """Tell whether a run has done all epochs, or `patience` of them without a better one.

    >>> scores = [0.5, 0.7, 0.6, 0.7]
    >>> rows = [{"epoch": n, "val_top1": top1, "val_loss": 1.0} for n, top1 in enumerate(scores, 1)]
    >>> is_over(rows, epochs=9, patience=2), is_over(rows, epochs=9, patience=3)
    (True, False)
    """
    if not rows:
        return False
    return len(rows) >= epochs or rows[-1]["epoch"] - best_of(rows)["epoch"] >= patience


def best_path(work: Path, rows: list[Row]) -> Path:
    """Return where the weights of the best epoch are."""
    return work / f"best-{int(best_of(rows)['epoch']):05d}.pt"


def kept_rows(work: Path, say: Callable[[str], None]) -> list[Row]:
    """Return the epochs that an interrupted run in `work` had finished; none where there is nothing to go on from."""
    last = work / LAST
    if not last.is_file():
        return []
    try:
        checkpoint = read_torch_file(last, weights_only=True)
        rows: list[Row] = checkpoint["callbacks"][Keeper.STATE_KEY]["rows"]
        check_torch_file(best_path(work, rows))
    except (FileNotFoundError, DamagedFileError, ValueError, KeyError, TypeError) as error:
        say(f"train: {last} cannot be gone on from ({error}); starting again from the first epoch")
        return []
    return rows


@dataclass(frozen=True)
class Kept:
    """What a `Keeper` needs to know.

    Attributes:
        work: Folder of the run.
        tensorboard: Folder for event files.
        weights: How the best weights are written; its state_dict is empty.
        epochs: To be done at most.
        patience: See `is_over`.
        rows: Of the epochs that an interrupted run had finished.
    """

    work: Path
    tensorboard: Path
    weights: ClassifierWeights
    epochs: int
    patience: int
    rows: list[Row]


class Keeper(Checkpoint):
    """After each epoch: a line for the person, a row of the table, the best weights, and a checkpoint to go on from."""

    STATE_KEY = "plumbline"

    def __init__(self, kept: Kept, say: Callable[[str], None]) -> None:
        self._kept, self._say = kept, say
        self.rows = list(kept.rows)
        self._events = EpochEvents(kept.tensorboard)
        self._started = self._spoken = 0.0

    @property
    def state_key(self) -> str:
        """Name of `state_dict` in the checkpoint."""
        return self.STATE_KEY

    def state_dict(self) -> dict[str, Any]:
        """Return what goes into the checkpoint."""
        return {"rows": self.rows}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Begin the event files anew, with what was done before; killed runs leave them behind or ahead of it."""
        if trainer.is_global_zero:
            self._events.restart(pd.DataFrame(self.rows, columns=list(COLUMNS)))
        self._started = self._spoken = time.monotonic()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,  # noqa: ARG002
        outputs: Any,  # noqa: ARG002
        batch: Any,  # noqa: ARG002
        batch_idx: int,
    ) -> None:
        """Say something before the end of an epoch that takes long."""
        if trainer.is_global_zero and time.monotonic() - self._spoken >= SECONDS_BETWEEN_LINES:
            self._spoken = time.monotonic()
            of = trainer.num_training_batches
            self._say(f"train: epoch {len(self.rows) + 1}/{self._kept.epochs}, batch {batch_idx + 1} of {of}")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write everything in an order that leaves a run killed at any moment able to go on.

        The best weights stand under their epoch's name before the checkpoint that counts them, and older ones go after
        it.
        """
        row = {"epoch": float(len(self.rows) + 1)} | pl_module.scores
        assert trainer.current_epoch + 1 == row["epoch"]
        self.rows.append({name: row[name] for name in COLUMNS})
        work, best = self._kept.work, best_path(self._kept.work, self.rows)
        if best_of(self.rows) is self.rows[-1] and trainer.is_global_zero:
            write_weights(best, replace(self._kept.weights, state_dict=pl_module.network.state_dict()))
        part = work / f"{LAST}.part"
        trainer.save_checkpoint(part)
        if trainer.is_global_zero:
            part.replace(work / LAST)
            for path in work.glob("best-*.pt"):
                if path != best:
                    path.unlink()
            self._events.add(self.rows[-1])
            self._say(self._line())
        trainer.should_stop = is_over(self.rows, self._kept.epochs, self._kept.patience)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Close the event files: their writer holds a thread, which cannot go back to the process that spawned this."""
        self._events.close()

    def _line(self) -> str:
        row, kept = self.rows[-1], self._kept
        self._spoken = time.monotonic()
        seconds = (self._spoken - self._started) / (len(self.rows) - len(kept.rows))
        left = 0.0 if is_over(self.rows, kept.epochs, kept.patience) else seconds * (kept.epochs - len(self.rows))
        return (
            f"train: epoch {len(self.rows)}/{kept.epochs}  loss {row['train_loss']:.3f}  val loss {row['val_loss']:.3f}"
            f" top-1 {row['val_top1']:.3f} macro F1 {row['val_macro_f1']:.3f}"
            f"  {seconds:.1f} s/epoch, {left:.0f} s left"
        )
