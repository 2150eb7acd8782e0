"""A package `rknn` that converts nothing, for tests without the real one: names of chips tell what it does."""

from __future__ import annotations

import sys
from pathlib import Path

API = r'''
import os, pickle, sys
import numpy as np

TABLE = """
D RKNN: [16:12:42.715] 0 InputOperator  INT8    CPU  \ (1,3,4,4) 0/0/0 0 InputOperator:images
D RKNN: [16:12:42.715] 1 ConvExSwish    INT8    NPU  (1,3,4,4),(8,3,1,1),(8) (1,8,4,4) 1/2/2 7 Conv:/a/Conv
D RKNN: [16:12:42.715] 2 exSDPAttention FLOAT16 CPU  (2,3,1,5),... (2,6,1,5) 0/0/0 6 exSDPAttention:/b/MatMul
"""
SETTINGS = """custom_quantize_layers: {}
quantize_parameters:
    images:
        min: 0
    /a/Conv_output_0:
        min: 0
"""

class RKNN:
    def __init__(self, verbose=False):
        self.verbose = verbose

    def config(self, target_platform, **settings):
        self.chip = target_platform
        os.write(1, b"I on stdout: must not reach the protocol\n" * 100)
        return 0

    def load_onnx(self, path):
        return 0 if os.path.exists(path) else -1

    def build(self, do_quantization):
        return self._build()

    def hybrid_quantization_step1(self, dataset):
        open("model.model", "w").write(self.chip)
        data = {"ori_model_path": os.path.abspath("model.onnx"), "inputs_meta": {"dataset": dataset}}
        pickle.dump(data, open("model.data", "wb"))
        open("model.quantization.cfg", "w").write(SETTINGS)
        return 0

    def hybrid_quantization_step2(self, model, data, settings):
        return self._build()

    def _build(self):
        if self.chip == "aborts":
            sys.stderr.write("I busy\r 10%|#  | 1/9\n\x1b[31mE RKNN: unsupported conv /a/Conv\x1b[0m\n")
            sys.stderr.flush()
            os.abort()
        if self.chip == "refuses":
            print("E build: not supported")
            return -1
        print(TABLE if self.verbose and self.chip != "silent" else "E RKNN: Unkown op target: 0")
        return 0

    def export_rknn(self, path):
        if self.chip != "writes-nothing":
            open(path, "w").write(self.chip)
        return 0

    def init_runtime(self):
        return 0

    def inference(self, inputs, data_format):
        assert data_format == "nchw"
        if self.chip == "dies-later" and inputs[0].max() > 1:
            raise RuntimeError("too large")
        return [inputs[0] * 2, inputs[0].mean(axis=(2, 3))]
'''


def write_stand_in(folder: Path, version: str = "2.3.2") -> Path:
    """Write the package and a Python that sees it; return that Python."""
    (folder / "rknn").mkdir(parents=True)
    (folder / "rknn" / "__init__.py").write_text("")
    (folder / "rknn" / "api.py").write_text(API)
    info = folder / f"rknn_toolkit2-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: rknn-toolkit2\nVersion: {version}\n")
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={folder} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return python
