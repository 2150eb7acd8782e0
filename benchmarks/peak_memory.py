"""The most memory that this process, with or without its children, held while something ran."""

from __future__ import annotations

import threading
import time
from types import TracebackType

import psutil


class PeakMemory:
    """Samples the resident memory in a thread; pages that processes share are counted in each, so it is no less.

    Attributes:
        peak_bytes: The largest sum seen.
        seconds: How long the body took.
    """

    def __init__(self, *, children: bool, every_s: float = 0.02) -> None:
        self._children = children
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak_bytes = 0
        self.seconds = 0.0

    def __enter__(self) -> PeakMemory:
        self._begin = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.seconds = time.perf_counter() - self._begin
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        own = psutil.Process()
        while True:
            processes = [own, *(own.children(recursive=True) if self._children else [])]
            total = 0
            for process in processes:
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            self.peak_bytes = max(self.peak_bytes, total)
            if self._stop.wait(self._every_s):
                return
