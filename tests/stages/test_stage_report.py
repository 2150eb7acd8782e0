from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from plumbline.contact_sheet import write_jpeg
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
    write_table,
)
from plumbline.runtime.artifact import (
    Artifact,
    ClassifierDecode,
    ClassifierOutputs,
    DecodeSpec,
    InputSpec,
    OutputSpec,
    Preprocessing,
    read_artifact,
    write_artifact,
)
from plumbline.runtime.classification import Classification
from plumbline.runtime.detections import Detections
from plumbline.scores import ScoringSettings
from plumbline.split_images import images_of_split
from plumbline.tasks import task_module
from stages.report import BudgetParams, Inputs, ReportParams, ScoredParams, main, read_pr_curve, run

CLASSES = ("cat", "dog", "NA")
TARGETS = ("onnx-fp32", "onnx-int8", "ncnn.v2")
FILES = {"report.md", "report.json", "report.png", "samples.jpg", "worst.jpg", "curves.png"}
XYXY = ("x1", "y1", "x2", "y2")
NUM_IMAGES = 10
# Name -> backend, precision, bytes, and how far its boxes are off, or on how many test images it is wrong.
ARTIFACTS = {
    "weights": ("torch", "fp32", 500, 0),
    "onnx-fp32": ("onnx", "fp32", 1000, 0),
    "onnx-int8": ("onnx", "int8", 300, 2),
    "ncnn.v2": ("ncnn", "int8", 400, 1),
}


def box_of(class_id: int) -> tuple[float, ...]:
    return (20.0 + 60 * class_id, 30.0, 70.0 + 60 * class_id, 90.0)


def write_images(folder: Path, task: str) -> None:
    """Ten images of 160 x 160, the first six in train, the last four in test; no test image has the class NA.

    For the detector two boxes on each, for the classifier cat and dog in turn.
    """
    rng = np.random.default_rng(0)
    images, labels = [], []
    (folder / "dataset" / "images").mkdir(parents=True)
    for i in range(NUM_IMAGES):
        path = f"images/{i:03}.png"
        cv2.imwrite(str(folder / "dataset" / path), rng.integers(0, 255, (160, 160, 3), dtype=np.uint8))
        zeros = {"phash": 0, "brightness": float(i), "contrast": 0.0, "sharpness": 0.0}
        text = {"sha256": "", "group": "", "source": ""}
        images.append({"image_id": i, "path": path, "width": 160, "height": 160, "readable": True, **zeros, **text})
        for class_id in (0, 1) if task == "detect" else (i % 2,):
            corners = box_of(class_id) if task == "detect" else [float("nan")] * 4
            names = {"class_id": class_id, "class_name": CLASSES[class_id], "difficult": False, "truncated": False}
            origin = {"source_file": "x", "source_line": 1, "crowd": False, "rle": ""}
            labels.append({"image_id": i, "ann_id": len(labels), **names, **dict(zip(XYXY, corners)), **origin})  # noqa: B905
    tables = table(images, IMAGES_SCHEMA), table(labels, ANNOTATIONS_SCHEMA), table([], FINDINGS_SCHEMA)
    (folder / "validated").mkdir()
    write_dataset(Dataset(*tables, CLASSES, folder / "dataset"), folder / "validated")
    split = ["train"] * 6 + ["test"] * 4
    pd.DataFrame({"image_id": range(NUM_IMAGES), "split": split, "group": ""}).to_parquet(folder / "splits.parquet")


def detection(image_id: int, off: int) -> Detections:
    """Find the cat alone, surely and once more with little confidence."""
    xyxy = np.array([box_of(0), box_of(0)], dtype=np.float32) + np.array([0, 0, 5 * off, 3 * off], dtype=np.float32)
    return Detections(xyxy, np.array([0.9, 0.1], dtype=np.float32), np.zeros(2, dtype=np.int64))


def classification(image_id: int, wrong: int) -> Classification:
    """Be surely right, but for the first test images."""
    said = (image_id + (6 <= image_id < 6 + wrong)) % 2
    probabilities = np.full(3, 0.1, dtype=np.float32)
    probabilities[said] = 0.8
    return Classification(probabilities, 0.25)


PREDICT: dict[str, Callable] = {"detect": detection, "classify": classification}


def write_one(folder: Path, task: str, name: str) -> None:
    """Write what the other stages make of one artifact."""
    backend, precision, size, fault = ARTIFACTS[name]
    home = folder / "weights" if name == "weights" else folder / "artifacts" / name
    home.mkdir(parents=True)
    (home / "model.bin").write_bytes(b"x" * size)
    outputs, decode = OutputSpec(("b", "c"), (8,), 16, nms_free=False), DecodeSpec(0.25, 0.7, 300)
    if task == "classify":
        outputs, decode = ClassifierOutputs(), ClassifierDecode(0.25)
    chosen = {"rule": "best_f1", "split": "val", "num_images": 3, "precision": 0.9, "recall": 0.8, "f1": 0.85}
    artifact = Artifact(
        name=name, task=task, backend=backend, precision=precision, class_names=CLASSES,
        input=InputSpec("images", (160, 160)), preprocessing=Preprocessing(), outputs=outputs, decode=decode, files={},
        toolchain={}, lineage={"git_commit": "abc", "weights_sha256": "w", "dataset_sha256": "d"},
        notes={"threshold": chosen},
    )  # fmt: skip
    write_artifact(artifact, home)
    rows = pd.concat(
        pd.DataFrame(task_module(task, "scoring").prediction_rows(i, PREDICT[task](i, fault))) for i in range(6, 10)
    )
    write_scores(folder, task, name, rows.reset_index(drop=True))
    if name != "weights":
        write_json(folder / "benchmark" / f"{name}.json", latency(size))
        write_json(folder / "benchmark" / f"{name}.machine.json", {"cpu_model": "A CPU", "load_average": size / 1000})


def write_scores(folder: Path, task: str, name: str, predictions: pd.DataFrame, split: str = "test") -> None:
    """Score as the evaluate stage does."""
    scoring = task_module(task, "scoring")
    data = read_dataset(folder / "validated", root=folder / "dataset")
    images = images_of_split(data.images, folder / "splits.parquet", split)
    settings = ScoringSettings(0.25, 0.001, "count", ("brightness",), 2, 4)
    scores = scoring.evaluate(scoring.truth_of(data, images), predictions, images, CLASSES, settings)
    home = folder / "evaluate" / name
    home.mkdir(parents=True, exist_ok=True)
    write_table(predictions, scoring.PREDICTIONS_SCHEMA, home / "predictions.parquet")
    for stem, rows in scores.tables.items():
        rows.to_csv(home / f"{stem}.csv", index=False)
    undefined = pd.DataFrame(sorted(scores.undefined.items()), columns=["metric", "why"])
    undefined.to_csv(home / "undefined.csv", index=False)
    write_json(home / "metrics.json", scores.metrics)
    (home / "curves.png").write_bytes(f"curves of {name}".encode())
    write_jpeg(home / "worst.jpg", np.full((8, 8, 3), ARTIFACTS.get(name, (0, 0, 9))[2] % 255, np.uint8))


def latency(size: int) -> dict[str, float]:
    keys = ["latency_ms_p50", "latency_ms_p90", "latency_ms_p99"]
    keys += ["preprocess_ms_p50", "inference_ms_p50", "postprocess_ms_p50"]
    run = {"valid": 1, "num_queries": 300, "duration_s": 5.0, "threads": 1, "size_bytes": size}
    return run | {key: size / 100 + i for i, key in enumerate(keys)}


def write_inputs(folder: Path, task: str) -> Path:
    write_images(folder, task)
    for name in ARTIFACTS:
        write_one(folder, task, name)
    # DVC writes one beside outputs that it caches.
    (folder / "evaluate" / ".gitignore").write_text("/weights\n")
    write_json(
        folder / "train" / "metrics.json", {"num_epochs": 3, "best_epoch": 2, "num_parameters": 10, "gflops": 0.5}
    )
    for name in ("training.png", "labels.png"):
        (folder / "train" / name).write_bytes(b"png")
    return folder


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    return write_inputs(tmp_path_factory.mktemp("report_inputs"), "detect")


@pytest.fixture
def project(inputs, tmp_path) -> Path:
    return Path(shutil.copytree(inputs, tmp_path / "project"))


@pytest.fixture(scope="module")
def files(inputs, tmp_path_factory) -> dict[str, bytes]:
    """The report on the inputs as they are."""
    return report(Path(shutil.copytree(inputs, tmp_path_factory.mktemp("report") / "project")))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> Path:
    return write_inputs(tmp_path_factory.mktemp("report_classifier"), "classify")


def paths_of(folder: Path) -> dict[str, Path]:
    names = ("export", "evaluate", "benchmark", "artifacts", "weights", "train", "dataset")
    rest = {"labels": folder / "validated", "splits": folder / "splits.parquet", "out": folder / "out"}
    return {name: folder / name for name in names} | rest


def params_of(**changed: float) -> ReportParams:
    values = {"num_samples": 3, "bootstrap_samples": 50, "confidence_level": 0.9, "seed": 1, "resample": "group"}
    return ReportParams(**(values | changed))


def run_in(folder: Path, task: str = "detect", num_samples: int = 3, difficult: str = "count") -> None:
    paths = paths_of(folder)
    out = paths.pop("out")
    run(
        task,
        params_of(num_samples=num_samples),
        scored=ScoredParams(difficult=difficult, split="test"),
        quantize=BudgetParams(max_map50_95_drop=0.5, max_top1_drop=0.7, max_drop_upper=2, seed=0),
        targets=TARGETS,
        inputs=Inputs(**paths),
        out=out,
    )


def report(folder: Path, num_samples: int = 3, task: str = "detect") -> dict[str, bytes]:
    run_in(folder, task, num_samples)
    return {path.name: path.read_bytes() for path in (folder / "out").iterdir()}


def test_writes_the_files_and_the_same_bytes_again(files, project):
    assert set(files) == FILES
    assert report(project) == files


def test_json_has_full_precision_and_every_artifact(files, project):
    values = json.loads(files["report.json"])
    rows = {row["name"]: row for row in values["rows"]}
    scores = {name: json.loads((project / "evaluate" / name / "metrics.json").read_text()) for name in ARTIFACTS}
    assert [row["name"] for row in values["rows"]] == ["weights", *TARGETS]
    expected = scores["onnx-int8"]["map50_95"] - scores["weights"]["map50_95"]
    assert rows["onnx-int8"]["map50_95_difference"] == pytest.approx(expected, abs=1e-12)
    assert expected < -0.05
    assert rows["onnx-int8"]["class_map50_95"]["NA"] is None
    assert rows["onnx-int8"]["size_bytes"] == 300
    assert rows["onnx-int8"]["latency_ms_p99"] == 5.0
    assert rows["weights"]["latency_valid"] is None
    assert values["samples"] == {"artifact": "onnx-int8", "image_ids": [6, 8, 9]}
    assert values["splits"] == {"train": {"num_images": 6, "num_boxes": 12}, "test": {"num_images": 4, "num_boxes": 8}}
    assert values["scored_split"] == "test"
    assert values["class_counts"] == {"cat": 4, "dog": 4, "NA": 0}
    assert values["intervals"] == {"level": 0.9, "samples": 50, "seed": 1, "num_drawn": 4}
    assert values["undefined"]["weights"]["class_NA_map50_95"]
    assert values["training"]["best_epoch"] == 2


def test_differences_have_the_paired_intervals_of_the_bootstrap(files):
    rows = {row["name"]: row for row in json.loads(files["report.json"])["rows"]}
    for key in ("map50_95", "map50", "map75"):
        for name in TARGETS:
            row = rows[name]
            assert row[f"{key}_low"] <= row[key] <= row[f"{key}_high"]
            assert row[f"{key}_difference_low"] <= row[f"{key}_difference"] <= row[f"{key}_difference_high"]
    # The same boxes on every sample, and a cat that is off by as much on every image.
    assert (rows["onnx-fp32"]["map50_95_difference_low"], rows["onnx-fp32"]["map50_95_difference_high"]) == (0, 0)
    assert rows["onnx-int8"]["map50_95_difference_high"] < 0


def test_page_shows_the_intervals_and_what_no_test_image_shows(files):
    text = files["report.md"].decode()
    assert "**onnx-int8** and **ncnn.v2** are worse than the trained weights" in text
    assert "**onnx-fp32** is the same as the trained weights" in text
    assert "90 % interval of 50 bootstrap samples of the test split (4 images)" in text
    assert "One class has no boxes in test, so nothing is known about: **NA**." in text
    assert "| brightness: " in text
    assert "](../train/training.png)" in text
    assert "| trained weights | 0.250 | 0.900 | 0.800 | 0.850 |" in text


def test_shows_the_worst_and_the_curves_of_the_artifact_that_the_samples_are_of(files, project):
    assert files["curves.png"] == b"curves of onnx-int8"
    assert files["worst.jpg"] == (project / "evaluate" / "onnx-int8" / "worst.jpg").read_bytes()


def test_scores_of_other_predictions_are_refused(project):
    write_json(
        project / "evaluate" / "ncnn.v2" / "metrics.json",
        json.loads((project / "evaluate" / "weights" / "metrics.json").read_text()),
    )
    with pytest.raises(EvaluationError, match=r"ncnn\.v2: expected the map50_95 that its predictions\.parquet gives"):
        report(project)


def test_report_of_a_classifier(classifier):
    files = report(classifier, task="classify")
    assert set(files) == FILES
    values = json.loads(files["report.json"])
    rows = {row["name"]: row for row in values["rows"]}
    assert [rows[name]["top1"] for name in ("weights", "onnx-int8", "ncnn.v2")] == [1.0, 0.5, 0.75]
    assert rows["onnx-int8"]["top1_difference"] == -0.5
    assert -1 <= rows["onnx-int8"]["top1_difference_low"] <= -0.5 <= rows["onnx-int8"]["top1_difference_high"] <= 0
    assert rows["onnx-int8"]["class_f1"] == {"cat": 0.5, "dog": 0.5, "NA": None}
    # Three classes have no five most probable.
    assert rows["weights"]["top5"] is None
    assert values["splits"]["test"] == {"num_images": 4, "num_labels": 4}
    text = files["report.md"].decode()
    assert "A classifier of 3 classes" in text
    assert "One class has no images in test" in text
    assert "`top5` |" in text
    assert report(classifier, task="classify") == files


def test_samples_of_a_classifier_tell_right_from_wrong(classifier):
    image = cv2.imdecode(
        np.frombuffer(report(classifier, 4, task="classify")["samples.jpg"], np.uint8), cv2.IMREAD_COLOR
    )
    frame = 224 * 224 - 212 * 212
    # onnx-int8 is wrong on two of four; vermilion is (0, 94, 213).
    wrong = int((np.abs(image.astype(int) - (0, 94, 213)).max(axis=2) < 40).sum())
    assert blue_pixels(image) == pytest.approx(2 * frame, rel=0.25)
    assert wrong == pytest.approx(2 * frame, rel=0.25)


def test_samples_of_a_classifier_may_have_any_shape(classifier):
    data = read_dataset(classifier / "validated", root=classifier / "dataset")
    folder = classifier / "shapes"
    folder.mkdir()
    for image_id, shape in enumerate([(1, 900), (900, 1), (1, 1), (30, 20)]):
        cv2.imwrite(str(folder / f"{image_id}.png"), np.full((*shape, 3), 9, np.uint8))
    images = data.images.head(4).assign(path=[f"{image_id}.png" for image_id in range(4)])
    odd = Dataset(images, data.annotations, data.findings, CLASSES, folder)
    predictions = pd.DataFrame({"image_id": range(4), "class_id": 0, "confidence": 0.5})
    sheet = task_module("classify", "reporting").draw_samples(odd, [0, 1, 2, 3], predictions, 0.6)
    assert sheet.shape[1] > 4 * 224


def test_another_task_is_refused(project, classifier):
    with pytest.raises(EvaluationError, match="weights: expected an artifact of the task classify, got detect"):
        report(project, task="classify")


def test_page_has_a_row_per_artifact_and_invalid_is_said(project):
    write_json(
        project / "benchmark" / "onnx-fp32.json", {"valid": 0, "num_queries": 3, "duration_s": 9.0, "threads": 1}
    )
    files = report(project)
    line = next(line for line in files["report.md"].decode().splitlines() if line.startswith("| onnx-fp32 | onnx"))
    assert line.count("INVALID") == 1
    row = json.loads(files["report.json"])["rows"][1]
    assert (row["name"], row["latency_valid"], row["latency_ms_p50"]) == ("onnx-fp32", False, None)


def blue_pixels(image: np.ndarray) -> int:
    """Count pixels near the colour of class 0: JPEG does not keep it to the bit."""
    return int((np.abs(image.astype(int) - (178, 114, 0)).max(axis=2) < 40).sum())


def test_samples_show_the_detections_above_the_threshold_large(files, project):
    image = cv2.imdecode(np.frombuffer(files["samples.jpg"], np.uint8), cv2.IMREAD_COLOR)
    assert image.shape[1] > 3 * 480
    blue = blue_pixels(image)
    frame = pd.read_parquet(project / "evaluate" / "onnx-int8" / "predictions.parquet")
    write_scores(project, "detect", "onnx-int8", frame[frame["confidence"] < 0.25])
    image = cv2.imdecode(np.frombuffer(report(project)["samples.jpg"], np.uint8), cv2.IMREAD_COLOR)
    # One thick outline and one label on each of three images; the detection at 0.1 is not drawn.
    assert 3 * 1000 < blue - blue_pixels(image) < 3 * 6000


def test_more_samples_than_images_draws_them_all(project):
    assert json.loads(report(project, num_samples=50)["report.json"])["samples"]["image_ids"] == [6, 7, 8, 9]


def test_scores_of_another_split_are_shown_on_its_images(project):
    for name in ARTIFACTS:
        frame = pd.read_parquet(project / "evaluate" / name / "predictions.parquet")
        write_scores(project, "detect", name, frame.assign(image_id=frame["image_id"] - 6), split="train")
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
        ("evaluate/onnx-fp32/predictions.parquet", "predictions.parquet"),
        ("evaluate/onnx-int8/undefined.csv", "undefined.csv"),
        ("evaluate/onnx-int8/slices.csv", "slices.csv"),
        ("evaluate/weights/classes.csv", "classes.csv"),
        ("evaluate/onnx-int8/worst.jpg", "worst.jpg"),
        ("evaluate/onnx-int8/curves.png", "curves.png"),
        ("train", r"train/training.png: cannot be read"),
        ("train/metrics.json", r"train/metrics.json: no such file"),
        ("train/labels.png", "labels.png"),
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


def test_what_another_run_left_behind_is_not_read(files, project):
    shutil.copytree(project / "evaluate" / "onnx-fp32", project / "evaluate" / "gone")
    shutil.copytree(project / "artifacts" / "onnx-fp32", project / "artifacts" / "gone")
    assert report(project) == files


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
    with pytest.raises(EvaluationError, match="expected the classes of the dataset, NA, dog, cat, got cat, dog, NA"):
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
    arguments = ["--params", str(folder / "params.yaml"), "--task", "detect"]
    for name, path in paths_of(folder).items():
        arguments += [f"--{name}", str(path)]
    return arguments


BUDGET = "{max_map50_95_drop: 0.5, max_top1_drop: 0.5, max_drop_upper: 2.0, seed: 0}"


def write_params(folder: Path, num_samples: object = 2, difficult: str = "count", quantize: str = BUDGET) -> None:
    (folder / "params.yaml").write_text(
        f"report:\n  num_samples: {num_samples}\n  bootstrap_samples: 20\n  confidence_level: 0.95\n  seed: 0\n"
        "  resample: image\n"
        f"evaluate: {{split: test, difficult: {difficult}}}\n"
        f"quantize: {quantize}\n"
        "targets: {onnx-fp32: {}, onnx-int8: {}, ncnn.v2: {}}\n"
    )


def test_command_line(project, capsys):
    write_params(project)
    assert main(command(project)) == 0
    assert {path.name for path in (project / "out").iterdir()} == FILES
    assert "4 rows" in capsys.readouterr().out


@pytest.mark.parametrize("value", ["0", "six", "2.5"])
def test_wrong_parameter_is_one_line(project, capsys, value):
    write_params(project, value)
    assert main(command(project)) == 1
    error = capsys.readouterr().err
    assert "params.yaml:2: wrong value for report.num_samples" in error
    assert error.count("\n") == 1


def test_difficult_is_read_as_evaluate_reads_it(project, capsys):
    write_params(project, difficult="maybe")
    assert main(command(project)) == 1
    assert "params.yaml:7: wrong value for evaluate.difficult" in capsys.readouterr().err
    assert ScoredParams(difficult="ignore", split="val", slices=[]).difficult == "ignore"


def test_budget_is_that_of_the_task(project, classifier):
    assert json.loads(report(project)["report.json"])["budget"] == {"max_drop": 0.5, "max_drop_upper": 2}
    assert json.loads(report(classifier, task="classify")["report.json"])["budget"]["max_drop"] == 0.7


def test_missing_budget_is_named(project, capsys):
    write_params(project, quantize="{max_map50_95_drop: 0.5, max_top1_drop: 0.5, seed: 0}")
    assert main(command(project)) == 1
    assert "missing parameter quantize.max_drop_upper" in capsys.readouterr().err


def quantize_one(folder: Path, name: str = "onnx-int8") -> None:
    """Make an artifact one that a search found, and write what that tried."""
    home = folder / "artifacts" / name
    artifact = read_artifact(home)
    artifact.notes["quantization"] = {
        "method": "minmax", "operators": "all", "float_blocks": [], "num_convolutions": 9, "num_int8": 8,
        "float_names": ["head"], "inside_budget": True, "reason": "", "metric": "map50_95", "drop": 0.25,
        "drop_upper": 0.5, "num_trials": 2, "aware_steps": 0,
    }  # fmt: skip
    write_artifact(artifact, home)
    (folder / "export" / name).mkdir(parents=True)
    # A method may be called None.
    (folder / "export" / name / "trials.csv").write_text(
        "trial,step,method,operators,num_float_blocks,int8_share,metric,drop,drop_upper,inside\n"
        "0,fp32,,,0,0.0,,0.0,0.0,1\n1,method,None,all,0,1.0,0.79,1.25,2.5,0\n2,method,minmax,all,0,1.0,0.8,0.25,0.5,1\n"
    )


def test_search_and_verdict_of_an_int8_artifact(project):
    quantize_one(project)
    files = report(project)
    values = json.loads(files["report.json"])
    row = next(row for row in values["rows"] if row["name"] == "onnx-int8")
    assert (row["accepted"], row["val_drop"], row["left_in_float"]) == (True, 0.25, ["head"])
    # The boxes are far off on test.
    assert row["keeps_budget"] is False
    assert [trial["method"] for trial in values["trials"]["onnx-int8"]] == ["", "None", "minmax"]
    assert values["trials"]["onnx-int8"][0]["metric"] is None
    text = files["report.md"].decode()
    assert "Inside the budget on val, but past its 0.5 points on test: **onnx-int8** (-" in text
    assert "| 2 (taken) | method | minmax | all |" in text
    assert values["recommended"]["smallest inside the budget"]["artifact"] == "onnx-int8"
    assert report(project) == files


@pytest.mark.parametrize("damage", ["", "trial,step\n1,method\n"])
def test_missing_search_is_named_and_nothing_is_written(project, damage):
    quantize_one(project)
    path = project / "export" / "onnx-int8" / "trials.csv"
    path.unlink()
    if damage:
        path.write_text(damage)
    with pytest.raises(EvaluationError, match=r"export/onnx-int8/trials\.csv: "):
        report(project)
    assert not (project / "out").exists()


def test_difficult_boxes_are_scored_as_evaluate_did(project):
    """Boxes of dogs that are difficult are no misses where they are ignored, so mAP is another."""
    data = read_dataset(project / "validated")
    annotations = data.annotations.assign(difficult=data.annotations["class_id"] == 1)
    write_dataset(Dataset(data.images, annotations, data.findings, CLASSES, data.root), project / "validated")
    with pytest.raises(EvaluationError, match="map50_95 that its predictions"):
        run_in(project, difficult="ignore")
    run_in(project, difficult="count")


def test_module_imports_without_the_slow_packages():
    code = (
        "import sys, stages.report; print(sorted({'torch', 'matplotlib', 'sklearn', 'ultralytics'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout.strip() == "[]"
