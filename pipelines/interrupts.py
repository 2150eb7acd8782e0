"""How a command of this room ends: in order, also when it is interrupted, with its last word on a line of its own."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from plumbline.errors import PlumblineError


def exit_on_sigterm() -> None:
    """Let SIGTERM arrive as an exception, as Ctrl-C does, so that what was started is ended."""
    signal.signal(signal.SIGTERM, _exit)


def last_word(work: Callable[[], tuple[int, str]], interrupted: str) -> int:
    """Do a command's work and print its last line, on stderr where it did not succeed.

    Args:
        work: Gives the exit code and the last line.
        interrupted: The last line after Ctrl-C or SIGTERM.

    Returns:
        What `work` gave; 1 for a fault that the user can mend; 130 or 143 when interrupted.
    """
    exit_on_sigterm()
    try:
        code, last = work()
    except PlumblineError as error:
        code, last = 1, f"error: {error}"
    except (KeyboardInterrupt, SystemExit) as error:
        code = error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 128 + signal.SIGINT
        last = interrupted
    sys.stdout.flush()
    print(last, file=sys.stderr if code else sys.stdout, flush=True)
    return code


def _exit(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
