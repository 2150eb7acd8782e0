"""Post a report to its pull request: ``python -m pipelines.pr_comment --report report``.

The folder is what ``make pr-report`` writes, here or in a run that is not trusted: of it only review.json and the
pictures are read, as data. The forge, the repository and the pull request are the runner's, unless they are said. The
comment is printed and stays in the folder whatever happens.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from pipelines.forge import FORGES, Connection, Status, connect
from pipelines.forge_answers import ForgeError, Patience
from pipelines.forge_forks import post_forks
from pipelines.forge_post import Posted, check_head, find_pull, post, set_status
from pipelines.forge_report import Report, read_report, write_comment
from pipelines.forge_runner import Runner, runner
from plumbline.errors import EvaluationError, PlumblineError
from stages.shape import exit_code


def _tell(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - what the command is for


def _tell_comment(text: str, environment: Mapping[str, str]) -> None:
    """Print the comment. GitHub's runner obeys lines such as ``::add-mask::``: not those of an artifact."""
    if not environment.get("GITHUB_ACTIONS"):
        _tell(text)
        return
    word = uuid.uuid4().hex
    _tell(f"::stop-commands::{word}\n{text}\n::{word}::")


def _post_folder(arguments: argparse.Namespace, place: Runner, environment: Mapping[str, str]) -> None:
    try:
        report = read_report(arguments.report, arguments.gates_from)
    except PlumblineError as error:
        _set_error(arguments, place, environment)
        # What it quotes is a stranger's: on one line, it is no command to the runner.
        raise EvaluationError(" ".join(str(error).split())) from error
    text = write_comment(report, arguments.report, place.forge)
    if arguments.dry_run:
        _tell_comment(text, environment)
        _tell(f"{report.state}: {report.description}")
        return
    try:
        posted = _post(_connection(arguments, place, environment), arguments, place, report)
    except PlumblineError:
        _tell_comment(text, environment)
        raise
    _tell(f"comment {posted.comment} {posted.url}".rstrip() + f"; status {report.state}: {report.description}")


def _post(connection: Connection, arguments: argparse.Namespace, place: Runner, report: Report) -> Posted:
    sha = arguments.head_sha or report.review.head.commit
    pull = find_pull(connection, arguments.number or place.number, sha, report.review.base.name)
    check_head(report, pull)
    return post(connection, pull, report, arguments.status_url)


def _set_error(arguments: argparse.Namespace, place: Runner, environment: Mapping[str, str]) -> None:
    """Say beside the commit that there is no report, where it is known which commit; the report's error is told."""
    number, sha = arguments.number or place.number, arguments.head_sha
    if arguments.dry_run or (number is None and sha is None):
        return
    with suppress(ForgeError):
        connection = _connection(arguments, place, environment)
        pull = find_pull(connection, number, sha, "")
        if sha in (None, pull.head_sha):
            said = "The run left no report that can be read"
            set_status(connection, pull, Status("error", said, arguments.status_url))


def _connection(arguments: argparse.Namespace, place: Runner, environment: Mapping[str, str]) -> Connection:
    patience = Patience(pauses_s=arguments.pauses, timeout_s=arguments.timeout)
    return connect(place.address(environment), patience)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--report", type=Path, metavar="FOLDER", help="what make pr-report wrote")
    what.add_argument("--forks", action="store_true", help="the reports of all merge requests from forks (GitLab)")
    parser.add_argument("--forge", choices=FORGES, help="default: the one whose runner this is")
    parser.add_argument("--repository", metavar="R", help="owner/name (default: the runner's)")
    parser.add_argument("--number", type=int, metavar="N", help="of the pull request (default: the runner's)")
    parser.add_argument("--head-sha", type=_sha, metavar="SHA", help="its head commit, by which it is found, too")
    parser.add_argument("--gates-from", type=Path, metavar="FILE", help="judge by the gates of this params.yaml")
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
        if not arguments.forks:
            _post_folder(arguments, place, environment)
        elif place.forge != "gitlab":
            raise ForgeError(f"--forks is for gitlab, got {place.forge}; GitHub starts the poster after every run")
        else:
            post_forks(_connection(arguments, place, environment), arguments.gates_from, _tell)

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
