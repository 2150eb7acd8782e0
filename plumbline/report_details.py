"""The sections of the report's page that say how its numbers came about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from plumbline.report_build import PLACED
from plumbline.report_content import Content
from plumbline.report_markdown import cell, code, facts, first_names, fraction, markdown_table
from plumbline.report_rows import WEIGHTS, Result, title_of
from plumbline.report_words import ReportWords

RULES = {
    "best_f1": "the one with the best F1",
    "precision": "the lowest one with the precision that `threshold.precision` demands",
}


def thresholds_section(content: Content) -> Iterator[str]:
    """Say which confidence threshold each artifact has, and what it gives on val and on the scored split."""
    chosen = {name: threshold_note(result) for name, result in content.ordered}
    told = next((note for note in chosen.values() if note and note.get("rule") in RULES), None)
    told = told or next((note for note in chosen.values() if note), None)
    yield "## Confidence thresholds"
    parts = [content.words.threshold_note, *([_chosen_how(told)] if told else [])]
    for row in content.rows:
        note = chosen[row.name]
        if note and told and note.get("rule") != told.get("rule"):
            parts.append(f"**{cell(title_of(row))}** has one that was not chosen so: {_rule(note)}.")
    yield " ".join(parts)
    titles = content.words.at_threshold
    split = f"{told.get('split', 'val')}" if told else "val"
    head = [
        "Artifact", "Threshold", *(f"{title} ({split})" for title in ("Precision", "Recall", "F1")),
        *(f"{title} ({content.scored_split})" for title in titles.values()),
    ]  # fmt: skip
    body = [
        [
            title_of(row),
            fraction(row.confidence_threshold),
            *(fraction((chosen[row.name] or {}).get(key)) for key in ("precision", "recall", "f1")),
            *(fraction(content.results[row.name].metrics.get(metric)) for metric in titles),
        ]
        for row in content.rows
    ]
    yield markdown_table(head, body, left=1)


def threshold_note(result: Result) -> dict[str, Any] | None:
    """Return how an artifact's threshold was chosen, from its artifact.json; None where it does not say."""
    note = result.artifact.notes.get("threshold")
    return note if isinstance(note, dict) else None


def _chosen_how(note: dict[str, Any]) -> str:
    images = f"{note['num_images']:,} " if "num_images" in note else ""
    return f"Chosen for each artifact on the {images}{note.get('split')} images: {_rule(note)}."


def _rule(note: dict[str, Any]) -> str:
    return RULES.get(str(note.get("rule")), cell(note.get("rule")))


def undefined_section(content: Content) -> Iterator[str]:
    """Say which metrics have no value, and why; they are not 0."""
    about: dict[tuple[str, str], list[str]] = {}
    for row in content.rows:
        for metric, why in sorted(content.results[row.name].undefined.items()):
            about.setdefault((metric, why), []).append(title_of(row))
    if not about:
        return
    together: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (metric, why), names in about.items():
        together.setdefault((why, tuple(names)), []).append(metric)
    yield "## Undefined metrics"
    yield "These have no value; nowhere do they count as 0."
    body = [
        [
            first_names([code(metric) for metric in sorted(metrics)]),
            cell(why),
            "all" if len(names) == len(content.rows) else cell(", ".join(names)),
        ]
        for (why, names), metrics in together.items()
    ]
    yield markdown_table(["Metrics", "Why", "Artifacts"], body, left=3, escaped=True)


def training_section(content: Content) -> Iterator[str]:
    """Say how the training went."""
    metrics, folder = content.training.metrics, content.training.folder
    weights = content.results[WEIGHTS].artifact
    width, height = weights.input.size_wh
    planned = (weights.lineage.get("train") or {}).get("epochs")
    of = f" of {planned}" if planned else ""
    yield "## Training"
    lines = [f"- Epochs: {metrics.get('num_epochs')}{of}; the best was epoch {metrics.get('best_epoch')}"]
    scores = {key: value for key, value in sorted(metrics.items()) if key not in _NOT_SCORES}
    lines += [f"- {_score_title(key, content.words)} of that epoch: {value:.4g}" for key, value in scores.items()]
    if "num_parameters" in metrics:
        lines.append(f"- Parameters: {metrics['num_parameters'] / 1e6:,.3g} million")
    if "gflops" in metrics:
        lines.append(f"- GFLOPs of one image of {width} x {height} pixels: {metrics['gflops']:.3g}")
    yield "\n".join(lines)
    yield f"![Losses, learning rate and scores by epoch]({folder}/training.png)"
    yield f"![Labels by class and split]({folder}/labels.png)"


def _score_title(column: str, words: ReportWords) -> str:
    """Return what a column of the table of epochs is for a person, and whose number it is where it is not ours."""
    whose = ", by ultralytics' own evaluator," if column.endswith("_ultralytics") else ""
    metric = column.removeprefix("val_").removesuffix("_ultralytics")
    return f"{cell(words.score_of(metric).title)} on val{whose}"


_NOT_SCORES = ("num_epochs", "best_epoch", "num_parameters", "gflops")


def dataset_section(content: Content) -> Sequence[str]:
    """Say what was trained on."""
    objects = content.words.objects
    rows = [*content.splits.items(), ("all", (content.num_images, content.num_objects))]
    head = ["Split", "Images", *([objects.capitalize()] if objects else [])]
    body = [[name, f"{images:,}", *([f"{count:,}"] if objects else [])] for name, (images, count) in rows]
    names = ", ".join(cell(name) for name in content.class_names)
    return (
        "## What it was trained on",
        markdown_table(head, body, left=1),
        f"Classes ({len(content.class_names)}): {names}.",
    )


def machine_section(content: Content) -> Sequence[str]:
    """Say on which machine the latencies were measured."""
    return (
        "## Where it was measured",
        facts({name: _measured(result) for name, result in content.ordered if result.benchmark is not None}),
    )


def _measured(result: Result) -> dict[str, Any]:
    run = result.benchmark or {}
    return {**result.machine, **{key: run[key] for key in ("threads", "num_queries", "duration_s") if key in run}}


def lineage_section(content: Content) -> Sequence[str]:
    """Say what the artifacts come from."""
    return ("## Lineage", facts({name: result.artifact.lineage for name, result in content.ordered}))


def notes_section(content: Content) -> Sequence[str]:
    """Say what the backends want to tell; nothing where that is nothing."""
    notes = {}
    for name, result in content.ordered:
        notes[name] = {key: value for key, value in result.artifact.notes.items() if key not in PLACED}
        if not result.artifact.reproducible:
            notes[name]["reproducible"] = False
    return ("## Notes of the artifacts", facts(notes)) if any(notes.values()) else ()


def reproduce_section(content: Content) -> Sequence[str]:
    """Say how to get the same again."""
    commits = sorted({str(result.artifact.lineage.get("git_commit") or "") for result in content.results.values()})
    dirty = any(commit.endswith("-dirty") for commit in commits)
    told = " and ".join(code(commit.removesuffix("-dirty")) for commit in commits if commit)
    made = f" The artifacts were made at {told}" + (", with changes that were not committed." if dirty else ".")
    return (
        "## How to reproduce",
        "Check out the commit that holds this page: it holds the code, `params.yaml` and `dvc.lock` that made it."
        f"{made if told else ''} Then:",
        "```sh\nmake repro\n```",
        "`dvc repro` alone does the same in a prepared environment, and reruns only what has changed. The graph is in "
        "`dvc.yaml`, every value in `params.yaml`, every hash in `dvc.lock`. Latencies belong to the machine above.",
    )
