"""What a version consists of: the files here, and the manifest that says what they are and where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipelines.publish_gates import DATASET, SPLITS, VALIDATED, Candidate
from plumbline.files import sha256_of
from plumbline.manifest import read_dataset
from plumbline.params import load_section
from plumbline.published import LABELS, Labels, Manifest, PublishedFile, Target
from plumbline.published_labels import label_table, num_label_files, write_label_table
from plumbline.runtime.artifact import ARTIFACT_JSON, read_artifact
from plumbline.sources import open_source
from plumbline.sources.video import video_address
from stages.ingest import GENERATOR_FILE, DatasetParams
from stages.shape import PARAMS_FILE

# Of the row, artifact.json has them too.
_NOT_METRICS = ("name", "backend", "toolchain")


@dataclass(frozen=True)
class Content:
    """A version, ready to be written.

    Attributes:
        manifest: What it is.
        files: `PublishedFile.key` -> the file here.
    """

    manifest: Manifest
    files: Mapping[str, Path]


def make_content(candidate: Candidate, model: str, version: str, work: Path) -> Content:
    """Gather a version's files and their hashes.

    Args:
        candidate: It has passed the gates.
        model: Its name.
        version: ``v1.2.3``.
        work: A folder for labels.csv.

    Raises:
        PlumblineError: The labels, or an artifact, cannot be read.
    """
    here: dict[str, Path] = {}
    targets = {target: _target(candidate, target, here) for target in candidate.targets}
    labels = _labels(candidate.root, work, here)
    choices = candidate.report["recommended"]
    recommended = {
        need: choice["artifact"] for need, choice in choices.items() if choice["artifact"] in candidate.targets
    }
    manifest = Manifest(
        model=model,
        version=version,
        git_commit=candidate.commit,
        task=candidate.report["task"],
        recommended=recommended,
        targets=targets,
        labels=labels,
        dvc_lock_sha256=sha256_of(candidate.root / "dvc.lock"),
    )
    return Content(manifest, here)


def _target(candidate: Candidate, name: str, here: dict[str, Path]) -> Target:
    folder = candidate.folder(name)
    artifact = read_artifact(folder)
    files = tuple(_file(folder / path, path, here) for path in (*sorted(artifact.files), ARTIFACT_JSON))
    metrics = {key: value for key, value in candidate.row(name).items() if key not in _NOT_METRICS}
    return Target(artifact.backend, artifact.precision, files, metrics, artifact.lineage)


def _file(path: Path, name: str, here: dict[str, Path]) -> PublishedFile:
    file = PublishedFile(name, path.stat().st_size, sha256_of(path))
    here[file.key] = path
    return file


def _labels(root: Path, work: Path, here: dict[str, Path]) -> Labels:
    params = load_section(root / PARAMS_FILE, "dataset", DatasetParams)
    validated = read_dataset(root / VALIDATED)
    splits = pd.read_parquet(root / SPLITS, columns=["image_id", "split"])
    is_relative = "://" not in params.source and not Path(params.source).is_absolute()
    # Stages run in the root, and call files by paths from there.
    prefix = f"{root.as_posix()}/" if is_relative else ""
    is_drawn = (root / params.source / GENERATOR_FILE).is_file() and params.format in ("auto", "digits")
    address = video_address(f"{prefix}{params.source}", params.video.every_s, params.video.max_hash_bits)
    table = label_table(
        read_dataset(root / DATASET),
        validated.images,
        splits,
        None if is_drawn else open_source(address),
        lambda file: file.removeprefix(prefix),
    )
    path, edits = work / LABELS, root / VALIDATED / "edits.csv"
    write_label_table(table, path)
    return Labels(
        file=_file(path, LABELS, here),
        source=params.source,
        num_images=len(validated.images),
        num_label_files=num_label_files(table),
        num_edits=len(pd.read_csv(edits)),
        edits_sha256=sha256_of(edits),
    )
