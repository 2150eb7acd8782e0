"""Run the whole line as a Prefect flow, with no server to start by hand: ``python -m pipelines.flow``.

The flow itself is `pipelines.line.line`. Its history stays in the project's folder `.prefect`; between runs,
``PREFECT_HOME=$PWD/.prefect prefect server start`` shows it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from pipelines.graph import read_graph
from pipelines.server import set_up_prefect, start_server
from plumbline.errors import PlumblineError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the flow: 0 when every stage is up to date at the end, 1 when one failed, 130 or 143 when interrupted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--root", type=Path, default=Path(), metavar="PATH", help="the DVC project (default: here)")
    root = parser.parse_args(argv).root.resolve()
    signal.signal(signal.SIGTERM, _exit)  # as an exception, so that what was started is ended
    try:
        set_up_prefect(root, os.environ)
        if not os.environ.get("PREFECT_API_URL"):
            read_graph(root)  # a fault in dvc.yaml shows at once, not after the server's start
        api = start_server(os.environ)
        print(f"Prefect's UI while this runs: {api.removesuffix('/api')}", flush=True)  # noqa: T201
        code, last = _run(root)
    except PlumblineError as error:
        code, last = 1, f"error: {error}"
    except (KeyboardInterrupt, SystemExit) as error:
        code = error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 128 + signal.SIGINT
        last = "interrupted: what was running was ended; run again to go on from there"
    sys.stdout.flush()
    print(last, file=sys.stderr if code else sys.stdout, flush=True)
    return code


def _run(root: Path) -> tuple[int, str]:
    from pipelines.line import line

    state = line(root, return_state=True)
    last, *before = str(state.message).splitlines() or [str(state)]
    for text in before:
        print(text, file=sys.stderr)  # noqa: T201 - the command's own output
    return (0, last) if state.is_completed() else (1, f"error: {last}")


def _exit(number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
