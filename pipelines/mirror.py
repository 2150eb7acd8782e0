"""A bare mirror of a git repository, fetched whenever a commit is asked for; and how git is called for it."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipelines.file_lock import locked
from plumbline.errors import PlumblineError
from plumbline.files import replacing

FULL_SHA = re.compile(r"[0-9a-f]{40}")
# No option, and no refspec: a colon would say where in the mirror it is written to.
REVISION = re.compile(r"[^\s:*?\[\\^+-][^\s:*?\[\\]*")
# What git takes from a hook or a shell that works on another repository.
FOREIGN = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_PREFIX")


REPOSITORY_VARIABLE = "PLUMBLINE_REPOSITORY"  # where code is fetched from, in place of what else would be taken
# In this process: a collection in the background would go on behind our lock, with locks of its own.
FOREGROUND = ("-c", "gc.autoDetach=false", "-c", "maintenance.autoDetach=false")


class CloneError(PlumblineError):
    """A commit cannot be brought into a clone of its own."""


@dataclass(frozen=True)
class Mirror:
    """A bare copy of a repository's branches and tags.

    Attributes:
        folder: Holds the mirror, and the clones beside it.
        repository: As git takes it; a path is absolute.
        local: Its path, where it is on this machine.
    """

    folder: Path
    repository: str
    local: Path | None

    @classmethod
    def of(cls, home: Path, repository: str) -> Mirror:
        """Name the mirror of a repository, which is read with the login that this machine has for it; see `with_login`.

        Raises:
            CloneError: The name cannot be one of a repository.
        """
        if not repository or repository.startswith("-"):
            raise CloneError(f"repository {repository!r}: expected a path or an URL; correct the parameter")
        repository = with_login(repository)
        path = Path(repository.removeprefix("file://")).expanduser()
        local = path.resolve() if path.exists() else None
        name = str(local or repository)
        # Without what stands before the @: a new token is not another repository.
        digest = hashlib.sha256(redacted(name).encode()).hexdigest()[:8]
        words = re.sub(r"[^\w.-]+", "-", PurePosixPath(name).name.removesuffix(".git")).strip("-.") or "repository"
        return cls(home.resolve() / "clones" / f"{words}-{digest}", name, local)

    @property
    def git_dir(self) -> Path:
        """The bare repository."""
        return self.folder / "mirror.git"

    def fetched(self, revision: str) -> str:
        """Bring the repository's branches and tags here and return the commit that a revision names in it now.

        A full hash that is here already is not asked for: what it names never changes.

        Raises:
            CloneError: The repository cannot be read, or has no such commit.
        """
        if not REVISION.fullmatch(revision):
            raise CloneError(f"revision {revision!r}: expected a branch, tag or commit; correct the parameter")
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / "mirror.lock", wait=True):
            remove_locks(self.git_dir)
            if not (self.git_dir / "HEAD").is_file():
                with replacing(self.git_dir) as temporary:
                    git(self.folder, "init", "--quiet", "--bare", str(temporary))
                    # A clone asks for its commit by hash, also where no branch has it any more.
                    git(temporary, "config", "uploadpack.allowAnySHA1InWant", "true")
            if FULL_SHA.fullmatch(revision) and (known := self._commit(revision)):
                return known
            self._fetch("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
            commit = self._named(revision)
            git(self.git_dir, "update-ref", f"refs/plumbline/{commit}", commit)  # git gc keeps it
        return commit

    def _named(self, revision: str) -> str:
        # HEAD would be the mirror's own, which says nothing about the repository's.
        own = revision.startswith(("HEAD", "@", "FETCH_HEAD"))
        found = None if own else self._commit(f"refs/heads/{revision}") or self._commit(revision)
        if found:
            return found
        try:
            # What is neither branch nor tag: a pull request's ref, the repository's HEAD, a hash that no branch has.
            self._fetch(revision)
        except CloneError as error:
            hint = "commit or push it there, or correct the revision"
            raise CloneError(
                f"{redacted(self.repository)}: no commit {revision!r}, expected a branch, tag or commit; {hint}"
            ) from error
        return git(self.git_dir, "rev-parse", "--verify", "FETCH_HEAD^{commit}")

    def _commit(self, name: str) -> str | None:
        try:
            return git(self.git_dir, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        except CloneError:
            return None

    def _fetch(self, *refs: str) -> None:
        options = ("--quiet", "--force", "--no-tags", "--prune", "--update-shallow")
        try:
            git(self.git_dir, "fetch", *options, self.repository, *refs)
        except CloneError as error:
            shown = redacted(self.repository)
            said = str(error).replace(self.repository, shown).partition(": ")[2]
            hint = "correct the path or the URL, or let this user read it"
            raise CloneError(f"{shown}: this repository cannot be fetched: {said}; {hint}") from error

    def object_at(self, commit: str, path: str) -> str | None:
        """Return git's hash of a file or folder of a commit, or None where the commit has none there."""
        try:
            return git(self.git_dir, "rev-parse", "--verify", "--quiet", f"{commit}:{path}")
        except CloneError:
            return None

    def read(self, commit: str, path: str) -> str:
        """Return the text of a commit's file.

        Raises:
            CloneError: The commit has no such file.
        """
        return git(self.git_dir, "show", f"{commit}:{path}")


def redacted(repository: str) -> str:
    """Leave out the user and the password of an URL.

    The user of ssh stays: it is no secret, and without it the URL leads nowhere.

    >>> redacted("https://me:secret@example.com/a.git"), redacted("git@example.com:a.git")
    ('https://example.com/a.git', 'git@example.com:a.git')
    >>> redacted("https://me:se@cret@example.com/a.git"), redacted("ssh://git:secret@example.com/a.git")
    ('https://example.com/a.git', 'ssh://git@example.com/a.git')
    """
    if found := re.match(r"((?:git\+)?ssh(?:\+git)?://[^/:@]*)(:[^/]*)?@", repository):
        return f"{found[1]}@{repository[found.end() :]}"
    return re.sub(r"^([\w+.-]+://)[^/]*@", r"\1", repository)


def with_login(repository: str) -> str:
    """Return $PLUMBLINE_REPOSITORY in place of what it is without its login: a parameter, which all see, has none."""
    own = os.environ.get(REPOSITORY_VARIABLE, "")
    return own if own and redacted(own) == repository else repository


def remove_locks(git_dir: Path) -> None:
    """Remove the locks that a git which was killed has left, since every later one is refused. Call it as the only one.

    Locks on objects stay: git goes on without them.
    """
    for root, folders, files in os.walk(git_dir):
        if Path(root) == git_dir and "objects" in folders:
            folders.remove("objects")
        for name in files:
            if name.endswith(".lock"):  # no ref's name may end so
                (Path(root) / name).unlink()


def git(
    folder: Path, *arguments: str, stdin: str = "", check: bool = True, more: Mapping[str, str] | None = None
) -> str:
    """Return what a git command prints; it never asks, and runs no hook.

    Args:
        folder: Where it runs.
        arguments: As after ``git``.
        stdin: What it reads.
        check: Whether a failure is an error.
        more: Added to its environment.

    Raises:
        CloneError: It fails, with the line that says why.
    """
    environment = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    environment |= {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C.UTF-8", **(more or {})}
    # `dvc install` has hooks that would check out gigabytes.
    command = ["git", "-c", f"core.hooksPath={os.devnull}", *FOREGROUND, *arguments]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            input=stdin,
            capture_output=True,
            text=True,
            errors="surrogateescape",  # names of files
            check=False,
        )
    except OSError as error:
        raise CloneError(f"git cannot be run ({error}); install it") from error
    if check and done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        said = next((line for line in lines if line.startswith(("fatal: ", "error: "))), lines[-1])
        said = said.removeprefix("fatal: ").removeprefix("error: ")
        raise CloneError(f"{folder}: `git {arguments[0]}` failed: {said}")
    return done.stdout.strip("\n")
