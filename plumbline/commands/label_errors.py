"""Rank the labels by how likely they are wrong, from predictions of a model that was not trained on them.

In the project's root, after `dvc repro`, no argument is needed: the test split's predictions of the trained weights are
there. With --artifact the model is run here, on the split that --split names. OUT gets label_errors.csv (every
suspect) and label_errors.jpg (the top of the list). Nothing is changed: a person decides.
"""

from __future__ import annotations

import argparse
import collections
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from plumbline.commands import tell
from plumbline.contact_sheet import LegendEntry, Tile, TileBox, draw_sheet, write_jpeg
from plumbline.drawing import class_color
from plumbline.errors import DatasetError, EvaluationError, first_and_count
from plumbline.files import write_text
from plumbline.label_errors import KINDS, PREDICTED_XYXY, XYXY, rank_label_errors
from plumbline.manifest import Dataset, read_dataset
from plumbline.split_images import images_of_split, read_splits
from plumbline.tasks import task_module

# Below this a prediction says nothing; far below any threshold, so that objects that are hard to see have a witness.
CONFIDENCE_FLOOR = 0.01
GIVEN, PREDICTED, OTHERS = class_color(0), class_color(1), (235, 235, 235)
_PREDICTIONS = Path("reports/evaluate/weights/predictions.parquet")
_PREDICTION_COLUMNS = ["image_id", "class_id", "confidence", *XYXY]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `plumbline.commands.Command`."""

    def path(name: str, default: str, text: str) -> None:
        parser.add_argument(name, type=Path, default=Path(default), metavar="PATH", help=f"{text}; default: {default}")

    path("--labels", "data/validated", "the labels' tables")
    path("--dataset", "data/dataset", "where the images are")
    path("--splits", "data/splits.parquet", "which image is in which split")
    path("--out", "reports/label_errors", "the folder to write into")
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--predictions", type=Path, metavar="FILE", help=f"as the evaluate stage writes them; default: {_PREDICTIONS}"
    )
    source.add_argument("--artifact", type=Path, metavar="PATH", help="predict with this artifact instead")
    parser.add_argument("--split", choices=("val", "test"), default="test", help="for --artifact; default: test")
    parser.add_argument(
        "--min-score", type=float, default=0.05, metavar="S", help="leave out suspects below, 0..1; default: 0.05"
    )
    parser.add_argument("--tiles", type=int, default=24, metavar="N", help="suspects on the picture; default: 24")


def run(arguments: argparse.Namespace) -> int:
    """See `plumbline.commands.Command`."""
    if not 0 <= arguments.min_score <= 1:
        raise EvaluationError(f"--min-score: expected a number from 0 to 1, got {arguments.min_score:g}; correct it")
    data = read_dataset(arguments.labels, root=arguments.dataset)
    if not np.isfinite(data.annotations[XYXY].to_numpy(np.float64)).all(axis=1).any():
        raise DatasetError(f"{arguments.labels}: holds no box, expected labels of a detector; give --labels")
    if arguments.artifact is not None:
        images = images_of_split(data.images, arguments.splits, arguments.split)
        predictions = predict(arguments.artifact, images, data)
        image_ids = images["image_id"].tolist()
    else:
        file = arguments.predictions or _PREDICTIONS
        predictions = read_predictions(file)
        image_ids = predicted_images(file, predictions, arguments.splits)
    suspects = rank_label_errors(
        data.annotations, predictions, data.class_names, image_ids, min_score=arguments.min_score
    )
    listed = suspect_rows(suspects, data)
    out: Path = arguments.out
    write_text(out / "label_errors.csv", listed.to_csv(index=False, lineterminator="\n", float_format="%.6g"))
    top = listed.head(max(arguments.tiles, 0))
    title = f"Likely label errors: the first {len(top)} of {len(listed)} suspects in {len(image_ids)} images"
    write_jpeg(out / "label_errors.jpg", _sheet(top, data, title))
    print(_summary(listed, len(image_ids), out))  # noqa: T201 - the command's own output
    return 0


def read_predictions(file: Path) -> pd.DataFrame:
    """Read the table that the evaluate stage writes.

    Raises:
        EvaluationError: It is missing, or is no such table, is empty, or holds what is no number.
    """
    try:
        predictions = pd.read_parquet(file, columns=_PREDICTION_COLUMNS)
    except (OSError, ValueError) as error:
        raise EvaluationError(
            f"{file}: not a readable table of {', '.join(_PREDICTION_COLUMNS)}; run evaluate (dvc repro), or give"
            " --artifact to predict here"
        ) from error
    if predictions.empty:
        raise EvaluationError(f"{file}: holds no prediction; train longer, or lower evaluate.confidence_floor")
    for name in _PREDICTION_COLUMNS:
        column = predictions[name]
        whole = name.endswith("_id")
        right = pd.api.types.is_integer_dtype(column) if whole else pd.api.types.is_float_dtype(column)
        if not right or not np.isfinite(column).all():
            wanted = "whole numbers" if whole else "finite numbers"
            raise EvaluationError(f"{file}: column {name}: expected {wanted}, got others; run evaluate again")
    return predictions


def predicted_images(file: Path, predictions: pd.DataFrame, splits: Path) -> list[int]:
    """Return the images that predictions were made for: all of the splits that they are on.

    Raises:
        EvaluationError: Some are on the train split, on unknown images, or on too few of a split's images.
    """
    table = read_splits(splits)
    on = table["image_id"].isin(predictions["image_id"])
    unknown = set(predictions["image_id"]) - set(table["image_id"])
    if unknown:
        raise EvaluationError(f"{file}: image_id {min(unknown)} is in no split of {splits}; run evaluate again")
    trained = int((on & (table["split"] == "train")).sum())
    if trained:
        raise EvaluationError(
            f"{file}: holds predictions on {trained} images of the train split, expected val or test only: a model"
            " agrees with the errors it was trained on; set evaluate.split to test, or give --artifact"
        )
    judged = table["split"].isin(set(table["split"][on]))
    if on.sum() * 2 < judged.sum():
        raise EvaluationError(
            f"{file}: expected predictions on all {judged.sum()} images of the split, got some on {on.sum()}; run"
            " evaluate again"
        )
    return sorted(table["image_id"][judged].tolist())


def predict(folder: Path, images: pd.DataFrame, data: Dataset) -> pd.DataFrame:
    """Run an artifact on images, telling now and then how far it is.

    Args:
        folder: It holds `artifact.json`.
        images: Rows of the images table.
        data: For the paths and classes.

    Raises:
        BackendError: The artifact cannot be opened.
        EvaluationError: It is no detector, or its classes are not those of the labels.
        DatasetError: An image cannot be read.
    """
    from plumbline.predicting import predict_images
    from plumbline.runtime.session import load_artifact

    session = load_artifact(folder)
    if session.artifact.task != "detect":
        raise EvaluationError(
            f"{folder}: an artifact of the task {session.artifact.task}, expected detect: this command looks at boxes;"
            " a classifier's doubts are in reports/evaluate/<target>/worst.jpg"
        )
    if session.artifact.class_names != data.class_names:
        raise EvaluationError(
            f"{folder}: expected the classes of the labels, {', '.join(data.class_names)}, got"
            f" {', '.join(session.artifact.class_names)}; train and export again"
        )
    scoring = task_module("detect", "scoring")
    return predict_images(session, images, data, scoring=scoring, confidence_floor=CONFIDENCE_FLOOR, tell=tell)


def suspect_rows(suspects: pd.DataFrame, data: Dataset) -> pd.DataFrame:
    """Return the suspects for people: with rank, paths, lines and names instead of numbers."""
    path_of = data.images.set_index("image_id")["path"]
    annotations = data.annotations.set_index("ann_id")
    # A missing label has no line, but its image may have a label file.
    file_of = data.annotations.groupby("image_id")["source_file"].first()
    labels = []
    for ann_id, image_id in zip(suspects["ann_id"], suspects["image_id"], strict=True):
        if ann_id < 0:
            labels.append(str(file_of.get(image_id, "")))
            continue
        file, line = annotations.at[ann_id, "source_file"], int(annotations.at[ann_id, "source_line"])
        labels.append(f"{file}:{line}" if line else str(file))
    names = dict(enumerate(data.class_names)) | {-1: ""}
    images = [(data.root / path).as_posix() for path in path_of.reindex(suspects["image_id"])]
    fields = {
        "rank": range(1, len(suspects) + 1), "score": suspects["score"], "kind": suspects["kind"], "image": images,
        "label": labels, "class_name": suspects["class_id"].map(names),
        "predicted_class_name": suspects["predicted_class_id"].map(names), "confidence": suspects["confidence"],
        "iou": suspects["iou"], "message": suspects["message"], **{name: suspects[name] for name in XYXY},
        **{name: suspects[name] for name in PREDICTED_XYXY}, "image_id": suspects["image_id"],
        "ann_id": suspects["ann_id"],
    }  # fmt: skip
    return pd.DataFrame(fields)


def _summary(listed: pd.DataFrame, num_images: int, out: Path) -> str:
    counts = collections.Counter(listed["kind"])
    kinds = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS)
    lines = [
        f"{row.rank:>3}  {row.score:.2f}  {row.label or '-'} ({Path(row.image).name}): {row.kind}: {row.message}"
        for row in listed.itertuples(index=False)
    ]
    files = f"{out / 'label_errors.csv'} and {out / 'label_errors.jpg'}"
    first = f"{len(listed)} suspects in {num_images} images ({kinds})"
    return "\n".join([first, *([first_and_count(lines)] if lines else []), f"-> {files}"])


def _sheet(top: pd.DataFrame, data: Dataset, title: str) -> np.ndarray:
    boxes_of = data.annotations[np.isfinite(data.annotations[XYXY].to_numpy(np.float64)).all(axis=1)].groupby(
        "image_id"
    )
    groups = boxes_of.groups
    tiles = []
    for row in top.to_dict("records"):
        others = boxes_of.get_group(row["image_id"]) if row["image_id"] in groups else data.annotations[:0]
        others = others[others["ann_id"] != row["ann_id"]]
        boxes = [TileBox(tuple(box), OTHERS, thin=True) for box in others[XYXY].to_numpy(np.float64).tolist()]
        given, seen = [row[name] for name in XYXY], [row[name] for name in PREDICTED_XYXY]
        if row["class_name"]:
            boxes.append(TileBox(tuple(given), GIVEN, row["class_name"]))
        if row["predicted_class_name"]:
            text = f"{row['predicted_class_name']} {row['confidence']:.2f}"
            boxes.append(TileBox(tuple(seen), PREDICTED, text, dashed=True))
        both = np.array([given, seen], dtype=np.float64)
        focus = (*np.nanmin(both[:, :2], axis=0).tolist(), *np.nanmax(both[:, 2:], axis=0).tolist())
        names = [Path(row[name]).name for name in ("image", "label")]
        caption = f"{row['rank']}.  {row['score']:.2f}  {row['kind']}  {names[0]}\n{row['message']}\n{names[1]}"
        tiles.append(Tile(Path(row["image"]), caption, tuple(boxes), focus))
    legend = _legend()
    return draw_sheet(tiles, title=title, legend=legend)


def _legend() -> Sequence[LegendEntry]:
    return (
        LegendEntry("the label in question", GIVEN),
        LegendEntry("what the model sees", PREDICTED, dashed=True),
        LegendEntry("other labels", OTHERS, thin=True),
    )
