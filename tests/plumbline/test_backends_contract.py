"""Every backend keeps the same contract: one file for all of them."""

from __future__ import annotations

import dataclasses
import importlib.util

import numpy as np
import pytest

from plumbline.backends import BACKENDS, TARGET_BACKENDS, backend_module
from plumbline.backends.rknn import toolchain as toolchains
from plumbline.errors import BackendError
from plumbline.quantization.recipes import Recipe
from plumbline.runtime.artifact import read_artifact, write_artifact
from plumbline.runtime.preprocess import preprocess
from plumbline.runtime.session import load_artifact

FLOAT_TARGETS = [(b, p) for b in TARGET_BACKENDS for p in backend_module(b).PRECISIONS if p != "int8"]
INT8_TARGETS = [b for b in TARGET_BACKENDS if "int8" in backend_module(b).PRECISIONS]
# Their int8 files hold the weights in float, with Q and DQ, or the whole network once more for a simulator.
NOT_SMALLER = ("rknn", "tensorrt_qdq")
CHIP = {"rknn": "rk3588"}


def skip_without_toolchain(backend):
    if backend == "tensorrt" and importlib.util.find_spec("tensorrt") is None:
        pytest.skip("needs the package tensorrt")
    if backend == "rknn":
        try:
            toolchains.python_of("rknn")
        except BackendError as error:
            pytest.skip(f"needs its own environment: {error}")


def recorded(folder, out, backend, precision, notes):
    base = read_artifact(folder / "hub")
    write_artifact(dataclasses.replace(base, backend=backend, precision=precision, notes=notes), out)
    return out


def export(folder, out, backend, precision):
    skip_without_toolchain(backend)
    out.mkdir(parents=True)
    notes = backend_module(backend).export(folder / "hub" / "model.onnx", out, precision, CHIP.get(backend, ""))
    return recorded(folder, out, backend, precision, notes)


def quantizer_of(folder, work, backend, tensors):
    skip_without_toolchain(backend)
    work.mkdir(parents=True)
    return backend_module(backend).quantizer(folder / "hub" / "model.onnx", tensors, work, CHIP.get(backend, ""))


def write(quantizer, folder, out, backend, **changes):
    out.mkdir()
    recipe = dataclasses.replace(Recipe(quantizer.methods[0], quantizer.operators[0]), **changes)
    written = quantizer.write(out, recipe)
    recorded(folder, out, backend, "int8", written.notes)
    return written


def written_in_seconds(written):
    """RKNN's files, which are not the same twice, take minutes where the machine is busy."""
    return written.notes.get("reproducible", True)


def tensors_of(folder, photos):
    spec = read_artifact(folder / "hub")
    return [preprocess(photo, spec.input.size_wh, spec.preprocessing)[0] for photo in photos]


@pytest.mark.parametrize("model", ["yolo11n", "yolo26n"])
@pytest.mark.parametrize(("backend", "precision"), FLOAT_TARGETS)
def test_float_targets_give_the_weights_raw_outputs(hubs, photos, tmp_path, model, backend, precision):
    folder = hubs[model]
    reference = load_artifact(folder / "weights", threads=2)
    session = load_artifact(export(folder, tmp_path / "a", backend, precision), threads=1)
    tolerance = backend_module(backend).TOLERANCE[precision]
    for tensor in tensors_of(folder, photos):
        before = tensor.copy()
        expected, got = reference.engine(tensor), session.engine(tensor)
        assert len(expected) == len(got) == 6
        for want, have in zip(expected, got, strict=True):
            assert want.shape == have.shape
            assert np.abs(want).max() > 0.1, "a dead network would agree with anything"
            assert np.abs(want - have).max() <= tolerance * np.abs(want).max()
        assert (tensor == before).all(), "an engine never changes its input"


@pytest.mark.parametrize("backend", INT8_TARGETS)
def test_int8_stays_near_and_the_same_recipe_gives_the_same_bytes(hubs, photos, tmp_path, backend):
    folder = hubs["yolo11n"]
    tensors = tensors_of(folder, photos)
    before = [tensor.copy() for tensor in tensors]
    quantizer = quantizer_of(folder, tmp_path / "work", backend, tensors)
    small = tmp_path / "int8"
    written = write(quantizer, folder, small, backend)
    assert 0.85 * written.num_convolutions <= written.num_int8 <= written.num_convolutions
    assert written.num_int8 + len(written.float_names) == written.num_convolutions >= 87
    reference, session = load_artifact(folder / "hub"), load_artifact(small)
    for tensor in tensors:
        for want, have in zip(reference.engine(tensor), session.engine(tensor), strict=True):
            assert np.corrcoef(want.ravel(), have.ravel())[0, 1] > 0.9
            assert not np.array_equal(want, have), "int8 differs from fp32, or it is not int8"
    if backend not in NOT_SMALLER:
        large = (folder / "hub" / "model.onnx").stat().st_size
        assert sum(path.stat().st_size for path in small.iterdir()) < 0.5 * large
    if written_in_seconds(written):
        write(quantizer, folder, tmp_path / "other", backend, method=quantizer.methods[-1])
        write(quantizer, folder, tmp_path / "again", backend)
        assert read_artifact(tmp_path / "again").files == read_artifact(small).files
        assert read_artifact(tmp_path / "other").files != read_artifact(small).files
    assert all(np.array_equal(*pair) for pair in zip(tensors, before, strict=True))


@pytest.mark.parametrize("backend", INT8_TARGETS)
def test_float_blocks_stay_in_float_and_are_named(hubs, photos, tmp_path, backend):
    folder = hubs["yolo11n"]
    tensors = tensors_of(folder, photos[:2])
    quantizer = quantizer_of(folder, tmp_path / "work", backend, tensors)
    if not quantizer.blocks:
        pytest.skip("its converter cannot leave blocks in float")
    assert len(quantizer.blocks) >= 10
    # Matrix products without weights may be nobody's.
    assert 0.9 < sum(block.share for block in quantizer.blocks) <= 1 + 1e-9
    names = tuple(block.name for block in quantizer.blocks)
    assert len(set(names)) == len(names)
    some = write(quantizer, folder, tmp_path / "some", backend, float_blocks=names[:3])
    few = write(quantizer, folder, tmp_path / "few", backend)
    assert set(few.float_names) < set(some.float_names)
    assert some.num_int8 < few.num_int8
    if not written_in_seconds(some):
        return
    # With every block in float it is the float network.
    everything = write(quantizer, folder, tmp_path / "none", backend, float_blocks=names)
    assert everything.num_int8 == 0
    want, have = (load_artifact(path).engine(tensors[0]) for path in (folder / "hub", tmp_path / "none"))
    for one, other in zip(want, have, strict=True):
        assert np.abs(one - other).max() <= 1e-3 * np.abs(one).max()


@pytest.mark.parametrize(("backend", "precision"), FLOAT_TARGETS)
def test_two_results_do_not_share_memory(hubs, photos, tmp_path, backend, precision):
    session = load_artifact(export(hubs["yolo11n"], tmp_path / "a", backend, precision))
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
    assert hasattr(module, "quantizer") == ("int8" in module.PRECISIONS)
    if backend in TARGET_BACKENDS:
        assert callable(module.export)
        assert isinstance(module.CHIPS, tuple)
        assert isinstance(module.STANDS_IN, str)
        assert set(module.TOLERANCE) >= set(module.PRECISIONS) - {"int8"}


def test_unknown_backend_names_the_known_ones():
    with pytest.raises(BackendError, match=r"unknown backend 'tflite', expected one of: onnx, openvino, ncnn"):
        backend_module("tflite")
