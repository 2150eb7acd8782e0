"""Train a YOLO detector from scratch or from given weights, and go on with a run that was interrupted."""

from __future__ import annotations

import functools
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from plumbline.errors import TrainingError
from plumbline.event_files import EpochEvents
from plumbline.files import replacing
from plumbline.trained import WEIGHTS
from plumbline.yolo import first_line, is_detector, nearest_detector, quiet_ultralytics

if TYPE_CHECKING:
    from plumbline.training_settings import DetectTraining

# Score among ultralytics' results -> our column. Its scores are by its own evaluator, which reads lower than COCO's:
# good for choosing an epoch, never to be set beside the line's own metrics.
# Losses keep their names, which differ from head to head (box, cls, dfl; YOLO26 has no dfl): train/box_loss is
# train_box_loss.
SCORE_COLUMNS = {
    "metrics/precision(B)": "val_precision_ultralytics",
    "metrics/recall(B)": "val_recall_ultralytics",
    "metrics/mAP50(B)": "val_map50_ultralytics",
    "metrics/mAP50-95(B)": "val_map50_95_ultralytics",
}
SCORE = "val_map50_95_ultralytics"

SECONDS_BETWEEN_LINES = 30.0

print_now = functools.partial(print, flush=True)


@dataclass(frozen=True)
class TrainedDetector:
    """What came out of training.

    Attributes:
        weights: The best epoch's checkpoint, fp16, without optimizer state.
        epochs: See `epochs_table`.
        resumed_from_epoch: 0 for a run in one go.
    """

    weights: Path
    epochs: pd.DataFrame
    resumed_from_epoch: int


def train_detector(
    data_yaml: Path,
    settings: DetectTraining,
    work: Path,
    *,
    tensorboard: Path | None = None,
    say: Callable[[str], None] = print_now,
) -> TrainedDetector:
    """Train, or go on with the run that was interrupted in the same `work`.

    On the CPU the result does not depend on whether, where and how often it was interrupted: see
    `plumbline.yolo.resume`. On several GPUs each is a process of its own (ultralytics starts them), and
    `settings.batch` is the batch of all together.

    Args:
        data_yaml: Of a training view (see `plumbline.yolo.view`).
        settings: Section ``train.detect``.
        work: Kept when interrupted; the caller removes it when all is safe.
        tensorboard: Folder for event files, or None for none.
        say: Gets one line per epoch, and others.

    Raises:
        TrainingError: The model or weights cannot be had, or training itself fails.
    """
    _refuse_unknown_model(settings.model)
    quiet_ultralytics()
    from plumbline.yolo.resume import STATE, read_state

    state = read_state(work / STATE)
    done = len(state["rows"]) if state else 0
    rows = state["rows"] if state else []
    if state is None and (work / STATE).is_file():
        say(f"train: {work / STATE} is damaged; starting again from the first epoch")
    if done:
        say(f"train: going on after epoch {done} of {settings.epochs}, from {work / STATE}")
    if tensorboard is not None:
        events = EpochEvents(tensorboard)
        events.restart(epochs_table(rows))
        events.close()  # ranks of several GPUs are other processes: whoever trains opens its own
    if state is None or not state["finished"]:
        _run_trainer(data_yaml, settings, work, Progress(settings.epochs, done, data_yaml, tensorboard, say))
        state = read_state(work / STATE)
        assert state is not None
    if len(state["rows"]) < settings.epochs:
        say(
            f"train: stopped after epoch {len(state['rows'])} of {settings.epochs}, {settings.patience} epochs without"
            " a better score (train.detect.patience)"
        )
    with replacing(work / WEIGHTS) as temporary:
        temporary.write_bytes(state["best"])
    return TrainedDetector(work / WEIGHTS, epochs_table(state["rows"]), done)


def epochs_table(rows: list[dict[str, float]]) -> pd.DataFrame:
    """Return ultralytics' results in our columns, one row per epoch.

    >>> rows = [{"epoch": 1, "train/box_loss": 2.5, "metrics/mAP50(B)": 0.5, "val/box_loss": 2.0, "lr/pg0": 0.1}]
    >>> list(epochs_table(rows))
    ['epoch', 'train_box_loss', 'val_box_loss', 'learning_rate', 'val_map50_ultralytics']
    """
    keys = list(rows[0]) if rows else []
    losses = {
        key: f"{split}_{key.removeprefix(f'{split}/')}"
        for split in ("train", "val")
        for key in keys
        if key.startswith(f"{split}/")
    }
    names = {"epoch": "epoch", **losses, "lr/pg0": "learning_rate", **SCORE_COLUMNS}
    return pd.DataFrame([{new: row[old] for old, new in names.items() if old in row} for row in rows])


def _run_trainer(data_yaml: Path, settings: DetectTraining, work: Path, progress: Progress) -> None:
    from plumbline.yolo.trainer import FAILURE, RUN, StatefulTrainer

    overrides = _overrides(data_yaml, settings, work / RUN)
    failure = work / FAILURE
    failure.unlink(missing_ok=True)
    try:
        trainer = StatefulTrainer(overrides=overrides)
        progress.attach(trainer)
        trainer.train()
        progress.close()
    except subprocess.CalledProcessError as error:  # ranks of several GPUs
        told = failure.read_text(encoding="utf-8") if failure.is_file() else str(error)
        raise TrainingError(f"training {settings.model} failed: {told}; see the lines above") from error
    except (RuntimeError, OSError, ValueError) as error:
        raise TrainingError(f"training {settings.model} failed: {error}; see the lines above") from error


def resolve_device(device: str | int) -> str:
    """Turn ``auto`` into all GPUs where CUDA works (``0,1``) and ``cpu`` elsewhere; return others as text."""
    import torch

    if device == "auto":
        return ",".join(map(str, range(torch.cuda.device_count()))) if torch.cuda.is_available() else "cpu"
    return str(device)


def _overrides(data_yaml: Path, settings: DetectTraining, run_dir: Path) -> dict[str, Any]:
    device = resolve_device(settings.device)
    if settings.precision == "bf16" and device == "cpu":
        raise TrainingError(
            "train.detect.precision is bf16 and there is no GPU, expected fp32; change it in params.yaml"
        )
    num_devices = len(device.split(","))
    if settings.batch % num_devices:
        raise TrainingError(
            f"train.detect.batch is {settings.batch}, expected a multiple of the {num_devices} GPUs that share it;"
            " change it in params.yaml, or set train.detect.device to one of them"
        )
    return {
        "task": "detect",
        "model": f"{settings.model}.yaml",
        "pretrained": _pretrained(settings.pretrained),
        "data": str(data_yaml),
        "epochs": settings.epochs,
        "patience": settings.patience,
        "imgsz": settings.image_size,
        "batch": settings.batch,
        # ultralytics gathers gradients up to a nominal batch of 64 before it steps: with 450 images that left 7 steps
        # an epoch and half of the accuracy. Here `batch` is what one optimizer step sees.
        "nbs": settings.batch,
        "optimizer": settings.optimizer,
        "lr0": settings.learning_rate,
        "fliplr": settings.flip_horizontal,
        "mosaic": settings.mosaic,
        "close_mosaic": settings.close_mosaic,
        "amp": "bf16" if settings.precision == "bf16" else False,
        "seed": settings.seed,
        "deterministic": True,
        "device": device,
        # Worker processes reorder nothing but take memory; on a CPU ultralytics sets 0 by itself.
        "workers": 4 if device != "cpu" else 0,
        "cache": False,
        "plots": False,
        "verbose": False,
        "project": str(run_dir.parent.resolve()),
        "name": run_dir.name,
        "exist_ok": True,
    }


def _refuse_unknown_model(model: str) -> None:
    if not is_detector(model):
        raise TrainingError(
            f"train.detect.model: no detector {model!r}, expected one that ultralytics knows, with its size; did you"
            f" mean {nearest_detector(model)}?"
        )


def _pretrained(given: str) -> str | bool:
    """Return what ultralytics calls `pretrained`; a file is looked into first."""
    if given == "none":
        return False
    if not Path(given).is_file():
        if "/" in given or not given.endswith(".pt"):
            raise TrainingError(
                f"{given}: no such file, expected a path to a .pt file, a name.pt to download, or none; change"
                " train.detect.pretrained in params.yaml"
            )
        return given
    from ultralytics.nn.tasks import load_checkpoint

    try:
        load_checkpoint(given)
    # What can go wrong in a pickle of unknown origin is no short list: AttributeError and ModuleNotFoundError too.
    except Exception as error:
        raise TrainingError(
            f"{given}: not weights that ultralytics can read ({first_line(error)}), expected a checkpoint of a YOLO"
            " network; change train.detect.pretrained in params.yaml"
        ) from error
    return given


@dataclass
class Progress:
    """What is told and checked during a training.

    No functions inside of functions: with several GPUs, each rank gets a copy of this through pickle.

    Attributes:
        epochs: Of the whole training.
        done: Epochs that an interrupted run had finished.
        data_yaml: Of the training view.
        tensorboard: Folder for event files, or None.
        say: Gets the lines.
    """

    epochs: int
    done: int
    data_yaml: Path
    tensorboard: Path | None
    say: Callable[[str], None]
    _started: float = 0.0
    _spoken: float = 0.0
    _batch: int = 0
    _events: EpochEvents | None = None

    def attach(self, trainer: Any) -> None:
        """Have the trainer call the methods below."""
        for event in ("on_pretrain_routine_end", "on_train_epoch_start", "on_train_batch_end", "on_fit_epoch_end"):
            trainer.add_callback(event, getattr(self, event))

    def on_pretrain_routine_end(self, trainer: Any) -> None:
        """Check what is there before the first batch, and tell what pretrained weights gave."""
        self._started = self._spoken = time.monotonic()
        if not _first_rank():
            return
        # ultralytics drops images and boxes with a warning only.
        refuse_lost_boxes(trainer, self.data_yaml)
        if trainer.taken_over is not None and not self.done:
            self.say(taken_over_line(trainer.args.pretrained, trainer.taken_over, trainer.data["names"]))

    def on_train_epoch_start(self, _trainer: Any) -> None:
        """Count batches from the start again."""
        self._batch = 0

    def on_train_batch_end(self, trainer: Any) -> None:
        """Say something before the end of an epoch: that of a large data set takes hours."""
        self._batch += 1
        if _first_rank() and time.monotonic() - self._spoken >= SECONDS_BETWEEN_LINES:
            self._spoken = time.monotonic()
            self.say(
                f"train: epoch {trainer.epoch + 1}/{self.epochs}, batch {self._batch} of {len(trainer.train_loader)}"
            )

    def on_fit_epoch_end(self, trainer: Any) -> None:
        """Tell an epoch's results; its state is on the disk by now."""
        if not _first_rank():
            return
        row = epochs_table(trainer.rows[-1:]).iloc[0]
        if self.tensorboard is not None:
            self._events = self._events or EpochEvents(self.tensorboard)
            self._events.add(row)
        self._spoken = time.monotonic()
        per_epoch = (self._spoken - self._started) / (trainer.epoch + 1 - self.done)
        losses = " ".join(
            f"{name.removeprefix('train_').removesuffix('_loss')} {value:.3f}"
            for name, value in row.items()
            if name.startswith("train_")
        )
        self.say(
            f"train: epoch {trainer.epoch + 1}/{self.epochs}  loss {losses}"
            f"  val mAP50 {row['val_map50_ultralytics']:.3f} mAP50-95 {row[SCORE]:.3f} (ultralytics)"
            f"  {per_epoch:.0f} s/epoch, {per_epoch * (self.epochs - trainer.epoch - 1):.0f} s left"
        )

    def close(self) -> None:
        """Close the event file."""
        if self._events is not None:
            self._events.close()


def taken_over_line(weights: str, taken_over: tuple[int, int, int | None], names: dict[int, str]) -> str:
    """Say how much of pretrained weights fits the network that is trained.

    >>> taken_over_line("w.pt", (493, 499, 80), {0: "cat"})
    'train: 493 of 499 tensors taken from w.pt; its head of 80 classes is not used, a head of 1 class starts afresh'
    """
    taken, total, num_classes = taken_over
    line = f"train: {taken} of {total} tensors taken from {weights}"
    if num_classes is not None and num_classes != len(names):
        classes = "1 class" if len(names) == 1 else f"{len(names)} classes"
        line += f"; its head of {num_classes} classes is not used, a head of {classes} starts afresh"
    return line


def refuse_lost_boxes(trainer: Any, data_yaml: Path) -> None:
    """Compare what ultralytics will train on with what it was given.

    Raises:
        TrainingError: It has left out images or boxes.
    """
    for split, loader in (("train", trainer.train_loader), ("val", trainer.test_loader)):
        labels = data_yaml.parent / "labels" / split
        texts = [path.read_text(encoding="utf-8") for path in sorted(labels.glob("*.txt"))]
        given = (len(texts), sum(text.count("\n") for text in texts))
        used = (len(loader.dataset.labels), sum(len(label["cls"]) for label in loader.dataset.labels))
        if used != given:
            raise TrainingError(
                f"{labels}: ultralytics used {used[0]} images and {used[1]} boxes of {split},"
                f" expected {given[0]} and {given[1]}; the validate stage let something through that it rejects"
            )


def _first_rank() -> bool:
    from ultralytics.utils import RANK

    return RANK in (-1, 0)
