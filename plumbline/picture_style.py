"""The look of every picture with axes, and the way from a figure to bytes that depend on nothing but what is drawn."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 130
INK, GREY, LIGHT = "#222222", "#6b6b6b", "#d9d9d9"
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # the one that matplotlib brings along
    "font.size": 11,
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": "#9a9a9a",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "text.color": INK,
    "text.parse_math": False,  # a class or file may be called $x$
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 10,
}


@contextmanager
def styled_figure(size_inches: tuple[float, float], caption: str = "") -> Iterator[Figure]:
    """Give an empty figure of the house's look, with a constrained layout, to draw in and to take `png_bytes` of.

    Args:
        size_inches: Width and height, at `DPI`.
        caption: One line in grey above everything.
    """
    import matplotlib as mpl  # takes half a second; a stage module must import fast
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with mpl.rc_context():
        mpl.rcdefaults()  # a user's own matplotlibrc must not change the picture
        mpl.rcParams.update(cast("Any", STYLE))
        layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12, wspace=0.02, hspace=0.03)
        figure = Figure(figsize=size_inches, dpi=DPI, layout=layout)
        FigureCanvasAgg(figure)
        if caption:
            figure.suptitle(caption, x=0.012, ha="left", fontsize=11, color=GREY)
        yield figure


def png_bytes(figure: Figure) -> bytes:
    """Return a figure as a PNG; the same drawing gives the same bytes."""
    layout = figure.get_layout_engine()
    if layout is not None:
        layout.execute(figure)
        figure.set_layout_engine("none")  # or savefig draws all of it twice, once for the layout alone
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def drawable(text: str) -> bool:
    """Whether the font of the pictures has every character of a text; others would be empty boxes.

    >>> drawable("Körper"), drawable("血小板")
    (True, False)
    """
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties(family=[STYLE["font.family"]])))
    return all(char.isspace() or font.get_char_index(ord(char)) for char in text)


def drawable_names(names: Sequence[str]) -> list[str]:
    """Return the names of the classes, ``class 2`` for that of class_id 2 where the font cannot write it.

    >>> drawable_names(["Körper", "血小板"])
    ['Körper', 'class 1']
    """
    return [name if drawable(name) else f"class {class_id}" for class_id, name in enumerate(names)]


def short_name(name: str, most: int = 18) -> str:
    """Return a name for an axis, cut in its middle where it is too long: ends tell names apart as often as beginnings.

    >>> short_name("zero"), short_name("a very long name of a class", 12)
    ('zero', 'a very…class')
    """
    name = " ".join(textwrap.wrap(name)) if "\n" in name else name
    if len(name) <= most:
        return name
    tail = (most - 1) // 2
    return f"{name[: most - 1 - tail].rstrip()}…{name[-tail:].lstrip()}"
