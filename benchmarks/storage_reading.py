"""How fast single images are read from loose files and from shards, and a training view of all is written."""

from __future__ import annotations

import random
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from storage_layouts import Collection, Place, Reader, forget_pages, places, write
from storage_project import Cost, summary, timed

READ_STEPS = ("read_cold", "read_warm", "view")


def measure_reading(folder: Path, data: Collection, rounds: int, num_read: int) -> dict[str, Any]:
    """Measure random reads and a training view of everything, in milliseconds an image."""
    where: dict[str, list[Place]] = {}
    costs: dict[str, dict[str, list[Cost]]] = {}
    for layout in ("loose", "arrival"):
        write(layout, data, folder / layout)
        where[layout] = list(places(folder / layout))
        assert len(where[layout]) == len(data.images)
        costs[layout] = {step: [] for step in READ_STEPS}
    for number in range(rounds):
        rng = random.Random(number)  # noqa: S311 - no secret
        chosen = rng.sample(range(len(data.images)), min(num_read, len(data.images)))
        for step in READ_STEPS:
            for layout, found in where.items():
                if step == "read_cold":
                    forget_pages({place.path for place in found})
                picked = found if step == "view" else [found[index] for index in chosen]
                costs[layout][step].append(_read(picked, folder / "view" if step == "view" else None))
                shutil.rmtree(folder / "view", ignore_errors=True)
    for layout in where:
        shutil.rmtree(folder / layout)
    rows: dict[str, Any] = {
        layout: {step: summary(each) for step, each in steps.items()} for layout, steps in costs.items()
    }
    return rows | {"decode_ms": decode_ms()}


def _read(picked: Sequence[Place], view: Path | None) -> Cost:
    """Read images, and write them again where there is a view; returns milliseconds an image."""
    reader = Reader()

    def work() -> None:
        if view:
            view.mkdir()
        for index, place in enumerate(picked):
            content = reader.read(place)
            if view:
                (view / f"{index:08d}.jpg").write_bytes(content)

    cost = timed(work)
    reader.close()
    return {f"{key.removesuffix('_s')}_ms_each": value * 1000 / len(picked) for key, value in cost.items()}


def decode_ms() -> float:
    """Return how long `read_image` takes for a JPEG of VOC's size, for comparison with reading its bytes."""
    import cv2
    from bench_images import add_grain, crop_to_voc, draw_photo

    from plumbline.runtime.preprocess import read_image

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "photo.jpg")
        cv2.imwrite(str(path), add_grain(crop_to_voc(draw_photo(0), 0), 0), [cv2.IMWRITE_JPEG_QUALITY, 90])
        taken: list[float] = [timed(lambda: read_image(path))["wall_s"] for _ in range(30)]
    return round(1000 * statistics.median(taken), 3)
