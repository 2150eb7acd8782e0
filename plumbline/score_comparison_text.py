"""A comparison of two runs as lines for a terminal, as Markdown, and as JSON."""

from __future__ import annotations

import math
from typing import Any

from plumbline.report_markdown import fraction, markdown_table, percent, points
from plumbline.report_words import ReportWords
from plumbline.score_comparison import ScoreComparison, is_more_than_chance
from plumbline.scores import Interval

FEW = 20  # of what is drawn: fewer give intervals of little worth


def as_text(comparison: ScoreComparison, words: ReportWords) -> str:
    """Write a comparison for a terminal: a table, the verdict, and what must be known to read it."""
    head, body = _table(comparison, words)
    widths = [max(len(row[column]) for row in [head, *body]) for column in range(len(head))]
    lines = [
        "  ".join(text.ljust(width) if column < 2 else text.rjust(width) for column, (text, width) in enumerate(cells))
        for cells in (list(zip(row, widths, strict=True)) for row in [head, *body])
    ]
    return "\n".join([*(line.rstrip() for line in lines), "", verdict(comparison, words), *notes(comparison)]) + "\n"


def as_markdown(comparison: ScoreComparison, words: ReportWords) -> str:
    """Write a comparison as a page to post on a pull request."""
    head, body = _table(comparison, words)
    parts = [
        f"**{verdict(comparison, words)}**",
        markdown_table(head, body, left=2),
        "\n".join(f"- {note}" for note in notes(comparison)),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def as_json(comparison: ScoreComparison) -> dict[str, Any]:
    """Return a comparison as JSON's values; what is undefined is null."""
    return {
        "there": comparison.there,
        "here": comparison.here,
        "task": comparison.task,
        "num_images": comparison.num_images,
        "num_images_only_there": comparison.num_only_there,
        "num_images_only_here": comparison.num_only_here,
        "num_images_with_other_labels": comparison.num_other_labels,
        "bootstrap_samples": comparison.settings.samples,
        "confidence_level": comparison.settings.level,
        "artifacts": {
            name: {metric: _values(interval) for metric, interval in metrics.items()}
            for name, metrics in comparison.intervals.items()
        },
        "artifacts_only_there": list(comparison.only_there),
        "artifacts_only_here": list(comparison.only_here),
    }


def verdict(comparison: ScoreComparison, words: ReportWords) -> str:
    """Say in one sentence whether the first metric differs by more than chance, and for which artifacts."""
    metric = words.headline.metric
    title = words.headline.title
    found = {name: metrics[metric] for name, metrics in comparison.intervals.items() if metric in metrics}
    if not found:
        return f"{title} is undefined on these {comparison.num_images:,} images."
    level = percent(comparison.settings.level)
    better = [name for name, each in found.items() if is_more_than_chance(each) and each.difference > 0]
    worse = [name for name, each in found.items() if is_more_than_chance(each) and each.difference < 0]
    parts = [
        f"{what} than {comparison.there} for {', '.join(names)}"
        for what, names in (("higher", better), ("lower", worse))
        if names
    ]
    if not parts:
        return f"{title} differs from {comparison.there} by no more than chance ({level} intervals hold 0)."
    rest = len(found) - len(better) - len(worse)
    others = f"; for the other {rest} by no more than chance" if rest else ""
    return f"{title} is {', and '.join(parts)}, by more than chance ({level} intervals){others}."


def notes(comparison: ScoreComparison) -> list[str]:
    """Return what must be known to read the numbers, one sentence each."""
    here, there = comparison.here, comparison.there
    settings = comparison.settings
    said = [
        f"{comparison.num_images:,} images, each scored in both, by the labels of {here};"
        f" paired bootstrap of {settings.samples:,} samples."
    ]
    for count, ours, other in ((comparison.num_only_there, there, here), (comparison.num_only_here, here, there)):
        if count:
            said.append(f"Left out: {count:,} {_images(count)} of {ours} that {other} did not score.")
    if count := comparison.num_other_labels:
        said.append(f"The labels of {count:,} {_images(count)} are others in {there}.")
    if comparison.num_drawn < FEW:
        said.append(
            f"A sample is drawn from {comparison.num_drawn} images and groups alone: the intervals are of little worth."
        )
    for names, ours in ((comparison.only_there, there), (comparison.only_here, here)):
        if names:
            said.append(f"Only in {ours}: {', '.join(names)}.")
    return said


def _images(count: int) -> str:
    return "image" if count == 1 else "images"


def _table(comparison: ScoreComparison, words: ReportWords) -> tuple[list[str], list[list[str]]]:
    interval = f"{percent(comparison.settings.level)} interval"
    head = ["Artifact", "Metric", comparison.there, comparison.here, "Points", interval, "More than chance"]
    body = [
        [name, words.score_of(metric).title, *_cells(each)]
        for name, metrics in comparison.intervals.items()
        for metric, each in metrics.items()
    ]
    return head, body


def _cells(each: Interval) -> list[str]:
    chance = is_more_than_chance(each)
    ends = "undefined" if chance is None else f"{points(each.difference_low)} to {points(each.difference_high)}"
    said = {True: "yes", False: "no", None: "undefined"}[chance]
    return [fraction(each.value - each.difference), fraction(each.value), points(each.difference), ends, said]


def _values(each: Interval) -> dict[str, Any]:
    values = {
        "there": each.value - each.difference,
        "here": each.value,
        "difference": each.difference,
        "difference_low": each.difference_low,
        "difference_high": each.difference_high,
    }
    rounded = {key: None if math.isnan(value) else round(value, 6) for key, value in values.items()}
    return {**rounded, "more_than_chance": is_more_than_chance(each)}
