"""Say at a pull request that its newest commit has no report: the verdict of an older one must not stand for it."""

from __future__ import annotations

import re
from contextlib import suppress

from pipelines.forge import Comment, Connection, Pull, Status
from pipelines.forge_answers import ForgeError
from pipelines.forge_lines import one_line
from pipelines.forge_post import OtherBaseError, Posted, put_comment, set_status
from pipelines.forge_report import MOST_DESCRIPTION
from plumbline.errors import PlumblineError
from plumbline.review.comment import MARKER, escape
from plumbline.review.wording import cut

UNREADABLE = "The run left no report that can be read"
FROM_FORK = "⚠️ FROM A FORK: the reason comes from a run of the fork's own code."
_URL = re.compile(r"https?://[^\s()<>\[\]]+")


def reason_told(reason: str) -> str:
    """Give the sentence about what a run says itself (`pipelines.pr_reason`)."""
    return f"The run left no report: {reason or 'it does not say why'}"


def no_report_comment(pull: Pull, why: str, url: str) -> str:
    """Write the comment.

    Args:
        pull: Whose newest commit it is of.
        why: May hold a stranger's words; one line.
        url: Of the run; may be empty.
    """
    notes = [*([FROM_FORK] if pull.is_fork else []), escape(one_line(why))]
    return "\n\n".join(
        [
            MARKER,
            "### ⚪ plumbline: no report",
            f"Nothing is known of **{pull.head_sha[:8]}**, the newest commit.",
            "\n".join(f"- {note}" for note in notes),
            *([f"[The run]({url})"] if _URL.fullmatch(url) else []),
        ]
    )


def post_no_report(connection: Connection, pull: Pull, why: str, status_url: str, *, creates: bool) -> Posted:
    """Put it into the one comment, and set the status. One that fails does not keep back the other.

    Args:
        connection: To the forge.
        pull: Where to.
        why: One sentence.
        status_url: Of the run; may be empty.
        creates: Whether a comment is made where none stands. One that stands is changed in any case.

    Raises:
        ForgeError: The comment or the status is not there; the first of them is told.
    """
    faults: list[ForgeError] = []
    posted = Posted("not needed", "")
    try:
        own: list[Comment] = connection.ask(
            "own_comments", f"find the comment of pull request {pull.number}", pull.number
        )
        if own or creates:
            posted = put_comment(connection, pull.number, no_report_comment(pull, why, status_url), own)
    except ForgeError as error:
        faults.append(error)
    try:
        set_status(connection, pull, Status("error", cut(one_line(why), MOST_DESCRIPTION), status_url or posted.url))
    except ForgeError as error:
        faults.append(error)
    if faults:
        raise faults[0]
    return posted


def tell_no_report(connection: Connection, pull: Pull, error: Exception, status_url: str) -> None:
    """Say it as well as that goes, of a report that cannot be posted; what is wrong with it is told elsewhere."""
    why = str(error) if isinstance(error, OtherBaseError) else UNREADABLE
    with suppress(PlumblineError):
        post_no_report(connection, pull, why, status_url, creates=False)
