"""A project in git and DVC with labelled photographs and two artifacts, as the line leaves it before a publish.

Its ingest is the real one. What follows, which takes minutes, is one stage that writes what the real ones would: a
network that names an image's strongest colour, as two targets.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

MODEL = "signs"
PARAMS = """\
task: classify
dataset:
  source: data/photos
  format: yolo
  images_per_shard: 500
  class_names: [red, green, blue]
  video: {{every_s: 1.0, max_hash_bits: 6}}
scan: {{workers: 1, shard_size: 500, cluster: ""}}
digits: {{seed: 0, num_scenes: 3, num_pools: 3, scene_size: 64, min_digits: 2, max_digits: 3, min_size: 22,
          max_size: 40, digit_size: 32}}
gain: 8.0
publish:
  model: signs
  destination: {destination}
"""
DVC_YAML = """\
stages:
  ingest:
    cmd: >-
      python -m stages.ingest --task classify --source '${dataset.source}' --out data/dataset
      --metrics reports/ingest.json
    deps: ['${dataset.source}']
    params: [dataset, digits]
    outs: [data/dataset]
    metrics:
      - reports/ingest.json: {cache: false}
  line:
    cmd: python line.py ${gain}
    deps: [data/dataset, line.py]
    params: [gain]
    outs: [data/validated, data/splits.parquet, models/artifacts/onnx-fp32, models/artifacts/onnx-int8]
    metrics:
      - reports/report/report.json: {cache: false}
artifacts:
  ${publish.model}:
    path: models/artifacts
    type: model
"""
# Kept short: what is not looked at by a publish is left out.
LINE = """\
import sys
from pathlib import Path

import pandas as pd
from published_version import LINEAGE, write_tiny

from plumbline.files import sha256_of, write_json
from plumbline.lineage import dataset_sha256
from plumbline.manifest import read_dataset, write_dataset

data = read_dataset(Path("data/dataset"))
validated = Path("data/validated")
validated.mkdir(exist_ok=True)
write_dataset(data, validated)
(validated / "edits.csv").write_text("edit_id,action\\n")
splits = pd.DataFrame({"image_id": data.images.image_id, "split": ["train", "train", "val", "test"]})
splits.to_parquet("data/splits.parquet")

hashes = {"dataset_sha256": dataset_sha256(validated), "splits_sha256": sha256_of(Path("data/splits.parquet"))}
rows, lineages = [{"name": "weights"}], {}
for name, precision, gain in (("onnx-fp32", "fp32", 0), ("onnx-int8", "int8", 1)):
    calibration = {"calibration_sha256": "a" * 64, "num_calibration_images": 2} if precision == "int8" else {}
    lineages[name] = {**LINEAGE, **hashes, **calibration}
    write_tiny(Path("models/artifacts") / name, name, precision, float(sys.argv[1]) + gain, lineages[name])
    accepted = True if precision == "int8" else None
    rows.append({
        "name": name, "backend": "onnx", "precision": precision, "accepted": accepted, "accepted_why": "",
        "keeps_budget": True, "top1": 0.9, "latency_ms_p50": 1.5, "toolchain": {"onnx": "1"},
    })
recommended = {"fastest inside the budget": "onnx-int8", "most accurate": "onnx-fp32", "smallest": None}
write_json(Path("reports/report/report.json"), {
    "task": "classify", "rows": rows, "lineage": lineages,
    "recommended": {need: {"artifact": name, "reason": "", "ties": {}} for need, name in recommended.items()},
})
"""
IGNORED = "/data/*\n!/data/photos/\n/models/\n/.prefect/\n__pycache__/\n/.cache/\n"
COLORS = {"red": (0, 0, 255), "green": (0, 255, 0), "blue": (255, 0, 0)}
WHO = {
    f"GIT_{role}_{what}": who for role in ("AUTHOR", "COMMITTER") for what, who in (("NAME", "Ada"), ("EMAIL", "a@b.c"))
}


def make_project(root: Path, destination: str = "s3://nowhere/models") -> Path:
    """Make the project in a new folder, its line up to date and committed."""
    photos = root / "data" / "photos"
    for folder in ("images", "labels"):
        (photos / folder).mkdir(parents=True)
    (photos / "data.yaml").write_text("train: images\nnames: [red, green, blue]\n")
    for number, (name, color) in enumerate([*COLORS.items(), ("none", (90, 90, 90))]):
        pixels = np.full((40, 60, 3), color, np.uint8)
        pixels[:, number::7] //= 2
        cv2.imwrite(str(photos / "images" / f"{number}.png"), pixels)
        label = "" if name == "none" else f"{number} 0.5 0.5 0.25 0.5\n"
        (photos / "labels" / f"{number}.txt").write_text(label)
    (root / "params.yaml").write_text(PARAMS.format(destination=destination))
    (root / "dvc.yaml").write_text(DVC_YAML)
    (root / "line.py").write_text(LINE)
    (root / ".gitignore").write_text(IGNORED)
    git(root, "init", "-q", "-b", "main")
    dvc(root, "init", "-q")
    dvc(root, "repro", "-q")
    commit(root, "the line")
    return root


def set_destination(root: Path, destination: str) -> None:
    """Say where to publish, and commit that."""
    change(root / "params.yaml", "destination: s3://nowhere/models", f"destination: {destination}")
    commit(root, "destination")


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def commit(root: Path, message: str) -> str:
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", message)
    return git(root, "rev-parse", "HEAD").strip()


def git(root: Path, *arguments: str) -> str:
    return _run(root, "git", *arguments)


def dvc(root: Path, *arguments: str) -> str:
    return _run(root, sys.executable, "-m", "dvc", *arguments)


def environment() -> dict[str, str]:
    """Of commands in a project: who commits, and this interpreter's commands before any other's."""
    here = os.fspath(Path(sys.executable).parent)
    tests = os.fspath(Path(__file__).parent)
    return {**os.environ, **WHO, "PATH": f"{here}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": tests}


def _run(root: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=root, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout
