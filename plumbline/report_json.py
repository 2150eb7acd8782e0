"""The report as report.json has it, for what decides by it: its rows are flat, but for classes and lists."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from plumbline.recommendation import Budget, Choice, keeps_budget
from plumbline.report_build import Build, Quantized
from plumbline.report_content import Content
from plumbline.report_details import threshold_note
from plumbline.report_rows import SPEEDUPS, Row
from plumbline.report_words import ReportWords

UNITS = {
    "latency_valid": "false where the benchmark did not meet its minimums; null where nothing was measured",
    "latency_ms_p50": "milliseconds, one image end to end",
    "latency_ms_p90": "milliseconds, one image end to end",
    "latency_ms_p99": "milliseconds, one image end to end",
    "preprocess_ms_p50": "milliseconds",
    "inference_ms_p50": "milliseconds",
    "postprocess_ms_p50": "milliseconds",
    "size_bytes": "bytes of the files that a device needs",
    "precision": "numbers that the weights are stored in: fp32, fp16 or int8; computes_in tells what computes",
    "confidence_threshold": "0..1, the artifact's own, chosen on val",
    "computes_in": "precision that the engine really computes in; null where the artifact does not tell",
    "stands_in": "what ran the artifact here in place of its device; empty where it is the engine itself",
    "chip": "that the artifact was made for; empty where it fits every machine that the engine runs on",
    "parity_error": "largest difference of the backend's float outputs from the trained weights', as a share of the "
    "largest absolute value of that output",
    "parity_tolerance": "share, the largest parity_error that passes",
    "parity_images": "images compared",
    "calibration_sha256": "of the calibration images",
    "num_calibration_images": "images of train that ranges were found on",
    "toolchain": "package -> version, of what made it",
    "quantization_method": "how the ranges were found, and the weights' granularity",
    "quantization_operators": "which operators were quantized",
    "num_convolutions": "of the network, matrix products included",
    "num_int8": "of these, computed in int8",
    "left_in_float": "names of those that are not",
    "float_blocks": "names of blocks that the search left in float",
    "val_inside_budget": "whether the search found it inside the budget on val; null for a float artifact",
    "val_drop": "points lost on val; below 0 where int8 is better",
    "val_drop_upper": "points, upper end of the interval of val_drop",
    "num_trials": "files that the search scored on val",
    "aware_steps": "of the fine-tuning before quantization; 0 for none",
    "accepted": "as int8: inside the budget on val, in int8 in fact, not slower than its backend's fp32; null for a "
    "float artifact, and where it cannot be told",
    "accepted_why": "why not, or what could not be judged",
    "keeps_budget": "whether the difference on the scored split is inside the budget; null where it is undefined",
}


def row_values(row: Row, budget: Budget) -> dict[str, Any]:
    """Return a row as report.json has it."""
    values: dict[str, Any] = {
        "name": row.name,
        "backend": row.backend,
        "precision": row.precision,
        "confidence_threshold": row.confidence_threshold,
        **row.scores,
    }
    for key, found in row.intervals.items():
        ends = {
            f"{key}_low": found.low,
            f"{key}_high": found.high,
            f"{key}_difference": found.difference,
            f"{key}_difference_low": found.difference_low,
            f"{key}_difference_high": found.difference_high,
        }
        values |= {name: value if math.isfinite(value) else None for name, value in ends.items()}
    values |= row.class_scores
    values |= {"latency_valid": row.latency_valid, **row.latency}
    for key in ("threads", "num_queries", "duration_s", "size_bytes"):
        values[key] = getattr(row, key)
    for key in SPEEDUPS:
        ratio = row.speedups.get(key)
        for suffix, part in (("", "value"), ("_low", "low"), ("_high", "high")):
            values[f"{key}{suffix}"] = None if ratio is None else getattr(ratio, part)
    values |= _build_values(row.build)
    values |= {"accepted": row.verdict.accepted, "accepted_why": row.verdict.why}
    values["keeps_budget"] = keeps_budget(row, budget)
    # Where nothing was found to compare, that is said too.
    return {f"{row.headline}_difference": None} | values


def _build_values(build: Build) -> dict[str, Any]:
    quantized = build.quantized or Quantized()
    plain = ("computes_in", "stands_in", "chip", "parity_error", "parity_tolerance", "parity_images")
    values = {key: getattr(build, key) for key in (*plain, "calibration_sha256", "num_calibration_images", "toolchain")}
    return values | {
        "quantization_method": quantized.method,
        "quantization_operators": quantized.operators,
        "num_convolutions": quantized.num_convolutions,
        "num_int8": quantized.num_int8,
        "left_in_float": list(quantized.float_names),
        "float_blocks": list(quantized.float_blocks),
        "val_inside_budget": quantized.inside_budget,
        "val_drop": quantized.drop,
        "val_drop_upper": quantized.drop_upper,
        "num_trials": quantized.num_trials,
        "aware_steps": quantized.aware_steps,
    }


def units_of(rows: Sequence[Row], words: ReportWords) -> dict[str, str]:
    """Return what each number of the rows is."""
    units = {score.key: score.unit for score in (*words.scores, *words.class_scores)} | UNITS
    for key in sorted({key for row in rows for key in row.intervals} | {words.headline.key}):
        units[f"{key}_low"] = "lower end of the interval"
        units[f"{key}_high"] = "upper end of the interval"
        units[f"{key}_difference"] = "0..1, the artifact minus the trained weights; times 100 for points"
        units[f"{key}_difference_low"] = "lower end of the paired interval"
        units[f"{key}_difference_high"] = "upper end of the paired interval"
    for key, against in SPEEDUPS.items():
        units[key] = f"times as fast as {against}; both asked in turn in one run; null where not measured"
        units[f"{key}_low"] = "lower end of its interval"
        units[f"{key}_high"] = "upper end of its interval"
    return units


def report_values(task: str, content: Content, shown_images: Sequence[int], seed: int) -> dict[str, Any]:
    """Return the content of report.json.

    Args:
        task: A row of `plumbline.tasks.TASKS`.
        content: Of the page.
        shown_images: The ids of the images in samples.jpg.
        seed: Of the bootstrap samples.
    """
    count_key, sampling, results = content.words.num_objects_key, content.sampling, content.results
    return {
        "task": task,
        "rows": [row_values(row, content.budget) for row in content.rows],
        "units": units_of(content.rows, content.words),
        "budget": asdict(content.budget),
        "recommended": {choice.need: _choice_values(choice) for choice in content.choices},
        "trials": {name: _records(frame) for name, frame in content.trials.items()},
        "intervals": {
            "level": sampling.level,
            "samples": sampling.samples,
            "seed": seed,
            "num_drawn": sampling.num_drawn,
        },
        "thresholds": {name: threshold_note(result) for name, result in results.items()},
        "undefined": {name: dict(result.undefined) for name, result in results.items()},
        "class_names": list(content.class_names),
        "class_counts": dict(zip(content.class_names, content.class_counts, strict=True)),
        "num_images": content.num_images,
        count_key: content.num_objects,
        "splits": {name: {"num_images": i, count_key: n} for name, (i, n) in content.splits.items()},
        "scored_split": content.scored_split,
        "training": dict(content.training.metrics),
        "machines": {name: dict(result.machine) for name, result in results.items() if result.benchmark},
        "lineage": {name: result.artifact.lineage for name, result in results.items()},
        "samples": {"artifact": content.shown, "image_ids": list(shown_images)},
    }


def _choice_values(choice: Choice) -> dict[str, Any]:
    return {"artifact": choice.name, "reason": choice.reason, "ties": dict(choice.ties)}


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a table's rows; a number that is none is null."""
    return [
        {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}
        for row in frame.to_dict("records")
    ]
