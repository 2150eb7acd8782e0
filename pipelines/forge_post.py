"""Post a report to a pull request: its pictures, the one comment, the commit status."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.forge import Comment, Connection, Pull, Status
from pipelines.forge_answers import ForgeError, answered
from pipelines.forge_lines import one_line
from pipelines.forge_report import MOST_DESCRIPTION, Report
from plumbline.errors import EvaluationError, PlumblineError
from plumbline.review.review import Review

FROM_FORK = (
    "⚠️ FROM A FORK: the numbers come from a run of the fork's own code, also those of the base; they are as honest as"
    " its author."
)
REMOTES = ("origin/", "base/", "upstream/")  # as a clone calls where a pull request is to; .gitlab-ci.yml: base


class OtherBaseError(EvaluationError):
    """A report is against another branch than its pull request is to; its text may be shown to everybody."""


@dataclass(frozen=True)
class Posted:
    """What was done.

    Attributes:
        comment: ``created``, ``updated``, ``unchanged``; ``not needed`` where nothing is to be said.
        url: Of the comment, where the forge tells it.
    """

    comment: str
    url: str


@dataclass(frozen=True)
class Source:
    """Where a pull request comes from, as the forge's event says it; None: not known.

    Attributes:
        repository: As `Pull.head_repository`.
        branch: Of it.
    """

    repository: str | None = None
    branch: str | None = None

    def is_of(self, pull: Pull) -> bool:
        """Whether a pull request comes from there."""
        return self.repository in (None, pull.head_repository) and self.branch in (None, pull.head_branch)


def find_pull(
    connection: Connection, number: int | None, sha: str | None, base_name: str, source: Source | None = None
) -> Pull:
    """Find the pull request.

    Args:
        connection: To the forge.
        number: Of it, where that is known.
        sha: Else its head commit.
        base_name: As the report has it (``origin/main``): decides among several with one head.
        source: Of the run. Without it anybody's fork could have the commit of another's pull request for its head.

    Raises:
        ForgeError: There is none, or more than one.
    """
    if number is not None:
        found: Pull = connection.ask("pull", f"read pull request {number}", number)
        return found
    found_all: list[Pull] = connection.ask("pulls_of", f"find the pull request of {sha}", sha)
    pulls = [one for one in found_all if source is None or source.is_of(one)]
    of_base = [one for one in pulls if one.base_name == base_name]
    of_base = of_base or [one for one in pulls if one.base_name in [base_name.removeprefix(name) for name in REMOTES]]
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


def check_base(review: Review, pull: Pull) -> None:
    """Refuse a report against another branch than the pull request is to now: its base may have been changed since.

    Raises:
        OtherBaseError: It is against another.
    """
    name = review.base.name
    if pull.base_name not in (name, *(name.removeprefix(remote) for remote in REMOTES)):
        raise OtherBaseError(
            f"The report is against {one_line(name)[:60]}, expected {pull.base_name[:60]}; start the run again"
        )


def for_one_base(connection: Connection, pull: Pull, report: Report) -> Report:
    """Take back a pass where the commit is also the head of a pull request to another branch.

    There is one status of a commit: the lax gates of one branch would let it into the other.

    Raises:
        ForgeError: The pull requests cannot be read.
    """
    if report.state != "success":
        return report
    same: list[Pull] = connection.ask("pulls_of", f"find the pull requests of {pull.head_sha}", pull.head_sha)
    # A fork sets no status where this repository's own pull request has the commit, so it takes none away either.
    others = [one for one in same if one.base_name != pull.base_name and (pull.is_fork or not one.is_fork)]
    if not others:
        return report
    numbers = ", ".join(f"{one.number} (to {one.base_name[:40]})" for one in others[:3])
    why = f"This commit is also the head of {numbers}: one status cannot say both; close one, and run again"
    return replace(report.noting(why), state="error", description=one_line(why)[:MOST_DESCRIPTION])


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
    faults: list[ForgeError] = []
    posted = Posted("failed", "")
    try:
        posted = _post_comment(connection, pull, report)
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
    """Set the status of its head commit; not of one that this repository's own pull requests have, for a fork.

    Raises:
        ForgeError: It cannot be set.
    """
    if pull.is_fork and not _takes_status(connection, pull):
        return
    connection.ask("set_status", f"set the status of {pull.head_sha}", pull, status)


def _takes_status(connection: Connection, pull: Pull) -> bool:
    # GitLab knows a fork's commits in the fork alone, where the poster may write nothing; the comment says it all.
    # https://gitlab.com/gitlab-org/gitlab/-/issues/374133
    if connection.address.forge == "gitlab":
        return False
    # A fork can have anybody's commit for its head, and a status is the commit's, whatever the pull request.
    same: list[Pull] = connection.ask("pulls_of", f"find the pull requests of {pull.head_sha}", pull.head_sha)
    return all(one.is_fork for one in same)


def set_pending(connection: Connection, sha: str, source: Source, status_url: str) -> int:
    """Say beside a commit that a run was asked for: until it has ended, what an older one said counts no more.

    Returns:
        How many open pull requests from there have that head; of none, nothing is set.

    Raises:
        ForgeError: It cannot be set.
    """
    pulls: list[Pull] = connection.ask("pulls_of", f"find the pull requests of {sha}", sha)
    found = [one for one in pulls if source.is_of(one)]
    if found:
        set_status(
            connection, found[0], Status("pending", "A run was asked for, and has left no report yet", status_url)
        )
    return len(found)


def told_fault(error: Exception) -> PlumblineError:
    """Give the error that is told, on one line, of whatever a report made happen.

    A report may come from anybody, and no list of what its values can make raise is ever complete.
    """
    if isinstance(error, ForgeError):
        return ForgeError(one_line(str(error)), error.status)
    if isinstance(error, PlumblineError):
        return EvaluationError(one_line(str(error)))
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return EvaluationError(
        f"the report: the poster failed with {type(error).__name__}{where}: {one_line(str(error))[:200]};"
        " run make pr-report of this version again, or tell the project's maintainers"
    )


def _post_comment(connection: Connection, pull: Pull, report: Report) -> Posted:
    number = pull.number
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
    if pull.is_fork:
        report = report.noting(FROM_FORK)  # last, and so the first to be read
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
