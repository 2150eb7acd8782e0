"""Train a YOLO detector from scratch or from given weights, and go on with a run that was interrupted."""

from __future__ import annotations

import pickle
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from plumbline.errors import TrainingError
from plumbline.yolo import quiet_ultralytics

# Column of ultralytics' results.csv -> ours. Its scores are by its own evaluator, which reads lower than COCO's:
# good for choosing an epoch, never to be set beside the line's own metrics.
EPOCH_COLUMNS = {
    "epoch": "epoch",
    "train/box_loss": "train_box_loss",
    "train/cls_loss": "train_cls_loss",
    "train/dfl_loss": "train_dfl_loss",
    "val/box_loss": "val_box_loss",
    "val/cls_loss": "val_cls_loss",
    "val/dfl_loss": "val_dfl_loss",
    "metrics/precision(B)": "val_precision_ultralytics",
    "metrics/recall(B)": "val_recall_ultralytics",
    "metrics/mAP50(B)": "val_map50_ultralytics",
    "metrics/mAP50-95(B)": "val_map50_95_ultralytics",
    "lr/pg0": "learning_rate",
}

SECONDS_BETWEEN_LINES = 30.0


@dataclass(frozen=True)
class TrainSettings:
    """What changes the trained weights.

    Attributes:
        model: An architecture that ultralytics knows, without suffix: ``yolo11n``, ``yolo26n``, ``yolo11s``...
        pretrained: ``none``, a path to a .pt file, or a name that ultralytics would download (``yolo11n.pt``).
        epochs: Passes over the train split.
        patience: Stop after so many epochs without a better val score.
        image_size: Side of the square network input, pixels; a multiple of 32.
        batch: Images per step.
        optimizer: As ultralytics names it.
        learning_rate: Initial.
        flip_horizontal: Probability; 0 where left and right matter, as in text.
        mosaic: Probability of pasting four images into one.
        close_mosaic: The last so many epochs see no mosaic.
        precision: ``fp32``, or ``bf16`` on a GPU.
        seed: Of every random state.
        device: ``auto`` (a GPU if there is one), ``cpu``, or a CUDA index.
    """

    model: str
    pretrained: str
    epochs: int
    patience: int
    image_size: int
    batch: int
    optimizer: str
    learning_rate: float
    flip_horizontal: float
    mosaic: float
    close_mosaic: int
    precision: str
    seed: int
    device: str


@dataclass(frozen=True)
class TrainResult:
    """What came out of training.

    Attributes:
        weights: The best epoch's checkpoint, fp16, without optimizer state.
        epochs: One row per epoch, the columns of `EPOCH_COLUMNS`.
        resumed_from_epoch: 0 for a run in one go.
    """

    weights: Path
    epochs: pd.DataFrame
    resumed_from_epoch: int


def resolve_device(device: str) -> str:
    """Turn ``auto`` into ``0`` where CUDA works and ``cpu`` elsewhere; leave other names alone."""
    import torch

    if device == "auto":
        return "0" if torch.cuda.is_available() else "cpu"
    return device


def train_detector(
    data_yaml: Path, settings: TrainSettings, work_dir: Path, say: Callable[[str], None] = print
) -> TrainResult:
    """Train, or go on with the run that was interrupted in the same `work_dir`.

    Args:
        data_yaml: Of a training view (see `plumbline.yolo.view`).
        settings: See `TrainSettings`.
        work_dir: Kept when interrupted; the caller removes it when all is safe.
        say: Gets one line per epoch.

    Raises:
        TrainingError: The model or weights cannot be had, or training itself fails.
    """
    quiet_ultralytics()
    from ultralytics.models.yolo.detect import DetectionTrainer

    run_dir = work_dir / "run"
    last = run_dir / "weights" / "last.pt"
    done = epochs_done(last)
    if done:
        say(f"train: going on after epoch {done} of {settings.epochs}, from {last}")
        overrides: dict[str, Any] = {"resume": str(last), "device": resolve_device(settings.device)}
    else:
        shutil.rmtree(run_dir, ignore_errors=True)
        overrides = _overrides(data_yaml, settings, run_dir)
    if done < settings.epochs:
        try:
            trainer = DetectionTrainer(overrides=overrides)
            # Before the first batch: ultralytics drops images and boxes with a warning only.
            trainer.add_callback("on_pretrain_routine_end", lambda state: _refuse_lost_boxes(state, data_yaml))
            trainer.add_callback("on_fit_epoch_end", lambda state: refuse_another_batch(state, settings.batch))
            _report_epochs(trainer, settings.epochs, say)
            trainer.train()
        except (RuntimeError, OSError, ValueError) as error:
            raise TrainingError(f"training {settings.model} failed: {error}; see the lines above") from error
    weights = work_dir / "best.pt"
    save_plain_checkpoint(run_dir / "weights" / "best.pt", weights, settings)
    return TrainResult(weights, read_epochs(run_dir / "results.csv"), done)


def epochs_done(last: Path) -> int:
    """Return how many epochs an interrupted run had finished, 0 where there is none or it cannot be read."""
    import torch

    if not last.is_file():
        return 0
    try:
        checkpoint = torch.load(last, map_location="cpu", weights_only=False)
        epoch, epochs = int(checkpoint["epoch"]), int(checkpoint["train_args"]["epochs"])
    except (RuntimeError, EOFError, OSError, KeyError, TypeError, pickle.UnpicklingError):
        # Killed while it wrote the checkpoint: start again rather than fail.
        return 0
    # A finished run's checkpoint says -1 and holds no optimizer.
    return epochs if epoch < 0 else epoch + 1


def read_epochs(results_csv: Path) -> pd.DataFrame:
    """Read ultralytics' results.csv into our column names."""
    frame = pd.read_csv(results_csv, skipinitialspace=True)
    known = {old: new for old, new in EPOCH_COLUMNS.items() if old in frame}
    return frame[list(known)].rename(columns=known)


def save_plain_checkpoint(source: Path, target: Path, settings: TrainSettings) -> None:
    """Write the model alone: without date, paths, git state and optimizer, so that equal weights are equal bytes."""
    import torch

    checkpoint = torch.load(source, map_location="cpu", weights_only=False)
    model = checkpoint.get("ema") or checkpoint["model"]
    model.args = {"task": "detect", "imgsz": settings.image_size}
    for attribute in ("criterion", "pt_path", "yaml_file"):
        if hasattr(model, attribute):
            setattr(model, attribute, None)
    if isinstance(getattr(model, "yaml", None), dict):
        model.yaml["yaml_file"] = settings.model
    plain = {
        "model": model.half().eval(),
        "train_args": {"task": "detect", "imgsz": settings.image_size, **asdict(settings)},
        "epoch": -1,
        "version": checkpoint["version"],
        "license": checkpoint["license"],
        "docs": checkpoint["docs"],
    }
    torch.save(plain, target)


def _overrides(data_yaml: Path, settings: TrainSettings, run_dir: Path) -> dict[str, Any]:
    device = resolve_device(settings.device)
    if settings.precision == "bf16" and device == "cpu":
        raise TrainingError("train.precision is bf16 and there is no GPU, expected fp32; change it in params.yaml")
    return {
        "task": "detect",
        "model": f"{settings.model}.yaml",
        "pretrained": False if settings.pretrained == "none" else settings.pretrained,
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


def _report_epochs(trainer: Any, epochs: int, say: Callable[[str], None]) -> None:
    started = time.monotonic()
    spoken = [started]
    first: list[int] = []
    batch = [0, -1]

    def on_train_batch_end(state: Any) -> None:
        # An epoch of a large data set takes hours: say something before its end.
        batch[0] = 0 if batch[1] != state.epoch else batch[0] + 1
        batch[1] = state.epoch
        if time.monotonic() - spoken[0] >= SECONDS_BETWEEN_LINES:
            spoken[0] = time.monotonic()
            say(f"train: epoch {state.epoch + 1}/{epochs}, batch {batch[0] + 1} of {len(state.train_loader)}")

    def on_fit_epoch_end(state: Any) -> None:
        if state.epoch + 1 > epochs or state.optimizer is None or state.epoch in first:
            return  # the check of the best epoch after the last one reports here too
        first.append(state.epoch)
        spoken[0] = time.monotonic()
        per_epoch = (time.monotonic() - started) / len(first)
        losses = " ".join(f"{key.removesuffix('_loss')} {float(value):.3f}" for key, value in state.tloss.items())
        say(
            f"train: epoch {state.epoch + 1}/{epochs}  loss {losses}"
            f"  val mAP50 {state.metrics.get('metrics/mAP50(B)', float('nan')):.3f}"
            f" mAP50-95 {state.metrics.get('metrics/mAP50-95(B)', float('nan')):.3f} (ultralytics)"
            f"  {per_epoch:.0f} s/epoch, {per_epoch * (epochs - state.epoch - 1):.0f} s left"
        )

    trainer.add_callback("on_train_batch_end", on_train_batch_end)
    trainer.add_callback("on_fit_epoch_end", on_fit_epoch_end)


def refuse_another_batch(trainer: Any, batch: int) -> None:
    """Refuse a batch that ultralytics has halved because the GPU's memory was full: the lineage would not be true.

    Raises:
        TrainingError: The trainer's batch is not the one that was asked for.
    """
    if trainer.batch_size != batch:
        raise TrainingError(
            f"the GPU's memory is too small for train.batch {batch}, expected at most {trainer.batch_size}; "
            "change it in params.yaml"
        )


def _refuse_lost_boxes(trainer: Any, data_yaml: Path) -> None:
    """Compare what ultralytics will train on with what it was given."""
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
