"""What the flow costs and gains beside ``dvc repro``, with a Prefect server running.

In the project's root: `make bench-flow`, or `python benchmarks/flow.py --help`. Two questions, each in one run in which
what is compared takes turns:

- A fan-out: independent stages that use one core each, so long that starting them does not count. The wall time of
  `python -m pipelines.flow` over that of `dvc repro`; what each made is deleted before the next, and both must leave
  the same dvc.lock.
- Nothing to do: graphs of several sizes. `python -m pipelines.flow` beside a bare empty Prefect flow plus twice
  `dvc status`.

Each is a process of its own, from its start to its end. CPU seconds of the processes are told beside the wall's: on a
machine that does something else too, they say what was the neighbours'.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipelines.server import set_up_prefect, start_server
from plumbline.files import write_json
from plumbline.machine import describe_machine

ROOT = Path(__file__).parent.parent
BARE = "from prefect import flow\n@flow\ndef bare(): pass\nbare()\n"
# One core's work: the same number of rounds each time, whatever else the machine does.
WORK = """
import hashlib, sys
name, rounds = sys.argv[1], int(sys.argv[2])
digest = name.encode()
for _ in range(rounds):
    digest = hashlib.sha256(digest * 2000).digest()
open(f"{name}.txt", "w").write(digest.hex())
"""
REPRO = [sys.executable, "-m", "dvc", "repro", "--quiet"]
STATUS = [sys.executable, "-m", "dvc", "status", "--quiet"]


def tell(text: str = "") -> None:
    """Print a line at once."""
    print(text, flush=True)  # noqa: T201


def flow_command(project: Path) -> list[str]:
    """Return the command of `make flow`, for another project."""
    return [sys.executable, "-m", "pipelines.flow", "--root", os.fspath(project)]


def timed(command: Sequence[str], cwd: Path) -> tuple[float, float]:
    """Run a command; return its wall time and the CPU time of it and all it started, in seconds."""
    before, start = os.times(), time.perf_counter()
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - start, os.times()
    if done.returncode not in (0, 1 if command == STATUS else 0):
        raise SystemExit(f"{' '.join(command)}: {done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, cpu


def make_project(folder: Path, stages: dict[str, Any]) -> Path:
    """Make a DVC project with these stages in a new folder."""
    folder.mkdir(parents=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], cwd=folder, check=True)
    params = YAML(typ="safe").load((ROOT / "params.yaml").read_text("utf-8"))
    with (folder / "params.yaml").open("w") as file:
        YAML().dump({"flow": params["flow"]}, file)
    with (folder / "dvc.yaml").open("w") as file:
        YAML().dump({"stages": stages}, file)
    (folder / "work.py").write_text(WORK)
    return folder


def rounds_of(seconds: float, folder: Path) -> int:
    """Return how many rounds of `WORK` take one core so long on this machine."""
    trial = 4000
    folder.mkdir()
    script = folder / "work.py"
    script.write_text(WORK)
    _, cpu = timed([sys.executable, os.fspath(script), "trial", str(trial)], folder)
    return max(1, int(trial * seconds / cpu))


def fan_out(folder: Path, stages: int, seconds: float, turns: int) -> dict[str, Any]:
    """Measure independent stages of one core, serially and in the flow, in turns."""
    rounds = rounds_of(seconds, folder / "trial")
    entry = {
        f"s{number}": {"cmd": f"python work.py s{number} {rounds}", "deps": ["work.py"], "outs": [f"s{number}.txt"]}
        for number in range(stages)
    }
    project = make_project(folder / "fan-out", entry)
    results: dict[str, list[tuple[float, float]]] = {"dvc repro": [], "flow": []}
    locks = []
    for turn in range(turns):
        for name, command in (("dvc repro", REPRO), ("flow", flow_command(project))):
            forget(project)
            results[name].append(timed(command, project if name == "dvc repro" else ROOT))
            locks.append(YAML(typ="safe").load((project / "dvc.lock").read_text())["stages"])
            tell(f"  turn {turn + 1}: {name}: {results[name][-1][0]:.1f} s (CPU {results[name][-1][1]:.1f} s)")
    assert all(lock == locks[0] for lock in locks), "the flow's dvc.lock is not the serial one's"
    ratios = [flow[0] / serial[0] for flow, serial in zip(results["flow"], results["dvc repro"], strict=True)]
    return {
        "stages": stages,
        "seconds_of_a_stage": seconds,
        "wall_s": {name: [round(wall, 2) for wall, _ in times] for name, times in results.items()},
        "cpu_s": {name: [round(cpu, 2) for _, cpu in times] for name, times in results.items()},
        "ratio": round(statistics.median(ratios), 3),
        "same_lock": True,
    }


def forget(project: Path) -> None:
    """Remove all that a run has made, DVC's cache and run-cache too."""
    (project / "dvc.lock").unlink(missing_ok=True)
    shutil.rmtree(project / ".dvc" / "cache", ignore_errors=True)
    for made in project.glob("s*.txt"):
        made.unlink()


def nothing_to_do(folder: Path, sizes: Sequence[int], turns: int) -> list[dict[str, Any]]:
    """Measure a flow in which every stage is up to date, beside what it is made of, in turns."""
    bare = folder / "bare.py"
    bare.write_text(BARE)
    rows = []
    for size in sizes:
        first = {"s0": {"cmd": "echo 0 > s0.txt", "outs": ["s0.txt"]}}
        rest = {
            f"s{n}": {"cmd": f"echo {n} > s{n}.txt", "deps": ["s0.txt"], "outs": [f"s{n}.txt"]} for n in range(1, size)
        }
        project = make_project(folder / f"nothing-{size}", {**first, **rest})
        subprocess.run(REPRO, cwd=project, check=True, capture_output=True)
        commands = {"bare": ([sys.executable, os.fspath(bare)], ROOT), "status": (STATUS, project)}
        commands["flow"] = (flow_command(project), ROOT)
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(turns):
            for name, (command, cwd) in commands.items():
                times[name].append(timed(command, cwd))
        wall = {name: statistics.median(wall for wall, _ in its) for name, its in times.items()}
        cpu = {name: statistics.median(cpu for _, cpu in its) for name, its in times.items()}
        row = {
            "stages": size,
            "wall_s": {name: round(value, 2) for name, value in wall.items()},
            "cpu_s": {name: round(value, 2) for name, value in cpu.items()},
            "allowed_s": round(wall["bare"] + 2 * wall["status"], 2),
            "inside": wall["flow"] <= wall["bare"] + 2 * wall["status"],
        }
        rows.append(row)
        tell(
            f"  {size} stages, nothing to do: flow {wall['flow']:.2f} s, allowed {row['allowed_s']:.2f} s (bare"
            f" {wall['bare']:.2f}, dvc status {wall['status']:.2f}); CPU: {cpu['flow']:.2f},"
            f" {cpu['bare'] + 2 * cpu['status']:.2f}"
        )
    return rows


def main() -> int:
    """Measure and write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "bench_flow.json")
    parser.add_argument("--quick", action="store_true", help="a try: short stages, small graphs, one turn")
    parser.add_argument("--turns", type=int, default=3, help="of the fan-out (default: %(default)s)")
    arguments = parser.parse_args()
    quick = arguments.quick
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["DVC_SITE_CACHE_DIR"] = os.fspath(folder / "site-cache")
        os.environ["DVC_NO_ANALYTICS"] = "1"
        os.environ["PREFECT_HOME"] = os.fspath(folder / "prefect")
        os.environ.pop("PREFECT_API_URL", None)
        set_up_prefect(folder, os.environ)
        tell(f"server: {start_server(os.environ)}")
        result: dict[str, Any] = {"quick": quick, "machine": dataclasses.asdict(describe_machine())}
        result["fan_out"] = fan_out(folder, 3 if quick else 6, 2.0 if quick else 15.0, 1 if quick else arguments.turns)
        tell(f"fan-out: the flow takes {result['fan_out']['ratio']} of dvc repro's wall time")
        result["nothing_to_do"] = nothing_to_do(folder, [3] if quick else [1, 10, 30, 100], 1 if quick else 7)
    write_json(arguments.out, result)
    tell(f"written: {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
