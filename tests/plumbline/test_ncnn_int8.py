"""int8 for NCNN: against a simulation in numpy's integers, and through the ncnn that loads the files."""

from __future__ import annotations

import stat
from types import SimpleNamespace

import ncnn
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from plumbline.backends import ncnn as backend
from plumbline.backends.ncnn.calibration import calibrate, names_in_hub
from plumbline.backends.ncnn.files import Layer, Network, Tensor, read_network, write_network
from plumbline.backends.ncnn.int8 import can_be_int8, is_int8, quantize_network, scales_of, to_int8
from plumbline.errors import BackendError
from plumbline.quantization.recipes import Recipe
from plumbline.runtime.artifact import read_artifact
from plumbline.runtime.preprocess import preprocess

METHODS = (
    "per_channel-minmax",
    "per_channel-percentile_99.99",
    "per_channel-mse",
    "per_tensor-minmax",
    "per_tensor-percentile_99.9",
)


def save(network, folder):
    folder.mkdir(exist_ok=True)
    write_network(network, folder / backend.PARAM, folder / backend.BIN)
    return folder


def run(network, folder, x):
    """Return what ncnn makes of one input."""
    extractor = backend._load(save(network, folder), 1).create_extractor()
    extractor.input("in0", ncnn.Mat(x).clone())
    code, mat = extractor.extract("out0")
    assert code == 0
    return np.array(mat)


def one_layer(kind, params, weights, bias):
    layer = Layer(kind, "it", ("in0",), ("out0",), {number: str(value) for number, value in params.items()})
    tensors = (Tensor(weights.ravel(), tagged=True), *([] if bias is None else [Tensor(bias)]))
    return Network((Layer("Input", "i", (), ("in0",)), layer), ((), tensors))


def round_half_away(values):
    return np.sign(values) * np.floor(np.abs(values) + 0.5)


def levels(values, absmax):
    """Quantize as the rule is, in float64: an own implementation."""
    return np.clip(round_half_away(values.astype(np.float64) * 127 / absmax), -127, 127).astype(np.int64)


def correlate(x, weights, stride, pad, dilation, groups):
    """Convolve integers exactly, one tap of the kernel at a time."""
    channels_out, channels_in, kernel_h, kernel_w = weights.shape
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    reach = [dilation * (k - 1) + 1 for k in (kernel_h, kernel_w)]
    height, width = ((size - r) // stride + 1 for size, r in zip(padded.shape[1:], reach, strict=True))
    total = np.zeros((channels_out, height, width), dtype=np.int64)
    per_group = channels_out // groups
    for out in range(channels_out):
        first = out // per_group * channels_in
        for i in range(kernel_h):
            for j in range(kernel_w):
                y, z = i * dilation, j * dilation
                window = padded[
                    first : first + channels_in, y : y + stride * height : stride, z : z + stride * width : stride
                ]
                total[out] += np.tensordot(weights[out, :, i, j], window[:, :height, :width], axes=1)
    return total


# in, out, kernel, stride, pad, dilation, groups: what networks are made of, and sizes that no kernel is made for.
CONVOLUTIONS = [
    (16, 16, 3, 1, 1, 1, 1),  # Winograd
    (64, 64, 3, 1, 1, 1, 1),
    (64, 32, 1, 1, 0, 1, 1),
    (3, 16, 3, 2, 1, 1, 1),
    (8, 24, 3, 2, 1, 1, 1),
    (16, 8, 1, 2, 0, 1, 1),
    (5, 7, 3, 1, 1, 2, 1),
    (6, 10, 5, 2, 2, 1, 1),
    (1, 1, 7, 1, 3, 1, 1),
    (16, 16, 3, 1, 1, 1, 16),  # depthwise
    (16, 16, 3, 2, 1, 1, 16),
    (7, 7, 5, 1, 2, 1, 7),
]


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("shape", CONVOLUTIONS, ids=str)
def test_a_convolution_is_ncnns_own_integer_arithmetic(tmp_path, shape, per_channel):
    num_in, num_out, kernel, stride, pad, dilation, groups = shape
    rng = np.random.default_rng(1)
    x = rng.normal(size=(num_in, 13, 11)).astype(np.float32)
    # Channels of very different size: one scale for all is then another result.
    spread = (2.0 ** rng.integers(-3, 4, num_out)).astype(np.float32)
    weights = (
        rng.normal(size=(num_out, num_in // groups, kernel, kernel)).astype(np.float32) * spread[:, None, None, None]
    )
    bias = rng.normal(size=num_out).astype(np.float32)
    kind = "Convolution" if groups == 1 else "ConvolutionDepthWise"
    params = {0: num_out, 1: kernel, 2: dilation, 3: stride, 4: pad, 5: 1, 6: weights.size}
    network = one_layer(kind, params | ({7: groups} if groups > 1 else {}), weights, bias)
    # Some of the input lies beyond: it is clipped.
    clip = float(np.abs(x).max()) * 0.9
    int8 = quantize_network(network, {"it": clip}, per_channel=per_channel)
    assert is_int8(int8.layers[1])

    absmax = np.abs(weights).reshape(groups if groups > 1 else num_out, -1).max(axis=1)
    absmax = np.repeat(absmax if per_channel else np.full_like(absmax, absmax.max()), num_out // len(absmax))
    kept = levels(weights, absmax[:, None, None, None])
    sums = correlate(levels(x, clip), kept, stride, pad, dilation, groups)
    expected = sums * (clip / 127 * absmax / 127)[:, None, None] + bias[:, None, None]
    got = run(int8, tmp_path / "int8", x)
    assert got.shape == expected.shape
    # A hundredth of one step of one product: one level more or less anywhere would show. Of depthwise ones, ncnn takes
    # the scale's reciprocal to 12 bits where channels come in eights.
    step, bits = (clip / 127 * absmax / 127)[:, None, None], 4e-4 if groups > 1 else 0.0
    assert (np.abs(got - expected) <= (0.01 + bits * np.abs(sums)) * step + 1e-5 * np.abs(expected)).all()

    near = run(network, tmp_path / "float", x)
    assert not np.allclose(near, got, rtol=1e-4, atol=1e-4), "int8 differs from float, or it is not int8"
    assert np.corrcoef(near.ravel(), got.ravel())[0, 1] > 0.95


@pytest.mark.parametrize("shape", [(24, 10), (7, 5), (512, 3)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_an_inner_product_is_ncnns_own_integer_arithmetic(tmp_path, shape, with_bias):
    num_in, num_out = shape
    rng = np.random.default_rng(2)
    x, weights = rng.normal(size=num_in).astype(np.float32), rng.normal(size=(num_out, num_in)).astype(np.float32)
    bias = rng.normal(size=num_out).astype(np.float32) if with_bias else None
    network = one_layer("InnerProduct", {0: num_out, 1: int(with_bias), 2: weights.size}, weights, bias)
    absmax, clip = np.abs(weights).max(axis=1), float(np.abs(x).max())
    step = clip / 127 * absmax / 127
    expected = (levels(weights, absmax[:, None]) @ levels(x, clip)) * step + (bias if with_bias else 0)
    got = run(quantize_network(network, {"it": clip}, per_channel=True), tmp_path / "int8", x)
    assert (np.abs(got - expected) <= 0.01 * step + 1e-5 * np.abs(expected)).all()
    assert not np.allclose(got, run(network, tmp_path / "float", x), rtol=1e-5)


WEIGHTS = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
    elements=st.floats(-(2.0**99), 2.0**99, width=32),
)


@given(WEIGHTS)
def test_quantized_weights_are_within_half_a_step(weights):
    scales = scales_of(np.abs(weights).max(axis=1))
    assert (np.isfinite(scales) & (scales > 0)).all()
    kept = to_int8(weights, scales[:, None])
    assert np.abs(kept.astype(int)).max() <= 127
    error = np.abs(kept / scales.astype(np.float64)[:, None] - weights)
    largest = np.abs(weights).max(axis=1, keepdims=True).astype(np.float64)
    assert (error <= largest * (0.5 / 127) * (1 + 1e-5) + 1e-37).all()


@given(hnp.arrays(np.float32, st.integers(1, 20), elements=st.floats(-300, 300, width=32)))
def test_quantizing_is_odd_and_keeps_the_order(values):
    got = to_int8(values, 1.0)
    np.testing.assert_array_equal(to_int8(-values, 1.0), -got)
    assert (np.diff(got[np.argsort(values, kind="stable")].astype(int)) >= 0).all()


def test_a_layer_whose_weights_are_all_zero_gives_its_bias(tmp_path):
    network = one_layer("Convolution", {0: 2, 1: 1, 5: 1, 6: 6}, np.zeros(6, np.float32), np.array([1, -2], np.float32))
    got = run(quantize_network(network, {"it": 0.0}, per_channel=True), tmp_path / "n", np.ones((3, 4, 4), np.float32))
    np.testing.assert_array_equal(got, np.broadcast_to(np.array([1, -2], np.float32)[:, None, None], (2, 4, 4)))


@pytest.mark.parametrize(
    ("kind", "params", "able"),
    [
        ("Convolution", {}, True),
        ("Convolution", {19: "1"}, False),  # its weights come from another layer
        ("Convolution", {18: "0.5"}, False),  # padded with what is no 0
        ("ConvolutionDepthWise", {0: "8", 1: "3", 6: "72", 7: "8"}, True),
        ("ConvolutionDepthWise", {0: "8", 1: "3", 11: "1", 6: "24", 7: "8"}, True),
        # Grouped: with 8 channels or more in each group, ncnn 1.0.20261020 gives what lay in memory before.
        ("ConvolutionDepthWise", {0: "16", 1: "3", 6: "1152", 7: "2"}, False),
        ("ConvolutionDepthWise", {0: "16", 1: "3", 6: "144", 7: "8"}, False),
        ("InnerProduct", {}, True),
        ("Deconvolution", {}, False),
        ("MatMul", {}, False),
    ],
)
def test_which_layers_can_be_int8(kind, params, able):
    assert can_be_int8(Layer(kind, "n", ("a",), ("b",), params)) is able


@pytest.fixture(scope="module")
def hub(hubs):
    return hubs["yolo11n"] / "hub"


@pytest.fixture(scope="module")
def tensors(hub, photos):
    spec = read_artifact(hub)
    return [preprocess(photo, spec.input.size_wh, spec.preprocessing)[0] for photo in photos]


@pytest.fixture(scope="module")
def quantizer(hub, tensors, tmp_path_factory):
    return backend.quantizer(hub / "model.onnx", tensors, tmp_path_factory.mktemp("work"), "")


@pytest.fixture(scope="module")
def fp32(hub, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fp32")
    backend.export(hub / "model.onnx", folder, "fp32", "")
    return folder


def written(quantizer, folder, method=METHODS[0], float_blocks=()):
    folder.mkdir()
    return quantizer.write(folder, Recipe(method, "convolutions", float_blocks))


def outputs(folder, hub, tensor):
    return backend.open_session(folder, read_artifact(hub), 1)(tensor)


def test_the_quantizer_says_what_it_can(quantizer):
    assert quantizer.methods == METHODS
    assert quantizer.operators == ("convolutions",)
    names = [block.name for block in quantizer.blocks]
    assert 10 <= len(names) <= 40
    assert len(set(names)) == len(names)
    assert names[0] == "/body.1", "the first layer reads the image: it is slower in int8"
    assert 0.9 < sum(block.share for block in quantizer.blocks) < 1


def test_int8_is_what_ncnn_is_given(quantizer, hub, tmp_path):
    told = written(quantizer, tmp_path / "a")
    network = read_network(tmp_path / "a" / backend.PARAM, tmp_path / "a" / backend.BIN)
    int8 = [layer for layer in network.layers if is_int8(layer)]
    assert {layer.type for layer in int8} == {"Convolution"}
    assert (told.num_int8, told.num_convolutions) == (len(int8), len(int8) + len(told.float_names))
    assert told.num_int8 == 79
    assert told.float_names[:2] == ("/body.0/conv/Conv", "/body.10/m/m.0/attn/pe/conv/Conv")
    depthwise = [layer.name for layer in network.layers if layer.type == "ConvolutionDepthWise"]
    assert set(depthwise) <= set(told.float_names)
    for layer, own in zip(network.layers, network.tensors, strict=True):
        if layer in int8:
            assert [tensor.values.dtype for tensor in own] == [np.int8, np.float32, np.float32, np.float32]
        else:
            assert all(tensor.values.dtype == np.float32 for tensor in own)
    assert sum(f.stat().st_size for f in (tmp_path / "a").iterdir()) < 0.3 * (hub / "model.onnx").stat().st_size


@pytest.mark.parametrize("method", METHODS)
def test_outputs_stay_near(quantizer, fp32, hub, tensors, tmp_path, method):
    written(quantizer, tmp_path / "int8", method)
    before = tensors[0].copy()
    pairs = zip(outputs(tmp_path / "int8", hub, before), outputs(fp32, hub, before), strict=True)
    for got, want in pairs:
        assert np.corrcoef(got.ravel(), want.ravel())[0, 1] > 0.9
        assert not np.array_equal(got, want)
    np.testing.assert_array_equal(before, tensors[0])


def test_blocks_in_float_are_the_float_network(quantizer, fp32, hub, tensors, tmp_path):
    every = tuple(block.name for block in quantizer.blocks)
    all_float = written(quantizer, tmp_path / "all", float_blocks=every)
    assert all_float.num_int8 == 0
    assert (tmp_path / "all" / backend.BIN).read_bytes() == (fp32 / backend.BIN).read_bytes()
    for got, want in zip(outputs(tmp_path / "all", hub, tensors[0]), outputs(fp32, hub, tensors[0]), strict=True):
        np.testing.assert_array_equal(got, want)

    some = written(quantizer, tmp_path / "some", float_blocks=("/body.2",))
    none = written(quantizer, tmp_path / "none")
    assert set(some.float_names) - set(none.float_names) == {
        f"/body.2/{name}/conv/Conv" for name in ("cv1", "m.0/cv1", "m.0/cv2", "cv2")
    }


def test_the_same_recipe_gives_the_same_bytes(quantizer, tmp_path):
    written(quantizer, tmp_path / "a", "per_channel-mse")
    written(quantizer, tmp_path / "b", "per_tensor-minmax")
    written(quantizer, tmp_path / "c", "per_channel-mse")
    a, b, c = ((tmp_path / name / backend.BIN).read_bytes() for name in "abc")
    assert a == c != b


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (Recipe("entropy", "convolutions"), "unknown method 'entropy', expected one of: per_channel-minmax, "),
        (Recipe(METHODS[0], "all"), "unknown operators 'all', expected one of: convolutions;"),
        (Recipe(METHODS[0], "convolutions", ("/body.99",)), "unknown block '/body.99', expected one of: /body.1, "),
    ],
)
def test_an_unknown_recipe_is_refused(quantizer, tmp_path, recipe, said):
    with pytest.raises(BackendError, match=said):
        quantizer.write(tmp_path, recipe)
    assert list(tmp_path.iterdir()) == []


def small_network(kind="Convolution"):
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(4, 4, 1, 1)).astype(np.float32)
    return one_layer(kind, {0: 4, 1: 1, 6: weights.size} if kind == "Convolution" else {}, weights, None)


def calibrated_small(hub, folder, tensors, network=None):
    network = network or small_network()
    net = backend._load(save(network, folder), 1, keep_blobs=True)
    return calibrate(hub / "model.onnx", network, net, tensors)


def test_calibration_sees_what_a_layer_reads(hub, tmp_path):
    tensors = [np.full((1, 4, 5, 5), value, dtype=np.float32) for value in (0.5, -3.0, 2.0)]
    seen = calibrated_small(hub, tmp_path, tensors)
    assert seen.blob_of == {"it": "in0"}
    assert seen.ranges.absmax("in0", "minmax") == 3.0


def test_no_images_nan_and_nothing_to_do_are_told(hub, tmp_path):
    with pytest.raises(BackendError, match="no image to calibrate on"):
        calibrated_small(hub, tmp_path / "a", [])
    with pytest.raises(BackendError, match="not finite"):
        calibrated_small(hub, tmp_path / "b", [np.full((1, 4, 5, 5), np.nan, dtype=np.float32)])
    relu = Network((Layer("Input", "i", (), ("in0",)), Layer("ReLU", "r", ("in0",), ("out0",))), ((), ()))
    with pytest.raises(BackendError, match="NCNN has an int8 form for none of its layers"):
        calibrated_small(hub, tmp_path / "c", [np.ones((1, 4, 5, 5), np.float32)], relu)


def test_layers_get_the_hubs_names(quantizer, hub, tmp_path):
    written(quantizer, tmp_path / "a", float_blocks=())
    network = read_network(tmp_path / "a" / backend.PARAM, tmp_path / "a" / backend.BIN)
    named = [layer.name for layer in network.layers if layer.type in ("Convolution", "ConvolutionDepthWise")]
    assert len(set(named)) == len(named) == 87
    assert all(name.startswith("/") and name.endswith("/Conv") for name in named)
    # A layer that the hub does not know keeps its own.
    assert names_in_hub(hub / "model.onnx", small_network()) == ["i", "it"]


def test_an_engine_whose_first_layer_works_in_place_leaves_its_input(tmp_path):
    relu = Network((Layer("Input", "i", (), ("in0",)), Layer("ReLU", "r", ("in0",), ("out0",))), ((), ()))
    engine = backend.open_session(save(relu, tmp_path / "n"), SimpleNamespace(outputs=SimpleNamespace(names=("o",))), 1)
    tensor = np.full((1, 3, 4, 4), -1, dtype=np.float32)
    assert engine(tensor)[0].max() == 0
    assert (tensor == -1).all()


def fake_pnnx(folder, monkeypatch, script):
    import pnnx

    program = folder / "pnnx"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(pnnx, "EXEC_PATH", str(program))


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo pass 1; echo about to fold >&2; kill -SEGV $$", r"\(killed by SIGSEGV: about to fold\)"),
        ("seq 1 9 >&2; exit 3", r"\(exit 3: 7 \| 8 \| 9\)"),
        ("exit 4", r"\(exit 4: it said nothing\)"),
        ("true", "pnnx wrote no file for NCNN"),
    ],
)
def test_a_crash_of_the_converter_is_told_with_its_last_lines(hub, tmp_path, monkeypatch, script, said):
    fake_pnnx(tmp_path, monkeypatch, script)
    (tmp_path / "out").mkdir()
    with pytest.raises(BackendError, match=said) as caught:
        backend.export(hub / "model.onnx", tmp_path / "out", "fp32", "")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_converter_that_cannot_be_started_is_told(hub, tmp_path, monkeypatch):
    import pnnx

    monkeypatch.setattr(pnnx, "EXEC_PATH", str(tmp_path / "gone"))
    with pytest.raises(BackendError, match="gone cannot be started"):
        backend.export(hub / "model.onnx", tmp_path, "fp32", "")


@pytest.mark.parametrize("kind", ["Tensor.reshape", "NoSuchLayer"])
def test_what_ncnn_cannot_run_ends_in_its_own_process(tmp_path, kind):
    layers = (Layer("Input", "i", (), ("in0",)), Layer(kind, "l", ("in0",), ("out0",)))
    folder = save(Network(layers, ((), ())), tmp_path / "n")
    with pytest.raises(BackendError, match=r"ncnn cannot run what pnnx made of the network \((exit|killed by)"):
        backend._try_out(folder, [1, 3, 8, 8], 1)


def test_what_ncnn_can_run_passes(tmp_path):
    backend._try_out(save(small_network(), tmp_path / "n"), [1, 4, 8, 8], 1)
