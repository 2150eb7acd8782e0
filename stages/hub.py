"""Make the two files that every number is compared with: the weights as an artifact, and the hub's ONNX."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from plumbline.backends import HUB
from plumbline.backends.torch import WEIGHTS
from plumbline.errors import BackendError
from plumbline.files import replacing
from plumbline.lineage import git_commit, toolchain
from plumbline.params import StageParams, load_section
from plumbline.runtime.artifact import Artifact, DecodeSpec, InputSpec, Preprocessing, write_artifact
from stages.shape import exit_code, path_arguments


class HubParams(StageParams):
    """Section `hub`."""

    opset: int = Field(ge=13, le=21, description="of the ONNX file; RKNN reads up to 19")


class DetectParams(StageParams):
    """Section `detect`: how raw outputs become detections, written into every artifact."""

    confidence_threshold: float = Field(gt=0, lt=1)
    iou_threshold: float = Field(gt=0, le=1)
    max_detections: int = Field(ge=1)


def run(params: HubParams, detect: DetectParams, *, train: Path, weights: Path, out: Path) -> Artifact:
    """Write the weights' artifact folder and the hub's.

    Args:
        params: Section `hub`.
        detect: Section `detect`.
        train: Folder with best.pt and train.json.
        weights: Artifact folder of the trained weights (backend ``torch``).
        out: Artifact folder of the hub (backend ``onnx``, fp32).
    """
    # torch takes seconds to import, and params.yaml is checked with this module's models.
    from plumbline.yolo.network import count_parameters, export_onnx, load_split_head

    record = _read_record(train / "train.json")
    size = int(record["image_size"])
    network = load_split_head(train / WEIGHTS)
    artifact = Artifact(
        name="weights",
        task="detect",
        backend="torch",
        precision="fp32",
        class_names=tuple(record["class_names"]),
        input=InputSpec(name="images", size_wh=(size, size)),
        preprocessing=Preprocessing(),
        outputs=network.output_spec(),
        decode=DecodeSpec(**detect.model_dump()),
        files={},
        toolchain=record["toolchain"],
        lineage={**record["lineage"], "git_commit": git_commit(Path())},
        notes={"num_parameters": count_parameters(network)},
    )
    with replacing(weights) as temporary:
        temporary.mkdir()
        shutil.copyfile(train / WEIGHTS, temporary / WEIGHTS)
        write_artifact(artifact, temporary)
    hub = dataclasses.replace(
        artifact,
        name="hub",
        backend="onnx",
        toolchain={**artifact.toolchain, **toolchain(("onnx", "onnxslim"))},
        notes={**artifact.notes, "opset": params.opset},
    )
    with replacing(out) as temporary:
        temporary.mkdir()
        export_onnx(network, size, params.opset, temporary / HUB)
        return write_artifact(hub, temporary)


def _read_record(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BackendError(
            f"{path}: cannot be read ({error}), expected what the train stage writes; run it again"
        ) from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage."""
    args = path_arguments(__doc__, ("train", "weights", "out"), argv)

    def work() -> None:
        params = load_section(args.params, "hub", HubParams)
        detect = load_section(args.params, "detect", DetectParams)
        run(params, detect, train=args.train, weights=args.weights, out=args.out)

    return exit_code(work)


SECTIONS = {"hub": HubParams, "detect": DetectParams}

if __name__ == "__main__":
    sys.exit(main())
