"""Small runs of either task with predictions, for the tests of what compares two of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
from dataset_rows import NAN4, box, image

from plumbline.manifest import ANNOTATIONS_SCHEMA, FINDINGS_SCHEMA, IMAGES_SCHEMA, Dataset, table
from plumbline.score_comparison import ScoredRun
from plumbline.tasks import task_module

NAMES = ("cat", "dog", "cow")
XYXY = ["x1", "y1", "x2", "y2"]


def run_of(task: str, seed: int = 0, num_images: int = 12, name: str = "here") -> ScoredRun:
    """A run with labels from the seed 0, whatever the seed, and predictions that get worse with it."""
    labels, rng = np.random.default_rng(0), np.random.default_rng(seed)
    images, boxes, found = [], [], []
    for image_id in range(num_images):
        images.append(image(image_id))
        for _ in range(3 if task == "detect" else 1):
            class_id = int(labels.integers(0, len(NAMES)))
            x, y = labels.integers(0, 50, 2)
            corners = (x, y, x + 20, y + 20) if task == "detect" else NAN4
            boxes.append(box(len(boxes), corners, image_id, class_id, class_name=NAMES[class_id]))
            found.append(prediction(task, image_id, class_id, corners, rng, blur=0.4 + seed))
    data = Dataset(
        table(images, IMAGES_SCHEMA), table(boxes, ANNOTATIONS_SCHEMA), table([], FINDINGS_SCHEMA), NAMES, Path("data")
    )
    predictions = pd.DataFrame(found)[task_module(task, "scoring").PREDICTIONS_SCHEMA.names]
    return ScoredRun(name, task, data, data.images, {"weights": predictions, "int8": predictions.copy()})


def prediction(task, image_id, class_id, corners, rng, blur):
    scores = rng.dirichlet(np.ones(len(NAMES))) * blur
    scores[class_id] += 0.5
    scores = (scores / scores.sum()).astype(np.float32)
    best = int(scores.argmax())
    row = {"image_id": image_id, "class_id": best, "confidence": scores[best]}
    if task == "detect":
        return row | dict(zip(XYXY, np.asarray(corners) + rng.normal(0, blur, 4), strict=True))
    return row | {"probabilities": scores}


def shuffled(run: ScoredRun, images: list[int], classes: list[int], extra: int, name: str = "there") -> ScoredRun:
    """The same run with its images and classes numbered anew, and further images that the other has not."""
    place = {image_id: extra + new for new, image_id in enumerate(images)}
    names = tuple(NAMES[class_id] for class_id in classes)
    more = [image(new, sha256=f"extra{new}", path=f"images/extra{new}.jpg") for new in range(extra)]
    rows = run.data.images[run.data.images["image_id"].isin(place)]
    rows = pd.concat([table(more, IMAGES_SCHEMA), rows.assign(image_id=rows["image_id"].map(place))])
    rows = rows.sort_values("image_id", ignore_index=True)
    class_ids = {old: new for new, old in enumerate(classes)}
    labels = run.data.annotations[run.data.annotations["image_id"].isin(place)]
    labels = labels.assign(image_id=labels["image_id"].map(place), class_id=labels["class_id"].map(class_ids))
    predictions = {}
    for artifact, found in run.predictions.items():
        kept = found[found["image_id"].isin(place)]
        kept = kept.assign(image_id=kept["image_id"].map(place), class_id=kept["class_id"].map(class_ids))
        if "probabilities" in kept:
            kept["probabilities"] = [np.asarray(values)[classes] for values in kept["probabilities"]]
        predictions[artifact] = kept.sort_values("image_id", ignore_index=True)
    data = dataclasses.replace(run.data, images=rows, annotations=labels.iloc[::-1], class_names=names)
    return ScoredRun(name, run.task, data, rows, predictions)
