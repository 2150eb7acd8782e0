"""A step of `pipelines.dvc_transfer` as a process that can be ended, tried again while the remote refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.dvc_command import LIFELINE
from pipelines.process_group import end_group
from pipelines.run_stage import lifeline_of_this_process, stage_environment
from plumbline.errors import PlumblineError

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
POLL_S = 0.1
END_WITH = ((15, 2.0), (9, 2.0))  # it has nothing to put right


class TransferError(PlumblineError):
    """Data cannot be brought to or from the DVC remote.

    Attributes:
        unusable: Hashes of the objects that the remote lacks or has damaged.
    """

    def __init__(self, message: str, unusable: tuple[str, ...] = ()) -> None:
        self.unusable = unusable
        super().__init__(message)


class Stopped(PlumblineError):  # noqa: N818 - no error: somebody wanted it
    """The step was ended because it shall stop."""


@dataclass(frozen=True)
class Transfer:
    """Steps for one stage.

    Attributes:
        root: The DVC project's root.
        stage: As DVC addresses it there.
        remote: Name of the DVC remote; "" for the default one.
        retry_s: For how long a step is tried again.
        on_line: Is told what is waited for.
        stopped: Ends the step when it is set.
    """

    root: Path
    stage: str
    remote: str
    retry_s: float
    on_line: Callable[[str], None]
    stopped: threading.Event

    def step(self, name: str, **request: Any) -> dict[str, Any]:
        """Do a step of `pipelines.dvc_transfer`; return its answer.

        Raises:
            TransferError: It cannot be done, or not within `retry_s`.
            Stopped: It shall stop.
        """
        whole = {"stage": self.stage, "remote": self.remote, **request}
        for pause_s in pauses(self.retry_s):
            answer = self._once(name, whole)
            if "error" not in answer:
                return answer
            if answer["lasting"] or pause_s is None:
                break
            self.on_line(f"{name}: {answer['error']}; tried again in {pause_s:.0f} s")
            if self.stopped.wait(pause_s):
                raise Stopped(f"stage {self.stage!r}: stopped")
        unusable = tuple(answer.get("unusable", ()))
        hint = "" if answer["lasting"] else f"; tried for {self.retry_s:.0f} s (flow.remote_retry_s): is the remote up?"
        raise TransferError(f"{answer['error']}{hint}", unusable)

    def _once(self, name: str, request: dict[str, Any]) -> dict[str, Any]:
        lifeline = lifeline_of_this_process()
        with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as answers, tempfile.TemporaryFile() as told:
            asked.write(json.dumps(request).encode())
            asked.seek(0)
            process = subprocess.Popen(
                # -P: the code is ours, not that of the clone we are in.
                [sys.executable, "-P", "-m", "pipelines.dvc_transfer", name],
                cwd=self.root,
                env={**stage_environment(os.environ), LIFELINE: str(lifeline)},
                stdin=asked,
                stdout=answers,
                stderr=told,
                start_new_session=True,
                pass_fds=(lifeline,),
            )
            try:
                while process.poll() is None:
                    if self.stopped.is_set():
                        raise Stopped(f"stage {self.stage!r}: stopped")
                    time.sleep(POLL_S)
            finally:
                end_group(process, END_WITH)
            answers.seek(0)
            if text := answers.read():
                return json.loads(text)
            told.seek(0)
            last = (told.read().decode(errors="replace").strip() or "no output").splitlines()[-1]
            return {"error": f"{name} ended with {process.returncode}: {last}", "lasting": process.returncode > 0}


def pauses(for_s: float, now: Callable[[], float] = time.monotonic) -> Iterator[float | None]:
    """Give how long to wait after each failure, longer each time; None after the last try.

    Args:
        for_s: No try is begun later than this.
        now: Seconds.

    >>> clock = iter([0.0, 0.0, 4.0, 9.0, 16.0])
    >>> list(pauses(15.0, now=lambda: next(clock)))
    [1.0, 2.0, 4.0, None]
    """
    until = now() + for_s
    pause_s = FIRST_PAUSE_S
    while now() + pause_s <= until:
        yield pause_s
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
    yield None
