"""The report's rows, from numbers that are already read: one for each artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from plumbline.errors import EvaluationError
from plumbline.report_acceptance import Verdict, judge
from plumbline.report_build import Build, Speedup, build_of, speedup_of
from plumbline.report_words import ReportWords
from plumbline.runtime.artifact import Artifact
from plumbline.scores import Interval, Intervals

WEIGHTS = "weights"  # the trained weights: what every artifact is compared with
PARTS = ("preprocess", "inference", "postprocess")
LATENCIES = (*(f"latency_ms_p{p}" for p in (50, 90, 99)), *(f"{part}_ms_p50" for part in PARTS))
# metrics.json and the bootstrap score the same predictions: apart from rounding they say the same.
TOLERANCE = 1e-6

# Key in a benchmark's metrics -> what it is measured against.
SPEEDUPS = {
    "speedup_onnx_fp32": "ONNX fp32",
    "inference_speedup_onnx_fp32": "ONNX fp32, inference alone",
    "speedup_own_fp32": "its backend's fp32",
    "inference_speedup_own_fp32": "its backend's fp32, inference alone",
}


@dataclass(frozen=True)
class Result:
    """What is known of one artifact, as its stages wrote it.

    Attributes:
        artifact: The content of its artifact.json.
        metrics: Of evaluate, flat.
        undefined: Of evaluate: a metric that has no value -> why.
        benchmark: Of benchmark, flat; None where none was made, as for the trained weights.
        machine: Description of the machine that was measured on; empty where there is no benchmark.
    """

    artifact: Artifact
    metrics: Mapping[str, Any]
    undefined: Mapping[str, str]
    benchmark: Mapping[str, Any] | None
    machine: Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One line of the table; None is undefined (or INVALID, for a latency).

    Attributes:
        name: Of the artifact.
        backend: See `Artifact`.
        precision: See `Artifact`.
        confidence_threshold: The artifact's own.
        headline: The key of `scores` that artifacts are compared by.
        scores: Key of a `plumbline.report_words.Score` -> value.
        intervals: The same keys, those for which there are any -> interval; the ends may be NaN.
        class_scores: Key of a class's score -> name of the class -> value.
        latency_valid: None where nothing was measured: no benchmark, or no device.
        latency: Key of `LATENCIES` -> milliseconds.
        threads: Of the benchmark, and so are the next two.
        num_queries: One after the other.
        duration_s: Seconds.
        size_bytes: Of the files that a device needs.
        speedups: Key of `SPEEDUPS` -> how many times as fast, those that were measured.
        build: How it was made.
        verdict: Whether it is accepted as int8.
    """

    name: str
    backend: str
    precision: str
    confidence_threshold: float
    headline: str
    scores: dict[str, float | None]
    intervals: dict[str, Interval]
    class_scores: dict[str, dict[str, float | None]]
    latency_valid: bool | None
    latency: dict[str, float | None]
    threads: int | None
    num_queries: int | None
    duration_s: float | None
    size_bytes: int
    speedups: dict[str, Speedup]
    build: Build
    verdict: Verdict

    @property
    def score(self) -> float | None:
        """The headline's value."""
        return self.scores[self.headline]

    @property
    def interval(self) -> Interval | None:
        """The headline's interval."""
        return self.intervals.get(self.headline)

    @property
    def latency_ms_p50(self) -> float | None:
        """Milliseconds, one image end to end."""
        return self.latency["latency_ms_p50"]


def title_of(row: Row) -> str:
    """Return what a person calls the artifact."""
    return "trained weights" if row.name == WEIGHTS else row.name


def build_rows(
    results: Mapping[str, Result], sizes: Mapping[str, int], intervals: Intervals, words: ReportWords
) -> list[Row]:
    """Return one row per artifact: the trained weights, then the rest in the order given.

    Args:
        results: Name -> what was read; holds `WEIGHTS`.
        sizes: Name -> bytes of its files.
        intervals: Name -> metric -> interval.
        words: Of the task.

    Raises:
        EvaluationError: The trained weights are missing, a number is missing, or the intervals are of other scores.
    """
    if WEIGHTS not in results:
        raise EvaluationError(
            f"no evaluation of {WEIGHTS!r}, expected the trained weights as the reference; run dvc repro"
        )
    order = [WEIGHTS, *(name for name in results if name != WEIGHTS)]
    return [_row(name, results[name], sizes[name], intervals.get(name, {}), words) for name in order]


def choose_shown(rows: Sequence[Row]) -> str:
    """Return what is shown in detail: the smallest int8 artifact, or the first target, or the trained weights.

    One that is accepted as int8 goes before one that is not.

    Raises:
        IndexError: There are no rows.
    """
    int8 = [row for row in rows if row.precision == "int8"]
    targets = [row for row in rows if row.name != WEIGHTS]
    if int8:
        return min(int8, key=lambda row: (not row.verdict.accepted, row.size_bytes, row.name)).name
    return (targets or list(rows))[0].name


def evenly_spaced(image_ids: Sequence[int], count: int) -> list[int]:
    """Return `count` of the ids (all of them where there are fewer), evenly spaced in their sorted order.

    >>> evenly_spaced([9, 1, 5, 7, 3], 3)
    [1, 5, 9]
    """
    ordered = sorted(image_ids)
    if len(ordered) <= count:
        return ordered
    return [ordered[i] for i in np.linspace(0, len(ordered) - 1, count).round().astype(int)]


def scored_split(split_of: pd.Series, predictions: pd.DataFrame, metrics: Mapping[str, Any], likely: str) -> str:
    """Return which split was scored: one with as many images that holds every predicted image.

    Args:
        split_of: image_id -> split.
        predictions: Column image_id.
        metrics: Holds num_images.
        likely: The one that is taken where several are possible: equally large ones, and nothing was predicted.

    Raises:
        EvaluationError: There is none.
    """
    for split in (likely, "test", "val", "train"):
        image_ids = split_of.index[split_of == split]
        if len(image_ids) == metrics.get("num_images") and predictions["image_id"].isin(image_ids).all():
            return split
    raise EvaluationError(
        f"expected the scores of one of the splits, got {metrics.get('num_images')} images that are none of them;"
        " run dvc repro"
    )


def check_same_origin(results: Mapping[str, Result], task: str, class_names: Sequence[str]) -> None:
    """Refuse what is left over from another training: its difference to these weights would mean nothing.

    Raises:
        EvaluationError: An artifact is of another task, other weights, data, classes or images.
    """
    reference = results[WEIGHTS]
    for name, result in results.items():
        if result.artifact.task != task:
            raise EvaluationError(
                f"{name}: expected an artifact of the task {task}, got {result.artifact.task}; run dvc repro"
            )
        own = {**result.artifact.lineage, **result.metrics}
        expected = {**reference.artifact.lineage, **reference.metrics}
        for key in ("weights_sha256", "dataset_sha256", "num_images", "num_boxes"):
            if own.get(key) != expected.get(key):
                raise EvaluationError(
                    f"{name}: expected the {key} of the trained weights, {expected.get(key)}, got {own.get(key)}; run"
                    " dvc repro"
                )
        if result.artifact.class_names != tuple(class_names):
            got, wanted = ", ".join(result.artifact.class_names), ", ".join(class_names)
            raise EvaluationError(f"{name}: expected the classes of the dataset, {wanted}, got {got}; run dvc repro")


def _row(name: str, result: Result, size_bytes: int, intervals: Mapping[str, Interval], words: ReportWords) -> Row:
    artifact = result.artifact
    run: Mapping[str, Any] = result.benchmark or {}
    # What stands in for a device here says nothing of the device's speed.
    measured = run.get("measured", 1) if run else 0
    valid = bool(_number(name, run, "valid")) if measured else None
    timed = run if valid else None
    build = build_of(artifact, result.machine)
    speedups = {key: found for key in SPEEDUPS if timed and (found := speedup_of(timed, key)) is not None}
    return Row(
        name=name,
        backend=artifact.backend,
        precision=artifact.precision,
        confidence_threshold=artifact.decode.confidence_threshold,
        headline=words.headline.key,
        scores={score.key: _metric(name, result, score.metric) for score in words.scores},
        intervals={words.score_of(metric).key: _checked(name, result, metric, i) for metric, i in intervals.items()},
        # A class without an object in the split has no score, so evaluate leaves its key out.
        class_scores={
            score.key: {c: result.metrics.get(f"class_{c}_{score.metric}") for c in artifact.class_names}
            for score in words.class_scores
        },
        latency_valid=valid,
        latency={key: None if timed is None else _number(name, timed, key) for key in LATENCIES},
        threads=run.get("threads"),
        num_queries=run.get("num_queries"),
        duration_s=run.get("duration_s"),
        size_bytes=size_bytes,
        speedups=speedups,
        build=build,
        verdict=judge(artifact.precision, build.quantized, speedups.get("speedup_own_fp32")),
    )


def _checked(name: str, result: Result, metric: str, interval: Interval) -> Interval:
    value = _number(name, result.metrics, metric)
    if abs(value - interval.value) > TOLERANCE:
        raise EvaluationError(
            f"{name}: expected the {metric} that its predictions.parquet gives, {interval.value}, got {value} in its "
            "metrics.json; run dvc repro"
        )
    return interval


def _metric(name: str, result: Result, metric: str) -> float | None:
    # Evaluate leaves out what is undefined, and says so.
    return None if metric in result.undefined else _number(name, result.metrics, metric)


def _number(name: str, values: Mapping[str, Any], key: str) -> float:
    value = values.get(key)
    if not isinstance(value, int | float):
        raise EvaluationError(
            f"{name}: expected a number for {key!r}, got {value!r} beside {sorted(values)[:5]}; run dvc repro"
        )
    return float(value)
