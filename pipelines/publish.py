"""Publish the recommended artifacts of a commit that passed its gates: ``python -m pipelines.publish v1.2.3``.

Where to, and under which name, is in the section ``publish`` of params.yaml. The flow itself is
`pipelines.publish_flow.publish`; its history stays in the project's folder `.prefect`, or with the server that
PREFECT_API_URL names.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pipelines.clone_lock import LOCK, BusyError
from pipelines.file_lock import locked
from pipelines.interrupts import last_word
from pipelines.publish_params import read_publish_params
from pipelines.server import set_up_prefect, start_server
from plumbline.published import version_key


def main(argv: Sequence[str] | None = None) -> int:
    """Publish: 0 also where it was published already, 1 and one line on stderr; 130 or 143 when interrupted."""
    arguments = _parse(argv)
    root = arguments.root.resolve()

    def work() -> tuple[int, str]:
        version_key(arguments.version)
        read_publish_params(root)  # what is missing there shows at once, not after Prefect's start
        with _sole(root):
            set_up_prefect(root, os.environ)
            start_server(os.environ)
            return _run(root, arguments)

    return last_word(work, "interrupted: without its manifest nothing is published; run it again to go on from there")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("version", metavar="VERSION", help="such as v1.2.3, or v1.2.3-rc.1")
    parser.add_argument(
        "--target", action="append", default=[], metavar="NAME", help="this one, not the recommended; repeatable"
    )
    parser.add_argument(
        "--push-tag", nargs="?", const="origin", default="", metavar="REMOTE", help="push the tag, too (to origin)"
    )
    parser.add_argument("--root", type=Path, default=Path(), metavar="PATH", help="the project (default: here)")
    return parser.parse_args(argv)


@contextmanager
def _sole(root: Path) -> Iterator[None]:
    """Keep flows off the project, which would write to the very files that are published.

    Only the lock of `sole_flow`: the record that a killed flow left is for the next flow to tell of.

    Raises:
        BusyError: A flow, or another publish, runs on it.
    """
    (root / LOCK).parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(root / LOCK, wait=False))
        except BlockingIOError as error:
            raise BusyError(
                f"{root}: a flow or another publish runs on this folder, expected none; wait for its end, or end it"
            ) from error
        yield


def _run(root: Path, arguments: argparse.Namespace) -> tuple[int, str]:
    from pipelines.publish_flow import publish

    state = publish(root, arguments.version, tuple(arguments.target), arguments.push_tag, return_state=True)
    return (0, str(state.message)) if state.is_completed() else (1, f"error: {state.message}")


if __name__ == "__main__":
    sys.exit(main())
