"""Say what changed between two sets of labelled images: images and labels, by class.

The text is Markdown, for a terminal or the comment of a pull request. The exit code is 0, whatever changed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from plumbline.commands import add_from, read_any
from plumbline.dataset_diff import CLASS_COLUMNS, IMAGE_CHANGES, LABEL_CHANGES, DatasetDiff, diff_datasets
from plumbline.files import write_json, write_text

_SHOWN = 10
_TITLES = {
    "class_name": "class",
    "in_added_images": "in added images",
    "reclassified_to": "became it",
    "in_removed_images": "in removed images",
    "reclassified_from": "was it",
    "details": "other flags or mask",
}
_LABEL_TITLES = {
    "added": "Labels added",
    "removed": "Labels removed",
    "moved": "Labels moved",
    "reclassified": "Labels of another class",
    "details": "Labels with other flags or another mask",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `plumbline.commands.Command`."""
    parser.add_argument("a", metavar="A", help="the source, or dataset folder, as it was")
    parser.add_argument("b", metavar="B", help="the source, or dataset folder, as it is")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every change to this file")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write what is printed to this file, too")
    add_from(parser)


def run(arguments: argparse.Namespace) -> int:
    """See `plumbline.commands.Command`."""
    with tempfile.TemporaryDirectory(prefix="plumbline-diff-") as work:
        folders = [Path(work, side) for side in ("a", "b")]
        for folder in folders:
            folder.mkdir()
        a, b = (
            read_any(address, arguments.format, None, folder, copy=False)
            for address, folder in zip((arguments.a, arguments.b), folders, strict=True)
        )
        diff = diff_datasets(a, b)
    text = to_markdown(diff, arguments.a, arguments.b)
    if arguments.json is not None:
        write_json(arguments.json, to_json(diff))
    if arguments.markdown is not None:
        write_text(arguments.markdown, text)
    print(text, end="")  # noqa: T201 - the command's own output
    return 0


def to_json(diff: DatasetDiff) -> dict[str, Any]:
    """Return the counts and every change, as plain values; NaN becomes null."""
    return {
        "num_images": dict(zip("ab", diff.num_images, strict=True)),
        "num_labels": dict(zip("ab", diff.num_labels, strict=True)),
        "class_names": dict(zip("ab", map(list, diff.class_names), strict=True)),
        "image_changes": _counts(diff.images, IMAGE_CHANGES),
        "label_changes": _counts(diff.labels, LABEL_CHANGES),
        "classes": diff.classes.to_dict(orient="index"),
        "images": diff.images.to_dict(orient="records"),
        "labels": json.loads(diff.labels.to_json(orient="records", double_precision=15)),
    }


def to_markdown(diff: DatasetDiff, name_a: str, name_b: str) -> str:
    """Return the summary for people.

    Args:
        diff: What changed.
        name_a: What the first dataset is called.
        name_b: What the second one is called.
    """
    lines = [f"### Data: {_code(name_a)} to {_code(name_b)}", ""]
    if diff.is_empty:
        lines.append(f"Nothing changed: {diff.num_images[0]} images, {diff.num_labels[0]} labels.")
        return "\n".join(lines) + "\n"
    images, labels = _counts(diff.images, IMAGE_CHANGES), _counts(diff.labels, LABEL_CHANGES)
    lines += _table(["", "before", "after", *IMAGE_CHANGES], [["images", *diff.num_images, *images.values()]])
    if diff.class_names[0] != diff.class_names[1]:
        lines += ["", *_class_list_lines(*diff.class_names)]
    if len(diff.classes):
        lines += ["", *_class_table(diff.classes)]
    for change, count in images.items():
        rows = diff.images[diff.images["change"] == change].head(_SHOWN)
        lines += _item_lines(f"Images {change}", count, map(_image_line, rows.to_dict(orient="records")))
    for change, count in labels.items():
        rows = diff.labels[diff.labels["change"] == change].head(_SHOWN)
        lines += _item_lines(_LABEL_TITLES[change], count, map(_label_line, rows.to_dict("records")))
    return "\n".join(lines) + "\n"


def _counts(changes: pd.DataFrame, kinds: Sequence[str]) -> dict[str, int]:
    counts = changes["change"].value_counts()
    return {kind: int(counts.get(kind, 0)) for kind in kinds}


def _class_list_lines(a: Sequence[str], b: Sequence[str]) -> list[str]:
    added, removed = [name for name in b if name not in a], [name for name in a if name not in b]
    if not added and not removed:
        return [f"The classes have another order: {_few(b)}."]
    return [f"Classes {what}: {_few(names)}." for names, what in ((added, "added"), (removed, "removed")) if names]


def _few(names: Sequence[str]) -> str:
    rest = len(names) - _SHOWN
    return ", ".join(map(_code, names[:_SHOWN])) + (f" and {rest} more" if rest > 0 else "")


def _class_table(classes: pd.DataFrame) -> list[str]:
    """Return the table by class, with the columns that hold something and a row of sums where it means something."""
    columns = [c for c in CLASS_COLUMNS if c in {"before", "after"} or classes[c].any()]
    rows = [[_text(name), *values] for name, *values in classes[columns].itertuples(name=None)]
    rows += [["all", *classes[columns].sum()]] if len(rows) > 1 else []
    return _table([_TITLES.get(column, column) for column in ("class_name", *columns)], rows)


def _table(header: Sequence[object], rows: Sequence[Sequence[object]]) -> list[str]:
    r"""Lay out a Markdown table so that a terminal shows it well, too.

    >>> print("\n".join(_table(["", "n"], [["cats", 1]])))
    |      | n |
    |:-----|--:|
    | cats | 1 |
    """
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "| "
        + " | ".join(c.rjust(w) if i else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        + " |"
        for row in cells
    ]
    rule = "|" + "|".join("-" * (w + 1) + ":" if i else ":" + "-" * (w + 1) for i, w in enumerate(widths)) + "|"
    return [lines[0], rule, *lines[1:]]


def _item_lines(title: str, count: int, items: Iterable[str]) -> list[str]:
    if not count:
        return []
    lines = ["", f"{title}: {count}", "", *(f"- {item}" for item in items)]
    return lines + ([f"- ... and {count - _SHOWN} more"] if count > _SHOWN else [])


def _image_line(row: dict[str, Any]) -> str:
    a, b = _name(row["path_a"]), _name(row["path_b"])
    return f"{_code(a)} to {_code(b)}" if a and b and a != b else _code(a or b)


def _label_line(row: dict[str, Any]) -> str:
    name = _code(_name(row["path_b"]))
    a, b = (_label(row, side) for side in "ab")
    if row["change"] == "details":
        return f"{name}: {b}"
    return f"{name}: {' to '.join(label for label in (a, b) if label)}"


def _label(row: dict[str, Any], side: str) -> str:
    if row["change"] in {"added", "removed"} and row["change"] != {"a": "removed", "b": "added"}[side]:
        return ""
    corners = [row[f"{corner}_{side}"] for corner in ("x1", "y1", "x2", "y2")]
    box = "" if pd.isna(corners[0]) else f" ({', '.join(f'{value:g}' for value in corners)})"
    return f"{_code(row[f'class_{side}'])}{box}"


def _name(path: str) -> str:
    return path.removeprefix("images/")


def _text(text: str) -> str:
    r"""Return a name as a cell of a table, which is neither markup nor a control character.

    >>> _text("a|b<i>")
    'a\\|b&lt;i>'
    """
    shown = text if text.isprintable() else ascii(text)
    return shown.replace("|", "\\|").replace("<", "&lt;").replace("@", "&#64;")


def _code(text: str) -> str:
    """Return a name as code, in which nothing is markup."""
    shown = text if text.isprintable() else ascii(text)
    return "`" + shown.replace("`", "'") + "`"
