"""Bring a published model to this device, every hash checked.

MODEL@VERSION is such as digits@v1.2.3, or digits@latest for the highest version that is published. FOLDER becomes the
artifact's folder, which plumbline.runtime.session.load_artifact opens, with the version's manifest.json and labels.csv
beside the artifact's own files (`plumbline lineage` reads them). It is replaced when all that is new is here and right:
what was there before stays usable until then, and whenever the fetch fails. Files that are here already with the right
hash are not fetched again.

Credentials and the endpoint are found as boto3 does: AWS_ACCESS_KEY_ID..., AWS_PROFILE, AWS_ENDPOINT_URL.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from plumbline.published_fetch import fetch
from plumbline.published_store import Store


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """See `plumbline.commands.Command`."""
    parser.add_argument("model", metavar="MODEL@VERSION", help="such as digits@v1.2.3, or digits@latest")
    parser.add_argument(
        "--from", dest="address", required=True, metavar="ADDRESS", help="s3://bucket/prefix where it is published"
    )
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="where to put it")
    parser.add_argument("--target", metavar="NAME", help="such as onnx-int8, where the version has several")
    parser.add_argument("--no-labels", action="store_true", help="leave labels.csv, which is large for large data sets")


def run(arguments: argparse.Namespace) -> int:
    """See `plumbline.commands.Command`."""
    store = Store(arguments.address, _tell)
    labels = not arguments.no_labels
    done = fetch(store, arguments.model, arguments.target, arguments.to, _tell, labels=labels)
    what = f"{done.target} of {done.manifest.model}@{done.manifest.version}"
    counts = f"{done.num_fetched} files fetched, {done.num_there} were here"
    print(f"{arguments.to}: {what}; {counts}")  # noqa: T201 - the command's own output
    return 0


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201 - progress of the command
