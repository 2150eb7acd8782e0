"""What a killed stage leaves beside its outputs changes nothing, and is removed by the next flow."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

from pipelines.clone_lock import RWLOCK
from pipelines.leftovers import remove_leftovers
from plumbline.files import replacing

ROOT = Path(__file__).parent.parent.parent
# Killed while it makes the output: nothing of its own is run any more.
MAKE_AND_DIE = """
import os, signal, sys
from pathlib import Path
from plumbline.files import replacing
with replacing(Path(sys.argv[1])) as made:
    made.mkdir()
    (made / "half.txt").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_while_making(out: Path) -> Path:
    done = subprocess.run([sys.executable, "-c", MAKE_AND_DIE, out], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = out.parent.glob(f".{out.name}.*")
    return left


def test_it_is_removed_and_nothing_else(tmp_path):
    out = tmp_path / "models/artifacts/onnx-int8"
    left = killed_while_making(out)
    kept = [out.parent / name for name in (".onnx-int8.mine", ".onnx-int8.ABCDEFGH", ".other.abcd_123", "onnx-int8")]
    for folder in kept:
        folder.mkdir()
    (out.parent / ".onnx-int8.abcdefgh").write_text("a file")

    assert remove_leftovers(tmp_path, [out]) == [left]
    assert not left.exists()
    assert all(folder.is_dir() for folder in kept)
    assert (out.parent / ".onnx-int8.abcdefgh").is_file()


def test_what_is_being_made_by_hand_stays(tmp_path):
    out = tmp_path / "data/dataset"
    left = killed_while_making(out)
    (tmp_path / RWLOCK).parent.mkdir(parents=True)
    (tmp_path / RWLOCK).write_text(json.dumps({"write": {str(out): {"pid": 1, "cmd": "dvc repro"}}, "read": {}}))

    assert remove_leftovers(tmp_path, [out]) == []
    assert left.is_dir()


def test_a_stage_that_succeeds_or_fails_leaves_nothing(tmp_path):
    with replacing(tmp_path / "out") as made:
        made.mkdir()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_dvc_does_not_look_at_it(empty_project):
    report = "{cmd: ls models/artifacts > report.txt, deps: [models/artifacts], outs: [report.txt]}"
    empty_project.write(dvc_yaml=f"stages: {{report: {report}}}")
    (empty_project.root / ".dvcignore").write_text((ROOT / ".dvcignore").read_text())
    (empty_project.root / "models/artifacts/onnx").mkdir(parents=True)
    (empty_project.root / "models/artifacts/onnx/model.onnx").write_text("model")
    empty_project.dvc("repro")
    left = killed_while_making(empty_project.root / "models/artifacts/onnx")

    assert "up to date" in empty_project.dvc("status")
    left.rename(left.with_name("onnx-two"))  # it is the name that hides it
    assert "up to date" not in empty_project.dvc("status")
