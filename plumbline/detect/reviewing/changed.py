"""The images on which a revision's detector newly misses or newly invents objects, drawn beside what it newly finds.

Both revisions are judged by the labels of the head, each at its own confidence threshold, at IoU 0.5. An object is
found where a detection of its class is paired with it; any other detection is invented. The badness of an image is the
sum over what changed for the worse: of an object newly missed, 1 minus the confidence with which the head still sees
its class there, below its threshold; of a detection newly invented, its confidence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from plumbline.box_matching import match_greedily
from plumbline.boxes import box_iou
from plumbline.contact_sheet import LegendEntry, Tile, TileBox, Xyxy, draw_sheet
from plumbline.detect.scoring import truth_of
from plumbline.detect.scoring.matching import XYXY
from plumbline.detect.scoring.pairs import COUNT, MIN_IOU, NONE, pair_boxes
from plumbline.detect.scoring.worst import FALSE_ALARM, MISSED, RIGHT
from plumbline.drawing import Image, printable_name
from plumbline.review.picture_images import image_and_caption, number_of, shared_images, short_path, tile_wh
from plumbline.review.revision import Revision

# What became of an object or a detection; the first two are for the worse.
NEWLY_MISSED, NEWLY_INVENTED, NEWLY_FOUND, NO_LONGER = "missed", "invented", "found", "no longer invented"
WORSE = (NEWLY_MISSED, NEWLY_INVENTED)
COLUMNS = ["image_id", "change", "class_id", "label_class_id", "before", "after", "badness", *XYXY]
_TILE_WH = (320, 270)  # three of them fill the width of a comment: their texts are not scaled down much
_COLUMNS = 3
_MOST_TEXTS = 8  # on one tile: more would cover each other
_LEGEND = (
    LegendEntry("newly missed", MISSED),
    LegendEntry("newly invented", FALSE_ALARM, dashed=True),
    LegendEntry("newly found", RIGHT, thin=True),
)

_Ints = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Side:
    """One revision's detections, held against the labels.

    Attributes:
        found: Shape (labels,), bool: a detection of its class is paired with it.
        counted: Shape (labels,), bool: it is in a pair at all.
        invented: Rows of the detections that are not right: class_id, XYXY, image_id, and label_class_id, the class of
            the label that it lies on, `NONE` for none.
    """

    found: npt.NDArray[np.bool_]
    counted: npt.NDArray[np.bool_]
    invented: pd.DataFrame


def changed_detections(
    truth: pd.DataFrame,
    base: pd.DataFrame,
    head: pd.DataFrame,
    image_ids: Sequence[int],
    *,
    base_threshold: float,
    head_threshold: float,
    difficult: str = COUNT,
) -> pd.DataFrame:
    """Return what two sets of detections of the same images do not have in common, the worst image first.

    A detection invented in both is none of it: paired one to one where they have the same class and an IoU of 0.5.

    Args:
        truth: Labels: columns image_id, class_id, x1, y1, x2, y2 (pixels), and crowd and difficult where there are any.
        base: Detections: the same columns and confidence, also those below the threshold.
        head: As `base`.
        image_ids: The images to look at.
        base_threshold: Confidence, 0..1, from which on the base shows a detection.
        head_threshold: As `base_threshold`.
        difficult: See `plumbline.scores.ScoringSettings`.

    Returns:
        Columns `COLUMNS`: ``change`` is one of `NEWLY_MISSED`, `NEWLY_INVENTED`, `NEWLY_FOUND` and `NO_LONGER`;
        ``label_class_id`` the class of the label at the place, `NONE` for none; ``before`` and ``after`` the best
        confidence with which base and head see the class there, whatever the threshold, 0 for not at all; the box is
        the label's, or that of an invented detection. By falling badness of the image, then of the row.
    """
    truth = truth.reset_index(drop=True)
    old = _held_against(truth, base, image_ids, base_threshold, difficult)
    new = _held_against(truth, head, image_ids, head_threshold, difficult)
    newly, no_longer = _not_in_both(new.invented, old.invented)
    labels = truth.assign(label_class_id=truth["class_id"])
    kinds = (
        (NEWLY_MISSED, labels[old.found & new.counted & ~new.found]),
        (NEWLY_INVENTED, newly),
        (NEWLY_FOUND, labels[new.found & old.counted & ~old.found]),
        (NO_LONGER, no_longer),
    )
    columns = ["image_id", "class_id", "label_class_id", *XYXY]
    # Empty frames have no types to speak of.
    told = [frame[columns].assign(change=kind) for kind, frame in kinds if len(frame)]
    rows = pd.concat(told or [labels.loc[:, columns].iloc[:0].assign(change="")], ignore_index=True)
    rows = rows.assign(before=_support(rows, base), after=_support(rows, head))
    missed, invented = (rows["change"] == kind for kind in WORSE)
    rows["badness"] = np.where(missed, 1 - rows["after"], np.where(invented, rows["after"], 0.0))
    return _worst_first(rows)[COLUMNS]


def _held_against(
    truth: pd.DataFrame, detections: pd.DataFrame, image_ids: Sequence[int], threshold: float, difficult: str
) -> _Side:
    detections = detections.reset_index(drop=True)
    pairs = pair_boxes(truth, detections, image_ids, confidence_threshold=threshold, difficult=difficult)
    label, seen = pairs["truth"].to_numpy(), pairs["found"].to_numpy()
    # NONE, -1, is the one at the end.
    label_class, seen_class = (np.append(frame["class_id"].to_numpy(np.int64), NONE) for frame in (truth, detections))
    right = (seen != NONE) & (label_class[label] == seen_class[seen])
    found, counted = np.zeros(len(truth), dtype=bool), np.zeros(len(truth), dtype=bool)
    found[label[right]] = True
    counted[label[label != NONE]] = True
    wrong = (seen != NONE) & ~right
    invented = detections.loc[seen[wrong], ["image_id", "class_id", *XYXY]]
    return _Side(found, counted, invented.assign(label_class_id=label_class[label[wrong]]).reset_index(drop=True))


def _not_in_both(new: pd.DataFrame, old: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the invented detections of either side that the other has not."""
    of_old = old.groupby(["image_id", "class_id"]).indices
    in_both: tuple[list[int], list[int]] = ([], [])
    for key, rows in new.groupby(["image_id", "class_id"]).indices.items():
        others = of_old.get(key)
        if others is None:
            continue
        iou = box_iou(new[XYXY].to_numpy(np.float64)[rows], old[XYXY].to_numpy(np.float64)[others])
        matched = match_greedily(iou, MIN_IOU)
        in_both[0].extend(rows[matched >= 0].tolist())
        in_both[1].extend(others[matched[matched >= 0]].tolist())
    return new.drop(index=in_both[0]), old.drop(index=in_both[1])


def _support(rows: pd.DataFrame, detections: pd.DataFrame) -> _Floats:
    """Return the best confidence of a detection of its class on the box of each row, 0 for none."""
    boxes, seen_xyxy = rows[XYXY].to_numpy(np.float64), detections[XYXY].to_numpy(np.float64)
    confidence = detections["confidence"].to_numpy(np.float64)
    places: dict[Any, _Ints] = detections.reset_index(drop=True).groupby(["image_id", "class_id"]).indices
    support = np.zeros(len(rows))
    for number, key in enumerate(zip(rows["image_id"], rows["class_id"], strict=True)):
        seen = places.get(key)
        if seen is not None:
            near = box_iou(boxes[number : number + 1], seen_xyxy[seen])[0] >= MIN_IOU
            support[number] = confidence[seen][near].max(initial=0.0)
    return support


def _worst_first(rows: pd.DataFrame) -> pd.DataFrame:
    total = rows.groupby("image_id")["badness"].transform("sum")
    order = ["image_badness", "image_id", "badness", "change", "class_id", *XYXY]
    ascending = [False, True, False, *[True] * 6]
    return rows.assign(image_badness=total).sort_values(order, ascending=ascending, ignore_index=True)


def changed_sheet(base: Revision, head: Revision, artifact: str, most: int) -> Image:
    """Draw the images with newly missed or newly invented objects, the worst first; see the head of this module.

    Args:
        base: What the head is compared with.
        head: Its labels count, and its images are drawn; one that is not to be had is said so on its tile.
        artifact: Scored in both.
        most: Images on the sheet.

    Returns:
        Shape (H, W, 3), uint8 BGR; a small sheet that says so where no image got worse.

    Raises:
        EvaluationError: The tasks differ, a revision has no such artifact, or no image is in both.
    """
    shared = shared_images(base, head, artifact)
    rows = changed_detections(
        truth_of(head.run.data, shared.images),
        shared.base,
        shared.head,
        shared.images["image_id"].tolist(),
        base_threshold=shared.base_threshold,
        head_threshold=shared.head_threshold,
        difficult=head.params.get("evaluate", {}).get("difficult", COUNT),
    )
    worse = rows.loc[rows["change"].isin(WORSE), "image_id"].unique().tolist()
    names = [printable_name(name, class_id) for class_id, name in enumerate(shared.class_names)]
    path_of = dict(zip(shared.images["image_id"], shared.images["path"], strict=True))
    by_image = dict(iter(rows.groupby("image_id", sort=False)))
    tiles = [
        _tile(head, number, path_of[image_id], by_image[image_id], names)
        for number, image_id in enumerate(worse[:most], start=1)
    ]
    title = f"{artifact}: {head.name} against {base.name}. {_totals(rows, len(worse), len(tiles), len(shared.images))}"
    if not tiles:
        return draw_sheet([], 1, (880, 90), title)
    return draw_sheet(tiles, _COLUMNS, tile_wh(_TILE_WH, len(tiles)), title, _LEGEND)


def _totals(rows: pd.DataFrame, num_worse: int, num_shown: int, num_images: int) -> str:
    """Say what changed on all images, and which are shown."""
    count = rows["change"].value_counts()
    better = f"{count.get(NEWLY_FOUND, 0):,} newly found, {count.get(NO_LONGER, 0):,} no longer invented"
    of_all = f"Of {number_of(num_images, 'image')} scored in both"
    if num_worse == 0:
        return f"{of_all}, none has an object newly missed or newly invented; {better}."
    shown = "all of them" if num_shown == num_worse else f"the worst {num_shown}"
    return (
        f"{of_all}, {num_worse:,} got worse: {number_of(count.get(NEWLY_MISSED, 0), 'object')} newly missed,"
        f" {count.get(NEWLY_INVENTED, 0):,} newly invented ({better}). Here: {shown};"
        " texts are class, confidence before -> after."
    )


def _tile(head: Revision, number: int, path: str, rows: pd.DataFrame, names: Sequence[str]) -> Tile:
    count = rows["change"].value_counts()
    told = [f"{count[kind]} newly {kind}" for kind in (NEWLY_MISSED, NEWLY_INVENTED, NEWLY_FOUND) if kind in count]
    file, caption = image_and_caption(head, path, f"{number}.  {short_path(path)}\n{', '.join(told)}")
    worse = rows.loc[rows["change"].isin(WORSE), XYXY].to_numpy(np.float64)
    around: Xyxy = (worse[:, 0].min(), worse[:, 1].min(), worse[:, 2].max(), worse[:, 3].max())
    return Tile(file, caption, tuple(_boxes(rows, names)), focus_xyxy=around)


def _boxes(rows: pd.DataFrame, names: Sequence[str]) -> Iterator[TileBox]:
    """Yield boxes, the worst last and so on top; only the worst are named."""
    kinds = {NEWLY_MISSED: (MISSED, False, False), NEWLY_INVENTED: (FALSE_ALARM, True, False)}
    ranked = list(enumerate(rows.to_dict("records")))
    for rank, row in reversed(ranked):
        if row["change"] == NO_LONGER:
            continue
        color, dashed, thin = kinds.get(row["change"], (RIGHT, False, True))
        xyxy: Xyxy = (row["x1"], row["y1"], row["x2"], row["y2"])
        named = rank < _MOST_TEXTS and row["change"] in WORSE
        yield TileBox(xyxy, color, _text(row, names) if named else "", dashed=dashed, thin=thin)


def _text(row: dict[str, Any], names: Sequence[str]) -> str:
    text = f"{names[row['class_id']]} {_confidence(row['before'])} -> {_confidence(row['after'])}"
    if row["change"] == NEWLY_INVENTED and row["label_class_id"] != NONE:
        text += f", is {names[row['label_class_id']]}"
    return text


def _confidence(value: float) -> str:
    """Write a confidence, and that there is none.

    >>> _confidence(0.513), _confidence(0.001)
    ('0.51', 'none')
    """
    return f"{value:.2f}" if value >= 0.005 else "none"
