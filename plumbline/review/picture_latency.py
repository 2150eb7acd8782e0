"""Accuracy against latency of all artifacts of both revisions: where each was, and where it is."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from plumbline.drawing import PALETTE_HEX, choose_places
from plumbline.picture_style import DPI, GREY, INK, png_bytes, short_name, styled_figure
from plumbline.report_picture import accuracy_limits
from plumbline.report_words import Score
from plumbline.review.changes import Verdict
from plumbline.review.device_changes import device_rows
from plumbline.review.picture_notice import drawable_text, notice_picture
from plumbline.review.revision import WEIGHTS, Revision, Scored
from plumbline.tasks import task_module

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIZE_INCHES = (11.0, 6.2)
_RADIUS = 6.0  # points, of a mark
_LOG_FROM = 5.0  # times between the fastest and the slowest
_MOST_LISTED = 8

_Floats = npt.NDArray[np.float64]
Point = tuple[float, float]


@dataclass(frozen=True)
class Move:
    """One artifact in the picture.

    Attributes:
        name: Of the artifact.
        base: Latency in ms and score, None where the base has not both.
        head: As `base`.
        other_machine: How the machines differ that the two latencies were measured on; empty where they do not.
    """

    name: str
    base: Point | None
    head: Point | None
    other_machine: str

    @property
    def spot(self) -> Point:
        """Where its name stands: at the head, or where it was."""
        spot = self.head or self.base
        assert spot is not None  # `moves` leaves out what has neither
        return spot

    @property
    def title(self) -> str:
        """Its name, and that it is new or gone."""
        name = drawable_text(short_name(self.name, 30))
        return name if self.base and self.head else f"{name} ({'new' if self.head else 'gone'})"


def moves(base: Revision, head: Revision, metric: str) -> list[Move]:
    """Return where every artifact that was measured in either revision was and is, the head's first.

    Args:
        base: What the head is compared with.
        head: Gives the order.
        metric: Key of metrics.json, of the score.
    """
    names = [name for name in (*head.scored, *(n for n in base.scored if n not in head.scored)) if name != WEIGHTS]
    # What two measurements must have in common is said in one place.
    other = {
        row.artifact: row.note
        for row in device_rows(base, head, 0.0)
        if row.metric == "latency_ms_p50" and row.verdict == Verdict.OTHER_MACHINE
    }
    found = [
        Move(name, _point(base.scored.get(name), metric), _point(head.scored.get(name), metric), other.get(name, ""))
        for name in names
    ]
    return [move for move in found if move.base or move.head]


def _point(scored: Scored | None, metric: str) -> Point | None:
    """Return latency and score; None where one is not known, or the measurement is INVALID."""
    if scored is None or not scored.device.get("valid", 1) or not scored.device.get("measured", 1):
        return None
    latency, score = scored.device.get("latency_ms_p50"), scored.metrics.get(metric)
    return None if latency is None or score is None or latency <= 0 else (float(latency), float(score))


def latency_picture(base: Revision, head: Revision) -> bytes:
    """Draw the headline score against latency of all artifacts of both; the same revisions give the same bytes.

    An arrow leads from base to head, except where the two were measured on machines that differ. The trained weights,
    which nobody measures, are lines.

    Returns:
        The bytes of a PNG; a small one that says so where nothing was measured in either.
    """
    words: Score = task_module(head.run.task, "reporting").WORDS.headline
    shown = moves(base, head, words.metric)
    if not shown:
        return notice_picture(f"No artifact of {base.name} or {head.name} has a valid latency and a score.")
    title = f"{words.title} against latency, all artifacts"
    if any(move.other_machine for move in shown):
        title += ": the machines differ, latencies cannot be compared"
    caption = drawable_text(f"{head.name} (filled) against {base.name} (hollow); better is up and to the left")
    with styled_figure(_SIZE_INCHES, short_name(caption, 130)) as figure:
        axes = figure.add_subplot()
        axes.set_title(title)
        lines = [_weights_line(revision, words.metric) for revision in (base, head)]
        _set_axes(axes, shown, [value for value in lines if value is not None], words.title)
        for value, color, dashes, name in zip(lines, (GREY, INK), ((0, (5, 3)), "-"), (base.name, head.name),
                                              strict=True):  # fmt: skip
            if value is not None:
                label = f"trained weights, {drawable_text(short_name(name, 40))}"
                axes.axhline(value, color=color, linewidth=1.3, linestyle=dashes, zorder=1, label=label)
        for number, move in enumerate(shown):
            _draw_move(axes, move, PALETTE_HEX[number % len(PALETTE_HEX)])
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="upper left", bbox_to_anchor=(0, -0.11), ncols=2, handlelength=2.8, fontsize=9.5)
        notes = _notes(base, head, shown)
        if notes:
            figure.supxlabel(textwrap.fill(" ".join(notes), 140), x=0.012, ha="left", fontsize=9.5, color=GREY)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        _place_names(figure, axes, shown)
        return png_bytes(figure)


def _weights_line(revision: Revision, metric: str) -> float | None:
    scored = revision.scored.get(WEIGHTS)
    return None if scored is None else scored.metrics.get(metric)


def _set_axes(axes: Axes, shown: Sequence[Move], lines: Sequence[float], title: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    points = [point for move in shown for point in (move.base, move.head) if point]
    latencies, scores = zip(*points, strict=True)
    axes.set_ylim(*accuracy_limits([*scores, *lines]))
    axes.set_ylabel(f"{title} (0..1)")
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3f}"))
    scale = ""
    if max(latencies) > _LOG_FROM * min(latencies):
        axes.set_xscale("log")
        axes.set_xlim(min(latencies) / 1.5, max(latencies) * 1.6)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        scale = ", logarithmic"
    else:
        axes.set_xlim(0, max(latencies) * 1.2)
    axes.set_xlabel(f"Latency p50 (ms, one image end to end{scale})")


def _draw_move(axes: Axes, move: Move, color: str) -> None:
    hollow: dict[str, Any] = {"markerfacecolor": "white", "markeredgecolor": color, "markeredgewidth": 1.8}
    if move.base is not None:
        axes.plot(*move.base, "o" if move.head else "X", color=color, markersize=_RADIUS * 1.5, zorder=3, **hollow)
    if move.head is not None:
        axes.plot(*move.head, "o" if move.base else "D", color=color, markersize=_RADIUS * 1.8, zorder=4,
                  markeredgecolor="white")  # fmt: skip
    if move.base and move.head and not move.other_machine:
        axes.annotate(
            "", move.head, move.base, zorder=2,
            arrowprops={"arrowstyle": "-|>", "color": color, "linewidth": 1.8, "mutation_scale": 14, "shrinkA": 5,
                        "shrinkB": 5},
        )  # fmt: skip


def _notes(base: Revision, head: Revision, shown: Sequence[Move]) -> Iterator[str]:
    """Say how the machines differ, and what is not drawn, a sentence each."""
    how = list(dict.fromkeys(move.other_machine for move in shown if move.other_machine))
    if how:
        more = f", and {len(how) - 1} other differences" if len(how) > 1 else ""
        yield drawable_text(f"No arrows where the machines differ ({how[0]}{more}).")
    drawn = {move.name for move in shown}
    names = [name for name in (*head.scored, *base.scored) if name != WEIGHTS and name not in drawn]
    left_out = list(dict.fromkeys(names))
    if left_out:
        listed = ", ".join(short_name(name, 30) for name in left_out[:_MOST_LISTED])
        more = f" and {len(left_out) - _MOST_LISTED} more" if len(left_out) > _MOST_LISTED else ""
        yield drawable_text(f"Not measured, INVALID, or without a score: {listed}{more}.")


def _place_names(figure: Figure, axes: Axes, shown: Sequence[Move]) -> None:
    """Write each name near its mark where it covers no other name, mark or arrow; a far one gets a line."""
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    frame = np.array(axes.get_window_extent(renderer).extents)
    spots = axes.transData.transform([move.spot for move in shown])
    radius = _RADIUS * DPI / 72 + 2
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.8}
    texts = [axes.text(0, 0, move.title, fontsize=10.5, transform=None, zorder=5, bbox=box) for move in shown]
    sizes = [(extent.width + 6, extent.height + 4) for extent in (text.get_window_extent(renderer) for text in texts)]
    marks = np.array([point for move in shown for point in _along(axes, move)])
    obstacles = np.concatenate([marks - radius * 0.7, marks + radius * 0.7], axis=1)
    lines = [line.get_window_extent(renderer).extents for line in axes.lines if line.get_label()[:1] != "_"]  # type: ignore[index]
    obstacles = np.concatenate([obstacles, *(np.array([[x1, y1 - 1, x2, y2 + 1]]) for x1, y1, x2, y2 in lines)])
    candidates = [_places(spot, size, radius, frame) for spot, size in zip(spots, sizes, strict=True)]
    for move, spot, text, places, best in zip(
        shown, spots, texts, candidates, choose_places(candidates, obstacles, 3.0), strict=True
    ):
        text.set_position((places[best][0] + 3, places[best][1] + 2))
        text.set_verticalalignment("bottom")
        nearest = np.clip(spot, places[best][:2], places[best][2:])
        if np.hypot(*(nearest - spot)) > 2 * radius:
            color = PALETTE_HEX[shown.index(move) % len(PALETTE_HEX)]
            axes.plot(*zip(spot, nearest, strict=True), transform=None, color=color, linewidth=0.9, zorder=2)


def _along(axes: Axes, move: Move) -> Iterator[Any]:
    """Yield places in pixels that a name shall not cover: the marks, and the arrow between them."""
    ends = [np.asarray(axes.transData.transform(point)) for point in (move.base, move.head) if point]
    if len(ends) < 2 or move.other_machine:
        yield from ends
        return
    steps = max(int(np.hypot(*(ends[1] - ends[0])) / 12), 2)
    yield from (ends[0] + (ends[1] - ends[0]) * share for share in np.linspace(0, 1, steps))


def _places(spot: _Floats, size: tuple[float, float], radius: float, frame: _Floats) -> _Floats:
    """Return rectangles (K, 4) around a point, the nearest first, those inside the frame if there are any; pixels."""
    width, height = size
    offsets = [(radius, -height / 2), (-radius - width, -height / 2)]
    for ring in range(12):
        away = radius + ring * height * 0.75
        offsets += [(x, y) for y in (away, -away - height) for x in (-width / 2, radius, -width - radius, 0.0, -width)]
    corners = spot + np.array(offsets)
    places: _Floats = np.concatenate([corners, corners + np.array([width, height])], axis=1)
    inside = (places[:, :2] >= frame[:2]).all(axis=1) & (places[:, 2:] <= frame[2:]).all(axis=1)
    return places[inside] if inside.any() else places
