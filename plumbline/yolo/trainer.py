"""ultralytics' trainer of detectors, with an exact state, no silent repair, and nothing done twice.

Its subclass stands in a module of its own, because each rank of a training on several GPUs imports it by its name.
"""

# ruff: noqa: E402

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from plumbline.errors import PlumblineError, TrainingError
from plumbline.files import write_text
from plumbline.yolo import quiet_ultralytics

quiet_ultralytics()
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import DEFAULT_CFG, RANK

from plumbline.yolo.resume import (
    STATE,
    checkpoint_bytes,
    read_state,
    reseed,
    restore_state,
    save_state,
    set_random_states,
)

FAILURE = "failure.txt"
BEST_BY = "metrics/mAP50-95(B)"  # ultralytics' fitness of a detector, and `plumbline.yolo.training.SCORE`
RUN = "run"  # ultralytics' own folder, below that of the state; it removes it when it starts ranks


def refuse_broken_weights(model: Any, epoch: int, learning_rate: float) -> None:
    """Refuse weights that are no numbers: a finite loss can have a gradient that is none, in the last step of all.

    Raises:
        TrainingError: It names the first such tensor.
    """
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise TrainingError(
                f"epoch {epoch}: the weights {name} hold NaN or infinite values, expected finite numbers; lower"
                f" train.detect.learning_rate, now {learning_rate:g}"
            )


class EpochLoader(DataLoader[Any]):
    """A loader that ends with the epoch: ultralytics' own loads images of the next one ahead."""

    def reset(self) -> None:
        """Do nothing: nothing is kept from epoch to epoch."""

    def close(self) -> None:
        """Do nothing: worker processes have ended with the epoch."""


class StatefulTrainer(DetectionTrainer):
    """A trainer that keeps its whole state in the folder above its own, and goes on with what it finds there.

    Attributes:
        rows: Results of every epoch so far, as ultralytics names them, with ``epoch`` from 1.
        taken_over: Tensors taken from pretrained weights, of how many, and how many classes those had; None without.
    """

    def __init__(
        self, cfg: Any = DEFAULT_CFG, overrides: dict[str, Any] | None = None, _callbacks: dict[str, Any] | None = None
    ) -> None:
        super().__init__(cfg, overrides, _callbacks)
        self.rows: list[dict[str, float]] = []
        self.taken_over: tuple[int, int, int | None] | None = None
        self._random: dict[str, Any] | None = None
        self._best = b""
        self._batch = 0

    @property
    def state_path(self) -> Path:
        """Where the state is kept."""
        return Path(self.save_dir).parent / STATE

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
        """Make the network, and note how much of pretrained weights fitted."""
        model = super().get_model(cfg, weights, verbose)
        if weights is not None:
            ours, theirs = model.state_dict(), weights.state_dict()
            fitting = sum(name in theirs and theirs[name].shape == tensor.shape for name, tensor in ours.items())
            if not fitting:
                raise TrainingError(
                    f"{self.args.pretrained}: none of its tensors fits {self.args.model}, expected weights of the same"
                    " architecture; change train.detect.pretrained in params.yaml"
                )
            names = getattr(weights, "names", None)
            self.taken_over = (fitting, len(ours), len(names) if names else None)
        return model

    def get_dataloader(self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train") -> Any:
        """Make a loader; for training, one whose state between two epochs can be told."""
        loader = super().get_dataloader(dataset_path, batch_size, rank, mode)
        if mode != "train":
            return loader
        # ultralytics' loader draws once before its first epoch: so here, and both give the images in the same order.
        torch.empty((), dtype=torch.int64).random_(generator=loader.generator)
        return EpochLoader(
            loader.dataset,
            batch_size=loader.batch_size,
            sampler=loader.sampler,
            num_workers=loader.num_workers,
            prefetch_factor=loader.prefetch_factor,
            pin_memory=loader.pin_memory,
            collate_fn=loader.collate_fn,
            worker_init_fn=loader.worker_init_fn,
            generator=torch.Generator(),
            drop_last=loader.drop_last,
        )

    def _do_train(self) -> None:
        """Train; a rank leaves its error in a file for the process that started it."""
        try:
            super()._do_train()
        except PlumblineError as error:
            if RANK != -1:
                write_text(self.state_path.with_name(FAILURE), str(error))
            raise

    def resume_training(self, ckpt: Any) -> None:  # noqa: ARG002 - its caller gives it
        """Go on with the state that is there; ultralytics' own checkpoints are neither written nor read."""
        state = read_state(self.state_path)
        if state is None:
            return
        restore_state(self, state)
        self.rows, self._best, self._random = state["rows"], state["best"], state["random"]

    def _model_train(self) -> None:
        """Prepare an epoch; the last that is called before its first image is drawn."""
        self.refuse_another_batch()
        super()._model_train()
        self._batch = 0
        if self.train_loader.num_workers:
            reseed(self.train_loader, self.args.seed, self.epoch, max(RANK, 0))
            self._fill_buffer()
        if self._random is not None:
            set_random_states(self._random)
            self._random = None

    def _fill_buffer(self) -> None:
        """Give mosaic images to draw from: worker processes start each epoch with what this process holds."""
        dataset = self.train_loader.dataset
        if self.args.mosaic and not dataset.buffer:
            rng = random.Random(self.args.seed)  # noqa: S311 - no secret
            count = min(len(dataset), max(dataset.max_buffer_length - 1, 0))
            for index in rng.sample(range(len(dataset)), count):
                dataset.load_image(index)

    def refuse_another_batch(self) -> None:
        """Refuse a batch that ultralytics has halved for want of memory: the lineage would not be true."""
        if self._oom_retries:
            raise TrainingError(
                f"the GPU's memory is too small for train.detect.batch {self.batch_size * 2**self._oom_retries},"
                f" expected at most {self.batch_size}; change it in params.yaml"
            )

    def optimizer_step(self) -> None:
        """Step, unless the loss is no number: ultralytics would, and later go back to an earlier epoch."""
        self._batch += 1
        if not torch.isfinite(self.loss):
            raise TrainingError(
                f"epoch {self.epoch + 1}, batch {self._batch} of {len(self.train_loader)}: the loss is"
                f" {float(self.loss)}, expected a finite number; lower train.detect.learning_rate, now"
                f" {self.args.lr0:g}"
            )
        super().optimizer_step()

    def save_metrics(self, metrics: dict[str, Any]) -> None:
        """Keep an epoch's results, to six digits."""
        self.rows.append({"epoch": self.epoch + 1, **{key: float(f"{float(v):.6g}") for key, v in metrics.items()}})

    def save_model(self) -> bool:
        """Write the state; called once an epoch by the first rank alone."""
        scores = [row[BEST_BY] for row in self.rows]
        # As the table of epochs tells them, and of equal ones the latest: ultralytics' patience counts so, too.
        if scores[-1] >= max(scores):
            refuse_broken_weights(self.ema.ema, self.epoch + 1, self.args.lr0)
            self._best = checkpoint_bytes(self.ema.ema, self.args.imgsz, Path(str(self.args.model)).stem)
        save_state(self, self.state_path, self.rows, self._best)
        return True

    def final_eval(self) -> None:
        """Do nothing: the stage evaluate scores the best epoch, with COCO's own measure."""

    def _handle_nan_recovery(self, epoch: int) -> bool:
        """Refuse a score that is no number; ultralytics would go back to an earlier epoch without a word."""
        if self.fitness is not None and not np.isfinite(self.fitness):
            raise TrainingError(
                f"epoch {epoch + 1}: the score on val is {self.fitness}, expected a finite number; lower"
                f" train.detect.learning_rate, now {self.args.lr0:g}"
            )
        return False
