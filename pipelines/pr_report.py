"""Say what a change does to the model, and whether it may be merged: ``python -m pipelines.pr_report --base main``.

Two revisions are read from git and DVC, and nothing is run. The folder then holds ``comment.md`` for a pull request,
``report.html`` to open, the pictures, and ``review.json``, from which `pipelines.pr_comment` posts.

The exit code is 0 where every gate of params.yaml passed, 1 where one failed, and 2 where there was nothing to judge.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from pydantic import TypeAdapter

from pipelines.review_params import GATES, read_bootstrap, read_review_params
from pipelines.revisions import NoResultsError, git, revision, without_results
from pipelines.stale import stale_row, stale_stages
from plumbline.errors import PlumblineError
from plumbline.files import replacing, write_text
from plumbline.review.changes import Change
from plumbline.review.comment import comment, headline
from plumbline.review.comparing import compare, shown_artifact
from plumbline.review.gates import gates_in_force, judge_gates
from plumbline.review.page import html_page
from plumbline.review.pictures import draw_all
from plumbline.review.review import Review, Side, write_review
from plumbline.review.revision import Revision
from plumbline.tasks import Task, task_module

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
    settings, params = read_bootstrap(root), read_review_params(root)
    gates, told = _gates(base, head)
    changes, notes, num_images = compare(base, head, settings, params.latency_noise, tell)
    stale = stale_stages(root, rev)
    changes.append(stale_row(stale))
    _check_own_gates(head, changes)
    words = task_module(head.run.task, "reporting").WORDS
    return Review(
        base=_side(base), head=_side(head), task=_task(head), headline=words.headline.metric,
        headline_title=words.headline.title, shown=shown_artifact(base, head), level=settings.level,
        num_images=num_images, changes=tuple(changes), gates=judge_gates(gates, changes),
        notes=(*told, *_history(root, base, head), *notes), pictures={},
    )  # fmt: skip


def _gates(base: Revision, head: Revision) -> tuple[dict[str, str], tuple[str, ...]]:
    sections = [side.params.get(GATES) or {} for side in (base, head)]
    return gates_in_force(*sections)


def _check_own_gates(head: Revision, changes: Sequence[Change]) -> None:
    """Refuse a gate of the head's that cannot be judged: the base's is in force, but the next change would have it."""
    judge_gates(head.params.get(GATES) or {}, changes)


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


def main(argv: Sequence[str] | None = None) -> int:
    """Report; see the head of this module for the exit code."""
    arguments = _parse(argv)

    def tell(line: str) -> None:
        print(line, flush=True)  # noqa: T201 - what the command is for

    try:
        review = write_report(arguments.root.resolve(), arguments.base, arguments.head, arguments.out, tell)
    except PlumblineError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)  # noqa: T201 - the command's own output
        return ERROR
    for gate in review.gates:
        tell(f"{'passed' if gate.passed else 'FAILED'}  {gate.name}: {gate.rule}  ({gate.why})")
    tell(f"{headline(review)}; {arguments.out / PAGE}, {arguments.out / COMMENT}")
    return PASSED if review.state == "passed" else FAILED


if __name__ == "__main__":
    sys.exit(main())
