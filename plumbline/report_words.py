"""What a task's room ``reporting`` gives: the words and columns in which the one report tells of that task.

It has ``WORDS``, a `ReportWords`, and two functions::

    samples_note(name, threshold) -> str    # one sentence on what the sample images show
    draw_samples(data, image_ids, predictions, threshold) -> BGR image

``predictions`` are those of the artifact `name`, columns of the room ``scoring``'s ``PREDICTIONS_SCHEMA``;
``threshold`` is its confidence threshold.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """One of a task's metrics, as the report shows it.

    Attributes:
        key: In the rows of report.json.
        metric: In metrics.json; of one class, in ``class_<name>_<metric>``.
        title: Heads its column; the unit stands behind it.
        unit: What the number is, for report.json.
        in_table: Whether the page's first table has it.
    """

    key: str
    metric: str
    title: str
    unit: str
    in_table: bool = True


@dataclass(frozen=True)
class ReportWords:
    """How the report tells of a task.

    Attributes:
        model: ``detector``.
        objects: What is counted beside images, ``boxes``; "" where a label is of a whole image.
        num_objects_key: Of their number, in report.json.
        answer: What an image becomes, for the note on latency: ``its boxes``.
        scores: Of the whole split; the first is the one that artifacts are compared by.
        class_scores: Of each class; the first is shown of every artifact, the others of the one shown in detail.
        class_note: What the first of `class_scores` is.
        at_threshold: Metric in metrics.json -> title, of what the artifact's own confidence threshold gives.
        threshold_note: What the threshold decides, one sentence.
        table_note: What else must be said below the first table, or "".
        pr_title: Heads the panel of precision against recall.
    """

    model: str
    objects: str
    num_objects_key: str
    answer: str
    scores: tuple[Score, ...]
    class_scores: tuple[Score, ...]
    class_note: str
    at_threshold: dict[str, str]
    threshold_note: str
    table_note: str
    pr_title: str

    @property
    def headline(self) -> Score:
        """The score that artifacts are compared by."""
        return self.scores[0]

    @property
    def counted(self) -> str:
        """What a class has a number of: boxes, or images."""
        return self.objects or "images"

    def score_of(self, metric: str) -> Score:
        """Return the score of a metric, also of one that the rows do not have: it is called by its own name then."""
        return next((score for score in self.scores if score.metric == metric), Score(metric, metric, metric, ""))
