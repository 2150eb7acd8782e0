"""Several machines on one: each has its own home, clone, DVC cache and Prefect profile, and reaches the others only by
git, S3 and Prefect's API. With the S3 server they share, and a line to it that can be cut.
"""

from __future__ import annotations

import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ruamel.yaml import YAML

BUCKET = "plumbline"
WITHIN_S = 150.0

# What a stage does: it tells where it runs, waits while its gate is shut, and makes of its inputs outputs that are the
# same wherever it runs.
WORK = """
import hashlib, json, os, pathlib, sys, time
name, inputs, outputs = sys.argv[1], sys.argv[2].split(","), sys.argv[3].split(",")
outside = pathlib.Path(os.environ["OUTSIDE"])
with (outside / "ran").open("a") as log:
    log.write(f"{name} {os.environ['MACHINE']}\\n")
print(f"{name} begins", flush=True)
(outside / f"{name}.pid").write_text(str(os.getpid()))
while (outside / f"{name}.shut").exists():
    time.sleep(0.1)
if (outside / f"{name}.fails").exists():
    sys.exit(f"{name} cannot work")
digest = hashlib.md5(name.encode())
for path in map(pathlib.Path, inputs):
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        digest.update(file.read_bytes() if file.is_file() else b"")
for path in map(pathlib.Path, outputs):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name == "state.csv":  # it persists: a line more each time
        path.write_text((path.read_text() if path.exists() else "") + digest.hexdigest() + "\\n")
    elif path.suffix == ".json":
        path.write_text(json.dumps({"value": int(digest.hexdigest()[:6], 16)}) + "\\n")
    elif path.suffix:
        path.write_text(f"{path} {digest.hexdigest()}\\n")
    else:
        (path / "deep").mkdir(parents=True, exist_ok=True)
        (path / "weights.txt").write_text(f"weights {digest.hexdigest()}\\n")
        (path / "deep" / "more.txt").write_text(f"more {digest.hexdigest()}\\n")
print(f"{name} ends", flush=True)
"""
STAGES = """
stages:
  source:
    cmd: python work.py source seed.txt raw
    deps: [seed.txt, work.py]
    outs: [raw]
  unrelated:
    cmd: python work.py unrelated seed.txt unrelated.bin
    deps: [seed.txt, work.py]
    outs: [unrelated.bin]
  train:
    meta: {pool: gpu}
    cmd: python work.py train raw,params.yaml model,reports/train.json,state.csv
    deps: [raw, work.py]
    params: [train]
    outs:
      - model
      - state.csv: {cache: false, persist: true}
    metrics:
      - reports/train.json: {cache: false}
  export:
    cmd: python work.py export model/weights.txt artifact.txt
    deps: [model/weights.txt, work.py]
    outs: [artifact.txt]
  benchmark:
    foreach: [one, two]
    do:
      meta: {pool: edge}
      cmd: >-
        python work.py benchmark-${item} artifact.txt,model/deep,reports/train.json
        reports/${item}.json,curves-${item}
      deps: [artifact.txt, model/deep, reports/train.json, work.py]
      metrics:
        - reports/${item}.json: {cache: false}
      plots:
        - curves-${item}: {cache: false}
  report:
    cmd: python work.py report reports/one.json,reports/two.json report.txt
    deps: [reports/one.json, reports/two.json, work.py]
    outs: [report.txt]
"""
PARAMS = """
train: {{epochs: 3}}
flow:
  limits: {{cpu: 2, gpu: 0}}
  retries: {{}}
  retry_delay_s: 0.5
  remote: ""
  take_within_s: {take_within_s}
  lost_after_s: 12.0
  remote_retry_s: {remote_retry_s}
"""


class Line:
    """A line to a server, which can be cut: then it takes connections and closes them."""

    def __init__(self, port: int) -> None:
        line = self
        self.is_cut = False
        self.refused = 0

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                if line.is_cut:
                    line.refused += 1
                    return
                with socket.create_connection(("127.0.0.1", port)) as there:
                    back = threading.Thread(target=_pour, args=(there, self.request), daemon=True)
                    back.start()
                    _pour(self.request, there)
                    back.join()

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True
            request_queue_size = 128

        self.server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"


def _pour(source: socket.socket, target: socket.socket) -> None:
    try:
        while content := source.recv(65536):
            target.sendall(content)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


class Machine:
    """A machine: what runs on it sees its own folders and nothing of the others."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.project = folder / "project"
        self.started: list[subprocess.Popen[bytes]] = []
        for name in ("home", "site", "plumbline"):
            (folder / name).mkdir(parents=True)
        self.environment = {
            **environment,
            "HOME": os.fspath(folder / "home"),
            "DVC_SITE_CACHE_DIR": os.fspath(folder / "site"),
            "PLUMBLINE_HOME": os.fspath(folder / "plumbline"),
            "PREFECT_HOME": os.fspath(folder / "prefect"),
            "MACHINE": folder.name,
        }

    def run(self, *command: str, check: bool = True, cwd: Path | None = None) -> str:
        """Run a command in the project; return all that it prints."""
        done = subprocess.run(
            [sys.executable, "-m", *command] if command[0] in ("dvc", "pipelines.flow") else command,
            cwd=cwd or self.project,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0 or not check, f"{command}: {done.stdout}"
        return done.stdout

    def start(self, log: str, *module: str) -> subprocess.Popen[bytes]:
        """Start a module of ours; its output goes to a file of this machine."""
        with (self.folder / log).open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", *module],
                cwd=self.project if self.project.is_dir() else self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def work_for(self, pool: str, log: str = "worker.log") -> subprocess.Popen[bytes]:
        """Start a worker; it is ready when this returns."""
        worker = self.start(log, "pipelines.worker", pool, "--name", self.folder.name)
        wait_until(lambda: "started!" in (self.folder / log).read_text() or worker.poll() is not None)
        assert worker.poll() is None, (self.folder / log).read_text()
        return worker

    def own_cache(self) -> None:
        """Keep its project's DVC cache where its worker has one."""
        cache = self.folder / "plumbline" / "cache"
        (self.project / ".dvc" / "config.local").write_text(f"[cache]\n    dir = {cache}\n")

    def said(self, log: str) -> str:
        return (self.folder / log).read_text(errors="replace")

    def cached(self) -> set[str]:
        """Return the hashes of all objects in its DVC cache."""
        place = self.folder / "plumbline" / "cache" / "files" / "md5"
        return {path.parent.name + path.name for path in place.rglob("*") if path.is_file()}

    def end(self) -> None:
        for process in self.started:
            for number in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(process.pid, number)
                    process.wait(20)
                except ProcessLookupError:
                    break
                except subprocess.TimeoutExpired:
                    continue


def wait_until(done: Callable[[], object], within_s: float = WITHIN_S) -> None:
    until = time.monotonic() + within_s
    while not done():
        assert time.monotonic() < until, "it does not happen"
        time.sleep(0.1)


def start_s3(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Start an S3 server with nothing but a bucket, in a process of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (folder / "s3.log").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    s3 = bucket_at(f"http://127.0.0.1:{port}")

    def answers() -> bool:
        try:
            s3.create_bucket(Bucket=BUCKET)
        except OSError:
            return False
        except Exception as error:
            if type(error).__name__ != "EndpointConnectionError":
                raise
            return False
        return True

    wait_until(answers)
    return process, port


def bucket_at(url: str):
    import boto3

    return boto3.client(
        "s3", endpoint_url=url, aws_access_key_id="key", aws_secret_access_key="word", region_name="us-east-1"
    )


def lock_of(project: Path) -> dict:
    """Return the stages' entries of a project's dvc.lock."""
    return YAML(typ="safe").load((project / "dvc.lock").read_text())["stages"]


class Site:
    """A git remote, an S3 server behind a line, a Prefect server, and any number of machines."""

    def __init__(self, folder: Path, prefect_url: str, s3_port: int, prefix: str) -> None:
        self.folder, self.prefix = folder, prefix
        self.line = Line(s3_port)
        self.s3 = bucket_at(f"http://127.0.0.1:{s3_port}")
        self.outside = folder / "outside"
        self.outside.mkdir()
        self.machines: list[Machine] = []
        self.environment = {
            **os.environ,
            "PREFECT_API_URL": prefect_url,
            "AWS_ENDPOINT_URL": self.line.url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "word",
            "AWS_DEFAULT_REGION": "us-east-1",
            "OUTSIDE": os.fspath(self.outside),
            **{f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
            "GIT_CONFIG_NOSYSTEM": "1",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
        }
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "PLUMBLINE_REPOSITORY"):
            self.environment.pop(name, None)

    def machine(self, name: str) -> Machine:
        self.machines.append(Machine(self.folder / name, self.environment))
        return self.machines[-1]

    def coordinator(self, stages: str = STAGES, take_within_s: float = 60.0, remote_retry_s: float = 60.0) -> Machine:
        """Make a machine with the project, which is in the git remote too."""
        origin = self.folder / "origin.git"
        machine = self.machine("coordinator")
        subprocess.run(["git", "init", "--quiet", "--bare", "-b", "main", origin], check=True)
        machine.project.mkdir()
        machine.run("git", "init", "--quiet", "-b", "main")
        machine.run("dvc", "init", "--quiet")
        url = f"s3://{BUCKET}/{self.prefix}"
        (machine.project / ".dvc" / "config").write_text(
            f"[core]\n    remote = store\n['remote \"store\"']\n    url = {url}\n"
        )
        machine.own_cache()
        params = PARAMS.format(take_within_s=take_within_s, remote_retry_s=remote_retry_s)
        files = {"work.py": WORK, "dvc.yaml": stages, "params.yaml": params, "seed.txt": "seed\n"}
        for name, text in files.items():
            (machine.project / name).write_text(text)
        machine.run("git", "remote", "add", "origin", os.fspath(origin))
        self.commit(machine)
        return machine

    def commit(self, machine: Machine) -> None:
        machine.run("git", "add", "--all")
        machine.run("git", "commit", "--quiet", "-m", "as it is")
        machine.run("git", "push", "--quiet", "origin", "HEAD")

    def serial(self) -> Machine:
        """Run the line serially, on a machine with nothing but the code."""
        machine = Machine(self.folder / "serial", {**self.environment, "OUTSIDE": os.fspath(self.folder / "serial")})
        machine.run("git", "clone", "--quiet", os.fspath(self.folder / "origin.git"), "project", cwd=machine.folder)
        machine.run("dvc", "repro", "--quiet")
        return machine

    def ran(self) -> list[str]:
        """Return a line for each start of a stage: its name and its machine."""
        log = self.outside / "ran"
        return log.read_text().splitlines() if log.exists() else []

    def shut(self, stage: str) -> None:
        (self.outside / f"{stage}.shut").touch()

    def open(self, stage: str) -> None:
        (self.outside / f"{stage}.shut").unlink()

    def pid(self, stage: str) -> int:
        """Wait until a stage runs; return the number of its process."""
        path = self.outside / f"{stage}.pid"
        wait_until(lambda: path.exists() and path.read_text())
        return int(path.read_text())

    def end(self) -> None:
        for machine in self.machines:
            machine.end()
        self.line.server.shutdown()
