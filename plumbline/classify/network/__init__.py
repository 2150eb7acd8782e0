"""The trained classifier, ready for inference and for the hub."""

from __future__ import annotations

from pathlib import Path

import torch

from plumbline.classify.training.architectures import deployed, make
from plumbline.classify.training.weights_file import read_weights
from plumbline.errors import BackendError, TrainingError
from plumbline.networks import Network
from plumbline.runtime.artifact import ClassifierOutputs, InputSpec


class Logits(torch.nn.Module):
    """A network that gives its one output in a tuple, as every network of the line does."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        """Return (logits,), of shape (1, C)."""
        return (self.network(x),)


def load_network(weights: Path) -> Network:
    """Load the trained weights in the form that ships, see `plumbline.networks`.

    Raises:
        BackendError: The file is not one that the train stage wrote, or of another version of a library.
    """
    content = read_weights(weights)
    try:
        module = make(content.architecture, content.num_classes, content.image_size)
        module.load_state_dict(
            {
                name: tensor.float() if tensor.is_floating_point() else tensor
                for name, tensor in content.state_dict.items()
            }
        )
    except (TrainingError, RuntimeError) as error:
        said = str(error).strip().splitlines()[-1].strip()
        raise BackendError(
            f"{weights}: does not fit {content.architecture} as the installed libraries build it ({said}); install the"
            " versions it was trained with, or train again"
        ) from error
    return Network(
        module=Logits(deployed(module)).eval().requires_grad_(False),
        input=InputSpec(name="images", size_wh=(content.image_size, content.image_size)),
        preprocessing=content.preprocessing,
        outputs=ClassifierOutputs(),
    )
