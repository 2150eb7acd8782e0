"""As much of TensorRT's Python API as this project calls; its "engine" is the ONNX file, and ONNX Runtime runs it.

It shows that calls are made in an order that can work, not that TensorRT would take them. TENSORRT_STAND_IN says what
goes wrong: crash, refuse, no-engine, or a version to be.
"""

import ctypes
import json
import os
import sys
from pathlib import Path

import numpy as np
import onnxruntime

WRONG = os.environ.get("TENSORRT_STAND_IN", "")
__version__ = WRONG if WRONG[:1].isdigit() else "10.9.0.34"


class BuilderFlag:
    TF32 = "TF32"
    if int(__version__.split(".", maxsplit=1)[0]) < 11:
        FP16, INT8 = "FP16", "INT8"


class Logger:
    WARNING = 2

    def __init__(self, severity):
        assert severity == self.WARNING


class Config:
    def __init__(self):
        self.flags = {"TF32"}

    def set_flag(self, flag):
        self.flags.add(flag)

    def clear_flag(self, flag):
        self.flags.discard(flag)


class Network:
    content = b""


class Builder:
    def __init__(self, logger):
        assert isinstance(logger, Logger)

    def create_network(self, flags):
        assert flags == 0
        return Network()

    def create_builder_config(self):
        return Config()

    def build_serialized_network(self, network, config):
        if WRONG == "crash":
            sys.stderr.write("[E] something on the GPU\n")
            os.abort()
        if WRONG == "no-engine":
            sys.stdout.write("[E] no implementation for node conv\n")
            sys.stdout.flush()
            return None
        return memoryview(json.dumps(sorted(config.flags)).encode() + b"\n" + network.content)


class OnnxParser:
    num_errors = 2

    def __init__(self, network, logger):
        assert isinstance(logger, Logger)
        self.network = network

    def parse_from_file(self, path):
        self.network.content = Path(path).read_bytes()
        return WRONG != "refuse"

    def get_error(self, index):
        return f"error {index} of the parser"


class Runtime:
    def __init__(self, logger):
        assert isinstance(logger, Logger)

    def deserialize_cuda_engine(self, content):
        flags, found, model = content.partition(b"\n")
        return Engine(model) if found and flags.startswith(b"[") else None


class Engine:
    def __init__(self, content):
        self.session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        self.tensors = {tensor.name: tensor for tensor in (*self.session.get_inputs(), *self.session.get_outputs())}

    def get_tensor_shape(self, name):
        return self.tensors[name].shape

    def create_execution_context(self):
        return Context(self)


class Context:
    def __init__(self, engine):
        self.engine = engine
        self.arrays = {}

    def set_tensor_address(self, name, address):
        shape = self.engine.get_tensor_shape(name)
        numbers = (ctypes.c_float * int(np.prod(shape))).from_address(address)
        self.arrays[name] = np.ctypeslib.as_array(numbers).reshape(shape)

    def execute_async_v3(self, stream):
        assert stream == "stream"
        session = self.engine.session
        name = session.get_inputs()[0].name
        names = [output.name for output in session.get_outputs()]
        for output, array in zip(names, session.run(names, {name: self.arrays[name]}), strict=True):
            self.arrays[output][...] = array
        return True
