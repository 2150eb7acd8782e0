"""Check every image and label; stop, repair, leave out and record, or keep and tell, as params.yaml says."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from plumbline.checks import FIXED, Judgement, judge, with_findings
from plumbline.checks.report import count, error_line, findings_text, listed, nothing_left
from plumbline.checks.settings import ValidateParams, load_settings
from plumbline.checks.sheet import write_sheet
from plumbline.checks.view import CheckSettings
from plumbline.errors import DatasetError
from plumbline.expectations import check_expectations
from plumbline.faults import FAULTS
from plumbline.files import replacing, write_json, write_text
from plumbline.manifest import read_dataset, write_dataset
from plumbline.params import NearDuplicateParams, StageParams
from stages.shape import exit_code, path_arguments

SECTIONS: dict[str, type[StageParams]] = {"validate": ValidateParams, "near_duplicates": NearDuplicateParams}


def run(
    settings: CheckSettings, *, dataset: Path, out: Path, findings: Path, sheet: Path, data_docs: Path, metrics: Path
) -> dict[str, int]:
    """Write the judged tables and edits.csv to `out`, every finding to `findings`, the counts to `metrics`.

    Args:
        settings: How strict to be.
        dataset: The folder of tables and images that ingest wrote.
        out: A folder: the three tables after the edits, and edits.csv.
        findings: JSON, the gate's own record (see `plumbline.checks.report.findings_json`).
        sheet: JPEG, the worst findings with their boxes.
        data_docs: A folder of HTML for people, different in every run.
        metrics: JSON.

    Raises:
        DatasetError: A finding of severity error, or nothing is left. `findings`, `sheet` and `data_docs` are then
            written, the others not.
    """
    read = read_dataset(dataset)
    _tell(f"{_number(len(read.images), 'image')} and {_number(len(read.annotations), 'label')} to check")
    judged = judge(read, settings)
    left = judged.dataset
    if len(left.images) and len(left.annotations):
        judged = with_findings(judged, check_expectations(left, data_docs), settings.severity)
    write_text(findings, findings_text(judged))
    write_sheet(sheet, judged, read)
    _refuse_errors(judged, findings)
    _refuse_nothing(judged, dataset)
    with replacing(out) as folder:
        folder.mkdir()
        write_dataset(judged.dataset, folder)
        judged.edits.to_csv(folder / "edits.csv", index=False, lineterminator="\n")
    counts = count(judged)
    write_json(metrics, counts)
    _tell_outcome(judged, counts, out, findings)
    return counts


def _refuse_errors(judged: Judgement, findings: Path) -> None:
    errors = judged.errors
    if errors.empty:
        return
    files = errors["source_file"].nunique()
    stop = "stops" if len(errors) == 1 else "stop"
    total = f"{_number(len(errors), 'error')} in {_number(files, 'file')} {stop} the run:"
    raise DatasetError(f"{total}\n{listed(errors, error_line, str(findings))}")


def _refuse_nothing(judged: Judgement, dataset: Path) -> None:
    if lack := nothing_left(judged):
        raise DatasetError(f"{dataset}: {lack}; check dataset.source and validate.severity in params.yaml")


def _tell_outcome(judged: Judgement, counts: dict[str, int], out: Path, findings: Path) -> None:
    _tell(f"{_number(counts['num_images'], 'image')} and {_number(counts['num_boxes'], 'label')} pass")
    for (code, severity), found in judged.findings.groupby(["code", "severity"], sort=False).size().items():
        fault = FAULTS[code]
        done = "repaired" if severity == FIXED else f"{fault.leaves_out} left out" if fault.leaves_out else "kept"
        _tell(f"{severity}: {found} x {code} {fault.name} ({fault.what}), {done}; see {findings}")
    if len(judged.edits):
        _tell(f"every repair, and every box, image and file left out, is in {out / 'edits.csv'}")


def _tell(text: str) -> None:
    print(f"validate: {text}", flush=True)  # noqa: T201 - the command's own output


def _number(number: int, one: str) -> str:
    return f"{number} {one if number == 1 else one + 's'}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage from the command line."""
    paths = path_arguments(__doc__, ("dataset", "out", "findings", "sheet", "metrics"), argv)

    def work() -> None:
        run(
            load_settings(paths.params),
            dataset=paths.dataset,
            out=paths.out,
            findings=paths.findings,
            sheet=paths.sheet,
            # No argument of its own: DVC must neither watch nor store what is new in every run.
            data_docs=paths.findings.parent / "data_docs",
            metrics=paths.metrics,
        )

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
