"""The picture of an evaluation, for either task: curves, confusion matrix and classes, from the tables of `Scores`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from plumbline.drawing import PALETTE_HEX
from plumbline.picture_style import DPI, GREY, INK, LIGHT, drawable_names, png_bytes, short_name, styled_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_CLASSES = 80  # of the matrix and the bars: more would be unreadable
_WIDTH, _RIGHT, _TOP, _LEAST_BOTTOM = 14.0, 6.2, 4.6, 5.2  # inches
_ROW = 0.165  # inches of a class in the matrix and the bars
_NAMED_CURVES = len(PALETTE_HEX)  # with more classes than colours, a colour names nobody
_COUNTS = "Blues"


def curves_picture(
    tables: Mapping[str, pd.DataFrame],
    title: str,
    confidence_threshold: float,
    *,
    class_metric: str,
    class_metric_label: str,
    matching: str = "",
    more: Sequence[Callable[[Axes], None]] = (),
) -> bytes:
    """Draw the tables of an evaluation in four panels; the same tables give the same bytes.

    Precision against recall (each class thin, their mean thick); precision, recall and F1 against the confidence
    threshold; the confusion matrix, each row of colours adding up to 1, with its counts; the classes as bars. With more
    than `MOST_CLASSES` classes the last two show the worst of them and say so. A table without rows gives a panel that
    says so; a NaN gives a gap, or a bar that is called undefined.

    Args:
        tables: ``pr_curve``, ``confidence_curve``, ``confusion`` and ``classes`` of `plumbline.scores.Scores`.
        title: One line that says what was scored, and on what.
        confidence_threshold: In use; marked on the second panel.
        class_metric: A column of ``classes``, 0..1, for the bars.
        class_metric_label: What to call it.
        matching: When a prediction is right, such as ``IoU 0.5``; added to the titles of what depends on it.
        more: Panels of the task's own, two to a row, between the curves and the matrix.

    Returns:
        The bytes of a PNG.
    """
    tables, suffix = _with_drawable_names(tables), f", {matching}" if matching else ""
    classes = tables["classes"]
    names, counts = confusion_counts(tables["confusion"], classes["class"].tolist())
    shown = _most_confused(counts, MOST_CLASSES + len(names) - len(classes))
    bars = classes.sort_values([class_metric, "class"], na_position="first", ignore_index=True)
    rows = max(len(shown), min(len(bars), MOST_CLASSES))
    bottom = max(_LEAST_BOTTOM, 1.7 + rows * _ROW)
    heights = [_TOP] * (1 + -(-len(more) // 2)) + [bottom]
    size = (_WIDTH + max(rows - 40, 0) * 0.125, sum(heights))
    with styled_figure(size, title) as figure:
        grid = figure.add_gridspec(len(heights), 2, width_ratios=(size[0] - _RIGHT, _RIGHT), height_ratios=heights)
        _draw_precision_recall(figure.add_subplot(grid[0, 0]), tables["pr_curve"], suffix)
        _draw_confidence(figure.add_subplot(grid[0, 1]), tables["confidence_curve"], confidence_threshold, suffix)
        for number, draw in enumerate(more):
            draw(figure.add_subplot(grid[1 + number // 2, number % 2]))
        _draw_confusion(figure.add_subplot(grid[-1, 0]), [names[i] for i in shown], counts[np.ix_(shown, shown)],
                        len(names), suffix)  # fmt: skip
        _draw_bars(figure.add_subplot(grid[-1, 1]), bars, class_metric, class_metric_label)
        return png_bytes(figure)


def _with_drawable_names(tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Return the tables with ``class 2`` for the name of class_id 2 where the font cannot write that."""
    names = tables["classes"]["class"].tolist()
    other = {name: drawn for name, drawn in zip(names, drawable_names(names), strict=True) if name != drawn}
    columns = {"pr_curve": ["class"], "confusion": ["actual", "predicted"], "classes": ["class"]}
    renamed = {
        stem: tables[stem].assign(**{one: tables[stem][one].replace(other) for one in chosen})
        for stem, chosen in columns.items()
    }
    return {**tables, **(renamed if other else {})}


def confusion_counts(confusion: pd.DataFrame, class_names: Sequence[str]) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Count the pairs of a confusion table.

    Args:
        confusion: Columns actual and predicted, one row per pair.
        class_names: In their order; names that are only in the table, such as background, come behind.

    Returns:
        The names, and shape (names, names): how often the row's class was predicted as the column's.

    >>> pairs = pd.DataFrame([("cat", "cat"), ("cat", "background")], columns=["actual", "predicted"])
    >>> confusion_counts(pairs, ["cat"])
    (['cat', 'background'], array([[1, 1],
           [0, 0]]))
    """
    others = set(confusion["actual"]) | set(confusion["predicted"])
    names = [*class_names, *sorted(others.difference(class_names))]
    place = {name: number for number, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    at = [confusion[side].map(place).to_numpy(dtype=np.int64) for side in ("actual", "predicted")]
    np.add.at(counts, tuple(at), 1)
    return names, counts


def _most_confused(counts: npt.NDArray[np.int64], most: int) -> list[int]:
    """Return, in their order, the rows with the most mistakes, if there are more than `most`."""
    mistakes = counts.sum(axis=0) + counts.sum(axis=1) - 2 * np.diag(counts)
    return sorted(np.argsort(-mistakes, kind="stable")[:most].tolist())


def _empty(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY)
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)


def _draw_precision_recall(axes: Axes, curves: pd.DataFrame, suffix: str) -> None:
    axes.set_title(f"Precision against recall{suffix}")
    axes.set(xlabel="Recall (0..1)", ylabel="Precision (0..1)")
    if curves.empty:
        _empty(axes, "No class has anything to find.")
        return
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02))
    mean, *names = curves["class"].unique().tolist()
    named = len(names) <= _NAMED_CURVES
    by_name = dict(iter(curves.groupby("class", sort=False)))
    for number, name in enumerate(names):
        curve = by_name[name]
        axes.plot(
            curve["recall"], curve["precision"], linewidth=1.2, color=PALETTE_HEX[number] if named else "#b5b5b5",
            alpha=1 if named else 0.6, label=short_name(name) if named else ("each class" if number == 0 else None),
        )  # fmt: skip
    axes.plot(
        by_name[mean]["recall"], by_name[mean]["precision"], color="black", linewidth=3, label=f"{mean}: the mean"
    )
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), handlelength=1.4, fontsize=9, borderaxespad=0)


def _draw_confidence(axes: Axes, curve: pd.DataFrame, threshold: float, suffix: str) -> None:
    axes.set_title(f"Precision, recall, F1{suffix}")
    axes.set(xlabel="Confidence threshold (0..1)", ylabel="0..1")
    if curve[["precision", "recall", "f1"]].isna().all(axis=None):
        _empty(axes, "Nothing to find, and nothing found.")
        return
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    for name, color in (("precision", PALETTE_HEX[0]), ("recall", PALETTE_HEX[1]), ("f1", PALETTE_HEX[2])):
        label = "F1" if name == "f1" else name
        axes.plot(curve["confidence"], curve[name], color=color, linewidth=2, label=label)
    axes.axvline(threshold, color=INK, linewidth=1.2, linestyle=(0, (4, 2)), label=f"in use: {threshold:.3f}")
    nearest = curve.iloc[(curve["confidence"] - threshold).abs().argmin()]
    for name, color in (("precision", PALETTE_HEX[0]), ("recall", PALETTE_HEX[1]), ("f1", PALETTE_HEX[2])):
        axes.plot([threshold], [nearest[name]], "o", color=color, markersize=6, markeredgecolor="white", zorder=4)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=4, handlelength=1.6, columnspacing=1.2)


def _draw_confusion(
    axes: Axes, names: Sequence[str], counts: npt.NDArray[np.int64], num_names: int, suffix: str
) -> None:
    title = f"Confusion matrix{suffix}"
    if len(names) < num_names:
        title += f": the {len(names)} of {num_names} most mistaken"
    axes.set_title(title)
    if counts.sum() == 0:
        _empty(axes, "No pair to show.")
        return
    total = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0)
    axes.imshow(share, cmap=_COUNTS, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    size = float(np.clip(170 / len(names), 4.2, 10))
    ticks = [short_name(name, 14) for name in names]
    crowded = max(map(len, ticks)) * len(ticks) > 70
    axes.set_xticks(range(len(names)), ticks, rotation=90 if crowded else 0, fontsize=max(size, 5.5))
    axes.set_yticks(range(len(names)), ticks, fontsize=max(size, 5.5))
    axes.set(xlabel="predicted (colour: share of the row)", ylabel="actual")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    for row, column in zip(*np.nonzero(counts), strict=True):
        color = "white" if share[row, column] > 0.55 else INK
        text = _count(int(counts[row, column]))
        written = axes.text(column, row, text, ha="center", va="center", fontsize=size, color=color)
        written.set_in_layout(False)  # it lies inside the matrix: measuring thousands takes seconds


def _count(count: int) -> str:
    """Write a count in at most four signs.

    >>> _count(999), _count(12345), _count(1234567)
    ('999', '12k', '1.2M')
    """
    if count < 10_000:
        return str(count)
    return f"{count / 1000:.0f}k" if count < 999_500 else f"{count / 1e6:.2g}M"


def _draw_bars(axes: Axes, classes: pd.DataFrame, metric: str, label: str) -> None:
    title = f"{label} by class"
    if len(classes) > MOST_CLASSES:
        title += f": the {MOST_CLASSES} lowest of {len(classes)}"
        classes = classes.head(MOST_CLASSES)
    axes.set_title(title)
    if classes.empty:
        _empty(axes, "No class to show.")
        return
    values: npt.NDArray[Any] = classes[metric].to_numpy(dtype=np.float64)
    at = np.arange(len(classes), dtype=np.float64)
    size = float(np.clip(420 / len(classes), 5.5, 10))
    axes.barh(at, np.nan_to_num(values), height=0.78, color=[LIGHT if np.isnan(v) else PALETTE_HEX[0] for v in values])
    for place, value, count in zip(at.tolist(), values.tolist(), classes["num_objects"], strict=True):
        text = f"undefined ({count:,})" if np.isnan(value) else f"{value:.3f} ({count:,})"
        axes.text(
            0 if np.isnan(value) else value, place, f" {text}", va="center", fontsize=size,
            color=GREY if np.isnan(value) else INK,
        )  # fmt: skip
    axes.set_yticks(at, [short_name(name, 16) for name in classes["class"]], fontsize=size)
    axes.set(xlim=(0, 1.3), ylim=(len(classes) - 0.4, -0.6), xlabel=f"{label} (0..1); in brackets: how many objects")
    axes.set_xticks(np.arange(0, 1.01, 0.2))
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")


__all__ = ["DPI", "MOST_CLASSES", "confusion_counts", "curves_picture"]
