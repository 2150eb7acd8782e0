"""Reading what can only be read forward (a compressed archive, a video) in nearly any order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class ForwardReader(Protocol):
    """Something that stands at a position of one stream, and goes only on."""

    @property
    def position(self) -> int:
        """Return what comes next: a byte or a frame."""

    def close(self) -> None:
        """Let go of the file."""


R = TypeVar("R", bound=ForwardReader)


class ForwardReaders(Generic[R]):
    """The few readers last used, each where it stopped.

    Threads that read in order do so only nearly: with one reader, the one that comes second would send it back to the
    start each time. A reader that stayed behind serves it instead.
    """

    def __init__(self, start: Callable[[str], R], limit: int = 3) -> None:
        self._start = start
        self._limit = limit
        self._readers: list[tuple[str, R]] = []

    def take(self, key: str, position: int) -> R:
        """Return the reader of stream `key` that is nearest before a position; a new one where all are past it.

        It is the caller's until `give` is called; one that fails is not given back.
        """
        usable = [entry for entry in self._readers if entry[0] == key and entry[1].position <= position]
        if not usable:
            return self._start(key)
        best = max(usable, key=lambda entry: entry[1].position)
        self._readers.remove(best)
        return best[1]

    def give(self, key: str, reader: R) -> None:
        """Keep a reader for the next time; the one that was not used for longest goes."""
        self._readers.append((key, reader))
        if len(self._readers) > self._limit:
            self._readers.pop(0)[1].close()
