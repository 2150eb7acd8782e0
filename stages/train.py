"""Train on the train split, and choose the epoch on val; the test split is never shown to it."""

from __future__ import annotations

import functools
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from plumbline.architecture_names import is_classifier, nearest
from plumbline.files import replacing, sha256_of, write_json, write_text
from plumbline.label_picture import label_picture
from plumbline.lineage import dataset_sha256, git_commit, hash_of_hashes, toolchain
from plumbline.manifest import read_dataset
from plumbline.params import StageParams, load_section
from plumbline.split_images import read_splits
from plumbline.tasks import task_module
from plumbline.trained import WEIGHTS, Trained
from plumbline.training_curves import best_epoch, curve_files, training_picture
from plumbline.training_settings import TASK_SETTINGS, TrainParams
from plumbline.yolo import is_detector, nearest_detector
from stages.shape import exit_code, path_arguments

# Outside of DVC's outputs, which DVC removes before a run: an interrupted training is found here again.
WORK = Path(".cache/train")

say = functools.partial(print, flush=True)


class TrainSection(TrainParams):
    """Section ``train``, with what only the installed packages and the disk can tell."""

    def missing_files(self) -> dict[str, str]:
        """Return what is wrong with the models and their pretrained weights, for the check before a run."""
        faults = {}
        if not is_detector(self.detect.model):
            like = nearest_detector(self.detect.model)
            faults["detect.model"] = (
                f"no detector {self.detect.model!r}, expected one of ultralytics'; did you mean {like}?"
            )
        if not is_classifier(self.classify.model):
            near = nearest(self.classify.model)
            hint = f"did you mean {' or '.join(near)}?" if near else "see the README's list"
            faults["classify.model"] = (
                f"no classifier {self.classify.model!r}, expected lenet or one of torchvision, timm or ultralytics;"
                f" {hint}"
            )
        given = self.detect.pretrained
        if given != "none" and not Path(given).is_file() and ("/" in given or not given.endswith(".pt")):
            faults["detect.pretrained"] = (
                f"no file {given!r}, expected a path to a .pt file, a name.pt to download, or none"
            )
        given = self.classify.pretrained
        if given not in ("none", "default") and not Path(given).is_file():
            faults["classify.pretrained"] = f"no file {given!r}, expected a path to weights, default or none"
        return faults


def run(
    task: str,
    params: StageParams,
    *,
    dataset: Path,
    labels: Path,
    splits: Path,
    out: Path,
    results: Path,
    tensorboard: Path,
) -> Trained:
    """Train, and write the weights with what they were made from.

    Args:
        task: A row of `plumbline.tasks.TASKS`.
        params: Section ``train.<task>``.
        dataset: Folder with the images.
        labels: Folder with the validated tables.
        splits: Table of image_id and split.
        out: Folder for best.pt and train.json.
        results: Folder for metrics.json, epochs.csv, training.png, labels.png and curves/.
        tensorboard: Folder for event files; they hold times, so they are no output of DVC.

    Raises:
        TrainingError: The labels do not fit the task, a split is empty, or training fails.
    """
    data, split_of = read_dataset(labels, root=dataset), read_splits(splits)
    work = WORK / _run_key(task, params, labels, splits)
    training = task_module(task, "training")
    # First: who waits for the training can look at what it learns from.
    _write_bytes(results / "labels.png", label_picture(data.annotations, data.images, split_of, data.class_names))
    trained: Trained = training.train(data, split_of, params, work=work, tensorboard=tensorboard, say=say)
    pretrained = getattr(params, "pretrained", "none")
    record = {
        "task": task,
        "class_names": list(data.class_names),
        "toolchain": toolchain(training.PACKAGES),
        "lineage": {
            "train_git_commit": git_commit(Path()),
            "dataset_sha256": dataset_sha256(labels),
            "splits_sha256": sha256_of(splits),
            "weights_sha256": sha256_of(trained.weights),
            "pretrained_sha256": _sha256_or_none(pretrained),
            "train": params.model_dump(),
            "resumed_from_epoch": trained.resumed_from_epoch,
        },
    }
    with replacing(out) as temporary:
        temporary.mkdir()
        shutil.copyfile(trained.weights, temporary / WEIGHTS)
        write_json(temporary / "train.json", record)
    _write_results(trained, f"{getattr(params, 'model', task)}, {len(trained.epochs)} epochs", results)
    shutil.rmtree(work)
    return trained


def _write_results(trained: Trained, title: str, results: Path) -> None:
    best = trained.epochs[trained.epochs["epoch"] == best_epoch(trained.epochs, trained.score)].iloc[0]
    metrics = {
        "num_epochs": len(trained.epochs),
        "best_epoch": int(best["epoch"]),
        "num_parameters": trained.num_parameters,
        "gflops": trained.gflops,
        trained.score: float(best[trained.score]),
    }
    with replacing(results / "curves") as temporary:
        temporary.mkdir()
        for stem, rows in curve_files(trained.epochs).items():
            rows.to_csv(temporary / f"{stem}.csv", index=False)
    write_text(results / "epochs.csv", trained.epochs.to_csv(index=False))
    _write_bytes(results / "training.png", training_picture(trained.epochs, title, trained.score))
    write_json(results / "metrics.json", metrics)


def _write_bytes(path: Path, data: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def _run_key(task: str, params: StageParams, labels: Path, splits: Path) -> str:
    """Return a name that is the same only for a run that would give the same weights."""
    library = Path(__file__).parent.parent / "plumbline"
    # Python's own caches beside them come and go.
    code = sorted([*(library / "yolo").glob("*.py"), *(library / task / "training").glob("*.py")])
    code.append(library / "runtime" / "preprocess.py")
    parts = [
        task,
        # Another version of torch or ultralytics need not understand the state, nor go on as the one before.
        json.dumps(toolchain(task_module(task, "training").PACKAGES), sort_keys=True),
        params.model_dump_json(),
        dataset_sha256(labels),
        sha256_of(splits),
        *map(sha256_of, code),
        _sha256_or_none(getattr(params, "pretrained", "none")) or "",
    ]
    return hash_of_hashes(parts)[:16]


def _sha256_or_none(path: str) -> str | None:
    return sha256_of(Path(path)) if Path(path).is_file() else None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage."""
    names = ("dataset", "labels", "splits", "out", "results", "tensorboard")
    args = path_arguments(__doc__, names, argv, words=("task",))
    paths = {name: getattr(args, name) for name in names}

    def work() -> None:
        run(args.task, load_section(args.params, f"train.{args.task}", TASK_SETTINGS[args.task]), **paths)

    return exit_code(work)


SECTIONS: dict[str, type[StageParams]] = {"train": TrainSection}

if __name__ == "__main__":
    sys.exit(main())
