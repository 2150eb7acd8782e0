from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from plumbline.errors import EvaluationError
from plumbline.files import write_json
from plumbline.manifest import (
    ANNOTATIONS_SCHEMA,
    FINDINGS_SCHEMA,
    IMAGES_SCHEMA,
    Dataset,
    read_dataset,
    table,
    write_dataset,
)
from plumbline.runtime.artifact import (
    Artifact,
    DecodeSpec,
    InputSpec,
    OutputSpec,
    Preprocessing,
    read_artifact,
    write_artifact,
)
from stages.report import ReportParams, main, read_pr_curve, run

CLASSES = ("cat", "dog")
TARGETS = ("onnx-fp32", "onnx-int8", "ncnn.v2")
FILES = {"report.md", "report.json", "report.png", "samples.jpg"}
XYXY = ("x1", "y1", "x2", "y2")
NUM_IMAGES = 10


def write_images(folder: Path) -> None:
    """Ten images of 160 x 160 with two boxes each, the first six in train, the last four in test."""
    rng = np.random.default_rng(0)
    images, boxes = [], []
    (folder / "dataset" / "images").mkdir(parents=True)
    for i in range(NUM_IMAGES):
        path = f"images/{i:03}.png"
        cv2.imwrite(str(folder / "dataset" / path), rng.integers(0, 255, (160, 160, 3), dtype=np.uint8))
        zeros = {"phash": 0, "brightness": 0.0, "contrast": 0.0, "sharpness": 0.0}
        text = {"sha256": "", "group": "", "source": ""}
        images.append({"image_id": i, "path": path, "width": 160, "height": 160, "readable": True, **zeros, **text})
        for class_id in (0, 1):
            corners = dict(zip(XYXY, (20.0 + 60 * class_id, 30.0, 70.0 + 60 * class_id, 90.0), strict=True))
            names = {"class_id": class_id, "class_name": CLASSES[class_id], "difficult": False, "truncated": False}
            origin = {"source_file": "x", "source_line": 1}
            boxes.append({"image_id": i, "ann_id": len(boxes), **names, **corners, **origin})
    tables = table(images, IMAGES_SCHEMA), table(boxes, ANNOTATIONS_SCHEMA), table([], FINDINGS_SCHEMA)
    (folder / "validated").mkdir()
    write_dataset(Dataset(*tables, CLASSES, folder / "dataset"), folder / "validated")
    split = ["train"] * 6 + ["test"] * 4
    pd.DataFrame({"image_id": range(NUM_IMAGES), "split": split, "group": ""}).to_parquet(folder / "splits.parquet")


def write_one(folder: Path, name: str, backend: str, precision: str, *, map50_95: float, size: int) -> None:
    home = folder / "weights" if name == "weights" else folder / "artifacts" / name
    home.mkdir(parents=True)
    (home / "model.bin").write_bytes(b"x" * size)
    artifact = Artifact(
        name=name, task="detect", backend=backend, precision=precision, class_names=CLASSES,
        input=InputSpec("images", (160, 160)), preprocessing=Preprocessing(),
        outputs=OutputSpec(("b", "c"), (8,), 16, nms_free=False), decode=DecodeSpec(0.25, 0.7, 300), files={},
        toolchain={}, lineage={"git_commit": "abc", "weights_sha256": "w", "dataset_sha256": "d"}, notes={},
    )  # fmt: skip
    write_artifact(artifact, home)
    scores = folder / "evaluate" / name
    scores.mkdir(parents=True)
    flat = {"map50_95": map50_95, "map50": 0.9, "map75": 0.8, "precision": 0.9, "recall": 0.8, "f1": 0.85}
    flat |= {f"class_{c}_map50_95": map50_95 for c in CLASSES}
    write_json(scores / "metrics.json", {**flat, "num_images": 4, "num_boxes": 8})
    rows = [
        {"image_id": i, "class_id": 0, "confidence": c, "x1": 22.0, "y1": 31.0, "x2": 69.0, "y2": 88.0}
        for i in range(6, NUM_IMAGES)
        for c in (0.9, 0.1)
    ]
    pd.DataFrame(rows).to_parquet(scores / "predictions.parquet")
    curve = pd.DataFrame({"recall": [0.0, 0.5, 1.0] * 2, "precision": [1.0, 0.9, 0.2, 1.0, 0.1, 0.0]})
    curve.assign(**{"class": ["all"] * 3 + ["cat"] * 3}).to_csv(scores / "pr_curve.csv", index=False)
    if name != "weights":
        write_json(folder / "benchmark" / f"{name}.json", latency(size))
        write_json(folder / "benchmark" / f"{name}.machine.json", {"cpu_model": "A CPU", "load_average": size / 1000})


def latency(size: int) -> dict[str, float]:
    keys = ["latency_ms_p50", "latency_ms_p90", "latency_ms_p99"]
    keys += ["preprocess_ms_p50", "inference_ms_p50", "postprocess_ms_p50"]
    run = {"valid": 1, "num_queries": 300, "duration_s": 5.0, "threads": 1, "size_bytes": size}
    return run | {key: size / 100 + i for i, key in enumerate(keys)}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("report_inputs")
    write_images(folder)
    write_one(folder, "weights", "torch", "fp32", map50_95=0.80, size=500)
    write_one(folder, "onnx-fp32", "onnx", "fp32", map50_95=0.80, size=1000)
    write_one(folder, "onnx-int8", "onnx", "int8", map50_95=0.79, size=300)
    write_one(folder, "ncnn.v2", "ncnn", "int8", map50_95=0.78, size=400)
    # DVC writes one beside outputs that it caches.
    (folder / "evaluate" / ".gitignore").write_text("/weights\n")
    return folder


@pytest.fixture
def project(inputs, tmp_path) -> Path:
    return Path(shutil.copytree(inputs, tmp_path / "project"))


def paths_of(folder: Path) -> dict[str, Path]:
    names = ("evaluate", "benchmark", "artifacts", "weights", "dataset")
    rest = {"labels": folder / "validated", "splits": folder / "splits.parquet", "out": folder / "out"}
    return {name: folder / name for name in names} | rest


def report(folder: Path, num_samples: int = 3) -> dict[str, bytes]:
    run(ReportParams(num_samples=num_samples), targets=TARGETS, **paths_of(folder))
    return {path.name: path.read_bytes() for path in (folder / "out").iterdir()}


def test_writes_the_four_files_and_the_same_bytes_again(project):
    first = report(project)
    assert set(first) == FILES
    shutil.rmtree(project / "out")
    assert report(project) == first


def test_json_has_full_precision_and_every_artifact(project):
    values = json.loads(report(project)["report.json"])
    rows = {row["name"]: row for row in values["rows"]}
    assert [row["name"] for row in values["rows"]] == ["weights", *TARGETS]
    assert rows["onnx-int8"]["map50_95_difference"] == 0.79 - 0.80
    assert rows["onnx-int8"]["size_bytes"] == 300
    assert rows["onnx-int8"]["latency_ms_p99"] == 5.0
    assert rows["weights"]["latency_valid"] is None
    assert values["samples"] == {"artifact": "onnx-int8", "image_ids": [6, 8, 9]}
    assert values["splits"] == {"train": {"num_images": 6, "num_boxes": 12}, "test": {"num_images": 4, "num_boxes": 8}}
    assert values["scored_split"] == "test"


def test_page_has_a_row_per_artifact_and_invalid_is_said(project):
    write_json(
        project / "benchmark" / "onnx-fp32.json", {"valid": 0, "num_queries": 3, "duration_s": 9.0, "threads": 1}
    )
    files = report(project)
    line = next(line for line in files["report.md"].decode().splitlines() if line.startswith("| onnx-fp32 | onnx"))
    assert line.count("INVALID") == 2
    row = json.loads(files["report.json"])["rows"][1]
    assert (row["name"], row["latency_valid"], row["latency_ms_p50"]) == ("onnx-fp32", False, None)


def blue_pixels(image: np.ndarray) -> int:
    """Count pixels near the colour of class 0: JPEG does not keep it to the bit."""
    return int((np.abs(image.astype(int) - (178, 114, 0)).max(axis=2) < 40).sum())


def test_samples_show_the_detections_above_the_threshold_large(project):
    image = cv2.imdecode(np.frombuffer(report(project)["samples.jpg"], np.uint8), cv2.IMREAD_COLOR)
    assert image.shape[1] > 3 * 480
    blue = blue_pixels(image)
    predictions = project / "evaluate" / "onnx-int8" / "predictions.parquet"
    frame = pd.read_parquet(predictions)
    frame[frame["confidence"] < 0.25].to_parquet(predictions)
    image = cv2.imdecode(np.frombuffer(report(project)["samples.jpg"], np.uint8), cv2.IMREAD_COLOR)
    # One thick outline and one label on each of three images; the detection at 0.1 is not drawn.
    assert 3 * 1000 < blue - blue_pixels(image) < 3 * 6000


def test_more_samples_than_images_draws_them_all(project):
    assert json.loads(report(project, num_samples=50)["report.json"])["samples"]["image_ids"] == [6, 7, 8, 9]


def test_scores_of_another_split_are_shown_on_its_images(project):
    for folder in (project / "evaluate").iterdir():
        if folder.is_dir():
            metrics = json.loads((folder / "metrics.json").read_text())
            write_json(folder / "metrics.json", {**metrics, "num_images": 6})
            frame = pd.read_parquet(folder / "predictions.parquet")
            frame.assign(image_id=frame["image_id"] - 6).to_parquet(folder / "predictions.parquet")
    files = report(project)
    assert json.loads(files["report.json"])["samples"]["image_ids"] == [0, 2, 5]
    assert "train images" in files["report.md"].decode()


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ("evaluate/weights", r"weights/metrics.json: no such file"),
        ("evaluate/onnx-fp32", r"onnx-fp32/metrics.json: no such file"),
        ("evaluate/onnx-fp32/metrics.json", "metrics.json"),
        ("evaluate/ncnn.v2/pr_curve.csv", "pr_curve.csv"),
        ("evaluate/onnx-int8/predictions.parquet", "predictions.parquet"),
        ("benchmark/ncnn.v2.json", "ncnn.v2.json: no such file"),
        ("benchmark/ncnn.v2.machine.json", "ncnn.v2.machine.json"),
        ("benchmark", "benchmark/onnx-fp32.json: no such file"),
        ("splits.parquet", "splits.parquet"),
    ],
)
def test_what_is_missing_is_named_and_nothing_is_written(project, missing, named):
    path = project / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(EvaluationError, match=named):
        report(project)
    assert not (project / "out").exists()


def test_what_another_run_left_behind_is_not_read(project):
    expected = report(project)
    write_one(project, "gone", "onnx", "fp32", map50_95=0.1, size=9)
    assert report(project) == expected


def test_left_over_of_another_training_is_refused(project):
    home = project / "artifacts" / "onnx-fp32"
    artifact = read_artifact(home)
    artifact.lineage["weights_sha256"] = "another"
    write_artifact(artifact, home)
    with pytest.raises(EvaluationError, match=r"onnx-fp32: expected the weights_sha256 .* w, got another"):
        report(project)


def test_scores_on_other_images_are_refused(project):
    path = project / "evaluate" / "onnx-fp32" / "metrics.json"
    write_json(path, {**json.loads(path.read_text()), "num_images": 5})
    with pytest.raises(EvaluationError, match="num_images"):
        report(project)


def test_other_classes_are_refused(project):
    data = read_dataset(project / "validated")
    write_dataset(
        Dataset(data.images, data.annotations, data.findings, CLASSES[::-1], data.root), project / "validated"
    )
    with pytest.raises(EvaluationError, match="expected the classes of the dataset, dog, cat, got cat, dog"):
        report(project)


def test_curve_over_all_classes_is_the_first(tmp_path):
    path = tmp_path / "pr.csv"
    path.write_text("recall,precision,class\n0,1,(all)\n1,0.5,(all)\n0,0.1,all\n")
    assert read_pr_curve(path).to_dict("list") == {"recall": [0.0, 1.0], "precision": [1.0, 0.5]}
    path.write_text("recall,precision,class\n")
    assert read_pr_curve(path).empty
    path.write_text("a,b\n1,2\n")
    with pytest.raises(EvaluationError, match=r"pr\.csv"):
        read_pr_curve(path)


def command(folder: Path) -> list[str]:
    arguments = ["--params", str(folder / "params.yaml")]
    for name, path in paths_of(folder).items():
        arguments += [f"--{name}", str(path)]
    return arguments


def test_command_line(project, capsys):
    (project / "params.yaml").write_text(
        "report:\n  num_samples: 2\ntargets: {onnx-fp32: {}, onnx-int8: {}, ncnn.v2: {}}\n"
    )
    assert main(command(project)) == 0
    assert {path.name for path in (project / "out").iterdir()} == FILES
    assert "4 rows" in capsys.readouterr().out


@pytest.mark.parametrize("value", ["0", "six", "2.5"])
def test_wrong_parameter_is_one_line(project, capsys, value):
    (project / "params.yaml").write_text(f"report:\n  num_samples: {value}\ntargets: {{}}\n")
    assert main(command(project)) == 1
    error = capsys.readouterr().err
    assert "params.yaml:2: wrong value for report.num_samples" in error
    assert error.count("\n") == 1


def test_module_imports_without_the_slow_packages():
    code = (
        "import sys, stages.report; print(sorted({'torch', 'matplotlib', 'sklearn', 'ultralytics'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout.strip() == "[]"
