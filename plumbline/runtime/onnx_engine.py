"""ONNX Runtime on the CPU: it runs the hub, artifacts of the backend ``onnx``, and files meant for absent engines."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from plumbline.runtime.artifact import Artifact
    from plumbline.runtime.session import Engine


def open_onnx(path: Path, artifact: Artifact, threads: int) -> Engine:
    """Open an ONNX file whose input and outputs are the artifact's."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Warnings about what the CPU lacks would be repeated for each session.
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = list(artifact.outputs.names)

    def engine(tensor: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
        return session.run(names, {artifact.input.name: tensor})

    return engine
