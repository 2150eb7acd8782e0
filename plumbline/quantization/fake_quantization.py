"""A float network that computes as its int8 file will: weights and inputs of its layers are rounded to int8's levels.

Only convolutions and matrix products are touched, because these every backend computes in int8. Gradients pass the
rounding as if it were not there, and stop where a value lies outside of the range: the straight-through estimator.

Source: Jacob et al., Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference
(CVPR 2018), section 3.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

LAYERS = (torch.nn.Conv2d, torch.nn.Linear)


@dataclass(frozen=True)
class Levels:
    """The integers that a value is rounded to, both ends included."""

    lowest: int
    highest: int


# -128 is left out, as ONNX Runtime, TensorRT and NCNN leave it out: zero is in the middle.
INT8 = Levels(-127, 127)
# Name of how inputs are quantized -> their levels. Where one end is 0 the range need not be symmetric.
INPUT_LEVELS = {"asymmetric": Levels(0, 255), "symmetric": INT8}


def round_weight(weight: torch.Tensor, levels: Levels, *, per_channel: bool = True) -> torch.Tensor:
    """Return a layer's weights as int8 holds them, symmetric around zero.

    Args:
        weight: Shape (output channels, ...).
        levels: Symmetric.
        per_channel: Each output channel has a scale of its own, which does not follow the gradient.

    >>> round_weight(torch.tensor([[0.5, -1.0], [0.0, 0.0]]), Levels(-4, 4)).tolist()
    [[0.5, -1.0], [0.0, 0.0]]
    """
    rows = weight.detach().abs().flatten(1)
    largest = rows.amax(1) if per_channel else rows.max().expand(len(rows))
    # A channel of zeros keeps them, whatever its scale.
    scale = torch.where(largest > 0, largest, 1.0) / levels.highest
    zero = torch.zeros(len(rows), dtype=torch.int32, device=weight.device)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, levels.lowest, levels.highest)


def round_input(x: torch.Tensor, low: float, high: float, levels: Levels) -> torch.Tensor:
    """Return a tensor as int8 holds it, with one scale for all of it.

    Args:
        x: Any shape; what lies outside of the range is cut off.
        low: Lower end of the range, at most 0, so that zero is a level.
        high: Upper end, at least 0.
        levels: Symmetric ones use the larger end on both sides.

    >>> round_input(torch.tensor([-1.0, 0.4, 3.0, 9.0]), -1.0, 3.0, Levels(0, 4)).tolist()
    [-1.0, 0.0, 3.0, 3.0]
    """
    assert low <= 0 <= high, (low, high)
    if levels.lowest < 0:
        high = max(-low, high)
        low = -high
    if low == high:
        return x
    # In fp32, as the files of every backend hold it.
    scale = float(torch.tensor((high - low) / (levels.highest - levels.lowest)))
    zero = round(levels.lowest - low / scale)
    return torch.fake_quantize_per_tensor_affine(x, scale, zero, levels.lowest, levels.highest)


class FakeQuantized:
    """A network that runs with rounded weights and inputs; its own tensors stay as they are, and can be trained.

    Before it runs it must have seen images (`calibrate`): they give the ranges of the inputs.
    """

    def __init__(self, module: torch.nn.Module, inputs: Levels, weights: Levels = INT8, *, per_channel: bool = True):
        """Hook into the network, until `remove`.

        Args:
            module: Any network.
            inputs: Levels of every layer's input.
            weights: Levels of every layer's weights.
            per_channel: See `round_weight`.
        """
        self.module = module
        self.ranges: dict[str, tuple[float, float]] = {}
        self._inputs, self._weights, self._per_channel = inputs, weights, per_channel
        self._calibrating = False
        self._layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, LAYERS)}
        self._hooks = [
            layer.register_forward_pre_hook(functools.partial(self._on_input, name))
            for name, layer in self._layers.items()
        ]

    def calibrate(self, batches: Iterable[torch.Tensor]) -> None:
        """Take the smallest and the largest input of every layer over these images, with the weights as they are now.

        A clipped range would lose more than it gains: FACTS has it for the activation SiLU, on every backend.
        """
        self.ranges = {}
        self._calibrating = True
        with torch.no_grad():
            for batch in batches:
                self.module(batch)
        self._calibrating = False

    def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run with rounded weights and inputs."""
        rounded = {
            # As a tensor's full name in the network; a network that is one layer has no name itself.
            f"{name}.weight".lstrip("."): round_weight(layer.weight, self._weights, per_channel=self._per_channel)
            for name, layer in self._layers.items()
        }
        return torch.func.functional_call(self.module, rounded, (x,))

    def remove(self) -> None:
        """Leave the network as if this had never been there."""
        for hook in self._hooks:
            hook.remove()

    def _on_input(self, name: str, _layer: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        x, *rest = args
        if self._calibrating:
            low, high = (float(end) for end in x.aminmax())
            before = self.ranges.get(name, (0.0, 0.0))
            self.ranges[name] = min(before[0], low), max(before[1], high)
            return None
        # A layer that no image of the calibration has come to, say in another branch, has no range.
        if name not in self.ranges:
            return None
        return (round_input(x, *self.ranges[name], self._inputs), *rest)
