"""Section ``quantize`` of params.yaml."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from plumbline.params import StageParams
from plumbline.quantization.search import Limits

# Task -> the metric that the budget is about, and its key in the section.
BUDGETS = {"detect": ("map50_95", "max_map50_95_drop"), "classify": ("top1", "max_top1_drop")}
AUTO = "auto"


class QuantizeParams(StageParams):
    """For targets with precision int8."""

    calibration_images: int = Field(ge=1, description="of the train split; all of it where it has fewer")
    seed: int = Field(ge=0, description="of which images are taken, of the interval's samples, and of the fine-tune")
    max_map50_95_drop: float = Field(description="points on val that a detector may lose to fp32")
    max_top1_drop: float = Field(description="points of top-1 on val that a classifier may lose to fp32")
    max_drop_upper: float = Field(description="points: of the upper end of the drop's paired 95 % interval")
    first_method: str = Field(description="calibration method tried first; auto: the backend's best as a rule")
    max_trials: int = Field(ge=1, description="files scored at the most, those after a fine-tune not counted")
    max_float_share: float = Field(ge=0, lt=1, description="of the multiply-adds that may stay in float")
    over_budget: Literal["error", "keep"] = Field(description="what happens where nothing is inside the budget")
    aware_steps: int = Field(ge=0, description="of the fine-tune that is the last rung; 0: none")
    aware_batch: int = Field(ge=1, description="images per step of it")
    aware_learning_rate: float = Field(gt=0, description="its highest")

    def limits(self, task: str) -> Limits:
        """Return what the search needs."""
        return Limits(
            max_drop=getattr(self, BUDGETS[task][1]),
            max_drop_upper=self.max_drop_upper,
            max_float_share=self.max_float_share,
            max_trials=self.max_trials,
            first_method=None if self.first_method == AUTO else self.first_method,
        )
