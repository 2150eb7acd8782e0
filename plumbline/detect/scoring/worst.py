"""The images on which a detector is most wrong, drawn with what it missed, invented and confused.

The badness of an image is the sum over its mistakes at IoU 0.5:

- a box that was missed, or seen as another class: 1 minus the best confidence, also below the threshold, with which a
  detection of its own class lies on it: what the model all but found counts little, what it has no idea of counts 1;
- a false alarm, or a detection of the wrong class: its confidence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt
import pandas as pd

from plumbline.boxes import box_iou
from plumbline.contact_sheet import LegendEntry, Tile, TileBox, draw_sheet
from plumbline.detect.scoring.matching import XYXY
from plumbline.detect.scoring.pairs import MIN_IOU, NONE, ignored_boxes, pair_boxes
from plumbline.drawing import Color, Image, class_color, printable_name
from plumbline.manifest import Dataset
from plumbline.scores import ScoringSettings

FALSE_ALARM, MISSED, RIGHT, WRONG_CLASS = (class_color(n) for n in (0, 1, 2, 6))
IGNORED: Color = (150, 150, 150)
_TILE_WH = (460, 380)
_COLUMNS = 3
_MOST_TEXTS = 15  # on one tile: the worst mistakes; more would cover each other


def worst_images(
    truth: pd.DataFrame, predictions: pd.DataFrame, image_ids: Sequence[int], settings: ScoringSettings
) -> pd.DataFrame:
    """Return every pair of the images with mistakes, the worst image first.

    Args:
        truth: Columns image_id, class_id, x1, y1, x2, y2 (pixels), and crowd and difficult where there are any.
        predictions: The same columns and confidence, also those below the threshold.
        image_ids: The images to look at.
        settings: Threshold, and what to do with difficult boxes.

    Returns:
        Columns image_id, truth, found (see `pair_boxes`), badness (of the pair, 0 for what is right) and
        image_badness; within an image the worst pair first.
    """
    threshold, difficult = settings.confidence_threshold, settings.difficult
    pairs = pair_boxes(truth, predictions, image_ids, confidence_threshold=threshold, difficult=difficult)
    label, seen = pairs["truth"].to_numpy(), pairs["found"].to_numpy()
    label_class, seen_class = (np.append(frame["class_id"].to_numpy(np.int64), NONE) for frame in (truth, predictions))
    right = label_class[label] == seen_class[seen]
    confidence = np.append(predictions["confidence"].to_numpy(np.float64), 0.0)
    badness = np.where(right, 0.0, confidence[seen])
    wanted = ~right & (label != NONE)
    badness[wanted] += 1 - _support(truth, predictions, label[wanted])
    total = pd.Series(badness).groupby(pairs["image_id"]).transform("sum")
    pairs = pairs.assign(badness=badness, image_badness=total)
    falling = [False, True, False, True, True]
    pairs = pairs.sort_values(["image_badness", "image_id", "badness", "truth", "found"], ascending=falling)
    return pairs[pairs["image_badness"] > 0].reset_index(drop=True)


def _support(truth: pd.DataFrame, predictions: pd.DataFrame, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the best confidence of a detection of its class on each of the labels, 0 for none."""
    boxes, classes = truth[XYXY].to_numpy(np.float64), truth["class_id"].to_numpy()
    image_ids, seen_xyxy = truth["image_id"].to_numpy(), predictions[XYXY].to_numpy(np.float64)
    confidence = predictions["confidence"].to_numpy(np.float64)
    places = predictions.reset_index(drop=True).groupby(["image_id", "class_id"]).indices
    support = np.zeros(len(labels))
    for number, label in enumerate(labels.tolist()):
        seen = places.get((image_ids[label], classes[label]))
        if seen is not None:
            near = box_iou(boxes[label : label + 1], seen_xyxy[seen])[0] >= MIN_IOU
            support[number] = confidence[seen][near].max(initial=0.0)
    return support


def worst_sheet(  # noqa: PLR0917 (the verbs of plumbline.scores)
    dataset: Dataset,
    images: pd.DataFrame,
    truth: pd.DataFrame,
    predictions: pd.DataFrame,
    settings: ScoringSettings,
    title: str,
) -> Image:
    """Draw the images with the worst mistakes, see the head of this module, with the boxes of labels and detections.

    Args:
        dataset: Knows the classes, and where the images are.
        images: Those that were scored.
        truth: Their labels.
        predictions: Of the images, down to the confidence floor.
        settings: How many images, and how they are scored.
        title: Says what was scored, and on what.

    Returns:
        Shape (H, W, 3), uint8 BGR; a small sheet that says so where there is no mistake.
    """
    pairs = worst_images(truth, predictions, images["image_id"].tolist(), settings)
    path_of = dict(zip(images["image_id"].tolist(), images["path"], strict=True))
    by_image = dict(iter(pairs.groupby("image_id", sort=False)))
    shown = list(by_image)[: settings.worst]
    boxes = _TileBoxes(truth, predictions, dataset.class_names, settings.difficult)
    tiles = [
        Tile(
            dataset.image_path(path_of[image_id]),
            boxes.caption(number, PurePosixPath(path_of[image_id]).name, by_image[image_id]),
            tuple(boxes.of_image(image_id, by_image[image_id])),
        )
        for number, image_id in enumerate(shown, start=1)
    ]
    what = f"the worst {len(shown)} of {len(by_image)} images with mistakes" if tiles else "no image has a mistake"
    heading = f"{title}: {what} at a confidence of {settings.confidence_threshold:.3g} or more"
    return draw_sheet(tiles, _COLUMNS, _TILE_WH, heading, _legend(tiles) if tiles else ())


def _legend(tiles: Sequence[Tile]) -> Sequence[LegendEntry]:
    entries = [
        LegendEntry("missed", MISSED),
        LegendEntry("false alarm", FALSE_ALARM, dashed=True),
        LegendEntry("wrong class", WRONG_CLASS, dashed=True),
        LegendEntry("right", RIGHT, thin=True),
    ]
    if any(box.color == IGNORED for tile in tiles for box in tile.boxes):
        entries.append(LegendEntry("not counted", IGNORED, thin=True))
    return entries


class _TileBoxes:
    """Turns pairs into boxes and words for a tile."""

    def __init__(
        self, truth: pd.DataFrame, predictions: pd.DataFrame, class_names: Sequence[str], difficult: str
    ) -> None:
        self._label_xyxy, self._seen_xyxy = (frame[XYXY].to_numpy(np.float64) for frame in (truth, predictions))
        self._label_class, self._seen_class = (frame["class_id"].to_numpy() for frame in (truth, predictions))
        self._confidence = predictions["confidence"].to_numpy()
        self._names = [printable_name(name, class_id) for class_id, name in enumerate(class_names)]
        ignored = np.flatnonzero(ignored_boxes(truth, difficult))
        self._ignored = pd.Series(ignored).groupby(truth["image_id"].to_numpy()[ignored]).indices
        self._ignored_rows = ignored

    def of_image(self, image_id: int, pairs: pd.DataFrame) -> Iterator[TileBox]:
        """Yield boxes, the worst last and so on top; only the worst are named."""
        for place in self._ignored.get(image_id, ()):
            yield TileBox(self._xyxy(self._label_xyxy, self._ignored_rows[place]), IGNORED, thin=True)
        ranked = list(enumerate(zip(pairs["truth"].tolist(), pairs["found"].tolist(), strict=True)))
        for rank, (label, seen) in reversed(ranked):
            yield from self._pair(label, seen, named=rank < _MOST_TEXTS)

    def _pair(self, label: int, seen: int, *, named: bool) -> Iterator[TileBox]:
        if seen == NONE:
            text = self._names[self._label_class[label]] if named else ""
            yield TileBox(self._xyxy(self._label_xyxy, label), MISSED, text)
            return
        shown = self._xyxy(self._seen_xyxy, seen)
        text = f"{self._names[self._seen_class[seen]]} {self._confidence[seen]:.2f}" if named else ""
        if label == NONE:
            yield TileBox(shown, FALSE_ALARM, text, dashed=True)
        elif self._label_class[label] == self._seen_class[seen]:
            yield TileBox(shown, RIGHT, thin=True)
        else:
            is_class = f", is {self._names[self._label_class[label]]}" if named else ""
            yield TileBox(shown, WRONG_CLASS, text + is_class, dashed=True)

    def caption(self, number: int, name: str, pairs: pd.DataFrame) -> str:
        """Say which image it is and what is wrong with it."""
        label, seen = pairs["truth"].to_numpy(), pairs["found"].to_numpy()
        missed, invented = int((seen == NONE).sum()), int((label == NONE).sum())
        both = (label != NONE) & (seen != NONE)
        right = int((self._label_class[label[both]] == self._seen_class[seen[both]]).sum())
        return (
            f"{number}.  {name}\n{missed} missed, {invented} false alarm{'' if invented == 1 else 's'},"
            f" {int(both.sum()) - right} wrong class, {right} right; badness {pairs['image_badness'].iloc[0]:.2f}"
        )

    @staticmethod
    def _xyxy(boxes: npt.NDArray[np.float64], row: int) -> tuple[float, float, float, float]:
        x1, y1, x2, y2 = boxes[row].tolist()
        return x1, y1, x2, y2
