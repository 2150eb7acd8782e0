"""COCO's average precision and average recall from matches.

Source: `accumulate` and `summarize` of
https://github.com/cocodataset/cocoapi/blob/master/PythonAPI/pycocotools/cocoeval.py
"""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

from plumbline.detect.scoring.matching import IOU_THRESHOLDS, Matches

MAX_DETECTIONS = 100  # per image and class: COCO's
RECALL_POINTS = np.linspace(0.0, 1.0, 101)  # COCO's
TINY = float(np.spacing(1))  # pycocotools adds it to a denominator; it shows in the 16th digit

Floats = npt.NDArray[np.float64]


def interpolated_precision(matches: Matches, area: str = "all", max_detections: int = MAX_DETECTIONS) -> Floats:
    """Return the best precision that is reached at each recall or beyond.

    Args:
        matches: Of all detections.
        area: A range of areas that was matched.
        max_detections: The most confident of each image and class that count.

    Returns:
        Shape (10 IoUs, 101 recall points, num_classes), 0 beyond the highest recall; NaN for a class without a counted
        box, where COCO writes -1.
    """
    found, num_counted = matches.areas[area], matches.num_counted(area)
    precision = np.full((len(IOU_THRESHOLDS), len(RECALL_POINTS), matches.num_classes), np.nan)
    precision[:, :, num_counted > 0] = 0.0
    within = matches.rank < max_detections
    for threshold, (hits, ignored) in enumerate(zip(found.hits, found.ignored, strict=True)):
        # Precision falls with every false alarm: only where a hit is can it be the best.
        places = np.flatnonzero(hits & within)
        shown = np.concatenate([[0], np.cumsum(~ignored & within)])
        starts = np.searchsorted(places, matches.class_start).tolist()
        for class_id, (begin, end) in enumerate(itertools.pairwise(starts)):
            if begin == end:
                continue
            hit = np.arange(1, end - begin + 1)
            total = shown[places[begin:end] + 1] - shown[matches.class_start[class_id]]
            best = np.maximum.accumulate((hit / (total + TINY))[::-1])[::-1]
            first = np.searchsorted(hit / num_counted[class_id], RECALL_POINTS, side="left")
            reached = first < len(best)
            precision[threshold, reached, class_id] = best[first[reached]]
    return precision


def highest_recall(matches: Matches, area: str = "all", max_detections: int = MAX_DETECTIONS) -> Floats:
    """Return the share of the counted boxes that is found at all, shape (10 IoUs, num_classes); NaN for no box."""
    num_counted = matches.num_counted(area).astype(np.float64)
    within = np.flatnonzero(matches.rank < max_detections)
    hits = [
        np.bincount(matches.class_id[within[hits[within]]], minlength=matches.num_classes)
        for hits in matches.areas[area].hits
    ]
    recall = np.full((len(IOU_THRESHOLDS), matches.num_classes), np.nan)
    return np.divide(np.stack(hits), num_counted, out=recall, where=num_counted > 0)
