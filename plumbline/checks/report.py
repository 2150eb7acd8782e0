"""Findings in words and as JSON, for the terminal, the gate's file, and whoever reads them next."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pandas as pd

from plumbline.checks import CHECKS, ERROR, FIXED, SHOWN, WARNING, Judgement
from plumbline.checks.repairs import (
    CLIP_BOX,
    DROP_DUPLICATE,
    LEAVE_OUT_BOX,
    LEAVE_OUT_FILE,
    LEAVE_OUT_IMAGE,
    REPAIRS,
    SWAP_CORNERS,
)
from plumbline.checks.view import XYXY
from plumbline.errors import first_and_count
from plumbline.faults import FAULTS

_SHOWN = 10


def finding_line(row: Any) -> str:
    """Render one findings row as ``<file>:<line>: <code> <message>``, without the line when the whole file is meant.

    >>> from types import SimpleNamespace
    >>> finding_line(SimpleNamespace(source_file="a.xml", source_line=7, code="E301", message="box has no area"))
    'a.xml:7: E301 box has no area'
    """
    where = f"{row.source_file}:{row.source_line}" if row.source_line > 0 else str(row.source_file)
    return f"{where}: {row.code} {row.message}"


def error_line(row: Any) -> str:
    """Render one findings row with what to do about it.

    The reader's own advice, after the last semicolon, is the better one for a label that cannot be read: it knows
    what it read. For what can be kept, it says how that is done, which is not what happens here.
    """
    fault, line, remedy = FAULTS[row.code], finding_line(row), ""
    if row.code not in CHECKS and "; " in line:
        line, _, remedy = line.rpartition("; ")
    remedy = remedy if remedy and not fault.keepable else fault.remedy
    return f"{line}; {remedy}, or {way_round(row.code)}"


def way_round(code: str) -> str:
    """Say which value of params.yaml lets the line go on with a fault.

    >>> way_round("E301")
    'set validate.severity.E301: warning in params.yaml, which leaves out the box'
    """
    leaves_out = FAULTS[code].leaves_out
    kept = f"which leaves out the {leaves_out}" if leaves_out else "which keeps it"
    severity = f"set validate.severity.{code}: warning in params.yaml, {kept}"
    return f"add {code} to validate.fix, or {severity}" if code in REPAIRS else severity


def listed(findings: pd.DataFrame, render: Callable[[Any], str], where: str) -> str:
    """Return the first lines of some findings, and how many more there are.

    One broken file of a thousand images' labels is a finding of each of them, and reads the same: it is one line.

    Args:
        findings: Columns of `FINDINGS_SCHEMA`, as `judge` sorts them; there may be a million.
        render: `finding_line` or `error_line`.
        where: The file that holds all of them.
    """
    shown = findings.drop_duplicates(["source_file", "source_line", "code", "message"]).head(_SHOWN)
    lines = [render(row) for row in shown.itertuples()]
    return first_and_count(lines + [""] * (len(findings) - len(lines)), shown=len(lines), where=where)


def nothing_left(judgement: Judgement) -> str:
    """Say what a data set lacks that has no image or no label after the edits, or return ""."""
    for kind, rows in (("image", judgement.dataset.images), ("box", judgement.dataset.annotations)):
        if rows.empty:
            gone = int((judgement.edits["action"] == f"leave_out_{kind}").sum())
            return f"no {kind} is left, expected at least one, got 0 after {gone} left out"
    return ""


def findings_json(judgement: Judgement) -> dict[str, Any]:
    """Return the findings as plain values, the gate's own record.

    Returns:
        ``counts``: severity -> number, and under ``by_code`` the same for every code that was found.
        ``findings``: for each of them its code, name, severity, file, line (0 for the whole file), image (its path in
        the data set, or null), box ([x1, y1, x2, y2] in pixels as it was read, or null), and message.
    """
    findings, before = judgement.findings, judgement.before
    paths = before.images.set_index("image_id")["path"].reindex(findings["image_id"])
    xyxy = before.annotations.set_index("ann_id")[XYXY].reindex(findings["ann_id"]).to_numpy(float)
    rows = [
        {
            "code": row.code,
            "name": FAULTS[row.code].name,
            "severity": row.severity,
            "file": row.source_file,
            "line": row.source_line,
            "image": path if isinstance(path, str) else None,
            "box": box if all(math.isfinite(value) for value in box) else None,
            "message": row.message,
        }
        for row, path, box in zip(findings.itertuples(), paths, xyxy.tolist(), strict=True)
    ]
    pairs = findings.groupby(["code", "severity"]).size()
    by_code = {
        code: {"name": FAULTS[code].name, **{severity: int(pairs.get((code, severity), 0)) for severity in SHOWN}}
        for code in sorted(findings["code"].unique())
    }
    return {"counts": {**by_severity(judgement), "by_code": by_code}, "findings": rows}


def by_severity(judgement: Judgement) -> dict[str, int]:
    """Return severity -> number of findings, for each of `SHOWN`."""
    counts = judgement.findings["severity"].value_counts()
    return {severity: int(counts.get(severity, 0)) for severity in SHOWN}


def findings_text(judgement: Judgement) -> str:
    """Return `findings_json` as text with one finding per line, so that it can be searched and compared by lines."""
    record = findings_json(judgement)
    rows = [json.dumps(row, ensure_ascii=False, allow_nan=False) for row in record["findings"]]
    listed = "[\n    " + ",\n    ".join(rows) + "\n  ]" if rows else "[]"
    counts = json.dumps(record["counts"], indent=2, allow_nan=False).replace("\n", "\n  ")
    return f'{{\n  "counts": {counts},\n  "findings": {listed}\n}}\n'


def count(judgement: Judgement) -> dict[str, int]:
    """Return flat numbers: what is left, what was found, repaired and left out; 0 for what was not."""
    codes = judgement.findings["code"].value_counts()
    severities = by_severity(judgement)
    actions = judgement.edits["action"].value_counts()
    return {
        "num_images": len(judgement.dataset.images),
        "num_boxes": len(judgement.dataset.annotations),
        "num_errors": severities[ERROR],
        "num_warnings": severities[WARNING],
        "num_fixed": severities[FIXED],
        "num_swapped_boxes": int(actions.get(SWAP_CORNERS, 0)),
        "num_clipped_boxes": int(actions.get(CLIP_BOX, 0)),
        "num_dropped_duplicates": int(actions.get(DROP_DUPLICATE, 0)),
        "num_left_out_boxes": int(actions.get(LEAVE_OUT_BOX, 0)),
        "num_left_out_images": int(actions.get(LEAVE_OUT_IMAGE, 0)),
        "num_left_out_files": int(actions.get(LEAVE_OUT_FILE, 0)),
        **{f"num_{fault.name}": int(codes.get(code, 0)) for code, fault in FAULTS.items()},
    }
