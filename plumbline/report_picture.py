"""The report's picture: the headline score against latency, precision against recall, the scores of each class."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from plumbline.drawing import PALETTE_HEX, choose_places
from plumbline.picture_style import DPI, GREY, LIGHT, drawable_names, png_bytes, short_name, styled_figure
from plumbline.report_markdown import percent
from plumbline.report_rows import WEIGHTS, Row, title_of
from plumbline.report_words import ReportWords

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE_INCHES = (13.0, 10.0)
MAX_CLASSES = 40  # more bars than this cannot be told apart
MIN_SPAN = 0.03  # of the accuracy axis: differences of a few thousandths are noise and must not fill it

_REFERENCE = "#000000"
_MARKERS = {"fp32": "o", "fp16": "^", "int8": "s"}


@dataclass(frozen=True)
class _Point:
    """An artifact in the first panel: latency in ms, score, and the ends that its difference's interval gives it."""

    row: Row
    x: float
    y: float
    low: float
    high: float


def picture(
    rows: Sequence[Row],
    pr_curves: Mapping[str, pd.DataFrame],
    words: ReportWords,
    *,
    level: float,
    max_drop: float,
    caption: str,
) -> bytes:
    """Draw the rows; the same rows give the same bytes.

    Args:
        rows: The trained weights first.
        pr_curves: Name of an artifact -> columns recall and precision, 0..1, over all classes.
        words: Of the task.
        level: Of the rows' intervals, 0.95 for 95 %.
        max_drop: What int8 may lose, points.
        caption: One line that says on what was scored and measured.

    Returns:
        The bytes of a PNG.
    """
    points = _points(rows)
    if any(point.high > point.low for point in points):
        caption += f"; bars: {percent(level)} interval of the difference from the trained weights"
    with styled_figure(SIZE_INCHES, caption) as figure:
        grid = figure.add_gridspec(2, 2, width_ratios=(1.45, 1), height_ratios=(1.25, 1))
        _draw_legend(figure, rows)
        scatter = figure.add_subplot(grid[0, 0])
        _draw_scatter(scatter, rows, points, words, max_drop)
        _draw_pr(figure.add_subplot(grid[0, 1]), rows, pr_curves, words.pr_title)
        _draw_classes(figure.add_subplot(grid[1, :]), rows, words)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        _place_labels(figure, scatter, points, colors_of(rows))
        return png_bytes(figure)


def colors_of(rows: Sequence[Row]) -> dict[str, str]:
    """Return a colour per artifact: black for the trained weights, the palette for the rest."""
    names = [row.name for row in rows if row.name != WEIGHTS]
    return {WEIGHTS: _REFERENCE} | {name: PALETTE_HEX[i % len(PALETTE_HEX)] for i, name in enumerate(names)}


def accuracy_limits(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of an accuracy axis that shows all values with room around them, never less than `MIN_SPAN`.

    >>> low, high = accuracy_limits([0.850, 0.851])
    >>> round(high - low, 3) >= MIN_SPAN and low < 0.850 and high > 0.851
    True
    """
    low, high = min(values), max(values)
    span = max((high - low) * 1.5, MIN_SPAN)
    middle = (low + high) / 2
    return max(middle - span / 2, -0.02), min(middle + span / 2, 1.02)


def _points(rows: Sequence[Row]) -> list[_Point]:
    reference = rows[0].score
    points = []
    for row in rows:
        if row.latency_ms_p50 is None or row.score is None:
            continue
        low = high = row.score
        found = row.interval
        # The difference's interval, not the score's own: that one is wide, and says nothing of one against the other.
        if found is not None and reference is not None and math.isfinite(found.difference_low):
            low, high = reference + found.difference_low, reference + found.difference_high
        points.append(_Point(row, row.latency_ms_p50, row.score, low, high))
    return points


def _draw_scatter(
    axes: Axes, rows: Sequence[Row], points: Sequence[_Point], words: ReportWords, max_drop: float
) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    colors = colors_of(rows)
    axes.set_title(f"{words.headline.title} against latency")
    axes.set_ylabel(f"{words.headline.title} (0..1)")
    if not points:
        axes.text(0.5, 0.5, "No artifact has a valid latency.", transform=axes.transAxes, ha="center", color=GREY)
        axes.set_axis_off()
        return
    scores = [row.score for row in rows if row.score is not None]
    axes.set_ylim(*accuracy_limits([*scores, *(p.low for p in points), *(p.high for p in points)]))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3f}"))
    _set_latency_axis(axes, [point.x for point in points])
    _draw_reference(axes, rows, max_drop)
    for point in points:
        color = colors[point.row.name]
        if point.high > point.low:
            axes.vlines([point.x], [point.low], [point.high], color=color, linewidth=2, zorder=2)
            axes.plot([point.x] * 3, [point.low, point.y, point.high], "_", color=color, markersize=11, zorder=2)
        axes.plot(
            [point.x], [point.y], _MARKERS.get(point.row.precision, "D"), color=color,
            markersize=11, zorder=3, **_marker_style(point.row, color),
        )  # fmt: skip
    _draw_scatter_notes(axes, rows, points)


def _marker_style(row: Row, color: str) -> dict[str, Any]:
    """Return a filled mark, or a hollow one for what is called int8 but not accepted as such."""
    if row.verdict.accepted is False:
        return {"markerfacecolor": "white", "markeredgecolor": color, "markeredgewidth": 2.2}
    return {"markeredgecolor": "white", "markeredgewidth": 1.2}


def _set_latency_axis(axes: Axes, latencies: Sequence[float]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    scale = ""
    if max(latencies) > 5 * min(latencies) > 0:
        axes.set_xscale("log")
        axes.set_xlim(min(latencies) / 1.5, max(latencies) * 1.6)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        scale = ", logarithmic"
    else:
        axes.set_xlim(0, max(latencies) * 1.25)
    axes.set_xlabel(f"Latency p50 (ms, one image end to end{scale})")


def _draw_reference(axes: Axes, rows: Sequence[Row], max_drop: float) -> None:
    from matplotlib.ticker import FuncFormatter

    reference = rows[0].score
    if reference is None:
        return
    axes.axhline(reference, color=_REFERENCE, linewidth=1.2, linestyle=(0, (5, 3)), zorder=1)
    lowest = reference - max_drop / 100
    if max_drop > 0 and axes.get_ylim()[0] < lowest and any(row.precision == "int8" for row in rows):
        axes.axhline(lowest, color=GREY, linewidth=1.2, linestyle=(0, (1, 2)), zorder=1)
        axes.annotate(
            "budget of int8", (axes.get_xlim()[1], lowest), (-4, -3), textcoords="offset points", ha="right", va="top",
            fontsize=9.5, color=GREY,
        )  # fmt: skip

    def to_points(accuracy: Any) -> Any:
        return (accuracy - reference) * 100

    def from_points(points: Any) -> Any:
        return points / 100 + reference

    def signed(points: float, _: int) -> str:
        return f"{points:+g}".replace("-", "\N{MINUS SIGN}") if abs(points) > 0.001 else "0"

    right = axes.secondary_yaxis("right", functions=(to_points, from_points))
    right.set_ylabel("Points from the trained weights (dashed)", color=GREY, labelpad=8)
    right.tick_params(colors=GREY)
    right.yaxis.set_major_formatter(FuncFormatter(signed))


def _draw_scatter_notes(axes: Axes, rows: Sequence[Row], points: Sequence[_Point]) -> None:
    from matplotlib.lines import Line2D

    used = sorted({point.row.precision for point in points})
    handles = [Line2D([], [], linestyle="", marker=_MARKERS.get(p, "D"), color=GREY, markersize=8) for p in used]
    refused = next((point.row for point in points if point.row.verdict.accepted is False), None)
    if refused is not None:
        used.append("not accepted")
        handles.append(Line2D([], [], linestyle="", marker="s", markersize=8, **_marker_style(refused, GREY)))
    axes.legend(
        handles, used, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=len(used), handletextpad=0.1,
        columnspacing=1.0, borderaxespad=0.2,
    )  # fmt: skip
    invalid = [row.name for row in rows if row.latency_valid is False]
    unmeasured = [f"{row.name} ({row.build.stands_in})" for row in rows if row.build.stands_in]
    told = [f"INVALID, not drawn: {', '.join(invalid)}"] if invalid else []
    told += [f"Not measured: {', '.join(unmeasured)}"] if unmeasured else []
    if told:
        text = "\n".join(textwrap.fill(line, 80) for line in told)
        box = {"facecolor": "white", "edgecolor": "none", "pad": 2}
        axes.text(0.01, 0.015, text, transform=axes.transAxes, fontsize=9.5, color=GREY, bbox=box)


def _place_labels(figure: Figure, axes: Axes, points: Sequence[_Point], colors: Mapping[str, str]) -> None:
    """Write each label near its point where it covers no other label, point or bar; a far one gets a line."""
    if not points:
        return
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    frame = axes.get_window_extent(renderer)
    spots = axes.transData.transform([(point.x, point.y) for point in points])
    radius = 11 * DPI / 72 / 2 + 2
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.8}  # a line from afar passes behind
    written = [f"{title_of(point.row)}  {point.row.size_bytes / 1e6:.1f} MB" for point in points]
    texts = [axes.text(0, 0, text, fontsize=10, transform=None, zorder=4, bbox=box) for text in written]
    sizes = [(extent.width, extent.height) for extent in (text.get_window_extent(renderer) for text in texts)]
    obstacles = [np.concatenate([spots - radius, spots + radius], axis=1)]
    for ends in ("low", "high"):
        bars = axes.transData.transform([(point.x, getattr(point, ends)) for point in points])
        reach = np.concatenate([np.minimum(spots, bars), np.maximum(spots, bars)], axis=1)
        obstacles.append(reach + np.array([-4, -2, 4, 2]))
    for note in axes.texts:
        if note not in texts:
            obstacles.append(np.array([note.get_window_extent(renderer).extents]))
    reference = [line.get_window_extent(renderer).extents for line in axes.lines if len(line.get_xdata()) == 2]  # type: ignore[arg-type]
    obstacles += [np.array([[x1, y1 - 2, x2, y2 + 2]]) for x1, y1, x2, y2 in reference]
    candidates = [_places(spot, size, radius, frame.extents) for spot, size in zip(spots, sizes, strict=True)]
    chosen = choose_places(candidates, np.concatenate(obstacles))
    for spot, text, places, best, point in zip(spots, texts, candidates, chosen, points, strict=True):
        left, bottom, right, top = places[best]
        text.set_position((left + 2, bottom + 2))
        text.set_verticalalignment("bottom")
        nearest = np.clip(spot, (left, bottom), (right, top))
        if np.hypot(*(nearest - spot)) > 2 * radius:
            ends_xy = zip(spot, nearest, strict=True)
            axes.plot(*ends_xy, transform=None, color=colors[point.row.name], linewidth=0.9, zorder=2)


def _places(
    spot: np.ndarray[Any, Any], size: tuple[float, float], radius: float, frame: Sequence[float]
) -> np.ndarray[Any, Any]:
    """Return rectangles (K, 4) around a point, the nearest first, all inside the frame; pixels."""
    width, height = size[0] + 4, size[1] + 4
    offsets = [(radius, -height / 2), (-radius - width, -height / 2)]
    for ring in range(12):
        away = radius + ring * height * 0.75
        offsets += [(x, y) for y in (away, -away - height) for x in (radius, -width - radius, -width / 2, 0.0, -width)]
    corners = np.array(spot) + np.array(offsets)
    places = np.concatenate([corners, corners + np.array([width, height])], axis=1)
    inside = (places[:, :2] >= frame[:2]).all(axis=1) & (places[:, 2:] <= frame[2:]).all(axis=1)
    return places[inside] if inside.any() else places


def _draw_pr(axes: Axes, rows: Sequence[Row], pr_curves: Mapping[str, pd.DataFrame], title: str) -> None:
    colors = colors_of(rows)
    axes.set_title(title)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="Recall (0..1)", ylabel="Precision (0..1)")
    for row in rows:
        curve = pr_curves[row.name]
        is_reference = row.name == WEIGHTS
        axes.plot(
            curve["recall"], curve["precision"], color=colors[row.name],
            linewidth=3.2 if is_reference else 1.5,
            linestyle=_line_style(row),
            alpha=0.35 if is_reference else 1,
        )  # fmt: skip


def _draw_classes(axes: Axes, rows: Sequence[Row], words: ReportWords) -> None:
    """Draw the trained weights as bars and every artifact as a mark on them."""
    score = words.class_scores[0]
    reference = rows[0].class_scores[score.key]
    names, title = list(reference), f"{score.title} per class"
    if len(names) > MAX_CLASSES:
        names = sorted(names, key=lambda name: (reference[name] is not None, reference[name] or 0, name))[:MAX_CLASSES]
        title += f", the {MAX_CLASSES} lowest of {len(reference)}"
    axes.set_title(title)
    axes.set_ylabel(f"{score.title} (0..1)")
    at = np.arange(len(names))
    axes.bar(at, _values(reference, names), width=0.82, color=LIGHT, zorder=1)
    # A bar of no height would read as 0.
    for place in np.flatnonzero(np.isnan(_values(reference, names))).tolist():
        axes.text(place, 0.02, "undefined", rotation=90, ha="center", va="bottom", fontsize=9, color=GREY)
    others = [row for row in rows if row.name != WEIGHTS]
    shifts = (np.arange(len(others)) - (len(others) - 1) / 2) * 0.74 / max(len(others), 1)
    size = min(7.0, max(2.5, 550 / (len(names) * max(len(others), 1))))
    colors = colors_of(rows)
    for row, shift in zip(others, shifts, strict=True):
        axes.plot(
            at + shift, _values(row.class_scores[score.key], names), _MARKERS.get(row.precision, "D"),
            color=colors[row.name], markersize=size, markeredgecolor="white",
            markeredgewidth=0.6, zorder=3,
        )  # fmt: skip
    drawn = dict(zip(reference, drawable_names(list(reference)), strict=True))
    shown = [short_name(drawn[name]) for name in names]
    crowded = sum(len(name) + 2 for name in shown) > 130
    axes.set_xticks(at, shown, rotation=90 if crowded else 0, fontsize=9 if crowded else 11)
    axes.set(ylim=(0, 1.02), xlim=(-0.6, len(names) - 0.4))
    axes.grid(visible=False, axis="x")


def _values(scores: Mapping[str, float | None], names: Sequence[str]) -> np.ndarray[Any, Any]:
    values = [scores.get(name) for name in names]
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _draw_legend(figure: Figure, rows: Sequence[Row]) -> None:
    """Name the colours once, for all three panels, below them."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    colors = colors_of(rows)
    handles = [
        Patch(facecolor=LIGHT, edgecolor=GREY, linewidth=0.8, label=title_of(row))
        if row.name == WEIGHTS
        else Line2D(
            [], [], color=colors[row.name], linestyle=_line_style(row), marker=_MARKERS.get(row.precision, "D"),
            markersize=8, markeredgecolor="white", label=title_of(row),
        )
        for row in rows
    ]  # fmt: skip
    longest = max(len(title_of(row)) for row in rows)
    columns = int(max(1, min(len(rows), 150 // (longest + 8))))
    figure.legend(handles=handles, loc="outside lower left", ncols=columns, handlelength=2.6, handletextpad=0.6)


def _line_style(row: Row) -> Any:
    return (0, (4, 1.5)) if row.precision == "int8" else "-"
