"""How the report tells of a detector, see `plumbline.report_words`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from plumbline.dataset_images import load_image
from plumbline.drawing import (
    Image,
    captioned,
    class_color,
    draw_sample,
    printable_name,
    resize,
    scale_for_viewing,
    sheet,
)
from plumbline.manifest import Dataset
from plumbline.report_words import ReportWords, Score

XYXY = ["x1", "y1", "x2", "y2"]
COLUMNS = 3  # of the sheet of samples: tiles of 480 to 640 px stay legible on a page

WORDS = ReportWords(
    model="detector",
    objects="boxes",
    num_objects_key="num_boxes",
    answer="its boxes",
    scores=(
        Score("map50_95", "map50_95", "mAP50-95", "0..1, COCO's mean over classes and IoU 0.50:0.05:0.95"),
        Score("map50", "map50", "mAP50", "0..1, at IoU 0.50"),
        Score("map75", "map75", "mAP75", "0..1, at IoU 0.75", in_table=False),
        Score("detection_precision", "precision", "Precision", "0..1, at the artifact's own confidence threshold"),
        Score("detection_recall", "recall", "Recall", "0..1, at the artifact's own confidence threshold"),
        Score("detection_f1", "f1", "F1", "0..1, at the artifact's own confidence threshold", in_table=False),
    ),
    class_scores=(
        Score(
            "class_map50_95", "map50_95", "AP50-95", "0..1 per class; null for one without a box in the scored split"
        ),
    ),
    class_note="COCO's AP at IoU 0.50:0.95, 0..1.",
    at_threshold={"precision": "Precision", "recall": "Recall", "f1": "F1"},
    threshold_note="A detection below its artifact's threshold is not shown; mAP does not depend on it.",
    table_note="Precision and recall: at IoU 0.50, of detections that reach the artifact's confidence threshold.",
    pr_title="Precision against recall, IoU 0.50",
)


def samples_note(name: str, threshold: float) -> str:
    """Say what the sample images show."""
    return f"Detections of {name} with confidence {threshold:.3g} or more: thick, named. Ground truth: thin, dashed."


def draw_samples(data: Dataset, image_ids: Sequence[int], predictions: pd.DataFrame, threshold: float) -> Image:
    """Draw images with their boxes and with the detections at or above the threshold.

    Args:
        data: Labels, and where the images are.
        image_ids: At least one.
        predictions: Columns image_id, class_id, confidence, x1, y1, x2, y2 (pixels).
        threshold: 0..1.

    Returns:
        Shape (H, W, 3), uint8 BGR.

    Raises:
        DatasetError: An image cannot be read.
    """
    shown = predictions[predictions["confidence"] >= threshold]
    return sheet([_drawn(image_id, data, shown) for image_id in image_ids], COLUMNS)


def _drawn(image_id: int, data: Dataset, predictions: pd.DataFrame) -> Image:
    """Draw one image, large enough to read the text."""
    name = data.images.set_index("image_id").at[image_id, "path"]
    image = load_image(data, name)
    scale = scale_for_viewing(*image.shape[:2])
    truth = data.annotations[data.annotations["image_id"] == image_id]
    # The surest label gets the best place.
    found = predictions[predictions["image_id"] == image_id].sort_values("confidence", ascending=False, kind="stable")
    labels = [
        f"{printable_name(data.class_names[c], c)} {confidence:.2f}"
        for c, confidence in zip(found["class_id"], found["confidence"], strict=True)
    ]
    colors = [class_color(c) for c in found["class_id"]]
    truth_xyxy, found_xyxy = truth[XYXY].to_numpy() * scale, found[XYXY].to_numpy() * scale
    drawn = draw_sample(resize(image, scale), truth_xyxy, found_xyxy, labels, colors)
    return captioned(drawn, printable_name(Path(name).name, image_id))
