"""What pycocotools and faster-coco-eval say of boxes, by COCO's own route, and boxes to ask them about."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pandas as pd

XYXY = ["x1", "y1", "x2", "y2"]
# In the order of their `stats`.
STATS = (
    *("map50_95", "map50", "map75", "map_small", "map_medium", "map_large"),
    *("ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large"),
)


def truth_rows(rows):
    return pd.DataFrame(rows, columns=["image_id", "class_id", *XYXY])


def found_rows(rows):
    return pd.DataFrame(rows, columns=["image_id", "class_id", "confidence", *XYXY])


def sorted_rows(truth, found):
    """Return both in the order by which plumbline settles what pycocotools settles by the order of the rows."""
    rising = [True, False, *[True] * 5]
    found = found.sort_values(["image_id", "confidence", "class_id", *XYXY], ascending=rising, ignore_index=True)
    flags = [column for column in ("crowd", "difficult") if column in truth]
    return truth.sort_values(["image_id", "class_id", *XYXY, *flags], ignore_index=True), found


def annotations(frame):
    rows = []
    for number, row in enumerate(frame.itertuples(), start=1):
        box = [row.x1, row.y1, row.x2 - row.x1, row.y2 - row.y1]
        annotation = {"id": number, "image_id": int(row.image_id), "category_id": int(row.class_id) + 1, "bbox": box}
        annotation |= {"area": box[2] * box[3], "iscrowd": int(getattr(row, "crowd", False))}
        annotation |= {"difficult": bool(getattr(row, "difficult", False))}
        annotation |= {"score": float(row.confidence)} if hasattr(row, "confidence") else {}
        rows.append(annotation)
    return rows


def evaluator_of(package, ignore_difficult=False):
    """Return a package's COCO and COCOeval; pycocotools' can be told to ignore what a label calls difficult."""
    if package == "faster_coco_eval":
        from faster_coco_eval import COCO, COCOeval_faster

        return COCO, COCOeval_faster
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    class Ignoring(COCOeval):
        def _prepare(self):
            super()._prepare()
            for boxes in self._gts.values():
                for box in boxes:
                    box["ignore"] = int(box["iscrowd"] or box["difficult"])

    return COCO, Ignoring if ignore_difficult else COCOeval


def coco_says(truth, found, image_ids, num_classes, package="pycocotools", ignore_difficult=False):
    """Return the evaluator after its run, with `stats` and `eval`."""
    reader, evaluator = evaluator_of(package, ignore_difficult)
    with contextlib.redirect_stdout(io.StringIO()):
        labels = reader()
        labels.dataset = {
            "images": [{"id": int(image_id)} for image_id in image_ids],
            "categories": [{"id": index + 1, "name": str(index)} for index in range(num_classes)],
            "annotations": annotations(truth),
        }
        labels.createIndex()
        found_annotations = json.loads(json.dumps(annotations(found)))
        if found_annotations:
            detections = labels.loadRes(found_annotations)
        else:  # loadRes cannot take none
            detections = reader()
            detections.dataset = {**labels.dataset, "annotations": []}
            detections.createIndex()
        result = evaluator(labels, detections, "bbox")
        result.evaluate()
        result.accumulate()
        result.summarize()
    return result


def matches_at_50(result):
    """Return (confidence, hit) of every detection that pycocotools counts, all areas."""
    return [
        (score, bool(match))
        for image in result.evalImgs
        if image is not None and image["aRng"] == [0, 1e10]
        for score, match, ignored in zip(image["dtScores"], image["dtMatches"][0], image["dtIgnore"][0], strict=True)
        if not ignored
    ]


def random_scene(seed, num_images=6, num_classes=3, ties=False):
    """Labels, and detections that are labels moved a little, of another class, twice, or nothing at all."""
    rng = np.random.default_rng(seed)
    truth, found = [], []
    for image_id in range(num_images):
        for _ in range(rng.integers(0, 8)):
            x, y, w, h = rng.uniform(0, 80), rng.uniform(0, 80), rng.uniform(4, 50), rng.uniform(4, 50)
            class_id = int(rng.integers(num_classes))
            truth.append((image_id, class_id, x, y, x + w, y + h))
            for _ in range(rng.integers(0, 4)):
                moved = np.array([x, y, x + w, y + h]) + rng.normal(0, rng.choice([0.5, 3, 12]), 4)
                moved[2:] = np.maximum(moved[2:], moved[:2] + 1)
                seen = class_id if rng.random() < 0.8 else int(rng.integers(num_classes))
                found.append((image_id, seen, rng.random(), *moved))
        for _ in range(rng.integers(0, 4)):
            x, y = rng.uniform(0, 80, 2)
            found.append((image_id, int(rng.integers(num_classes)), rng.random(), x, y, x + 20, y + 20))
    found = found_rows(found)
    if ties:
        found["confidence"] = found["confidence"].round(1)
    return truth_rows(truth), found


def crowded_scene(seed, num_images=5, num_classes=3):
    """Boxes on a coarse grid, in heaps: many overlap alike, exactly on a threshold, or touch; some are crowds.

    Few confidences, images without boxes or detections, classes without either, and areas on COCO's limits.
    """
    rng = np.random.default_rng(seed)
    in_a_row, unit = rng.random() < 0.5, rng.choice([1.0, 8.0, 24.0, 0.1])

    def boxes(count):
        corner, size = rng.integers(0, 4, (count, 2)), rng.choice([1, 2, 3, 4, 10], (count, 2))
        if in_a_row:
            corner[:, 1], size[:, 1] = 0, 4
        return np.hstack([corner, corner + size]) * unit

    counts = rng.integers(0, 12, 2) * num_images
    truth, found = (pd.DataFrame(boxes(count), columns=XYXY) for count in counts)
    for frame in (truth, found):
        frame.insert(0, "image_id", rng.integers(0, rng.integers(1, num_images + 1), len(frame)))
        frame.insert(1, "class_id", rng.integers(0, rng.integers(1, num_classes + 1), len(frame)))
    found.insert(2, "confidence", rng.integers(0, rng.choice([2, 5, 50]), len(found)) / 50)
    share = rng.choice([0.0, 0.3])
    truth["crowd"], truth["difficult"] = rng.random(len(truth)) < share, rng.random(len(truth)) < 0.3
    return truth, found
