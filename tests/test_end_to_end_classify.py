"""The task classify through the same stages and the same dvc.yaml, in a temporary clone."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from project_clone import TINY_CLASSIFY, Clone

from plumbline.dataset_images import load_image
from plumbline.manifest import read_dataset
from plumbline.runtime.session import load_artifact

pytestmark = pytest.mark.timeout(3600)  # a whole line: ten minutes on a busy machine

TARGETS = tuple(f"{backend}-{precision}" for backend in ("onnx", "openvino", "ncnn") for precision in ("fp32", "int8"))


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    clone = Clone(tmp_path_factory.mktemp("classify"))
    clone.set_params(TINY_CLASSIFY)
    clone.commit("tiny classifier")
    clone.run("python", "-m", "pipelines.check_params")
    clone.run("dvc", "repro")
    return clone


def metrics_of(clone, name):
    return json.loads((clone.folder / "reports" / "evaluate" / name / "metrics.json").read_text())


def test_every_target_is_a_classifier_that_has_learned(clone):
    weights = metrics_of(clone, "weights")
    assert weights["top1"] > 0.7
    assert "map50_95" not in weights
    for target in TARGETS:
        assert abs(metrics_of(clone, target)["top1"] - weights["top1"]) < 0.05
        assert json.loads((clone.folder / "reports/benchmark" / f"{target}.json").read_text())["valid"] == 1


def test_the_report_is_of_the_same_make(clone):
    folder = clone.folder / "reports" / "report"
    report = json.loads((folder / "report.json").read_text())
    assert [row["name"] for row in report["rows"]] == ["weights", *TARGETS]
    assert "Top-1" in (folder / "report.md").read_text()
    for picture in ("report.png", "samples.jpg", "worst.jpg", "curves.png"):
        assert (folder / picture).stat().st_size > 1000


def test_an_artifact_runs_alone(clone):
    session = load_artifact(clone.folder / "models/artifacts/onnx-int8")
    assert session.artifact.task == "classify"
    predictions = pd.read_parquet(clone.folder / "reports/evaluate/onnx-int8/predictions.parquet")
    data = read_dataset(clone.folder / "data/validated", root=clone.folder / "data/dataset")
    paths = data.images.set_index("image_id")["path"]
    for row in predictions.head(5).itertuples():
        found = session.predict(load_image(data, paths[row.image_id]))
        assert found.class_id == row.class_id
        assert found.confidence == pytest.approx(row.confidence, abs=1e-6)
        assert found.accepted == (found.confidence >= session.artifact.decode.confidence_threshold)


def test_no_digit_is_in_two_splits(clone):
    splits = pd.read_parquet(clone.folder / "data/splits.parquet")
    assert splits["image_id"].is_unique
    assert len(splits) == 1797
    assert splits.groupby("group")["split"].nunique().max() == 1


def test_a_second_run_has_nothing_to_do(clone):
    assert "Data and pipelines are up to date." in clone.run("dvc", "repro").stdout


def test_dvc_shows_metrics_and_plots(clone):
    shown = json.loads(clone.run("dvc", "metrics", "show", "--json").stdout)
    assert all("error" not in content for content in shown[""]["data"].values())
    clone.run("dvc", "plots", "show", "-o", "plots")
    page = (clone.folder / "plots" / "index.html").read_text()
    for plot in ("weights_pr_curve_csv", "onnx-int8_confusion_csv", "reports_train_curves", "weights_confidence_curve"):
        assert plot in page


def test_boxes_are_not_taken_for_classes(clone):
    """Detection's labels under the task classify stop before anything is trained."""
    path = clone.folder / "params.yaml"
    before = path.read_text()
    lock = (clone.folder / "dvc.lock").read_text()
    clone.set_params({"task": "detect"})
    # ingest draws scenes with boxes for the task detect; the same dataset then goes to the classifier's training.
    clone.run("dvc", "repro", "split")
    paths = "--dataset data/dataset --labels data/validated --splits data/splits.parquet"
    outs = "--out out/train --results out/results --tensorboard out/tensorboard"
    failed = clone.run("python", "-m", "stages.train", "--task", "classify", *f"{paths} {outs}".split(), expect=1)
    path.write_text(before)
    (clone.folder / "dvc.lock").write_text(lock)
    clone.run("dvc", "checkout", "--force")
    assert failed.stderr.startswith("error: ")
    assert "expected one label for the whole image" in failed.stderr
    assert not (clone.folder / "out" / "train").exists()
