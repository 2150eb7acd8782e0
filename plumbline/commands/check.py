"""Find what is wrong with labelled images, wherever they are: no pipeline, nothing written but the report.

SOURCE is only read. Thresholds, severities and repairs are those of params.yaml (sections validate and
near_duplicates); where the source deals its images to train, val and test itself, that is checked for leaks. The exit
code is 1 where something would stop the line, or that split leaks.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from plumbline.commands import add_from, class_names_argument, read_any, refuse_inside, tell
from plumbline.errors import DatasetError, ParamsError, first_and_count
from plumbline.manifest import Dataset

if TYPE_CHECKING:
    from plumbline.checks import Judgement
    from plumbline.checks.view import CheckSettings
    from plumbline.split_leaks import Leak


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
    """See `plumbline.commands.Command`; 1 where something would stop the line, or the source's own split leaks."""
    from plumbline.checks import judge
    from plumbline.checks.report import findings_text, nothing_left
    from plumbline.checks.sheet import write_sheet
    from plumbline.files import write_json, write_text
    from plumbline.split_leaks import find_leaks

    source, out = arguments.source, arguments.out
    settings = _settings(arguments.params)
    _check_out(source, out)
    # Beside OUT, where there is room for the images.
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.read.", dir=_nearest_folder(out)) as work:
        dataset = read_any(source, arguments.format, arguments.classes, Path(work))
        judged = judge(dataset, _with_own_undo(settings, dataset))
        splits = dataset.images["split"].to_numpy(object)
        leaks = find_leaks(dataset.images, splits, settings.max_hash_bits)
        write_text(out / "findings.json", findings_text(judged))
        write_json(out / "split_leaks.json", [dataclasses.asdict(leak) for leak in leaks])
        write_sheet(out / "findings.jpg", judged, dataset)
    lack = nothing_left(judged)
    _print(_summary(source, dataset))
    _print_findings(judged, out)
    if lack:
        _print(f"\n{source}: {lack}")
    if splits.any():
        _print_leaks(leaks, out)
    _print(f"\nEvery finding: {out / 'findings.json'}; the worst as a picture: {out / 'findings.jpg'}")
    return int(bool(len(judged.errors) or leaks or lack))


def _settings(params: Path) -> CheckSettings:
    from plumbline.checks.settings import load_settings

    if not params.is_file():
        raise ParamsError(f"{params}: no such file, expected the project's params.yaml; run in its folder, or --params")
    return load_settings(params)


def _check_out(source: str, out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise DatasetError(f"{out}: a file, expected a folder, or nothing yet; name another one with --out")
    refuse_inside(source, out, "name a folder outside with --out")


def _nearest_folder(out: Path) -> Path:
    """Return the folder that OUT is or will be in, as far as it is there: what is refused leaves no folder behind."""
    return next((folder for folder in out.parents if folder.is_dir()), Path())


def _with_own_undo(settings: CheckSettings, dataset: Dataset) -> CheckSettings:
    """Return the settings without the repairs of other data that params.yaml takes back."""
    from plumbline.checks.repairs import unknown_undo

    foreign = unknown_undo(dataset, settings)
    if foreign:
        tell(f"validate.undo: {len(foreign)} of {len(settings.undo)} belong to no repair here")
    return dataclasses.replace(settings, undo=tuple(edit for edit in settings.undo if edit not in foreign))


def _summary(source: str, dataset: Dataset) -> str:
    counts = dataset.annotations["class_id"].value_counts()
    names = ", ".join(f"{name} {counts.get(class_id, 0)}" for class_id, name in enumerate(dataset.class_names))
    dealt = dataset.images["split"].value_counts()
    splits = ", ".join(f"{name} {dealt[name]}" for name in ("train", "val", "test") if name in dealt)
    classes = f" ({names})" if names else ""
    own = f"; its own split: {splits}" if splits else ""
    return f"{source}: {len(dataset.images)} images, {len(dataset.annotations)} labels{classes}{own}"


def _print_findings(judged: Judgement, out: Path) -> None:
    from plumbline.checks import ERROR, WARNING
    from plumbline.checks.report import error_line, finding_line, listed
    from plumbline.faults import FAULTS

    findings = judged.findings
    if findings.empty:
        _print("Nothing found.")
        return
    _print(f"\n{'code':6}{'severity':10}{'number':>6}  what")
    for (code, severity), number in findings.groupby(["code", "severity"]).size().items():
        _print(f"{code:6}{severity:10}{number:>6}  {FAULTS[code].name}: {FAULTS[code].what}")
    for severity, render in ((ERROR, error_line), (WARNING, finding_line)):
        rows = findings[findings["severity"] == severity]
        if len(rows):
            _print(f"\n{len(rows)} of severity {severity}:")
            _print(textwrap.indent(listed(rows, render, str(out / "findings.json")), "  "))


def _print_leaks(leaks: Sequence[Leak], out: Path) -> None:
    if not leaks:
        _print("\nIts own split does not leak.")
        return
    _print(f"\nIts own split leaks ({len(leaks)} {'pair' if len(leaks) == 1 else 'pairs'} of images):")
    listed = first_and_count([str(leak) for leak in leaks], where=str(out / "split_leaks.json"))
    _print(textwrap.indent(listed, "  "))


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - the command's own output
