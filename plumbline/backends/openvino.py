"""OpenVINO, on the CPU.

Its default "fp32" is bf16 on processors that have it: the precision hint is always set, so that a name is true.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from plumbline.runtime.artifact import Artifact
    from plumbline.runtime.session import Engine

PRECISIONS = ("fp32", "fp16")
PACKAGES = ("openvino",)
MODEL = "model.xml"


def export(hub: Path, out: Path, precision: str) -> dict[str, Any]:
    """Convert the hub's file; fp16 halves the stored weights, which a CPU computes with in fp32."""
    import openvino

    model = openvino.convert_model(str(hub))
    openvino.save_model(model, str(out / MODEL), compress_to_fp16=precision == "fp16")
    return {"weights_stored_as": precision, "computes_in": "fp32"}


def open_session(folder: Path, artifact: Artifact, threads: int) -> Engine:
    """Compile for the CPU with one stream, as a camera needs it."""
    import openvino

    config = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = openvino.Core().compile_model(str(folder / MODEL), "CPU", config)
    request = compiled.create_infer_request()
    ports = [compiled.output(name) for name in artifact.outputs.names]

    def engine(tensor: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
        request.infer({0: tensor}, share_inputs=True)
        # Copies: the request writes its next results into the same memory.
        return [request.get_tensor(port).data.copy() for port in ports]

    return engine
