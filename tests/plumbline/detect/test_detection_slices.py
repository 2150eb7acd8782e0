"""Metrics of slices of the images and of boxes by size."""

import contextlib
import io

import numpy as np
import pandas as pd
import pytest

from plumbline.detect.scoring.coco_evaluation import XYXY, evaluate_detections
from plumbline.detect.scoring.detection_slices import COLUMNS, METRICS, slice_rows
from plumbline.errors import EvaluationError
from plumbline.scores import ScoringSettings

CLASSES = ("cat", "dog")


def scene(num_images=40, seed=0):
    """Images whose bright ones are easy, their labels, and detections near these; boxes of all sizes."""
    rng = np.random.default_rng(seed)
    images = pd.DataFrame({"image_id": np.arange(num_images) * 3, "brightness": np.linspace(10, 200, num_images)})
    images["source"] = [f"/data/{'day' if n % 4 else 'night'}/{n}.jpg" for n in range(num_images)]
    truth, found = [], []
    for image_id, brightness in zip(images["image_id"], images["brightness"], strict=True):
        for _ in range(int(rng.integers(1, 7))):
            corner, size = rng.uniform(0, 400, 2), np.exp(rng.uniform(np.log(8), np.log(250), 2))
            class_id = int(rng.integers(2))
            truth.append((image_id, class_id, *corner, *(corner + size)))
            shift = rng.normal(0, 0.15 - brightness / 2000, 4) * np.tile(size, 2)
            found.append((image_id, class_id, rng.beta(4, 2), *(np.concatenate([corner, corner + size]) + shift)))
        corner = rng.uniform(0, 400, 2)
        found.append((image_id, int(rng.integers(2)), rng.beta(2, 4), *corner, *(corner + rng.uniform(5, 200, 2))))
    labels = pd.DataFrame(truth, columns=["image_id", "class_id", *XYXY])
    return images, labels, pd.DataFrame(found, columns=["image_id", "class_id", "confidence", *XYXY])


def rows_of(images, truth, found, columns, bins=3, threshold=0.4, difficult="count"):
    settings = ScoringSettings(threshold, 0.001, difficult, tuple(columns), bins, 12)
    evaluation = evaluate_detections(
        truth, found, images["image_id"].tolist(), CLASSES, confidence_threshold=threshold, difficult=difficult
    )
    rows = slice_rows(truth, found, images, CLASSES, settings, evaluation=evaluation)
    assert tuple(rows) == COLUMNS
    return rows, evaluation


def coco(truth, found, image_ids, size="all"):
    """The summary of pycocotools, an independent implementation: map50_95 and map50 of one range of areas."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    frame = {"images": [{"id": int(i)} for i in image_ids], "categories": [{"id": 0}, {"id": 1}], "info": {}}
    sets = []
    with contextlib.redirect_stdout(io.StringIO()):
        for boxes in (truth, found):
            kept = boxes[boxes["image_id"].isin(image_ids)]
            one = COCO()
            one.dataset = {**frame, "annotations": [
                {"id": n + 1, "image_id": int(r.image_id), "category_id": int(r.class_id), "iscrowd": 0,
                 "bbox": [r.x1, r.y1, r.x2 - r.x1, r.y2 - r.y1], "area": (r.x2 - r.x1) * (r.y2 - r.y1),
                 "score": getattr(r, "confidence", 0)}
                for n, r in enumerate(kept.itertuples())
            ]}  # fmt: skip
            one.createIndex()
            sets.append(one)
        evaluator = COCOeval(*sets, "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
    precision = evaluator.eval["precision"][:, :, :, evaluator.params.areaRngLbl.index(size), 2]
    return [part[part > -1].mean() if (part > -1).any() else np.nan for part in (precision, precision[0])]


def test_slices_of_images_are_what_pycocotools_says_of_them_alone():
    images, truth, found = scene()
    rows, _ = rows_of(images, truth, found, ["brightness", "source"])
    assert rows["column"].tolist() == ["brightness"] * 3 + ["source"] * 2
    assert rows["slice"].tolist() == ["below 73.33", "73.33 to below 136.7", "136.7 and above", "day", "night"]
    assert rows.groupby("column")["num_images"].sum().eq(40).all()
    assert rows.groupby("column")["num_objects"].sum().eq(len(truth)).all()
    at = images["brightness"].to_numpy()
    members = [at < 73.33, (at >= 73.33) & (at < 136.7), at >= 136.7, *(
        images["source"].str.contains(name).to_numpy() for name in ("day", "night"))]  # fmt: skip
    for row, chosen in zip(rows.itertuples(), members, strict=True):
        image_ids = images["image_id"][chosen].tolist()
        assert row.num_images == len(image_ids)
        assert [row.map50_95, row.map50] == pytest.approx(coco(truth, found, image_ids), abs=1e-9)
    dark, _, bright = rows["map50_95"].tolist()[:3]
    assert dark < bright  # the scene was made so


def test_sizes_of_boxes_are_what_pycocotools_says():
    images, truth, found = scene()
    rows, _ = rows_of(images, truth, found, ["box_size"])
    area = (truth["x2"] - truth["x1"]) * (truth["y2"] - truth["y1"])
    assert rows["num_objects"].tolist() == np.histogram(area, [0, 32**2, 96**2, 1e9])[0].tolist()
    for row, size in zip(rows.itertuples(), ("small", "medium", "large"), strict=True):
        assert row.slice.startswith(size)
        expected = coco(truth, found, images["image_id"].tolist(), size)
        assert [row.map50_95, row.map50] == pytest.approx(expected, abs=1e-9)


def test_precision_and_recall_by_size_leave_other_sizes_alone():
    images = pd.DataFrame({"image_id": [0, 1]})
    truth = pd.DataFrame(
        [(0, 0, 0, 0, 10, 10), (0, 0, 50, 50, 60, 60), (1, 0, 0, 0, 200, 200)], columns=["image_id", "class_id", *XYXY]
    )
    found = pd.DataFrame(
        [(0, 0, 0.9, 0, 0, 10, 10), (0, 0, 0.9, 300, 0, 310, 10), (0, 0, 0.9, 350, 0, 360, 10),
         (0, 0, 0.3, 50, 50, 60, 60), (1, 0, 0.9, 0, 0, 200, 200), (1, 0, 0.9, 0, 300, 200, 500)],
        columns=["image_id", "class_id", "confidence", *XYXY],
    )  # fmt: skip
    rows, _ = rows_of(images, truth, found, ["box_size"])
    values = rows[["num_images", "num_objects", "precision", "recall", "f1"]].to_numpy().tolist()
    assert values[0] == pytest.approx([1, 2, 1 / 3, 1 / 2, 2 / 5])
    assert values[1] == pytest.approx([0, 0, np.nan, np.nan, np.nan], nan_ok=True)
    assert values[2] == pytest.approx([1, 1, 1 / 2, 1, 2 / 3])


def test_a_slice_without_boxes_is_undefined_and_no_zero():
    images = pd.DataFrame({"image_id": [0, 1, 2], "source": ["a/0.jpg", "b/1.jpg", "b/2.jpg"]})
    truth = pd.DataFrame([(0, 0, 0, 0, 10, 10)], columns=["image_id", "class_id", *XYXY])
    rows, evaluation = rows_of(images, truth, truth.assign(confidence=0.9), ["source"])
    values = rows[list(METRICS)].to_numpy()
    assert (values[0] > 0.999).all()
    assert np.isnan(values[1]).all()
    assert rows["num_objects"].tolist() == [1, 0]
    assert evaluation.metrics["recall"] == 1


def test_difficult_boxes_are_ignored_in_slices_too():
    images, truth, found = scene(12)
    hard = truth.assign(difficult=np.arange(len(truth)) % 3 == 0)
    rows, evaluation = rows_of(images, hard, found, ["source", "box_size"], difficult="ignore")
    for column in ("source", "box_size"):
        assert rows[rows["column"] == column]["num_objects"].sum() == (~hard["difficult"]).sum()
    assert evaluation.metrics["num_boxes"] == (~hard["difficult"]).sum()


def test_an_unknown_column_is_an_error_that_knows_box_size():
    images, truth, found = scene(4)
    with pytest.raises(EvaluationError, match=r"no column 'boxsize'.*did you mean box_size\?"):
        rows_of(images, truth, found, ["brightness", "boxsize"])
