"""The picture of an evaluation: the curves of every task, and the ROC curves and the reliability of a classifier."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from plumbline import score_picture
from plumbline.drawing import PALETTE_HEX
from plumbline.picture_style import GREY, short_name
from plumbline.scores import Scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAMED_CURVES = len(PALETTE_HEX)  # with more classes than colours, a colour names nobody


def curves_picture(scores: Scores, title: str) -> bytes:
    """Draw the tables of `evaluate` in six panels; the same tables give the same bytes.

    Args:
        scores: From `evaluate`.
        title: One line that says what was scored, and on what.

    Returns:
        The bytes of a PNG.
    """
    metrics, tables = scores.metrics, scores.tables
    return score_picture.curves_picture(
        tables,
        title,
        metrics["confidence_threshold"],
        class_metric="f1",
        class_metric_label="F1",
        more=(
            functools.partial(_draw_roc, curves=tables["roc_curve"], mean_auc=metrics.get("roc_auc")),
            functools.partial(_draw_reliability, bins=tables["calibration"], error=metrics["calibration_error"]),
        ),
    )


def _draw_roc(axes: Axes, curves: pd.DataFrame, mean_auc: float | None) -> None:
    axes.set_title("ROC: each class against the rest")
    axes.set(xlabel="False-positive rate (0..1)", ylabel="True-positive rate (0..1)", xlim=(-0.01, 1), ylim=(0, 1.02))
    if curves.empty or mean_auc is None:
        axes.text(0.5, 0.5, "Undefined: all images are of one class.", ha="center", color=GREY)
        return
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (2, 3)), label="chance")
    mean, *names = curves["class"].unique().tolist()
    by_name = dict(iter(curves.groupby("class", sort=False)))
    named = len(names) <= _NAMED_CURVES
    for number, name in enumerate(names):
        axes.plot(
            by_name[name]["fpr"], by_name[name]["tpr"], linewidth=1.2,
            color=PALETTE_HEX[number] if named else "#b5b5b5",
            alpha=1 if named else 0.6, label=short_name(name) if named else ("each class" if number == 0 else None),
        )  # fmt: skip
    axes.plot(by_name[mean]["fpr"], by_name[mean]["tpr"], color="black", linewidth=3, label=f"{mean}: the mean")
    axes.text(0.97, 0.06, f"mean area {mean_auc:.4f}", ha="right")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), handlelength=1.4, fontsize=9, borderaxespad=0)


def _draw_reliability(axes: Axes, bins: pd.DataFrame, error: float) -> None:
    """Draw accuracy against confidence, each bin's mark as large as it has images."""
    axes.set_title(f"Reliability: calibration error {error:.4f}")
    axes.set(xlabel="Mean confidence (0..1)", ylabel="Share that is right (0..1)", xlim=(0, 1.02), ylim=(-0.04, 1.04))
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (2, 3)), label="as right as sure")
    confidence, accuracy = bins["confidence"].to_numpy(), bins["accuracy"].to_numpy()
    axes.vlines(confidence, accuracy, confidence, color=PALETTE_HEX[1], linewidth=2, label="gap")
    share = bins["num_images"].to_numpy() / bins["num_images"].sum()
    axes.scatter(
        confidence, accuracy, s=20 + 380 * np.sqrt(share), color=PALETTE_HEX[0], edgecolor="white", zorder=3,
        label="bin of 1/15, by its images",
    )  # fmt: skip
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=3, handlelength=1.6, columnspacing=1.2)
