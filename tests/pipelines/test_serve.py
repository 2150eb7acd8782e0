"""make server: what it refuses, what it says, how it ends, and on PostgreSQL."""

from __future__ import annotations

import base64
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from git_project import GitProject
from served_project import Served, free_port, lives

from pipelines.serve import LEASES, Child, check_port, main, set_up
from pipelines.server import SERVER_FILE, ServerError, running_server

ROOT = Path(__file__).parent.parent.parent


def test_a_port_that_is_taken_is_told():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ServerError, match=f"port {port} of 127.0.0.1 cannot be used .*make server PORT="):
            check_port("127.0.0.1", port)
    check_port("127.0.0.1", port)
    with pytest.raises(ServerError, match=r"192\.0\.2\.1"):
        check_port("192.0.2.1", port)


def test_what_the_user_has_set_stays(tmp_path):
    environment = {"PREFECT_API_URL": "http://elsewhere/api", "PREFECT_SERVER_API_AUTH_STRING": "a:b"}
    set_up(tmp_path, environment)
    assert "PREFECT_API_URL" not in environment
    assert environment["PREFECT_HOME"] == str(tmp_path / ".prefect")
    assert environment["PLUMBLINE_HOME"] == str(tmp_path / ".cache/server")
    assert environment["PREFECT_API_AUTH_STRING"] == "a:b"
    environment = {"PREFECT_HOME": "/h", "PLUMBLINE_HOME": "/p", "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "x"}
    set_up(tmp_path, environment)
    assert (environment["PREFECT_HOME"], environment["PLUMBLINE_HOME"]) == ("/h", "/p")
    assert environment["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"] == "x"


def test_prefect_has_the_place_for_leases_that_is_named(alone):
    from prefect.server.concurrency.lease_storage import get_concurrency_lease_storage
    from prefect.settings import PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE, temporary_settings

    with temporary_settings({PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE: LEASES}):
        assert type(get_concurrency_lease_storage()).__module__ == LEASES


def test_a_child_that_ends_is_started_again_after_pauses_that_grow(tmp_path, capsys):
    child = Child(
        "worker", [sys.executable, "-c", "print('hello'); raise SystemExit(3)"], dict(os.environ), tmp_path / "w.log"
    )
    pauses = []
    child.start()
    for _ in range(3):
        child.process.wait()
        assert not child.look()
        pauses.append(child.pause_s)
        child.again_at = 0
        assert child.look()
    assert pauses == [2.0, 4.0, 8.0]
    assert "the worker has ended with 3, see" in capsys.readouterr().out
    child.process.wait()
    assert (tmp_path / "w.log").read_text() == "hello\n" * 4
    child.end()


def test_a_child_ends_with_its_parent_even_if_that_is_killed(tmp_path):
    program = (
        "import os, sys, pathlib, signal\nfrom pipelines.serve import Child\n"
        "command = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
        "child = Child('c', command, dict(os.environ), pathlib.Path(sys.argv[1]))\n"
        "print(child.start().pid, flush=True)\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "log")], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == -signal.SIGKILL
    pid = int(done.stdout)
    while lives(pid):  # the test's own limit of time ends this
        pass


def test_a_server_that_is_gone_is_not_used(tmp_path):
    assert running_server(tmp_path) is None
    (tmp_path / SERVER_FILE).write_text(json.dumps({"api": f"http://127.0.0.1:{free_port()}/api"}))
    assert running_server(tmp_path) is None
    (tmp_path / SERVER_FILE).write_text("{")
    assert running_server(tmp_path) is None


def test_a_second_one_and_a_taken_port_are_one_line(tmp_path, capsys, monkeypatch):
    import fcntl

    for name in ("PREFECT_HOME", "PLUMBLINE_HOME", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        assert main(["--root", str(tmp_path), "--port", str(other.getsockname()[1])]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: port ")
    with (tmp_path / ".prefect" / "serve.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        monkeypatch.delenv("PREFECT_HOME")
        assert main(["--root", str(tmp_path), "--port", str(free_port())]) == 1
    assert "make server runs already (it is starting); end that one first" in capsys.readouterr().err


@pytest.fixture
def deployed(tmp_path) -> GitProject:
    project = GitProject(tmp_path)
    shutil.copy(ROOT / "prefect.yaml", project.root)
    project.commit("deployments")
    return project


@pytest.mark.long
def test_ctrl_c_ends_it_and_other_commands_use_it_while_it_runs(deployed, tmp_path):
    served = Served(deployed.root, tmp_path / "site-cache")
    served.start()
    try:
        home = deployed.root / ".prefect"
        assert running_server(home) == f"http://127.0.0.1:{served.port}/api"
        # A browser on another machine must ask the machine that it got the page from.
        assert served.api.get(f"http://127.0.0.1:{served.port}/ui-settings").json()["api_url"] == "/api"
        assert served.deployment("retrain")["parameters"]["repository"] == str(deployed.root)
        assert served.deployment("retrain")["pull_steps"] in (None, [])
        own = {name: value for name, value in served.environment.items() if name != "PREFECT_HOME"}
        done = subprocess.run(
            [sys.executable, "-m", "pipelines.flow"],
            cwd=deployed.root,
            env=own,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"http://127.0.0.1:{served.port}" in done.stdout
        flows = served.ask("POST", "/flow_runs/filter", flows={"name": {"any_": ["plumbline"]}})
        assert [run["state_name"] for run in flows] == ["Completed"]
    finally:
        code = served.end(signal.SIGINT)
    assert code == 128 + signal.SIGINT
    assert running_server(home) is None
    assert not (home / SERVER_FILE).exists()


@pytest.mark.long
def test_the_login_in_the_repositorys_url_is_shown_to_nobody_and_used(deployed, tmp_path):
    asked: list[str] = []

    class Host(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers.get("Authorization", ""))
            self.send_response(404 if asked[-1] else 401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            pass

    host = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Host)
    threading.Thread(target=host.serve_forever, daemon=True).start()
    shown = f"http://127.0.0.1:{host.server_port}/team/a.git"
    url = shown.replace("127.0.0.1", "me:secret@127.0.0.1")
    served = Served(deployed.root, tmp_path / "site-cache", PLUMBLINE_REPOSITORY=url)
    try:
        served.start()
        assert served.deployment("retrain")["parameters"]["repository"] == shown
        run = served.run("retrain")
        assert f"{shown}: this repository cannot be fetched" in served.ended(run)["message"]
        assert f"Basic {base64.b64encode(b'me:secret').decode()}" in asked
        assert "secret" not in str(served.ask("GET", f"/flow_runs/{run}"))
        assert f"prefect.yaml deployed, for {shown}\n" in served.said()
        assert "secret" not in (deployed.root / ".prefect/deployed.json").read_text()
    finally:
        served.end()
        host.shutdown()


@pytest.fixture
def postgres(tmp_path_factory) -> Iterator[str]:
    """A PostgreSQL server on loopback with an empty database, or a skip where there is none on this machine."""
    if shutil.which("initdb") is None or shutil.which("postgres") is None:
        pytest.skip("needs PostgreSQL's initdb and postgres on PATH")
    # Not below pytest's folder, which is root's alone: PostgreSQL refuses to run as root.
    folder = Path(subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip())
    as_other: list[str] = []
    if os.getuid() == 0:
        shutil.chown(folder, "nobody")
        as_other = ["setpriv", "--reuid", "nobody", "--clear-groups", "--"]
    port = free_port()
    data = folder / "data"
    subprocess.run(
        [*as_other, "initdb", "-D", data, "-U", "prefect", "--auth=trust", "-E", "UTF8"],
        check=True,
        capture_output=True,
    )
    options = ["-p", str(port), "-h", "127.0.0.1", "-k", str(folder), "-c", "fsync=off"]
    server = subprocess.Popen([*as_other, "postgres", "-D", data, *options], cwd=folder, stderr=subprocess.DEVNULL)
    try:
        yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)
        shutil.rmtree(folder)


@pytest.mark.long
def test_it_runs_on_postgresql_with_a_login(deployed, tmp_path, postgres):
    login = "team:plumb"
    served = Served(
        deployed.root,
        tmp_path / "site-cache",
        PREFECT_SERVER_DATABASE_CONNECTION_URL=postgres,
        PREFECT_SERVER_API_AUTH_STRING=login,
    )
    try:
        served.start()
        assert served.api.get("/flows/count").status_code in (401, 405)
        assert served.api.post("/flows/count").status_code == 401
        served.api.auth = ("team", "plumb")
        assert served.ended(served.run("retrain"))["type"] == "COMPLETED"
        assert deployed.ran() == ["copies", "counts"]
    finally:
        served.end()
    served.start()  # what was deployed is in the database
    try:
        assert "deployed" not in served.said()
        assert [run["state_type"] for run in served.runs("retrain")] == ["COMPLETED"]
    finally:
        served.end()
    assert not (deployed.root / ".prefect" / "prefect.db").exists()
