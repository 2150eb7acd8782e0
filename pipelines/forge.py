"""The forges that a review is posted to: the rows of a table, and what they are told and asked.

Each row's module has the same verbs, over the forge's maintained client library, and knows its own rules:

- ``connect(address, timeout_s)``: the client; no request is made.
- ``pull(client, number)``, ``pulls_of(client, sha)``: a pull request; the open ones with that head commit.
- ``file(client, branch, path)``: the bytes of a file of a branch.
- ``own_comments(client, number)``: those of ours that begin with the marker, oldest first.
- ``create_comment``, ``edit_comment``, ``delete_comment``.
- ``upload_pictures(client, number, pictures, written)``: stem -> URL that a reader of the repository sees; `written`
  is the text of the comment that stands.
- ``set_status(client, pull, status)``.
- ``FAULTS``, ``answer_of(client, error)``: what its client raises, and what that means (`pipelines.forge_answers`).
- ``TITLE``, ``NEEDS``: for the words of an error: the permission that a verb needs.
- ``AGAIN``: verb -> statuses below 500 after which the same request may do better later.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Literal

from pipelines.forge_answers import ForgeError, Patience, answered
from plumbline.review.comment import MARKER

CONTEXT = "plumbline"  # name of the commit status
_TOKEN = re.compile(r"[\x21-\x7e]{1,4096}")

State = Literal["success", "failure", "error", "pending"]


@dataclass(frozen=True)
class ForgeRow:
    """One forge.

    Attributes:
        module: With the verbs.
        most_characters: Of a comment.
        token_variable: Of the environment, with the token.
    """

    module: str
    most_characters: int
    token_variable: str


FORGES = {
    "github": ForgeRow("pipelines.forge_github", 65_536, "GITHUB_TOKEN"),
    "gitlab": ForgeRow("pipelines.forge_gitlab", 1_000_000, "GITLAB_TOKEN"),
}


@dataclass(frozen=True)
class Address:
    """Where a repository's pull requests are, and who asks.

    Attributes:
        forge: Row of `FORGES`.
        api_url: https://api.github.com; https://gitlab.com/api/v4.
        web_url: https://github.com.
        repository: ``owner/name``; on GitLab also the project's number.
        token: Never in a message: it is left out of ``repr``.
    """

    forge: str
    api_url: str
    web_url: str
    repository: str
    token: str = field(repr=False)

    def __post_init__(self) -> None:
        """Check the token: an HTTP client's error about a header quotes the header.

        Raises:
            ForgeError: It is empty or holds what no token does.
        """
        if not _TOKEN.fullmatch(self.token):
            raise ForgeError(
                f"${FORGES[self.forge].token_variable} holds no token: it is empty, or has blanks, line breaks or"
                " letters that no token has; store it again"
            )


@dataclass(frozen=True)
class Pull:
    """A pull request, or merge request.

    Attributes:
        number: As people write it: #12, !12.
        head_sha: Its newest commit, full.
        base_name: Branch that it is to be merged into.
        is_fork: Whether it comes from another repository.
        head_repository: That one, as ``owner/name``; on GitLab the project's number; empty where it is gone.
        head_branch: Of that one.
    """

    number: int
    head_sha: str
    base_name: str
    is_fork: bool
    head_repository: str = ""
    head_branch: str = ""


@dataclass(frozen=True)
class Comment:
    """A comment of ours."""

    key: int
    body: str
    url: str


@dataclass(frozen=True)
class Status:
    """What is shown beside a commit; `target_url` may be empty."""

    state: State
    description: str
    target_url: str


@dataclass(frozen=True)
class Connection:
    """A forge's client, and how long to be patient with its server."""

    address: Address
    patience: Patience
    module: ModuleType
    client: Any

    def ask(self, verb: str, what: str, *arguments: Any) -> Any:
        """Call a verb of the forge's module, which may be done again as a whole: see `answered`.

        Args:
            verb: Its name.
            what: For the error: "read pull request 12".
            arguments: After the client.
        """
        return answered(self, verb, what, lambda: getattr(self.module, verb)(self.client, *arguments))


def connect(address: Address, patience: Patience) -> Connection:
    """Make the client of an address; no request is made."""
    module = importlib.import_module(FORGES[address.forge].module)
    return Connection(address, patience, module, module.connect(address, patience.timeout_s))


def is_ours(body: str) -> bool:
    """Whether a comment begins with the marker, which forges keep.

    >>> is_ours("<!-- plumbline:review --> Worse"), is_ours("> <!-- plumbline:review -->")
    (True, False)
    """
    return body.lstrip().startswith(MARKER)
