"""ONNX Runtime: fp32 is the hub's own file; int8 is QDQ with int8 weights and uint8 activations.

Why uint8 activations: int8 ones do not fuse into QLinearConv on x86 (9 of 87 convolutions did), and the file ends
slower than fp32. What has fused is read from the graph that the engine itself makes of the file.
"""

from __future__ import annotations

import collections
import functools
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from plumbline.runtime.onnx_engine import open_onnx

if TYPE_CHECKING:
    from plumbline.quantization.recipes import Quantizer, Recipe, Written
    from plumbline.runtime.artifact import Artifact
    from plumbline.runtime.session import Engine

PRECISIONS = ("fp32", "int8")
PACKAGES = ("onnx", "onnxruntime")
CHIPS: tuple[str, ...] = ()
STANDS_IN = ""
TOLERANCE = {"fp32": 1e-4}
ARITHMETIC = ("asymmetric", 64)
MODEL = "model.onnx"

# Convolutions and matrix products of ONNX Runtime that multiply int8 numbers.
INT8_PRODUCTS = ("QLinearConv", "QLinearMatMul", "QGemm", "MatMulIntegerToFloat", "MatMulInteger", "ConvInteger")


def export(hub: Path, out: Path, precision: str, chip: str) -> dict[str, Any]:
    """Copy the hub's file: it is the fp32 artifact."""
    assert (precision, chip) == ("fp32", ""), (precision, chip)
    shutil.copyfile(hub, out / MODEL)
    return {}


def quantizer(hub: Path, tensors: Sequence[npt.NDArray[np.float32]], work: Path, chip: str) -> Quantizer:
    """Calibrate once; see `plumbline.backends`.

    Raises:
        BackendError: There is no image, an activation is not finite, or there is nothing that int8 is for.
    """
    assert not chip, chip
    from plumbline.quantization import qdq
    from plumbline.quantization.ranges import METHODS
    from plumbline.quantization.recipes import Quantizer

    calibrated = qdq.calibrate(hub, tensors, functools.partial(print, flush=True))

    def write(folder: Path, recipe: Recipe) -> Written:
        qdq.write_qdq(calibrated, folder / MODEL, recipe, qdq.UINT8)
        return written(folder / MODEL, calibrated.products)

    return Quantizer(METHODS, qdq.OPERATORS, calibrated.blocks, write)


def written(path: Path, products: Sequence[str]) -> Written:
    """Say what ONNX Runtime computes in int8.

    Args:
        path: A QDQ file.
        products: Names of its convolutions and matrix products.
    """
    from plumbline.quantization import qdq
    from plumbline.quantization.recipes import Written

    operators = _optimized(path)
    in_int8 = {name for name, op_type in operators if op_type in INT8_PRODUCTS}
    floats = tuple(name for name in products if name not in in_int8)
    counts = collections.Counter(op_type for _, op_type in operators)
    notes = {"fused_operators": dict(sorted(counts.items())), "weight_bits": qdq.UINT8.weight_bits}
    return Written(len(products), len(products) - len(floats), floats, notes)


def open_session(folder: Path, artifact: Artifact, threads: int) -> Engine:
    """Open the file on the CPU."""
    return open_onnx(folder / MODEL, artifact, threads)


def _optimized(path: Path) -> list[tuple[str, str]]:
    """Return name and type of each operator of the graph that the engine makes of a file."""
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory(prefix="optimized-") as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        # Everything but the layout of memory: that step renames operators, and fuses none.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(Path(folder) / MODEL)
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        graph = onnx.load(options.optimized_model_filepath).graph
    return [(node.name, node.op_type) for node in graph.node]
