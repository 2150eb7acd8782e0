"""What a pull request's flow does after the line: the report, kept; Prefect's artifact; the comment; the verdict.

The comparison is by trusted code, the worker's own, and by the base's gates. The stages before it are the pull
request's code, which runs as the worker's user: start this flow for people who may do that anyway. For a fork's pull
requests there is the split in .github/workflows and .gitlab-ci.yml.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.states import Completed, Failed

from pipelines.clones import default_home
from pipelines.flow_artifacts import embed_images
from pipelines.forge import FORGES, Connection, connect
from pipelines.forge_answers import Patience
from pipelines.forge_no_report import post_no_report
from pipelines.forge_post import Posted, find_pull, post
from pipelines.forge_report import read_report
from pipelines.forge_runner import runner
from pipelines.mirror import FULL_SHA, CloneError, Mirror, git
from pipelines.pr_report import COMMENT, write_report
from plumbline.errors import PlumblineError
from plumbline.review.comment import headline

ARTIFACT = "pull-request"
REPORTS = "reports"  # below the home
KEEP = 50  # reports of a repository, a megabyte or two each
TOKENS = tuple(row.token_variable for row in FORGES.values())


def compare_with_base(
    place: Path,
    repository: str,
    base: str,
    *,
    number: int | None,
    tokens: Mapping[str, str],
    patience: Patience | None = None,
) -> State[None]:
    """Judge a clone as it was run against the base, keep the report, and post it where there is a token.

    Args:
        place: The clone, its line up to date.
        repository: Where it was cloned from; the forge's name of it follows from its URL.
        base: A branch, tag or commit of it, as it is now.
        number: Of the pull request; None: nothing is posted.
        tokens: Variable -> token of a forge (`withheld`).
        patience: With the forge.

    Returns:
        Completed where every gate passed; Failed with the names of those that did not, or with why nothing was posted.

    Raises:
        PlumblineError: There is nothing to compare, or a gate cannot be judged.
    """
    log = get_run_logger()
    out = report_folder(place)
    try:
        head = git(place, "rev-parse", "--short", "HEAD")
        review = write_report(place, base_in_clone(place, repository, base), None, out, log.info, head)
    except Exception as error:
        say_no_report(place, repository, f"There is no report: {error}", number=number, tokens=tokens)
        raise
    _prune(out.parent)
    keep_review(out)
    failed = [gate.name for gate in review.gates if not gate.passed]
    said = f"gates failed: {', '.join(failed)}" if failed else headline(review)
    try:
        posted = _post_where_possible(out, repository, number, {**os.environ, **tokens}, patience or Patience())
    except PlumblineError as error:
        log.info("the comment that could not be posted:\n%s", (out / COMMENT).read_text("utf-8"))
        return Failed(message=f"{said}; the comment is not posted: {error}; report: {out}")
    end = Failed if failed else Completed
    comment = f"; comment {posted.comment} {posted.url}".rstrip() if posted else ""
    return end(message=f"{said}{comment}; report: {out}")


@contextmanager
def withheld(names: tuple[str, ...] = TOKENS) -> Iterator[dict[str, str]]:
    """Take variables out of the environment of what is started meanwhile, and give their values.

    A stage that prints its environment then shows no token in the log. It keeps none from code that looks for it: what
    a user's processes know, another one of that user can read.
    """
    values = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield values
    finally:
        os.environ.update(values)


def base_in_clone(place: Path, repository: str, base: str) -> str:
    """Bring the base as it is in the repository now into a clone; return what it is called there.

    Raises:
        CloneError: The repository cannot be read, or has no such commit.
    """
    # Asked for anew: a commit that is here already was cloned without a look at what else there is.
    commit = Mirror.of(default_home(), repository).fetched(base)
    git(place, "fetch", "--quiet", "origin", commit)
    if FULL_SHA.fullmatch(base):
        return commit
    try:
        git(place, "update-ref", f"refs/heads/{base}", commit)  # HEAD is detached: branches are free
    except CloneError:  # no name of a branch: v1~2
        return commit
    return base


def report_folder(place: Path) -> Path:
    """Return where this flow run's report stays, whatever becomes of its clone."""
    context = FlowRunContext.get()
    assert context is not None, "compare_with_base is called in a flow"
    assert context.flow_run is not None
    return default_home() / REPORTS / place.parent.name / f"{place.name}-{context.flow_run.id}"


def _prune(folder: Path) -> None:
    reports = sorted((path for path in folder.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
    for old in reports[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)


def keep_review(out: Path) -> None:
    """Store the comment with its pictures as the artifact ``pull-request``."""
    text = embed_images((out / COMMENT).read_text("utf-8"), out)
    create_markdown_artifact(text, key=ARTIFACT, description=f"What this change does to the model; `{out}`")


def say_no_report(
    place: Path,
    repository: str,
    why: str,
    *,
    number: int | None,
    tokens: Mapping[str, str],
    patience: Patience | None = None,
) -> None:
    """Say at a pull request why its newest commit has no report, where there is a token; a fault is in the log.

    Args:
        place: The clone of that commit.
        repository: As of `compare_with_base`, like the rest.
        why: One sentence.
        number: Of the pull request.
        tokens: Variable -> token of a forge.
        patience: With the forge.
    """
    try:
        connection = _connection(repository, number, {**os.environ, **tokens}, patience or Patience())
        if connection is None:
            return
        pull = find_pull(connection, number, None, "")
        if pull.head_sha == git(place, "rev-parse", "HEAD"):  # of an older one it is nobody's business
            post_no_report(connection, pull, why.replace(f"{place}/", ""), "", creates=False)
    except PlumblineError as error:
        get_run_logger().warning("the pull request is not told: %s", error)


def _post_where_possible(
    out: Path, repository: str, number: int | None, environment: Mapping[str, str], patience: Patience
) -> Posted | None:
    connection = _connection(repository, number, environment, patience)
    if connection is None:
        return None
    return post(connection, find_pull(connection, number, None, ""), read_report(out, None), "")


def _connection(
    repository: str, number: int | None, environment: Mapping[str, str], patience: Patience
) -> Connection | None:
    forge = next((name for name, row in FORGES.items() if environment.get(row.token_variable)), None)
    if forge is None or number is None:
        if number is not None:
            get_run_logger().info("nothing is posted: the worker's environment has no $%s", " and no $".join(TOKENS))
        return None
    # The token goes to the server that the worker's environment names, whatever URL a parameter holds.
    place = runner(environment, forge, repository_name(repository) or None)
    return connect(place.address(environment), patience)


def repository_name(repository: str) -> str:
    """Return what a forge calls a repository, or "" for a path on this machine.

    >>> repository_name("https://x:y@github.com/team/scales.git"), repository_name("git@gitlab.com:group/sub/scales")
    ('team/scales', 'group/sub/scales')
    >>> repository_name("ssh://git@example.com:22/team/scales/"), repository_name("/srv/scales")
    ('team/scales', '')
    """
    found = re.fullmatch(
        r"(?:(?:https?|ssh|git)://[^/]+/|[\w.-]+@[\w.-]+:)(?P<name>[^:]+?)(?:\.git)?/?", repository.strip()
    )
    return found["name"].strip("/") if found else ""
