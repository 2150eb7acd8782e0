"""Give an artifact the confidence threshold that val says it needs: its own, for int8 moves scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from plumbline.manifest import Dataset
from plumbline.params import StageParams
from plumbline.predicting import predict_images
from plumbline.runtime.artifact import Artifact, write_artifact
from plumbline.runtime.session import load_artifact
from plumbline.scores import Threshold, ThresholdRule
from plumbline.split_images import images_of_split
from plumbline.tasks import task_module
from plumbline.thresholds import NothingFoundError

SPLIT = "val"  # test is read by evaluate alone
# Lower thresholds are nothing to show to a person, and many detections to look at.
LOWEST = 0.01
# Where val has nothing to choose by: what most detectors are shown at.
WITHOUT_ONE = 0.25


class ThresholdParams(StageParams):
    """Section ``threshold`` of params.yaml."""

    rule: Literal["best_f1", "precision"] = Field(description="See `plumbline.scores.ThresholdRule`.")
    precision: float = Field(gt=0, le=1, description="Demanded by the rule `precision`.")


def choose_on_val(
    folder: Path, data: Dataset, splits: Path, params: ThresholdParams, *, difficult: str, tell: Callable[[str], None]
) -> Artifact:
    """Run the artifact on val, choose its threshold, and write that into its `artifact.json`.

    Args:
        folder: An artifact; its threshold so far does not matter.
        data: The validated dataset.
        splits: Table of image_id and split.
        params: Section ``threshold``.
        difficult: ``evaluate.difficult``.
        tell: Gets lines of progress.

    Returns:
        What `artifact.json` says now; ``notes["threshold"]`` is what was chosen, how, and what it gives on val.

    Raises:
        EvaluationError: val is empty, its labels do not fit the task, or no threshold gives the precision demanded. A
            model that finds nothing at all keeps `WITHOUT_ONE` under the rule ``best_f1``, and its notes say so.
    """
    session = load_artifact(folder)
    artifact = session.artifact
    scoring = task_module(artifact.task, "scoring")
    images = images_of_split(data.images, splits, SPLIT)
    truth = scoring.truth_of(data, images)
    predictions = predict_images(session, images, data, scoring=scoring, confidence_floor=LOWEST, tell=tell)
    rule = ThresholdRule(params.rule, params.precision, difficult)
    told: dict[str, Any] = {"rule": params.rule, "split": SPLIT, "num_images": len(images)}
    try:
        chosen: Threshold = scoring.choose_threshold(truth, predictions, images, data.class_names, rule)
    except NothingFoundError:
        if params.rule != "best_f1":
            raise
        # Best of what there is: a model that has learned nothing still gets its report, which shows just that.
        confidence = WITHOUT_ONE
        why = f"nothing was found on {SPLIT}" if len(truth) else f"there is nothing to find on {SPLIT}"
        told["rule"] = f"none: {why}"
        tell(f"{artifact.name}: {why}, so that its confidence threshold is {confidence}")
    else:
        confidence = chosen.confidence
        told |= {"precision": chosen.precision, "recall": chosen.recall, "f1": chosen.f1}
        tell(
            f"{artifact.name}: confidence threshold {confidence:.3f} ({params.rule} on {SPLIT}): precision"
            f" {chosen.precision:.3f}, recall {chosen.recall:.3f}"
        )
    decode = dataclasses.replace(artifact.decode, confidence_threshold=confidence)
    notes = {**artifact.notes, "threshold": told}
    return write_artifact(dataclasses.replace(artifact, decode=decode, notes=notes), folder)
