"""The benchmark stage on a real, tiny ONNX artifact: what it writes, not how fast this machine is."""

import dataclasses
import json
import time

import cv2
import pytest
from tiny_detector import write_tiny_artifact, write_tiny_dataset

from plumbline import hub_session
from plumbline.backends import onnx, openvino
from plumbline.runtime.artifact import read_artifact, write_artifact
from stages import benchmark

CELLS = [[(0, 1, 1, 255)], [(1, 4, 5, 255)], [], [(1, 0, 7, 255)]]
PARAMS = {
    "threads": 1,
    "warmup_queries": 2,
    "min_queries": 5,
    "min_duration_s": 0.0,
    "max_duration_s": 60.0,
    "num_images": 2,
    "ratio_rounds": 3,
}


@pytest.fixture
def place(tmp_path):
    write_tiny_artifact(tmp_path / "artifact")
    write_tiny_artifact(tmp_path / "hub")
    write_tiny_dataset(tmp_path, CELLS, ["train", "val", "val", "val"])
    return tmp_path


@pytest.fixture(autouse=True)
def _same_threads_as_before():
    before = cv2.getNumThreads()
    yield
    cv2.setNumThreads(before)


def stage(place, splits="splits.parquet", **changed):
    lines = [f"  {name}: {value}" for name, value in (PARAMS | changed).items()]
    (place / "params.yaml").write_text("\n".join(["benchmark:", *lines, ""]), encoding="utf-8")
    paths = {"artifact": "artifact", "hub": "hub", "dataset": "dataset", "labels": "validated", "splits": splits}
    paths |= {"metrics": "out/tiny.json", "machine": "out/tiny.machine.json"}
    arguments = [text for name, path in paths.items() for text in (f"--{name}", str(place / path))]
    return benchmark.main([*arguments, "--params", str(place / "params.yaml")])


def written(place):
    return json.loads((place / "out/tiny.json").read_text()), json.loads((place / "out/tiny.machine.json").read_text())


def test_a_valid_run(place, capsys):
    assert stage(place) == 0
    metrics, machine = written(place)
    assert (metrics["valid"], metrics["measured"], metrics["num_queries"], metrics["threads"]) == (1, 1, 5, 1)
    assert metrics["size_bytes"] == (place / "artifact/model.onnx").stat().st_size
    for part in ("latency", "preprocess", "inference", "postprocess"):
        p50, p90, p99 = (metrics[f"{part}_ms_p{percentile}"] for percentile in (50, 90, 99))
        assert 0 < p50 <= p90 <= p99
    # Every query's end to end holds its inference, so every percentile does.
    assert metrics["latency_ms_p99"] >= metrics["inference_ms_p99"]
    assert metrics["duration_s"] * 1000 >= 2 * metrics["latency_ms_p50"]
    assert all(isinstance(value, int | float) for value in metrics.values())
    assert machine["logical_cores"] >= 1
    assert "temperature_after_c" in machine
    assert "over 5 queries" in capsys.readouterr().out


def test_opencv_gets_the_threads_of_the_section(place):
    stage(place, threads=2)
    assert cv2.getNumThreads() == 2
    stage(place, threads=1)
    assert cv2.getNumThreads() == 1


def test_a_run_that_is_ended_first_says_invalid_and_no_number(place, capsys):
    assert stage(place, min_queries=10**9, max_duration_s=0.001) == 0
    metrics, _ = written(place)
    assert metrics["valid"] == 0
    assert [name for name in metrics if "_ms_" in name or "speedup" in name] == []
    assert "INVALID, only" in capsys.readouterr().out


def speedups(metrics):
    return {name for name in metrics if "speedup" in name and not name.endswith(("_low", "_high"))}


def change_artifact(place, **changed):
    artifact = read_artifact(place / "artifact", verify=False)
    write_artifact(dataclasses.replace(artifact, **changed), place / "artifact")


def slow_hub(monkeypatch):
    """Make each query of the hub take 20 ms longer."""
    open_onnx = hub_session.open_onnx

    def slow_session(path, artifact, threads):
        engine = open_onnx(path, artifact, threads)

        def slow_engine(tensor):
            time.sleep(0.02)
            return engine(tensor)

        return slow_engine

    monkeypatch.setattr(hub_session, "open_onnx", slow_session)


def test_an_fp32_artifact_is_compared_with_the_hub_alone(place, capsys):
    assert stage(place) == 0
    metrics, _ = written(place)
    assert speedups(metrics) == {"speedup_onnx_fp32", "inference_speedup_onnx_fp32"}
    for name in speedups(metrics):
        assert 0 < metrics[f"{name}_low"] <= metrics[name] <= metrics[f"{name}_high"]
    assert "times as fast as ONNX Runtime fp32 (" in capsys.readouterr().out


def test_int8_of_onnx_has_the_hub_as_its_own_fp32(place, monkeypatch):
    change_artifact(place, precision="int8")
    slow_hub(monkeypatch)
    assert stage(place) == 0
    metrics, _ = written(place)
    assert metrics["speedup_onnx_fp32"] > 2
    for name in ("speedup_onnx_fp32", "inference_speedup_onnx_fp32"):
        for end in ("", "_low", "_high"):
            assert metrics[name.replace("onnx", "own") + end] == metrics[name + end]


def test_int8_of_another_backend_is_compared_with_its_own_fp32_made_anew(place, monkeypatch):
    # Here "int8" is the same float file: what counts is what it is compared with.
    (place / "artifact/model.onnx").unlink()
    openvino.export(place / "hub/model.onnx", place / "artifact", "fp32", "")
    change_artifact(place, backend="openvino", precision="int8")
    asked = []
    export = openvino.export
    monkeypatch.setattr(openvino, "export", lambda *given: asked.append(given) or export(*given))
    slow_hub(monkeypatch)
    assert stage(place) == 0
    metrics, _ = written(place)
    assert [(hub, precision, chip) for hub, _, precision, chip in asked] == [(place / "hub/model.onnx", "fp32", "")]
    assert not asked[0][1].exists()
    assert speedups(metrics) == {
        f"{part}speedup_{whose}_fp32" for part in ("", "inference_") for whose in ("onnx", "own")
    }
    assert metrics["inference_speedup_onnx_fp32"] > 3 * metrics["inference_speedup_own_fp32"]


def test_all_are_asked_with_the_artifacts_own_threshold(place, monkeypatch):
    """The hub's own is 1: it would decode nothing, and be the faster for it."""
    decode = read_artifact(place / "hub").decode
    hub = dataclasses.replace(
        read_artifact(place / "hub"), decode=dataclasses.replace(decode, confidence_threshold=1.0)
    )
    write_artifact(hub, place / "hub")
    asked = set()
    predict_timed = benchmark.Session.predict_timed

    def told(self, image, *, confidence=None):
        asked.add(confidence)
        return predict_timed(self, image, confidence=confidence)

    monkeypatch.setattr(benchmark.Session, "predict_timed", told)
    assert stage(place) == 0
    assert asked == {decode.confidence_threshold}


def test_what_a_simulator_runs_is_not_timed(place, monkeypatch, capsys):
    monkeypatch.setattr(onnx, "STANDS_IN", "x86 simulator")
    monkeypatch.setattr(benchmark, "measure", None)
    assert stage(place) == 0
    metrics, machine = written(place)
    size = (place / "artifact/model.onnx").stat().st_size
    assert metrics == {"valid": 0, "measured": 0, "threads": 1, "size_bytes": size}
    assert machine["not_measured"].startswith("x86 simulator: it stands in for the device")
    assert "not measured: x86 simulator" in capsys.readouterr().out


def test_a_hub_that_is_not_there_is_one_line_and_no_output(place, capsys):
    (place / "hub/model.onnx").unlink()
    assert stage(place) == 1
    assert "hub/model.onnx: missing" in capsys.readouterr().err
    assert not (place / "out").exists()


def test_more_images_asked_for_than_there_are(place):
    assert stage(place, num_images=99) == 0


def test_only_the_first_images_of_test_are_read(place):
    (place / "dataset/images/000.png").unlink()  # train
    (place / "dataset/images/003.png").unlink()  # the third of test
    assert stage(place) == 0
    assert stage(place, num_images=3) == 1


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"threads": 0}, "params.yaml:2: wrong value for benchmark.threads"),
        ({"min_queries": 0}, "params.yaml:4: wrong value for benchmark.min_queries"),
        ({"ratio_rounds": 2}, "params.yaml:8: wrong value for benchmark.ratio_rounds"),
        ({"min_duration_s": 60.0}, "max_duration_s above min_duration_s (60.0)"),
        ({"thread": 1}, "unknown parameter benchmark.thread"),
        ({"splits": "nowhere"}, "nowhere: not a readable table"),
    ],
)
def test_bad_input_ends_with_one_line_and_no_output(place, capsys, changed, told):
    assert stage(place, **changed) == 1
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not (place / "out").exists()


def test_a_dataset_without_a_val_split_is_refused(place, capsys):
    write_tiny_dataset(place / "other", CELLS, ["train"] * 4)
    assert stage(place, splits="other/splits.parquet") == 1
    assert "expected one or more images in the split 'val', got none" in capsys.readouterr().err
