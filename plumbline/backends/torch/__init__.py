"""The trained weights in torch: the reference that every artifact is compared with. Scored like them, never shipped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from plumbline.tasks import task_module

if TYPE_CHECKING:
    from plumbline.runtime.artifact import Artifact
    from plumbline.runtime.session import Engine

PRECISIONS: tuple[str, ...] = ()
PACKAGES = ("torch",)


def open_session(folder: Path, artifact: Artifact, threads: int) -> Engine:
    """Load the checkpoint as the hub does."""
    import torch

    from plumbline.trained import WEIGHTS

    torch.set_num_threads(threads)
    network = task_module(artifact.task, "network").load_network(folder / WEIGHTS).module

    def engine(tensor: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
        with torch.inference_mode():
            return [output.numpy() for output in network(torch.from_numpy(tensor))]

    return engine
