"""Post the reports of merge requests that come from forks, where the forge starts nothing in the parent by itself.

A fork's pipeline runs in the fork, with none of the parent's variables. A scheduled job of the parent, on its protected
default branch, looks for what has ended there, reads the report as data, and posts it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from pipelines.forge import Connection, Pull
from pipelines.forge_answers import ForgeError
from pipelines.forge_pictures import MOST_BYTES as MOST_PICTURE_BYTES
from pipelines.forge_pictures import MOST_PICTURES
from pipelines.forge_post import check_head, post
from pipelines.forge_report import read_report
from plumbline.errors import EvaluationError, PlumblineError
from plumbline.review.review import MOST_BYTES, REVIEW, read_review

JOB = "pull-request"  # whose artifact is the report, in .gitlab-ci.yml
FOLDER = "report"


def post_forks(connection: Connection, gates_from: Path | None, tell: Callable[[str], None]) -> None:
    """Post what there is; one merge request that fails does not keep back the others.

    Args:
        connection: To the parent project.
        gates_from: A params.yaml of the parent, by whose gates the reports are judged.
        tell: Takes a line for each merge request.

    Raises:
        ForgeError: The forge refused something, for one of them or for all. A report that is none is no such failure:
            whoever opens a merge request could make every run of the schedule fail.
    """
    faults: list[ForgeError] = []
    pulls: list[Pull] = connection.ask("fork_pulls", "list the merge requests of forks")
    for pull in pulls:
        try:
            tell(f"!{pull.number}: {_post_fork(connection, pull, gates_from)}")
        except ForgeError as error:
            faults.append(error)
            tell(f"!{pull.number}: error: {error}")
        except PlumblineError as error:
            tell(f"!{pull.number}: not posted: {error}")
    if faults:
        raise faults[0]


def _post_fork(connection: Connection, pull: Pull, gates_from: Path | None) -> str:
    job = connection.ask("report_job", f"read the pipeline of !{pull.number}", pull.number, pull.head_sha, JOB)
    if job is None:
        return f"no ended job {JOB!r} at its newest commit"
    with tempfile.TemporaryDirectory(prefix="plumbline-fork-") as temporary:
        folder = Path(temporary)
        _fetch(connection, job, REVIEW, MOST_BYTES, folder)
        names = list(read_review(folder).pictures.values())
        for name in names[:MOST_PICTURES]:
            _fetch(connection, job, name, MOST_PICTURE_BYTES, folder)
        report = read_report(folder, gates_from)
    check_head(report, pull)
    return f"comment {post(connection, pull, report, job.url).comment}, {report.description}"


def _fetch(connection: Connection, job: object, name: str, most_bytes: int, folder: Path) -> None:
    path = f"{FOLDER}/{name}"
    data = connection.ask("artifact", f"read {path} of {job}", job, path, most_bytes)
    if data is None:
        raise EvaluationError(f"{path}: more than {most_bytes:,} bytes, expected what make pr-report writes; it is not")
    (folder / name).write_bytes(data)
