"""The command ``plumbline``: an explicit table of subcommands, and one module per row with the same names.

To add one: write a module with the names of `Command`, and add its row to `COMMANDS`.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from plumbline.errors import DatasetError, PlumblineError

if TYPE_CHECKING:
    from plumbline.manifest import Dataset

COMMANDS = {
    "check": "plumbline.commands.check",
    "convert": "plumbline.commands.convert",
    "diff": "plumbline.commands.diff",
    "fetch": "plumbline.commands.fetch",
    "label-errors": "plumbline.commands.label_errors",
    "lineage": "plumbline.commands.lineage",
}

# What a user can mend by another --out; any other OSError is a fault of ours.
_CANNOT_WRITE = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR),
    *(errno.ENAMETOOLONG, errno.ENOSPC, errno.EDQUOT),
}

DESCRIPTION = "Tools for labelled images, beside the pipeline that `dvc repro` runs."


class Command(Protocol):
    """What a subcommand's module offers; the first line of its docstring is its help.

    `plumbline --help` imports all of them: what takes long to import (torch, an inference engine) is imported in `run`.
    """

    __doc__: str | None

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare its arguments."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it and return the exit code.

        Raises:
            PlumblineError: Something that the user can mend; `main` makes one line of it.
        """


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand: its exit code, or 1 with one line on stderr for a fault that the user can mend."""
    argv = sys.argv[1:] if argv is None else argv
    # Of a device, only what its one command needs is asked: `fetch` runs where there is no pandas.
    asked = argv[:1] if argv and argv[0] in COMMANDS else COMMANDS
    commands = {name: cast("Command", importlib.import_module(COMMANDS[name])) for name in asked}
    firsts = {name: (command.__doc__ or "").partition("\n")[0] for name, command in commands.items()}
    width = max(map(len, firsts)) + 2
    parser = argparse.ArgumentParser(
        prog="plumbline",
        description=DESCRIPTION,
        # Not argparse's own list: it gives a long name a line of its own.
        epilog="commands:\n" + "\n".join(f"  {name:{width}}{first}" for name, first in firsts.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(metavar="COMMAND", dest="command", required=True, help="one of those below")
    for name, command in commands.items():
        subparser = subparsers.add_parser(
            name,
            description=(command.__doc__ or "").rstrip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(subparser)
    arguments = parser.parse_args(argv)
    try:
        code = commands[arguments.command].run(arguments)
        sys.stdout.flush()
    except PlumblineError as error:
        tell(f"error: {error}")
        return 1
    except BrokenPipeError:
        # Who read stdout has enough of it, as `head` has; Python must not flush it once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.errno not in _CANNOT_WRITE:
            raise
        tell(f"error: {error.filename or 'the disk'}: {error.strerror}, expected a place to write to; name another one")
        return 1
    return code


def tell(line: str) -> None:
    """Write a line of progress, or of trouble, to stderr: stdout is for what a command finds."""
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - the command's own output


def read_any(
    address: str, format_name: str, class_names: tuple[str, ...] | None, work: Path, *, copy: bool = True
) -> Dataset:
    """Read a dataset folder that a stage wrote, or a source of labelled images.

    Args:
        address: A folder with images.parquet, or what `plumbline.sources.open_source` takes.
        format_name: A row of `plumbline.formats.FORMATS`, or ``auto``; of no meaning for a dataset folder.
        class_names: Index is class_id; None for the names that the labels themselves have.
        work: An empty folder, for what a source is read into.
        copy: Whether a source's images are put there too.

    Raises:
        DatasetError: There is no such thing, it cannot be read, or class_names are given for a dataset folder, whose
            classes have numbers already.
    """
    from plumbline.intake import read_source
    from plumbline.manifest import read_dataset

    if (Path(address) / "images.parquet").is_file():
        dataset = read_dataset(Path(address))
        if class_names is not None:
            own = ", ".join(dataset.class_names)
            raise DatasetError(f"{address}: a dataset folder, expected its own classes ({own}); leave --classes away")
        return dataset
    return read_source(address, format_name, class_names, work, tell, copy=copy)


def refuse_inside(source: str, out: Path, remedy: str) -> None:
    """Refuse to write into what is only read.

    Raises:
        DatasetError: `source` is a folder, and `out` lies in it.
    """
    if Path(source).is_dir() and out.resolve().is_relative_to(Path(source).resolve()):
        raise DatasetError(f"{out}: lies in the source {source}, which is only read; {remedy}")


def add_from(parser: argparse.ArgumentParser) -> None:
    """Declare ``--from`` and say what a source is, for a command that calls `read_any`."""
    from plumbline.formats import FORMATS

    parser.add_argument(
        "--from",
        dest="format",
        default="auto",
        metavar="FORMAT",
        choices=("auto", *FORMATS),
        help="the labels' format, where it is not recognised",
    )
    parser.epilog = (
        "A source is a folder, a .zip or .tar archive, s3://bucket/prefix, a video or a folder of videos, or a\n"
        f"dataset folder that a stage wrote (with images.parquet). FORMAT is one of:\n{', '.join(FORMATS)}."
    )


def class_names_argument(text: str) -> tuple[str, ...]:
    """Split a list of names.

    >>> class_names_argument("cat, dog")
    ('cat', 'dog')
    """
    names = tuple(name.strip() for name in text.split(","))
    if "" in names or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"expected names parted by commas, each once, got {text!r}")
    return names
