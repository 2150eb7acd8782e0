"""Why a run has left no report: one file with one line, which then stands in the report's place."""

from __future__ import annotations

import os
import re
from pathlib import Path

from pipelines.forge_lines import one_line
from plumbline.files import replacing, write_text
from plumbline.review.review import REVIEW
from plumbline.review.wording import cut

REASON = "error.txt"
MOST_CHARACTERS = 500
_ACCOUNT = re.compile(r"(?<=://)[^/\s@]+@")  # of an URL of a remote: user:password@


def write_reason(out: Path, reason: str) -> None:
    """Put a folder with the reason alone in place of an old report, which is then not taken for the new one.

    In a folder that is no report, whatever it is, nothing is removed.
    """
    text = _shown(_ACCOUNT.sub("***@", reason)) + "\n"
    if out.is_dir() and not (out / REVIEW).exists():
        write_text(out / REASON, text)
        return
    with replacing(out) as folder:
        folder.mkdir()
        write_text(folder / REASON, text)


def read_reason(folder: Path) -> str | None:
    """Read it, whoever wrote it: one line of `MOST_CHARACTERS` at most; None where there is none, or a report."""
    path = folder / REASON
    # A link may lead to what the poster alone can read.
    if os.path.lexists(folder / REVIEW) or path.is_symlink() or not path.is_file():
        return None
    with path.open("rb") as file:
        return _shown(file.read(4 * MOST_CHARACTERS).decode("utf-8", "replace"))


def _shown(text: str) -> str:
    return cut(one_line(text), MOST_CHARACTERS)
