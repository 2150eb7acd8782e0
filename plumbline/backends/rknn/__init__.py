"""RKNN: the NPU of Rockchip's chips.

The toolkit lives in an environment of its own (`make rknn`) and runs in processes of its own. Its file takes the input
tensor as the runtime makes it, float32 with mean 0 and standard deviation 1 to the toolkit: what a network subtracts
and divides by stands in the artifact's preprocessing, so that one rule is right for every network. For pixels in 0..1
calibration found the range 0..1, which int8 divides into the pixels' own steps of 1/255.

Off the board, the toolkit's simulator stands in for the chip. It cannot load the chip's file: it needs what that was
built from, which lies in the artifact's folder ``simulator/`` and is of no use to a device.

The compiler writes addresses of its memory into its file, some 30 bytes: no two builds give the same bytes, though
they compute the same.

Int8 is made by the toolkit's "hybrid quantization": its first step calibrates, once for each method; its second builds
from what the first wrote, with the tensors that shall stay in float16. With none of them it gives the same numbers as
the toolkit's one-step `build`.

Left out: the method ``mmse``, which takes 4 s of a core for each calibration image (YOLO11n at 160 px), for a noise
that was larger in five outputs of six.
"""

from __future__ import annotations

import json
import platform
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from plumbline.errors import BackendError
from plumbline.quantization.recipes import Quantizer, Recipe, Written

if TYPE_CHECKING:
    from plumbline.backends.rknn.process import Operator
    from plumbline.runtime.artifact import Artifact
    from plumbline.runtime.session import Engine

ON_BOARD = platform.machine() == "aarch64"

PRECISIONS = ("fp16", "int8")
# Versions of what is not in the main environment are in the notes.
PACKAGES: tuple[str, ...] = ()
# Those that compute in float16, too, and those that know int8 alone.
FLOAT_CHIPS = ("rk2118", "rk3562", "rk3566", "rk3568", "rk3576", "rk3588", "rv1126b")
INT8_CHIPS = ("rv1103", "rv1103b", "rv1106", "rv1106b")
CHIPS = (*FLOAT_CHIPS, *INT8_CHIPS)
# Of chips that compute in int8 alone: whose float file is compared with the trained weights in their place.
FLOAT_CHIP = dict.fromkeys(INT8_CHIPS, "rk3588")
STANDS_IN = "" if ON_BOARD else "x86 simulator"
TOLERANCE = {"fp16": 0.01}
ARITHMETIC = ("asymmetric", 127)

MODEL = "model.rknn"
# `plumbline.runtime.device_files` leaves this folder out of what a device needs. Not imported from there: no stage of
# DVC that makes or scores an artifact depends on how its bytes are counted.
SIMULATOR = "simulator"
JOB = "job.json"
NEWEST_OPSET = 19
# Name of a method -> the toolkit's words for it.
METHODS = {
    "per_channel-normal": {"granularity": "channel", "algorithm": "normal"},
    "per_channel-kl_divergence": {"granularity": "channel", "algorithm": "kl_divergence"},
    "per_tensor-normal": {"granularity": "layer", "algorithm": "normal"},
}


def export(hub: Path, out: Path, precision: str, chip: str) -> dict[str, Any]:
    """Convert the hub's file to float16.

    Raises:
        BackendError: The chip or the toolkit cannot, or the toolkit is not here.
    """
    from plumbline.backends.rknn import worker
    from plumbline.backends.rknn.process import operators_of, run_worker

    assert precision == "fp16", precision
    if chip in INT8_CHIPS:
        raise BackendError(
            f"{hub}: {chip} computes in int8 alone, expected precision int8 or a chip of: {', '.join(FLOAT_CHIPS)};"
            " change the target in params.yaml"
        )
    _refuse_new_opset(hub)
    job = {"chip": chip, "precision": precision}
    with tempfile.TemporaryDirectory(prefix="rknn-") as work:
        source = Path(work) / SIMULATOR
        source.mkdir()
        shutil.copyfile(hub, source / worker.ONNX)
        _write_job(source, job)
        log = _convert(source, out, str(hub), job, run_worker)
    return _notes(operators_of(log, str(hub)))


def missing() -> str:
    """Say what is not installed here; an empty text where nothing is missing."""
    from plumbline.backends.rknn import process
    from plumbline.backends.rknn import toolchain as toolchains

    try:
        toolchains.python_of(process.TOOLCHAIN)
    except BackendError as error:
        return str(error)
    return ""


def quantizer(hub: Path, tensors: Sequence[npt.NDArray[np.float32]], work: Path, chip: str) -> Quantizer:
    """Calibrate for a chip, once for each method and not before it is asked for.

    Raises:
        BackendError: The toolkit cannot, or is not here.
    """
    from plumbline.backends.rknn import blocks, process
    from plumbline.backends.rknn import toolchain as toolchains

    toolchains.python_of(process.TOOLCHAIN)
    _refuse_new_opset(hub)
    network = blocks.read_network(hub)
    images = _write_tensors(tensors, work / "tensors")

    def write(folder: Path, recipe: Recipe) -> Written:
        job = {"chip": chip, "precision": "int8", **METHODS[recipe.method]}
        calibrated = _calibrated(hub, images, work / recipe.method, job, process.run_worker)
        with tempfile.TemporaryDirectory(prefix="rknn-") as temporary:
            source = Path(temporary) / SIMULATOR
            shutil.copytree(calibrated, source)
            _leave_in_float(source, recipe.float_blocks, network.block_of)
            _write_job(source, job)
            log = _convert(source, folder, str(hub), job, process.run_worker)
        operators = process.operators_of(log, str(hub))
        floats = process.in_float(network.products, operators)
        num_int8 = len(network.products) - len(floats)
        return Written(len(network.products), num_int8, tuple(floats), _notes(operators))

    # A chip without float16 cannot leave a block in it.
    return Quantizer(tuple(METHODS), ("all",), network.blocks if chip in FLOAT_CHIPS else (), write)


def open_session(folder: Path, artifact: Artifact, threads: int) -> Engine:
    """Open the chip's file on a board; the simulator anywhere else.

    Raises:
        BackendError: The toolkit, or the chip's driver, fails or is not here.
    """
    if ON_BOARD:
        return _open_on_board(folder)
    from plumbline.backends.rknn.process import Simulator

    try:
        job = json.loads((folder / SIMULATOR / JOB).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BackendError(
            f"{folder / SIMULATOR}: cannot be read ({error}), expected what the simulator rebuilds the network from;"
            " export it again"
        ) from error
    return Simulator(folder / SIMULATOR, len(artifact.outputs.names), threads, job)


def _open_on_board(folder: Path) -> Engine:
    """Load the file into the NPU. Untested: no machine of this project had one.

    Source: https://github.com/airockchip/rknn-toolkit2/tree/master/rknn-toolkit-lite2
    """
    from rknnlite.api import RKNNLite

    rknn = RKNNLite()
    if rknn.load_rknn(str(folder / MODEL)) or rknn.init_runtime():
        raise BackendError(
            f"{folder / MODEL}: this board cannot load it, expected the chip that it was built for and a driver of the"
            " toolkit's version; see the lines above"
        )

    def engine(tensor: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
        # The runtime's own layout of images is NHWC; outputs keep the network's.
        outputs = rknn.inference(inputs=[np.ascontiguousarray(tensor.transpose(0, 2, 3, 1))])
        if outputs is None:
            raise BackendError(f"{folder / MODEL}: the NPU failed; see the lines above")
        return outputs

    return engine


def _refuse_new_opset(hub: Path) -> None:
    import onnx

    imports = onnx.load(str(hub), load_external_data=False).opset_import
    opset = max(entry.version for entry in imports if entry.domain in {"", "ai.onnx"})
    if opset > NEWEST_OPSET:
        raise BackendError(
            f"{hub}: RKNN reads ONNX up to opset {NEWEST_OPSET}, got {opset}; lower hub.opset in params.yaml"
        )


def _write_tensors(tensors: Sequence[npt.NDArray[np.float32]], folder: Path) -> Path:
    """Write a file for each tensor, and return the list of them; its lines are relative to it."""
    from plumbline.backends.rknn.worker import LIST

    folder.mkdir(parents=True)
    names = [f"{number:05}.npy" for number in range(len(tensors))]
    for name, tensor in zip(names, tensors, strict=True):
        np.save(folder / name, tensor)
    path = folder / LIST
    path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    return path.resolve()


Run = Callable[..., str]


def _calibrated(hub: Path, images: Path, folder: Path, job: dict[str, Any], run: Run) -> Path:
    """Return the folder with what a method's calibration gave."""
    from plumbline.backends.rknn import worker

    if not folder.is_dir():
        with tempfile.TemporaryDirectory(prefix="rknn-") as work:
            shutil.copyfile(hub, Path(work) / worker.ONNX)
            names = (worker.MODEL, worker.DATA, worker.SETTINGS)
            run("calibrate", Path(work), str(hub), names, **job, list=str(images))
            made = folder.with_name(f"{folder.name}.part")
            made.mkdir(parents=True)
            for name in names:
                shutil.copyfile(Path(work) / name, made / name)
            made.rename(folder)
    return folder


def _leave_in_float(source: Path, float_blocks: tuple[str, ...], block_of: dict[str, str]) -> None:
    from plumbline.backends.rknn.blocks import block_near, tensors_of, with_float
    from plumbline.backends.rknn.worker import SETTINGS

    path = source / SETTINGS
    tensors = [name for name in tensors_of(path) if block_near(name, block_of) in float_blocks]
    path.write_text(with_float(path.read_text(encoding="utf-8"), tensors), encoding="utf-8")


def _write_job(source: Path, job: dict[str, Any]) -> None:
    (source / JOB).write_text(json.dumps(job, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _convert(source: Path, out: Path, what: str, job: dict[str, Any], run: Run) -> str:
    """Build the chip's file in a copy of `source`, then put it and `source` into `out`; return the toolkit's lines."""
    from plumbline.backends.rknn.worker import RKNN_FILE

    with tempfile.TemporaryDirectory(prefix="rknn-") as temporary:
        work = Path(temporary) / "work"
        shutil.copytree(source, work)
        log = run("convert", work, what, (RKNN_FILE,), **job)
        shutil.copyfile(work / RKNN_FILE, out / MODEL)
    shutil.copytree(source, out / SIMULATOR)
    return log


def _notes(operators: Sequence[Operator]) -> dict[str, Any]:
    """Return what `artifact.json` shall say: among it, what the NPU hands back to the board's processor."""
    from plumbline.backends.rknn import toolchain as toolchains
    from plumbline.backends.rknn.process import PACKAGE, TOOLCHAIN

    version = toolchains.version_of(TOOLCHAIN, PACKAGE)
    off_npu = [operator.name for operator in operators if operator.target != "NPU" and not operator.is_port]
    return {"reproducible": False, "toolchain": {PACKAGE: version}, "not_on_npu": off_npu}
