"""Write labelled images in another format.

OUT is written whole or not at all, and SOURCE is only read. What the labels hold and the other format cannot is
counted; so is what could not be read.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from plumbline.commands import add_from, class_names_argument, read_any, refuse_inside, tell
from plumbline.errors import DatasetError, first_and_count
from plumbline.faults import FAULTS
from plumbline.files import replacing
from plumbline.formats import FORMATS, open_format
from plumbline.manifest import Dataset


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `plumbline.commands.Command`."""
    parser.add_argument("source", metavar="SOURCE", help="where the images and labels are")
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder to write; it must not exist, or be empty")
    parser.add_argument("--to", required=True, metavar="FORMAT", choices=tuple(FORMATS), help="what to write")
    add_from(parser)
    parser.add_argument(
        "--classes",
        metavar="A,B,C",
        type=class_names_argument,
        help="the classes in their order; if not given, the data set's own list, or else the names that occur, sorted",
    )
    parser.add_argument(
        "--strict", action="store_true", help="write nothing, and exit with 1, where anything is lost on the way"
    )


def run(arguments: argparse.Namespace) -> int:
    """See `plumbline.commands.Command`."""
    source, out = arguments.source, arguments.out
    check_out(source, out)
    out.parent.mkdir(parents=True, exist_ok=True)
    # Beside OUT, where there is room for the images.
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.read.", dir=out.parent) as work:
        dataset = read_any(source, arguments.format, arguments.classes, Path(work))
        unread = unread_lines(dataset)
        if unread:
            tell(f"{source}: {len(unread)} could not be read:\n{first_and_count(unread)}")
        if unread and arguments.strict:
            raise DatasetError(f"{source}: {len(unread)} could not be read; correct it, or leave --strict away")
        losses = convert(dataset, out, arguments.to, strict=arguments.strict)
    for loss in losses:
        tell(loss)
    print(summary(dataset, arguments.to, out, losses, unread))  # noqa: T201 - the command's own output
    return 0


def convert(dataset: Dataset, out: Path, to: str, *, strict: bool = False) -> list[str]:
    """Write a dataset's labels and images in a format.

    Args:
        dataset: What to write.
        out: The folder to write; it appears when it is whole.
        to: A row of `plumbline.formats.FORMATS`.
        strict: Write nothing where the format cannot hold everything.

    Returns:
        One sentence for each kind of thing that the format cannot hold.

    Raises:
        DatasetError: There is no such format, an image is not there, or `strict` forbids what would be lost.
    """
    module = open_format(to)
    with replacing(out) as folder:
        folder.mkdir()
        losses = module.write(dataset, folder)
        if losses and strict:
            raise DatasetError(f"{'; '.join(losses)}; choose another format, or leave --strict away")
    return losses


def check_out(source: str, out: Path) -> None:
    """Refuse to write over anything, or into what is read.

    Raises:
        DatasetError: OUT is a file or holds something, or it lies in SOURCE.
    """
    if out.exists() and not out.is_dir():
        raise DatasetError(f"{out}: a file, expected a folder that does not exist yet; name another one")
    if out.is_dir() and any(out.iterdir()):
        raise DatasetError(f"{out}: not empty, expected a folder that does not exist yet; name another, or empty it")
    refuse_inside(source, out, "name a folder outside of it")


def unread_lines(dataset: Dataset) -> list[str]:
    """Return a line for each finding of the reader about something that did not become an image or a label."""
    found = dataset.findings
    costly = found[found["code"].isin([code for code, fault in FAULTS.items() if fault.leaves_out])]
    rows = costly[["source_file", "source_line", "code", "message"]].itertuples(index=False, name=None)
    return [
        f"{file}:{line}: {code} {message}" if line else f"{file}: {code} {message}"
        for file, line, code, message in rows
    ]


def summary(dataset: Dataset, to: str, out: Path, losses: list[str], unread: list[str]) -> str:
    """Return the one line that says what was written."""
    parts = [f"{len(dataset.images)} images, {len(dataset.annotations)} labels"]
    parts.append(f"{len(losses)} kinds of things lost" if losses else "nothing lost in writing")
    parts.append(f"{len(unread)} findings in reading" if unread else "all of it read")
    return f"{out}: {to}: {'; '.join(parts)}"
