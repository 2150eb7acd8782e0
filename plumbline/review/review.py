"""A whole comparison as JSON: what a trusted poster reads of a run that it does not trust, every field checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from plumbline.errors import EvaluationError
from plumbline.files import write_json
from plumbline.review.changes import Change

REVIEW = "review.json"
MOST_BYTES = 20_000_000
State = Literal["passed", "failed"]
PictureName = Annotated[str, Field(pattern=r"^[a-z]{1,30}$")]
PictureFile = Annotated[str, Field(pattern=r"^[a-z]{1,30}\.png$")]  # no path that leads out of the folder


class Side(BaseModel):
    """One of the two revisions."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str = Field(max_length=200, description="As the user said it: main.")
    commit: str = Field(pattern=r"^[0-9a-f]{40}$")
    is_clean: bool = Field(description="False: a working tree that differs from the commit.")


class GateResult(BaseModel):
    """What became of one gate."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str = Field(max_length=200)
    rule: str = Field(max_length=500, description="As params.yaml has it.")
    passed: bool
    judged: bool = Field(default=True, description="False: of some rows nothing can be said (`changes.ELSEWHERE`).")
    why: str = Field(max_length=2000, description="The rows that decided, in words.")


class Review(BaseModel):
    """Two revisions, held against each other."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    base: Side
    head: Side
    task: Literal["detect", "classify"]
    headline: str = Field(max_length=100, description="Metric that artifacts are compared by: map50_95.")
    headline_title: str = Field(max_length=100, description="mAP50-95")
    shown: str = Field(max_length=200, description="Artifact of the pictures.")
    level: float = Field(gt=0.5, lt=1, description="Of the intervals: 0.95.")
    num_images: int = Field(ge=0, description="Scored in both: what the intervals are of.")
    changes: tuple[Change, ...] = Field(max_length=100_000)
    gates: tuple[GateResult, ...] = Field(max_length=1000)
    notes: tuple[Annotated[str, Field(max_length=1000)], ...] = Field(
        max_length=100, description="What must be known to read the numbers; one sentence each."
    )
    pictures: dict[PictureName, PictureFile] = Field(
        max_length=20, description="Stem (curves, confusion, latency, changed) -> file beside review.json."
    )

    @property
    def state(self) -> State:
        """``passed`` where every gate did, else ``failed``."""
        return "passed" if all(gate.passed for gate in self.gates) else "failed"


def write_review(review: Review, folder: Path) -> None:
    """Write `REVIEW` into a folder."""
    write_json(folder / REVIEW, review.model_dump(mode="json"))


def read_review(folder: Path) -> Review:
    """Read and check `REVIEW`, which may come from anybody.

    Raises:
        EvaluationError: It is missing, too large, or not one.
    """
    path = folder / REVIEW
    try:
        if path.stat().st_size > MOST_BYTES:
            raise EvaluationError(f"{path}: {path.stat().st_size:,} bytes, expected {MOST_BYTES:,} or fewer")
        return Review.model_validate_json(path.read_bytes())
    except OSError as error:
        raise EvaluationError(
            f"{path}: cannot be read ({error.strerror}), expected what make pr-report writes"
        ) from error
    except (ValidationError, json.JSONDecodeError, UnicodeDecodeError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": (), "msg": str(error)}
        where = ".".join(str(part) for part in first["loc"])
        raise EvaluationError(
            f"{path}: not a review: {where or 'the file'}: {first['msg']}; run make pr-report of this version again"
        ) from error
