"""The section of the report's page that says how each artifact was made, and what int8 costs each class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from plumbline.report_build import Build, Quantized
from plumbline.report_content import FP32_STEP, Content
from plumbline.report_markdown import (
    UNDEFINED,
    cell,
    code,
    first_names,
    fraction,
    in_points,
    markdown_table,
    points,
)
from plumbline.report_rows import Row

MOST_CLASSES = 5


@dataclass(frozen=True)
class ClassLoss:
    """What a class lost to the trained weights, on the scored split.

    Attributes:
        name: Of the class.
        values: Key of a class's score -> value of the artifact, 0..1.
        differences: The same keys -> that minus the trained weights' value; None where one of them is undefined.
    """

    name: str
    values: dict[str, float | None]
    differences: dict[str, float | None]


def origin_section(content: Content) -> Iterator[str]:
    """Say how each artifact was made."""
    yield "## How each was made"
    shared = _of_all([row.build.toolchain for row in content.rows])
    if shared:
        yield f"All were made with {_versions(shared)}."
    yield (
        "Parity: by how much the raw outputs of the backend's float export differ from those of the trained weights, "
        "on real images, as a share of the largest value of that output; and how much may be."
    )
    body = [
        [
            cell(row.name),
            cell(row.build.chip or UNDEFINED),
            _parity(row.build),
            _versions({key: row.build.toolchain[key] for key in row.build.toolchain if key not in shared}) or UNDEFINED,
        ]
        for row in content.targets
    ]
    yield markdown_table(["Artifact", "Chip", "Parity", "Also made with"], body, left=4, escaped=True)
    for row in content.targets:
        if row.build.quantized is not None:
            yield from _int8_section(row, row.build.quantized, content)


def class_losses(row: Row, weights: Row) -> list[ClassLoss]:
    """Return what each class lost by its first score, the largest loss first; those undefined in it come last."""
    first = next(iter(row.class_scores))
    losses = []
    for name in row.class_scores[first]:
        values = {key: scores.get(name) for key, scores in row.class_scores.items()}
        before = {key: weights.class_scores[key].get(name) for key in row.class_scores}
        losses.append(ClassLoss(name, values, {key: _minus(values[key], before[key]) for key in values}))

    def order(loss: ClassLoss) -> tuple[bool, float]:
        difference = loss.differences[first]
        return difference is None, difference or 0.0

    return sorted(losses, key=order)


def _minus(value: float | None, before: float | None) -> float | None:
    return None if value is None or before is None else value - before


def _of_all(toolchains: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return the packages that all were made with, in one version."""
    first, *rest = toolchains
    return {key: first[key] for key in sorted(first) if all(one.get(key) == first[key] for one in rest)}


def _versions(toolchain: Mapping[str, str]) -> str:
    return cell(", ".join(f"{package} {toolchain[package]}" for package in sorted(toolchain)))


def _parity(build: Build) -> str:
    if build.parity_error is None:
        return UNDEFINED
    allowed = "" if build.parity_tolerance is None else f" of {build.parity_tolerance:g} allowed"
    images = "" if build.parity_images is None else f", {build.parity_images} images"
    return f"{build.parity_error:.1e}{allowed}{images}"


def _int8_section(row: Row, quantized: Quantized, content: Content) -> Iterator[str]:
    yield f"### {cell(row.name)}"
    yield markdown_table(["What", "How"], _facts(row.build, quantized, content), left=2, escaped=True)
    if row.name in content.trials:
        yield from _trials(content.trials[row.name], quantized, content)
    yield from _class_table(row, content)


def _facts(build: Build, quantized: Quantized, content: Content) -> list[list[str]]:
    title = content.words.score_of(quantized.metric or "").title if quantized.metric else "the metric"
    limits = f"allowed: {content.budget.max_drop:g}, upper end {content.budget.max_drop_upper:g}"
    lost = UNDEFINED
    if quantized.drop is not None:
        upper = UNDEFINED if quantized.drop_upper is None else f"{quantized.drop_upper:.2f}"
        lost = f"{quantized.drop:.2f} points of {title}, upper end {upper} ({limits})"
    calibrated = UNDEFINED
    if build.calibration_sha256:
        calibrated = f"{build.num_calibration_images} images of train, sha256 {code(build.calibration_sha256)}"
    count = UNDEFINED
    if quantized.num_convolutions is not None:
        count = f"{quantized.num_int8} of {quantized.num_convolutions} convolutions"
    steps = {None: UNDEFINED, 0: "no"}.get(quantized.aware_steps, f"{quantized.aware_steps} steps")
    facts = [
        ["Method", cell(quantized.method or UNDEFINED)],
        ["Operators", cell(quantized.operators or UNDEFINED)],
        ["In int8", count],
        ["Left in float", _names(quantized.float_names)],
        ["Blocks that the search left in float", _names(quantized.float_blocks)],
        ["Calibrated on", calibrated],
        ["Lost on val", lost],
        ["Fine-tuned for int8", steps],
    ]
    return facts + [[cell(key), code(value)] for key, value in quantized.others]


def _names(names: tuple[str, ...]) -> str:
    return first_names([code(name) for name in names]) if names else "none"


def _trials(trials: pd.DataFrame, quantized: Quantized, content: Content) -> Iterator[str]:
    tried = trials[trials["step"] != FP32_STEP]
    reference = trials.loc[trials["step"] == FP32_STEP, "metric"]
    if tried.empty:
        return
    count = "1 file was" if len(tried) == 1 else f"{len(tried)} files were"
    title = content.words.headline.title
    from_what = "" if reference.empty else f" (fp32: {fraction(float(reference.iloc[0]))})"
    none = "" if tried["inside"].any() else "; none was inside the budget"
    yield f"{count} made and scored on val{none}. {title} on val{from_what}; drop in points:"
    head = ["Trial", "Step", "Method", "Operators", "Blocks in float", "In int8", title, "Drop", "Upper end", "Inside"]
    body = [
        [
            f"{trial.trial:.0f}{' (taken)' if _is_taken(trial, quantized) else ''}",
            cell(trial.step),
            cell(trial.method),
            cell(trial.operators),
            f"{trial.num_float_blocks:.0f}",
            f"{trial.int8_share * 100:.0f} %",
            fraction(trial.metric),
            f"{trial.drop:.2f}",
            f"{trial.drop_upper:.2f}",
            "yes" if trial.inside else "no",
        ]
        for trial in tried.itertuples()
    ]
    yield markdown_table(head, body, left=4, escaped=True)


def _is_taken(trial: object, quantized: Quantized) -> bool:
    """Tell whether a trial is the artifact: nothing but its recipe and what it lost says so."""
    recipe = (getattr(trial, "method", None), getattr(trial, "operators", None), getattr(trial, "drop", None))
    return recipe == (quantized.method, quantized.operators, quantized.drop)


def _class_table(row: Row, content: Content) -> Iterator[str]:
    scores = content.words.class_scores
    losses = [loss for loss in class_losses(row, content.rows[0]) if loss.differences[scores[0].key] is not None]
    if not losses:
        return
    shown = losses[:MOST_CLASSES]
    rest = len(losses) - len(shown)
    text = f"Classes on {content.scored_split}, the largest loss of {scores[0].title} first"
    if rest:
        least = in_points(shown[-1].differences[scores[0].key] or 0.0)
        text += f"; {rest} more {'stands' if rest == 1 else 'stand'} at {least + 0.0:+.2f} points or better"
    yield f"{text}. In brackets: points from the trained weights."
    body = [
        [loss.name, *(f"{fraction(loss.values[s.key])} ({points(loss.differences[s.key])})" for s in scores)]
        for loss in shown
    ]
    yield markdown_table(["Class", *(score.title for score in scores)], body, left=1)
