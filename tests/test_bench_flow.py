"""`make bench-flow` runs, tiny; its times are not looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.long
def test_what_is_compared_makes_the_same_and_every_figure_is_there(tmp_path):
    out = tmp_path / "bench.json"
    subprocess.run([sys.executable, BENCHMARKS / "flow.py", "--quick", "--out", out], check=True, capture_output=True)
    result = json.loads(out.read_text())

    fan_out = result["fan_out"]
    assert fan_out["same_lock"] is True
    assert {name: len(walls) for name, walls in fan_out["wall_s"].items()} == {"dvc repro": 1, "flow": 1}
    assert abs(fan_out["ratio"] - fan_out["wall_s"]["flow"][0] / fan_out["wall_s"]["dvc repro"][0]) < 0.01
    (row,) = result["nothing_to_do"]
    wall = row["wall_s"]
    assert abs(row["allowed_s"] - wall["bare"] - 2 * wall["status"]) < 0.05
    assert row["inside"] is (wall["flow"] <= row["allowed_s"])
