"""The gate between a network and what was exported from it: raw outputs on real images, side by side.

The hub stage keeps some input tensors with what the trained weights make of them; every float export must make the
same of them, within its backend's tolerance. So an int8 file's loss is never that of a wrong conversion.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from plumbline.errors import BackendError
from plumbline.runtime.session import Engine

REFERENCE = "reference.npz"
NUM_IMAGES = 4

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Reference:
    """Input tensors and the trained weights' raw outputs for them.

    Attributes:
        tensors: Each of shape (1, 3, H, W).
        outputs: For each tensor the outputs, in the artifact's order.
    """

    tensors: tuple[npt.NDArray[np.float32], ...]
    outputs: tuple[tuple[Floats, ...], ...]


@dataclass(frozen=True)
class Parity:
    """How near an export comes.

    Attributes:
        max_error: Largest difference, as a share of the largest absolute value of that output over the images.
        tolerance: Allowed.
        num_images: Compared.
        output: Name of the output with the largest.
    """

    max_error: float
    tolerance: float
    num_images: int
    output: str

    def told(self) -> dict[str, Any]:
        """Return what `artifact.json` says of it."""
        return asdict(self)


def make_reference(engine: Engine, tensors: Sequence[npt.NDArray[np.float32]]) -> Reference:
    """Run the trained weights."""
    return Reference(tuple(tensors), tuple(tuple(engine(tensor)) for tensor in tensors))


def write_reference(reference: Reference, path: Path) -> None:
    """Write one .npz; the same reference gives the same bytes."""
    columns = list(zip(*reference.outputs, strict=True))
    arrays = {f"output{place:02}": np.concatenate(column) for place, column in enumerate(columns)}
    np.savez(path, tensors=np.concatenate(reference.tensors), **arrays)  # type: ignore[arg-type]


def read_reference(path: Path) -> Reference:
    """Read what `write_reference` wrote.

    Raises:
        BackendError: It is missing or no such file.
    """
    try:
        with np.load(path) as stored:
            names = sorted(name for name in stored.files if name != "tensors")
            columns = [stored[name] for name in names]
            tensors = stored["tensors"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise BackendError(f"{path}: cannot be read ({error}), expected what the hub stage writes; run it again") from (
            error
        )
    rows = range(len(tensors))
    outputs = tuple(tuple(column[row : row + 1] for column in columns) for row in rows)
    return Reference(tuple(tensors[row : row + 1] for row in rows), outputs)


def check_parity(reference: Reference, engine: Engine, names: Sequence[str], tolerance: float, what: str) -> Parity:
    """Compare an export's raw outputs with the trained weights'.

    Args:
        reference: See `Reference`.
        engine: Of the export.
        names: Of the outputs.
        tolerance: See `Parity`.
        what: The export, as a message names it.

    Raises:
        BackendError: The outputs have other shapes, are no numbers, or differ by more.
    """
    got = [engine(tensor) for tensor in reference.tensors]
    worst, output = 0.0, names[0]
    for place, name in enumerate(names):
        error = _error_of([row[place] for row in reference.outputs], [row[place] for row in got], name, what)
        if error > worst:
            worst, output = error, name
    if not worst <= tolerance:
        raise BackendError(
            f"{what}: its output {output} differs from that of the trained weights by {worst:.2g} of its largest value,"
            f" expected {tolerance:g} or less; this conversion is wrong: take another backend or network, and report it"
        )
    return Parity(worst, tolerance, len(got), output)


def _error_of(expected: Sequence[Floats], got: Sequence[Floats], name: str, what: str) -> float:
    for want, have in zip(expected, got, strict=True):
        if want.shape != have.shape:
            raise BackendError(
                f"{what}: its output {name} has the shape {have.shape}, expected {want.shape}; report this as a bug"
            )
        if not np.isfinite(have).all():
            raise BackendError(
                f"{what}: its output {name} holds NaN or infinite values, expected numbers; take another precision or"
                " backend for this network"
            )
    largest = max(float(np.abs(want).max()) for want in expected)
    difference = max(float(np.abs(want - have).max()) for want, have in zip(expected, got, strict=True))
    return difference / largest if largest else float(difference > 0)
