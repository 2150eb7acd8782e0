from __future__ import annotations

import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from plumbline.commands import main
from plumbline.files import sha256_of_tree
from plumbline.manifest import ANNOTATIONS_SCHEMA, FINDINGS_SCHEMA, IMAGES_SCHEMA, Dataset, table, write_dataset

CLASSES = ("cat", "dog")
A, B = (10.0, 10.0, 50.0, 50.0), (60.0, 10.0, 100.0, 50.0)
XYXY = ["x1", "y1", "x2", "y2"]
# Images 0 to 3 are of train, 4 to 7 of val, 8 to 11 of test.
SPLITS = ["train"] * 4 + ["val"] * 4 + ["test"] * 4


def image_row(image_id):
    names = {"image_id": image_id, "path": f"images/photo_{image_id}.png", "sha256": f"{image_id:064d}", "source": "x"}
    numbers = {"width": 120, "height": 80, "phash": 0, "brightness": 1.0, "contrast": 1.0, "sharpness": 1.0}
    rest = {"group": "", "split": "", "readable": True, "problem": "", "damaged": False, "exif_orientation": 1}
    return {**names, **numbers, **rest}


def box_row(ann_id, image_id, class_id, xyxy):
    names = {"image_id": image_id, "ann_id": ann_id, "class_id": class_id, "class_name": CLASSES[class_id]}
    flags = {"difficult": False, "truncated": False, "crowd": False, "polygon": None, "rle": ""}
    return {**names, **dict(zip(XYXY, xyxy, strict=True)), **flags, "source_file": f"labels/photo_{image_id}.xml",
            "source_line": 10 + ann_id}  # fmt: skip


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Every image has a cat at A, and image 9 a dog at B that is labelled cat; the model sees one more in image 10."""
    monkeypatch.chdir(tmp_path)
    images = [image_row(image_id) for image_id in range(12)]
    boxes = [box_row(image_id, image_id, 0, A) for image_id in range(12)] + [box_row(12, 9, 0, B)]
    Path("data/dataset/images").mkdir(parents=True)
    Path("data/validated").mkdir()
    random = np.random.default_rng(0)
    for row in images:
        cv2.imwrite(f"data/dataset/{row['path']}", random.integers(0, 255, (80, 120, 3), dtype=np.uint8))
    tables = table(images, IMAGES_SCHEMA), table(boxes, ANNOTATIONS_SCHEMA), table([], FINDINGS_SCHEMA)
    write_dataset(Dataset(*tables, CLASSES, Path("data/dataset")), Path("data/validated"))
    pd.DataFrame({"image_id": range(12), "split": SPLITS, "group": range(12)}).to_parquet("data/splits.parquet")
    seen = [(image_id, 0, 0.95, A) for image_id in range(8, 12)] + [(9, 1, 0.9, B), (10, 1, 0.8, B)]
    write_predictions(seen)
    return tmp_path


def write_predictions(rows, path="reports/evaluate/weights/predictions.parquet"):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame([(*row[:3], *row[3]) for row in rows], columns=["image_id", "class_id", "confidence", *XYXY])
    frame.astype(dict.fromkeys(["confidence", *XYXY], np.float32)).to_parquet(path)


def test_without_arguments_it_does_the_usual_thing(project, capsys):
    assert main(["label-errors"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("2 suspects in 4 images (1 missing_label, 1 wrong_class, 0 badly_placed, 0 spurious_label)")
    assert "1  0.90  labels/photo_9.xml:22 (photo_9.png): wrong_class: labelled cat, the model sees dog (0.90)" in told
    assert "2  0.80  labels/photo_10.xml (photo_10.png): missing_label: no box where the model sees dog (0.80)" in told
    assert told.rstrip().endswith("reports/label_errors/label_errors.csv and reports/label_errors/label_errors.jpg")
    listed = pd.read_csv("reports/label_errors/label_errors.csv")
    assert listed["rank"].tolist() == [1, 2]
    first = listed.iloc[0]
    assert (first["class_name"], first["predicted_class_name"], first["ann_id"]) == ("cat", "dog", 12)
    assert first["image"] == "data/dataset/images/photo_9.png"
    assert first[XYXY].tolist() == list(B)
    assert listed["class_name"].isna().tolist() == [False, True]


def test_the_picture_shows_what_is_labelled_and_what_is_seen(project):
    main(["label-errors"])
    two = cv2.imread("reports/label_errors/label_errors.jpg")
    main(["label-errors", "--tiles", "1", "--out", "one"])
    one = cv2.imread("one/label_errors.jpg")
    assert two.shape[1] > 1.9 * one.shape[1] - 50
    main(["label-errors", "--min-score", "0.99", "--out", "none"])
    assert cv2.imread("none/label_errors.jpg") is not None
    assert len(pd.read_csv("none/label_errors.csv")) == 0


def test_the_same_input_gives_the_same_files_and_changes_nothing(project):
    before = sha256_of_tree(project / "data")
    main(["label-errors"])
    first = sha256_of_tree(project / "reports/label_errors")
    main(["label-errors"])
    assert sha256_of_tree(project / "reports/label_errors") == first
    assert sha256_of_tree(project / "data") == before


def test_images_that_are_gone_do_not_stop_it(project):
    shutil.rmtree("data/dataset/images")
    assert main(["label-errors"]) == 0


def refused(capsys, *arguments):
    assert main(["label-errors", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert not Path("reports/label_errors").exists()
    return error


def test_predictions_on_images_that_it_was_trained_on_are_refused(project, capsys):
    write_predictions([(8, 0, 0.9, A), (0, 0, 0.9, A), (1, 0, 0.9, A)], "p.parquet")
    error = refused(capsys, "--predictions", "p.parquet")
    assert "holds predictions on 2 images of the train split" in error
    assert "a model agrees with the errors it was trained on" in error


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([(99, 0, 0.9, A)], "image_id 99 is in no split"),
        ([(8, 0, 0.9, A)], "expected predictions on all 4 images of the split, got some on 1"),
        ([(8, 7, 0.9, A), (9, 0, 0.9, A)], "class_id 7, expected one of the 2 classes"),
        ([], "holds no prediction"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(project, capsys, rows, text):
    write_predictions(rows, "p.parquet")
    assert text in refused(capsys, "--predictions", "p.parquet")


def test_missing_or_wrong_files_are_named(project, capsys):
    assert "nowhere.parquet: not a readable table" in refused(capsys, "--predictions", "nowhere.parquet")
    assert "data/splits.parquet: not a readable table" in refused(capsys, "--predictions", "data/splits.parquet")
    assert "elsewhere/images.parquet" in refused(capsys, "--labels", "elsewhere")
    assert "elsewhere" in refused(capsys, "--artifact", "elsewhere")


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("confidence", float("nan"), "column confidence: expected finite numbers"),
        ("x1", "left", "column x1: expected finite numbers"),
        ("class_id", "cat", "column class_id: expected whole numbers"),
    ],
)
def test_predictions_that_hold_no_numbers_are_refused(project, capsys, column, value, text):
    write_predictions([(8, 0, 0.9, A), (9, 0, 0.9, A), (10, 0, 0.9, A)], "p.parquet")
    pd.read_parquet("p.parquet").assign(**{column: value}).to_parquet("p.parquet")
    assert text in refused(capsys, "--predictions", "p.parquet")


@pytest.mark.parametrize("score", ["-0.1", "7", "nan"])
def test_a_score_that_none_can_have_is_refused(project, capsys, score):
    assert "--min-score: expected a number from 0 to 1" in refused(capsys, "--min-score", score)


def test_labels_without_boxes_are_refused(project, capsys):
    annotations = pd.read_parquet("data/validated/annotations.parquet").assign(**dict.fromkeys(XYXY, np.nan))
    tables = table([image_row(0)], IMAGES_SCHEMA), annotations, table([], FINDINGS_SCHEMA)
    write_dataset(Dataset(*tables, CLASSES, Path("data/dataset")), Path("data/validated"))
    assert "data/validated: holds no box" in refused(capsys)


def test_an_artifact_predicts_right_there(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "path", [*sys.path, str(Path(__file__).parents[1] / "stages")])
    from tiny_detector import write_tiny_artifact, write_tiny_dataset

    monkeypatch.chdir(tmp_path)
    # It finds cells of 8 x 8 pixels by their colour. In image 1 a label is missing, in image 2 one is of another class.
    cells = [[(0, 0, 0, 255)], [(0, 1, 1, 255), (1, 4, 5, 255)], [(1, 0, 7, 255)], []]
    labels = [cells[0], cells[1][:1], [(0, 0, 7, 255)], []]
    write_tiny_artifact(Path("artifact"))
    write_tiny_dataset(tmp_path, cells, ["train", "val", "val", "val"], labels)
    annotations = pd.read_parquet("validated/annotations.parquet").assign(source_file="a.txt", source_line=1)
    annotations.to_parquet("validated/annotations.parquet")
    places = ["--dataset", "dataset", "--labels", "validated", "--splits", "splits.parquet", "--out", "out"]
    assert main(["label-errors", "--artifact", "artifact", "--split", "val", *places]) == 0
    assert "tiny: 3 of 3 images" in capsys.readouterr().err
    listed = pd.read_csv("out/label_errors.csv")
    assert sorted(zip(listed["kind"], listed["image_id"], strict=True)) == [("missing_label", 1), ("wrong_class", 2)]
    assert main(["label-errors", "--artifact", "artifact", "--split", "test", *places]) == 1
    assert "one or more images in the split 'test'" in capsys.readouterr().err
