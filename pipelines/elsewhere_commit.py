"""The commit that a worker on another machine gets: it must hold the code that is here, and be where workers fetch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipelines.clones import REPOSITORY_KEY
from pipelines.mirror import REPOSITORY_VARIABLE, CloneError, git, redacted
from plumbline.errors import PlumblineError


class CommitError(PlumblineError):
    """What is here cannot be given to a worker as a commit."""


@dataclass(frozen=True)
class Commit:
    """Code that a worker can fetch.

    Attributes:
        repository: Where workers fetch it, without a password: each machine has its own.
        commit: The whole hash.
        folder: The DVC project's, in the repository; "" for its root.
    """

    repository: str
    commit: str
    folder: str


def commit_for_workers(root: Path, made: Sequence[str], sources: Sequence[str]) -> Commit:
    """Return the commit that is checked out, after making sure that a worker gets from it what is here.

    Args:
        root: The DVC project's root.
        made: The outputs of all stages, relative to the root: they need not be as in the commit.
        sources: What the stage reads and no stage makes.

    Raises:
        CommitError: Something is not committed or not pushed, or there is no repository that workers can reach.
    """
    try:
        commit = git(root, "rev-parse", "--verify", "HEAD^{commit}")
        folder = git(root, "rev-parse", "--show-prefix").rstrip("/")
    except CloneError as error:
        hint = "`git init`, commit and push it: other machines get the code by git"
        raise CommitError(f"{root}: not a git repository with a commit; {hint}") from error
    changed = changed_files(root, made, sources)
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise CommitError(
            f"{changed[0]}{more}: not as in commit {commit[:8]}, which another machine would run; commit and push"
        )
    repository = repository_for_workers(root)
    if not can_be_fetched(root, repository, commit):
        raise CommitError(
            f"{redacted(repository)}: commit {commit[:8]} is not there, expected it where workers fetch it; `git push`"
        )
    return Commit(redacted(repository), commit, folder)


def changed_files(root: Path, made: Sequence[str], sources: Sequence[str]) -> list[str]:
    """Return the files, relative to the root, that a worker would not get as they are here.

    These are tracked ones that differ from the commit, and untracked ones that the stage reads.
    """
    tracked = git(root, "diff", "HEAD", "--name-only", "--relative", "-z").split("\0")
    found = [name for name in tracked if name and not is_made(name, made)]
    if sources:
        known = git(root, "ls-files", "-z", "--", *(f":(literal){name}" for name in sources)).split("\0")
        others = git(root, "ls-files", "--others", "-z", "--exclude-standard", "--", *sources).split("\0")
        found += [name for name in others if name and not is_made(name, made)]
        parents = {
            str(parent) for name in known if name for parent in (PurePosixPath(name), *PurePosixPath(name).parents)
        }
        found += [name for name in sources if name not in parents and name not in found]  # ignored by git
    return found


def is_made(name: str, made: Sequence[str]) -> bool:
    """Tell whether a file is one that DVC writes: an output, dvc.lock, or a list of what git shall ignore.

    >>> is_made("reports/a/b.json", ["reports/a"]), is_made("dvc.lock", []), is_made("dvc.yaml", ["reports"])
    (True, True, False)
    """
    path = PurePosixPath(name)
    return path.name in ("dvc.lock", ".gitignore") or any(path.is_relative_to(each) for each in made)


def repository_for_workers(root: Path) -> str:
    """Return what workers fetch from: $PLUMBLINE_REPOSITORY, else where this repository comes from.

    A repository on this machine is followed to where it comes from itself.

    Raises:
        CommitError: Nothing says it.
    """
    at, seen, found = root, set[Path](), ""
    origin = os.environ.get(REPOSITORY_VARIABLE, "")
    while at not in seen:
        seen.add(at)
        origin = origin or _config(at, REPOSITORY_KEY) or _config(at, "remote.origin.url")
        if not origin:
            break
        path = (at / Path(origin.removeprefix("file://")).expanduser()).resolve()
        found = os.fspath(path) if path.is_dir() else origin
        if not path.is_dir():
            break
        at, origin = path, ""
    if not found:
        raise CommitError(
            f"{root}: no git remote 'origin', expected the repository that workers fetch the code from; "
            f"`git remote add origin URL` and push, or set {REPOSITORY_VARIABLE}"
        )
    return found


def _config(folder: Path, key: str) -> str:
    return git(folder, "config", "--get", key, check=False)


def can_be_fetched(root: Path, repository: str, commit: str) -> bool:
    """Tell whether a branch, tag or other ref of a repository has a commit in its history.

    Raises:
        CommitError: The repository cannot be read.
    """
    try:
        listed = git(root, "ls-remote", repository)
    except CloneError as error:
        said = str(error).replace(repository, redacted(repository)).partition("failed: ")[2]
        raise CommitError(
            f"{redacted(repository)}: cannot be read: {said}; correct the remote's URL or log in"
        ) from error
    refs = dict(line.split("\t")[::-1] for line in listed.splitlines())
    tips = set(refs.values())
    if commit in tips:
        return True
    if any(_is_ancestor(root, commit, tip) for tip in tips):
        return True
    # Somebody has pushed on top of it since the last fetch.
    branches = [name for name in refs if name.startswith("refs/heads/")]
    git(root, "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", repository, *branches, check=False)
    return any(_is_ancestor(root, commit, tip) for tip in tips)


def _is_ancestor(root: Path, commit: str, tip: str) -> bool:
    try:
        git(root, "merge-base", "--is-ancestor", commit, tip)
    except CloneError:  # it is not, or the tip is not known here
        return False
    return True
