"""Run everything that runs the line by itself, until interrupted: ``make server``.

That is a Prefect server, prefect.yaml deployed to it, a worker of the work pool `plumbline`, and the watch for new
data. What dies is started again. Schedules and history are in the server's database (SQLite in the project's folder
`.prefect`; ``PREFECT_SERVER_DATABASE_CONNECTION_URL`` names another), so they survive any end of this command.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import platform
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.clones import HOME_VARIABLE
from pipelines.file_lock import locked
from pipelines.interrupts import exit_on_sigterm
from pipelines.mirror import REPOSITORY_VARIABLE, redacted
from pipelines.process_group import end_group
from pipelines.server import SERVER_FILE, ServerError, running_server, server_command, set_up_prefect, wait_for_answer
from plumbline.errors import PlumblineError
from plumbline.files import write_json

POOL = "plumbline"
PORT = 4200
# What the deployments' limits let run at once: late runs of a schedule, after a pause of hours, would all be started.
RUNS_AT_ONCE = 3
WORKER = f"{POOL}-{platform.node()}"
# Prefect 3.8 keeps in memory who holds a concurrency limit's slot: after a restart of the server every run that is
# under way would be ended at its next renewal, and its slot would be taken for ever.
LEASES = "prefect.server.concurrency.lease_storage.filesystem"
LONGEST_PAUSE_S = 60.0
LIVED_S = 60.0  # what has lived so long is started again at once
LOOK_EVERY_S = 0.5
SETTLE_EVERY_S = 10.0
LOG_BYTES = 10_000_000
END_ON_PARENT = 1  # PR_SET_PDEATHSIG. Source: prctl(2)


@dataclass
class Child:
    """A process that is started again when it ends.

    Attributes:
        name: For people, and of its log.
        command: What runs.
        environment: All of it.
        log: Gets its output; the end of what was there stays.
    """

    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    started_at: float = 0.0  # seconds since 1970
    pause_s: float = 1.0
    again_at: float = field(default=0.0)

    def start(self) -> subprocess.Popen[bytes]:
        """Start it, in a session of its own: Ctrl-C is for who started us, and we end it in order."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.is_file() and self.log.stat().st_size > LOG_BYTES:
            self.log.replace(self.log.with_suffix(".old.log"))
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - this process has one thread
            )
        self.started, self.started_at = time.monotonic(), time.time()
        return self.process

    def look(self) -> bool:
        """Start it again if it has ended, after a pause that grows while it keeps ending; say whether it was."""
        now = time.monotonic()
        if self.process is not None and self.process.poll() is not None:
            code = self.process.returncode
            end_group(self.process)  # what it has left
            self.process = None
            self.pause_s = 1.0 if now - self.started > LIVED_S else min(self.pause_s * 2, LONGEST_PAUSE_S)
            self.again_at = now + self.pause_s
            say(f"the {self.name} has ended with {code}, see {self.log}; started again in {self.pause_s:g} s")
        if self.process is None and now >= self.again_at:
            self.start()
            return True
        return False

    def end(self) -> None:
        """End it and all that it has started."""
        if self.process is not None:
            end_group(self.process)


def _end_with_parent() -> None:
    """Ask the kernel to end this child when its parent is gone, which a kill -9 of it leaves no other way to learn."""
    ctypes.CDLL(None).prctl(END_ON_PARENT, signal.SIGTERM)


def serve(root: Path, host: str, port: int, every_s: float) -> None:
    """Start everything, and keep it running until an exception (an interrupt) ends it.

    Args:
        root: The project, absolute.
        host: The server's address; 0.0.0.0 is every address of this machine.
        port: Its port.
        every_s: Between two looks for new data.

    Raises:
        PlumblineError: It cannot be started; the message says why.
    """
    set_up(root, os.environ)
    home = Path(os.environ["PREFECT_HOME"])
    with _alone(home):
        check_port(host, port)
        api = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}/api"  # noqa: S104 - compared, not bound
        children = make_children(host, port, api, every_s, home)
        try:
            server = children[0]
            wait_for_answer(server.start(), f"{api}/health", server.log)
            write_json(home / SERVER_FILE, {"api": api, "pid": os.getpid()})
            os.environ["PREFECT_API_URL"] = api
            _deploy(root, home)
            say(f"Prefect's UI: {api.removesuffix('/api')}   logs: {server.log.parent}   Ctrl-C ends everything")
            _keep_running(children)
        finally:
            (home / SERVER_FILE).unlink(missing_ok=True)
            for child in reversed(children):  # the server last, so that the others can tell it how they ended
                child.end()


def set_up(root: Path, environment: MutableMapping[str, str]) -> None:
    """Set what the server, the worker and the watch read from their environment; what the user has set stays."""
    set_up_prefect(root, environment)
    environment.pop("PREFECT_API_URL", None)  # of another server
    environment.setdefault(HOME_VARIABLE, os.fspath(root / ".cache" / "server"))
    environment.setdefault("PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE", LEASES)
    environment.setdefault("PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT", "false")
    if login := environment.get("PREFECT_SERVER_API_AUTH_STRING"):
        environment.setdefault("PREFECT_API_AUTH_STRING", login)


def make_children(host: str, port: int, api: str, every_s: float, home: Path) -> list[Child]:
    """Return the server, the worker and the watch, not started."""
    logs = home / "logs"
    # A browser asks where the page came from, whatever name this machine has there.
    server = {**os.environ, "PREFECT_SERVER_UI_API_URL": os.environ.get("PREFECT_SERVER_UI_API_URL", "/api")}
    client = {**os.environ, "PREFECT_API_URL": api}
    worker = ["worker", "start", "--pool", POOL, "--type", "process", "--name", WORKER, "--limit", str(RUNS_AT_ONCE)]
    return [
        Child("server", server_command(host, port), server, logs / "server.log"),
        Child("worker", [sys.executable, "-m", "prefect", *worker], client, logs / "worker.log"),
        Child(
            "watch for new data",
            [sys.executable, "-m", "pipelines.watch_data", "--every", str(every_s)],
            client,
            logs / "watch_data.log",
        ),
    ]


def _deploy(root: Path, home: Path) -> None:
    from pipelines.serve_prefect import deploy_changed, make_pool

    make_pool(POOL)
    # Everybody sees it in Prefect: who runs takes the login from its own environment (`pipelines.mirror.with_login`).
    repository = redacted(os.environ.get(REPOSITORY_VARIABLE) or os.fspath(root))
    if deploy_changed(root, home, repository):
        say(f"prefect.yaml deployed, for {repository}")


def _keep_running(children: Sequence[Child]) -> None:
    from pipelines.serve_prefect import settle_dead_runs

    worker = next(child for child in children if child.name == "worker")
    settle_at = time.monotonic()
    while True:
        for child in children:
            child.look()
        if worker.process is not None and time.monotonic() >= settle_at:
            settle_dead_runs(POOL, WORKER, worker.started_at)
            settle_at = time.monotonic() + SETTLE_EVERY_S
        time.sleep(LOOK_EVERY_S)


def check_port(host: str, port: int) -> None:
    """Refuse a port that something listens on: the server would tell so in its log alone.

    Raises:
        ServerError: It is taken, or the address is none of this machine.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server: what has just closed is free
        try:
            probe.bind((host, port))
        except OSError as error:
            hint = "end what listens there, or say another one: make server PORT=4201"
            raise ServerError(f"port {port} of {host} cannot be used ({error.strerror}); {hint}") from error


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    home.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(home / "serve.lock", wait=False))
        except BlockingIOError as error:
            at = (running_server(home) or "it is starting").removesuffix("/api")
            raise ServerError(f"{home}: make server runs already ({at}); end that one first") from error
        yield


def say(text: str) -> None:
    """Print a line with the time."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)  # noqa: T201


def main(argv: Sequence[str] | None = None) -> int:
    """Serve: 1 and one line on stderr where that is not possible; 130 or 143 when interrupted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--root", type=Path, default=Path(), metavar="PATH", help="the project (default: here)")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0: for other machines too (default: %(default)s)")
    parser.add_argument("--port", type=int, default=PORT, help="default: %(default)s")
    parser.add_argument("--every", type=float, default=60.0, metavar="SECONDS", help="between looks for new data")
    arguments = parser.parse_args(argv)
    exit_on_sigterm()
    try:
        serve(arguments.root.resolve(), arguments.host, arguments.port, arguments.every)
    except PlumblineError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    sys.exit(main())
