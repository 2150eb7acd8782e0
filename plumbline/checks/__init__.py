"""What can be wrong with a dataset's tables: one explicit table of finders, and the judgement over all findings.

`judge` is the one entry: it repairs what it is told to, finds what remains, leaves out what cannot be kept, and says
what each finding means. Whatever it changes is a row of the edits table, never less.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import pandas as pd

from plumbline import faults
from plumbline.checks.boxes import (
    find_box_out_of_bounds,
    find_duplicate_box,
    find_extreme_aspect_box,
    find_giant_box,
    find_reversed_box,
    find_tiny_box,
    find_zero_area_box,
)
from plumbline.checks.classes import (
    find_class_imbalance,
    find_class_out_of_range,
    find_empty_class,
    find_small_class,
    find_unknown_class,
)
from plumbline.checks.images import (
    find_damaged_image,
    find_duplicate_image,
    find_duplicate_image_other_labels,
    find_near_duplicate_image,
    find_tiny_image,
    find_unreadable_image,
)
from plumbline.checks.names import find_name_collision
from plumbline.checks.pairs import find_near_duplicate_box, find_two_classes
from plumbline.checks.repairs import apply_edits, leave_out, merge_edits, repair
from plumbline.checks.view import CheckSettings, View
from plumbline.errors import DatasetError
from plumbline.manifest import FINDINGS_SCHEMA, Dataset, table

Finder = Callable[[View, CheckSettings], pd.DataFrame]

# The faults without a row here are seen where files are read (see plumbline.formats and plumbline.sources) or where
# Great Expectations looks at the tables (see plumbline.expectations).
CHECKS: dict[str, Finder] = {
    faults.UNREADABLE_IMAGE: find_unreadable_image,
    faults.DAMAGED_IMAGE: find_damaged_image,
    faults.TINY_IMAGE: find_tiny_image,
    faults.DUPLICATE_IMAGE: find_duplicate_image,
    faults.DUPLICATE_IMAGE_OTHER_LABELS: find_duplicate_image_other_labels,
    faults.NEAR_DUPLICATE_IMAGE: find_near_duplicate_image,
    faults.NAME_COLLISION: find_name_collision,
    faults.UNKNOWN_CLASS: find_unknown_class,
    faults.CLASS_OUT_OF_RANGE: find_class_out_of_range,
    faults.ZERO_AREA_BOX: find_zero_area_box,
    faults.REVERSED_BOX: find_reversed_box,
    faults.BOX_OUT_OF_BOUNDS: find_box_out_of_bounds,
    faults.TINY_BOX: find_tiny_box,
    faults.GIANT_BOX: find_giant_box,
    faults.EXTREME_ASPECT_BOX: find_extreme_aspect_box,
    faults.DUPLICATE_BOX: find_duplicate_box,
    faults.NEAR_DUPLICATE_BOX: find_near_duplicate_box,
    faults.TWO_CLASSES: find_two_classes,
    faults.EMPTY_CLASS: find_empty_class,
    faults.SMALL_CLASS: find_small_class,
    faults.CLASS_IMBALANCE: find_class_imbalance,
}
# Leaving out boxes can empty a class, so these look at what is left.
OF_WHAT_IS_LEFT = (faults.EMPTY_CLASS, faults.SMALL_CLASS, faults.CLASS_IMBALANCE)

ERROR, WARNING, FIXED, OFF = "error", "warning", "fixed", "off"
SHOWN = (ERROR, WARNING, FIXED)  # in the order in which findings are told
_ORDER = ["source_file", "source_line", "code", "ann_id", "image_id", "message"]


@dataclass(frozen=True)
class Judgement:
    """What the gate decided.

    Attributes:
        findings: Columns of `FINDINGS_SCHEMA`; severity error, warning or fixed, in this order, then by file and line.
        edits: Columns of `plumbline.checks.repairs.EDIT_SCHEMA`: what is repaired and what is left out.
        before: The tables that were judged; findings and edits speak of their ids.
        dataset: What is left, with `findings`; of use only when there is no error. Ids stay as they are: what is left
            out leaves a gap, so that an image_id or ann_id means the same everywhere.
    """

    findings: pd.DataFrame
    edits: pd.DataFrame
    before: Dataset
    dataset: Dataset

    @property
    def errors(self) -> pd.DataFrame:
        """Return the findings that stop the run."""
        return self.findings[self.findings["severity"] == ERROR]


def judge(dataset: Dataset, settings: CheckSettings) -> Judgement:
    """Repair, check, and leave out what cannot be kept; reads and writes no file, and changes no table it is given.

    Args:
        dataset: As ingest wrote it: sorted by id, with the reader's findings.
        settings: How strict to be.

    Raises:
        DatasetError: The reader's findings hold a code that is not in `FAULTS`, or `settings.undo` an unknown id.
    """
    foreign = sorted(set(dataset.findings["code"]) - set(faults.FAULTS))
    if foreign:
        codes = ", ".join(faults.FAULTS)
        raise DatasetError(f"unknown finding, expected one of: {codes}, got {foreign[0]}; run ingest again")
    repaired = repair(dataset, settings)
    # The reader's findings come first: it saw the file.
    found = [_of_reader(dataset.findings)]
    found += [find(repaired.view, settings) for code, find in CHECKS.items() if code not in OF_WHAT_IS_LEFT]
    remaining = _concat(found)
    gone = leave_out(repaired.view.dataset, remaining)
    left = apply_edits(repaired.view.dataset, gone)
    remaining = _concat([remaining, *(CHECKS[code](View(left), settings) for code in OF_WHAT_IS_LEFT)])
    fixed = repaired.findings[repaired.findings["code"].map(dict(settings.severity)) != OFF]
    findings = _sorted(_concat([_with_severity(remaining, settings.severity), fixed.assign(severity=FIXED)]))
    edits = merge_edits([repaired.edits, gone])
    return Judgement(findings, edits, dataset, replace(left, findings=findings))


def with_findings(judgement: Judgement, findings: pd.DataFrame, severity: Mapping[str, str]) -> Judgement:
    """Return the judgement with more findings about what is left, such as failed expectations of its tables."""
    everything = _sorted(_concat([judgement.findings, _with_severity(findings, severity)]))
    return replace(judgement, findings=everything, dataset=replace(judgement.dataset, findings=everything))


def _of_reader(findings: pd.DataFrame) -> pd.DataFrame:
    """Return what the reader found, once and without severity.

    Tables that were judged before hold the checks' findings too, which are found again where they are still so, and
    what was left out, which is no longer there.
    """
    again = {*CHECKS, faults.TABLE_EXPECTATION, *(code for code, fault in faults.FAULTS.items() if fault.leaves_out)}
    settled = (findings["severity"] != "") & findings["code"].isin(again)
    return findings[~settled].assign(severity="").drop_duplicates()


def _with_severity(findings: pd.DataFrame, severity: Mapping[str, str]) -> pd.DataFrame:
    judged = findings.assign(severity=findings["code"].map(dict(severity)))
    return judged[judged["severity"] != OFF]


def _concat(frames: list[pd.DataFrame]) -> pd.DataFrame:
    filled = [frame for frame in frames if len(frame)]
    return pd.concat(filled, ignore_index=True)[FINDINGS_SCHEMA.names] if filled else table([], FINDINGS_SCHEMA)


def _sorted(findings: pd.DataFrame) -> pd.DataFrame:
    if findings.empty:
        return findings
    ranked = findings.assign(rank=findings["severity"].map({severity: rank for rank, severity in enumerate(SHOWN)}))
    return ranked.sort_values(["rank", *_ORDER], kind="stable", ignore_index=True)[FINDINGS_SCHEMA.names]
