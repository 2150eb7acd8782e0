"""Which blocks int8 hurts most: each is quantized alone, and the network's raw outputs compared with those of fp32."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from plumbline.quantization.recipes import Quantizer, Recipe
from plumbline.runtime.session import Engine

Floats = npt.NDArray[np.floating[Any]]
# Kind of an output -> places among the raw outputs.
Kinds = Sequence[Sequence[int]]


def rank_blocks(
    quantizer: Quantizer,
    base: Recipe,
    open_engine: Callable[[Path], Engine],
    tensors: Sequence[npt.NDArray[np.float32]],
    kinds: Kinds,
    *,
    expected: Sequence[Sequence[Floats]],
    work: Path,
) -> tuple[str, ...]:
    """Order the blocks by the noise that int8 in each of them alone makes.

    The noise of boxes and that of classes are sums of squares of other sizes: each is taken as a share of what all
    blocks make of it, and a block counts by the sum of its shares.

    Args:
        quantizer: Of the backend.
        base: Method and operators.
        open_engine: Opens an engine's files.
        tensors: Input tensors, shape (1, 3, H, W).
        kinds: Places of the outputs that belong together, such as all boxes and all class logits.
        expected: The raw outputs of fp32 for each tensor.
        work: Folder for what lies between.

    Returns:
        Names of the blocks, the one that makes most noise first.
    """
    names = [block.name for block in quantizer.blocks]
    noise = np.zeros((len(names), len(kinds)))
    for row, name in enumerate(names):
        folder = work / f"alone{row}"
        folder.mkdir(parents=True)
        others = tuple(other for other in names if other != name)
        quantizer.write(folder, Recipe(base.method, base.operators, others))
        engine = open_engine(folder)
        for tensor, fp32 in zip(tensors, expected, strict=True):
            noise[row] += squared_errors(engine(tensor), fp32, kinds)
    return tuple(names[row] for row in order_of(noise))


def squared_errors(got: Sequence[Floats], expected: Sequence[Floats], kinds: Kinds) -> npt.NDArray[np.float64]:
    """Return the sum of squared differences of each kind of output, shape (kinds,)."""
    each = [float(np.square(have - want, dtype=np.float64).sum()) for have, want in zip(got, expected, strict=True)]
    return np.array([sum(each[place] for place in places) for places in kinds])


def order_of(noise: npt.NDArray[np.float64]) -> list[int]:
    """Return rows by falling sum of their shares of each column; equal ones stay in their order.

    >>> order_of(np.array([[1.0, 10.0], [3.0, 0.0], [0.0, 0.0]]))
    [0, 1, 2]
    """
    total = noise.sum(axis=0)
    shares = np.divide(noise, total, out=np.zeros_like(noise), where=total > 0).sum(axis=1)
    return np.argsort(-shares, kind="stable").tolist()
