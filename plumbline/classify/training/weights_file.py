"""The file of trained weights, best.pt: plain tensors with what is needed to build the network and to feed it."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from plumbline.errors import BackendError
from plumbline.files import replacing
from plumbline.runtime.artifact import Preprocessing
from plumbline.torch_files import DamagedFileError, read_torch_file

FORMAT = "plumbline classifier 1"


@dataclass(frozen=True)
class ClassifierWeights:
    """The content of the file.

    Attributes:
        architecture: Value of ``train.classify.model``.
        num_classes: Length of the network's logits.
        image_size: Side of its square input, pixels.
        preprocessing: From an image to that input, as in training.
        state_dict: Name -> tensor, on the CPU, of the network as it was trained: auxiliary heads too.
    """

    architecture: str
    num_classes: int
    image_size: int
    preprocessing: Preprocessing
    state_dict: dict[str, torch.Tensor]


def write_weights(path: Path, weights: ClassifierWeights) -> None:
    """Write the file in one step; the same numbers give the same bytes."""
    # Interned names and tensors of their own: a pickle refers back to what it has seen already, and whether two equal
    # strings are one object, or two tensors one memory, would show in its bytes.
    state = {
        sys.intern(str(name)): tensor.detach().cpu().contiguous().clone()
        for name, tensor in sorted(weights.state_dict.items())
    }
    values = {
        "format": FORMAT,
        "architecture": sys.intern(str(weights.architecture)),
        "num_classes": int(weights.num_classes),
        "image_size": int(weights.image_size),
        "preprocessing": dataclasses.asdict(weights.preprocessing),
        "state_dict": state,
    }
    # Through a file that is open: with a path, torch puts the file's name into its bytes.
    with replacing(path) as temporary, temporary.open("wb") as file:
        torch.save(values, file)


def read_weights(path: Path) -> ClassifierWeights:
    """Read what `write_weights` wrote.

    Raises:
        BackendError: It is missing, not such a file, or damaged.
    """
    try:
        values: Any = read_torch_file(path, weights_only=True)
    except FileNotFoundError as error:
        raise BackendError(f"{path}: no such file, expected trained weights; run the train stage") from error
    except DamagedFileError as error:
        raise BackendError(
            f"{path}: {_FOREIGN}, got a file that cannot be read as such ({error}); {_WHAT_TO_DO}"
        ) from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        got = f"format {values.get('format')!r}" if isinstance(values, dict) else type(values).__name__
        raise BackendError(f"{path}: {_FOREIGN}, got {got}; {_WHAT_TO_DO}")
    preprocessing: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in values["preprocessing"].items()
    }
    return ClassifierWeights(
        architecture=values["architecture"],
        num_classes=values["num_classes"],
        image_size=values["image_size"],
        preprocessing=Preprocessing(**preprocessing),
        state_dict=values["state_dict"],
    )


_FOREIGN = f"not weights of a classifier of this line, expected format {FORMAT!r}"
_WHAT_TO_DO = "give the best.pt that the train stage wrote"
