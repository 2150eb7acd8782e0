"""How strict the gate is: the sections validate and near_duplicates of params.yaml, as the checks want them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, create_model, field_validator

from plumbline.checks.repairs import REPAIRS
from plumbline.checks.view import CheckSettings
from plumbline.faults import FAULTS
from plumbline.params import NearDuplicateParams, StageParams, load_section

Severity = Literal["error", "warning", "off"]

if TYPE_CHECKING:

    class SeverityParams(StageParams):
        """One field for each code; mypy cannot look into a model that is made from a table."""

else:
    SeverityParams = create_model(
        "SeverityParams",
        __base__=StageParams,
        __doc__="What each finding means: error stops, warning tells and goes on, off goes on.",
        **{code: (Severity, Field(description=f"{fault.name}: {fault.what}.")) for code, fault in FAULTS.items()},
    )


class ValidateParams(StageParams):
    """How strict the gate is."""

    severity: SeverityParams = Field(description="One for each code; what cannot be kept goes with warning and off.")
    fix: list[str] = Field(description="Codes that are repaired, each repair a row of edits.csv.")
    undo: list[str] = Field(description="The edit_id of each repair in edits.csv that shall not be made.")
    clip_px: float = Field(ge=0, allow_inf_nan=False, description="A box so far outside may be clipped; pixels.")
    tiny_px: float = Field(ge=0, allow_inf_nan=False, description="A box with a shorter side is tiny; pixels.")
    giant_share: float = Field(gt=0, le=1, description="A box of more of its image's area is giant.")
    extreme_aspect: float = Field(ge=1, allow_inf_nan=False, description="Longer side by shorter, of an extreme box.")
    near_duplicate_iou: float = Field(ge=0.5, le=1, description="Overlap of two boxes that are one, of one class.")
    two_classes_iou: float = Field(ge=0.5, le=1, description="Overlap of two boxes that are one, of two classes.")
    min_boxes_per_class: int = Field(ge=0, description="A class of fewer boxes is small.")
    max_imbalance: float = Field(ge=1, allow_inf_nan=False, description="A class so many times rarer is rare.")

    @field_validator("fix")
    @classmethod
    def _can_be_repaired(cls, value: list[str]) -> list[str]:
        if not set(value) <= set(REPAIRS) or len(set(value)) < len(value):
            raise ValueError(f"a list of codes that can be repaired, each once ({', '.join(REPAIRS)})")
        return value


def settings_of(params: ValidateParams, near_duplicates: NearDuplicateParams) -> CheckSettings:
    """Return both sections as the checks want them."""
    values: dict[str, Any] = params.model_dump()
    values |= {"fix": tuple(params.fix), "undo": tuple(params.undo)}
    return CheckSettings(**values, max_hash_bits=near_duplicates.max_hash_bits)


def load_settings(params: Path) -> CheckSettings:
    """Read both sections.

    Raises:
        ParamsError: The file is missing, or a value in it is wrong.
    """
    return settings_of(
        load_section(params, "validate", ValidateParams),
        load_section(params, "near_duplicates", NearDuplicateParams),
    )
