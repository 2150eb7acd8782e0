"""A small DVC project in a git repository, as the flows that work in clones of one see it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

STAGES = """
stages:
  copy:
    cmd: echo copies >> ${log} && mkdir -p out && cp data/photos.txt out/photos.txt
    deps: [data/photos.txt]
    outs: [out]
  count:
    cmd: >-
      echo counts >> ${log} && echo "{\\"photos\\":" $(wc -l < out/photos.txt) "}" > metrics.json
    deps: [out]
    metrics:
      - metrics.json: {cache: false}
"""


# One that waits for a file, for what happens to a run that is under way.
SLOW = """
stages:
  copy:
    cmd: echo copies >> ${log} && mkdir -p out && cp data/photos.txt out/photos.txt
    deps: [data/photos.txt]
    outs: [out]
  slow:
    cmd: >-
      echo slow $$ >> ${log} && echo half >> half.txt && until [ -e ${log}.gate ]; do sleep 0.1; done
      && cp out/photos.txt slow.txt
    deps: [out]
    outs: [slow.txt]
  count:
    cmd: >-
      echo counts >> ${log} && echo "{\\"photos\\":" $(wc -l < slow.txt) "}" > metrics.json
    deps: [slow.txt]
    metrics:
      - metrics.json: {cache: false}
"""
IGNORED = "/.cache/\n/.prefect/\n/out\n/slow.txt\n/half.txt\n"
FLOW = """
flow:
  limits: {cpu: 0, gpu: 0}
  retries: {}
  retry_delay_s: 0.0
  remote: ""
  take_within_s: 60.0
  lost_after_s: 60.0
  remote_retry_s: 0.0
"""


class GitProject:
    """Two stages, each of which writes a line to a log outside of every clone when it runs."""

    def __init__(self, folder: Path, stages: str = STAGES, source: str = "data") -> None:
        self.root = folder / "project"
        self.log = folder / "ran.log"
        self.root.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")
        # What `dvc init` writes, without its second.
        self.write({".dvc/config": "", ".dvc/.gitignore": "/config.local\n/tmp\n/cache\n", ".dvcignore": ""})
        self.write({"data/photos.txt": "a\n", "dvc.yaml": stages, ".gitignore": IGNORED})
        self.write({"params.yaml": f"log: {self.log}\ndataset:\n  source: {source}\n{FLOW}"})
        self.first = self.commit("first")

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_text(text, encoding="utf-8")

    def commit(self, message: str) -> str:
        self.git("add", "--all")
        self.git("-c", "user.name=test", "-c", "user.email=test@example.com", "commit", "--quiet", "-m", message)
        return self.git("rev-parse", "HEAD")

    @property
    def gate(self) -> Path:
        """What the slow stage waits for."""
        return self.log.with_name(f"{self.log.name}.gate")

    def git(self, *arguments: str) -> str:
        return self.run("git", *arguments)

    def dvc(self, *arguments: str) -> str:
        return self.run(sys.executable, "-m", "dvc", *arguments)

    def ran(self) -> list[str]:
        """What the stages that ran wrote since the last call."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return lines

    def run(self, *command: str) -> str:
        return output(self.root, *command)


def output(folder: Path, *command: str) -> str:
    """What a command prints, without the newline at its end."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout.rstrip("\n")
