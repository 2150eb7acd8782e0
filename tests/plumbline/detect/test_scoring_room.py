"""The room `scoring` of the task detect, as stages call it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from plumbline.detect import scoring
from plumbline.detect.scoring.matching import XYXY
from plumbline.errors import EvaluationError
from plumbline.manifest import ANNOTATIONS_SCHEMA, IMAGES_SCHEMA, Dataset, table, write_table
from plumbline.runtime.detections import Detections
from plumbline.scores import ScoringSettings
from plumbline.tasks import task_module

CLASSES = ("cat", "dog")
SETTINGS = ScoringSettings(0.3, 0.001, "count", ("source", "brightness", "box_size"), 2, 4)


def dataset(boxes, num_images=4):
    """A dataset of images 0.., with (image_id, class_id, xyxy) labels."""
    blank = {"sha256": "", "width": 100, "height": 80, "phash": 0, "group": "", "split": "", "readable": True,
             "problem": "", "damaged": False, "exif_orientation": 1, "contrast": 1.0, "sharpness": 1.0}  # fmt: skip
    images = [
        {"image_id": n, "path": f"images/{n}.jpg", "source": f"{'ab'[n % 2]}/{n}.jpg", "brightness": float(n), **blank}
        for n in range(num_images)
    ]
    labels = [
        {"image_id": image_id, "ann_id": n, "class_id": class_id, "class_name": "",
         **dict(zip(XYXY, xyxy, strict=True)), "difficult": False, "truncated": False, "crowd": False,
         "polygon": None, "rle": "", "source_file": f"labels/{image_id}.xml", "source_line": n}
        for n, (image_id, class_id, xyxy) in enumerate(boxes)
    ]  # fmt: skip
    return Dataset(
        table(images, IMAGES_SCHEMA), table(labels, ANNOTATIONS_SCHEMA), pd.DataFrame(), CLASSES, Path("/nowhere")
    )


BOXES = [(0, 0, (0, 0, 10, 10)), (1, 1, (5, 5, 45, 45)), (3, 0, (0, 0, 10, 10))]


def predictions_of(images, per_image):
    rows = []
    for image_id in images["image_id"]:
        xyxy, confidence, class_id = per_image.get(image_id, (np.zeros((0, 4)), [], []))
        found = Detections(
            np.array(xyxy, np.float32), np.array(confidence, np.float32), np.array(class_id, dtype=np.int64)
        )
        rows.append(pd.DataFrame(scoring.prediction_rows(image_id, found)))
    return pd.concat(rows, ignore_index=True)


def test_it_has_every_verb_of_the_contract():
    room = task_module("detect", "scoring")
    assert room is scoring
    assert set(room.__all__) == {
        "PREDICTIONS_SCHEMA", "HEADLINE", "truth_of", "prediction_rows", "choose_threshold", "evaluate",
        "curves_picture", "worst_sheet", "bootstrap",
    }  # fmt: skip
    assert scoring.HEADLINE == ("map50_95", "map50", "map75")
    assert scoring.PREDICTIONS_SCHEMA.names == ["image_id", "class_id", "confidence", *XYXY]


def test_importing_it_is_light():
    code = (
        "import sys, plumbline.detect.scoring; print([m for m in ('torch', 'matplotlib.figure', 'faster_coco_eval',"
        " 'ultralytics') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_truth_is_the_labels_of_the_images():
    data = dataset(BOXES)
    truth = scoring.truth_of(data, data.images.iloc[[1, 3]])
    assert truth["image_id"].tolist() == [1, 3]
    assert truth.columns.tolist() == ANNOTATIONS_SCHEMA.names


def test_labels_of_whole_images_are_refused_with_file_and_line():
    whole = (np.nan,) * 4
    data = dataset([*BOXES, (2, 1, whole), (2, 0, whole)])
    assert len(scoring.truth_of(data, data.images.iloc[[0, 1]])) == 2
    words = r"^labels/2\.xml:3: a class of a whole image, expected boxes .*got 2 labels.*set task: classify"
    with pytest.raises(EvaluationError, match=words):
        scoring.truth_of(data, data.images)


def test_an_evaluation_has_every_table_and_no_undefined_number(tmp_path):
    data = dataset(BOXES)
    found = {0: ([[0, 0, 10, 9]], [0.9], [0]), 1: ([[5, 5, 45, 45], [60, 0, 90, 30]], [0.8, 0.7], [0, 1])}
    predictions = predictions_of(data.images, found)
    write_table(predictions, scoring.PREDICTIONS_SCHEMA, tmp_path / "predictions.parquet")
    scores = scoring.evaluate(scoring.truth_of(data, data.images), predictions, data.images, CLASSES, SETTINGS)
    assert scores.metrics["num_images"] == 4
    assert scores.metrics["recall"] == pytest.approx(1 / 3)
    assert all(np.isfinite(value) for value in scores.metrics.values())
    assert not set(scores.metrics) & set(scores.undefined)
    assert "map_large" in scores.undefined
    tables = {stem: list(frame) for stem, frame in scores.tables.items()}
    assert tables["pr_curve"] == ["recall", "precision", "class"]
    assert tables["confidence_curve"] == ["confidence", "precision", "recall", "f1"]
    assert tables["confusion"] == ["actual", "predicted"]
    assert tables["classes"][:2] == ["class", "num_objects"]
    assert {"map50_95", "map50", "precision", "recall", "f1"} < set(tables["classes"])
    assert tables["slices"][:4] == ["column", "slice", "num_images", "num_objects"]
    assert len(scores.tables["slices"]) == 2 + 2 + 3
    assert scoring.curves_picture(scores, "title") == scoring.curves_picture(scores, "title")


@pytest.mark.parametrize("boxes", [[], BOXES])
def test_nothing_detected_and_nothing_labelled_are_drawn_and_told(boxes):
    data = dataset(boxes)
    truth, predictions = scoring.truth_of(data, data.images), predictions_of(data.images, {})
    scores = scoring.evaluate(truth, predictions, data.images, CLASSES, SETTINGS)
    assert ("map50_95" in scores.undefined) == (not boxes)
    assert scores.metrics.get("map50_95", 0.0) == 0.0
    assert "precision" in scores.undefined
    assert scores.tables["slices"]["precision"].isna().all()
    assert len(scoring.curves_picture(scores, "title")) > 1000
    assert scoring.worst_sheet(data, data.images, truth, predictions, SETTINGS, "title").shape[2] == 3


def test_a_detection_with_nan_is_refused():
    data = dataset(BOXES)
    predictions = predictions_of(data.images, {0: ([[0, 0, np.nan, 9]], [0.9], [0])})
    with pytest.raises(EvaluationError, match="detections: image_id 0: expected finite numbers"):
        scoring.evaluate(scoring.truth_of(data, data.images), predictions, data.images, CLASSES, SETTINGS)
