"""Measure the latency of one artifact on this machine, as MLPerf's single-stream scenario does.

A query goes from a decoded image in memory to detections: letterbox, network, decoding. Reading and decoding
the file is not in it; all images are decoded before the clock starts, and asked for in turn.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Self

import cv2
from pydantic import Field, model_validator

from plumbline.files import write_json
from plumbline.latency import LatencyResult, measure
from plumbline.machine import describe_machine, read_temperature_c
from plumbline.manifest import read_dataset
from plumbline.params import StageParams, load_section
from plumbline.runtime.artifact import size_bytes
from plumbline.runtime.preprocess import read_image
from plumbline.runtime.session import load_artifact
from plumbline.split_images import images_of_split
from stages.shape import exit_code, path_arguments

PROGRESS_S = 5.0


class BenchmarkParams(StageParams):
    """Section ``benchmark`` of params.yaml."""

    threads: int = Field(ge=1, description="Of the engine, and of OpenCV's resize.")
    warmup_queries: int = Field(ge=0, description="Asked first and not counted.")
    min_queries: int = Field(ge=1, description="A valid run has so many or more.")
    min_duration_s: float = Field(ge=0, description="A valid run lasts so long or longer.")
    max_duration_s: float = Field(gt=0, description="A run that has not met both by then ends, and is INVALID.")
    num_images: int = Field(ge=1, description="Of the val split, by image_id; all of them if there are fewer.")

    @model_validator(mode="after")
    def _minimum_fits(self) -> Self:
        if self.max_duration_s <= self.min_duration_s:
            raise ValueError(f"max_duration_s above min_duration_s ({self.min_duration_s})")
        return self


SECTIONS: dict[str, type[StageParams]] = {"benchmark": BenchmarkParams}


def run(
    params: BenchmarkParams,
    *,
    artifact: Path,
    dataset: Path,
    labels: Path,
    splits: Path,
    metrics: Path,
    machine: Path,
) -> LatencyResult:
    """Measure an artifact, and write its metrics and the description of the machine.

    Args:
        params: Section ``benchmark``.
        artifact: Folder with `artifact.json`.
        dataset: Folder that the paths of images are relative to.
        labels: The validated dataset.
        splits: Table of image_id and split.
        metrics: JSON of numbers to write. An INVALID run has valid 0 and no latency.
        machine: JSON to write: what was measured on.

    Raises:
        EvaluationError: The val split is empty.
        DatasetError: An image cannot be read.
        BackendError: The artifact cannot be opened.
    """
    cv2.setNumThreads(params.threads)
    data = read_dataset(labels, root=dataset)
    chosen = images_of_split(data.images, splits, "val")[: params.num_images]
    images = [read_image(data.image_path(path)) for path in chosen["path"]]
    session = load_artifact(artifact, threads=params.threads)
    described = asdict(describe_machine())
    result = measure(
        lambda number: session.predict_timed(images[number % len(images)])[1],
        warmup_queries=params.warmup_queries,
        min_queries=params.min_queries,
        min_duration_s=params.min_duration_s,
        max_duration_s=params.max_duration_s,
        progress=_progress(session.artifact.name),
    )
    write_json(machine, described | {"temperature_after_c": read_temperature_c()})
    write_json(
        metrics, result.metrics() | {"threads": params.threads, "size_bytes": size_bytes(session.artifact, artifact)}
    )
    return result


def _progress(name: str) -> Callable[[int, float], None]:
    told = 0.0

    def tell(num_queries: int, seconds: float) -> None:
        nonlocal told
        if seconds - told > PROGRESS_S:
            told = seconds
            print(f"{name}: {num_queries} queries in {seconds:.0f} s", flush=True)  # noqa: T201

    return tell


def summary(name: str, result: LatencyResult) -> str:
    """Return the line that ends a run.

    >>> summary("onnx-int8", LatencyResult(False, 3, 9.5, {}))
    'onnx-int8: INVALID, only 3 queries in 9.5 s'
    """
    if not result.valid:
        return f"{name}: INVALID, only {result.num_queries} queries in {result.duration_s:.1f} s"
    told = ", ".join(f"p{percentile} {ms:.2f} ms" for percentile, ms in result.percentiles_ms["latency"].items())
    return f"{name}: {told} over {result.num_queries} queries"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    names = ("artifact", "dataset", "labels", "splits", "metrics", "machine")
    arguments = path_arguments(__doc__, names, argv)

    def work() -> None:
        params = load_section(arguments.params, "benchmark", BenchmarkParams)
        result = run(params, **{name: getattr(arguments, name) for name in names})
        print(summary(str(arguments.artifact), result), flush=True)  # noqa: T201

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
