"""Look at what ``dataset.source`` names, again and again, and tell Prefect when it has changed.

The event has the name `EVENT`; prefect.yaml's deployment `retrain` has a trigger that turns it into a run. Which
repository and which branch are looked at are that deployment's parameters. What was seen is kept in a file: after a
restart nothing is told twice, and what came in the meantime is told. ``make server`` starts this beside the worker.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipelines.clones import default_home
from pipelines.mirror import Mirror
from plumbline.errors import DatasetError, PlumblineError
from plumbline.files import write_json
from plumbline.sources import folder, s3
from stages.shape import PARAMS_FILE

EVENT = "plumbline.data.changed"
RESOURCE = "plumbline.data"
DEPLOYMENT = "retrain/retrain"
EVERY_S = 60.0
# An event that no run has come of by then is sent again: a server that is killed forgets what it was about to do.
AGAIN_AFTER_S = 120.0
RUNS_LOOKED_AT = 200  # newest ones, for the run of an event


class WatchError(PlumblineError):
    """What dataset.source names cannot be looked at."""


@dataclass(frozen=True)
class Sight:
    """What one look found.

    Attributes:
        source: As ``dataset.source`` has it.
        fingerprint: Differs when a file is added, removed or changed.
        words: For people.
    """

    source: str
    fingerprint: str
    words: str

    def __str__(self) -> str:
        return f"{self.source}: {self.words} ({self.fingerprint})"


@dataclass(frozen=True)
class Memory:
    """What is kept from look to look.

    Attributes:
        known: Fingerprint of what a run was started for, or of the very first look.
        last: That of the last look.
        told: That of an event whose run has not been seen yet, or "".
        told_at: When it was sent, seconds since 1970.
    """

    known: str = ""
    last: str = ""
    told: str = ""
    told_at: float = 0.0

    def after(self, sight: Sight, run_is_known: bool, now: float) -> tuple[Memory, bool]:
        """Return what is kept after a look, and whether to tell of it.

        Args:
            sight: What was found.
            run_is_known: Whether there is a run of the event that was `told`.
            now: Seconds since 1970.

        >>> first, news = Memory().after(Sight("photos", "a", ""), False, 0.0)
        >>> news  # where it begins is no news
        False
        >>> second, news = first.after(Sight("photos", "b", ""), False, 60.0)
        >>> news  # it may still be being copied
        False
        >>> second.after(Sight("photos", "b", ""), False, 120.0)[1]
        True
        """
        found = sight.fingerprint
        if not self.known:
            return Memory(known=found, last=found), False
        kept = dataclasses.replace(self, last=found)
        if kept.told and run_is_known:
            kept = dataclasses.replace(kept, known=kept.told, told="")
        if found == kept.known or found != self.last:
            return kept, False
        if found == kept.told and now - kept.told_at < AGAIN_AFTER_S:
            return kept, False
        return dataclasses.replace(kept, told=found, told_at=now), True


def look(home: Path, repository: str, revision: str) -> Sight:
    """Look at what ``dataset.source`` in params.yaml of a branch's newest commit names.

    Raises:
        PlumblineError: The repository cannot be read, or nothing that can be looked at is named.
    """
    mirror = Mirror.of(home, repository)
    commit = mirror.fetched(revision)
    source = _source(mirror.read(commit, str(PARAMS_FILE)), f"{revision}:{PARAMS_FILE}")
    if s3.takes(source) or Path(source).is_absolute():
        stamps = list(_stamps(source))
        if not stamps:  # such as a disk that is not mounted
            raise WatchError(f"{source}: holds no file now; nothing is told until it does")
        digest = hashlib.sha256("\n".join([source, *stamps]).encode("utf-8", "surrogateescape")).hexdigest()
        return Sight(source, digest[:16], f"{len(stamps)} files" if len(stamps) != 1 else "1 file")
    for name in _tracked_as(source):
        if found := mirror.object_at(commit, name):
            digest = hashlib.sha256(f"{source}\n{found}".encode()).hexdigest()
            return Sight(source, digest[:16], f"at {commit[:12]}")
    hint = "expected an absolute path, s3://..., or what git or DVC tracks; change dataset.source"
    raise WatchError(f"{revision}:{PARAMS_FILE}: {source} is not in commit {commit[:12]}, {hint}")


def _source(params: str, where: str) -> str:
    try:
        return str(YAML(typ="safe").load(params)["dataset"]["source"])
    except (YAMLError, KeyError, TypeError) as error:
        raise WatchError(f"{where}: no dataset.source, expected one; there is nothing to watch") from error


def _stamps(source: str) -> Iterator[str]:
    """Give name, size and time (or ETag) of every file."""
    path = Path(source)
    try:
        if path.is_file():  # an archive, a video
            yield f"{path.stat().st_size}:{path.stat().st_mtime_ns}"
            return
        if not s3.takes(source) and not path.is_dir():
            raise WatchError(f"{source}: there is nothing now; nothing is told until there is")
        files = s3.open_source(source) if s3.takes(source) else folder.open_source(source)
        for name, size in files.files().items():
            yield f"{name}\t{size}\t{files.stamp(name)}"
    except FileNotFoundError as error:
        raise WatchError(f"{source}: changes while it is looked at ({error.filename} has gone)") from error
    except (DatasetError, OSError) as error:
        raise WatchError(f"{source}: cannot be looked at: {error}") from error


def _tracked_as(source: str) -> Iterator[str]:
    """Give what may stand for a path in git: itself, or the .dvc file that tracks it or a folder around it.

    >>> list(_tracked_as("./data/photos/"))
    ['data/photos', 'data/photos.dvc', 'data.dvc']
    """
    path = PurePosixPath(source)
    yield str(path)
    for each in (path, *path.parents):
        if each.name:
            yield f"{each}.dvc"


class Watch:
    """One watched deployment.

    Args:
        home: Where mirrors are, and the file of what was seen.
    """

    def __init__(self, home: Path) -> None:
        from prefect.client.orchestration import get_client

        self.home = home
        self.client = get_client(sync_client=True)

    def step(self) -> str:
        """Look once, and tell Prefect if there is news; return a line for the log, or "".

        Raises:
            PlumblineError: What is watched cannot be read.
            Exception: The server does not answer.
        """
        parameters = self.client.read_deployment_by_name(DEPLOYMENT).parameters or {}
        repository, revision = str(parameters["repository"]), str(parameters.get("revision", "main"))
        sight = look(self.home, repository, revision)
        path = self._path(repository, revision)
        before = read_memory(path)
        after, news = before.after(sight, bool(before.told) and self._has_run(before.told), time.time())
        if after != before:
            write_json(path, dataclasses.asdict(after))  # before it is told: a restart then sees that it was
        if news:
            self._tell(sight, after)
            return f"new data, told Prefect: {sight}"
        return "" if before.known else f"watching {sight}"

    def _path(self, repository: str, revision: str) -> Path:
        name = hashlib.sha256(f"{repository}\n{revision}".encode()).hexdigest()[:12]
        return self.home / "watch" / f"{name}.json"

    def _has_run(self, fingerprint: str) -> bool:
        from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName
        from prefect.client.schemas.sorting import FlowRunSort

        runs = self.client.read_flow_runs(
            deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=[DEPLOYMENT.partition("/")[2]])),
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
            limit=RUNS_LOOKED_AT,
        )
        return any(f"({fingerprint})" in str((run.parameters or {}).get("seen", "")) for run in runs)

    def _tell(self, sight: Sight, memory: Memory) -> None:
        event: dict[str, Any] = {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{EVENT}/{sight.fingerprint}/{memory.told_at}")),
            "occurred": datetime.now(UTC).isoformat(),
            "event": EVENT,
            "resource": {"prefect.resource.id": RESOURCE, "prefect.resource.name": sight.source},
            "payload": {"seen": str(sight), "source": sight.source},
        }
        # Not Prefect's `emit_event`, which sends in the background and forgets what a dead server did not take.
        self.client.request("POST", "/events", json=[event]).raise_for_status()


def read_memory(path: Path) -> Memory:
    """Read what is kept; where there is nothing that can be read, everything begins anew."""
    try:
        return Memory(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return Memory()


def main(argv: Sequence[str] | None = None) -> int:
    """Watch until interrupted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--every", type=float, default=EVERY_S, metavar="SECONDS", help="between looks (default: 60)")
    arguments = parser.parse_args(argv)
    watch, said = Watch(default_home()), ""
    try:
        while True:
            try:
                line = watch.step()
            except PlumblineError as error:
                line = str(error)
            except Exception as error:  # a server that restarts, a network that is away
                line = f"Prefect does not answer ({type(error).__name__}: {error}); tried again"
            if line and line != said:
                print(f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S} {line}", flush=True)  # noqa: T201
            said = line or said
            time.sleep(arguments.every)
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
