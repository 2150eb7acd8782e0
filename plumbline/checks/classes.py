"""Finders for classes: of each box, and of the data set as a whole."""

from __future__ import annotations

import difflib
from functools import cache

import numpy as np
import pandas as pd

from plumbline.checks.view import CheckSettings, Mask, View, box_findings
from plumbline.faults import CLASS_IMBALANCE, CLASS_OUT_OF_RANGE, EMPTY_CLASS, SMALL_CLASS, UNKNOWN_CLASS
from plumbline.manifest import FINDINGS_SCHEMA, UNKNOWN_CLASS_ID, Dataset, table


def find_unknown_class(view: View, settings: CheckSettings) -> pd.DataFrame:  # noqa: ARG001
    """Find boxes and labels whose class is not in `dataset.class_names`."""
    dataset = view.dataset
    unknown = (dataset.annotations["class_id"] == UNKNOWN_CLASS_ID).to_numpy()
    known = ", ".join(dataset.class_names)
    near = cache(lambda name: _near(name, dataset.class_names))
    messages = [
        f"unknown class, expected one of: {known}, got {name!r}{near(name)}"
        for name in dataset.annotations["class_name"][unknown]
    ]
    return box_findings(UNKNOWN_CLASS, dataset, unknown, messages)


def find_class_out_of_range(view: View, settings: CheckSettings) -> pd.DataFrame:  # noqa: ARG001
    """Find boxes and labels whose class is a number that the data set's own list of names does not reach."""
    dataset = view.dataset
    beyond = ~_has_class(dataset) & (dataset.annotations["class_id"] != UNKNOWN_CLASS_ID).to_numpy()
    messages = [
        f"class number out of range, expected a number with a name in the data set's own list, got {name!r}"
        for name in dataset.annotations["class_name"][beyond]
    ]
    return box_findings(CLASS_OUT_OF_RANGE, dataset, beyond, messages)


def find_empty_class(view: View, settings: CheckSettings) -> pd.DataFrame:  # noqa: ARG001
    """Find classes without a single box."""
    return _class_findings(
        EMPTY_CLASS,
        [
            f"class {name!r} of dataset.class_names has no box, expected at least one, got 0"
            for name, number in _counts(view.dataset).items()
            if number == 0
        ],
    )


def find_small_class(view: View, settings: CheckSettings) -> pd.DataFrame:
    """Find classes of fewer boxes than `min_boxes_per_class`; empty ones have a code of their own."""
    least = settings.min_boxes_per_class
    return _class_findings(
        SMALL_CLASS,
        [
            f"class {name!r} has few boxes, expected at least {least}, got {number}"
            for name, number in _counts(view.dataset).items()
            if 0 < number < least
        ],
    )


def find_class_imbalance(view: View, settings: CheckSettings) -> pd.DataFrame:
    """Find classes rarer than the commonest by more than `max_imbalance`; small ones have a code of their own."""
    counts = _counts(view.dataset)
    commonest = max(counts, key=lambda name: counts[name], default="")
    return _class_findings(
        CLASS_IMBALANCE,
        [
            f"class {name!r} is rare, expected at most {settings.max_imbalance:g} times as many boxes of another,"
            f" got {number} against {counts[commonest]} of {commonest!r}"
            for name, number in counts.items()
            if number >= max(1, settings.min_boxes_per_class) and counts[commonest] > settings.max_imbalance * number
        ],
    )


def _has_class(dataset: Dataset) -> Mask:
    return dataset.annotations["class_id"].between(0, len(dataset.class_names) - 1).to_numpy(bool)


def _counts(dataset: Dataset) -> dict[str, int]:
    """Return class_name -> boxes and labels of whole images, in the order of class_id."""
    class_ids = dataset.annotations["class_id"].to_numpy(np.int64)[_has_class(dataset)]
    counts = np.bincount(class_ids, minlength=len(dataset.class_names)).tolist()
    return dict(zip(dataset.class_names, counts, strict=True))


def _class_findings(code: str, messages: list[str]) -> pd.DataFrame:
    # Nothing but the names in params.yaml belongs to a class as a whole.
    row = {"code": code, "severity": "", "source_file": "params.yaml", "source_line": 0, "image_id": -1, "ann_id": -1}
    return table([{**row, "message": message} for message in messages], FINDINGS_SCHEMA)


def _near(name: str, class_names: tuple[str, ...]) -> str:
    """Return a hint at the class that was probably meant, or nothing."""
    by_lower = {known.lower(): known for known in class_names}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return f" (did you mean {by_lower[near[0]]!r}?)" if near else ""
