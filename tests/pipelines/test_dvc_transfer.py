from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from machines import BUCKET, Machine, Site, lock_of, start_s3

from pipelines.dvc_transfer_process import Stopped, Transfer, TransferError


@pytest.fixture(scope="module")
def s3_port(tmp_path_factory) -> Iterator[int]:
    process, port = start_s3(tmp_path_factory.mktemp("s3"))
    yield port
    process.kill()
    process.wait()


@pytest.fixture(scope="module")
def site(s3_port, tmp_path_factory) -> Iterator[Site]:
    """A coordinator whose first stages have run."""
    site = Site(tmp_path_factory.mktemp("site"), "http://127.0.0.1:1/api", s3_port, "store")
    site.coordinator().run("dvc", "repro", "--quiet", "source", "unrelated")
    yield site
    site.end()


@pytest.fixture
def here(site) -> Machine:
    return site.machines[0]


def clone(site: Site, name: str) -> Machine:
    machine = site.machine(name)
    machine.run("git", "clone", "--quiet", os.fspath(site.folder / "origin.git"), "project", cwd=machine.folder)
    machine.own_cache()
    return machine


def step(machine: Machine, name: str, stage: str, **request) -> dict:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pipelines.dvc_transfer", name],
        cwd=machine.project,
        env=machine.environment,
        input=json.dumps({"stage": stage, "remote": "", **request}),
        capture_output=True,
        text=True,
    )
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def key_of(site: Site, value: str) -> str:
    return f"{site.prefix}/files/md5/{value[:2]}/{value[2:]}"


def damage(site: Site, value: str) -> None:
    assert site.s3.head_object(Bucket=BUCKET, Key=key_of(site, value))
    site.s3.put_object(Bucket=BUCKET, Key=key_of(site, value), Body=b"something else")


@pytest.mark.long
def test_a_stage_moves_there_and_its_outputs_back(site, here):
    box = clone(site, "box")
    (here.project / "state.csv").write_text("of before\n")  # it persists: the stage adds to it
    sent = step(here, "send", "train")
    assert step(box, "receive", "train", **sent)["came"] == 4
    assert not any(path.name == "unrelated.bin" for path in box.project.iterdir())
    unrelated = lock_of(here.project)["unrelated"]["outs"][0]["md5"]
    assert unrelated not in box.cached()
    assert lock_of(here.project)["source"]["outs"][0]["md5"] in box.cached()
    box.run("dvc", "repro", "--quiet", "--single-item", "train")
    given = step(box, "give", "train")
    assert step(here, "take", "train", **given)["came"] > 0
    assert here.run("dvc", "status", "train").strip() == "Data and pipelines are up to date."
    assert lock_of(here.project)["train"] == lock_of(box.project)["train"]
    assert set(lock_of(here.project)) == {"source", "unrelated", "train"}
    assert (here.project / "state.csv").read_text().startswith("of before\n")
    assert (here.project / "model" / "deep" / "more.txt").read_text().startswith("more")
    assert "/model" in (here.project / ".gitignore").read_text()


@pytest.mark.long
def test_only_the_parts_of_a_folder_that_a_stage_reads_are_fetched(site, here):
    here.run("dvc", "repro", "--quiet", "train")
    board = clone(site, "board-of-parts")
    sent = step(here, "send", "export")
    assert step(board, "receive", "export", **sent)["came"] == 2  # the folder's list, and one of its two files
    assert [path.name for path in (board.project / "model").rglob("*")] == ["weights.txt"]
    board.run("dvc", "repro", "--quiet", "--single-item", "export")
    assert "export" in lock_of(board.project)


@pytest.mark.long
@pytest.mark.parametrize("damaged", ["file", "folder", "missing"])
def test_an_object_that_is_not_its_hash_is_not_used(site, here, damaged):
    box = clone(site, f"box-{damaged}")
    sent = step(here, "send", "train")
    folder = lock_of(here.project)["source"]["outs"][0]["md5"]
    entries = json.loads((here.folder / "plumbline/cache/files/md5" / folder[:2] / folder[2:]).read_text())
    bad = folder if damaged == "folder" else entries[0]["md5"]
    if damaged == "missing":
        site.s3.delete_object(Bucket=BUCKET, Key=key_of(site, bad))
    else:
        damage(site, bad)
    answer = step(box, "receive", "train", **sent)
    assert answer["unusable"] == [bad]
    assert answer["lasting"]
    assert f"object {bad} is {'missing' if damaged == 'missing' else 'damaged'} in the DVC remote" in answer["error"]
    assert bad not in box.cached()
    assert not (box.project / "raw").exists()
    step(here, "send", "train", again=[bad])
    assert "error" not in step(box, "receive", "train", **sent)
    assert (box.project / "raw" / "weights.txt").read_text() == (here.project / "raw" / "weights.txt").read_text()


@pytest.mark.long
def test_an_equal_run_is_taken_from_the_run_cache(site, here):
    here.run("dvc", "repro", "--quiet", "export")
    board, other = clone(site, "board"), clone(site, "other")
    sent = step(here, "send", "benchmark@one")
    assert not step(here, "restore", "benchmark@one")["restored"]
    step(board, "receive", "benchmark@one", **sent)
    board.run("dvc", "repro", "--quiet", "--single-item", "benchmark@one")
    step(board, "give", "benchmark@one")
    before = site.ran()
    for machine in (here, other):  # the one has what the stage reads from before, the other as a worker
        if machine is other:
            step(machine, "receive", "benchmark@one", **sent)
        assert step(machine, "restore", "benchmark@one")["restored"]
        assert machine.run("dvc", "status", "benchmark@one").strip() == "Data and pipelines are up to date."
        assert lock_of(machine.project)["benchmark@one"] == lock_of(board.project)["benchmark@one"]
        assert (machine.project / "curves-one" / "weights.txt").is_file()
    assert site.ran() == before


def transfer(site: Site, machine: Machine, monkeypatch, retry_s: float, on_line) -> Transfer:
    for name, value in machine.environment.items():
        if name.startswith(("AWS_", "DVC_")):
            monkeypatch.setenv(name, value)
    return Transfer(machine.project, "train", "", retry_s, on_line, threading.Event())


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_remote_that_refuses_is_tried_again(site, here, monkeypatch):
    said = []

    def on_line(line: str) -> None:
        said.append(line)
        site.line.is_cut = False

    site.line.is_cut = True
    refused = site.line.refused
    try:
        answer = transfer(site, here, monkeypatch, 60.0, on_line).step("send")
    finally:
        site.line.is_cut = False
    assert site.line.refused > refused
    assert len(said) == 1
    assert said[0].startswith("send: ")
    assert said[0].endswith("tried again in 1 s")
    assert answer["items"]


def test_a_remote_that_refuses_for_too_long(site, here, monkeypatch):
    site.line.is_cut = True
    try:
        with pytest.raises(TransferError, match=r"tried for 0 s \(flow.remote_retry_s\): is the remote up\?$"):
            transfer(site, here, monkeypatch, 0.0, print).step("send")
        moving = transfer(site, here, monkeypatch, 60.0, print)
        moving.stopped.set()
        with pytest.raises(Stopped):
            moving.step("send")
    finally:
        site.line.is_cut = False


def test_a_wrong_bucket_is_told_at_once(site, here, monkeypatch):
    moving = transfer(site, here, monkeypatch, 600.0, print)
    here.run("dvc", "remote", "add", "--local", "nowhere", "s3://no-such-bucket/x")
    with pytest.raises(TransferError, match="bucket"):
        Transfer(here.project, "train", "nowhere", 600.0, print, moving.stopped).step("send")
    with pytest.raises(TransferError, match="unheard-of"):
        Transfer(here.project, "train", "unheard-of", 600.0, print, moving.stopped).step("send")


@pytest.mark.long
def test_what_was_changed_by_hand_is_not_sent(site, here, tmp_path):
    other = clone(site, "careless")
    other.run("dvc", "repro", "--quiet", "train")
    changed = Path(other.project / "reports" / "train.json")
    changed.write_text("{}")
    answer = step(other, "send", "benchmark@one")
    assert answer["error"].startswith("reports/train.json: the file is not the one of dvc.lock, expected md5 ")
