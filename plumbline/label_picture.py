"""What the labels of a data set are: how many of each class and split, where boxes lie, and how large they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from plumbline.drawing import PALETTE_HEX

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SPLITS = ("train", "val", "test")
SPLIT_COLORS = dict(zip(SPLITS, PALETTE_HEX, strict=False))
MAX_CLASSES = 30  # bars that a person can still tell apart; of more, the commonest half and the rarest half
MAX_NAME = 16
CELLS = 40  # of the heat maps, along each side
MAX_BOXES_SHOWN = 40  # per image; more are the last bar


def label_picture(
    annotations: pd.DataFrame, images: pd.DataFrame, splits: pd.DataFrame, class_names: Sequence[str]
) -> bytes:
    """Draw the distribution of the labels; the same labels give the same bytes.

    Always: labels per class and split. Where there are boxes also: where their centres lie, their width and height
    relative to their image, and boxes per image.

    Args:
        annotations: Rows of `plumbline.manifest.ANNOTATIONS_SCHEMA`; without corners, they are classes of whole images.
        images: Rows of `plumbline.manifest.IMAGES_SCHEMA`.
        splits: Columns image_id and split.
        class_names: Index is class_id.

    Returns:
        The bytes of a PNG.
    """
    from plumbline.picture_style import drawable_names, png_bytes, styled_figure

    rows = annotations.merge(splits[["image_id", "split"]], on="image_id").merge(
        images[["image_id", "width", "height"]], on="image_id"
    )
    boxes = rows[rows["x1"].notna()]
    counts = class_counts(rows, drawable_names(class_names))
    kind = "boxes" if len(boxes) else "images"
    num_images = splits["split"].value_counts()
    parts = ", ".join(f"{name} {int(num_images.get(name, 0))}" for name in SPLITS)
    caption = f"{len(splits)} images ({parts}), {len(rows)} labels, {len(class_names)} classes"
    size = (13.0, 8.6) if len(boxes) else (13.0, 4.6)
    with styled_figure(size, caption) as figure:
        if len(boxes):
            _draw_boxes(figure, boxes, splits, counts)
        else:
            _draw_classes(figure.add_subplot(), counts, kind)
        return png_bytes(figure)


def class_counts(rows: pd.DataFrame, class_names: Sequence[str]) -> pd.DataFrame:
    """Return one row per class, in the order of class_id, and one column per split; classes without a label are 0.

    >>> rows = pd.DataFrame({"class_id": [0, 0, 2], "split": ["train", "val", "train"]})
    >>> class_counts(rows, ["a", "b", "c"]).to_dict("list")
    {'train': [1, 0, 1], 'val': [1, 0, 0], 'test': [0, 0, 0]}
    """
    counts = pd.crosstab(rows["class_id"], rows["split"])
    counts = counts.reindex(index=range(len(class_names)), columns=list(SPLITS), fill_value=0)
    return pd.DataFrame(counts.to_numpy(), index=pd.Index(list(class_names)), columns=list(SPLITS))


def shown_classes(counts: pd.DataFrame, most: int = MAX_CLASSES) -> pd.DataFrame:
    """Return the counts of as many classes as can be shown: all, or the commonest and the rarest, the commonest first.

    >>> counts = pd.DataFrame({"train": [1, 9, 2], "val": [0, 1, 0], "test": [0, 0, 0]}, index=["a", "b", "c"])
    >>> shown_classes(counts, 2).sum(axis=1).to_dict()
    {'b': 10, 'a': 1}
    """
    if len(counts) <= most:
        return counts
    order = np.argsort(-counts.sum(axis=1).to_numpy(), kind="stable")
    return counts.iloc[np.concatenate([order[: most - most // 2], order[-(most // 2) :]])]


def _draw_boxes(figure: Figure, boxes: pd.DataFrame, splits: pd.DataFrame, counts: pd.DataFrame) -> None:
    grid = figure.add_gridspec(2, 3, height_ratios=(1, 1.05))
    _draw_classes(figure.add_subplot(grid[0, :]), counts, "boxes")
    x1, y1, x2, y2 = (boxes[name].to_numpy(np.float64) for name in ("x1", "y1", "x2", "y2"))
    width, height = boxes["width"].to_numpy(np.float64), boxes["height"].to_numpy(np.float64)
    _draw_density(
        figure.add_subplot(grid[1, 0]), (x1 + x2) / 2 / width, (y1 + y2) / 2 / height,
        ("Centres of boxes", "x (0..1 of the image's width)", "y (0..1 of its height)"), down=True,
    )  # fmt: skip
    _draw_density(
        figure.add_subplot(grid[1, 1]), (x2 - x1) / width, (y2 - y1) / height,
        ("Sizes of boxes", "Width (0..1 of the image's)", "Height (0..1 of the image's)"), down=False,
    )  # fmt: skip
    _draw_per_image(figure.add_subplot(grid[1, 2]), boxes, splits)


def _draw_classes(axes: Axes, counts: pd.DataFrame, kind: str) -> None:
    from plumbline.picture_style import INK, short_name

    shown = shown_classes(counts)
    at = np.arange(len(shown), dtype=np.float64)
    title = f"{kind.capitalize()} per class and split"
    if len(shown) < len(counts):
        half = len(shown) // 2
        at[len(shown) - half :] += 0.8  # a gap where classes are missing
        title += f", the {len(shown) - half} commonest and the {half} rarest of {len(counts)}"
    bottom = np.zeros(len(shown))
    for split in SPLITS:
        values = shown[split].to_numpy(np.float64)
        axes.bar(at, values, bottom=bottom, width=0.78, color=SPLIT_COLORS[split], label=split)
        bottom += values
    crowded = len(shown) > 14
    for x, total in zip(at, bottom, strict=True):
        words = f"{int(total)}" if total < 100_000 else f"{total / 1000:.0f}k"
        axes.annotate(words, (x, total), (0, 3), textcoords="offset points", ha="center", fontsize=7 if crowded else 9,
                      color=INK)  # fmt: skip
    names = [short_name(str(name), MAX_NAME) for name in shown.index]
    axes.set_xticks(at, names, rotation=90 if crowded else 0, fontsize=9 if crowded else 11)
    axes.set_title(title)
    axes.set_ylabel(kind.capitalize())
    axes.set(xlim=(-0.7, at.max(initial=0) + 0.7), ylim=(0, max(bottom.max(initial=0) * 1.12, 1)))
    axes.grid(visible=False, axis="x")
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles, labels, ncols=3, loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2)


def _draw_density(axes: Axes, x: np.ndarray, y: np.ndarray, words: tuple[str, str, str], *, down: bool) -> None:
    """Draw how many boxes fall into each cell of the unit square; empty cells stay white."""
    from matplotlib.colors import LinearSegmentedColormap

    inside = [np.clip(values, 0, 1 - 1e-9) for values in (x, y)]
    counts, _, _ = np.histogram2d(inside[1], inside[0], bins=CELLS, range=((0, 1), (0, 1)))
    # The square root of the count: a rare size beside a common one is still seen.
    shade = np.sqrt(np.where(counts > 0, counts, np.nan))
    colors = LinearSegmentedColormap.from_list("", ["#cfe3f1", PALETTE_HEX[0], "#12223a"])
    options: dict[str, Any] = {"extent": (0, 1, 0, 1), "origin": "lower", "interpolation": "nearest"}
    axes.imshow(shade, cmap=colors, **options)
    if down:
        axes.invert_yaxis()
    title, x_label, y_label = words
    axes.set_title(title)
    axes.set(xlabel=x_label, ylabel=y_label, xlim=(0, 1), ylim=(1, 0) if down else (0, 1))
    axes.set_aspect("equal")
    axes.grid(visible=False)


def _draw_per_image(axes: Axes, boxes: pd.DataFrame, splits: pd.DataFrame) -> None:
    from matplotlib.ticker import MaxNLocator

    per_image = boxes.groupby("image_id").size().reindex(splits["image_id"], fill_value=0)
    counts = np.bincount(np.minimum(per_image.to_numpy(), MAX_BOXES_SHOWN))
    axes.bar(np.arange(len(counts)), counts, width=0.85, color=PALETTE_HEX[2])
    more = f" ({MAX_BOXES_SHOWN}: or more)" if int(per_image.max()) > MAX_BOXES_SHOWN else ""
    axes.set_title("Boxes per image")
    axes.set(xlabel=f"Boxes{more}", ylabel="Images", xlim=(-0.7, len(counts) - 0.3))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.grid(visible=False, axis="x")
