"""The benchmark of `make bench-data` runs, tiny, and its own pieces do what they say; its numbers are not looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(autouse=True)
def _scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_the_scan_is_compared_over_the_same_files(tmp_path):
    from bench_images import draw_photo
    from data_scan import measure_set

    for index in range(3):
        cv2.imwrite(str(tmp_path / f"{index}.jpg"), draw_photo(index))
    result = measure_set(tmp_path, ("plumbline", "imread"), rounds=2)
    assert result["num_images"] == 3
    assert result["plumbline"]["scan_is_faster_by"] == [1, 1, 1]
    assert all(rate > 0 for rate in result["imread"]["images_per_s"])


def test_a_contender_that_ends_is_an_error_with_its_name(tmp_path):
    from data_scan import Contender

    with pytest.raises(SystemExit, match="error: nobody ended with 1"):
        Contender("nobody", tmp_path)


@pytest.mark.parametrize("has_bccd", [True, False])
def test_the_images_are_of_the_sizes_that_they_say(tmp_path, monkeypatch, has_bccd):
    from bench_images import draw_photo, make_sets

    bccd = tmp_path / "bccd"
    (bccd / "JPEGImages").mkdir(parents=True)
    cv2.imwrite(str(bccd / "JPEGImages" / "photo.jpg"), draw_photo(0))
    monkeypatch.setenv("PLUMBLINE_BCCD", str(bccd if has_bccd else tmp_path / "gone"))
    sets = make_sets(tmp_path, 1)
    assert all(("BCCD" in name) == has_bccd for name in sets)
    for name, folder in sets.items():
        width, height = map(int, name.split(",")[0].split("x"))
        assert cv2.imread(str(folder / "0000.jpg")).shape == (height, width, 3)


def test_many_links_are_scanned(tmp_path):
    from data_scan import measure_many

    result = measure_many(tmp_path, 40, workers=1, num_real=2)
    assert (result["num_images"], result["workers"]) == (40, 1)
    assert result["peak_megabytes_all_processes"] > 10


def test_peak_memory_sees_what_was_held():
    from peak_memory import PeakMemory

    with PeakMemory(children=False, every_s=0.001) as before:
        pass
    with PeakMemory(children=False, every_s=0.001) as memory:
        held = np.ones(200_000_000, np.uint8)
    assert held[-1] == 1
    assert memory.peak_bytes - before.peak_bytes > 100_000_000


def test_the_tables_go_through_every_step(tmp_path):
    out = tmp_path / "rows.json"
    subprocess.run([sys.executable, BENCHMARKS / "manifest_scale.py", "--images", "2000", "--out", out], check=True)
    rows = json.loads(out.read_text())
    assert [row["step"] for row in rows] == [
        "read the tables",
        "write the tables",
        "all checks, with repairs",
        "group near-duplicates",
        "deal into splits",
        "look for leaks",
        "compare two versions",
    ]
    found = dict(zip((row["step"] for row in rows), (row["result"] for row in rows), strict=True))
    assert found["look for leaks"] == "0 leaks"
    assert not found["all checks, with repairs"].startswith("0 findings")
