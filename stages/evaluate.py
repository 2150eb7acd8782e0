"""Score one artifact, or the trained weights, on one split.

Every image of the split goes through the artifact's own session, and what comes out through the one evaluator of the
task. Nothing that is written holds a time, so the same artifact and data give the same files.
"""

from __future__ import annotations

import difflib
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import Field, field_validator

from plumbline.contact_sheet import write_jpeg
from plumbline.errors import EvaluationError
from plumbline.files import replacing, write_json, write_text
from plumbline.manifest import IMAGES_SCHEMA, Dataset, read_dataset, write_table
from plumbline.params import StageParams, load_section
from plumbline.predicting import predict_images
from plumbline.runtime.session import Session, load_artifact
from plumbline.scores import TABLES, Scores, ScoringSettings
from plumbline.slices import BOX_SIZE
from plumbline.split_images import images_of_split
from plumbline.tasks import task_module
from stages.shape import exit_code, path_arguments

# One thread adds up in one order: the same numbers on machines with other core counts, and with other work beside.
THREADS = 1


class EvaluateParams(StageParams):
    """Section ``evaluate`` of params.yaml."""

    split: Literal["train", "val", "test"] = Field(description="The images to score.")
    confidence_floor: float = Field(ge=0, lt=1, description="Predictions below are not kept, for mAP neither.")
    difficult: Literal["count", "ignore"] = Field(description="Boxes that a label calls difficult.")
    slices: list[str] = Field(description="Columns of images.parquet, and box_size.")
    slice_bins: int = Field(ge=2, le=20, description="Parts of a column of numbers.")
    worst: int = Field(ge=1, le=100, description="Images on the sheet of the worst mistakes.")

    @field_validator("slices")
    @classmethod
    def _known(cls, columns: list[str]) -> list[str]:
        # Before a run: scoring itself would say it only after the training.
        known = [*IMAGES_SCHEMA.names, BOX_SIZE]
        for column in columns:
            if column not in known:
                near = difflib.get_close_matches(column, known, n=1, cutoff=0.0)[0]
                raise ValueError(f"columns out of {', '.join(known)} (did you mean {near} by {column!r}?)")
        return columns


SECTIONS: dict[str, type[StageParams]] = {"evaluate": EvaluateParams}


def run(
    task: str, params: EvaluateParams, *, artifact: Path, dataset: Path, labels: Path, splits: Path, out: Path
) -> Scores:
    """Score an artifact; write metrics.json, what is undefined, predictions, the tables of `Scores` and two pictures.

    Args:
        task: A row of `plumbline.tasks.TASKS`.
        params: Section ``evaluate``.
        artifact: Folder with `artifact.json`.
        dataset: Folder that the paths of images are relative to.
        labels: The validated dataset.
        splits: Table of image_id and split.
        out: Folder to write into; other files in it stay.

    Raises:
        EvaluationError: The split is empty, the task or classes differ, or the floor is above the artifact's threshold.
        DatasetError: An image cannot be read.
        BackendError: The artifact cannot be opened.
    """
    scoring = task_module(task, "scoring")
    data = read_dataset(labels, root=dataset)
    images = images_of_split(data.images, splits, params.split)
    truth = scoring.truth_of(data, images)
    session = load_artifact(artifact, threads=THREADS)
    _check_fit(task, params, artifact, session, data)
    say = functools.partial(print, flush=True)
    predictions = predict_images(
        session, images, data, scoring=scoring, confidence_floor=params.confidence_floor, tell=say
    )
    settings = ScoringSettings(
        confidence_threshold=session.artifact.decode.confidence_threshold,
        confidence_floor=params.confidence_floor,
        difficult=params.difficult,
        slices=tuple(params.slices),
        slice_bins=params.slice_bins,
        worst=params.worst,
    )
    scores = scoring.evaluate(truth, predictions, images, data.class_names, settings)
    title = f"{session.artifact.name}, {params.split}, {len(images):,} images"
    sheet = scoring.worst_sheet(data, images, truth, predictions, settings, title)
    curves = scoring.curves_picture(scores, title)
    # Everything is made before the first file is written.
    with replacing(out / "predictions.parquet") as temporary:
        write_table(predictions, scoring.PREDICTIONS_SCHEMA, temporary)
    for stem in TABLES:
        rows = scores.tables[stem]
        write_text(out / f"{stem}.csv", rows.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
    undefined = pd.DataFrame(sorted(scores.undefined.items()), columns=["metric", "why"])
    write_text(out / "undefined.csv", undefined.to_csv(index=False, lineterminator="\n"))
    with replacing(out / "curves.png") as temporary:
        temporary.write_bytes(curves)
    write_jpeg(out / "worst.jpg", sheet)
    write_json(out / "metrics.json", scores.metrics)
    return scores


def _check_fit(task: str, params: EvaluateParams, path: Path, session: Session, data: Dataset) -> None:
    artifact = session.artifact
    if artifact.task != task:
        raise EvaluationError(
            f"{path}: an artifact of the task {artifact.task}, expected {task}; run dvc repro, or change task in"
            " params.yaml"
        )
    if artifact.class_names != data.class_names:
        raise EvaluationError(
            f"{path}: expected the classes of the dataset, {', '.join(data.class_names)}, got"
            f" {', '.join(artifact.class_names)}; train and export again"
        )
    threshold = artifact.decode.confidence_threshold
    # A classifier has a probability for every class, so that nothing is below a floor.
    if task == "detect" and params.confidence_floor > threshold:
        raise EvaluationError(
            f"evaluate.confidence_floor is {params.confidence_floor}, expected at most the artifact's own threshold"
            f" {threshold:g}, which was chosen on val; lower it in params.yaml"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    names = ("artifact", "dataset", "labels", "splits", "out")
    arguments = path_arguments(__doc__, names, argv, words=("task",))

    def work() -> None:
        params = load_section(arguments.params, "evaluate", EvaluateParams)
        scores = run(arguments.task, params, **{name: getattr(arguments, name) for name in names})
        headline = task_module(arguments.task, "scoring").HEADLINE[0]
        value = scores.metrics.get(headline)
        told = f"undefined: {scores.undefined.get(headline, 'see undefined.csv')}" if value is None else f"{value:.4f}"
        print(f"{headline} {told} -> {arguments.out}", flush=True)  # noqa: T201

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
