"""The flow over a small DVC project: order, caching, failure, logs and artifacts; and the command around it."""

from __future__ import annotations

import functools
import json
import os
import signal
import sqlite3
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from uuid import UUID

T = TypeVar("T")
ALL = ["prepare", "fragile", "behind", "make@b-two", "make@a-one", "report"]
ROOT = Path(__file__).parent.parent.parent


class History:
    """What Prefect's API knows about one flow run. It is told in batches, so what is asked for is waited for."""

    def __init__(self, flow_run_id: UUID) -> None:
        from prefect.client.orchestration import get_client

        self.flow_run_id = flow_run_id
        self.client = get_client(sync_client=True)

    def flow_run(self):
        return self.client.read_flow_run(self.flow_run_id)

    def stages(self) -> dict[str, str]:
        """Stage -> name of its task's last state, in the order in which the tasks were made."""
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

        only = FlowRunFilter(id=FlowRunFilterId(any_=[self.flow_run_id]))

        def ended() -> dict[str, str] | None:
            runs = sorted(self.client.read_task_runs(flow_run_filter=only), key=lambda run: run.expected_start_time)
            known = all(run.state_name not in ("Pending", "Running") for run in runs)
            return {run.name: run.state_name for run in runs} if known and len(runs) == len(ALL) else None

        return in_time(ended)

    def logs(self) -> list[str]:
        from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

        only = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[self.flow_run_id]))

        def whole() -> list[str] | None:
            told = [log.message for log in self.client.read_logs(log_filter=only)]
            ends = sum(text.startswith("Finished in state") for text in told)
            return told if ends == len(ALL) + 1 else None

        return in_time(whole)

    def artifact(self, key: str):
        from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey

        only = ArtifactFilter(
            key=ArtifactFilterKey(any_=[key]), flow_run_id=ArtifactFilterFlowRunId(any_=[self.flow_run_id])
        )
        return next(iter(self.client.read_artifacts(artifact_filter=only)), None)


def in_time(ask: Callable[[], T | None]) -> T:
    """Ask until there is an answer."""
    until = time.monotonic() + 60
    while (answer := ask()) is None:
        assert time.monotonic() < until, "the API was not told within a minute"
        time.sleep(0.1)
    return answer


def run_flow(root: Path) -> History:
    """Run the flow in this process."""
    from pipelines.line import line

    state = line(root, return_state=True)
    return History(state.state_details.flow_run_id)


def test_all_stages_run_then_none_is_run_again(project, prefect_api):
    first = run_flow(project.root)
    assert first.flow_run().state.message == "6 stages ran, 0 were up to date"
    assert first.stages() == dict.fromkeys(ALL, "Completed")
    assert f"prepared by {sys.executable}" in first.logs()

    report = first.artifact("report")
    assert (report.type, report.data) == ("markdown", "pp")
    metrics = first.artifact("metrics")
    assert metrics.type == "table"
    assert json.loads(metrics.data) == [{"file": "metrics.json", "metric": "map50", "value": 0.5}]

    second = run_flow(project.root)
    assert second.flow_run().state.message == "0 stages ran, 6 were up to date"
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


def test_images_of_the_report_are_embedded_while_they_fit(tmp_path, prefect_api):
    from pipelines.flow_artifacts import embed_images

    (tmp_path / "small.png").write_bytes(png())
    (tmp_path / "large.png").write_bytes(png() + b"\0" * 1000)
    page = "![a b](small.png) ![](large.png) ![gone](gone.png) ![web](https://example.com/x.png) [text](small.png)"

    shown = embed_images(page, tmp_path, limit_bytes=500)

    first, rest = shown.split(")", 1)
    assert first.startswith("![a b](data:image/png;base64,iVBORw0KGgo")
    assert rest == (
        " *(image large.png: )* *(image gone.png: gone)* ![web](https://example.com/x.png) [text](small.png)"
    )


def test_photographs_are_embedded_as_what_they_are(tmp_path, prefect_api):
    from pipelines.flow_artifacts import embed_images

    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff")
    assert embed_images("![](photo.jpg)", tmp_path) == "![](data:image/jpeg;base64,/9j/)"


def test_numbers_that_json_cannot_hold_become_words(prefect_api):
    from pipelines.flow_artifacts import metric_rows

    rows = metric_rows({"": {"data": {"m.json": {"data": {"a": float("nan"), "b": {"c": 1}}}}}})

    assert [row["value"] for row in rows] == ["nan", 1]


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
    assert output.splitlines()[-1] == "interrupted: the running stage was ended; run again to go on from there"
    return flow, child


def runs(pid: int) -> bool:
    """Whether a process runs; the dead that nobody has waited for do not."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.is_file() and stat.read_text().rpartition(")")[2].split()[0] not in "ZX"


def command(root: Path, more: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Start ``python -m pipelines.flow`` on a project, with a process group and a Prefect home of its own."""
    environment = {**os.environ, "PYTHONPATH": os.fspath(ROOT), **(more or {})}
    del environment["PREFECT_HOME"]
    return subprocess.Popen(
        [sys.executable, "-m", "pipelines.flow", "--root", os.fspath(root)],
        env=environment,
        cwd=root.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # A background job of a shell ignores SIGINT, and so would what it starts, this test's processes too.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads here
    )


def png() -> bytes:
    """One grey pixel."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0\x80")) + chunk(b"IEND", b"")
    )
