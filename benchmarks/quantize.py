"""What int8 costs and gains on real photographs, on every backend, beside ultralytics' own int8 export.

In the project's root: `make bench-quantize`, or `python benchmarks/quantize.py --help`. It needs the BCCD data set
beside the project (or PLUMBLINE_BCCD), `make rknn` (or `--targets` without rknn-int8), and an hour the first time on 2
cores: both detectors are trained from scratch.

For each model:

- The whole line on BCCD at 320 px, beside this working tree (`pipelines.beside`): its exports with their search on val,
  its scores on test with paired intervals, its latency ratios, interleaved.
- The search of ONNX Runtime's int8 file again from a deliberately bad setting (`BAD_START`).
- ultralytics' int8 ONNX export of the same weights, as it makes it by itself (calibrated on val; YOLO26 with the head
  that needs suppression), scored by our evaluator on its own predictions, and its engine's latency interleaved with the
  hub's fp32 and our int8: the same tensors, one thread, the network alone. Theirs decodes boxes within the graph, ours
  in numpy after it; neither suppression nor our decoding is in the time.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

# Before torch is imported: see the Makefile.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import numpy.typing as npt
import pandas as pd

from pipelines.beside import run_beside
from pipelines.check_params import parse_override
from plumbline.chosen_threshold import ThresholdParams
from plumbline.dataset_images import load_image
from plumbline.errors import PlumblineError
from plumbline.files import write_json
from plumbline.latency_ratio import speedup, take_turns
from plumbline.machine import describe_machine
from plumbline.manifest import Dataset, read_dataset
from plumbline.params import DifficultParams, load_section
from plumbline.quantization.settings import QuantizeParams
from plumbline.runtime.artifact import read_artifact
from plumbline.runtime.preprocess import preprocess
from plumbline.runtime.session import StageTimes, load_artifact
from plumbline.scores import BootstrapSettings
from plumbline.split_images import images_of_split
from plumbline.tasks import task_module
from stages.export import ExportInputs, ExportSections, TargetParams, run

ROOT = Path(__file__).parent.parent
# Model -> points of mAP50-95 that it may lose.
BUDGETS = {"yolo11n": 0.5, "yolo26n": 1.0}
TARGETS = {
    "onnx-fp32": {"backend": "onnx", "precision": "fp32"},
    "onnx-int8": {"backend": "onnx", "precision": "int8"},
    "openvino-fp32": {"backend": "openvino", "precision": "fp32"},
    "openvino-int8": {"backend": "openvino", "precision": "int8"},
    "ncnn-fp32": {"backend": "ncnn", "precision": "fp32"},
    "ncnn-int8": {"backend": "ncnn", "precision": "int8"},
    "rknn-int8": {"backend": "rknn", "precision": "int8", "chip": "rk3588"},
    "tensorrt-qdq": {"backend": "tensorrt_qdq", "precision": "int8"},
}
BAD_START = "per_tensor-percentile_99.9"
IMAGE_SIZE = 320
ROUNDS = 15


def tell(text: str = "") -> None:
    """Print a line at once."""
    print(text, flush=True)  # noqa: T201


def overrides(model: str, data: Path, epochs: int, targets: Iterable[str]) -> list[str]:
    """Return what differs from params.yaml, as `make repro SET=...` takes it."""
    chosen = json.dumps({name: TARGETS[name] for name in targets})
    return [
        f"dataset.source={data}",
        "dataset.class_names=[RBC,WBC,Platelets]",
        "validate.severity.E301=warning",
        f"train.detect.model={model}",
        f"train.detect.image_size={IMAGE_SIZE}",
        f"train.detect.epochs={epochs}",
        "train.detect.flip_horizontal=0.5",
        f"quantize.max_map50_95_drop={BUDGETS[model]}",
        "quantize.over_budget=keep",
        f"targets={chosen}",
    ]


def line_rows(reports: Path) -> list[dict[str, Any]]:
    """Return the report's rows."""
    report = json.loads((reports / "report" / "report.json").read_text("utf-8"))
    rows: list[dict[str, Any]] = report["rows"]
    return rows


def from_bad_start(project: Path, target: str) -> dict[str, Any]:
    """Search once more, with a setting first that is known to be bad; return what `artifact.json` says of it."""
    params = project / "params.yaml"
    quantize = load_section(params, "quantize", QuantizeParams)
    sections = ExportSections(
        target=TargetParams(**TARGETS[target]),
        quantize=quantize.model_copy(update={"first_method": BAD_START, "over_budget": "keep"}),
        threshold=load_section(params, "threshold", ThresholdParams),
        evaluate=load_section(params, "evaluate", DifficultParams),
    )
    inputs = ExportInputs(
        hub=project / "models/hub",
        weights=project / "models/weights",
        dataset=project / "data/dataset",
        labels=project / "data/validated",
        splits=project / "data/splits.parquet",
    )
    with tempfile.TemporaryDirectory() as folder:
        out, results = Path(folder) / "artifact", Path(folder) / "results"
        found = run(f"{target} from {BAD_START}", sections, inputs, out=out, results=results).notes["quantization"]
        trials = pd.read_csv(results / "trials.csv", keep_default_na=False)
    keys = ("method", "operators", "inside_budget", "reason", "drop", "drop_upper", "num_trials", "aware_steps")
    return {key: found[key] for key in keys} | {"trials": trials.to_dict("records")}


def ultralytics_int8(project: Path, work: Path) -> Path:
    """Let ultralytics make its own int8 ONNX file of the same weights, from the same view of the data."""
    from plumbline.yolo import quiet_ultralytics
    from plumbline.yolo.view import write_training_view

    quiet_ultralytics()
    from ultralytics import YOLO

    data = read_dataset(project / "data/validated", root=project / "data/dataset")
    splits = pd.read_parquet(project / "data/splits.parquet")
    view = write_training_view(data, splits, work / "view", work / "view")
    weights = shutil.copy(project / "models/weights/best.pt", work / "best.pt")
    made = YOLO(weights).export(format="onnx", int8=True, data=str(view), imgsz=IMAGE_SIZE, device="cpu", verbose=False)
    return Path(made)


def their_predictions(model: Path, data: Dataset, images: pd.DataFrame) -> pd.DataFrame:
    """Return what ultralytics' own runtime finds, as our evaluator reads it."""
    from ultralytics import YOLO

    network = YOLO(model, task="detect")
    frames = []
    for row in images.itertuples(index=False):
        image = load_image(data, row.path)
        found = network.predict(
            image, imgsz=IMAGE_SIZE, conf=0.001, iou=0.7, max_det=300, rect=False, verbose=False, device="cpu"
        )[0].boxes
        xyxy = found.xyxy.numpy().astype(np.float64)
        frames.append(
            pd.DataFrame({
                "image_id": row.image_id, "class_id": found.cls.numpy().astype(np.int64),
                "confidence": found.conf.numpy().astype(np.float64),
                **{corner: xyxy[:, place] for place, corner in enumerate(("x1", "y1", "x2", "y2"))},
            })
        )  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def timed(
    engine: Callable[[npt.NDArray[np.float32]], Any], tensors: Sequence[npt.NDArray[np.float32]]
) -> Callable[[int], StageTimes]:
    """Return a query that runs the network alone."""

    def query(number: int) -> StageTimes:
        started = time.perf_counter_ns()
        engine(tensors[number % len(tensors)])
        return StageTimes(0, time.perf_counter_ns() - started, 0)

    return query


def beside_ultralytics(project: Path) -> dict[str, Any]:
    """Score and time ultralytics' int8 file beside ours."""
    import onnxruntime

    data = read_dataset(project / "data/validated", root=project / "data/dataset")
    test = images_of_split(data.images, project / "data/splits.parquet", "test")
    scoring = task_module("detect", "scoring")
    fp32 = pd.read_parquet(project / "reports/evaluate/weights/predictions.parquet")
    with tempfile.TemporaryDirectory() as folder:
        theirs = ultralytics_int8(project, Path(folder))
        predictions = {"weights": fp32, "ultralytics": their_predictions(theirs, data, test)[list(fp32.columns)]}
        found = scoring.bootstrap(
            scoring.truth_of(data, test), test, data.class_names, predictions, "weights",
            BootstrapSettings(1000, 0.95, 0, "count"),
        )["ultralytics"]["map50_95"]  # fmt: skip
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(theirs), options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        engines: dict[str, Callable[[npt.NDArray[np.float32]], Any]] = {
            "onnx-fp32": load_artifact(project / "models/hub").engine,
            "onnx-int8": load_artifact(project / "models/artifacts/onnx-int8").engine,
            "ultralytics": lambda tensor: session.run(None, {name: tensor}),
        }
        artifact = read_artifact(project / "models/hub")
        paths = images_of_split(data.images, project / "data/splits.parquet", "val")["path"][:16]
        tensors = [
            preprocess(load_image(data, path), artifact.input.size_wh, artifact.preprocessing)[0] for path in paths
        ]
        queries = {key: timed(engine, tensors) for key, engine in engines.items()}
        rounds = take_turns(queries, rounds=ROUNDS, warmup_queries=20)
        ratios = {
            key: dataclasses.asdict(speedup(rounds["onnx-fp32"]["inference"], rounds[key]["inference"]))
            for key in ("onnx-int8", "ultralytics")
        }
        size = theirs.stat().st_size
    return {
        "map50_95": found.value, "difference": found.difference, "difference_low": found.difference_low,
        "difference_high": found.difference_high, "size_bytes": size, "engine_speedup_onnx_fp32": ratios,
    }  # fmt: skip


def _points(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:+.2f}"


def _times(row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    return "-" if value is None else f"{value:.2f}"


def table(model: str, found: dict[str, Any]) -> list[str]:
    """Return one model's figures as Markdown."""
    lines = [
        "",
        f"### {model}, budget {found['budget_points']:g} points on val",
        "",
        "| target | test mAP50-95 | minus weights, points | times own fp32 | times ONNX fp32 | MB | int8 | trials |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in found["rows"]:
        interval = f"{_points(row['map50_95_difference_low'])}, {_points(row['map50_95_difference_high'])}"
        counted = "" if row["num_int8"] is None else f"{row['num_int8']} of {row['num_convolutions']}"
        runs_on = f" ({row['stands_in']})" if row["stands_in"] else ""
        lines.append(
            f"| {row['name']}{runs_on} | {row['map50_95']:.4f} | {_points(row['map50_95_difference'])} [{interval}] |"
            f" {_times(row, 'speedup_own_fp32')} | {_times(row, 'speedup_onnx_fp32')} | {row['size_bytes'] / 1e6:.1f} |"
            f" {counted} | {row['num_trials'] or ''} |"
        )
    theirs, bad = found["ultralytics"], found["bad_start"]
    engine = theirs["engine_speedup_onnx_fp32"]
    lines += [
        f"| ultralytics' own int8 ONNX | {theirs['map50_95']:.4f} | {_points(theirs['difference'])}"
        f" [{_points(theirs['difference_low'])}, {_points(theirs['difference_high'])}] | | |"
        f" {theirs['size_bytes'] / 1e6:.1f} | | |",
        "",
        "The engine alone against ONNX fp32: ultralytics' int8"
        f" {engine['ultralytics']['times']:.2f} times as fast, ours {engine['onnx-int8']['times']:.2f}.",
        f"From {BAD_START}: {bad['num_trials']} files scored, {bad['method']}, {bad['operators']};"
        f" {bad['drop']:.2f} points lost on val, " + ("inside the budget." if bad["inside_budget"] else bad["reason"]),
    ]
    return lines


def bench(model: str, data: Path, epochs: int, targets: Sequence[str]) -> dict[str, Any]:
    """Run everything for one model."""
    tell(f"\n{model}: the line on {data.name}, {epochs} epochs at {IMAGE_SIZE} px")
    name = f"bench-{model}"
    reports = run_beside(ROOT, name, [parse_override(text) for text in overrides(model, data, epochs, targets)])
    project = ROOT / ".cache/beside" / name
    result: dict[str, Any] = {"budget_points": BUDGETS[model], "rows": line_rows(reports)}
    shutil.rmtree(reports)  # what is kept of it is in this benchmark's own file
    tell(f"\n{model}: the search from {BAD_START}")
    result["bad_start"] = from_bad_start(project, "onnx-int8")
    tell(f"\n{model}: ultralytics' own int8 export")
    result["ultralytics"] = beside_ultralytics(project)
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Run, print, and write the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    default = os.environ.get("PLUMBLINE_BCCD", ROOT.parent / "shared" / "data" / "bccd")
    parser.add_argument("--data", type=Path, default=Path(default), help="BCCD's folder (default: %(default)s)")
    parser.add_argument("--models", nargs="+", default=list(BUDGETS), choices=list(BUDGETS))
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "bench_quantize.json")
    arguments = parser.parse_args(argv)
    if not (arguments.data / "Annotations").is_dir():
        sys.exit(f"error: {arguments.data}: no BCCD data set there; say --data FOLDER, or set PLUMBLINE_BCCD")
    result: dict[str, Any] = {"machine": dataclasses.asdict(describe_machine()), "models": {}}
    try:
        for model in arguments.models:
            result["models"][model] = bench(model, arguments.data.resolve(), arguments.epochs, arguments.targets)
            write_json(arguments.out, result)
    except PlumblineError as error:
        sys.exit(f"error: {error}")
    for model, found in result["models"].items():
        tell("\n".join(table(model, found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
