"""Compare the scores of the working tree with another commit's: ``python -m pipelines.compare --rev main``.

A commit has its predictions and labels in DVC's cache or remote, so nothing is run. For the trained weights and every
target in both: the headline metrics there and here, and a paired bootstrap interval of their difference. A name of a
DVC experiment is a commit, too.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.review_params import read_bootstrap
from pipelines.revisions import revision
from plumbline.files import write_json, write_text
from plumbline.score_comparison import ScoredRun, compare_runs
from plumbline.score_comparison_text import as_json, as_markdown, as_text
from plumbline.scores import BootstrapSettings
from plumbline.tasks import task_module
from stages.shape import exit_code

WORKING_TREE = "here"


def read_run(root: Path, rev: str | None) -> ScoredRun:
    """Read what a commit's line scored, from git and DVC's cache or remote; None: from the working tree.

    Raises:
        EvaluationError: There is no such commit, it has no scores, or what DVC keeps of it is not to be had here.
    """
    with revision(root, rev) as found:
        return dataclasses.replace(found.run, name=rev or WORKING_TREE)


def _settings(root: Path, arguments: argparse.Namespace) -> BootstrapSettings:
    settings = read_bootstrap(root)
    given = {"samples": arguments.samples, "level": arguments.level}
    return dataclasses.replace(settings, **{key: value for key, value in given.items() if value is not None})


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
