"""The hub and export stages: one hub, one folder per target, calibration on the train split alone."""

from __future__ import annotations

import builtins
import json

import numpy as np
import pytest
from photo_dataset import SPLIT_OF, write_photo_dataset

from plumbline.chosen_threshold import ThresholdParams
from plumbline.errors import BackendError, ParamsError
from plumbline.files import sha256_of
from plumbline.params import check_section
from plumbline.runtime.artifact import read_artifact
from plumbline.runtime.session import load_artifact
from stages.export import QuantizeParams, TargetParams, calibration_images, run
from stages.hub import main as hub_main

THRESHOLD = ThresholdParams(rule="best_f1", precision=0.9)


@pytest.fixture(scope="module")
def data(tmp_path_factory, photos):
    """Keyword arguments of `run`."""
    return write_photo_dataset(tmp_path_factory.mktemp("data"), photos)


def export(hubs, data, out, backend="onnx", precision="fp32", count=3):
    params = TargetParams(backend=backend, precision=precision)
    quantize = QuantizeParams(calibration_images=count, seed=0)
    return run(params, quantize, THRESHOLD, difficult="count", target="x", hub=hubs["yolo11n"] / "hub", out=out, **data)


def test_artifact_says_what_it_is_and_where_it_is_from(hubs, data, tmp_path):
    written = export(hubs, data, tmp_path / "x", precision="int8")
    read = read_artifact(tmp_path / "x")
    assert read == written
    assert (read.name, read.backend, read.precision) == ("x", "onnx", "int8")
    assert read.class_names == ("a", "b", "c")
    assert read.input.size_wh == (96, 96)
    assert read.lineage["hub_sha256"] == sha256_of(hubs["yolo11n"] / "hub" / "model.onnx")
    assert read.lineage["num_calibration_images"] == 3
    assert {"onnx", "onnxruntime", "python"} <= set(read.toolchain)
    assert set(read.files) == {"model.onnx"}, "nothing of the work is left in the folder"


def test_the_same_input_gives_the_same_bytes(hubs, data, tmp_path):
    for precision in ("fp32", "int8"):
        first = export(hubs, data, tmp_path / "a", precision=precision)
        second = export(hubs, data, tmp_path / "b", precision=precision)
        assert first.files == second.files


def test_calibration_takes_train_images_alone(data):
    train = {image_id for image_id, split in enumerate(SPLIT_OF) if split == "train"}
    for seed in range(20):
        chosen = calibration_images(data["labels"], data["splits"], QuantizeParams(calibration_images=2, seed=seed))
        assert len(chosen) == 2
        assert set(chosen["image_id"]) <= train
    everything = calibration_images(data["labels"], data["splits"], QuantizeParams(calibration_images=99, seed=0))
    assert set(everything["image_id"]) == train


def test_calibration_changes_the_ranges(hubs, data, tmp_path):
    one = export(hubs, data, tmp_path / "a", precision="int8", count=1)
    all_ = export(hubs, data, tmp_path / "b", precision="int8", count=4)
    assert one.files != all_.files
    assert one.lineage["calibration_sha256"] != all_.lineage["calibration_sha256"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"backend": "tflite", "precision": "fp32"}, "expected a backend of: onnx, openvino, ncnn, got"),
        ({"backend": "torch", "precision": "fp32"}, "expected a backend of: onnx, openvino, ncnn, got"),
        ({"backend": "ncnn", "precision": "int8"}, "expected a precision of ncnn: fp32, fp16, got"),
        ({"backend": "onnx", "precison": "fp32"}, "unknown parameter targets.x.precison, .*did you mean 'precision'"),
    ],
)
def test_a_target_that_cannot_be_made_names_its_line(tmp_path, values, message):
    path = tmp_path / "params.yaml"
    path.write_text(f"targets:\n  x: {json.dumps(values)}\n")
    with pytest.raises(ParamsError, match=rf"params\.yaml:2: .*{message}"):
        check_section(path, "targets.x", values, TargetParams)


def test_a_toolchain_that_is_not_installed_is_named(hubs, data, tmp_path, monkeypatch):
    real = builtins.__import__

    def without_openvino(name, *rest):
        if name.split(".")[0] == "openvino":
            raise ModuleNotFoundError("No module named 'openvino'", name="openvino")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_openvino)
    with pytest.raises(BackendError, match=r"target 'x' needs a package that is not installed .*; install openvino"):
        export(hubs, data, tmp_path / "x", backend="openvino")
    assert not (tmp_path / "x").exists()
    export(hubs, data, tmp_path / "y")


def test_predictions_are_inside_the_image_and_sorted(hubs, data, tmp_path, photos):
    export(hubs, data, tmp_path / "x")
    session = load_artifact(tmp_path / "x")
    for photo in photos:
        found = session.predict(photo, confidence=0.0001)
        assert len(found) > 0
        height, width = photo.shape[:2]
        assert found.xyxy.min() >= 0
        assert (found.xyxy[:, 2] <= width).all()
        assert (found.xyxy[:, 3] <= height).all()
        assert (np.diff(found.confidence) <= 0).all()
        assert set(np.unique(found.class_id)) <= {0, 1, 2}
        assert len(found.above(2.0)) == 0


def hub_of(tmp_path, data, record) -> int:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "best.pt").write_bytes(b"no checkpoint")
    (tmp_path / "train" / "train.json").write_text(json.dumps(record))
    params = (
        "hub: {opset: 17}\ndetect: {iou_threshold: 0.7, max_detections: 300}\n"
        "threshold: {rule: best_f1, precision: 0.9}\nevaluate: {difficult: count}\n"
    )
    (tmp_path / "params.yaml").write_text(params)
    paths = {**data, **{name: tmp_path / name for name in ("train", "weights", "out")}}
    arguments = [f"--{name}={path}" for name, path in paths.items()]
    return hub_main([*arguments, "--task=detect", f"--params={tmp_path / 'params.yaml'}"])


RECORD = {"task": "detect", "class_names": ["a"], "toolchain": {}, "lineage": {}}


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (RECORD, "best.pt: not a checkpoint that ultralytics can read"),
        ({**RECORD, "task": "classify"}, "train.json: trained for the task classify, expected detect; run dvc repro"),
    ],
)
def test_hub_of_weights_that_do_not_fit(tmp_path, data, capsys, record, told):
    assert hub_of(tmp_path, data, record) == 1
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not (tmp_path / "weights").exists()
    assert not (tmp_path / "out").exists()
