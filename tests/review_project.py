"""A small project in git and DVC whose pull requests are judged: the real dvc.yaml, without what takes minutes.

Sixty drawn images with labels are ingested, checked, split, scored and reported by the real stages; the detector is
stood in for (`review_project_line`), so that a change of params.yaml is a change of the model within seconds.
"""

from __future__ import annotations

import functools
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from git_project import output
from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
LINE = Path(__file__).with_name("review_project_line.py")
CLASSES = ("disc", "bar", "frame")
NUM_IMAGES, SIDE = 60, 96
NETWORK = {"noise_px": 1.5, "miss_rate": 0.08, "false_alarms": 0.5, "seed": 0, "latency_ms": 10.0, "size_mb": 10.0}
TARGETS = {"onnx-fp32": {"backend": "onnx", "precision": "fp32"}, "onnx-int8": {"backend": "onnx", "precision": "int8"}}
GATES = {
    "floor": "map50_95 >= 0.3",
    "no_loss": "map50_95 drop <= 0.01 and significant",
    "int8": "onnx-int8.map50_95 drop <= 0.01 and significant",
    "latency": "*.latency_ms_p50 rise <= 20 %",
    "size": "*.size_bytes rise <= 10 %",
    "labels": "num_errors <= 0",
}
# Branch -> what it changes of the section network.
CHANGES: dict[str, dict[str, float]] = {
    "better": {"noise_px": 0.7, "miss_rate": 0.02},
    "worse": {"noise_px": 3.0, "miss_rate": 0.25, "latency_ms": 14.0},
    "noise": {"seed": 1},
    "gone": {},  # a target of its own: see `make_branch`
}
BRANCHES = tuple(CHANGES)
STAGES = ("ingest", "validate", "split", "evaluate_weights", "evaluate", "benchmark", "report")
STOOD_IN = ("evaluate", "benchmark", "report")
# Deps that this project has too; code that is installed beside it is the same for every commit.
DEPS = ("${dataset.source}", "data/", "reports/evaluate", "reports/benchmark")
IGNORED = """/data/*
!/data/photos/
!/data/splits.csv
/reports/findings.*
/reports/data_docs/
/reports/evaluate/*/predictions.parquet
/reports/evaluate/*/curves.png
/reports/evaluate/*/worst.jpg
/.prefect/
/.cache/
/report/
__pycache__/
"""
WHO = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-c", "core.hooksPath=/dev/null")


class ReviewProject:
    """The project, and what is done to it.

    Args:
        root: A folder that is not there yet, or one that holds such a project.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def make(cls, root: Path) -> ReviewProject:
        """Make it, with one commit of which no stage has run: ``main``, which is also the tag ``unrun``."""
        project = cls(root)
        root.mkdir(parents=True)
        project.git("init", "--quiet", "--initial-branch=main")
        # What `dvc init` writes, without its second.
        for name, text in {"config": "", ".gitignore": "/config.local\n/tmp\n/cache\n"}.items():
            (root / ".dvc").mkdir(exist_ok=True)
            (root / ".dvc" / name).write_text(text)
        shutil.copytree(ROOT / ".dvc" / "plots", root / ".dvc" / "plots")
        (root / ".dvcignore").touch()
        (root / ".gitignore").write_text(IGNORED)
        shutil.copy(LINE, root / "line.py")
        draw_photos(root / "data" / "photos")
        write_yaml(root / "params.yaml", first_params())
        write_yaml(root / "dvc.yaml", line_of(read_yaml(ROOT / "dvc.yaml")))
        project.commit("Images, labels and the line")
        project.git("tag", "unrun")
        return project

    def branch(self, name: str) -> None:
        """Begin a branch of `CHANGES` at ``main``, its change not committed."""
        self.git("checkout", "--quiet", "-B", name, "main")
        params = read_yaml(self.root / "params.yaml")
        params["network"] |= CHANGES[name]
        if name == "gone":
            del params["targets"]["onnx-int8"]
        write_yaml(self.root / "params.yaml", params)

    def run_all(self) -> None:
        """Run every stage, without DVC's and the flow's processes around each."""
        output(self.root, sys.executable, "line.py", "all")

    def checkout(self, name: str) -> None:
        """Switch to a branch, outputs too."""
        self.git("checkout", "--quiet", name)
        self.dvc("checkout", "--quiet", "--force")

    def copy(self, root: Path) -> ReviewProject:
        shutil.copytree(self.root, root, symlinks=True)
        return ReviewProject(root)

    def commit(self, message: str) -> str:
        self.git("add", "--all")
        self.git(*WHO, "commit", "--quiet", "-m", message)
        return self.git("rev-parse", "HEAD")

    def git(self, *arguments: str) -> str:
        return output(self.root, "git", *arguments)

    def dvc(self, *arguments: str) -> str:
        return output(self.root, sys.executable, "-m", "dvc", *arguments)


@functools.cache
def run_project(folder: Path) -> ReviewProject:
    """Make the project once in a folder, with ``main`` and ``worse`` run and committed, ``main`` checked out."""
    project = ReviewProject.make(folder / "review-project" / "project")
    project.run_all()
    project.commit("The line's results")
    project.branch("worse")
    project.run_all()
    project.commit("Another network")
    project.checkout("main")
    return project


def first_params() -> dict[str, Any]:
    """The real params, with what is other here."""
    params = read_yaml(ROOT / "params.yaml")
    params |= {"task": "detect", "targets": TARGETS, "network": NETWORK, "gates": GATES}
    params["dataset"] |= {"source": "data/photos", "format": "yolo", "class_names": list(CLASSES)}
    params["scan"] |= {"workers": 1}
    params["near_duplicates"] |= {"max_hash_bits": 0}
    params["split"] |= {"fractions": {"train": 0.3, "val": 0.1, "test": 0.6}}
    params["evaluate"] |= {"slices": ["brightness", "box_size"], "slice_bins": 2, "worst": 3}
    params["report"] |= {"bootstrap_samples": 200, "num_samples": 2}
    params["review"] = {"latency_noise": 0.1}
    params["publish"] |= {"destination": ""}
    return params


def line_of(graph: dict[str, Any]) -> dict[str, Any]:
    """The real graph's `STAGES`, with their metrics and plots as they are, and `review_project_line` for three."""
    stages = {name: graph["stages"][name] for name in STAGES}
    for name, stage in stages.items():
        inner = stage.get("do", stage)
        module = name.removesuffix("_weights")
        inner["deps"] = [dep for dep in inner["deps"] if dep.startswith(DEPS)]
        if module in STOOD_IN:
            inner["cmd"] = inner["cmd"].replace(f"python -m stages.{module}", f"python line.py {module}")
            inner["deps"].append("line.py")
        if module in ("evaluate", "benchmark"):
            inner["params"] = [*inner["params"], "network", *(["targets.${key}"] if "foreach" in stage else [])]
    return {"stages": stages}


def draw_photos(folder: Path) -> None:
    """Draw dark images with one to four bright shapes each, with a box for each shape, as YOLO has them."""
    rng = np.random.default_rng(0)
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    (folder / "data.yaml").write_text(f"train: images\nnames: [{', '.join(CLASSES)}]\n")
    for number in range(NUM_IMAGES):
        # Coarse clouds: what a perceptual hash tells apart.
        clouds = rng.integers(20, 110, (6, 6), dtype=np.uint8)
        picture = cv2.cvtColor(cv2.resize(clouds, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC), cv2.COLOR_GRAY2BGR)
        lines = [_draw(picture, rng) for _ in range(rng.integers(1, 5))]
        cv2.imwrite(os.fspath(folder / "images" / f"{number:02}.png"), picture)
        (folder / "labels" / f"{number:02}.txt").write_text("".join(lines))


def _draw(picture: np.ndarray, rng: np.random.Generator) -> str:
    """Draw one shape; its line of the label."""
    class_id, size = int(rng.integers(len(CLASSES))), int(rng.integers(14, 44))
    width, height = (size, size // 2 if CLASSES[class_id] == "bar" else size)
    x, y = int(rng.integers(0, SIDE - width)), int(rng.integers(0, SIDE - height))
    color = tuple(int(value) for value in rng.integers(150, 256, 3))
    corners = (x, y), (x + width - 1, y + height - 1)
    if CLASSES[class_id] == "disc":
        cv2.ellipse(picture, (x + width // 2, y + height // 2), (width // 2, height // 2), 0, 0, 360, color, -1)
    else:
        cv2.rectangle(picture, *corners, color, -1 if CLASSES[class_id] == "bar" else 3)
    values = ((x + width / 2) / SIDE, (y + height / 2) / SIDE, width / SIDE, height / SIDE)
    return f"{class_id} {' '.join(f'{value:.6f}' for value in values)}\n"


def read_yaml(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = YAML(typ="safe").load(path.read_text("utf-8"))
    return values


def write_yaml(path: Path, values: dict[str, Any]) -> None:
    yaml = YAML(typ="safe")
    yaml.default_flow_style = False
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(values, file)
