"""NCNN, converted from the hub by pnnx. Its x86 build computes in fp32 and int8; fp16 here halves the stored weights.

int8 weights are per channel; what a layer reads is quantized with one symmetric scale. pnnx cannot make such files, and
NCNN's wheel has no tool for it: `plumbline.backends.ncnn.int8` does.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from plumbline.backends.ncnn.files import read_layers, read_network
from plumbline.errors import BackendError
from plumbline.quantization.recipes import Quantizer, Recipe, Written

if TYPE_CHECKING:
    from plumbline.runtime.artifact import Artifact
    from plumbline.runtime.session import Engine

PRECISIONS = ("fp32", "fp16", "int8")
PACKAGES = ("ncnn", "pnnx")
CHIPS: tuple[str, ...] = ()
STANDS_IN = ""
# Measured on trained detectors: 1e-6 and 1e-3.
TOLERANCE = {"fp32": 2e-4, "fp16": 0.02}
ARITHMETIC = ("symmetric", 127)
PARAM, BIN = "model.param", "model.bin"

# Seconds. A conversion takes one or two.
_TIMEOUT = 600


def export(hub: Path, out: Path, precision: str, chip: str) -> dict[str, Any]:
    """Convert the hub's file.

    Raises:
        BackendError: pnnx fails, leaves operators that NCNN has no layer for, gives another number of outputs than
            the hub has, or ncnn cannot run what it gives.
    """
    import onnx

    assert precision in TOLERANCE, precision
    assert not chip, chip
    graph = onnx.load(str(hub), load_external_data=False).graph
    shape = [dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim]
    _convert(hub, out, shape, half=precision == "fp16")
    foreign = _foreign_layers(out / PARAM)
    if foreign:
        raise BackendError(
            f"{hub}: NCNN has no layer for {', '.join(foreign)}, expected operators that pnnx can convert; take another"
            " backend for this network in params.yaml, or another network"
        )
    outputs = _blob_names(out / PARAM, "out")
    if len(outputs) != len(graph.output):
        raise BackendError(
            f"{hub}: pnnx gave the outputs {outputs}, expected {len(graph.output)}; report this as a bug"
        )
    _try_out(out, shape, len(outputs))
    return {"weights_stored_as": precision, "computes_in": "fp32"}


def quantizer(hub: Path, tensors: Sequence[npt.NDArray[np.float32]], work: Path, chip: str) -> Quantizer:
    """Convert the hub's file, and watch it on the calibration images.

    Raises:
        BackendError: The conversion fails, there is no image, or NCNN can compute no layer in int8.
    """
    from plumbline.backends.ncnn.calibration import OPERATORS, calibrate, write_int8
    from plumbline.quantization.ranges import METHODS

    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work, prefix="float-") as folder:
        export(hub, Path(folder), "fp32", chip)
        network = read_network(Path(folder) / PARAM, Path(folder) / BIN)
        calibrated = calibrate(hub, network, _load(Path(folder), 1, keep_blobs=True), tensors)

    def write(out: Path, recipe: Recipe) -> Written:
        return write_int8(calibrated, out / PARAM, out / BIN, recipe)

    # What crashes ncnn shall do so before the search, and not in this process.
    with tempfile.TemporaryDirectory(dir=work, prefix="int8-") as folder:
        write(Path(folder), Recipe(METHODS[0], OPERATORS[0]))
        _try_out(Path(folder), list(tensors[0].shape), len(_blob_names(Path(folder) / PARAM, "out")))
    return Quantizer(METHODS, OPERATORS, calibrated.blocks, write)


def open_session(folder: Path, artifact: Artifact, threads: int) -> Engine:
    """Load the network; pnnx names its inputs in0... and its outputs out0... in the hub's order."""
    import ncnn

    net = _load(folder, threads)
    names = [f"out{index}" for index in range(len(artifact.outputs.names))]

    def engine(tensor: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
        extractor = net.create_extractor()
        # A copy: the Mat does not own the array, and a first layer that works in place would change it.
        extractor.input("in0", ncnn.Mat(tensor[0]).clone())
        return [_extract(extractor, name) for name in names]

    return engine


def _load(folder: Path, threads: int, *, keep_blobs: bool = False) -> Any:
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_vulkan_compute = False
    # Nobody may change the precision that artifact.json states. Besides, bfloat16, which runs int8 networks a tenth
    # faster, gives garbage after grouped convolutions (1.0.20261020, x86).
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = False
    net.opt.use_int8_inference = True
    net.opt.lightmode = not keep_blobs
    if net.load_param(str(folder / PARAM)) or net.load_model(str(folder / BIN)):
        raise BackendError(f"{folder}: ncnn cannot load it, expected the files that export wrote; export it again")
    return net


def _extract(extractor: Any, name: str) -> npt.NDArray[np.float32]:
    code, mat = extractor.extract(name)
    if code:
        raise BackendError(f"ncnn failed at output {name} with code {code}; export the artifact again")
    # A copy: the Mat's memory goes when it does.
    return np.array(mat)[None]


def _convert(hub: Path, out: Path, shape: Sequence[int], *, half: bool) -> None:
    """Let pnnx convert in its own process: it ends with a signal now and then."""
    import pnnx

    with tempfile.TemporaryDirectory(prefix="pnnx-") as folder:
        shutil.copyfile(hub, Path(folder) / "hub.onnx")
        command = [pnnx.EXEC_PATH, "hub.onnx", f"inputshape=[{','.join(map(str, shape))}]", f"fp16={int(half)}"]
        _run(command, folder, f"{hub}: pnnx could not convert it")
        param, weights = Path(folder) / "hub.ncnn.param", Path(folder) / "hub.ncnn.bin"
        if not (param.is_file() and weights.is_file()):
            raise BackendError(f"{hub}: pnnx wrote no file for NCNN, expected one; take another backend in params.yaml")
        shutil.copyfile(param, out / PARAM)
        shutil.copyfile(weights, out / BIN)


# ncnn dies where another library would raise, for a layer that it cannot compute on these shapes.
_TRIAL = """
import sys
import ncnn, numpy
param, weights, num_outputs, *shape = sys.argv[1:]
net = ncnn.Net()
net.opt.num_threads = 1
net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
if net.load_param(param) or net.load_model(weights):
    sys.exit("it cannot load the files")
extractor = net.create_extractor()
tensor = numpy.full([int(size) for size in shape], 0.5, dtype=numpy.float32)
extractor.input("in0", ncnn.Mat(tensor).clone())
for index in range(int(num_outputs)):
    code, mat = extractor.extract(f"out{index}")
    if code or not numpy.array(mat).size:
        sys.exit(f"it gives no output {index} (code {code})")
"""


def _try_out(folder: Path, shape: Sequence[int], num_outputs: int) -> None:
    """Run the files once in a process of their own."""
    sizes = [str(size) for size in shape[1:]]
    command = [sys.executable, "-c", _TRIAL, str(folder / PARAM), str(folder / BIN), str(num_outputs), *sizes]
    _run(command, None, "ncnn cannot run what pnnx made of the network")


def _run(command: Sequence[str], folder: str | None, what: str) -> None:
    """Run a vendor's program.

    Raises:
        BackendError: It failed, died or did not end; with its last lines.
    """
    advice = "take another backend for this network in params.yaml, or another network"
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=_TIMEOUT)
    except subprocess.TimeoutExpired as error:
        raise BackendError(f"{what}: no end after {_TIMEOUT} s; {advice}") from error
    except OSError as error:
        raise BackendError(f"{what}: {command[0]} cannot be started ({error.strerror}); install pnnx again") from error
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).decode(errors="replace").splitlines()[-3:]
        ended = f"exit {done.returncode}" if done.returncode > 0 else f"killed by {_signal_name(-done.returncode)}"
        raise BackendError(f"{what} ({ended}: {' | '.join(lines) or 'it said nothing'}); {advice}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _foreign_layers(param: Path) -> list[str]:
    """Return the operators that pnnx has left as they were (Tensor.reshape, torch.roll, aten::...).

    It exits with 0 all the same; ncnn would not load the file, and its process dies when it tries.
    """
    types = {layer.type for layer in read_layers(param)}
    return sorted(name for name in types if "." in name or "::" in name)


def _blob_names(param: Path, prefix: str) -> list[str]:
    names = {name for layer in read_layers(param) for name in (*layer.inputs, *layer.outputs)}
    return sorted(name for name in names if name.startswith(prefix) and name[len(prefix) :].isdigit())
