"""Who may end a run on a worker that two coordinators wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from flow_runs import in_time

from pipelines.dvc_transfer_process import Stopped
from pipelines.elsewhere_runs import LostError, RemoteRun
from pipelines.flow_params import FlowParams
from pipelines.worker import make_pool

PARAMS = FlowParams(
    limits={"cpu": 0, "gpu": 0},
    retries={},
    retry_delay_s=1.0,
    remote="",
    take_within_s=600.0,
    lost_after_s=600.0,
    remote_retry_s=1.0,
)


class Coordinator:
    """One flow that waits for the same stage as others, in a thread; `end` is how its wait has ended."""

    def __init__(self, client, parameters: dict[str, Any], monkeypatch) -> None:
        from prefect import flow

        self.client = client
        self.flow_run = client.create_flow_run(flow(lambda: None, name="coordinator"))
        monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__ID", str(self.flow_run.id))
        self.stopped, self.said, self.end = threading.Event(), [], None
        self.remote = RemoteRun(client, "gpu", PARAMS, self.said.append, self.stopped)
        self.thread = threading.Thread(target=self._follow, args=(parameters,), daemon=True)
        self.thread.start()
        in_time(lambda: self.said or None)

    def _follow(self, parameters: dict[str, Any]) -> None:
        try:
            self.end = self.remote.follow(parameters)[0]
        except Exception as error:
            self.end = error

    def ended(self) -> Any:
        self.thread.join(60)
        return self.end

    def stop(self) -> Any:
        self.stopped.set()
        return self.ended()


@pytest.fixture
def start(prefect_api, monkeypatch, request) -> Callable[[], Coordinator]:
    from prefect.client.orchestration import get_client

    make_pool("gpu")
    parameters = {
        **dict.fromkeys(("repository", "commit", "folder", "remote"), ""),
        "stage": request.node.name,
        "locks": {},
        "items": [],
        "again": [],
        "retry_s": 1.0,
    }
    # Each has a client of its own, as on machines of their own.
    return lambda: Coordinator(get_client(sync_client=True).__enter__(), parameters, monkeypatch)


def run_of(client, name: str):
    """The last run of the stage that is named after a test."""
    runs = [run for run in client.read_flow_runs() if run.parameters.get("stage") == name]
    return max(runs, key=lambda run: run.created)


def test_who_has_joined_another_flows_run_does_not_end_it(start, request):
    first, second = start(), start()
    assert "goes on with run" in second.said[0]
    assert isinstance(second.stop(), Stopped)
    assert "goes on for the flow that has submitted it" in second.said[-1]
    assert run_of(first.client, request.node.name).state.is_scheduled()
    assert first.end is None
    assert isinstance(first.stop(), Stopped)
    assert run_of(first.client, request.node.name).state.is_cancelled()


def test_a_run_that_its_own_flow_has_cancelled_is_lost_for_who_has_joined_it(start, request):
    first, second = start(), start()
    assert isinstance(first.stop(), Stopped)
    assert isinstance(second.ended(), LostError)
    third = start()  # as who has lost it does: another run
    assert third.said[0].startswith("given to pool 'gpu'")
    third.stop()


def test_a_run_whose_flow_is_over_is_ended_by_who_has_joined_it(start, request):
    from prefect.states import Crashed

    first, second = start(), start()
    second.client.set_flow_run_state(first.flow_run.id, Crashed(), force=True)
    second.stop()
    assert run_of(second.client, request.node.name).state.is_cancelled()
    first.ended()


def test_a_run_of_ours_that_somebody_cancels_in_the_ui_is_not_begun_again(start, request):
    from prefect.states import Cancelled

    only = start()
    only.client.set_flow_run_state(run_of(only.client, request.node.name).id, Cancelled(), force=True)
    assert only.ended().is_cancelled()
