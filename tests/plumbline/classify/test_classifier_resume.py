"""A run that was killed, at whatever moment, ends as one that was not."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What killed_training.py found; see there."""
    folder = tmp_path_factory.mktemp("killed")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[2])])}
    command = [sys.executable, str(HERE / "killed_training.py"), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "found.json").read_text())


def test_every_run_but_the_last_was_killed(found):
    assert found["codes"] == [-9] * 5
    assert (found["reference"]["resumed"], found["resumed"]["resumed"]) == (0, 5)


def test_a_run_killed_five_times_ends_with_the_same_bits(found):
    for key in ("weights", "last_state", "epochs_exact"):
        assert found["resumed"][key] == found["reference"][key], key


def test_a_checkpoint_cut_short_means_starting_again_and_is_said(found):
    again = found["again"]
    assert "last.ckpt cannot be gone on from (not a whole ZIP archive, as torch.save writes: BadZ" in again["lines"][0]
    assert again["lines"][0].endswith("; starting again from the first epoch")
    assert again["resumed"] == 0
    for key in ("weights", "last_state", "epochs_exact"):
        assert again[key] == found["reference"][key], key
