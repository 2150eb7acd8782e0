"""How the report tells of a classifier, see `plumbline.report_words`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from plumbline.dataset_images import load_image
from plumbline.drawing import Image, class_color, cut_text, printable_name, printable_text, sheet, write_line
from plumbline.manifest import Dataset
from plumbline.report_words import ReportWords, Score

COLUMNS = 6  # of the sheet of samples
TILE = 224  # pixels: a class is seen on a small picture
FRAME = 6
TEXT = 40  # pixels above the picture, two lines
RIGHT, WRONG = class_color(0), class_color(1)  # blue and vermilion, which everyone tells apart

WORDS = ReportWords(
    model="classifier",
    objects="",
    num_objects_key="num_labels",
    answer="its class",
    scores=(
        Score("top1", "top1", "Top-1", "0..1, share of images whose most probable class is the labelled one"),
        Score("macro_f1", "macro_f1", "Macro F1", "0..1, mean over the classes of the scored split"),
        Score("top5", "top5", "Top-5", "0..1, share of images whose class is among the five most probable"),
        Score("roc_auc", "roc_auc", "ROC-AUC", "0..1, one class against the rest, mean over classes"),
        Score(
            "calibration_error", "calibration_error", "Calibration error",
            "0..1, mean gap between confidence and accuracy; lower is better",
        ),
    ),
    class_scores=(
        Score("class_f1", "f1", "F1", "0..1 per class; null for one without an image in the scored split"),
        Score("class_precision", "precision", "Precision", "0..1 per class; null without image or prediction of it"),
        Score("class_recall", "recall", "Recall", "0..1 per class; null for one without an image in the scored split"),
    ),
    class_note="F1 of each class against the rest, 0..1; every image has its most probable class.",
    at_threshold={"accepted_precision": "Precision", "coverage": "Accepted"},
    threshold_note=(
        "An image whose most probable class stays below its artifact's threshold is not accepted: let a person look. "
        "Precision: the share of the accepted images that is right. Recall: the share of all images that is accepted "
        "and right. Accepted: the share of all images that is."
    ),
    table_note="Calibration error: mean gap between the confidence and how often it is right; lower is better.",
    pr_title="Precision against recall, mean of classes",
)  # fmt: skip


def samples_note(name: str, threshold: float) -> str:
    """Say what the sample images show."""
    return (
        f"Predicted by {name}, with its confidence: blue where it is the labelled class, orange where it is not; in "
        f"brackets where it is below the threshold of {threshold:.3g}."
    )


def draw_samples(data: Dataset, image_ids: Sequence[int], predictions: pd.DataFrame, threshold: float) -> Image:
    """Draw images with their labelled and their predicted class.

    Args:
        data: Labels, and where the images are.
        image_ids: At least one.
        predictions: Columns image_id, class_id, confidence.
        threshold: 0..1; a prediction below it stands in brackets.

    Returns:
        Shape (H, W, 3), uint8 BGR.

    Raises:
        DatasetError: An image cannot be read.
    """
    surest = predictions.sort_values("confidence", ascending=False, kind="stable").drop_duplicates("image_id")
    predicted, truth = surest.set_index("image_id"), data.annotations.set_index("image_id")["class_id"]
    paths = data.images.set_index("image_id")["path"]
    tiles = []
    for image_id in image_ids:
        said, confidence = int(predicted.at[image_id, "class_id"]), float(predicted.at[image_id, "confidence"])
        text = f"{printable_name(data.class_names[said], said)} {confidence:.2f}"
        actual = int(truth.at[image_id])
        right = said == actual
        label = "" if right else f"labelled {printable_name(data.class_names[actual], actual)}"
        lines = (text if confidence >= threshold else f"({text})", label or printable_text(Path(paths[image_id]).name))
        tiles.append(_tile(load_image(data, paths[image_id]), lines, right=right))
    return sheet(tiles, COLUMNS)


def _tile(image: Image, lines: tuple[str, str], *, right: bool) -> Image:
    """Return a square picture in the colour of right or wrong, with what was predicted above it."""
    scale = (TILE - 2 * FRAME) / max(image.shape[:2])
    height, width = (max(round(side * scale), 1) for side in image.shape[:2])  # a strip keeps one pixel
    shown = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA)
    tile = np.full((TEXT + TILE, TILE, 3), 255, dtype=np.uint8)
    top, left = TEXT + (TILE - height) // 2, (TILE - width) // 2
    color = RIGHT if right else WRONG
    cv2.rectangle(tile, (left - FRAME, top - FRAME), (left + width + FRAME - 1, top + height + FRAME - 1), color, -1)
    tile[top : top + height, left : left + width] = shown
    for number, text in enumerate(lines):
        write_line(tile, cut_text(text, TILE), (2, 14 + 18 * number))
    return tile
