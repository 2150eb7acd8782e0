"""A stage of another pool: given to a worker there, followed, and its result taken as if it had run here.

The coordinator's side; the worker's is `pipelines.stage_worker`. Code goes by git, data through the DVC remote, and the
rest through Prefect's API. A worker that dies is replaced by another; an object that is damaged in the remote is found
by its hash, and sent again by who has it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from prefect.client.orchestration import get_client

from pipelines.dvc_transfer_process import Transfer, TransferError
from pipelines.elsewhere_commit import commit_for_workers
from pipelines.elsewhere_runs import LostError, RemoteRun
from pipelines.flow_params import FlowParams
from pipelines.graph import Stage, ask_dvc
from pipelines.run_stage import Outcome, StageError
from plumbline.errors import PlumblineError

TRIES = 4  # workers that may die over one stage, or objects that may be damaged again, before it is the stage's fault


def run_elsewhere(
    root: Path, stage: Stage, params: FlowParams, on_line: Callable[[str], None], stopped: threading.Event
) -> Outcome:
    """Run a stage on a worker of its pool; afterwards all is here as if it had run here.

    Args:
        root: The DVC project's root.
        stage: One with a pool.
        params: How long things may take, and which DVC remote.
        on_line: Gets the lines of its log as they come, and what is waited for.
        stopped: Ends it, there too, when it is set.

    Raises:
        StageError: The stage failed, could not be given to a worker, or was stopped.
    """
    transfer = Transfer(root, stage.name, params.remote, params.remote_retry_s, on_line, stopped)
    try:
        known = transfer.step("restore")
        if known["restored"]:
            on_line(f"Stage '{stage.name}' is cached - an equal run's outputs were in the run-cache")
            return Outcome.CACHED
        commit = commit_for_workers(root, known["made"], known["sources"])
        code = {"repository": commit.repository, "commit": commit.commit, "folder": commit.folder}
        outcome = _run_and_take(transfer, stage, params, code)
        _check(root, stage.name)
    except StageError:
        raise
    except (PlumblineError, httpx.HTTPError) as error:
        raise StageError(stage.name, 1, (str(error),)) from error
    return outcome


def _run_and_take(transfer: Transfer, stage: Stage, params: FlowParams, code: dict[str, str]) -> Outcome:
    """Give the stage to workers until one has run it and its outputs are here."""
    from_here: list[str] = []  # objects that are sent again, by us or by the worker
    from_there: list[str] = []
    error: PlumblineError | None = None
    for _ in range(TRIES):
        if error is not None:
            transfer.on_line(f"{error}; tries again")
            if transfer.step("restore")["restored"]:  # who died may have been ready
                return Outcome.RAN
        sent = transfer.step("send", again=from_here)
        parameters = {**code, "stage": stage.name, "remote": params.remote, "retry_s": params.remote_retry_s}
        parameters |= {"locks": sent["locks"], "items": sent["items"], "again": from_there}
        try:
            result = _run(stage, params, parameters, transfer)
        except LostError as lost:
            error = lost
            continue
        except TransferError as lacks:
            if set(lacks.unusable) <= set(from_here):  # sent again, and damaged again
                raise
            error, from_here = lacks, list(lacks.unusable)
            continue
        try:
            transfer.step("take", items=result["items"], entry=result["entry"])
        except TransferError as lacks:
            if not lacks.unusable or set(lacks.unusable) <= set(from_there):
                raise
            error, from_there = lacks, list(lacks.unusable)
            continue
        return Outcome(result["outcome"])
    assert error is not None
    raise error


def _run(stage: Stage, params: FlowParams, parameters: dict[str, Any], transfer: Transfer) -> dict[str, Any]:
    """Let a worker run the stage once; return what it made.

    Raises:
        StageError: It failed there.
        TransferError: The remote lacks what it reads.
        LostError: Its worker has died.
    """
    with get_client(sync_client=True) as client:
        run = RemoteRun(client, stage.pool, params, transfer.on_line, transfer.stopped)
        state, result = run.follow(parameters)
    if "unusable" in result:
        raise TransferError(state.message or "the remote lacks objects", tuple(result["unusable"]))
    if not state.is_completed() or not result:
        tail = tuple(str(state.message or f"ended as {state.name}").splitlines())
        raise StageError(stage.name, 1, tail[1:] or tail)
    return result


def _check(root: Path, name: str) -> None:
    """See that DVC finds nothing to do for the stage.

    Raises:
        StageError: It does.
    """
    if status := ask_dvc(root, "--wait-for-lock", "status", name):
        hint = "a file was changed meanwhile; run again"
        raise StageError(name, 1, (f"its result was taken, but `dvc status` still finds {status[name]}; {hint}",))
