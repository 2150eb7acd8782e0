"""Read what a revision's line made, from git, and from DVC's cache or remote; nothing is run.

A revision is a commit, a branch, a tag or a DVC experiment; or the working tree, as it is.
"""

from __future__ import annotations

import dataclasses
import io
import json
import math
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pandas as pd

from plumbline.errors import EvaluationError, PlumblineError
from plumbline.image_shards import INDEX, open_shards
from plumbline.manifest import read_dataset
from plumbline.params import read_params
from plumbline.report_rows import scored_split
from plumbline.review.revision import WEIGHTS, Revision, Scored
from plumbline.score_comparison import ScoredRun
from plumbline.scores import TABLES
from plumbline.split_images import read_splits
from plumbline.tasks import TASKS, task_module
from stages.shape import PARAMS_FILE

if TYPE_CHECKING:
    from dvc.api import DVCFileSystem

DATASET = "data/dataset"
LABELS = "data/validated"
SPLITS = "data/splits.parquet"
LABEL_TABLES = ("images.parquet", "annotations.parquet", "findings.parquet")
VALIDATION = "reports/validate.json"
SPLIT = "reports/split.json"
LEAKS = ("num_leaks", "num_near_duplicate_pairs", "num_images_left_out")
REPORT = "reports/report/report.json"
WORKING_TREE = "the working tree"


class NoResultsError(EvaluationError):
    """A revision has nothing that the line writes: it was not run there, or what it made was not committed."""


def resolve(root: Path, rev: str) -> str:
    """Return the full hash of a revision's commit.

    Raises:
        EvaluationError: There is none; where this clone is shallow, that may be why.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.scm import RevError, resolve_rev

    try:
        with Repo(str(root)) as repo:
            return str(resolve_rev(repo.scm, rev))
    except RevError as error:
        raise EvaluationError(_no_commit(root, rev)) from error
    except DvcException as error:
        raise EvaluationError(f"{root}: not a DVC project in a git repository ({error}); run from its root") from error


def _no_commit(root: Path, rev: str) -> str:
    expected = f"no commit {rev!r}, expected a commit, branch, tag or DVC experiment"
    if git(root, "rev-parse", "--is-shallow-repository") == "true":
        return f"{expected}; this clone is shallow: git fetch --unshallow (in CI: fetch-depth: 0, or GIT_DEPTH: 0)"
    return f"{expected}; git fetch brings what is new, and a rewritten history needs the new name of the commit"


def git(root: Path, *arguments: str) -> str:
    """Return what a git command says; empty where it fails."""
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def open_files(root: Path, commit: str | None) -> DVCFileSystem:
    """Open a commit's files, those that DVC keeps too.

    Args:
        root: The project.
        commit: From `resolve`; None for the working tree.

    Raises:
        EvaluationError: It is no project.
    """
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            # The caches and remotes of today: a commit knows only those of its own day.
            config = {section: repo.config.get(section, {}) for section in ("core", "cache", "remote")}
        return DVCFileSystem(url=str(root), rev=commit, config=config)
    except DvcException as error:
        raise EvaluationError(f"{root}: not a DVC project in a git repository ({error}); run from its root") from error


def read_file(files: DVCFileSystem, path: str, name: str) -> bytes:
    """Read one file of a revision.

    Args:
        files: From `open_files`.
        path: From the project's root.
        name: Of the revision, for the error.

    Raises:
        EvaluationError: The revision has no such file, or it is neither in DVC's cache nor in a remote.
    """
    from dvc_data.index.index import DataIndexDirError

    try:
        return bytes(files.read_bytes(path))
    except (FileNotFoundError, DataIndexDirError) as error:
        if isinstance(error, FileNotFoundError) and not files.exists(path):
            remedy = "run dvc repro, and commit dvc.lock and reports/"
            raise EvaluationError(f"{name}: has no {path}, expected what the line writes; {remedy}") from error
        remedy = "`dvc pull`, or `dvc fetch --all-commits` for another commit, brings it; or run dvc repro"
        raise EvaluationError(f"{name}: {path} is neither in DVC's cache nor in a remote; {remedy}") from error
    except Exception as error:  # of a remote: no credentials, no plugin, no network; each kind has its own exceptions
        said = " ".join(str(error).split()) or type(error).__name__
        raise EvaluationError(
            f"{name}: {path} is not in DVC's cache, and the remote cannot be read ({said}); mend that, or dvc pull"
        ) from error


@contextmanager
def revision(root: Path, rev: str | None) -> Iterator[Revision]:
    """Read one side of a comparison; its images can be had until this ends.

    Args:
        root: The project.
        rev: None for the working tree.

    Raises:
        EvaluationError: There is no such commit, it has no scores, or what DVC keeps of it is not to be had here.
    """
    name = rev or WORKING_TREE
    with TemporaryDirectory(prefix="plumbline-revision-") as temporary:
        folder = Path(temporary)
        try:
            yield _Reader(root, rev, name, folder).revision()
        except PlumblineError as error:
            # As git names a file of a commit.
            said = str(error).replace(f"{folder}/", "" if rev is None else f"{rev}:")
            kind = NoResultsError if isinstance(error, NoResultsError) else EvaluationError
            raise kind(said) from error


def without_results(root: Path, rev: str, like: Revision) -> Revision:
    """Stand for a commit in which the line has not been run: its params, no data, no scores.

    Args:
        root: The project.
        rev: The commit.
        like: A revision of the same task and classes.

    Raises:
        EvaluationError: There is no such commit, or its params.yaml cannot be read.
    """
    commit = resolve(root, rev)
    with TemporaryDirectory(prefix="plumbline-revision-") as temporary:
        path, files = Path(temporary) / PARAMS_FILE, open_files(root, commit)
        params = {}
        if files.exists(str(PARAMS_FILE)):
            path.write_bytes(read_file(files, str(PARAMS_FILE), rev))
            params = read_params(path)
    data = dataclasses.replace(
        like.run.data, images=like.run.data.images.iloc[:0], annotations=like.run.data.annotations.iloc[:0]
    )
    return dataclasses.replace(
        like, name=rev, commit=commit, is_clean=True, params=params, splits=like.splits.iloc[:0],
        run=dataclasses.replace(like.run, name=rev, data=data, images=like.run.images.iloc[:0], predictions={}),
        scored={}, validation={}, threshold={},
    )  # fmt: skip


class _Reader:
    """Brings a revision's files into a folder, and reads them there."""

    def __init__(self, root: Path, rev: str | None, name: str, folder: Path) -> None:
        self._root, self._rev, self._name, self._folder = root, rev, name, folder
        self._commit = resolve(root, rev or "HEAD")
        self._files = open_files(root, None if rev is None else self._commit)

    def revision(self) -> Revision:
        params = read_params(self._bring(str(PARAMS_FILE)))
        task = str(params.get("task", "detect"))  # commits of before there were two tasks do not say
        if task not in TASKS:
            expected = ", ".join(TASKS)
            raise EvaluationError(f"{self._name}: unknown task {task!r} in params.yaml, expected one of: {expected}")
        if not self._has_results():
            remedy = "run dvc repro, and commit dvc.lock and reports/"
            raise NoResultsError(f"{self._name}: has no dvc.lock, expected what the line writes; {remedy}")
        for table in LABEL_TABLES:
            self._bring(f"{LABELS}/{table}")
        rows = {row["name"]: row for row in self._json(REPORT, {}).get("rows", [])}
        names = (WEIGHTS, *params.get("targets", {}))
        scored = {name: self._scored(name, rows.get(name, {})) for name in names}
        run, splits = self._run(task, params, scored)
        return Revision(
            name=self._name,
            commit=self._commit,
            is_clean=self._rev is not None or not git(self._root, "status", "--porcelain", "--untracked-files=no"),
            params=params,
            run=run,
            splits=splits,
            scored=scored,
            validation=_finite({**self._json(VALIDATION, {}), **self._leaks()}),
            threshold={name: float(one.metrics.get("confidence_threshold", 0.0)) for name, one in scored.items()},
            image_file=self._image_file,
        )

    def _scored(self, artifact: str, row: Mapping[str, Any]) -> Scored:
        place, device = f"reports/evaluate/{artifact}", f"reports/benchmark/{artifact}"
        undefined = self._table(f"{place}/undefined.csv")
        return Scored(
            metrics=_finite(self._parsed(f"{place}/metrics.json")),
            undefined={} if undefined is None else dict(zip(undefined["metric"], undefined["why"], strict=True)),
            tables={stem: table for stem in TABLES if (table := self._table(f"{place}/{stem}.csv")) is not None},
            device=_finite(self._json(f"{device}.json", {})),
            machine=self._json(f"{device}.machine.json", {}),
            row=row,
        )

    def _run(
        self, task: str, params: Mapping[str, Any], scored: Mapping[str, Scored]
    ) -> tuple[ScoredRun, pd.DataFrame]:
        """Read what was scored, and the splits."""
        data = read_dataset(self._folder / LABELS, root=self._folder / DATASET)
        splits = read_splits(self._bring(SPLITS))
        predictions = {name: self._predictions(name, task) for name in scored}
        split_of = splits.set_index("image_id")["split"]
        likely = str(params.get("evaluate", {}).get("split", "test"))
        split = scored_split(split_of, predictions[WEIGHTS], scored[WEIGHTS].metrics, likely)
        images = data.images[data.images["image_id"].isin(split_of.index[split_of == split])]
        if params.get("report", {}).get("resample", "group") == "image":  # as the report draws its samples
            images = images.assign(group="")
        return ScoredRun(self._name, task, data, images.sort_values("image_id", ignore_index=True), predictions), splits

    def _predictions(self, artifact: str, task: str) -> pd.DataFrame:
        path = self._bring(f"reports/evaluate/{artifact}/predictions.parquet")
        try:
            return pd.read_parquet(path, columns=task_module(task, "scoring").PREDICTIONS_SCHEMA.names)
        except (OSError, ValueError) as error:
            raise EvaluationError(f"{path}: not a table of predictions; run dvc repro") from error

    def _leaks(self) -> dict[str, float]:
        """Return what the split stage counted that should not be."""
        return {key: value for key, value in self._json(SPLIT, {}).items() if key in LEAKS}

    def _bring(self, path: str) -> Path:
        target = self._folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(read_file(self._files, path, self._name))
        return target

    def _has_results(self) -> bool:
        """Whether there is anything that the line wrote. One file that is missing is another thing: it is an error."""
        if self._rev is None:
            return (self._root / "dvc.lock").is_file() or (self._root / "reports/evaluate").is_dir()
        # Not of DVC's file system: there an output is as soon as dvc.yaml names it.
        return bool(git(self._root, "ls-tree", "--name-only", self._commit, "dvc.lock", "reports/evaluate/"))

    def _is_there(self, path: str) -> bool:
        return bool(self._files.exists(path))

    def _json(self, path: str, otherwise: dict[str, Any]) -> dict[str, Any]:
        """Read a file that a revision need not have."""
        if not self._is_there(path):
            return otherwise
        return self._parsed(path)

    def _parsed(self, path: str) -> dict[str, Any]:
        try:
            values = json.loads(read_file(self._files, path, self._name))
        except ValueError as error:
            raise EvaluationError(f"{self._name}: {path}: not JSON ({error}); run dvc repro") from error
        if not isinstance(values, dict):
            raise EvaluationError(
                f"{self._name}: {path}: expected an object, got {type(values).__name__}; run dvc repro"
            )
        return values

    def _table(self, path: str) -> pd.DataFrame | None:
        if not self._is_there(path):
            return None
        # A class may be called NA.
        return pd.read_csv(io.BytesIO(read_file(self._files, path, self._name)), keep_default_na=False, na_values=[""])

    def _image_file(self, path: str) -> Path:
        """Bring one image: a loose file, or the shard that it is in."""
        dataset = self._folder / DATASET
        if not (dataset / INDEX).is_file() and self._is_there(f"{DATASET}/{INDEX}"):
            self._bring(f"{DATASET}/{INDEX}")
        shards = open_shards(dataset)
        if shards is None or path not in shards:
            return self._bring(f"{DATASET}/{path}")
        shard = f"{DATASET}/images/{shards.shard_of(path)}"
        if not (self._folder / shard).is_file():
            self._bring(shard)
        return shards.unpacked(path)


def _finite(values: Mapping[str, Any]) -> dict[str, float]:
    """Keep the numbers that can be compared: a NaN is no number, and what is not there is undefined.

    >>> _finite({"a": 1, "b": float("nan"), "c": None, "d": "x", "e": 0.5})
    {'a': 1, 'e': 0.5}
    """
    return {key: value for key, value in values.items() if isinstance(value, int | float) and math.isfinite(value)}
