"""How fast are images scanned, in how much memory, and how long do a million of them take in the tables?

In the project's root: `make bench-data`, or `python benchmarks/data_scan.py --help`

Three parts, each of which can be left out:

- ``speed``: the full scan against `cv2.imread`, cleanvision's default checks, and ultralytics' check before a training
  (which decodes no image, so sees no damage but a JPEG without its end);
  the same files, one process and one thread each, in turns (A B C A B C ...), with warm files. A ratio is that of two
  turns that follow one another; shown is the median of the rounds, with the smallest and the largest.
- ``many``: 100,000 images (links to the few hundred real ones) by `scan_source` in two processes, with the most memory
  that all processes together held.
- ``manifest``: `manifest_scale.py`, a million images and ten million boxes.

cleanvision does not fit the main environment: it gets its own from requirements-bench.txt, below .cache.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from bench_images import ROOT, make_sets
from peak_memory import PeakMemory

HERE = Path(__file__).parent
PARTS = ("speed", "many", "manifest")
CONTENDERS = ("plumbline", "imread", "imread-tuned", "cleanvision", "ultralytics")
NAMES = {
    "plumbline": "plumbline, full scan",
    "imread": "cv2.imread",
    "imread-tuned": "cv2.imread, told to keep its memory",
    "cleanvision": "cleanvision, default checks",
    "ultralytics": "ultralytics, headers and label",
}
# One core each: a library that counts in threads of its own would measure the machine.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")
# By default glibc gives large blocks back to the system after each image; then imread spends half its time on getting
# them again. Few set these, so plain imread is what the scan is measured by; with them it is measured, too.
KEEPS_MEMORY = {
    "MALLOC_TRIM_THRESHOLD_": "268435456",
    "MALLOC_MMAP_THRESHOLD_": "268435456",
    "MALLOC_TOP_PAD_": "67108864",
}


def tell(text: str = "") -> None:
    """Print a line at once."""
    print(text, flush=True)  # noqa: T201


def bench_python() -> Path:
    """Return the interpreter of cleanvision's environment, which is made when it is not there or not current."""
    requirements = HERE / "requirements-bench.txt"
    venv = ROOT / ".cache" / "bench-venv"
    stamp = venv / f".made-{hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]}"
    python = venv / "bin" / "python"
    if not stamp.is_file():
        tell("Making cleanvision's environment (450 MB), once.")
        subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)
        install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", requirements]
        subprocess.run(install, check=True)
        stamp.touch()
    return python


class Contender:
    """A child process that does one round at a time."""

    def __init__(self, name: str, folder: Path) -> None:
        python = bench_python() if name == "cleanvision" else Path(sys.executable)
        command = [python, HERE / "scan_contender.py", name, folder]
        environment = {**os.environ, **ONE_THREAD, **(KEEPS_MEMORY if name == "imread-tuned" else {})}
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._name = name
        self._answer()

    def round(self) -> float:
        """Return the seconds of one look through all files."""
        requests = self._pipe(self._process.stdin)
        requests.write("go\n")
        requests.flush()
        return float(self._answer())

    def close(self) -> None:
        """End the process."""
        self._pipe(self._process.stdin).close()
        self._process.wait()

    def _answer(self) -> str:
        answer = self._pipe(self._process.stdout).readline()
        if not answer:
            raise SystemExit(f"error: {self._name} ended with {self._process.wait()}; run scan_contender.py by hand")
        return answer

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe


def measure_set(folder: Path, names: Sequence[str], rounds: int) -> dict[str, Any]:
    """Let the contenders look through a folder in turns.

    Returns:
        For each its images per second (median, lowest, highest), and how many times faster the full scan is.
    """
    files = sorted(folder.glob("*.jpg"))
    contenders = {name: Contender(name, folder) for name in names}
    for contender in contenders.values():
        contender.round()  # warm files, warm code
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, contender in contenders.items():
            seconds[name].append(contender.round())
    for contender in contenders.values():
        contender.close()
    result: dict[str, Any] = {
        "num_images": len(files),
        "mean_kilobytes": round(sum(path.stat().st_size for path in files) / len(files) / 1000, 1),
        "rounds": rounds,
    }
    for name, taken in seconds.items():
        rates = [len(files) / one for one in taken]
        ratios = [one / own for one, own in zip(taken, seconds["plumbline"], strict=True)]
        result[name] = {"images_per_s": _spread(rates), "scan_is_faster_by": _spread(ratios)}
    return result


def _spread(values: Sequence[float]) -> list[float]:
    """Return median, lowest and highest."""
    return [round(value, 3) for value in (statistics.median(values), min(values), max(values))]


def measure_speed(folder: Path, names: Sequence[str], rounds: int, num_images: int) -> dict[str, Any]:
    """Measure every set of images and print a table."""
    results = {}
    for kind, images in make_sets(folder, num_images).items():
        result = results[kind] = measure_set(images, names, rounds)
        tell(f"\n{kind}: {result['num_images']} images of {result['mean_kilobytes']} kB, {rounds} rounds\n")
        tell("| one core | images/s | full scan is faster by |")
        tell("|---|---:|---:|")
        for name in names:
            rate, ratio = result[name]["images_per_s"], result[name]["scan_is_faster_by"]
            shown = "" if name == "plumbline" else f"{ratio[0]:.2f} ({ratio[1]:.2f} to {ratio[2]:.2f})"
            tell(f"| {NAMES[name]} | {rate[0]:,.0f} ({rate[1]:,.0f} to {rate[2]:,.0f}) | {shown} |")
    return results


def measure_many(folder: Path, num_images: int, workers: int, num_real: int = 364) -> dict[str, Any]:
    """Scan links to a few hundred images by shards."""
    from plumbline.scan_shards import scan_source
    from plumbline.sources import open_source

    real = sorted(path for images in make_sets(folder, num_real).values() for path in images.glob("*.jpg"))
    links = folder / "links"
    for index in range(num_images):
        link = links / f"{index // 1000:04d}" / f"{index:07d}.jpg"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(real[index % len(real)])
    tell(f"\nScanning {num_images:,} links to {len(real)} images with {workers} workers")

    def progress(done: int, total: int) -> None:
        if done * 10 // total > (done - 500) * 10 // total:
            tell(f"  {done:,} of {total:,} images scanned")

    with PeakMemory(children=True, every_s=0.1) as memory:
        source = open_source(str(links))
        scans = scan_source(
            source,
            list(source.files()),
            folder / "work",
            shard_size=500,
            workers=workers,
            cluster="",
            copy=False,
            progress=progress,
        )
    assert len(scans) == num_images
    assert all(scans[name].readable for name in list(scans)[:: max(num_images // 1000, 1)])
    result = {
        "num_images": num_images,
        "workers": workers,
        "seconds": round(memory.seconds, 1),
        "images_per_s": round(num_images / memory.seconds, 1),
        "peak_megabytes_all_processes": round(memory.peak_bytes / 1e6, 1),
    }
    tell(
        f"{result['seconds']} s, {result['images_per_s']:,.0f} images/s, at most"
        f" {result['peak_megabytes_all_processes']:,.0f} MB in all processes together"
    )
    return result


def measure_manifest(num_images: int) -> list[dict[str, Any]]:
    """Run `manifest_scale.py` in a process of its own, whose memory is then only its own."""
    with tempfile.TemporaryDirectory(prefix="bench-manifest-") as folder:
        out = Path(folder, "rows.json")
        command = [sys.executable, HERE / "manifest_scale.py", "--images", str(num_images), "--out", out]
        subprocess.run(command, check=True)
        return json.loads(out.read_text(encoding="utf-8"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts and write one JSON."""
    from plumbline.files import write_json
    from plumbline.machine import describe_machine

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {','.join(PARTS)}")
    parser.add_argument("--contenders", default=",".join(CONTENDERS), help="plumbline and those to compare it with")
    parser.add_argument("--quick", action="store_true", help="a hundredth of everything: a try, not a measurement")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--workers", type=int, default=2, help="of the part `many`")
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "bench_data.json")
    arguments = parser.parse_args(argv)
    part_names, names = arguments.parts.split(","), arguments.contenders.split(",")
    if unknown := [*set(part_names).difference(PARTS), *set(names).difference(CONTENDERS)]:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    if "plumbline" not in names:
        parser.error("--contenders lacks plumbline, which all are compared with")
    rounds = 2 if arguments.quick else arguments.rounds
    results: dict[str, Any] = {"quick": arguments.quick, "machine": dataclasses.asdict(describe_machine())}
    cache = ROOT / ".cache"
    cache.mkdir(exist_ok=True)
    for part in (part for part in PARTS if part in part_names):
        with tempfile.TemporaryDirectory(prefix="bench-", dir=cache) as temporary:
            if part == "speed":
                results[part] = measure_speed(Path(temporary), names, rounds, 12 if arguments.quick else 364)
            elif part == "many":
                num_images = 2_000 if arguments.quick else 100_000
                results[part] = measure_many(Path(temporary), num_images, arguments.workers)
            else:
                results[part] = measure_manifest(10_000 if arguments.quick else 1_000_000)
    write_json(arguments.out, results)
    tell(f"\nAll numbers: {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
