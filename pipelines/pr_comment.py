"""Post a report to its pull request: ``python -m pipelines.pr_comment --report report``.

The folder is what ``make pr-report`` writes, here or in a run that is not trusted: of it only review.json and the
pictures are read, as data, or the one line of error.txt in their place. The forge, the repository and the pull request
are the runner's, unless they are said. The comment is printed where it cannot be posted, and stays in the folder
whatever happens.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from pipelines.forge import FORGES, Connection, connect
from pipelines.forge_answers import ForgeError, Patience
from pipelines.forge_gates import gates_of_base
from pipelines.forge_lines import tell
from pipelines.forge_no_report import no_report_comment, post_no_report, reason_told, tell_no_report
from pipelines.forge_post import (
    Posted,
    Source,
    check_base,
    check_head,
    find_pull,
    for_one_base,
    post,
    set_pending,
    told_fault,
)
from pipelines.forge_report import Report, judged, read_report, write_comment
from pipelines.forge_runner import Runner, is_runner, runner
from pipelines.forge_schedule import post_all
from pipelines.pr_reason import read_reason
from plumbline.errors import EvaluationError, PlumblineError
from stages.shape import exit_code


def _post_folder(arguments: argparse.Namespace, place: Runner, environment: Mapping[str, str]) -> None:
    if (reason := read_reason(arguments.report)) is not None:
        _post_reason(arguments, place, environment, reason_told(reason))
        return
    try:
        report = read_report(arguments.report, arguments.gates_from)
        text = write_comment(report, arguments.report, place.forge)
    except Exception as error:  # whatever a stranger's report made happen
        _tell_no_report(arguments, place, environment, error)
        raise
    if arguments.dry_run:
        tell(f"{text}\n{report.state}: {report.description}", environment)
        return
    _check_clean(report, arguments, environment)
    try:
        posted, report = _post(_connection(arguments, place, environment), arguments, place, report)
    except Exception as error:
        tell(text, environment)
        # A report of a run, by the forge's event: where it is refused, an older one's verdict must not stand.
        is_of_run = arguments.gates_of_base and arguments.head_sha
        if not isinstance(error, PlumblineError) or (is_of_run and isinstance(error, EvaluationError)):
            _tell_no_report(arguments, place, environment, error)
        raise
    said = f"comment {posted.comment} {posted.url}".rstrip()
    tell(f"{said}; status {report.state}: {report.description}", environment)


def _post_reason(arguments: argparse.Namespace, place: Runner, environment: Mapping[str, str], why: str) -> None:
    if arguments.dry_run:
        tell(f"error: {why}", environment)
        return
    number = arguments.number or place.number
    connection = _connection(arguments, place, environment)
    pull = find_pull(connection, number, arguments.head_sha, "", _source(arguments))
    if arguments.head_sha not in (None, pull.head_sha):
        raise EvaluationError(
            f"the reason is of commit {arguments.head_sha}, expected {pull.head_sha}, the head of pull request {number}"
        )
    try:
        posted = post_no_report(connection, pull, why, arguments.status_url, creates=True)
    except ForgeError:
        tell(no_report_comment(pull, why, arguments.status_url), environment)
        raise
    tell(f"comment {posted.comment} {posted.url}".rstrip() + f"; status error: {why}", environment)


def _post(
    connection: Connection, arguments: argparse.Namespace, place: Runner, report: Report
) -> tuple[Posted, Report]:
    sha = arguments.head_sha or report.review.head.commit
    number = arguments.number or place.number
    pull = find_pull(connection, number, sha, report.review.base.name, _source(arguments))
    check_head(report, pull)
    if arguments.gates_of_base:
        check_base(report.review, pull)
        gates = gates_of_base(connection, pull.base_name)
        report = for_one_base(connection, pull, judged(report, gates, f"the branch {pull.base_name}"))
        write_comment(report, arguments.report, place.forge)
    return post(connection, pull, report, arguments.status_url), report


def _check_clean(report: Report, arguments: argparse.Namespace, environment: Mapping[str, str]) -> None:
    # In a runner the line itself has changed dvc.lock and the reports; at a desk anything may have been.
    if not (report.review.head.is_clean or arguments.allow_changes or is_runner(environment)):
        raise EvaluationError(
            "the report is of a working tree with changes, expected one of a commit, to which its status is given;"
            " commit them and run make pr-report again, or say --allow-changes"
        )


def _source(arguments: argparse.Namespace) -> Source:
    return Source(arguments.head_repository, arguments.head_branch)


def _tell_no_report(
    arguments: argparse.Namespace, place: Runner, environment: Mapping[str, str], error: Exception
) -> None:
    """Say at the pull request that there is no report, where it is known which; the report's error is told."""
    number, sha = arguments.number or place.number, arguments.head_sha
    if arguments.dry_run or (number is None and sha is None):
        return
    with suppress(ForgeError):
        connection = _connection(arguments, place, environment)
        pull = find_pull(connection, number, sha, "", _source(arguments))
        if sha in (None, pull.head_sha):
            tell_no_report(connection, pull, error, arguments.status_url)


def _set_pending(arguments: argparse.Namespace, place: Runner, environment: Mapping[str, str]) -> None:
    if arguments.head_sha is None:
        raise ForgeError("--pending is of a commit, expected --head-sha; say it")
    connection = _connection(arguments, place, environment)
    found = set_pending(connection, arguments.head_sha, _source(arguments), arguments.status_url)
    tell("status pending" if found else f"no open pull request has the head commit {arguments.head_sha}", environment)


def _connection(arguments: argparse.Namespace, place: Runner, environment: Mapping[str, str]) -> Connection:
    patience = Patience(pauses_s=arguments.pauses, timeout_s=arguments.timeout)
    return connect(place.address(environment), patience)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--report", type=Path, metavar="FOLDER", help="what make pr-report wrote")
    what.add_argument("--all", action="store_true", help="the reports of all open merge requests' pipelines (GitLab)")
    what.add_argument("--pending", action="store_true", help="say beside --head-sha that a run of it was asked for")
    parser.add_argument("--forge", choices=FORGES, help="default: the one whose runner this is")
    parser.add_argument("--repository", metavar="R", help="owner/name (default: the runner's)")
    parser.add_argument("--number", type=int, metavar="N", help="of the pull request (default: the runner's)")
    parser.add_argument("--head-sha", type=_sha, metavar="SHA", help="its head commit, by which it is found, too")
    parser.add_argument("--head-repository", metavar="R", help="it comes from there; owner/name, on GitLab a number")
    parser.add_argument("--head-branch", metavar="B", help="it comes from there")
    gates = parser.add_mutually_exclusive_group()
    gates.add_argument("--gates-from", type=Path, metavar="FILE", help="judge by the gates of this params.yaml")
    told = "judge by those of the branch that it is to; with --all the default. A dry run asks nothing, so has them not"
    gates.add_argument("--gates-of-base", action="store_true", help=told)
    told = "post a report of a working tree with changes outside of a runner, too"
    parser.add_argument("--allow-changes", action="store_true", help=told)
    parser.add_argument("--status-url", default="", metavar="URL", help="where the status leads (default: the comment)")
    parser.add_argument("--dry-run", action="store_true", help="print the comment; ask the forge nothing")
    parser.add_argument("--pauses", type=_seconds, default=Patience().pauses_s, metavar="S,S", help="between tries")
    parser.add_argument("--timeout", type=int, default=Patience().timeout_s, metavar="S", help="of a request")
    return parser.parse_args(argv)


def _sha(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{40}", text):
        raise argparse.ArgumentTypeError(f"expected the 40 digits of a commit, got {text!r}")
    return text


def _seconds(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(",") if part)


def main(argv: Sequence[str] | None = None) -> int:
    """Post: 0, whatever the gates say, or 1 and one line on stderr."""
    arguments = _parse(argv)
    environment = os.environ

    def work() -> None:
        place = runner(environment, arguments.forge, arguments.repository)
        if arguments.pending:
            _set_pending(arguments, place, environment)
        elif not arguments.all:
            _post_folder(arguments, place, environment)
        elif place.forge != "gitlab":
            raise ForgeError(f"--all is for gitlab, got {place.forge}; GitHub starts the poster after every run")
        else:
            connection = _connection(arguments, place, environment)
            post_all(connection, arguments.gates_from, lambda line: tell(line, environment))

    def told_work() -> None:
        try:
            work()
        except Exception as error:
            # What it quotes is a stranger's: as one line behind another word, it is no command to the runner.
            raise told_fault(error) from error

    return exit_code(told_work)


if __name__ == "__main__":
    sys.exit(main())
