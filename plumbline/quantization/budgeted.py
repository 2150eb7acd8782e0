"""One int8 target: search, and a fine-tune where the search alone does not keep the budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from plumbline.errors import BackendError
from plumbline.quantization.recipes import Quantizer, Recipe
from plumbline.quantization.search import Limits, Outcome, Trial, best_of, line_of, search, try_recipe
from plumbline.quantization.sensitivity import Kinds, rank_blocks
from plumbline.quantization.val_score import ValScore
from plumbline.runtime.artifact import Artifact, OutputSpec
from plumbline.runtime.session import Engine

# Images that tell which blocks int8 hurts: enough to order them, and each is run once for every block.
RANKING_IMAGES = 16


@dataclass(frozen=True)
class Job:
    """What is quantized, for what.

    Attributes:
        artifact: Of the target, as its engine is opened with.
        module: Of its backend.
        chip: Of the target; empty where the backend has none.
        hub: The fp32 ONNX file.
        fp32: The hub's engine.
        tensors: Calibration inputs, shape (1, 3, H, W).
        threads: Of engines.
    """

    artifact: Artifact
    module: ModuleType
    chip: str
    hub: Path
    fp32: Engine
    tensors: Sequence[npt.NDArray[np.float32]]
    threads: int = 1

    def open(self, folder: Path) -> Engine:
        """Open an engine's files."""
        engine: Engine = self.module.open_session(folder, self.artifact, self.threads)
        return engine


def quantize_within_budget(
    job: Job,
    score: ValScore,
    limits: Limits,
    *,
    fine_tune: Callable[[Path], Path] | None,
    work: Path,
    tell: Callable[[str], None],
) -> Outcome:
    """Return the fastest file inside the budget; where there is none, the best one, which says so itself.

    Args:
        job: See `Job`.
        score: On val.
        limits: The budget.
        fine_tune: Folder -> the hub's ONNX file of a network that was fine-tuned for int8; None for none.
        work: Folder for what lies between.
        tell: Gets lines of progress.

    Raises:
        BackendError: The backend cannot quantize this network.
    """
    calibrated = job.module.quantizer(job.hub, job.tensors, _made(work / "calibrated"), job.chip)
    outcome = search(
        calibrated,
        lambda folder: score(job.open(folder)),
        lambda recipe: _rank(job, calibrated, recipe, work / "alone", tell),
        limits,
        work=work / "trials",
        tell=lambda line: tell(f"{job.artifact.name}: {line}"),
    )
    if outcome.best.inside or fine_tune is None:
        return outcome
    tell(f"{job.artifact.name}: no file is inside the budget yet; fine-tuning the network for int8")
    tuned = fine_tune(_made(work / "aware"))
    again = job.module.quantizer(tuned, job.tensors, _made(work / "aware" / "calibrated"), job.chip)
    return _after_fine_tune(job, again, outcome, score, limits, work=work / "aware" / "trials", tell=tell)


def _after_fine_tune(
    job: Job,
    quantizer: Quantizer,
    before: Outcome,
    score: ValScore,
    limits: Limits,
    *,
    work: Path,
    tell: Callable[[str], None],
) -> Outcome:
    """Score the fine-tuned network with nothing in float, then with the blocks in float that were best without."""
    # The fine-tune imitates the backend's own first method; another one would round elsewhere.
    recipe = replace(before.best.recipe, method=quantizer.methods[0])
    trials = before.trials
    for one in [replace(recipe, float_blocks=()), recipe] if recipe.float_blocks else [recipe]:
        number = len(trials) + 1
        trial = try_recipe(
            quantizer,
            one,
            lambda folder: score(job.open(folder)),
            limits,
            folder=work / f"trial{number}",
            number=number,
            step="aware",
        )
        tell(f"{job.artifact.name}: {line_of(trial)}")
        trials = (*trials, trial)
        if trial.inside:
            return Outcome(trial, trials)
    return Outcome(best_of(trials, limits), trials)


def _rank(job: Job, quantizer: Quantizer, recipe: Recipe, work: Path, tell: Callable[[str], None]) -> tuple[str, ...]:
    tell(f"{job.artifact.name}: ordering {len(quantizer.blocks)} blocks by the noise that int8 makes in each")
    tensors = job.tensors[:RANKING_IMAGES]
    expected = [list(job.fp32(tensor)) for tensor in tensors]
    kinds = kinds_of(job.artifact)
    return rank_blocks(quantizer, recipe, job.open, tensors, kinds, expected=expected, work=work)


def kinds_of(artifact: Artifact) -> Kinds:
    """Return the places of boxes and of class logits among a detector's outputs; a classifier has logits alone."""
    places = range(len(artifact.outputs.names))
    if isinstance(artifact.outputs, OutputSpec):
        return [list(places[0::2]), list(places[1::2])]
    return [list(places)]


def notes_of(outcome: Outcome, metric: str, aware_steps: int) -> dict[str, Any]:
    """Return what `artifact.json` says of how an int8 file was found."""
    best = outcome.best
    written = best.written
    return {
        **written.notes,
        "method": best.recipe.method,
        "operators": best.recipe.operators,
        "float_blocks": list(best.recipe.float_blocks),
        "num_convolutions": written.num_convolutions,
        "num_int8": written.num_int8,
        "float_names": list(written.float_names),
        "inside_budget": best.inside,
        "reason": best.reason,
        "metric": metric,
        "drop": best.drop.drop,
        "drop_upper": best.drop.upper,
        "num_trials": len(outcome.trials),
        "aware_steps": aware_steps if best.step == "aware" else 0,
    }


TRIAL_COLUMNS = (
    "trial", "step", "method", "operators", "num_float_blocks", "int8_share", "metric", "drop", "drop_upper", "inside",
)  # fmt: skip


def trials_table(reference: float, trials: Sequence[Trial]) -> pd.DataFrame:
    """Return a row for fp32, number 0, and one for each trial; `metric` is 0..1, drops are points."""
    fp32 = (0, "fp32", "", "", 0, 0.0, reference, 0.0, 0.0, 1)
    rows = [_row(trial) for trial in trials]
    return pd.DataFrame([fp32, *rows], columns=list(TRIAL_COLUMNS))


def _row(trial: Trial) -> tuple[Any, ...]:
    recipe, drop = trial.recipe, trial.drop
    return (
        trial.number, trial.step, recipe.method, recipe.operators, len(recipe.float_blocks), trial.int8_share,
        drop.value, drop.drop, drop.upper, int(trial.inside),
    )  # fmt: skip


def refuse_over_budget(outcome: Outcome, name: str) -> None:
    """Refuse a target that no trial brought inside the budget.

    Raises:
        BackendError: It says how near the best one came, and what can be done.
    """
    if outcome.best.inside:
        return
    recipe = outcome.best.recipe
    raise BackendError(
        f"target {name!r}: none of {len(outcome.trials)} int8 files is inside the budget; the best"
        f" ({recipe.method}, {recipe.operators}, {len(recipe.float_blocks)} blocks in float): {outcome.best.reason};"
        " raise quantize.max_float_share, quantize.max_trials, quantize.aware_steps or the budget, give val more"
        " images, take the target out, or set quantize.over_budget to keep"
    )


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
