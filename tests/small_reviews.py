"""Small revisions of either task, scored for real, for the tests of what shows two of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
from scored_runs import run_of

from plumbline.errors import DatasetError
from plumbline.review.changes import Change, Verdict
from plumbline.review.review import GateResult, Review, Side
from plumbline.review.revision import Revision, Scored
from plumbline.scores import ScoringSettings
from plumbline.tasks import task_module

MACHINE = {"architecture": "x86_64", "cpu_model": "A", "usable_cores": 2}


def revision_of(run, name="main", threshold=0.4, latency=None, machine=MACHINE, image_file=None):
    """A revision whose tables are what the run's predictions give.

    latency: artifact -> ms; None measures each artifact but the weights.
    """
    scoring = task_module(run.task, "scoring")
    truth = scoring.truth_of(run.data, run.images)
    settings = ScoringSettings(threshold, 0.001, "count", ("brightness",), 3, 12)
    latency = {"int8": 10.0} if latency is None else latency
    scored = {}
    for artifact, found in run.predictions.items():
        result = scoring.evaluate(truth, found, run.images, run.data.class_names, settings)
        device = {"latency_ms_p50": latency[artifact], "valid": 1, "measured": 1} if artifact in latency else {}
        scored[artifact] = Scored(
            result.metrics, result.undefined, result.tables, device, machine if device else {},
            {"size_bytes": 1000, "precision": "int8"},
        )  # fmt: skip
    return Revision(
        name=name, commit="a" * 40, is_clean=True, params={"evaluate": {"difficult": "count"}},
        run=dataclasses.replace(run, name=name), splits=run.images[["image_id", "split"]], scored=scored,
        validation={}, threshold=dict.fromkeys(run.predictions, threshold), image_file=image_file or no_image,
    )  # fmt: skip


def no_image(path):
    raise DatasetError(f"{path}: not in DVC's cache; run dvc pull")


def two_revisions(task, folder=None, **values):
    """A base and a head that is worse, of the same images."""
    base, head = run_of(task, seed=0), run_of(task, seed=2)
    image_file = None if folder is None else images_in(folder, base.images)
    return (
        revision_of(base, "main", image_file=image_file),
        revision_of(head, "feature/x", image_file=image_file, **values),
    )


def images_in(folder: Path, images, noise=0):
    """Write an image for every row, grey or of noise; return what gives the file of a path."""
    rng = np.random.default_rng(0)
    for row in images.itertuples():
        pixels = np.full((row.height, row.width, 3), 120, np.uint8)
        if noise:
            pixels = rng.integers(0, 256, (row.height * noise, row.width * noise, 3), dtype=np.uint8)
        file = folder / row.path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    return lambda path: folder / path


def change(kind="score", verdict="worse", **values):
    row = {"artifact": "int8", "metric": "map50_95", "title": "mAP50-95", "base": 0.8, "head": 0.7}
    return Change(kind=kind, verdict=Verdict(verdict), **{**row, **values})


def review_of(changes, gates=(), **values):
    sides = {
        "base": Side(name="main", commit="a" * 40, is_clean=True),
        "head": Side(name="feature/x", commit="b" * 40, is_clean=True),
    }
    row = {
        "task": "detect", "headline": "map50_95", "headline_title": "mAP50-95", "shown": "int8", "level": 0.95,
        "num_images": 96, "changes": tuple(changes), "gates": tuple(gates), "notes": (), "pictures": {},
    }  # fmt: skip
    return Review(**{**sides, **row, **values})


def gate(name="floor", passed=True, rule="map50_95 >= 0.6", why="int8 mAP50-95 is 0.700"):
    return GateResult(name=name, rule=rule, passed=passed, why=why)
