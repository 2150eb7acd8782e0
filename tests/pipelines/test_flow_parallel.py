"""Stages at the same time: within the machine's resources, tried again where params say so, ended when asked."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from flow_runs import command, in_time, run_flow
from ruamel.yaml import YAML

# Tells when it begins and ends, and which GPU it was given; fails as often as it is told to.
WORK = """
import os, sys, time
from pathlib import Path
name, log, seconds, fail = sys.argv[1:]
tries = Path(log + "-" + name)
tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
with open(log, "a") as file:
    file.write(f"{name} begins {time.monotonic()} {os.environ.get('CUDA_VISIBLE_DEVICES', '')}\\n")
until = time.monotonic() + 300
while time.monotonic() < until and Path(log).read_text().count("begins") < int(os.environ.get("TOGETHER", "0")):
    time.sleep(0.05)
time.sleep(float(seconds))
with open(log, "a") as file:
    file.write(f"{name} ends {time.monotonic()} -\\n")
if len(tries.read_text()) <= int(fail):
    sys.exit(f"{name} is not ready")
Path(name + ".txt").write_text(name)
"""


def write_stages(project, log: Path, seconds: float = 1.0, **stages: str) -> None:
    """A project with a stage for each keyword; its value is what its entry says beside cmd and outs."""
    lines = [
        f"  {name}: {{cmd: python work.py {name} {log} {seconds} {fails}, outs: [{name}.txt]{more}}}"
        for name, (fails, more) in ((name, _parts(text)) for name, text in stages.items())
    ]
    project.write(dvc_yaml="stages:\n" + "\n".join(lines) + "\n", work_py=WORK)


def _parts(text: str) -> tuple[int, str]:
    fails, _, more = text.partition(";")
    return int(fails or 0), f", {more}" if more else ""


def set_flow(project, **values: object) -> None:
    yaml = YAML()
    path = project.root / "params.yaml"
    params = yaml.load(path.read_text())
    params["flow"].update(values)
    with path.open("w") as file:
        yaml.dump(params, file)


def spans(log: Path) -> dict[str, tuple[float, float]]:
    """Stage -> when it began and ended; one clock for all processes of a machine."""
    times: dict[str, list[float]] = {}
    for line in log.read_text().splitlines():
        name, _word, at, *_ = line.split(" ")
        times.setdefault(name, []).append(float(at))
    return {name: (at[0], at[-1]) for name, at in times.items()}


def overlap(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def test_independent_stages_run_at_once_and_one_that_takes_all_runs_alone(
    empty_project, prefect_api, tmp_path, monkeypatch
):
    log = tmp_path / "log"
    monkeypatch.setenv("TOGETHER", "2")  # the first two end when both have begun
    set_flow(empty_project, limits={"cpu": 2, "gpu": 0})
    write_stages(empty_project, log, 1.0, a="0;", b="0;", alone="0;meta: {cpu: all}", c="0;meta: {cpu: 2}")

    assert run_flow(empty_project.root).flow_run().state.is_completed()

    ran = spans(log)
    assert overlap(ran["a"], ran["b"])
    for exclusive in ("alone", "c"):
        assert not any(overlap(ran[exclusive], ran[name]) for name in ran if name != exclusive)


def test_each_stage_sees_a_gpu_of_its_own(empty_project, prefect_api, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    log = tmp_path / "log"
    set_flow(empty_project, limits={"cpu": 8, "gpu": 0})
    write_stages(empty_project, log, 1.0, **dict.fromkeys(("a", "b", "c"), "0;meta: {gpu: 1}"))

    assert run_flow(empty_project.root).flow_run().state.is_completed()

    ran = spans(log)
    given = {line.split(" ")[0]: line.split(" ")[3] for line in log.read_text().splitlines() if "begins" in line}
    assert set(given.values()) == {"4", "7"}
    assert not any(
        overlap(ran[one], ran[other]) for one in ran for other in ran if one < other and given[one] == given[other]
    )


def test_a_need_that_this_machine_cannot_meet_stops_before_anything_runs(empty_project, prefect_api, tmp_path):
    set_flow(empty_project, limits={"cpu": 2, "gpu": 0})
    write_stages(empty_project, tmp_path / "log", a="0;", b="0;meta: {cpu: 3}")

    state = run_flow(empty_project.root).flow_run().state

    assert state.is_failed()
    assert "stage 'b' needs 3 of cpu, this machine has 2 to give" in state.message
    assert not (tmp_path / "log").exists()


def test_what_may_be_retried_is_and_each_try_is_seen(empty_project, prefect_api, tmp_path):
    set_flow(empty_project, retries={"flaky@*": 0, "fla*": 2})
    write_stages(empty_project, tmp_path / "log", 0.1, flaky="2;", firm="1;")

    history = run_flow(empty_project.root)

    state = history.flow_run().state
    assert state.is_failed()
    assert state.message.splitlines()[0] == "stage 'firm' failed: firm is not ready"
    assert history.stages(4) == {
        "flaky": "Failed",
        "flaky (try 2)": "Failed",
        "flaky (try 3)": "Completed",
        "firm": "Failed",
    }
    assert any("flaky is not ready; tried again in 0.5 s" in line for line in history.logs(4))


def test_cancelled_in_the_ui_nothing_is_left_running(empty_project, prefect_api, tmp_path):
    from prefect.client.orchestration import get_client
    from prefect.settings import get_current_settings
    from prefect.states import Cancelling

    log = tmp_path / "log"
    write_stages(empty_project, log, 600, a="0;", b="0;")
    flow = command(empty_project.root, {"PREFECT_API_URL": get_current_settings().api.url})
    in_time(lambda: (log.exists() and log.read_text().count("begins") == 2) or None, flow)
    record = json.loads((empty_project.root / ".dvc/tmp/plumbline-flow.json").read_text())

    client = get_client(sync_client=True)
    client.set_flow_run_state(record["flow_run_id"], Cancelling())
    output, _ = flow.communicate(timeout=600)

    assert flow.returncode == 1, output
    assert client.read_flow_run(record["flow_run_id"]).state.is_cancelled()
    assert output.splitlines()[-1] == "error: cancelled; the running stages were ended"
    assert "ends" not in log.read_text()
    assert not any(os.fspath(log) in _read(path) for path in Path("/proc").glob("[0-9]*/cmdline"))


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:
        return ""


LARGE = """
import os, sys
from pathlib import Path
name, *needs = sys.argv[1:]
size = sum(path.stat().st_size for need in needs for path in Path(need).glob("*"))
folder = Path("out") / name
folder.mkdir(parents=True)
for number in range(8):
    seed = f"{name} {number} {size}".encode()
    (folder / f"{number}.bin").write_bytes((seed * (4_000_000 // len(seed) + 1))[:4_000_000])
Path(f"{name}.json").write_text(f'{{"size": {size}}}')
"""


@pytest.mark.long
def test_dvc_lock_is_a_serial_runs_twenty_times_over(empty_project, prefect_api, tmp_path):
    """14 stages of 32 MB each: hashing and copying them holds DVC's lock while others want it."""
    needs = {f"wide{number}": ["root"] for number in range(10)}
    needs = {
        "root": [],
        **needs,
        "left": ["wide0", "wide1", "wide2"],
        "right": ["wide3", "wide9"],
        "end": ["left", "right"],
    }
    stages = {
        name: {
            "cmd": " ".join(["python", "work.py", name, *(f"out/{need}" for need in its)]),
            "deps": ["work.py", *(f"out/{need}" for need in its)],
            "outs": [f"out/{name}"],
            "metrics": [{f"{name}.json": {"cache": False}}],
        }
        for name, its in needs.items()
    }
    with (empty_project.root / "dvc.yaml").open("w") as file:
        YAML().dump({"stages": stages}, file)
    empty_project.write(work_py=LARGE)
    set_flow(empty_project, limits={"cpu": 4, "gpu": 0})
    empty_project.dvc("repro", "--quiet")
    serial = lock_of(empty_project.root)
    assert len(serial) == 14

    for number in range(20):
        forget(empty_project.root)
        state = run_flow(empty_project.root).flow_run().state
        assert state.message == "stages: 14 ran, 0 were up to date", number
        assert lock_of(empty_project.root) == serial, number
        assert empty_project.dvc("status", "--json").strip() == "{}", number


def lock_of(root: Path) -> dict[str, object]:
    return YAML(typ="safe").load((root / "dvc.lock").read_text())["stages"]


def forget(root: Path) -> None:
    """Remove all that a run has made, DVC's cache and run-cache too."""
    for name in ("dvc.lock", "out", ".dvc/cache"):
        subprocess.run(["rm", "-rf", os.fspath(root / name)], check=True)
    for metric in root.glob("*.json"):
        metric.unlink()
