"""How fast is mAP, and its bootstrap, beside pycocotools and faster-coco-eval? And are the numbers the same?

In the project's root: `make bench-metrics`, or `python benchmarks/metrics.py --help`

Two parts, on one core, in one process. Seconds are those that the core worked for this process, whatever else the
machine did meanwhile:

- ``map``: COCO's twelve numbers of 5,000 synthetic images with 36,000 boxes and 500,000 detections (100 per image, as
  a detector gives that keeps what is above 0.001) by pycocotools, faster-coco-eval and plumbline, in turns. All
  start from the same tables. ``total`` is from there to the numbers; ``evaluation`` leaves out what pycocotools and
  faster-coco-eval need to get their own input (dicts and an index), but for plumbline holds all of it. A ratio is that
  of two turns that follow one another; shown is the median of the rounds, with the smallest and the largest.
- ``bootstrap``: intervals of mAP for two artifacts on 500 images from 1,000 samples by plumbline, matching included.
  With pycocotools only a few of the same samples are run, in two ways: ``whole`` evaluates the images drawn as a data
  set of its own, ``accumulate`` matches once and draws from what came out, which is the most that can be saved with
  pycocotools. What 1,000 would take is worked out from these few, not measured.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# Before numpy is imported.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import numpy as np
import numpy.typing as npt
import pandas as pd
from bench_boxes import BOXES_PER_IMAGE, CLASS_NAMES, NUM_CLASSES, XYXY, make_detections, make_images, make_truth

ROOT = Path(__file__).parent.parent
# In the order of pycocotools' `stats`.
NAMES = (
    *("map50_95", "map50", "map75", "map_small", "map_medium", "map_large"),
    *("ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large"),
)
CONTENDERS = ("pycocotools", "faster-coco-eval", "plumbline")
DETECTIONS_PER_IMAGE = 100

Floats = npt.NDArray[np.float64]
Tables = tuple[pd.DataFrame, pd.DataFrame, Sequence[int]]


def tell(text: str = "") -> None:
    """Print a line at once."""
    print(text, flush=True)  # noqa: T201


def one_core() -> bool:
    """Keep this process, with whatever threads a library starts, on one core; False where the system cannot."""
    if not hasattr(os, "sched_setaffinity"):
        return False
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    return True


def coco_json(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return annotations as COCO writes them."""
    xyxy = frame[XYXY].to_numpy(np.float64)
    xywh = np.hstack([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]])
    extra = {"score": frame["confidence"].tolist()} if "confidence" in frame else {"iscrowd": _ints(frame["crowd"])}
    name, values = next(iter(extra.items()))
    rows = zip(
        _ints(frame["image_id"]), _ints(frame["class_id"] + 1), xywh.tolist(), xywh[:, 2:].prod(axis=1).tolist(),
        values, strict=True,
    )  # fmt: skip
    return [
        {"id": number, "image_id": image_id, "category_id": category_id, "bbox": box, "area": area, name: value}
        for number, (image_id, category_id, box, area, value) in enumerate(rows, start=1)
    ]


def _ints(column: pd.Series) -> list[int]:
    return column.astype(int).tolist()


def coco_evaluator(package: str, tables: Tables) -> Any:
    """Return the evaluator of one of the two packages with its input."""
    if package == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    else:
        from faster_coco_eval import COCO
        from faster_coco_eval import COCOeval_faster as COCOeval
    truth, found, image_ids = tables
    coco = COCO()
    coco.dataset = {
        "images": [{"id": int(image_id)} for image_id in image_ids],
        "categories": [{"id": number + 1, "name": name} for number, name in enumerate(CLASS_NAMES)],
        "annotations": coco_json(truth),
    }
    coco.createIndex()
    return COCOeval(coco, coco.loadRes(coco_json(found)), "bbox")


def run_coco(package: str, tables: Tables) -> tuple[Floats, float, float]:
    """Return the twelve numbers, the seconds of all, and those of the evaluation alone."""
    with contextlib.redirect_stdout(io.StringIO()):
        begin = time.process_time()
        evaluator = coco_evaluator(package, tables)
        made = time.process_time()
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
        end = time.process_time()
    return np.array(evaluator.stats[:12], dtype=np.float64), end - begin, end - made


def run_plumbline(tables: Tables) -> tuple[Floats, float, float]:
    """Return the same of this project's evaluator, which gives the numbers of each class, too."""
    from plumbline.detect.scoring.coco_evaluation import evaluate_detections

    begin = time.process_time()
    metrics = evaluate_detections(*tables, CLASS_NAMES, confidence_threshold=0.25).metrics
    seconds = time.process_time() - begin
    return np.array([metrics.get(name, -1.0) for name in NAMES]), seconds, seconds


def measure_map(num_images: int, rounds: int) -> dict[str, Any]:
    """Let the three evaluate the same tables in turns."""
    truth = make_truth(num_images, seed=0)
    found = make_detections(truth, num_images, DETECTIONS_PER_IMAGE, seed=1, skill=1.0)
    tables = (truth, found, range(num_images))
    for name in CONTENDERS:  # imports, and code that is read for the first time
        _run(name, (truth[truth["image_id"] < 20], found[found["image_id"] < 20], range(20)))
    total: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    alone: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    values: dict[str, Floats] = {}
    for _ in range(rounds):
        for name in CONTENDERS:
            values[name], seconds, evaluation = _run(name, tables)
            total[name].append(seconds)
            alone[name].append(evaluation)
    difference = {
        name: float(np.abs(values[name] - values["plumbline"]).max()) for name in CONTENDERS if name != "plumbline"
    }
    result = {
        "num_images": num_images,
        "num_boxes": len(truth),
        "num_classes": NUM_CLASSES,
        "num_detections": len(found),
        "rounds": rounds,
        "values": dict(zip(NAMES, values["plumbline"].tolist(), strict=True)),
        "largest_difference": difference,
        "seconds_total": {name: _spread(total[name]) for name in CONTENDERS},
        "seconds_evaluation": {name: _spread(alone[name]) for name in CONTENDERS},
        "faster_total": {name: _ratios(total[name], total["plumbline"]) for name in difference},
        "faster_evaluation": {name: _ratios(alone[name], alone["plumbline"]) for name in difference},
    }
    _tell_map(result)
    return result


def _run(name: str, tables: Tables) -> tuple[Floats, float, float]:
    return run_plumbline(tables) if name == "plumbline" else run_coco(name, tables)


def _spread(values: Sequence[float]) -> list[float]:
    """Return median, lowest and highest."""
    return [round(value, 4) for value in (statistics.median(values), min(values), max(values))]


def _ratios(theirs: Sequence[float], ours: Sequence[float]) -> list[float]:
    return _spread([one / own for one, own in zip(theirs, ours, strict=True)])


def _tell_map(result: dict[str, Any]) -> None:
    tell(
        f"\nmAP of {result['num_images']:,} images, {result['num_boxes']:,} boxes, {result['num_detections']:,}"
        f" detections, {NUM_CLASSES} classes; one core, {result['rounds']} rounds\n"
    )
    tell("| | total s | plumbline is faster by | evaluation s | faster by | largest difference of the 12 numbers |")
    tell("|---|---:|---:|---:|---:|---:|")
    for name in CONTENDERS:
        cells = []
        for part in ("total", "evaluation"):
            cells.append(f"{result[f'seconds_{part}'][name][0]:.2f}")
            ratio = result[f"faster_{part}"].get(name)
            cells.append(f"{ratio[0]:.1f} ({ratio[1]:.1f} to {ratio[2]:.1f})" if ratio else "")
        difference = result["largest_difference"].get(name)
        cells.append("" if difference is None else f"{difference:.1e}")
        tell(f"| {name} | {' | '.join(cells)} |")
    tell("\n" + ", ".join(f"{name} {value:.4f}" for name, value in result["values"].items()))


def measure_bootstrap(num_images: int, samples: int, tried: int) -> dict[str, Any]:
    """Draw samples of images for two artifacts with plumbline, and a few of the same ones with pycocotools."""
    from plumbline.detect.scoring.intervals import bootstrap
    from plumbline.scores import BootstrapSettings

    truth, images = make_truth(num_images, seed=2), make_images(num_images)
    artifacts = {
        name: make_detections(truth, num_images, DETECTIONS_PER_IMAGE, seed, skill)
        for name, seed, skill in (("weights", 3, 1.0), ("int8", 4, 0.9))
    }
    settings = BootstrapSettings(samples=samples, level=0.95, seed=0, difficult="count")
    begin, begin_wall = time.process_time(), time.perf_counter()
    intervals = bootstrap(truth, images, CLASS_NAMES, artifacts, "weights", settings)
    seconds, wall = time.process_time() - begin, time.perf_counter() - begin_wall
    ways: dict[str, Callable[[pd.DataFrame, pd.DataFrame, npt.NDArray[np.int64]], tuple[Floats, float, float]]]
    ways = {"whole": _resample_whole, "accumulate": _resample_accumulate}
    weights = _first_samples(images, settings.seed, tried)
    result: dict[str, Any] = {
        "num_images": num_images,
        "num_boxes": len(truth),
        "num_detections": {name: len(found) for name, found in artifacts.items()},
        "samples": samples,
        "seconds": round(seconds, 2),
        "seconds_on_the_clock": round(wall, 2),
        "intervals": {
            name: {key: dataclasses.asdict(one) for key, one in own.items()} for name, own in intervals.items()
        },
        "pycocotools_samples_measured": tried,
        "pycocotools": {},
    }
    ours = {name: _own_samples(truth, found, images, weights) for name, found in artifacts.items()}
    for way, resample in ways.items():
        once = each = 0.0
        difference = 0.0
        for name, found in artifacts.items():
            theirs, first, rest = resample(truth, found, weights)
            once, each = once + first, each + rest
            difference = max(difference, float(np.abs(theirs - ours[name]).max()))
        extrapolated = once + each / tried * samples
        result["pycocotools"][way] = {
            "seconds_once": round(once, 2),
            "seconds_per_sample": round(each / tried, 3),
            "seconds_all_extrapolated": round(extrapolated, 1),
            "plumbline_is_faster_by_extrapolated": round(extrapolated / seconds, 1),
            "largest_difference": difference,
        }
    _tell_bootstrap(result)
    return result


def _first_samples(images: pd.DataFrame, seed: int, tried: int) -> npt.NDArray[np.int64]:
    """Return the first samples that the bootstrap draws, shape (tried, num_images)."""
    from plumbline.resampling import image_weights

    return np.concatenate(list(image_weights(images, tried, seed)))


def _own_samples(
    truth: pd.DataFrame, found: pd.DataFrame, images: pd.DataFrame, weights: npt.NDArray[np.int64]
) -> Floats:
    """Return map50_95, map50 and map75 of each sample, shape (samples, 3)."""
    from plumbline.detect.scoring.intervals import sampled_map
    from plumbline.detect.scoring.matching import ALL_AREAS, match

    matches = match(truth, found, images["image_id"].to_numpy(), NUM_CLASSES, areas=ALL_AREAS)
    return sampled_map(matches, images, weights).T


def _resample_whole(
    truth: pd.DataFrame, found: pd.DataFrame, weights: npt.NDArray[np.int64]
) -> tuple[Floats, float, float]:
    """Evaluate each sample as a data set of its own; return the values, and the seconds once and for all samples."""
    by_image = [dict(iter(frame.groupby("image_id"))) for frame in (truth, found)]
    values, seconds = [], 0.0
    for one in weights:
        begin = time.process_time()
        drawn = np.repeat(np.arange(len(one)), one).tolist()
        frames = [
            pd.concat([own[image].assign(image_id=place) for place, image in enumerate(drawn) if image in own])
            for own in by_image
        ]
        with contextlib.redirect_stdout(io.StringIO()):
            evaluator = _for_map(coco_evaluator("pycocotools", (*frames, range(len(drawn)))))
            evaluator.evaluate()
            evaluator.accumulate()
        values.append(_map_of(evaluator))
        seconds += time.process_time() - begin
    return np.array(values), 0.0, seconds


def _resample_accumulate(
    truth: pd.DataFrame, found: pd.DataFrame, weights: npt.NDArray[np.int64]
) -> tuple[Floats, float, float]:
    """Match once, and accumulate what came out of the images drawn; return as `_resample_whole`."""
    begin = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator = _for_map(coco_evaluator("pycocotools", (truth, found, range(weights.shape[1]))))
        evaluator.evaluate()
    matched = evaluator.evalImgs
    once = time.process_time() - begin
    values, begin = [], time.process_time()
    for one in weights:
        drawn = np.repeat(np.arange(len(one)), one).tolist()
        evaluator.evalImgs = [
            matched[class_id * len(one) + image] for class_id in range(NUM_CLASSES) for image in drawn
        ]
        with contextlib.redirect_stdout(io.StringIO()):
            evaluator.accumulate()
        values.append(_map_of(evaluator))
    return np.array(values), once, time.process_time() - begin


def _for_map(evaluator: Any) -> Any:
    """Leave out the areas and numbers of detections that no sample is asked for."""
    evaluator.params.areaRng, evaluator.params.areaRngLbl = evaluator.params.areaRng[:1], ["all"]
    evaluator.params.maxDets = [100]
    return evaluator


def _map_of(evaluator: Any) -> list[float]:
    precision = evaluator.eval["precision"][:, :, :, 0, 0]
    return [float(part[part > -1].mean()) for part in (precision, precision[0], precision[5])]


def _tell_bootstrap(result: dict[str, Any]) -> None:
    tell(
        f"\nPaired bootstrap of mAP, {result['samples']:,} samples of {result['num_images']:,} images with"
        f" {result['num_boxes']:,} boxes, {len(result['num_detections'])} artifacts of"
        f" {max(result['num_detections'].values()):,} detections; one core\n"
    )
    tell("| | s for all samples | plumbline is faster by | largest difference in a sample |")
    tell("|---|---:|---:|---:|")
    tell(f"| plumbline | {result['seconds']:.1f} | | |")
    for way, row in result["pycocotools"].items():
        tell(
            f"| pycocotools, {way} | {row['seconds_all_extrapolated']:,.0f} (extrapolated from"
            f" {result['pycocotools_samples_measured']} samples) | {row['plumbline_is_faster_by_extrapolated']:,.0f} |"
            f" {row['largest_difference']:.1e} |"
        )
    one = result["intervals"]["int8"]["map50_95"]
    tell(
        f"\nint8 {one['value']:.4f} [{one['low']:.4f}, {one['high']:.4f}], difference {one['difference']:+.4f}"
        f" [{one['difference_low']:+.4f}, {one['difference_high']:+.4f}]"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run both parts and write one JSON."""
    from plumbline.files import write_json
    from plumbline.machine import describe_machine

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a fiftieth of everything: a try, not a measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "bench_metrics.json")
    arguments = parser.parse_args(argv)
    results: dict[str, Any] = {
        "quick": arguments.quick,
        "machine": dataclasses.asdict(describe_machine()),
        "pinned_to_one_core": one_core(),
    }
    quick = arguments.quick
    results["map"] = measure_map(100 if quick else 5_000, 1 if quick else arguments.rounds)
    results["bootstrap"] = measure_bootstrap(20 if quick else 500, 20 if quick else 1_000, 1 if quick else 3)
    write_json(arguments.out, results)
    tell(f"\nAll numbers: {arguments.out}")
    return 0


if __name__ == "__main__":
    assert round(5_000 * BOXES_PER_IMAGE) == 36_000
    sys.exit(main())
