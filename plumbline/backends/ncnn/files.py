"""Read and write NCNN's two files: the text of layers (.param) and their weights (.bin).

The .bin has no index: a layer's tensors follow those of the layer before, and only the layer's parameters say how many
there are and how long. So a layer with weights that is not in `TENSORS` cannot be passed over, and reading fails.

Source: https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure and each layer's ``load_model``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from plumbline.errors import BackendError

MAGIC = "7767517"
# What a tensor's first four bytes say of the rest.
FLOAT32_TAG, FLOAT16_TAG, INT8_TAG = 0x00000000, 0x01306B47, 0x000D4B38
_DTYPES: dict[int, Any] = {FLOAT32_TAG: np.dtype("<f4"), FLOAT16_TAG: np.dtype("<f2"), INT8_TAG: np.dtype("i1")}
_TAGS = {dtype: tag for tag, dtype in _DTYPES.items()}
# Every tensor starts at a multiple of this.
_ALIGN = 4


@dataclass(frozen=True)
class Layer:
    """One line of the .param.

    Attributes:
        type: ``Convolution``...
        name: Any word.
        inputs: Names of blobs.
        outputs: Names of blobs.
        params: Number -> the text after its ``=``, in the order of the line.
    """

    type: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: Mapping[int, str] = field(default_factory=dict)

    def integer(self, number: int, default: int = 0) -> int:
        """Return a parameter."""
        return int(self.params.get(number, default))


@dataclass(frozen=True)
class Tensor:
    """One tensor of the .bin.

    Attributes:
        values: 1-D: float32, float16 or int8.
        tagged: Four bytes before it tell its type; without them it is float32.
    """

    values: npt.NDArray[Any]
    tagged: bool = False

    def to_bytes(self) -> bytes:
        """Return it as it lies in the file.

        >>> Tensor(np.array([1, -1, 127], np.int8), tagged=True).to_bytes().hex(" ")
        '38 4b 0d 00 01 ff 7f 00'
        """
        tag = _TAGS[self.values.dtype]
        assert self.tagged or tag == FLOAT32_TAG, "only a tagged tensor can be anything else than float32"
        data = self.values.astype(_DTYPES[tag]).tobytes()
        head = tag.to_bytes(4, "little") if self.tagged else b""
        return head + data + bytes(-len(data) % _ALIGN)


@dataclass(frozen=True)
class Network:
    """Both files.

    Attributes:
        layers: In the order of the .param, which is that of the computation.
        tensors: For each layer its own.
    """

    layers: tuple[Layer, ...]
    tensors: tuple[tuple[Tensor, ...], ...]


def read_network(param: Path, weights: Path) -> Network:
    """Read both files.

    Raises:
        BackendError: A line is damaged, a layer's weights are of a kind not known here, or bytes are missing or left.
    """
    layers = read_layers(param)
    data, offset, tensors = weights.read_bytes(), 0, []
    for layer in layers:
        own = []
        for size, tagged in TENSORS.get(layer.type, _no_tensors)(layer):
            tensor, offset = _read_tensor(data, offset, size, tagged, f"{weights}: layer {layer.name} ({layer.type})")
            own.append(tensor)
        tensors.append(tuple(own))
    if offset != len(data):
        raise BackendError(
            f"{weights}: {len(data) - offset} bytes are left after the last layer, expected none; a layer has weights"
            " that this reader does not know; take another backend for this network"
        )
    return Network(layers, tuple(tensors))


def write_network(network: Network, param: Path, weights: Path) -> None:
    """Write both files; the same network gives the same bytes."""
    blobs = {name for layer in network.layers for name in layer.outputs}
    lines = [MAGIC, f"{len(network.layers)} {len(blobs)}", *map(_line, network.layers)]
    param.write_text("\n".join(lines) + "\n", encoding="utf-8")
    weights.write_bytes(b"".join(tensor.to_bytes() for own in network.tensors for tensor in own))


def read_layers(param: Path) -> tuple[Layer, ...]:
    """Read the .param alone.

    Raises:
        BackendError: It is not one, or a line is damaged.
    """
    lines = param.read_text(encoding="utf-8").splitlines()
    if len(lines) < 2 or lines[0].strip() != MAGIC:
        raise BackendError(f"{param}:1: not NCNN's text of layers, expected {MAGIC}, got {lines[:1]}; export it again")
    layers = []
    for number, line in enumerate(lines[2:], start=3):
        if line.strip():
            try:
                layers.append(_layer(line.split()))
            except (IndexError, ValueError) as error:
                raise BackendError(
                    f"{param}:{number}: damaged, expected a layer's type, name, blobs and parameters, got {line!r};"
                    " export it again"
                ) from error
    return tuple(layers)


def _layer(words: list[str]) -> Layer:
    num_inputs, num_outputs = int(words[2]), int(words[3])
    first = 4 + num_inputs + num_outputs
    blobs, pairs = words[4:first], [word.split("=", 1) for word in words[first:]]
    if len(blobs) != num_inputs + num_outputs:
        raise ValueError("a blob is missing")
    params = {int(number): value for number, value in pairs}
    return Layer(words[0], words[1], tuple(blobs[:num_inputs]), tuple(blobs[num_inputs:]), params)


def _line(layer: Layer) -> str:
    params = [f"{number}={value}" for number, value in layer.params.items()]
    head = f"{layer.type:<24} {layer.name:<24} {len(layer.inputs)} {len(layer.outputs)}"
    return " ".join([head, *layer.inputs, *layer.outputs, *params])


def _read_tensor(data: bytes, offset: int, size: int, tagged: bool, where: str) -> tuple[Tensor, int]:
    tag = FLOAT32_TAG
    if tagged:
        tag = int.from_bytes(data[offset : offset + 4], "little")
        offset += 4
    if tag not in _DTYPES:
        raise BackendError(f"{where}: expected a tensor at byte {offset - 4}, got the tag {tag:#010x}; export it again")
    length = size * _DTYPES[tag].itemsize
    end = offset + math.ceil(length / _ALIGN) * _ALIGN
    if end > len(data):
        raise BackendError(
            f"{where}: expected {end - offset} bytes at {offset}, got {len(data) - offset}; export again"
        )
    return Tensor(np.frombuffer(data, _DTYPES[tag], size, offset), tagged), end


# (elements, tagged) of each of a layer's tensors.
_Sizes = list[tuple[int, bool]]


def _no_tensors(layer: Layer) -> _Sizes:
    return []


def _convolution(layer: Layer) -> _Sizes:
    if layer.integer(19):  # the weights come from another layer
        return []
    num_output = layer.integer(0)
    scales = {0: 0, 1: num_output, 2: num_output}
    return _with_scales(layer, [(layer.integer(6), True)] + [(num_output, False)] * layer.integer(5), scales)


def _depthwise(layer: Layer) -> _Sizes:
    if layer.integer(19):
        return []
    sizes = [(layer.integer(6), True)] + [(layer.integer(0), False)] * layer.integer(5)
    return _with_scales(layer, sizes, {0: 0, 1: layer.integer(7, 1), 2: 1})


def _inner_product(layer: Layer) -> _Sizes:
    num_output = layer.integer(0)
    sizes = [(layer.integer(2), True)] + [(num_output, False)] * layer.integer(1)
    return _with_scales(layer, sizes, {0: 0, 1: num_output, 2: num_output})


def _with_scales(layer: Layer, sizes: _Sizes, num_scales: dict[int, int]) -> _Sizes:
    """Add the scales of weights, input and output that an int8 layer has."""
    term = layer.integer(8)
    if not term:
        return sizes
    return [*sizes, (num_scales[term % 100], False), (1, False)] + [(1, False)] * (term > 100)


def _deconvolution(layer: Layer) -> _Sizes:
    return [] if layer.integer(28) else [(layer.integer(6), True)] + [(layer.integer(0), False)] * layer.integer(5)


def _affine(number: int, default: int) -> Callable[[Layer], _Sizes]:
    """Return a rule for scale and shift over as many channels as parameter 0 or 1 says."""
    return lambda layer: [(layer.integer(number), False)] * 2 if layer.integer(default, 1) else []


def _gemm(layer: Layer) -> _Sizes:
    m, n, k = (layer.integer(number) for number in (7, 8, 9))
    sizes = [k * m] * layer.integer(4) + [n * k] * layer.integer(5)
    # -1: none, as 0 is a number.
    c = {0: 1, 1: m, 2: m, 3: m * n, 4: n}.get(layer.integer(10), 0)
    return [(size, True) for size in sizes + [c] * layer.integer(6) if size]


def _attention(layer: Layer) -> _Sizes:
    width, size = layer.integer(0), layer.integer(2)
    inputs = (size, width * layer.integer(3, width), width * layer.integer(4, width))
    outputs = [(size, True), (size // width, False)]
    return [pair for weights in inputs for pair in ((weights, True), (width, False))] + outputs


def _memory(layer: Layer) -> _Sizes:
    size = math.prod(layer.integer(number) or 1 for number in (0, 1, 2, 11))
    return [(size, layer.integer(21, 1) == 0)]


# Type of layer -> its tensors; a type that is not here has none.
TENSORS: dict[str, Callable[[Layer], _Sizes]] = {
    "BatchNorm": lambda layer: [(layer.integer(0), False)] * 4,
    "Bias": lambda layer: [(layer.integer(0), False)],
    "Convolution": _convolution,
    "Convolution1D": _convolution,
    "ConvolutionDepthWise": _depthwise,
    "Deconvolution": _deconvolution,
    "DeconvolutionDepthWise": _deconvolution,
    "Gemm": _gemm,
    "GroupNorm": _affine(1, 3),
    "InnerProduct": _inner_product,
    "InstanceNorm": _affine(0, 2),
    "LayerNorm": _affine(0, 2),
    "MemoryData": _memory,
    "MultiHeadAttention": _attention,
    "PReLU": lambda layer: [(layer.integer(0), False)],
    "Scale": lambda layer: [(layer.integer(0), False)] * (1 + layer.integer(1)),
}
