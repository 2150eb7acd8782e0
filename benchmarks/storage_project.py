"""A DVC project with one stage and nothing of this machine's, and what each of its commands costs."""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from counting_store import CREDENTIALS, CountingStore

# The stage's files are written by the benchmark; `dvc commit` then does what `dvc repro` does after a stage's command.
GRAPH = "stages:\n  ingest:\n    cmd: 'true'\n    outs: [data]\n"
CONFIG = """[core]
    analytics = false
    check_update = false
    no_scm = true
    remote = store
[cache]
    type = "{cache_type}"
['remote "store"']
    url = s3://{bucket}
    endpointurl = {endpoint}
"""
# Cost of one step: seconds and, where it spoke to the store, requests and bytes.
Cost = dict[str, Any]


class Project:
    """One machine's clone: its own cache, and its own state of what was hashed.

    Args:
        root: Its folder, made here.
        store: Where it pushes to; None for nowhere.
        bucket: In the store.
        cache_type: DVC's `cache.type`; its default is ``reflink,copy``.
    """

    def __init__(
        self, root: Path, store: CountingStore | None = None, bucket: str = "", cache_type: str = "reflink,copy"
    ) -> None:
        self.root, self.data, self._store = root, root / "data", store
        self._cache_type = cache_type
        (root / ".dvc").mkdir(parents=True)
        (root / "dvc.yaml").write_text(GRAPH, encoding="utf-8")
        self.point_to(bucket)
        self._environment = {
            **os.environ, **CREDENTIALS, "DVC_SITE_CACHE_DIR": str(root / "site"), "DVC_NO_ANALYTICS": "1",
        }  # fmt: skip
        self._environment.pop("AWS_PROFILE", None)

    def point_to(self, bucket: str) -> None:
        """Push to another bucket from now on."""
        endpoint = self._store.url if self._store else "http://127.0.0.1:9"
        text = CONFIG.format(cache_type=self._cache_type, bucket=bucket or "none", endpoint=endpoint)
        (self.root / ".dvc" / "config").write_text(text, encoding="utf-8")

    def take_lock_of(self, other: Project) -> None:
        """Stand at the other clone's commit."""
        shutil.copyfile(other.root / "dvc.lock", self.root / "dvc.lock")

    def dvc(self, *arguments: str) -> Cost:
        """Run a command of DVC's.

        Raises:
            SystemExit: It failed; with its last lines.
        """
        store = self._store
        if store:
            store.counts()
        store_before, before = store.cpu_s() if store else 0.0, _children_cpu_s()
        started = time.perf_counter()
        command = [sys.executable, "-m", "dvc", *arguments]
        done = subprocess.run(
            command, cwd=self.root, env=self._environment, capture_output=True, text=True, check=False
        )
        cost: Cost = {"wall_s": time.perf_counter() - started, "cpu_s": _children_cpu_s() - before}
        if done.returncode:
            raise SystemExit(f"error: dvc {' '.join(arguments)} in {self.root}: {(done.stdout + done.stderr)[-800:]}")
        if store and (counts := store.counts()):
            cost["store_cpu_s"] = store.cpu_s() - store_before
            cost["bytes_sent"], cost["bytes_received"] = counts.pop("bytes_in", 0), counts.pop("bytes_out", 0)
            cost["refused"] = counts.pop("refused", 0)
            cost["requests"] = dict(counts)
        return cost

    def forget_state(self) -> None:
        """Lose what DVC knows of the files' times and hashes, as a new machine has nothing of it."""
        shutil.rmtree(self.root / "site", ignore_errors=True)

    def lose_files(self) -> None:
        """Remove the workspace's files; the cache keeps them."""
        shutil.rmtree(self.data)

    def disk_bytes(self) -> dict[str, int]:
        """Return the disk space of the workspace's files, of the cache, and of both where links share it."""
        workspace, cache = _blocks(self.data), _blocks(self.root / ".dvc" / "cache")
        return {
            "workspace": sum(workspace.values()),
            "cache": sum(cache.values()),
            "both": sum((workspace | cache).values()),
        }

    def remove(self) -> None:
        """Remove the clone."""
        shutil.rmtree(self.root)


def timed(work: Callable[[], object]) -> Cost:
    """Return what something in this process costs."""
    cpu, started = time.process_time(), time.perf_counter()
    work()
    return {"wall_s": time.perf_counter() - started, "cpu_s": time.process_time() - cpu}


def _spread(values: Sequence[float]) -> list[float]:
    """Return median, lowest and highest."""
    return [round(value, 4) for value in (statistics.median(values), min(values), max(values))]


def summary(costs: Sequence[Cost]) -> dict[str, Any]:
    """Return the rounds of one step: each time's median, lowest and highest; counts are the same in all rounds."""
    timed_keys = tuple(key for key in costs[0] if key.endswith(("_s", "_ms_each")))
    times = {key: _spread([cost[key] for cost in costs]) for key in timed_keys}
    return times | {key: value for key, value in costs[-1].items() if key not in timed_keys}


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)  # of those that ended: the store runs on
    return usage.ru_utime + usage.ru_stime


def _blocks(folder: Path) -> dict[int, int]:
    """Return inode -> bytes on the disk of all files below a folder."""
    sizes = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            status = os.lstat(os.path.join(parent, name))  # noqa: PTH118 - 200,000 of them
            sizes[status.st_ino] = status.st_blocks * 512
    return sizes
