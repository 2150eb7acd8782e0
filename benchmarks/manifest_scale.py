"""How long do the tables of a million images and ten million boxes take, and in how much memory?

The rows are synthetic: perceptual hashes as far apart as those of unrelated photographs, with near-duplicates, copies,
videos, and a thousandth of the boxes with a fault. Each step runs on what the step before left, as in the pipeline.
In the project's root: `python benchmarks/manifest_scale.py [--images 1000000] [--out FILE]`
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from peak_memory import PeakMemory

from plumbline.checks import judge
from plumbline.checks.settings import load_settings
from plumbline.dataset_diff import diff_datasets
from plumbline.manifest import FINDINGS_SCHEMA, Dataset, read_dataset, table, write_dataset
from plumbline.near_duplicates import group_images
from plumbline.split_leaks import find_leaks
from plumbline.splitting import count_classes, deal_images

PARAMS = Path(__file__).parent.parent / "params.yaml"
BOXES_PER_IMAGE = 10
NUM_CLASSES = 20
WIDTH, HEIGHT = 1280, 960
T = TypeVar("T")


def make_images(num_images: int, rng: np.random.Generator) -> pd.DataFrame:
    """Return an images table in which a tenth are frames of videos, and a hundredth near another image."""
    numbers = np.arange(num_images)
    names = [f"part{number // 1000:04d}/{number:07d}.jpg" for number in numbers.tolist()]
    # A perceptual hash has 32 bits above the median.
    bits = rng.random((num_images, 64), dtype=np.float32).argsort(axis=1) < 32
    phash = np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64)
    later = rng.choice(numbers[1:], num_images // 100, replace=False)
    phash[later] = phash[later - 1] ^ (np.uint64(1) << rng.integers(0, 64, len(later), dtype=np.uint64))
    sha256 = np.array([f"{number:064x}" for number in numbers.tolist()], dtype=object)
    copies = rng.choice(numbers[1:], num_images // 1000, replace=False)
    sha256[copies] = sha256[copies - 1]
    phash[copies] = phash[copies - 1]
    videos = np.where(numbers % 10 == 0, [f"video{number // 1000:05d}" for number in numbers.tolist()], "")
    return pd.DataFrame(
        {
            "image_id": numbers,
            "path": [f"images/{name}" for name in names],
            "sha256": sha256,
            "width": WIDTH,
            "height": HEIGHT,
            "phash": phash,
            "group": videos.astype(object),
            "source": [f"photos/{name}" for name in names],
            "split": "",
            "readable": True,
            "problem": "",
            "damaged": False,
            "exif_orientation": 1,
            "brightness": rng.uniform(60, 190, num_images),
            "contrast": rng.uniform(20, 80, num_images),
            "sharpness": rng.uniform(50, 900, num_images),
        }
    )


def make_annotations(num_images: int, rng: np.random.Generator) -> pd.DataFrame:
    """Return ten boxes for each image, of classes from common to rare; a thousandth have a fault."""
    count = num_images * BOXES_PER_IMAGE
    commonness = 1 / np.arange(1, NUM_CLASSES + 1)
    class_id = rng.choice(NUM_CLASSES, count, p=commonness / commonness.sum())
    class_names = np.array([f"class{number:02d}" for number in range(NUM_CLASSES)], dtype=object)
    width, height = rng.uniform(8, 300, count), rng.uniform(8, 300, count)
    x1, y1 = rng.uniform(0, WIDTH - width), rng.uniform(0, HEIGHT - height)
    x2, y2 = x1 + width, y1 + height
    faulty = np.array_split(rng.choice(count - 1, count // 1000, replace=False), 3)
    x2[faulty[0]] = x1[faulty[0]]  # no area
    y2[faulty[1]] = HEIGHT + 0.5  # outside by so little that it can be clipped
    for values in (x1, y1, x2, y2, class_id):  # a second time
        values[faulty[2] + 1] = values[faulty[2]]
    files = np.array([f"labels/{number:07d}.xml" for number in range(num_images)], dtype=object)
    return pd.DataFrame(
        {
            "image_id": np.repeat(np.arange(num_images), BOXES_PER_IMAGE),
            "ann_id": np.arange(count),
            "class_id": class_id,
            "class_name": class_names[class_id],
            "x1": x1,
            "y1": y1,
            "x2": x2,
            "y2": y2,
            "difficult": False,
            "truncated": False,
            "crowd": False,
            "polygon": None,
            "rle": "",
            "source_file": np.repeat(files, BOXES_PER_IMAGE),
            "source_line": np.tile(np.arange(1, BOXES_PER_IMAGE + 1), num_images),
        }
    )


def make_dataset(num_images: int, seed: int, root: Path) -> Dataset:
    """Return a synthetic dataset; the same seed gives the same."""
    rng = np.random.default_rng(seed)
    class_names = tuple(f"class{number:02d}" for number in range(NUM_CLASSES))
    images, annotations = make_images(num_images, rng), make_annotations(num_images, rng)
    return Dataset(images, annotations, table([], FINDINGS_SCHEMA), class_names, root)


def changed(dataset: Dataset, seed: int) -> Dataset:
    """Return what a labeller may have made of it: a thousandth of the images gone, a thousandth of the boxes moved."""
    rng = np.random.default_rng(seed)
    images = dataset.images[rng.random(len(dataset.images)) >= 0.001]
    annotations = dataset.annotations[dataset.annotations["image_id"].isin(images["image_id"])].copy()
    moved = rng.random(len(annotations)) < 0.001
    annotations.loc[moved, ["x1", "x2"]] += 3.0
    return dataclasses.replace(dataset, images=images, annotations=annotations)


class Steps:
    """Times one step after another, and prints each as a row of a table.

    Attributes:
        rows: One per step: step, seconds, peak_megabytes, result.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        tell("| step | s | peak MB | |")
        tell("|---|---:|---:|---|")

    def run(self, step: str, body: Callable[[], T], tells: Callable[[T], str] = lambda _: "") -> T:
        """Run one step."""
        with PeakMemory(children=False) as memory:
            value = body()
        row = {
            "step": step,
            "seconds": round(memory.seconds, 1),
            "peak_megabytes": round(memory.peak_bytes / 1e6),
            "result": tells(value),
        }
        self.rows.append(row)
        tell(f"| {step} | {row['seconds']:.1f} | {row['peak_megabytes']:,} | {row['result']} |")
        return value


def tell(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)  # noqa: T201


def measure(num_images: int, folder: Path) -> list[dict[str, Any]]:
    """Run all steps on a synthetic dataset, which is written below `folder`."""
    settings = load_settings(PARAMS)
    bits, fractions = settings.max_hash_bits, {"train": 0.7, "val": 0.15, "test": 0.15}
    tell(f"\n{num_images:,} images, {num_images * BOXES_PER_IMAGE:,} boxes, {os.cpu_count()} cores\n")
    write_dataset(make_dataset(num_images, 0, folder), folder)
    steps = Steps()
    dataset = steps.run("read the tables", lambda: read_dataset(folder))
    steps.run("write the tables", lambda: write_dataset(dataset, folder), lambda _: _size_of(folder))
    judged = steps.run(
        "all checks, with repairs",
        lambda: judge(dataset, settings),
        lambda judged: f"{len(judged.findings):,} findings, {len(judged.edits):,} edits",
    )
    dataset = judged.dataset
    del judged
    images = dataset.images
    steps.run(
        "group near-duplicates",
        lambda: group_images(images, bits),
        lambda grouping: f"{grouping.num_near_duplicate_pairs:,} near pairs, {grouping.groups.max() + 1:,} groups",
    )
    counts = count_classes(images, dataset.annotations, NUM_CLASSES)
    unplaced = np.full(len(images), "", dtype=object)
    dealing = steps.run(
        "deal into splits",
        lambda: deal_images(images, counts, unplaced, fractions, seed=0, bits=bits),
        lambda dealing: ", ".join(f"{name} {np.mean(dealing.splits == name):.3f}" for name in fractions),
    )
    steps.run("look for leaks", lambda: find_leaks(images, dealing.splits, bits), lambda leaks: f"{len(leaks)} leaks")
    other = changed(dataset, 1)
    steps.run(
        "compare two versions",
        lambda: diff_datasets(dataset, other),
        lambda diff: f"{len(diff.images):,} images and {len(diff.labels):,} labels differ",
    )
    return steps.rows


def _size_of(folder: Path) -> str:
    return f"{sum(path.stat().st_size for path in folder.glob('*.parquet')) / 1e6:,.0f} MB on disk"


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and, if asked, write the rows as JSON."""
    from plumbline.files import write_json

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="bench-manifest-") as folder:
        rows = measure(arguments.images, Path(folder))
    if arguments.out:
        write_json(arguments.out, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
