"""Watch an NCNN network on the calibration images, and write int8 files from what was seen."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from plumbline.backends.ncnn.files import Layer, Network, read_network, write_network
from plumbline.backends.ncnn.int8 import can_be_int8, is_int8, quantize_network
from plumbline.errors import BackendError
from plumbline.quantization.blocks import Operator, group_into_blocks
from plumbline.quantization.ranges import METHODS, Ranges
from plumbline.quantization.recipes import Block, Recipe, Written

OPERATORS = ("convolutions",)
# Layers with multiply-adds worth counting.
CONVOLUTIONS = ("Convolution", "ConvolutionDepthWise", "Deconvolution", "DeconvolutionDepthWise")
PRODUCTS = (*CONVOLUTIONS, "InnerProduct", "MatMul", "Gemm", "MultiHeadAttention", "SDPA")
# A convolution over the image itself runs at 0.4 times the speed in int8 on x86, a depthwise one at 0.3.
_FEWEST_CHANNELS = 4

_Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Calibrated:
    """A float network, and what was seen in it.

    Attributes:
        network: Its layers are called what they are called in the hub, where that can be told.
        ranges: Of the blobs that layers read.
        blob_of: Layer that can be int8 -> the blob in `ranges` that it reads.
        products: Layers of `PRODUCTS`, in the order of the network.
        blocks: Those with a layer that can be int8.
        block_of: Layer -> name of its block.
    """

    network: Network
    ranges: Ranges
    blob_of: Mapping[str, str]
    products: tuple[str, ...]
    blocks: tuple[Block, ...]
    block_of: Mapping[str, str]


def calibrate(hub: Path, network: Network, net: Any, tensors: Iterable[npt.NDArray[np.float32]]) -> Calibrated:
    """Run a float network on input tensors.

    Args:
        hub: The ONNX file that it was converted from.
        network: The content of its files.
        net: The same, loaded by ncnn with ``lightmode`` off, so that blobs in between can be read.
        tensors: Of shape (1, 3, H, W).

    Raises:
        BackendError: There is no tensor, a value is not finite, or no layer can be int8.
    """
    names = names_in_hub(hub, network)
    layers = tuple(replace(layer, name=name) for layer, name in zip(network.layers, names, strict=True))
    products = [layer for layer in layers if layer.type in PRODUCTS]
    roots = _roots(layers)
    ranges, shapes = _observe(net, products, roots, tensors)
    blob_of = {layer.name: roots[layer.inputs[0]] for layer in products if _gains(layer, shapes[layer.inputs[0]])}
    if not blob_of:
        raise BackendError(f"{hub}: NCNN has an int8 form for none of its layers; take fp32 or fp16 in params.yaml")
    blocks, block_of = _blocks({layer.name: _multiply_adds(layer, shapes) for layer in products}, blob_of)
    names_of_products = tuple(layer.name for layer in products)
    return Calibrated(Network(layers, network.tensors), ranges, blob_of, names_of_products, blocks, block_of)


def write_int8(calibrated: Calibrated, param: Path, weights: Path, recipe: Recipe) -> Written:
    """Write both files of an int8 network.

    Raises:
        BackendError: The recipe names what is not there.
    """
    _check(calibrated, recipe)
    granularity, clipping = recipe.method.split("-")
    absmax = {
        name: calibrated.ranges.absmax(blob, clipping)
        for name, blob in calibrated.blob_of.items()
        if calibrated.block_of[name] not in recipe.float_blocks
    }
    network = quantize_network(calibrated.network, absmax, per_channel=granularity == "per_channel")
    write_network(network, param, weights)
    # Read again: what counts is what is in the files.
    int8 = {layer.name for layer in read_network(param, weights).layers if is_int8(layer)}
    left = tuple(name for name in calibrated.products if name not in int8)
    notes = {"weights_stored_as": "int8", "computes_in": "int8", "float_layers_compute_in": "fp32"}
    return Written(len(calibrated.products), len(int8), left, notes)


def names_in_hub(hub: Path, network: Network) -> list[str]:
    """Return what each layer is called in the hub: pnnx numbers the layers, but it keeps their weights.

    A layer without weights, or with others than any node of the hub has, keeps its name.
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(hub)).graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    found: defaultdict[tuple[bool, str], list[str]] = defaultdict(list)
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul") and len(node.input) > 1 and node.input[1] in stored:
            values = numpy_helper.to_array(stored[node.input[1]])
            # A matrix product's weights lie the other way around, unless it says that they are transposed.
            turned = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
            if node.op_type != "Conv" and not turned:
                values = values.T
            found[node.op_type == "Conv", _digest(values)].append(node.name.replace(" ", "_"))
    names = []
    for layer, tensors in zip(network.layers, network.tensors, strict=True):
        key = (layer.type in CONVOLUTIONS, _digest(tensors[0].values)) if tensors else (False, "")
        names.append(found[key].pop(0) if found.get(key) else layer.name)
    return names


def _digest(values: npt.NDArray[Any]) -> str:
    return hashlib.sha256(np.ascontiguousarray(values, dtype=np.float32).tobytes()).hexdigest()


def _roots(layers: Sequence[Layer]) -> dict[str, str]:
    """Return for each blob the one that holds its values: a Split gives one blob several names."""
    roots: dict[str, str] = {}
    for layer in layers:
        for output in layer.outputs:
            roots[output] = roots[layer.inputs[0]] if layer.type == "Split" else output
    return roots


def _observe(
    net: Any, layers: Sequence[Layer], roots: Mapping[str, str], tensors: Iterable[npt.NDArray[np.float32]]
) -> tuple[Ranges, dict[str, tuple[int, ...]]]:
    """Count what layers read; also return the shapes of what they read first and of what they give."""
    import ncnn

    ranges, shapes = Ranges(), dict[str, tuple[int, ...]]()
    read = {roots[layer.inputs[0]]: None for layer in layers if can_be_int8(layer)}
    blobs = {blob for layer in layers for blob in (layer.inputs[0], layer.outputs[0])}
    num_images = 0
    for num_images, tensor in enumerate(tensors, start=1):  # noqa: B007
        extractor = net.create_extractor()
        extractor.set_light_mode(False)
        extractor.input("in0", ncnn.Mat(tensor[0]).clone())
        for blob in read:
            ranges.observe(blob, _extract(extractor, blob))
        shapes = shapes or {blob: _extract(extractor, blob).shape for blob in blobs}
    if not num_images:
        raise BackendError("there is no image to calibrate on, expected some of train; see the split")
    return ranges, shapes


def _extract(extractor: Any, blob: str) -> npt.NDArray[np.float32]:
    code, mat = extractor.extract(blob)
    if code:
        raise BackendError(f"ncnn failed at blob {blob} with code {code}; export the fp32 artifact to see more")
    # A copy: the Mat's memory goes when it does.
    return np.array(mat)


def _gains(layer: Layer, shape: tuple[int, ...]) -> bool:
    """Tell whether a layer is faster in int8 than in float."""
    if not can_be_int8(layer) or layer.type == "ConvolutionDepthWise":
        return False
    # Over a vector, as in squeeze-and-excitation, there is nothing to gain.
    return layer.type != "Convolution" or (len(shape) == 3 and shape[0] >= _FEWEST_CHANNELS)


def _multiply_adds(layer: Layer, shapes: _Shapes) -> int:
    """Return the multiply-adds of a layer for one image."""
    read, given = shapes[layer.inputs[0]], shapes[layer.outputs[0]]
    if layer.type in ("Convolution", "ConvolutionDepthWise"):
        return layer.integer(6) * math.prod(given[1:])
    if layer.type in ("Deconvolution", "DeconvolutionDepthWise"):
        return layer.integer(6) * math.prod(read[1:])
    if layer.type == "InnerProduct":
        return layer.integer(2) * math.prod(given[:-1])
    if layer.type == "MultiHeadAttention":
        return 4 * layer.integer(2) * math.prod(given[:-1])
    return math.prod(given) * read[-1]


def _blocks(multiply_adds: Mapping[str, int], able: Iterable[str]) -> tuple[tuple[Block, ...], dict[str, str]]:
    """Group layers as other backends do; a block's share is that of its layers that can be int8."""
    blocks, block_of = group_into_blocks([Operator(name, cost, ()) for name, cost in multiply_adds.items()])
    costs: defaultdict[str, int] = defaultdict(int)
    for name in able:
        costs[block_of[name]] += multiply_adds[name]
    total = sum(multiply_adds.values())
    return tuple(Block(block.name, costs[block.name] / total) for block in blocks if block.name in costs), block_of


def _check(calibrated: Calibrated, recipe: Recipe) -> None:
    known = tuple(block.name for block in calibrated.blocks)
    for what, got, choices in (
        ("method", (recipe.method,), METHODS),
        ("operators", (recipe.operators,), OPERATORS),
        ("block", recipe.float_blocks, known),
    ):
        for name in got:
            if name not in choices:
                raise BackendError(f"unknown {what} {name!r}, expected one of: {', '.join(choices)}; change the recipe")
