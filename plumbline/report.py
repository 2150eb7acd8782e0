"""The report's rows and its page, from numbers that are already read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from plumbline.errors import EvaluationError
from plumbline.runtime.artifact import Artifact

WEIGHTS = "weights"  # the trained weights: what every artifact is compared with
INVALID = "INVALID"
UNDEFINED = "–"  # noqa: RUF001 - a hyphen reads as the beginning of a number

UNITS = {
    "map50_95": "0..1, COCO's mean over classes and IoU 0.50:0.05:0.95",
    "map50_95_difference": "0..1, the artifact minus the trained weights; times 100 for points",
    "map50": "0..1, at IoU 0.50",
    "map75": "0..1, at IoU 0.75",
    "detection_precision": "0..1",
    "detection_recall": "0..1",
    "detection_f1": "0..1",
    "class_map50_95": "0..1 per class; null for a class without a box in the evaluated split",
    "latency_valid": "false where the benchmark did not meet its minimums; null where none was made",
    "latency_ms_p50": "milliseconds, one image end to end",
    "latency_ms_p90": "milliseconds, one image end to end",
    "latency_ms_p99": "milliseconds, one image end to end",
    "preprocess_ms_p50": "milliseconds",
    "inference_ms_p50": "milliseconds",
    "postprocess_ms_p50": "milliseconds",
    "size_bytes": "bytes of the files that a device needs",
    "precision": "numbers that the weights are stored in: fp32, fp16 or int8; notes say when another one computes",
}


@dataclass(frozen=True)
class Result:
    """What is known of one artifact, as its stages wrote it.

    Attributes:
        artifact: The content of its artifact.json.
        metrics: Of evaluate, flat.
        benchmark: Of benchmark, flat; None where none was made, as for the trained weights.
        machine: Description of the machine that was measured on; empty where there is no benchmark.
    """

    artifact: Artifact
    metrics: Mapping[str, Any]
    benchmark: Mapping[str, Any] | None
    machine: Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One line of the table; the units are in `UNITS`, None is undefined (or INVALID, for a latency)."""

    name: str
    backend: str
    precision: str
    map50_95: float | None
    map50_95_difference: float | None
    map50: float | None
    map75: float | None
    detection_precision: float | None
    detection_recall: float | None
    detection_f1: float | None
    class_map50_95: dict[str, float | None]
    latency_valid: bool | None
    latency_ms_p50: float | None
    latency_ms_p90: float | None
    latency_ms_p99: float | None
    preprocess_ms_p50: float | None
    inference_ms_p50: float | None
    postprocess_ms_p50: float | None
    threads: int | None
    num_queries: int | None
    duration_s: float | None
    size_bytes: int


@dataclass(frozen=True)
class Content:
    """Everything on the page.

    Attributes:
        rows: The trained weights first.
        class_names: Index is class_id.
        class_counts: Boxes per class in the scored split, in the order of class_names.
        splits: Name of a split -> its images and boxes.
        scored_split: The one that every artifact was scored on.
        num_images: In the whole dataset, also those of no split.
        num_boxes: In the whole dataset.
        results: Name of an artifact -> what was read.
        samples_note: One sentence on what the sample images show.
    """

    rows: list[Row]
    class_names: tuple[str, ...]
    class_counts: list[int]
    splits: dict[str, tuple[int, int]]
    scored_split: str
    num_images: int
    num_boxes: int
    results: Mapping[str, Result]
    samples_note: str


def build_rows(results: Mapping[str, Result], sizes: Mapping[str, int]) -> list[Row]:
    """Return one row per artifact: the trained weights, then the rest in the order given.

    Args:
        results: Name -> what was read; holds `WEIGHTS`.
        sizes: Name -> bytes of its files.

    Raises:
        EvaluationError: The trained weights are missing, or a number is missing or not a number.
    """
    if WEIGHTS not in results:
        raise EvaluationError(
            f"no evaluation of {WEIGHTS!r}, expected the trained weights as the reference; run dvc repro"
        )
    reference = _metric(WEIGHTS, results[WEIGHTS].metrics, "map50_95")
    order = [WEIGHTS, *(name for name in results if name != WEIGHTS)]
    return [_row(name, results[name], reference, sizes[name]) for name in order]


def choose_sampled(rows: Sequence[Row]) -> str:
    """Return whose detections are drawn: the smallest int8 artifact, or the first target, or the trained weights.

    Raises:
        IndexError: There are no rows.
    """
    int8 = [row for row in rows if row.precision == "int8"]
    targets = [row for row in rows if row.name != WEIGHTS]
    if int8:
        return min(int8, key=lambda row: (row.size_bytes, row.name)).name
    return (targets or list(rows))[0].name


def evenly_spaced(image_ids: Sequence[int], count: int) -> list[int]:
    """Return `count` of the ids (all of them where there are fewer), evenly spaced in their sorted order.

    >>> evenly_spaced([9, 1, 5, 7, 3], 3)
    [1, 5, 9]
    """
    ordered = sorted(image_ids)
    if len(ordered) <= count:
        return ordered
    return [ordered[i] for i in np.linspace(0, len(ordered) - 1, count).round().astype(int)]


def page(content: Content) -> str:
    """Return the Markdown page; the same content gives the same text."""
    parts = [
        "# Report",
        _summary(content),
        _table(content.rows),
        "![Accuracy against latency, precision against recall, and accuracy per class](report.png)",
        "## Accuracy per class",
        "COCO's AP at IoU 0.50:0.95, 0..1.",
        _class_table(content),
        f"## Detections on {content.scored_split} images",
        content.samples_note,
        f"![Detections on {content.scored_split} images](samples.jpg)",
        "## What it was trained on",
        _dataset_table(content),
        "## Where it was measured",
        _facts({name: _measured(content, name) for name in _benchmarked(content)}),
        "## Lineage",
        _facts({name: result.artifact.lineage for name, result in _ordered(content)}),
        *_notes(content),
        "## How to reproduce",
        _reproduce(content),
    ]
    return "\n\n".join(parts) + "\n"


def title_of(row: Row) -> str:
    """Return what a person calls the artifact."""
    return "trained weights" if row.name == WEIGHTS else row.name


def shared_and_own(
    described: Mapping[str, Mapping[str, Any]],
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Part what all that have a key agree on from what is each one's own.

    >>> shared_and_own({"a": {"cpu": "X", "heat": 40}, "b": {"cpu": "X", "heat": 50}, "c": {}})
    ({'cpu': 'X'}, {'a': {'heat': 40}, 'b': {'heat': 50}})
    """
    each = list(described.values())
    values = {key: [one[key] for one in each if key in one] for key in sorted({key for one in each for key in one})}
    shared = {key: found[0] for key, found in values.items() if all(value == found[0] for value in found)}
    own = {name: {key: one[key] for key in sorted(one) if key not in shared} for name, one in described.items()}
    return shared, {name: rest for name, rest in own.items() if rest}


def _row(name: str, result: Result, reference: float | None, size_bytes: int) -> Row:
    metrics, benchmark = result.metrics, result.benchmark
    map50_95 = _metric(name, metrics, "map50_95")
    valid = None if benchmark is None else bool(_number(name, benchmark, "valid"))
    latency: dict[str, Any] = {}
    for key in [f"latency_ms_p{p}" for p in (50, 90, 99)] + [f"{part}_ms_p50" for part in _PARTS]:
        latency[key] = _number(name, benchmark, key) if benchmark is not None and valid else None
    run: Mapping[str, Any] = benchmark or {}
    return Row(
        name=name,
        backend=result.artifact.backend,
        precision=result.artifact.precision,
        map50_95=map50_95,
        map50_95_difference=None if map50_95 is None or reference is None else map50_95 - reference,
        map50=_metric(name, metrics, "map50"),
        map75=_metric(name, metrics, "map75"),
        detection_precision=_metric(name, metrics, "precision"),
        detection_recall=_metric(name, metrics, "recall"),
        detection_f1=_metric(name, metrics, "f1"),
        # A class without a box in the split has no AP, so evaluate may leave its key out.
        class_map50_95={c: metrics.get(f"class_{c}_map50_95") for c in result.artifact.class_names},
        latency_valid=valid,
        **latency,
        threads=run.get("threads"),
        num_queries=run.get("num_queries"),
        duration_s=run.get("duration_s"),
        size_bytes=size_bytes,
    )


_PARTS = ("preprocess", "inference", "postprocess")


def _metric(name: str, metrics: Mapping[str, Any], key: str) -> float | None:
    # Evaluate leaves out what is undefined, and without a single box that is everything but the counts.
    if key not in metrics and metrics.get("num_boxes") == 0:
        return None
    return _number(name, metrics, key)


def _number(name: str, values: Mapping[str, Any], key: str) -> float:
    value = values.get(key)
    if not isinstance(value, int | float):
        raise EvaluationError(
            f"{name}: expected a number for {key!r}, got {value!r} beside {sorted(values)[:5]}; run dvc repro"
        )
    return float(value)


def _summary(content: Content) -> str:
    text = (
        f"A detector of {len(content.class_names)} classes, trained on {content.splits.get('train', (0, 0))[0]:,} of "
        f"{content.num_images:,} images and scored on {content.splits[content.scored_split][0]:,} "
        f"{content.scored_split} images"
    )
    text += ", which training and calibration have not seen." if content.scored_split == "test" else "."
    timed = [row for row in content.rows if row.latency_ms_p50 is not None]
    if timed:
        best = min(timed, key=lambda row: (row.latency_ms_p50 or 0, row.name))
        text += (
            f" The fastest artifact is **{_cell(best.name)}**: {_ms(best, 'latency_ms_p50')} ms (p50), "
            f"{_points(best.map50_95_difference)} points of mAP50-95, {_megabytes(best)} MB."
        )
    return text


def _table(rows: Sequence[Row]) -> str:
    head = (
        "Artifact", "Backend", "Weights in", "mAP50-95 (0..1)", "Difference (points)", "mAP50 (0..1)",
        "Precision (0..1)", "Recall (0..1)", "p50 (ms)", "p99 (ms)", "Size (MB)",
    )  # fmt: skip
    body = [
        (
            title_of(row),
            row.backend,
            row.precision,
            _fraction(row.map50_95),
            UNDEFINED if row.name == WEIGHTS else _points(row.map50_95_difference),
            _fraction(row.map50),
            _fraction(row.detection_precision),
            _fraction(row.detection_recall),
            _ms(row, "latency_ms_p50"),
            _ms(row, "latency_ms_p99"),
            _megabytes(row),
        )
        for row in rows
    ]
    note = (
        "Difference: mAP50-95 minus that of the trained weights, times 100. p50 and p99: milliseconds from a decoded "
        "image to its boxes, one image at a time. 1 MB is 1,000,000 bytes."
    )
    if any(row.latency_valid is False for row in rows):
        note += f" {INVALID}: the benchmark did not meet its minimum time and number of queries."
    return _markdown_table(head, body, left=3) + "\n\n" + note


def _class_table(content: Content) -> str:
    head = ["Class", f"Boxes ({content.scored_split})", *(title_of(row) for row in content.rows)]
    body = [
        [class_name, f"{count:,}", *(_fraction(row.class_map50_95.get(class_name)) for row in content.rows)]
        for class_name, count in zip(content.class_names, content.class_counts, strict=True)
    ]
    return _markdown_table(head, body, left=1)


def _dataset_table(content: Content) -> str:
    head = ("Split", "Images", "Boxes")
    body = [(name, f"{images:,}", f"{boxes:,}") for name, (images, boxes) in content.splits.items()]
    body.append(("all", f"{content.num_images:,}", f"{content.num_boxes:,}"))
    names = ", ".join(_cell(name) for name in content.class_names)
    return _markdown_table(head, body, left=1) + f"\n\nClasses ({len(content.class_names)}): {names}."


def _ordered(content: Content) -> list[tuple[str, Result]]:
    return [(row.name, content.results[row.name]) for row in content.rows]


def _benchmarked(content: Content) -> list[str]:
    return [name for name, result in _ordered(content) if result.benchmark is not None]


def _measured(content: Content, name: str) -> dict[str, Any]:
    result = content.results[name]
    run = result.benchmark or {}
    return {**result.machine, **{key: run[key] for key in ("threads", "num_queries", "duration_s") if key in run}}


def _facts(described: Mapping[str, Mapping[str, Any]]) -> str:
    """Write what is agreed on once, with whom it is about where that is not everyone; then a table of what differs."""
    shared, own = shared_and_own(described)
    lines = []
    for key, value in shared.items():
        having = [name for name, one in described.items() if key in one]
        about = "" if len(having) == len(described) else f" ({_cell(', '.join(having))})"
        lines.append(f"- {_cell(key)}: {_value(value)}{about}")
    parts = ["\n".join(lines)] if lines else []
    if own:
        keys = sorted({key for one in own.values() for key in one})
        body = [
            [_cell(name), *(_value(one[key]) if key in one else UNDEFINED for key in keys)] for name, one in own.items()
        ]
        parts.append(_markdown_table(["Artifact", *keys], body, left=len(keys) + 1, escaped=True))
    return "\n\n".join(parts) or "Nothing was recorded."


def _notes(content: Content) -> list[str]:
    notes = {name: dict(result.artifact.notes) for name, result in _ordered(content)}
    for name, result in _ordered(content):
        if not result.artifact.reproducible:
            notes[name]["reproducible"] = False
    return ["## Notes of the artifacts", _facts(notes)] if any(notes.values()) else []


def _reproduce(content: Content) -> str:
    commits = sorted({str(result.artifact.lineage.get("git_commit") or "") for result in content.results.values()})
    dirty = any(commit.endswith("-dirty") for commit in commits)
    told = " and ".join(f"`{commit.removesuffix('-dirty')}`" for commit in commits if commit)
    made = f" The artifacts were made at {told}" + (", with changes that were not committed." if dirty else ".")
    return (
        "Check out the commit that holds this page: it holds the code, `params.yaml` and `dvc.lock` that made it."
        f"{made if told else ''} Then:\n\n"
        "```sh\nmake repro\n```\n\n"
        "`dvc repro` alone does the same in a prepared environment, and reruns only what has changed. The graph is in "
        "`dvc.yaml`, every value in `params.yaml`, every hash in `dvc.lock`. Latencies belong to the machine above."
    )


def _fraction(value: float | None) -> str:
    return UNDEFINED if value is None else f"{value:.3f}"


def _points(difference: float | None) -> str:
    # A tiny negative difference must not read as "-0.00".
    return UNDEFINED if difference is None else f"{round(difference * 100, 2) + 0.0:+.2f}"


def _ms(row: Row, key: str) -> str:
    if row.latency_valid is False:
        return INVALID
    value = getattr(row, key)
    return UNDEFINED if value is None else f"{value:.2f}"


def _megabytes(row: Row) -> str:
    return f"{row.size_bytes / 1e6:.2f}"


def _cell(text: object) -> str:
    return str(text).replace("|", "\\|").replace("\n", " ")


def _value(value: object) -> str:
    if value is None or value == "":
        return UNDEFINED
    if isinstance(value, dict):
        return ", ".join(f"{_cell(key)} {_value(value[key])}" for key in sorted(value))
    if isinstance(value, float):
        value = round(value, 3)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    cut = text if len(text) <= 120 else text[:117] + "..."
    return f"`{_cell(cut)}`"


def _markdown_table(head: Sequence[str], body: Sequence[Sequence[str]], *, left: int, escaped: bool = False) -> str:
    """Return a table whose first `left` columns are text and whose rest are numbers."""
    lines = [
        [_cell(text) for text in head],
        ["---" if index < left else "---:" for index in range(len(head))],
        *([text if escaped else _cell(text) for text in row] for row in body),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
