"""A revision made of a small run, scored by the real evaluator."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from plumbline.errors import DatasetError
from plumbline.review.revision import Revision, Scored
from plumbline.score_comparison import ScoredRun
from plumbline.scores import ScoringSettings
from plumbline.tasks import task_module

MACHINE = {"architecture": "x86_64", "cpu_model": "one", "usable_cores": 2}
DEVICE = {"latency_ms_p50": 10.0, "speedup_own_fp32": 1.5, "speedup_own_fp32_low": 1.4, "speedup_own_fp32_high": 1.6}
PARAMS = {"evaluate": {"slices": ["brightness", "box_size"], "slice_bins": 2}, "report": {"resample": "image"}}


def revision_of(
    run: ScoredRun,
    *,
    params: Mapping[str, Any] | None = None,
    threshold: float = 0.3,
    device: Mapping[str, float] | None = None,
    machine: Mapping[str, Any] | None = None,
    validation: Mapping[str, float] | None = None,
) -> Revision:
    """A revision whose every artifact but the weights is int8 and was measured."""
    rng = np.random.default_rng(3)
    images = run.images.assign(brightness=rng.uniform(0, 255, len(run.images)))
    run = dataclasses.replace(run, images=images, data=dataclasses.replace(run.data, images=images))
    scored = {}
    for place, (name, found) in enumerate(run.predictions.items()):
        measured = name != "weights"
        row = {"name": name, "precision": "int8" if measured else "fp32", "size_bytes": 1000 * (place + 1)}
        scored[name] = _scored(
            run, found, threshold, row | ({"accepted": True} if measured else {}),
            (device or DEVICE) if measured else {}, (machine or MACHINE) if measured else {},
        )  # fmt: skip
    return Revision(
        name=run.name, commit="a" * 40, is_clean=True, params={**PARAMS, **(params or {})}, run=run,
        splits=pd.DataFrame({"image_id": images["image_id"], "split": "test"}), scored=scored,
        validation=dict(validation or {"num_errors": 0}), threshold=dict.fromkeys(scored, threshold),
        image_file=_no_image,
    )  # fmt: skip


def _scored(
    run: ScoredRun, found: pd.DataFrame, threshold: float, row: dict[str, Any], device: Any, machine: Any
) -> Scored:
    room = task_module(run.task, "scoring")
    settings = ScoringSettings(threshold, 0.001, "count", ("brightness",), 2, 4)
    truth = room.truth_of(run.data, run.images)
    scores = room.evaluate(truth, found, run.images, run.data.class_names, settings)
    return Scored(scores.metrics, scores.undefined, scores.tables, dict(device), dict(machine), row)


def _no_image(path: str) -> Path:
    raise DatasetError(f"{path}: there is none")
