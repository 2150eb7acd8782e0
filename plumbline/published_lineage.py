"""From a device's file back to the label files that it comes from; Python's own library is enough for it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plumbline.files import sha256_of
from plumbline.published import LABELS, MANIFEST, Manifest, PublishedFile, PublishError, is_manifest, read_manifest
from plumbline.published_store import Store

_ARTIFACT = "artifact.json"
_PARENTS = 3  # folders above a file in which its manifest is looked for


@dataclass(frozen=True)
class Lineage:
    """Where a file, or an artifact's folder, comes from.

    Attributes:
        files: What was checked, each with the hash that the manifest says.
        target: Of the artifact.
        manifest: Of its version.
        manifest_sha256: Of the manifest's bytes.
        labels: Rows of labels.csv, see `plumbline.published_labels`; None where it is not here.
        labels_from: Where they were read.
    """

    files: tuple[PublishedFile, ...]
    target: str
    manifest: Manifest
    manifest_sha256: str
    labels: tuple[Mapping[str, str], ...] | None
    labels_from: str

    def label_files(self) -> list[tuple[str, str]]:
        """Return each label file, or image's rows where there are none, with its sha256, sorted by name."""
        rows = [row for row in self.labels or () if row["label_file"]]
        found = {(row["label_file"], row["label_sha256"], row["image"]) for row in rows}
        tables = {(file, sha256) for file, sha256, _ in found}
        is_unique = len({file for file, _ in tables}) == len(tables)
        # Drawn digits: one name for all images, and a hash for each.
        return sorted(tables) if is_unique else sorted((f"{file} ({image})", sha256) for file, sha256, image in found)


def trace(path: Path, store: Store | None) -> Lineage:
    """Find the version that a file or folder is of, check that it is as published, and read its labels.

    Args:
        path: A file of a published artifact, or a folder with one.
        store: Where versions are published: needed where manifest.json or labels.csv are not beside the file, and used
            to see that they are as published.

    Raises:
        PublishError: There is no manifest, or something here is other than what was published.
    """
    if not path.exists():
        raise PublishError(f"{path}: no such file, expected a model's file or a fetched folder; correct the path")
    folder = _folder_of(path)
    if folder is not None:
        data, where = (folder / MANIFEST).read_bytes(), str(folder / MANIFEST)
    elif store is not None:
        data, where = _find(path, store)
        folder = path if path.is_dir() else path.parent
    else:
        raise PublishError(
            f"{path}: no {MANIFEST} of a published model beside it, expected a folder that `plumbline fetch` made;"
            " name one, or say with --from where its version is published"
        )
    manifest = read_manifest(data, where)
    if store is not None:
        _check_manifest(manifest, data, where, store)
    target, files = _check_files(path, folder, manifest, where)
    labels, labels_from = _labels(folder, manifest, store)
    return Lineage(files, target, manifest, hashlib.sha256(data).hexdigest(), labels, labels_from)


def _folder_of(path: Path) -> Path | None:
    """Return the folder with the manifest: the path itself, or one of those above a file; others' are looked past."""
    above = [path] if path.is_dir() else list(path.absolute().parents)[:_PARENTS]
    found = (folder for folder in above if (folder / MANIFEST).is_file())
    return next((folder for folder in found if is_manifest((folder / MANIFEST).read_bytes())), None)


def _find(path: Path, store: Store) -> tuple[bytes, str]:
    """Return the manifest, of all in the store, that has a file's hash; the highest version's where several have."""
    file = path / _ARTIFACT if path.is_dir() else path
    if not file.is_file():
        raise PublishError(f"{path}: no {_ARTIFACT} in it, expected an artifact's folder or file; name one")
    sha256 = sha256_of(file)
    for model in store.models():
        for version in store.versions(model):
            key = f"{model}/{version}/{MANIFEST}"
            data = store.read(key)
            if data is not None and any(f.sha256 == sha256 for f in read_manifest(data, store.where(key)).files()):
                return data, store.where(key)
    raise PublishError(
        f"{file}: sha256 {sha256} is in no version at {store.address}: it was changed, or published elsewhere"
    )


def _check_manifest(manifest: Manifest, data: bytes, where: str, store: Store) -> None:
    key = f"{manifest.model}/{manifest.version}/{MANIFEST}"
    there = store.read(key)
    if there != data:
        what = "which is not there" if there is None else "which is another"
        raise PublishError(f"{where}: expected what is published as {store.where(key)}, {what}; fetch it again")


def _check_files(path: Path, folder: Path, manifest: Manifest, where: str) -> tuple[str, tuple[PublishedFile, ...]]:
    """Return the target and the files that were asked for, all of them as they were published."""
    if not path.is_dir():
        sha256 = sha256_of(path)
        for name, target in manifest.targets.items():
            for file in target.files:
                if file.sha256 == sha256:
                    return name, (file,)
        raise _changed(path, sha256, f"one of {manifest.model}@{manifest.version} ({where})")
    target_name = _target_in(folder, manifest, where)
    for file in manifest.targets[target_name].files:
        here = folder / file.path
        if not here.is_file():
            raise PublishError(f"{here}: missing, expected a file of {target_name} ({where}); fetch it again")
        sha256 = sha256_of(here)
        if sha256 != file.sha256:
            raise _changed(here, sha256, file.sha256)
    return target_name, manifest.targets[target_name].files


def _target_in(folder: Path, manifest: Manifest, where: str) -> str:
    """Return which target a folder holds: by its artifact.json, or else by any file that is as published."""
    here = {sha256_of(path) for path in folder.rglob("*") if path.is_file() and path.name not in (MANIFEST, LABELS)}
    by_size = sorted(manifest.targets, key=lambda name: -sum(f.sha256 in here for f in manifest.targets[name].files))
    best = by_size[0] if by_size else ""
    if not any(file.sha256 in here for file in manifest.targets[best].files):
        raise PublishError(f"{folder}: no file of {manifest.model}@{manifest.version} ({where}); fetch it again")
    return best


def _changed(path: Path, got: str, expected: str) -> PublishError:
    return PublishError(f"{path}: not as it was published, expected sha256 {expected}, got {got}; fetch it again")


def _labels(folder: Path, manifest: Manifest, store: Store | None) -> tuple[tuple[Mapping[str, str], ...] | None, str]:
    path, file = folder / LABELS, manifest.labels.file
    if path.is_file():
        if sha256_of(path) != file.sha256:
            raise _changed(path, sha256_of(path), file.sha256)
        return tuple(_rows(path.read_text(encoding="utf-8"))), str(path)
    if store is None:
        return None, ""
    key = f"{manifest.model}/{manifest.version}/{file.key}"
    data = store.read(key)
    if data is None or hashlib.sha256(data).hexdigest() != file.sha256:
        what = "missing" if data is None else "damaged"
        raise PublishError(f"{store.where(key)}: {what}, expected sha256 {file.sha256}; restore the object")
    return tuple(_rows(data.decode("utf-8"))), store.where(key)


def _rows(text: str) -> Iterator[Mapping[str, str]]:
    return iter(csv.DictReader(io.StringIO(text, newline="")))


def as_json(lineage: Lineage) -> dict[str, Any]:
    """Return all of it as plain values."""
    manifest, target = lineage.manifest, lineage.manifest.targets[lineage.target]
    return {
        "files": {file.path: file.sha256 for file in lineage.files},
        "artifact": {"name": lineage.target, "backend": target.backend, "precision": target.precision},
        "published": {
            "model": manifest.model,
            "version": manifest.version,
            "git_commit": manifest.git_commit,
            "manifest_sha256": lineage.manifest_sha256,
            "dvc_lock_sha256": manifest.dvc_lock_sha256,
        },
        "lineage": dict(target.lineage),
        "metrics": dict(target.metrics),
        "labels": {
            "sha256": manifest.labels.file.sha256,
            "source": manifest.labels.source,
            "num_images": manifest.labels.num_images,
            "num_label_files": manifest.labels.num_label_files,
            "num_edits": manifest.labels.num_edits,
            "edits_sha256": manifest.labels.edits_sha256,
            "rows": None if lineage.labels is None else [dict(row) for row in lineage.labels],
        },
    }


def as_text(lineage: Lineage, shown: int | None = 10) -> str:
    """Return the chain, from the file down to the label files, for a terminal.

    Args:
        lineage: What to show.
        shown: Of the label files; None for all.
    """
    lines = [f"{file.path}  sha256 {file.sha256}" for file in lineage.files]
    for depth, (first, *rest) in enumerate([*_levels(lineage), _label_lines(lineage, shown)]):
        indent = "   " * depth
        lines += [f"{indent}└─ {first}", *(f"{indent}   {line}" for line in rest)]
    return "\n".join(lines) + "\n"


def _levels(lineage: Lineage) -> list[list[str]]:
    manifest, target, labels = lineage.manifest, lineage.manifest.targets[lineage.target], lineage.manifest.labels
    of: Mapping[str, Any] = target.lineage
    artifact = [
        f"artifact {lineage.target} ({target.backend}, {target.precision}) of {manifest.model}@{manifest.version}",
        f"published at commit {manifest.git_commit}",
        f"exported at commit {of.get('git_commit', '')}",
    ]
    if of.get("calibration_sha256"):
        artifact.append(f"calibrated on {of.get('num_calibration_images')} images, sha256 {of['calibration_sha256']}")
    weights = [f"weights sha256 {of.get('weights_sha256', '')}"]
    weights.append(f"trained at commit {of.get('train_git_commit', '')}{_training(of.get('train'))}")
    if of.get("pretrained_sha256"):
        weights.append(f"begun from weights of sha256 {of['pretrained_sha256']}")
    dataset = [
        f"dataset sha256 {of.get('dataset_sha256', '')}",
        f"{labels.num_images} images{_split_counts(lineage.labels or ())} from {labels.source}",
        f"splits sha256 {of.get('splits_sha256', '')}",
    ]
    if labels.num_edits:
        dataset.append(f"{labels.num_edits} repairs and omissions, edits.csv sha256 {labels.edits_sha256}")
    return [artifact, [f"hub sha256 {of.get('hub_sha256', '')}"], weights, dataset]


def _training(params: object) -> str:
    if not isinstance(params, dict):
        return ""
    known = [f"{params[key]} {unit}".strip() for key, unit in (("model", ""), ("epochs", "epochs")) if key in params]
    return f" ({', '.join(known)})" if known else ""


def _split_counts(rows: Sequence[Mapping[str, str]]) -> str:
    images = {row["image"]: row["split"] for row in rows if row["image"]}
    counts = {split: list(images.values()).count(split) for split in sorted(set(images.values()))}
    return f" ({', '.join(f'{split} {count}' for split, count in counts.items())})" if counts else ""


def _label_lines(lineage: Lineage, shown: int | None) -> list[str]:
    file = lineage.manifest.labels.file
    head = f"{LABELS} sha256 {file.sha256}"
    if lineage.labels is None:
        return [head, "the label files are listed there: fetch it, or say with --from where the version is published"]
    files = lineage.label_files()
    kinds = {row["label_from"] for row in lineage.labels}
    what = "images' labels, drawn, without files" if "table" in kinds else "label files"
    lines = [f"{sha256}  {name}" for name, sha256 in files[:shown]]
    rest = len(files) - len(lines)
    more = [f"... and {rest} more (all in {lineage.labels_from}, or with --all)"] if rest > 0 else []
    return [f"{head}: {len(files)} {what}", *lines, *more]


def as_document(lineage: Lineage) -> str:
    """Return `as_json` as a file's text."""
    return json.dumps(as_json(lineage), indent=2, sort_keys=True) + "\n"
