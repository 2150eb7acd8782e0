"""One flow at a time on a clone, and what a killed one leaves is put right."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from pipelines.clone_lock import LOCK, RWLOCK, BusyError, mend, orphans, sole_flow
from pipelines.process_group import group_lives
from pipelines.run_stage import FLOW_ROOT

HOLD = """
import os, sys, time
from pathlib import Path
from pipelines.clone_lock import sole_flow
with sole_flow(Path(sys.argv[1]), {"flow_run_id": "x"}) as before:
    print(before, flush=True)
    time.sleep(600)
"""


def held(root: Path) -> subprocess.Popen[str]:
    """Another process that holds the project."""
    holder = subprocess.Popen([sys.executable, "-c", HOLD, root], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    holder.said = holder.stdout.readline().strip()
    return holder


def test_a_second_flow_is_refused_and_told_who_has_it(tmp_path):
    holder = held(tmp_path)
    try:
        with (
            pytest.raises(BusyError, match=rf"runs on this folder already \(process {holder.pid}\)"),
            sole_flow(tmp_path, {}),
        ):
            pass
    finally:
        holder.kill()
        holder.wait()


def test_a_killed_flow_lets_go_and_the_next_one_is_told_of_it(tmp_path):
    holder = held(tmp_path)
    assert holder.said == "None"
    holder.kill()
    holder.wait()

    with sole_flow(tmp_path, {"flow_run_id": "y"}) as before:
        assert before == {"flow_run_id": "x", "pid": holder.pid}
    with sole_flow(tmp_path, {}) as before:
        assert before is None
    assert (tmp_path / LOCK).exists()


def test_a_cut_list_of_readers_and_writers_is_emptied(empty_project):
    for cut in ("", '{"read": {"/a": [{"pi', "[]"):
        (empty_project.root / RWLOCK).write_text(cut)
        mend(empty_project.root)
        assert json.loads((empty_project.root / RWLOCK).read_text()) == {}
    empty_project.write(dvc_yaml="stages: {a: {cmd: echo a > a.txt, outs: [a.txt]}}")
    empty_project.dvc("repro")


def test_an_entry_whose_number_another_process_has_now_is_dropped_and_a_true_one_is_kept(empty_project):
    arguments = ["-c", "import time; time.sleep(600)", "repro", "a"]
    writer = subprocess.Popen([sys.executable, *arguments])
    try:
        other = {"pid": os.getpid(), "cmd": "dvc repro long-gone"}
        true = {"pid": writer.pid, "cmd": " ".join(["dvc", "repro", "a"])}
        dead = {"pid": 2**22 - 3, "cmd": "dvc repro b"}
        locks = {"read": {"/a": [other, dead], "/b": [true, other]}, "write": {"/c": other, "/d": true}}
        (empty_project.root / RWLOCK).write_text(json.dumps(locks))

        mend(empty_project.root)

        assert json.loads((empty_project.root / RWLOCK).read_text()) == {"read": {"/b": [true]}, "write": {"/d": true}}
    finally:
        writer.kill()
        writer.wait()


def test_what_outlived_a_killed_flow_is_ended_and_what_belongs_to_another_project_is_not(tmp_path):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", "import time; time.sleep(600)"],
            env={**os.environ, FLOW_ROOT: os.fspath(root)},
            start_new_session=True,
        )
        for root in (tmp_path, tmp_path / "other")
    ]
    ours, theirs = processes
    try:
        assert orphans(tmp_path) == [ours.pid]
        mend(tmp_path)
        assert not group_lives(ours.pid)
        assert theirs.poll() is None
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_an_entry_without_arguments_is_dropped_if_its_process_began_after_it(empty_project):
    # As `python -m pipelines.flow` makes them: after a restart another process has the number.
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        entry = {"pid": other.pid, "cmd": "/somewhere/pipelines/flow.py"}
        path = empty_project.root / RWLOCK
        path.write_text(json.dumps({"write": {"/a": entry}, "read": {"/b": [entry]}}))
        mend(empty_project.root)
        assert json.loads(path.read_text()) == {"read": {"/b": [entry]}, "write": {"/a": entry}}

        os.utime(path, (0, psutil.Process(other.pid).create_time() - 60))
        mend(empty_project.root)
        assert json.loads(path.read_text()) == {"read": {}, "write": {}}
    finally:
        other.kill()
        other.wait()


def test_an_entry_of_our_own_number_is_that_of_one_before_us(empty_project):
    entry = {"pid": os.getpid(), "cmd": " ".join(sys.argv)}
    path = empty_project.root / RWLOCK
    for cmd in (entry["cmd"], "/somewhere/pipelines/flow.py"):
        path.write_text(json.dumps({"read": {"/b": [{**entry, "cmd": cmd}]}}))
        mend(empty_project.root)
        assert json.loads(path.read_text())["read"] == {}
