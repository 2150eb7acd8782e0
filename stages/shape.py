"""What every stage's `main` shares: its arguments, its section of params.yaml, its one line of error."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from plumbline.errors import PlumblineError

PARAMS_FILE = Path("params.yaml")


def path_arguments(
    doc: str | None, names: Sequence[str], argv: Sequence[str] | None, words: Sequence[str] = ()
) -> argparse.Namespace:
    """Parse ``--name PATH`` for each of the names, all of them required.

    Args:
        doc: The stage module's docstring; its first line describes the command.
        names: With dashes, as they are typed: ``("dataset", "out")``.
        argv: None for the process' own arguments.
        words: Further required arguments whose values stay text.
    """
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    for name in names:
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="PATH")
    for word in words:
        parser.add_argument(f"--{word}", required=True, metavar="NAME")
    parser.add_argument("--params", type=Path, default=PARAMS_FILE, metavar="PATH", help="default: %(default)s")
    return parser.parse_args(argv)


def exit_code(work: Callable[[], object]) -> int:
    """Run a stage's work: 0, or 1 with one line on stderr for a fault that the user can mend.

    Any other exception is a fault of ours and keeps its traceback.
    """
    try:
        work()
    except PlumblineError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)  # noqa: T201 - the command's own output
        return 1
    return 0
