"""Curves and pictures of a training and of its labels, for tables of either task."""

from __future__ import annotations

import warnings

import cv2
import numpy as np
import pandas as pd
import pytest
from dataset_rows import box, dataset, image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from plumbline.event_files import EpochEvents
from plumbline.label_picture import class_counts, label_picture, shown_classes
from plumbline.training_curves import best_epoch, curve_files, panels_of, training_picture

DETECT = [
    "epoch",
    "train_box_loss",
    "val_box_loss",
    "learning_rate",
    "val_map50_ultralytics",
    "val_map50_95_ultralytics",
]
CLASSIFY = ["epoch", "learning_rate", "train_loss", "val_loss", "val_top1", "val_top5"]


def epochs_of(columns, num_epochs=7):
    rng = np.random.default_rng(1)
    values = rng.uniform(0.1, 0.9, (num_epochs, len(columns)))
    return pd.DataFrame(values, columns=columns).assign(epoch=range(1, num_epochs + 1))


def pixels(png: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)


@pytest.mark.parametrize(("columns", "score"), [(DETECT, "val_map50_95_ultralytics"), (CLASSIFY, "val_top1")])
@pytest.mark.parametrize("num_epochs", [1, 7])
def test_a_training_is_drawn_the_same_twice_and_every_column_once(columns, score, num_epochs):
    epochs = epochs_of(columns, num_epochs)
    before = epochs.copy()
    png = training_picture(epochs, "a title", score)
    assert png == training_picture(epochs, "a title", score)
    assert pixels(png).std() > 10
    pd.testing.assert_frame_equal(epochs, before)
    drawn = [column for panel in panels_of(columns, score).values() for column in panel]
    assert sorted(drawn) == sorted(set(columns) - {"epoch"})


def test_a_score_that_is_never_defined_is_drawn_as_such():
    epochs = epochs_of(CLASSIFY).assign(val_top1=np.nan, val_top5=np.nan)
    assert best_epoch(epochs, "val_top1") is None
    assert pixels(training_picture(epochs, "t", "val_top1")).std() > 10


def test_of_equal_epochs_one_is_the_best():
    equal = pd.DataFrame({"epoch": [1, 2, 3, 4], "s": [0.5, 0.7, 0.7, 0.6]})
    assert best_epoch(equal, "s") == 3
    assert best_epoch(equal.assign(val_loss=[0.1, 0.3, 0.3, 0.1]), "s") == 2
    assert best_epoch(equal.assign(val_loss=[0.1, 0.3, 0.2, 0.1]), "s") == 3


def test_curves_together_are_the_table():
    epochs = epochs_of(DETECT)
    curves = curve_files(epochs)
    assert list(curves) == DETECT[1:]
    for column, rows in curves.items():
        assert list(rows.columns) == ["epoch", "value"]
        assert rows["value"].tolist() == epochs[column].tolist()


@pytest.mark.parametrize("num_classes", [1, 3, 80])
def test_labels_are_drawn_the_same_twice(num_classes):
    rng = np.random.default_rng(2)
    images = [image(i) for i in range(12)]
    boxes = []
    for ann_id in range(60):
        x, y = rng.uniform(0, 40, 2)
        row = box(ann_id, (x, y, x + 9, y + 5), image_id=int(rng.integers(12)))
        boxes.append(row | {"class_id": int(rng.integers(num_classes))})
    data = dataset(images, boxes)
    splits = pd.DataFrame({"image_id": range(12), "split": ["train"] * 7 + ["val"] * 3 + ["test"] * 2})
    names = [f"class {i}" for i in range(num_classes)]
    annotations = data.annotations[data.annotations["class_id"] < num_classes]
    before = annotations.copy()
    png = label_picture(annotations, data.images, splits, names)
    assert png == label_picture(annotations, data.images, splits, names)
    pd.testing.assert_frame_equal(annotations, before)
    counts = class_counts(annotations.merge(splits, on="image_id"), names)
    assert counts.to_numpy().sum() == len(annotations)
    shown = shown_classes(counts)
    assert len(shown) == min(num_classes, 30)
    assert shown.sum(axis=1).max() == counts.sum(axis=1).max()
    assert shown.sum(axis=1).min() == counts.sum(axis=1).min()
    # Boxes have four panels more than classes of whole images.
    whole = annotations.assign(x1=np.nan, y1=np.nan, x2=np.nan, y2=np.nan)
    assert pixels(label_picture(whole, data.images, splits, names)).shape[0] < pixels(png).shape[0]


def test_classes_that_the_font_cannot_write_are_numbered():
    data = dataset()
    splits = pd.DataFrame({"image_id": [0, 1], "split": ["train", "val"]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pictures = [label_picture(data.annotations, data.images, splits, ["a", b]) for b in ("血小板", "class 1")]
    assert pictures[0] == pictures[1]


def test_no_label_at_all_is_drawn_too():
    data = dataset()
    splits = pd.DataFrame({"image_id": [0, 1], "split": ["train", "val"]})
    assert pixels(label_picture(data.annotations[:0], data.images, splits, ["a", "b"])).std() > 1


def test_event_files_begin_anew_with_what_was_kept(tmp_path):
    epochs = epochs_of(CLASSIFY, 4).assign(val_top5=[np.nan, 0.5, 0.6, 0.7])
    killed = EpochEvents(tmp_path)
    killed.restart(epochs[:0])
    for row in epochs[:3].to_dict("records"):
        killed.add(row)
    # Killed before its third epoch was kept.
    events = EpochEvents(tmp_path)
    events.restart(epochs[:2])
    for row in epochs[2:].to_dict("records"):
        events.add(row)
    read = EventAccumulator(str(tmp_path)).Reload()  # readable before it is closed
    assert [event.step for event in read.Scalars("train/loss")] == [1, 2, 3, 4]
    assert np.allclose([event.value for event in read.Scalars("val/top1")], epochs["val_top1"])
    assert [event.step for event in read.Scalars("val/top5")] == [2, 3, 4], "what is undefined is left out"
    events.close()
