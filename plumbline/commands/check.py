"""Find what is wrong with labelled images, wherever they are: no pipeline, nothing written but the report.

SOURCE is only read. Thresholds, severities and repairs are those of params.yaml (sections validate and
near_duplicates); where the source deals its images to train, val and test itself, that is checked for leaks.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path

from plumbline.commands import add_from, class_names_argument, read_any
from plumbline.errors import first_and_count
from plumbline.manifest import Dataset


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `plumbline.commands.Command`."""
    parser.add_argument("source", metavar="SOURCE", help="where the images and labels are")
    add_from(parser)
    parser.add_argument(
        "--classes",
        metavar="A,B,C",
        type=class_names_argument,
        help="the classes that there should be; if not given, the data set's own list, or else the names that occur",
    )
    default = "default: %(default)s"
    parser.add_argument("--out", type=Path, default=Path("reports/check"), metavar="FOLDER", help=default)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="FILE", help=default)


def run(arguments: argparse.Namespace) -> int:
    """See `plumbline.commands.Command`; 1 where something is found that stops the line."""
    from plumbline.checks import judge
    from plumbline.checks.report import findings_text
    from plumbline.checks.settings import load_settings
    from plumbline.checks.sheet import write_sheet
    from plumbline.files import write_json, write_text
    from plumbline.split_leaks import find_leaks

    settings = load_settings(arguments.params)
    out: Path = arguments.out
    out.parent.mkdir(parents=True, exist_ok=True)
    # Beside OUT, where there is room for the images.
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.read.", dir=out.parent) as work:
        dataset = read_any(arguments.source, arguments.format, arguments.classes, Path(work))
        judged = judge(dataset, settings)
        splits = dataset.images["split"].to_numpy(object)
        leaks = find_leaks(dataset.images, splits, settings.max_hash_bits)
        write_text(out / "findings.json", findings_text(judged))
        write_json(out / "split_leaks.json", [dataclasses.asdict(leak) for leak in leaks])
        write_sheet(out / "findings.jpg", judged, dataset)
    _print(_summary(arguments.source, dataset))
    _print_findings(judged, out)
    if leaks:
        _print(f"\nThe source's own split leaks, {len(leaks)} times:")
        _print(first_and_count([f"  {leak}" for leak in leaks], where=str(out / "split_leaks.json")))
    _print(f"\nEvery finding: {out / 'findings.json'}; the worst as a picture: {out / 'findings.jpg'}")
    return int(bool(len(judged.errors) or leaks))


def _summary(source: str, dataset: Dataset) -> str:
    counts = dataset.annotations["class_id"].value_counts()
    names = ", ".join(f"{name} {counts.get(class_id, 0)}" for class_id, name in enumerate(dataset.class_names))
    dealt = dataset.images["split"].value_counts()
    splits = ", ".join(f"{name} {dealt[name]}" for name in ("train", "val", "test") if name in dealt)
    own = f"; its own split: {splits}" if splits else ""
    return f"{source}: {len(dataset.images)} images, {len(dataset.annotations)} labels ({names}){own}"


def _print_findings(judged: object, out: Path) -> None:
    from plumbline.checks import Judgement
    from plumbline.checks.report import error_line, finding_line
    from plumbline.faults import FAULTS

    assert isinstance(judged, Judgement)
    findings = judged.findings
    if findings.empty:
        _print("Nothing found.")
        return
    _print(f"\n{'code':6}{'severity':10}{'number':>6}  what")
    for (code, severity), number in findings.groupby(["code", "severity"]).size().items():
        _print(f"{code:6}{severity:10}{number:>6}  {FAULTS[code].name}: {FAULTS[code].what}")
    for severity, render in (("error", error_line), ("warning", finding_line)):
        rows = findings[findings["severity"] == severity]
        if len(rows):
            _print(f"\n{len(rows)} of severity {severity}:")
            lines = [f"  {render(row)}" for row in rows.head(10).itertuples()] + [""] * (len(rows) - 10)
            _print(first_and_count(lines, where=str(out / "findings.json")))


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - the command's own output
