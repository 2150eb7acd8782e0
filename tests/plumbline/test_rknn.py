"""RKNN: the process from outside with a stand-in for the toolkit, and the real toolkit where `make rknn` was run."""

from __future__ import annotations

import gc
import json
import os
import signal

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from stand_in_rknn import write_stand_in

from plumbline.backends import rknn
from plumbline.backends.rknn import blocks, process
from plumbline.backends.rknn import toolchain as toolchains
from plumbline.errors import BackendError
from plumbline.quantization.recipes import Recipe
from plumbline.runtime import device_files
from plumbline.runtime.artifact import (
    Artifact,
    DecodeSpec,
    InputSpec,
    OutputSpec,
    Preprocessing,
    read_artifact,
    write_artifact,
)
from plumbline.runtime.device_files import device_bytes
from plumbline.runtime.preprocess import preprocess

TENSOR = np.linspace(0, 1, 48, dtype=np.float32).reshape(1, 3, 4, 4)


def write_hub(path, opset=17):
    weights = helper.make_tensor("w", TensorProto.FLOAT, (8, 3, 1, 1), np.ones(24, np.float32))
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["/a/Conv_output_0"], name="/a/Conv"),
        helper.make_node("Relu", ["/a/Conv_output_0"], ["out"], name="/a/Relu"),
    ]
    ports = [("images", (1, 3, 4, 4)), ("out", (1, 8, 4, 4))]
    given, put = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in ports)
    graph = helper.make_graph(nodes, "g", [given], [put], [weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]), str(path))
    return path


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    python = write_stand_in(tmp_path / "stand-in")
    monkeypatch.setattr(toolchains, "python_of", lambda name: python)


@pytest.fixture
def hub(tmp_path):
    return write_hub(tmp_path / "model.onnx")


@pytest.fixture
def two_outputs():
    return Artifact(
        name="target",
        task="detect",
        backend="rknn",
        precision="fp16",
        class_names=("a", "b", "c"),
        input=InputSpec("images", (4, 4)),
        preprocessing=Preprocessing(),
        outputs=OutputSpec(("box_8", "cls_8"), (8,), 1, nms_free=False),
        decode=DecodeSpec(0.5, 0.7, 300),
        files={},
        toolchain={},
        lineage={},
        notes={},
    )


def made(path):
    path.mkdir()
    return path


def files_of(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# --- with the stand-in ---


@pytest.mark.usefixtures("stand_in")
def test_float_export_writes_the_chips_file_and_what_the_simulator_needs(hub, tmp_path):
    out = made(tmp_path / "out")
    notes = rknn.export(hub, out, "fp16", "rk3588")
    assert files_of(out) == ["model.rknn", "simulator/job.json", "simulator/model.onnx"]
    assert (out / "simulator" / "model.onnx").read_bytes() == hub.read_bytes()
    assert notes == {"reproducible": False, "toolchain": {"rknn-toolkit2": "2.3.2"}, "not_on_npu": ["/b/MatMul"]}


@pytest.mark.usefixtures("stand_in")
def test_int8_is_counted_in_the_compilers_table(hub, tmp_path):
    quantizer = rknn.quantizer(hub, [TENSOR], made(tmp_path / "work"), "rk3588")
    assert [block.name for block in quantizer.blocks] == ["/a"]
    whole, none = made(tmp_path / "whole"), made(tmp_path / "none")
    written = quantizer.write(whole, Recipe("per_tensor-normal", "all"))
    assert (written.num_convolutions, written.num_int8, written.float_names) == (1, 1, ())
    quantizer.write(none, Recipe("per_tensor-normal", "all", ("/a",)))
    settings = [(folder / "simulator" / "model.quantization.cfg").read_text() for folder in (whole, none)]
    assert settings[0].startswith("custom_quantize_layers: {}\nquantize_parameters:")
    assert settings[1].startswith('custom_quantize_layers:\n    "/a/Conv_output_0": float16\nquantize_parameters:')
    assert b"/" not in (whole / "simulator" / "model.data").read_bytes(), "no path of this machine"
    job = json.loads((whole / "simulator" / "job.json").read_text())
    assert job == {"chip": "rk3588", "precision": "int8", "granularity": "layer", "algorithm": "normal"}


@pytest.mark.usefixtures("stand_in")
def test_blocks_stay_in_float_only_on_chips_that_have_float(hub, tmp_path):
    assert rknn.quantizer(hub, [TENSOR], tmp_path / "a", "rv1126b").blocks
    assert not rknn.quantizer(hub, [TENSOR], tmp_path / "b", "rv1106").blocks


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("chip", "message"),
    [
        ("aborts", r"failed at its step 'convert' \(signal 6\): E RKNN: unsupported conv /a/Conv; take"),
        ("refuses", r"\(exit code 1\): E build: not supported \| rknn-toolkit2's build gave the code -1; take"),
        ("writes-nothing", r"failed at its step 'convert' \(exit code 0"),
        ("silent", r"printed no table of operators"),
    ],
)
def test_a_converter_that_fails_is_one_error_with_its_last_lines(hub, tmp_path, chip, message):
    out = made(tmp_path / "out")
    with pytest.raises(BackendError, match=message) as caught:
        rknn.export(hub, out, "fp16", chip)
    assert "%|" not in str(caught.value)
    assert "\n" not in str(caught.value)
    if chip != "silent":
        assert not files_of(out), "nothing half-written"


@pytest.mark.usefixtures("stand_in")
def test_session_gives_the_outputs_and_its_process_ends_with_it(hub, tmp_path, two_outputs):
    out = made(tmp_path / "out")
    rknn.export(hub, out, "fp16", "rk3588")
    engine = rknn.open_session(out, two_outputs, 1)
    for scale in (1, 3):
        tensor = TENSOR * np.float32(scale)
        before = tensor.copy()
        doubled, means = engine(tensor)
        assert np.array_equal(doubled, tensor * 2)
        assert np.array_equal(means, tensor.mean(axis=(2, 3)))
        assert np.array_equal(tensor, before)
    process, home = engine._process, engine._log.parent
    assert process.poll() is None
    assert home.is_dir()
    del engine
    gc.collect()
    assert process.poll() is not None, "no process is left behind"
    assert not home.exists()


@pytest.mark.usefixtures("stand_in")
def test_session_that_dies_says_why(hub, tmp_path, two_outputs):
    out = made(tmp_path / "out")
    rknn.export(hub, out, "fp16", "dies-later")
    engine = rknn.open_session(out, two_outputs, 1)
    engine(TENSOR)
    with pytest.raises(BackendError, match=r"simulator of rknn-toolkit2 died \(exit code 1\).*RuntimeError: too large"):
        engine(TENSOR * 9)
    with pytest.raises(BackendError, match="was closed"):
        engine(TENSOR)
    killed = rknn.open_session(out, two_outputs, 1)
    os.kill(killed._process.pid, signal.SIGKILL)
    with pytest.raises(BackendError, match=r"died \(signal 9, "):
        killed(TENSOR)
    assert not killed._log.parent.exists()


@pytest.mark.usefixtures("stand_in")
def test_session_that_cannot_start_says_why(hub, tmp_path, two_outputs):
    out = made(tmp_path / "out")
    rknn.export(hub, out, "fp16", "rk3588")
    (out / "simulator" / "model.onnx").unlink()
    with pytest.raises(BackendError, match="rknn-toolkit2's load_onnx gave the code -1"):
        rknn.open_session(out, two_outputs, 1)
    (out / "simulator" / "job.json").unlink()
    with pytest.raises(BackendError, match=r"out/simulator: cannot be read .*export it again"):
        rknn.open_session(out, two_outputs, 1)


def test_another_version_of_the_toolkit_is_refused(hub, tmp_path, monkeypatch):
    python = write_stand_in(tmp_path / "stand-in", version="2.5.0")
    monkeypatch.setattr(toolchains, "python_of", lambda name: python)
    with pytest.raises(BackendError, match=r"rknn-toolkit2 2\.5\.0 is installed, expected 2\.3\.2; run `make rknn`"):
        rknn.export(hub, made(tmp_path / "out"), "fp16", "rk3588")


# --- without any toolkit ---


def test_missing_toolchain_is_one_error(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(toolchains, "folder_of", lambda name: tmp_path / "nowhere")
    with pytest.raises(BackendError, match="run `make rknn`"):
        rknn.export(hub, made(tmp_path / "out"), "fp16", "rk3588")
    with pytest.raises(BackendError, match="run `make rknn`"):
        rknn.quantizer(hub, [TENSOR], tmp_path / "work", "rk3588")
    assert not files_of(tmp_path / "out")


def test_chip_without_float_and_new_opset_are_refused(hub, tmp_path):
    with pytest.raises(BackendError, match=r"rv1106 computes in int8 alone, .* change the target in params\.yaml"):
        rknn.export(hub, tmp_path, "fp16", "rv1106")
    newer = write_hub(tmp_path / "newer.onnx", opset=20)
    with pytest.raises(BackendError, match=r"up to opset 19, got 20; lower hub\.opset"):
        rknn.export(newer, tmp_path, "fp16", "rk3588")


def test_simulators_files_do_not_count_as_the_devices(two_outputs, tmp_path):
    (tmp_path / "model.rknn").write_bytes(b"12345")
    made(tmp_path / "simulator")
    (tmp_path / "simulator" / "model.onnx").write_bytes(b"1234567")
    artifact = write_artifact(two_outputs, tmp_path)
    assert set(artifact.files) == {"model.rknn", "simulator/model.onnx"}
    assert device_bytes(artifact, tmp_path) == 5


def test_products_are_found_behind_the_compilers_names():
    rows = [
        ("Conv", "/a/Conv_ConvAdd", "INT8"),
        ("Conv", "/a/Conv_1", "FLOAT16"),
        ("exSDPAttention", "/b/MatMul_1#1_2sdpa", "INT8"),
        ("Conv", "/c/Gemm#2", "FLOAT16"),
        ("Conv", "/d/GlobalAveragePool_2conv0", "INT8"),
        ("Split", "/e/Conv", "INT8"),
    ]
    operators = [process.Operator(kind, name, data_type, "NPU") for kind, name, data_type in rows]
    names = ["/a/Conv_1", "/b/MatMul", "/b/MatMul_1", "/c/Gemm", "/e/Conv"]
    assert process.in_float(names, operators) == ["/a/Conv_1", "/c/Gemm", "/e/Conv"]


def test_last_lines_are_those_that_say_something():
    bars = "\r".join(f"I OpFusing 0: {n}%|## | {n}/100" for n in range(100))
    text = (
        f"E first\n{bars}\n\x1b[1;33mW\x1b[0m load_onnx: zeros\n\x1b[1;31mE\x1b[0m build: bad\nE build: bad\n   ^^^^\n"
    )
    assert process.last_lines(text) == ["E first", "E build: bad"]
    assert process.last_lines("\n".join(f"line {n}" for n in range(9)))[0] == "line 4"


# --- with the real toolkit ---


@pytest.fixture(scope="module")
def real(hubs, photos, tmp_path_factory):
    """The hub's artifact and folder, its input tensors and the outputs of its fp32 file."""
    try:
        toolchains.python_of("rknn")
    except BackendError as error:
        pytest.skip(f"needs RKNN's toolkit: {error}")
    from plumbline.runtime.session import load_artifact

    folder = hubs["yolo11n"] / "hub"
    artifact = read_artifact(folder)
    tensors = [preprocess(photo, artifact.input.size_wh, artifact.preprocessing)[0] for photo in photos]
    engine = load_artifact(folder).engine
    return artifact, folder / "model.onnx", tensors, [engine(tensor) for tensor in tensors]


def noise(folder, real):
    """Root mean square error of each output, as a share of its root mean square."""
    artifact, _, tensors, expected = real
    engine = rknn.open_session(folder, artifact, 1)
    got = [engine(tensor) for tensor in tensors]
    engine.close()
    for want, have in zip(expected, got, strict=True):
        assert [one.shape for one in want] == [one.shape for one in have]
    errors = [
        (np.concatenate([row[place] for row in got]), np.concatenate([row[place] for row in expected]))
        for place in range(len(artifact.outputs.names))
    ]
    return np.array([np.sqrt(np.square(have - want).mean() / np.square(want).mean()) for have, want in errors])


@pytest.fixture(scope="module")
def real_int8(real, tmp_path_factory):
    _, hub, tensors, _ = real
    return rknn.quantizer(hub, tensors, tmp_path_factory.mktemp("rknn") / "work", "rk3588")


def test_simulated_fp16_gives_the_hubs_outputs(real, tmp_path):
    notes = rknn.export(real[1], tmp_path, "fp16", "rk3588")
    assert notes["not_on_npu"] == []
    assert noise(tmp_path, real).max() < 0.0005


def test_simulated_int8_is_near_and_all_of_it_is_int8(real, real_int8, tmp_path):
    written = real_int8.write(tmp_path, Recipe("per_channel-normal", "all"))
    assert written.num_convolutions == written.num_int8 == 89
    assert written.float_names == ()
    # An untrained network's outputs are nearly constant; fp16 makes a third of this.
    assert 0.0006 < noise(tmp_path, real).max() < 0.05
    assert (tmp_path / "model.rknn").stat().st_size < 0.5 * real[1].stat().st_size


@pytest.mark.long
def test_blocks_in_float_lose_nothing_and_the_others_stay_int8(real, real_int8, tmp_path):
    names = [block.name for block in real_int8.blocks]
    classes = [name for name in names if name.startswith("/class_convs")]
    noises, counts = [], []
    for place, in_float in enumerate([(), classes, names]):
        folder = made(tmp_path / str(place))
        written = real_int8.write(folder, Recipe("per_channel-normal", "all", tuple(in_float)))
        counts.append(written.num_int8)
        noises.append(noise(folder, real))
    assert counts[0] == 89
    assert counts[1] == 89 - 15
    assert counts[2] == 0
    assert np.allclose(noises[0][0::2], noises[1][0::2]), "boxes are what they were"
    assert (noises[1][1::2] < noises[0][1::2]).all()
    assert noises[2].max() < 0.0005


@pytest.mark.long
def test_a_compiler_that_aborts_leaves_nothing(real, tmp_path):
    # A chip for sound: its compiler has no int8 convolution for this network's first layer, and aborts.
    quantizer = rknn.quantizer(real[1], real[2], tmp_path / "work", "rk2118")
    out = made(tmp_path / "out")
    with pytest.raises(BackendError, match=r"\(signal 6\): .*unsupported conv"):
        quantizer.write(out, Recipe("per_channel-normal", "all"))
    assert not files_of(out)


@pytest.mark.long
def test_two_calibrations_write_the_same_for_the_simulator(real, tmp_path):
    _, hub, tensors, _ = real
    contents = []
    for name in ("one", "two"):
        folder = made(tmp_path / name)
        rknn.quantizer(hub, tensors, tmp_path / f"work-{name}", "rk3566").write(
            folder, Recipe("per_tensor-normal", "all")
        )
        contents.append({path: (folder / path).read_bytes() for path in files_of(folder) if path != "model.rknn"})
    assert contents[0] == contents[1]


def test_blocks_cover_every_convolution(real):
    network = blocks.read_network(real[1])
    assert sum(block.share for block in network.blocks) == pytest.approx(1)
    graph = onnx.load(str(real[1])).graph
    outputs = {node.output[0] for node in graph.node if node.op_type in {"Conv", "MatMul"}}
    assert outputs <= set(network.block_of)
    assert {block.name for block in network.blocks} == {network.block_of[name] for name in outputs}


def test_what_the_simulator_needs_is_not_counted_as_the_devices():
    assert rknn.SIMULATOR == device_files.SIMULATOR
