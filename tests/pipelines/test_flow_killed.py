"""``kill -9`` at any moment: the next run succeeds by itself and repeats what was interrupted, and nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from flow_runs import command, in_time
from ruamel.yaml import YAML

from pipelines.run_stage import FLOW_ROOT

# Each stage tells a file outside that it begins, works for a moment, and writes; all kinds of outputs are among them.
WORK = """
import sys, time
from pathlib import Path
name, log, *outs = sys.argv[1:]
def tell(word):
    with open(log, "a") as file:
        file.write(f"{name} {word}\\n")
tell("begins")
for out in outs:
    path = Path(out)
    if path.suffix:
        path.write_text(f'{{"made": {len(name)}}}')
    else:
        path.mkdir(exist_ok=True)
        for number in range(40):
            (path / f"{number}.txt").write_text(f"{name} {number}" * 20)
            time.sleep(0.01)
time.sleep(0.4)
tell("ends")
"""
STAGES = """
stages:
  ingest: {{cmd: python work.py ingest {log} data, deps: [work.py, source.txt], outs: [data]}}
  deal:
    cmd: python work.py deal {log} deal.json
    deps: [data, work.py]
    outs: [deal.json: {{cache: false, persist: true}}]
  train:
    cmd: python work.py train {log} model scores.json
    deps: [data, deal.json, work.py]
    outs: [model]
    metrics: [scores.json: {{cache: false}}]
  make:
    foreach: [one, two]
    do:
      cmd: python work.py make@${{item}} {log} made-${{item}}
      deps: [model, work.py]
      outs: ['made-${{item}}']
  report: {{cmd: python work.py report {log} report.json, deps: [made-one, made-two, scores.json], outs: [report.json]}}
"""
ALL = ["ingest", "deal", "train", "make@one", "make@two", "report"]


@pytest.fixture
def working(empty_project, tmp_path) -> tuple[Path, Path]:
    """A project of the stages above, and the file that they tell when they begin and end."""
    log = tmp_path / "log.txt"
    empty_project.write(dvc_yaml=STAGES.format(log=log), work_py=WORK, source_txt="s")
    return empty_project.root, log


def test_a_killed_flow_is_gone_on_with_and_prefect_is_told(working, prefect_api):
    from prefect.client.orchestration import get_client

    root, log = working
    run_id = kill_and_go_on(root, log, "train", "all", pause_s=0.1)

    state = get_client(sync_client=True).read_flow_run(run_id).state
    assert state.is_crashed()
    assert state.message == "killed; the next run went on from there"


@pytest.mark.long
@pytest.mark.parametrize("who", ["the flow", "the flow and dvc"])
def test_it_does_not_matter_what_of_it_is_killed(working, prefect_api, who):
    root, log = working
    kill_and_go_on(root, log, "train", who, pause_s=0.1)


@pytest.mark.long
@pytest.mark.parametrize("name", ALL)
def test_killed_at_each_stage(working, prefect_api, name):
    root, log = working
    kill_and_go_on(root, log, name, "the flow", pause_s=0.2)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(12))
def test_killed_at_any_moment(working, prefect_api, seed):
    root, log = working
    moment = random.Random(seed)
    who = moment.choice(["the flow", "the flow and dvc", "all"])
    kill_and_go_on(root, log, moment.choice(ALL), who, pause_s=moment.uniform(0, 2.5))


def kill_and_go_on(root: Path, log: Path, name: str, who: str, pause_s: float) -> str:
    """Kill a flow some time after a stage has begun, then run it again, and compare what ran and what is there.

    Returns:
        The killed flow run's id.
    """
    flow = command(root, here())
    in_time(lambda: f"{name} begins" in told(log) or None, flow)
    time.sleep(pause_s)
    record: dict[str, str] = {}
    with contextlib.suppress(FileNotFoundError):  # it may have ended by now
        record = json.loads((root / ".dvc/tmp/plumbline-flow.json").read_text())
    kill(root, flow, who)
    flow.communicate()
    in_time(lambda: who == "the flow and dvc" or not living(root) or None)
    recorded = set(entries(root))

    again = command(root, here())
    output, _ = again.communicate(timeout=600)

    assert again.returncode == 0, output
    assert not living(root)
    counts = Counter(line.split()[0] for line in told(log) if line.endswith("begins"))
    # What was interrupted runs twice (a command without its dvc may even begin after the kill); what was recorded does
    # not.
    assert not {stage for stage, count in counts.items() if count > 1} & recorded
    assert set(counts) == set(ALL)
    assert max(counts.values()) <= 2
    assert entries(root) == serial_entries(root, log)
    assert subprocess.run([sys.executable, "-m", "dvc", "status", "--json"], cwd=root, capture_output=True, check=True,
                          text=True).stdout.strip() == "{}"  # fmt: skip
    return str(record.get("flow_run_id", ""))


def here() -> dict[str, str]:
    """Where the tests' server is."""
    from prefect.settings import get_current_settings

    return {"PREFECT_API_URL": get_current_settings().api.url}


def told(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def living(root: Path) -> list[psutil.Process]:
    """What a flow on this project has started and that still runs."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(FLOW_ROOT) == os.fspath(root) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def arguments_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # it has ended
        return []


def kill(root: Path, flow: subprocess.Popen[str], who: str) -> None:
    dvc = [process for process in living(root) if "dvc_command.py" in " ".join(arguments_of(process))]
    victims = {"the flow": [], "the flow and dvc": dvc, "all": living(root)}[who]
    for process in victims:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.suspend()  # so that none sees another's end
    flow.kill()
    for process in victims:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def entries(root: Path) -> dict[str, object]:
    path = root / "dvc.lock"
    return YAML(typ="safe").load(path.read_text())["stages"] if path.exists() else {}


def serial_entries(root: Path, log: Path) -> dict[str, object]:
    """The entries that ``dvc repro`` makes of the same project, one stage after the other, in another folder."""
    other = root.parent / "serial"
    other.mkdir()
    for name in ("dvc.yaml", "params.yaml", "work.py", "source.txt"):
        (other / name).write_text((root / name).read_text())
    before = log.read_text()
    for arguments in (["init", "--no-scm", "--quiet"], ["repro", "--quiet"]):
        subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=other, check=True)
    log.write_text(before)
    return entries(other)
