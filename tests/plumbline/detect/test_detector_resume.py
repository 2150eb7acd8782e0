"""A training that is killed, anywhere, ends with the bytes of one that is not."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_detector_run import ended, train_in
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from plumbline.files import sha256_of
from plumbline.training_curves import best_epoch
from plumbline.yolo.training import SCORE

TESTS = Path(__file__).parents[2]


class EndedHere(BaseException):
    """What a kill leaves on the disk, without a new process: no handler catches it."""


def end_here() -> None:
    raise EndedHere


def outcome(trained) -> tuple[str, str]:
    """A hash: of two files that differ, pytest would work out the difference for an hour."""
    return trained.epochs.to_csv(index=False), sha256_of(trained.weights)


@pytest.fixture(scope="module")
def in_one_go(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    trained = train_in(folder)
    assert trained.epochs.notna().all(axis=None)
    return outcome(trained)


def killed(folder: Path, when: str, **changes) -> None:
    command = [sys.executable, str(TESTS / "small_detector_run.py"), str(folder), when, json.dumps(changes)]
    env = {**os.environ, "PYTHONPATH": str(TESTS.parent)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=folder, env=env)
    assert done.returncode == -signal.SIGKILL, done.stderr


# Mosaic closes before the epoch 2 (from 0): ends before, at and after that.
@pytest.mark.parametrize("when", ["batch 1.2", "epoch 1", "batch 3.0"])
def test_a_run_that_is_ended_goes_on_to_the_same_bytes(in_one_go, tmp_path, when):
    with ended(when, end_here), pytest.raises(EndedHere):
        train_in(tmp_path)
    lines = []
    trained = train_in(tmp_path, lines.append)
    assert trained.resumed_from_epoch == int(float(when.split()[1])) + when.startswith("epoch")
    assert lines[0].startswith(f"train: going on after epoch {trained.resumed_from_epoch} of 4, from ")
    assert not [line for line in lines if "epoch 1/4 " in line]
    assert outcome(trained) == in_one_go
    assert steps_of(tmp_path / "events", trained.epochs) == [1, 2, 3, 4]


def steps_of(folder: Path, epochs: pd.DataFrame) -> list[int]:
    """The steps of the event files, whose values must be those of the table."""
    events = EventAccumulator(str(folder)).Reload()
    for column in epochs.columns.drop("epoch"):
        scalars = events.Scalars(re.sub("^(train|val)_", r"\1/", column))
        assert [event.step for event in scalars] == epochs["epoch"].tolist()
        assert np.allclose([event.value for event in scalars], epochs[column], rtol=1e-6)
    return [event.step for event in events.Scalars("learning_rate")]


def test_killed_in_the_middle_of_writing_and_of_an_epoch(in_one_go, tmp_path):
    killed(tmp_path, "writing 1")
    assert (tmp_path / "work/state.pt").is_file(), "that of the epoch before"
    killed(tmp_path, "batch 2.1")
    trained = train_in(tmp_path)
    assert trained.resumed_from_epoch == 2
    assert outcome(trained) == in_one_go


def with_scores(monkeypatch, scores: list[float]) -> None:
    """Let val give these scores, one per epoch: a real score of so short a training is noise."""
    from plumbline.yolo.trainer import StatefulTrainer

    validate = StatefulTrainer.validate

    def scored(self):
        metrics, _ = validate(self)
        score = scores[self.epoch]
        self.best_fitness = max(score, -1.0 if self.best_fitness is None else self.best_fitness)
        return {**metrics, "metrics/mAP50-95(B)": score}, score

    monkeypatch.setattr(StatefulTrainer, "validate", scored)


def test_early_stopping_counts_across_an_interruption(tmp_path, monkeypatch):
    with_scores(monkeypatch, [0.1, 0.3, 0.2, 0.25, 0.29, 0.28])
    settings = {"epochs": 6, "patience": 3}
    lines = []
    whole = train_in(tmp_path / "whole", lines.append, **settings)
    assert whole.epochs["epoch"].tolist() == [1, 2, 3, 4, 5], "the best was the second"
    assert "stopped after epoch 5 of 6, 3 epochs without a better score (train.detect.patience)" in lines[-1]
    with ended("batch 3.1", end_here), pytest.raises(EndedHere):
        train_in(tmp_path / "ended", **settings)
    assert outcome(train_in(tmp_path / "ended", **settings)) == outcome(whole)
    # Stopped is finished: what is asked for again is not trained further.
    assert outcome(train_in(tmp_path / "ended", **settings)) == outcome(whole)


def test_the_best_epoch_is_kept_and_not_the_last(tmp_path, monkeypatch):
    with_scores(monkeypatch, [0.1, 0.3, 0.2])
    best = sha256_of(train_in(tmp_path / "second", epochs=3, close_mosaic=0).weights)
    with_scores(monkeypatch, [0.1, 0.3, 0.4])
    assert sha256_of(train_in(tmp_path / "third", epochs=3, close_mosaic=0).weights) != best


def test_of_equal_epochs_the_one_that_is_told_is_kept(tmp_path, monkeypatch):
    # Equal to the six digits that are told, while the first is a little better.
    with_scores(monkeypatch, [0.1, 0.30000001, 0.3])
    equal = train_in(tmp_path / "equal", epochs=3, close_mosaic=0)
    assert best_epoch(equal.epochs, SCORE) == 3
    with_scores(monkeypatch, [0.1, 0.2, 0.3])
    assert sha256_of(equal.weights) == sha256_of(train_in(tmp_path / "last", epochs=3, close_mosaic=0).weights)


def test_a_head_that_is_trained_twice_goes_on_too(tmp_path):
    # The weight of its two losses is another in each epoch.
    settings = {"model": "yolo26n", "epochs": 2, "close_mosaic": 0}
    whole = outcome(train_in(tmp_path / "whole", **settings))
    with ended("batch 1.1", end_here), pytest.raises(EndedHere):
        train_in(tmp_path / "ended", **settings)
    assert outcome(train_in(tmp_path / "ended", **settings)) == whole


def test_a_damaged_state_means_from_the_start(tmp_path):
    whole = outcome(train_in(tmp_path / "whole", epochs=1))
    state = tmp_path / "whole/work/state.pt"
    damaged = bytearray(state.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    state.write_bytes(damaged)
    lines: list[str] = []
    assert outcome(train_in(tmp_path / "whole", say=lines.append, epochs=1)) == whole
    assert lines[0].endswith("state.pt is damaged; starting again from the first epoch")
