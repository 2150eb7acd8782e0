"""The hub as something to run: the fp32 that accuracy and speed of every target are compared with."""

from __future__ import annotations

from pathlib import Path

from plumbline.backends import HUB
from plumbline.runtime.artifact import read_artifact
from plumbline.runtime.onnx_engine import open_onnx
from plumbline.runtime.session import Session

# See `plumbline.parity`: of the hub itself, in ONNX Runtime.
TOLERANCE = 1e-4


def open_hub(folder: Path, *, threads: int) -> Session:
    """Open the hub's ONNX file with ONNX Runtime.

    Args:
        folder: The hub's artifact folder.
        threads: Of the engine.

    Raises:
        BackendError: It is missing or damaged.
    """
    artifact = read_artifact(folder)
    return Session(artifact, open_onnx(folder / HUB, artifact, threads))
