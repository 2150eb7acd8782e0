"""Run one stage through DVC as a process group of its own: its lines as they come, its outcome, its end."""

from __future__ import annotations

import codecs
import functools
import os
import re
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path

from pipelines.dvc_command import LIFELINE
from pipelines.mirror import REPOSITORY_VARIABLE
from pipelines.process_group import end_group
from plumbline.errors import PlumblineError

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")  # colours and cursor moves. Source: ECMA-48, 5.4
# What DVC advises after every single stage. Source: dvc/repo/scm_context.py, dvc/commands/repro.py
HINTS = re.compile(
    r"To track the changes with git, run:|\tgit add .*(\.gitignore|dvc\.lock)|To enable auto staging, run:"
    r"|\tdvc config core\.autostage true|Use `dvc push` to send your updates to remote storage\.$"
    r"|Data and pipelines are up to date\.$"
)
PROGRESS_EVERY_S = 5.0
TAIL_LINES = 10
# In the environment of all that a flow starts: the project's root, so that what outlives a killed flow is found.
FLOW_ROOT = "PLUMBLINE_FLOW_ROOT"
DVC_COMMAND = Path(__file__).with_name("dvc_command.py")


class Outcome(Enum):
    """What DVC did with a stage that did not fail."""

    RAN = "ran"
    CACHED = "cached"  # the same run's outputs came out of the run-cache: they are others than were here
    UNCHANGED = "unchanged"  # so are its outputs


class StageError(PlumblineError):
    """A stage failed.

    Attributes:
        name: The stage.
        tail: The last lines of its output.
    """

    def __init__(self, name: str, code: int, tail: tuple[str, ...]) -> None:
        self.name = name
        self.tail = tail
        # DVC's last word is which command failed; why, the command said before.
        own = [line for line in tail if not line.startswith(("ERROR: ", "> ", "Running stage "))]
        why = [f"dvc repro exited with {code}", *tail, *own][-1]
        super().__init__(f"stage {name!r} failed: {why.removeprefix('error: ')}")


def run_stage(
    root: Path,
    name: str,
    on_line: Callable[[str], None],
    *,
    stopped: threading.Event | None = None,
    more_environment: Mapping[str, str] | None = None,
) -> Outcome:
    """Run ``dvc repro -s`` for one stage, and end every process that it started, however this ends.

    Args:
        root: The DVC project's root.
        name: The stage, as `pipelines.graph.Stage.name` has it.
        on_line: Gets each line of stdout and stderr, in their order, as it comes (see `lines_of`).
        stopped: As in `run_dvc`.
        more_environment: Of the stage's command, beside this process's.

    Raises:
        StageError: The stage's command or DVC failed, or it was stopped.
    """
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    outcome = Outcome.RAN

    def told(line: str) -> None:
        nonlocal outcome
        on_line(line)
        tail.append(line)
        outcome = told_outcome(line, name) or outcome

    repro = ["--wait-for-lock", "repro", "--single-item", name]
    code = run_dvc(root, repro, told, stopped=stopped, more_environment=more_environment)
    if code:  # dvc's own, 255 for any failure; the command's is in the last line
        raise StageError(name, code, tuple(tail))
    return outcome


def run_dvc(
    root: Path,
    arguments: Sequence[str],
    on_line: Callable[[str], None],
    *,
    stopped: threading.Event | None = None,
    more_environment: Mapping[str, str] | None = None,
) -> int:
    """Run a DVC command that runs stages; return its exit code.

    Every process that it started is ended, however this ends, also when this process is killed. Ctrl-C and SIGTERM (as
    an exception) reach the wait for output in the main thread only; elsewhere `stopped` does.

    Args:
        root: The DVC project's root.
        arguments: As after ``dvc``.
        on_line: Gets each line of stdout and stderr, in their order, as it comes, but for DVC's hints.
        stopped: Ends the command when it is set.
        more_environment: Of the command, beside this process's.
    """
    lifeline = lifeline_of_this_process()
    environment = {**stage_environment(os.environ), **(more_environment or {})}
    process = subprocess.Popen(
        [sys.executable, "-P", os.fspath(DVC_COMMAND), *arguments],
        cwd=root,
        env={**environment, FLOW_ROOT: os.fspath(root.resolve()), LIFELINE: str(lifeline)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # a kill of dvc alone would leave the stage's command running
        pass_fds=(lifeline,),
    )
    try:
        for line in lines_of(_chunks(process, stopped or threading.Event())):
            if not HINTS.match(line):
                on_line(line)
        if stopped is None or not stopped.is_set():
            return process.wait()
    finally:
        end_group(process)
    return process.wait() or -signal.SIGINT


@functools.cache
def lifeline_of_this_process() -> int:
    """Return the reading end of a pipe that nobody writes to: it is at its end when this process is gone."""
    reading, _writing = os.pipe()  # numbers, not objects: both stay open as long as this process lives
    return reading


def stage_environment(base: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a stage: ``python`` is this interpreter, and lines are not held back in a buffer.

    Where code is fetched from is not in it: the URL may hold a login, and a stage is whatever a pull request makes it.
    """
    here = os.fspath(Path(sys.executable).parent)
    path = os.pathsep.join(part for part in (here, base.get("PATH", "")) if part)
    base = {name: value for name, value in base.items() if name != REPOSITORY_VARIABLE}
    return {**base, "PATH": path, "PYTHONUNBUFFERED": "1", "DVC_NO_ANALYTICS": "1"}


def told_outcome(line: str, name: str) -> Outcome | None:
    """Read the line in which DVC says that a stage was not run. Source: dvc/stage/__init__.py, dvc/stage/cache.py.

    >>> told_outcome("Stage 'split' didn't change, skipping", "split").value
    'unchanged'
    >>> told_outcome("Stage 'split' is cached - skipping run, checking out outputs", "split").value
    'cached'
    >>> told_outcome("Running stage 'split':", "split")
    """
    return {
        f"'{name}' didn't change, skipping": Outcome.UNCHANGED,
        f"'{name}' is cached - skipping run, checking out outputs": Outcome.CACHED,
    }.get(line.removeprefix("Stage "))


def lines_of(chunks: Iterable[bytes], now: Callable[[], float] = time.monotonic) -> Iterator[str]:
    r"""Cut a stream of bytes into lines a log can hold: no blank ones, no colours, no redrawn progress.

    Of a line that is drawn over and over (``\r``, as progress bars do) its last state is given, and while it is
    being drawn one state every `PROGRESS_EVERY_S` seconds.

    Args:
        chunks: As they are read; a character or a line may be cut anywhere.
        now: Seconds, for the pace of progress.

    >>> list(lines_of([b"one\n\ntw", b"o\r\n\x1b[32m 10%\r 5", b"0%\r100%\nthree"], now=lambda: 0.0))
    ['one', 'two', ' 10%', '100%', 'three']
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest, told, told_at = "", "", float("-inf")
    for chunk in chunks:
        *whole, rest = (rest + decoder.decode(chunk)).split("\n")
        for line in whole:
            text = _last_drawn(line)
            if text and text != told:
                yield text
            told = ""
        if "\r" in rest:
            before, _, after = rest.rpartition("\r")
            drawn = _last_drawn(before)
            rest = f"{drawn}\r{after}"  # what was drawn over is not kept: a bar may be drawn for hours
            if drawn and drawn != told and now() - told_at >= PROGRESS_EVERY_S:
                told, told_at = drawn, now()
                yield drawn
    text = _last_drawn(rest + decoder.decode(b"", final=True))
    if text and text != told:
        yield text


def _last_drawn(line: str) -> str:
    """Return what a terminal would show of a line: what stands after its last carriage return, without escapes."""
    drawn = [part for part in ESCAPES.sub("", line).split("\r") if part.strip()]
    return drawn[-1].rstrip() if drawn else ""


def _chunks(process: subprocess.Popen[bytes], stopped: threading.Event) -> Iterator[bytes]:
    """Read until the process has ended and all it wrote is read, or until it shall stop.

    Who else holds the pipe open is not waited for.
    """
    assert process.stdout is not None
    with process.stdout as pipe, selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while not stopped.is_set():
            ended = process.poll() is not None
            if selector.select(0 if ended else 0.2):
                chunk = os.read(pipe.fileno(), 65536)
                if not chunk:
                    return
                yield chunk
            elif ended:
                return
