"""A picture of the worst findings, each with its box and what is around it."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pandas as pd

from plumbline.checks import ERROR, FIXED, SHOWN, WARNING, Judgement
from plumbline.checks.report import by_severity
from plumbline.checks.view import XYXY
from plumbline.contact_sheet import LegendEntry, Tile, TileBox, draw_sheet, write_jpeg
from plumbline.drawing import Color, Image
from plumbline.faults import FAULTS
from plumbline.manifest import Dataset

MOST_TILES = 24
_MOST_NEIGHBOURS = 200  # of one image; more would hide it

# Okabe and Ito's palette, which colour-blind readers can tell apart; BGR.
_COLORS: dict[str, Color] = {ERROR: (0, 94, 213), WARNING: (0, 159, 230), FIXED: (115, 158, 0)}
_NEIGHBOUR: Color = (233, 180, 86)


def findings_sheet(judgement: Judgement, dataset: Dataset) -> Image:
    """Draw up to `MOST_TILES` findings that belong to an image, errors first, as `choose` chooses them.

    Args:
        judgement: The findings, with the tables that they speak of.
        dataset: Says where the images are.

    Returns:
        Shape (H, W, 3), uint8 BGR; a small picture that says so when there is nothing to show.
    """
    chosen = choose(judgement.findings, MOST_TILES)
    numbers = ", ".join(f"{number} {severity}" for severity, number in by_severity(judgement).items())
    title = f"{len(chosen)} of {len(judgement.findings)} findings ({numbers})"
    legend = [LegendEntry(severity, color) for severity, color in _COLORS.items()]
    legend.append(LegendEntry("other labels", _NEIGHBOUR, dashed=True))
    return draw_sheet(_tiles(chosen, judgement.before, dataset), columns=4, title=title, legend=legend)


def write_sheet(path: Path, judgement: Judgement, dataset: Dataset) -> None:
    """Write `findings_sheet` as a JPEG."""
    write_jpeg(path, findings_sheet(judgement, dataset))


def choose(findings: pd.DataFrame, most: int) -> pd.DataFrame:
    """Return up to so many findings of images: errors first, the codes in turn, each image of a code before its next.

    Args:
        findings: Columns of `FINDINGS_SCHEMA`, as `judge` sorts them.
        most: How many.
    """
    rows = findings[findings["image_id"] >= 0].reset_index(drop=True)
    rows["severity_rank"] = rows["severity"].map({severity: rank for rank, severity in enumerate(SHOWN)})
    rows["code_rank"] = rows["code"].map({code: rank for rank, code in enumerate(FAULTS)})
    kind = ["severity_rank", "code_rank"]
    rows["again"] = rows.groupby([*kind, "image_id"]).cumcount()
    rows = rows.sort_values("again", kind="stable")
    rows["turn"] = rows.groupby(kind).cumcount()
    return rows.sort_values(["severity_rank", "turn", "code_rank"], kind="stable")[findings.columns].head(most)


def _tiles(chosen: pd.DataFrame, before: Dataset, dataset: Dataset) -> list[Tile]:
    paths = before.images[before.images["image_id"].isin(chosen["image_id"])].set_index("image_id")["path"]
    boxes = before.annotations[before.annotations["image_id"].isin(chosen["image_id"])]
    tiles = []
    for row in chosen.itertuples():
        here = boxes[boxes["image_id"] == row.image_id]
        own = _drawn(here[here["ann_id"] == row.ann_id], _COLORS[row.severity], named=True)
        others = _drawn(here[here["ann_id"] != row.ann_id].head(_MOST_NEIGHBOURS), _NEIGHBOUR, named=False)
        place = PurePosixPath(row.source_file).name + (f":{row.source_line}" if row.source_line > 0 else "")
        caption = f"{row.code} {FAULTS[row.code].name}, {row.severity}\n{place}\n{_briefly(row.message)}"
        path = dataset.image_path(paths[row.image_id]) if row.image_id in paths.index else None
        tiles.append(Tile(path, caption, (*others, *own), own[0].xyxy if own else None))
    return tiles


def _drawn(boxes: pd.DataFrame, color: Color, *, named: bool) -> tuple[TileBox, ...]:
    """Return what is drawn of some boxes; a label of the whole image has no corners to draw."""
    boxes = boxes[boxes[XYXY].notna().all(axis=1)]
    return tuple(
        TileBox((x1, y1, x2, y2), color, name if named else "", dashed=not named)
        for name, x1, y1, x2, y2 in boxes[["class_name", *XYXY]].itertuples(index=False, name=None)
    )


def _briefly(message: str) -> str:
    """Return a message without what was expected, which a small caption has no room for.

    >>> _briefly("box has no area, expected x1 < x2, got (5, 6, 5, 8)")
    'box has no area: (5, 6, 5, 8)'
    >>> _briefly("image is damaged (cut short, expected 9 bytes, got 7), expected a whole image")
    'image is damaged (cut short, expected 9 bytes, got 7)'
    """
    what, expected, rest = message.rpartition(", expected ")
    if not expected:
        return message
    _, _, got = rest.partition(", got ")
    return f"{what}: {got}" if got else what
