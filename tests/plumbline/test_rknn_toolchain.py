"""Environments of toolchains: made whole or not at all, and never used when they do not fit."""

from __future__ import annotations

import json
import subprocess

import pytest

from plumbline.backends.rknn import toolchain as toolchains
from plumbline.errors import BackendError


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A toolchain that needs no package, in a folder of its own."""
    monkeypatch.setattr(toolchains, "TOOLCHAINS", {"tiny": "import numpy"})
    monkeypatch.setattr(toolchains, "REQUIREMENTS", tmp_path)
    monkeypatch.setattr(toolchains, "folder_of", lambda name: tmp_path / ".cache" / name)
    (tmp_path / "tiny.txt").write_text("# nothing\n")
    return tmp_path


def test_missing_one_says_which_command_makes_it(tiny):
    with pytest.raises(BackendError, match=r"the tiny toolchain is not here, .* run `make tiny`"):
        toolchains.python_of("tiny")
    assert not (tiny / ".cache").exists(), "asking makes nothing"


def test_made_one_sees_the_main_environment_behind_its_own(tiny):
    assert toolchains.main(["tiny"]) == 0
    python = toolchains.python_of("tiny")
    said = subprocess.run(
        [str(python), "-c", "import sys, numpy; print(sys.prefix); print(numpy.__version__)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert said[0] == str(tiny / ".cache" / "tiny")
    before = (tiny / ".cache" / "tiny" / toolchains.STAMP).stat().st_mtime_ns
    assert toolchains.main(["tiny"]) == 0
    assert (tiny / ".cache" / "tiny" / toolchains.STAMP).stat().st_mtime_ns == before, "made once"
    (tiny / "tiny.txt").write_text("# something else\n")
    with pytest.raises(BackendError, match=r"was made for another requirements, expected .* run `make tiny`"):
        toolchains.python_of("tiny")


@pytest.mark.parametrize(
    ("line", "works", "message"),
    [
        ("# nothing", "import no_such_package", r"import failed with exit code 1: .*No module named 'no_such_package'"),
        ("./no_such_folder", "pass", r"pip failed with exit code 1: .*no_such_folder"),
    ],
)
def test_one_that_fails_leaves_nothing(tiny, monkeypatch, capsys, line, works, message):
    monkeypatch.setattr(toolchains, "TOOLCHAINS", {"tiny": works})
    (tiny / "tiny.txt").write_text(line + "\n")
    with pytest.raises(BackendError, match=message):
        toolchains.make("tiny")
    assert not list((tiny / ".cache").iterdir())
    assert toolchains.main(["tiny"]) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_damaged_one_is_not_used(tiny):
    stamp = toolchains.make("tiny") / toolchains.STAMP
    whole = stamp.read_text()
    stamp.write_text(json.dumps(json.loads(whole) | {"environment": "/elsewhere"}))
    with pytest.raises(BackendError, match=r"for another environment, expected .*, got /elsewhere; run `make tiny`"):
        toolchains.python_of("tiny")
    stamp.write_text("{")
    with pytest.raises(BackendError, match="is not here"):
        toolchains.python_of("tiny")
    stamp.write_text(whole)
    assert toolchains.python_of("tiny").exists()
    toolchains.python_of("tiny").unlink()
    with pytest.raises(BackendError, match="is not here"):
        toolchains.python_of("tiny")


def test_requirements_are_pinned_and_name_no_index():
    lines = (toolchains.REQUIREMENTS / "rknn.txt").read_text().splitlines()
    packages = [line for line in lines if line and not line.startswith("#")]
    assert all("==" in line and "://" not in line and " " not in line for line in packages)
    assert toolchains.version_of("rknn", "rknn-toolkit2") == "2.3.2"
