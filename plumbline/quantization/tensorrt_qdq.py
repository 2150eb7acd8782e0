"""The ONNX file that TensorRT builds its int8 engine from: symmetric Q and DQ, checked.

Weights are stored in float with Q and DQ of their own, which every TensorRT since 8 reads; the engine stores them in
int8.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from plumbline.errors import BackendError, first_and_count
from plumbline.quantization.recipes import Quantizer, Recipe, Written

MODEL = "model.onnx"
# TensorRT 11 knows types from the file alone and has none of the flags.
TRTEXEC = f"trtexec --onnx={MODEL} --saveEngine=model.engine"
FLAGS = {"fp32": " --noTF32", "int8": " --int8 --fp16"}


def checked_quantizer(hub: Path, tensors: Sequence[npt.NDArray[np.float32]]) -> Quantizer:
    """Calibrate on input tensors of shape (1, 3, H, W).

    Raises:
        BackendError: The network cannot be quantized; later, from `write`: TensorRT would refuse the file.
    """
    from plumbline.quantization import qdq
    from plumbline.quantization.ranges import METHODS

    calibrated = qdq.calibrate(hub, tensors)

    def write(folder: Path, recipe: Recipe) -> Written:
        path = folder / MODEL
        qdq.write_qdq(calibrated, path, recipe, qdq.SYMMETRIC)
        advice = refuse_faults(path)
        left = _in_float(path, calibrated.products)
        num = len(calibrated.products)
        return Written(num, num - len(left), left, notes_of("int8", advice))

    return Quantizer(METHODS, qdq.OPERATORS, calibrated.blocks, write)


def refuse_faults(path: Path) -> list[str]:
    """Check an ONNX file, and return the linter's advice.

    Raises:
        BackendError: TensorRT would refuse it; the message names the nodes.
    """
    import onnx

    from plumbline.quantization.tensorrt_lint import lint

    found = lint(onnx.load(str(path)))
    faults = [str(finding) for finding in found if finding.fault]
    if faults:
        told = first_and_count(faults).replace("\n", "; ")
        raise BackendError(
            f"{path}: TensorRT would refuse it: {told}; take another backend for this network, or report this as a bug"
        )
    return [str(finding) for finding in found]


def notes_of(precision: str, advice: Sequence[str]) -> dict[str, Any]:
    """Return what `artifact.json` says: how to build the engine, and what the linter would do better."""
    return {
        "trtexec": TRTEXEC + FLAGS[precision],
        "trtexec_from_11": TRTEXEC,
        "advice": list(advice[:10]),
        "num_advice": len(advice),
    }


def _in_float(path: Path, products: Sequence[str]) -> tuple[str, ...]:
    """Return those of the named nodes whose two inputs are not both dequantized."""
    import onnx

    nodes = onnx.load(str(path)).graph.node
    dequantized = {node.output[0] for node in nodes if node.op_type == "DequantizeLinear"}
    int8 = {node.name for node in nodes if dequantized.issuperset(node.input[:2])}
    return tuple(name for name in products if name not in int8)
