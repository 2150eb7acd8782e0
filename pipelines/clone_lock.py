"""One flow at a time on a clone, and what a killed one left behind is put right before the next begins."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from pipelines.dvc_command import NEW
from pipelines.file_lock import locked
from pipelines.process_group import end_group_id
from pipelines.run_stage import FLOW_ROOT
from plumbline.errors import PlumblineError
from plumbline.files import replacing

LOCK = Path(".dvc/tmp/plumbline-flow.lock")
RECORD = Path(".dvc/tmp/plumbline-flow.json")
RWLOCK = Path(".dvc/tmp/rwlock")  # Source: dvc/rwlock.py, RWLOCK_FILE
CLOCK_S = 1.0  # a process's start is known from the machine's, which /proc/stat gives in whole seconds


class BusyError(PlumblineError):
    """Another flow runs on this clone."""


@contextlib.contextmanager
def sole_flow(root: Path, record: dict[str, Any]) -> Iterator[dict[str, Any] | None]:
    """Hold a project for one flow, with what a killed one left put right (see `mend`).

    Args:
        root: The DVC project's root.
        record: JSON that tells the next flow about this one, should this one be killed.

    Yields:
        The record of the flow before, where it was killed; else None.

    Raises:
        BusyError: Another flow runs on this project.
    """
    path = root / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(path, wait=False))
        except BlockingIOError as error:
            by = (_read_record(root) or {}).get("pid", "?")
            raise BusyError(
                f"{root}: a flow runs on this folder already (process {by}); wait for its end, or end it"
            ) from error
        before = _read_record(root)
        mend(root)
        with replacing(root / RECORD) as temporary:
            temporary.write_text(json.dumps({**record, "pid": os.getpid()}), encoding="utf-8")
        try:
            yield before
        finally:  # who can still do this was not killed
            (root / RECORD).unlink()


def _read_record(root: Path) -> dict[str, Any] | None:
    try:
        return json.loads((root / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def mend(root: Path) -> None:
    """Put right what a flow that was killed in any moment leaves, so that DVC works again. Call it as the sole flow.

    Stages that outlived it are ended. DVC 3.67 keeps who reads and writes what in a file, by process number: entries
    of the dead are dropped by DVC, unless the number belongs to another process by now, as after a restart of the
    machine or of a container; and a file that was cut in the middle of a write is refused by every command.
    """
    for group in orphans(root):
        end_group_id(group)
    (root / f"dvc.lock{NEW}").unlink(missing_ok=True)
    path = root / RWLOCK
    if not path.is_file():
        return
    try:
        written_at = path.stat().st_mtime
        locks = json.loads(path.read_text(encoding="utf-8"))
        kept = {
            "read": {name: _of_the_living(readers, written_at) for name, readers in locks.get("read", {}).items()},
            "write": {
                name: writer for name, writer in locks.get("write", {}).items() if _of_the_living([writer], written_at)
            },
        }
        kept["read"] = {name: readers for name, readers in kept["read"].items() if readers}
    except (ValueError, AttributeError, KeyError, TypeError):
        kept = {}
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(kept), encoding="utf-8")


def orphans(root: Path) -> list[int]:
    """Return the groups of processes that a flow on this project started and that are there without one."""
    mark = os.fspath(root.resolve())
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(FLOW_ROOT) == mark:
                found.add(os.getpgid(process.pid))
    return sorted(found - {os.getpgid(0)})


def _of_the_living(infos: list[dict[str, Any]], written_at: float) -> list[dict[str, Any]]:
    """Keep the entries whose process runs and is the one that made the entry: numbers are used again.

    Args:
        infos: Of processes.
        written_at: When the file was written last, seconds since 1970: who began later has no entry in it.
    """
    kept = []
    for info in infos:
        if info["pid"] == os.getpid():  # of one before us with our number: we hold nothing yet
            continue
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(info["pid"])
            # The entry holds sys.argv: the script may be named otherwise, its arguments are the same. It may have none.
            arguments = str(info["cmd"]).split(" ")[1:]
            is_same = not arguments or process.cmdline()[-len(arguments) :] == arguments
            if is_same and process.create_time() <= written_at + CLOCK_S:
                kept.append(info)
    return kept
