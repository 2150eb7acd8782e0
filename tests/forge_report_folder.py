"""A report folder as ``make pr-report`` writes one, without running anything."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from plumbline.review.changes import Change, Verdict
from plumbline.review.review import GateResult, Review, Side, write_review

HEAD = "a" * 40
BASE = "b" * 40
GATES = "gates:\n  floor: weights.map50_95 >= 0.6\n  no_loss: map50_95 drop <= 0.01 and significant\n"


def made_up_review(
    *, head: str = HEAD, base: str = "main", after: float = 0.81, passed: bool = True, title: str = "mAP50-95"
) -> Review:
    """Make a review of one row and two gates."""
    verdict = Verdict.BETTER if after > 0.8 else Verdict.WORSE
    row = Change(
        kind="score", artifact="weights", metric="map50_95", title=title, base=0.8, head=after, low=after - 0.802,
        high=after - 0.798, higher_is_better=True, verdict=verdict,
    )  # fmt: skip
    rules = {"floor": "weights.map50_95 >= 0.6", "no_loss": "map50_95 drop <= 0.01 and significant"}
    gates = tuple(GateResult(name=name, rule=rule, passed=passed, why="so it is") for name, rule in rules.items())
    return Review(
        base=Side(name=base, commit=BASE, is_clean=True), head=Side(name="HEAD", commit=head, is_clean=True),
        task="detect", headline="map50_95", headline_title="mAP50-95", shown="weights", level=0.95, num_images=100,
        changes=(row,), gates=gates, notes=("It is made up.",),
        pictures={"curves": "curves.png", "latency": "latency.png"},
    )  # fmt: skip


def write_folder(folder: Path, review: Review | None = None, *, shade: int = 200) -> Path:
    """Write a report folder: review.json and its pictures."""
    review = review or made_up_review()
    folder.mkdir(parents=True, exist_ok=True)
    write_review(review, folder)
    for place, name in enumerate(review.pictures.values()):
        cv2.imwrite(str(folder / name), np.full((40, 60 + place, 3), shade, np.uint8))
    return folder
