"""Where a network learns."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from plumbline.errors import TrainingError


@dataclass(frozen=True)
class Devices:
    """What Lightning's trainer is told.

    Attributes:
        accelerator: ``cpu`` or ``gpu``.
        indices: One process for each; of CUDA, or of CPU processes.
        precision: ``32-true`` or ``bf16-mixed``.
    """

    accelerator: str
    indices: tuple[int, ...]
    precision: str


def resolve_devices(device: str | int, precision: str, num_gpus: int | None = None) -> Devices:
    """Turn ``auto``, ``cpu`` or a CUDA index into devices.

    Args:
        device: Of params.yaml.
        precision: ``fp32`` or ``bf16``.
        num_gpus: That there are; None asks CUDA.

    Raises:
        TrainingError: There is no such GPU, or bf16 is asked for without one.

    >>> resolve_devices("auto", "bf16", num_gpus=2)
    Devices(accelerator='gpu', indices=(0, 1), precision='bf16-mixed')
    """
    num_gpus = torch.cuda.device_count() if num_gpus is None else num_gpus
    if isinstance(device, int) and device >= num_gpus:
        raise TrainingError(
            f"train.classify.device is {device}, expected the index of a GPU, got a machine with {num_gpus}; set it to"
            " auto or cpu in params.yaml"
        )
    if device == "cpu" or not num_gpus:
        if precision == "bf16":
            raise TrainingError(
                "train.classify.precision is bf16 and there is no GPU to train on, expected fp32; change it in"
                " params.yaml"
            )
        return Devices("cpu", (0,), "32-true")
    indices = tuple(range(num_gpus)) if device == "auto" else (int(device),)
    return Devices("gpu", indices, "bf16-mixed" if precision == "bf16" else "32-true")
