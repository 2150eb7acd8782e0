"""Put everything that was measured on one page: a table, a picture, and images with what was predicted.

Reads what train, export, evaluate and benchmark wrote, and writes report.md, report.json, report.png, samples.jpg,
worst.jpg and curves.png. Nothing in them is a time: the same inputs give the same bytes.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import cv2
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from plumbline.drawing import Image, captioned
from plumbline.errors import EvaluationError
from plumbline.files import replacing, write_json, write_text
from plumbline.manifest import Dataset, read_dataset
from plumbline.params import DifficultParams, StageParams, load_section, read_params
from plumbline.recommendation import Budget, recommend
from plumbline.report import page
from plumbline.report_content import TRIAL_NUMBERS, TRIAL_TEXTS, Content, Sampling, Training
from plumbline.report_json import report_values
from plumbline.report_markdown import enumerated
from plumbline.report_picture import picture
from plumbline.report_rows import (
    WEIGHTS,
    Result,
    Row,
    build_rows,
    check_same_origin,
    choose_shown,
    evenly_spaced,
    scored_split,
)
from plumbline.resampling import num_drawn
from plumbline.runtime.artifact import read_artifact
from plumbline.runtime.device_files import device_bytes
from plumbline.scores import BootstrapSettings, Intervals
from plumbline.split_images import read_splits
from plumbline.tasks import task_module
from stages.shape import exit_code, path_arguments

COPIED = ("worst.jpg", "curves.png")  # of the artifact that is shown in detail


class ReportParams(StageParams):
    """Section ``report`` of params.yaml."""

    num_samples: int = Field(ge=1, description="Scored images that are drawn; all of them if there are fewer.")
    bootstrap_samples: int = Field(ge=10, description="Of the scored images, for the intervals.")
    confidence_level: float = Field(gt=0.5, lt=1, description="Of the intervals: 0.95 for a 95 % interval.")
    resample: Literal["image", "group"] = Field(description="What is drawn as one; group for frames of videos.")
    seed: int = Field(ge=0, description="Of the bootstrap samples.")


class ScoredParams(DifficultParams):
    """What the report needs of the section ``evaluate``."""

    split: Literal["train", "val", "test"] = Field(description="The images that were scored.")


class BudgetParams(BaseModel):
    """What the report needs of the section ``quantize``: the budget that int8 artifacts were searched for."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    max_map50_95_drop: float = Field(description="Points on val that a detector may lose.")
    max_top1_drop: float = Field(description="Points of top-1 on val that a classifier may lose.")
    max_drop_upper: float = Field(description="Points: of the upper end of the loss's interval.")

    def budget(self, headline: str) -> Budget:
        """Return the budget of a task by the key of its headline metric."""
        return Budget(getattr(self, f"max_{headline}_drop"), self.max_drop_upper)


SECTIONS: dict[str, type[BaseModel]] = {"report": ReportParams, "evaluate": ScoredParams, "quantize": BudgetParams}


@dataclass(frozen=True)
class Inputs:
    """The folders and files that the stage reads.

    Attributes:
        export: One folder per target, with trials.csv where it was searched for.
        evaluate: One folder per artifact, and ``weights``, as the evaluate stage writes them.
        benchmark: ``<target>.json`` and ``<target>.machine.json`` per target.
        artifacts: One artifact folder per target.
        weights: The artifact folder of the trained weights.
        train: Folder with metrics.json, training.png and labels.png of the training.
        dataset: Folder that the paths of images are relative to.
        labels: The validated dataset.
        splits: Table of image_id and split.
    """

    export: Path
    evaluate: Path
    benchmark: Path
    artifacts: Path
    weights: Path
    train: Path
    dataset: Path
    labels: Path
    splits: Path

    def artifact(self, name: str) -> Path:
        """Return the folder of an artifact, or of the trained weights."""
        return self.weights if name == WEIGHTS else self.artifacts / name


def run(
    task: str,
    params: ReportParams,
    *,
    scored: ScoredParams,
    quantize: BudgetParams,
    targets: Sequence[str],
    inputs: Inputs,
    out: Path,
) -> list[Row]:
    """Write the report.

    Args:
        task: A row of `plumbline.tasks.TASKS`.
        params: Section ``report``.
        scored: Section ``evaluate``.
        quantize: Section ``quantize``.
        targets: Their names, in the order of the table. What another run left behind of others is not read.
        inputs: See `Inputs`.
        out: Folder to write into; other files in it stay.

    Returns:
        The rows of the table.

    Raises:
        EvaluationError: A number, a file or an artifact is missing, or what is there does not belong together.
        BackendError: An artifact.json cannot be read.
        DatasetError: A table or an image cannot be read.
    """
    scoring, reporting = task_module(task, "scoring"), task_module(task, "reporting")
    data, results = read_dataset(inputs.labels, root=inputs.dataset), read_results(targets, inputs)
    check_same_origin(results, task, data.class_names)
    columns = scoring.PREDICTIONS_SCHEMA.names
    predictions = {name: _read_parquet(inputs.evaluate / name / "predictions.parquet", columns) for name in results}
    split_of = read_splits(inputs.splits).set_index("image_id")["split"]
    split = scored_split(split_of, predictions[WEIGHTS], results[WEIGHTS].metrics, scored.split)
    is_scored = data.images["image_id"].isin(split_of.index[split_of == split])
    images = data.images[is_scored].sort_values("image_id", ignore_index=True)
    settings = BootstrapSettings(params.bootstrap_samples, params.confidence_level, params.seed, scored.difficult)
    truth = scoring.truth_of(data, images)
    drawn_from = images if params.resample == "group" else images.assign(group="")
    intervals: Intervals = scoring.bootstrap(truth, drawn_from, data.class_names, predictions, WEIGHTS, settings)
    sizes = {name: device_bytes(result.artifact, inputs.artifact(name)) for name, result in results.items()}
    rows = build_rows(results, sizes, intervals, reporting.WORDS)
    headline = reporting.WORDS.headline
    budget = quantize.budget(headline.key)
    shown = choose_shown(rows)
    threshold = results[shown].artifact.decode.confidence_threshold
    content = Content(
        words=reporting.WORDS,
        rows=rows,
        class_names=data.class_names,
        class_counts=read_class_counts(inputs.evaluate / WEIGHTS / "classes.csv", data.class_names),
        splits=_count_splits(split_of, data),
        scored_split=split,
        num_images=len(data.images),
        num_objects=len(data.annotations),
        results=results,
        shown=shown,
        slices=read_slices(inputs.evaluate, shown, headline.metric),
        sampling=Sampling(params.bootstrap_samples, params.confidence_level, num_drawn(drawn_from)),
        training=read_training(inputs.train, out),
        samples_note=reporting.samples_note(shown, threshold),
        budget=budget,
        choices=recommend(rows, budget, headline.title),
        trials=read_trials(results, inputs.export),
    )
    chosen = evenly_spaced(images["image_id"].tolist(), params.num_samples)
    drawn = reporting.draw_samples(data, chosen, predictions[shown], threshold)
    values = report_values(task, content, chosen, params.seed)
    _write(out, content, inputs.evaluate, captioned(drawn, content.samples_note), values)
    return rows


def _write(out: Path, content: Content, evaluate: Path, samples: Image, values: Mapping[str, Any]) -> None:
    curves = {name: read_pr_curve(evaluate / name / "pr_curve.csv") for name in content.results}
    files = {
        "report.png": picture(
            content.rows,
            curves,
            content.words,
            level=content.sampling.level,
            max_drop=content.budget.max_drop,
            caption=_caption(content),
        ),
        "samples.jpg": _jpeg(samples),
        **{name: _read_bytes(evaluate / content.shown / name) for name in COPIED},
    }
    text = page(content)
    # Everything is made before the first file is written.
    for name, file_bytes in files.items():
        with replacing(out / name) as temporary:
            temporary.write_bytes(file_bytes)
    write_json(out / "report.json", values)
    write_text(out / "report.md", text)


def read_results(targets: Sequence[str], inputs: Inputs) -> dict[str, Result]:
    """Read what is known of the trained weights and of every target, in that order.

    Raises:
        EvaluationError: One is not scored or not measured.
    """
    results = {}
    for name in (WEIGHTS, *targets):
        timed = name != WEIGHTS
        metrics = _read_json(inputs.evaluate / name / "metrics.json")
        undefined = _read_csv(inputs.evaluate / name / "undefined.csv", ["metric", "why"])
        results[name] = Result(
            artifact=read_artifact(inputs.artifact(name)),
            metrics=metrics,
            undefined=dict(zip(undefined["metric"], undefined["why"], strict=True)),
            benchmark=_read_json(inputs.benchmark / f"{name}.json") if timed else None,
            machine=_read_json(inputs.benchmark / f"{name}.machine.json") if timed else {},
        )
    return results


def read_pr_curve(path: Path) -> pd.DataFrame:
    """Read the curve over all classes: the first in the file (its name differs where a class is called ``all``).

    Raises:
        EvaluationError: The file is missing or has no such columns.
    """
    frame = _read_csv(path, ["recall", "precision", "class"])
    curve = frame[frame["class"] == frame["class"].iloc[0]] if len(frame) else frame
    return _numbers(path, curve, ["recall", "precision"]).reset_index(drop=True)


def read_class_counts(path: Path, class_names: Sequence[str]) -> list[int]:
    """Read how many objects of each class were scored, in the order of class_names.

    Raises:
        EvaluationError: The file is missing, or has other classes.
    """
    frame = _read_csv(path, ["class", "num_objects"])
    if frame["class"].tolist() != list(class_names):
        raise EvaluationError(
            f"{path}: expected the classes {', '.join(class_names)}, got {', '.join(frame['class'])}; run dvc repro"
        )
    return [int(count) for count in _numbers(path, frame, ["num_objects"])["num_objects"]]


def read_slices(evaluate: Path, shown: str, metric: str) -> dict[str, pd.DataFrame]:
    """Read the slices of the trained weights and of the artifact shown, row for row the same ones.

    Raises:
        EvaluationError: A file is missing, has no such columns, or has other slices than the other.
    """
    numbers = ["num_images", "num_objects", metric]
    found = {}
    for name in dict.fromkeys((WEIGHTS, shown)):
        path = evaluate / name / "slices.csv"
        frame = _read_csv(path, ["column", "slice", *numbers])
        found[name] = frame[["column", "slice"]].join(_numbers(path, frame, numbers))
        if not found[name].drop(columns=metric).equals(found[WEIGHTS].drop(columns=metric)):
            raise EvaluationError(f"{path}: expected the slices of the trained weights, got others; run dvc repro")
    return found


def read_trials(results: Mapping[str, Result], export: Path) -> dict[str, pd.DataFrame]:
    """Read what the search for each quantized artifact tried; a float one has no search.

    Raises:
        EvaluationError: A file is missing, or has no such columns.
    """
    trials = {}
    for name, result in results.items():
        if "quantization" in result.artifact.notes:
            path = export / name / "trials.csv"
            frame = _read_csv(path, [*TRIAL_TEXTS, *TRIAL_NUMBERS])
            trials[name] = frame[list(TRIAL_TEXTS)].join(_numbers(path, frame, TRIAL_NUMBERS))
    return trials


def read_training(train: Path, out: Path) -> Training:
    """Read how the training went; its pictures are linked to from the page in `out`.

    Raises:
        EvaluationError: A file is missing.
    """
    for name in ("training.png", "labels.png"):
        _read_bytes(train / name)
    return Training(_read_json(train / "metrics.json"), Path(os.path.relpath(train, out)).as_posix())


def _count_splits(split_of: pd.Series, data: Dataset) -> dict[str, tuple[int, int]]:
    label_splits = data.annotations["image_id"].map(split_of)
    names = [name for name in ("train", "val", "test") if (split_of == name).any()]
    return {name: (int((split_of == name).sum()), int((label_splits == name).sum())) for name in names}


def _caption(content: Content) -> str:
    rows = [row for row in content.rows if row.latency_valid is not None]
    timed = [content.results[row.name] for row in rows]
    threads = sorted({row.threads for row in rows if row.threads is not None})
    cpus = sorted({str(result.machine.get("cpu_model") or "an unnamed machine") for result in timed})
    text = f"Scored on {content.splits[content.scored_split][0]:,} {content.scored_split} images"
    if timed:
        plural = "" if threads == [1] else "s"
        text += f"; latency with {enumerated([str(n) for n in threads])} thread{plural} on {enumerated(cpus)}"
    return text


def _jpeg(image: Image) -> bytes:
    data: bytes = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes()
    return data


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise EvaluationError(
            f"{path}: cannot be read ({error.strerror}), expected what dvc.yaml's stages write; run dvc repro"
        ) from error


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise EvaluationError(f"{path}: no such file, expected what dvc.yaml's stages write; run dvc repro") from error
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{path}: expected a JSON file, got {error}; run dvc repro") from error
    if not isinstance(values, dict):
        raise EvaluationError(f"{path}: expected a JSON mapping, got {type(values).__name__}; run dvc repro")
    return values


def _read_csv(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read columns as text: a class may be called NA, or 1."""
    try:
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        return frame[list(columns)]
    except FileNotFoundError as error:
        raise EvaluationError(f"{path}: no such file, expected what dvc.yaml's stages write; run dvc repro") from error
    except (OSError, ValueError, KeyError) as error:
        raise EvaluationError(
            f"{path}: expected a table of {enumerated(columns)}, got {error}; run dvc repro"
        ) from error


def _numbers(path: Path, frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Return columns as numbers, NaN where a cell is empty."""
    try:
        return frame[list(columns)].replace("", "nan").astype(float)
    except ValueError as error:
        raise EvaluationError(
            f"{path}: expected numbers for {enumerated(columns)}, got {error}; run dvc repro"
        ) from error


def _read_parquet(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    try:
        return pd.read_parquet(path, columns=list(columns))
    except (OSError, ValueError) as error:
        raise EvaluationError(
            f"{path}: expected a table of {', '.join(columns)}, got {error}; run dvc repro"
        ) from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    names = [field.name for field in fields(Inputs)]
    arguments = path_arguments(__doc__, [*names, "out"], argv, words=("task",))

    def work() -> None:
        params = load_section(arguments.params, "report", ReportParams)
        scored = load_section(arguments.params, "evaluate", ScoredParams)
        quantize = load_section(arguments.params, "quantize", BudgetParams)
        targets = list(read_params(arguments.params)["targets"])
        inputs = Inputs(**{name: getattr(arguments, name) for name in names})
        out = arguments.out
        rows = run(arguments.task, params, scored=scored, quantize=quantize, targets=targets, inputs=inputs, out=out)
        print(f"{len(rows)} rows -> {out / 'report.md'}", flush=True)  # noqa: T201

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
