"""Make one target's artifact from the hub: its engine's files and artifact.json."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, Field, model_validator

from plumbline.backends import HUB, TARGET_BACKENDS, backend_module
from plumbline.chosen_threshold import ThresholdParams, choose_on_val
from plumbline.errors import BackendError
from plumbline.files import replacing
from plumbline.lineage import git_commit, hash_of_hashes, toolchain
from plumbline.manifest import read_dataset
from plumbline.params import DifficultParams, StageParams, load_section
from plumbline.runtime.artifact import Artifact, read_artifact, write_artifact
from plumbline.runtime.preprocess import preprocess, read_image
from plumbline.split_images import images_of_split
from stages.shape import exit_code, path_arguments


class TargetParams(StageParams):
    """One entry of the mapping `targets`; its key names stages and folders."""

    ENTRY_NAME: ClassVar[str] = r"(?!weights$)[a-z0-9][a-z0-9_-]*"

    backend: str = Field(description="one of plumbline.backends.TARGET_BACKENDS")
    precision: str = Field(description="one of the backend's PRECISIONS")

    @model_validator(mode="after")
    def _known(self) -> TargetParams:
        # Only the named backend's module is imported: no other one may change this target.
        if self.backend not in TARGET_BACKENDS:
            raise ValueError(f"a backend of: {', '.join(TARGET_BACKENDS)}")
        known = backend_module(self.backend).PRECISIONS
        if self.precision not in known:
            raise ValueError(f"a precision of {self.backend}: {', '.join(known)}")
        return self


class QuantizeParams(StageParams):
    """Section `quantize`: for targets with precision int8."""

    calibration_images: int = Field(ge=1, description="of the train split; all of it where it has fewer")
    seed: int = Field(ge=0, description="of which images are taken")


def run(
    params: TargetParams,
    quantize: QuantizeParams,
    threshold: ThresholdParams,
    *,
    difficult: str,
    target: str,
    hub: Path,
    dataset: Path,
    labels: Path,
    splits: Path,
    out: Path,
) -> Artifact:
    """Export the target `target` from the hub into the artifact folder `out`, with its own threshold chosen on val.

    Raises:
        BackendError: The backend cannot make it, or its package is not installed here.
        EvaluationError: No threshold gives the precision demanded on val.
    """
    base = read_artifact(hub)
    module = backend_module(params.backend)
    lineage = {**base.lineage, "git_commit": git_commit(Path()), "hub_sha256": base.files[HUB]}
    with replacing(out) as temporary:
        temporary.mkdir()
        try:
            if params.precision == "int8":
                chosen = calibration_images(labels, splits, quantize)
                lineage["calibration_sha256"] = hash_of_hashes(chosen["sha256"])
                lineage["num_calibration_images"] = len(chosen)
                lineage["quantize"] = quantize.model_dump()
                tensors = calibration_tensors(base, (dataset / path for path in chosen["path"]))
                notes = module.quantize(hub / HUB, temporary, tensors)
            else:
                notes = module.export(hub / HUB, temporary, params.precision)
        except ImportError as error:
            raise BackendError(
                f"target {target!r} needs a package that is not installed ({error}); install {error.name}, "
                "or take the target out of params.yaml"
            ) from error
        artifact = dataclasses.replace(
            base,
            name=target,
            backend=params.backend,
            precision=params.precision,
            toolchain={**base.toolchain, **toolchain(module.PACKAGES)},
            lineage=lineage,
            notes={**base.notes, **notes},
        )
        write_artifact(artifact, temporary)
        data, tell = read_dataset(labels, root=dataset), functools.partial(print, flush=True)
        return choose_on_val(temporary, data, splits, threshold, difficult=difficult, tell=tell)


def calibration_images(labels: Path, splits: Path, params: QuantizeParams) -> pd.DataFrame:
    """Choose images of the train split, never of val or test; the same seed chooses the same ones."""
    train = images_of_split(read_dataset(labels).images, splits, "train")
    order = np.random.default_rng(params.seed).permutation(len(train))
    return train.iloc[np.sort(order[: params.calibration_images])]


def calibration_tensors(artifact: Artifact, paths: Iterator[Path]) -> Iterator[npt.NDArray[np.float32]]:
    """Yield the input tensors exactly as the runtime makes them on the device."""
    for path in paths:
        yield preprocess(read_image(path), artifact.input.size_wh, artifact.preprocessing)[0]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage."""
    names = ("hub", "dataset", "labels", "splits", "out")
    args = path_arguments(__doc__, names, argv, words=("target",))

    def work() -> None:
        params = load_section(args.params, f"targets.{args.target}", TargetParams)
        quantize = load_section(args.params, "quantize", QuantizeParams)
        threshold = load_section(args.params, "threshold", ThresholdParams)
        difficult = load_section(args.params, "evaluate", DifficultParams).difficult
        paths = {name: getattr(args, name) for name in names}
        run(params, quantize, threshold, difficult=difficult, target=args.target, **paths)

    return exit_code(work)


SECTIONS: dict[str, type[BaseModel]] = {
    "targets.*": TargetParams,
    "quantize": QuantizeParams,
    "threshold": ThresholdParams,
    "evaluate": DifficultParams,
}

if __name__ == "__main__":
    sys.exit(main())
