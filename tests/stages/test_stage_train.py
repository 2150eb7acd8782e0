"""The train stage: what it writes, how it goes on after a kill, and what can be known before it runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from project_clone import ROOT, environment
from ruamel.yaml import YAML
from small_detector_run import SETTINGS, small_dataset

from plumbline.files import sha256_of
from plumbline.manifest import write_dataset
from plumbline.params import check_section, load_section, read_params
from plumbline.training_settings import DetectTraining
from stages import train as stage
from stages.train import TrainSection

COMMAND = [
    "-m", "stages.train", "--task", "detect", "--dataset", "data", "--labels", "validated",
    "--splits", "splits.parquet", "--out", "models/train", "--results", "reports", "--tensorboard", "events",
]  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A folder with the data of a tiny run."""
    folder = tmp_path_factory.mktemp("prepared")
    params = YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["train"]["detect"] = SETTINGS
    with (folder / "params.yaml").open("w", encoding="utf-8") as file:
        YAML().dump(params, file)
    data, splits = small_dataset(folder / "data")
    (folder / "validated").mkdir()
    write_dataset(data, folder / "validated")
    splits.assign(group=splits["image_id"]).to_parquet(folder / "splits.parquet")
    return folder


def run_stage(prepared: Path) -> subprocess.Popen[str]:
    env = {**environment(prepared / "site"), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, *COMMAND], cwd=prepared, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True
    )


def test_a_killed_run_goes_on_where_it_was_and_writes_everything(prepared):
    process = run_stage(prepared)
    for line in process.stdout:
        if "train: epoch 2/4" in line:
            os.killpg(process.pid, signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL
    assert not (prepared / "models").exists(), "nothing half-written"
    again = run_stage(prepared)
    said, _ = again.communicate()
    assert again.returncode == 0, said
    record = json.loads((prepared / "models/train/train.json").read_text(encoding="utf-8"))
    after = record["lineage"]["resumed_from_epoch"]
    assert 2 <= after < 4, "it may have got further before the signal arrived"
    assert f"train: going on after epoch {after} of 4" in said
    assert "train: epoch 4/4" in said
    assert record["lineage"]["weights_sha256"] == sha256_of(prepared / "models/train/best.pt")
    assert pd.read_csv(prepared / "reports/epochs.csv")["epoch"].tolist() == [1, 2, 3, 4]
    metrics = json.loads((prepared / "reports/metrics.json").read_text(encoding="utf-8"))
    assert metrics["num_epochs"] == 4
    assert metrics["num_parameters"] > 2e6
    assert metrics["gflops"] > 0
    assert {path.stem for path in (prepared / "reports/curves").iterdir()} >= {"train_box_loss", "learning_rate"}
    for name in ("training.png", "labels.png"):
        assert (prepared / "reports" / name).read_bytes().startswith(b"\x89PNG")
    assert list((prepared / "events").glob("events.out.tfevents.*"))
    assert not list((prepared / ".cache/train").iterdir()), "a finished run leaves no work behind"


@pytest.mark.parametrize(
    ("changes", "faulty"),
    [
        ({}, {}),
        ({"model": "yolo26s"}, {}),
        ({"model": "yolov8n-p2"}, {}),
        ({"model": "yolo11n-seg"}, {"detect.model": "did you mean yolo11n?"}),
        ({"model": "yolov11s"}, {"detect.model": "did you mean yolo11s?"}),
        ({"pretrained": "yolo11n.pt"}, {}),
        ({"pretrained": "nope"}, {"detect.pretrained": "no file 'nope'"}),
        ({"pretrained": "no/such.pt"}, {"detect.pretrained": "no file 'no/such.pt'"}),
    ],
)
def test_what_can_be_known_before_a_run_is(changes, faulty):
    params = load_section(ROOT / "params.yaml", "train", TrainSection)
    changed = params.model_copy(update={"detect": params.detect.model_copy(update=changes)})
    faults = changed.missing_files()
    assert set(faults) == set(faulty)
    assert all(words in faults[key] for key, words in faulty.items())


@pytest.mark.parametrize(
    ("typed", "said"),
    [("resent18", "did you mean resnet18"), ("ResNet18", "did you mean resnet18"), ("xyzzy", "see the README's list")],
)
def test_a_classifier_that_does_not_exist_is_told_before_a_run(typed, said):
    values = read_params(ROOT / "params.yaml")["train"]
    values["classify"]["model"] = typed
    faults = check_section(ROOT / "params.yaml", "train", values, TrainSection).missing_files()
    assert list(faults) == ["classify.model"]
    assert said in faults["classify.model"]


def test_only_a_run_that_would_give_the_same_weights_goes_on(prepared, monkeypatch):
    def key(**changes) -> str:
        settings = DetectTraining(**{**SETTINGS, **changes})
        return stage._run_key("detect", settings, prepared / "validated", prepared / "splits.parquet")

    before = key()
    assert key() == before
    assert key(seed=SETTINGS["seed"] + 1) != before
    monkeypatch.setattr(stage, "toolchain", lambda packages: dict.fromkeys(packages, "another version"))
    assert key() != before
