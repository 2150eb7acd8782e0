"""TensorRT: an engine for the NVIDIA GPU of the machine that builds it.

Untested on a real TensorRT, which no machine of this project had: see `plumbline.backends.tensorrt.engine`, which is
all that imports it. Where it is not installed, every use is one error; the backend ``tensorrt_qdq`` makes and checks
the same int8 ONNX file anywhere.

An engine fits one version of TensorRT and one GPU, and its kernels are chosen by the clock: no two builds need give the
same bytes, so notes say that it is not reproducible.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from plumbline.errors import BackendError
from plumbline.quantization.recipes import Quantizer, Recipe, Written

if TYPE_CHECKING:
    from plumbline.runtime.artifact import Artifact
    from plumbline.runtime.session import Engine

PRECISIONS = ("fp32", "fp16", "int8")
PACKAGES = ("tensorrt", "cuda-python", "onnx")
CHIPS: tuple[str, ...] = ()
STANDS_IN = ""
TOLERANCE = {"fp32": 2e-3, "fp16": 0.05}
ARITHMETIC = ("symmetric", 127)
ENGINE = "model.engine"
NOTES = {"reproducible": False}
LAST_LINES = 5


def export(hub: Path, out: Path, precision: str, chip: str) -> dict[str, Any]:
    """Build an engine from the hub's file.

    Raises:
        BackendError: TensorRT is not installed, refuses the file, or fails.
    """
    _demand(str(hub))
    _build(hub, out / ENGINE, precision)
    return dict(NOTES)


def quantizer(hub: Path, tensors: Sequence[npt.NDArray[np.float32]], work: Path, chip: str) -> Quantizer:
    """Calibrate as ``tensorrt_qdq`` does; `write` then builds the engine from its checked ONNX file.

    Raises:
        BackendError: As `export`.
    """
    from plumbline.quantization.tensorrt_qdq import MODEL, checked_quantizer

    _demand(str(hub))
    checked = checked_quantizer(hub, tensors)

    def write(folder: Path, recipe: Recipe) -> Written:
        written = checked.write(work, recipe)
        _build(work / MODEL, folder / ENGINE, "int8")
        return replace(written, notes={**written.notes, **NOTES})

    return replace(checked, write=write)


def open_session(folder: Path, artifact: Artifact, threads: int) -> Engine:
    """Load the engine; the GPU takes no heed of `threads`.

    Raises:
        BackendError: TensorRT is not installed, or not the one that built it, or there is no GPU.
    """
    _demand(str(folder))
    from plumbline.backends.tensorrt.engine import Running

    try:
        return Running(folder / ENGINE, artifact.input.name, artifact.outputs.names)
    except (OSError, RuntimeError) as error:
        raise BackendError(
            f"{folder / ENGINE}: TensorRT cannot open it ({error}), expected an engine that was built on this machine;"
            " export it again here"
        ) from error


def missing() -> str:
    """Say what is not installed here; an empty text where nothing is missing."""
    if importlib.util.find_spec("tensorrt") is not None:
        return ""
    return (
        "TensorRT is not installed here, expected it and an NVIDIA GPU; on such a machine: pip install 'tensorrt>=10'"
        " cuda-python; or change the target's backend to tensorrt_qdq, which makes and checks the int8 ONNX file"
        " anywhere, and build its engine there with trtexec"
    )


def _demand(what: str) -> None:
    said = missing()
    if said:
        raise BackendError(f"{what}: {said}")


def _build(model: Path, engine: Path, precision: str) -> None:
    """Build in another process: a builder that crashes must not take this one with it."""
    root = str(Path(__file__).parents[3])
    paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "plumbline.backends.tensorrt.engine", str(model), str(engine), precision]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode or not engine.is_file():
        engine.unlink(missing_ok=True)
        last = " | ".join(line.strip() for line in done.stdout.strip().splitlines()[-LAST_LINES:])
        raise BackendError(
            f"{model}: TensorRT could not build an {precision} engine (exit {done.returncode}: {last or 'no output'});"
            " see these lines, or take another precision for this target"
        )
