"""What int8 costs on val: the artifact's own session and the one evaluator, paired with fp32 image by image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from plumbline.errors import EvaluationError
from plumbline.manifest import Dataset
from plumbline.predicting import predict_images
from plumbline.quantization.search import Drop
from plumbline.quantization.settings import BUDGETS
from plumbline.runtime.artifact import Artifact
from plumbline.runtime.session import Engine, Session
from plumbline.scores import BootstrapSettings
from plumbline.split_images import images_of_split
from plumbline.tasks import task_module

SPLIT = "val"  # test is read by evaluate alone
CONFIDENCE_FLOOR = 0.001  # what COCO's metric is computed from
SAMPLES, LEVEL = 1000, 0.95
POINTS = 100.0


class ValScore:
    """Scores engines of one target on val against fp32.

    Attributes:
        images: That are scored.
        reference: Value of fp32, 0..1.
    """

    def __init__(
        self,
        artifact: Artifact,
        fp32: Engine,
        data: Dataset,
        splits: Path,
        *,
        difficult: str,
        seed: int,
        tell: Callable[[str], None],
    ) -> None:
        """Score fp32.

        Args:
            artifact: Of the target: how images become tensors and outputs become predictions.
            fp32: The hub's engine.
            data: The validated dataset.
            splits: Table of image_id and split.
            difficult: ``evaluate.difficult``.
            seed: Of the bootstrap's samples.
            tell: Gets lines of progress.

        Raises:
            EvaluationError: val has no image, or nothing to find.
        """
        self.artifact, self.data, self.tell = artifact, data, tell
        self.metric = BUDGETS[artifact.task][0]
        self.scoring = task_module(artifact.task, "scoring")
        self.images = images_of_split(data.images, splits, SPLIT)
        self.truth = self.scoring.truth_of(data, self.images)
        self.settings = BootstrapSettings(SAMPLES, LEVEL, seed, difficult)
        self._fp32 = self._predictions(fp32, "fp32")
        self.reference = self.drop_of(self._fp32).value

    def __call__(self, engine: Engine) -> Drop:
        """Score an engine that gives the artifact's outputs."""
        return self.drop_of(self._predictions(engine, self.artifact.name))

    def drop_of(self, predictions: pd.DataFrame) -> Drop:
        """Compare predictions on val with those of fp32."""
        both = {"fp32": self._fp32, "int8": predictions}
        names = self.data.class_names
        found = self.scoring.bootstrap(self.truth, self.images, names, both, "fp32", self.settings)
        if self.metric not in found["int8"]:
            raise EvaluationError(
                f"{self.metric} is not defined on {SPLIT} ({len(self.images)} images, {len(self.truth)} labels), so"
                " that no budget can be kept; give it labelled images, or take the int8 targets out of params.yaml"
            )
        interval = found["int8"][self.metric]
        # + 0.0: no minus zero.
        return Drop(interval.value, -interval.difference * POINTS + 0.0, -interval.difference_low * POINTS + 0.0)

    def _predictions(self, engine: Engine, name: str) -> pd.DataFrame:
        def tell(line: str) -> None:
            self.tell(f"{name} on {SPLIT}: {line.partition(': ')[2]}")

        session = Session(self.artifact, engine)
        return predict_images(
            session, self.images, self.data, scoring=self.scoring, confidence_floor=CONFIDENCE_FLOOR, tell=tell
        )
