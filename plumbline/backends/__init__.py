"""The table of backends. Each is one module, imported when a target or an artifact names it.

A backend's module has:

- ``PRECISIONS``: what `export` and `quantize` can make here.
- ``PACKAGES``: whose versions are written into `artifact.json`.
- ``export(hub, out, precision) -> notes``: make a float artifact's files in `out` from the hub's ONNX file.
- ``quantize(hub, out, tensors) -> notes``, where ``int8`` is among the precisions: the same in int8, calibrated on an
  iterable of input tensors.
- ``open_session(folder, artifact, threads) -> engine``: input tensor -> raw outputs, in the artifact's order.

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
