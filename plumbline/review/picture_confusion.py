"""The difference of two confusion matrices: what is mistaken more often than before, and what less often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from plumbline.drawing import PALETTE_HEX
from plumbline.picture_style import GREY, INK, drawable_names, png_bytes, short_name, styled_figure
from plumbline.review.picture_notice import drawable_text, notice_picture
from plumbline.review.revision import Revision
from plumbline.score_picture import confusion_counts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_CLASSES = 40  # more cells could not be read
_WORSE, _BETTER = PALETTE_HEX[1], PALETTE_HEX[0]
_WIDTH = 11.0  # inches

_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ConfusionDifference:
    """Two confusion matrices over the same names, and their difference.

    Attributes:
        names: The head's classes in their order, those of the base alone, then background where there is any.
        num_classes: How many of the names are classes.
        base: Shape (N, N): how often the row's class was predicted as the column's. Where a row `is_scaled`, as it
            would be for as many objects as the head has.
        head: As `base`, as counted.
        is_scaled: Shape (N,): rows of classes with objects in both, but not as many.
        totals: Shape (N, 2): objects of base and head; of background, false alarms.
    """

    names: tuple[str, ...]
    num_classes: int
    base: _Floats
    head: _Floats
    is_scaled: npt.NDArray[np.bool_]
    totals: _Ints

    @property
    def difference(self) -> _Floats:
        """Shape (N, N): head minus base."""
        return self.head - self.base


def confusion_difference(
    base: pd.DataFrame, head: pd.DataFrame, base_classes: list[str], head_classes: list[str]
) -> ConfusionDifference:
    """Count two tables of pairs over the same names, and bring the base's rows to the head's number of objects.

    Args:
        base: Columns actual and predicted, one row per pair.
        head: As `base`.
        base_classes: In their order.
        head_classes: In their order.

    >>> pairs = pd.DataFrame([("cat", "cat"), ("cat", "dog")], columns=["actual", "predicted"])
    >>> confusion_difference(pairs, pairs.iloc[:1], ["cat", "dog"], ["cat", "dog"]).difference.tolist()
    [[0.5, -0.5], [0.0, 0.0]]
    """
    classes = [*head_classes, *(name for name in base_classes if name not in head_classes)]
    tables = [frame[["actual", "predicted"]] for frame in (base, head)]
    others = sorted({name for frame in tables for name in frame.to_numpy().ravel().tolist()}.difference(classes))
    names = (*classes, *others)
    before, after = (confusion_counts(frame, names)[1] for frame in tables)
    totals = np.stack([before.sum(axis=1), after.sum(axis=1)], axis=1)
    # False alarms are no share of anything: their row stays as counted.
    is_scaled = (totals > 0).all(axis=1) & (totals[:, 0] != totals[:, 1]) & (np.arange(len(names)) < len(classes))
    factor = np.where(is_scaled, totals[:, 1] / np.maximum(totals[:, 0], 1), 1.0)
    scaled = before.astype(np.float64) * factor[:, None]
    return ConfusionDifference(names, len(classes), scaled, after.astype(np.float64), is_scaled, totals)


def confusion_picture(base: Revision, head: Revision, artifact: str) -> bytes:
    """Draw head minus base of one artifact's confusion matrices; the same revisions give the same bytes.

    More on the diagonal is better, more off it is worse. A class with another number of objects in the two is held
    against the base's share of it, marked, and noted. Of more than `MOST_CLASSES` names, the most changed are shown.

    Args:
        base: What is subtracted.
        head: What it is subtracted from.
        artifact: Of both.

    Returns:
        The bytes of a PNG; a small one that says so where a revision has no matrix, or none changed.
    """
    for revision in (base, head):
        if artifact not in revision.scored or "confusion" not in revision.scored[artifact].tables:
            return notice_picture(f"{revision.name} has no confusion matrix of {artifact}: there is no difference.")
    tables = [revision.scored[artifact].tables for revision in (base, head)]
    found = confusion_difference(
        tables[0]["confusion"],
        tables[1]["confusion"],
        tables[0]["classes"]["class"].tolist(),
        tables[1]["classes"]["class"].tolist(),
    )
    between = f"{artifact}: {head.name} minus {base.name}"
    if not np.abs(found.difference).max(initial=0.0) > 0:
        return notice_picture(f"{between}: every cell of the confusion matrix is the same.")
    shown = _most_changed(found.difference, MOST_CLASSES)
    notes = _notes(found, shown, [len(revision.run.images) for revision in (base, head)])
    height = max(4.0, 2.3 + 0.27 * len(notes) + len(shown) * float(np.clip(6 / len(shown), 0.25, 0.46)))
    with styled_figure((_WIDTH, height), short_name(drawable_text(between), 130)) as figure:
        axes = figure.add_subplot()
        _draw_matrix(axes, found, shown)
        figure.supxlabel("\n".join(notes), x=0.012, ha="left", fontsize=9.5, color=GREY)
        return png_bytes(figure)


def _most_changed(difference: _Floats, most: int) -> list[int]:
    """Return, in their order, the names whose rows and columns changed most."""
    changed = np.abs(difference).sum(axis=0) + np.abs(difference).sum(axis=1)
    return sorted(np.argsort(-changed, kind="stable")[:most].tolist())


def _notes(found: ConfusionDifference, shown: list[int], num_images: list[int]) -> list[str]:
    """Say what must be known to read the picture, a line each."""
    right = float(np.trace(found.difference[: found.num_classes, : found.num_classes]))
    total = float(found.difference.sum()) - right
    notes = [f"All cells together: {_signed(right)} right, {_signed(total)} wrong. An empty cell is unchanged."]
    if len(shown) < len(found.names):
        notes.append(f"Shown: the {len(shown)} of {len(found.names)} names that changed most.")
    if found.is_scaled[shown].any():
        notes.append("* another number of objects than in the base, whose row is scaled to it (see the row's name).")
    if num_images[0] != num_images[1]:
        notes.append(
            f"The base scored {num_images[0]:,} images, the head {num_images[1]:,}: false alarms are of other images."
        )
    return notes


def _draw_matrix(axes: Axes, found: ConfusionDifference, shown: list[int]) -> None:
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm
    from matplotlib.patches import Patch, Rectangle

    difference = found.difference[np.ix_(shown, shown)]
    size = len(shown)
    is_diagonal = np.eye(size, dtype=bool)
    good = np.where(is_diagonal, difference, -difference)
    # The root, so that a single mistake still has a color beside a hundred.
    root = np.sign(good) * PowerNorm(0.5, 0, np.abs(good).max())(np.abs(good)).filled(0)
    colors = LinearSegmentedColormap.from_list("worse to better", [_WORSE, "#ffffff", _BETTER])
    axes.imshow(root, cmap=colors, vmin=-1.15, vmax=1.15, aspect="auto", interpolation="nearest")
    for edge in np.arange(size + 1) - 0.5:
        axes.axhline(edge, color="#f0f0f0", linewidth=0.7)
        axes.axvline(edge, color="#f0f0f0", linewidth=0.7)
    for place in (place for place in range(size) if shown[place] < found.num_classes):
        axes.add_patch(Rectangle((place - 0.5, place - 0.5), 1, 1, fill=False, edgecolor=GREY, linewidth=0.9, zorder=3))
    _name_axes(axes, found, shown)
    font = float(np.clip(190 / size, 5.5, 10.5))
    for row, column in zip(*np.nonzero(np.abs(difference) >= 0.05), strict=True):
        color = "white" if abs(root[row, column]) > 0.72 else INK
        written = axes.text(column, row, _signed(difference[row, column]), ha="center", va="center", fontsize=font,
                            color=color)  # fmt: skip
        written.set_in_layout(False)  # it lies inside the matrix: measuring hundreds takes long
    axes.set_title("Confusion matrix: head minus base")
    axes.legend(
        handles=[Patch(color=_BETTER, label="better"), Patch(color=_WORSE, label="worse")],
        loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, handlelength=1.2, borderaxespad=0.2,
    )  # fmt: skip


def _name_axes(axes: Axes, found: ConfusionDifference, shown: list[int]) -> None:
    names = [short_name(name, 16) for name in drawable_names(list(found.names))]
    rows = []
    for place in shown:
        before, after = found.totals[place].tolist()
        rows.append(f"{names[place]}* {before:,}→{after:,}" if found.is_scaled[place] else names[place])
    columns = [names[place] for place in shown]
    font = float(np.clip(260 / len(shown), 6.5, 10.5))
    crowded = max(map(len, columns)) * len(columns) > 115
    axes.set_xticks(range(len(shown)), columns, rotation=90 if crowded else 0, fontsize=font)
    axes.set_yticks(range(len(shown)), rows, fontsize=font)
    axes.set(xlabel="predicted", ylabel="actual")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _signed(count: float) -> str:
    """Write a difference of counts, with a digit behind the point where it is of a scaled row.

    >>> _signed(3.0), _signed(1.24), _signed(0.0), _signed(-0.001)
    ('+3', '+1.2', '0', '0')
    """
    text = f"{count:+.1f}".removesuffix(".0")
    return "0" if text in {"+0", "-0"} else text.replace("-", "\N{MINUS SIGN}")
