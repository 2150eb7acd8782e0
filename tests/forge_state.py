"""What a forge on loopback holds, and what it was asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

TOKEN = "tok_SECRET0123456789abcdef"  # of this server alone
OWNER, NAME = "team", "scales"
REPOSITORY = f"{OWNER}/{NAME}"
PROJECT = 7
FORK = 8


class RefusedError(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, message: Any = "", headers: dict[str, str] | None = None) -> None:
        super().__init__(status)
        self.status, self.message, self.headers = status, message, headers or {}


@dataclass
class Fault:
    """What a route does in place of its work, `times` times.

    Attributes:
        method: GET, POST...
        path: Pattern that is found in the path.
        times: How often it still does so.
        status: Answered; None: the connection is cut.
        headers: Of that answer.
        message: Of that answer.
        after: Whether the work is done first: the answer alone is lost.
        wait_s: Before the answer.
    """

    method: str
    path: str
    times: int = 1
    status: int | None = 500
    headers: dict[str, str] = field(default_factory=dict)
    message: str = "it is broken"
    after: bool = False
    wait_s: float = 0.0


@dataclass(frozen=True)
class Asked:
    """A request that came."""

    method: str
    path: str
    query: dict[str, str]
    body: Any


Route = tuple[str, str, Callable[..., tuple[int, Any]]]


class ForgeState:
    """State of both forges; `url` is where it listens."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[Asked] = []
        self.faults: list[Fault] = []
        self.login = "github-actions[bot]"
        self.may = {"comment", "contents", "status"}  # permissions of the token
        self.per_page_most = 100
        self.pulls: dict[int, dict[str, Any]] = {}
        self.comments: dict[int, list[dict[str, Any]]] = {}
        self.statuses: dict[str, list[dict[str, Any]]] = {}
        self.objects: dict[str, Any] = {}  # of git, by hash
        self.refs: dict[str, str] = {}
        self.uploads: dict[str, bytes] = {}
        self.files: dict[tuple[str, str], bytes] = {}  # by branch and path
        self.jobs: dict[int, list[dict[str, Any]]] = {}  # by pipeline
        self.artifacts: dict[tuple[int, str], bytes] = {}
        self.updates_in_progress = 0  # statuses that GitLab still refuses for that
        self.released = threading.Event()
        self.lock = threading.RLock()
        self._next = 100

    def fail(self, method: str, path: str, **values: Any) -> Fault:
        """Let a route fail."""
        fault = Fault(method, path, **values)
        self.faults.append(fault)
        return fault

    def add_pull(
        self, number: int, sha: str, *, base: str = "main", from_fork: bool = False, is_fork_gone: bool = False
    ) -> None:
        """Open a pull request."""
        self.pulls[number] = {
            "sha": sha, "base": base, "from_fork": from_fork, "gone": is_fork_gone, "state": "open",
            "head_pipeline": None,
        }  # fmt: skip
        self.comments[number] = []

    def add_comment(self, number: int, login: str, body: str) -> dict[str, Any]:
        """Put a comment of somebody on a pull request."""
        self._next += 1
        made = {"id": self._next, "login": login, "body": body}
        self.comments[number].append(made)
        return made

    def add_report(
        self, number: int, files: dict[str, bytes], *, status: str = "success", merged_sha: str | None = None
    ) -> None:
        """End the pipeline of a merge request with a report, or with none where there is no file.

        Args:
            number: Of the merge request.
            files: Name -> bytes.
            status: Of the job and its pipeline.
            merged_sha: Of a pipeline of merged results: its commit.
        """
        self._next += 2
        pipeline, job = self._next, self._next - 1
        pull = self.pulls[number]
        pull["head_pipeline"] = {
            "id": pipeline, "project_id": FORK if pull["from_fork"] else PROJECT, "sha": merged_sha or pull["sha"],
            "ref": f"refs/merge-requests/{number}/{'merge' if merged_sha else 'head'}", "status": status,
            "web_url": f"{self.url}/pipelines/{pipeline}",
        }  # fmt: skip
        self.jobs[pipeline] = [
            {"id": job, "name": "pull-request", "status": status, "web_url": f"{self.url}/jobs/{job}",
             "artifacts_file": {"filename": "artifacts.zip", "size": 1} if files else None},
        ]  # fmt: skip
        self.artifacts.update({(job, f"report/{name}"): data for name, data in files.items()})

    def writes(self) -> list[Asked]:
        """Return the requests that change something."""
        return [one for one in self.asked if one.method != "GET" and not one.path.endswith("graphql")]

    def pictures(self, commit: str) -> dict[str, bytes]:
        """Return the files of a commit, by path."""
        return dict(self._files(self.objects[self.objects[commit]["tree"]], ""))

    def _files(self, tree: list[dict[str, Any]], before: str) -> Iterator[tuple[str, bytes]]:
        for entry in tree:
            if entry["type"] == "tree":
                yield from self._files(self.objects[entry["sha"]], f"{before}{entry['path']}/")
            else:
                yield before + entry["path"], self.objects[entry["sha"]]

    def known(self, where: Any, key: Any) -> Any:
        if key not in where:
            raise RefusedError(404, "Not Found")
        return where[key]

    def allowed(self, permission: str) -> None:
        if permission not in self.may:
            raise RefusedError(403, "Resource not accessible by integration")

    def find_comment(self, key: int) -> dict[str, Any]:
        for comments in self.comments.values():
            for comment in comments:
                if comment["id"] == key:
                    return comment
        raise RefusedError(404, "Not Found")

    def delete_comment(self, key: int, asked: Asked) -> tuple[int, Any]:
        comment = self.find_comment(key)
        for comments in self.comments.values():
            if comment in comments:
                comments.remove(comment)
        return 204, None
