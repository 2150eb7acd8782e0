"""GitLab, through python-gitlab. The verbs are those of `pipelines.forge`.

Pictures: an upload to the project gives a relative URL, which a comment of that project shows to its members.

Source: https://docs.gitlab.com/api/project_markdown_uploads/, https://docs.gitlab.com/api/notes/,
https://docs.gitlab.com/api/commits/#commit-status
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import gitlab
import requests
from gitlab.exceptions import GitlabError

from pipelines.forge import CONTEXT, Address, Comment, Pull, Status, is_ours
from pipelines.forge_answers import Answer

if TYPE_CHECKING:
    from gitlab.v4.objects import Project, ProjectMergeRequest

TITLE = "GitLab"
FAULTS = (GitlabError, requests.RequestException)
_API = "the scope `api`, of a project access token with the role Reporter or higher"
NEEDS = {
    "pull": _API,
    "pulls_of": _API,
    "file": "the scope `read_repository` or `api`, and the role Reporter or higher",
    "own_comments": _API,
    "put_comment": _API,
    "upload_pictures": _API,
    "set_status": "the scope `api`, and the role Developer or higher",
    "open_pulls": _API,
    "report_job": "the scope `read_api`, and a project (the fork, of a fork's merge request) whose jobs it may see",
    "artifact": "the scope `read_api`, and a project (the fork, of a fork's) whose artifacts it may see",
}
# "If an update is already in progress, 409: retry the request": https://docs.gitlab.com/api/commits/#commit-status
AGAIN: dict[str, tuple[int, ...]] = {"set_status": (409,)}
MOST_DESCRIPTION = 255  # characters of a status
STATES = {"success": "success", "failure": "failed", "error": "failed", "pending": "pending"}
ENDED = ("success", "failed")


class _Gitlab(gitlab.Gitlab):
    """A client that asks once: the retries are ours, and the library's wait as long as a server says."""

    def http_request(self, *arguments: Any, **options: Any) -> requests.Response:
        return super().http_request(*arguments, **{**options, "max_retries": 0, "obey_rate_limit": False})


@dataclass(frozen=True)
class Client:
    """A client of one project; `last_headers` are those of the last answer, which the library's errors leave out."""

    gitlab: gitlab.Gitlab
    project: Project
    web_url: str
    last_headers: dict[str, str] = field(default_factory=dict)


def connect(address: Address, timeout_s: int) -> Client:
    """Make the client."""
    last_headers: dict[str, str] = {}

    def remember(response: requests.Response, **_: Any) -> None:
        last_headers.clear()
        last_headers.update({name.lower(): value for name, value in response.headers.items()})

    session = requests.Session()
    session.hooks["response"].append(remember)
    # As a bearer's token, which requests drops where it is sent on to another host, such as a store of artifacts.
    client = _Gitlab(
        address.api_url.rstrip("/").removesuffix("/api/v4"),
        oauth_token=address.token,
        timeout=timeout_s,
        session=session,
        per_page=100,
        keep_base_url=True,
    )
    project = client.projects.get(address.repository, lazy=True)
    return Client(client, project, address.web_url.rstrip("/"), last_headers)


def answer_of(client: Client, error: Exception) -> Answer:
    """Say what an exception of the library means."""
    if isinstance(error, GitlabError):
        return Answer(error.response_code, _said(error.error_message), dict(client.last_headers))
    return Answer(None, type(error).__name__)


def _said(message: object) -> str:
    """Flatten what the forge says: text, or a mapping of a field to its faults."""
    if isinstance(message, dict):
        return "; ".join(f"{name} {_said(faults)}" for name, faults in message.items())
    if isinstance(message, list):
        return ", ".join(map(str, message))
    return str(message or "")


def pull(client: Client, number: int) -> Pull:
    """Read a merge request."""
    return _pull(client.project.mergerequests.get(number))


def pulls_of(client: Client, sha: str) -> list[Pull]:
    """Find the open merge requests with that head commit."""
    return [_pull(one) for one in _open(client) if one.sha == sha]


def open_pulls(client: Client) -> list[Pull]:
    """List the open merge requests, of own branches and of forks."""
    return [_pull(one) for one in _open(client)]


def _open(client: Client) -> Any:
    return client.project.mergerequests.list(state="opened", iterator=True)


def _pull(found: ProjectMergeRequest | Any) -> Pull:
    is_fork = found.source_project_id != found.target_project_id
    return Pull(
        found.iid,
        found.sha or "",
        found.target_branch,
        is_fork,
        head_repository=str(found.source_project_id or ""),  # None: the fork is gone
        head_branch=found.source_branch,
    )


def file(client: Client, branch: str, path: str) -> bytes:
    """Read a file of a branch."""
    data = client.project.files.raw(path, ref=f"refs/heads/{branch}")  # of that name there may be a tag, too
    assert isinstance(data, bytes)
    return data


def own_comments(client: Client, number: int) -> list[Comment]:
    """Find our notes on a merge request, oldest first."""
    if client.gitlab.user is None:
        client.gitlab.auth()
    assert client.gitlab.user is not None
    request = client.project.mergerequests.get(number, lazy=True)
    return [
        Comment(note.id, note.body, "")
        for note in request.notes.list(iterator=True, order_by="created_at", sort="asc")
        if note.author["id"] == client.gitlab.user.id and is_ours(note.body)
    ]


def create_comment(client: Client, number: int, body: str) -> Comment:
    """Write a new note."""
    note = client.project.mergerequests.get(number, lazy=True).notes.create({"body": without_quick_actions(body)})
    return Comment(note.id, body, "")


def edit_comment(client: Client, number: int, key: int, body: str) -> Comment:
    """Put another text into a note."""
    client.project.mergerequests.get(number, lazy=True).notes.update(key, {"body": without_quick_actions(body)})
    return Comment(key, body, "")


def delete_comment(client: Client, number: int, key: int) -> None:
    """Remove a note."""
    client.project.mergerequests.get(number, lazy=True).notes.delete(key)


def without_quick_actions(body: str) -> str:
    r"""Put a backslash before a slash that begins a line: ``/merge`` would be done, in the poster's name.

    Source: https://docs.gitlab.com/user/project/quick_actions/

    >>> without_quick_actions("a /b\n  /merge")
    'a /b\n  \\/merge'
    """
    return re.sub(r"^(\s*)/", r"\1\\/", body, flags=re.MULTILINE)


def set_status(client: Client, pull: Pull, status: Status) -> None:
    """Set the status of its head commit, if it has another: each one that is written is a new row of it."""
    values = {"state": STATES[status.state], "name": CONTEXT, "description": status.description[:MOST_DESCRIPTION]}
    if status.target_url:
        values["target_url"] = status.target_url
    statuses = client.project.commits.get(pull.head_sha, lazy=True).statuses
    stands = max(statuses.list(iterator=True, name=CONTEXT), key=lambda one: int(one.id), default=None)
    if stands is None or not _has(stands.attributes, values):
        statuses.create(values)


def _has(stands: Mapping[str, Any], values: Mapping[str, str]) -> bool:
    told = {"state": stands.get("status"), **{name: stands.get(name) for name in ("description", "target_url")}}
    return all(told[name] == values.get(name) for name in ("state", "description")) and (
        (told["target_url"] or "") == values.get("target_url", "")
    )


def upload_pictures(client: Client, _: int, pictures: Mapping[str, bytes], written: str) -> dict[str, str]:
    """Upload the pictures that the standing comment does not show already: a name holds the hash of its bytes.

    Returns:
        Stem -> URL, relative to the project.
    """
    urls = {}
    for stem, data in pictures.items():
        name = f"{stem}-{hashlib.sha256(data).hexdigest()[:16]}.png"
        stands = re.search(rf"/uploads/[0-9a-f]{{32}}/{re.escape(name)}", written)
        urls[stem] = stands[0] if stands else str(client.project.upload(name, filedata=data)["url"])
    return urls


@dataclass(frozen=True)
class ReportJob:
    """What ended without a report (`key` is None), or a job whose artifact may be one.

    `project` is the fork, of a fork's merge request; `url` is of the job, or of the pipeline that has none.
    """

    project: int
    key: int | None
    url: str


def report_job(client: Client, number: int, sha: str, name: str) -> ReportJob | None:
    """Find the ended job of that name in the pipeline of a merge request's head; None: it has not ended, or long ago.

    The pipeline of a fork's merge request is one of the fork. One of merged results has a commit of its own, by which
    the head is not known: the report says its commit, and the poster holds it against the head.
    """
    pipeline = client.project.mergerequests.get(number).attributes.get("head_pipeline") or {}
    if not pipeline or (pipeline.get("sha") != sha and not str(pipeline.get("ref")).endswith("/merge")):
        return None
    project = client.gitlab.projects.get(pipeline["project_id"], lazy=True)
    for job in project.pipelines.get(pipeline["id"], lazy=True).jobs.list(iterator=True):
        if job.name == name:
            return _ended_job(pipeline["project_id"], job.attributes)
    # A pipeline whose file is no YAML has failed, and has no job at all.
    is_ended = pipeline.get("status") in ENDED
    return ReportJob(pipeline["project_id"], None, str(pipeline.get("web_url") or "")) if is_ended else None


def _ended_job(project: int, job: Mapping[str, Any]) -> ReportJob | None:
    if job["status"] not in ENDED or job.get("erased_at") or _is_past(job.get("artifacts_expire_at")):
        return None  # what it left was posted while it was there
    return ReportJob(project, job["id"] if job.get("artifacts_file") else None, job["web_url"])


def _is_past(time: str | None) -> bool:
    return bool(time) and datetime.fromisoformat(str(time)) < datetime.now(UTC)


def artifact(client: Client, job: ReportJob, path: str, most_bytes: int) -> bytes | None:
    """Read one file of a job's artifacts, which the server unpacks; None where it is larger than it may be."""
    assert job.key is not None, "it has no artifacts"
    found = client.gitlab.projects.get(job.project, lazy=True).jobs.get(job.key, lazy=True)
    data = bytearray()
    for chunk in found.artifact(path, iterator=True, streamed=True, chunk_size=65_536):
        data += chunk
        if len(data) > most_bytes:
            return None
    return bytes(data)
