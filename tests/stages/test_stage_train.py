"""The train stage: it learns, it is refused what it cannot use, and it goes on after a kill."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from project_clone import ROOT, environment
from ruamel.yaml import YAML
from untrained_detector import make_checkpoint

from plumbline.errors import TrainingError
from plumbline.manifest import read_dataset
from plumbline.params import load_section
from plumbline.yolo.training import TrainSettings, epochs_done, refuse_another_batch, train_detector
from plumbline.yolo.view import write_training_view
from stages.train import TrainParams


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    """A folder with the data of a tiny run: 40 scenes, ingested, validated, split."""
    folder = tmp_path_factory.mktemp("prepared")
    params = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    params["digits"].update(num_scenes=40, scene_size=64, max_digits=4, max_size=32)
    params["train"].update(epochs=8, image_size=64, batch=8, close_mosaic=0)
    with (folder / "params.yaml").open("w") as file:
        YAML().dump(params, file)
    (folder / "data").mkdir()
    source = str(ROOT / "data" / "digits")
    for command in (
        f"stages.ingest --source {source} --out data/dataset --metrics reports/ingest.json",
        "stages.validate --dataset data/dataset --out data/validated --findings reports/findings.json"
        " --sheet reports/findings.jpg --metrics reports/validate.json",
        "stages.split --labels data/validated --assignment data/splits.csv --out data/splits.parquet"
        " --metrics reports/split.json --leaks reports/split_leaks.json",
    ):
        module(folder, command).check_returncode()
    return folder


def module(folder: Path, command: str, **more) -> subprocess.CompletedProcess[str]:
    env = {**environment(folder / "site"), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", *command.split()],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=600,
        **more,
    )


TRAIN = (
    "stages.train --dataset data/dataset --labels data/validated --splits data/splits.parquet --out models/train"
    " --epochs reports/epochs.csv --metrics reports/train.json"
)


def test_a_killed_run_goes_on_where_it_was(prepared):
    env = {**environment(prepared / "site"), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", *TRAIN.split()], cwd=prepared, env=env, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    for line in process.stdout:
        if "train: epoch 2/8" in line:
            os.killpg(process.pid, signal.SIGKILL)
            break
    assert process.wait() == -signal.SIGKILL
    assert not (prepared / "models").exists(), "nothing half-written"
    done = module(prepared, TRAIN)
    assert done.returncode == 0, done.stderr
    # It may have got further before the signal arrived.
    after = int(re.search(r"train: going on after epoch (\d) of 8", done.stdout)[1])
    assert 2 <= after < 8
    assert "train: epoch 2/8" not in done.stdout
    assert "train: epoch 8/8" in done.stdout
    epochs = pd.read_csv(prepared / "reports/epochs.csv")
    assert epochs["epoch"].tolist() == list(range(1, 9))
    assert json.loads((prepared / "models/train/train.json").read_text())["lineage"]["resumed_from_epoch"] == after
    assert not list((prepared / ".cache/train").iterdir()), "a finished run leaves no work behind"


def test_training_sees_train_and_val_alone(prepared, tmp_path):
    dataset = read_dataset(prepared / "data/validated", root=prepared / "data/dataset")
    splits = pd.read_parquet(prepared / "data/splits.parquet")
    write_training_view(dataset, splits, tmp_path / "view", tmp_path / "view")
    seen = {int(path.stem) for path in (tmp_path / "view/images").rglob("*.png")}
    assert seen == set(splits.loc[splits["split"].isin(["train", "val"]), "image_id"])
    assert seen
    rows = sum(len(path.read_text().splitlines()) for path in (tmp_path / "view/labels").rglob("*.txt"))
    assert rows == dataset.annotations["image_id"].isin(seen).sum()
    original = prepared / "data/dataset" / dataset.images.set_index("image_id").loc[min(seen), "path"]
    assert next((tmp_path / "view/images").rglob(f"{min(seen):08d}.png")).stat().st_ino != original.stat().st_ino


def test_an_empty_split_is_refused(prepared, tmp_path):
    dataset = read_dataset(prepared / "data/validated", root=prepared / "data/dataset")
    splits = pd.read_parquet(prepared / "data/splits.parquet")
    with pytest.raises(TrainingError, match="the val split has no image, expected at least one"):
        write_training_view(dataset, splits[splits["split"] != "val"].assign(), tmp_path / "v", tmp_path / "v")


def settings_of(prepared, **changes) -> TrainSettings:
    params = load_section(prepared / "params.yaml", "train", TrainParams)
    return TrainSettings(**{**params.model_dump(), "epochs": 1, **changes})


@pytest.fixture(scope="module")
def view(prepared, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("view") / "view"
    dataset = read_dataset(prepared / "data/validated", root=prepared / "data/dataset")
    return write_training_view(dataset, pd.read_parquet(prepared / "data/splits.parquet"), folder, folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "yolo99z"}, "training yolo99z failed"),
        ({"pretrained": "nowhere/weights.pt"}, "training yolo11n failed"),
    ],
)
def test_a_model_or_weights_that_are_not_there(prepared, view, tmp_path, changes, message):
    with pytest.raises(TrainingError, match=message):
        train_detector(view, settings_of(prepared, **changes), tmp_path, lambda _: None)


def test_weights_by_name_go_as_far_as_the_download(prepared, view, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Nothing listens there: no network is reached, and a machine that has one downloads nothing.
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(TrainingError, match=r"training yolo11n failed: .*yolo11n\.pt"):
        train_detector(view, settings_of(prepared, pretrained="yolo11n.pt"), tmp_path / "work", lambda _: None)


def test_pretrained_weights_are_used(prepared, view, tmp_path):
    given = tmp_path / "given.pt"
    make_checkpoint(given, "yolo11n", num_classes=10, seed=7)
    # A step so small that the weights stay what they were.
    still = {"learning_rate": 1e-12, "mosaic": 0.0}
    result = train_detector(
        view, settings_of(prepared, pretrained=str(given), **still), tmp_path / "work", lambda _: None
    )
    start, end = (torch.load(p, weights_only=False)["model"].state_dict() for p in (given, result.weights))
    name = "model.0.conv.weight"
    assert torch.allclose(start[name].float(), end[name].float(), atol=1e-2)


def test_boxes_that_ultralytics_would_drop_are_an_error(prepared, view, tmp_path):
    import shutil

    folder = tmp_path / "view"
    shutil.copytree(view.parent, folder)
    data = folder / "data.yaml"
    data.write_text(view.read_text().replace(str(view.parent), str(folder)))
    label = sorted((folder / "labels/train").glob("*.txt"))[0]
    label.write_text(label.read_text() + "0 1.4 0.5 0.2 0.2\n")
    # Also when it is asked again: the first refusal comes before there is anything to go on with.
    for _ in range(2):
        with pytest.raises(TrainingError, match=r"ultralytics used \d+ images and \d+ boxes of train"):
            train_detector(data, settings_of(prepared), tmp_path / "work", lambda _: None)


@pytest.mark.parametrize(
    ("changes", "faulty"),
    [
        ({}, set()),
        ({"model": "yolo26s"}, set()),
        ({"model": "yolov8n-p2"}, set()),
        ({"model": "yolo11n-seg"}, {"model"}),
        ({"model": "yolo99n"}, {"model"}),
        ({"pretrained": "yolo11n.pt"}, set()),
        ({"pretrained": "nope"}, {"pretrained"}),
        ({"pretrained": "no/such.pt"}, {"pretrained"}),
    ],
)
def test_what_can_be_known_before_a_run_is(changes, faulty):
    params = load_section(ROOT / "params.yaml", "train", TrainParams)
    assert set(params.model_copy(update=changes).missing_files()) == faulty


def test_bf16_without_a_gpu_is_refused(prepared, view, tmp_path):
    with pytest.raises(TrainingError, match=r"train\.precision is bf16 and there is no GPU, expected fp32"):
        train_detector(view, settings_of(prepared, precision="bf16", device="cpu"), tmp_path, lambda _: None)


@pytest.mark.parametrize("content", [b"junk", b"", b"PK"])
def test_a_damaged_checkpoint_means_from_the_start(tmp_path, content):
    (tmp_path / "last.pt").write_bytes(content)
    assert epochs_done(tmp_path / "last.pt") == 0


def test_a_batch_that_ultralytics_has_halved_is_refused():
    # Only a GPU that runs out of memory brings it about: what ultralytics leaves behind is a trainer with another size.
    refuse_another_batch(SimpleNamespace(batch_size=16), 16)
    with pytest.raises(TrainingError, match=r"too small for train\.batch 16, expected at most 8; change it"):
        refuse_another_batch(SimpleNamespace(batch_size=8), 16)
