"""A process and all that it starts, as one group that ends together: ``python process_group.py GROUP`` ends one.

Only Python's own library is imported: this also runs as a file by itself, beside what it ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

# How long each signal is waited for before the next, harder one.
END_WITH = ((signal.SIGINT, 4.0), (signal.SIGTERM, 2.0), (signal.SIGKILL, 2.0))


def end_group(process: subprocess.Popen[bytes], end_with: Sequence[tuple[int, float]] = END_WITH) -> None:
    """End what is left of a process started in its own session: ask, insist, kill.

    A second interrupt while it waits only makes it go on to the harder signal.

    Args:
        process: It leads its group.
        end_with: Signal, and for how many seconds it is waited for.
    """
    end_group_id(process.pid, end_with, process.poll)


def end_group_id(
    group: int,
    end_with: Sequence[tuple[int, float]] = END_WITH,
    take_note: Callable[[], object] = lambda: None,
) -> None:
    """End a process group of which this process is no member.

    Args:
        group: Its number.
        end_with: Signal, and for how many seconds it is waited for.
        take_note: Takes the dead leader out of the group, where it is our child.
    """
    for number, wait_s in end_with:
        try:
            os.killpg(group, number)
            if _group_ends(group, wait_s, take_note):
                return
        except ProcessLookupError:
            take_note()
            return
        except BaseException:  # noqa: S112 - Prefect's SIGTERM is one; who called us is already raising
            continue


def _group_ends(group: int, wait_s: float, take_note: Callable[[], object]) -> bool:
    until = time.monotonic() + wait_s
    while time.monotonic() < until:
        take_note()
        if not group_lives(group):
            take_note()  # the leader may have died since, and a dead one does not count as living
            return True
        time.sleep(0.05)
    return False


def group_lives(group: int) -> bool:
    """Tell whether a process group has a member that still runs.

    The dead that nobody has taken note of yet do not count: in a container without an init they stay for ever.
    """
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    stats = list(Path("/proc").glob("[0-9]*/stat"))
    return not stats or any(_runs_in(stat, group) for stat in stats)  # without /proc: what killpg said


def _runs_in(stat: Path, group: int) -> bool:
    try:
        # Source: proc_pid_stat(5): pid (command) state ppid pgrp; the command may hold spaces and brackets.
        state, _, of_group, *_ = stat.read_text().rpartition(")")[2].split()
    except OSError:
        return False  # it has ended while we looked
    return int(of_group) == group and state not in "ZX"


if __name__ == "__main__":
    end_group_id(int(sys.argv[1]))
