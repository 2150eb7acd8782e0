"""The one class of every image, or a clear word on why there is none."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from plumbline.errors import EvaluationError
from plumbline.manifest import Dataset

_CORNERS = ["x1", "y1", "x2", "y2"]


def truth_of(dataset: Dataset, images: pd.DataFrame) -> pd.DataFrame:
    """Return the class of each image.

    Args:
        dataset: A label of a whole image is an annotation whose corners are NaN.
        images: Rows of its images table.

    Returns:
        Columns image_id and class_id, one row per image, in the order of image_id.

    Raises:
        EvaluationError: An image has boxes, no label, or more than one; or a class that is not in the class names.
    """
    labels = dataset.annotations[dataset.annotations["image_id"].isin(images["image_id"])]
    labels = labels.sort_values(["image_id", "ann_id"])
    _refuse_boxes(labels)
    _refuse_other_counts(labels, images)
    unknown = labels[~labels["class_id"].between(0, len(dataset.class_names) - 1)]
    if len(unknown):
        row = unknown.iloc[0]
        raise EvaluationError(
            f"{_place(row)}: the class {row['class_name']!r}, expected one of {', '.join(dataset.class_names)}"
            f" ({len(unknown)} such images); correct the label, or add the class to dataset.class_names in params.yaml"
        )
    return labels[["image_id", "class_id"]].astype(np.int64).reset_index(drop=True)


def _refuse_boxes(labels: pd.DataFrame) -> None:
    boxes = labels[labels[_CORNERS].notna().any(axis=1)]
    if len(boxes):
        raise EvaluationError(
            f"{_place(boxes.iloc[0])}: a box, expected one class for the whole image, got {len(boxes)} boxes on"
            f" {boxes['image_id'].nunique()} images; say task: detect in params.yaml, or give the images classes"
        )


def _refuse_other_counts(labels: pd.DataFrame, images: pd.DataFrame) -> None:
    bare = images[~images["image_id"].isin(labels["image_id"])].sort_values("image_id")
    if len(bare):
        raise EvaluationError(
            f"{bare.iloc[0]['path']}: expected one class, got no label ({len(bare)} such images); label it, or take it"
            " out of the data set"
        )
    second = labels[labels.duplicated("image_id")]
    if len(second):
        row = second.iloc[0]
        names = ", ".join(labels.loc[labels["image_id"] == row["image_id"], "class_name"])
        raise EvaluationError(
            f"{_place(row)}: a second class for its image, expected one, got {names} ({second['image_id'].nunique()}"
            " such images); correct the label"
        )


def _place(row: Any) -> str:
    return f"{row['source_file']}:{row['source_line']}" if row["source_line"] > 0 else str(row["source_file"])
