"""NCNN, converted from the hub by pnnx. Its x86 build computes in fp32; fp16 here halves the stored weights."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from plumbline.errors import BackendError

if TYPE_CHECKING:
    from plumbline.runtime.artifact import Artifact
    from plumbline.runtime.session import Engine

PRECISIONS = ("fp32", "fp16")
PACKAGES = ("ncnn", "pnnx")
PARAM, BIN = "model.param", "model.bin"


def export(hub: Path, out: Path, precision: str) -> dict[str, Any]:
    """Convert the hub's file.

    Raises:
        BackendError: pnnx fails, leaves operators that NCNN has no layer for, or gives another number of outputs than
            the hub has.
    """
    import onnx
    import pnnx

    graph = onnx.load(str(hub), load_external_data=False).graph
    shape = [dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim]
    with tempfile.TemporaryDirectory(prefix="pnnx-") as folder:
        shutil.copyfile(hub, Path(folder) / "hub.onnx")
        command = [
            pnnx.EXEC_PATH,
            "hub.onnx",
            f"inputshape=[{','.join(map(str, shape))}]",
            f"fp16={int(precision == 'fp16')}",
        ]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        param, weights = Path(folder) / "hub.ncnn.param", Path(folder) / "hub.ncnn.bin"
        if done.returncode or not param.is_file():
            last = (done.stderr or done.stdout).strip().splitlines()[-1:]
            raise BackendError(
                f"{hub}: pnnx could not convert it (exit {done.returncode}: {last}); see its own output above"
            )
        shutil.copyfile(param, out / PARAM)
        shutil.copyfile(weights, out / BIN)
    foreign = _foreign_layers(out / PARAM)
    if foreign:
        raise BackendError(
            f"{hub}: NCNN has no layer for {', '.join(foreign)}, expected operators that pnnx can convert; take another"
            " backend for this network in params.yaml, or another network"
        )
    outputs = _blob_names(out / PARAM, "out")
    if len(outputs) != len(graph.output):
        raise BackendError(
            f"{hub}: pnnx gave the outputs {outputs}, expected {len(graph.output)}; report this as a bug"
        )
    return {"weights_stored_as": precision, "computes_in": "fp32"}


def open_session(folder: Path, artifact: Artifact, threads: int) -> Engine:
    """Load the network; pnnx names its inputs in0... and its outputs out0... in the hub's order."""
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_vulkan_compute = False
    # Nobody may change the precision that artifact.json states.
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = False
    if net.load_param(str(folder / PARAM)) or net.load_model(str(folder / BIN)):
        raise BackendError(f"{folder}: ncnn cannot load it, expected the files that export wrote; export it again")
    names = [f"out{index}" for index in range(len(artifact.outputs.names))]

    def engine(tensor: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
        extractor = net.create_extractor()
        # The Mat does not own the array: `tensor` outlives it here.
        extractor.input("in0", ncnn.Mat(tensor[0]))
        return [_extract(extractor, name) for name in names]

    return engine


def _extract(extractor: Any, name: str) -> npt.NDArray[np.float32]:
    code, mat = extractor.extract(name)
    if code:
        raise BackendError(f"ncnn failed at output {name} with code {code}; export the artifact again")
    # A copy: the Mat's memory goes when it does.
    return np.array(mat)[None]


def _foreign_layers(param: Path) -> list[str]:
    """Return the operators that pnnx has left as they were (Tensor.reshape, torch.roll, aten::...).

    It exits with 0 all the same; ncnn would not load the file, and its process dies when it tries.
    """
    types = {line.split()[0] for line in param.read_text(encoding="utf-8").splitlines()[2:] if line.strip()}
    return sorted(name for name in types if "." in name or "::" in name)


def _blob_names(param: Path, prefix: str) -> list[str]:
    lines = param.read_text(encoding="utf-8").splitlines()[2:]
    words = {
        word for line in lines for word in line.split()[4:] if word.startswith(prefix) and word[len(prefix) :].isdigit()
    }
    return sorted(words)
