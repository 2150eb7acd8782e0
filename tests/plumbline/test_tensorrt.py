"""`tensorrt_qdq` for real; `tensorrt` as far as it goes without TensorRT, and with a stand-in for the package."""

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from plumbline.backends import tensorrt, tensorrt_qdq
from plumbline.errors import BackendError
from plumbline.quantization.recipes import Recipe

STAND_INS = Path(__file__).parent.parent / "stand_ins"
SIZE, CHANNELS = 16, 4
ARTIFACT = SimpleNamespace(input=SimpleNamespace(name="images"), outputs=SimpleNamespace(names=("classes", "boxes")))
RECIPE = Recipe("per_channel-minmax", "all")


def write_network(path, batch=1):
    """Two convolutions, a residual connection and two outputs, with names that tell its modules."""
    rng = np.random.default_rng(0)
    shapes = {"stem.w": (CHANNELS, 3, 3, 3), "body.w": (CHANNELS, CHANNELS, 3, 3), "head.w": (2, CHANNELS, 1, 1)}
    arrays = {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}
    arrays |= {f"{name[:4]}.b": rng.normal(0, 0.1, shape[0]).astype(np.float32) for name, shape in shapes.items()}
    nodes = [
        helper.make_node("Conv", ["images", "stem.w", "stem.b"], ["a"], name="/stem/Conv", pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"], name="/stem/Relu"),
        helper.make_node("Conv", ["b", "body.w", "body.b"], ["c"], name="/body/Conv", pads=[1] * 4),
        helper.make_node("Add", ["b", "c"], ["d"], name="/body/Add"),
        helper.make_node("Conv", ["d", "head.w", "head.b"], ["classes"], name="/head/Conv"),
        helper.make_node("Sigmoid", ["d"], ["boxes"], name="/head/Sigmoid"),
    ]
    floats = {"images": 3, "boxes": CHANNELS, "classes": 2}
    values = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, channels, SIZE, SIZE])
        for name, channels in floats.items()
    }
    graph = helper.make_graph(
        nodes,
        "small",
        [values["images"]],
        [values["boxes"], values["classes"]],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


@pytest.fixture
def hub(tmp_path):
    return write_network(tmp_path / "hub.onnx")


@pytest.fixture
def tensors():
    rng = np.random.default_rng(1)
    return [rng.random((1, 3, SIZE, SIZE), dtype=np.float32) for _ in range(3)]


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def largest_error(wanted, got):
    return max(np.abs(want - have).max() / np.abs(want).max() for want, have in zip(wanted, got, strict=True))


def test_the_int8_file_is_near_the_float_one_and_says_how_to_build_it(hub, tensors, out, tmp_path):
    quantizer = tensorrt_qdq.quantizer(hub, tensors, tmp_path, "")
    written = quantizer.write(out, RECIPE)
    assert (written.num_convolutions, written.num_int8, written.float_names) == (3, 3, ())
    assert written.notes["trtexec"] == "trtexec --onnx=model.onnx --saveEngine=model.engine --int8 --fp16"
    assert written.notes["advice"] == []
    json.dumps(written.notes)
    (tmp_path / "fp32").mkdir()
    tensorrt_qdq.export(hub, tmp_path / "fp32", "fp32", "")
    reference, session = (tensorrt_qdq.open_session(folder, ARTIFACT, 1) for folder in (tmp_path / "fp32", out))
    for tensor in tensors:
        assert 0 < largest_error(reference(tensor), session(tensor)) < 0.05


def test_the_same_recipe_gives_the_same_bytes_and_another_one_others(hub, tensors, out, tmp_path):
    quantizer = tensorrt_qdq.quantizer(hub, tensors, tmp_path, "")
    contents = []
    for recipe in (RECIPE, Recipe("per_tensor-percentile_99.9", "all"), RECIPE):
        quantizer.write(out, recipe)
        contents.append((out / "model.onnx").read_bytes())
    assert contents[0] == contents[2] != contents[1]


def test_what_stays_in_float_is_named(hub, tensors, out, tmp_path):
    quantizer = tensorrt_qdq.quantizer(hub, tensors, tmp_path, "")
    assert "/body" in [block.name for block in quantizer.blocks]
    written = quantizer.write(out, Recipe("per_channel-minmax", "all", ("/body",)))
    assert (written.num_int8, written.float_names) == (2, ("/body/Conv",))


def test_every_recipe_without_clipping_is_without_fault(hub, tensors, out, tmp_path):
    quantizer = tensorrt_qdq.quantizer(hub, tensors, tmp_path, "")
    for method in quantizer.methods:
        for operators in quantizer.operators:
            written = quantizer.write(out, Recipe(method, operators))
            assert (written.notes["num_advice"] > 0) == (method.startswith("per_tensor") or operators != "all")


@pytest.mark.parametrize("model", ["yolo11n", "yolo26n"])
def test_a_real_network_is_without_fault(hubs, tmp_path, out, model):
    hub = hubs[model] / "hub" / "model.onnx"
    tensor = np.random.default_rng(0).random((1, 3, 96, 96), dtype=np.float32)
    written = tensorrt_qdq.quantizer(hub, [tensor], tmp_path, "").write(out, RECIPE)
    assert written.num_int8 == written.num_convolutions > 80
    assert written.notes["advice"] == []


def test_a_file_with_a_fault_is_refused_by_the_name_of_the_node(tmp_path, out):
    hub = write_network(tmp_path / "hub.onnx", batch="batch")
    with pytest.raises(
        BackendError, match=r"hub\.onnx: TensorRT would refuse it: node images: the network's input has"
    ):
        tensorrt_qdq.export(hub, out, "fp32", "")
    assert list(out.iterdir()) == []


def test_a_zero_point_that_is_not_zero_is_refused(hub, tensors, out, tmp_path, monkeypatch):
    from plumbline.quantization import qdq

    monkeypatch.setattr(qdq, "SYMMETRIC", qdq.UINT8)
    with pytest.raises(
        BackendError, match=r"TensorRT would refuse it: node \S*QuantizeLinear: quantizes to uint8"
    ) as e:
        tensorrt_qdq.quantizer(hub, tensors, tmp_path, "").write(out, RECIPE)
    assert "\n" not in str(e.value)


@pytest.fixture
def without(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "tensorrt" else found(name, *rest)
    )


@pytest.mark.usefixtures("without")
def test_without_tensorrt_every_use_is_one_error_that_says_what_to_do(hub, tensors, out, tmp_path):
    told = r"TensorRT is not installed here.*pip install 'tensorrt>=10' cuda-python; or change .* to tensorrt_qdq"
    for precision in ("fp32", "fp16"):
        with pytest.raises(BackendError, match=told):
            tensorrt.export(hub, out, precision, "")
    with pytest.raises(BackendError, match=told):
        tensorrt.quantizer(hub, tensors, tmp_path, "")
    with pytest.raises(BackendError, match=told):
        tensorrt.open_session(out, ARTIFACT, 1)
    assert list(out.iterdir()) == []


@pytest.fixture
def stand_in(monkeypatch):
    """Put the stand-ins where both processes find them, and return how to say what goes wrong."""

    def taken():
        return {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in ("cuda", "tensorrt")}

    real = taken()
    monkeypatch.syspath_prepend(str(STAND_INS))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(STAND_INS), os.environ.get("PYTHONPATH")])))
    yield lambda wrong: monkeypatch.setenv("TENSORRT_STAND_IN", wrong)
    taken()
    sys.modules.update(real)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(("precision", "flags"), [("fp32", []), ("fp16", ["FP16"]), ("int8", ["FP16", "INT8"])])
def test_an_engine_is_built_with_its_flags_and_runs(hub, tensors, out, tmp_path, precision, flags):
    if precision == "int8":
        written = tensorrt.quantizer(hub, tensors, tmp_path, "").write(out, RECIPE)
        notes = written.notes
        assert written.num_int8 == 3
    else:
        notes = tensorrt.export(hub, out, precision, "")
    assert notes["reproducible"] is False
    assert [path.name for path in out.iterdir()] == ["model.engine"]
    assert json.loads((out / "model.engine").read_bytes().split(b"\n", maxsplit=1)[0]) == flags
    (tmp_path / "fp32").mkdir()
    tensorrt_qdq.export(hub, tmp_path / "fp32", "fp32", "")
    reference, session = (
        tensorrt_qdq.open_session(tmp_path / "fp32", ARTIFACT, 1),
        tensorrt.open_session(out, ARTIFACT, 1),
    )
    results = [session(tensor) for tensor in tensors]
    for tensor, got in zip(tensors, results, strict=True):
        assert largest_error(reference(tensor), got) < (0.05 if precision == "int8" else 1e-6)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("crash", r"exit -6: .*\[E\] something on the GPU"),
        ("refuse", r"exit 1: error 0 of the parser \| error 1 of the parser"),
        ("no-engine", r"exit 1: \[E\] no implementation for node conv \| the builder gave no engine"),
        ("8.6.1", r"exit 1: TensorRT 8\.6\.1, expected 10 or later"),
        ("11.2.0", r"exit 1: TensorRT 11\.2\.0 takes types from the file and has no fp16 flag, expected TensorRT 10"),
    ],
)
def test_a_build_that_fails_is_one_error_with_the_last_lines(hub, out, stand_in, wrong, told):
    stand_in(wrong)
    with pytest.raises(BackendError, match=told) as e:
        tensorrt.export(hub, out, "fp16", "")
    assert "\n" not in str(e.value)
    assert list(out.iterdir()) == []


def test_tensorrt_11_takes_int8_from_the_file_alone(hub, tensors, out, tmp_path, stand_in):
    stand_in("11.2.0")
    tensorrt.quantizer(hub, tensors, tmp_path, "").write(out, RECIPE)
    assert (out / "model.engine").read_bytes().startswith(b"[]\n")


@pytest.mark.usefixtures("stand_in")
def test_an_engine_of_another_machine_is_refused(out):
    (out / "model.engine").write_bytes(b"of another machine")
    with pytest.raises(BackendError, match=r"model\.engine: TensorRT cannot open it \(built by another version"):
        tensorrt.open_session(out, ARTIFACT, 1)
