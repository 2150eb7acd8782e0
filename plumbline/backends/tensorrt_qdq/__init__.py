"""The ONNX file that TensorRT builds its engine from: int8 as symmetric Q and DQ, checked, ready for `trtexec`.

No TensorRT is needed to make it. ONNX Runtime stands in to score it: the same numbers, rounded to int8 at the same
places, at another speed. What is left in float TensorRT computes in fp16, ONNX Runtime in fp32.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from plumbline.runtime.onnx_engine import open_onnx

if TYPE_CHECKING:
    from plumbline.quantization.recipes import Quantizer
    from plumbline.runtime.artifact import Artifact
    from plumbline.runtime.session import Engine

PRECISIONS = ("fp32", "int8")
PACKAGES = ("onnx", "onnxruntime")
CHIPS: tuple[str, ...] = ()
STANDS_IN = "ONNX Runtime"
TOLERANCE = {"fp32": 2e-4}
ARITHMETIC = ("symmetric", 127)
MODEL = "model.onnx"


def export(hub: Path, out: Path, precision: str, chip: str) -> dict[str, Any]:
    """Copy the hub's file.

    Raises:
        BackendError: TensorRT would refuse it.
    """
    assert (precision, chip) == ("fp32", ""), (precision, chip)
    from plumbline.quantization.tensorrt_qdq import notes_of, refuse_faults

    advice = refuse_faults(hub)
    shutil.copyfile(hub, out / MODEL)
    return notes_of(precision, advice)


def quantizer(hub: Path, tensors: Sequence[npt.NDArray[np.float32]], work: Path, chip: str) -> Quantizer:
    """Calibrate once; see `plumbline.backends`.

    Raises:
        BackendError: The network cannot be quantized; later, from `write`: TensorRT would refuse the file.
    """
    from plumbline.quantization.tensorrt_qdq import checked_quantizer

    return checked_quantizer(hub, tensors)


def open_session(folder: Path, artifact: Artifact, threads: int) -> Engine:
    """Open the file with ONNX Runtime."""
    return open_onnx(folder / MODEL, artifact, threads)
