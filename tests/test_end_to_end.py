"""The real stages through the real DVC in a temporary clone, on a tiny data set."""

from __future__ import annotations

import json
import shutil

import pytest
from project_clone import TINY, Clone
from ruamel.yaml import YAML

pytestmark = pytest.mark.timeout(3600)  # a whole line: ten minutes on a busy machine

METRICS = {"ingest.json", "validate.json", "split.json", "train", "evaluate", "export"}
REPORT = ("report.md", "report.json", "report.png", "samples.jpg", "worst.jpg", "curves.png")


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    clone = Clone(tmp_path_factory.mktemp("line"))
    clone.set_params(TINY)
    clone.commit("tiny")
    clone.first = clone.run("dvc", "repro")
    return clone


def lock(clone):
    return YAML(typ="safe").load((clone.folder / "dvc.lock").read_text())["stages"]


def out_hashes(clone, stage):
    return {out["path"]: out["md5"] for out in lock(clone)[stage]["outs"]}


def read_metrics(clone):
    """Every metric file that holds no time."""
    reports = clone.folder / "reports"
    files = [path for path in sorted(reports.rglob("*.json")) if path.relative_to(reports).parts[0] in METRICS]
    return {str(path.relative_to(reports)): path.read_text() for path in files}


def test_the_report_is_there(clone):
    folder = clone.folder / "reports" / "report"
    for name in REPORT:
        assert (folder / name).stat().st_size > 100
    names = {row["name"] for row in json.loads((folder / "report.json").read_text())["rows"]}
    assert names == {
        "weights",
        *(f"{backend}-{p}" for backend in ("onnx", "openvino", "ncnn") for p in ("fp32", "int8")),
    }


def test_training_says_where_it_is(clone):
    assert "train: epoch 1/8" in clone.first.stdout
    assert "train: epoch 8/8" in clone.first.stdout


def test_a_second_run_has_nothing_to_do(clone):
    assert "Data and pipelines are up to date." in clone.run("dvc", "repro").stdout


def test_dvc_shows_metrics_and_plots(clone):
    shown = json.loads(clone.run("dvc", "metrics", "show", "--json").stdout)
    files = shown[""]["data"]
    assert "reports/evaluate/weights/metrics.json" in files
    assert all("error" not in content for content in files.values())
    clone.run("dvc", "plots", "show", "-o", "plots")
    page = (clone.folder / "plots" / "index.html").read_text()
    for plot in ("reports_train_curves", "weights_pr_curve_csv", "onnx-int8_pr_curve_csv", "weights_confusion_csv"):
        assert plot in page


def test_lineage_reaches_from_the_artifact_to_the_labels(clone):
    artifact = json.loads((clone.folder / "models/artifacts/onnx-int8/artifact.json").read_text())
    commit = clone.run("git", "rev-parse", "HEAD").stdout.strip()
    assert artifact["lineage"]["git_commit"] == commit
    assert artifact["precision"] == "int8"
    assert len(artifact["lineage"]["dataset_sha256"]) == 64
    assert len(artifact["lineage"]["calibration_sha256"]) == 64


def test_one_backends_module_reruns_that_backend_alone(clone):
    path = clone.folder / "plumbline/backends/openvino/__init__.py"
    before = path.read_text()
    path.write_text(before + "\n# changed\n")
    changed = json.loads(clone.run("dvc", "status", "--json").stdout)
    path.write_text(before)
    assert {stage for stage in changed if "@" in stage} == {
        *(f"{stage}@openvino-{p}" for stage in ("export", "evaluate", "benchmark") for p in ("fp32", "int8")),
    }
    assert not {"train", "hub", "ingest", "evaluate_weights"} & set(changed)


def test_a_target_is_one_line(clone):
    path = clone.folder / "params.yaml"
    before = path.read_text()
    path.write_text(before.replace("\nevaluate:", "  ncnn-fp16: {backend: ncnn, precision: fp16}\n\nevaluate:", 1))
    listed = clone.run("dvc", "stage", "list", "--name-only").stdout.split()
    changed = json.loads(clone.run("dvc", "status", "--json").stdout)
    path.write_text(before)
    assert {"export@ncnn-fp16", "evaluate@ncnn-fp16", "benchmark@ncnn-fp16"} <= set(listed)
    assert "export@onnx-int8" not in changed


def test_everything_deleted_and_made_again_is_the_same(clone):
    hashes = {stage: out_hashes(clone, stage) for stage in ("ingest", "validate", "split", "train", "hub")}
    metrics = read_metrics(clone)
    assert len(metrics) == 4 + 7 + 6  # the weights and six targets
    assert json.loads(metrics["evaluate/onnx-int8/metrics.json"])["map50"] > 0, "equal zeros would show nothing"
    for name in (
        "data/dataset",
        "data/validated",
        "data/splits.parquet",
        "data/splits.csv",
        "models",
        "reports",
        ".dvc/cache",
        "dvc.lock",
    ):
        path = clone.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    clone.run("dvc", "repro", "--no-run-cache")
    for stage in ("ingest", "validate", "split"):
        assert out_hashes(clone, stage) == hashes[stage], stage
    assert read_metrics(clone) == metrics
    # Stronger than was asked for: the weights themselves are the same bytes.
    assert out_hashes(clone, "train") == hashes["train"]
    assert out_hashes(clone, "hub") == hashes["hub"]


@pytest.mark.parametrize(
    ("change", "stage", "message"),
    [
        ({"split.seeed": 1}, "split", "unknown parameter split.seeed"),
        (
            {"train.detect.epochs": "ten"},
            "train",
            "wrong value for train.detect.epochs, expected a valid integer, got 'ten' (str)",
        ),
    ],
)
def test_bad_params_are_one_line(clone, change, stage, message):
    path = clone.folder / "params.yaml"
    before = path.read_text()
    clone.set_params(change)
    line = next(
        n for n, text in enumerate(path.read_text().splitlines(), 1) if f"{next(iter(change)).split('.')[-1]}:" in text
    )
    failed = clone.run("dvc", "repro", "-s", stage, expect=255)
    checked = clone.run("python", "-m", "pipelines.check_params", expect=1)
    path.write_text(before)
    # DVC removes a stage's outputs before it runs it.
    clone.run("dvc", "checkout", "--force")
    assert f"error: params.yaml:{line}: {message}" in failed.stderr
    assert f"error: params.yaml:{line}: {message}" in checked.stderr
    assert "Traceback" not in failed.stderr + checked.stderr
