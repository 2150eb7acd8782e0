"""What a run in a clean clone brings back: a branch with the results, and their data in DVC's remote."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pipelines.clones import is_below, made_files
from pipelines.mirror import FULL_SHA, CloneError, git, redacted, with_login
from pipelines.run_stage import run_dvc
from plumbline.errors import PlumblineError

PREFIX = "plumbline/retrain"
# A commit needs an author, and a worker's machine may have told git none.
AUTHOR = {
    "GIT_AUTHOR_NAME": "plumbline",
    "GIT_AUTHOR_EMAIL": "plumbline@localhost",
    "GIT_COMMITTER_NAME": "plumbline",
    "GIT_COMMITTER_EMAIL": "plumbline@localhost",
}
# Below .dvc/tmp, which git ignores: this clone has what the caches had of its commit.
BROUGHT = Path(".dvc/tmp/plumbline-brought")
FIRST_PAUSE_S = 2.0


class RemoteError(PlumblineError):
    """DVC's remote, or the repository, takes or gives nothing."""


def has_remote(place: Path, name: str) -> bool:
    """Say whether there is a DVC remote of this name, or for "" a default one.

    Raises:
        RemoteError: The name is that of none.
    """
    from dvc.config import Config

    config = Config(os.fspath(place / ".dvc"))
    if name and name not in config["remote"]:
        known = ", ".join(config["remote"]) or "none"
        raise RemoteError(f"params.yaml: flow.remote is {name!r}, expected a DVC remote ({known}); correct it")
    return bool(name or config["core"].get("remote"))


def bring_outputs(place: Path, remote: str, retry_s: float, tell: Callable[[str], None]) -> None:
    """Put what the shared cache and the remote have of a commit's outputs into its clone, once for each clone.

    Later on a clone has what its own runs left; what they left half-done is not taken away again.

    Args:
        place: The clone.
        remote: Name of the DVC remote, or "" for the default one.
        retry_s: How long a remote that refuses is tried again.
        tell: Gets DVC's lines.

    Raises:
        RemoteError: The cache or the remote cannot be read.
    """
    if (place / BROUGHT).is_file():
        return
    code = run_dvc(place, ["checkout", "--quiet", "--force", "--allow-missing"], tell)
    if code:
        raise RemoteError(f"{place}: `dvc checkout` failed, see the lines above; correct what they say and run again")
    if has_remote(place, remote):
        _insistently(place, ["pull", "--quiet", "--force", "--allow-missing", *_named(remote)], retry_s, tell)
    (place / BROUGHT).parent.mkdir(parents=True, exist_ok=True)
    (place / BROUGHT).touch()


def push_outputs(place: Path, remote: str, retry_s: float, tell: Callable[[str], None]) -> bool:
    """Push the outputs that dvc.lock names to the remote; say whether there is one.

    Raises:
        RemoteError: It does not take them.
    """
    if not has_remote(place, remote):
        return False
    _insistently(place, ["push", "--quiet", *_named(remote)], retry_s, tell)
    return True


def _named(remote: str) -> list[str]:
    return ["--remote", remote] if remote else []


def _insistently(place: Path, command: Sequence[str], retry_s: float, tell: Callable[[str], None]) -> None:
    until, pause = time.monotonic() + retry_s, FIRST_PAUSE_S
    while run_dvc(place, command, tell):
        if time.monotonic() + pause > until:
            hint = "see the lines above, and run again when the remote answers"
            raise RemoteError(f"{place}: `dvc {command[0]}` failed for {retry_s:g} s; {hint}")
        tell(f"dvc {command[0]} is tried again in {pause:g} s")
        time.sleep(pause)
        pause = min(pause * 2, 60.0)


def push_results(place: Path, repository: str, revision: str, message: str) -> str | None:
    """Commit what DVC has written for git in a clone, and push the commit as a branch; the clone's HEAD stays.

    The branch's name says which commit was run and, by a hash, what came out: the same results have the same branch.

    Args:
        place: The clone.
        repository: Where it was cloned from.
        revision: As it was asked for.
        message: Of the commit.

    Returns:
        The branch, or None where the commit has these very results already.

    Raises:
        RemoteError: The repository does not take it.
    """
    head = git(place, "rev-parse", "HEAD")
    tree = _tree_of_results(place)
    if tree == git(place, "rev-parse", f"{head}^{{tree}}"):
        return None
    branch = branch_name(revision, head, tree)
    repository = with_login(repository)
    try:
        if git(place, "ls-remote", "--heads", repository, f"refs/heads/{branch}"):
            return branch
        commit = git(place, "commit-tree", tree, "-p", head, stdin=message, more=AUTHOR)
        git(place, "update-ref", f"refs/heads/{branch}", commit)
        git(place, "push", "--quiet", repository, f"{commit}:refs/heads/{branch}")
    except CloneError as error:
        said = str(error).replace(repository, redacted(repository)).partition(": ")[2]
        hint = (
            f"the results are the branch {branch} of {place}; let this user push, and run again, which repeats no stage"
        )
        raise RemoteError(f"{redacted(repository)}: the results cannot be pushed: {said}; {hint}") from error
    return branch


def branch_name(revision: str, commit: str, tree: str) -> str:
    """Name the branch of a run's results.

    >>> branch_name("main", "1a2b3c4d5e6f", "9f8e7d6c5b4a"), branch_name("1" * 40, "1" * 40, "2" * 40)
    ('plumbline/retrain-main-1a2b3c4d-9f8e7d6c', 'plumbline/retrain-11111111-22222222')
    """
    readable = re.sub(r"[^A-Za-z0-9_]+", "-", revision).strip("-")
    words = [] if FULL_SHA.fullmatch(revision) or not readable else [readable]
    return "-".join([PREFIX, *words, commit[:8], tree[:8]])


def _tree_of_results(place: Path) -> str:
    """Write the tree of HEAD with what DVC has made since, through an index of its own."""
    made = made_files(place)
    with tempfile.TemporaryDirectory(prefix="plumbline-index-") as folder:
        index = {"GIT_INDEX_FILE": f"{folder}/index"}
        git(place, "read-tree", "HEAD", more=index)
        listed = git(place, "ls-files", "-z", "--cached", "--others", "--exclude-standard", more=index).split("\0")
        names = sorted({name for name in listed if name and is_below(name.rstrip("/"), made)})
        git(place, "update-index", "--add", "--remove", "-z", "--stdin", stdin="\0".join([*names, ""]), more=index)
        return git(place, "write-tree", more=index)
