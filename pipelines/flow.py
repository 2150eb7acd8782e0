"""Run the whole line as a Prefect flow, with no server to start by hand: ``python -m pipelines.flow``.

The flow itself is `pipelines.line.line`. Its history stays in the project's folder `.prefect`; between runs,
``PREFECT_HOME=$PWD/.prefect prefect server start`` shows it.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines.graph import read_graph
from pipelines.interrupts import last_word
from pipelines.server import set_up_prefect, start_server


def main(argv: Sequence[str] | None = None) -> int:
    """Run the flow: 0 when every stage is up to date at the end, 1 when one failed, 130 or 143 when interrupted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--root", type=Path, default=Path(), metavar="PATH", help="the DVC project (default: here)")
    root = parser.parse_args(argv).root.resolve()

    def work() -> tuple[int, str]:
        set_up_prefect(root, os.environ)
        if not os.environ.get("PREFECT_API_URL"):
            read_graph(root)  # a fault in dvc.yaml shows at once, not after the server's start
        api = start_server(os.environ)
        print(f"Prefect's UI while this runs: {api.removesuffix('/api')}", flush=True)  # noqa: T201
        return _run(root)

    return last_word(work, "interrupted: what was running was ended; run again to go on from there")


def _run(root: Path) -> tuple[int, str]:
    from pipelines.line import line

    state = line(root, return_state=True)
    last, *before = str(state.message).splitlines() or [str(state)]
    for text in before:
        print(text, file=sys.stderr)  # noqa: T201 - the command's own output
    return (0, last) if state.is_completed() else (1, f"error: {last}")


if __name__ == "__main__":
    sys.exit(main())
