"""What one stage needs and makes, between a project and its DVC remote; a process of its own for each step.

A request is JSON on stdin, the answer JSON on stdout; `pipelines.dvc_transfer_process` starts it. A process, because
DVC is not made for threads, and because one that hangs in the network can be ended.

Four steps, on two machines:

    restore   coordinator: take the outputs from the run-cache, here or in the remote, where an equal run is there
    send      coordinator: push what the stage reads and the commit does not hold
    receive   worker: pull it
    give      worker: push what the stage made, and its entry of the run-cache
    take      coordinator: pull that, and write the stage's entry of dvc.lock
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.dvc_command import end_with_starter, replace_whole
from pipelines.dvc_transfer_objects import DIR, Objects, UnusableError, is_lasting
from plumbline.errors import PlumblineError
from plumbline.files import replacing, write_text

LOCK_SCHEMA = "2.0"  # of dvc.lock. Source: dvc/schema.py


class ItemError(PlumblineError):
    """What a stage reads or makes is not as dvc.lock says."""


@dataclass(frozen=True)
class Item:
    """A file or folder that travels.

    Attributes:
        path: Relative to the project's root.
        md5: Its hash as dvc.lock has it; "" where it is not there.
        cached: DVC puts it into place and links it to its cache; else it is a plain copy, as of what git tracks.
        only: The parts of a folder that are read, relative to it; none: all.
    """

    path: str
    md5: str
    cached: bool
    only: tuple[str, ...] = ()


class Project:
    """A DVC project, its remote, and one stage of it.

    Args:
        request: `stage` and `remote`, and what the step needs.
    """

    def __init__(self, request: dict[str, Any]) -> None:
        from dvc.repo import Repo

        self.request = request
        self.root = Path.cwd()
        self.repo = Repo(os.fspath(self.root), _wait_for_lock=True)  # as ``dvc --wait-for-lock``
        self.objects = Objects(self.repo, request["remote"])
        self.again: list[str] = request.get("again", [])

    def stage(self) -> Any:
        """Return the stage as dvc.yaml and dvc.lock have it now."""
        self.repo._reset()
        return self.repo.stage.get_target(self.request["stage"])

    def relative(self, path: str) -> str:
        """Return a path of DVC's relative to the root."""
        return Path(os.path.relpath(path, self.root)).as_posix()


def describe(project: Project) -> dict[str, Any]:
    """Say which paths stages make, and which the stage reads that none of them makes."""
    made = [out.fs_path for out in project.repo.index.outs if out.is_in_repo]
    read = [dep.fs_path for dep in project.stage().deps if dep.is_in_repo]
    return {
        "made": sorted(project.relative(path) for path in made),
        "sources": sorted(project.relative(path) for path in read if not any(overlap(path, each) for each in made)),
    }


def restore(project: Project) -> dict[str, Any]:
    """Take the outputs of an equal run out of the run-cache, the remote's too, instead of running the stage."""
    answer = describe(project)
    with project.repo.lock:
        stage = project.stage()
        stage.save_deps()
        runs = run_folder(stage)
        if runs is None or not outs_of_run(project, stage, runs):
            return {**answer, "restored": False}
        stage.remove_outs(ignore_remove=False, force=False)
        project.repo.stage_cache.restore(stage)
        stage.save()
        stage.dump(update_pipeline=False)
        stage.ignore_outs()
    return {**answer, "restored": True}


def outs_of_run(project: Project, stage: Any, runs: Path) -> bool:
    """Bring the outputs of the newest equal run into the cache; tell whether they are all there."""
    fetch_runs(project, runs)
    run = project.repo.stage_cache._load(stage)
    if run is None:
        return False
    try:
        project.objects.pull({out["md5"]: [] for out in run["outs"]})
    except UnusableError:
        return False  # then it is run again
    return bool(project.repo.stage_cache._create_stage(run, wdir=stage.wdir).outs_cached())


def send(project: Project) -> dict[str, Any]:
    """Push what the stage reads; return it, with the entries of dvc.lock that the stage is checked against."""
    stage = project.stage()
    makers = {}
    items = []
    for out in project.repo.index.outs:
        only = parts_read(out, stage)
        if only is not None and out.stage.addressing != stage.addressing:
            items.append(as_locked(project, out, only))
            makers[out.stage.addressing] = out.stage
    # What it reads because it is there when it starts: its own outputs of before.
    items += [as_is(project, out) for out in stage.outs if out.persist]
    sent = project.objects.push([item.md5 for item in items if item.md5], project.again)
    locks = lock_texts(project, [*makers.values(), stage])
    return {"items": [asdict(item) for item in items], "locks": locks, "sent": sent}


def receive(project: Project) -> dict[str, Any]:
    """Pull what the stage reads and put it into place, with the given entries of dvc.lock as the only ones."""
    for path, text in project.request["locks"].items():
        write_text(project.root / path, text)
    items = items_of(project.request)
    came = project.objects.pull({item.md5: list(item.only) for item in items if item.md5})
    with project.repo.lock:
        project.repo._reset()
        place(project, items, {project.relative(out.fs_path): out for out in project.repo.index.outs})
    return {"came": came}


def give(project: Project) -> dict[str, Any]:
    """Push what the stage made; return it, with its entry of dvc.lock."""
    stage = project.stage()
    items = [as_locked(project, out, ()) for out in stage.outs]
    sent = project.objects.push([item.md5 for item in items], project.again)
    runs = run_folder(stage)
    if runs is not None and runs.is_dir():
        push_runs(project, runs)
    (text,) = lock_texts(project, [stage]).values()
    return {"items": [asdict(item) for item in items], "entry": text, "sent": sent}


def take(project: Project) -> dict[str, Any]:
    """Pull what the stage made elsewhere, put it into place, and write the stage's entry of dvc.lock."""
    from dvc.stage.loader import StageLoader
    from dvc.utils.serialize import loads_yaml, modify_yaml

    items = items_of(project.request)
    came = project.objects.pull({item.md5: [] for item in items})
    with project.repo.lock:
        stage = project.stage()
        entry = loads_yaml(project.request["entry"])["stages"][stage.name]
        StageLoader.fill_from_lock(stage, entry)
        outs = {project.relative(out.fs_path): out for out in stage.outs}
        if set(outs) != {item.path for item in items}:
            raise ItemError(f"dvc.yaml: stage {stage.name!r}: its outputs are others than where it ran; run it again")
        place(project, items, outs)
        # The entry last: until then the stage is not up to date, and is asked for again.
        with modify_yaml(os.fspath(lock_of(stage)), fs=project.repo.fs) as lock:
            lock.setdefault("schema", LOCK_SCHEMA)
            lock.setdefault("stages", {})[stage.name] = entry
        stage.ignore_outs()
        if run_folder(made := project.stage()) is not None:
            project.repo.stage_cache.save(made)
    return {"came": came}


STEPS: dict[str, Callable[[Project], dict[str, Any]]] = {
    step.__name__: step for step in (restore, send, receive, give, take)
}


def overlap(one: str, other: str) -> bool:
    """Tell whether a path stands in or at the other, or the other way round.

    >>> overlap("/a/b", "/a"), overlap("/a", "/a/b"), overlap("/a", "/ab")
    (True, True, False)
    """
    return Path(one).is_relative_to(other) or Path(other).is_relative_to(one)


def parts_read(out: Any, stage: Any) -> tuple[str, ...] | None:
    """Return which parts of an output a stage reads: none named: all of it; None: it reads nothing of it."""
    deps = [dep.fs_path for dep in stage.deps if dep.is_in_repo and overlap(dep.fs_path, out.fs_path)]
    if not deps:
        return None
    if any(Path(out.fs_path).is_relative_to(dep) for dep in deps):
        return ()
    return tuple(sorted(Path(dep).relative_to(out.fs_path).as_posix() for dep in deps))


def as_locked(project: Project, out: Any, only: tuple[str, ...]) -> Item:
    """Return an output as its stage's entry of dvc.lock has it, after seeing to it that the cache has it whole.

    Raises:
        ItemError: There is no entry, or the file is not as it says.
    """
    path, value = project.relative(out.fs_path), out.hash_info.value if out.hash_info else ""
    if not value or out.hash_info.name != "md5":
        raise ItemError(f"dvc.lock: {path}: expected its md5, got none; run its stage first (`dvc repro`)")
    there = project.objects.cache.exists(value) if only else project.objects.has(value)
    if not there and not out.exists:
        raise ItemError(f"{path}: neither here nor in DVC's cache; `dvc pull {path}` or `dvc repro`")
    if not there and (kept := project.objects.keep(out.fs_path)) != value:
        hint = "`dvc repro` makes it again; a change of your own is lost then"
        raise ItemError(f"{path}: the file is not the one of dvc.lock, expected md5 {value}, got {kept}; {hint}")
    return Item(path, value, bool(out.use_cache), only)


def as_is(project: Project, out: Any) -> Item:
    """Return an output as it is there, whatever dvc.lock says."""
    path = project.relative(out.fs_path)
    return Item(path, project.objects.keep(out.fs_path) if out.exists else "", cached=False)


def items_of(request: dict[str, Any]) -> list[Item]:
    """Read the items of a request."""
    return [Item(each["path"], each["md5"], each["cached"], tuple(each["only"])) for each in request["items"]]


def place(project: Project, items: Iterable[Item], outs: dict[str, Any]) -> None:
    """Put what the cache has into place: outputs of DVC's as it links them, the rest as copies."""
    for item in items:
        target = project.root / item.path
        out = outs.get(item.path)
        if not item.cached:
            copy_from_cache(project, item, target, executable=bool(out and out.meta and out.meta.isexec))
            continue
        if out is None or out.hash_info.value != item.md5:
            raise ItemError(f"{item.path}: no such output in this commit's dvc.yaml; commit and push what you have")
        for part in item.only or ("",):
            out.checkout(force=True, filter_info=os.fspath(target / part) if part else None)


def copy_from_cache(project: Project, item: Item, target: Path, executable: bool) -> None:
    """Copy a file or folder from the cache, or take it away where the item says that there is none."""
    cache = project.objects.cache
    if not item.md5:
        target.unlink(missing_ok=True) if not target.is_dir() else shutil.rmtree(target)
        return
    with replacing(target) as temporary:
        if item.md5.endswith(DIR):
            temporary.mkdir()
            for key, _, info in project.objects.tree(item.md5):
                part = temporary.joinpath(*key)
                part.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(cache.oid_to_path(info.value), part)
        else:
            shutil.copyfile(cache.oid_to_path(item.md5), temporary)
            if executable:
                temporary.chmod(temporary.stat().st_mode | 0o111)


def lock_of(stage: Any) -> Path:
    """Return the dvc.lock of a stage's dvc.yaml."""
    return Path(stage.dvcfile.path).with_suffix(".lock")


def lock_texts(project: Project, stages: Iterable[Any]) -> dict[str, str]:
    """Return a dvc.lock with nothing but the stages' entries, by its path; a stage that never ran has none."""
    from dvc.stage import PipelineStage
    from dvc.utils.serialize import dumps_yaml, load_yaml

    named: dict[str, set[str]] = {}
    for stage in stages:
        if isinstance(stage, PipelineStage):
            named.setdefault(project.relative(os.fspath(lock_of(stage))), set()).add(stage.name)
    texts = {}
    for path, names in named.items():
        entries = load_yaml(path)["stages"] if Path(path).is_file() else {}
        kept = {name: entry for name, entry in entries.items() if name in names}
        texts[path] = dumps_yaml({"schema": LOCK_SCHEMA, "stages": kept})
    return texts


def run_folder(stage: Any) -> Path | None:
    """Return where the run-cache keeps runs equal to a stage's, or None for a stage that DVC does not keep."""
    from dvc.stage.cache import _can_hash, _get_stage_hash

    plain = all(out.use_cache or out.is_metric or out.is_plot for out in stage.outs)  # Source: Stage.run
    if not (plain and _can_hash(stage)):
        return None
    return Path(stage.repo.stage_cache._get_cache_dir(_get_stage_hash(stage)))


def remote_runs(project: Project, runs: Path) -> tuple[Any, str]:
    """Return the remote's file system, and where in it runs like those of a folder are."""
    # Source: StageCache.push: beside the objects, where DVC 2 had its own.
    odb = project.repo.cloud.get_remote_odb(project.request["remote"] or None, hash_name="md5-dos2unix")
    return odb.fs, odb.fs.join(odb.path, "runs", runs.parent.name, runs.name)


def fetch_runs(project: Project, runs: Path) -> None:
    """Bring the remote's runs of one stage with these very dependencies."""
    fs, folder = remote_runs(project, runs)
    if not fs.exists(folder):
        return
    for place_there in fs.find(folder):
        target = runs / fs.name(place_there)
        if not target.exists():
            with replacing(target) as temporary:
                fs.get_file(place_there, os.fspath(temporary))


def push_runs(project: Project, runs: Path) -> None:
    """Send the runs of one stage with these very dependencies."""
    fs, folder = remote_runs(project, runs)
    for run in sorted(runs.iterdir()):
        if not fs.exists(fs.join(folder, run.name)):
            fs.put_file(os.fspath(run), fs.join(folder, run.name))


def main() -> int:
    """Do the step named by the argument: 0, or 1 where it failed; the answer says why."""
    answers, sys.stdout = sys.stdout, sys.stderr  # whatever DVC prints is no answer
    end_with_starter()
    replace_whole()
    request = json.load(sys.stdin)
    try:
        answer = STEPS[sys.argv[1]](Project(request))
    except UnusableError as error:
        answer = {"error": str(error), "lasting": True, "unusable": error.hashes}
    except Exception as error:  # it is told to who started this
        words = " ".join(f"{type(error).__name__}: {error}".split())
        answer = {"error": str(error) if isinstance(error, PlumblineError) else words, "lasting": is_lasting(error)}
    answers.write(json.dumps(answer))
    answers.flush()
    return 1 if "error" in answer else 0


if __name__ == "__main__":
    sys.exit(main())
