"""Train the detector on the train split, and choose the epoch on val; the test split is never copied to it."""

from __future__ import annotations

import dataclasses
import functools
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from plumbline.files import replacing, sha256_of, sha256_of_tree, write_json
from plumbline.lineage import dataset_sha256, git_commit, hash_of_hashes, toolchain
from plumbline.manifest import read_dataset
from plumbline.params import StageParams, load_section
from plumbline.split_images import read_splits
from plumbline.yolo import is_detector, known_detectors
from plumbline.yolo.training import TrainResult, TrainSettings, train_detector
from plumbline.yolo.view import write_training_view
from stages.shape import exit_code, path_arguments

# Outside of DVC's outputs, which DVC removes before a run: an interrupted training is found here again.
WORK = Path(".cache/train")

say = functools.partial(print, flush=True)


class TrainParams(StageParams):
    """Section `train`; see `plumbline.yolo.training.TrainSettings` for what each one does."""

    model: str = Field(pattern=r"^yolo[a-z0-9-]+$", description="detector architecture: yolo11n, yolo26n...")
    pretrained: str = Field(min_length=1, description="none, a path to a .pt file, or a name to download")
    epochs: int = Field(ge=1)
    patience: int = Field(ge=1, description="epochs without a better val score")
    image_size: int = Field(ge=32, multiple_of=32, description="pixels, square")
    batch: int = Field(ge=1, description="images per step")
    optimizer: Literal["SGD", "MuSGD", "Adam", "AdamW", "NAdam", "RAdam", "RMSProp"]
    learning_rate: float = Field(gt=0)
    flip_horizontal: float = Field(ge=0, le=1, description="probability")
    mosaic: float = Field(ge=0, le=1, description="probability")
    close_mosaic: int = Field(ge=0, description="last epochs without mosaic")
    precision: Literal["fp32", "bf16"]
    seed: int = Field(ge=0)
    device: Literal["auto", "cpu"] | Annotated[int, Field(ge=0)] = Field(description="auto, cpu, or a CUDA index")

    def missing_files(self) -> dict[str, str]:
        """Return what is wrong with `model` and `pretrained`, for the check before a run."""
        faults = {}
        if not is_detector(self.model):
            listed = ", ".join(sorted(known_detectors()))
            faults["model"] = f"no detector {self.model!r}, expected one of {listed} with its size, as in yolo11n"
        given = self.pretrained
        if given != "none" and not Path(given).is_file() and ("/" in given or not given.endswith(".pt")):
            faults["pretrained"] = f"no file {given!r}, expected a path to a .pt file, a name.pt to download, or none"
        return faults


def run(
    params: TrainParams, *, dataset: Path, labels: Path, splits: Path, out: Path, epochs: Path, metrics: Path
) -> TrainResult:
    """Train, and write the weights with what they were made from.

    Args:
        params: Section `train`.
        dataset: Folder with the images.
        labels: Folder with the validated tables.
        splits: Table of image_id and split.
        out: Folder for best.pt and train.json.
        epochs: CSV with one row per epoch.
        metrics: JSON of numbers.
    """
    data = read_dataset(labels, root=dataset)
    settings = TrainSettings(**params.model_dump() | {"device": str(params.device)})
    work = WORK / _run_key(params, labels, splits)
    view = work / "view"
    if not (view / "data.yaml").is_file():
        shutil.rmtree(view, ignore_errors=True)
        with replacing(view) as temporary:
            write_training_view(data, read_splits(splits), temporary, view)
    result = train_detector(view / "data.yaml", settings, work, say)
    lineage = {
        "train_git_commit": git_commit(Path()),
        "dataset_sha256": dataset_sha256(labels),
        "splits_sha256": sha256_of(splits),
        "weights_sha256": sha256_of(result.weights),
        "pretrained_sha256": _sha256_or_none(params.pretrained),
        "train": dataclasses.asdict(settings),
        "resumed_from_epoch": result.resumed_from_epoch,
    }
    record = {
        "class_names": list(data.class_names),
        "image_size": settings.image_size,
        "toolchain": toolchain(("torch", "torchvision", "ultralytics", "numpy", "opencv-python-headless")),
        "lineage": lineage,
    }
    with replacing(out) as temporary:
        temporary.mkdir()
        shutil.copyfile(result.weights, temporary / "best.pt")
        write_json(temporary / "train.json", record)
    with replacing(epochs) as temporary:
        result.epochs.to_csv(temporary, index=False)
    write_json(metrics, _metrics(result))
    shutil.rmtree(work)
    return result


def _run_key(params: TrainParams, labels: Path, splits: Path) -> str:
    """Return a name that is the same only for a run that would give the same weights."""
    parts = [
        params.model_dump_json(),
        dataset_sha256(labels),
        sha256_of(splits),
        sha256_of_tree(Path(__file__).parent.parent / "plumbline" / "yolo"),
        _sha256_or_none(params.pretrained) or "",
    ]
    return hash_of_hashes(parts)[:16]


def _sha256_or_none(path: str) -> str | None:
    return sha256_of(Path(path)) if Path(path).is_file() else None


def _metrics(result: TrainResult) -> dict[str, float | int]:
    best = result.epochs.loc[result.epochs["val_map50_95_ultralytics"].idxmax()]
    return {
        "num_epochs": len(result.epochs),
        "best_epoch": int(best["epoch"]),
        "val_map50_95_ultralytics": float(best["val_map50_95_ultralytics"]),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage."""
    names = ("dataset", "labels", "splits", "out", "epochs", "metrics")
    args = path_arguments(__doc__, names, argv)
    paths = {name: getattr(args, name) for name in names}
    return exit_code(lambda: run(load_section(args.params, "train", TrainParams), **paths))


SECTIONS = {"train": TrainParams}

if __name__ == "__main__":
    sys.exit(main())
