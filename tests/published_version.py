"""A tiny artifact, and versions made of such, for the tests of what fetches and traces them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from plumbline.files import sha256_of
from plumbline.published import Labels, Manifest, PublishedFile, Target
from plumbline.published_store import Store
from plumbline.published_upload import upload, upload_manifest
from plumbline.runtime.artifact import (
    ARTIFACT_JSON,
    Artifact,
    ClassifierDecode,
    ClassifierOutputs,
    InputSpec,
    Preprocessing,
    write_artifact,
)

COMMIT = "1" * 40
LINEAGE = {
    "dataset_sha256": "d" * 64,
    "splits_sha256": "5" * 64,
    "weights_sha256": "e" * 64,
    "hub_sha256": "f" * 64,
    "git_commit": "c" * 40,
    "train_git_commit": "b" * 40,
    "pretrained_sha256": None,
    "train": {"model": "lenet", "epochs": 3},
}
LABEL_ROWS = """\
image,image_sha256,split,label_file,label_sha256,label_from
images/0.png,00,train,photos/0.txt,a0,file
images/1.png,01,val,photos/1.txt,a1,file
images/2.png,02,test,,,
,,,photos/classes.txt,aa,file
"""


def write_tiny(
    folder: Path, name: str, precision: str, gain: float, lineage: dict | None = None, padding: int = 0
) -> None:
    """Write an artifact that names the strongest colour of an image; `padding` bytes make its file larger."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = (np.eye(3, dtype=np.float32) * gain).reshape(3, 3, 1, 1)
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["color"]),
        helper.make_node("Conv", ["color", "weight"], ["scores"]),
        helper.make_node("Flatten", ["scores"], ["logits"]),
    ]
    ends = [
        helper.make_tensor_value_info(end, TensorProto.FLOAT, shape)
        for end, shape in (("image", [1, 3, 32, 32]), ("logits", [1, 3]))
    ]
    graph = helper.make_graph(nodes, "tiny", ends[:1], ends[1:], [numpy_helper.from_array(weights, "weight")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    model.doc_string = "x" * padding
    onnx.save(model, folder / "model.onnx")
    artifact = Artifact(
        name=name,
        task="classify",
        backend="onnx",
        precision=precision,
        class_names=("red", "green", "blue"),
        input=InputSpec("image", (32, 32)),
        preprocessing=Preprocessing(),
        outputs=ClassifierOutputs(),
        decode=ClassifierDecode(0.5),
        files={},
        toolchain={},
        lineage=LINEAGE if lineage is None else lineage,
        notes={},
    )
    write_artifact(artifact, folder)


@dataclass(frozen=True)
class Version:
    """A manifest, and the files here that it names, by their key."""

    manifest: Manifest
    files: dict[str, Path]

    def changed(self, **values: object) -> Version:
        return replace(self, manifest=replace(self.manifest, **values))


def make_version(work: Path, version: str = "v1.0.0", gain: float = 8.0, padding: int = 0) -> Version:
    """Make a version of two targets in a new folder."""
    files: dict[str, Path] = {}

    def file(path: Path, name: str) -> PublishedFile:
        found = PublishedFile(name, path.stat().st_size, sha256_of(path))
        files[found.key] = path
        return found

    targets = {}
    for name, precision, add in (("onnx-fp32", "fp32", 0), ("onnx-int8", "int8", 1)):
        folder = work / name
        write_tiny(folder, name, precision, gain + add, padding=padding)
        of = tuple(file(folder / path, path) for path in ("model.onnx", ARTIFACT_JSON))
        targets[name] = Target("onnx", precision, of, {"top1": 0.9}, LINEAGE)
    (work / "labels.csv").write_text(LABEL_ROWS)
    labels = Labels(file(work / "labels.csv", "labels.csv"), "photos", 3, 3, 0, "0" * 64)
    needs = {"fastest inside the budget": "onnx-int8"}
    return Version(Manifest("signs", version, COMMIT, "classify", needs, targets, labels, "9" * 64), files)


def publish_version(store: Store, version: Version) -> None:
    """Write it into a store."""
    for file in version.manifest.files():
        upload(store, version.manifest, version.files, file)
    upload_manifest(store, version.manifest)
