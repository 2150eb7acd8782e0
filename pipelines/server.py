"""A Prefect server for as long as one command runs, so that nobody has to start one by hand.

Where `make server` runs in the project, its server is taken instead: two on one database would get in each other's way.

Prefect would start one by itself, but in the command's own process group: Ctrl-C in a terminal then ends the server
first, the flow waits 80 s for it, and its run stays "Running" in the history for ever (seen with 3.8.8). This one has
a session of its own, and its UI can be looked at while the flow runs.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import MutableMapping
from pathlib import Path

from pipelines.process_group import end_group
from plumbline.errors import PlumblineError

SERVER_FILE = "server.json"  # in PREFECT_HOME, while `make server` runs: where its API is
START_WITHIN_S = 180.0  # 5 s as a rule, 11 s the first time on a quiet machine


class ServerError(PlumblineError):
    """Prefect's server does not start."""


def set_up_prefect(root: Path, environment: MutableMapping[str, str]) -> None:
    """Set what Prefect reads when it is first imported; what the user has set stays.

    Args:
        root: The project, absolute: the history goes to its folder ``.prefect``.
        environment: `os.environ`.

    >>> settings = {"PREFECT_HOME": "/elsewhere"}
    >>> set_up_prefect(Path("/project"), settings)
    >>> settings
    {'PREFECT_HOME': '/elsewhere', 'PREFECT_SERVER_ANALYTICS_ENABLED': 'false', 'DO_NOT_TRACK': '1'}
    """
    environment.setdefault("PREFECT_HOME", os.fspath(root / ".prefect"))
    environment.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    environment.setdefault("DO_NOT_TRACK", "1")


def start_server(environment: MutableMapping[str, str]) -> str:
    """Give the address of a Prefect API and put it into the environment: the user's, that of make server, or a new one.

    Call it before Prefect is imported. A new server ends with this process, and as the last thing in it: Prefect
    sends its last log lines and events in an exit handler, and such handlers run in reverse order.

    Args:
        environment: `os.environ`, after `set_up_prefect`. Where it has a PREFECT_API_URL, that one is used.

    Raises:
        ServerError: It ends, or does not answer, before it has started; its log is named.
    """
    if own := environment.get("PREFECT_API_URL"):
        return own
    home = Path(environment["PREFECT_HOME"])
    if running := running_server(home):
        environment["PREFECT_API_URL"] = running
        return running
    log = home / "server.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    port = _free_port()
    address = f"http://127.0.0.1:{port}/api"
    with log.open("wb") as output:
        process = subprocess.Popen(
            server_command("127.0.0.1", port),
            # The UI asks port 4200 unless it is told: its page would open, empty.
            env={**environment, "PREFECT_SERVER_UI_API_URL": address},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    # Longer than a stage has: a server that still writes its history is killed only where nothing else helps.
    atexit.register(end_group, process, ((signal.SIGINT, 15.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, 2.0)))
    wait_for_answer(process, f"{address}/health", log)
    environment["PREFECT_API_URL"] = address
    return address


def server_command(host: str, port: int) -> list[str]:
    """Return the command that runs a Prefect server in the foreground."""
    return [sys.executable, "-m", "prefect", "server", "start", "--host", host, "--port", str(port)]


def running_server(home: Path) -> str | None:
    """Return the address of the server that ``make server`` runs on this folder's history, if one answers."""
    try:
        address = str(json.loads((home / SERVER_FILE).read_text(encoding="utf-8"))["api"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return address if answers(f"{address}/health") else None


def answers(url: str) -> bool:
    """Say whether something at an address answers with success."""
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - http, and our own address
            return True
    except (OSError, ValueError):
        return False


def wait_for_answer(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Wait until a server that was started answers.

    Raises:
        ServerError: It ends first, or is silent for `START_WITHIN_S`.
    """
    until = time.monotonic() + START_WITHIN_S
    while time.monotonic() < until:
        if process.poll() is not None:
            raise ServerError(f"{log}: Prefect's server ended with {process.returncode} at its start; read the log")
        if answers(url):
            return
        time.sleep(0.1)
    raise ServerError(f"{log}: Prefect's server did not answer {url} within {START_WITHIN_S:.0f} s; read the log")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
