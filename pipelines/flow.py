"""Run the whole line as a Prefect flow, with no server to start by hand: ``python -m pipelines.flow``.

The history stays in the project, in `.prefect`; ``PREFECT_HOME=$PWD/.prefect prefect server start`` shows it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from pipelines.graph import read_graph
from plumbline.errors import PlumblineError


def set_up_prefect(root: Path, environment: MutableMapping[str, str]) -> None:
    """Set what Prefect reads when it is first imported; what the user has set stays.

    Args:
        root: The project, absolute: the history goes to its folder ``.prefect``.
        environment: `os.environ`.
    """
    environment.setdefault("PREFECT_HOME", os.fspath(root / ".prefect"))
    environment.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    environment.setdefault("DO_NOT_TRACK", "1")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the flow: 0 when every stage is up to date at the end, 1 when one failed, 130 or 143 when interrupted."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--root", type=Path, default=Path(), metavar="PATH", help="the DVC project (default: here)")
    root = parser.parse_args(argv).root.resolve()
    signal.signal(signal.SIGTERM, _exit)  # an exception, so that the temporary server is ended too
    try:
        read_graph(root)  # a fault in dvc.yaml shows at once, not after Prefect's start
        set_up_prefect(root, os.environ)
        code, last = _run(root)
    except PlumblineError as error:
        code, last = 1, f"error: {error}"
    except KeyboardInterrupt:
        code, last = 128 + signal.SIGINT, "interrupted: the running stage was ended; `make flow` goes on from there"
    sys.stdout.flush()
    print(last, file=sys.stderr if code else sys.stdout, flush=True)  # noqa: T201 - the command's own output
    return code


def _run(root: Path) -> tuple[int, str]:
    from pipelines.line import line  # noqa: PLC0415 - imports Prefect, which reads the environment then

    state = line(root, return_state=True)
    last, *before = str(state.message).splitlines() or [state.name or state.type.value]
    for text in before:
        print(text, file=sys.stderr)  # noqa: T201 - the command's own output
    return (0, last) if state.is_completed() else (1, f"error: {last}")


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
