"""Say which label files a device's model comes from, with every hash between.

PATH is a file of a published model, or the folder that `plumbline fetch` made. It must be as it was published: a file
whose hash is not in its manifest is an error. With --from the manifest itself is compared with the published one, and
a file alone, without its manifest, is looked for in all that is published there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from plumbline.files import write_text
from plumbline.published_lineage import as_document, as_text, trace
from plumbline.published_store import Store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `plumbline.commands.Command`."""
    parser.add_argument("path", type=Path, metavar="PATH", help="a model's file, or its folder")
    parser.add_argument("--from", dest="address", metavar="ADDRESS", help="s3://bucket/prefix where it is published")
    parser.add_argument("--all", action="store_true", help="print every label file, not the first 10")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything to this file, each image's row too")


def run(arguments: argparse.Namespace) -> int:
    """See `plumbline.commands.Command`."""
    store = Store(arguments.address, _tell) if arguments.address else None
    found = trace(arguments.path, store)
    if arguments.json is not None:
        write_text(arguments.json, as_document(found))
    print(as_text(found, None if arguments.all else 10), end="")  # noqa: T201 - the command's own output
    return 0


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - progress of the command
