"""`make server` on a small project, on loopback: started, asked through Prefect's API, killed in parts, and ended."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

T = TypeVar("T")
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


class Served:
    """`python -m pipelines.serve` in a project's folder."""

    def __init__(self, root: Path, site_cache: Path, *options: str, **environment: str) -> None:
        self.root, self.options = root, options
        self.port = free_port()
        own = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PLUMBLINE_"))}
        self.environment = {
            **own,
            "DVC_SITE_CACHE_DIR": os.fspath(site_cache),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
            "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "3",
            **environment,
        }
        self.output = root.parent / "serve.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.api = httpx.Client(base_url=f"http://127.0.0.1:{self.port}/api", timeout=60)

    def start(self) -> None:
        """Start it, and wait until it says that it has."""
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pipelines.serve", "--port", str(self.port), *self.options],
                cwd=self.root,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # A background job of a shell ignores SIGINT, and so would what it starts.
                preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
            )
        self.wait_for(lambda: "Prefect's UI" in self.said() or self.process.poll() is not None, 240)
        assert self.process.poll() is None, self.said()

    def said(self) -> str:
        return self.output.read_text()

    def log(self, name: str) -> str:
        return (self.root / ".prefect" / "logs" / f"{name}.log").read_text()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Signal it, and return its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(60)

    def child(self, words: str) -> psutil.Process:
        """The process that it has started with these words in its command."""

        def found() -> psutil.Process | None:
            for process in psutil.Process(self.process.pid).children():
                with contextlib.suppress(psutil.Error):  # it has just ended
                    if words in " ".join(process.cmdline()):
                        return process
            return None

        return self.wait_for(found)

    def wait_for(self, ask: Callable[[], T], seconds: float = 300) -> T:
        """Ask until the answer is true; so long must be enough on the slowest machine."""
        until = time.monotonic() + seconds
        while not (answer := ask()):
            assert time.monotonic() < until, f"not within {seconds} s; said:\n{self.said()}\n{self._logs()}"
            time.sleep(0.1)
        return answer

    def _logs(self) -> str:
        logs = sorted((self.root / ".prefect" / "logs").glob("*.log"))
        return "\n".join(f"--- {path.name}\n{path.read_text()[-3000:]}" for path in logs)

    def ask(self, method: str, path: str, **body: Any) -> Any:
        until = time.monotonic() + 120
        while True:
            try:
                answer = self.api.request(method, path, **({"json": body} if method != "GET" else {}))
                # 503: SQLite is busy; Prefect's own client asks again, too.
                if answer.status_code != 503 or time.monotonic() > until:
                    break
            except httpx.TransportError:  # it is being restarted
                if time.monotonic() > until:
                    raise
            time.sleep(0.5)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def deployment(self, name: str) -> dict[str, Any]:
        return self.ask("GET", f"/deployments/name/{name}/{name}")

    def run(self, name: str, **parameters: Any) -> str:
        """Ask for a run of a deployment; its id."""
        deployment = self.deployment(name)["id"]
        return self.ask("POST", f"/deployments/{deployment}/create_flow_run", parameters=parameters)["id"]

    def state(self, run: str) -> dict[str, Any]:
        return self.ask("GET", f"/flow_runs/{run}")["state"]

    def ended(self, run: str, seconds: float = 180) -> dict[str, Any]:
        """Wait until a run has ended; its state."""
        return self.wait_for(lambda: (state := self.state(run))["type"] in ENDED and state, seconds)

    def runs(self, name: str) -> list[dict[str, Any]]:
        """All runs of a deployment, but those that a schedule has planned for later."""
        found = self.ask(
            "POST", "/flow_runs/filter", deployments={"name": {"any_": [name]}}, sort="EXPECTED_START_TIME_ASC"
        )
        return [run for run in found if run["state_name"] != "Scheduled"]

    def logs(self, run: str) -> list[str]:
        found = self.ask("POST", "/logs/filter", logs={"flow_run_id": {"any_": [run]}}, sort="TIMESTAMP_ASC")
        return [log["message"] for log in found]

    def stages(self, run: str) -> dict[str, str]:
        """Stage -> name of its state in a run."""
        found = self.ask("POST", "/task_runs/filter", task_runs={"flow_run_id": {"any_": [run]}})
        return {task["name"]: task["state_name"] for task in found}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def lives(pid: int) -> bool:
    """Whether a process runs; the dead that nobody has waited for do not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
