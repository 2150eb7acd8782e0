"""TensorBoard event files, one step per epoch, written from the table of epochs.

Event files only ever grow, and a run that is killed may have written an epoch more or less than it has kept. So a run
that goes on writes them anew from the epochs that it has: `restart` with these, then `add` one row after each epoch.
Each epoch stands in them once, whatever happened. Shared by all tasks::

    events = EpochEvents(folder)
    events.restart(epochs)       # once: those of an interrupted run, or an empty table
    events.add(row)              # after each epoch; readable at once
    events.close()
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd


class EpochEvents:
    """The event files of one run.

    Tags follow the columns: ``train_box_loss`` is ``train/box_loss``, ``val_top1`` is ``val/top1``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writer: Any = None

    def restart(self, epochs: pd.DataFrame) -> None:
        """Remove what an earlier run left, and write these epochs."""
        self.close()
        for path in self.folder.glob("events.out.tfevents.*"):
            path.unlink()
        for row in epochs.to_dict("records"):
            self.add(row)

    def add(self, row: Mapping[Any, Any]) -> None:
        """Write one more epoch; values that are no numbers are left out."""
        from torch.utils.tensorboard.writer import SummaryWriter

        if self._writer is None:
            self._writer = SummaryWriter(str(self.folder))
        for column, value in row.items():
            if column != "epoch" and np.isfinite(value):
                self._writer.add_scalar(tag_of(str(column)), float(value), int(row["epoch"]))
        self._writer.flush()

    def close(self) -> None:
        """End the file; the next row begins another."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def tag_of(column: str) -> str:
    """Return TensorBoard's name of a column; what stands before the slash is a group of charts.

    >>> tag_of("train_box_loss"), tag_of("learning_rate")
    ('train/box_loss', 'learning_rate')
    """
    group, _, name = column.partition("_")
    return f"{group}/{name}" if group in ("train", "val") else column
