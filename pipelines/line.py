"""The Prefect flow over dvc.yaml: stages at the same time, each a task; their output in the log, results as artifacts.

Prefect's settings come from the environment of whoever imports this; `pipelines.flow` is the command that makes them.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import Task, flow, get_run_logger
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, StateType
from prefect.context import FlowRunContext
from prefect.futures import PrefectFuture
from prefect.states import Cancelled, Completed, Crashed, Failed, Pending

from pipelines.ancestors import Ancestors
from pipelines.clone_lock import sole_flow
from pipelines.flow_artifacts import keep_artifacts
from pipelines.flow_params import FlowParams, read_flow_params
from pipelines.graph import Graph, Stage, read_graph_and_changes
from pipelines.leftovers import remove_leftovers
from pipelines.resources import Grant, machine_resources
from pipelines.run_stage import Outcome, run_stage
from pipelines.told_states import tell_state
from plumbline.errors import PlumblineError

CACHED = "Cached"
# How often Prefect is asked whether the run was cancelled, and whether the worker that started it lives.
LOOK_EVERY_S = 2.0
END_WITHIN_S = 20.0  # more than `pipelines.process_group.END_WITH` needs in all


class Ended(Exception):  # noqa: N818 - no error: somebody asked for it
    """The flow shall end now: it was cancelled, or its worker is gone."""

    def __init__(self, state: State[None]) -> None:
        self.state = state
        super().__init__(str(state.message))


@flow(name="plumbline")
def line(root: Path) -> State[None]:
    """Run every stage of a project's dvc.yaml that is not up to date.

    A failed stage stops what depends on it and nothing else; the flow then fails and names it.

    Args:
        root: The DVC project's root.
    """
    return run_line(root)


def run_line(root: Path) -> State[None]:
    """Do what `line` does, in the flow run that calls it. Call it in the main thread: signals arrive there.

    Args:
        root: The DVC project's root.

    Returns:
        Completed; Failed, with what failed named and its last lines, or the fault that let nothing begin; Cancelled.
    """
    try:
        return _run_alone(root)
    except Ended as ended:
        return ended.state
    except PlumblineError as error:
        return Failed(message=str(error))


def _run_alone(root: Path) -> State[None]:
    flow_run_id = _flow_run_id()
    with sole_flow(root, {"flow_run_id": str(flow_run_id)}) as killed:
        if killed:
            _tell_killed(killed)
        params = read_flow_params(root)
        graph, changed = read_graph_and_changes(root)
        for left in remove_leftovers(root, graph.outs):
            get_run_logger().info("%s removed: half of an output, of a stage that was killed", left)
        get_run_logger().info("%d stages, changed: %s", len(graph.stages), ", ".join(sorted(changed)) or "none")
        runs = Runs(root, graph, changed, params, look_at(flow_run_id))
        states = runs.run()
        end = verdict(graph, states)
        # Not of a half-run line, which would mix new numbers with old ones; one that was killed may have kept none.
        if end.is_completed() and (killed or runs.same != set(graph.names)):
            keep_artifacts(root)
        return end


class Runs:
    """The stages of one flow run: what has ended, what runs, what may start.

    Args:
        root: The DVC project's root.
        graph: All stages.
        changed: Those that DVC finds changed.
        params: Limits and retries.
        look: Raises `Ended` when the flow shall end; called every few seconds.
    """

    def __init__(
        self, root: Path, graph: Graph, changed: frozenset[str], params: FlowParams, look: Callable[[], None]
    ) -> None:
        self.root, self.graph, self.changed, self.params, self.look = root, graph, changed, params, look
        self.resources = machine_resources(params.limits)
        self.resources.check(graph.stages)
        self.states: dict[str, State[Any]] = {}
        self.same: set[str] = set()  # stages whose outputs are certainly those that were here before
        self.tries: dict[str, int] = {}
        self.again_at: dict[str, float] = {}  # a failed stage -> when it is tried again, by `time.monotonic`
        self.running: dict[str, tuple[PrefectFuture[Any], Grant]] = {}
        self.ended: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.stopped = threading.Event()
        self.next_look = time.monotonic() + LOOK_EVERY_S

    def run(self) -> dict[str, State[Any]]:
        """Run what is not up to date; return how each stage ended. Whatever happens, nothing is left running."""
        try:
            while True:
                self._start_what_may()
                if not self.running and not self.again_at:
                    break
                self._wait()
        finally:
            self.stopped.set()
            for future, _grant in self.running.values():
                future.wait(END_WITHIN_S)
        for stage in self.graph.stages:
            if stage.name not in self.states:
                self._settle(stage, Pending(name="NotReady", message="something that it needs has failed"))
        return self.states

    def _start_what_may(self) -> None:
        now = time.monotonic()
        for stage in self.graph.stages:  # in order: what an unchanged stage unlocks comes after it
            if stage.name in self.states or stage.name in self.running or self.again_at.get(stage.name, 0) > now:
                continue
            needed = [self.states.get(name) for name in stage.needs]
            if not all(state is not None and state.is_completed() for state in needed):
                continue
            if stage.name not in self.changed and self.same.issuperset(stage.needs):
                self.same.add(stage.name)
                self._settle(stage, Completed(name=CACHED, message="nothing it depends on has changed"))
            elif (grant := self.resources.take({} if stage.pool else stage.resources)) is not None:
                self._start(stage, grant)

    def _settle(self, stage: Stage, state: State[Any]) -> None:
        """Record a stage for which nothing is run."""
        self.states[stage.name] = tell_state(stage, state, [self.states[name] for name in stage.needs])

    def _start(self, stage: Stage, grant: Grant) -> None:
        self.again_at.pop(stage.name, None)
        number = self.tries[stage.name] = self.tries.get(stage.name, 0) + 1
        named: Task[..., Any] = Task(
            self._run_in_thread,
            name=stage.name,
            task_run_name=stage.name if number == 1 else f"{stage.name} (try {number})",
            description=stage.desc or None,
            cache_policy=NO_CACHE,
            persist_result=False,
        )
        future = named.submit(stage.name, grant, wait_for=[self.states[name] for name in stage.needs])
        self.running[stage.name] = (future, grant)
        future.add_done_callback(lambda _future: self.ended.put(stage.name))

    def _run_in_thread(self, name: str, grant: Grant) -> State[None]:
        """Run one stage; end as Completed, as Completed with the name Cached, or as Failed with its last lines."""
        log = get_run_logger()
        stage = next(stage for stage in self.graph.stages if stage.name == name)
        try:
            if stage.pool:
                from pipelines.elsewhere import run_elsewhere

                outcome = run_elsewhere(self.root, stage, self.params, log.info, self.stopped)
            else:
                more = grant.environment()
                outcome = run_stage(self.root, name, log.info, stopped=self.stopped, more_environment=more)
        except PlumblineError as error:
            # Returned, not raised: a traceback through Prefect's engine says nothing to who wrote the stage.
            return Failed(message="\n".join([str(error), *getattr(error, "tail", ())]))
        if outcome is Outcome.UNCHANGED and not stage.pool:  # a worker's clone says nothing of what was here
            self.same.add(name)
        if outcome is Outcome.RAN:
            return Completed()
        was = "found it unchanged" if outcome is Outcome.UNCHANGED else "had its outputs in the run-cache"
        return Completed(name=CACHED, message=f"DVC {was}")

    def _wait(self) -> None:
        """Wait until a stage ends, one is to be tried again, or it is time to look whether all shall end."""
        now = time.monotonic()
        if now >= self.next_look:  # also while stages end one after the other
            self.look()
            self.next_look = now + LOOK_EVERY_S
        # A try whose time has come waits for what another stage has, which then ends.
        until = min([self.next_look, *(at for at in self.again_at.values() if at > now)]) - now
        try:
            name = self.ended.get(timeout=max(until, 0.01))
        except queue.Empty:
            return
        future, grant = self.running.pop(name)
        self.resources.give_back(grant)
        future.wait()
        state = future.state
        again = self.params.retries_of(name) - self.tries[name] + 1
        if state.is_failed() and again > 0:
            first = str(state.message).partition("\n")[0]
            get_run_logger().warning("%s; tried again in %g s", first, self.params.retry_delay_s)
            self.again_at[name] = time.monotonic() + self.params.retry_delay_s
        else:
            self.states[name] = state


def look_at(flow_run_id: UUID) -> Callable[[], None]:
    """Return what raises `Ended` once the flow run is cancelled, as in the UI, or its worker is gone."""
    ancestors = Ancestors()
    client = get_client(sync_client=True)

    def look() -> None:
        if not ancestors.live():
            raise Ended(Crashed(message="the worker that started this run is gone"))
        try:
            state = client.read_flow_run(flow_run_id).state
        except Exception:  # a server that restarts ends no training
            return
        if state is not None and state.type in (StateType.CANCELLING, StateType.CANCELLED):
            raise Ended(Cancelled(message="cancelled; the running stages were ended"))

    return look


def verdict(graph: Graph, states: Mapping[str, State[Any]]) -> State[None]:
    """Say in one state how all stages ended; of a failure, first one line, then the last lines of what failed."""
    failed = [name for name in graph.names if states[name].is_final() and not states[name].is_completed()]
    if not failed:
        cached = sum(states[name].name == CACHED for name in graph.names)
        return Completed(message=f"stages: {len(graph.names) - cached} ran, {cached} were up to date")
    not_run = [name for name in graph.names if not states[name].is_final()]
    told = [str(states[name].message).splitlines() for name in failed]
    headline = "; ".join(lines[0] for lines in told)
    if not_run:
        headline += f" (so not run: {', '.join(not_run)})"
    tails = [f"{name}: {text}" for name, lines in zip(failed, told, strict=True) for text in lines[1:]]
    return Failed(message="\n".join([headline, *tails]))


def _flow_run_id() -> UUID:
    context = FlowRunContext.get()
    assert context is not None, "run_line is called in a flow"
    assert context.flow_run is not None
    return context.flow_run.id


def _tell_killed(killed: Mapping[str, Any]) -> None:
    """Let Prefect know that the flow before was killed: it would be Running in the history for ever."""
    client = get_client(sync_client=True)
    try:
        flow_run_id = UUID(str(killed["flow_run_id"]))
        state = client.read_flow_run(flow_run_id).state
        if state is not None and not state.is_final():
            client.set_flow_run_state(
                flow_run_id, Crashed(message="killed; the next run went on from there"), force=True
            )
    except Exception as error:
        get_run_logger().debug("the run before was killed, and Prefect does not know it: %s", error)
