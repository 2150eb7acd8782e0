"""Everything that stands on the report's page, before it is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from plumbline.recommendation import Budget, Choice
from plumbline.report_rows import WEIGHTS, Result, Row
from plumbline.report_words import ReportWords

# Of a search's table: texts, and numbers. The metric is 0..1 on val, drops are points.
TRIAL_TEXTS = ("step", "method", "operators")
TRIAL_NUMBERS = ("trial", "num_float_blocks", "int8_share", "metric", "drop", "drop_upper", "inside")
TRIAL_COLUMNS = (*TRIAL_TEXTS, *TRIAL_NUMBERS)
FP32_STEP = "fp32"  # the row that the others are compared with


@dataclass(frozen=True)
class Sampling:
    """How the intervals were found.

    Attributes:
        samples: Of the scored images, with replacement.
        level: 0.95 for a 95 % interval.
        num_drawn: Images and groups of images that a sample is drawn from.
    """

    samples: int
    level: float
    num_drawn: int


@dataclass(frozen=True)
class Training:
    """What the train stage told.

    Attributes:
        metrics: Of reports/train/metrics.json.
        folder: Link to the folder with training.png and labels.png, relative to the page.
    """

    metrics: Mapping[str, Any]
    folder: str


@dataclass(frozen=True)
class Content:
    """Everything on the page.

    Attributes:
        words: Of the task.
        rows: The trained weights first.
        class_names: Index is class_id.
        class_counts: Objects per class in the scored split, in the order of class_names.
        splits: Name of a split -> its images and labels.
        scored_split: The one that every artifact was scored on.
        num_images: In the whole dataset, also those of no split.
        num_objects: Boxes, or labels of whole images, in the whole dataset.
        results: Name of an artifact -> what was read.
        shown: The artifact that is shown in detail.
        slices: Columns column, slice, num_images, num_objects and a metric's; of the trained weights and of `shown`.
        sampling: Of the intervals.
        training: See `Training`.
        samples_note: One sentence on what the sample images show.
        budget: What an int8 artifact may lose.
        choices: What to take for each need.
        trials: Name of an artifact -> the files that the search for it scored, see `TRIAL_COLUMNS`; of those that tell.
    """

    words: ReportWords
    rows: list[Row]
    class_names: tuple[str, ...]
    class_counts: list[int]
    splits: dict[str, tuple[int, int]]
    scored_split: str
    num_images: int
    num_objects: int
    results: Mapping[str, Result]
    shown: str
    slices: Mapping[str, pd.DataFrame]
    sampling: Sampling
    training: Training
    samples_note: str
    budget: Budget
    choices: list[Choice]
    trials: Mapping[str, pd.DataFrame]

    @property
    def targets(self) -> list[Row]:
        """The rows of all artifacts but the trained weights."""
        return [row for row in self.rows if row.name != WEIGHTS]

    @property
    def ordered(self) -> list[tuple[str, Result]]:
        """What was read, in the order of the rows."""
        return [(row.name, self.results[row.name]) for row in self.rows]

    @property
    def unseen(self) -> list[str]:
        """Classes that have no object in the scored split."""
        return [name for name, count in zip(self.class_names, self.class_counts, strict=True) if count == 0]
