"""Compare the scores of the working tree with another commit's: ``python -m pipelines.compare --rev main``.

A commit has its predictions and labels in DVC's cache or remote, so nothing is run. For the trained weights and every
target in both: the headline metrics there and here, and a paired bootstrap interval of their difference. A name of a
DVC experiment is a commit, too.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from pydantic import ConfigDict, Field

from plumbline.errors import EvaluationError, PlumblineError
from plumbline.files import write_json, write_text
from plumbline.manifest import read_dataset
from plumbline.params import StageParams, check_section, read_params
from plumbline.report_rows import scored_split
from plumbline.score_comparison import ScoredRun, compare_runs
from plumbline.score_comparison_text import as_json, as_markdown, as_text
from plumbline.scores import BootstrapSettings
from plumbline.split_images import read_splits
from plumbline.tasks import TASKS, task_module
from stages.shape import PARAMS_FILE, exit_code

if TYPE_CHECKING:
    from dvc.api import DVCFileSystem

WEIGHTS = "weights"
LABELS = "data/validated"
SPLITS = "data/splits.parquet"
TABLES = ("images.parquet", "annotations.parquet", "findings.parquet")
WORKING_TREE = "here"


class _Settings(StageParams):
    """What a comparison takes from params.yaml where the command does not say it."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class ReportSettings(_Settings):
    """Of the section report."""

    bootstrap_samples: int = Field(ge=10)
    confidence_level: float = Field(gt=0.5, lt=1)
    seed: int = Field(ge=0)


class EvaluateSettings(_Settings):
    """Of the section evaluate."""

    difficult: str


def read_run(root: Path, rev: str | None) -> ScoredRun:
    """Read what a commit's line scored, from git and DVC's cache or remote; None: from the working tree.

    Raises:
        EvaluationError: There is no such commit, it has no scores, or what DVC keeps of it is not to be had here.
    """
    name = rev or WORKING_TREE
    with tempfile.TemporaryDirectory(prefix="plumbline-compare-") as temporary:
        folder = Path(temporary)
        try:
            return _read_run(_open(root, rev), name, folder)
        except PlumblineError as error:
            # As git names a file of a commit.
            said = str(error).replace(f"{folder}/", "" if rev is None else f"{rev}:")
            raise EvaluationError(said) from error


def _read_run(files: DVCFileSystem, name: str, folder: Path) -> ScoredRun:
    def bring(path: str) -> Path:
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(_read(files, path, name))
        return target

    params = read_params(bring(str(PARAMS_FILE)))
    task = str(params.get("task", "detect"))  # commits of before there were two tasks do not say
    if task not in TASKS:
        raise EvaluationError(f"{name}: unknown task {task!r} in params.yaml, expected one of: {', '.join(TASKS)}")
    for table in TABLES:
        bring(f"{LABELS}/{table}")
    data = read_dataset(folder / LABELS)
    split_of = read_splits(bring(SPLITS)).set_index("image_id")["split"]
    predictions, metrics = {}, {}
    for artifact in (WEIGHTS, *params.get("targets", {})):
        place = f"reports/evaluate/{artifact}"
        metrics[artifact] = json.loads(bring(f"{place}/metrics.json").read_bytes())
        predictions[artifact] = _table(bring(f"{place}/predictions.parquet"), task)
    likely = str(params.get("evaluate", {}).get("split", "test"))
    split = scored_split(split_of, predictions[WEIGHTS], metrics[WEIGHTS], likely)
    images = data.images[data.images["image_id"].isin(split_of.index[split_of == split])]
    return ScoredRun(name, task, data, images.sort_values("image_id", ignore_index=True), predictions)


def _open(root: Path, rev: str | None) -> DVCFileSystem:
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.scm import RevError, resolve_rev

    try:
        with Repo(str(root)) as repo:
            commit = None if rev is None else resolve_rev(repo.scm, rev)
            # The caches and remotes of today: a commit knows only those of its own day.
            config = {section: repo.config.get(section, {}) for section in ("core", "cache", "remote")}
        return DVCFileSystem(url=str(root), rev=commit, config=config)
    except RevError as error:
        raise EvaluationError(f"no commit {rev!r}, expected a commit, branch, tag or DVC experiment") from error
    except DvcException as error:
        raise EvaluationError(f"{root}: not a DVC project in a git repository ({error}); run from its root") from error


def _read(files: DVCFileSystem, path: str, name: str) -> bytes:
    from dvc_data.index.index import DataIndexDirError

    try:
        return bytes(files.read_bytes(path))
    except (FileNotFoundError, DataIndexDirError) as error:
        if isinstance(error, FileNotFoundError) and not files.exists(path):
            remedy = "run dvc repro, and commit dvc.lock and reports/"
            raise EvaluationError(f"{name}: has no {path}, expected what the line writes; {remedy}") from error
        remedy = "dvc fetch --all-commits brings it from the remote; or run dvc repro in that commit"
        raise EvaluationError(f"{name}: {path} is neither in DVC's cache nor in a remote; {remedy}") from error


def _table(path: Path, task: str) -> pd.DataFrame:
    try:
        return pd.read_parquet(path, columns=task_module(task, "scoring").PREDICTIONS_SCHEMA.names)
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{path}: not a table of predictions; run dvc repro") from error


def _settings(root: Path, arguments: argparse.Namespace) -> BootstrapSettings:
    path = root / PARAMS_FILE
    values = read_params(path)
    report = check_section(path, "report", values.get("report"), ReportSettings)
    evaluate = check_section(path, "evaluate", values.get("evaluate"), EvaluateSettings)
    samples = report.bootstrap_samples if arguments.samples is None else arguments.samples
    level = report.confidence_level if arguments.level is None else arguments.level
    return BootstrapSettings(samples, level, report.seed, evaluate.difficult)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rev", required=True, help="commit, branch, tag or DVC experiment to compare with")
    parser.add_argument("--here", metavar="REV", help="another commit in place of the working tree")
    parser.add_argument("--level", type=_level, help="of the intervals (default: report.confidence_level)")
    parser.add_argument("--samples", type=_samples, help="of the bootstrap (default: report.bootstrap_samples)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there, too")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write a page for a pull request there, too")
    parser.add_argument("--root", type=Path, default=Path(), metavar="PATH", help="the project (default: here)")
    return parser.parse_args(argv)


def _level(text: str) -> float:
    value = float(text)
    if not 0.5 < value < 1:
        raise argparse.ArgumentTypeError(f"expected 0.5 to 1, such as 0.95, got {text}")
    return value


def _samples(text: str) -> int:
    value = int(text)
    if value < 10:
        raise argparse.ArgumentTypeError(f"expected 10 or more, got {text}")
    return value


def main(argv: Sequence[str] | None = None) -> int:
    """Compare: 0, whatever the difference, or 1 and one line on stderr."""
    arguments = _parse(argv)
    root = arguments.root.resolve()

    def work() -> None:
        settings = _settings(root, arguments)
        comparison = compare_runs(read_run(root, arguments.rev), read_run(root, arguments.here), settings)
        words: Any = task_module(comparison.task, "reporting").WORDS
        if arguments.json:
            write_json(arguments.json, as_json(comparison))
        if arguments.markdown:
            write_text(arguments.markdown, as_markdown(comparison, words))
        print(as_text(comparison, words), end="", flush=True)  # noqa: T201 - what the command is for

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
