"""A published version of a model: what its manifest says, and where its files stand in a bucket.

In the bucket::

    s3://bucket/prefix/<model>/<version>/
      <sha256>/<name>      each file in a folder named by its own content, so that no two publishers, and no second try
                           with other content, can write over each other's
      manifest.json        written last, and once: without it there is no such version

On a device::

    folder/
      model.onnx, artifact.json...   one target's artifact, as `plumbline.runtime.session.load_artifact` opens it
      manifest.json                  as in the bucket
      labels.csv                     every image and label file that it was made from, with its hash

A device reads this module: it imports nothing but Python's own library.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any

from plumbline.errors import PlumblineError

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
LABELS = "labels.csv"
LATEST = "latest"

MODEL_NAME = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
# Source: semver.org, 2.0.0, with the v that DVC's registry (GTO) wants; without build metadata, which orders nothing.
_VERSION = re.compile(
    r"v(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
)
_SHA256 = re.compile(r"[0-9a-f]{64}")


class PublishError(PlumblineError):
    """A version cannot be published, found, fetched or traced."""


@dataclass(frozen=True)
class PublishedFile:
    """One file of a version.

    Attributes:
        path: In the folder on a device, with forward slashes.
        size: Bytes.
        sha256: Hex, of its bytes.
    """

    path: str
    size: int
    sha256: str

    @property
    def key(self) -> str:
        """Its place below the version.

        >>> PublishedFile("simulator/model.rknn", 3, "ab").key
        'ab/model.rknn'
        """
        return f"{self.sha256}/{PurePosixPath(self.path).name}"


@dataclass(frozen=True)
class Target:
    """One artifact of a version.

    Attributes:
        backend: A row of `plumbline.backends.BACKENDS`.
        precision: ``fp32``, ``fp16`` or ``int8``.
        files: All that its folder holds, `artifact.json` among them.
        metrics: Its row of report.json.
        lineage: As its `artifact.json` has it.
    """

    backend: str
    precision: str
    files: tuple[PublishedFile, ...]
    metrics: Mapping[str, Any]
    lineage: Mapping[str, Any]


@dataclass(frozen=True)
class Labels:
    """What the version was made from, image by image.

    Attributes:
        file: The table: see `plumbline.published_labels`.
        source: dataset.source in params.yaml.
        num_images: Rows' images.
        num_label_files: Files with a hash of their own; 0 for a source without label files.
        num_edits: Repairs and omissions of the validate stage between these files and what was trained on.
        edits_sha256: Of its edits.csv.
    """

    file: PublishedFile
    source: str
    num_images: int
    num_label_files: int
    num_edits: int
    edits_sha256: str


@dataclass(frozen=True)
class Manifest:
    """The content of `manifest.json`. It holds no time, so that the same version is the same bytes.

    Attributes:
        model: Its name in the bucket and in DVC's registry.
        version: ``v1.2.3``.
        git_commit: What was checked out, clean, when it was published.
        task: ``detect`` or ``classify``.
        recommended: Need in words -> name of the target.
        targets: Name -> what it is.
        labels: See `Labels`.
        dvc_lock_sha256: Of that commit's dvc.lock, which has the hash of every input and output of the line.
    """

    model: str
    version: str
    git_commit: str
    task: str
    recommended: Mapping[str, str]
    targets: Mapping[str, Target]
    labels: Labels
    dvc_lock_sha256: str
    format_version: int = field(default=FORMAT_VERSION)

    def files(self) -> Iterator[PublishedFile]:
        """Give every file of the version once, the smallest first; what two targets share is one."""
        every = [file for target in self.targets.values() for file in target.files] + [self.labels.file]
        yield from sorted({file.key: file for file in every}.values(), key=lambda file: (file.size, file.key))


def to_bytes(manifest: Manifest) -> bytes:
    """Return the content of `manifest.json`."""
    return (json.dumps(asdict(manifest), indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def read_manifest(data: bytes, where: str) -> Manifest:
    """Read what `to_bytes` made, and check all that a device goes by.

    Args:
        data: The file's bytes.
        where: What it is called in an error.

    Raises:
        PublishError: It is no such manifest, is of another format, or a path in it leads out of its folder.
    """
    try:
        values = json.loads(data)
    except ValueError as error:
        raise PublishError(f"{where}: not JSON ({error}), expected a manifest; fetch it again") from error
    found = values.get("format_version") if isinstance(values, dict) else type(values).__name__
    if found != FORMAT_VERSION:
        raise PublishError(
            f"{where}: expected format_version {FORMAT_VERSION}, got {found}; use the plumbline that published it"
        )
    try:
        manifest = _from_json(values)
    except (KeyError, TypeError, AttributeError) as error:
        raise PublishError(f"{where}: a key is missing or unknown ({error}); fetch it again") from error
    for target in manifest.targets.values():
        for file in (*target.files, manifest.labels.file):
            _check_file(file, where)
    return manifest


def is_manifest(data: bytes) -> bool:
    """Tell whether this is what `to_bytes` makes, of any format; other programs have a `manifest.json`, too.

    >>> is_manifest(b'{"name": "My page", "icons": []}'), is_manifest(b"")
    (False, False)
    """
    try:
        values = json.loads(data)
    except ValueError:
        return False
    return isinstance(values, dict) and {"format_version", "model", "version"} <= set(values)


def _from_json(values: dict[str, Any]) -> Manifest:
    targets = {
        str(name): Target(**{**target, "files": tuple(PublishedFile(**file) for file in target["files"])})
        for name, target in values["targets"].items()
    }
    labels = Labels(**{**values["labels"], "file": PublishedFile(**values["labels"]["file"])})
    return Manifest(**{**values, "targets": targets, "labels": labels})


def _check_file(file: PublishedFile, where: str) -> None:
    path = PurePosixPath(str(file.path))
    is_inside = bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\\" not in str(file.path)
    if not is_inside or not _SHA256.fullmatch(str(file.sha256)) or not isinstance(file.size, int):
        raise PublishError(
            f"{where}: the file {file.path!r} cannot be taken, expected a path in its folder, a size and a sha256; it"
            " was not made by plumbline: look who wrote it"
        )


def version_key(version: str) -> tuple[Any, ...]:
    """Return what versions are ordered by: semver's precedence, but any release is above every pre-release.

    So a device that asks for the latest gets a pre-release only where there is nothing else.

    Raises:
        PublishError: It is none.

    >>> sorted(["v1.10.0", "v2.0.0-rc.1", "v1.9.0", "v2.0.0-rc.1.1", "v2.0.0-2", "v2.0.0-alpha"], key=version_key)
    ['v2.0.0-2', 'v2.0.0-alpha', 'v2.0.0-rc.1', 'v2.0.0-rc.1.1', 'v1.9.0', 'v1.10.0']
    """
    found = _VERSION.fullmatch(version)
    if not found:
        raise PublishError(f"version {version!r}: expected one such as v1.2.3 or v1.2.3-rc.1; write it so")
    numbers, before = tuple(int(part) for part in found.groups()[:3]), found[4]
    parts = before.split(".") if before else []
    return not before, numbers, tuple((0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts)


def is_version(text: str) -> bool:
    """Tell whether a text is a version.

    >>> is_version("v1.2.3"), is_version("1.2.3"), is_version("v1.2")
    (True, False, False)
    """
    return bool(_VERSION.fullmatch(text))


def split_reference(text: str) -> tuple[str, str]:
    """Return model and version of ``MODEL@VERSION``; the version may be ``latest``.

    Raises:
        PublishError: It is not of that form.

    >>> split_reference("digits@v1.0.0")
    ('digits', 'v1.0.0')
    """
    model, at, version = text.partition("@")
    if not at or not re.fullmatch(MODEL_NAME, model) or not (version == LATEST or is_version(version)):
        raise PublishError(f"{text!r}: expected MODEL@VERSION, such as digits@v1.2.3 or digits@latest; write it so")
    return model, version


def target_of(manifest: Manifest, name: str | None, where: str) -> str:
    """Return which target to take: the one named, or the only one.

    Raises:
        PublishError: There is none of that name; or none was named, and there are several.
    """
    listed = ", ".join(f"{target}{_needs(manifest, target)}" for target in manifest.targets)
    if name is None and len(manifest.targets) == 1:
        return next(iter(manifest.targets))
    if name is None:
        raise PublishError(f"{where}: several targets, expected --target with one of: {listed}; choose one")
    if name not in manifest.targets:
        raise PublishError(f"{where}: no target {name!r}, expected one of: {listed}; choose one of them")
    return name


def _needs(manifest: Manifest, target: str) -> str:
    needs: Sequence[str] = [need for need, name in manifest.recommended.items() if name == target]
    return f" ({', '.join(needs)})" if needs else ""
