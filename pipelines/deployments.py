"""The flows that prefect.yaml deploys: each works in a clean clone of the commit that it was asked for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.states import Completed, Failed

from pipelines.clones import clean_clone, default_home, local_cache
from pipelines.flow_params import FlowParams, read_flow_params
from pipelines.line import Ended, look_at, run_line
from pipelines.machine import Machine, sharing
from pipelines.mirror import git
from pipelines.results_branch import bring_outputs, has_remote, push_outputs, push_results
from pipelines.review_flow import compare_with_base, say_no_report, withheld
from plumbline.errors import PlumblineError

NOT_BUILT = "NotBuilt"
CONSTRAINTS = "constraints.txt"


@flow(name="retrain")
def retrain(repository: str, revision: str = "main", push: bool = True, seen: str = "") -> State[None]:
    """Run the line at a commit, and bring its results back as a branch of the repository.

    Args:
        repository: A path or an URL, as git takes it.
        revision: A branch, a tag or a commit.
        push: Whether results go to a branch ``plumbline/retrain-...`` of the repository, and to DVC's remote if there
            is one. The branch that is checked out there is never touched.
        seen: Of a run that new data has triggered: which data that was.
    """

    def work() -> State[None]:
        if seen:
            get_run_logger().info("new data: %s", seen)
        with _line_in_clone(repository, revision) as (place, state):
            return _bring_back(place, repository, revision, state) if push and state.is_completed() else state

    return _told(work)


@flow(name="pull-request")
def pull_request(repository: str, revision: str, base: str = "main", number: int | None = None) -> State[None]:
    """Run the line at a pull request's commit, and say what it does to the model; nothing is pushed.

    Its end is Failed where a gate of params.yaml failed. The report stays in the home's folder ``reports``.

    Args:
        repository: A path or an URL, as git takes it.
        revision: A branch, a commit, or a ref such as ``refs/pull/5/head``.
        base: The branch that it shall be merged into.
        number: Of the pull request, for a comment and a status on its forge: with a token in the worker's environment
            ($GITHUB_TOKEN, $GITLAB_TOKEN) they are posted, as `pipelines.pr_comment` does.
    """

    def work() -> State[None]:
        with withheld() as tokens, _line_in_clone(repository, revision) as (place, state):
            if not state.is_completed():
                why = f"The line has failed: {state.message}"
                say_no_report(place, repository, why, number=number, tokens=tokens)
                return state
            return compare_with_base(place, repository, base, number=number, tokens=tokens)

    return _told(work)


@flow(name="monitor")
def monitor() -> State[None]:
    """Hold the place of the watch for drift; until that is built, its state says that nothing was looked at."""
    return Completed(name=NOT_BUILT, message="nothing was monitored: the watch for drift is not built yet")


def _told(work: Callable[[], State[None]]) -> State[None]:
    """Turn a fault that the user can mend into a state of one line; a traceback would say nothing more."""
    try:
        return work()
    except Ended as ended:
        return ended.state
    except PlumblineError as error:
        return Failed(message=str(error))


@contextmanager
def _line_in_clone(repository: str, revision: str) -> Iterator[tuple[Path, State[None]]]:
    """Run the line in a clean clone; give the clone, which is ours until this ends, and how the line ended."""
    log = get_run_logger()
    # A repository here shares its own cache: what was made in it is not made again, and the other way round.
    cache = local_cache(repository)
    with clean_clone(default_home(), repository, revision, wait=True, cache=cache, on_wait=log.info) as place:
        log.info("%s at %s, in %s", revision, git(place, "log", "-1", "--format=%h %s"), place)
        if text := environment_differs(place / CONSTRAINTS):
            log.warning(text)
        params = read_flow_params(place)
        with sharing(_machine()) as machine:
            machine.take(wait=True)  # what is measured by another run is not disturbed by hashing either
            bring_outputs(place, params.remote, params.remote_retry_s, log.info)
            machine.give_back()
            state = run_line(place)
        yield place, state


def _machine() -> Machine:
    """Return this machine for the flow run of now; to wait for it ends with the flow."""
    context = FlowRunContext.get()
    assert context is not None, "the line runs in a flow"
    assert context.flow_run is not None
    return Machine(default_home(), get_run_logger().info, look_at(context.flow_run.id))


def _bring_back(place: Path, repository: str, revision: str, state: State[None]) -> State[None]:
    """Push data, then the branch that needs it; tell both in the state."""
    params: FlowParams = read_flow_params(place)
    log = get_run_logger()
    push_outputs(place, params.remote, params.remote_retry_s, log.info)
    branch = push_results(place, repository, revision, _commit_message(place, revision, state))
    if branch is None:
        return Completed(message=f"{state.message}; the commit has these results already")
    if not has_remote(place, params.remote) and local_cache(repository) is None:
        log.warning(
            "there is no DVC remote: the branch's data is in %s alone; `dvc remote add --default` and commit it",
            default_home() / "cache",
        )
    return Completed(message=f"{state.message}; results: branch {branch}")


def _commit_message(place: Path, revision: str, state: State[None]) -> str:
    context = FlowRunContext.get()
    run = context.flow_run if context is not None else None
    told = f"\nPrefect flow run: {run.name} ({run.id})" if run is not None else ""
    commit = git(place, "rev-parse", "--short", "HEAD")
    return f"Retrain of {revision} at {commit}\n\n{state.message}{told}\n"


def environment_differs(constraints: Path) -> str:
    """Say how this environment differs from a commit's constraints.txt, or "" where it does not.

    A package that is not installed does not count: constraints name more than one machine needs.
    """
    if not constraints.is_file():
        return ""
    wanted = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;#]+)", constraints.read_text("utf-8"), re.MULTILINE)
    others = [
        f"{name} {asked} (here {here})" for name, asked in wanted if (here := _installed(name)) not in ("", asked)
    ]
    if not others:
        return ""
    more = f" and {len(others) - 3} more" if len(others) > 3 else ""
    return (
        f"this commit's {CONSTRAINTS} differs from the worker's environment: {', '.join(others[:3])}{more}; results may"
        " differ from those of `make repro` at this commit: check it out, `make setup`, and start the worker from there"
    )


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
