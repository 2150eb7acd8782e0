"""The gate between the trained weights and what is exported from them."""

from __future__ import annotations

import numpy as np
import pytest

from plumbline.errors import BackendError
from plumbline.parity import check_parity, make_reference, read_reference, write_reference

NAMES = ("box", "cls")


def engine(tensor):
    return [tensor.mean(axis=1, keepdims=True) * 10, tensor[:, :2] - 0.5]


@pytest.fixture
def reference():
    rng = np.random.default_rng(0)
    return make_reference(engine, [rng.random((1, 3, 4, 5), dtype=np.float32) for _ in range(3)])


def test_the_file_gives_back_the_same_arrays_and_the_same_bytes(reference, tmp_path):
    write_reference(reference, tmp_path / "a.npz")
    write_reference(reference, tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    again = read_reference(tmp_path / "a.npz")
    for mine, theirs in zip(reference.tensors, again.tensors, strict=True):
        assert np.array_equal(mine, theirs)
    for mine, theirs in zip(reference.outputs, again.outputs, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True))


def test_the_error_is_a_share_of_the_outputs_largest_value(reference):
    def nearly(tensor):
        box, cls = engine(tensor)
        return [box + np.float32(0.001), cls]

    largest = max(np.abs(outputs[0]).max() for outputs in reference.outputs)
    parity = check_parity(reference, nearly, NAMES, 0.01, "target 'x'")
    assert parity.max_error == pytest.approx(0.001 / largest, rel=1e-3)
    assert (parity.output, parity.num_images, parity.tolerance) == ("box", 3, 0.01)
    assert check_parity(reference, engine, NAMES, 0.0, "target 'x'").max_error == 0


def test_another_output_is_refused_and_named(reference):
    def other(tensor):
        box, cls = engine(tensor)
        return [box, cls * 1.1]

    with pytest.raises(BackendError, match=r"target 'x': its output cls differs .* by 0\.1 of its largest value, exp"):
        check_parity(reference, other, NAMES, 0.01, "target 'x'")


def test_one_bad_image_of_several_is_enough(reference):
    calls = []

    def sometimes(tensor):
        calls.append(1)
        return [output + (len(calls) == 2) for output in engine(tensor)]

    with pytest.raises(BackendError, match="differs"):
        check_parity(reference, sometimes, NAMES, 0.01, "x")


def test_shapes_and_numbers_are_looked_at(reference):
    with pytest.raises(BackendError, match=r"box has the shape \(1, 1, 2, 5\), expected \(1, 1, 4, 5\)"):
        check_parity(reference, lambda x: [output[:, :, :2] for output in engine(x)], NAMES, 0.01, "x")
    with pytest.raises(BackendError, match="cls holds NaN"):
        check_parity(reference, lambda x: [engine(x)[0], engine(x)[1] * np.nan], NAMES, 0.01, "x")


def test_an_output_of_zeros_must_stay_zeros():
    zeros = make_reference(lambda x: [x * 0], [np.ones((1, 3, 2, 2), np.float32)])
    assert check_parity(zeros, lambda x: [x * 0], ("a",), 0.01, "x").max_error == 0
    with pytest.raises(BackendError, match="differs"):
        check_parity(zeros, lambda x: [x * 0 + 1e-9], ("a",), 0.01, "x")


@pytest.mark.parametrize("content", [b"", b"junk"])
def test_a_file_that_is_none_is_one_error(tmp_path, content):
    (tmp_path / "r.npz").write_bytes(content)
    with pytest.raises(BackendError, match=r"r\.npz: cannot be read .*hub stage"):
        read_reference(tmp_path / "r.npz")
    with pytest.raises(BackendError, match="cannot be read"):
        read_reference(tmp_path / "none.npz")
