"""QDQ files from one calibration: their numbers, what engines make of them, and how operators are grouped."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from plumbline.backends import onnx as onnx_backend
from plumbline.backends import openvino as openvino_backend
from plumbline.errors import BackendError
from plumbline.quantization.blocks import FEWEST, MOST, Operator, group_into_blocks
from plumbline.quantization.qdq import (
    METHODS,
    OPERATORS,
    PRODUCTS,
    SYMMETRIC,
    UINT8,
    UINT8_INPUTS,
    calibrate,
    write_qdq,
)
from plumbline.quantization.recipes import Recipe

BEST = Recipe(METHODS[0], "all")


def initializers(path):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(str(path)).graph.initializer}


def nodes_of(path, op_type):
    return [node for node in onnx.load(str(path)).graph.node if node.op_type == op_type]


def run(path, tensor, *, optimized=True):
    options = onnxruntime.SessionOptions()
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: tensor})


def write_network(path, *, named=True, weight=None):
    """Convolution, Relu, convolution, matrix product, with weights of other sizes in each channel; outputs y and z."""
    rng = np.random.default_rng(3)
    sizes = np.array([1, 0.1, 3, 0.01, 0.5, 2, 1, 0.2], dtype=np.float32)
    values = {
        "w1": rng.normal(size=(8, 3, 3, 3)).astype(np.float32) * sizes[:, None, None, None]
        if weight is None
        else weight,
        "b1": rng.normal(size=8).astype(np.float32),
        "w2": rng.normal(size=(4, 8, 1, 1)).astype(np.float32),
        "w3": rng.normal(size=(8, 5)).astype(np.float32),
    }
    if weight is not None:
        values["w1"] = weight
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"], name="/stem/conv/Conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["r"], name="/stem/act/Relu"),
        helper.make_node("Conv", ["r", "w2"], ["y"], name="/body/conv/Conv"),
        helper.make_node("MatMul", ["r", "w3"], ["z"], name="/head/MatMul"),
    ]
    if not named:
        for node in nodes:
            node.name = ""
    shapes = {"x": (1, 3, 8, 8), "y": (1, 4, 8, 8), "z": (1, 8, 8, 5)}
    ports = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()}
    tensors = [numpy_helper.from_array(value, name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "g", [ports["x"]], [ports["y"], ports["z"]], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return [rng.uniform(0, 1, (1, 3, 8, 8)).astype(np.float32) for _ in range(4)]


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    folder = tmp_path_factory.mktemp("network")
    return write_network(folder / "model.onnx")


@pytest.fixture(scope="module")
def calibrated(network, images):
    return calibrate(network, images)


def test_uint8_form_has_the_ranges_of_the_float_network(network, calibrated, images, tmp_path):
    write_qdq(calibrated, tmp_path / "q.onnx", BEST, UINT8)
    values = initializers(tmp_path / "q.onnx")
    seen = {"x": np.stack(images), "y": np.stack([run(network, image)[0] for image in images])}
    for name, array in seen.items():
        low, high = min(float(array.min()), 0), max(float(array.max()), 0)
        scale, zero = values[f"{name}_scale"], values[f"{name}_zero_point"]
        assert scale == pytest.approx((high - low) / 255, rel=1e-5)
        assert zero.dtype == np.uint8
        assert zero == round(-low / scale)
    # An unsigned output cannot be below 0: Relu is gone.
    assert not nodes_of(tmp_path / "q.onnx", "Relu")
    assert values["r_zero_point"] == 0


@pytest.mark.parametrize(("form", "bits"), [(UINT8, 7), (UINT8_INPUTS, 7), (SYMMETRIC, 8)])
def test_weights_are_symmetric_in_their_bits_for_each_channel(network, calibrated, tmp_path, form, bits):
    path = tmp_path / "q.onnx"
    write_qdq(calibrated, path, BEST, form)
    values, top = initializers(path), 2 ** (bits - 1) - (1 if bits == 8 else 0)
    weights = initializers(network)["w1"]
    scales = np.abs(weights).max(axis=(1, 2, 3)) / top
    assert values["w1_scale"] == pytest.approx(scales, rel=1e-5)
    assert not values["w1_zero_point"].any()
    if form.float_weights:
        assert np.array_equal(values["w1"], weights)
    else:
        integers = values["w1_quantized"]
        assert integers.dtype == np.int8
        assert np.abs(integers.astype(int)).max() == top
        assert np.abs(integers * scales[:, None, None, None] - weights).max() <= scales.max() / 2 + 1e-6
        assert "w1" not in values


def test_per_tensor_has_one_scale(calibrated, tmp_path):
    write_qdq(calibrated, tmp_path / "q.onnx", Recipe("per_tensor-minmax", "all"), UINT8)
    assert initializers(tmp_path / "q.onnx")["w1_scale"].shape == ()


def test_symmetric_form_is_what_tensorrt_wants(calibrated, tmp_path):
    path = tmp_path / "q.onnx"
    write_qdq(calibrated, path, BEST, SYMMETRIC)
    values = initializers(path)
    zeros = [values[node.input[2]] for node in nodes_of(path, "QuantizeLinear") + nodes_of(path, "DequantizeLinear")]
    assert all(zero.dtype == np.int8 and not zero.any() for zero in zeros)
    (first, second), (product,) = nodes_of(path, "Conv"), nodes_of(path, "MatMul")
    assert values[first.input[2]].dtype == np.float32, "a bias stays in float"
    dequantized = {node.output[0] for node in nodes_of(path, "DequantizeLinear")}
    for node in (first, second, product):
        assert set(node.input[:2]) <= dequantized
    assert nodes_of(path, "Relu")[0].input[0] == first.output[0], "no Q and DQ behind a convolution"
    assert {first.output[0], second.output[0], product.output[0]} == {"a", "y", "z"}


@pytest.mark.parametrize("form", [UINT8, UINT8_INPUTS, SYMMETRIC])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("operators", OPERATORS)
def test_every_recipe_is_near_the_float_network(network, calibrated, images, tmp_path, form, method, operators):
    write_qdq(calibrated, tmp_path / "q.onnx", Recipe(method, operators), form)
    for image in images:
        for want, have in zip(run(network, image), run(tmp_path / "q.onnx", image), strict=True):
            error = np.sqrt(np.mean((want - have) ** 2) / np.mean(want**2))
            assert 0 < error < 0.05


def test_bright_images_do_not_overflow(network, tmp_path):
    """Where a processor adds products in int16, 8 bits would: white images and weights of one sign are the worst."""
    write_network(tmp_path / "model.onnx", weight=np.full((8, 3, 3, 3), 0.5, dtype=np.float32))
    white = [np.full((1, 3, 8, 8), value, dtype=np.float32) for value in (1.0, 0.9)]
    write_qdq(calibrate(tmp_path / "model.onnx", white), tmp_path / "q.onnx", BEST, UINT8)
    outputs = (run(tmp_path / "q.onnx", white[0], optimized=optimized) for optimized in (True, False))
    for fused, exact in zip(*outputs, strict=True):
        assert np.abs(fused - exact).max() <= 0.02 * np.abs(exact).max()


def test_same_recipe_same_bytes_whatever_was_written_before(network, calibrated, tmp_path):
    for number, recipe in enumerate([BEST, Recipe("per_tensor-percentile_99.9", "convolutions", ("/stem",)), BEST]):
        write_qdq(calibrated, tmp_path / f"{number}.onnx", recipe, UINT8)
    texts = [(tmp_path / f"{number}.onnx").read_bytes() for number in range(3)]
    assert texts[0] == texts[2] != texts[1]
    # Another process has other hashes of strings, so other orders of sets.
    code = f"""
import numpy as np
from pathlib import Path
from plumbline.quantization.qdq import *
rng = np.random.default_rng(0)
images = [rng.uniform(0, 1, (1, 3, 8, 8)).astype(np.float32) for _ in range(4)]
calibrated = calibrate(Path({str(network)!r}), images)
write_qdq(calibrated, Path({str(tmp_path / "3.onnx")!r}), Recipe({METHODS[0]!r}, "all"), UINT8)
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONHASHSEED": "7"})
    assert (tmp_path / "3.onnx").read_bytes() == texts[0]


@pytest.mark.parametrize("backend", [onnx_backend, openvino_backend])
def test_engines_tell_which_products_they_compute_in_int8(network, images, tmp_path, backend):
    quantizer = backend.quantizer(network, images, tmp_path, "")
    assert [block.name for block in quantizer.blocks] == ["/stem", "/body", "/head"]
    assert [block.share for block in quantizer.blocks] == pytest.approx([8 * 27 / 288, 32 / 288, 40 / 288])
    (tmp_path / "all").mkdir()
    written = quantizer.write(tmp_path / "all", BEST)
    assert (written.num_convolutions, written.num_int8, written.float_names) == (3, 3, ())
    (tmp_path / "some").mkdir()
    written = quantizer.write(tmp_path / "some", Recipe(METHODS[0], "all", ("/body",)))
    assert (written.num_int8, written.float_names) == (2, ("/body/conv/Conv",))


def test_nodes_without_names_get_some(images, tmp_path):
    network = write_network(tmp_path / "model.onnx", named=False)
    calibrated = calibrate(network, images)
    assert calibrated.products == ("Conv:a", "Conv:y", "MatMul:z")
    assert [block.name for block in calibrated.blocks] == ["Conv:a", "Conv:y", "MatMul:z"]
    write_qdq(calibrated, tmp_path / "q.onnx", Recipe(METHODS[0], "all", ("Conv:a",)), UINT8)
    assert "w1" in initializers(tmp_path / "q.onnx")
    assert "w2_quantized" in initializers(tmp_path / "q.onnx")


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe("entropy", "all"), r"unknown method 'entropy', expected one of: per_channel-minmax, "),
        (Recipe(METHODS[0], "some"), r"unknown operators 'some', expected one of: all, convolutions"),
        (
            Recipe(METHODS[0], "all", ("/tail",)),
            r"unknown block '/tail', expected one of: /stem, /body, /head",
        ),
    ],
)
def test_a_recipe_with_unknown_words_is_refused(calibrated, tmp_path, recipe, message):
    with pytest.raises(BackendError, match=message):
        write_qdq(calibrated, tmp_path / "q.onnx", recipe, UINT8)
    assert not list(tmp_path.iterdir())


def test_no_image_and_no_number_are_refused(network, images, tmp_path):
    with pytest.raises(BackendError, match=r"model\.onnx: no images to calibrate on"):
        calibrate(network, [])
    broken = write_network(tmp_path / "nan.onnx", weight=np.full((8, 3, 3, 3), np.nan, dtype=np.float32))
    with pytest.raises(BackendError, match=r"tensor a: a value is not finite"):
        calibrate(broken, images)


def test_a_network_without_products_is_refused(tmp_path):
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 3, 8, 8)) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", ports[:1], ports[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    with pytest.raises(BackendError, match="no convolution or matrix product"):
        calibrate(tmp_path / "m.onnx", [np.zeros((1, 3, 8, 8), np.float32)])


def test_multiply_adds_of_a_detector_are_those_that_torch_counts(hubs):
    from plumbline.networks import count_gflops
    from plumbline.tasks import task_module
    from plumbline.trained import WEIGHTS

    folder = hubs["yolo11n"]
    hub = folder / "hub" / "model.onnx"
    calibrated = calibrate(hub, [np.random.default_rng(0).uniform(size=(1, 3, 96, 96)).astype(np.float32)])
    first = 16 * 3 * 3 * 3 * 48 * 48
    network = task_module("detect", "network").load_network(folder / "weights" / WEIGHTS)
    expected = first / (count_gflops(network) * 1e9 / 2)
    share = {block.name: block.share for block in calibrated.blocks}
    assert share["/body.0"] == pytest.approx(expected, rel=1e-3)
    kinds = {node.name: node.op_type for node in calibrated.model.graph.node}
    assert set(calibrated.block_of) == set(kinds)
    assert set(calibrated.block_of.values()) == set(share)
    assert {kinds[name] for name in calibrated.products} == {"Conv", "MatMul"} <= set(PRODUCTS)


NAMES = st.lists(st.lists(st.sampled_from("abcde"), min_size=1, max_size=4).map(tuple), min_size=1, max_size=60)


@given(NAMES, st.randoms(use_true_random=False))
def test_blocks_divide_all_operators(paths, random):
    operators = [
        Operator(f"/{'/'.join(path)}/Conv_{number}", random.choice([0, 1, 1, 5, 100]), (f"/{number - 1}",))
        for number, path in enumerate(paths)
    ]
    if not any(operator.multiply_adds for operator in operators):
        return
    blocks, block_of = group_into_blocks(operators)
    assert sum(block.share for block in blocks) == pytest.approx(1)
    assert set(block_of) == {operator.name for operator in operators}
    assert {block.name for block in blocks} == set(block_of.values())
    total = sum(operator.multiply_adds for operator in operators)
    for block in blocks:
        own = sum(operator.multiply_adds for operator in operators if block_of[operator.name] == block.name)
        assert block.share == pytest.approx(own / total)
        inside = [operator for operator in operators if block_of[operator.name] == block.name]
        assert all(operator.name.startswith(f"{block.name}/") for operator in inside if operator.multiply_adds)
    assert len(blocks) <= MOST


def test_a_large_module_is_divided_and_small_ones_are_not():
    operators = [Operator(f"/features/features.{n}/conv/Conv", 10, ()) for n in range(18)]
    operators.append(Operator("/features/Add", 0, ("/features/features.17/conv/Conv",)))
    operators.append(Operator("/classifier/a/Gemm", 1, ()))
    operators.append(Operator("/classifier/b/Gemm", 1, ()))
    blocks, block_of = group_into_blocks(operators)
    assert [block.name for block in blocks] == [*(f"/features/features.{n}" for n in range(18)), "/classifier"]
    assert block_of["/features/Add"] == "/features/features.17"


def test_few_modules_are_divided_as_far_as_they_go():
    operators = [Operator(f"/layer{n}/layer{n}.{m}/Conv", 1, ()) for n in range(4) for m in range(3)]
    # Four, then six, eight, ten: the last of the four need not be divided for the number, but for its share.
    assert len(group_into_blocks(operators)[0]) == 12 >= FEWEST
    small = [*operators[:9], Operator("/layer3/layer3.0/Conv", 1, ()), Operator("/head/Gemm", 20, ())]
    assert [block.name for block in group_into_blocks(small)[0]][-2:] == ["/layer3", "/head"]
    assert len(group_into_blocks(operators[:2])[0]) == 2
