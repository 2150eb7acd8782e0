"""The report's first tables: what a person decides by."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from plumbline.recommendation import Choice, keeps_budget
from plumbline.report_acceptance import times
from plumbline.report_content import Content
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
from plumbline.report_rows import SPEEDUPS, WEIGHTS, Row, title_of

INVALID = "INVALID"
HASH_CHARACTERS = 8  # enough to see whether two artifacts were calibrated on the same images
FEW = 20  # images or groups to draw from: intervals of fewer are rough


def int8_sentences(content: Content) -> Iterator[str]:
    """Say which int8 artifacts are not worth their name, and why; nothing where all are."""
    told = []
    for row in content.targets:
        if row.verdict.accepted is False:
            told.append(f"**{cell(row.name)} is not accepted as int8:** {cell(row.verdict.why)}.")
        elif row.verdict.why:
            told.append(f"**{cell(row.name)}**: {cell(row.verdict.why)}.")
    over = [row for row in content.targets if row.verdict.accepted and keeps_budget(row, content.budget) is False]
    if over:
        lost = enumerated([f"**{cell(row.name)}** ({difference_of(row)})" for row in over])
        allowed, split = content.budget.max_drop, content.scored_split
        told.append(f"Inside the budget on val, but past its {allowed:g} points on {split}: {lost}.")
    if told:
        yield "\n".join(f"- {line}" for line in told)


def main_table(content: Content) -> str:
    """Return the table that a person decides by, and what must be known to read it."""
    title = content.words.headline.title
    head = (
        "Artifact", "Backend", "Computes in", f"{title} (0..1)", "Difference (points)", "Speed-up (times)", "p50 (ms)",
        "Size (MB)", "Left in float", "Calibrated on", "Accepted as int8",
    )  # fmt: skip
    body = [
        (
            title_of(row),
            row.backend,
            _computes_in(row),
            fraction_with_interval(row.score, row.interval) if row.name == WEIGHTS else fraction(row.score),
            UNDEFINED if row.name == WEIGHTS else difference_of(row),
            _speedup(row, "speedup_onnx_fp32"),
            milliseconds(row, "latency_ms_p50"),
            megabytes(row),
            _left_in_float(row),
            _calibrated_on(row),
            row.verdict.short or UNDEFINED,
        )
        for row in content.rows
    ]
    parts = [markdown_table(head, body, left=3), *_verdicts(content), _table_note(content)]
    return "\n\n".join(parts)


def _computes_in(row: Row) -> str:
    """Return the precision that is really used, and what stands in for the device."""
    build = row.build
    quantized = build.quantized
    used = build.computes_in or row.precision
    if quantized is not None and quantized.num_int8 is not None and row.precision == "int8":
        used = "int8" if quantized.num_int8 else f"{build.computes_in or 'float'}, not int8"
    elif used != row.precision:
        used = f"{used}, stored as {row.precision}"
    return f"{used} ({build.stands_in})" if build.stands_in else used


def _left_in_float(row: Row) -> str:
    quantized = row.build.quantized
    if quantized is None or quantized.num_float is None:
        return UNDEFINED
    return f"{quantized.num_float} of {quantized.num_convolutions}"


def _calibrated_on(row: Row) -> str:
    build = row.build
    if not build.calibration_sha256:
        return UNDEFINED
    return f"{build.num_calibration_images} images, {build.calibration_sha256[:HASH_CHARACTERS]}"


def _speedup(row: Row, key: str) -> str:
    found = row.speedups.get(key)
    return UNDEFINED if found is None else times(found)


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
    note += _speed_note(content)
    note += " 1 MB is 1,000,000 bytes."
    if any(row.precision == "int8" for row in content.rows):
        note += (
            " Left in float: convolutions that the engine does not compute in int8. Calibrated on: images of train, "
            "and the beginning of their sha256. Accepted as int8: inside the budget on val, in int8 in fact, and not "
            "slower than the same backend's fp32."
        )
    if any(score is None for row in content.rows for score in row.scores.values()):
        note += f" {UNDEFINED} under a score: undefined, for the reasons below."
    return note


def _speed_note(content: Content) -> str:
    note = ""
    if any("speedup_onnx_fp32" in row.speedups for row in content.rows):
        note += " Speed-up: how many times as fast as ONNX fp32, both asked in turn in one run."
    note += f" p50: milliseconds from a decoded image to {content.words.answer}, one image at a time."
    if any(row.latency_valid is False for row in content.rows):
        note += f" {INVALID}: the benchmark did not meet its minimum time and number of queries."
    return note


def recommended_section(content: Content) -> Iterator[str]:
    """Name an artifact for each need."""
    if not content.targets:
        return
    yield "## What to take"
    budget, headline = content.budget, content.words.headline.title
    yield (
        f"The budget: at most {budget.max_drop:g} points of {headline} lost, and at most {budget.max_drop_upper:g} at "
        "the upper end of the interval. An int8 artifact is judged by it on val and is a candidate if it is accepted; "
        f"a float one is judged by its difference on {content.scored_split}."
    )
    body = [
        (choice.need.capitalize(), choice.name or "none", choice.reason, _ties(choice)) for choice in content.choices
    ]
    yield markdown_table(["Need", "Artifact", "Why", "As good within the noise"], body, left=4)


def _ties(choice: Choice) -> str:
    return first_names([f"{name} ({more})" if more else name for name, more in choice.ties], 6) or UNDEFINED


def others_section(content: Content) -> Iterator[str]:
    """Show the scores and latencies that artifacts are not chosen by."""
    words = content.words
    others = [score for score in words.scores[1:] if score.in_table]
    yield "## Other scores and latencies"
    if words.table_note:
        yield words.table_note
    body = [[title_of(row), *(fraction(row.scores[score.key]) for score in others)] for row in content.rows]
    yield markdown_table(["Artifact", *(f"{score.title} (0..1)" for score in others)], body, left=1)
    timed = [row for row in content.targets if row.latency_valid is not None]
    if not timed:
        return
    yield (
        "p50, p90 and p99 in milliseconds, of the same queries. Speed-ups: how many times as fast, both asked in turn "
        "in one run; end to end where nothing else is said."
    )
    keys = [key for key in SPEEDUPS if any(key in row.speedups for row in timed)]
    body = [
        [
            row.name,
            *(milliseconds(row, f"latency_ms_p{p}") for p in (50, 90, 99)),
            *(_speedup(row, key) for key in keys),
        ]
        for row in timed
    ]
    head = ["Artifact", "p50 (ms)", "p90 (ms)", "p99 (ms)", *(f"Speed-up over {SPEEDUPS[key]}" for key in keys)]
    yield markdown_table(head, body, left=1)


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


def difference_of(row: Row) -> str:
    """Write the headline's difference from the trained weights with its interval, in points."""
    found = row.interval
    return UNDEFINED if found is None else points_with_interval(found.difference, found)


def milliseconds(row: Row, key: str) -> str:
    """Write a latency, or why there is none."""
    if row.latency_valid is False:
        return INVALID
    value = row.latency[key]
    if value is None and row.build.stands_in:
        return f"not measured ({row.build.stands_in})"
    return UNDEFINED if value is None else f"{value:.2f}"


def megabytes(row: Row) -> str:
    """Write the size of an artifact's files."""
    return f"{row.size_bytes / 1e6:.2f}"
