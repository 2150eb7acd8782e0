"""The deployed flows: on a real server and worker, in clean clones, killed and cancelled in the middle."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest
from git_project import SLOW, GitProject, output
from served_project import Served, lives

from pipelines.clones import clean_clone, local_cache
from pipelines.deployments import environment_differs
from pipelines.mirror import redacted
from pipelines.results_branch import RemoteError, branch_name, bring_outputs, has_remote, push_outputs, push_results

ROOT = Path(__file__).parent.parent.parent
REPRO = (sys.executable, "-m", "dvc", "repro", "--quiet")


def test_results_come_as_a_branch_once(tmp_path):
    source = GitProject(tmp_path)
    source.write({"data/photos.txt": "dirty\n"})
    repository = str(source.root)
    with clean_clone(tmp_path / "home", repository, "main", cache=local_cache(repository)) as place:
        assert push_results(place, repository, "main", "nothing") is None
        output(place, *REPRO)
        (place / "stray.txt").write_text("no output")
        branch = push_results(place, repository, "main", "Retrain of main\n\nall of it\n")
        assert push_results(place, repository, "main", "again") == branch
        assert output(place, "git", "rev-parse", "HEAD") == source.first

    assert branch is not None
    assert branch.startswith(f"plumbline/retrain-main-{source.first[:8]}-")
    told = source.git("show", "-s", "--format=%s by %an on %P", branch)
    assert told == f"Retrain of main by plumbline on {source.first}"
    assert source.git("diff", "--name-only", source.first, branch).split("\n") == ["dvc.lock", "metrics.json"]
    assert json.loads(source.git("show", f"{branch}:metrics.json")) == {"photos": 1}
    assert source.git("rev-parse", "--abbrev-ref", "HEAD") == "main"
    assert (source.root / "data/photos.txt").read_text() == "dirty\n"

    source.git("checkout", "--quiet", "--", "data")
    source.git("merge", "--quiet", branch)
    source.ran()
    source.dvc("repro", "--quiet")  # the cache is shared, so that what was merged is here
    assert source.ran() == []


def test_an_output_that_is_gone_is_gone_in_the_branch(tmp_path):
    source = GitProject(tmp_path)
    source.dvc("repro", "--quiet")
    source.commit("results")
    repository = str(source.root)
    with clean_clone(tmp_path / "home", repository, "main") as place:
        (place / "metrics.json").unlink()
        branch = push_results(place, repository, "main", "gone")
    assert source.git("diff", "--name-status", "main", str(branch)) == "D\tmetrics.json"


def test_a_repository_that_takes_no_branch_is_told_where_the_results_are(tmp_path):
    source = GitProject(tmp_path)
    hook = source.root / ".git/hooks/pre-receive"
    hook.write_text("#!/bin/sh\necho protected; exit 1\n")
    hook.chmod(0o755)
    with clean_clone(tmp_path / "home", str(source.root), "main") as place:
        output(place, *REPRO)
        with pytest.raises(RemoteError, match="the results cannot be pushed") as caught:
            push_results(place, str(source.root), "main", "refused")
        branch = str(caught.value).partition("the branch ")[2].partition(" ")[0]
        assert output(place, "git", "show", f"{branch}:metrics.json")


@pytest.mark.parametrize("revision", ["feature/a b~c", "refs/pull/5/head", "v1..2", "x.lock", "-"])
def test_a_branch_has_a_name_that_git_takes(revision, tmp_path):
    output(tmp_path, "git", "check-ref-format", "--branch", branch_name(revision, "1" * 40, "2" * 40))


def test_outputs_come_from_the_remote_and_go_there(tmp_path):
    source = GitProject(tmp_path)
    source.dvc("remote", "add", "--default", "near", str(tmp_path / "storage"))
    source.commit("remote")
    repository, lines = str(source.root), []
    with clean_clone(tmp_path / "one", repository, "main") as place:
        bring_outputs(place, "", 0, lines.append)  # nothing is there yet, and that is no error
        output(place, *REPRO)
        assert push_outputs(place, "", 0, lines.append)
        branch = push_results(place, repository, "main", "results")
    source.git("merge", "--quiet", str(branch))
    source.ran()

    with clean_clone(tmp_path / "two", repository, "main") as place:
        bring_outputs(place, "", 0, lines.append)
        assert (place / "out/photos.txt").read_text() == "a\n"
        output(place, *REPRO)
        assert source.ran() == []
        (place / "out/photos.txt").unlink()
        (place / "out/photos.txt").write_text("half of a run that was killed")
        bring_outputs(place, "", 0, lines.append)
        assert (place / "out/photos.txt").read_text() == "half of a run that was killed"
    assert lines == []


def test_a_remote_that_refuses_is_tried_again_and_then_told(tmp_path, monkeypatch):
    source = GitProject(tmp_path)
    (tmp_path / "storage").write_text("no folder")
    source.dvc("remote", "add", "--default", "near", str(tmp_path / "storage/x"))
    source.dvc("repro", "--quiet")
    source.commit("remote")
    repository, lines = str(source.root), []
    monkeypatch.setattr("pipelines.results_branch.FIRST_PAUSE_S", 0.1)

    def mend(line: str) -> None:
        lines.append(line)
        if "tried again" in line:
            (tmp_path / "storage").unlink()

    with clean_clone(tmp_path / "home", repository, "main", cache=local_cache(repository)) as place:
        with pytest.raises(RemoteError, match="`dvc push` failed for 0 s"):
            push_outputs(place, "", 0, lines.append)
        with pytest.raises(RemoteError, match=r"flow\.remote is 'other', expected a DVC remote \(near\)"):
            has_remote(place, "other")
        assert push_outputs(place, "", 600, mend)
    assert lines[-1] == "dvc push is tried again in 0.1 s"
    assert (tmp_path / "storage/x/files").is_dir()


def test_an_environment_that_differs_is_told(tmp_path):
    path = tmp_path / "constraints.txt"
    assert environment_differs(path) == ""
    path.write_text(f"# these\npsutil=={psutil.__version__}\nnot-here==1\n")
    assert environment_differs(path) == ""
    path.write_text("psutil==0.1\n")
    assert f"psutil 0.1 (here {psutil.__version__})" in environment_differs(path)
    assert environment_differs(ROOT / "constraints.txt") == ""


def test_a_password_is_not_shown():
    assert "secret" not in redacted("https://a:secret@example.com/b.git")


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Served]:
    """A running `make server`; the project that it stands in has its data in a folder beside it."""
    folder = tmp_path_factory.mktemp("served")
    photos = folder / "photos"
    photos.mkdir()
    (photos / "1.jpg").write_bytes(b"1")
    project = GitProject(folder, source=str(photos))
    shutil.copy(ROOT / "prefect.yaml", project.root)
    project.commit("deployments")
    served = Served(project.root, folder / "site-cache", "--every", "1")
    try:
        served.start()
        yield served
    finally:
        assert served.end() == 128 + signal.SIGTERM
        # Nothing that it has started is left.
        assert not [each for each in psutil.process_iter(["cmdline"]) if str(folder) in str(each.info["cmdline"])]


@pytest.fixture
def slow(tmp_path) -> GitProject:
    return GitProject(tmp_path, SLOW)


def in_the_middle(served: Served, project: GitProject) -> int:
    """Wait until the slow stage runs; the process that it is."""

    def pid() -> int:
        lines = project.log.read_text().splitlines() if project.log.exists() else []
        return int(lines[-1].split()[1]) if lines and lines[-1].startswith("slow ") else 0

    return served.wait_for(pid)


@pytest.mark.long
def test_retrain_works_in_a_clean_clone_and_brings_its_results_back(served, tmp_path):
    project = GitProject(tmp_path)
    project.write({"data/photos.txt": "dirty\n", "new.txt": "new"})
    before = project.git("status", "--porcelain")

    first = served.ended(run := served.run("retrain", repository=str(project.root)))
    assert first["type"] == "COMPLETED", first
    assert first["message"].startswith("stages: 2 ran, 0 were up to date; results: branch plumbline/retrain-main-")
    branch = first["message"].rpartition(" ")[2]
    assert json.loads(project.git("show", f"{branch}:metrics.json")) == {"photos": 1}
    assert str(run) in project.git("show", "-s", "--format=%b", branch)
    assert project.git("status", "--porcelain") == before
    assert project.ran() == ["copies", "counts"]

    second = served.ended(run := served.run("retrain", repository=str(project.root)))
    assert second["message"] == f"stages: 0 ran, 2 were up to date; results: branch {branch}"
    assert served.stages(run) == {"copy": "Cached", "count": "Cached"}
    assert project.ran() == []
    assert project.git("branch", "--format=%(refname:short)").split("\n") == ["main", branch]


@pytest.mark.long
def test_what_cannot_be_run_is_one_line_in_the_state(served, tmp_path):
    state = served.ended(served.run("retrain", repository=str(tmp_path / "none")))
    assert state["type"] == "FAILED"
    assert "cannot be fetched" in state["message"]
    assert "\n" not in state["message"]


@pytest.mark.long
def test_a_killed_flow_repeats_the_interrupted_stage_alone(served, slow):
    first = served.run("retrain", repository=str(slow.root))
    stage = in_the_middle(served, slow)
    flow = next(each for each in psutil.Process(stage).parents() if "prefect" in " ".join(each.cmdline()))
    flow.kill()
    served.wait_for(lambda: not lives(stage))
    assert served.ended(first)["type"] == "CRASHED"
    (clone,) = (served.root / ".cache/server/clones").glob(f"project-*/{slow.first[:12]}")
    assert (clone / "half.txt").read_text() == "half\n"  # as a checkpoint: what git ignores stays
    slow.ran()

    slow.gate.touch()
    again = served.ended(served.run("retrain", repository=str(slow.root)))
    assert again["type"] == "COMPLETED", again
    assert [line.split()[0] for line in slow.ran()] == ["slow", "counts"]
    assert (clone / "half.txt").read_text() == "half\nhalf\n"


@pytest.mark.long
def test_a_cancelled_run_ends_its_processes(served, slow):
    run = served.run("retrain", repository=str(slow.root))
    stage = in_the_middle(served, slow)
    served.ask("POST", f"/flow_runs/{run}/set_state", state={"type": "CANCELLING"})
    served.wait_for(lambda: not lives(stage))
    assert served.ended(run)["type"] == "CANCELLED"


@pytest.mark.long
def test_a_killed_worker_ends_its_stages_and_is_started_again(served, slow):
    run = served.run("retrain", repository=str(slow.root))
    stage = in_the_middle(served, slow)
    served.child("worker start").kill()
    served.wait_for(lambda: not lives(stage))
    assert served.ended(run)["type"] == "CRASHED"
    slow.ran()

    slow.gate.touch()
    again = served.ended(served.run("retrain", repository=str(slow.root)))  # its slot of the limit is free
    assert again["type"] == "COMPLETED", again
    assert [line.split()[0] for line in slow.ran()] == ["slow", "counts"]


@pytest.mark.long
def test_two_runs_are_never_in_one_clone_at_once(served, slow):
    repository = str(slow.root)
    first = served.run("retrain", repository=repository)
    stage = in_the_middle(served, slow)
    queued = served.run("retrain", repository=repository)
    waiting = served.run("pull-request", repository=repository, revision=slow.first)
    served.wait_for(lambda: served.state(queued)["name"] == "AwaitingConcurrencySlot")
    served.wait_for(lambda: any("waiting for another run" in line for line in served.logs(waiting)))
    assert lives(stage)
    assert served.state(first)["type"] == "RUNNING"

    slow.gate.touch()
    assert [served.ended(run)["type"] for run in (first, queued)] == ["COMPLETED"] * 2
    refused = served.ended(waiting)  # its turn came; but this project has no scores to compare
    assert (refused["type"], ": has no " in refused["message"]) == ("FAILED", True), refused
    assert [line.split()[0] for line in slow.ran()] == ["copies", "slow", "counts"]


@pytest.mark.long
def test_new_data_starts_one_run(served):
    photos = served.root.parent / "photos"
    served.wait_for(lambda: "watching" in served.log("watch_data"))

    def triggered() -> list[dict]:
        return [run for run in served.runs("retrain") if run["parameters"].get("seen")]

    before = len(triggered())
    (photos / "2.jpg").write_bytes(b"2")
    served.wait_for(lambda: len(triggered()) == before + 1)
    run = triggered()[-1]
    assert run["parameters"]["seen"].startswith(f"{photos}: 2 files (")
    assert run["parameters"]["repository"] == str(served.root)
    assert served.ended(run["id"])["type"] == "COMPLETED"
    # Once more, from a watch that was killed: what it has told it does not tell again.
    served.child("pipelines.watch_data").kill()
    served.wait_for(lambda: served.log("watch_data").count("watching") == 1 and served.child("pipelines.watch_data"))
    (photos / "3.jpg").write_bytes(b"3")
    served.wait_for(lambda: len(triggered()) == before + 2)
    assert [run["parameters"]["seen"].split()[1] for run in triggered()[before:]] == ["2", "3"]
    served.ended(triggered()[-1]["id"])


@pytest.mark.long
def test_a_killed_server_ends_no_run(served, slow):
    run = served.run("retrain", repository=str(slow.root))
    stage = in_the_middle(served, slow)
    server = served.child("server start")
    os.killpg(server.pid, signal.SIGKILL)
    served.wait_for(lambda: not lives(server.pid))
    served.child("server start")
    served.wait_for(lambda: served.ask("GET", "/health") is True)
    assert lives(stage)
    slow.gate.touch()
    assert served.ended(run)["type"] == "COMPLETED"
    assert served.ended(served.run("retrain", repository=str(slow.root)))["type"] == "COMPLETED"  # the slot is free


@pytest.mark.long
def test_schedules_survive_a_kill_of_everything(served):
    retrain, monitor = served.deployment("retrain"), served.deployment("monitor")
    (weekly,) = retrain["schedules"]
    served.ask("PATCH", f"/deployments/{retrain['id']}/schedules/{weekly['id']}", active=False)
    every = {"schedule": {"interval": 20, "anchor_date": "2026-01-01T00:00:00Z"}, "active": True}
    served.api.post(f"/deployments/{monitor['id']}/schedules", json=[every]).raise_for_status()

    def runs_after(moment: str) -> bool:
        return any(
            run["state_name"] == "NotBuilt" and run["expected_start_time"] > moment for run in served.runs("monitor")
        )

    served.wait_for(lambda: runs_after(""))
    children = psutil.Process(served.process.pid).children(recursive=True)
    served.process.kill()  # the kernel tells the server, the worker and the watch
    served.process.wait()
    served.wait_for(lambda: not any(lives(child.pid) for child in children))

    served.start()
    started = datetime.now(UTC).isoformat()
    served.wait_for(lambda: runs_after(started), 240)
    for name in ("server start", "worker start"):
        os.killpg(served.child(name).pid, signal.SIGKILL)
    killed = datetime.now(UTC).isoformat()
    served.wait_for(lambda: runs_after(killed), 240)
    assert "deployed" not in served.said()
    assert [each["active"] for each in served.deployment("retrain")["schedules"]] == [False]
    (added,) = [each for each in served.deployment("monitor")["schedules"] if each["active"]]
    served.api.delete(f"/deployments/{monitor['id']}/schedules/{added['id']}").raise_for_status()
