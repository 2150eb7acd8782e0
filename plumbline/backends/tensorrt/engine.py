"""What imports TensorRT: the build, run in a process of its own, and the session.

Untested on a real TensorRT, which no machine of this project had: written after NVIDIA's documentation of the Python
API of TensorRT 10 and 11, and tested with a stand-in for the package only.

Source:
    https://docs.nvidia.com/deeplearning/tensorrt/10.16.1/api/tensorrt-8x-to-10x-python-api.html (tensors by name,
    `execute_async_v3`, `build_serialized_network`) and
    https://docs.nvidia.com/deeplearning/tensorrt/11.4.0/api/migration/tensorrt-10x-to-11x-python-api-reference.html
    (11 has no precision flags: types are the file's).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

OLDEST = 10
# TensorRT 10: which kernels it may choose from. Without FP16 what int8 leaves in float would be slower than it need be.
FLAGS = {"fp32": (), "fp16": ("FP16",), "int8": ("INT8", "FP16")}


def build(model: Path, engine: Path, precision: str) -> None:
    """Build an engine from an ONNX file for the GPU of this machine.

    Raises:
        SystemExit: TensorRT cannot; the reason goes to stderr.
    """
    import tensorrt

    version = str(tensorrt.__version__)
    if int(version.split(".", maxsplit=1)[0]) < OLDEST:
        sys.exit(f"TensorRT {version}, expected {OLDEST} or later")
    logger = tensorrt.Logger(tensorrt.Logger.WARNING)
    builder = tensorrt.Builder(logger)
    network = builder.create_network(0)
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(model)):
        sys.exit("\n".join(str(parser.get_error(index)) for index in range(parser.num_errors)))
    config = builder.create_builder_config()
    # Else "fp32" would be TF32, with a mantissa of 10 bits.
    config.clear_flag(tensorrt.BuilderFlag.TF32)
    for name in FLAGS[precision]:
        flag = getattr(tensorrt.BuilderFlag, name, None)
        if flag is not None:
            config.set_flag(flag)
        elif precision == "fp16":
            sys.exit(f"TensorRT {version} takes types from the file and has no fp16 flag, expected TensorRT {OLDEST}")
    built = builder.build_serialized_network(network, config)
    if built is None:
        sys.exit("the builder gave no engine; its own lines are above")
    engine.write_bytes(bytes(built))


class Running:
    """An engine with its memory on the GPU. Not safe for use from several threads at once.

    Args:
        path: The serialized engine.
        input_name: Of the one input.
        output_names: In the order in which they are wanted.
    """

    def __init__(self, path: Path, input_name: str, output_names: Sequence[str]) -> None:
        import tensorrt
        from cuda.bindings import runtime as cuda

        self.cuda = cuda
        self.addresses: dict[str, int] = {}
        # Each of these must outlive the context.
        self.logger = tensorrt.Logger(tensorrt.Logger.WARNING)
        self.runtime = tensorrt.Runtime(self.logger)
        self.engine = self.runtime.deserialize_cuda_engine(path.read_bytes())
        if self.engine is None:
            raise RuntimeError("built by another version of TensorRT, or for another GPU")
        self.context = self.engine.create_execution_context()
        self.stream = self._call(cuda.cudaStreamCreate())
        self.names = (input_name, *output_names)
        self.shapes = {name: tuple(self.engine.get_tensor_shape(name)) for name in self.names}
        self.addresses = {name: self._allocate(name) for name in self.names}

    def __call__(self, tensor: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
        """Run the network; the outputs are fresh arrays."""
        to_device, to_host = (
            self.cuda.cudaMemcpyKind.cudaMemcpyHostToDevice,
            self.cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost,
        )
        source = np.ascontiguousarray(tensor, dtype=np.float32)
        outputs = [np.empty(self.shapes[name], np.float32) for name in self.names[1:]]
        address = self.addresses[self.names[0]]
        self._call(self.cuda.cudaMemcpyAsync(address, source.ctypes.data, source.nbytes, to_device, self.stream))
        if not self.context.execute_async_v3(self.stream):
            raise RuntimeError("TensorRT could not run the engine; its own lines are above")
        for name, output in zip(self.names[1:], outputs, strict=True):
            copy = self.cuda.cudaMemcpyAsync(
                output.ctypes.data, self.addresses[name], output.nbytes, to_host, self.stream
            )
            self._call(copy)
        self._call(self.cuda.cudaStreamSynchronize(self.stream))
        return outputs

    def close(self) -> None:
        """Free the GPU's memory."""
        for address in self.addresses.values():
            self.cuda.cudaFree(address)
        self.addresses.clear()

    __del__ = close

    def _allocate(self, name: str) -> int:
        # Inputs and outputs keep the ONNX file's float32, whatever the engine computes in.
        address = int(self._call(self.cuda.cudaMalloc(int(np.prod(self.shapes[name])) * np.float32().nbytes)))
        self.context.set_tensor_address(name, address)
        return address

    def _call(self, result: tuple[Any, ...]) -> Any:
        error, *values = result
        if error != self.cuda.cudaError_t.cudaSuccess:
            raise RuntimeError(f"CUDA: {error}")
        return values[0] if values else None


if __name__ == "__main__":
    build(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
