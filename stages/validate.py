"""Check every image and label; stop, leave out and record, or keep and tell, as params.yaml says."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import Field

from plumbline.checks import CHECKS, Judgement, error_line, judge
from plumbline.errors import DatasetError, first_and_count
from plumbline.files import replacing, write_json, write_text
from plumbline.manifest import read_dataset, write_dataset
from plumbline.params import StageParams, load_section
from stages.shape import exit_code, path_arguments

Stop = Literal["error", "warning"]
StopOrDrop = Literal["error", "drop"]
Any3 = Literal["error", "drop", "warning"]


class SeverityParams(StageParams):
    """What each finding means: ``error`` stops, ``drop`` leaves out and records, ``warning`` keeps and tells.

    Where the line could not go on with what is found, there is no ``warning`` (see `plumbline.checks.CHECKS`).
    """

    unreadable_image: StopOrDrop = Field(description="Cannot be decoded, or damaged; drop: the image and its boxes.")
    missing_image: StopOrDrop = Field(description="A label names no image that is there; drop: the label.")
    missing_label: Any3 = Field(description="Image without label file; warning: a negative; drop: the image.")
    malformed_label: StopOrDrop = Field(description="Cannot be read; drop: the whole image.")
    unknown_class: StopOrDrop = Field(description="Not in dataset.class_names; drop: the box.")
    zero_area_box: StopOrDrop = Field(description="No width or no height, or reversed corners; drop: the box.")
    box_outside_image: StopOrDrop = Field(description="By more than box_tolerance_px, or wholly; drop: the box.")
    duplicate_box: StopOrDrop = Field(description="Same class, corners and image; drop: the second and later ones.")
    size_mismatch: Any3 = Field(description="The label tells another size; drop: the image and its boxes.")
    duplicate_image: Any3 = Field(description="The same bytes; drop: the second and later ones, with their boxes.")
    empty_class: Stop = Field(description="A class without a single box, after all drops.")


class ValidateParams(StageParams):
    """How strict the gate is."""

    severity: SeverityParams = Field(description="One for each finding.")
    box_tolerance_px: float = Field(
        ge=0, allow_inf_nan=False, description="A corner so far outside is moved onto the border, and recorded; pixels."
    )


SECTIONS: dict[str, type[StageParams]] = {"validate": ValidateParams}


def run(params: ValidateParams, *, dataset: Path, out: Path, findings: Path, metrics: Path) -> dict[str, int]:
    """Write the judged tables and edits.csv to `out`, all findings to `findings`, the counts to `metrics`.

    Raises:
        DatasetError: A finding of severity error, or nothing is left. `findings` is then written, the others not.
    """
    judged = judge(read_dataset(dataset), params.severity.model_dump(), params.box_tolerance_px)
    write_text(findings, _csv(judged.findings))
    _refuse_errors(judged, findings)
    _refuse_nothing(judged, dataset)
    with replacing(out) as folder:
        folder.mkdir()
        write_dataset(judged.dataset, folder)
        write_text(folder / "edits.csv", _csv(judged.edits))
    counts = count(judged)
    write_json(metrics, counts)
    _tell(judged, counts, out, findings)
    return counts


def count(judged: Judgement) -> dict[str, int]:
    """Return what was found, left out and moved, with a zero for every code that was not found."""
    codes = judged.findings["code"].value_counts()
    severities = judged.findings["severity"].value_counts()
    actions = judged.edits["action"].value_counts()
    return {
        "num_images": len(judged.dataset.images),
        "num_boxes": len(judged.dataset.annotations),
        "num_errors": int(severities.get("error", 0)),
        "num_warnings": int(severities.get("warning", 0)),
        "num_dropped_images": int(actions.get("drop_image", 0)),
        "num_dropped_boxes": int(actions.get("drop_box", 0)),
        "num_dropped_labels": int(actions.get("drop_label", 0)),
        "num_clipped_boxes": int(actions.get("clip_box", 0)),
        **{f"num_{code}": int(codes.get(code, 0)) for code in CHECKS},
    }


def _csv(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False, lineterminator="\n")


def _refuse_errors(judged: Judgement, findings: Path) -> None:
    errors = judged.errors
    if errors.empty:
        return
    files = errors["source_file"].nunique()
    stop = "stops" if len(errors) == 1 else "stop"
    total = f"{_number(len(errors), 'error')} in {_number(files, 'file')} {stop} the run:"
    lines = [error_line(row) for row in errors.itertuples()]
    raise DatasetError(total + "\n" + first_and_count(lines, where=str(findings)))


def _refuse_nothing(judged: Judgement, dataset: Path) -> None:
    for kind, rows in (("image", judged.dataset.images), ("box", judged.dataset.annotations)):
        if rows.empty:
            dropped = int((judged.edits["action"] == f"drop_{kind}").sum())
            raise DatasetError(
                f"{dataset}: no {kind} is left, expected at least one, got 0 after {dropped} dropped;"
                " check dataset.source and validate.severity in params.yaml"
            )


def _tell(judged: Judgement, counts: dict[str, int], out: Path, findings: Path) -> None:
    lines = [f"{_number(counts['num_images'], 'image')} and {_number(counts['num_boxes'], 'box', 'boxes')} pass"]
    for (code, severity), number in judged.findings.groupby(["code", "severity"]).size().items():
        done = "left out" if severity == "drop" else "kept"
        lines.append(f"{severity}: {number} x {code} ({CHECKS[code].what}), {done}; see {findings}")
    if counts["num_clipped_boxes"]:
        lines.append(f"clip: {_number(counts['num_clipped_boxes'], 'box', 'boxes')} within box_tolerance_px")
    if len(judged.edits):
        lines.append(f"every box, image and label left out or moved is in {out / 'edits.csv'}")
    print("\n".join(f"validate: {line}" for line in lines), flush=True)  # noqa: T201 - the command's own output


def _number(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    paths = path_arguments(__doc__, ("dataset", "out", "findings", "metrics"), argv)

    def work() -> None:
        params = load_section(paths.params, "validate", ValidateParams)
        run(params, dataset=paths.dataset, out=paths.out, findings=paths.findings, metrics=paths.metrics)

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
