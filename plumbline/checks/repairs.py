"""Repairs of what may safely be repaired, and the edits table, which records all that the gate changes.

An edit can be read, refused beforehand (`validate.undo`) and taken back (`undo_edits`): it holds what was there before.
Tables are edited, in memory; the label files that they were read from are never written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from plumbline.checks.boxes import find_box_out_of_bounds, find_duplicate_box, find_reversed_box
from plumbline.checks.view import XYXY, CheckSettings, Floats, Mask, View
from plumbline.errors import DatasetError
from plumbline.faults import BOX_OUT_OF_BOUNDS, DUPLICATE_BOX, FAULTS, REVERSED_BOX
from plumbline.manifest import ANNOTATIONS_SCHEMA, FINDINGS_SCHEMA, IMAGES_SCHEMA, Dataset, table

SWAP_CORNERS, CLIP_BOX, DROP_DUPLICATE = "swap_corners", "clip_box", "drop_duplicate"
LEAVE_OUT_BOX, LEAVE_OUT_IMAGE, LEAVE_OUT_FILE = "leave_out_box", "leave_out_image", "leave_out_file"
_MOVES = (SWAP_CORNERS, CLIP_BOX)  # in the order in which they are made
_DROPS = (DROP_DUPLICATE, LEAVE_OUT_BOX)

EDIT_SCHEMA = pa.schema(
    [
        ("edit_id", pa.string()),  # for validate.undo; the same as long as the label says the same
        ("action", pa.string()),  # one of the six above
        ("code", pa.string()),  # why: a row of plumbline.faults.FAULTS
        ("image", pa.string()),  # images.path; "" when no image is meant
        ("image_id", pa.int64()),  # -1 when no image is meant
        ("ann_id", pa.int64()),  # -1 when no box is meant
        ("source_file", pa.string()),
        ("source_line", pa.int64()),
        ("before", pa.string()),  # JSON: the four corners, or the whole row of what is gone; "" for a file
        ("after", pa.string()),  # JSON: the four corners; "" for what is gone
    ]
)
EDIT_COLUMNS = EDIT_SCHEMA.names
_NUMBERS_AND_PLACES = ("image_id", "ann_id", "source", "source_file", "source_line")


@dataclass(frozen=True)
class Repair:
    """One kind of repair.

    Attributes:
        action: Its name in the edits table.
        find: The finder whose findings it repairs.
        repairable: Which boxes it can repair.
        repaired: Their corners after it, shape (N, 4) for all boxes, or None where they are left out.
    """

    action: str
    find: Callable[[View, CheckSettings], pd.DataFrame]
    repairable: Callable[[View, CheckSettings], Mask]
    repaired: Callable[[View], Floats] | None = None


# In this order: what is swapped may lie outside, and what is clipped may equal another.
REPAIRS = {
    REVERSED_BOX: Repair(
        SWAP_CORNERS,
        find_reversed_box,
        lambda view, _: view.is_reversed,
        lambda view: np.concatenate(
            [np.minimum(view.xyxy[:, :2], view.xyxy[:, 2:]), np.maximum(view.xyxy[:, :2], view.xyxy[:, 2:])], axis=1
        ),
    ),
    BOX_OUT_OF_BOUNDS: Repair(
        CLIP_BOX,
        find_box_out_of_bounds,
        lambda view, settings: view.clippable(settings.clip_px),
        lambda view: view.on_image,
    ),
    DUPLICATE_BOX: Repair(DROP_DUPLICATE, find_duplicate_box, lambda view, _: view.is_repeat),
}


@dataclass(frozen=True)
class Repaired:
    """What the repairs did.

    Attributes:
        view: The tables after them.
        edits: One row per repair made.
        findings: What was repaired, columns of `FINDINGS_SCHEMA`, severity not filled in.
    """

    view: View
    edits: pd.DataFrame
    findings: pd.DataFrame


def repair(dataset: Dataset, settings: CheckSettings) -> Repaired:
    """Make the repairs that `settings.fix` asks for, but for those in `settings.undo`.

    Raises:
        DatasetError: `settings.undo` holds what is no edit_id of a repair.
    """
    if lost := unknown_undo(dataset, settings):
        raise DatasetError(
            f"params.yaml: validate.undo: no repair has the id {min(lost)!r}, expected an edit_id of edits.csv with the"
            f" action {', '.join(row.action for row in REPAIRS.values())}; remove it"
        )
    return _repair(dataset, settings)[0]


def unknown_undo(dataset: Dataset, settings: CheckSettings) -> set[str]:
    """Return what `settings.undo` holds that is no edit_id of a repair of these tables."""
    lost = set(settings.undo)
    # Undoing one repair can take away the reason of the next: both may be named.
    for undo in (settings.undo, ()):
        if lost:
            lost -= _repair(dataset, replace(settings, undo=undo))[1]
    return lost


def leave_out(dataset: Dataset, findings: pd.DataFrame) -> pd.DataFrame:
    """Return the edits for what cannot be kept: each thing once, for the first reason in the order of `FAULTS`.

    Args:
        dataset: The tables, after the repairs.
        findings: All of them, of any severity.
    """
    ranks = {code: rank for rank, code in enumerate(FAULTS)}
    findings = findings.assign(
        leaves_out=findings["code"].map({code: fault.leaves_out for code, fault in FAULTS.items()}),
        rank=findings["code"].map(ranks),
    ).sort_values("rank", kind="stable")
    of_image = (findings["leaves_out"] == "image") & (findings["image_id"] >= 0)
    of_file = (findings["leaves_out"] == "file") | ((findings["leaves_out"] == "image") & ~of_image)
    image_codes = findings[of_image].drop_duplicates("image_id").set_index("image_id")["code"]
    box_codes = findings[findings["leaves_out"] == "box"].drop_duplicates("ann_id").set_index("ann_id")["code"]
    boxes = dataset.annotations
    # A box goes with its image, and then for its image's reason.
    gone = boxes[boxes["image_id"].isin(image_codes.index) | boxes["ann_id"].isin(box_codes.index)]
    reasons = gone["image_id"].map(image_codes)
    reasons = reasons.where(reasons.notna(), gone["ann_id"].map(box_codes))
    images = dataset.images[dataset.images["image_id"].isin(image_codes.index)]
    paths = _paths(dataset)
    files = [
        _edit(LEAVE_OUT_FILE, row.code, ("", paths.get(row.image_id, ""), -1, -1, row.source_file, row.source_line))
        for row in findings[of_file].itertuples()
    ]
    image_edits = [
        _edit(LEAVE_OUT_IMAGE, image_codes[row["image_id"]], (_json(row), row["path"], row["image_id"], -1,
              row["source"], 0))
        for row in _rows(images, IMAGES_SCHEMA)
    ]  # fmt: skip
    box_edits = _box_edits(dataset, gone, LEAVE_OUT_BOX, reasons.tolist())
    return _with_ids([*files, *image_edits, *box_edits])


def apply_edits(dataset: Dataset, edits: pd.DataFrame) -> Dataset:
    """Return a new dataset with the corners that the edits move, and without what they leave out."""
    boxes, images = dataset.annotations, dataset.images
    for action in _MOVES:
        boxes = _with_corners(boxes, edits[edits["action"] == action], "after")
    gone_boxes = edits.loc[edits["action"].isin(_DROPS), "ann_id"]
    if len(gone_boxes):
        boxes = _without(boxes, boxes["ann_id"].isin(gone_boxes))
    gone_images = edits.loc[edits["action"] == LEAVE_OUT_IMAGE, "image_id"]
    if len(gone_images):
        images = _without(images, images["image_id"].isin(gone_images))
    return replace(dataset, images=images, annotations=boxes)


def undo_edits(dataset: Dataset, edits: pd.DataFrame) -> Dataset:
    """Return the tables as they were before `apply_edits`, exactly, given all of its edits.

    Both tables must be sorted by id, as ingest writes them.
    """
    dropped = edits[edits["action"].isin(_DROPS)]
    boxes = _with_rows(dataset.annotations, dropped, ANNOTATIONS_SCHEMA, "ann_id")
    lost = edits[edits["action"] == LEAVE_OUT_IMAGE]
    images = _with_rows(dataset.images, lost, IMAGES_SCHEMA, "image_id")
    for action in reversed(_MOVES):
        boxes = _with_corners(boxes, edits[edits["action"] == action], "before")
    return replace(dataset, images=images, annotations=boxes)


def merge_edits(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """Return the rows of several edits tables in the order of files, lines and boxes."""
    filled = [frame for frame in frames if len(frame)]
    if not filled:
        return table([], EDIT_SCHEMA)
    edits = pd.concat(filled, ignore_index=True)
    actions = (*_MOVES, *_DROPS, LEAVE_OUT_IMAGE, LEAVE_OUT_FILE)
    edits["step"] = edits["action"].map({action: step for step, action in enumerate(actions)})
    order = ["source_file", "source_line", "ann_id", "step", "code", "edit_id"]
    return edits.sort_values(order, kind="stable", ignore_index=True)[EDIT_COLUMNS]


def _repair(dataset: Dataset, settings: CheckSettings) -> tuple[Repaired, set[str]]:
    """Return what was repaired, and the edit_id of every repair made or undone."""
    view = View(dataset)
    edits, findings, seen = [table([], EDIT_SCHEMA)], [table([], FINDINGS_SCHEMA)], set()
    for code, kind in REPAIRS.items():
        if code not in settings.fix:
            continue
        able = kind.repairable(view, settings)
        made = _with_ids(_repair_edits(view, able, code, kind))
        seen |= set(made["edit_id"])
        made = made[~made["edit_id"].isin(settings.undo)]
        if made.empty:
            continue
        found = kind.find(view, settings)
        findings.append(found[found["ann_id"].isin(made["ann_id"])])
        edits.append(made)
        view = View(apply_edits(view.dataset, made))
    all_findings = pd.concat(findings[1:], ignore_index=True) if len(findings) > 1 else findings[0]
    return Repaired(view, merge_edits(edits), all_findings), seen


def _repair_edits(view: View, able: Mask, code: str, kind: Repair) -> list[dict[str, object]]:
    boxes = view.dataset.annotations[able]
    if kind.repaired is None:
        return _box_edits(view.dataset, boxes, kind.action, [code] * len(boxes))
    paths = _paths(view.dataset)
    columns = zip(
        *(boxes[name] for name in ("image_id", "ann_id", "source_file", "source_line")),
        view.xyxy[able].tolist(),
        kind.repaired(view)[able].tolist() if len(boxes) else [],
        strict=True,
    )
    return [
        _edit(kind.action, code, (_json(before), paths.get(image_id, ""), image_id, ann_id, file, line), _json(after))
        for image_id, ann_id, file, line, before, after in columns
    ]


def _box_edits(dataset: Dataset, gone: pd.DataFrame, action: str, codes: list[str]) -> list[dict[str, object]]:
    paths = _paths(dataset) if len(gone) else {}
    return [
        _edit(action, code, (_json(row), paths.get(row["image_id"], ""), row["image_id"], row["ann_id"],
              row["source_file"], row["source_line"]))
        for code, row in zip(codes, _rows(gone, ANNOTATIONS_SCHEMA), strict=True)
    ]  # fmt: skip


def _edit(action: str, code: str, what: tuple[object, ...], after: str = "") -> dict[str, object]:
    names = ("before", "image", "image_id", "ann_id", "source_file", "source_line")
    return {"edit_id": "", "action": action, "code": code, **dict(zip(names, what, strict=True)), "after": after}


def _with_ids(edits: list[dict[str, object]]) -> pd.DataFrame:
    """Return the edits as a table with their edit_id, which says the image, what was there, and what is done.

    No number of an image, a box or a line goes into it, and no place of the source: they change when images and labels
    are added or the source stands elsewhere; what a label says does not. Of edits that say the same, such as two
    repeats of one box, each has its place among them.
    """
    places: dict[str, int] = {}
    for edit in edits:
        before = json.loads(str(edit["before"])) if edit["before"] else ""
        if isinstance(before, dict):
            before = {key: value for key, value in before.items() if key not in _NUMBERS_AND_PLACES}
        # What belongs to no image has no other name than its file.
        name = [edit["image"]] if edit["image"] else [edit["source_file"], edit["source_line"]]
        key = json.dumps([*name, edit["action"], before])
        place = places[key] = places.get(key, -1) + 1
        # With a letter before the digits YAML never reads it as a number.
        edit["edit_id"] = "edit-" + hashlib.sha256(f"{key}{place}".encode()).hexdigest()[:12]
    return table(edits, EDIT_SCHEMA)


def _without(frame: pd.DataFrame, gone: pd.Series[bool]) -> pd.DataFrame:
    left = frame[~gone]
    # `reset_index` would copy all columns a second time.
    left.index = pd.RangeIndex(len(left))
    return left


def _with_corners(boxes: pd.DataFrame, moves: pd.DataFrame, side: str) -> pd.DataFrame:
    """Return the boxes with the corners of one side, before or after, of the edits."""
    if moves.empty:
        return boxes
    rows = pd.Index(boxes["ann_id"]).get_indexer(moves["ann_id"])
    here = rows >= 0
    xyxy = boxes[XYXY].to_numpy(np.float64, copy=True)
    xyxy[rows[here]] = np.array([json.loads(text) for text in moves[side][here]], dtype=np.float64).reshape(-1, 4)
    # A shallow copy: the other columns of ten million boxes are a gigabyte.
    moved = boxes.copy(deep=False)
    for column, name in enumerate(XYXY):
        moved[name] = xyxy[:, column]
    return moved


def _with_rows(frame: pd.DataFrame, edits: pd.DataFrame, schema: pa.Schema, key: str) -> pd.DataFrame:
    """Return the table with the rows that the edits took out of it, sorted by its id."""
    if edits.empty:
        return frame
    rows = [_plain(json.loads(text), schema) for text in edits["before"]]
    back = table(rows, schema)
    # Concatenating with an empty table would lose its types.
    whole = pd.concat([frame, back], ignore_index=True) if len(frame) else back
    return whole.sort_values(key, kind="stable", ignore_index=True)


def _rows(frame: pd.DataFrame, schema: pa.Schema) -> list[dict[str, Any]]:
    return pa.Table.from_pandas(frame[schema.names], schema=schema, preserve_index=False).to_pylist()


def _plain(row: dict[str, object], schema: pa.Schema) -> dict[str, object]:
    """Return a row as it was before `_json`: null is NaN where a number is meant."""
    floats = [field.name for field in schema if pa.types.is_floating(field.type)]
    return {**row, **{name: np.nan if row[name] is None else row[name] for name in floats}}


def _json(value: object) -> str:
    # Python's own JSON gives every finite float back exactly.
    return json.dumps(value, ensure_ascii=False)


def _paths(dataset: Dataset) -> dict[int, str]:
    return dict(zip(dataset.images["image_id"].tolist(), dataset.images["path"], strict=True))
