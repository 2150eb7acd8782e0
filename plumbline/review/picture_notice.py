"""A picture in place of one that cannot be drawn, and texts that the pictures' font can write."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from plumbline.picture_style import GREY, drawable, png_bytes, styled_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def notice_picture(text: str) -> bytes:
    """Draw a small picture that says why there is no other.

    Returns:
        The bytes of a PNG.
    """
    lines = textwrap.wrap(drawable_text(text), 100)[:6]
    with styled_figure((11.0, 0.9 + 0.25 * len(lines))) as figure:
        axes = figure.add_subplot()
        axes.set_axis_off()
        axes.text(0.5, 0.5, "\n".join(lines), ha="center", va="center", color=GREY, fontsize=12)
        return png_bytes(figure)


def drawable_text(text: str) -> str:
    """Return a text of one line with a question mark for every character that the font lacks.

    >>> drawable_text("Körper 血小板")
    'Körper ???'
    """
    text = " ".join(text.split())
    return text if drawable(text) else "".join(char if drawable(char) else "?" for char in text)


def write_in_middle(axes: Axes, text: str) -> None:
    """Say in an empty panel why it is empty."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY)
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
