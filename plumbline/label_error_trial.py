"""Measure how many label errors a ranking finds: plant known ones into labels that are held to be right.

The errors that the labels have of their own count as false alarms, so the figures are a lower bound.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from plumbline.boxes import box_iou
from plumbline.label_errors import COLUMNS, KINDS, MATCH_IOU, PREDICTED_XYXY, XYXY

# How far a planted box is from the object: farther is another place, nearer is within what people agree on.
SHIFTED_IOU = (0.25, 0.65)
_MOST_IOU_OF_SPURIOUS = 0.3
_TRIES = 1000


def plant_label_errors(
    annotations: pd.DataFrame,
    resolutions_wh: Mapping[int, tuple[int, int]],
    num_classes: int,
    share: float,
    seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Delete boxes, give boxes another class, move and scale boxes, and add boxes where nothing is.

    Args:
        annotations: Columns image_id, ann_id, class_id, x1..y2; finite boxes.
        resolutions_wh: image_id -> width and height in pixels, of all images that may get a box.
        num_classes: At least 2.
        share: Of the boxes, for each of the four kinds; at least one of each is planted.
        seed: Of everything that is drawn.

    Returns:
        The annotations with the errors, and one row per error: kind, image_id, ann_id (-1 for a deleted box) and
        x1..y2 of the object itself, or of the box where there is no object.
    """
    random = np.random.default_rng(seed)
    changed = annotations[["image_id", "ann_id", "class_id", *XYXY]].reset_index(drop=True)
    number = max(1, round(len(changed) * share))
    deleted, swapped, moved = np.split(random.permutation(len(changed))[: 3 * number], [number, 2 * number])
    truth = [changed.loc[rows, ["image_id", "ann_id", *XYXY]] for rows in (deleted, swapped, moved)]
    truth[0] = truth[0].assign(ann_id=-1)
    steps = random.integers(1, num_classes, len(swapped))
    changed.loc[swapped, "class_id"] = (changed.loc[swapped, "class_id"] + steps) % num_classes
    for row in moved:
        resolution_wh = resolutions_wh[int(changed["image_id"][row])]
        changed.loc[row, XYXY] = _moved(changed.loc[row, XYXY].to_numpy(np.float64), resolution_wh, random)
    added = _spurious(changed, resolutions_wh, number, random)
    truth.append(added[["image_id", "ann_id", *XYXY]])
    planted = pd.concat([part.assign(kind=kind) for part, kind in zip(truth, KINDS, strict=True)], ignore_index=True)
    return pd.concat([changed.drop(index=deleted), added], ignore_index=True), planted


def naive_ranking(annotations: pd.DataFrame, predictions: pd.DataFrame) -> pd.DataFrame:
    """Return what is done without a method: predictions without a box of their class, the most confident first."""
    lonely = np.ones(len(predictions), dtype=bool)
    boxes_of = annotations.groupby("image_id").indices
    for image_id, rows in predictions.groupby("image_id").indices.items():
        given = annotations.iloc[boxes_of.get(image_id, [])]
        seen = predictions.iloc[rows]
        iou = box_iou(seen[XYXY].to_numpy(np.float64), given[XYXY].to_numpy(np.float64))
        same = seen["class_id"].to_numpy()[:, None] == given["class_id"].to_numpy()[None]
        lonely[rows] = ~(same & (iou >= MATCH_IOU)).any(axis=1)
    found = predictions[lonely].sort_values("confidence", ascending=False, kind="stable", ignore_index=True)
    names = {"class_id": "predicted_class_id", **dict(zip(XYXY, PREDICTED_XYXY, strict=True))}
    found = found.rename(columns=names).assign(score=found["confidence"], kind=KINDS[0], ann_id=-1)
    return found.reindex(columns=COLUMNS)


def score_ranking(suspects: pd.DataFrame, planted: pd.DataFrame, annotations: pd.DataFrame) -> dict[str, float]:
    """Measure a ranking against what was planted.

    A suspect finds an error when it names its box, or, naming none, when its predicted box lies on the object. Who
    finds an error a second time has found nothing.

    Args:
        suspects: As `rank_label_errors` returns them, with min_score 0; the worst first.
        planted: As `plant_label_errors` returns it; k rows.
        annotations: With the errors in them.

    Returns:
        precision_at_k, recall_at_2k, named_at_k (share of the errors found in the first k whose kind is right), and
        per kind recall_at_2k_<kind> and auc_<kind>, the area under the ROC curve against all that is right: boxes, or
        for missing labels the other places where a missing label is suspected. NaN where there is nothing to compare.
    """
    hits = _hits(suspects, planted)
    k = len(planted)
    early = hits[: 2 * k][hits[: 2 * k] >= 0]
    named = hits[:k] >= 0
    right = suspects["kind"].to_numpy()[:k][named] == planted["kind"].to_numpy()[hits[:k][named]]
    scores = {
        "precision_at_k": float(np.count_nonzero(named) / k),
        "recall_at_2k": len(early) / k,
        "named_at_k": float(right.mean()) if len(right) else float("nan"),
    }
    clean = annotations["ann_id"][~annotations["ann_id"].isin(planted["ann_id"])]
    of_box = suspects[suspects["ann_id"] >= 0].set_index("ann_id")["score"]
    missing = (suspects["kind"] == KINDS[0]).to_numpy()
    for kind in KINDS:
        rows = np.flatnonzero(planted["kind"] == kind)
        scores[f"recall_at_2k_{kind}"] = float(np.isin(rows, early).mean()) if len(rows) else float("nan")
        if kind == KINDS[0]:
            found = suspects["score"][missing & np.isin(hits, rows)].to_numpy()
            wrong = np.concatenate([found, np.zeros(len(rows) - len(found))])
            fine = suspects["score"][missing & (hits < 0)].to_numpy()
        else:
            wrong = of_box.reindex(planted["ann_id"].iloc[rows]).fillna(0).to_numpy()
            fine = of_box.reindex(clean).fillna(0).to_numpy()
        scores[f"auc_{kind}"] = area_under_roc(wrong, fine)
    return scores


def area_under_roc(wrong: npt.NDArray[np.float64], fine: npt.NDArray[np.float64]) -> float:
    """Return how often something wrong scores higher than something fine, a tie counting half; NaN without either.

    >>> area_under_roc(np.array([0.9, 0.5]), np.array([0.5, 0.1]))
    0.875
    """
    if not len(wrong) or not len(fine):
        return float("nan")
    ranks = pd.Series(np.concatenate([wrong, fine])).rank().to_numpy()
    lowest = len(wrong) * (len(wrong) + 1) / 2
    return float((ranks[: len(wrong)].sum() - lowest) / (len(wrong) * len(fine)))


def _hits(suspects: pd.DataFrame, planted: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Return for each suspect the row of the planted error that it is the first to find, or -1."""
    hits = np.full(len(suspects), -1)
    open_rows = {int(image_id): list(rows) for image_id, rows in planted.groupby("image_id").indices.items()}
    places = planted[XYXY].to_numpy(np.float64)
    ann_ids = planted["ann_id"].to_numpy()
    seen = suspects[PREDICTED_XYXY].to_numpy(np.float64)
    for row, (image_id, ann_id) in enumerate(zip(suspects["image_id"], suspects["ann_id"], strict=True)):
        candidates = open_rows.get(int(image_id), [])
        if ann_id >= 0:
            found = [index for index in candidates if ann_ids[index] == ann_id]
        else:
            overlaps = box_iou(seen[row : row + 1], places[candidates])[0]
            found = [candidates[index] for index in np.argsort(-overlaps) if overlaps[index] >= MATCH_IOU]
        if found:
            hits[row] = found[0]
            candidates.remove(found[0])
    return hits


def _moved(
    box: npt.NDArray[np.float64], resolution_wh: tuple[int, int], random: np.random.Generator
) -> npt.NDArray[np.float64]:
    wh = box[2:] - box[:2]
    for _ in range(_TRIES):
        centre = (box[:2] + box[2:]) / 2 + random.uniform(-0.5, 0.5, 2) * wh
        half = wh * np.exp(random.uniform(-0.3, 0.3, 2)) / 2
        moved = np.clip(np.concatenate([centre - half, centre + half]), 0, [*resolution_wh, *resolution_wh])
        if SHIFTED_IOU[0] < box_iou(moved[None], box[None])[0, 0] < SHIFTED_IOU[1]:
            return moved
    # A box of which nearly nothing lies in the image: half of it.
    return np.concatenate([box[:2], box[:2] + wh * [0.5, 1.0]])


def _spurious(
    annotations: pd.DataFrame,
    resolutions_wh: Mapping[int, tuple[int, int]],
    number: int,
    random: np.random.Generator,
) -> pd.DataFrame:
    """Return boxes with the size and class of others, where no box is, or hardly any."""
    image_ids = sorted(resolutions_wh)
    next_id = int(annotations["ann_id"].max()) + 1
    rows: list[dict[str, float]] = []
    for _ in range(_TRIES * number):
        if len(rows) == number:
            break
        image_id = image_ids[int(random.integers(len(image_ids)))]
        like = annotations.iloc[int(random.integers(len(annotations)))]
        wh = like[["x2", "y2"]].to_numpy(np.float64) - like[["x1", "y1"]].to_numpy(np.float64)
        corner = random.uniform(0, 1, 2) * np.maximum(np.array(resolutions_wh[image_id]) - wh, 0)
        box = np.concatenate([corner, corner + wh])
        others = annotations.loc[annotations["image_id"] == image_id, XYXY].to_numpy(np.float64)
        if box_iou(box[None], others).max(initial=0) <= _MOST_IOU_OF_SPURIOUS:
            ids = {"image_id": image_id, "ann_id": next_id + len(rows), "class_id": int(like["class_id"])}
            rows.append({**ids, **dict(zip(XYXY, box.tolist(), strict=True))})
    return pd.DataFrame(rows, columns=["image_id", "ann_id", "class_id", *XYXY])
