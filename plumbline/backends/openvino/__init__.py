"""OpenVINO, on the CPU. int8 is a QDQ file, converted.

Not nncf: on a YOLO11n trained on BCCD (320 px, val, one run on a busy machine) it took 52.8 ms and lost 0.05 points,
the QDQ file 55.1 ms and 0.16 points, both less than such runs differ; and it would be one more package.

Its default "fp32" is bf16 on processors that have it: the precision hint is always set, so that a name is true.
"""

from __future__ import annotations

import collections
import functools
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from plumbline.quantization.recipes import Quantizer, Recipe, Written
    from plumbline.runtime.artifact import Artifact
    from plumbline.runtime.session import Engine

PRECISIONS = ("fp32", "fp16", "int8")
PACKAGES = ("openvino",)
CHIPS: tuple[str, ...] = ()
STANDS_IN = ""
TOLERANCE = {"fp32": 1e-4, "fp16": 2e-2}
ARITHMETIC = ("asymmetric", 64)
MODEL = "model.xml"

# Layers of the CPU plugin that convolutions and matrix products become.
PRODUCTS = ("Convolution", "Deconvolution", "FullyConnected", "MatMul")
# OpenVINO's name of a precision -> ours.
COMPUTES_IN = {"f32": "fp32", "f16": "fp16", "u8": "int8", "i8": "int8"}


def export(hub: Path, out: Path, precision: str, chip: str) -> dict[str, Any]:
    """Convert the hub's file; fp16 halves the stored weights, which a CPU computes with in fp32."""
    assert not chip, chip
    _convert(hub, out / MODEL, to_fp16=precision == "fp16")
    return {"weights_stored_as": precision, **_notes(_compiled(out / MODEL, threads=1))}


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
        with tempfile.TemporaryDirectory(prefix="qdq-", dir=work) as temporary:
            path = Path(temporary) / "qdq.onnx"
            qdq.write_qdq(calibrated, path, recipe, qdq.UINT8_INPUTS)
            _convert(path, folder / MODEL, to_fp16=False)
        outputs = {node.name: node.output[0] for node in calibrated.model.graph.node}
        return written(folder / MODEL, {name: outputs[name] for name in calibrated.products})

    return Quantizer(METHODS, qdq.OPERATORS, calibrated.blocks, write)


def written(path: Path, products: Mapping[str, str]) -> Written:
    """Say what OpenVINO computes in int8.

    Args:
        path: Its file.
        products: Names of the hub's convolutions and matrix products, each with the name of its output: OpenVINO gives
            an operator that puts out an output of the network that one's name.
    """
    from plumbline.quantization import qdq
    from plumbline.quantization.recipes import Written

    compiled = _compiled(path, threads=1)
    in_int8 = {
        name
        for kind, precision, names in _layers(compiled)
        if kind in PRODUCTS and precision == "int8"
        for name in names
    }
    floats = tuple(
        name for name, output in products.items() if in_int8.isdisjoint((name, output, f"{output}_original"))
    )
    notes = {**_notes(compiled), "weight_bits": qdq.UINT8_INPUTS.weight_bits}
    return Written(len(products), len(products) - len(floats), floats, notes)


def open_session(folder: Path, artifact: Artifact, threads: int) -> Engine:
    """Compile for the CPU with one stream, as a camera needs it."""
    compiled = _compiled(folder / MODEL, threads)
    request = compiled.create_infer_request()
    ports = [compiled.output(name) for name in artifact.outputs.names]

    def engine(tensor: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
        request.infer({0: tensor}, share_inputs=True)
        # Copies: the request writes its next results into the same memory.
        return [request.get_tensor(port).data.copy() for port in ports]

    return engine


def _convert(source: Path, path: Path, *, to_fp16: bool) -> None:
    """Write OpenVINO's form of an ONNX file; the same file gives the same bytes."""
    import onnx
    import openvino

    graph = onnx.load(str(source), load_external_data=False).graph
    theirs = {name for node in graph.node for name in (node.name, *node.input, *node.output)}
    model = openvino.convert_model(str(source))
    for number, operator in enumerate(model.get_ordered_ops()):
        name = operator.get_friendly_name()
        # Operators that OpenVINO adds are numbered through the process's life.
        if name not in theirs and re.fullmatch(r"\w+_\d+", name):
            operator.set_friendly_name(f"{operator.get_type_name()}_of_{number}")
    openvino.save_model(model, str(path), compress_to_fp16=to_fp16)


def _compiled(path: Path, threads: int) -> Any:
    import openvino

    config = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    return openvino.Core().compile_model(str(path), "CPU", config)


def _layers(compiled: Any) -> list[tuple[str, str, tuple[str, ...]]]:
    """Return kind, precision and the operators' own names of each layer that the engine runs, in its order."""
    layers = []
    for layer in compiled.get_runtime_model().get_ordered_ops():
        kind, precision, fused = (
            str(layer.get_rt_info()[key].value) for key in ("layerType", "runtimePrecision", "originalLayersNames")
        )
        # A bias that was an input of the operator has become one of its own.
        names = tuple(name.removesuffix("/WithoutBiases") for name in fused.split(","))
        layers.append((kind, COMPUTES_IN.get(precision, precision), names))
    return layers


def _notes(compiled: Any) -> dict[str, Any]:
    """Return what the engine really computes in, whatever the file's name says."""
    counts = collections.Counter(precision for kind, precision, _ in _layers(compiled) if kind in PRODUCTS)
    return {
        "computes_in": max(sorted(counts), key=lambda precision: counts[precision], default="fp32"),
        "execution_precisions": dict(sorted(counts.items())),
        "inference_precision": compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name(),
    }
