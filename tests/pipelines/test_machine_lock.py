"""Stages of several runs on one machine: one at a time, and no two of them wait for each other."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from flow_runs import in_time
from git_project import GitProject

from pipelines.dvc_transfer_process import Stopped, Transfer
from pipelines.machine import Machine, shared_machine, sharing
from pipelines.resources import Resources, machine_resources


class Gone(Exception):  # noqa: N818 - no error: somebody wanted it
    """Whoever waits is told to stop."""


def leave() -> None:
    raise Gone


def machine(home: Path, *, beside: bool = False, said: list[str] | None = None) -> Machine:
    """The machine for one more run, which gives up where it would have to wait."""
    return Machine(home, (said if said is not None else []).append, leave, beside)


def test_a_run_has_the_machine_while_stages_of_its_own_run_here(tmp_path):
    one, other = (Resources(2, [], machine(tmp_path)) for _ in range(2))
    first, second = one.take({"cpu": 1}), one.take({"cpu": 1})
    assert first is not None
    assert second is not None
    with pytest.raises(Gone):
        other.take({"cpu": 1})
    one.give_back(first)
    with pytest.raises(Gone):
        other.take({"cpu": 1})
    one.give_back(second)
    assert other.take({"cpu": 1}) is not None


def test_a_run_that_waits_for_a_worker_does_not_have_the_machine_and_goes_on_looking(tmp_path):
    worker = machine(tmp_path)
    flow = Resources(2, [], machine(tmp_path))
    elsewhere, here = flow.take({}), flow.take({"cpu": 1})
    assert elsewhere is not None
    assert here is not None
    assert not worker.take(wait=False)
    flow.give_back(here)
    assert worker.take(wait=False)  # on this machine too
    assert flow.take({"cpu": 1}) is None  # no wait: the end of the stage elsewhere has to be seen
    worker.give_back()
    assert flow.take({"cpu": 1}) is not None


def test_who_waits_says_so_once_and_then_has_it(tmp_path):
    said: list[str] = []
    first = machine(tmp_path)
    assert first.take(wait=True)
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            first.give_back()

    second = Machine(tmp_path, said.append, look)
    assert second.take(wait=True)
    assert len(said) == 1
    assert "waiting for a stage of another run on this machine" in said[0]


def test_stages_of_a_worker_that_may_run_several_share_it_and_get_gpus_of_their_own(tmp_path):
    flow, one, other = machine(tmp_path), machine(tmp_path, beside=True), machine(tmp_path, beside=True)
    assert one.take(wait=False)
    assert other.take(wait=False)
    assert not flow.take(wait=False)
    names = ("0", "GPU-a/b")
    with one.gpus(names, 1) as first:
        with other.gpus(names, 1) as second:
            assert (first, second) == (("0",), ("GPU-a/b",))
        with pytest.raises(Gone), other.gpus(names, 2):
            pass
    with other.gpus(names, 2) as both, one.gpus(names, 0) as none:
        assert (both, none) == (names, ())


def test_a_flow_that_somebody_starts_by_hand_waits_for_nobody(tmp_path):
    limits = {"cpu": 1, "gpu": 0}
    with sharing(machine(tmp_path)) as server:
        assert shared_machine() is server
        assert machine_resources(limits).take({"cpu": 1}) is not None
        assert not machine(tmp_path).take(wait=False)
    assert machine(tmp_path).take(wait=False)  # whatever the flow did not give back
    assert shared_machine() is None
    assert machine_resources(limits).take({"cpu": 1}) is not None


@pytest.mark.parametrize(
    ("meta", "gpus", "at_once"),
    [("{pool: gpu, gpu: 1}", "3", "1"), ("{pool: gpu, gpu: 3}", "3,5", "1"), ("{pool: gpu}", "", "2")],
)
def test_a_stage_of_a_worker_has_the_machine_and_the_gpus_that_its_meta_says(
    project, tmp_path, monkeypatch, caplog, meta, gpus, at_once
):
    import logging

    from pipelines.stage_worker import granted

    monkeypatch.setenv("PLUMBLINE_HOME", os.fspath(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.setenv("PLUMBLINE_STAGES_AT_ONCE", at_once)
    stages = (project.root / "dvc.yaml").read_text()
    project.write(dvc_yaml=stages.replace("    desc: Prepare the ground\n", f"    meta: {meta}\n"))
    stopped = threading.Event()
    transfer = Transfer(project.root, "prepare", "", 1.0, print, stopped)
    log = logging.getLogger("stage")
    with granted(transfer, log) as grant:
        assert grant.environment() == ({"CUDA_VISIBLE_DEVICES": gpus} if gpus else {})
        assert not machine(tmp_path).take(wait=False)
        assert machine(tmp_path, beside=True).take(wait=False) == (at_once == "2")
    assert ("this machine shows 2" in caplog.text) == ("3" in meta)
    flow = machine(tmp_path)
    assert flow.take(wait=False)
    stopped.set()
    with pytest.raises(Stopped), granted(transfer, log):
        pass
    flow.give_back()


@pytest.mark.usefixtures("prefect_api")
def test_a_deployed_run_that_waits_for_another_can_be_cancelled(tmp_path, monkeypatch):
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName
    from prefect.states import Cancelling

    from pipelines.deployments import retrain

    home = tmp_path / "home"
    monkeypatch.setenv("PLUMBLINE_HOME", os.fspath(home))
    project = GitProject(tmp_path)
    other = machine(home)
    assert other.take(wait=False)
    only = FlowFilter(name=FlowFilterName(any_=["retrain"]))

    def cancel() -> None:
        with get_client(sync_client=True) as client:
            in_time(lambda: any("waiting for a stage of" in log.message for log in client.read_logs()) or None)
            (run,) = client.read_flow_runs(flow_filter=only)
            client.set_flow_run_state(run.id, Cancelling(), force=True)

    canceller = threading.Thread(target=cancel)
    canceller.start()
    assert retrain(str(project.root), push=False, return_state=True).is_cancelled()
    canceller.join()
    assert project.ran() == []
    other.give_back()
    assert retrain(str(project.root), push=False, return_state=True).is_completed()
    assert project.ran() == ["copies", "counts"]
    assert machine(home).take(wait=False)
