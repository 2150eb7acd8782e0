"""Say what a change does to the model, and whether it may be merged: ``python -m pipelines.pr_report --base main``.

Two revisions are read from git and DVC, and nothing is run. The folder then holds ``comment.md`` for a pull request,
``report.html`` to open, the pictures, and ``review.json``, from which `pipelines.pr_comment` posts.

The exit code is 0 where every gate of params.yaml passed, 1 where one failed, and 2 where there was nothing to judge:
the folder then holds ``error.txt`` alone, with the reason, which the poster tells.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from pydantic import TypeAdapter

from pipelines.pr_reason import write_reason
from pipelines.review_params import REVIEW, bootstrap_of, gates_of, review_of
from pipelines.revisions import NoResultsError, git, revision, without_results
from pipelines.stale import stale_row, stale_stages
from plumbline.errors import PlumblineError
from plumbline.files import replacing, write_text
from plumbline.review.comment import comment, headline
from plumbline.review.comparing import compare, shown_artifact
from plumbline.review.gates import gates_in_force, judge_gates
from plumbline.review.page import html_page
from plumbline.review.pictures import draw_all
from plumbline.review.review import Review, Side, write_review
from plumbline.review.revision import Revision
from plumbline.tasks import Task, task_module
from stages.shape import PARAMS_FILE

COMMENT, PAGE = "comment.md", "report.html"
PASSED, FAILED, ERROR = 0, 1, 2
Tell = Callable[[str], None]


def write_report(  # noqa: PLR0917
    root: Path, base: str, head: str | None, out: Path, tell: Tell, head_name: str | None = None
) -> Review:
    """Compare two revisions, and write the folder.

    Args:
        root: The project.
        base: A commit, branch, tag or DVC experiment.
        head: Another, or None for the working tree.
        out: The folder; one that is there is replaced when the new one is whole.
        tell: Called with a line about what is being done.
        head_name: What the report shall call the head.

    Raises:
        PlumblineError: A revision or what it needs is missing, or a gate names what is not there.
    """
    with ExitStack() as stack:
        before = None
        tell(f"reading {base}")
        try:
            before = stack.enter_context(revision(root, base))
        except NoResultsError as error:
            tell(str(error))
        tell(f"reading {head or 'the working tree'}")
        after = stack.enter_context(revision(root, head))
        before = before or without_results(root, base, after)
        if head_name:
            after = dataclasses.replace(after, name=head_name)
        review = _review(root, before, after, head, tell)
        tell(f"drawing {review.shown}")
        pictures = draw_all(before, after, review.shown)
    review = review.model_copy(update={"pictures": {stem: f"{stem}.png" for stem in pictures}})
    with replacing(out) as folder:
        folder.mkdir()
        for stem, data in pictures.items():
            (folder / f"{stem}.png").write_bytes(data)
        write_review(review, folder)
        write_text(folder / COMMENT, comment(review, review.pictures))
        write_text(folder / PAGE, html_page(review, pictures))
    return review


def _review(root: Path, base: Revision, head: Revision, rev: str | None, tell: Tell) -> Review:
    path = root / PARAMS_FILE
    judge = base if REVIEW in base.params else head  # a change does not choose how it is judged
    settings, params = bootstrap_of(path, judge.params), review_of(path, judge.params)
    own_gates = gates_of(path, head.params)
    gates, told = gates_in_force(gates_of(path, base.params), own_gates)
    changes, notes, num_images = compare(base, head, settings, params.latency_noise, tell)
    changes.append(stale_row(stale_stages(root, rev)))
    judge_gates(own_gates, changes)  # one that cannot be judged would be in force for the next change
    words = task_module(head.run.task, "reporting").WORDS
    return Review(
        base=_side(base), head=_side(head), task=_task(head), headline=words.headline.metric,
        headline_title=words.headline.title, shown=shown_artifact(base, head), level=settings.level,
        num_images=num_images, changes=tuple(changes), gates=judge_gates(gates, changes),
        notes=(*told, *_base_notes(root, base), *_history(root, base, head), *notes), pictures={},
    )  # fmt: skip


def _base_notes(root: Path, base: Revision) -> tuple[str, ...]:
    """Say that the base's numbers are not its own: the change would be held against something else."""
    stale = stale_stages(root, base.commit) if base.scored else []
    return (f"{base.name} was not run on what it holds: {', '.join(stale)}"[:900] + ".",) if stale else ()


def _task(side: Revision) -> Task:
    return TypeAdapter(Task).validate_python(side.run.task)


def _side(side: Revision) -> Side:
    return Side(name=side.name[:200], commit=side.commit, is_clean=side.is_clean)


def _history(root: Path, base: Revision, head: Revision) -> tuple[str, ...]:
    """Say what the base has that the head has not: part of the difference is that."""
    if not git(root, "merge-base", base.commit, head.commit):
        shallow = git(root, "rev-parse", "--is-shallow-repository") == "true"
        why = "this clone is shallow; git fetch --unshallow" if shallow else "their histories are not one"
        return (f"{base.name} and {head.name} have no commit in common: {why}.",)
    missing = git(root, "rev-list", "--count", f"{head.commit}..{base.commit}")
    if missing in ("", "0"):
        return ()
    commits = "1 commit" if missing == "1" else f"{missing} commits"
    return (f"{base.name} has {commits} that {head.name} has not: part of the difference may be theirs; rebase.",)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--base", required=True, help="commit, branch, tag or DVC experiment to compare with")
    parser.add_argument("--head", metavar="REV", help="another one in place of the working tree")
    parser.add_argument("--out", type=Path, default=Path("pr-report"), help="the folder (default: pr-report)")
    parser.add_argument("--root", type=Path, default=Path(), metavar="PATH", help="the project (default: here)")
    return parser.parse_args(argv)


def _leave_reason(out: Path, reason: str) -> None:
    with suppress(OSError):  # it is told on stderr in any case
        write_reason(out, reason)


def main(argv: Sequence[str] | None = None) -> int:
    """Report; see the head of this module for the exit code."""
    arguments = _parse(argv)

    def tell(line: str) -> None:
        print(line, flush=True)  # noqa: T201 - what the command is for

    try:
        review = write_report(arguments.root.resolve(), arguments.base, arguments.head, arguments.out, tell)
    except PlumblineError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)  # noqa: T201 - the command's own output
        _leave_reason(arguments.out, str(error))
        return ERROR
    except Exception as error:  # a fault of ours is no verdict on the change
        traceback.print_exc()
        _leave_reason(arguments.out, f"{type(error).__name__}: {error}")
        return ERROR
    for gate in review.gates:
        tell(f"{'passed' if gate.passed else 'FAILED'}  {gate.name}: {gate.rule}  ({gate.why})")
    tell(f"{headline(review)}; {arguments.out / PAGE}, {arguments.out / COMMENT}")
    return PASSED if review.state == "passed" else FAILED


if __name__ == "__main__":
    sys.exit(main())
