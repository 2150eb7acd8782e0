"""One way to run every artifact."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from plumbline.backends import backend_module
from plumbline.errors import BackendError
from plumbline.runtime.artifact import Artifact, DecodeSpec, OutputSpec, read_artifact
from plumbline.runtime.classification import Classification, classify
from plumbline.runtime.decode import decode
from plumbline.runtime.detections import Detections
from plumbline.runtime.preprocess import Image, Letterbox, preprocess

# Input tensor -> raw outputs in the order of artifact.outputs.names.
Engine = Callable[[npt.NDArray[np.float32]], Sequence[npt.NDArray[np.floating[Any]]]]


@dataclass(frozen=True)
class StageTimes:
    """Nanoseconds of one query."""

    preprocess_ns: int
    inference_ns: int
    postprocess_ns: int


@dataclass(frozen=True)
class Session:
    """A loaded artifact. Not safe for use from several threads at once.

    Attributes:
        artifact: What `artifact.json` says.
        engine: Runs the network; made by the artifact's backend.
    """

    artifact: Artifact
    engine: Engine

    def predict(self, image: Image, *, confidence: float | None = None) -> Detections | Classification:
        """Say what is in one image.

        Args:
            image: BGR, shape (H, W, 3), uint8.
            confidence: Instead of the artifact's own threshold.

        Returns:
            What the artifact's task gives. Of ``detect``: boxes in pixels of the image, clipped to it, the most
            confident first. Of ``classify``: the probability of every class.
        """
        return self.predict_timed(image, confidence=confidence)[0]

    def predict_timed(
        self, image: Image, *, confidence: float | None = None
    ) -> tuple[Detections | Classification, StageTimes]:
        """Do the same as `predict`, and tell how long each part took."""
        artifact = self.artifact
        floor = artifact.decode.confidence_threshold if confidence is None else confidence
        started = time.perf_counter_ns()
        tensor, letterbox = preprocess(image, artifact.input.size_wh, artifact.preprocessing)
        prepared = time.perf_counter_ns()
        outputs = self.engine(tensor)
        inferred = time.perf_counter_ns()
        result: Detections | Classification
        if isinstance(artifact.outputs, OutputSpec) and isinstance(artifact.decode, DecodeSpec):
            result = _detections(outputs, artifact.outputs, artifact.decode, floor, letterbox)
        else:
            result = classify(outputs, len(artifact.class_names), floor)
        ended = time.perf_counter_ns()
        return result, StageTimes(prepared - started, inferred - prepared, ended - inferred)


def _detections(
    outputs: Sequence[npt.NDArray[np.floating[Any]]],
    spec: OutputSpec,
    rule: DecodeSpec,
    floor: float,
    letterbox: Letterbox,
) -> Detections:
    found = decode(outputs, spec, floor, rule.iou_threshold, rule.max_detections)
    return Detections(letterbox.to_image(found.xyxy), found.confidence, found.class_id)


def load_artifact(folder: Path | str, *, threads: int = 1) -> Session:
    """Check an artifact's files and open it with its engine.

    Args:
        folder: It holds `artifact.json`.
        threads: Of the engine's own pool.

    Raises:
        BackendError: The artifact is missing, damaged or of a backend that is not known or not installed here.
    """
    folder = Path(folder)
    artifact = read_artifact(folder)
    module = backend_module(artifact.backend)
    try:
        engine = module.open_session(folder, artifact, threads)
    except ImportError as error:
        raise BackendError(
            f"{folder}: the engine of backend {artifact.backend!r} is not installed ({error}); install {error.name}"
        ) from error
    return Session(artifact, engine)
