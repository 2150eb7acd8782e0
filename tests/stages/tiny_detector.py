"""A data set and an ONNX artifact so small that a test can foresee every detection.

The network is a real split head: it averages cells of 8 x 8 pixels and calls a cell `red` or `green` by its colour. On
images of 64 x 64 that are black but for such cells it finds exactly those, the brighter the more confidently.
"""

import cv2
import numpy as np
import onnx
import pandas as pd
from onnx import TensorProto, helper, numpy_helper

from plumbline.manifest import ANNOTATIONS_SCHEMA, FINDINGS_SCHEMA, IMAGES_SCHEMA, Dataset, table, write_dataset
from plumbline.runtime.artifact import Artifact, DecodeSpec, InputSpec, OutputSpec, Preprocessing, write_artifact

CLASSES = ("red", "green")
SIZE, CELL = 64, 8


def write_model(path):
    """Class logits are 16 * (its colour - the other two) - 8, with colours of 0..1; every box is its cell."""
    weights = {
        "cls_w": np.array([[16, -16, -16], [-16, 16, -16]], np.float32).reshape(2, 3, 1, 1),
        "cls_b": np.full(2, -8, np.float32),
        "box_w": np.zeros((4, 3, 1, 1), np.float32),
        "box_b": np.full(4, 0.5, np.float32),
    }
    nodes = [
        helper.make_node("AveragePool", ["image"], ["cells"], kernel_shape=[CELL, CELL], strides=[CELL, CELL]),
        helper.make_node("Conv", ["cells", "box_w", "box_b"], ["box_8"]),
        helper.make_node("Conv", ["cells", "cls_w", "cls_b"], ["cls_8"]),
    ]
    side = SIZE // CELL
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, SIZE, SIZE])],
        [
            helper.make_tensor_value_info("box_8", TensorProto.FLOAT, [1, 4, side, side]),
            helper.make_tensor_value_info("cls_8", TensorProto.FLOAT, [1, 2, side, side]),
        ],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def write_tiny_artifact(folder, class_names=CLASSES):
    folder.mkdir(parents=True)
    write_model(folder / "model.onnx")
    return write_artifact(
        Artifact(
            name="tiny",
            task="detect",
            backend="onnx",
            precision="fp32",
            class_names=class_names,
            input=InputSpec(name="image", size_wh=(SIZE, SIZE)),
            preprocessing=Preprocessing(),
            outputs=OutputSpec(names=("box_8", "cls_8"), strides=(CELL,), reg_max=1, nms_free=False),
            decode=DecodeSpec(confidence_threshold=0.25, iou_threshold=0.7, max_detections=300),
            files={},
            toolchain={},
            lineage={},
            notes={},
        ),
        folder,
    )


def cell_box(column, row):
    return (column * CELL, row * CELL, (column + 1) * CELL, (row + 1) * CELL)


def write_tiny_dataset(folder, cells_by_image, split_by_image, labels_by_image=None):
    """Draw images, and write `dataset` (the bytes), `validated` (the tables) and `splits.parquet` below a folder.

    Args:
        folder: An empty one.
        cells_by_image: One list per image of (class_id, column, row, brightness 0..255).
        split_by_image: One name per image.
        labels_by_image: Cells that the labels name; None for those that are drawn.
    """
    images, annotations = [], []
    (folder / "dataset" / "images").mkdir(parents=True)
    (folder / "validated").mkdir()
    for image_id, cells in enumerate(cells_by_image):
        picture = np.zeros((SIZE, SIZE, 3), np.uint8)
        for class_id, column, row, brightness in cells:
            x1, y1, x2, y2 = cell_box(column, row)
            picture[y1:y2, x1:x2, 2 - class_id] = brightness  # BGR
        path = f"images/{image_id:03}.png"
        cv2.imwrite(str(folder / "dataset" / path), picture)
        images.append({"image_id": image_id, "path": path, "width": SIZE, "height": SIZE, "readable": True})
        for class_id, column, row, *_ in cells if labels_by_image is None else labels_by_image[image_id]:
            corners = dict(zip(("x1", "y1", "x2", "y2"), map(float, cell_box(column, row)), strict=True))
            annotations.append({"image_id": image_id, "ann_id": len(annotations), "class_id": class_id, **corners})
    tables = table(images, IMAGES_SCHEMA), table(annotations, ANNOTATIONS_SCHEMA), table([], FINDINGS_SCHEMA)
    write_dataset(Dataset(*tables, CLASSES, folder / "dataset"), folder / "validated")
    splits = {"image_id": range(len(images)), "split": split_by_image, "group": [""] * len(images)}
    pd.DataFrame(splits).to_parquet(folder / "splits.parquet")
    return {name: folder / name for name in ("dataset", "validated")} | {"splits": folder / "splits.parquet"}
