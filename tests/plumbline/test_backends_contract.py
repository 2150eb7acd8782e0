"""Every backend keeps the same contract: one file for all of them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from plumbline.backends import BACKENDS, TARGET_BACKENDS, backend_module
from plumbline.errors import BackendError
from plumbline.runtime.artifact import read_artifact, write_artifact
from plumbline.runtime.preprocess import preprocess
from plumbline.runtime.session import load_artifact

FLOAT_TARGETS = [(b, p) for b in TARGET_BACKENDS for p in backend_module(b).PRECISIONS if p != "int8"]
INT8_TARGETS = [b for b in TARGET_BACKENDS if "int8" in backend_module(b).PRECISIONS]


def make(folder, out, backend, precision, tensors=()):
    module = backend_module(backend)
    out.mkdir(parents=True)
    model = folder / "hub" / "model.onnx"
    int8 = precision == "int8"
    notes = module.quantize(model, out, tensors) if int8 else module.export(model, out, precision)
    base = read_artifact(folder / "hub")
    write_artifact(dataclasses.replace(base, backend=backend, precision=precision, notes=notes), out)
    return out


def tensors_of(folder, photos):
    spec = read_artifact(folder / "hub")
    return [preprocess(photo, spec.input.size_wh, spec.preprocessing)[0] for photo in photos]


@pytest.mark.parametrize("model", ["yolo11n", "yolo26n"])
@pytest.mark.parametrize(("backend", "precision"), FLOAT_TARGETS)
def test_float_targets_give_the_weights_raw_outputs(hubs, photos, tmp_path, model, backend, precision):
    folder = hubs[model]
    reference = load_artifact(folder / "weights", threads=2)
    session = load_artifact(make(folder, tmp_path / "a", backend, precision), threads=1)
    for tensor in tensors_of(folder, photos):
        before = tensor.copy()
        expected, got = reference.engine(tensor), session.engine(tensor)
        assert len(expected) == len(got) == 6
        for want, have in zip(expected, got, strict=True):
            assert want.shape == have.shape
            assert np.abs(want).max() > 0.1, "a dead network would agree with anything"
            tolerance = 2e-4 if precision == "fp32" else 0.05
            assert np.abs(want - have).max() <= tolerance * max(1.0, np.abs(want).max())
        assert (tensor == before).all(), "an engine never changes its input"


@pytest.mark.parametrize("backend", INT8_TARGETS)
def test_int8_targets_stay_near_and_are_smaller(hubs, photos, tmp_path, backend):
    folder = hubs["yolo11n"]
    tensors = tensors_of(folder, photos)
    small = make(folder, tmp_path / "int8", backend, "int8", tensors)
    large = make(folder, tmp_path / "fp32", backend, "fp32")
    size = {path: sum(f.stat().st_size for f in path.iterdir()) for path in (small, large)}
    assert size[small] < 0.5 * size[large]
    reference, session = load_artifact(large), load_artifact(small)
    for tensor in tensors:
        for want, have in zip(reference.engine(tensor), session.engine(tensor), strict=True):
            correlation = np.corrcoef(want.ravel(), have.ravel())[0, 1]
            assert correlation > 0.9
            assert not np.array_equal(want, have), "int8 differs from fp32, or it is not int8"


@pytest.mark.parametrize(("backend", "precision"), FLOAT_TARGETS)
def test_two_results_do_not_share_memory(hubs, photos, tmp_path, backend, precision):
    session = load_artifact(make(hubs["yolo11n"], tmp_path / "a", backend, precision))
    one, other = tensors_of(hubs["yolo11n"], photos[:2])
    first = session.engine(one)
    kept = [output.copy() for output in first]
    session.engine(other)
    assert all(np.array_equal(a, b) for a, b in zip(first, kept, strict=True))


@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_modules_have_what_the_table_promises(backend):
    module = backend_module(backend)
    assert isinstance(module.PACKAGES, tuple)
    assert set(module.PRECISIONS) <= {"fp32", "fp16", "int8"}
    assert callable(module.open_session)
    if module.PRECISIONS:
        assert callable(module.export)
    assert hasattr(module, "quantize") == ("int8" in module.PRECISIONS)


def test_unknown_backend_names_the_known_ones():
    with pytest.raises(BackendError, match=r"unknown backend 'tflite', expected one of: onnx, openvino, ncnn"):
        backend_module("tflite")
