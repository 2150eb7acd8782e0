"""What runs on a device imports numpy, OpenCV and its one engine: seen in a process of its own."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys

import pytest

from plumbline.backends import backend_module
from plumbline.runtime.artifact import read_artifact, write_artifact

HEAVY = {"torch", "torchvision", "ultralytics", "pandas", "pyarrow", "sklearn", "pydantic", "onnx", "matplotlib", "dvc"}
# Backend -> the package of its engine. Those of other machines (tensorrt, rknn) run in tests of their own.
ENGINES = {"onnx": "onnxruntime", "openvino": "openvino", "ncnn": "ncnn", "tensorrt_qdq": "onnxruntime"}

PROGRAM = """
import json, sys
import numpy as np
from plumbline.runtime.session import load_artifact
session = load_artifact(sys.argv[1])
session.predict(np.full((60, 80, 3), 90, np.uint8))
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""


@pytest.mark.parametrize("backend", ENGINES)
def test_prediction_imports_one_engine_and_nothing_heavy(hubs, tmp_path, backend):
    hub = hubs["yolo11n"] / "hub"
    out = tmp_path / "artifact"
    out.mkdir()
    backend_module(backend).export(hub / "model.onnx", out, "fp32", "")
    write_artifact(dataclasses.replace(read_artifact(hub), backend=backend), out)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(out)], capture_output=True, text=True, check=True, timeout=120
    )
    modules = set(json.loads(done.stdout.splitlines()[-1]))
    assert ENGINES[backend] in modules
    assert not modules & HEAVY
    assert not modules & (set(ENGINES.values()) - {ENGINES[backend]})
