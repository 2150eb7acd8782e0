"""A data set and an ONNX artifact so small that a test can foresee every probability.

The network averages the image and calls it `red`, `green` or `blue` by its strongest colour. On an image of one colour
of brightness b (0..255) it gives that class exp(8 b / 255) of exp(8 b / 255) + 2: the brighter, the more confidently.
"""

import cv2
import numpy as np
import onnx
import pandas as pd
from onnx import TensorProto, helper, numpy_helper

from plumbline.manifest import ANNOTATIONS_SCHEMA, FINDINGS_SCHEMA, IMAGES_SCHEMA, Dataset, table, write_dataset
from plumbline.runtime.artifact import (
    Artifact,
    ClassifierDecode,
    ClassifierOutputs,
    InputSpec,
    Preprocessing,
    write_artifact,
)

CLASSES = ("red", "green", "blue")
SIZE, GAIN = 32, 8.0


def confidence_of(brightness):
    """What the network of three classes says of an image of one colour: the probability of that class."""
    strength = np.exp(GAIN * brightness / 255)
    return float(strength / (strength + len(CLASSES) - 1))


def write_model(path, num_classes=3):
    """Logits are 8 * the mean of the colours, 0..1; a class beyond the three has the logit -8."""
    weights = np.zeros((num_classes, 3, 1, 1), np.float32)
    weights[range(3), range(3), 0, 0] = GAIN
    bias = np.where(np.arange(num_classes) < 3, 0, -GAIN).astype(np.float32)
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["color"]),
        helper.make_node("Conv", ["color", "weight", "bias"], ["scores"]),
        helper.make_node("Flatten", ["scores"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, num_classes])],
        [numpy_helper.from_array(weights, "weight"), numpy_helper.from_array(bias, "bias")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def write_tiny_classifier(folder, class_names=CLASSES, confidence_threshold=0.5, **changed):
    """Write the artifact, of three classes or more, into a new folder; `changed` are other values of `Artifact`."""
    folder.mkdir(parents=True)
    write_model(folder / "model.onnx", len(class_names))
    values = {
        "name": "tiny",
        "task": "classify",
        "backend": "onnx",
        "precision": "fp32",
        "class_names": tuple(class_names),
        "input": InputSpec(name="image", size_wh=(SIZE, SIZE)),
        "preprocessing": Preprocessing(),
        "outputs": ClassifierOutputs(),
        "decode": ClassifierDecode(confidence_threshold),
        "files": {},
        "toolchain": {},
        "lineage": {},
        "notes": {},
    }
    return write_artifact(Artifact(**(values | changed)), folder)


def write_tiny_class_dataset(folder, drawn_by_image, split_by_image, labels_by_image=None, class_names=CLASSES):
    """Draw images, and write `dataset` (the bytes), `validated` (the tables) and `splits.parquet` below a folder.

    Args:
        folder: An empty one.
        drawn_by_image: Per image (class_id of the colour, brightness 0..255).
        split_by_image: One name per image.
        labels_by_image: Per image the class_id that its label names, or None for no label; all None for what is drawn.
        class_names: Index is class_id.

    Returns:
        Name -> path: dataset, validated, splits.
    """
    images, annotations = [], []
    (folder / "dataset" / "images").mkdir(parents=True)
    (folder / "validated").mkdir()
    labels = [class_id for class_id, _ in drawn_by_image] if labels_by_image is None else labels_by_image
    for image_id, ((color, brightness), class_id) in enumerate(zip(drawn_by_image, labels, strict=True)):
        picture = np.zeros((SIZE, SIZE, 3), np.uint8)
        picture[..., 2 - color] = brightness  # BGR
        path = f"images/{image_id:03}.png"
        cv2.imwrite(str(folder / "dataset" / path), picture)
        row = {"image_id": image_id, "path": path, "width": SIZE, "height": SIZE, "readable": True, "group": ""}
        images.append(row | {"source": f"in/{path}", "brightness": brightness / 3})
        if class_id is not None:
            row = {"image_id": image_id, "ann_id": len(annotations), "class_id": class_id}
            row |= dict.fromkeys(("x1", "y1", "x2", "y2"), float("nan"))
            row |= {"class_name": class_names[class_id], "source_file": f"in/{path}", "source_line": 0}
            annotations.append(row | {"difficult": False, "truncated": False, "crowd": False, "rle": ""})
    tables = table(images, IMAGES_SCHEMA), table(annotations, ANNOTATIONS_SCHEMA), table([], FINDINGS_SCHEMA)
    write_dataset(Dataset(*tables, tuple(class_names), folder / "dataset"), folder / "validated")
    splits = {"image_id": range(len(images)), "split": split_by_image, "group": [""] * len(images)}
    pd.DataFrame(splits).to_parquet(folder / "splits.parquet")
    return {name: folder / name for name in ("dataset", "validated")} | {"splits": folder / "splits.parquet"}
