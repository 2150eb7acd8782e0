"""The flow over a small DVC project: order, caching, failure, logs and artifacts; and the command around it."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys

from flow_runs import command, run_flow, runs

ALL = ["prepare", "fragile", "behind", "make@b-two", "make@a-one", "report"]


def test_all_stages_run_then_none_is_run_again(project, prefect_api):
    first = run_flow(project.root)
    assert first.flow_run().state.message == "stages: 6 ran, 0 were up to date"
    assert first.stages() == dict.fromkeys(ALL, "Completed")
    assert f"prepared by {sys.executable}" in first.logs()

    report = first.artifact("report")
    assert (report.type, report.data) == ("markdown", "pp")
    metrics = first.artifact("metrics")
    assert metrics.type == "table"
    assert json.loads(metrics.data) == [{"file": "metrics.json", "metric": "map50", "value": 0.5}]

    second = run_flow(project.root)
    assert second.flow_run().state.message == "stages: 0 ran, 6 were up to date"
    assert second.stages() == dict.fromkeys(ALL, "Cached")


def test_a_failed_stage_stops_what_needs_it_and_nothing_else(project, prefect_api):
    project.write(switch_txt="off\n")

    failed = run_flow(project.root)

    assert failed.flow_run().state.is_failed()
    headline, *tail = failed.flow_run().state.message.splitlines()
    assert headline == "stage 'fragile' failed: off (so not run: behind)"
    assert "fragile: fragile starts" in tail
    assert failed.stages() == {**dict.fromkeys(ALL, "Completed"), "fragile": "Failed", "behind": "NotReady"}
    assert failed.artifact("report") is None

    project.write(switch_txt="on\n")
    mended = run_flow(project.root)
    assert mended.flow_run().state.is_completed()
    assert mended.stages() == {**dict.fromkeys(ALL, "Cached"), "fragile": "Completed", "behind": "Completed"}


def test_what_follows_a_stage_that_ran_is_looked_at_again(project, prefect_api):
    project.dvc("repro", "--quiet")
    project.write(source_txt="another")  # but what `prepare` writes stays the same

    assert run_flow(project.root).stages() == {**dict.fromkeys(ALL, "Cached"), "prepare": "Completed"}


def test_what_follows_outputs_of_the_run_cache_is_taken_from_there_too(project, prefect_api):
    # A file that is taken back: the first stage's outputs come out of the run-cache, and are others than were here.
    project.write(
        dvc_yaml="""
stages:
  first: {cmd: cp source.txt first.txt, deps: [source.txt], outs: [first.txt]}
  second: {cmd: cp first.txt second.txt && date +%N >> second.txt, deps: [first.txt], outs: [second.txt]}
  third: {cmd: head -1 second.txt > third.json, deps: [second.txt], metrics: [{third.json: {cache: false}}]}
""",
        source_txt='{"score": 1}\n',
    )
    run_flow(project.root)
    was = (project.root / "second.txt").read_text()
    project.write(source_txt='{"score": 2}\n')
    run_flow(project.root)
    project.write(source_txt='{"score": 1}\n')

    back = run_flow(project.root)

    assert back.stages(3) == dict.fromkeys(["first", "second", "third"], "Cached")
    assert (project.root / "second.txt").read_text() == was
    assert json.loads((project.root / "third.json").read_text()) == {"score": 1}
    assert json.loads(back.artifact("metrics").data)[0]["value"] == 1
    assert "up to date" in project.dvc("status")


def test_the_command_names_the_failed_stage_last_and_keeps_its_history_in_the_project(project):
    project.write(switch_txt="off\n")

    done = command(project.root)
    output, _ = done.communicate()

    assert done.returncode == 1
    assert output.splitlines()[-1] == "error: stage 'fragile' failed: off (so not run: behind)"
    with sqlite3.connect(project.root / ".prefect" / "prefect.db") as history:
        assert history.execute("select state_type from flow_run").fetchall() == [("FAILED",)]


def test_ctrl_c_leaves_no_process_and_no_running_run(empty_project):
    flow, child = interrupted(empty_project, signal.SIGINT, {})

    assert flow.returncode == 130
    assert not runs(child)
    with sqlite3.connect(empty_project.root / ".prefect" / "prefect.db") as history:
        assert history.execute("select state_type from flow_run").fetchall() == [("CRASHED",)]
    assert (empty_project.root / ".prefect" / "server.log").read_text().rstrip().endswith("Server stopped!")


def test_sigterm_does_the_same_with_a_server_of_the_users_own(empty_project, prefect_api):
    from prefect.settings import get_current_settings

    flow, child = interrupted(empty_project, signal.SIGTERM, {"PREFECT_API_URL": get_current_settings().api.url})

    assert flow.returncode == 143
    assert not runs(child)
    assert not (empty_project.root / ".prefect" / "server.log").exists()


def test_a_folder_that_is_no_project_is_one_line(tmp_path):
    done = command(tmp_path)
    output, _ = done.communicate()

    assert done.returncode == 1
    (line,) = output.splitlines()
    assert line.startswith("error: ")
    assert "not inside of a DVC repository" in line


def interrupted(project, number: int, environment: dict[str, str]) -> tuple[subprocess.Popen[str], int]:
    """Signal the command's whole group, as a terminal does, while a stage runs; the command and the stage's child."""
    project.write(dvc_yaml="stages: {long: {cmd: 'sleep 600 & echo child $!; wait'}}")
    flow = command(project.root, environment)
    assert flow.stdout is not None
    child = next(int(line.split()[-1]) for line in flow.stdout if "- child " in line)
    os.killpg(flow.pid, number)
    output, _ = flow.communicate()
    assert output.splitlines()[-1] == "interrupted: what was running was ended; run again to go on from there"
    return flow, child
