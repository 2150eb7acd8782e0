"""DVC's command line for what is run by a flow: it ends with who started it, and dvc.lock is never half-written.

DVC 3.67 writes dvc.lock over itself: killed in that moment, it leaves a cut file, which every later command refuses.
Here the new one is written beside it and takes its place in one step.

It runs as a file (``python -P dvc_command.py ...``): in a clone of another commit, ``-m`` would find that commit's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

# The number of a pipe's reading end; its other end is held by who started this, and by nobody else.
LIFELINE = "PLUMBLINE_LIFELINE"
NEW = ".new"  # of the file that is being written


def main() -> int:
    """Run DVC with this process's arguments; return its exit code."""
    end_with_starter()
    replace_whole()
    from dvc.cli import main as dvc

    return int(dvc(sys.argv[1:]))


def end_with_starter() -> None:
    """End this process's group when who started it, and gave it a lifeline, is gone."""
    if lifeline := os.environ.pop(LIFELINE, ""):
        threading.Thread(target=_wait_and_end, args=(int(lifeline),), daemon=True).start()


def _wait_and_end(lifeline: int) -> None:
    """Wait until the other end is closed, which the kernel does for a killed process too; then end this group."""
    os.read(lifeline, 1)
    # From outside: to go on to the hardest signal, who sends it must outlive the softer ones.
    ender = Path(__file__).with_name("process_group.py")
    subprocess.Popen([sys.executable, "-P", os.fspath(ender), str(os.getpgid(0))], start_new_session=True)


def replace_whole() -> None:
    """Make DVC put a new YAML file in the old one's place instead of writing over it."""
    from dvc.utils.serialize import _common, _yaml

    assert _common._dump_data is _yaml._dump_data, "another DVC than 3.67: see how it writes dvc.lock"
    _common._dump_data = _yaml._dump_data = _dump_whole


def _dump_whole(
    path: Any, data: Any, dumper: Callable[..., Any], fs: Any = None, **arguments: Any
) -> None:  # as `_dump_data`
    if fs is not None and fs.protocol != "local":
        with fs.open(path, "w+", encoding="utf-8") as file:
            dumper(data, file, **arguments)
        return
    new = f"{os.fspath(path)}{NEW}"
    with open(new, "w", encoding="utf-8") as file:  # noqa: PTH123 - what DVC has may be no Path
        dumper(data, file, **arguments)
    os.replace(new, path)  # noqa: PTH105


if __name__ == "__main__":
    sys.exit(main())
