"""Write int8 ONNX files with Q and DQ nodes, any number of them from one calibration.

The float network runs once over the images, every activation an output of it. The nodes are placed by ONNX Runtime's
own quantizer, which knows what its kernels and OpenVINO's fuse; it is given the ranges.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from plumbline.errors import BackendError
from plumbline.quantization.blocks import Operator, group_into_blocks
from plumbline.quantization.ranges import METHODS, Ranges
from plumbline.quantization.recipes import Block, Recipe

if TYPE_CHECKING:
    import onnx

# What a search counts: convolutions and matrix products.
PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
OPERATORS = ("all", "convolutions")
_TELL_SECONDS = 10


@dataclass(frozen=True)
class Form:
    """How an engine wants its QDQ file.

    Attributes:
        symmetric: Activations are int8 with the zero point 0; otherwise uint8 with any.
        inputs_only: Q and DQ stand before the operators named, and not behind them too.
        float_weights: Weights are stored in float, with Q and DQ of their own, and biases in float; otherwise weights
            in int8 with a DQ, and biases in int32.
        weight_bits: 8, or 7: half of int8's range.
        operator_types: Of `OPERATORS`, each -> types of ONNX operators.
    """

    symmetric: bool
    inputs_only: bool
    float_weights: bool
    weight_bits: int
    operator_types: Mapping[str, tuple[str, ...]]


# Relu and Clip vanish in the convolution before them: its unsigned output cannot be below 0.
_CONVOLUTIONS = (*PRODUCTS, "Relu", "Clip")
# Those with an int8 kernel, and those that only move numbers. Others (LayerNormalization, Erf...) would compute in
# float between a DQ and a Q, which costs accuracy and time.
_ALL = (
    *_CONVOLUTIONS,
    *("Add", "Mul", "Sigmoid", "LeakyRelu", "Softmax", "GlobalAveragePool", "AveragePool", "MaxPool", "Concat"),
    *("Split", "Resize", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Gather"),
)
# An Add fuses with the convolution before it if its other input is int8.
_INPUTS = {"all": (*PRODUCTS, "Add", "MaxPool", "AveragePool", "GlobalAveragePool"), "convolutions": PRODUCTS}

# ONNX Runtime fuses what stands between a DQ and a Q. Signed activations would not fuse on x86 (9 of 87 convolutions
# did). x86 processors without VNNI add two products of uint8 and int8 in int16, which overflows unless the weights
# have 7 bits: with 8, a YOLO11n trained on BCCD lost 32 points of mAP there (54 in OpenVINO), with 7 it lost 0.1. Where
# there is VNNI, 7 bits cost little.
# Source: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html, "reduce_range".
UINT8 = Form(
    symmetric=False,
    inputs_only=False,
    float_weights=False,
    weight_bits=7,
    operator_types={"all": _ALL, "convolutions": _CONVOLUTIONS},
)
# OpenVINO fuses activations into the convolution itself: with Q and DQ between them it was 1.2 times as fast as in
# fp32, without 1.7 (YOLO11n, 320 px). It multiplies as ONNX Runtime does.
UINT8_INPUTS = Form(symmetric=False, inputs_only=True, float_weights=False, weight_bits=7, operator_types=_INPUTS)
# TensorRT.
SYMMETRIC = Form(symmetric=True, inputs_only=True, float_weights=True, weight_bits=8, operator_types=_INPUTS)


@dataclass(frozen=True)
class Calibrated:
    """A network with what was seen of its tensors.

    Attributes:
        model: The hub's, each node with a name of its own, with the types of all tensors.
        ranges: Of the network's input and all its activations.
        products: Names of the convolutions and matrix products, in the order of the graph.
        blocks: See `plumbline.quantization.blocks`.
        block_of: Name of a node -> name of its block.
    """

    model: onnx.ModelProto
    ranges: Ranges
    products: tuple[str, ...]
    blocks: tuple[Block, ...]
    block_of: Mapping[str, str] = field(repr=False)


def calibrate(
    hub: Path, tensors: Sequence[npt.NDArray[np.float32]], tell: Callable[[str], None] | None = None
) -> Calibrated:
    """Run the float network over the calibration images.

    Args:
        hub: The fp32 ONNX file, of fixed input shape.
        tensors: Inputs, shape (1, 3, H, W), as the runtime itself makes them.
        tell: Gets a line now and then where it takes long.

    Raises:
        BackendError: There is no image, or an activation is not finite on one.
    """
    if not len(tensors):
        raise BackendError(
            f"{hub}: no images to calibrate on, expected some of the train split; look at the splits and at"
            " quantize.calibration_images in params.yaml"
        )
    model = _prepared(hub)
    ranges, shapes = _observe(model, tensors, tell)
    operators = _operators(model, shapes)
    blocks, block_of = group_into_blocks(operators)
    if not blocks:
        raise BackendError(
            f"{hub}: no convolution or matrix product in it, expected {', '.join(PRODUCTS)}; int8 has nothing to offer"
            " this network, take the target out of params.yaml"
        )
    products = tuple(node.name for node in model.graph.node if node.op_type in PRODUCTS)
    return Calibrated(model, ranges, products, blocks, block_of)


def write_qdq(calibrated: Calibrated, path: Path, recipe: Recipe, form: Form) -> None:
    """Write one int8 ONNX file; the same recipe gives the same bytes.

    Raises:
        BackendError: The recipe names what there is not, or ONNX Runtime's quantizer fails.
    """
    import onnx

    excluded = _left_in_float(calibrated, recipe)
    try:
        model = _quantized(calibrated, recipe, form, excluded)
    except (ValueError, RuntimeError, KeyError, TypeError) as error:
        raise BackendError(
            f"{path.name}: ONNX Runtime's quantizer failed ({type(error).__name__}: {error}), expected a file with Q"
            " and DQ; leave the operator's block in float, or take the target out of params.yaml"
        ) from error
    # What the optimizer needs is inferred again when the file is loaded.
    del model.metadata_props[:]
    onnx.save(model, str(path))


def _left_in_float(calibrated: Calibrated, recipe: Recipe) -> list[str]:
    """Return names of nodes, after a look at the recipe's own names."""
    known = [block.name for block in calibrated.blocks]
    for what, got, choices in (
        ("method", [recipe.method], METHODS),
        ("operators", [recipe.operators], OPERATORS),
        ("block", recipe.float_blocks, known),
    ):
        unknown = [name for name in got if name not in choices]
        if unknown:
            raise BackendError(
                f"unknown {what} {unknown[0]!r}, expected one of: {', '.join(choices)}; change the recipe"
            )
    return [name for name, block in calibrated.block_of.items() if block in recipe.float_blocks]


def _quantized(calibrated: Calibrated, recipe: Recipe, form: Form, excluded: list[str]) -> onnx.ModelProto:
    import onnx
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    granularity, _, clipping = recipe.method.partition("-")
    types = list(form.operator_types[recipe.operators])
    options: dict[str, Any] = {"ActivationSymmetric": form.symmetric, "WeightSymmetric": True}
    if form.inputs_only:
        options["OpTypesToExcludeOutputQuantization"] = types
    if form.float_weights:
        options |= {"AddQDQPairToWeight": True, "QuantizeBias": False}
    # It changes the model that it is given.
    model = onnx.ModelProto()
    model.CopyFrom(calibrated.model)
    quantizer = QDQQuantizer(
        model,
        granularity == "per_channel",
        form.weight_bits == 7,
        QuantType.QInt8,
        QuantType.QInt8 if form.symmetric else QuantType.QUInt8,
        _tensor_ranges(calibrated.ranges, clipping, form),
        [],
        excluded,
        types,
        options,
    )
    return quantizer.quantize_model()


def _tensor_ranges(ranges: Ranges, clipping: str, form: Form) -> dict[str, Any]:
    """Return the ranges in the quantizer's own form; it changes them, so they are made anew for each file."""
    from onnxruntime.quantization.calibrate import TensorData

    found = {}
    for name in ranges.names:
        if form.symmetric:
            end = ranges.absmax(name, clipping)
            low, high = -end, end
        else:
            low, high = ranges.low_high(name, clipping)
        found[name] = TensorData(lowest=np.float32(low), highest=np.float32(high))
    return found


def _prepared(hub: Path) -> onnx.ModelProto:
    """Load the hub's file, name its nodes and infer its tensors' types."""
    import onnx
    from onnxruntime.quantization.quant_utils import add_infer_metadata

    model = onnx.load(str(hub))
    taken: set[str] = set()
    for node in model.graph.node:
        if not node.name or node.name in taken:
            # Names of tensors are unique.
            node.name = f"{node.op_type}:{node.output[0]}"
        taken.add(node.name)
    model = onnx.shape_inference.infer_shapes(model, data_prop=True)
    add_infer_metadata(model)
    return model


def _observe(
    model: onnx.ModelProto, tensors: Iterable[npt.NDArray[np.float32]], tell: Callable[[str], None] | None
) -> tuple[Ranges, dict[str, tuple[int, ...]]]:
    """Return the ranges and the shapes of the network's input and all its activations."""
    import onnxruntime

    names = _activations(model)
    options = onnxruntime.SessionOptions()
    # One thread: sums in one order, so the same ranges on any machine of a kind.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        _with_outputs(model, names).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    ranges, shapes = Ranges(), {}
    told = time.monotonic()
    for number, tensor in enumerate(tensors, start=1):
        outputs = zip(names, session.run(names, {model.graph.input[0].name: tensor}), strict=True)
        for name, values in ((model.graph.input[0].name, tensor), *outputs):
            ranges.observe(name, values)
            shapes[name] = values.shape
        if tell and time.monotonic() - told > _TELL_SECONDS:
            tell(f"calibrating: {number} images")
            told = time.monotonic()
    return ranges, shapes


def _activations(model: onnx.ModelProto) -> list[str]:
    """Return names of the float tensors that nodes put out, in the order of the graph."""
    import onnx

    floats = {
        value.name
        for value in (*model.graph.value_info, *model.graph.output)
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    return [name for node in model.graph.node for name in node.output if name in floats]


def _with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    known = {value.name for value in copy.graph.output}
    copy.graph.output.extend(
        value for value in model.graph.value_info if value.name in names and value.name not in known
    )
    return copy


def _operators(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> list[Operator]:
    """Return the nodes as `group_into_blocks` wants them."""
    known = dict(shapes) | {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    producers = {name: node.name for node in model.graph.node for name in node.output}
    return [
        Operator(
            node.name,
            multiply_adds(node.op_type, [known.get(name, ()) for name in node.input], known.get(node.output[0], ())),
            tuple(producers[name] for name in node.input if name in producers),
        )
        for node in model.graph.node
    ]


def multiply_adds(op_type: str, inputs: Sequence[tuple[int, ...]], output: tuple[int, ...]) -> int:
    """Return the multiply-adds of one operator from the shapes of its inputs and its first output.

    >>> multiply_adds("Conv", [(1, 3, 8, 8), (16, 3, 3, 3)], (1, 16, 4, 4))
    6912
    >>> multiply_adds("MatMul", [(1, 4, 7, 32), (1, 4, 32, 5)], (1, 4, 7, 5)), multiply_adds("Relu", [(1, 9)], (1, 9))
    (4480, 0)
    """
    if op_type not in PRODUCTS:
        return 0
    if op_type == "Conv":
        return math.prod(output) * math.prod(inputs[1][1:])
    if op_type == "ConvTranspose":
        return math.prod(inputs[0]) * math.prod(inputs[1][1:])
    # Each number of the output is a sum over the dimension that both share: the elements of a row of A.
    return math.prod(output) * (math.prod(inputs[1]) // math.prod(output[-1:] + inputs[1][:-2]))
