"""The section ``flow`` of params.yaml: how a flow runs the stages. No stage reads it, so DVC does not watch it."""

from __future__ import annotations

import fnmatch
from pathlib import Path

from pydantic import Field, field_validator

from plumbline.params import StageParams, load_section
from stages.shape import PARAMS_FILE

SECTION = "flow"


class FlowParams(StageParams):
    """How a flow runs the stages of dvc.yaml."""

    limits: dict[str, int] = Field(
        description="What of each resource stages may use at once on this machine; 0: all that it has (cpu, gpu)."
    )
    retries: dict[str, int] = Field(
        description="How often a stage is run again after a failure; a name or a pattern (export@*)."
    )
    retry_delay_s: float = Field(ge=0, description="Seconds between a failure and the next try.")
    remote: str = Field(description="DVC remote through which data reaches other machines; empty: DVC's default one.")
    take_within_s: float = Field(gt=0, description="How long a worker of another pool may take to start a stage.")
    lost_after_s: float = Field(
        gt=0, description="After how long without a sign of life another machine's stage is given to another worker."
    )
    remote_retry_s: float = Field(
        ge=0, description="How long a push or pull is tried again, with growing pauses, while the remote refuses."
    )

    @field_validator("limits", "retries")
    @classmethod
    def _not_negative(cls, value: dict[str, int]) -> dict[str, int]:
        if negative := [name for name, number in value.items() if number < 0]:
            raise ValueError(f"{negative[0]} is negative, expected 0 or more")
        return value

    @field_validator("limits")
    @classmethod
    def _known(cls, value: dict[str, int]) -> dict[str, int]:
        if set(value) != {"cpu", "gpu"}:
            raise ValueError(f"expected exactly the resources cpu and gpu, got {', '.join(value) or 'none'}")
        return value

    def retries_of(self, stage: str) -> int:
        """Return how often a stage may be run again: its own number, else that of the first pattern that it matches."""
        if stage in self.retries:
            return self.retries[stage]
        return next((number for pattern, number in self.retries.items() if fnmatch.fnmatch(stage, pattern)), 0)


def read_flow_params(root: Path) -> FlowParams:
    """Read the section of a project's params.yaml.

    Raises:
        ParamsError: It is missing, or a value is wrong.
    """
    path = root / PARAMS_FILE
    return load_section(path, SECTION, FlowParams)
