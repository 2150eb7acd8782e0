"""Training a detector: what it sees, what it says, and what it refuses."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_detector_run import settings_with, small_dataset, train_in
from untrained_detector import make_checkpoint

from plumbline.errors import BackendError, TrainingError
from plumbline.yolo import quiet_ultralytics, training
from plumbline.yolo.training import train_detector
from plumbline.yolo.view import write_training_view

ROOT = Path(__file__).parents[3]
ONE_EPOCH = {"epochs": 1, "mosaic": 0.0, "close_mosaic": 0}


@pytest.fixture(scope="module")
def view(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("view")
    return write_training_view(*small_dataset(folder / "data"), folder / "view", folder / "view")


def test_training_sees_train_and_val_alone(tmp_path):
    data, splits = small_dataset(tmp_path / "data")
    write_training_view(data, splits, tmp_path / "view", tmp_path / "view")
    seen = {int(path.stem) for path in (tmp_path / "view/images").rglob("*.png")}
    assert seen == set(range(20))
    rows = sum(len(path.read_text().splitlines()) for path in (tmp_path / "view/labels").rglob("*.txt"))
    assert rows == data.annotations["image_id"].isin(seen).sum()
    copy = next((tmp_path / "view/images").rglob("00000003.png"))
    assert copy.stat().st_ino != (tmp_path / "data/images/3.png").stat().st_ino


def test_an_empty_split_and_a_train_split_without_a_box_are_refused(tmp_path):
    data, splits = small_dataset(tmp_path / "data")
    with pytest.raises(TrainingError, match="the val split has no image, expected at least one"):
        write_training_view(data, splits[splits["split"] != "val"], tmp_path / "a", tmp_path / "a")
    nothing = type(data)(data.images, data.annotations[:0], data.findings, data.class_names, data.root)
    with pytest.raises(TrainingError, match="the train split has no box, expected at least one"):
        write_training_view(nothing, splits, tmp_path / "b", tmp_path / "b")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "yolov11n"}, r"no detector 'yolov11n', expected one .*; did you mean yolo11n\?"),
        ({"model": "yolo11q"}, r"no detector 'yolo11q', expected one .*; did you mean yolo11n\?"),
        ({"pretrained": "nowhere/weights.pt"}, "nowhere/weights.pt: no such file, expected a path"),
        ({"precision": "bf16"}, r"train\.detect\.precision is bf16 and there is no GPU, expected fp32"),
    ],
)
def test_settings_that_cannot_be_met_are_refused(view, tmp_path, changes, message):
    with pytest.raises(TrainingError, match=message):
        train_detector(view, settings_with(**changes), tmp_path)


@pytest.mark.parametrize("content", [b"junk", b"", b"PK\x03\x04", "a tensor", "another object"])
def test_weights_that_are_none_are_refused(view, tmp_path, content):
    given = tmp_path / "given.pt"
    if isinstance(content, bytes):
        given.write_bytes(content)
    else:
        torch.save(torch.zeros(3) if content == "a tensor" else {"model": {"a": 1}}, given)
    with pytest.raises(
        TrainingError, match=r"given\.pt: not weights that ultralytics can read .*; change train\.detec"
    ):
        train_detector(view, settings_with(pretrained=str(given)), tmp_path / "work")


def test_weights_by_name_go_as_far_as_the_download(view, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # Nothing listens there: no network is reached, and a machine that has one downloads nothing.
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(TrainingError, match=r"training yolo11n failed: .*yolo11n\.pt"):
        train_detector(view, settings_with(pretrained="yolo11n.pt"), tmp_path / "work")


@pytest.mark.parametrize(
    ("model", "num_classes", "said"),
    [
        ("yolo11n", 2, r"499 of 499 tensors taken from .*given\.pt$"),
        # The last convolution of each of three scales, weight and bias.
        (
            "yolo11n",
            80,
            r"493 of 499 tensors taken .*; its head of 80 classes is not used, a head of 2 classes starts afr",
        ),
    ],
)
def test_pretrained_weights_are_used_and_it_is_said_how_many(tmp_path, model, num_classes, said):
    given = tmp_path / "given.pt"
    make_checkpoint(given, model, num_classes=num_classes, seed=7)
    lines: list[str] = []
    # A step so small that the weights stay what they were.
    trained = train_in(tmp_path, lines.append, pretrained=str(given), learning_rate=1e-12, **ONE_EPOCH)
    assert [line for line in lines if "tensors" in line] == [lines[0]]
    assert re.search(said, lines[0]), lines[0]
    start, end = (torch.load(p, weights_only=False)["model"].state_dict() for p in (given, trained.weights))
    for name, same in (("model.0.conv.weight", True), ("model.23.cv3.0.2.weight", num_classes == 2)):
        close = start[name].shape == end[name].shape and torch.allclose(
            start[name].float(), end[name].float(), atol=1e-2
        )
        assert close == same, name


def test_weights_of_another_network_altogether_are_refused(view, tmp_path):
    given = tmp_path / "given.pt"
    torch.save({"model": torch.nn.Sequential(torch.nn.Linear(3, 2)), "train_args": {}, "epoch": -1}, given)
    with pytest.raises(TrainingError, match=r"given\.pt: none of its tensors fits yolo11n\.yaml"):
        train_detector(view, settings_with(pretrained=str(given)), tmp_path / "work")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_training_and_not_what_was_there(tmp_path, monkeypatch, value):
    from plumbline.yolo.trainer import STATE, StatefulTrainer

    preprocess_batch = StatefulTrainer.preprocess_batch

    def poisoned(self, batch):
        batch = preprocess_batch(self, batch)
        if self.epoch == 1 and self._batch == 2:
            batch["img"] = batch["img"] * value
        return batch

    monkeypatch.setattr(StatefulTrainer, "preprocess_batch", poisoned)
    with pytest.raises(
        TrainingError, match=r"^epoch 2, batch 3 of 4: the loss is (nan|inf), expected a finite number; l"
    ):
        train_in(tmp_path, epochs=2)
    state = torch.load(tmp_path / "work" / STATE, weights_only=False)
    assert state["epoch"] == 0
    assert all(torch.isfinite(tensor).all() for tensor in state["model"].values())


def test_a_score_that_is_no_number_ends_the_training(tmp_path, monkeypatch):
    from plumbline.yolo.trainer import StatefulTrainer

    monkeypatch.setattr(StatefulTrainer, "validate", lambda _: ({}, float("nan")))
    with pytest.raises(TrainingError, match="epoch 1: the score on val is nan, expected a finite number"):
        train_in(tmp_path, **ONE_EPOCH)


def test_weights_that_are_no_numbers_after_the_last_step_are_refused(tmp_path, monkeypatch):
    from plumbline.yolo.trainer import STATE, StatefulTrainer

    step = StatefulTrainer.optimizer_step

    def broken(self):
        step(self)
        next(self.ema.ema.parameters()).data.view(-1)[0] = float("nan")

    monkeypatch.setattr(StatefulTrainer, "optimizer_step", broken)
    # The loss is finite in each of the batches, and ultralytics scores such a network with 0.
    with pytest.raises(TrainingError, match=r"^epoch 1: the weights model\.0\.conv\.weight hold NaN .*learning_rate"):
        train_in(tmp_path, **ONE_EPOCH)
    assert not (tmp_path / "work" / STATE).exists()


def test_boxes_that_ultralytics_would_drop_are_an_error(view, tmp_path):
    folder = tmp_path / "view"
    shutil.copytree(view.parent, folder)
    data = folder / "data.yaml"
    data.write_text(view.read_text().replace(str(view.parent), str(folder)))
    label = sorted((folder / "labels/train").glob("*.txt"))[0]
    label.write_text(label.read_text() + "0 1.4 0.5 0.2 0.2\n")
    # Also when it is asked again: the first refusal comes before there is anything to go on with.
    for _ in range(2):
        with pytest.raises(TrainingError, match=r"ultralytics used \d+ images and \d+ boxes of train"):
            train_detector(data, settings_with(image_size=64), tmp_path / "work")


def test_a_batch_that_ultralytics_has_halved_is_refused():
    from plumbline.yolo.trainer import StatefulTrainer

    # Only a GPU that runs out of memory brings it about: what ultralytics leaves behind is a trainer with another size.
    StatefulTrainer.refuse_another_batch(SimpleNamespace(batch_size=16, _oom_retries=0))
    with pytest.raises(TrainingError, match=r"too small for train\.detect\.batch 16, expected at most 8; change it"):
        StatefulTrainer.refuse_another_batch(SimpleNamespace(batch_size=8, _oom_retries=1))


def test_a_batch_that_several_gpus_cannot_share_is_refused(view, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "resolve_device", lambda _: "0,1,2")
    with pytest.raises(TrainingError, match=r"train\.detect\.batch is 4, expected a multiple of the 3 GPUs"):
        train_detector(view, settings_with(device="auto"), tmp_path)


def test_all_gpus_are_used_and_one_can_be_chosen(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [training.resolve_device(device) for device in ("auto", "cpu", 1)] == ["0,1", "cpu", "1"]


def test_what_ultralytics_starts_on_each_gpu_is_this_trainer(tmp_path):
    """Its file, run as one process on the CPU, gives the bytes of the training here: class and callbacks travel."""
    here = train_in(tmp_path / "here", **ONE_EPOCH)
    data, splits = small_dataset(tmp_path / "there/data")
    work = tmp_path / "there/work"
    data_yaml = write_training_view(data, splits, work / "view", work / "view")

    from ultralytics.utils.dist import ddp_cleanup, generate_ddp_file

    from plumbline.yolo.resume import read_state
    from plumbline.yolo.trainer import RUN, StatefulTrainer

    trainer = StatefulTrainer(overrides=training._overrides(data_yaml, settings_with(**ONE_EPOCH), work / RUN))
    training.Progress(1, 0, data_yaml, tmp_path / "there/events", training.print_now).attach(trainer)
    file = generate_ddp_file(trainer)
    try:
        done = subprocess.run([sys.executable, file], capture_output=True, text=True, check=True, timeout=300)
    finally:
        ddp_cleanup(trainer, file)
    assert "train: epoch 1/1  loss box" in done.stdout
    assert list((tmp_path / "there/events").iterdir())
    state = read_state(work / "state.pt")
    assert state["best"] == here.weights.read_bytes()


def test_the_network_that_ships_is_counted(tmp_path):
    quiet_ultralytics()
    from ultralytics.utils.torch_utils import get_flops

    from plumbline.detect.network import load_network
    from plumbline.networks import count_gflops, count_parameters

    make_checkpoint(tmp_path / "best.pt", "yolo11n", num_classes=80, image_size=640)
    network = load_network(tmp_path / "best.pt")
    assert network.input.size_wh == (640, 640)
    # Its own profile is of the unfused network: normalization is counted too.
    assert count_parameters(network.module) == pytest.approx(2_616_248, rel=0.01)
    whole = torch.load(tmp_path / "best.pt", weights_only=False)["model"].float()
    assert count_gflops(network) == pytest.approx(get_flops(whole, 640), rel=0.05)


@pytest.mark.parametrize("content", [b"junk", b"", {"model": 1}, {"model": torch.nn.Linear(1, 1), "train_args": {}}])
def test_a_file_that_is_no_detector_is_no_network(tmp_path, content):
    from plumbline.detect.network import load_network

    path = tmp_path / "best.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(BackendError, match=r"best\.pt: not a checkpoint .*; train again"):
        load_network(path)


def test_each_rank_and_epoch_draws_other_images_and_the_same_again():
    from plumbline.yolo.resume import reseed

    loader = SimpleNamespace(generator=torch.Generator(), sampler=SimpleNamespace(generator=torch.Generator()))
    seen = []
    for parts in ((0, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 0)):
        drawn = []
        for _ in range(2):
            reseed(loader, *parts)
            drawn.append(
                [torch.randperm(100, generator=g).tolist() for g in (loader.generator, loader.sampler.generator)]
            )
        assert drawn[0] == drawn[1]
        seen += drawn[0]
    assert len(np.unique(seen, axis=0)) == 8


def test_no_gpu_worker_starts_without_images_to_paste():
    from plumbline.yolo.trainer import StatefulTrainer

    class Images:
        def __init__(self):
            self.buffer, self.max_buffer_length = [], 5

        def __len__(self):
            return 20

        def load_image(self, index):
            self.buffer.append(index)

    first, second = (
        SimpleNamespace(args=SimpleNamespace(mosaic=1.0, seed=4), train_loader=SimpleNamespace(dataset=Images()))
        for _ in range(2)
    )
    for trainer in (first, second, first):
        StatefulTrainer._fill_buffer(trainer)
    assert first.train_loader.dataset.buffer == second.train_loader.dataset.buffer
    assert len(set(first.train_loader.dataset.buffer)) == 4
