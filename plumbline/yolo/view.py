"""The folder that ultralytics trains from: a copy made from the manifest, never the truth.

Copies, not links: ultralytics rewrites some JPEGs in place, and the dataset's files share their bytes with DVC's cache.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from plumbline.boxes import xyxy_to_cxcywhn
from plumbline.errors import TrainingError
from plumbline.manifest import Dataset

SPLITS = ("train", "val")


def write_training_view(dataset: Dataset, splits: pd.DataFrame, folder: Path, stands_at: Path) -> Path:
    """Write the train and val images and labels in YOLO layout; test is left out, so that training cannot see it.

    Files are named by image_id, so that two images of one name in two folders cannot meet.

    Args:
        dataset: A dataset without errors.
        splits: Columns image_id and split.
        folder: An empty or absent folder.
        stands_at: Where the folder will stand when it is read: data.yaml needs the whole path.

    Returns:
        The path of its data.yaml.

    Raises:
        TrainingError: A split has no image, or train has no box; or the labels are classes of whole images.
    """
    _refuse_whole_images(dataset)
    images = (
        dataset.images.drop(columns="split")
        .merge(splits[["image_id", "split"]], on="image_id", validate="one_to_one")
        .sort_values("image_id")
    )
    # A crowd is no object to learn the outline of; COCO's own training sets are used without.
    single = dataset.annotations[~dataset.annotations["crowd"].astype(bool)]
    boxes_of = dict(tuple(single.groupby("image_id")))
    for split in SPLITS:
        rows = images[images["split"] == split]
        if rows.empty:
            raise TrainingError(
                f"the {split} split has no image, expected at least one; add images or change split.fractions"
            )
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
        for row in rows.itertuples():
            name = f"{row.image_id:08d}"
            target = folder / "images" / split / (name + Path(row.path).suffix.lower())
            target.write_bytes(dataset.image_data(row.path))
            text = _label_text(boxes_of.get(row.image_id), (row.width, row.height))
            (folder / "labels" / split / f"{name}.txt").write_text(text, encoding="utf-8")
    _refuse_no_boxes(dataset, images)
    data_yaml = folder / "data.yaml"
    # JSON is YAML, and quotes every name rightly.
    view = {
        "path": str(stands_at.resolve()),
        "train": "images/train",
        "val": "images/val",
        "names": dict(enumerate(dataset.class_names)),
    }
    data_yaml.write_text(json.dumps(view, indent=1), encoding="utf-8")
    return data_yaml


def _label_text(boxes: pd.DataFrame | None, resolution_wh: tuple[int, int]) -> str:
    if boxes is None:
        return ""
    rows = xyxy_to_cxcywhn(boxes[["x1", "y1", "x2", "y2"]].to_numpy(np.float64), resolution_wh)
    lines = (
        f"{class_id} {' '.join(f'{value:.9f}' for value in row)}\n"
        for class_id, row in zip(boxes["class_id"], rows, strict=True)
    )
    return "".join(lines)


def _refuse_no_boxes(dataset: Dataset, images: pd.DataFrame) -> None:
    train_ids = images.loc[images["split"] == "train", "image_id"]
    if not dataset.annotations["image_id"].isin(train_ids).any():
        raise TrainingError("the train split has no box, expected at least one; check that the labels were found")


def _refuse_whole_images(dataset: Dataset) -> None:
    whole = dataset.annotations[dataset.annotations[["x1", "y1", "x2", "y2"]].isna().all(axis=1)]
    if len(whole):
        first = whole.iloc[0]
        raise TrainingError(
            f"{first['source_file']}: a class of a whole image, expected boxes ({len(whole)} such labels);"
            " a detector needs boxes: set dataset.source to labels that have them"
        )
