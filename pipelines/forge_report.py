"""A report as the poster takes it: read strictly, its gates judged anew, its comment written by trusted code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.forge import FORGES, State
from pipelines.forge_gates import gates_of_file
from pipelines.forge_lines import one_line
from pipelines.forge_pictures import read_pictures, regular_file
from plumbline.errors import EvaluationError, PlumblineError
from plumbline.files import write_text
from plumbline.review.comment import PICTURES, comment, headline
from plumbline.review.gates import gates_in_force, judge_gates
from plumbline.review.review import REVIEW, GateResult, Review, read_review
from plumbline.review.wording import cut

COMMENT = "comment.md"
MOST_DESCRIPTION = 140  # characters of a status on GitHub; GitLab takes 255
STATES: dict[str, State] = {"passed": "success", "failed": "failure"}


@dataclass(frozen=True)
class Report:
    """What is posted.

    Attributes:
        review: With the gates as the poster judges them.
        pictures: Stem -> PNG, checked.
        state: Of the commit status.
        description: Beside it, one line.
        notes: The poster's own, before those of the review.
    """

    review: Review
    pictures: Mapping[str, bytes]
    state: State
    description: str
    notes: tuple[str, ...] = ()

    def noting(self, note: str) -> Report:
        """Put a sentence of the poster's before all notes: a report cannot push it out of the comment."""
        return replace(self, notes=(note, *self.notes))

    def markdown(self, urls: Mapping[str, str], forge: str) -> str:
        """Write the comment, no longer than a forge takes it."""
        review = self.review.model_copy(update={"notes": (*self.notes, *self.review.notes)})
        return comment(review, urls, FORGES[forge].most_characters)


def read_report(folder: Path, gates_from: Path | None) -> Report:
    """Read the folder that ``make pr-report`` wrote, here or in a run that is not trusted.

    A picture that is none is left out, and the comment says so: the numbers are posted all the same. Those that no
    comment shows are not read.

    Args:
        folder: With review.json and its pictures.
        gates_from: A params.yaml by whose gates it is judged, the run being not trusted; None: as the report says.

    Raises:
        EvaluationError: There is no such report, or it is not one.
        ParamsError: `gates_from` cannot be read.
    """
    regular_file(folder / REVIEW)
    review = read_review(folder)
    report = _as_told(review)
    if gates_from:
        report = judged(report, gates_of_file(gates_from), "the poster's params.yaml")
    try:
        return replace(report, pictures=read_pictures(folder, shown_pictures(review)))
    except EvaluationError as error:
        # Only its name: a path of the poster's machine is nobody's business.
        return report.noting("No pictures: " + str(error).replace(f"{folder}/", ""))


def write_comment(report: Report, folder: Path, forge: str) -> str:
    """Write `COMMENT` with the names of the pictures beside it, as it is on disk whatever becomes of the posting."""
    text = report.markdown({stem: report.review.pictures[stem] for stem in report.pictures}, forge)
    write_text(folder / COMMENT, text)
    return text


def shown_pictures(review: Review) -> dict[str, str]:
    """Return stem -> file of those that a comment shows: a report may name any number of others."""
    return {stem: name for stem, name in review.pictures.items() if stem in PICTURES}


def judged(report: Report, gates: Mapping[str, Any], whose: str) -> Report:
    """Judge the report of a run that is not trusted by gates that are, and by those that the run has beside them.

    Args:
        report: As it was read. What its notes say is told as the run's word.
        gates: Name -> rule.
        whose: They are, for the notes: the branch.
    """
    review = report.review
    told_gates = {gate.name: gate.rule for gate in review.gates}
    in_force, _ = gates_in_force(gates, told_gates)
    differing = {name: str(rule) for name, rule in gates.items() if told_gates.get(name) != str(rule)}
    notes = (
        *(_note(name, rule, told_gates.get(name), whose) for name, rule in differing.items()),
        *(f"The run says: {note}" for note in review.notes),
    )
    try:
        results = judge_gates(in_force, review.changes)
    except PlumblineError as error:
        fault = GateResult(name="gates", rule=whose[:200], passed=False, why=str(error)[:1000])
        review = review.model_copy(update={"gates": (fault,), "notes": notes})
        said = cut(f"The gates cannot be judged: {one_line(str(error))}", MOST_DESCRIPTION)
        return replace(report, review=review, state="error", description=said)
    told = _as_told(review.model_copy(update={"gates": results, "notes": notes}))
    return replace(told, pictures=report.pictures, notes=report.notes)


def _note(name: str, rule: str, told: str | None, whose: str) -> str:
    # Not "this change removes it": the base may have another since the run, or is another branch's.
    has = "The run has no gate" if told is None else f"The run's `{told[:200]}` is not the gate"
    return f"{has} {name} of {whose}: `{rule}`. It is judged by that."


def _as_told(review: Review) -> Report:
    # A gate's name is whatever params.yaml of a pull request calls it.
    said = one_line(headline(review))
    changes = "" if review.head.is_clean else "; with changes that are not committed"
    return Report(review, {}, STATES[review.state], cut(said, MOST_DESCRIPTION - len(changes)) + changes)
