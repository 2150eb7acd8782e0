"""The report's page: what a person decides by comes first, where it comes from last."""

from __future__ import annotations

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
    first_names,
    fraction,
    fraction_with_interval,
    markdown_table,
    points_with_interval,
)
from plumbline.report_origin import origin_section
from plumbline.report_rows import WEIGHTS, Row, title_of
from plumbline.report_table import (
    difference_of,
    int8_sentences,
    main_table,
    megabytes,
    milliseconds,
    others_section,
    recommended_section,
)


def page(content: Content) -> str:
    """Return the Markdown page; the same content gives the same text."""
    words = content.words
    about = f"{words.headline.title} against latency, precision against recall, {words.class_scores[0].title} per class"
    parts = [
        "# Report",
        _summary(content),
        *int8_sentences(content),
        main_table(content),
        *recommended_section(content),
        f"![{about}](report.png)",
        *others_section(content),
        *_differences_section(content),
        *_classes_section(content),
        *thresholds_section(content),
        *_pictures_section(content),
        *_slices_section(content),
        *undefined_section(content),
        *origin_section(content),
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
    fastest = content.choices[0]
    taken = next((row for row in content.targets if row.name == fastest.name), None)
    if taken is not None:
        text += (
            f" The fastest artifact inside the budget is **{cell(taken.name)}**: "
            f"{milliseconds(taken, 'latency_ms_p50')} ms (p50), {difference_of(taken)} points of "
            f"{words.headline.title}, {megabytes(taken)} MB."
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
