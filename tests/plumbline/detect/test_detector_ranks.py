"""Training on several devices, as far as a machine without GPUs can tell: two ranks with workers, on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_detector_run import small_dataset

from plumbline.yolo.resume import read_state
from plumbline.yolo.view import write_training_view

ROOT = Path(__file__).parents[3]


def ranks(folder: Path, when: str) -> subprocess.CompletedProcess[str]:
    if not folder.is_dir():
        write_training_view(*small_dataset(folder / "data"), folder / "view", folder / "view")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, str(ROOT / "tests/two_ranks.py"), str(folder), when],
        capture_output=True, text=True, check=False, timeout=600, env=env,
    )  # fmt: skip


@pytest.mark.long
def test_two_ranks_that_are_killed_end_with_the_bytes_of_two_that_are_not(tmp_path):
    whole = ranks(tmp_path / "whole", "never")
    assert whole.returncode == 0, whole.stderr
    assert whole.stdout.count("train: epoch 3/3") == 1, "the first rank alone speaks"
    assert ranks(tmp_path / "killed", "killed").returncode != 0
    assert read_state(tmp_path / "killed/state.pt")["epoch"] == 0
    again = ranks(tmp_path / "killed", "never")
    assert again.returncode == 0, again.stderr
    assert "train: epoch 1/3" not in again.stdout
    expected, got = (read_state(tmp_path / name / "state.pt") for name in ("whole", "killed"))
    assert got["rows"] == expected["rows"]
    assert got["best"] == expected["best"]
    assert all(torch.equal(tensor, got["model"][name]) for name, tensor in expected["model"].items())


@pytest.mark.long
def test_a_rank_leaves_its_error_for_who_started_it(tmp_path):
    assert ranks(tmp_path / "nan", "nan").returncode != 0
    assert (
        (tmp_path / "nan/failure.txt").read_text().startswith("epoch 2, batch 1 of 4: the loss is nan, expected a fi")
    )
