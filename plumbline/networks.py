"""What the room ``network`` of a task gives: the trained network, ready for inference and for the hub.

It has ``load_network(weights: Path) -> Network``, which raises `plumbline.errors.BackendError` for a file that it did
not write, and otherwise gives the network as it is shipped: on the CPU, in fp32, fused or re-parameterised, no head
that serves training alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from plumbline.errors import BackendError
from plumbline.runtime.artifact import ClassifierOutputs, InputSpec, OutputSpec, Preprocessing


@dataclass(frozen=True)
class Network:
    """A network for inference.

    Attributes:
        module: Tensor of shape (1, 3, H, W) -> raw outputs, a tuple in the order of ``outputs.names``.
        input: What `artifact.json` says of its input.
        preprocessing: From an image to that input.
        outputs: What `artifact.json` says of its outputs.
    """

    module: torch.nn.Module
    input: InputSpec
    preprocessing: Preprocessing
    outputs: OutputSpec | ClassifierOutputs


def count_parameters(module: torch.nn.Module) -> int:
    """Return how many numbers inference uses."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_gflops(network: Network) -> float:
    """Return billions of floating-point operations of one image: two for each multiply-add of matrices."""
    from torch.utils.flop_counter import FlopCounterMode

    width, height = network.input.size_wh
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), _plain_attention(), counter:
        network.module(torch.zeros(1, 3, height, width))
    return counter.get_total_flops() / 1e9


def export_onnx(network: Network, opset: int, path: Path) -> None:
    """Write the hub: one ONNX file of fixed input shape (1, 3, H, W), simplified.

    Raises:
        BackendError: torch cannot express the network in this opset.
    """
    import onnx
    import onnxslim

    width, height = network.input.size_wh
    try:
        # The TorchScript exporter: the newer one needs onnxscript and names its tensors differently on each release.
        with _plain_attention():
            torch.onnx.export(
                network.module,
                (torch.zeros(1, 3, height, width),),
                str(path),
                input_names=[network.input.name],
                output_names=list(network.outputs.names),
                opset_version=opset,
                do_constant_folding=True,
                dynamo=False,
            )
    except (RuntimeError, ValueError) as error:
        said = str(error).strip().partition("\n")[0][:200]
        raise BackendError(
            f"torch cannot export the network with hub.opset {opset} ({said}); change it, or train.<task>.model, in"
            " params.yaml"
        ) from error
    onnx.save(onnxslim.slim(onnx.load(str(path))), str(path))


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Make torch run attention as its single operations: its fused one has no ONNX form, and is counted as nothing."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
