"""The curves of both revisions over each other: precision against recall, and what the confidence threshold gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from plumbline.drawing import PALETTE_HEX
from plumbline.picture_style import GREY, INK, png_bytes, short_name, styled_figure
from plumbline.review.picture_notice import drawable_text, notice_picture, write_in_middle
from plumbline.review.revision import Revision

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIZE_INCHES = (11.0, 6.6)  # 1430 pixels at the house's resolution: texts stay legible at a comment's 900
_MOST_FAINT = 20  # classes: more would be a cloud
_LEAST_TOLD = 0.01  # of the area between the curves of the class that changed most: less is not worth a color
_LEAST_SPAN = 0.02  # of the strips of differences: a thousandth must not fill them
_CHANGED_MOST = PALETTE_HEX[1]
_SHOWN = {"f1": ("F1", 2.6, 1.0), "precision": ("precision", 1.1, 0.75), "recall": ("recall", 1.1, 0.75)}
_MARKS = {"f1": "o", "precision": "^", "recall": "v"}

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Side:
    """One revision's curves and how they are drawn.

    Attributes:
        name: Of the revision, for the legend.
        precision_recall: Columns recall, precision and class; the first class is the mean.
        confidence: Columns confidence, precision, recall and f1.
        threshold: In use.
        color: Of its mean, and of what depends on the threshold.
        dashes: Its lines' style.
    """

    name: str
    precision_recall: pd.DataFrame
    confidence: pd.DataFrame
    threshold: float
    color: str
    dashes: Any


def curves_picture(base: Revision, head: Revision, artifact: str) -> bytes:
    """Draw the curves of one artifact of two revisions over each other; the same revisions give the same bytes.

    Precision against recall: the mean of the classes thick, each class faint where they are few, and named the one that
    changed most. F1, and thin precision and recall, against the confidence threshold, with both thresholds in use.
    Below either panel: head minus base.

    Args:
        base: Grey and dashed.
        head: In color.
        artifact: Where only one revision has it, that one's curves are drawn.

    Returns:
        The bytes of a PNG; a small one that says so where neither has curves.
    """
    styles = ((base, GREY, (0, (5, 2))), (head, PALETTE_HEX[0], "-"))
    sides = [side for revision, *style in styles if (side := _side(revision, artifact, *style)) is not None]
    if not sides:
        return notice_picture(f"Neither {base.name} nor {head.name} has curves of {artifact}.")
    caption = drawable_text(f"{artifact}: {head.name}, and dashed {base.name}")
    if len(sides) == 1:
        caption = drawable_text(f"{artifact}: {sides[0].name} alone; the other revision has no curves of it")
    with styled_figure(_SIZE_INCHES, short_name(caption, 130)) as figure:
        grid = figure.add_gridspec(2, 2, height_ratios=(3.6, 1))
        upper = figure.add_subplot(grid[0, 0])
        _draw_precision_recall(upper, figure.add_subplot(grid[1, 0], sharex=upper), sides)
        upper = figure.add_subplot(grid[0, 1])
        _draw_confidence(upper, figure.add_subplot(grid[1, 1], sharex=upper), sides)
        return png_bytes(figure)


def _side(revision: Revision, artifact: str, color: str, dashes: Any) -> _Side | None:
    scored = revision.scored.get(artifact)
    if scored is None or not {"pr_curve", "confidence_curve"} <= scored.tables.keys():
        return None
    curves, confidence = scored.tables["pr_curve"], scored.tables["confidence_curve"]
    name = drawable_text(short_name(revision.name, 40))
    return _Side(name, curves, confidence, revision.threshold[artifact], color, dashes)


def _draw_precision_recall(axes: Axes, below: Axes, sides: Sequence[_Side]) -> None:
    axes.set_title("Precision against recall")
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), ylabel="Precision (0..1)")
    below.set(xlabel="Recall (0..1)")
    if all(side.precision_recall.empty for side in sides):
        write_in_middle(axes, "No class has anything to find.")
        return
    curves = [_by_class(side.precision_recall) for side in sides]
    told = _changed_most(curves)
    for side, (mean, classes) in zip(sides, curves, strict=True):
        for name, curve in classes.items() if len(classes) <= _MOST_FAINT else ():
            if name != told:
                axes.plot(curve["recall"], curve["precision"], color=side.color, linewidth=0.8, alpha=0.3)
        if told is not None:
            label = f"{drawable_text(short_name(told))}, {side.name}"
            axes.plot(*_xy(classes[told]), color=_CHANGED_MOST, linewidth=1.5, linestyle=side.dashes, label=label)
        axes.plot(*_xy(mean), color=side.color, linewidth=3, linestyle=side.dashes, label=f"mean, {side.name}")
    _draw_legend(axes, "lower left", _legend_title(curves, told))
    _draw_difference(below, [_xy(mean) for mean, _ in curves], "mean")


def _legend_title(curves: Sequence[tuple[pd.DataFrame, Mapping[str, pd.DataFrame]]], told: str | None) -> str:
    faint = "faint: each class" if all(len(classes) <= _MOST_FAINT for _, classes in curves) else ""
    return "; ".join(part for part in (faint, "orange: the class that changed most" if told else "") if part)


def _draw_legend(axes: Axes, place: Literal["lower left", "lower center"], title: str) -> None:
    legend = axes.legend(
        loc=place, handlelength=2.8, fontsize=9, title=title, title_fontsize=9, alignment="left", frameon=True,
        facecolor="white", edgecolor="none", framealpha=0.85,
    )  # fmt: skip
    legend.set_zorder(5)


def _by_class(curves: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Return the mean's curve, and those of the classes."""
    named = dict(iter(curves.groupby("class", sort=False)))
    if not named:
        return curves, {}
    mean = next(iter(named))
    return named.pop(mean), named


def _changed_most(curves: Sequence[tuple[pd.DataFrame, Mapping[str, pd.DataFrame]]]) -> str | None:
    """Return the class with the largest difference of its curve's mean height, None where it is small."""
    if len(curves) < 2:
        return None
    means = [{name: float(rows["precision"].mean()) for name, rows in classes.items()} for _, classes in curves]
    changes = {name: abs(value - means[0][name]) for name, value in means[1].items() if name in means[0]}
    most = max(changes, key=lambda name: changes[name], default=None)
    return None if most is None or changes[most] < _LEAST_TOLD else most


def _xy(curve: pd.DataFrame, x: str = "recall", y: str = "precision") -> tuple[_Floats, _Floats]:
    return curve[x].to_numpy(np.float64), curve[y].to_numpy(np.float64)


def _draw_confidence(axes: Axes, below: Axes, sides: Sequence[_Side]) -> None:
    axes.set_title("F1, precision, recall")
    axes.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="0..1")
    below.set(xlabel="Confidence threshold (0..1)")
    if all(side.confidence[[*_SHOWN]].isna().all(axis=None) for side in sides):
        write_in_middle(axes, "Nothing to find, and nothing found.")
        return
    for side in sides:
        for column, (_, width, alpha) in _SHOWN.items():
            x, y = _xy(side.confidence, "confidence", column)
            label = f"F1, {side.name}" if column == "f1" else None
            axes.plot(x, y, color=side.color, linewidth=width, alpha=alpha, linestyle=side.dashes, label=label)
            axes.plot(side.threshold, _at(x, y, side.threshold), _MARKS[column], color=side.color, markersize=6,
                      markeredgecolor="white", zorder=4)  # fmt: skip
        axes.axvline(
            side.threshold, color=side.color, linewidth=1, linestyle=side.dashes, label=f"in use: {side.threshold:.3f}"
        )
    _draw_legend(axes, "lower center", "thin: precision (▲) and recall (▼)")
    _draw_difference(below, [_xy(side.confidence, "confidence", "f1") for side in sides], "F1")


def _at(x: _Floats, y: _Floats, place: float) -> float:
    """Return the height of a curve at the row nearest to a place."""
    return float(y[np.abs(x - place).argmin()])


def _draw_difference(axes: Axes, curves: Sequence[tuple[_Floats, _Floats]], what: str) -> None:
    """Draw the second curve minus the first, with the better part in blue and the worse in orange."""
    from matplotlib.ticker import FuncFormatter

    axes.set_ylabel(f"{what}:\nhead \N{MINUS SIGN} base", fontsize=9)
    if len(curves) < 2 or any(len(x) == 0 for x, _ in curves):
        axes.set(yticks=[])
        axes.text(0.5, 0.5, "one revision alone", transform=axes.transAxes, ha="center", va="center", color=GREY)
        return
    at = np.unique(np.concatenate([x for x, _ in curves]))
    # Beyond its ends a curve says nothing: NaN there, and so where it is undefined.
    base, head = (np.interp(at, x, y, left=np.nan, right=np.nan) for x, y in curves)
    difference = head - base
    axes.fill_between(at, difference, 0, where=difference >= 0, color=PALETTE_HEX[0], alpha=0.55, interpolate=True)
    axes.fill_between(at, difference, 0, where=difference <= 0, color=_CHANGED_MOST, alpha=0.65, interpolate=True)
    axes.axhline(0, color=INK, linewidth=0.8)
    largest = np.abs(difference[np.isfinite(difference)]).max(initial=0.0)
    span = max(float(largest) * 1.15, _LEAST_SPAN)
    axes.set(ylim=(-span, span))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _signed(value)))
    axes.tick_params(axis="y", labelsize=9)


def _signed(value: float) -> str:
    """Write a tick of a difference.

    >>> _signed(0.25), _signed(0.0)
    ('+0.25', '0')
    """
    return f"{value:+.2g}".replace("-", "\N{MINUS SIGN}") if value else "0"
