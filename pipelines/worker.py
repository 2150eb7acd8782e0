"""A worker that runs stages of one work pool on this machine: ``python -m pipelines.worker POOL``.

The pool, and the deployment ``stage/POOL`` that coordinators start, are made on the server where they are missing.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import MutableMapping, Sequence
from pathlib import Path

from pipelines.clones import default_home
from plumbline.errors import PlumblineError

ENTRYPOINT = "pipelines.stage_worker.stage"  # a module's path: this package is installed, whatever the folder


STAGES_VARIABLE = "PLUMBLINE_STAGES_AT_ONCE"  # tells the stages of a worker how many it may run at once


class WorkerError(PlumblineError):
    """This machine cannot work for a server."""


def set_up_worker(environment: MutableMapping[str, str]) -> str:
    """Set what Prefect reads when it is first imported, and return the server's address; what the user has set stays.

    Args:
        environment: `os.environ`.

    Raises:
        WorkerError: Nothing says which server.
    """
    if not (address := environment.get("PREFECT_API_URL")):
        hint = "export PREFECT_API_URL=http://SERVER:4200/api, with the machine that runs `make server`"
        raise WorkerError(f"PREFECT_API_URL is not set, expected the server this worker works for; {hint}")
    environment.setdefault("PREFECT_HOME", os.fspath(default_home() / "prefect"))
    environment.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    environment.setdefault("DO_NOT_TRACK", "1")
    environment.setdefault("PREFECT_WORKER_QUERY_SECONDS", "3")
    environment.setdefault("PREFECT_WORKER_HEARTBEAT_SECONDS", "10")  # offline is who missed three
    return address


def make_pool(pool: str) -> None:
    """Make the work pool and its deployment on the server, where they are missing.

    Raises:
        WorkerError: The pool is one of another type.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists
    from prefect.workers.process import ProcessWorker

    from pipelines.stage_worker import stage

    with get_client(sync_client=True) as client:
        template = ProcessWorker.get_default_base_job_template()
        try:
            found = client.create_work_pool(WorkPoolCreate(name=pool, type="process", base_job_template=template))
        except ObjectAlreadyExists:
            found = client.read_work_pool(pool)
        if found.type != "process":
            hint = "choose another name, or remove it"
            raise WorkerError(f"work pool {pool!r} is of type {found.type}, expected process; {hint}")
        client.create_deployment(
            client.create_flow(stage),
            name=pool,
            work_pool_name=pool,
            entrypoint=ENTRYPOINT,
            description=f"One stage of dvc.yaml on a worker of the pool {pool}; coordinators start it.",
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Work until it is ended: the worker's own exit code, or 1 and one line on stderr."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pool", help="as stages name it in dvc.yaml: meta: {pool: gpu}")
    parser.add_argument("--limit", type=int, default=1, help="stages at once on this machine (default: 1)")
    parser.add_argument("--name", default=platform.node(), help="of the worker in Prefect's UI (default: the host's)")
    arguments = parser.parse_args(argv)
    try:
        address = set_up_worker(os.environ)
        Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)
        _connect(arguments.pool, address)
    except PlumblineError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    command = ["worker", "start", "--pool", arguments.pool, "--type", "process"]
    command += ["--name", f"{arguments.name}-{os.getpid()}", "--limit", str(arguments.limit)]
    os.environ[STAGES_VARIABLE] = str(arguments.limit)
    # In its place: a signal to this process is one to the worker.
    return os.execv(sys.executable, [sys.executable, "-m", "prefect", *command])  # noqa: S606


def _connect(pool: str, address: str) -> None:
    import httpx

    try:
        make_pool(pool)
    except (httpx.HTTPError, RuntimeError, OSError) as error:
        hint = "is `make server` running there, and is its port open?"
        raise WorkerError(f"{address}: the server does not answer: {error or type(error).__name__}; {hint}") from error


if __name__ == "__main__":
    sys.exit(main())
