"""`make bench-metrics` runs, tiny, and what it compares are equal numbers; its times are not looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def _scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_both_parts_compare_equal_numbers(tmp_path):
    out = tmp_path / "bench.json"
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "metrics.py", "--quick", "--out", out], check=True, capture_output=True, text=True
    )
    result = json.loads(out.read_text())
    first, second = result["map"], result["bootstrap"]
    assert (first["num_images"], first["num_boxes"], first["num_detections"]) == (100, 720, 10_000)
    assert max(first["largest_difference"].values()) < 1e-9
    assert set(first["largest_difference"]) == {"pycocotools", "faster-coco-eval"}
    assert (second["num_images"], second["samples"], second["pycocotools_samples_measured"]) == (20, 20, 1)
    for row in second["pycocotools"].values():
        assert row["largest_difference"] < 1e-9
        assert row["seconds_all_extrapolated"] > 0
    assert done.stdout.count("(extrapolated from 1 samples)") == 2


@pytest.mark.usefixtures("_scripts")
def test_the_synthetic_boxes_are_what_they_say():
    from bench_boxes import XYXY, make_detections, make_truth

    truth = make_truth(500, seed=0)
    found = make_detections(truth, 500, 100, seed=1, skill=1.0)
    assert (len(truth), len(found)) == (3600, 50_000)
    side = ((truth["x2"] - truth["x1"]) * (truth["y2"] - truth["y1"])) ** 0.5
    shares = [(side < 32).mean(), ((side >= 32) & (side < 96)).mean(), (side >= 96).mean()]
    assert shares == pytest.approx([0.41, 0.34, 0.25], abs=0.03)
    assert truth["crowd"].mean() == pytest.approx(0.01, abs=0.006)
    assert (found[["x2", "y2"]].to_numpy() >= found[["x1", "y1"]].to_numpy()).all()
    assert found.equals(make_detections(truth, 500, 100, seed=1, skill=1.0))
    assert list(found) == ["image_id", "class_id", "confidence", *XYXY]
