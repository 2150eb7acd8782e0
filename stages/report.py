"""Put everything that was measured on one page: a table, a picture, and images with what was detected.

Reads what evaluate and benchmark wrote, and writes report.md, report.json, report.png and samples.jpg. Nothing in
them is a time: the same inputs give the same bytes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import pandas as pd
from pydantic import Field

from plumbline.drawing import (
    Image,
    captioned,
    class_color,
    draw_sample,
    printable_name,
    resize,
    scale_for_viewing,
    sheet,
)
from plumbline.errors import EvaluationError
from plumbline.files import replacing, write_json, write_text
from plumbline.manifest import Dataset, read_dataset
from plumbline.params import StageParams, load_section, read_params
from plumbline.report import (
    UNITS,
    WEIGHTS,
    Content,
    Result,
    Row,
    build_rows,
    choose_sampled,
    evenly_spaced,
    page,
)
from plumbline.report_picture import picture
from plumbline.runtime.artifact import read_artifact, size_bytes
from plumbline.runtime.preprocess import read_image
from plumbline.split_images import read_splits
from stages.shape import exit_code, path_arguments

XYXY = ["x1", "y1", "x2", "y2"]
PREDICTION_COLUMNS = ["image_id", "class_id", "confidence", *XYXY]
COLUMNS = 3  # of the sheet of samples: tiles of 480 to 640 px stay legible on a page


class ReportParams(StageParams):
    """Section ``report`` of params.yaml."""

    num_samples: int = Field(ge=1, description="Scored images that are drawn; all of them if there are fewer.")


SECTIONS: dict[str, type[StageParams]] = {"report": ReportParams}


def run(
    params: ReportParams,
    *,
    targets: Sequence[str],
    evaluate: Path,
    benchmark: Path,
    artifacts: Path,
    weights: Path,
    dataset: Path,
    labels: Path,
    splits: Path,
    out: Path,
) -> list[Row]:
    """Write the report.

    Args:
        params: Section ``report``.
        targets: Their names, in the order of the table. What another run left behind of others is not read.
        evaluate: One folder per artifact, and ``weights``, as the evaluate stage writes them.
        benchmark: ``<target>.json`` and ``<target>.machine.json`` per target.
        artifacts: One artifact folder per target.
        weights: The artifact folder of the trained weights.
        dataset: Folder that the paths of images are relative to.
        labels: The validated dataset.
        splits: Table of image_id and split.
        out: Folder to write into; other files in it stay.

    Returns:
        The rows of the table.

    Raises:
        EvaluationError: A number, a file or an artifact is missing, or what is there does not belong together.
        BackendError: An artifact.json cannot be read.
        DatasetError: A table or an image cannot be read.
    """
    results = read_results(targets, evaluate, benchmark, artifacts, weights)
    data = read_dataset(labels, root=dataset)
    _check_classes(results, data)
    split_of = read_splits(splits).set_index("image_id")["split"]
    sizes = {
        name: size_bytes(result.artifact, _artifact_folder(name, artifacts, weights))
        for name, result in results.items()
    }
    rows = build_rows(results, sizes)
    sampled = choose_sampled(rows)
    predictions = _read_parquet(evaluate / sampled / "predictions.parquet", PREDICTION_COLUMNS)
    scored = scored_split(split_of, predictions, results[sampled].metrics)
    threshold = results[sampled].artifact.decode.confidence_threshold
    note = f"Detections of {sampled} with confidence {threshold:g} or more: thick, named. Ground truth: thin, dashed."
    content = _content(rows, results, data, split_of=split_of, scored=scored, note=note)
    chosen = evenly_spaced(split_of.index[split_of == scored].tolist(), params.num_samples)
    shown = predictions[predictions["confidence"] >= threshold]
    samples = captioned(sheet([draw_image(i, data, shown) for i in chosen], COLUMNS), note)
    pr_curves = {name: read_pr_curve(evaluate / name / "pr_curve.csv") for name in results}
    drawn = picture(rows, pr_curves, _caption(content))
    text = page(content)
    # Everything is made before the first file is written.
    with replacing(out / "report.png") as temporary:
        temporary.write_bytes(drawn)
    with replacing(out / "samples.jpg") as temporary:
        temporary.write_bytes(cv2.imencode(".jpg", samples, [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes())
    write_json(out / "report.json", _as_json(content, chosen, sampled))
    write_text(out / "report.md", text)
    return rows


def read_results(
    targets: Sequence[str], evaluate: Path, benchmark: Path, artifacts: Path, weights: Path
) -> dict[str, Result]:
    """Read what is known of the trained weights and of every target, in that order.

    Raises:
        EvaluationError: One is not scored or not measured, or they were made or scored from different things.
    """
    results = {}
    for name in (WEIGHTS, *targets):
        timed = name != WEIGHTS
        results[name] = Result(
            artifact=read_artifact(_artifact_folder(name, artifacts, weights)),
            metrics=_read_json(evaluate / name / "metrics.json"),
            benchmark=_read_json(benchmark / f"{name}.json") if timed else None,
            machine=_read_json(benchmark / f"{name}.machine.json") if timed else {},
        )
    _check_same_origin(results)
    return results


def _check_same_origin(results: Mapping[str, Result]) -> None:
    """Refuse what is left over from another training: its difference to these weights would mean nothing."""
    reference = results[WEIGHTS]
    for name, result in results.items():
        own = {**result.artifact.lineage, **result.metrics}
        expected = {**reference.artifact.lineage, **reference.metrics}
        for key in ("weights_sha256", "dataset_sha256", "num_images", "num_boxes"):
            if own.get(key) != expected.get(key):
                raise EvaluationError(
                    f"{name}: expected the {key} of the trained weights, {expected.get(key)}, got {own.get(key)}; run"
                    " dvc repro"
                )


def _check_classes(results: Mapping[str, Result], data: Dataset) -> None:
    for name, result in results.items():
        if result.artifact.class_names != data.class_names:
            got, expected = ", ".join(result.artifact.class_names), ", ".join(data.class_names)
            raise EvaluationError(f"{name}: expected the classes of the dataset, {expected}, got {got}; run dvc repro")


def scored_split(split_of: pd.Series, predictions: pd.DataFrame, metrics: Mapping[str, Any]) -> str:
    """Return which split was scored: the one with as many images that holds every predicted image.

    Args:
        split_of: image_id -> split.
        predictions: Column image_id.
        metrics: Holds num_images.

    Raises:
        EvaluationError: There is none.
    """
    for split in ("test", "val", "train"):
        image_ids = split_of.index[split_of == split]
        if len(image_ids) == metrics.get("num_images") and predictions["image_id"].isin(image_ids).all():
            return split
    raise EvaluationError(
        f"expected the scores of one of the splits, got {metrics.get('num_images')} images that are none of them;"
        " run dvc repro"
    )


def read_pr_curve(path: Path) -> pd.DataFrame:
    """Read the curve over all classes: the first in the file (its name differs where a class is called ``all``).

    Raises:
        EvaluationError: The file is missing or has no such columns.
    """
    try:
        frame = pd.read_csv(path, dtype={"class": str}, keep_default_na=False)
        curve = frame[frame["class"] == frame["class"].iloc[0]] if len(frame) else frame
        return curve[["recall", "precision"]].astype(float).reset_index(drop=True)
    except (OSError, ValueError, KeyError) as error:
        raise EvaluationError(
            f"{path}: expected a table of recall, precision and class, got {error}; run dvc repro"
        ) from error


def draw_image(image_id: int, data: Dataset, predictions: pd.DataFrame) -> Image:
    """Draw one image with its boxes and detections, large enough to read the text."""
    name = data.images.set_index("image_id").at[image_id, "path"]
    image = read_image(data.image_path(name))
    scale = scale_for_viewing(*image.shape[:2])
    truth = data.annotations[data.annotations["image_id"] == image_id]
    # The surest label gets the best place.
    found = predictions[predictions["image_id"] == image_id].sort_values("confidence", ascending=False, kind="stable")
    labels = [
        f"{printable_name(data.class_names[c], c)} {confidence:.2f}"
        for c, confidence in zip(found["class_id"], found["confidence"], strict=True)
    ]
    colors = [class_color(c) for c in found["class_id"]]
    truth_xyxy, found_xyxy = truth[XYXY].to_numpy() * scale, found[XYXY].to_numpy() * scale
    drawn = draw_sample(resize(image, scale), truth_xyxy, found_xyxy, labels, colors)
    return captioned(drawn, printable_name(Path(name).name, image_id))


def _content(
    rows: list[Row], results: Mapping[str, Result], data: Dataset, *, split_of: pd.Series, scored: str, note: str
) -> Content:
    box_splits = data.annotations["image_id"].map(split_of)
    names = [name for name in ("train", "val", "test") if (split_of == name).any()]
    per_class = data.annotations.loc[box_splits == scored, "class_id"].value_counts()
    return Content(
        rows=rows,
        class_names=data.class_names,
        class_counts=[int(per_class.get(class_id, 0)) for class_id in range(len(data.class_names))],
        splits={name: (int((split_of == name).sum()), int((box_splits == name).sum())) for name in names},
        scored_split=scored,
        num_images=len(data.images),
        num_boxes=len(data.annotations),
        results=results,
        samples_note=note,
    )


def _caption(content: Content) -> str:
    timed = [result for result in content.results.values() if result.benchmark]
    threads = sorted({row.threads for row in content.rows if row.threads is not None})
    cpus = sorted({str(result.machine.get("cpu_model") or "an unnamed machine") for result in timed})
    text = f"Scored on {content.splits[content.scored_split][0]:,} {content.scored_split} images"
    if timed:
        plural = "" if threads == [1] else "s"
        text += f"; latency with {' and '.join(map(str, threads))} thread{plural} on {' and '.join(cpus)}"
    return text


def _as_json(content: Content, chosen: Sequence[int], sampled: str) -> dict[str, Any]:
    return {
        "rows": [asdict(row) for row in content.rows],
        "units": UNITS,
        "class_names": list(content.class_names),
        "num_images": content.num_images,
        "num_boxes": content.num_boxes,
        "splits": {name: {"num_images": i, "num_boxes": b} for name, (i, b) in content.splits.items()},
        "scored_split": content.scored_split,
        "machines": {name: dict(result.machine) for name, result in content.results.items() if result.benchmark},
        "lineage": {name: result.artifact.lineage for name, result in content.results.items()},
        "samples": {"artifact": sampled, "image_ids": list(chosen)},
    }


def _artifact_folder(name: str, artifacts: Path, weights: Path) -> Path:
    return weights if name == WEIGHTS else artifacts / name


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise EvaluationError(f"{path}: no such file, expected what dvc.yaml's stages write; run dvc repro") from error
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{path}: expected a JSON file, got {error}; run dvc repro") from error
    if not isinstance(values, dict):
        raise EvaluationError(f"{path}: expected a JSON mapping, got {type(values).__name__}; run dvc repro")
    return values


def _read_parquet(path: Path, columns: list[str]) -> pd.DataFrame:
    try:
        return pd.read_parquet(path, columns=columns)
    except (OSError, ValueError) as error:
        raise EvaluationError(
            f"{path}: expected a table of {', '.join(columns)}, got {error}; run dvc repro"
        ) from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    names = ("evaluate", "benchmark", "artifacts", "weights", "dataset", "labels", "splits", "out")
    arguments = path_arguments(__doc__, names, argv)

    def work() -> None:
        params = load_section(arguments.params, "report", ReportParams)
        targets = list(read_params(arguments.params)["targets"])
        rows = run(params, targets=targets, **{name: getattr(arguments, name) for name in names})
        print(f"{len(rows)} rows -> {arguments.out / 'report.md'}", flush=True)  # noqa: T201

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
