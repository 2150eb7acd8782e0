"""Turn an NCNN network's convolutions into int8 ones, as NCNN's own ncnn2int8 does; no compiled tool is needed.

An int8 layer holds int8 weights, a float bias, the weights' scales (``127 / absmax`` of each output channel) and one
scale of its input. NCNN quantizes the input itself, adds up in int32 and gives floats.

Source: https://github.com/Tencent/ncnn/wiki/quantized-int8-inference and ``load_model`` of the three layers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from plumbline.backends.ncnn.files import Layer, Network, Tensor

# Parameter 8 of an int8 layer: that its weights have one scale for each output (depthwise: for each group).
INT8_TERM = {"Convolution": 2, "ConvolutionDepthWise": 1, "InnerProduct": 2}
_TERM = 8
_LEVELS = 127


def can_be_int8(layer: Layer) -> bool:
    """Tell whether NCNN has an int8 form of a layer that computes the same."""
    if layer.type not in INT8_TERM:
        return False
    if layer.type == "InnerProduct":
        return True
    # Weights from another layer have no scales; padding is added to the integers, so only 0 means the same.
    if layer.integer(19) or float(layer.params.get(18, 0)) != 0:
        return False
    return layer.type == "Convolution" or _is_depthwise(layer)


def _is_depthwise(layer: Layer) -> bool:
    """Tell whether each group is one channel; int8 over larger groups gives garbage (ncnn 1.0.20261020, x86)."""
    kernel = layer.integer(1) * layer.integer(11, layer.integer(1))
    num_output = layer.integer(0)
    return layer.integer(7, 1) == num_output and layer.integer(6) == num_output * kernel


def is_int8(layer: Layer) -> bool:
    """Tell whether a layer computes in int8."""
    return layer.type in INT8_TERM and layer.integer(_TERM) != 0


def scales_of(absmax: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the factors to int8 for largest absolute values.

    What is always 0, or too small for its factor to be a number, gets the factor 1: it stays 0.

    >>> scales_of(np.array([127.0, 0.5, 0.0], np.float32)).tolist()
    [1.0, 254.0, 1.0]
    """
    with np.errstate(divide="ignore", over="ignore"):
        scales = np.float32(_LEVELS) / absmax.astype(np.float32)
    return np.where(np.isfinite(scales), scales, np.float32(1)).astype(np.float32)


def to_int8(values: npt.NDArray[np.float32], scale: npt.NDArray[np.float32] | float) -> npt.NDArray[np.int8]:
    """Quantize as NCNN does: round halves away from 0, and never use -128.

    >>> to_int8(np.array([0.5, -0.5, 1.4, 200.0, -200.0], np.float32), 1.0).tolist()
    [1, -1, 1, 127, -127]
    """
    scaled = values * np.asarray(scale, dtype=np.float32)
    rounded = np.trunc(scaled + np.copysign(np.float32(0.5), scaled))
    return np.clip(rounded, -_LEVELS, _LEVELS).astype(np.int8)


def quantize_layer(
    layer: Layer, tensors: tuple[Tensor, ...], input_absmax: float, *, per_channel: bool
) -> tuple[Layer, tuple[Tensor, ...]]:
    """Return the int8 form of a float layer.

    Args:
        layer: One that `can_be_int8`.
        tensors: Its weights and, if it has one, its bias.
        input_absmax: The largest absolute value of its input that keeps its own level.
        per_channel: One scale for each output channel instead of the same for all.
    """
    assert can_be_int8(layer), layer
    assert not is_int8(layer), layer
    groups = layer.integer(7, 1) if layer.type == "ConvolutionDepthWise" else layer.integer(0)
    weights = tensors[0].values.astype(np.float32).reshape(groups, -1)
    absmax = np.abs(weights).max(axis=1)
    scales = scales_of(absmax if per_channel else np.full_like(absmax, absmax.max()))
    stored = (
        Tensor(to_int8(weights, scales[:, None]).ravel(), tagged=True),
        *tensors[1:],
        Tensor(scales),
        Tensor(scales_of(np.array([input_absmax], dtype=np.float32))),
    )
    # In the order of the numbers, as NCNN's own tools write it.
    params = dict(sorted({**layer.params, _TERM: str(INT8_TERM[layer.type])}.items()))
    return replace(layer, params=params), stored


def quantize_network(network: Network, input_absmax: Mapping[str, float], *, per_channel: bool) -> Network:
    """Return a network with int8 layers.

    Args:
        network: In float.
        input_absmax: Name of each layer that shall be int8 -> see `quantize_layer`.
        per_channel: See `quantize_layer`.
    """
    layers, tensors = [], []
    for layer, own in zip(network.layers, network.tensors, strict=True):
        if layer.name in input_absmax:
            layer, own = quantize_layer(layer, own, input_absmax[layer.name], per_channel=per_channel)  # noqa: PLW2901
        layers.append(layer)
        tensors.append(own)
    return Network(tuple(layers), tuple(tensors))
