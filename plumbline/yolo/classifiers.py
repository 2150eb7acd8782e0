"""YOLO's classifiers as plain torch modules: logits in training and in inference alike."""

from __future__ import annotations

import copy
import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch

from plumbline.errors import TrainingError
from plumbline.yolo import quiet_ultralytics


class YoloClassifier(torch.nn.Module):
    """A classifier that ultralytics describes. Its tensors have ultralytics' names.

    The input is RGB, shape (N, 3, H, W); the output is logits, shape (N, C).
    """

    def __init__(self, name: str, num_classes: int) -> None:
        """Build it with random weights.

        Args:
            name: One of `plumbline.yolo.known_classifiers`.
            num_classes: C.
        """
        super().__init__()
        quiet_ultralytics()
        from ultralytics.nn.tasks import ClassificationModel

        with redirect_stdout(io.StringIO()):
            network = ClassificationModel(f"{name}.yaml", nc=num_classes, verbose=False)
        assert not network.save, "every layer takes what the one before it gives"
        self.model = network.model
        # In a tuple torch does not list its parameters a second time; it shares them, and is what can fuse them.
        self._network = (network,)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        output: Any = self.model(x)
        # In inference the head gives (probabilities, logits).
        return output if isinstance(output, torch.Tensor) else output[1]

    def fused(self) -> YoloClassifier:
        """Return a copy whose batch normalisations are part of their convolutions, for inference alone."""
        fused = copy.deepcopy(self).eval()
        with redirect_stdout(io.StringIO()):
            fused._network[0].fuse(verbose=False)
        return fused


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a checkpoint that ultralytics wrote: a pickled model, so it must come from a trusted place.

    Raises:
        TrainingError: ultralytics cannot read it.
    """
    quiet_ultralytics()
    from ultralytics.nn.tasks import load_checkpoint

    try:
        model, _ = load_checkpoint(path, device=torch.device("cpu"))
    except Exception as error:  # a pickle raises what its content likes
        raise TrainingError(
            f"{path}: not weights that torch or ultralytics can read ({type(error).__name__}); give another file"
        ) from error
    return dict(model.state_dict())


def download_checkpoint(name: str) -> dict[str, torch.Tensor]:
    """Fetch the weights that ultralytics publishes for a classifier, once, beside torchvision's.

    Raises:
        OSError: There is no network, or there are no such weights.
    """
    quiet_ultralytics()
    from ultralytics.utils.downloads import attempt_download_asset

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.pt"
    attempt_download_asset(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path.name} is not published by ultralytics, or cannot be reached")
    return read_checkpoint(path)
