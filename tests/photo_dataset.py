"""A data set of six images in three splits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from plumbline.files import sha256_of
from plumbline.manifest import ANNOTATIONS_SCHEMA, FINDINGS_SCHEMA, IMAGES_SCHEMA, Dataset, table, write_dataset

SPLIT_OF = ("train", "train", "val", "train", "test", "train")
CLASSES = ("a", "b", "c")


def write_photo_dataset(folder: Path, photos: Sequence[np.ndarray], *, labelled: bool = False) -> dict[str, Path]:
    """Write `dataset`, `validated` and `splits.parquet`; return them as a stage's keyword arguments.

    With `labelled`, every image has a box of each class.
    """
    (folder / "dataset" / "images").mkdir(parents=True)
    (folder / "validated").mkdir()
    rows = []
    for image_id, photo in enumerate(photos):
        path = f"images/{image_id}.png"
        cv2.imwrite(str(folder / "dataset" / path), photo)
        height, width = photo.shape[:2]
        facts = {"phash": 0, "group": "", "source": path, "readable": True}
        numbers = {"width": width, "height": height, "brightness": 0.0, "contrast": 0.0, "sharpness": 0.0}
        sha256 = sha256_of(folder / "dataset" / path)
        rows.append({"image_id": image_id, "path": path, "sha256": sha256, **facts, **numbers})
    boxes = [_box(image, class_id) for image in rows for class_id in range(len(CLASSES))] if labelled else []
    tables = table(rows, IMAGES_SCHEMA), table(boxes, ANNOTATIONS_SCHEMA), table([], FINDINGS_SCHEMA)
    write_dataset(Dataset(*tables, CLASSES, folder), folder / "validated")
    splits = folder / "splits.parquet"
    pd.DataFrame({"image_id": range(6), "split": SPLIT_OF, "group": range(6)}).to_parquet(splits)
    return {"dataset": folder / "dataset", "labels": folder / "validated", "splits": splits}


def _box(image: dict, class_id: int) -> dict:
    """A box in another corner for each class."""
    left, top = class_id % 2 * image["width"] / 2, class_id // 2 * image["height"] / 2
    corners = {"x1": left, "y1": top, "x2": left + image["width"] / 2, "y2": top + image["height"] / 2}
    names = {"class_id": class_id, "class_name": CLASSES[class_id]}
    rest = {"difficult": False, "truncated": False, "crowd": False, "polygon": None, "rle": ""}
    ids = {"image_id": image["image_id"], "ann_id": image["image_id"] * len(CLASSES) + class_id}
    return {**ids, **names, **corners, **rest, "source_file": "", "source_line": 0}
