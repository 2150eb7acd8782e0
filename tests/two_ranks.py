"""One of two ranks of a detector's training, on the CPU with gloo: what a machine with two GPUs does, without them.

    torchrun --nproc_per_node 2 tests/two_ranks.py FOLDER WHEN

WHEN is ``never``, ``killed`` (in the middle of the second epoch) or ``nan`` (its loss).
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
from small_detector_run import settings_with
from torch import distributed, nn

from plumbline.yolo import training
from plumbline.yolo.trainer import RUN, StatefulTrainer

FOLDER, WHEN = Path(sys.argv[1]), sys.argv[2]
# 64 pixels: ranks with one image each, at the end of an epoch, need more than one cell.
SETTINGS = settings_with(epochs=3, close_mosaic=1, image_size=64)


class CpuRank(StatefulTrainer):
    """The trainer, told that it has two devices; on a CPU, ultralytics itself would not distribute."""

    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        self.world_size, self.args.workers = 2, 2

    def _setup_ddp(self):
        distributed.init_process_group("gloo", rank=int(os.environ["RANK"]), world_size=2)

    def preprocess_batch(self, batch):
        batch = super().preprocess_batch(batch)
        if WHEN == "nan" and self.epoch == 1:
            batch["img"] = batch["img"] * float("nan")
        return batch

    def optimizer_step(self):
        super().optimizer_step()
        if WHEN == "killed" and (self.epoch, self._batch) == (1, 2):
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    distributed_network = nn.parallel.DistributedDataParallel
    nn.parallel.DistributedDataParallel = lambda network, device_ids, **more: distributed_network(network, **more)
    data_yaml = FOLDER / "view" / "data.yaml"
    trainer = CpuRank(overrides=training._overrides(data_yaml, SETTINGS, FOLDER / RUN))
    training.Progress(SETTINGS.epochs, 0, data_yaml, FOLDER / "events", training.print_now).attach(trainer)
    trainer.train()
    assert trainer.train_loader.num_workers == 2
    assert trainer.train_loader.batch_size == SETTINGS.batch // 2
    assert torch.distributed.get_world_size() == 2
