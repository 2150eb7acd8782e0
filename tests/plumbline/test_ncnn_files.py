"""NCNN's two files: byte by byte, and against the ncnn that loads them."""

from __future__ import annotations

import struct

import ncnn
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plumbline.backends import ncnn as backend
from plumbline.backends.ncnn.files import TENSORS, Layer, Network, Tensor, read_layers, read_network, write_network
from plumbline.errors import BackendError

# For each type parameters under which ncnn loads weights, and the floats that it then takes (tags are counted apart).
LAYERS = [
    ("BatchNorm", {0: "5"}, 20, 0),
    ("Bias", {0: "6"}, 6, 0),
    ("Convolution", {0: "4", 1: "3", 5: "1", 6: "72"}, 76, 1),
    ("Convolution", {0: "4", 1: "3", 6: "72"}, 72, 1),
    ("Convolution", {0: "4", 1: "3", 6: "72", 19: "1"}, 0, 0),
    ("Convolution1D", {0: "4", 1: "3", 5: "1", 6: "24"}, 28, 1),
    ("ConvolutionDepthWise", {0: "4", 1: "3", 5: "1", 6: "36", 7: "4"}, 40, 1),
    ("Deconvolution", {0: "4", 1: "2", 5: "1", 6: "48"}, 52, 1),
    ("Deconvolution", {0: "4", 1: "2", 6: "48", 28: "1"}, 0, 0),
    ("DeconvolutionDepthWise", {0: "4", 1: "2", 5: "1", 6: "16", 7: "4"}, 20, 1),
    ("Gemm", {3: "1", 5: "1", 6: "1", 8: "3", 9: "4", 10: "4"}, 15, 2),
    ("Gemm", {3: "1", 5: "1", 6: "1", 8: "3", 9: "4", 10: "-1"}, 12, 1),
    ("GroupNorm", {0: "2", 1: "6"}, 12, 0),
    ("GroupNorm", {0: "2", 1: "6", 3: "0"}, 0, 0),
    ("InnerProduct", {0: "3", 1: "1", 2: "12"}, 15, 1),
    ("InstanceNorm", {0: "6"}, 12, 0),
    ("LayerNorm", {0: "6"}, 12, 0),
    ("LayerNorm", {0: "6", 2: "0"}, 0, 0),
    ("MemoryData", {0: "3", 1: "4"}, 12, 0),
    ("MemoryData", {0: "3", 1: "4", 2: "2"}, 24, 0),
    ("MemoryData", {0: "3", 1: "4", 2: "2", 11: "2"}, 48, 0),
    ("MultiHeadAttention", {0: "4", 1: "2", 2: "16"}, 80, 4),
    ("MultiHeadAttention", {0: "4", 1: "2", 2: "24", 3: "5", 4: "3"}, 98, 4),
    ("PReLU", {0: "7"}, 7, 0),
    ("Scale", {0: "6"}, 6, 0),
    ("Scale", {0: "6", 1: "1"}, 12, 0),
    ("Softmax", {0: "0"}, 0, 0),
]


def filled(layer, rng):
    """Return tensors that a float layer's parameters ask for, with values that are no tag."""
    sizes = TENSORS[layer.type](layer) if layer.type in TENSORS else []
    return tuple(Tensor(rng.uniform(1, 2, size).astype(np.float32), tagged) for size, tagged in sizes)


def paths(folder):
    return folder / "model.param", folder / "model.bin"


def load(folder):
    net = ncnn.Net()
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    assert net.load_param(str(folder / "model.param")) == 0
    assert net.load_model(str(folder / "model.bin")) == 0
    return net


@pytest.mark.parametrize(("kind", "params", "num_floats", "num_tags"), LAYERS)
def test_ncnn_reads_as_many_bytes_as_the_table_says(tmp_path, kind, params, num_floats, num_tags):
    """After the layer comes one whose weight is known: ncnn finds it only if it stands where ncnn looks."""
    rng = np.random.default_rng(0)
    inputs = () if kind == "MemoryData" else ("a",)
    layer = Layer(kind, "it", inputs, ("x",), params)
    after = Layer("InnerProduct", "after", ("b",), ("y",), {0: "1", 2: "1"})
    own = filled(layer, rng)
    known = (Tensor(np.array([42], np.float32), tagged=True),)
    inputs_ = [Layer("Input", name, (), (name,)) for name in "ab"]
    network = Network((*inputs_, layer, after), ((), (), own, known))
    write_network(network, *paths(tmp_path))
    assert (tmp_path / "model.bin").stat().st_size == 4 * (num_floats + num_tags) + 8
    extractor = load(tmp_path).create_extractor()
    extractor.input("b", ncnn.Mat(np.array([2], np.float32)).clone())
    code, mat = extractor.extract("y")
    assert code == 0
    assert np.array(mat).tolist() == [84]


def test_every_type_with_tensors_is_held_against_ncnn():
    assert {kind for kind, *_ in LAYERS} >= set(TENSORS)


def test_float16_and_int8_are_padded_to_four_bytes():
    assert Tensor(np.array([1.0, -2.0, 0.5], np.float16), tagged=True).to_bytes() == bytes.fromhex(
        "476b3001 003c 00c0 0038 0000"
    )
    assert Tensor(np.array([-127], np.int8), tagged=True).to_bytes() == bytes.fromhex("384b0d00 81000000")


def test_an_int8_convolution_byte_by_byte(tmp_path):
    layer = Layer("Convolution", "c", ("a",), ("x",), {0: "2", 1: "1", 5: "1", 6: "6", 8: "2"})
    weights = (
        Tensor(np.array([1, 2, 3, -4, -5, -127], np.int8), tagged=True),
        Tensor(np.array([0.5, -0.5], np.float32)),
        Tensor(np.array([127.0, 63.5], np.float32)),
        Tensor(np.array([31.75], np.float32)),
    )
    network = Network((Layer("Input", "i", (), ("a",)), layer), ((), weights))
    write_network(network, *paths(tmp_path))
    expected = struct.pack("<I6b2x2f2ff", 0x000D4B38, 1, 2, 3, -4, -5, -127, 0.5, -0.5, 127.0, 63.5, 31.75)
    assert (tmp_path / "model.bin").read_bytes() == expected
    assert (tmp_path / "model.param").read_text() == (
        "7767517\n2 2\n"
        "Input                    i                        0 1 a\n"
        "Convolution              c                        1 1 a x 0=2 1=1 5=1 6=6 8=2\n"
    )
    same(read_network(*paths(tmp_path)), network)


def same(one, other):
    assert one.layers == other.layers
    for mine, theirs in zip(one.tensors, other.tensors, strict=True):
        for a, b in zip(mine, theirs, strict=True):
            assert a.tagged == b.tagged
            assert a.values.dtype == b.values.dtype
            np.testing.assert_array_equal(a.values, b.values)


def int8_layers():
    """Layers of all three int8 forms, with and without bias."""
    sizes = st.tuples(st.integers(1, 5), st.integers(1, 4), st.sampled_from([1, 3]), st.integers(0, 1))
    terms = st.sampled_from([0, 1, 2, 101, 102])

    def convolution(size, term):
        num_output, num_input, kernel, bias = size
        params = {0: num_output, 1: kernel, 5: bias, 6: num_output * num_input * kernel**2, 8: term}
        num_scales = num_output if term else 0
        return Layer("Convolution", "c", ("a",), ("x",), {k: str(v) for k, v in params.items()}), num_scales

    def depthwise(size, term):
        groups, _, kernel, bias = size
        params = {0: groups, 1: kernel, 5: bias, 6: groups * kernel**2, 7: groups, 8: term}
        num_scales = {0: 0, 1: groups, 2: 1}[term % 100]
        return Layer("ConvolutionDepthWise", "c", ("a",), ("x",), {k: str(v) for k, v in params.items()}), num_scales

    return st.one_of(st.builds(convolution, sizes, terms), st.builds(depthwise, sizes, terms))


@given(st.lists(int8_layers(), min_size=1, max_size=4), st.integers(0, 2**32 - 1))
def test_what_is_written_is_read_and_no_byte_is_left(tmp_path_factory, layers, seed):
    rng = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("n")
    tensors = []
    for layer, num_scales in layers:
        term, size = layer.integer(8), layer.integer(6)
        int8 = rng.integers(-127, 128, size).astype(np.int8)
        floats = [layer.integer(0)] * layer.integer(5) + ([num_scales, 1] if term else []) + [1] * (term > 100)
        weights = Tensor(int8 if term else int8.astype(np.float32), tagged=True)
        tensors.append((weights, *(Tensor(rng.normal(size=n).astype(np.float32)) for n in floats)))
    network = Network(tuple(layer for layer, _ in layers), tuple(tensors))
    write_network(network, *paths(folder))
    again = read_network(*paths(folder))
    same(again, network)
    num_bytes = sum(4 * tensor.tagged + -(-tensor.values.nbytes // 4) * 4 for own in tensors for tensor in own)
    assert (folder / "model.bin").stat().st_size == num_bytes


@pytest.fixture(scope="module")
def exported(hubs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    for precision in ("fp32", "fp16"):
        (folder / precision).mkdir()
        backend.export(hubs["yolo11n"] / "hub" / "model.onnx", folder / precision, precision, "")
    return folder


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_pnnx_files_are_read_and_written_again_to_the_byte(exported, tmp_path, precision):
    source = exported / precision
    write_network(read_network(*paths(source)), *paths(tmp_path))
    for one, other in zip(paths(source), paths(tmp_path), strict=True):
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("change", [-4, -1, 4, 400])
def test_missing_and_left_bytes_are_refused(exported, tmp_path, change):
    param, weights = paths(exported / "fp32")
    data = weights.read_bytes()
    (tmp_path / "model.bin").write_bytes(data[:change] if change < 0 else data + bytes(change))
    expected = r"model.bin: layer .*: expected \d+ bytes at \d+, got \d+" if change < 0 else "4.* bytes are left after"
    with pytest.raises(BackendError, match=expected):
        read_network(param, tmp_path / "model.bin")


def test_a_shifted_tensor_is_refused_by_its_tag(exported, tmp_path):
    param, weights = paths(exported / "fp32")
    (tmp_path / "model.bin").write_bytes(weights.read_bytes()[4:] + bytes(4))
    with pytest.raises(
        BackendError, match=r"layer conv_\d+ \(Convolution\): expected a tensor at byte \d+, got the tag"
    ):
        read_network(param, tmp_path / "model.bin")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", r"p:1: not NCNN's text of layers, expected 7767517, got \[\]"),
        ("nn 1\n", "p:1: not NCNN's text"),
        ("7767517\n1 1\nConvolution c 1 1 a\n", "p:3: damaged"),
        ("7767517\n1 1\nConvolution c one 1 a b\n", "p:3: damaged"),
        ("7767517\n1 1\n\nConvolution c 1 1 a b 0\n", "p:4: damaged"),
    ],
)
def test_damaged_text_is_refused_with_its_line(tmp_path, text, said):
    (tmp_path / "p").write_text(text)
    with pytest.raises(BackendError, match=said):
        read_layers(tmp_path / "p")
