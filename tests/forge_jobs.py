"""The environment of a forge's job on a pull request, and the poster as it is started there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from forge_server import REPOSITORY, TOKEN, Forge

from pipelines.pr_comment import main

NUMBER = 12
FAST = ["--pauses", "0,0", "--timeout", "5"]


def environment(forge: str, server: Forge) -> dict[str, str]:
    """Return what a runner sets."""
    if forge == "github":
        return {
            "GITHUB_ACTIONS": "true", "GITHUB_API_URL": server.url, "GITHUB_SERVER_URL": server.url,
            "GITHUB_REPOSITORY": REPOSITORY, "GITHUB_REF": f"refs/pull/{NUMBER}/merge", "GITHUB_TOKEN": TOKEN,
        }  # fmt: skip
    return {
        "GITLAB_CI": "true", "CI_API_V4_URL": f"{server.url}/api/v4", "CI_SERVER_URL": server.url,
        "CI_PROJECT_ID": "7", "CI_MERGE_REQUEST_IID": str(NUMBER), "GITLAB_TOKEN": TOKEN,
    }  # fmt: skip


def set_environment(monkeypatch: pytest.MonkeyPatch, values: Mapping[str, str]) -> None:
    """Take away what the runner of these tests has set, and set that."""
    for name in list(os.environ):
        if name.startswith(("GITHUB_", "GITLAB_", "CI")):
            monkeypatch.delenv(name)
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def post(folder: Path, *more: str) -> int:
    """Post a report folder."""
    return main(["--report", str(folder), *FAST, *more])
