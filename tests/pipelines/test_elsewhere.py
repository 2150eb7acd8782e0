from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator

import psutil
import pytest
from machines import BUCKET, Machine, Site, lock_of, start_s3, wait_until

from pipelines.server import start_server

REFUSES_S = 60.0  # the remote, in the long test
# Of the whole graph, what comes first: the rest of these tests is about one stage.
TWO_STAGES = """
stages:
  source:
    cmd: python work.py source seed.txt raw
    deps: [seed.txt, work.py]
    outs: [raw]
  train:
    meta: {pool: gpu}
    cmd: python work.py train raw model,reports/train.json
    deps: [raw, work.py]
    outs: [model]
    metrics:
      - reports/train.json: {cache: false}
"""


@pytest.fixture(scope="module")
def servers(tmp_path_factory) -> Iterator[tuple[str, int]]:
    """A Prefect server, by its API's address, and an S3 server, by its port."""
    folder = tmp_path_factory.mktemp("servers")
    environment = {**os.environ, "PREFECT_HOME": os.fspath(folder)}
    environment.pop("PREFECT_API_URL", None)
    url = start_server(environment)
    s3, port = start_s3(folder)
    yield url, port
    s3.kill()
    s3.wait()


@pytest.fixture
def site(servers, tmp_path) -> Iterator[Site]:
    site = Site(tmp_path, *servers, prefix=tmp_path.name)
    yield site
    site.end()


def start_flow(machine: Machine) -> subprocess.Popen[bytes]:
    return machine.start("flow.log", "pipelines.flow")


def end_of(machine: Machine, flow: subprocess.Popen[bytes]) -> str:
    """Wait until a flow has succeeded; return all that it said."""
    assert flow.wait(300) == 0, machine.said("flow.log")
    return machine.said("flow.log")


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.long
def test_three_machines_make_what_one_makes(site):
    here, box, board = site.coordinator(), site.machine("box"), site.machine("board")
    box.work_for("gpu")
    board.work_for("edge")
    said = here.run("pipelines.flow")
    assert said.index("train begins") < said.index("train ends")
    assert lock_of(here.project) == lock_of(site.serial().project)
    assert here.run("dvc", "status").strip() == "Data and pipelines are up to date."
    assert sorted(site.ran()) == [
        "benchmark-one board",
        "benchmark-two board",
        "export coordinator",
        "report coordinator",
        "source coordinator",
        "train box",
        "unrelated coordinator",
    ]
    outs = {out["path"]: out["md5"] for entry in lock_of(here.project).values() for out in entry["outs"]}
    assert outs["raw"] in box.cached()
    assert outs["raw"] not in board.cached()
    assert outs["unrelated.bin"] not in box.cached() | board.cached()
    assert "stages: 0 ran, 7 were up to date" in here.run("pipelines.flow")
    # A result that is gone here is taken from the remote, by its run in the run-cache: no worker is asked.
    (here.project / "reports" / "one.json").unlink()
    shutil.rmtree(here.folder / "plumbline" / "cache" / "runs")
    here.run("pipelines.flow")
    assert len(site.ran()) == 7


@pytest.mark.long
def test_another_worker_takes_over_from_a_killed_one(site):
    here, first, second = site.coordinator(TWO_STAGES), site.machine("first"), site.machine("second")
    worker = first.work_for("gpu")
    site.shut("train")
    flow = start_flow(here)
    stage = site.pid("train")
    second.work_for("gpu")
    worker.send_signal(signal.SIGKILL)
    wait_until(lambda: is_gone(stage), within_s=30)
    site.open("train")
    said = end_of(here, flow)
    assert "its worker is gone" in said or "no sign of life" in said
    assert site.ran() == ["source coordinator", "train first", "train second"]
    assert lock_of(here.project) == lock_of(site.serial().project)


@pytest.mark.long
def test_a_machine_that_vanishes_is_replaced(site):
    here, first, second = site.coordinator(TWO_STAGES), site.machine("first"), site.machine("second")
    worker = first.work_for("gpu")
    site.shut("train")
    flow = start_flow(here)
    stopped = [psutil.Process(site.pid("train")), *psutil.Process(worker.pid).children(recursive=True)]
    for process in [psutil.Process(worker.pid), *stopped]:
        process.suspend()  # as a machine does whose network is cut: nothing is said any more
    second.work_for("gpu")
    site.open("train")
    said = end_of(here, flow)
    for process in [psutil.Process(worker.pid), *stopped]:
        process.kill()
    assert "no sign of life from its worker for 12 s" in said
    assert site.ran() == ["source coordinator", "train first", "train second"]
    assert lock_of(here.project) == lock_of(site.serial().project)


@pytest.mark.long
def test_the_remote_may_refuse_for_a_minute_and_may_be_damaged(site):
    here, box = site.coordinator(TWO_STAGES, remote_retry_s=300.0), site.machine("box")
    box.work_for("gpu")
    # What the worker needs is damaged in the remote before it is fetched.
    here.run("dvc", "repro", "--quiet", "source")
    here.run("dvc", "push", "--quiet", "source")
    keys = [each["Key"] for each in site.s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{site.prefix}/files/")["Contents"]]
    bad = next(key for key in keys if not key.endswith(".dir"))
    site.s3.put_object(Bucket=BUCKET, Key=bad, Body=b"something else")
    site.shut("train")
    flow = start_flow(here)
    site.pid("train")
    site.line.is_cut = True
    site.open("train")
    cut_at = time.monotonic()
    wait_until(lambda: "give: " in here.said("flow.log"))
    time.sleep(max(0.0, REFUSES_S - (time.monotonic() - cut_at)))
    site.line.is_cut = False
    said = end_of(here, flow)
    assert f"object {''.join(bad.split('/')[-2:])} is damaged in the DVC remote" in said
    assert said.count("tried again in") > 1
    assert site.ran() == ["source coordinator", "train box"]
    assert lock_of(here.project) == lock_of(site.serial().project)


@pytest.mark.long
def test_an_output_that_is_damaged_in_the_remote_is_sent_again(site):
    here, box = site.coordinator(TWO_STAGES), site.machine("box")
    box.work_for("gpu")
    site.shut("train")
    flow = start_flow(here)
    site.pid("train")
    # What the stage makes is in the remote already, and is not what its name says.
    value = lock_of(site.serial().project)["train"]["outs"][1]["md5"]
    key = f"{site.prefix}/files/md5/{value[:2]}/{value[2:]}"
    site.s3.put_object(Bucket=BUCKET, Key=key, Body=b"something else")
    site.open("train")
    said = end_of(here, flow)
    assert f"object {value} is damaged in the DVC remote" in said
    assert site.ran() == ["source coordinator", "train box"]
    assert (here.project / "reports" / "train.json").read_text().startswith('{"value"')


@pytest.mark.long
def test_an_interrupt_ends_the_stage_there_and_a_failure_comes_back(site):
    here, box = site.coordinator(TWO_STAGES), site.machine("box")
    box.work_for("gpu")
    site.shut("train")
    flow = start_flow(here)
    stage = site.pid("train")
    flow.send_signal(signal.SIGINT)
    assert flow.wait(60) == 130
    wait_until(lambda: is_gone(stage), within_s=30)
    site.open("train")
    (site.outside / "train.fails").touch()
    said = here.run("pipelines.flow", check=False)
    assert "stage 'train' failed: " in said
    assert "train cannot work" in said
    (site.outside / "train.fails").unlink()
    here.run("pipelines.flow")
    assert site.ran() == ["source coordinator", "train box", "train box", "train box"]


@pytest.mark.long
def test_a_killed_coordinator_finds_the_run_that_is_under_way(site):
    here, box = site.coordinator(TWO_STAGES), site.machine("box")
    box.work_for("gpu")
    site.shut("train")
    flow = start_flow(here)
    site.pid("train")
    flow.kill()
    flow.wait()
    flow = start_flow(here)
    wait_until(lambda: "is under way already" in here.said("flow.log"))
    site.open("train")
    end_of(here, flow)
    assert site.ran() == ["source coordinator", "train box"]


@pytest.mark.long
def test_what_cannot_be_given_to_a_worker_is_told(site):
    here = site.coordinator(TWO_STAGES.replace("gpu", "nobody"), take_within_s=2.0)
    said = here.run("pipelines.flow", check=False)
    assert "warning: pool 'nobody' has no worker yet" in said
    assert "no worker of pool 'nobody' took the stage within 2 s" in said
    assert "run `make worker POOL=nobody` on a machine" in said
    with (here.project / "dvc.yaml").open("a") as file:
        file.write("# mine\n")
    assert "dvc.yaml: not as in commit" in here.run("pipelines.flow", check=False)
    here.run("git", "checkout", "dvc.yaml")
    (here.project / ".dvc" / "config").write_text("")
    assert "no remote" in here.run("pipelines.flow", check=False)
