"""A report as the poster takes it: read strictly, its gates judged anew, its comment written by trusted code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pipelines.forge import FORGES, State
from pipelines.forge_pictures import read_pictures, regular_file
from plumbline.errors import EvaluationError, PlumblineError
from plumbline.files import write_text
from plumbline.params import read_params
from plumbline.review.comment import comment, headline
from plumbline.review.gates import gates_in_force, judge_gates
from plumbline.review.review import REVIEW, GateResult, Review, read_review

COMMENT = "comment.md"
STATES: dict[str, State] = {"passed": "success", "failed": "failure"}


@dataclass(frozen=True)
class Report:
    """What is posted.

    Attributes:
        review: With the gates as the poster judges them.
        pictures: Stem -> PNG, checked.
        state: Of the commit status.
        description: Beside it, one line.
    """

    review: Review
    pictures: Mapping[str, bytes]
    state: State
    description: str

    def noting(self, note: str) -> Report:
        """Add a sentence to the comment's notes."""
        review = self.review.model_copy(update={"notes": (*self.review.notes, note)})
        return replace(self, review=review)

    def markdown(self, urls: Mapping[str, str], forge: str) -> str:
        """Write the comment, no longer than a forge takes it."""
        return comment(self.review, urls, FORGES[forge].most_characters)


def read_report(folder: Path, gates_from: Path | None) -> Report:
    """Read the folder that ``make pr-report`` wrote, here or in a run that is not trusted.

    A picture that is none is left out, and the comment says so: the numbers are posted all the same.

    Args:
        folder: With review.json and its pictures.
        gates_from: A params.yaml by whose gates it is judged; None: as the report says.

    Raises:
        EvaluationError: There is no such report, or it is not one.
        ParamsError: `gates_from` cannot be read.
    """
    regular_file(folder / REVIEW)
    review = read_review(folder)
    report = _judged(review, gates_from) if gates_from else _as_told(review)
    try:
        return replace(report, pictures=read_pictures(folder, review.pictures))
    except EvaluationError as error:
        # Only its name: a path of the poster's machine is nobody's business.
        return report.noting("No pictures: " + str(error).replace(f"{folder}/", ""))


def write_comment(report: Report, folder: Path, forge: str) -> str:
    """Write `COMMENT` with the names of the pictures beside it, as it is on disk whatever becomes of the posting."""
    text = report.markdown({stem: report.review.pictures[stem] for stem in report.pictures}, forge)
    write_text(folder / COMMENT, text)
    return text


def _as_told(review: Review) -> Report:
    # A gate's name is whatever params.yaml of a pull request calls it.
    return Report(review, {}, STATES[review.state], " ".join(headline(review).split()))


def _judged(review: Review, gates_from: Path) -> Report:
    told_gates = {gate.name: gate.rule for gate in review.gates}
    gates, told = gates_in_force(read_params(gates_from).get("gates") or {}, told_gates)
    notes = (*review.notes, *(note for note in told if note not in review.notes))
    try:
        judged = judge_gates(gates, review.changes)
    except PlumblineError as error:
        fault = GateResult(name="gates", rule=str(gates_from.name), passed=False, why=str(error)[:1000])
        review = review.model_copy(update={"gates": (fault,), "notes": notes})
        return Report(review, {}, "error", f"The gates cannot be judged: {error}")
    return _as_told(review.model_copy(update={"gates": judged, "notes": notes}))
