"""This machine, as the flows of a server and the stages of workers on it share it: the stages of one at a time.

Nothing runs beside what is measured, and no GPU is two stages'. A flow has the machine while stages of its own run on
it, and not while it waits for those that run elsewhere: a worker on this same machine may have them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from itertools import islice
from pathlib import Path

from pipelines.file_lock import locked

LOCK = "machine.lock"  # in the home
LOOK_EVERY_S = 1.0


class Machine:
    """The machine's lock, for one flow or one stage of a worker.

    Args:
        home: Of all that share the machine; see `pipelines.clones.default_home`.
        tell: Is told in words what is waited for, once each time.
        look: Called while it is waited; an exception ends that.
        beside: Whether others that say so too may have the machine at the same time.
    """

    def __init__(self, home: Path, tell: Callable[[str], None], look: Callable[[], None], beside: bool = False) -> None:
        self.home, self.tell, self.look, self.beside = home, tell, look, beside
        self._held: ExitStack | None = None
        self._has_told = False

    def take(self, *, wait: bool) -> bool:
        """Have the machine until it is given back, if need be after others; say whether we have it."""
        self.home.mkdir(parents=True, exist_ok=True)
        while self._held is None:
            with ExitStack() as stack, suppress(BlockingIOError):
                stack.enter_context(locked(self.home / LOCK, wait=False, shared=self.beside))
                self._held = stack.pop_all()
                self._has_told = False
                break
            self._say(f"waiting for a stage of another run on this machine to end ({self.home / LOCK})")
            if not wait:
                return False
            self._pause()
        return True

    def give_back(self) -> None:
        """Let others have it; nothing where we do not have it."""
        held, self._held = self._held, None
        if held is not None:
            held.close()

    @contextmanager
    def gpus(self, names: tuple[str, ...], number: int) -> Iterator[tuple[str, ...]]:
        """Give so many of the GPUs that nobody else on this machine has been given, waiting until there are.

        Args:
            names: Of all that are here.
            number: At most as many.
        """
        while True:
            with ExitStack() as stack:
                own = tuple(islice((name for name in names if self._lock_gpu(stack, name)), number))
                if len(own) == number:
                    yield own
                    return
            self._say(f"waiting for {number} of the GPUs {', '.join(names)} of this machine")
            self._pause()

    def _lock_gpu(self, stack: ExitStack, name: str) -> bool:
        with suppress(BlockingIOError):
            path = self.home / f"gpu-{re.sub(r'[^A-Za-z0-9-]', '_', name)}.lock"
            stack.enter_context(locked(path, wait=False))
            return True
        return False

    def _say(self, text: str) -> None:
        if not self._has_told:
            self._has_told = True
            self.tell(text)

    def _pause(self) -> None:
        time.sleep(LOOK_EVERY_S)
        self.look()


_SHARED: ContextVar[Machine | None] = ContextVar("shared machine", default=None)


@contextmanager
def sharing(machine: Machine) -> Iterator[Machine]:
    """Let the flow that runs inside have the machine while stages of its own run here (`pipelines.resources`)."""
    token = _SHARED.set(machine)
    try:
        yield machine
    finally:
        _SHARED.reset(token)
        machine.give_back()


def shared_machine() -> Machine | None:
    """Return the machine as the flow of now shares it; None for one that somebody has started by hand."""
    return _SHARED.get()
