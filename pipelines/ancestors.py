"""A flow that a worker started ends with it, also where the worker is killed and can tell nobody."""

from __future__ import annotations

import contextlib

import psutil


class Ancestors:
    """The processes of Prefect that this process descends from.

    Prefect 3.8 starts a flow through a process in between; a kill of either leaves the flow running.
    """

    def __init__(self) -> None:
        self._processes = []
        with contextlib.suppress(psutil.Error):
            for process in psutil.Process().parents():
                if not any("prefect" in part for part in process.cmdline()):
                    break
                self._processes.append(process)

    def live(self) -> bool:
        """Tell whether all of them still run."""
        return all(_runs(process) for process in self._processes)


def _runs(process: psutil.Process) -> bool:
    try:
        # `is_running` compares the time of its start too: numbers are used again.
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
