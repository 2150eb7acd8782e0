"""The flow `publish` with a real Prefect server, a real S3 server, git and DVC: also killed, and two at once."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import threading

import pytest
from gated_store import gated_store
from published_project import change, commit, dvc, environment, git, make_project, set_destination

from pipelines.clone_lock import LOCK
from pipelines.file_lock import locked
from plumbline.commands import main as plumbline
from plumbline.published import read_manifest
from plumbline.runtime.session import load_artifact


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A project whose line is up to date and committed."""
    return make_project(tmp_path_factory.mktemp("finished") / "project")


@pytest.fixture
def project(finished, shop, tmp_path, monkeypatch):
    """A copy of it that publishes to the store."""
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    root = shutil.copytree(finished, tmp_path / "project", symlinks=True)
    set_destination(root, shop.address)
    return root


@pytest.fixture
def shop():
    with gated_store() as store:
        yield store


@pytest.fixture
def api(prefect_api):
    """The address of the tests' Prefect server, for commands."""
    from prefect.settings import PREFECT_API_URL

    return {**environment(), "PREFECT_API_URL": PREFECT_API_URL.value()}


def start(project, api, version="v1.0.0", *options):
    command = [sys.executable, "-m", "pipelines.publish", version, "--root", str(project), *options]
    return subprocess.Popen(command, env=api, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.long
def test_the_command_publishes_and_a_killed_one_is_repeated(project, shop, api, tmp_path):
    processes, free = [], []

    def kill_at_the_manifest(method, path, go_on, start_response):
        if method != "PUT" or not path.endswith("manifest.json"):
            return go_on()
        with contextlib.suppress(BlockingIOError), locked(project / LOCK, wait=False):
            free.append("while it published")
        processes[0].kill()
        processes[0].wait()
        raise ConnectionAbortedError  # as if its request had never come through

    shop.hook = kill_at_the_manifest
    processes.append(start(project, api))
    processes[0].communicate()
    shop.hook = None
    assert free == []  # no flow can export what is being published
    files = shop.keys()
    assert len(files) == 5
    assert not any(key.endswith("manifest.json") for key in files)
    assert git(project, "tag") == ""
    out, err = start(project, api).communicate()
    assert "signs@v1.0.0: published at" in out, err
    assert set(shop.keys()) == {*files, "signs/v1.0.0/manifest.json"}
    manifest = read_manifest(shop.read("signs/v1.0.0/manifest.json"), "m")
    assert manifest.git_commit == git(project, "rev-parse", "signs@v1.0.0^{commit}").strip()
    again = start(project, api)
    out, err = again.communicate()
    assert again.returncode == 0, err
    assert "signs@v1.0.0: already published at" in out


@pytest.mark.long
def test_of_two_commits_published_at_once_under_one_version_one_wins(project, shop, api, tmp_path):
    other = shutil.copytree(project, tmp_path / "other", symlinks=True)
    change(other / "params.yaml", "gain: 8.0", "gain: 9.0")
    dvc(other, "repro", "-q")
    commit(other, "gain")
    both_are_there = threading.Barrier(2)

    def hold(method, path, go_on, start_response):
        if method == "PUT" and path.endswith("manifest.json"):
            both_are_there.wait(120)
        return go_on()

    shop.hook = hold
    running = {root: start(root, api) for root in (project, other)}
    ends = {root: (*process.communicate(), process.returncode) for root, process in running.items()}
    shop.hook = None
    (winner,) = [root for root, (_, _, code) in ends.items() if code == 0]
    (loser,) = [root for root, (_, _, code) in ends.items() if code == 1]
    last = ends[loser][1].splitlines()[-1]
    assert last.startswith(f"error: s3://{shop.bucket}/models/signs/v1.0.0/manifest.json: version v1.0.0 is published")
    manifest = read_manifest(shop.read("signs/v1.0.0/manifest.json"), "m")
    assert manifest.git_commit == git(winner, "rev-parse", "HEAD").strip()
    assert git(winner, "tag").strip() == "signs@v1.0.0"
    assert git(loser, "tag") == ""


@pytest.mark.long
def test_from_a_commit_to_a_device_and_back_to_its_labels(project, shop, prefect_api, tmp_path, capsys):
    from prefect.client.orchestration import get_client

    from pipelines.publish_flow import publish

    state = publish(project, "v1.0.0", return_state=True)
    address = f"{shop.address}/signs/v1.0.0"
    targets = "onnx-fp32, onnx-int8; `git push origin signs@v1.0.0` tells others"
    assert state.is_completed()
    assert state.message == f"signs@v1.0.0: published at {address}: {targets}"
    assert git(project, "tag").strip() == "signs@v1.0.0"
    again = publish(project, "v1.0.0", return_state=True)
    assert again.message == f"signs@v1.0.0: already published at {address}: {targets}"
    with get_client(sync_client=True) as client:
        runs = [run for run in client.read_task_runs() if run.flow_run_id == state.state_details.flow_run_id]
    assert {"check", "manifest", "register"} <= {run.name for run in runs}
    device = tmp_path / "device"
    capsys.readouterr()
    fetch = ["fetch", "signs@latest", "--from", shop.address, "--to", str(device), "--target", "onnx-int8"]
    assert plumbline(fetch) == 0
    load_artifact(device)
    assert plumbline(["lineage", str(device / "model.onnx"), "--json", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    label = project / "data" / "photos" / "labels" / "0.txt"
    done = subprocess.run(["sha256sum", label], capture_output=True, text=True, check=True)
    assert [
        row["label_sha256"] for row in found["labels"]["rows"] if row["label_file"] == "data/photos/labels/0.txt"
    ] == [done.stdout.split()[0]]
    assert found["published"]["git_commit"] == git(project, "rev-parse", "HEAD").strip()
    # A refusal writes nothing.
    before = shop.keys()
    change(project / "params.yaml", "gain: 8.0", "gain: 9.0")
    refused = publish(project, "v1.1.0", return_state=True)
    assert refused.is_failed()
    commit(project, "gain, and the line was not run")
    refused = publish(project, "v1.1.0", return_state=True)
    assert refused.is_failed()
    assert refused.message.startswith(f"{project / 'dvc.lock'}: not up to date: line")
    assert shop.keys() == before
    assert git(project, "tag").strip() == "signs@v1.0.0"


@pytest.mark.long
def test_a_refusal_of_the_command_is_one_line(project, shop, api):
    change(project / "params.yaml", "gain: 8.0", "gain: 9.0")
    process = start(project, api)
    _, err = process.communicate()
    assert process.returncode == 1
    assert err.splitlines()[-1].startswith(f"error: {project / 'params.yaml'}: changed since commit")
    assert "Traceback" not in err
    assert shop.keys() == []
