"""Measure the latency of one artifact on this machine, as MLPerf's single-stream scenario does.

A query goes from a decoded image in memory to detections: letterbox, network, decoding. Reading and decoding
the file is not in it; all images are decoded before the clock starts, and asked for in turn.

Then the artifact takes turns with the hub under ONNX Runtime, and with its own backend's fp32, in this same process
with the same threads, images and confidence threshold: how many times faster it is, end to end and in inference alone.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Self

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from plumbline.backends import HUB, backend_module
from plumbline.dataset_images import load_image
from plumbline.errors import BackendError
from plumbline.files import write_json
from plumbline.hub_session import open_hub
from plumbline.latency import LatencyResult, measure
from plumbline.latency_ratio import PARTS, Rounds, Speedup, speedup, take_turns
from plumbline.machine import describe_machine, read_temperature_c
from plumbline.manifest import read_dataset
from plumbline.params import StageParams, load_section
from plumbline.runtime.artifact import Artifact, read_artifact, write_artifact
from plumbline.runtime.device_files import device_bytes
from plumbline.runtime.session import Session, StageTimes, load_artifact
from plumbline.split_images import images_of_split
from stages.shape import exit_code, path_arguments

PROGRESS_S = 5.0
# Whose latency the artifact's is compared with.
ONNX_FP32, OWN_FP32 = "onnx_fp32", "own_fp32"
# Part of a query -> how its metrics begin.
SPEEDUP_NAMES = {"latency": "speedup", "inference": "inference_speedup"}


class BenchmarkParams(StageParams):
    """Section ``benchmark`` of params.yaml."""

    threads: int = Field(ge=1, description="Of the engine, and of OpenCV's resize.")
    warmup_queries: int = Field(ge=0, description="Asked first and not counted.")
    min_queries: int = Field(ge=1, description="A valid run has so many or more.")
    min_duration_s: float = Field(ge=0, description="A valid run lasts so long or longer.")
    max_duration_s: float = Field(gt=0, description="A run that has not met both by then ends, and is INVALID.")
    num_images: int = Field(ge=1, description="Of the val split, by image_id; all of them if there are fewer.")
    ratio_rounds: int = Field(ge=3, description="Turns that it takes with fp32; 6 or more give a 95 % interval.")

    @model_validator(mode="after")
    def _minimum_fits(self) -> Self:
        if self.max_duration_s <= self.min_duration_s:
            raise ValueError(f"max_duration_s above min_duration_s ({self.min_duration_s})")
        return self


SECTIONS: dict[str, type[StageParams]] = {"benchmark": BenchmarkParams}


@dataclass(frozen=True)
class BenchmarkResult:
    """What was measured.

    Attributes:
        latency: None where something else than the device runs the artifact here.
        speedups: ``speedup_onnx_fp32``... -> how many times faster the artifact is; empty for an INVALID run.
        not_measured: Why there is no latency.
    """

    latency: LatencyResult | None = None
    speedups: Mapping[str, Speedup] = field(default_factory=dict)
    not_measured: str = ""

    def metrics(self) -> dict[str, float]:
        """Return flat numbers."""
        if self.latency is None:
            return {"valid": 0, "measured": 0}
        flat = {**self.latency.metrics(), "measured": 1}
        for name, found in self.speedups.items():
            flat |= found.metrics(name)
        return flat


def run(
    params: BenchmarkParams,
    *,
    artifact: Path,
    hub: Path,
    dataset: Path,
    labels: Path,
    splits: Path,
    metrics: Path,
    machine: Path,
) -> BenchmarkResult:
    """Measure an artifact, and write its metrics and the description of the machine.

    Args:
        params: Section ``benchmark``.
        artifact: Folder with `artifact.json`.
        hub: Folder of the hub's: the fp32 that speed is compared with.
        dataset: Folder that the paths of images are relative to.
        labels: The validated dataset.
        splits: Table of image_id and split.
        metrics: JSON of numbers to write. An INVALID run has valid 0 and no latency; what a simulator runs has
            measured 0, too.
        machine: JSON to write: what was measured on.

    Raises:
        EvaluationError: The val split is empty.
        DatasetError: An image cannot be read.
        BackendError: The artifact or the hub cannot be opened, or the backend's own fp32 cannot be made.
    """
    described = asdict(describe_machine())
    opened = read_artifact(artifact)
    module = backend_module(opened.backend)
    if module.STANDS_IN:
        reason = f"{module.STANDS_IN}: it stands in for the device here, and its latency is not the device's"
        result = BenchmarkResult(not_measured=reason)
        described["not_measured"] = reason
    else:
        cv2.setNumThreads(params.threads)
        data = read_dataset(labels, root=dataset)
        chosen = images_of_split(data.images, splits, "val")[: params.num_images]
        images = [load_image(data, path) for path in chosen["path"]]
        result = _measure(params, artifact, hub, images)
        described["temperature_after_c"] = read_temperature_c()
    size = {"threads": params.threads, "size_bytes": device_bytes(opened, artifact)}
    write_json(machine, described)
    write_json(metrics, result.metrics() | size)
    return result


Images = Sequence[npt.NDArray[np.uint8]]


def _measure(params: BenchmarkParams, artifact: Path, hub: Path, images: Images) -> BenchmarkResult:
    session = load_artifact(artifact, threads=params.threads)
    latency = measure(
        _query(session, images, session.artifact),
        warmup_queries=params.warmup_queries,
        min_queries=params.min_queries,
        min_duration_s=params.min_duration_s,
        max_duration_s=params.max_duration_s,
        progress=_progress(session.artifact.name, "queries"),
    )
    if not latency.valid:
        return BenchmarkResult(latency)
    references = _references(params, session.artifact, hub)
    queries = {name: _query(one, images, session.artifact) for name, one in {"artifact": session, **references}.items()}
    started, tell = time.monotonic(), _progress(session.artifact.name, "rounds with fp32")
    rounds = take_turns(
        queries,
        rounds=params.ratio_rounds,
        warmup_queries=params.warmup_queries,
        progress=lambda rounds: tell(rounds, time.monotonic() - started),
    )
    if session.artifact.backend == references[ONNX_FP32].artifact.backend:
        rounds[OWN_FP32] = rounds[ONNX_FP32]
    return BenchmarkResult(latency, _speedups(rounds, session.artifact.precision))


def _query(session: Session, images: Images, artifact: Artifact) -> Callable[[int], StageTimes]:
    """Return what runs a query with the artifact's own threshold: another one would decode more boxes, or fewer."""
    confidence = artifact.decode.confidence_threshold
    return lambda number: session.predict_timed(images[number % len(images)], confidence=confidence)[1]


def _references(params: BenchmarkParams, artifact: Artifact, hub: Path) -> dict[str, Session]:
    """Open the hub, and the fp32 of the artifact's own backend where that is neither the hub nor the artifact."""
    references = {ONNX_FP32: open_hub(hub, threads=params.threads)}
    module = backend_module(artifact.backend)
    base = references[ONNX_FP32].artifact
    if artifact.backend != base.backend and artifact.precision != "fp32" and "fp32" in module.PRECISIONS:
        references[OWN_FP32] = _own_fp32(params, artifact, base, module, hub)
    return references


def _own_fp32(params: BenchmarkParams, artifact: Artifact, base: Artifact, module: ModuleType, hub: Path) -> Session:
    """Export the hub with a backend in fp32, into a folder that goes when it is loaded."""
    with tempfile.TemporaryDirectory(prefix="plumbline-fp32-") as name:
        folder = Path(name)
        try:
            module.export(hub / HUB, folder, "fp32", str(artifact.notes.get("chip", "")))
        except ImportError as error:
            raise BackendError(
                f"{hub}: the fp32 of backend {artifact.backend!r} needs a package that is not installed ({error});"
                f" install {error.name}"
            ) from error
        write_artifact(dataclasses.replace(base, name="fp32", backend=artifact.backend), folder)
        return load_artifact(folder, threads=params.threads)


def _speedups(rounds: Rounds, precision: str) -> dict[str, Speedup]:
    """Return the artifact's speed against each reference; its own fp32 is none for an artifact that is fp32."""
    wanted = [ONNX_FP32] if precision == "fp32" else [ONNX_FP32, OWN_FP32]
    return {
        f"{SPEEDUP_NAMES[part]}_{name}": speedup(rounds[name][part], rounds["artifact"][part])
        for part in PARTS
        for name in wanted
        if name in rounds
    }


def _progress(name: str, what: str) -> Callable[[int, float], None]:
    told = 0.0

    def tell(number: int, seconds: float) -> None:
        nonlocal told
        if seconds - told > PROGRESS_S:
            told = seconds
            print(f"{name}: {number} {what} in {seconds:.0f} s", flush=True)  # noqa: T201

    return tell


def summary(name: str, result: BenchmarkResult) -> str:
    """Return the line that ends a run.

    >>> summary("onnx-int8", BenchmarkResult(LatencyResult(False, 3, 9.5, {})))
    'onnx-int8: INVALID, only 3 queries in 9.5 s'
    >>> summary("board", BenchmarkResult(not_measured="x86 simulator: it stands in"))
    'board: not measured: x86 simulator: it stands in'
    """
    latency = result.latency
    if latency is None:
        return f"{name}: not measured: {result.not_measured}"
    if not latency.valid:
        return f"{name}: INVALID, only {latency.num_queries} queries in {latency.duration_s:.1f} s"
    told = ", ".join(f"p{percentile} {ms:.2f} ms" for percentile, ms in latency.percentiles_ms["latency"].items())
    against = "".join(
        f"; {found.times:.2f} times as fast as {whose} ({found.low:.2f} to {found.high:.2f})"
        for key, whose in (("speedup_onnx_fp32", "ONNX Runtime fp32"), ("speedup_own_fp32", "its own fp32"))
        if (found := result.speedups.get(key))
    )
    return f"{name}: {told} over {latency.num_queries} queries{against}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    names = ("artifact", "hub", "dataset", "labels", "splits", "metrics", "machine")
    arguments = path_arguments(__doc__, names, argv)

    def work() -> None:
        params = load_section(arguments.params, "benchmark", BenchmarkParams)
        result = run(params, **{name: getattr(arguments, name) for name in names})
        print(summary(str(arguments.artifact), result), flush=True)  # noqa: T201

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
