"""Post a report to a pull request: its pictures, the one comment, the commit status."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipelines.forge import Comment, Connection, Pull, Status
from pipelines.forge_answers import ForgeError, answered
from pipelines.forge_report import Report
from plumbline.errors import EvaluationError


@dataclass(frozen=True)
class Posted:
    """What was done.

    Attributes:
        comment: ``created``, ``updated`` or ``unchanged``.
        url: Of the comment, where the forge tells it.
    """

    comment: str
    url: str


def find_pull(connection: Connection, number: int | None, sha: str | None, base_name: str) -> Pull:
    """Find the pull request.

    Args:
        connection: To the forge.
        number: Of it, where that is known.
        sha: Else its head commit.
        base_name: As the report has it (``origin/main``): decides among several with one head.

    Raises:
        ForgeError: There is none, or more than one.
    """
    if number is not None:
        found: Pull = connection.ask("pull", f"read pull request {number}", number)
        return found
    pulls: list[Pull] = connection.ask("pulls_of", f"find the pull request of {sha}", sha)
    of_base = [one for one in pulls if one.base_name == base_name.removeprefix("origin/")]
    if len(of_base or pulls) != 1:
        numbers = ", ".join(str(one.number) for one in pulls) or "none"
        raise ForgeError(
            f"{connection.address.repository}: no open pull request has the head commit {sha} alone, expected one, got"
            f" {numbers}; a newer commit has a run of its own, or say --number"
        )
    return (of_base or pulls)[0]


def check_head(report: Report, pull: Pull) -> None:
    """Refuse a report of another commit than the pull request's newest: an old one, or a forged one.

    Raises:
        EvaluationError: It is of another.
    """
    commit = report.review.head.commit
    if commit != pull.head_sha:
        raise EvaluationError(
            f"the report is of commit {commit}, expected {pull.head_sha}, the head of pull request {pull.number};"
            " run make pr-report at that commit"
        )


def post(connection: Connection, pull: Pull, report: Report, status_url: str) -> Posted:
    """Post the comment and set the status. One that fails does not keep back the other.

    Args:
        connection: To the forge.
        pull: Where to.
        report: What.
        status_url: Where the status leads; empty: to the comment.

    Raises:
        ForgeError: The comment or the status is not there; the first of them is told.
    """
    check_head(report, pull)
    if pull.is_fork:
        report = report.noting("The numbers come from a run of the fork's own code.")
    faults: list[ForgeError] = []
    posted = Posted("failed", "")
    try:
        posted = _post_comment(connection, pull.number, report)
    except ForgeError as error:
        faults.append(error)
    try:
        set_status(connection, pull, Status(report.state, report.description, status_url or posted.url))
    except ForgeError as error:
        faults.append(error)
    if faults:
        raise faults[0]
    return posted


def set_status(connection: Connection, pull: Pull, status: Status) -> None:
    """Set the status of its head commit.

    Raises:
        ForgeError: It cannot be set.
    """
    try:
        connection.ask("set_status", f"set the status of {pull.head_sha}", pull, status)
    except ForgeError as error:
        # GitLab knows a fork's commits in the fork alone, where the poster may write nothing; the comment says it all.
        # https://gitlab.com/gitlab-org/gitlab/-/issues/374133
        if not (pull.is_fork and connection.address.forge == "gitlab" and error.status in (403, 404)):
            raise


def _post_comment(connection: Connection, number: int, report: Report) -> Posted:
    what = f"find the comment of pull request {number}"
    own: list[Comment] = connection.ask("own_comments", what, number)
    urls: dict[str, str] = {}
    if report.pictures:
        try:
            written = own[0].body if own else ""
            what = f"upload the pictures of pull request {number}"
            urls = connection.ask("upload_pictures", what, number, report.pictures, written)
        except ForgeError as error:
            report = report.noting(f"The pictures could not be uploaded ({error}); they are in the run's report.")
    return put_comment(connection, number, report.markdown(urls, connection.address.forge), own)


def put_comment(connection: Connection, number: int, body: str, own: Sequence[Comment]) -> Posted:
    """Make the one comment have that text.

    Args:
        connection: To the forge.
        number: Of the pull request.
        body: The text.
        own: Our comments that were just found there, oldest first.

    Raises:
        ForgeError: It cannot be written.
    """
    module, client = connection.module, connection.client
    looks: list[Callable[[], Sequence[Comment]]] = [lambda: own]

    def put() -> Posted:
        # Every further try looks again: a request without an answer may have been done, and would make a second one.
        found = looks.pop()() if looks else module.own_comments(client, number)
        if not found:
            return Posted("created", module.create_comment(client, number, body).url)
        first, *others = found
        is_same = _is_same(first.body, body)
        if not is_same:
            first = module.edit_comment(client, number, first.key, body)
        for other in others:  # of two posters at once, or of a request that was done late
            module.delete_comment(client, number, other.key)
        return Posted("unchanged" if is_same else "updated", first.url)

    return answered(connection, "put_comment", f"comment on pull request {number}", put)


def _is_same(written: str, body: str) -> bool:
    """Whether two texts differ at most in what forges change: line ends, and white space around."""
    return written.replace("\r\n", "\n").strip() == body.replace("\r\n", "\n").strip()
