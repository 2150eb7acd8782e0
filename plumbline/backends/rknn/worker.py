"""What runs in RKNN's own environment, as a process of its own: the converter, and the simulator.

It imports nothing of plumbline. Its one argument is a job in JSON; see `COMMANDS`. Results are files in the working
folder, and what the toolkit prints goes to stderr: the toolkit's lines say ``E`` where nothing is wrong, so that only
return codes count.

``serve`` speaks over pipes: a frame is its length in 8 bytes (little-endian) and an array in NumPy's ``.npy`` format.
An empty frame says that it is ready; each frame in is an input tensor, each answer one frame per output.
"""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import pickle
import struct
import sys
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

LENGTH = struct.Struct("<Q")
# The toolkit names its files after this one.
ONNX = "model.onnx"
LIST = "list.txt"
MODEL, DATA, SETTINGS = "model.model", "model.data", "model.quantization.cfg"
RKNN_FILE = "model.rknn"


def checked(step: str, code: int) -> None:
    """End the process with a line that names the step, where it failed."""
    if code != 0:
        sys.exit(f"rknn-toolkit2's {step} gave the code {code}")


def configured(job: dict[str, Any], *, verbose: bool = False) -> Any:
    """Return a fresh converter for the job's chip and method.

    Mean 0 and standard deviation 1: the file takes the tensors that the runtime makes.
    """
    from rknn.api import RKNN

    rknn = RKNN(verbose=verbose)
    code = rknn.config(
        target_platform=job["chip"],
        mean_values=[[0, 0, 0]],
        std_values=[[1, 1, 1]],
        quantized_algorithm=job.get("algorithm", "normal"),
        quantized_method=job.get("granularity", "channel"),
    )
    checked("config", code)
    return rknn


def calibrate(job: dict[str, Any]) -> None:
    """Write MODEL, DATA and SETTINGS for int8, from ONNX in the working folder and the tensors that a list names."""
    rknn = configured(job)
    checked("load_onnx", rknn.load_onnx(ONNX))
    checked("hybrid_quantization_step1", rknn.hybrid_quantization_step1(dataset=job["list"]))
    forget_paths()


def forget_paths() -> None:
    """Take this machine's paths out of DATA: the same calibration gives the same bytes anywhere."""
    path = Path(DATA)
    # The toolkit's own file, written a moment ago.
    content = pickle.loads(path.read_bytes())  # noqa: S301
    content["ori_model_path"] = ONNX
    content["inputs_meta"]["dataset"] = LIST
    path.write_bytes(pickle.dumps(content, protocol=4))


def convert(job: dict[str, Any]) -> None:
    """Write RKNN_FILE from what the working folder holds. Its table of operators goes to stderr."""
    checked("export_rknn", built(job, verbose=True).export_rknn(RKNN_FILE))


def built(job: dict[str, Any], *, verbose: bool = False) -> Any:
    """Build from ONNX in float, or from MODEL, DATA and SETTINGS in int8; all in the working folder."""
    rknn = configured(job, verbose=verbose)
    if job["precision"] == "int8":
        checked("hybrid_quantization_step2", rknn.hybrid_quantization_step2(MODEL, DATA, SETTINGS))
    else:
        checked("load_onnx", rknn.load_onnx(ONNX))
        checked("build", rknn.build(do_quantization=False))
    return rknn


def serve(job: dict[str, Any], answers: BinaryIO) -> None:
    """Build, and run the simulator until stdin ends."""
    rknn = built(job)
    checked("init_runtime", rknn.init_runtime())
    answers.write(LENGTH.pack(0))
    answers.flush()
    while (tensor := read_array(sys.stdin.buffer)) is not None:
        outputs = rknn.inference(inputs=[tensor], data_format="nchw")
        if outputs is None:
            sys.exit("rknn-toolkit2's inference gave nothing")
        for output in outputs:
            write_array(answers, output)
        answers.flush()


def read_array(source: BinaryIO) -> Any:
    """Read one frame; None where the stream ends."""
    header = source.read(LENGTH.size)
    if len(header) < LENGTH.size:
        return None
    size = LENGTH.unpack(header)[0]
    content = source.read(size)
    return np.load(io.BytesIO(content), allow_pickle=False) if size and len(content) == size else None


def write_array(target: BinaryIO, array: Any) -> None:
    """Write one frame."""
    content = io.BytesIO()
    np.save(content, np.ascontiguousarray(array), allow_pickle=False)
    target.write(LENGTH.pack(content.tell()))
    target.write(content.getbuffer())


def private_stdout() -> BinaryIO:
    """Return what was stdout; from now on, whatever the toolkit prints there goes to stderr."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


def main() -> None:
    """Run one job."""
    job = json.loads(sys.argv[1])
    answers = private_stdout()
    version = importlib.metadata.version("rknn-toolkit2")
    if version != job["version"]:
        sys.exit(f"rknn-toolkit2 {version} is installed, expected {job['version']}; run `make rknn`")
    if job["command"] == "serve":
        serve(job, answers)
    else:
        COMMANDS[job["command"]](job)


COMMANDS = {"calibrate": calibrate, "convert": convert}

if __name__ == "__main__":
    main()
