"""Post the reports of all open merge requests, from a schedule: where the forge has no event that starts trusted code.

On GitLab a merge request's pipeline runs the merge request's own .gitlab-ci.yml, so whatever it is given it can give
away. A scheduled job of the project, on its protected default branch, looks for what has ended, of own branches and in
forks, reads the report as data, and posts it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from pipelines.forge import Connection, Pull
from pipelines.forge_answers import ForgeError
from pipelines.forge_gates import gates_of_base
from pipelines.forge_no_report import post_no_report, reason_told, tell_no_report
from pipelines.forge_pictures import MOST_BYTES as MOST_PICTURE_BYTES
from pipelines.forge_post import check_base, check_head, post, told_fault
from pipelines.forge_report import Report, judged, read_report, shown_pictures
from pipelines.pr_reason import REASON, read_reason
from plumbline.errors import EvaluationError
from plumbline.review.review import MOST_BYTES, REVIEW, read_review

JOB = "pull-request"  # whose artifact is the report, in .gitlab-ci.yml
FOLDER = "report"
NOTHING = "The run has ended and left no report"
MOST_REASON_BYTES = 100_000
GatesOf = Callable[[str], Mapping[str, Any]]


def post_all(connection: Connection, gates_from: Path | None, tell: Callable[[str], None]) -> None:
    """Post what there is; one merge request that fails does not keep back the others.

    Args:
        connection: To the project.
        gates_from: A params.yaml of it, by whose gates the reports are judged; None: by those of the branch that the
            merge request is to.
        tell: Takes a line for each merge request.

    Raises:
        ForgeError: The forge refused something, for one of them or for all. A report that is none is no such failure:
            whoever opens a merge request could make every run of the schedule fail.
    """
    faults: list[ForgeError] = []
    gates_of = cache(lambda branch: gates_of_base(connection, branch))
    pulls: list[Pull] = connection.ask("open_pulls", "list the merge requests")
    for pull in pulls:
        try:
            tell(f"!{pull.number}: {_post_one(connection, pull, gates_from, gates_of)}")
        except Exception as error:
            fault = told_fault(error)
            if isinstance(fault, ForgeError):
                faults.append(fault)
            tell(f"!{pull.number}: {'error' if isinstance(fault, ForgeError) else 'not posted'}: {fault}")
    if faults:
        raise faults[0]


def _post_one(connection: Connection, pull: Pull, gates_from: Path | None, gates_of: GatesOf) -> str:
    job = connection.ask("report_job", f"read the pipeline of !{pull.number}", pull.number, pull.head_sha, JOB)
    if job is None:
        return f"no ended job {JOB!r} at its newest commit"
    with tempfile.TemporaryDirectory(prefix="plumbline-report-") as temporary:
        folder = Path(temporary)
        try:
            if job.key is None or not _fetch_all(connection, job, folder):
                reason = read_reason(folder)
                why = NOTHING if reason is None else reason_told(reason)
                posted = post_no_report(connection, pull, why, job.url, creates=reason is not None)
                return f"no report: comment {posted.comment}; {why}"
            report = read_report(folder, gates_from)
            return _post_report(connection, pull, report, None if gates_from else gates_of, job.url)
        except ForgeError:
            raise
        except Exception as error:
            tell_no_report(connection, pull, error, job.url)
            raise


def _post_report(connection: Connection, pull: Pull, report: Report, gates_of: GatesOf | None, url: str) -> str:
    check_head(report, pull)
    check_base(report.review, pull)
    if gates_of is not None:
        report = judged(report, gates_of(pull.base_name), f"the branch {pull.base_name}")
    posted = post(connection, pull, report, url)
    return f"comment {posted.comment}, {report.description}"


def _fetch_all(connection: Connection, job: Any, folder: Path) -> bool:
    """Bring a report, or in its place the reason why there is none; whether it is a report."""
    if not _fetch(connection, job, REVIEW, MOST_BYTES, folder):
        _fetch(connection, job, REASON, MOST_REASON_BYTES, folder)
        return False
    for name in shown_pictures(read_review(folder)).values():
        _fetch(connection, job, name, MOST_PICTURE_BYTES, folder)  # one that is missing is told in the comment
    return True


def _fetch(connection: Connection, job: Any, name: str, most_bytes: int, folder: Path) -> bool:
    """Bring one file; whether the artifact has it. A stranger's that has it not must not fail the schedule."""
    path = f"{FOLDER}/{name}"
    try:
        data = connection.ask("artifact", f"read {path} of the job {job.key}", job, path, most_bytes)
    except ForgeError as error:
        if error.status == 404:
            return False
        raise
    if data is None:
        raise EvaluationError(f"{path}: more than {most_bytes:,} bytes, expected what make pr-report writes; it is not")
    (folder / name).write_bytes(data)
    return True
