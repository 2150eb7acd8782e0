"""The table of backends. Each is one module, imported when a target or an artifact names it.

A backend's module has:

- ``PRECISIONS``: what it can make here.
- ``PACKAGES``: whose versions are written into `artifact.json`.
- ``CHIPS``: names that a target's ``chip`` may have; empty where files fit every machine that the engine runs on.
- ``FLOAT_CHIP``, only where some chips have no float: chip -> the one whose float file passes the parity gate for it.
- ``STANDS_IN``: what runs the artifact here in place of the device, such as ``x86 simulator``; empty where it is the
  engine itself. Latency is then not measured, and every number is labelled.
- ``TOLERANCE``: precision of a float artifact -> the largest difference of its raw outputs from those of the trained
  weights, as a share of the largest absolute value of that output over the images compared.
- ``ARITHMETIC``, where ``int8`` is among the precisions: what a fine-tune for it imitates, see the fields `activations`
  and `largest_weight` of `plumbline.quantization.aware.AwareSettings`.
- ``export(hub, out, precision, chip) -> notes``: make a float artifact's files in `out` from the hub's ONNX file.
- ``quantizer(hub, tensors, work, chip) -> Quantizer``, where ``int8`` is among the precisions: calibrate on a sequence
  of input tensors (1, 3, H, W); `work` is a folder for what lies between. See `plumbline.quantization.recipes`.
- ``open_session(folder, artifact, threads) -> engine``: input tensor -> raw outputs, in the artifact's order.

``export`` and ``quantizer`` raise `plumbline.errors.BackendError` for what the backend cannot do; ImportError for a
package that is not installed.

At its top a backend's module imports nothing heavier than numpy, because a board imports it too.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from plumbline.errors import BackendError

# Name in params.yaml and artifact.json -> module.
BACKENDS = {
    "onnx": "plumbline.backends.onnx",
    "openvino": "plumbline.backends.openvino",
    "ncnn": "plumbline.backends.ncnn",
    "rknn": "plumbline.backends.rknn",
    "tensorrt": "plumbline.backends.tensorrt",
    "tensorrt_qdq": "plumbline.backends.tensorrt_qdq",
    "torch": "plumbline.backends.torch",  # the trained weights themselves: scored, never a target
}

# The hub's ONNX file, in the hub's folder.
HUB = "model.onnx"

TARGET_BACKENDS = tuple(name for name in BACKENDS if name != "torch")


def backend_module(name: str) -> ModuleType:
    """Import the module of one row.

    Raises:
        BackendError: There is no such row.
    """
    if name not in BACKENDS:
        raise BackendError(
            f"unknown backend {name!r}, expected one of: {', '.join(BACKENDS)}; change the target in params.yaml"
        )
    return importlib.import_module(BACKENDS[name])
