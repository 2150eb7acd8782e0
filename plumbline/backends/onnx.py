"""ONNX Runtime: fp32 is the hub's own file; int8 is QDQ with per-channel weights and uint8 activations.

Why uint8 activations: int8 ones do not fuse into QLinearConv on x86 (9 of 87 convolutions did), and the file ends
slower than fp32. Why MinMax: clipping calibration (percentile, entropy, MSE) cost SiLU networks accuracy everywhere.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from plumbline.runtime.artifact import Artifact
    from plumbline.runtime.session import Engine

PRECISIONS = ("fp32", "int8")
PACKAGES = ("onnx", "onnxruntime")
MODEL = "model.onnx"


def export(hub: Path, out: Path, precision: str) -> dict[str, Any]:
    """Copy the hub's file: it is the fp32 artifact."""
    assert precision == "fp32", precision
    shutil.copyfile(hub, out / MODEL)
    return {}


def quantize(hub: Path, out: Path, tensors: Iterable[npt.NDArray[np.float32]]) -> dict[str, Any]:
    """Write the int8 file.

    Args:
        hub: The split-head fp32 ONNX file.
        out: Folder for the artifact's files.
        tensors: Calibration inputs, shape (1, 3, H, W), as the runtime itself makes them.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = out / "prepared.onnx"
    quant_pre_process(str(hub), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared),
        str(out / MODEL),
        _Reader(_input_name(prepared), tensors),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
    )
    prepared.unlink()
    ops = [node.op_type for node in onnx.load(str(out / MODEL)).graph.node]
    return {"num_quantize_nodes": ops.count("QuantizeLinear"), "num_convolutions": ops.count("Conv")}


def open_session(folder: Path, artifact: Artifact, threads: int) -> Engine:
    """Open the file on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Warnings about what the CPU lacks would be repeated for each session.
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(folder / MODEL), options, providers=["CPUExecutionProvider"])
    names = list(artifact.outputs.names)

    def engine(tensor: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
        return session.run(names, {artifact.input.name: tensor})

    return engine


def _input_name(path: Path) -> str:
    import onnx

    return str(onnx.load(str(path), load_external_data=False).graph.input[0].name)


class _Reader:
    """Hand calibration tensors to ONNX Runtime one by one, which is the interface that it asks for."""

    def __init__(self, name: str, tensors: Iterable[npt.NDArray[np.float32]]) -> None:
        self.name = name
        self.tensors: Iterator[npt.NDArray[np.float32]] = iter(tensors)

    def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
        tensor = next(self.tensors, None)
        return None if tensor is None else {self.name: tensor}
