"""A DVC project of one-line stages in a temporary folder, and one Prefect server for all tests of this room."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Two targets declared against the alphabet, a stage that can be made to fail with one behind it
# that is declared too early, and what does not depend on those two after them.
STAGES = """
stages:
  behind:
    cmd: cp fragile.txt behind.txt
    deps: [fragile.txt]
    outs: [behind.txt]
  prepare:
    desc: Prepare the ground
    cmd: >-
      python -c "import sys; print('prepared by', sys.executable); open('prepared.txt', 'w').write('p')"
    deps: [source.txt]
    outs: [prepared.txt]
  fragile:
    cmd: echo fragile starts && cat switch.txt && grep on switch.txt > fragile.txt
    deps: [prepared.txt, switch.txt]
    outs: [fragile.txt]
  make:
    foreach: ${targets}
    do:
      desc: Make ${key}
      cmd: mkdir -p out/${key} && cp prepared.txt out/${key}/made.txt && echo made ${key}
      deps: [prepared.txt]
      params: ['targets.${key}']
      outs: ['out/${key}']
  report:
    desc: One page
    cmd: >-
      mkdir -p reports/report && cat out/*/made.txt > reports/report/report.md
      && echo '{"map50":0.5}' > metrics.json
    deps: [out]
    outs: [reports/report]
    metrics:
      - metrics.json: {cache: false}
"""
FLOW_PARAMS = """
flow:
  limits: {cpu: 0, gpu: 0}
  retries: {}
  retry_delay_s: 0.5
  remote: ""
  take_within_s: 60.0
  lost_after_s: 10.0
  remote_retry_s: 60.0
"""
PARAMS = "targets:\n  b-two: {size: 2}\n  a-one: {size: 1}\n" + FLOW_PARAMS


class Project:
    """A DVC project in a folder of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.dvc("init", "--no-scm", "--quiet")
        self.write(params_yaml=FLOW_PARAMS)

    def write(self, **files: str) -> None:
        """Write files; `dvc_yaml` is dvc.yaml."""
        for name, text in files.items():
            (self.root / name.replace("_", ".")).write_text(text, encoding="utf-8")

    def dvc(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "dvc", *arguments]
        return subprocess.run(command, cwd=self.root, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="session", autouse=True)
def alone(tmp_path_factory) -> Iterator[None]:
    """Neither DVC nor Prefect reads or writes outside the tests' folders; set before Prefect is imported."""
    patch = pytest.MonkeyPatch()
    patch.setenv("DVC_SITE_CACHE_DIR", os.fspath(tmp_path_factory.mktemp("site-cache")))
    patch.setenv("DVC_NO_ANALYTICS", "1")
    patch.setenv("DO_NOT_TRACK", "1")
    patch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    patch.setenv("PREFECT_HOME", os.fspath(tmp_path_factory.mktemp("prefect")))
    patch.delenv("PREFECT_API_URL", raising=False)
    yield
    patch.undo()


@pytest.fixture
def empty_project(tmp_path) -> Project:
    """A DVC project without stages."""
    root = tmp_path / "project"
    root.mkdir()
    return Project(root)


@pytest.fixture
def project(empty_project) -> Project:
    """A DVC project with the stages above, none of which has run; all would succeed."""
    empty_project.write(dvc_yaml=STAGES, params_yaml=PARAMS, source_txt="s", switch_txt="on\n")
    return empty_project


@pytest.fixture(scope="module")
def prefect_api(alone) -> Iterator[None]:
    """A Prefect server with an empty history.

    Its client's threads end with the module: every 20 seconds they draw from Python's own random numbers (the mask of
    a websocket's ping), and a training in this process would see other ones each time.
    """
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield
