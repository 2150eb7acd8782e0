"""The report's page: what a person decides by comes first, where it comes from last."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from plumbline.report_content import Content
from plumbline.report_details import (
    dataset_section,
    lineage_section,
    machine_section,
    notes_section,
    reproduce_section,
    thresholds_section,
    training_section,
    undefined_section,
)
from plumbline.report_markdown import (
    UNDEFINED,
    cell,
    enumerated,
    first_names,
    fraction,
    fraction_with_interval,
    in_points,
    markdown_table,
    percent,
    points_with_interval,
)
from plumbline.report_rows import WEIGHTS, Row, title_of

INVALID = "INVALID"
FEW = 20  # images or groups to draw from: intervals of fewer are rough


def page(content: Content) -> str:
    """Return the Markdown page; the same content gives the same text."""
    words = content.words
    about = f"{words.headline.title} against latency, precision against recall, {words.class_scores[0].title} per class"
    parts = [
        "# Report",
        _summary(content),
        _table(content),
        f"![{about}](report.png)",
        *_differences_section(content),
        *_classes_section(content),
        *thresholds_section(content),
        *_pictures_section(content),
        *_slices_section(content),
        *undefined_section(content),
        *training_section(content),
        *dataset_section(content),
        *machine_section(content),
        *lineage_section(content),
        *notes_section(content),
        *reproduce_section(content),
    ]
    return "\n\n".join(parts) + "\n"


def _summary(content: Content) -> str:
    words = content.words
    text = (
        f"A {words.model} of {len(content.class_names)} classes, trained on {content.splits.get('train', (0, 0))[0]:,} "
        f"of {content.num_images:,} images and scored on {content.splits[content.scored_split][0]:,} "
        f"{content.scored_split} images"
    )
    if content.scored_split == "test":
        text += ", which training, calibration and the choice of thresholds have not seen"
    weights = content.rows[0]
    text += (
        f". {words.headline.title} of the trained weights: {fraction_with_interval(weights.score, weights.interval)}."
    )
    timed = [row for row in content.rows if row.latency_ms_p50 is not None]
    if timed:
        best = min(timed, key=lambda row: (row.latency_ms_p50 or 0, row.name))
        text += (
            f" The fastest artifact is **{cell(best.name)}**: {_ms(best, 'latency_ms_p50')} ms (p50), "
            f"{_difference(best)} points of {words.headline.title}, {_megabytes(best)} MB."
        )
    if content.unseen:
        text += f" {_unseen(content)}"
    return text


def _unseen(content: Content) -> str:
    names = first_names([f"**{cell(name)}**" for name in content.unseen])
    which = f"{len(content.unseen)} of {len(content.class_names)} classes have"
    if len(content.unseen) == 1:
        which = "One class has"
    return f"{which} no {content.words.counted} in {content.scored_split}, so nothing is known about: {names}."


def _table(content: Content) -> str:
    words = content.words
    headline, *others = [score for score in words.scores if score.in_table]
    head = (
        "Artifact", "Backend", "Weights in", f"{headline.title} (0..1)", "Difference (points)",
        *(f"{score.title} (0..1)" for score in others), "p50 (ms)", "p99 (ms)", "Size (MB)",
    )  # fmt: skip
    body = [
        (
            title_of(row),
            row.backend,
            row.precision,
            fraction_with_interval(row.score, row.interval) if row.name == WEIGHTS else fraction(row.score),
            UNDEFINED if row.name == WEIGHTS else _difference(row),
            *(fraction(row.scores[score.key]) for score in others),
            _ms(row, "latency_ms_p50"),
            _ms(row, "latency_ms_p99"),
            _megabytes(row),
        )
        for row in content.rows
    ]
    parts = [markdown_table(head, body, left=3), *_verdicts(content), _table_note(content)]
    return "\n\n".join(parts)


def _table_note(content: Content) -> str:
    words, sampling = content.words, content.sampling
    drawn = f"{sampling.num_drawn:,} groups of images, each drawn whole"
    if sampling.num_drawn == content.splits[content.scored_split][0]:
        drawn = f"{sampling.num_drawn:,} images"
    note = (
        f"Difference: {words.headline.title} minus that of the trained weights, times 100. In brackets: the "
        f"{percent(sampling.level)} interval of {sampling.samples:,} bootstrap samples of the {content.scored_split} "
        f"split ({drawn}); for a difference both are scored on the same samples."
    )
    if sampling.num_drawn < FEW:
        note += f" **{sampling.num_drawn} is few to draw from: take the intervals as rough.**"
    if words.table_note:
        note += f" {words.table_note}"
    note += f" p50 and p99: milliseconds from a decoded image to {words.answer}, one image at a time."
    note += " 1 MB is 1,000,000 bytes."
    if any(row.latency_valid is False for row in content.rows):
        note += f" {INVALID}: the benchmark did not meet its minimum time and number of queries."
    if any(score is None for row in content.rows for score in row.scores.values()):
        note += f" {UNDEFINED}: undefined, for the reasons below."
    return note


def _verdicts(content: Content) -> Iterator[str]:
    """Say in words which differences are real."""
    of: dict[str, list[str]] = {}
    for row in content.targets:
        of.setdefault(verdict_of(row), []).append(f"**{cell(row.name)}**")
    told = []
    for verdict in ("worse", "better"):
        if verdict in of:
            told.append(f"{_are(of[verdict])} {verdict} than the trained weights: 0 is outside of the interval.")
    if "unclear" in of:
        told.append(f"{_are(of['unclear'])} not told from the trained weights by these images: 0 is in the interval.")
    if "same" in of:
        told.append(f"{_are(of['same'])} the same as the trained weights to 0.01 points.")
    if told:
        yield " ".join(told)


def _are(names: Sequence[str]) -> str:
    return f"{enumerated(names)} {'is' if len(names) == 1 else 'are'}"


def verdict_of(row: Row) -> str:
    """Return whether an artifact's headline is ``better``, ``worse``, the ``same``, or ``unclear``; "" if undefined.

    What rounds to 0 where the page shows it counts as 0: it says nothing that its reader could not see.
    """
    found = row.interval
    if found is None or math.isnan(found.difference_low):
        return ""
    low, high = in_points(found.difference_low), in_points(found.difference_high)
    if low == high == in_points(found.difference) == 0:
        return "same"
    return "better" if low > 0 else "worse" if high < 0 else "unclear"


def _differences_section(content: Content) -> Iterator[str]:
    keys = [key for key in content.rows[0].intervals if key != content.words.headline.key]
    if not keys or not content.targets:
        return
    titles = {score.key: score.title for score in content.words.scores}
    yield "## Other differences from the trained weights"
    yield "In points, with their paired intervals."
    body = [[row.name, *(_points_of(row, key) for key in keys)] for row in content.targets]
    yield markdown_table(["Artifact", *(titles.get(key, key) for key in keys)], body, left=1)


def _points_of(row: Row, key: str) -> str:
    found = row.intervals.get(key)
    return UNDEFINED if found is None else points_with_interval(found.difference, found)


def _classes_section(content: Content) -> Iterator[str]:
    first, *others = content.words.class_scores
    yield f"## {first.title} per class"
    note = content.words.class_note
    yield f"{note} {_unseen(content)}" if content.unseen else note
    shown = next(row for row in content.rows if row.name == content.shown)
    head = [
        "Class",
        f"{content.words.counted.capitalize()} ({content.scored_split})",
        *(title_of(row) for row in content.rows),
        *(f"{score.title}, {title_of(shown)}" for score in others),
    ]
    body = [
        [
            name,
            f"{count:,}",
            *(fraction(row.class_scores[first.key].get(name)) for row in content.rows),
            *(fraction(shown.class_scores[score.key].get(name)) for score in others),
        ]
        for name, count in zip(content.class_names, content.class_counts, strict=True)
    ]
    yield markdown_table(head, body, left=1)


def _pictures_section(content: Content) -> Sequence[str]:
    name, split = cell(content.shown), content.scored_split
    return (
        f"## What {name} says of {split} images",
        content.samples_note,
        f"![Predictions of {name} on {split} images](samples.jpg)",
        "### Its worst mistakes",
        f"![The {split} images with the worst mistakes of {name}](worst.jpg)",
        "### Its curves",
        f"![Curves of {name} on {split} images](curves.png)",
    )


def _slices_section(content: Content) -> Iterator[str]:
    tables = {name: content.slices[name] for name in dict.fromkeys((WEIGHTS, content.shown))}
    rows = tables[content.shown]
    if rows.empty:
        return
    headline, objects = content.words.headline, content.words.objects
    yield "## Slices"
    yield (
        f"{headline.title} (0..1) on parts of the {content.scored_split} images. A slice of few images says little; no "
        "interval is computed here."
    )
    counts = ["Images", objects.capitalize()] if objects else ["Images"]
    columns = ["num_images", "num_objects"] if objects else ["num_images"]
    titles = ["trained weights" if name == WEIGHTS else name for name in tables]
    body = [
        [
            f"{rows.at[i, 'column']}: {rows.at[i, 'slice']}",
            *(f"{int(rows.at[i, column]):,}" for column in columns),
            *(fraction(float(frame.at[i, headline.metric])) for frame in tables.values()),
        ]
        for i in rows.index
    ]
    yield markdown_table(["Slice", *counts, *titles], body, left=1)


def _difference(row: Row) -> str:
    found = row.interval
    return UNDEFINED if found is None else points_with_interval(found.difference, found)


def _ms(row: Row, key: str) -> str:
    if row.latency_valid is False:
        return INVALID
    value = row.latency[key]
    return UNDEFINED if value is None else f"{value:.2f}"


def _megabytes(row: Row) -> str:
    return f"{row.size_bytes / 1e6:.2f}"
