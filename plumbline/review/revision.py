"""What a revision's line made, as the comparison reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from plumbline.score_comparison import ScoredRun

WEIGHTS = "weights"


@dataclass(frozen=True)
class Scored:
    """What the line says of one artifact, or of the trained weights.

    Attributes:
        metrics: ``reports/evaluate/<artifact>/metrics.json``: flat numbers.
        undefined: Metric that is not there -> why.
        tables: Stem of a CSV file (`plumbline.scores.TABLES`) -> its rows.
        device: ``reports/benchmark/<artifact>.json``: flat numbers; empty where nothing was measured.
        machine: ``reports/benchmark/<artifact>.machine.json``; empty as `device`.
        row: Its row of report.json: size_bytes, backend, precision, accepted...
    """

    metrics: Mapping[str, float]
    undefined: Mapping[str, str]
    tables: Mapping[str, pd.DataFrame]
    device: Mapping[str, float]
    machine: Mapping[str, Any]
    row: Mapping[str, Any]


@dataclass(frozen=True)
class Revision:
    """One side of a comparison.

    Attributes:
        name: As the user said it: ``main``, ``HEAD``, ``the working tree``.
        commit: Its full hash; of the working tree, that of HEAD.
        is_clean: Whether what was read is exactly the commit's; False for a working tree with changes.
        params: params.yaml.
        run: Task, validated dataset (whose ``root`` holds no images: see `image_file`), images scored, predictions.
        splits: Columns image_id and split, of the whole dataset.
        scored: Name of an artifact, `WEIGHTS` first -> what is said of it.
        validation: reports/validate.json: flat counts.
        threshold: Artifact -> confidence threshold in use.
        image_file: Gives a file with the bytes of an image at its images.path; brings it from DVC's cache or remote.
            Raises a PlumblineError where it is not to be had.
    """

    name: str
    commit: str
    is_clean: bool
    params: Mapping[str, Any]
    run: ScoredRun
    splits: pd.DataFrame
    scored: Mapping[str, Scored]
    validation: Mapping[str, float]
    threshold: Mapping[str, float]
    image_file: Callable[[str], Path]
