"""A temporary clone of this project, to run it as a user does."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent


def environment(site_cache: Path) -> dict[str, str]:
    """This environment's programs first on PATH, and a DVC that shares nothing with the machine."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DVC_SITE_CACHE_DIR": str(site_cache),
        "DVC_NO_ANALYTICS": "1",
        "PYTHONPATH": "",
        "CUDA_VISIBLE_DEVICES": "-1",  # equal bytes are promised of a CPU
    }


MADE_BY_A_RUN = {"dvc.lock", "data/splits.csv"}


class Clone:
    """The files that git knows or would take, committed to a repository of their own in a temporary folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "project"
        self.env = environment(folder / "site-cache")
        names = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
        ).stdout.split("\0")
        for name in filter(None, names):
            # What an earlier run left in the working tree is no part of a clone that must make it anew.
            if (ROOT / name).is_file() and not name.startswith("reports/") and name not in MADE_BY_A_RUN:
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, self.folder / name)
        self.run("git", "init", "-q")
        self.commit("clone")

    def commit(self, message: str) -> None:
        self.run("git", "add", "-A")
        who = ("-c", "user.name=test", "-c", "user.email=test@example.com")
        self.run("git", *who, "commit", "-q", "-m", message)

    def run(self, *command: str, expect: int | None = 0, timeout: int = 3000) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command, cwd=self.folder, env=self.env, capture_output=True, text=True, check=False, timeout=timeout
        )
        if expect is not None:
            assert done.returncode == expect, f"{command}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return done

    def set_params(self, values: dict[str, Any]) -> None:
        """Change params.yaml by dotted keys, comments kept."""
        yaml = YAML()
        yaml.width = 1000
        path = self.folder / "params.yaml"
        params = yaml.load(path.read_text(encoding="utf-8"))
        for key, value in values.items():
            node = params
            *parents, last = key.split(".")
            for parent in parents:
                node = node[parent]
            node[last] = value
        with path.open("w", encoding="utf-8") as file:
            yaml.dump(params, file)


# Short runs of what follows the training.
SHORT = {
    "quantize.calibration_images": 8,
    # What has learned so little on so few images has no budget that means anything.
    "quantize.over_budget": "keep",
    "quantize.max_trials": 2,
    "quantize.aware_steps": 0,
    "benchmark.warmup_queries": 2,
    "benchmark.min_queries": 10,
    "benchmark.min_duration_s": 0.1,
    "benchmark.num_images": 4,
    "benchmark.ratio_rounds": 3,
    "report.num_samples": 2,
    "report.bootstrap_samples": 50,
}
# The whole line in about a minute: too small to learn much.
TINY = {
    "digits.num_scenes": 80,
    "digits.scene_size": 96,
    "digits.max_digits": 5,
    "train.detect.epochs": 8,
    "train.detect.batch": 4,
    "train.detect.image_size": 96,
    "train.detect.close_mosaic": 0,
    **SHORT,
}
# The same for the task classify: handwritten digits, each an image.
TINY_CLASSIFY = {"task": "classify", "train.classify.epochs": 3, **SHORT}
