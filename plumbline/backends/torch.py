"""The trained weights in torch: the reference that every artifact is compared with. Scored like them, never shipped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from plumbline.runtime.artifact import Artifact
    from plumbline.runtime.session import Engine

PRECISIONS: tuple[str, ...] = ()
PACKAGES = ("torch", "ultralytics")
WEIGHTS = "best.pt"


def open_session(folder: Path, artifact: Artifact, threads: int) -> Engine:
    """Load the checkpoint and cut its head where the hub cuts it."""
    import torch

    from plumbline.yolo.network import load_split_head

    torch.set_num_threads(threads)
    network = load_split_head(folder / WEIGHTS)

    def engine(tensor: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
        with torch.inference_mode():
            return [output.numpy() for output in network(torch.from_numpy(tensor))]

    return engine
