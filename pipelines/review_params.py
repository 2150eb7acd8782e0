"""The sections ``gates`` and ``review`` of params.yaml: what a change must keep. No stage reads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, RootModel, field_validator

from plumbline.params import DifficultParams, StageParams, check_section, read_params
from plumbline.review.gates import parse_gate
from plumbline.scores import BootstrapSettings
from stages.shape import PARAMS_FILE

GATES, REVIEW = "gates", "review"


class GateParams(RootModel[dict[str, str]]):
    """Name of a gate -> its rule; see `plumbline.review.gates`."""

    model_config = ConfigDict(strict=True)

    @field_validator("root")
    @classmethod
    def _are_gates(cls, value: dict[str, str]) -> dict[str, str]:
        for name, rule in value.items():
            parse_gate(name, rule)
        return value


class ReviewParams(StageParams):
    """How two revisions are compared."""

    latency_noise: float = Field(
        ge=0, lt=1, description="Share by which two measurements of the same file on the same machine may differ."
    )


class ReportParams(StageParams):
    """What a comparison takes of the section report."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    bootstrap_samples: int = Field(ge=10)
    confidence_level: float = Field(gt=0.5, lt=1)
    seed: int = Field(ge=0)


def read_bootstrap(root: Path) -> BootstrapSettings:
    """Read how this project's intervals are made.

    Raises:
        ParamsError: A section is missing, or a value is wrong.
    """
    path = root / PARAMS_FILE
    return bootstrap_of(path, read_params(path))


def bootstrap_of(path: Path, values: Mapping[str, Any]) -> BootstrapSettings:
    """Take how intervals are made from a params.yaml's values; `path` is for its errors.

    Raises:
        ParamsError: A section is missing, or a value is wrong.
    """
    report = check_section(path, "report", values.get("report"), ReportParams)
    difficult = check_section(path, "evaluate", values.get("evaluate"), DifficultParams).difficult
    return BootstrapSettings(report.bootstrap_samples, report.confidence_level, report.seed, difficult)


def review_of(path: Path, values: Mapping[str, Any]) -> ReviewParams:
    """Take the section ``review`` from a params.yaml's values.

    Raises:
        ParamsError: It is missing, or a value is wrong.
    """
    return check_section(path, REVIEW, values.get(REVIEW), ReviewParams)


def gates_of(path: Path, values: Mapping[str, Any]) -> dict[str, str]:
    """Take the gates from a params.yaml's values; none where it has no such section, as one of before there were any.

    Raises:
        ParamsError: A gate is none.
    """
    return dict(check_section(path, GATES, values.get(GATES) or {}, GateParams).root)
