"""What can be wrong with a dataset: one explicit table, one pure function per row, and the judgement over all.

A check finds, params.yaml's `validate.severity` decides, `judge` applies: what an error stops, what a drop leaves
out, what a warning keeps. Whatever is left out or moved becomes a row of the edits table, never less.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from plumbline.boxes import Boxes
from plumbline.errors import DatasetError
from plumbline.manifest import FINDINGS_SCHEMA, Dataset, table

XYXY = ["x1", "y1", "x2", "y2"]
NEW_XYXY = ["new_x1", "new_y1", "new_x2", "new_y2"]

EDIT_COLUMNS = [
    "action",  # drop_image, drop_box, drop_label (a file or row that could not become boxes), clip_box
    "code",  # why: a row of CHECKS, or box_tolerance_px for a clip
    "image",  # images.path; "" when no image is meant
    "image_id",  # -1 when no image is meant
    "ann_id",  # -1 when no box is meant
    "source_file",
    "source_line",
    *XYXY,  # before; empty when no box is meant
    *NEW_XYXY,  # after; only of a clip
]

Finder = Callable[[Dataset, float], pd.DataFrame]


@dataclass(frozen=True)
class Check:
    """One kind of fault.

    Attributes:
        code: Its name in findings and in `validate.severity`.
        what: What is wrong, for people.
        drops: What severity ``drop`` leaves out: ``box``, ``image`` (with its boxes), ``label`` (a file or row that
            never became boxes), or "" when there is nothing to leave out.
        keepable: Whether severity ``warning`` makes sense, that is, whether the line can go on with it.
        remedy: What to do about it.
        find: Its function over (dataset, box_tolerance_px), or None when only the reader can see it.
    """

    code: str
    what: str
    drops: str
    keepable: bool
    remedy: str
    find: Finder | None = None

    @property
    def severities(self) -> tuple[str, ...]:
        """Return the severities that mean something for this fault."""
        return ("error", *(["drop"] if self.drops else []), *(["warning"] if self.keepable else []))

    @property
    def advice(self) -> str:
        """Return the remedy and, where there is one, the way round it."""
        way_round = "drop" if self.drops else "warning"
        return f"{self.remedy}, or set validate.severity.{self.code}: {way_round} in params.yaml"


@dataclass(frozen=True)
class Judgement:
    """What the gate decided.

    Attributes:
        findings: Columns of `FINDINGS_SCHEMA`, severity filled in, sorted by source_file, source_line, code, ann_id.
        edits: Columns `EDIT_COLUMNS`.
        dataset: What is left after the edits; of use only when there is no error.
    """

    findings: pd.DataFrame
    edits: pd.DataFrame
    dataset: Dataset

    @property
    def errors(self) -> pd.DataFrame:
        """Return the findings that stop the run."""
        return self.findings[self.findings["severity"] == "error"]


def find_unreadable_image(dataset: Dataset, tolerance_px: float) -> pd.DataFrame:  # noqa: ARG001
    """Find images that could not be decoded whole."""
    images = dataset.images[~dataset.images["readable"].astype(bool)]
    message = "image cannot be decoded, expected a whole JPEG or PNG, got damaged or foreign content"
    return _image_findings("unreadable_image", images, [message] * len(images))


def find_duplicate_image(dataset: Dataset, tolerance_px: float) -> pd.DataFrame:  # noqa: ARG001
    """Find the second and later images of equal bytes; the first is the one of the lowest path."""
    # An unreadable file says nothing about its content; several are often all empty.
    images = dataset.images[dataset.images["readable"].astype(bool)].sort_values(["path", "image_id"])
    first = images.groupby("sha256")["source"].transform("first")
    again = images.duplicated("sha256")
    messages = [f"image has been seen before, expected every image once, got the bytes of {p}" for p in first[again]]
    return _image_findings("duplicate_image", images[again], messages)


def find_unknown_class(dataset: Dataset, tolerance_px: float) -> pd.DataFrame:  # noqa: ARG001
    """Find boxes whose class is not in `dataset.class_names`."""
    class_ids = dataset.annotations["class_id"]
    boxes = dataset.annotations[(class_ids < 0) | (class_ids >= len(dataset.class_names))]
    known = ", ".join(dataset.class_names)
    messages = [
        f"unknown class, expected one of: {known}, got {name!r}{_near(name, dataset.class_names)}"
        for name in boxes["class_name"]
    ]
    return _box_findings("unknown_class", boxes, messages)


def find_zero_area_box(dataset: Dataset, tolerance_px: float) -> pd.DataFrame:  # noqa: ARG001
    """Find boxes without width or height, with reversed corners, or with a corner that is no number."""
    boxes = dataset.annotations[~_has_area(_xyxy(dataset))]
    messages = [f"box has no area, expected x1 < x2 and y1 < y2, got {_corners(row)}" for row in boxes[XYXY].to_numpy()]
    return _box_findings("zero_area_box", boxes, messages)


def find_box_outside_image(dataset: Dataset, tolerance_px: float) -> pd.DataFrame:
    """Find boxes with area whose corner is outside by more than the tolerance, or which clipping would empty."""
    outside = _is_outside(dataset, tolerance_px)
    messages = [
        f"box is outside its image, expected 0 <= x <= {width:.0f} and 0 <= y <= {height:.0f}, got {_corners(row)}"
        for row, (width, height) in zip(_xyxy(dataset)[outside], _image_wh(dataset)[outside], strict=True)
    ]
    return _box_findings("box_outside_image", dataset.annotations[outside], messages)


def find_duplicate_box(dataset: Dataset, tolerance_px: float) -> pd.DataFrame:
    """Find the second and later boxes of one image, class and corners, as they are after clipping."""
    boxes = dataset.annotations
    keys = pd.DataFrame(_clipped(dataset, tolerance_px), columns=XYXY, index=boxes.index)
    keys[["image_id", "class_id", "ann_id"]] = boxes[["image_id", "class_id", "ann_id"]]
    # Two unknown classes are both -1, and yet not the same.
    keys["name"] = boxes["class_name"].where(boxes["class_id"] < 0, "")
    keys = keys.sort_values("ann_id")
    again = keys.duplicated(["image_id", "class_id", "name", *XYXY]).reindex(boxes.index)
    messages = [
        f"box has been seen before, expected every box once, got {name!r} at {_corners(row)} again"
        for name, row in zip(boxes["class_name"][again], boxes[XYXY][again].to_numpy(), strict=True)
    ]
    return _box_findings("duplicate_box", boxes[again], messages)


def find_empty_class(dataset: Dataset, tolerance_px: float) -> pd.DataFrame:  # noqa: ARG001
    """Find classes without a single box."""
    present = set(dataset.annotations["class_id"])
    return table(
        [
            {
                "code": "empty_class",
                "severity": "",
                "source_file": "params.yaml",
                "source_line": 0,
                "message": f"class {name!r} of dataset.class_names has no box, expected at least one, got 0",
                "image_id": -1,
                "ann_id": -1,
            }
            for class_id, name in enumerate(dataset.class_names)
            if class_id not in present
        ],
        FINDINGS_SCHEMA,
    )


# In the order in which one fault explains another: a box with several has the first as the code of its edit.
_ROWS = (
    # Nothing can be trained or measured on it.
    Check("unreadable_image", "cannot be decoded, or its content is damaged", "image", False, "replace the file",
          find_unreadable_image),
    # There is nothing to keep.
    Check("missing_image", "a label names an image that is not there", "label", False,
          "add the image or remove the label"),
    # Kept, it is a negative: an image on which nothing is to be found.
    Check("missing_label", "an image without a label file", "image", True, "add the label or remove the image"),
    # There is no box to keep. Dropped, its image goes too: without the box, its object would be taught as background.
    Check("malformed_label", "XML, row or number that cannot be read", "image", False, "fix the label"),
    # Kept: boxes that lie outside because of it are found by themselves.
    Check("size_mismatch", "the label's width and height are not the image's", "image", True,
          "fix the label or replace the image"),
    # Kept, the split puts both on one side.
    Check("duplicate_image", "the same bytes twice", "image", True, "remove one of the two", find_duplicate_image),
    # A class without a number cannot be trained.
    Check("unknown_class", "not in dataset.class_names", "box", False,
          "fix the label, add the class to dataset.class_names", find_unknown_class),
    # ultralytics trains on it and COCO's evaluator counts it as missed for ever.
    Check("zero_area_box", "no width or no height, or reversed corners", "box", False, "fix the label",
          find_zero_area_box),
    # ultralytics leaves out the whole image for it.
    Check("box_outside_image", "by more than box_tolerance_px", "box", False, "fix the label", find_box_outside_image),
    # ultralytics takes it out by itself, so that train and evaluate would not see the same boxes.
    Check("duplicate_box", "same class, same corners, same image", "box", False, "fix the label", find_duplicate_box),
    # Kept, it never gets a score, and the others train; there is nothing to drop.
    Check("empty_class", "a class without a single box", "", True,
          "add labels of it or take it out of dataset.class_names", find_empty_class),
)  # fmt: skip
CHECKS: dict[str, Check] = {check.code: check for check in _ROWS}


def judge(dataset: Dataset, severity: Mapping[str, str], tolerance_px: float) -> Judgement:
    """Check a dataset, decide what each finding means, and apply what may be applied.

    Ids stay as they are: what is left out leaves a gap, so that an image_id or ann_id means the same everywhere.

    Args:
        dataset: As ingest wrote it, with the reader's findings.
        severity: Code -> error, drop or warning, for every code of `CHECKS`.
        tolerance_px: A corner outside its image by no more pixels is moved onto the border.

    Raises:
        DatasetError: The reader's findings hold a code that is not in `CHECKS`.
    """
    foreign = sorted(set(dataset.findings["code"]) - set(CHECKS))
    if foreign:
        raise DatasetError(f"unknown finding, expected one of: {', '.join(CHECKS)}, got {foreign[0]}; run ingest again")
    # Empty classes come last, for dropping boxes can empty a class.
    finders = [check.find for check in _ROWS if check.find and check.find is not find_empty_class]
    found = [find(dataset, tolerance_px) for find in finders]
    # The reader's words come first: it saw the file.
    findings = _judged([dataset.findings.drop_duplicates(), *found], severity)
    edits = _edits(dataset, findings, tolerance_px)
    left = apply_edits(dataset, edits)
    findings = _judged([findings, find_empty_class(left, tolerance_px)], severity)
    return Judgement(findings, edits, replace(left, findings=findings))


def apply_edits(dataset: Dataset, edits: pd.DataFrame) -> Dataset:
    """Return a new dataset without what the edits drop, and with the corners that they move."""
    dropped_images = edits.loc[edits["action"] == "drop_image", "image_id"]
    dropped_boxes = edits.loc[edits["action"] == "drop_box", "ann_id"]
    images = dataset.images[~dataset.images["image_id"].isin(dropped_images)].reset_index(drop=True)
    kept = ~dataset.annotations["ann_id"].isin(dropped_boxes)
    boxes = dataset.annotations[kept].reset_index(drop=True)
    clips = edits[edits["action"] == "clip_box"].set_index("ann_id")[NEW_XYXY]
    moved = boxes["ann_id"].isin(clips.index)
    boxes.loc[moved, XYXY] = clips.loc[boxes.loc[moved, "ann_id"]].to_numpy(np.float64)
    return replace(dataset, images=images, annotations=boxes)


def finding_line(row: Any) -> str:
    """Render one findings row as ``<file>:<line>: <message>``; the line is left out when the whole file is meant.

    >>> from types import SimpleNamespace
    >>> finding_line(SimpleNamespace(source_file="a.xml", source_line=7, message="box has no area"))
    'a.xml:7: box has no area'
    """
    where = f"{row.source_file}:{row.source_line}" if row.source_line > 0 else str(row.source_file)
    return f"{where}: {row.message}"


def error_line(row: Any) -> str:
    """Render one findings row with what to do about it.

    The reader's own advice, after the last semicolon, is the better one for a label that cannot be read: it knows
    what it read. For what can be kept, it says how that is done, which is not what happens here.
    """
    check, line, remedy = CHECKS[row.code], finding_line(row), ""
    if check.find is None and "; " in line:
        line, _, remedy = line.rpartition("; ")
    advice = check.advice.removeprefix(check.remedy)
    return f"{line}; {remedy if remedy and not check.keepable else check.remedy}{advice}"


def _judged(frames: list[pd.DataFrame], severity: Mapping[str, str]) -> pd.DataFrame:
    filled = [frame for frame in frames if len(frame)]
    if not filled:
        return table([], FINDINGS_SCHEMA)
    findings = pd.concat(filled, ignore_index=True)[FINDINGS_SCHEMA.names]
    # An image or a box has each code once; a file may have many malformed rows.
    known = ["code", "image_id", "ann_id"]
    of_image = findings["code"].map(lambda code: CHECKS[code].drops == "image") & (findings["source_line"] == 0)
    once = (findings["ann_id"] >= 0) | of_image
    findings = findings[~(once & (findings["image_id"] >= 0) & findings.duplicated(known))].reset_index(drop=True)
    findings["severity"] = findings["code"].map(dict(severity))
    order = ["source_file", "source_line", "code", "ann_id", "image_id", "message"]
    return findings.sort_values(order, kind="stable", ignore_index=True)


def _edits(dataset: Dataset, findings: pd.DataFrame, tolerance_px: float) -> pd.DataFrame:
    """Return what severity drop and the tolerance ask for, one row per thing left out or moved."""
    drops = findings[findings["severity"] == "drop"].copy()
    drops["rank"] = drops["code"].map({code: rank for rank, code in enumerate(CHECKS)})
    drops["drops"] = drops["code"].map({code: check.drops for code, check in CHECKS.items()})
    drops = drops.sort_values("rank", kind="stable")
    of_image = (drops["drops"] == "image") & (drops["image_id"] >= 0)
    labels = drops[~of_image & (drops["drops"] != "box")].assign(action="drop_label")
    images = drops[of_image].drop_duplicates("image_id").assign(action="drop_image")
    boxes = dataset.annotations
    # A box goes with its image, and then for its image's reason.
    reasons = boxes["image_id"].map(images.set_index("image_id")["code"])
    own = drops[drops["drops"] == "box"].drop_duplicates("ann_id").set_index("ann_id")["code"]
    reasons = reasons.where(reasons.notna(), boxes["ann_id"].map(own))
    gone = boxes.assign(action="drop_box", code=reasons)[reasons.notna()]
    clipped = pd.DataFrame(_clipped(dataset, tolerance_px), columns=NEW_XYXY, index=boxes.index)
    moves = reasons.isna() & (clipped.to_numpy() != _xyxy(dataset)).any(axis=1)
    clips = boxes.assign(action="clip_box", code="box_tolerance_px").join(clipped)[moves]
    frames = [frame.reindex(columns=EDIT_COLUMNS) for frame in (labels, images, gone, clips) if len(frame)]
    if not frames:
        return pd.DataFrame(columns=EDIT_COLUMNS)
    edits = pd.concat(frames, ignore_index=True)
    edits["image"] = edits["image_id"].map(dataset.images.set_index("image_id")["path"]).fillna("")
    edits["ann_id"] = edits["ann_id"].astype(np.int64)
    return edits.sort_values(["source_file", "source_line", "action", "ann_id"], kind="stable", ignore_index=True)


def _box_findings(code: str, boxes: pd.DataFrame, messages: list[str]) -> pd.DataFrame:
    columns = ["source_file", "source_line", "image_id", "ann_id"]
    return boxes[columns].assign(code=code, severity="", message=messages)[FINDINGS_SCHEMA.names]


def _image_findings(code: str, images: pd.DataFrame, messages: list[str]) -> pd.DataFrame:
    # What a person can mend is the file that ingest copied.
    files = images["source"]
    filled = images[["image_id"]].assign(code=code, severity="", source_file=files, source_line=0, message=messages)
    return filled.assign(ann_id=-1)[FINDINGS_SCHEMA.names]


def _xyxy(dataset: Dataset) -> npt.NDArray[np.float64]:
    return dataset.annotations[XYXY].to_numpy(np.float64)


def _has_area(xyxy: Boxes) -> npt.NDArray[np.bool_]:
    # Written so that a corner that is no number has no area.
    return (xyxy[:, 2] > xyxy[:, 0]) & (xyxy[:, 3] > xyxy[:, 1])


def _image_wh(dataset: Dataset) -> npt.NDArray[np.float64]:
    """Return each box's image width and height, shape (N, 2), pixels; NaN for an image that cannot be read."""
    readable = dataset.images[dataset.images["readable"].astype(bool)].set_index("image_id")
    return readable[["width", "height"]].reindex(dataset.annotations["image_id"]).to_numpy(np.float64)


def _onto_image(dataset: Dataset) -> npt.NDArray[np.float64]:
    """Return every corner moved onto its image, shape (N, 4); NaN where the image cannot be read."""
    wh = _image_wh(dataset)
    return np.minimum(np.maximum(_xyxy(dataset), 0.0), np.concatenate([wh, wh], axis=1))


def _is_outside(dataset: Dataset, tolerance_px: float) -> npt.NDArray[np.bool_]:
    xyxy, moved = _xyxy(dataset), _onto_image(dataset)
    comparable = _has_area(xyxy) & ~np.isnan(moved).any(axis=1)
    # A box wholly outside, even by less than the tolerance, would be clipped to nothing.
    far = (np.abs(xyxy - moved) > tolerance_px).any(axis=1) | ~_has_area(moved)
    return comparable & far


def _clipped(dataset: Dataset, tolerance_px: float) -> npt.NDArray[np.float64]:
    """Return all corners, shape (N, 4), with those moved onto the image that the tolerance allows to move."""
    xyxy, moved = _xyxy(dataset), _onto_image(dataset)
    can = _has_area(xyxy) & ~np.isnan(moved).any(axis=1) & ~_is_outside(dataset, tolerance_px)
    return np.where(can[:, None], moved, xyxy)


def _corners(row: npt.NDArray[np.float64]) -> str:
    """Render one box, in pixels.

    >>> _corners(np.array([0.0, 1.25, 10.0, 1e9]))
    '(x1, y1, x2, y2) = (0, 1.25, 10, 1000000000)'
    """
    return f"(x1, y1, x2, y2) = ({', '.join(f'{round(float(value), 3):.12g}' for value in row)})"


def _near(name: str, class_names: tuple[str, ...]) -> str:
    """Return a hint at the class that was probably meant, or nothing."""
    by_lower = {known.lower(): known for known in class_names}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return f" (did you mean {by_lower[near[0]]!r}?)" if near else ""
