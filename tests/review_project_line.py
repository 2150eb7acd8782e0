"""The line of `review_project`, which copies this file: the real stages, but for what trains, exports and measures.

A detector is stood in for by the true boxes, disturbed as section ``network`` of params.yaml says; what scores it and
what reports it is the real evaluator and the real report.

python line.py evaluate|benchmark|report ARGUMENTS...      as those of the module of that name in stages
python line.py all                                         every stage in this one process, and DVC is told

The second is for tests of what comes after: a process for each stage, as DVC and the flow start it, takes five times as
long for the same files and the same dvc.lock.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import zlib
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

# Of a machine that every run is on, whatever it runs on.
MACHINE = {"architecture": "aarch64", "cpu_model": "A board", "governor": "performance", "logical_cores": 4,
           "usable_cores": 4, "kernel": "6.1", "python": "3.11.7", "memory_bytes": 4_000_000_000,
           "load_average": 0.1, "temperature_c": 40.0, "temperature_after_c": 41.0}  # fmt: skip
MEGABYTE = 1_000_000
CONFIDENCE_THRESHOLD = 0.4


def params() -> dict[str, Any]:
    return YAML(typ="safe").load(Path("params.yaml").read_text("utf-8"))


def precision_of(name: str) -> str:
    return params()["targets"][name]["precision"] if name != "weights" else "fp32"


def artifact_of(folder: Path, threads: int = 1) -> Any:
    """What an artifact.json would say."""
    from plumbline.runtime.artifact import Artifact, DecodeSpec, InputSpec, OutputSpec, Preprocessing

    chosen = {"rule": "best_f1", "split": "val", "num_images": 7, "precision": 0.9, "recall": 0.9, "f1": 0.9}
    return Artifact(
        name=folder.name,
        task="detect",
        backend="torch" if folder.name == "weights" else "onnx",
        precision=precision_of(folder.name),
        class_names=tuple(params()["dataset"]["class_names"]),
        input=InputSpec("images", (96, 96)),
        preprocessing=Preprocessing(),
        outputs=OutputSpec(("b", "c"), (7,), 16, nms_free=False),
        decode=DecodeSpec(CONFIDENCE_THRESHOLD, 0.7, 300),
        files={},
        toolchain={"onnx": "1"},
        lineage={"git_commit": "abc123", "dataset_sha256": "d" * 64, "train": {"epochs": 3}},
        notes={"threshold": chosen},
    )


class Disturbed:
    """The session of an artifact that knows the labels; int8 sees a little less well than fp32."""

    def __init__(self, folder: Path, threads: int = 1) -> None:
        self.artifact = artifact_of(folder)


def predictions(session: Disturbed, images: Any, data: Any, *, scoring: Any, **_settings: Any) -> Any:
    """What the network would say of the images: columns of the detector's ``PREDICTIONS_SCHEMA``."""
    import numpy as np
    import pandas as pd

    network = params()["network"]
    noise_px = network["noise_px"] * (1.1 if session.artifact.precision == "int8" else 1.0)
    truth = dict(list(data.annotations.groupby("image_id")))
    found: list[list[float]] = []
    for image in images.itertuples():
        rng = np.random.default_rng([network["seed"], zlib.crc32(image.path.encode())])
        rows = []
        for box in truth[image.image_id].itertuples() if image.image_id in truth else ():
            corners = np.array([box.x1, box.y1, box.x2, box.y2]) + rng.normal(0, noise_px, 4)
            confidence = np.clip(rng.normal(0.8, 0.1), 0.05, 0.99)
            if rng.random() >= network["miss_rate"]:
                rows.append([image.image_id, box.class_id, confidence, *corners])
        for _ in range(rng.poisson(network["false_alarms"])):
            x, y = rng.uniform(0, 60, 2)
            confidence = rng.uniform(0.1, 0.7)
            rows.append([image.image_id, rng.integers(len(data.class_names)), confidence, x, y, x + 30, y + 30])
        found += sorted(rows, key=lambda row: -row[2])
    schema = scoring.PREDICTIONS_SCHEMA
    frame = pd.DataFrame(found, columns=schema.names)
    return frame.astype({field.name: field.type.to_pandas_dtype() for field in schema})


def evaluate(arguments: Sequence[str]) -> int:
    from stages import evaluate as stage

    scoring = stage.task_module("detect", "scoring")
    stage.load_artifact, stage.predict_images, scoring.curves_picture = Disturbed, predictions, blank
    return stage.main(arguments)


def benchmark(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser()
    for name in ("artifact", "hub", "dataset", "labels", "splits", "metrics", "machine"):
        parser.add_argument(f"--{name}", type=Path)
    paths = parser.parse_args(arguments)
    network, is_int8 = params()["network"], precision_of(paths.artifact.name) == "int8"
    p50 = network["latency_ms"] * (0.5 if is_int8 else 1.0)
    parts = {"preprocess": 0.1, "inference": 0.8, "postprocess": 0.1}
    times = {f"{part}_ms_p50": p50 * share for part, share in parts.items()}
    times |= {"latency_ms_p50": p50, "latency_ms_p90": p50 * 1.1, "latency_ms_p99": p50 * 1.3}
    size = round(network["size_mb"] * MEGABYTE * (0.3 if is_int8 else 1.0))
    run = {"duration_s": 5.0, "measured": 1, "num_queries": 500, "size_bytes": size, "threads": 1, "valid": 1}
    for path, values in ((paths.metrics, run | times), (paths.machine, MACHINE)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")
    return 0


def report(arguments: Sequence[str]) -> int:
    from plumbline.report_content import Training
    from stages import report as stage

    def size_of(artifact: Any, _folder: Path) -> int:
        path = Path("reports/benchmark") / f"{artifact.name}.json"
        return json.loads(path.read_text())["size_bytes"] if path.exists() else 12 * MEGABYTE

    training = {"num_epochs": 3, "best_epoch": 3, "num_parameters": 3 * MEGABYTE, "gflops": 0.4, "val_map50_95": 0.7}
    stage.read_artifact, stage.device_bytes, stage.picture = artifact_of, size_of, blank
    stage.read_training = lambda _train, _out: Training(training, "../train")
    return stage.main(arguments)


def blank(*_content: Any, **_settings: Any) -> bytes:
    """A picture that takes no time; nobody looks at it here."""
    import cv2
    import numpy as np

    return cv2.imencode(".png", np.full((8, 8, 3), 255, np.uint8))[1].tobytes()


def run_all(_arguments: Sequence[str]) -> int:
    """Run the command of every stage that has changed, in the line's order, and let DVC keep what they made."""
    from dvc.repo import Repo
    from dvc.stage.serialize import to_lockfile

    order = ["stages.ingest", "stages.validate", "stages.split", *STAGES]
    yaml, lock = YAML(typ="safe"), Path("dvc.lock")
    yaml.default_flow_style = False
    entries = yaml.load(lock.read_text("utf-8"))["stages"] if lock.exists() else {}
    with Repo() as repo, repo.lock:
        for stage in sorted(repo.index.stages, key=lambda stage: order.index(shlex.split(stage.cmd)[2])):
            if stage.changed():
                _run(stage.cmd)
                stage.save()
                stage.commit()
                entries |= to_lockfile(stage)
    # At once: DVC would lay out and check the whole file for each.
    with lock.open("w", encoding="utf-8") as file:
        yaml.dump({"schema": "2.0", "stages": json.loads(json.dumps(entries))}, file)  # plain mappings
    return 0


def _run(command: str) -> None:
    from plumbline.manifest import FINDINGS_SCHEMA, table

    _python, kind, name, *arguments = shlex.split(command)
    module = import_module(name) if kind == "-m" else None
    if name == "stages.validate":  # great_expectations takes 5 s to load
        module.check_expectations = lambda *_tables, **_settings: table([], FINDINGS_SCHEMA)
    code = module.main(arguments) if module else STAGES[name](arguments)
    assert code == 0, command


STAGES: dict[str, Callable[[Sequence[str]], int]] = {"evaluate": evaluate, "benchmark": benchmark, "report": report}
MORE = {"all": run_all}

if __name__ == "__main__":
    sys.exit((STAGES | MORE)[sys.argv[1]](sys.argv[2:]))
