"""Flow runs of the tests: one in this process with what Prefect's API then knows of it, or the command in its own."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from uuid import UUID

T = TypeVar("T")
ROOT = Path(__file__).parent.parent.parent


class History:
    """What Prefect's API knows about one flow run. It is told in batches, so what is asked for is waited for."""

    def __init__(self, flow_run_id: UUID) -> None:
        from prefect.client.orchestration import get_client

        self.flow_run_id = flow_run_id
        self.client = get_client(sync_client=True)

    def flow_run(self):
        return self.client.read_flow_run(self.flow_run_id)

    def stages(self, number: int = 6) -> dict[str, str]:
        """Stage -> name of its task's last state, in the order in which the tasks were made, once all are known."""
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

        only = FlowRunFilter(id=FlowRunFilterId(any_=[self.flow_run_id]))

        def ended() -> dict[str, str] | None:
            runs = sorted(self.client.read_task_runs(flow_run_filter=only), key=lambda run: run.expected_start_time)
            known = all(run.state_name not in ("Pending", "Running") for run in runs)
            return {run.name: run.state_name for run in runs} if known and len(runs) == number else None

        return in_time(ended)

    def logs(self, number: int = 6) -> list[str]:
        from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

        only = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[self.flow_run_id]))

        def whole() -> list[str] | None:
            told = [log.message for log in self.client.read_logs(log_filter=only)]
            ends = sum(text.startswith("Finished in state") for text in told)
            return told if ends == number + 1 else None

        return in_time(whole)

    def artifact(self, key: str):
        from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey

        only = ArtifactFilter(
            key=ArtifactFilterKey(any_=[key]), flow_run_id=ArtifactFilterFlowRunId(any_=[self.flow_run_id])
        )
        return next(iter(self.client.read_artifacts(artifact_filter=only)), None)


def in_time(ask: Callable[[], T | None], running: subprocess.Popen[str] | None = None) -> T:
    """Ask until there is an answer; who has to give it may be a process, which must not end before."""
    until = time.monotonic() + 120
    while (answer := ask()) is None:
        assert time.monotonic() < until, "not within two minutes"
        assert running is None or running.poll() is None, running.communicate()[0]
        time.sleep(0.1)
    return answer


def run_flow(root: Path) -> History:
    """Run the flow in this process."""
    from pipelines.line import line

    state = line(root, return_state=True)
    return History(state.state_details.flow_run_id)


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
