"""Small data sets of images with one class each, and settings to train on them."""

import cv2
import numpy as np
import pandas as pd

from plumbline.manifest import ANNOTATIONS_SCHEMA, FINDINGS_SCHEMA, IMAGES_SCHEMA, Dataset, table
from plumbline.training_settings import ClassifyTraining

SETTINGS = {
    "model": "lenet",
    "pretrained": "none",
    "epochs": 4,
    "patience": 100,
    "image_size": 16,
    "resize": "letterbox",
    "batch": 8,
    "optimizer": "AdamW",
    "learning_rate": 0.004,
    "warmup_epochs": 1,
    "weight_decay": 0.01,
    "label_smoothing": 0.1,
    "focal_gamma": 0.0,
    "class_weights": "none",
    "auxiliary_weight": 0.3,
    "flip_horizontal": 0.0,
    "rotate_degrees": 10.0,
    "shift": 0.1,
    "zoom": 0.1,
    "color_jitter": 0.1,
    "precision": "fp32",
    "seed": 0,
    "device": "cpu",
}


def training_settings(**changed):
    return ClassifyTraining.model_validate(SETTINGS | changed)


def annotation_row(image_id, ann_id, class_id, class_name, corners=(float("nan"),) * 4):
    row = {"image_id": image_id, "ann_id": ann_id, "class_id": class_id, "class_name": class_name}
    row |= dict(zip(("x1", "y1", "x2", "y2"), corners, strict=True))
    row |= {"difficult": False, "truncated": False, "crowd": False, "rle": ""}
    return row | {"source_file": "in/labels.csv", "source_line": ann_id + 2}


def write_class_images(folder, classes_by_split, class_names=("left", "right", "top"), size_wh=(16, 16), seed=0):
    """Write noisy images with a bright half that tells the class: left, right, top or bottom.

    Args:
        folder: Gets `images/`.
        classes_by_split: Name of a split -> class_id of each of its images.
        class_names: Index is class_id.
        size_wh: Of each image.
        seed: Of the noise.

    Returns:
        The dataset and its table of splits.
    """
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    width, height = size_wh
    halves = [np.s_[:, : width // 2], np.s_[:, width // 2 :], np.s_[: height // 2], np.s_[height // 2 :]]
    images, annotations, splits = [], [], []
    for split, class_ids in classes_by_split.items():
        for class_id in class_ids:
            image_id = len(images)
            picture = rng.integers(0, 120, (height, width, 3), dtype=np.uint8)
            picture[halves[class_id]] += 100
            path = f"images/{image_id:03}.png"
            cv2.imwrite(str(folder / path), picture)
            row = {"image_id": image_id, "path": path, "width": width, "height": height, "readable": True}
            images.append(row | {"group": "", "source": f"in/{path}"})
            annotations.append(annotation_row(image_id, image_id, class_id, class_names[class_id]))
            splits.append(split)
    tables = table(images, IMAGES_SCHEMA), table(annotations, ANNOTATIONS_SCHEMA), table([], FINDINGS_SCHEMA)
    frame = pd.DataFrame({"image_id": range(len(images)), "split": splits})
    return Dataset(*tables, tuple(class_names), folder), frame


def some_class_images(folder, num_train=20, num_val=9, num_classes=3):
    """As `write_class_images`, with a number of images of each split, their classes in turn; a few in test as well."""
    numbers = {"train": num_train, "val": num_val, "test": 2}
    names = ("left", "right", "top", "bottom")[:num_classes]
    classes = {split: [i % num_classes for i in range(number)] for split, number in numbers.items()}
    return write_class_images(folder, classes, names)
