"""The hub and export stages: one hub, one folder per target, int8 within a budget on val, calibrated on train alone."""

from __future__ import annotations

import builtins
import json

import numpy as np
import pandas as pd
import pytest
from photo_dataset import SPLIT_OF, write_photo_dataset

from plumbline.backends import backend_module
from plumbline.chosen_threshold import ThresholdParams
from plumbline.errors import BackendError, EvaluationError, ParamsError
from plumbline.files import sha256_of
from plumbline.manifest import read_dataset
from plumbline.params import DifficultParams, check_section
from plumbline.parity import REFERENCE, read_reference
from plumbline.quantization.recipes import Quantizer
from plumbline.runtime.artifact import read_artifact
from plumbline.runtime.session import load_artifact
from stages.export import ExportInputs, ExportSections, QuantizeParams, TargetParams, calibration_images, run
from stages.hub import main as hub_main

QUANTIZE = QuantizeParams(
    calibration_images=3, seed=0, max_map50_95_drop=0.5, max_top1_drop=0.5, max_drop_upper=2.0, first_method="auto",
    max_trials=10, max_float_share=0.5, over_budget="error", aware_steps=0, aware_batch=2, aware_learning_rate=1e-4,
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory, photos):
    """The paths that `ExportInputs` and the hub's command take."""
    return write_photo_dataset(tmp_path_factory.mktemp("data"), photos, labelled=True)


def export(hubs, data, out, backend="onnx", precision="fp32", **quantize):
    folder = hubs["yolo11n"]
    sections = ExportSections(
        target=TargetParams(backend=backend, precision=precision),
        quantize=QUANTIZE.model_copy(update=quantize),
        threshold=ThresholdParams(rule="best_f1", precision=0.9),
        evaluate=DifficultParams(difficult="count"),
    )
    inputs = ExportInputs(hub=folder / "hub", weights=folder / "weights", **data)
    return run("x", sections, inputs, out=out, results=out.with_name(f"{out.name}-results"))


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
    found = read.notes["quantization"]
    assert found["inside_budget"]
    assert found["num_int8"] > 0.5 * found["num_convolutions"]
    assert found["metric"] == "map50_95"


def test_every_file_that_was_tried_is_in_the_table(hubs, data, tmp_path):
    export(hubs, data, tmp_path / "x", precision="int8")
    trials = pd.read_csv(tmp_path / "x-results" / "trials.csv")
    assert trials["step"].tolist() == ["fp32", "method"]
    assert trials["inside"].tolist() == [1, 1]
    metrics = json.loads((tmp_path / "x-results" / "metrics.json").read_text())
    assert (metrics["num_trials"], metrics["inside_budget"], metrics["num_float_blocks"]) == (1, 1, 0)
    assert metrics["parity_max_error"] < 1e-4
    export(hubs, data, tmp_path / "y")
    assert pd.read_csv(tmp_path / "y-results" / "trials.csv")["step"].tolist() == ["fp32"]


def test_what_cannot_be_kept_within_the_budget_is_an_error_and_leaves_nothing(hubs, data, tmp_path):
    # Better than fp32 by 101 points: no file is.
    wish = {"max_map50_95_drop": -101.0, "max_trials": 2, "first_method": "per_tensor-minmax"}
    with pytest.raises(
        BackendError, match=r"target 'x': none of 2 int8 files is inside the budget; the best .*lost on val"
    ):
        export(hubs, data, tmp_path / "x", precision="int8", **wish)
    assert not list(tmp_path.iterdir())
    kept = export(hubs, data, tmp_path / "x", precision="int8", over_budget="keep", **wish).notes["quantization"]
    assert not kept["inside_budget"]
    assert "lost on val, more than -101" in kept["reason"]
    tried = pd.read_csv(tmp_path / "x-results" / "trials.csv")["method"].tolist()[1:]
    assert tried == ["per_tensor-minmax", "per_channel-minmax"]


def test_the_last_rung_is_a_fine_tune(hubs, data, tmp_path):
    wish = {"max_map50_95_drop": -101.0, "max_trials": 1, "aware_steps": 2, "over_budget": "keep"}
    export(hubs, data, tmp_path / "x", precision="int8", **wish)
    assert pd.read_csv(tmp_path / "x-results" / "trials.csv")["step"].tolist() == ["fp32", "method", "aware"]
    inside = export(hubs, data, tmp_path / "y", precision="int8", **{**wish, "aware_steps": 0})
    assert inside.notes["quantization"]["aware_steps"] == 0


def test_val_without_a_label_cannot_keep_a_budget(hubs, photos, tmp_path):
    unlabelled = write_photo_dataset(tmp_path / "data", photos)
    with pytest.raises(EvaluationError, match=r"map50_95 is not defined on val \(1 images, 0 labels\)"):
        export(hubs, unlabelled, tmp_path / "x", precision="int8")
    export(hubs, unlabelled, tmp_path / "y")


def test_the_same_input_gives_the_same_bytes(hubs, data, tmp_path):
    for precision in ("fp32", "int8"):
        first = export(hubs, data, tmp_path / "a", precision=precision)
        second = export(hubs, data, tmp_path / "b", precision=precision)
        assert first.files == second.files


def test_a_wrong_conversion_is_found_before_it_is_quantized(hubs, data, tmp_path, monkeypatch):
    module = backend_module("openvino")
    real = module.open_session

    def wrong(folder, artifact, threads):
        engine = real(folder, artifact, threads)
        return lambda tensor: [output * 1.05 for output in engine(tensor)]

    monkeypatch.setattr(module, "open_session", wrong)
    for precision in ("fp32", "int8"):
        with pytest.raises(BackendError, match=r"target 'x', fp32: its output \w+ differs from that of the trained"):
            export(hubs, data, tmp_path / "x", backend="openvino", precision=precision)
    assert not list(tmp_path.iterdir())


def test_a_file_that_does_not_fuse_is_not_called_int8(hubs, data, tmp_path, monkeypatch):
    module = backend_module("onnx")
    real = module.quantizer

    def unfused(*arguments):
        quantizer = real(*arguments)

        def write(folder, recipe):
            written = quantizer.write(folder, recipe)
            return type(written)(written.num_convolutions, 9, written.float_names, written.notes)

        return Quantizer(quantizer.methods, quantizer.operators, quantizer.blocks, write)

    monkeypatch.setattr(module, "quantizer", unfused)
    with pytest.raises(BackendError, match=r"only 9 of \d+ convolutions run in int8"):
        export(hubs, data, tmp_path / "x", precision="int8", max_trials=1)


def test_calibration_takes_train_images_alone(data):
    train = {image_id for image_id, split in enumerate(SPLIT_OF) if split == "train"}
    table = read_dataset(data["labels"])
    for seed in range(20):
        params = QUANTIZE.model_copy(update={"calibration_images": 2, "seed": seed})
        chosen = calibration_images(table, data["splits"], params)
        assert len(chosen) == 2
        assert set(chosen["image_id"]) <= train
    everything = calibration_images(table, data["splits"], QUANTIZE.model_copy(update={"calibration_images": 99}))
    assert set(everything["image_id"]) == train


def test_an_image_that_is_calibrated_on_and_scored_is_refused(data, photos, tmp_path):
    twice = write_photo_dataset(tmp_path / "data", [*photos[:4], photos[0], photos[5]], labelled=True)
    with pytest.raises(
        BackendError, match=r"1 calibration images stand in the split 'test' too, the first is images/0"
    ):
        calibration_images(
            read_dataset(twice["labels"]), twice["splits"], QUANTIZE.model_copy(update={"calibration_images": 9})
        )


def test_no_train_image_to_calibrate_on_is_refused(hubs, data, tmp_path):
    splits = pd.read_parquet(data["splits"])
    splits["split"] = splits["split"].replace("train", "left_out")
    splits.to_parquet(tmp_path / "splits.parquet")
    with pytest.raises(EvaluationError, match=r"expected one or more images in the split 'train', got none"):
        export(hubs, {**data, "splits": tmp_path / "splits.parquet"}, tmp_path / "x", precision="int8")


def test_calibration_changes_the_ranges(hubs, data, tmp_path):
    one = export(hubs, data, tmp_path / "a", precision="int8", calibration_images=1)
    all_ = export(hubs, data, tmp_path / "b", precision="int8", calibration_images=4)
    assert one.files != all_.files
    assert one.lineage["calibration_sha256"] != all_.lineage["calibration_sha256"]


ROWS = "onnx, openvino, ncnn, rknn, tensorrt, tensorrt_qdq"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"backend": "tflite", "precision": "fp32"}, f"expected a backend of: {ROWS}, got"),
        ({"backend": "torch", "precision": "fp32"}, f"expected a backend of: {ROWS}, got"),
        ({"backend": "openvino", "precision": "int4"}, "expected a precision of openvino: fp32, fp16, int8, got"),
        ({"backend": "onnx", "precison": "fp32"}, "unknown parameter targets.x.precison, .*did you mean 'precision'"),
        ({"backend": "rknn", "precision": "int8", "chip": "rk3858"}, r"a chip of rknn: .*did you mean rk3588\?\), got"),
        ({"backend": "rknn", "precision": "int8"}, "expected a chip of rknn: .*rk3588"),
        (
            {"backend": "onnx", "precision": "int8", "chip": "rk3588"},
            "expected no chip, as files of onnx are for no chip",
        ),
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


def test_the_hub_keeps_what_the_trained_weights_make_of_real_images(hubs, data):
    reference = read_reference(hubs["yolo11n"] / "hub" / REFERENCE)
    engine = load_artifact(hubs["yolo11n"] / "weights").engine
    for tensor, outputs in zip(reference.tensors, reference.outputs, strict=True):
        assert tensor.max() - tensor.min() > 0.3, "a photograph"
        assert all(np.array_equal(a, b) for a, b in zip(engine(tensor), outputs, strict=True))
    parity = read_artifact(hubs["yolo11n"] / "hub").notes["parity"]
    assert parity["num_images"] == len(reference.tensors) == 4
    assert 0 < parity["max_error"] <= parity["tolerance"]


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
