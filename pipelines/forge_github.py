"""GitHub, through PyGithub. The verbs are those of `pipelines.forge`.

Pictures: GitHub documents no way to attach a file by its API. A picture in a comment of a private repository is shown
to who may read the repository where it is a file of that repository, linked as ``.../blob/<commit>/<path>?raw=true``.
So they are committed to one branch of their own, which shares no history with the code. It only grows: to prune it,
delete it (``git push origin --delete plumbline-pictures``), and the next report makes a new one. The comments that link
to commits of the old one lose their pictures, once GitHub drops these commits: of open pull requests until their next
report, of closed ones for good.

Source: https://docs.github.com/en/get-started/writing-on-github/getting-started-with-writing-and-formatting-on-github/basic-writing-and-formatting-syntax#images
and https://docs.github.com/en/rest/git
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

import requests
from github import Auth, Github, InputGitTreeElement
from github.GithubException import GithubException

from pipelines.forge import CONTEXT, Address, Comment, Pull, Status, is_ours
from pipelines.forge_answers import Answer

if TYPE_CHECKING:
    from github.GitCommit import GitCommit
    from github.GitRef import GitRef
    from github.PullRequest import PullRequest
    from github.Repository import Repository

TITLE = "GitHub"
FAULTS = (GithubException, requests.RequestException)
_READ = "the permission `pull-requests: read`"
_COMMENT = "the permission `pull-requests: write`"
NEEDS = {
    "pull": _READ,
    "pulls_of": _READ,
    "file": "the permission `contents: read`",
    "own_comments": _READ,
    "put_comment": _COMMENT,
    "upload_pictures": "the permission `contents: write`",
    "set_status": "the permission `statuses: write`",
}
AGAIN: dict[str, tuple[int, ...]] = {}
BRANCH = "plumbline-pictures"
MOST_DESCRIPTION = 140  # characters of a status
RACES = 5  # posters that may come between before one gives up


@dataclass(frozen=True)
class Client:
    """A client of one repository; `web_url` is of its pages."""

    github: Github
    repository: Repository
    web_url: str


def connect(address: Address, timeout_s: int) -> Client:
    """Make the client. Retries are ours alone: the library would send a comment again that has arrived."""
    github = Github(
        auth=Auth.Token(address.token),
        base_url=address.api_url,
        timeout=timeout_s,
        retry=None,
        seconds_between_requests=None,
        seconds_between_writes=None,
        per_page=100,
        lazy=True,  # no request for a thing on the way to another
    )
    repository = github.get_repo(address.repository)
    return Client(github, repository, f"{address.web_url.rstrip('/')}/{address.repository}")


def answer_of(_: Client, error: Exception) -> Answer:
    """Say what an exception of the library means."""
    if isinstance(error, GithubException):
        headers = {name.lower(): value for name, value in (error.headers or {}).items()}
        return Answer(error.status, _said(error.data), headers)
    return Answer(None, type(error).__name__)


def _said(data: object) -> str:
    """``message`` of an answer, and what its ``errors`` add."""
    if not isinstance(data, dict):
        return str(data or "")
    parts = [str(data.get("message") or data.get("data") or "")]
    for fault in data.get("errors") or ():
        parts.append(str(fault.get("message") or fault.get("code") or "") if isinstance(fault, dict) else str(fault))
    return ": ".join(part for part in parts if part)


def pull(client: Client, number: int) -> Pull:
    """Read a pull request."""
    return _pull(client.repository.get_pull(number))


def pulls_of(client: Client, sha: str) -> list[Pull]:
    """Find the open pull requests with that head commit.

    All open ones are listed: the commit of a fork is no commit of this repository's own branches, by which the
    narrower question (pull requests of a commit) is answered.
    """
    return [_pull(one) for one in client.repository.get_pulls(state="open") if one.head.sha == sha]


def _pull(found: PullRequest) -> Pull:
    source = found.head.repo  # None: the fork is gone
    is_fork = source is None or source.full_name != found.base.repo.full_name
    return Pull(
        found.number,
        found.head.sha,
        found.base.ref,
        is_fork,
        head_repository=source.full_name if source else "",
        head_branch=found.head.ref,
    )


def file(client: Client, branch: str, path: str) -> bytes:
    """Read a file of a branch."""
    found = client.repository.get_contents(path, ref=f"refs/heads/{branch}")  # of that name there may be a tag, too
    assert not isinstance(found, list), f"{path} is a folder"
    return found.decoded_content


def own_comments(client: Client, number: int) -> list[Comment]:
    """Find our comments on a pull request, oldest first."""
    # An installation's token, which a workflow has, may not read /user; GraphQL's viewer answers for every token.
    _, answer = client.github.requester.graphql_query("query { viewer { login } }", {})
    login = answer["data"]["viewer"]["login"]
    return [
        Comment(comment.id, comment.body, comment.html_url)
        for comment in client.repository.get_issue(number).get_comments()
        if comment.user and comment.user.login in (login, f"{login}[bot]") and is_ours(comment.body or "")
    ]


def create_comment(client: Client, number: int, body: str) -> Comment:
    """Write a new comment."""
    made = client.repository.get_issue(number).create_comment(body)
    return Comment(made.id, body, made.html_url)


def edit_comment(client: Client, number: int, key: int, body: str) -> Comment:
    """Put another text into a comment."""
    found = client.repository.get_issue(number).get_comment(key)
    found.edit(body)
    return Comment(key, body, found.html_url)


def delete_comment(client: Client, number: int, key: int) -> None:
    """Remove a comment."""
    client.repository.get_issue(number).get_comment(key).delete()


def set_status(client: Client, pull: Pull, status: Status) -> None:
    """Set the status of its head commit."""
    url = {"target_url": status.target_url} if status.target_url else {}
    description = status.description[:MOST_DESCRIPTION]
    commit = client.repository.get_commit(pull.head_sha)
    commit.create_status(status.state, description=description, context=CONTEXT, **url)


def upload_pictures(client: Client, number: int, pictures: Mapping[str, bytes], _: str) -> dict[str, str]:
    """Commit the pictures to `BRANCH`, in a folder of the pull request; nothing, where they are its files already.

    Args:
        client: Of the repository.
        number: Of the pull request.
        pictures: Stem -> PNG.

    Returns:
        Stem -> URL. It holds a commit, so a later one changes nothing in a comment that stands.
    """
    if not pictures:
        return {}
    blobs: dict[str, str] = {}
    for turn in range(RACES):
        try:
            commit = _commit_pictures(client.repository, number, pictures, blobs)
            break
        except GithubException as error:
            # Somebody else has moved the branch between our look and our write; their folder must stay.
            if error.status != 422 or turn == RACES - 1:
                raise
    place = f"{client.web_url}/blob/{commit}/{_folder(number)}"
    return {stem: f"{place}/{quote(stem)}.png?raw=true" for stem in pictures}


def _folder(number: int) -> str:
    return f"pull-{number}"


def _commit_pictures(repository: Repository, number: int, pictures: Mapping[str, bytes], blobs: dict[str, str]) -> str:
    """Give the commit that holds them, made where it must be; `blobs` remembers what is uploaded, for another turn."""
    ref, tip = _tip(repository)
    wanted = {f"{stem}.png": _blob_hash(data) for stem, data in pictures.items()}
    if tip and _files(repository, tip, _folder(number)) == wanted:
        return repository.get_commits(sha=BRANCH, path=_folder(number))[0].sha
    for stem, data in pictures.items():
        if stem not in blobs:
            blobs[stem] = repository.create_git_blob(base64.b64encode(data).decode(), "base64").sha
    files = [InputGitTreeElement(f"{stem}.png", "100644", "blob", sha=blobs[stem]) for stem in pictures]
    folder = repository.create_git_tree(files)  # its own tree: what was in the folder before is gone
    entry = InputGitTreeElement(_folder(number), "040000", "tree", sha=folder.sha)
    tree = repository.create_git_tree([entry], base_tree=tip.tree) if tip else repository.create_git_tree([entry])
    made = repository.create_git_commit(f"Pictures of pull request {number}", tree, [tip] if tip else [])
    if ref:
        ref.edit(made.sha, force=False)
    else:
        repository.create_git_ref(f"refs/heads/{BRANCH}", made.sha)
    return made.sha


def _tip(repository: Repository) -> tuple[GitRef, GitCommit] | tuple[None, None]:
    """Read the branch; None where there is none yet."""
    ref = repository.get_git_ref(f"heads/{BRANCH}")
    try:
        # Reading `object` is what makes the request, and gives the ref the URL by which it can be changed.
        return ref, repository.get_git_commit(ref.object.sha)
    except GithubException as error:
        if error.status == 404:
            return None, None
        raise


def _files(repository: Repository, tip: GitCommit, folder: str) -> dict[str, str]:
    """Name -> hash of the files of a folder of a commit."""
    for entry in repository.get_git_tree(tip.tree.sha).tree:
        if entry.path == folder and entry.type == "tree":
            return {file.path: file.sha for file in repository.get_git_tree(entry.sha).tree}
    return {}


def _blob_hash(data: bytes) -> str:
    """Give git's name of a file's bytes.

    >>> _blob_hash(b"hello")
    'b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0'
    """
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
