"""Precision, recall and F1 against the confidence threshold, as rows: what a person gives up by moving it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

COLUMNS = ("confidence", "precision", "recall", "f1")
STEPS = 100


def confidence_rows(
    confidence: npt.NDArray[np.floating[Any]],
    right: npt.NDArray[np.bool_],
    num_objects: int,
    *,
    lowest: float,
    marked: Sequence[float] = (),
) -> pd.DataFrame:
    """Return what each threshold gives: exact at every row, at steps of a hundredth and at the thresholds marked.

    Args:
        confidence: Shape (N,), of every prediction that counts, in any order.
        right: Shape (N,), bool.
        num_objects: What there was to find.
        lowest: Where the curve begins: predictions below were not kept.
        marked: More thresholds to give, say the one that is in use.

    Returns:
        Columns `COLUMNS`, by rising confidence. Precision is NaN where nothing is shown, recall where there is
        nothing to find, F1 where both are so.

    >>> rows = confidence_rows(np.array([0.9, 0.8]), np.array([True, False]), 2, lowest=0.5, marked=[0.855])
    >>> rows[rows["confidence"].isin([0.5, 0.855, 0.95])].round(3).values.tolist()
    [[0.5, 0.5, 0.5, 0.5], [0.855, 1.0, 0.5, 0.667], [0.95, nan, 0.0, 0.0]]
    """
    steps = np.arange(STEPS + 1) / STEPS
    thresholds = np.unique([lowest, *steps[steps > lowest].tolist(), *marked])
    order = np.argsort(confidence, kind="stable")
    rising = np.asarray(confidence)[order]
    # In the type of the confidences, as a session compares them: 0.7 and float32's 0.7 are one threshold.
    first = np.searchsorted(rising, thresholds.astype(rising.dtype), side="left")
    shown = (len(rising) - first).astype(np.float64)
    hits = np.append(np.cumsum(np.asarray(right)[order][::-1])[::-1], 0).astype(np.float64)[first]
    objects = np.full(len(thresholds), float(num_objects))
    values = (thresholds, share(hits, shown), share(hits, objects), share(2 * hits, shown + objects))
    return pd.DataFrame(dict(zip(COLUMNS, values, strict=True)))


def share(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return part by whole, shape (N,); NaN where the whole is 0.

    >>> share(np.array([1, 0]), np.array([2, 0])).tolist()
    [0.5, nan]
    """
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
