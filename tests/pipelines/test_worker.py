from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from pipelines.elsewhere_runs import RemoteRun
from pipelines.worker import ENTRYPOINT, WorkerError, make_pool, set_up_worker


def test_a_worker_asks_which_server(monkeypatch):
    environment = {}
    with pytest.raises(
        WorkerError, match=r"^PREFECT_API_URL is not set, expected the server .*; export PREFECT_API_URL="
    ):
        set_up_worker(environment)
    environment = {"PREFECT_API_URL": "http://server:4200/api", "PREFECT_HOME": "/mine"}
    assert set_up_worker(environment) == "http://server:4200/api"
    assert environment["PREFECT_HOME"] == "/mine"
    assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"


def test_a_server_that_does_not_answer_is_told_in_one_line(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.worker", "gpu"],
        env={**os.environ, "PREFECT_API_URL": "http://127.0.0.1:1/api", "PLUMBLINE_HOME": os.fspath(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: http://127.0.0.1:1/api: the server does not answer: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.usefixtures("prefect_api")
def test_the_pool_and_its_deployment_are_made_once():
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.flows import load_flow_from_entrypoint

    with get_client(sync_client=True) as client:
        for _ in range(2):
            make_pool("gpu")
        made = client.read_deployment_by_name("stage/gpu")
        assert (made.work_pool_name, made.entrypoint, made.path) == ("gpu", ENTRYPOINT, None)
        assert client.read_work_pool("gpu").type == "process"
        assert load_flow_from_entrypoint(ENTRYPOINT).name == "stage"
        client.create_work_pool(WorkPoolCreate(name="cloud", type="docker", base_job_template={}))
    with pytest.raises(WorkerError, match="'cloud' is of type docker, expected process"):
        make_pool("cloud")


@pytest.mark.usefixtures("prefect_api")
def test_lines_of_a_log_are_handed_on_once_and_in_order():
    from datetime import UTC, datetime, timedelta

    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import LogCreate

    from pipelines.flow_params import FlowParams

    params = FlowParams(
        limits={"cpu": 0, "gpu": 0},
        retries={},
        retry_delay_s=1.0,
        remote="",
        take_within_s=1.0,
        lost_after_s=1.0,
        remote_retry_s=1.0,
    )
    began = datetime.now(UTC)

    def line(number: int, name: str = "prefect.flow_runs") -> LogCreate:
        at = began + timedelta(seconds=number)
        return LogCreate(name=name, level=20, message=f"line {number}", timestamp=at, flow_run_id=run.id)

    said: list[str] = []
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(flow(lambda: None, name="stage"))
        remote = RemoteRun(client, "gpu", params, said.append, threading.Event())
        client.create_logs([line(n) for n in range(250)] + [line(7, "prefect.flow_runs.worker")])
        remote._tell_log(run.id)
        assert said == [f"line {n}" for n in range(250)]
        # A batch of before that is late, and one more line.
        client.create_logs([line(250), line(240).model_copy(update={"message": "late"})])
        remote._tell_log(run.id)
        assert said[250:] == ["late", "line 250"]
        remote._tell_log(run.id)
        assert len(said) == 252
