"""An artifact: a folder with an engine's own files and the `artifact.json` that says how to run and trust them."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plumbline.errors import BackendError
from plumbline.files import sha256_of

FORMAT_VERSION = 1
ARTIFACT_JSON = "artifact.json"


@dataclass(frozen=True)
class InputSpec:
    """The network's one input.

    Attributes:
        name: Of the tensor, in the engine's file.
        size_wh: Width and height in pixels.
        layout: ``NCHW``.
        channels: ``RGB``.
        dtype: Of the tensor that the engine is given.
    """

    name: str
    size_wh: tuple[int, int]
    layout: str = "NCHW"
    channels: str = "RGB"
    dtype: str = "float32"


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the input tensor: resize, then ``(pixel * scale - mean) / std``.

    Attributes:
        resize: ``letterbox`` (keep the aspect ratio, centre, pad), ``crop`` (keep it, fill, cut off what hangs over on
            both sides) or ``stretch``.
        interpolation: ``linear``.
        pad_value: Grey level of the padding, 0..255.
        scale: Factor from 0..255 to the network's range.
        mean: Of red, green and blue, after scaling.
        std: Of red, green and blue, after scaling.
    """

    resize: str = "letterbox"
    interpolation: str = "linear"
    pad_value: int = 114
    scale: float = 1 / 255
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class OutputSpec:
    """The raw outputs of a split head: per stride one box and one class tensor.

    Attributes:
        names: (box_8, cls_8, box_16, cls_16, ...), the order in which an engine session returns them.
        strides: Pixels of the input per cell, one for each pair of outputs.
        reg_max: Bins of the distribution over each box side; 1 means that the side is predicted itself.
        nms_free: True for a head trained one-to-one (YOLO26): top-k instead of non-maximum suppression.
    """

    names: tuple[str, ...]
    strides: tuple[int, ...]
    reg_max: int
    nms_free: bool


@dataclass(frozen=True)
class ClassifierOutputs:
    """The raw output of a classifier.

    Attributes:
        names: Of the one tensor, shape (1, C): the logits.
    """

    names: tuple[str, ...] = ("logits",)


@dataclass(frozen=True)
class DecodeSpec:
    """How raw outputs become detections.

    Attributes:
        confidence_threshold: Detections below are not shown to a person (evaluation uses a lower floor); chosen on val.
        iou_threshold: Of non-maximum suppression, within a class.
        max_detections: Per image.
    """

    confidence_threshold: float
    iou_threshold: float
    max_detections: int


@dataclass(frozen=True)
class ClassifierDecode:
    """How logits become classes: softmax.

    Attributes:
        confidence_threshold: An image whose most probable class stays below is not accepted; chosen on val.
    """

    confidence_threshold: float


@dataclass(frozen=True)
class Artifact:
    """The content of `artifact.json`.

    Attributes:
        name: Of the target in params.yaml, or ``weights``.
        task: ``detect`` or ``classify``; it says which of the classes `outputs` and `decode` are.
        backend: A row of `plumbline.backends.BACKENDS`.
        precision: What was really built: ``fp32``, ``fp16`` or ``int8``.
        class_names: Index is class_id.
        input: See `InputSpec`.
        preprocessing: See `Preprocessing`.
        outputs: See `OutputSpec` and `ClassifierOutputs`.
        decode: See `DecodeSpec` and `ClassifierDecode`.
        files: Name in the folder -> hex sha256.
        toolchain: Package -> version, of what made it.
        lineage: git commit, hashes of data, weights and calibration images, params: see DESIGN.
        notes: What the backend wants to tell (operators left in float...).
        reproducible: False where the same input need not give the same bytes (a TensorRT engine).
    """

    name: str
    task: str
    backend: str
    precision: str
    class_names: tuple[str, ...]
    input: InputSpec
    preprocessing: Preprocessing
    outputs: OutputSpec | ClassifierOutputs
    decode: DecodeSpec | ClassifierDecode
    files: dict[str, str]
    toolchain: dict[str, str]
    lineage: dict[str, Any]
    notes: dict[str, Any]
    reproducible: bool = True
    format_version: int = FORMAT_VERSION


def write_artifact(artifact: Artifact, folder: Path) -> Artifact:
    """Write `artifact.json` into a folder that holds the engine's files, with their hashes; return what was written."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    files = {name: sha256_of(folder / name) for name in names if name != ARTIFACT_JSON}
    artifact = dataclasses.replace(artifact, files=files)
    text = json.dumps(dataclasses.asdict(artifact), indent=2, sort_keys=True, allow_nan=False)
    (folder / ARTIFACT_JSON).write_text(text + "\n", encoding="utf-8")
    return artifact


def read_artifact(folder: Path, *, verify: bool = True) -> Artifact:
    """Read `artifact.json`.

    Args:
        folder: The artifact.
        verify: Also check the sha256 of every file.

    Raises:
        BackendError: It is missing, of another format, or a file is missing or has other bytes than were exported.
    """
    path = folder / ARTIFACT_JSON
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BackendError(f"{path}: no such file, expected an exported artifact; run the export stage") from error
    except ValueError as error:
        raise BackendError(f"{path}: not JSON ({error}); export it again") from error
    if not isinstance(values, dict) or values.get("format_version") != FORMAT_VERSION:
        got = values.get("format_version") if isinstance(values, dict) else type(values).__name__
        raise BackendError(
            f"{path}: expected format_version {FORMAT_VERSION}, got {got}; export it again with this version"
        )
    try:
        artifact = _from_json(values)
    except (AttributeError, KeyError, TypeError) as error:
        raise BackendError(f"{path}: a key is missing or unknown ({error}); export it again") from error
    if verify:
        _verify_files(artifact, folder)
    return artifact


def size_bytes(artifact: Artifact, folder: Path) -> int:
    """Return the bytes of the files that a device needs; `artifact.json` is not counted."""
    return sum((folder / name).stat().st_size for name in artifact.files)


def _from_json(values: dict[str, Any]) -> Artifact:
    values = dict(values)
    values["class_names"] = tuple(values["class_names"])
    values["input"] = InputSpec(**{**values["input"], "size_wh": tuple(values["input"]["size_wh"])})
    values["preprocessing"] = Preprocessing(**_with_tuples(values["preprocessing"]))
    outputs, decode = _SPECS[values["task"]]
    values["outputs"] = outputs(**_with_tuples(values["outputs"]))
    values["decode"] = decode(**values["decode"])
    return Artifact(**values)


# Task -> what `outputs` and `decode` are.
_SPECS = {"detect": (OutputSpec, DecodeSpec), "classify": (ClassifierOutputs, ClassifierDecode)}


def _with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


def _verify_files(artifact: Artifact, folder: Path) -> None:
    for name, expected in artifact.files.items():
        path = folder / name
        if not path.is_file():
            raise BackendError(f"{path}: missing, expected a file of artifact {artifact.name!r}; export it again")
        got = sha256_of(path)
        if got != expected:
            raise BackendError(
                f"{path}: damaged, expected sha256 {expected[:12]}..., got {got[:12]}...; export it again"
            )
