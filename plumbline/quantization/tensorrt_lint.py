"""What TensorRT demands of an ONNX file with explicit quantization, checked without TensorRT.

A fault is what its ONNX importer or its builder refuses, or would compute otherwise than ONNX Runtime does. Advice is
what it takes, and then runs slower or less exactly than it could.

Source:
    https://github.com/onnx/onnx-tensorrt/blob/main/onnxOpImporters.cpp, `QuantDequantLinearHelper`: scales positive,
    zero points all zero and as many as scales, as many scales as channels, types.
    https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md: operators and opsets.
    https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html and
    https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/quantized-types-explicit-quantization.html:
    symmetric, signed int8; activations per tensor, weights per channel; the inputs of weighted layers, not their
    outputs.
    https://github.com/microsoft/onnxruntime/issues/14229: what becomes of a quantized bias.
    https://docs.nvidia.com/deeplearning/tensorrt/tensorflow-quantization-toolkit/docs/docs/add_custom_qdq_cases.html:
    residual connections.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import onnx

# The axis of Q and DQ came with opset 13; TensorRT 10.15 reads up to 24.
OPSETS = range(13, 25)
DOMAINS = ("", "ai.onnx")
QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
# Quantized operators of ONNX that its importer does not know: it wants Q and DQ around float ones.
NOT_IMPORTED = ("ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul")
# Operators with weights at input 1 -> the weights' axis of output channels. Gemm's depends on transB.
WEIGHTED = {"Conv": 0, "ConvTranspose": 1, "Gemm": 1, "MatMul": -1}
BIAS = 2
# Fused with the convolution before them, unless it must put out int8 in between.
ACTIVATIONS = ("Clip", "Elu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mul", "PRelu", "Relu", "Sigmoid", "Tanh")

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Finding:
    """One place of the file.

    Attributes:
        rule: A word for what is wrong: opset, shape, operator, scale, zero_point, granularity, axis, pair, bias,
            weights, double, residual, activation, output.
        node: Name of the node, or of the input of the network.
        message: What is wrong there, and what was expected.
        fault: TensorRT refuses it, or computes something else; otherwise it is advice.
    """

    rule: str
    node: str
    message: str
    fault: bool = True

    def __str__(self) -> str:
        return f"node {self.node}: {self.message}"


def lint(model: onnx.ModelProto) -> list[Finding]:
    """Return what is wrong with a model, in the order of its nodes; a model without Q and DQ is one, too."""
    graph = _Graph(model)
    found = [*_check_model(model)]
    for node in model.graph.node:
        found += _check_operator(node)
        if node.op_type in (QUANTIZE, DEQUANTIZE):
            bias = list(_check_bias(graph, node))
            # Nothing of a bias can be right, so it is one finding.
            found += bias or [
                *_check_parameters(graph, node),
                *_check_granularity(graph, node),
                *_check_pair(graph, node),
                *_check_place(graph, node),
            ]
        elif node.op_type in WEIGHTED:
            found += _check_weighted(graph, node)
        elif node.op_type == "Add":
            found += _check_residual(graph, node)
    return found


class _Graph:
    """Who makes and who takes each tensor, and the constants."""

    def __init__(self, model: onnx.ModelProto) -> None:
        from onnx import numpy_helper

        nodes = model.graph.node
        self.producer = {name: node for node in nodes for name in node.output}
        self.consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in nodes:
            for name in dict.fromkeys(node.input):
                self.consumers.setdefault(name, []).append(node)
        self.outputs = {output.name for output in model.graph.output}
        self.constants: dict[str, Array] = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        for node in nodes:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                self.constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)

    def input_of(self, node: onnx.NodeProto, index: int) -> str:
        """Return the name, empty for an input that is left out."""
        return str(node.input[index]) if index < len(node.input) else ""

    def constant(self, node: onnx.NodeProto, index: int) -> Array | None:
        return self.constants.get(self.input_of(node, index))

    def made_by(self, node: onnx.NodeProto, index: int, op_type: str) -> onnx.NodeProto | None:
        """Return what makes this input, where it is such an operator."""
        producer = self.producer.get(self.input_of(node, index))
        return producer if producer is not None and producer.op_type == op_type else None

    def weights(self, node: onnx.NodeProto) -> Array | None:
        """Return the constant that a Q or DQ works on, also a DQ behind a Q."""
        quantize = self.made_by(node, 0, QUANTIZE)
        return self.constant(quantize or node, 0)

    def takers(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        return self.consumers.get(node.output[0], [])


def _check_model(model: onnx.ModelProto) -> Iterator[Finding]:
    version = max((opset.version for opset in model.opset_import if opset.domain in DOMAINS), default=0)
    if version not in OPSETS:
        told = f"the file's opset is {version}, expected {OPSETS[0]} to {OPSETS[-1]}"
        yield Finding("opset", model.graph.name or "graph", told)
    initializers = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if value.name not in initializers and (not shape or min(shape) < 1):
            yield Finding("shape", value.name, f"the network's input has the shape {shape}, expected a fixed one")


def _check_operator(node: onnx.NodeProto) -> Iterator[Finding]:
    if node.op_type in NOT_IMPORTED:
        yield Finding("operator", _name(node), f"TensorRT has no {node.op_type}, expected Q and DQ around a float one")
    elif node.op_type in (QUANTIZE, DEQUANTIZE) and node.domain not in DOMAINS:
        yield Finding("operator", _name(node), f"{node.op_type} of the domain {node.domain}, expected ONNX's own")


def _check_bias(graph: _Graph, node: onnx.NodeProto) -> Iterator[Finding]:
    if node.op_type == DEQUANTIZE:
        for taker in graph.takers(node):
            if taker.op_type in WEIGHTED and graph.input_of(taker, BIAS) == node.output[0]:
                yield Finding("bias", _name(node), f"the bias of {_name(taker)} is quantized, expected it in float")


def _check_parameters(graph: _Graph, node: onnx.NodeProto) -> Iterator[Finding]:
    scale, zero_point = graph.constant(node, 1), graph.constant(node, 2)
    if scale is None:
        yield Finding("scale", _name(node), "its scale is computed in the network, expected a constant")
    elif not scale.size or not np.isfinite(scale).all() or not (scale > 0).all():
        yield Finding("scale", _name(node), f"a scale of {_worst(scale)}, expected scales above 0 and finite")
    if not graph.input_of(node, 2):
        # ONNX reads it as uint8, TensorRT as int8, and TensorRT 8 refuses it.
        yield Finding("zero_point", _name(node), "no zero point, expected an int8 one of 0")
    elif zero_point is None:
        yield Finding("zero_point", _name(node), "its zero point is computed in the network, expected a constant")
    elif zero_point.dtype != np.int8:
        yield Finding("zero_point", _name(node), f"quantizes to {zero_point.dtype}, expected int8")
    elif zero_point.any():
        yield Finding("zero_point", _name(node), f"a zero point of {_worst(zero_point)}, expected 0 (symmetric)")
    elif scale is not None and scale.size != zero_point.size:
        told = f"{scale.size} scales and {zero_point.size} zero points, expected as many of each"
        yield Finding("zero_point", _name(node), told)


def _check_granularity(graph: _Graph, node: onnx.NodeProto) -> Iterator[Finding]:
    scale, weights = graph.constant(node, 1), graph.weights(node)
    if scale is None:
        return
    if weights is None:
        if scale.size > 1:
            told = f"{scale.size} scales for an activation, expected one (per tensor)"
            yield Finding("granularity", _name(node), told)
        return
    if scale.size == 1:
        if node.op_type == DEQUANTIZE:
            yield Finding("granularity", _name(node), "one scale for all weights, better one per channel", fault=False)
        return
    axis = _axis(node) % max(weights.ndim, 1)
    if weights.ndim <= axis or weights.shape[axis] != scale.size:
        told = f"{scale.size} scales on axis {axis} of weights {weights.shape}, expected as many as it has"
        yield Finding("axis", _name(node), told)
    for taker in graph.takers(node) if node.op_type == DEQUANTIZE else ():
        expected = _channel_axis(taker, weights.ndim)
        if expected not in (None, axis):
            told = f"weights of {taker.op_type} {_name(taker)} with scales on axis {axis}, expected axis {expected}"
            yield Finding("axis", _name(node), told)


def _check_pair(graph: _Graph, node: onnx.NodeProto) -> Iterator[Finding]:
    if node.op_type == DEQUANTIZE:
        data = graph.constant(node, 0)
        if data is not None and data.dtype != np.int8:
            yield Finding("pair", _name(node), f"dequantizes weights of {data.dtype}, expected int8")
        elif data is None and graph.made_by(node, 0, QUANTIZE) is None:
            yield Finding("pair", _name(node), "dequantizes what no QuantizeLinear made, expected a pair")
        return
    takers = graph.takers(node)
    strangers = [_name(taker) for taker in takers if taker.op_type != DEQUANTIZE]
    if strangers or not takers or node.output[0] in graph.outputs:
        told = ", ".join(strangers) or ("the network's output" if node.output[0] in graph.outputs else "nothing")
        yield Finding("pair", _name(node), f"its int8 goes to {told}, expected a DequantizeLinear and nothing else")
    for taker in takers:
        if taker.op_type == DEQUANTIZE and not _same_parameters(graph, node, taker):
            told = f"{_name(taker)} has other scales, zero points or another axis, expected the same"
            yield Finding("pair", _name(node), told)


def _check_place(graph: _Graph, node: onnx.NodeProto) -> Iterator[Finding]:
    if node.op_type == DEQUANTIZE:
        if node.output[0] in graph.outputs:
            yield Finding("output", _name(node), "an output of the network is quantized, better in float", fault=False)
        return
    before = graph.made_by(node, 0, DEQUANTIZE)
    if before is not None:
        told = f"quantizes again what {_name(before)} has just dequantized, expected one pair"
        yield Finding("double", _name(node), told)
    maker = graph.producer.get(graph.input_of(node, 0))
    if maker is None or maker.op_type not in WEIGHTED:
        return
    for pair in graph.takers(node):
        after = [taker for taker in graph.takers(pair) if taker.op_type in ACTIVATIONS] if pair.output else []
        if after:
            told = f"parts {_name(maker)} from {_name(after[0])}, better behind the activation, to be fused with it"
            yield Finding("activation", _name(node), told, fault=False)


def _check_weighted(graph: _Graph, node: onnx.NodeProto) -> Iterator[Finding]:
    data, weights = (graph.made_by(node, index, DEQUANTIZE) is not None for index in (0, 1))
    constant = graph.constant(node, 1) is not None or (
        weights and graph.weights(graph.producer[node.input[1]]) is not None
    )
    if weights and constant and not data:
        yield Finding(
            "weights", _name(node), "its weights are quantized and its input is not, expected both or neither"
        )
    elif data != weights:
        told = "one of its inputs is quantized and one is not, so it runs in float; better both or neither"
        yield Finding("weights", _name(node), told, fault=False)


def _check_residual(graph: _Graph, node: onnx.NodeProto) -> Iterator[Finding]:
    if any(graph.constant(node, index) is not None for index in (0, 1)):
        return
    if len({graph.made_by(node, index, DEQUANTIZE) is not None for index in (0, 1)}) == 2:
        told = "one of its two inputs is quantized, better both or neither"
        yield Finding("residual", _name(node), told, fault=False)


def _same_parameters(graph: _Graph, one: onnx.NodeProto, other: onnx.NodeProto) -> bool:
    for index in (1, 2):
        if graph.input_of(one, index) == graph.input_of(other, index):
            continue
        first, second = graph.constant(one, index), graph.constant(other, index)
        if first is None or second is None or not np.array_equal(first, second):
            return False
    scale = graph.constant(one, 1)
    return scale is None or scale.size == 1 or _axis(one) == _axis(other)


def _channel_axis(node: onnx.NodeProto, ndim: int) -> int | None:
    if node.op_type not in WEIGHTED:
        return None
    if node.op_type == "Gemm" and any(a.name == "transB" and a.i for a in node.attribute):
        return 0
    return WEIGHTED[node.op_type] % ndim


def _axis(node: onnx.NodeProto) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == "axis"), 1)


def _name(node: onnx.NodeProto) -> str:
    return str(node.name or f"{node.op_type} -> {', '.join(node.output)}")


def _worst(values: Array) -> str:
    """Return the value that a person should see: one that is not finite, or the one farthest on the wrong side."""
    flat = values.ravel()
    if not flat.size:
        return "nothing"
    wrong = flat[~np.isfinite(flat)] if flat.dtype.kind == "f" else flat[flat != 0]
    return str((wrong if wrong.size else np.sort(flat))[0])
