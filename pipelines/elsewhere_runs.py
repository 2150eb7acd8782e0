"""Flow runs of stages on workers of a pool, as the coordinator sees them through Prefect's API."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
    LogFilter,
    LogFilterFlowRunId,
    LogFilterTimestamp,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import FlowRun, State, StateType, WorkerStatus
from prefect.client.schemas.sorting import LogSort
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.states import Cancelling, Crashed, Scheduled

from pipelines.dvc_transfer_process import Stopped
from pipelines.flow_params import FlowParams
from pipelines.stage_worker import BEAT, result_of
from plumbline.errors import PlumblineError

POLL_S = 1.0
STARTS_WITHIN_S = 60.0  # Python with Prefect, on a board
LOG_PAGE = 200
LOG_OVERLAP = timedelta(seconds=30)  # lines reach the server in batches, of several processes
LOGGER = "prefect.flow_runs"  # of the flow itself; the worker's and the runner's have names below it
TAG = "plumbline"  # of a run: which work it is
BY_TAG = "plumbline-by"  # of a run: the coordinator's flow run
WAITING = (StateType.SCHEDULED, StateType.PAUSED)
UNDER_WAY = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)


class PoolError(PlumblineError):
    """No worker of a pool has taken a stage."""


class LostError(PlumblineError):
    """A stage's worker has died, or gives no sign of life."""


@dataclass
class Watched:
    """Something that shall change, and when it last did, by this process's own clock.

    >>> watched = Watched("a", 0.0)
    >>> watched.still("a", 5.0), watched.still("b", 7.0), watched.still("b", 9.0)
    (5.0, 0.0, 2.0)
    """

    value: object
    since: float

    def still(self, value: object, now: float) -> float:
        """Return for how many seconds it has not changed."""
        if value != self.value:
            self.value, self.since = value, now
        return now - self.since


class RemoteRun:
    """One stage given to a pool, from its submission to its end.

    Args:
        client: Of the server that the workers ask.
        pool: Their work pool.
        params: How long things may take.
        on_line: Gets each line of the stage's log.
        stopped: Cancels it when it is set.
    """

    def __init__(
        self,
        client: SyncPrefectClient,
        pool: str,
        params: FlowParams,
        on_line: Callable[[str], None],
        stopped: threading.Event,
    ) -> None:
        self.client, self.pool, self.params, self.on_line, self.stopped = client, pool, params, on_line, stopped
        self._coordinator = flow_run.id or ""
        self._is_ours = False  # the run is not one that another coordinator waits for too
        self._told: set[UUID] = set()
        self._told_until: datetime | None = None
        self._warned = False

    def follow(self, parameters: dict[str, Any]) -> tuple[State[Any], dict[str, Any]]:
        """Submit the stage, or find the equal run that is under way, and wait for its end.

        Returns:
            Its last state, and what its worker made known.

        Raises:
            PoolError: No worker has taken it in time.
            LostError: Its worker has died, and the run is marked as crashed; or the coordinator that has submitted it
                has cancelled it.
            Stopped: It shall stop; the run is being cancelled, unless another coordinator wants it.
        """
        tag = f"{TAG}:{fingerprint(parameters)}"
        run = self._under_way(tag) or self._submit(parameters, tag)
        run = self._wait_for_end(run)
        self._tell_log(run.id)
        assert run.state is not None
        if run.state.is_crashed():
            raise LostError(f"{run.name}: {run.state.message}")
        if run.state.is_cancelled() and not self._is_ours:
            raise LostError(f"{run.name}: cancelled by the flow that had submitted it")
        return run.state, self._result(run.id)

    def _under_way(self, tag: str) -> FlowRun | None:
        """Return the equal run of another coordinator, or the one that a coordinator which was killed has left."""
        self._is_ours = False
        types = FlowRunFilterStateType(any_=[*WAITING, StateType.PENDING, StateType.RUNNING])
        found = self.client.read_flow_runs(
            flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=[tag]), state=FlowRunFilterState(type=types))
        )
        if found:
            self.on_line(f"goes on with run {found[0].name!r} of pool {self.pool!r}, which is under way already")
        return found[0] if found else None

    def _submit(self, parameters: dict[str, Any], tag: str) -> FlowRun:
        """Start a run of the pool's deployment, which its first worker makes."""
        until = time.monotonic() + self.params.take_within_s
        while True:
            try:
                deployment = self.client.read_deployment_by_name(f"stage/{self.pool}")
                break
            except ObjectNotFound:
                self._warn("has no worker yet")
            if time.monotonic() >= until:
                raise self._untaken()
            if self.stopped.wait(POLL_S):
                raise Stopped(f"pool {self.pool!r}: stopped")
        run = self.client.create_flow_run_from_deployment(
            deployment.id, parameters=parameters, state=Scheduled(), tags=[tag, f"{BY_TAG}:{self._coordinator}"]
        )
        self._is_ours = True
        self.on_line(f"given to pool {self.pool!r} as flow run {run.name!r}")
        return run

    def _wait_for_end(self, run: FlowRun) -> FlowRun:
        now = time.monotonic()
        life, waits, answered = Watched(None, now), Watched(None, now), now
        while True:
            if self.stopped.is_set():
                self._cancel(run)
                raise Stopped(f"pool {self.pool!r}: stopped")
            try:
                run = self.client.read_flow_run(run.id)
                self._tell_log(run.id)
                online, busy = self._workers() if run.state and run.state.type in WAITING else (True, False)
            except (httpx.TransportError, httpx.HTTPStatusError) as error:
                # Nothing is known of the worker meanwhile: its time starts anew.
                life, waits = Watched(None, time.monotonic()), Watched(None, time.monotonic())
                if time.monotonic() - answered > self.params.remote_retry_s:
                    raise PoolError(f"Prefect's server does not answer: {error}; is it running?") from error
                self.stopped.wait(POLL_S)
                continue
            answered = now = time.monotonic()
            assert run.state is not None
            if run.state.is_final():
                return run
            if run.state.type in WAITING:
                if not online:
                    self._warn("has no worker online")
                # Behind another stage one waits as long as that takes.
                if waits.still((online, now) if online and busy else (), now) > self.params.take_within_s:
                    self._cancel(run)
                    raise self._untaken()
            beat = (run.labels or {}).get(BEAT)
            within_s = self.params.lost_after_s + (STARTS_WITHIN_S if beat is None else 0)
            if run.state.type in UNDER_WAY and life.still((run.state.id, beat), now) > within_s:
                message = f"no sign of life from its worker for {within_s:.0f} s"
                self._end(run.id, Crashed(message=message))
                raise LostError(f"{run.name}: {message}")
            self.stopped.wait(POLL_S)

    def _workers(self) -> tuple[bool, bool]:
        """Tell whether a worker of the pool is online, and whether the pool has a run under way."""
        workers = self.client.read_workers_for_work_pool(self.pool)
        runs = self.client.read_flow_runs(
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[self.pool])),
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(UNDER_WAY)))),
            limit=1,
        )
        return any(worker.status == WorkerStatus.ONLINE for worker in workers), bool(runs)

    def _cancel(self, run: FlowRun) -> None:
        """Cancel a run, unless another coordinator that has submitted it still waits for it."""
        if self._is_ours or not self._is_wanted(run):
            self._end(run.id, Cancelling())
        else:
            self.on_line(f"run {run.name!r} of pool {self.pool!r} goes on for the flow that has submitted it")

    def _is_wanted(self, run: FlowRun) -> bool:
        """Tell whether the coordinator that has submitted a run is there; where that is not known, it is."""
        by = next((tag.partition(":")[2] for tag in run.tags if tag.startswith(f"{BY_TAG}:")), "")
        try:
            state = self.client.read_flow_run(UUID(by)).state
        except ObjectNotFound:
            return False
        except (ValueError, httpx.HTTPError):
            return True
        return state is None or not state.is_final()

    def _end(self, run: UUID, state: State[Any]) -> None:
        try:
            # By force: the rules would not let a run that is being cancelled crash.
            self.client.set_flow_run_state(run, state, force=state.is_crashed())
        except httpx.HTTPError as error:
            self.on_line(f"the run elsewhere could not be ended: {error}")

    def _tell_log(self, run: UUID) -> None:
        """Hand on the lines of the log that are new."""
        after = LogFilterTimestamp(after_=self._told_until - LOG_OVERLAP) if self._told_until else None
        offset = 0
        while True:
            lines = self.client.read_logs(
                LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run]), timestamp=after),
                limit=LOG_PAGE,
                offset=offset,
                sort=LogSort.TIMESTAMP_ASC,
            )
            for line in lines:
                if line.id not in self._told:
                    self._told.add(line.id)
                    if line.name == LOGGER:
                        self.on_line(line.message)
                self._told_until = max(self._told_until or line.timestamp, line.timestamp)
            if len(lines) < LOG_PAGE:
                return
            offset += LOG_PAGE

    def _result(self, run: UUID) -> dict[str, Any]:
        kept = self.client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
        )
        return result_of(str(kept[-1].data)) if kept else {}

    def _warn(self, what: str) -> None:
        if not self._warned:
            self._warned = True
            within = f"{self.params.take_within_s:.0f} s"
            self.on_line(f"warning: pool {self.pool!r} {what}; waits {within} for `make worker POOL={self.pool}`")

    def _untaken(self) -> PoolError:
        return PoolError(
            f"no worker of pool {self.pool!r} took the stage within {self.params.take_within_s:.0f} s "
            f"(flow.take_within_s); run `make worker POOL={self.pool}` on a machine that has what it needs"
        )


def fingerprint(parameters: dict[str, Any]) -> str:
    """Return a short hash of a run's parameters: two runs with the same do the same.

    >>> fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:16]
