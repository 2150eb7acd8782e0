"""One stage on a machine that has what it needs: the flow that a worker of a work pool runs for a coordinator.

The code comes by git, data through the DVC remote; the coordinator (`pipelines.elsewhere`) gets back the stage's entry
of dvc.lock and the hashes of its outputs. Nothing of it is kept in the flow's result, which would be on this disk.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, StateType
from prefect.logging.handlers import APILogHandler
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Crashed, Failed

from pipelines.ancestors import Ancestors
from pipelines.clone_lock import mend
from pipelines.clones import clean_clone, default_home
from pipelines.dvc_transfer_process import Stopped, Transfer, TransferError
from pipelines.graph import ALL, read_graph
from pipelines.machine import Machine, sharing
from pipelines.mirror import REPOSITORY_VARIABLE
from pipelines.resources import Grant, visible_gpus
from pipelines.run_stage import StageError, run_stage
from pipelines.worker import STAGES_VARIABLE
from plumbline.errors import PlumblineError

BEAT = "plumbline.beat"  # label of the flow run: it grows as long as the stage is under way
BEAT_EVERY_S = 3.0
LOOK_EVERY_S = 0.5
END_WITHIN_S = 15.0
FENCE = "```"


@flow(name="stage", flow_run_name="{stage} of {commit:.8}", persist_result=False, retries=0)
def stage(  # noqa: PLR0917 - Prefect passes them by name
    repository: str,
    commit: str,
    folder: str,
    stage: str,
    remote: str,
    locks: dict[str, str],
    items: list[dict[str, Any]],
    again: list[str],
    retry_s: float,
) -> State[None]:
    """Run one stage of a commit; end as Completed with what it made as an artifact, or as Failed with its last lines.

    Args:
        repository: Where this machine fetches the code; $PLUMBLINE_REPOSITORY, where it is set here, goes before.
        commit: The whole hash.
        folder: The DVC project's, in the repository; "" for its root.
        stage: As DVC addresses it there.
        remote: Name of the DVC remote; "" for the default one.
        locks: Path of a dvc.lock -> its text, with the entries of the stage and of those whose outputs it reads.
        items: What it reads that is not in the commit (`pipelines.dvc_transfer.Item`).
        again: Hashes of objects that are damaged in the remote; where this machine has them, they are sent again.
        retry_s: How long a transfer is tried again.
    """
    log = get_run_logger()
    signs = SignsOfLife(UUID(str(flow_run.id)))
    try:
        with signs, clean_clone(worker_home(), os.environ.get(REPOSITORY_VARIABLE) or repository, commit,
                                wait=True, cache=default_home() / "cache", on_wait=log.info) as clone:  # fmt: skip
            if folder:
                mend(clone / folder)
            transfer = Transfer(clone / folder, stage, remote, retry_s, log.warning, signs.stopped)
            result = run_here(transfer, log, locks, items, again)
        keep_result(result)
        return Completed(message=result["outcome"])
    except (StageError, TransferError, PlumblineError) as error:
        if signs.why:
            return signs.end_state()
        if isinstance(error, TransferError) and error.unusable:
            keep_result({"unusable": list(error.unusable)})
        return Failed(message="\n".join([str(error), *getattr(error, "tail", ())]))
    finally:
        APILogHandler().flush()  # who follows the log need not wait for it after the end


def run_here(
    transfer: Transfer,
    log: logging.Logger | logging.LoggerAdapter[Any],
    locks: dict[str, str],
    items: list[dict[str, Any]],
    again: list[str],
) -> dict[str, Any]:
    """Fetch what the stage reads, run it, push what it makes; return its outcome, items and entry of dvc.lock."""
    began = time.monotonic()
    came = transfer.step("receive", locks=locks, items=items)["came"]
    log.info("fetched %d objects in %.0f s", came, time.monotonic() - began)
    with granted(transfer, log) as grant:
        more = grant.environment()
        outcome = run_stage(transfer.root, transfer.stage, log.info, stopped=transfer.stopped, more_environment=more)
    if transfer.stopped.is_set():
        raise Stopped(f"stage {transfer.stage!r}: stopped")
    began = time.monotonic()
    made = transfer.step("give", again=again)
    log.info("pushed %d objects in %.0f s", made["sent"], time.monotonic() - began)
    return {"outcome": outcome.value, "items": made["items"], "entry": made["entry"]}


@contextmanager
def granted(transfer: Transfer, log: logging.Logger | logging.LoggerAdapter[Any]) -> Iterator[Grant]:
    """Have this machine for a stage, and as many of its GPUs as the stage's ``meta`` says.

    Raises:
        Stopped: It shall stop.
    """

    def look() -> None:
        if transfer.stopped.is_set():
            raise Stopped(f"stage {transfer.stage!r}: stopped")

    wanted = _gpus_of(transfer)
    seen = visible_gpus(os.environ) if wanted else ()
    number = len(seen) if wanted == ALL else min(wanted, len(seen))
    if number < wanted:  # not every GPU is seen: Jetson's own is in no list
        log.warning("the stage asks for %d GPUs, this machine shows %d; it sees what there is", wanted, number)
    at_once = os.environ.get(STAGES_VARIABLE, "1")
    machine = Machine(default_home(), log.info, look, beside=at_once != "1")
    with sharing(machine):
        machine.take(wait=True)
        with machine.gpus(seen, number) as gpus:
            yield Grant(0, gpus)


def _gpus_of(transfer: Transfer) -> int:
    stages = read_graph(transfer.root).stages
    return next((each.resources.get("gpu", 0) for each in stages if each.name == transfer.stage), 0)


def worker_home() -> Path:
    """Return where clones of a worker are: not the coordinator's, which holds its clone while it waits for us."""
    return default_home() / "workers"


def keep_result(result: dict[str, Any]) -> None:
    """Store what the coordinator takes, as an artifact that people can read too."""
    create_markdown_artifact(f"{FENCE}json\n{json.dumps(result, indent=1)}\n{FENCE}", description="for the coordinator")


def result_of(markdown: str) -> dict[str, Any]:
    r"""Read the artifact of `keep_result`.

    >>> result_of("```json\n{\"outcome\": \"ran\"}\n```")
    {'outcome': 'ran'}
    """
    return json.loads(markdown.removeprefix(f"{FENCE}json\n").removesuffix(f"\n{FENCE}"))


class SignsOfLife:
    """Tells the coordinator every few seconds that the stage is under way, and ends it when nobody wants it any more.

    That is when the flow run is cancelled, when the coordinator has given it to another worker, or when the worker
    that started this process is gone: Prefect 3.8 leaves a flow running whose worker was killed.

    Attributes:
        stopped: The stage shall end.
        why: In a word.
    """

    def __init__(self, run: UUID) -> None:
        self.stopped = threading.Event()
        self.why = ""
        self._run = run
        self._over = threading.Event()
        self._ancestors = Ancestors()
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._beat, self._watch)]

    def __enter__(self) -> SignsOfLife:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(END_WITHIN_S)

    def end_state(self) -> State[None]:
        """Return the state to end with after `why`."""
        if self.why == "cancelled":
            return Cancelled(message="cancelled: the stage was ended")
        return Crashed(message=f"{self.why}: the stage was ended")

    def _beat(self) -> None:
        count = 0
        with get_client(sync_client=True) as client:
            while not self._over.wait(BEAT_EVERY_S if count else 0):
                count += 1
                try:
                    client.update_flow_run_labels(self._run, {BEAT: count})
                    state = client.read_flow_run(self._run).state
                except Exception as error:  # a server that restarts is waited for
                    logging.getLogger(__name__).debug("no sign of life could be given: %s", error)
                    continue
                if state is not None and state.type in (StateType.CANCELLING, StateType.CANCELLED):
                    self._stop("cancelled")
                elif state is not None and state.is_final():
                    self._stop("given to another worker")

    def _watch(self) -> None:
        while not self._over.wait(LOOK_EVERY_S):
            if not self._ancestors.live():
                self._stop("its worker is gone")
                if not self._over.wait(END_WITHIN_S):
                    os._exit(1)  # what we have started ends with us
                return

    def _stop(self, why: str) -> None:
        self.why = self.why or why
        self.stopped.set()
