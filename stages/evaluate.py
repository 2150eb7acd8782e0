"""Score one artifact, or the trained weights, on one split.

Every image of the split goes through the artifact's own session, and what comes out through the one COCO
evaluator. Nothing that is written holds a time, so the same artifact and data give the same files.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from pydantic import Field

from plumbline.coco_evaluation import XYXY, Evaluation, evaluate_detections
from plumbline.curves import confusion_rows, precision_recall_rows
from plumbline.errors import EvaluationError
from plumbline.files import replacing, write_json, write_text
from plumbline.manifest import Dataset, read_dataset, write_table
from plumbline.params import StageParams, load_section
from plumbline.runtime.preprocess import read_image
from plumbline.runtime.session import Session, load_artifact
from plumbline.split_images import images_of_split
from stages.shape import exit_code, path_arguments

# One thread adds up in one order: the same numbers on machines with other core counts, and with other work beside.
THREADS = 1
PROGRESS_S = 5.0

PREDICTIONS_SCHEMA = pa.schema(
    [
        ("image_id", pa.int64()),
        ("class_id", pa.int64()),  # index into the artifact's class_names
        ("confidence", pa.float32()),
        ("x1", pa.float32()),  # pixels of the image, 0-based, half-open
        ("y1", pa.float32()),
        ("x2", pa.float32()),
        ("y2", pa.float32()),
    ]
)


class EvaluateParams(StageParams):
    """Section ``evaluate`` of params.yaml."""

    split: Literal["train", "val", "test"] = Field(description="The images to score.")
    confidence_floor: float = Field(ge=0, lt=1, description="Detections below are not kept, for mAP neither.")


SECTIONS: dict[str, type[StageParams]] = {"evaluate": EvaluateParams}


def run(params: EvaluateParams, *, artifact: Path, dataset: Path, labels: Path, splits: Path, out: Path) -> Evaluation:
    """Score an artifact and write metrics.json, predictions.parquet, pr_curve.csv and confusion.csv.

    Args:
        params: Section ``evaluate``.
        artifact: Folder with `artifact.json`.
        dataset: Folder that the paths of images are relative to.
        labels: The validated dataset.
        splits: Table of image_id and split.
        out: Folder to write into; other files in it stay.

    Raises:
        EvaluationError: The split is empty, the classes differ, or the floor is above the artifact's
            threshold.
        DatasetError: An image cannot be read.
        BackendError: The artifact cannot be opened.
    """
    data = read_dataset(labels, root=dataset)
    images = images_of_split(data.images, splits, params.split)
    session = load_artifact(artifact, threads=THREADS)
    threshold = session.artifact.decode.confidence_threshold
    _check_fit(params, artifact, session, data)
    predictions = predict_images(session, images, data, params.confidence_floor)
    image_ids = images["image_id"].tolist()
    scored = data.annotations, predictions, image_ids, data.class_names
    evaluation = evaluate_detections(*scored, confidence_threshold=threshold)
    confusion = confusion_rows(*scored, confidence_threshold=threshold)
    with replacing(out / "predictions.parquet") as temporary:
        write_table(predictions, PREDICTIONS_SCHEMA, temporary)
    write_text(out / "pr_curve.csv", _csv(precision_recall_rows(evaluation)))
    write_text(out / "confusion.csv", _csv(confusion))
    write_json(out / "metrics.json", evaluation.metrics)
    return evaluation


def _check_fit(params: EvaluateParams, artifact: Path, session: Session, data: Dataset) -> None:
    if session.artifact.class_names != data.class_names:
        raise EvaluationError(
            f"{artifact}: expected the classes of the dataset, {', '.join(data.class_names)}, got"
            f" {', '.join(session.artifact.class_names)}; train and export again"
        )
    threshold = session.artifact.decode.confidence_threshold
    if params.confidence_floor > threshold:
        raise EvaluationError(
            f"evaluate.confidence_floor is {params.confidence_floor}, expected at most the artifact's own threshold"
            f" {threshold} (detect.confidence_threshold); lower it in params.yaml"
        )


def predict_images(session: Session, images: pd.DataFrame, data: Dataset, confidence_floor: float) -> pd.DataFrame:
    """Run every image through the session, telling now and then how far it is.

    Returns:
        Columns of `PREDICTIONS_SCHEMA`, in the order of image_id, the most confident first within an image.
    """
    frames = []
    told = time.monotonic()
    for number, row in enumerate(images.itertuples(index=False), start=1):
        found = session.predict(read_image(data.image_path(row.path)), confidence=confidence_floor)
        columns = {"image_id": np.full(len(found), row.image_id), "class_id": found.class_id}
        columns |= {"confidence": found.confidence, **dict(zip(XYXY, found.xyxy.T, strict=True))}
        frames.append(pd.DataFrame(columns))
        if time.monotonic() - told > PROGRESS_S or number == len(images):
            print(f"{session.artifact.name}: {number} of {len(images)} images", flush=True)  # noqa: T201
            told = time.monotonic()
    return pd.concat(frames, ignore_index=True)


def _csv(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False, lineterminator="\n", float_format="%.6g")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    names = ("artifact", "dataset", "labels", "splits", "out")
    arguments = path_arguments(__doc__, names, argv)

    def work() -> None:
        params = load_section(arguments.params, "evaluate", EvaluateParams)
        evaluation = run(params, **{name: getattr(arguments, name) for name in names})
        map50_95 = evaluation.metrics.get("map50_95")
        told = "undefined: no labelled box in the split" if map50_95 is None else f"{map50_95:.4f}"
        print(f"map50_95 {told} -> {arguments.out}", flush=True)  # noqa: T201

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
