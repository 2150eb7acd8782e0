"""A detector's training of seconds, and ways to end it before its time. As a script: one run in a process of its own.

python tests/small_detector_run.py FOLDER WHEN SETTINGS_AS_JSON
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from plumbline.manifest import ANNOTATIONS_SCHEMA, FINDINGS_SCHEMA, IMAGES_SCHEMA, Dataset, table
from plumbline.training_settings import DetectTraining

NUM_IMAGES, SIDE = 22, 32
CLASSES = ("square", "bar")
SETTINGS = {
    "model": "yolo11n", "pretrained": "none", "epochs": 4, "patience": 100, "image_size": SIDE, "batch": 4,
    "optimizer": "AdamW", "learning_rate": 0.002, "flip_horizontal": 0.5, "mosaic": 0.8, "close_mosaic": 2,
    "precision": "fp32", "seed": 3, "device": "cpu",
}  # fmt: skip


def settings_with(**changes) -> DetectTraining:
    return DetectTraining(**{**SETTINGS, **changes})


def box(ann_id: int, image_id: int, class_id: int, xyxy: tuple[int, int, int, int]) -> dict:
    corners = dict(zip(("x1", "y1", "x2", "y2"), map(float, xyxy), strict=True))
    row = {"image_id": image_id, "ann_id": ann_id, "class_id": class_id, "class_name": CLASSES[class_id]}
    rest = {"difficult": False, "truncated": False, "crowd": False, "polygon": None, "rle": ""}
    return {**row, **corners, **rest, "source_file": f"{image_id}.txt", "source_line": 1}


def small_dataset(folder: Path) -> tuple[Dataset, pd.DataFrame]:
    """Noise with bright squares and dark bars: 14 images to train, no multiple of the batch, 6 for val, 2 for test."""
    rng = np.random.default_rng(5)
    images, boxes = [], []
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for image_id in range(NUM_IMAGES):
        picture = rng.integers(90, 150, (SIDE, SIDE, 3), dtype=np.uint8)
        for _ in range(int(rng.integers(1, 4))):
            class_id = int(rng.integers(2))
            width, height = (8, 8) if class_id == 0 else (14, 5)
            x, y = (int(rng.integers(SIDE - width)), int(rng.integers(SIDE - height)))
            picture[y : y + height, x : x + width] = 240 if class_id == 0 else 15
            boxes.append(box(len(boxes), image_id, class_id, (x, y, x + width, y + height)))
        path = f"images/{image_id}.png"
        if not (folder / path).is_file():
            cv2.imwrite(str(folder / path), picture)
        images.append({"image_id": image_id, "path": path, "sha256": f"{image_id:064x}", "width": SIDE, "height": SIDE,
                       "phash": image_id, "group": "", "source": path, "split": "", "readable": True, "problem": "",
                       "damaged": False, "exif_orientation": 1, "brightness": 1.0, "contrast": 1.0,
                       "sharpness": 1.0})  # fmt: skip
    tables = table(images, IMAGES_SCHEMA), table(boxes, ANNOTATIONS_SCHEMA), table([], FINDINGS_SCHEMA)
    splits = pd.DataFrame({"image_id": range(NUM_IMAGES), "split": ["train"] * 14 + ["val"] * 6 + ["test"] * 2})
    return Dataset(*tables, CLASSES, folder), splits


def train_in(folder: Path, say: Callable[[str], None] = print, **changes):
    """Train in ``folder/work``, with the data in ``folder/data``."""
    from plumbline.detect.training import train

    data, splits = small_dataset(folder / "data")
    return train(data, splits, settings_with(**changes), work=folder / "work", tensorboard=folder / "events", say=say)


@contextmanager
def ended(when: str, end: Callable[[], None]):
    """Call `end` at ``batch 2.1`` (epoch and batch, from 0), ``epoch 2`` (after it), or ``writing 2`` (its state)."""
    import torch

    from plumbline.yolo import trainer as module

    kind, place = when.split()
    trainer, save = module.StatefulTrainer, torch.save
    at = float(place)

    class Ended(trainer):
        def optimizer_step(self):
            super().optimizer_step()
            if kind == "batch" and (self.epoch, self._batch - 1) == tuple(map(int, place.split("."))):
                end()

        def save_model(self):
            if kind == "writing" and self.epoch == at:
                torch.save = half_written
            saved = super().save_model()
            if kind == "epoch" and self.epoch == at:
                end()
            return saved

    def half_written(value, file, **more):
        if not isinstance(file, Path):
            return save(value, file, **more)
        save(value, file, **more)
        file.write_bytes(file.read_bytes()[:100_000])
        end()
        return None

    module.StatefulTrainer = Ended
    try:
        yield
    finally:
        module.StatefulTrainer, torch.save = trainer, save


def kill_this_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    with ended(sys.argv[2], kill_this_process):
        train_in(Path(sys.argv[1]), **json.loads(sys.argv[3]))
