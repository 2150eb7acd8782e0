"""Clean clones of one commit each, for runs that must not see what a working tree happens to hold.

Below a home stand, for every repository, a bare mirror that is fetched before each run (`pipelines.mirror`), and a
clone for each commit that was asked for. A clone's tracked files are those of its commit. What git ignores stays from
one run of the commit to the next (DVC's outputs, the checkpoints of a training), and so does what DVC itself has
written for git (dvc.lock, metrics, data/splits.csv): a run that was killed goes on, and one that had ended has nothing
to do. Clones share one DVC cache, so that no commit makes again what another has made.

Not git worktrees: their branches would be the mirror's, and a fetch that prunes takes those away.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipelines.clone_lock import mend
from pipelines.file_lock import locked
from pipelines.mirror import CloneError, Mirror, git, redacted, remove_locks
from plumbline.files import replacing

HOME_VARIABLE = "PLUMBLINE_HOME"
# Where a clone came from, in its git config: its origin is a mirror on this machine. No password.
REPOSITORY_KEY = "plumbline.repository"
KEEP = 5  # clones of a repository: outputs that DVC links or copies from its cache are large


def default_home() -> Path:
    """Return where clones, mirrors and the shared cache are: $PLUMBLINE_HOME, else .cache/server in this project."""
    named = os.environ.get(HOME_VARIABLE)
    return Path(named).expanduser().resolve() if named else Path(__file__).parent.parent / ".cache" / "server"


@contextmanager
def clean_clone(
    home: Path,
    repository: str,
    revision: str,
    *,
    wait: bool = False,
    cache: Path | None = None,
    keep: int = KEEP,
    on_wait: Callable[[str], None] | None = None,
) -> Iterator[Path]:
    """Give a clean clone of a commit that nobody else works in until this ends.

    Args:
        home: Folder of all clones; see `default_home`.
        repository: A path or an URL, as git takes it. Nothing in it is changed.
        revision: A branch, a tag, a commit, or a ref such as ``refs/pull/5/head``; it is resolved once.
        wait: For a run that is in the clone of this commit already, instead of refusing.
        cache: DVC's cache; by default the home's own, ``home/cache``.
        keep: The clones of the repository that were used last stay, so many; the others go.
        on_wait: Is told once, in words, that another run is waited for.

    Raises:
        CloneError: There is no such repository or commit, it is no DVC project, or another run is in its clone.
    """
    mirror = Mirror.of(home, repository)
    commit = mirror.fetched(revision)
    place = mirror.folder / commit[:12]
    with _alone(place, wait, on_wait):
        _prune(mirror.folder, keep)  # first: a full disk would let nothing else succeed; this one is in use
        _make_clean(mirror, place, commit)
        _share_settings(mirror.local, place, cache or home.resolve() / "cache")
        mend(place)
        yield place


def local_cache(repository: str) -> Path | None:
    """Return the DVC cache of a repository on this machine that is a DVC project with a working tree, else None."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    path = Path(repository.removeprefix("file://")).expanduser()
    if not (path / ".dvc").is_dir():
        return None
    try:
        with Repo(os.fspath(path.resolve())) as repo:
            return Path(repo.cache.local_cache_dir)
    except DvcException as error:
        raise CloneError(f"{path}: not a DVC project ({error}); correct the repository") from error


def _make_clean(mirror: Mirror, place: Path, commit: str) -> None:
    """Make the clone, or give it back its commit's files; outputs and what git ignores stay."""
    if place.exists() and not _is_whole(place):
        shutil.rmtree(place)
    if not place.exists():
        for left in place.parent.glob(f".{place.name}.*"):  # of a clone whose making was killed
            shutil.rmtree(left, ignore_errors=True)
        with replacing(place) as temporary:
            # Local: objects are hard links to the mirror's, so a clone costs its files alone.
            git(mirror.folder, "clone", "--quiet", "--local", "--no-checkout", str(mirror.git_dir), str(temporary))
            git(temporary, "fetch", "--quiet", "origin", commit)
            git(temporary, "checkout", "--quiet", "--force", "--detach", commit)
    else:
        remove_locks(place / ".git")  # nobody else is here
        git(place, "fetch", "--quiet", "--prune", "origin")
        git(place, "update-ref", "--no-deref", "HEAD", commit)
        git(place, "read-tree", "--reset", commit)
        _restore(place, made_files(place))
    git(place, "config", REPOSITORY_KEY, redacted(mirror.repository))
    if not (place / ".dvc" / "config").is_file():
        hint = "`dvc init` makes one, and commit it"
        raise CloneError(f"{redacted(mirror.repository)}: no DVC project at the root of {commit[:12]}; {hint}")


def _is_whole(place: Path) -> bool:
    if not (place / ".git" / "HEAD").is_file():  # git would look for a repository above
        return False
    try:
        git(place, "rev-parse", "--verify", "HEAD^{commit}")
    except CloneError:
        return False
    return True


def _restore(place: Path, made: set[str]) -> None:
    """Give the index's content to every tracked file but the `made`, and take away untracked ones that are not."""
    git(place, "update-index", "-q", "--refresh", check=False)
    changed = _listed(place, "diff-files", "--name-only")
    wanted = [name for name in changed if not is_below(name, made)]
    git(place, "checkout-index", "--force", "-z", "--stdin", stdin="".join(f"{name}\0" for name in wanted))
    for name in _listed(place, "ls-files", "--others", "--exclude-standard"):
        path = place / name
        if is_below(name.rstrip("/"), made):
            continue
        if path.is_dir() and not path.is_symlink():  # a repository in the repository
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def made_files(place: Path) -> set[str]:
    """Return the paths that DVC writes in a clone: every dvc.lock that can be read, and all outputs named there."""
    made: set[str] = set()
    for name in _listed(place, "ls-files", "--cached", "--others", "--exclude-standard", "--", "*dvc.lock"):
        folder = PurePosixPath(name).parent
        try:
            lock = YAML(typ="safe").load((place / name).read_text("utf-8"))
            outs = [out["path"] for stage in lock["stages"].values() for out in stage.get("outs", [])]
        except (OSError, UnicodeDecodeError, YAMLError, TypeError, KeyError, AttributeError):
            continue  # gone, or half-written by a run that was killed: the commit's is taken
        made |= {name, *(os.path.normpath(folder / str(out)) for out in outs)}
    return made


def is_below(name: str, paths: set[str]) -> bool:
    """Say whether a path is one of `paths` or stands in one of them.

    >>> is_below("reports/split/a.json", {"reports/split"}), is_below("reports/split.json", {"reports/split"})
    (True, False)
    """
    path = PurePosixPath(name)
    return not paths.isdisjoint({name, *(str(parent) for parent in path.parents)})


def _share_settings(source: Path | None, place: Path, cache: Path) -> None:
    """Write the clone's .dvc/config.local: the shared cache, and of a repository here what leads to its remotes."""
    from dvc.config import Config

    own: dict[str, Any] = {}
    if source is not None and (source / ".dvc" / "config.local").is_file():
        own = Config(os.fspath(source / ".dvc")).read("local")
    target = place / ".dvc" / "config.local"
    target.unlink(missing_ok=True)
    target.touch(mode=0o600)  # it may hold a remote's password
    with Config(os.fspath(place / ".dvc")).edit("local", validate=False) as config:
        if source is not None:
            config["remote"] = _beside_source(place, source)
        for section, values in own.items():
            for key, value in values.items():
                known = config.setdefault(section, {}).get(key)
                config[section][key] = {**known, **value} if isinstance(known, dict) else value
        config["cache"]["dir"] = str(cache)


def _beside_source(place: Path, source: Path) -> dict[str, dict[str, str]]:
    """Return the committed remotes whose url is a relative path: from the clone it would lead elsewhere."""
    from dvc.config import Config

    remotes = Config.load_file(os.fspath(place / ".dvc" / "config")).get("remote", {})
    return {
        name: {"url": os.path.normpath(source / ".dvc" / url)}
        for name, settings in remotes.items()
        if (url := settings.get("url", "")) and "://" not in url and not Path(url).expanduser().is_absolute()
    }


def _prune(folder: Path, keep: int) -> None:
    """Remove all clones but those used last; one that a run is in stays."""
    locks = sorted(folder.glob("????????????.lock"), key=lambda path: path.stat().st_mtime, reverse=True)
    for lock in locks[max(keep, 1) :]:
        try:
            with locked(lock, wait=False):
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                if not lock.with_suffix("").exists():
                    lock.unlink()
        except BlockingIOError:
            continue


@contextmanager
def _alone(place: Path, wait: bool, on_wait: Callable[[str], None] | None) -> Iterator[None]:
    path = place.with_name(f"{place.name}.lock")
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(path, wait=False))
        except BlockingIOError as error:
            if not wait:
                raise CloneError(f"{place}: a run is in this clone already; wait for its end, or cancel it") from error
            if on_wait:
                on_wait(f"waiting for another run in {place} to end")
            stack.enter_context(locked(path, wait=True))
        yield


def _listed(place: Path, command: str, *arguments: str) -> list[str]:
    return [name for name in git(place, command, "-z", *arguments).split("\0") if name]
