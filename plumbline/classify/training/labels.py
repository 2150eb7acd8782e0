"""The one label of each image that a classifier learns from or is chosen on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from plumbline.errors import TrainingError
from plumbline.manifest import Dataset

CORNERS = ["x1", "y1", "x2", "y2"]
WHAT_TO_DO = "label every image as a whole (a folder for each class, or a CSV table of images and classes)"


@dataclass(frozen=True)
class Labelled:
    """The images of one split, sorted by image_id.

    Attributes:
        image_ids: Shape (N,).
        dataset: Its images are read by their paths.
        paths: As images.path has them, length N.
        class_ids: Shape (N,).
    """

    image_ids: npt.NDArray[np.int64]
    dataset: Dataset
    paths: tuple[str, ...]
    class_ids: npt.NDArray[np.int64]


def labelled_images(dataset: Dataset, splits: pd.DataFrame, split: str) -> Labelled:
    """Return the images of a split with their labels.

    Args:
        dataset: The validated one.
        splits: Columns image_id and split.
        split: ``train`` or ``val``.

    Raises:
        TrainingError: The split is empty, or an image of it has no label, two, a box, or an unknown class.
    """
    wanted = splits.loc[splits["split"] == split, "image_id"]
    images = dataset.images[dataset.images["image_id"].isin(wanted)].sort_values("image_id")
    if images.empty:
        raise TrainingError(
            f"the split {split} has no images, expected at least one; add images, or give it a share in"
            " split.fractions of params.yaml"
        )
    image_ids = images["image_id"].to_numpy(np.int64)
    annotations = dataset.annotations[dataset.annotations["image_id"].isin(image_ids)]
    annotations = annotations.sort_values(["image_id", "ann_id"])
    _refuse_faults(annotations, len(dataset.class_names))
    _refuse_unlabelled(dataset, images, annotations)
    return Labelled(image_ids, dataset, tuple(images["path"]), annotations["class_id"].to_numpy(np.int64))


def _refuse_faults(annotations: pd.DataFrame, num_classes: int) -> None:
    is_box = annotations[CORNERS].notna().any(axis=1).to_numpy()
    is_unknown = ~annotations["class_id"].between(0, num_classes - 1).to_numpy()
    is_second = annotations["image_id"].duplicated().to_numpy()
    faulty = np.flatnonzero(is_box | is_unknown | is_second)
    if not len(faulty):
        return
    at = faulty[0]
    row = annotations.iloc[at]
    if is_box[at]:
        fault = f"a box of class {row['class_name']!r}, expected one label for the whole image; set task: detect in"
        fault += f" params.yaml, or {WHAT_TO_DO}"
    elif is_unknown[at]:
        fault = f"class {row['class_name']!r}, expected one of dataset.class_names; add it there, or correct the label"
    else:
        fault = f"a second label, {row['class_name']!r}, expected one for each image; keep the one that is true"
    raise TrainingError(f"{_place(row)}: {fault}{_more(len(faulty))}")


def _refuse_unlabelled(dataset: Dataset, images: pd.DataFrame, annotations: pd.DataFrame) -> None:
    unlabelled = images.loc[~images["image_id"].isin(annotations["image_id"]), "path"]
    if len(unlabelled):
        path = dataset.root / unlabelled.iloc[0]
        raise TrainingError(f"{path}: no label, expected one class; {WHAT_TO_DO}{_more(len(unlabelled))}")


def _place(row: pd.Series) -> str:
    line = int(row["source_line"])
    return f"{row['source_file']}:{line}" if line else str(row["source_file"])


def _more(count: int) -> str:
    return f" (and {count - 1} more such images)" if count > 1 else ""
