"""The gates of the branch that a pull request is to be merged into, as the forge has them now."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.forge import Connection
from plumbline.errors import ParamsError
from plumbline.params import read_params

PARAMS = "params.yaml"


def gates_of_file(path: Path) -> Mapping[str, Any]:
    """Read the section ``gates`` of a params.yaml; empty where it has none.

    Raises:
        ParamsError: It cannot be read, or its gates are no mapping.
    """
    gates = read_params(path).get("gates") or {}
    if not isinstance(gates, dict):
        raise ParamsError(
            f"{path}: gates: expected `name: rule` lines, got {type(gates).__name__}; write them as lines"
        )
    return gates


def gates_of_base(connection: Connection, branch: str) -> Mapping[str, Any]:
    """Read the gates of a branch: it is its owners', whatever a pull request to it says.

    Raises:
        ForgeError: It has no params.yaml, or it may not be read.
        ParamsError: What it has is none.
    """
    data: bytes = connection.ask("file", f"read {PARAMS} of the branch {branch}", branch, PARAMS)
    with tempfile.TemporaryDirectory(prefix="plumbline-gates-") as temporary:
        path = Path(temporary) / PARAMS
        path.write_bytes(data)
        try:
            return gates_of_file(path)
        except ParamsError as error:
            raise ParamsError(f"{branch}:" + str(error).replace(f"{temporary}/", "")) from error
