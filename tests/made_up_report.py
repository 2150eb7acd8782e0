"""Made-up artifacts with their scores and latencies, as the report's tests need them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pandas as pd

from plumbline.recommendation import Budget, recommend
from plumbline.report_content import TRIAL_COLUMNS, Content, Sampling, Training
from plumbline.report_rows import Result, Row, build_rows
from plumbline.runtime.artifact import Artifact, DecodeSpec, InputSpec, OutputSpec, Preprocessing
from plumbline.scores import Interval
from plumbline.tasks import task_module

CLASSES = ("cat", "dog|wolf")
DETECT, CLASSIFY = (task_module(task, "reporting").WORDS for task in ("detect", "classify"))
NO_DOG = {f"class_dog|wolf_{metric}": "no box is of the class dog|wolf" for metric in ("map50", "map50_95")}
DASH = "–"  # noqa: RUF001


def artifact(name: str, backend: str = "onnx", precision: str = "fp32", **changed) -> Artifact:
    chosen = {"rule": "best_f1", "split": "val", "num_images": 7, "precision": 0.91, "recall": 0.92, "f1": 0.915}
    values = {
        "task": "detect",
        "class_names": CLASSES,
        "input": InputSpec("images", (160, 96)),
        "preprocessing": Preprocessing(),
        "outputs": OutputSpec(("b", "c"), (8,), 16, nms_free=False),
        "decode": DecodeSpec(0.25, 0.7, 300),
        "files": {},
        "toolchain": {},
        "lineage": {"git_commit": "abc123", "dataset_sha256": "d" * 64, "train": {"epochs": 30}},
        "notes": {"threshold": chosen},
    }
    return Artifact(name=name, backend=backend, precision=precision, **{**values, **changed})


def metrics(map50_95: float) -> dict[str, float]:
    return {
        "map50_95": map50_95, "map50": 0.97, "map75": 0.9, "precision": 0.95, "recall": 0.94, "f1": 0.945,
        "class_cat_map50_95": map50_95, "num_images": 12, "num_boxes": 30,
    }  # fmt: skip


def benchmark(p50: float, valid: bool = True) -> dict[str, float]:
    run = {"valid": int(valid), "num_queries": 200, "duration_s": 5.0, "threads": 1, "size_bytes": 9}
    parts = {f"{part}_ms_p50": p50 / 4 for part in ("preprocess", "inference", "postprocess")}
    latency = {"latency_ms_p50": p50, "latency_ms_p90": p50 * 1.1, "latency_ms_p99": p50 * 1.3}
    return run | parts | latency if valid else run


def results() -> dict[str, Result]:
    machine = {"cpu_model": "A CPU", "load_average": 0.5}
    loaded = {**machine, "load_average": 0.9}
    return {
        "onnx-int8": Result(artifact("onnx-int8", precision="int8"), metrics(0.8531), NO_DOG, benchmark(2.0), machine),
        "weights": Result(artifact("weights", "torch"), metrics(0.8561), NO_DOG, None, {}),
        "ncnn-int8": Result(
            artifact("ncnn-int8", "ncnn", "int8"), metrics(0.8561), NO_DOG, benchmark(3, valid=False), machine
        ),
        "onnx-fp32": Result(artifact("onnx-fp32"), metrics(0.8571), NO_DOG, benchmark(4.0), loaded),
    }


ENDS = {
    "weights": (0.0, 0.0),
    "onnx-int8": (-0.0061, -0.0002),
    "ncnn-int8": (0.0, 0.0),
    "onnx-fp32": (-0.0005, 0.0025),
}


def intervals(**ends: tuple[float, float]) -> dict[str, dict[str, Interval]]:
    """Made up, in the order of `ENDS`, about the values of `results`."""
    found = {}
    for name, (low, high) in (ENDS | ends).items():
        value = results()[name].metrics["map50_95"]
        of_map = Interval(value, value - 0.02, value + 0.02, value - 0.8561, low, high)
        found[name] = {"map50_95": of_map, "map75": Interval(0.9, 0.8, 0.95, 0.0, -0.01, 0.01)}
    return found


BUDGET = Budget(0.5, 2.0)
SIZES = {"weights": 5_400_000, "onnx-int8": 2_900_000, "onnx-fp32": 10_400_000, "ncnn-int8": 2_800_000}


def rows_of(given: dict[str, Result] | None = None, **ends: tuple[float, float]) -> list[Row]:
    return build_rows(results() if given is None else given, SIZES, intervals(**ends), DETECT)


def slices(score: float) -> pd.DataFrame:
    columns = {"column": ["brightness", "brightness"], "slice": ["below 80", "80 and above"], "num_images": [8.0, 4.0]}
    return pd.DataFrame({**columns, "num_objects": [22.0, 8.0], "map50_95": [score, math.nan]})


def content(**changed) -> Content:
    values = {
        "words": DETECT,
        "rows": rows_of(),
        "class_names": CLASSES,
        "class_counts": [18, 0],
        "splits": {"train": (70, 200), "test": (12, 30)},
        "scored_split": "test",
        "num_images": 100,
        "num_objects": 250,
        "results": results(),
        "shown": "onnx-int8",
        "slices": {"weights": slices(0.75), "onnx-int8": slices(0.5)},
        "sampling": Sampling(1000, 0.95, 12),
        "training": Training(
            {"num_epochs": 22, "best_epoch": 20, "num_parameters": 2_584_086, "gflops": 0.41, "val_map50_95": 0.8374},
            "../train",
        ),
        "samples_note": "Detections of onnx-int8.",
        "budget": BUDGET,
        "trials": {},
    }
    values |= changed
    choices = recommend(values["rows"], BUDGET, values["words"].headline.title)
    return Content(**{"choices": choices, **values})


def cells(text: str, name: str) -> list[str]:
    return next(line for line in text.splitlines() if line.startswith(f"| {name} |")).strip("| ").split(" | ")


def section(text: str, title: str) -> str:
    return text[text.index(f"## {title}") :]


def quantization(**changed: Any) -> dict[str, Any]:
    """What an int8 artifact's notes say of how it was made."""
    values = {
        "method": "per_channel-minmax", "operators": "all", "float_blocks": ["/body.2"], "num_convolutions": 87,
        "num_int8": 85, "float_names": ["/body.2/conv", "/body.2/b|c"], "inside_budget": True, "reason": "",
        "metric": "map50_95", "drop": 0.31, "drop_upper": 0.92, "num_trials": 3, "aware_steps": 0, "range_images": 16,
    }  # fmt: skip
    return values | changed


def speedups(onnx: float, own: float, noise: float = 0.05) -> dict[str, float]:
    found = {"speedup_onnx_fp32": onnx, "speedup_own_fp32": own}
    ends = {
        f"{key}_{end}": value + sign * noise for key, value in found.items() for end, sign in (("low", -1), ("high", 1))
    }
    return found | ends


def quantized(
    name: str, note: dict[str, Any] | None = None, run: dict[str, float] | None = None, **notes: Any
) -> Result:
    """An int8 artifact of `results` with notes and a benchmark of the new kind."""
    base = results()[name]
    told = {**base.artifact.notes, "quantization": quantization() if note is None else note, **notes}
    parity = {"max_error": 2.4e-6, "tolerance": 1e-3, "num_images": 4, "output": "b"}
    lineage = {**base.artifact.lineage, "calibration_sha256": "f390d9df51" + 54 * "0", "num_calibration_images": 128}
    changed = dataclasses.replace(base.artifact, notes={"parity": parity, **told}, lineage=lineage)
    return dataclasses.replace(base, artifact=changed, benchmark=run or {**benchmark(2.0), **speedups(1.93, 1.9)})


def trials(*rows: tuple[Any, ...]) -> pd.DataFrame:
    """Rows of step, method, operators, trial, num_float_blocks, int8_share, metric, drop, drop_upper, inside."""
    return pd.DataFrame(rows, columns=list(TRIAL_COLUMNS))


def by_name(rows: list[Row]) -> dict[str, Row]:
    return {row.name: row for row in rows}
