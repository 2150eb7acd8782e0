"""Make the two files that every number is compared with: the weights as an artifact, and the hub's ONNX."""

from __future__ import annotations

import dataclasses
import functools
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field

from plumbline.backends import HUB
from plumbline.chosen_threshold import ThresholdParams, choose_on_val
from plumbline.dataset_images import load_image
from plumbline.errors import BackendError
from plumbline.files import replacing
from plumbline.hub_session import TOLERANCE
from plumbline.lineage import git_commit, toolchain
from plumbline.manifest import Dataset, read_dataset
from plumbline.params import DifficultParams, StageParams, load_section
from plumbline.parity import NUM_IMAGES, REFERENCE, check_parity, make_reference, write_reference
from plumbline.runtime.artifact import Artifact, ClassifierDecode, DecodeSpec, write_artifact
from plumbline.runtime.onnx_engine import open_onnx
from plumbline.runtime.preprocess import preprocess
from plumbline.runtime.session import load_artifact
from plumbline.split_images import images_of_split
from plumbline.tasks import task_module
from plumbline.trained import WEIGHTS
from stages.shape import exit_code, path_arguments


class HubParams(StageParams):
    """Section `hub`."""

    opset: int = Field(ge=13, le=21, description="of the ONNX file; RKNN reads up to 19")


class DetectParams(StageParams):
    """Section `detect`: how raw outputs become detections, written into every artifact."""

    iou_threshold: float = Field(gt=0, le=1, description="of non-maximum suppression")
    max_detections: int = Field(ge=1, description="per image")


@dataclasses.dataclass(frozen=True)
class HubSections:
    """The sections that this stage reads."""

    hub: HubParams
    detect: DetectParams
    threshold: ThresholdParams
    evaluate: DifficultParams


def run(
    task: str,
    params: HubSections,
    *,
    train: Path,
    dataset: Path,
    labels: Path,
    splits: Path,
    weights: Path,
    out: Path,
) -> Artifact:
    """Write the weights' artifact folder and the hub's.

    Args:
        task: A row of `plumbline.tasks.TASKS`.
        params: See `HubSections`.
        train: Folder with best.pt and train.json.
        dataset: Folder that the paths of images are relative to.
        labels: The validated dataset.
        splits: Table of image_id and split.
        weights: Artifact folder of the trained weights (backend ``torch``).
        out: Artifact folder of the hub (backend ``onnx``, fp32).

    Returns:
        The hub's `artifact.json`.

    Raises:
        BackendError: The training's files are not there, torch cannot export the network, or what it exports computes
            something else.
        EvaluationError: No threshold gives the precision demanded on val.
    """
    # torch takes seconds to import, and params.yaml is checked with this module's models.
    from plumbline.networks import count_parameters, export_onnx

    record = _read_record(train / "train.json", task)
    network = task_module(task, "network").load_network(train / WEIGHTS)
    artifact = Artifact(
        name="weights",
        task=task,
        backend="torch",
        precision="fp32",
        class_names=tuple(record["class_names"]),
        input=network.input,
        preprocessing=network.preprocessing,
        outputs=network.outputs,
        decode=_decode(task, params.detect),
        files={},
        toolchain=record["toolchain"],
        lineage={**record["lineage"], "git_commit": git_commit(Path())},
        notes={"num_parameters": count_parameters(network.module)},
    )
    data = read_dataset(labels, root=dataset)
    with replacing(weights) as temporary:
        temporary.mkdir()
        shutil.copyfile(train / WEIGHTS, temporary / WEIGHTS)
        write_artifact(artifact, temporary)
        tell = functools.partial(print, flush=True)
        choose_on_val(temporary, data, splits, params.threshold, difficult=params.evaluate.difficult, tell=tell)
        engine = load_artifact(temporary).engine
        reference = make_reference(engine, _tensors(artifact, data, splits))
    hub = dataclasses.replace(
        artifact,
        name="hub",
        backend="onnx",
        toolchain={**artifact.toolchain, **toolchain(("onnx", "onnxslim"))},
        notes={**artifact.notes, "opset": params.hub.opset},
    )
    with replacing(out) as temporary:
        temporary.mkdir()
        export_onnx(network, params.hub.opset, temporary / HUB)
        engine = open_onnx(temporary / HUB, hub, 1)
        parity = check_parity(reference, engine, hub.outputs.names, TOLERANCE, f"{out / HUB}")
        write_reference(reference, temporary / REFERENCE)
        return write_artifact(dataclasses.replace(hub, notes={**hub.notes, "parity": parity.told()}), temporary)


def _tensors(artifact: Artifact, data: Dataset, splits: Path) -> list[npt.NDArray[np.float32]]:
    """Return input tensors of some train images, spread over all of them."""
    paths = images_of_split(data.images, splits, "train")["path"]
    chosen = paths.iloc[np.unique(np.linspace(0, len(paths) - 1, NUM_IMAGES).astype(int))]
    images = (load_image(data, path) for path in chosen)
    return [preprocess(image, artifact.input.size_wh, artifact.preprocessing)[0] for image in images]


def _decode(task: str, detect: DetectParams) -> DecodeSpec | ClassifierDecode:
    """Return how outputs are decoded, with a threshold of 1 until one is chosen."""
    if task == "classify":
        return ClassifierDecode(confidence_threshold=1.0)
    return DecodeSpec(confidence_threshold=1.0, **detect.model_dump())


def _read_record(path: Path, task: str) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BackendError(
            f"{path}: cannot be read ({error}), expected what the train stage writes; run it again"
        ) from error
    if record.get("task") != task:
        raise BackendError(f"{path}: trained for the task {record.get('task')}, expected {task}; run dvc repro")
    return record


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage."""
    names = ("train", "dataset", "labels", "splits", "weights", "out")
    args = path_arguments(__doc__, names, argv, words=("task",))

    def work() -> None:
        params = HubSections(
            hub=load_section(args.params, "hub", HubParams),
            detect=load_section(args.params, "detect", DetectParams),
            threshold=load_section(args.params, "threshold", ThresholdParams),
            evaluate=load_section(args.params, "evaluate", DifficultParams),
        )
        run(args.task, params, **{name: getattr(args, name) for name in names})

    return exit_code(work)


SECTIONS: dict[str, type[BaseModel]] = {
    "hub": HubParams,
    "detect": DetectParams,
    "threshold": ThresholdParams,
    "evaluate": DifficultParams,
}

if __name__ == "__main__":
    sys.exit(main())
