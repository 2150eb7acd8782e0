"""Make one target's artifact from the hub: its engine's files and artifact.json; int8 within the accuracy budget."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, Field, model_validator

from plumbline.backends import HUB, TARGET_BACKENDS, backend_module
from plumbline.chosen_threshold import ThresholdParams, choose_on_val
from plumbline.dataset_images import load_image
from plumbline.errors import BackendError
from plumbline.files import replacing, write_json, write_text
from plumbline.hub_session import open_hub
from plumbline.lineage import git_commit, hash_of_hashes, toolchain
from plumbline.manifest import Dataset, read_dataset
from plumbline.params import DifficultParams, StageParams, load_section
from plumbline.parity import REFERENCE, Parity, check_parity, read_reference
from plumbline.quantization.budgeted import (
    Job,
    notes_of,
    quantize_within_budget,
    refuse_over_budget,
    trials_table,
)
from plumbline.quantization.search import Outcome
from plumbline.quantization.settings import BUDGETS, QuantizeParams
from plumbline.quantization.val_score import ValScore
from plumbline.runtime.artifact import Artifact, read_artifact, write_artifact
from plumbline.runtime.preprocess import preprocess
from plumbline.split_images import images_of_split, read_splits
from plumbline.tasks import task_module
from plumbline.trained import WEIGHTS
from stages.shape import exit_code, path_arguments

INT8 = "int8"
# One thread adds up in one order: the same numbers on machines with other core counts.
THREADS = 1

tell_now = functools.partial(print, flush=True)


class TargetParams(StageParams):
    """One entry of the mapping `targets`; its key names stages and folders."""

    ENTRY_NAME: ClassVar[str] = r"(?!weights$)[a-z0-9][a-z0-9_-]*"

    backend: str = Field(description="one of plumbline.backends.TARGET_BACKENDS")
    precision: str = Field(description="one of the backend's PRECISIONS")
    chip: str = Field(default="", description="one of the backend's CHIPS, where it has some")

    @model_validator(mode="after")
    def _known(self) -> TargetParams:
        # Only the named backend's module is imported: no other one may change this target.
        if self.backend not in TARGET_BACKENDS:
            raise ValueError(f"a backend of: {', '.join(TARGET_BACKENDS)}")
        module = backend_module(self.backend)
        if self.precision not in module.PRECISIONS:
            raise ValueError(f"a precision of {self.backend}: {', '.join(module.PRECISIONS)}")
        if module.CHIPS and self.chip not in module.CHIPS:
            near = difflib.get_close_matches(self.chip, module.CHIPS, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ValueError(f"a chip of {self.backend}: {', '.join(module.CHIPS)}{hint}")
        if self.chip and not module.CHIPS:
            raise ValueError(f"no chip, as files of {self.backend} are for no chip in particular")
        return self

    def missing_files(self) -> dict[str, str]:
        """Say what is not on this machine: the export would say so after the training.

        A backend whose toolchain is none of this project's dependencies has ``missing() -> str``, empty where it is
        there.
        """
        missing = getattr(backend_module(self.backend), "missing", None)
        said = missing() if missing else ""
        return {"backend": said} if said else {}


@dataclasses.dataclass(frozen=True)
class ExportSections:
    """The sections that this stage reads.

    Attributes:
        target: The target's own.
        quantize: Read for int8 alone.
        threshold: See `plumbline.chosen_threshold`.
        evaluate: How boxes that a label calls difficult count.
    """

    target: TargetParams
    quantize: QuantizeParams
    threshold: ThresholdParams
    evaluate: DifficultParams


@dataclasses.dataclass(frozen=True)
class ExportInputs:
    """What this stage reads.

    Attributes:
        hub: Artifact folder of the fp32 ONNX file.
        weights: Artifact folder of the trained weights, for a fine-tune.
        dataset: Folder that the paths of images are relative to.
        labels: The validated dataset.
        splits: Table of image_id and split.
    """

    hub: Path
    weights: Path
    dataset: Path
    labels: Path
    splits: Path


def run(target: str, sections: ExportSections, inputs: ExportInputs, *, out: Path, results: Path) -> Artifact:
    """Export the target `target` from the hub into the artifact folder `out`, with its own threshold chosen on val.

    Args:
        target: Its name.
        sections: See `ExportSections`.
        inputs: See `ExportInputs`.
        out: The artifact folder.
        results: Folder for trials.csv and metrics.json.

    Returns:
        Its `artifact.json`.

    Raises:
        BackendError: The backend cannot make it, its package is not installed here, its float export computes something
            else than the trained weights, or no int8 file is inside the budget.
        EvaluationError: No threshold gives the precision demanded on val, or val has nothing to score.
    """
    base = read_artifact(inputs.hub)
    data = read_dataset(inputs.labels, root=inputs.dataset)
    module = backend_module(sections.target.backend)
    try:
        with replacing(out) as temporary, tempfile.TemporaryDirectory(prefix="export-") as work:
            temporary.mkdir()
            maker = _Maker(target, sections, inputs, base, data, module, Path(work))
            trials = maker.make_int8(temporary) if sections.target.precision == INT8 else maker.make_float(temporary)
            write_artifact(maker.artifact(), temporary)
            difficult = sections.evaluate.difficult
            artifact = choose_on_val(
                temporary, data, inputs.splits, sections.threshold, difficult=difficult, tell=tell_now
            )
            _write_results(results, artifact, trials)
            return artifact
    except ImportError as error:
        raise BackendError(
            f"target {target!r} needs a package that is not installed ({error}); install {error.name}, "
            "or take the target out of params.yaml"
        ) from error


class _Maker:
    """Makes one target's files, and collects what `artifact.json` shall say."""

    def __init__(  # noqa: PLR0917
        self,
        target: str,
        sections: ExportSections,
        inputs: ExportInputs,
        base: Artifact,
        data: Dataset,
        module: ModuleType,
        work: Path,
    ) -> None:
        self.target, self.sections, self.inputs = target, sections, inputs
        self.base, self.data, self.module, self.work = base, data, module, work
        self.chip = sections.target.chip
        self.lineage: dict[str, Any] = {"git_commit": git_commit(Path()), "hub_sha256": base.files[HUB]}
        self.notes: dict[str, Any] = {"chip": self.chip} if self.chip else {}
        if module.STANDS_IN:
            self.notes["stands_in"] = module.STANDS_IN

    def artifact(self) -> Artifact:
        """Return what `artifact.json` says, but for the files."""
        notes = {**self.base.notes, **self.notes}
        made_with = notes.pop("toolchain", {})  # of a toolchain that this environment does not hold
        return dataclasses.replace(
            self.base,
            name=self.target,
            backend=self.sections.target.backend,
            precision=self.sections.target.precision,
            toolchain={**self.base.toolchain, **toolchain(self.module.PACKAGES), **made_with},
            lineage={**self.base.lineage, **self.lineage},
            reproducible=notes.pop("reproducible", True),
            notes=notes,
        )

    def make_float(self, folder: Path) -> pd.DataFrame:
        """Make the float artifact in `folder`."""
        precision = self.sections.target.precision
        self.notes |= self.module.export(self.inputs.hub / HUB, folder, precision, self.chip)
        self.notes["parity"] = self._parity(folder, precision).told()
        return trials_table(float("nan"), ())

    def make_int8(self, folder: Path) -> pd.DataFrame:
        """Put the fastest int8 file inside the budget into `folder`."""
        params = self.sections.quantize
        self._check_own_float()
        chosen = calibration_images(self.data, self.inputs.splits, params)
        self.lineage["calibration_sha256"] = hash_of_hashes(chosen["sha256"])
        self.lineage["num_calibration_images"] = len(chosen)
        self.lineage["quantize"] = params.model_dump()
        tensors = [self._tensor(path) for path in chosen["path"]]
        fp32 = open_hub(self.inputs.hub, threads=THREADS).engine
        artifact = self.artifact()
        score = ValScore(
            artifact,
            fp32,
            self.data,
            self.inputs.splits,
            difficult=self.sections.evaluate.difficult,
            seed=params.seed,
            tell=tell_now,
        )
        job = Job(artifact, self.module, self.chip, self.inputs.hub / HUB, fp32, tensors, THREADS)
        outcome = quantize_within_budget(
            job,
            score,
            params.limits(self.base.task),
            fine_tune=self._fine_tune(tensors) if params.aware_steps else None,
            work=self.work,
            tell=tell_now,
        )
        if params.over_budget == "error":
            refuse_over_budget(outcome, self.target)
        return self._take(outcome, score.reference, folder)

    def _take(self, outcome: Outcome, reference: float, folder: Path) -> pd.DataFrame:
        shutil.copytree(outcome.best.folder, folder, dirs_exist_ok=True)
        metric = BUDGETS[self.base.task][0]
        notes = notes_of(outcome, metric, self.sections.quantize.aware_steps)
        self.notes |= {key: notes.pop(key) for key in ("reproducible", "toolchain", "computes_in") if key in notes}
        self.notes["quantization"] = notes
        return trials_table(reference, outcome.trials)

    def _check_own_float(self) -> None:
        """Let the backend's own float export pass the gate: what int8 loses is then int8's doing."""
        precision = next(one for one in ("fp32", "fp16") if one in self.module.PRECISIONS)
        folder = self.work / "float"
        folder.mkdir()
        chip = getattr(self.module, "FLOAT_CHIP", {}).get(self.chip, self.chip)
        self.module.export(self.inputs.hub / HUB, folder, precision, chip)
        self.notes["parity"] = self._parity(folder, precision).told() | ({"chip": chip} if chip != self.chip else {})

    def _parity(self, folder: Path, precision: str) -> Parity:
        reference = read_reference(self.inputs.hub / REFERENCE)
        artifact = dataclasses.replace(self.artifact(), precision=precision)
        engine = self.module.open_session(folder, artifact, THREADS)
        what = f"target {self.target!r}, {precision}"
        parity = check_parity(reference, engine, self.base.outputs.names, self.module.TOLERANCE[precision], what)
        tell_now(
            f"{self.target}: {precision} gives the trained weights' raw outputs within {parity.max_error:.1e}"
            f" (allowed: {parity.tolerance:g})"
        )
        return parity

    def _fine_tune(self, tensors: Sequence[npt.NDArray[np.float32]]) -> Callable[[Path], Path]:
        def make(folder: Path) -> Path:
            # torch takes seconds to import, and is needed by this rung alone.
            from plumbline.networks import export_onnx
            from plumbline.quantization.aware import AwareSettings, fine_tune

            params = self.sections.quantize
            network = task_module(self.base.task, "network").load_network(self.inputs.weights / WEIGHTS)
            activations, largest_weight = self.module.ARITHMETIC
            settings = AwareSettings(
                steps=params.aware_steps,
                batch=params.aware_batch,
                learning_rate=params.aware_learning_rate,
                seed=params.seed,
                activations=activations,
                largest_weight=largest_weight,
            )
            tuned = fine_tune(network, tensors, settings, tell_now)
            export_onnx(tuned, int(self.base.notes["opset"]), folder / HUB)
            return folder / HUB

        return make

    def _tensor(self, path: str) -> npt.NDArray[np.float32]:
        """Return the input tensor exactly as the runtime makes it on the device."""
        image = load_image(self.data, path)
        return preprocess(image, self.base.input.size_wh, self.base.preprocessing)[0]


def calibration_images(data: Dataset, splits: Path, params: QuantizeParams) -> pd.DataFrame:
    """Choose images of the train split, never of val or test; the same seed chooses the same ones.

    Raises:
        EvaluationError: There is none.
        BackendError: The same image stands in val or test, too.
    """
    train = images_of_split(data.images, splits, "train")
    order = np.random.default_rng(params.seed).permutation(len(train))
    chosen = train.iloc[np.sort(order[: params.calibration_images])]
    table = read_splits(splits)
    for split in ("val", "test"):
        held_out = data.images.loc[
            data.images["image_id"].isin(table.loc[table["split"] == split, "image_id"]), "sha256"
        ]
        both = chosen[chosen["sha256"].isin(held_out)]
        if len(both):
            raise BackendError(
                f"{splits}: {len(both)} calibration images stand in the split {split!r} too, the first is"
                f" {both['path'].iloc[0]}, expected none; run the stages validate and split again"
            )
    return chosen


def _write_results(results: Path, artifact: Artifact, trials: pd.DataFrame) -> None:
    """Write trials.csv and metrics.json."""
    metrics = {"parity_max_error": artifact.notes["parity"]["max_error"]}
    found = artifact.notes.get("quantization")
    if found:
        metrics |= {key: found[key] for key in ("drop", "drop_upper", "num_trials", "num_int8", "aware_steps")}
        metrics |= {"inside_budget": int(found["inside_budget"]), "num_float_blocks": len(found["float_blocks"])}
    write_text(results / "trials.csv", trials.to_csv(index=False))
    write_json(results / "metrics.json", metrics)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage."""
    inputs = ("hub", "weights", "dataset", "labels", "splits")
    args = path_arguments(__doc__, (*inputs, "out", "results"), argv, words=("target",))

    def work() -> None:
        sections = ExportSections(
            target=load_section(args.params, f"targets.{args.target}", TargetParams),
            quantize=load_section(args.params, "quantize", QuantizeParams),
            threshold=load_section(args.params, "threshold", ThresholdParams),
            evaluate=load_section(args.params, "evaluate", DifficultParams),
        )
        paths = ExportInputs(**{name: getattr(args, name) for name in inputs})
        run(args.target, sections, paths, out=args.out, results=args.results)

    return exit_code(work)


SECTIONS: dict[str, type[BaseModel]] = {
    "targets.*": TargetParams,
    "quantize": QuantizeParams,
    "threshold": ThresholdParams,
    "evaluate": DifficultParams,
}

if __name__ == "__main__":
    sys.exit(main())
