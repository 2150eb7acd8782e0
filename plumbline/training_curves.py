"""How a training went: its table of epochs as one small file per curve, and as a picture. Shared by all tasks.

The columns are those of `plumbline.trained.Trained.epochs`: ``epoch``, ``learning_rate``, ``train_..._loss`` and
``val_..._loss``, and scores on val, ``val_...``, of any name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from plumbline.drawing import PALETTE_HEX

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANEL_INCHES = (4.6, 3.4)
PANELS_IN_A_ROW = 3
TRAIN_COLOR, VAL_COLOR = PALETTE_HEX[0], PALETTE_HEX[1]
# How a part of a column's name is written for a person.
WORDS = {"map50": "mAP50", "map50_95": "mAP50-95", "top1": "top-1", "top5": "top-5", "lr": "learning rate"}


def curve_files(epochs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return column name -> a table of ``epoch`` and ``value``, without the epochs in which the value is undefined.

    >>> curves = curve_files(pd.DataFrame({"epoch": [1, 2], "val_top1": [0.5, float("nan")]}))
    >>> {stem: rows.to_dict("records") for stem, rows in curves.items()}
    {'val_top1': [{'epoch': 1, 'value': 0.5}]}
    """
    return {
        str(column): epochs[["epoch", column]]
        .rename(columns={column: "value"})
        .dropna()
        .reset_index(drop=True)
        .astype({"epoch": int, "value": float})
        for column in epochs.columns
        if column != "epoch"
    }


def best_epoch(epochs: pd.DataFrame, score: str) -> int | None:
    """Return the epoch whose score is highest; None where no score is defined.

    Of several that with the lowest ``val_loss`` where there is such a column, then the earliest; without one the
    latest, as the training of detectors keeps it.
    """
    best = epochs[epochs[score].notna() & (epochs[score] == epochs[score].max())]
    if best.empty:
        return None
    if "val_loss" in best:
        return int(best.sort_values("val_loss", kind="stable")["epoch"].iloc[0])
    return int(best["epoch"].iloc[-1])


def training_picture(epochs: pd.DataFrame, title: str, score: str) -> bytes:
    """Draw losses of train against val, the scores on val and the learning rate; the same table gives the same bytes.

    Args:
        epochs: See this module's docstring.
        title: One line above all.
        score: The column that chose the best epoch, which is marked in every panel.

    Returns:
        The bytes of a PNG.
    """
    from plumbline.picture_style import png_bytes, styled_figure

    panels = panels_of(list(map(str, epochs.columns)), score)
    best = best_epoch(epochs, score)
    across = min(PANELS_IN_A_ROW, len(panels))
    down = -(-len(panels) // across)
    caption = title if best is None else f"{title}; dotted line: epoch {best}, the best by {score_name(score)}"
    with styled_figure((PANEL_INCHES[0] * across, PANEL_INCHES[1] * down + 0.3), caption) as figure:
        grid = figure.add_gridspec(down, across)
        for index, (name, columns) in enumerate(panels.items()):
            # The last one, the scores, takes what room there is.
            end = None if index == len(panels) - 1 else index % across + 1
            axes = figure.add_subplot(grid[index // across, index % across : end])
            _draw_panel(axes, name, epochs, columns, best)
            if index // across == down - 1:
                axes.set_xlabel("Epoch")
        return png_bytes(figure)


def panels_of(columns: list[str], score: str) -> dict[str, list[str]]:
    """Return the title of each panel -> its columns: each loss, the learning rate, what else there is, the scores.

    >>> panels_of(["epoch", "train_cls_loss", "val_cls_loss", "val_top1", "learning_rate"], "val_top1")
    {'Loss: cls': ['train_cls_loss', 'val_cls_loss'], 'Learning rate': ['learning_rate'], 'Scores on val': ['val_top1']}
    """
    panels: dict[str, list[str]] = {}
    for column in columns:
        if column.startswith(("train_", "val_")) and column.endswith("loss"):
            kind = column.partition("_")[2].removesuffix("loss").strip("_")
            panels.setdefault(f"Loss: {kind}" if kind else "Loss", []).append(column)
    scores = [score, *(c for c in columns if c.startswith("val_") and not c.endswith("loss") and c != score)]
    drawn = {column for panel in panels.values() for column in panel} | {"epoch", *scores}
    for column in columns:
        if column not in drawn:
            panels[column.replace("_", " ").capitalize()] = [column]
    return {**panels, "Scores on val": scores}


def score_name(column: str) -> str:
    """Return a score's name for a person.

    >>> score_name("val_map50_95_ultralytics"), score_name("val_top1"), score_name("val_macro_f1")
    ('mAP50-95', 'top-1', 'macro f1')
    """
    # Whose evaluator it is, is in the table; in a picture of one training all are of the same.
    plain = column.removeprefix("val_").removeprefix("train_").removesuffix("_ultralytics")
    return WORDS.get(plain, plain.replace("_", " "))


def _draw_panel(axes: Axes, name: str, epochs: pd.DataFrame, columns: list[str], best: int | None) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    from plumbline.picture_style import GREY

    axes.set_title(name)
    few = len(epochs) <= 2  # a line needs points
    for index, column in enumerate(columns):
        curve = epochs[["epoch", column]].dropna()
        label, color = _legend_of(name, column, index)
        axes.plot(
            curve["epoch"], curve[column], color=color, label=label, linewidth=1.8, marker="o" if few else "",
            linestyle="--" if column.startswith("train_") else "-",
        )  # fmt: skip
    if best is not None:
        axes.axvline(best, color=GREY, linewidth=1.0, linestyle=":", zorder=0.5)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))  # 0.0005, and no power in a corner
    axes.set_xlim(min(epochs["epoch"]) - 0.5, max(epochs["epoch"]) + 0.5)
    _set_height(axes, name, epochs[columns].to_numpy(np.float64))
    if len(columns) > 1 or name.startswith("Loss"):
        axes.legend(loc="best", handlelength=1.8)


def _legend_of(panel: str, column: str, index: int) -> tuple[str, str]:
    if panel.startswith("Loss"):
        return ("train", TRAIN_COLOR) if column.startswith("train_") else ("val", VAL_COLOR)
    return score_name(column), PALETTE_HEX[index % len(PALETTE_HEX)]


def _set_height(axes: Axes, name: str, values: np.ndarray) -> None:
    """Begin at 0; scores show the whole of 0..1."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        axes.text(0.5, 0.5, "undefined in every epoch", transform=axes.transAxes, ha="center")
    elif name == "Scores on val" and finite.min() >= 0 and finite.max() <= 1:
        axes.set_ylim(0, 1.02)
    elif finite.min() >= 0:
        axes.set_ylim(0, max(finite.max() * 1.05, 1e-12))
