"""How does DVC bear 100,000 images as loose files, and as tar shards of 500?

In the project's root: `make bench-storage`, or `python benchmarks/storage.py --help`

Each part can be left out. All of them work on made-up images in temporary DVC projects with a cache and a state of
their own; layouts take turns, step by step, and CPU seconds stand beside wall seconds, because neighbours cost only
the second. Files are warm in the page cache unless a row says otherwise.

- ``local``: the stage's writing, the first `dvc commit`, `dvc status` with and without DVC's state, everything written
  again with the same bytes (what `ingest` does when a label changes), checkout, and disk space; loose files also as
  hard links to the cache.
- ``remote``: push to and fetch from an S3 server (moto in its own process, whose CPU time is told) into an empty cache,
  and then the weeks of a team: some images come, scattered or as a batch that sorts last, some change, some go. Shards
  are cut in order of arrival (append-only: what is superseded stays), by sorted name, and by sorted name where a name's
  hash says so, which the set of names alone decides.
- ``jobs``: push and fetch by DVC's `--jobs`, at once and with a store that answers 20 ms late.
- ``reading``: single images at random, from files and from shards by offset, and a training view of all of them.
"""

from __future__ import annotations

import argparse
import dataclasses
import fcntl
import json
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from counting_store import CountingStore
from storage_layouts import LAYOUTS, Collection, Image, make_images, write
from storage_project import Cost, Project, summary, timed
from storage_reading import measure_reading
from storage_tables import LOCAL_STEPS, REMOTE_STEPS, tables

ROOT = Path(__file__).parent.parent
PARTS = ("local", "remote", "jobs", "reading")
# Name -> layout and DVC's cache.type.
VARIANTS = {
    "loose": ("loose", "reflink,copy"),
    "loose_hardlink": ("loose", "hardlink"),
    "shards": ("arrival", "reflink,copy"),
    "shards_hardlink": ("arrival", "hardlink"),
}
FICLONE = 0x40049409  # linux/fs.h
Case = Callable[[Collection], Collection]


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """Images of one kind.

    Attributes:
        num_images: How many.
        mean_bytes: Of one.
        rounds: Of `local` and `reading`.
    """

    num_images: int
    mean_bytes: int
    rounds: int

    def begin(self) -> Collection:
        """Return a first data set."""
        return begin(self.num_images, self.mean_bytes)


@dataclasses.dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        sets: By name.
        variants: Of `local`, rows of `VARIANTS`.
        num_changed: Images of one incremental case.
        cases: Names of the incremental cases.
        layouts: Of `remote`.
        jobs: DVC's `--jobs`.
        delays_s: Of the store's answers, seconds.
        num_jobs_images: Images of `jobs`.
        num_read: Images read at random.
    """

    sets: dict[str, ImageSet]
    variants: tuple[str, ...]
    num_changed: int
    cases: tuple[str, ...]
    layouts: tuple[str, ...]
    jobs: tuple[int, ...]
    delays_s: tuple[float, ...]
    num_jobs_images: int
    num_read: int


CASES = ("added_scattered", "added_batch", "changed", "removed")
FULL = Scale(
    sets={"small": ImageSet(100_000, 4096, 1), "photographs": ImageSet(5000, 60_000, 3)},
    variants=tuple(VARIANTS),
    num_changed=100,
    cases=CASES,
    layouts=tuple(LAYOUTS),
    jobs=(2, 8, 32, 128),
    delays_s=(0.0, 0.02),
    num_jobs_images=1000,
    num_read=3000,
)
QUICK = Scale(
    sets={"small": ImageSet(600, 4096, 1)},
    variants=("loose_hardlink", "shards"),
    num_changed=3,
    cases=("changed",),
    layouts=("loose", "arrival"),
    jobs=(8,),
    delays_s=(0.002,),
    num_jobs_images=60,
    num_read=100,
)


def tell(text: str = "") -> None:
    """Print a line at once."""
    print(text, flush=True)  # noqa: T201


def begin(num_images: int, mean_bytes: int) -> Collection:
    """Return a first data set."""
    images = tuple(make_images(num_images, mean_bytes))
    return Collection(images, images)


def measure_local(folder: Path, kind: ImageSet, scale: Scale) -> dict[str, Any]:
    """Measure what needs no remote."""
    data = kind.begin()
    costs: dict[str, dict[str, list[Cost]]] = {name: {} for name in scale.variants}
    disk: dict[str, dict[str, int]] = {}
    written: dict[str, dict[str, int]] = {}
    for number in range(kind.rounds):
        projects = {name: Project(folder / name, cache_type=VARIANTS[name][1]) for name in costs}
        # One order in one round, the other in the next: what a step leaves to do for the disk hits all alike.
        order = list(projects.items())[:: -1 if number % 2 else 1]
        for step in LOCAL_STEPS:
            for name, project in order:
                cost = local_step(step, project, VARIANTS[name][0], data, written.setdefault(name, {}))
                costs[name].setdefault(step, []).append(cost)
            tell(f"  round {number + 1}: {step}: " + _seconds({name: costs[name][step][-1] for name in costs}))
        for name, project in order:
            disk[name] = project.disk_bytes()
            project.remove()
    return {
        name: {step: summary(found) for step, found in costs[name].items()}
        | {"disk_bytes": disk[name], **written[name]}
        for name in costs
    }


def local_step(step: str, project: Project, layout: str, data: Collection, written: dict[str, int]) -> Cost:
    """Do one step of `local`."""
    if step == "write":
        return timed(lambda: written.update(write(layout, data, project.data)))
    if step == "write_again":

        def write_again() -> None:
            project.lose_files()
            write(layout, data, project.data)

        return timed(write_again)
    if step == "status_cold":
        project.forget_state()
    if step == "checkout":
        project.lose_files()
    command = {"commit": "commit -f", "commit_again": "commit -f", "checkout": "checkout"}.get(step, "status")
    return project.dvc(*command.split())


def make_cases(num_changed: int, mean_bytes: int) -> dict[str, Case]:
    """Return what happens to a data set in a week."""
    rng = random.Random(1)  # noqa: S311 - no secret

    def some(data: Collection) -> set[str]:
        return {one.name for one in rng.sample(data.images, num_changed)}

    def new(batch: str) -> list[Image]:
        return make_images(num_changed, mean_bytes, batch, seed=1)

    return {
        "added_scattered": lambda data: data.add(new("")),
        "added_batch": lambda data: data.add(new("zz")),
        "changed": lambda data: data.change(some(data)),
        "removed": lambda data: data.remove(some(data)),
    }


def measure_remote(folder: Path, kind: ImageSet, scale: Scale) -> dict[str, Any]:
    """Measure the first push and pull, and then those of small changes."""
    data = kind.begin()
    results: dict[str, dict[str, Any]] = {layout: {"first": {}} for layout in scale.layouts}
    with CountingStore() as store:
        # moto keeps what is pushed in memory.
        clones = {layout: (_clone(folder, layout, store), _clone(folder, layout, store, "-b")) for layout in results}
        for layout in results:
            store.make_bucket(layout.replace("_", "-"))
        _everyone(results, clones, "first", data, None)
        for name, case in make_cases(scale.num_changed, kind.mean_bytes).items():
            if name in scale.cases:
                before, data = data, case(data)
                _everyone(results, clones, name, data, before)
        for pair in clones.values():
            for project in pair:
                project.remove()
    return results


def _clone(folder: Path, layout: str, store: CountingStore, suffix: str = "") -> Project:
    return Project(folder / (layout + suffix), store, layout.replace("_", "-"))


def _everyone(
    results: dict[str, dict[str, Any]],
    clones: dict[str, tuple[Project, Project]],
    case: str,
    data: Collection,
    before: Collection | None,
) -> None:
    """Let one clone of each layout write, commit and push, and the other take it, step by step."""
    for layout, (here, _) in clones.items():
        results[layout][case] = dict(write(layout, data, here.data, before))
    for step in REMOTE_STEPS if case == "first" else (step for step in REMOTE_STEPS if step != "push_again"):
        for layout, (here, there) in clones.items():
            if step == "fetch":
                there.take_lock_of(here)
            project = there if step in ("fetch", "checkout") else here
            cost = project.dvc(*("commit -f" if step == "commit" else step.removesuffix("_again")).split())
            results[layout][case][step] = summary([cost])
        tell(f"  {case}: {step}: " + _seconds({layout: results[layout][case][step] for layout in clones}))


def measure_jobs(folder: Path, scale: Scale, mean_bytes: int = 4096) -> list[dict[str, Any]]:
    """Measure push and fetch by the number of jobs and the store's delay."""
    data, rows = begin(scale.num_jobs_images, mean_bytes), []
    with CountingStore() as store:
        projects = {layout: Project(folder / f"jobs-{layout}", store) for layout in ("loose", "arrival")}
        for layout, project in projects.items():
            write(layout, data, project.data)
            project.dvc("commit", "-f")
        for delay in scale.delays_s:
            for jobs in scale.jobs:
                for layout, project in projects.items():
                    bucket = f"{layout}-{jobs}-{round(delay * 1000)}"
                    store.make_bucket(bucket)
                    project.point_to(bucket)
                    clone = Project(folder / "jobs-clone", store, bucket)
                    clone.take_lock_of(project)
                    store.delay(delay)
                    row: dict[str, Any] = {
                        "layout": layout, "jobs": jobs, "delay_s": delay, "num_images": len(data.images),
                        "push": summary([project.dvc("push", "-j", f"{jobs}")]),
                        "fetch": summary([clone.dvc("fetch", "-j", f"{jobs}")]),
                    }  # fmt: skip
                    store.delay(0)
                    clone.remove()
                    rows.append(row)
                    told = _seconds({step: row[step] for step in ("push", "fetch")})
                    tell(f"  {layout}, {jobs} jobs, {delay * 1000:.0f} ms: {told}")
        for project in projects.values():
            project.remove()
    return rows


def can_reflink(folder: Path) -> bool:
    """Say whether files of this disk can share their bytes until one is written to."""
    source, target = folder / "reflink-a", folder / "reflink-b"
    source.write_bytes(b"x" * 4096)
    try:
        with source.open("rb") as one, target.open("wb") as other:
            fcntl.ioctl(other.fileno(), FICLONE, one.fileno())
    except OSError:
        return False
    finally:
        source.unlink()
        target.unlink()
    return True


def _seconds(costs: dict[str, Cost]) -> str:
    def first(value: float | list[float]) -> float:
        return value[0] if isinstance(value, list) else value

    return ", ".join(
        f"{name} {first(cost['wall_s']):.2f} s (CPU {first(cost['cpu_s']):.2f})" for name, cost in costs.items()
    )


def measure(part: str, folder: Path, scale: Scale) -> Any:
    """Run one part."""
    if part == "jobs":
        return measure_jobs(folder, scale)
    found = {}
    for name, kind in scale.sets.items():
        tell(f"\n{part}: {name}, {kind.num_images:,} images of about {kind.mean_bytes:,} bytes")
        if part == "local":
            found[name] = measure_local(folder, kind, scale)
        elif part == "remote":
            found[name] = measure_remote(folder, kind, scale)
        else:
            found[name] = measure_reading(folder, kind.begin(), kind.rounds, scale.num_read)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts and write one JSON."""
    from plumbline.files import write_json
    from plumbline.machine import describe_machine

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default=",".join(PARTS), help=f"of {','.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="a hundredth of everything: a try, not a measurement")
    parser.add_argument(
        "--work", type=Path, default=ROOT / ".cache", help="a folder on the disk to measure, 10 GB free"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "bench_storage.json")
    arguments = parser.parse_args(argv)
    parts = arguments.parts.split(",")
    if unknown := set(parts).difference(PARTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    scale = QUICK if arguments.quick else FULL
    arguments.work.mkdir(parents=True, exist_ok=True)
    # Parts that are not run now keep the figures that stand in the file.
    results: dict[str, Any] = json.loads(arguments.out.read_text("utf-8")) if arguments.out.is_file() else {}
    for part in (part for part in PARTS if part in parts):
        machine = dataclasses.asdict(describe_machine())
        with tempfile.TemporaryDirectory(prefix="bench-", dir=arguments.work) as temporary:
            results[part] = {
                "quick": arguments.quick,
                "machine": machine,
                "can_reflink": can_reflink(Path(temporary)),
                "scale": dataclasses.asdict(scale),
                "found": measure(part, Path(temporary), scale),
            }
        write_json(arguments.out, results)
    tell("\n".join(tables(results)))
    tell(f"\nAll numbers: {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
