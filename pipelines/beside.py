"""Run the line with other params beside this working tree: ``python -m pipelines.beside NAME --set KEY=VALUE``.

The run has a folder of its own, ``.cache/beside/NAME``, a git worktree that shares DVC's cache, so nothing changes here
but ``reports/NAME``, which gets its reports. Its code is that of the working tree, committed or not. The folder stays:
a run that was interrupted goes on where it stopped, and one that is asked for again does only what has changed. The
result is the DVC experiment NAME (``dvc exp show``).

Not ``dvc exp run --temp``: that leaves out new files that git does not know yet, takes a name twice only with
``--force``, which runs every stage again, and throws a half-done training away (DVC 3.67).
"""

from __future__ import annotations

import argparse
import copy
import filecmp
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from ruamel.yaml import YAML

from pipelines.check_params import Override, check_params, parse_override, stage_sections
from pipelines.file_lock import locked
from pipelines.interrupts import exit_on_sigterm
from pipelines.run_stage import run_dvc
from plumbline.errors import PlumblineError
from plumbline.files import replacing
from plumbline.split_assignment import gone_images, read_assignment, write_assignment
from stages.shape import PARAMS_FILE, exit_code

FOLDER = Path(".cache/beside")
REPORTS = "reports"
ASSIGNMENT = "data/splits.csv"
# What a run makes and git knows: each folder has its own.
MADE = ("dvc.lock", ASSIGNMENT, f"{REPORTS}/")
# Params that may name a file or folder of this machine; `*` is any key.
PATHS = (("dataset", "source"), ("train", "*", "pretrained"))


class BesideError(PlumblineError):
    """A run beside the working tree's cannot be made."""


def run_beside(root: Path, name: str, overrides: Sequence[Override]) -> Path:
    """Run every stage that is not up to date in the folder of `name`; return where its reports are now.

    Args:
        root: The DVC project's root, which is the root of its git repository.
        name: Of the experiment, the folder, and the reports.
        overrides: What differs from params.yaml.

    Raises:
        PlumblineError: A param is wrong, the name cannot be used, it is running already, or a stage failed.
    """
    _check_name(root, name)
    check_params(root / PARAMS_FILE, stage_sections(), overrides)
    _check_identity(root)
    place = root / FOLDER / name
    with _alone(place):
        is_new = open_worktree(root, place)
        mirror(root, place, apart=() if is_new else MADE)
        share_cache(root, place)
        if is_new:  # what was made here is not made again there; what the cache lacks is
            _dvc(place, "checkout", "--quiet", "--allow-missing")
        carry_assignment(root / ASSIGNMENT, place / ASSIGNMENT)
        write_params(root, place, overrides)
        _repro(place, name)
        _git(place, "add", "--all")  # an experiment holds what git knows
        _dvc(place, "exp", "save", "--force", "--name", name)
        _git(place, "reset", "--quiet")
        return keep_reports(root, place, name)


def _check_name(root: Path, name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_-]*", name):
        raise BesideError(f"the name {name!r} cannot be used, expected small letters, digits, - and _; choose another")
    lists = [root / "dvc.yaml", root / ".gitignore"]
    taken = {found for path in lists for found in re.findall(rf"{REPORTS}/([\w-]+)", path.read_text("utf-8"))}
    if name in taken:
        raise BesideError(f"the name {name!r} is that of a folder of {REPORTS}/; choose another")


def _check_identity(root: Path) -> None:
    """Refuse now what ``dvc exp save`` would refuse after the whole run."""
    for key, example in (("user.name", "Ada"), ("user.email", "ada@example.com")):
        try:
            _git(root, "config", key)
        except BesideError as error:
            hint = f"`git config --global {key} {example}` tells it"
            raise BesideError(f"git has no {key}, expected one, as an experiment is a commit; {hint}") from error


@contextmanager
def _alone(place: Path) -> Iterator[None]:
    """Let no second run into the folder while this one is in it, however this one ends."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(place.with_name(f"{place.name}.lock"), wait=False))
        except BlockingIOError as error:
            raise BesideError(f"{place}: a run of this name is under way; wait for its end, or end it") from error
        yield


def open_worktree(root: Path, place: Path) -> bool:
    """Make the worktree at the commit that is checked out here, or move it there; files that are in it stay.

    Returns:
        Whether it is new.

    Raises:
        BesideError: There is no git repository, or no commit in it.
    """
    commit = _git(root, "rev-parse", "--verify", "HEAD^{commit}")
    if place.is_dir() and not _is_worktree_of(root, place):  # half made, or copied with the project from elsewhere
        shutil.rmtree(place)
    if place.is_dir():
        _git(place, "reset", "--quiet", "--mixed", commit)
        return False
    _git(root, "worktree", "prune")
    # Without hooks: `dvc install` has one that would check out gigabytes that are not needed here.
    _git(root, "-c", f"core.hooksPath={os.devnull}", "worktree", "add", "--quiet", "--detach", str(place), commit)
    return True


def _is_worktree_of(root: Path, place: Path) -> bool:
    listed = _git(root, "worktree", "list", "--porcelain", "-z").split("\0")
    if f"worktree {place.resolve()}" not in listed or not (place / ".git").is_file():
        return False
    # A copied project's .git file still names the worktree of the project that it was copied from.
    of = Path((place / ".git").read_text("utf-8").removeprefix("gitdir:").strip())
    return of.resolve().is_relative_to(Path(_git(root, "rev-parse", "--absolute-git-dir")).resolve())


def mirror(root: Path, place: Path, apart: tuple[str, ...]) -> None:
    """Make the files of `place` those of `root`, but for what git ignores.

    Args:
        root: The working tree.
        place: Another of the same repository.
        apart: What names begin with that are left as they are.
    """
    wanted = _files(root, apart)
    for name in _files(place, apart) - wanted:
        (place / name).unlink()
    for name in sorted(wanted):
        here, there = root / name, place / name
        if there.is_file() and not there.is_symlink() and filecmp.cmp(here, there, shallow=False):
            continue
        if there.is_dir() and not there.is_symlink():
            shutil.rmtree(there)
        there.unlink(missing_ok=True)
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(here, there)


def _files(folder: Path, apart: tuple[str, ...]) -> set[str]:
    names = _git(folder, "ls-files", "--cached", "--others", "--exclude-standard", "-z").split("\0")
    return {name for name in names if name and not name.startswith(apart) and (folder / name).is_file()}


def share_cache(root: Path, place: Path) -> None:
    """Let DVC in `place` use the cache of `root`, and what else is set for this machine alone."""
    from dvc.config import Config
    from dvc.repo import Repo

    local = root / ".dvc" / "config.local"
    if local.is_file():
        shutil.copy2(local, place / ".dvc" / "config.local")
    with Repo(str(root)) as repo, Config(str(place / ".dvc")).edit("local") as config:
        config["cache"]["dir"] = str(repo.cache.local_cache_dir)


def carry_assignment(here: Path, there: Path) -> None:
    """Bring where images were dealt here into a run on images of the same data set, so that the two can be compared.

    A run on another data set keeps its own, so that none of its images ever moves either.

    Args:
        here: The working tree's data/splits.csv.
        there: The run's own, of an earlier run.
    """
    ours, its = read_assignment(here), read_assignment(there)
    if ours["sha256"].isin(its["sha256"]).any():
        write_assignment(ours, ours["split"].to_numpy(object), there, gone_images(ours, its))


def write_params(root: Path, place: Path, overrides: Sequence[Override]) -> None:
    """Write params.yaml with the overrides, and paths that only lead somewhere from here made absolute."""
    yaml = YAML()
    yaml.width = 4096
    values = yaml.load((root / PARAMS_FILE).read_text("utf-8"))
    for override in overrides:
        node = values
        for key in override.keys[:-1]:
            node = node.setdefault(key, {})
        node[override.keys[-1]] = copy.deepcopy(override.value)
    changed = [_absolute(root, place, values, keys) for keys in PATHS]
    if overrides or any(changed):
        with replacing(place / PARAMS_FILE) as temporary, temporary.open("w", encoding="utf-8") as file:
            yaml.dump(values, file)


def _absolute(root: Path, place: Path, values: Any, keys: Sequence[str]) -> bool:
    """Make the path at `keys` absolute in place, where it leads to something in `root` that `place` has not."""
    first, *rest = keys
    if not isinstance(values, dict):
        return False
    if rest:
        inner = list(values.values()) if first == "*" else [values.get(first)]
        changed = [_absolute(root, place, value, rest) for value in inner]
        return any(changed)
    path = values.get(first)
    if not isinstance(path, str) or not path or not (root / path).exists() or (place / path).exists():
        return False
    values[first] = str((root / path).resolve())
    return True


def _repro(place: Path, name: str) -> None:
    """Run the stages, line by line as they speak; all that was started ends with us."""
    if run_dvc(place, ["repro"], lambda line: print(line, flush=True)):  # noqa: T201 - the stages' own output
        raise BesideError(
            f"{name}: a stage failed, see above; {REPORTS}/{name} is as it was; correct it and run this again, which"
            " goes on from there"
        )


def keep_reports(root: Path, place: Path, name: str) -> Path:
    """Put the reports that git takes (no predictions, no findings' pictures) into ``reports/NAME`` in one step."""
    outs = _outs(place / "dvc.lock")
    names = _git(place, "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", REPORTS).split("\0")
    kept = [each for each in sorted(set(names)) if (place / each).is_file() and _is_below(each, outs)]
    with replacing(root / REPORTS / name) as folder:
        folder.mkdir()
        for each in kept:
            target = folder / PurePosixPath(each).relative_to(REPORTS)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(place / each, target)
    return root / REPORTS / name


def _outs(lock: Path) -> set[str]:
    stages = YAML(typ="safe", pure=True).load(lock.read_text("utf-8"))["stages"]
    return {out["path"] for stage in stages.values() for out in stage.get("outs", [])}


def _is_below(name: str, outs: set[str]) -> bool:
    path = PurePosixPath(name)
    return not outs.isdisjoint({name, *(str(parent) for parent in path.parents)})


def _git(folder: Path, *arguments: str) -> str:
    return _output(["git", *arguments], folder, "git")


def _dvc(folder: Path, *arguments: str) -> str:
    return _output([sys.executable, "-m", "dvc", *arguments], folder, "dvc")


def _output(command: Sequence[str], folder: Path, program: str) -> str:
    """Return what a command prints.

    Raises:
        BesideError: It fails, with the last line that it said.
    """
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    except OSError as error:
        raise BesideError(f"{program} cannot be run ({error}); install it") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no output"]
        said = next((line for line in lines if line.startswith(("fatal: ", "ERROR: "))), lines[-1])
        shown = " ".join([program, *command[command.index(program) + 1 :]])
        raise BesideError(f"{folder}: `{shown}` failed: {said.removeprefix('fatal: ').removeprefix('ERROR: ')}")
    return done.stdout.strip("\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run beside: 0, or 1 and one line on stderr; 130 or 143 when interrupted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", help="of the DVC experiment, and of the folder in reports/")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as in make repro; repeatable")
    parser.add_argument("--root", type=Path, default=Path(), metavar="PATH", help="the project (default: here)")
    arguments = parser.parse_args(argv)

    def work() -> None:
        overrides = [parse_override(text) for text in arguments.set]
        reports = run_beside(arguments.root.resolve(), arguments.name, overrides)
        print(f"{arguments.name}: {os.path.relpath(reports)}; `dvc exp show` compares", flush=True)  # noqa: T201

    exit_on_sigterm()
    try:
        return exit_code(work)
    except KeyboardInterrupt:
        print("interrupted: run it again to go on from there", file=sys.stderr, flush=True)  # noqa: T201
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
