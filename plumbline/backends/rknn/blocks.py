"""Which of RKNN's tensors belong to a block of the network, and how its settings file leaves them in float."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from plumbline.quantization.recipes import Block

NONE_IN_FLOAT = "custom_quantize_layers: {}"


@dataclass(frozen=True)
class Network:
    """What a search wants to know of the hub's network.

    Attributes:
        blocks: In its order.
        block_of: Tensor -> name of its block.
        products: Names of its convolutions and matrix products, in its order.
    """

    blocks: tuple[Block, ...]
    block_of: dict[str, str]
    products: tuple[str, ...]


def read_network(hub: Path) -> Network:
    """Read the hub's ONNX file."""
    import onnx

    from plumbline.quantization.blocks import Operator, group_into_blocks
    from plumbline.quantization.qdq import multiply_adds

    graph = onnx.shape_inference.infer_shapes(onnx.load(str(hub)), data_prop=True).graph
    shapes = {
        value.name: tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info, *graph.output)
    } | {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    names = {node.output[0]: node.name or f"{node.op_type}:{node.output[0]}" for node in graph.node}
    producers = {output: names[node.output[0]] for node in graph.node for output in node.output}
    operators = [
        Operator(
            names[node.output[0]],
            multiply_adds(node.op_type, [shapes.get(name, ()) for name in node.input], shapes.get(node.output[0], ())),
            tuple(producers[name] for name in node.input if name in producers),
        )
        for node in graph.node
    ]
    blocks, block_of = group_into_blocks(operators)
    products = tuple(operator.name for operator in operators if operator.multiply_adds)
    return Network(blocks, {tensor: block_of[name] for tensor, name in producers.items()}, products)


def tensors_of(settings: Path) -> list[str]:
    """Return the names of the tensors that a settings file gives a range."""
    from ruamel.yaml import YAML

    return list(YAML(typ="safe").load(settings)["quantize_parameters"])


def block_near(tensor: str, block_of: Mapping[str, str]) -> str | None:
    """Return the block of one of RKNN's tensors; None where it has none, as the network's input.

    RKNN's optimizer makes tensors of its own and names them after those of the network that they come from.

    >>> block_near("/a/m/MatMul_1_output_0_mm", {"/a/m/MatMul_output_0": "/a"})
    '/a'
    >>> block_near("images_int8", {"/a/m/MatMul_output_0": "/a"}) is None
    True
    """
    if tensor in block_of:
        return block_of[tensor]
    near = [block for block in set(block_of.values()) if tensor.startswith(f"{block}/")]
    return max(near, key=len, default=None)


def with_float(settings: str, tensors: list[str]) -> str:
    r"""Return the text of a settings file with tensors in float16.

    >>> with_float("custom_quantize_layers: {}", ["/a#1"])
    'custom_quantize_layers:\n    "/a#1": float16'
    """
    assert settings.startswith(NONE_IN_FLOAT), settings[:100]
    if not tensors:
        return settings
    rows = "".join(f"\n    {json.dumps(tensor)}: float16" for tensor in tensors)
    return NONE_IN_FLOAT.removesuffix(" {}") + rows + settings.removeprefix(NONE_IN_FLOAT)
