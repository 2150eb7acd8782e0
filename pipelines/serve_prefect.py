"""What `make server` asks of the running Prefect server: a work pool, the deployments, the truth about dead runs."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from ruamel.yaml import YAML

from pipelines.mirror import REPOSITORY_VARIABLE
from pipelines.server import ServerError
from plumbline.files import write_json

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun, State

PREFECT_FILE = "prefect.yaml"
DEPLOYED_FILE = "deployed.json"  # in PREFECT_HOME


def make_pool(name: str) -> None:
    """Make a work pool of the type process, where it is missing.

    Raises:
        ServerError: There is one of another type.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectNotFound
    from prefect.workers.process import ProcessWorker

    with get_client(sync_client=True) as client:
        try:
            found = client.read_work_pool(name)
        except ObjectNotFound:
            template = ProcessWorker.get_default_base_job_template()
            found = client.create_work_pool(WorkPoolCreate(name=name, type="process", base_job_template=template))
    if found.type != "process":
        raise ServerError(f"work pool {name!r} is of the type {found.type}, expected process; remove it in the UI")


def deploy_changed(root: Path, home: Path, repository: str) -> bool:
    """Deploy prefect.yaml, if it or the repository has changed or the server lacks a deployment; say whether.

    Deploying writes schedules anew: one that was paused in the UI would run again.

    Args:
        root: Where prefect.yaml is.
        home: Where it is kept what was deployed.
        repository: A parameter of the deployments, which everybody sees: an URL without its login.

    Raises:
        ServerError: Prefect refuses it.
    """
    path = root / PREFECT_FILE
    if not path.is_file():
        raise ServerError(f"{path}: there is none, expected the deployments; take it from the project's repository")
    text = path.read_bytes()
    now = {"prefect.yaml": hashlib.sha256(text).hexdigest(), "repository": repository}
    if _read(home / DEPLOYED_FILE) == now and not _missing(YAML(typ="safe").load(text)):
        return False
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", PREFECT_FILE],
        cwd=root,
        env={**os.environ, REPOSITORY_VARIABLE: repository},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode or _missing(YAML(typ="safe").load(text)):
        last = (done.stdout.strip() or "no output").splitlines()[-1]
        hint = f"`prefect deploy --all` in {root} says more"
        raise ServerError(f"{path}: Prefect does not take it: {last}; {hint}")
    write_json(home / DEPLOYED_FILE, now)
    return True


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _missing(described: dict[str, Any]) -> list[str]:
    """Return the names of deployments that the server lacks."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        known = {deployment.name for deployment in client.read_deployments()}
    return [each["name"] for each in described["deployments"] if each["name"] not in known]


def settle_dead_runs(pool: str, worker: str, worker_started: float) -> None:
    """Give an end to the runs of a worker before this one that was killed: they would be Running for ever.

    A run that it had taken and not begun is scheduled again. A server that does not answer is asked again later, and
    where another worker serves the pool, nothing is done: the run may be its.

    Args:
        pool: The work pool.
        worker: Name of the worker of now, and of the one before it.
        worker_started: Seconds since 1970.
    """
    from prefect.client.orchestration import get_client
    from prefect.states import Cancelled, Crashed, Scheduled

    before = datetime.fromtimestamp(worker_started, UTC)
    try:
        with get_client(sync_client=True) as client:
            workers = client.read_workers_for_work_pool(pool)
            if any(str(other.status) == "ONLINE" and other.name != worker for other in workers):
                return
            for run in _open_runs(client, pool):
                state = run.state
                if state is None or state.timestamp > before or _runs(run.infrastructure_pid):
                    continue
                end: State[Any] = Crashed(message="its worker was killed; the next run goes on from there")
                if state.is_pending():
                    end = Scheduled(message="its worker was killed before it began")
                elif state.is_cancelling():
                    end = Cancelled(message="cancelled; its worker was killed meanwhile")
                client.set_flow_run_state(run.id, end, force=True)
    except Exception:  # noqa: S110 - the server is restarted meanwhile
        pass


def _open_runs(client: SyncPrefectClient, pool: str) -> Iterator[FlowRun]:
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
        WorkPoolFilter,
        WorkPoolFilterName,
    )
    from prefect.client.schemas.objects import StateType

    open_states = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
    yield from client.read_flow_runs(
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=open_states))),
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[pool])),
    )


def _runs(pid: str | None) -> bool:
    """Say whether a run's process runs on this machine: the number may be another one's by now."""
    try:
        process = psutil.Process(int(pid or "x"))
        return process.status() != psutil.STATUS_ZOMBIE and any("prefect" in part for part in process.cmdline())
    except (ValueError, psutil.Error):
        return False
