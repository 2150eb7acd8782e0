"""The evaluate stage on a real, tiny ONNX artifact."""

import json

import numpy as np
import pandas as pd
import pytest
from tiny_detector import write_tiny_artifact, write_tiny_dataset

from plumbline.detect.scoring import PREDICTIONS_SCHEMA
from plumbline.files import sha256_of_tree
from stages import evaluate

# Image 0 is of another split; 2 is empty; 4 has a dim cell, seen with 0.27 or so, and an unlabelled one.
CELLS = [
    [(0, 0, 0, 255)],
    [(0, 1, 1, 255), (1, 4, 5, 255)],
    [],
    [(1, 0, 7, 255)],
    [(0, 2, 2, 112), (1, 6, 6, 255)],
]
LABELS = [CELLS[0], CELLS[1], CELLS[2], CELLS[3], CELLS[4][:1]]
SPLITS = ["train", "test", "test", "test", "test"]

FILES = {
    "classes.csv", "confidence_curve.csv", "confusion.csv", "curves.png", "metrics.json", "pr_curve.csv",
    "predictions.parquet", "slices.csv", "undefined.csv", "worst.jpg",
}  # fmt: skip


@pytest.fixture
def place(tmp_path):
    write_tiny_artifact(tmp_path / "artifact")
    write_tiny_dataset(tmp_path, CELLS, SPLITS, LABELS)
    return tmp_path


def stage(place, out="out", split="test", floor="0.001", task="detect", slices="[brightness, box_size]", **changed):
    params = place / "params.yaml"
    rest = f"  difficult: count\n  slices: {slices}\n  slice_bins: 2\n  worst: 2\n"
    params.write_text(f"evaluate:\n  split: {split}\n  confidence_floor: {floor}\n{rest}", encoding="utf-8")
    paths = {"artifact": "artifact", "dataset": "dataset", "labels": "validated", "splits": "splits.parquet"}
    paths = paths | {"out": out} | changed
    arguments = [text for name, path in paths.items() for text in (f"--{name}", str(place / path))]
    return evaluate.main([*arguments, "--task", task, "--params", str(params)])


def test_the_metrics_of_a_split(place, capsys):
    assert stage(place) == 0
    metrics = json.loads((place / "out/metrics.json").read_text())
    assert (metrics["num_images"], metrics["num_boxes"], metrics["num_detections"]) == (4, 4, 5)
    assert metrics["class_red_map50_95"] == pytest.approx(1.0)
    assert metrics["recall"] == 1.0
    assert metrics["precision"] == pytest.approx(4 / 5)
    assert metrics["confidence_threshold"] == 0.25
    assert all(isinstance(value, int | float) for value in metrics.values())
    assert not [name for name in metrics if name.endswith(("_ms", "_s", "_ns")) or "latency" in name]
    assert "tiny: 4 of 4 images" in capsys.readouterr().out


def test_the_predictions_hold_what_is_above_the_floor(place):
    stage(place)
    found = pd.read_parquet(place / "out/predictions.parquet")
    assert list(found) == PREDICTIONS_SCHEMA.names
    assert found["image_id"].tolist() == [1, 1, 3, 4, 4]
    third = found[found["image_id"] == 3].iloc[0]
    assert [third[c] for c in ("x1", "y1", "x2", "y2")] == [0, 56, 8, 64]
    assert third["class_id"] == 1
    assert third["confidence"] == pytest.approx(1 / (1 + np.exp(-8)), abs=1e-5)


def test_the_floor_keeps_more_than_a_person_is_shown(place):
    # A cell of brightness 88 has the logit -2.5: 0.077, below the artifact's threshold of 0.25.
    (place / "dim").mkdir()
    write_tiny_dataset(place / "dim", [[(0, 0, 0, 88)]], ["test"])
    where = {"dataset": "dim/dataset", "labels": "dim/validated", "splits": "dim/splits.parquet"}
    stage(place, **where)
    metrics = json.loads((place / "out/metrics.json").read_text())
    assert (metrics["map50_95"], metrics["recall"]) == (pytest.approx(1.0), 0.0)
    stage(place, floor="0.1", **where)
    assert json.loads((place / "out/metrics.json").read_text())["map50_95"] == 0.0


def test_the_curves_are_plots_that_dvc_reads(place):
    stage(place)
    curve = pd.read_csv(place / "out/pr_curve.csv")
    assert list(curve) == ["recall", "precision", "class"]
    assert curve["class"].unique().tolist() == ["all", "red", "green"]
    confusion = pd.read_csv(place / "out/confusion.csv")
    assert list(confusion.itertuples(index=False, name=None)) == [
        ("red", "red"),
        ("red", "red"),
        ("green", "green"),
        ("green", "green"),
        ("background", "green"),
    ]


def test_two_runs_write_the_same_bytes(place):
    stage(place, out="first")
    stage(place, out="second")
    assert sha256_of_tree(place / "first") == sha256_of_tree(place / "second")
    assert {path.name for path in (place / "first").iterdir()} == FILES


def test_another_split_scores_other_images(place):
    stage(place, split="train")
    assert set(pd.read_parquet(place / "out/predictions.parquet")["image_id"]) == {0}


def test_no_slices_are_a_table_without_rows(place):
    assert stage(place, slices="[]") == 0
    slices = pd.read_csv(place / "out/slices.csv")
    assert slices.empty
    assert list(slices)[:4] == ["column", "slice", "num_images", "num_objects"]


def test_other_files_in_the_folder_stay(place):
    (place / "out").mkdir()
    (place / "out/.gitignore").write_text("/predictions.parquet\n")
    stage(place)
    assert (place / "out/.gitignore").read_text() == "/predictions.parquet\n"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"split": "val"}, "splits.parquet: expected one or more images in the split 'val', got none"),
        ({"split": "tset"}, "params.yaml:2: wrong value for evaluate.split"),
        ({"floor": "0.5"}, "confidence_floor is 0.5, expected at most the artifact's own threshold 0.25"),
        ({"floor": "1"}, "params.yaml:3: wrong value for evaluate.confidence_floor"),
        ({"artifact": "nowhere"}, "artifact.json: no such file"),
        ({"labels": "nowhere"}, "images.parquet: not a readable"),
        ({"splits": "nowhere"}, "nowhere: not a readable table of image_id and split"),
        ({"splits": "validated/findings.parquet"}, "findings.parquet: not a readable table of image_id and split"),
        ({"task": "classify"}, "a box, expected one class for the whole image, got 4 boxes"),
        ({"slices": "[brightnes]"}, "box_size (did you mean brightness by 'brightnes'?), got"),
        ({"artifact": "other"}, "expected the classes of the dataset, red, green, got red, blue"),
    ],
)
def test_bad_input_ends_with_one_line_and_no_output(place, capsys, change, told):
    write_tiny_artifact(place / "other", class_names=("red", "blue"))
    assert stage(place, **change) == 1
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not (place / "out").exists()


def test_an_image_that_cannot_be_read_is_named(place, capsys):
    (place / "dataset/images/003.png").write_bytes(b"not an image")
    assert stage(place) == 1
    assert "images/003.png" in capsys.readouterr().err
    assert not (place / "out").exists()


def test_a_split_of_another_dataset_is_refused(place, capsys):
    splits = pd.DataFrame({"image_id": [1, 99], "split": ["test", "test"], "group": ["", ""]})
    splits.to_parquet(place / "splits.parquet")
    assert stage(place) == 1
    assert "image_id 99 of the split 'test' is not in the dataset" in capsys.readouterr().err


def test_a_damaged_artifact_is_refused(place, capsys):
    with (place / "artifact/model.onnx").open("ab") as file:
        file.write(b"x")
    assert stage(place) == 1
    assert "model.onnx: damaged" in capsys.readouterr().err
