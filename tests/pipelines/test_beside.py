"""A run with other params beside the working tree's: nothing here changes but reports/NAME, and it goes on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines import beside
from pipelines.beside import main
from plumbline.errors import ParamsError

WHO = (("user.name", "test"), ("user.email", "test@example.com"), ("core.hooksPath", "/dev/null"))
# `split` keeps a list as the line's split stage does; `train` is slow, has a work folder and can be made to fail.
STAGES = """
stages:
  split:
    cmd: python split.py '${dataset.source}'
    deps: ['${dataset.source}', split.py]
    outs:
      - data/splits.csv: {cache: false, persist: true}
      - data/dealt.txt
  train:
    cmd: python train.py ${task} ${train.small.epochs}
    deps: [data/dealt.txt, train.py]
    outs: [models/weights.txt]
  report:
    cmd: >-
      mkdir -p reports/report reports/evaluate && cp models/weights.txt reports/report/report.md
      && cp models/weights.txt reports/evaluate/predictions.parquet
      && echo '{"score":${train.small.epochs}}' > reports/score.json
    deps: [models/weights.txt]
    outs:
      - reports/report/report.md: {cache: false}
      - reports/evaluate/predictions.parquet
    metrics:
      - reports/score.json: {cache: false}
"""
PARAMS = """\
task: detect  # what is looked for
dataset:
  source: images  # names of images
train:
  small: {epochs: 2, pretrained: none}
"""
SPLIT = """
import sys
from hashlib import sha256
from pathlib import Path
names = sorted(path.name for path in Path(sys.argv[1]).iterdir())
table = Path("data/splits.csv")
rows = dict(reversed(line.split(",")[:2]) for line in table.read_text().splitlines()[1:]) if table.exists() else {}
table.parent.mkdir(exist_ok=True)
lines = [f"{sha256(name.encode()).hexdigest()},{name},{'val' if name in rows else 'train'}" for name in names]
table.write_text("\\n".join(["sha256,path,split", *lines]) + "\\n")
Path("data/dealt.txt").write_text(table.read_text())
"""
TRAIN = """
import os, sys, time
from pathlib import Path
work = Path(".cache/train/epoch")
work.parent.mkdir(parents=True, exist_ok=True)
done = int(work.read_text()) if work.exists() else 0
for epoch in range(done + 1, int(sys.argv[2]) + 1):
    print(f"epoch {epoch} after {done}", flush=True)
    if epoch == 13:
        sys.exit("error: the thirteenth is not to be had")
    work.with_suffix(".new").write_text(str(epoch))
    work.with_suffix(".new").replace(work)
    time.sleep(float(os.environ.get("EPOCH_S", "0.05")))
work.unlink()
Path("models").mkdir(exist_ok=True)
Path("models/weights.txt").write_text(" ".join(sys.argv[1:]))
"""


def call(root: Path, *command: str) -> str:
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A project in git and DVC whose line has run once."""
    root = tmp_path_factory.mktemp("beside") / "project"
    (root / "images").mkdir(parents=True)
    for name in ("a.png", "b.png"):
        (root / "images" / name).write_text(name)
    files = {"dvc.yaml": STAGES, "params.yaml": PARAMS, "split.py": SPLIT, "train.py": TRAIN}
    files[".gitignore"] = "/.cache/\n/reports/evaluate/\n__pycache__/\n/outside/\n"
    for name, text in files.items():
        (root / name).write_text(text)
    call(root, "git", "init", "--quiet")
    for key, value in WHO:
        call(root, "git", "config", key, value)
    call(root, sys.executable, "-m", "dvc", "init", "--quiet")
    call(root, sys.executable, "-m", "dvc", "config", "core.autostage", "true")
    call(root, sys.executable, "-m", "dvc", "repro", "--quiet")
    call(root, "git", "add", "-A")
    call(root, "git", "commit", "--quiet", "-m", "first")
    return root


@pytest.fixture
def project(made, tmp_path, monkeypatch) -> Path:
    # The real check knows the real stages' sections.
    monkeypatch.setattr(beside, "check_params", lambda *_: None)
    shutil.copytree(made, tmp_path / "project", symlinks=True)
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def run(capfd, *values: str, name: str = "other") -> tuple[int, str, str]:
    code = main([name, *(f"--set={value}" for value in values)])
    captured = capfd.readouterr()
    return code, captured.out, captured.err


def experiment(root: Path) -> str:
    """The commit of DVC's experiment `other` on what is checked out. Source: dvc/repo/experiments/refs.py."""
    head = call(root, "git", "rev-parse", "HEAD")
    return call(root, "git", "rev-parse", "--verify", f"refs/exps/{head[:2]}/{head[2:]}/other")


def state(root: Path) -> dict[str, bytes]:
    """Every file of the project, but for what is git's, DVC's and the runs' own."""
    apart = (".git", ".cache", ".dvc")
    files = [
        path for path in sorted(root.rglob("*")) if path.is_file() and path.relative_to(root).parts[0] not in apart
    ]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def test_only_its_reports_are_new_here_and_it_is_an_experiment(project, capfd):
    before, head = state(project), call(project, "git", "rev-parse", "HEAD")
    code, out, err = run(capfd, "task=classify", "train.small.epochs=3")

    assert (code, err) == (0, "")
    assert "epoch 3 after 0" in out
    assert "git add" not in out  # DVC's hints are about another folder
    after = state(project)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"reports/other/report/report.md", "reports/other/score.json"}
    assert after["reports/other/report/report.md"] == b"classify 3"
    assert call(project, "git", "rev-parse", "HEAD") == head
    assert call(project, "git", "status", "--porcelain") == "?? reports/other/"
    assert call(project, "git", "branch", "--list").split() == ["*", call(project, "git", "branch", "--show-current")]
    params = call(project, "git", "show", f"{experiment(project)}:params.yaml")
    assert "task: classify # what is looked for" in params
    assert "epochs: 3" in params


def test_again_does_nothing_and_another_value_only_what_follows(project, capfd):
    run(capfd, "train.small.epochs=3")
    assert "epoch" not in run(capfd, "train.small.epochs=3")[1]
    code, out, _ = run(capfd, "train.small.epochs=4")
    assert code == 0
    assert "epoch 4 after 0" in out
    assert "Running stage 'split'" not in out
    assert (project / "reports/other/report/report.md").read_text() == "detect 4"


def test_the_working_trees_code_runs_committed_or_not(project, capfd):
    (project / "train.py").write_text(TRAIN + "import new\n")
    (project / "new.py").write_text("print('new module', flush=True)\n")
    (project / "gone.py").write_text("")
    assert "new module" in run(capfd)[1]
    (project / "gone.py").unlink()
    call(project, "git", "add", "-A")
    call(project, "git", "commit", "--quiet", "-m", "second")
    assert run(capfd, "train.small.epochs=3")[0] == 0
    assert not (project / ".cache/beside/other/gone.py").exists()
    # The experiment stands under the commit that is checked out, with the files git did not know.
    assert "new.py" in call(project, "git", "ls-tree", "--name-only", experiment(project)).splitlines()


def test_a_failed_stage_says_why_and_leaves_the_reports(project, capfd):
    (project / "reports/other").mkdir()
    (project / "reports/other/score.json").write_text("of an earlier run")
    before = state(project)
    code, out, err = run(capfd, "train.small.epochs=14")
    assert code == 1
    assert "error: the thirteenth is not to be had" in out
    assert err.startswith("error: other: a stage failed, see above; reports/other is as it was")
    assert err.count("\n") == 1
    assert state(project) == before
    # It goes on where it stopped.
    (project / "train.py").write_text(TRAIN.replace("epoch == 13", "epoch == 99"))
    assert "epoch 13 after 12" in run(capfd, "train.small.epochs=14")[1]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_it_ends_what_it_started_and_goes_on_later(project, capfd, number, code):
    # A background process of a shell without a terminal ignores SIGINT, and its children do.
    script = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from pipelines import beside; beside.check_params = lambda *_: None; sys.exit(beside.main())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, "other", "--set=train.small.epochs=12"],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "EPOCH_S": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 3 "):
            process.send_signal(number)
            break
    process.stdout.read()
    assert process.wait(timeout=60) == code
    reached = int((project / ".cache/beside/other/.cache/train/epoch").read_text())
    time.sleep(1.5)
    assert int((project / ".cache/beside/other/.cache/train/epoch").read_text()) == reached
    assert 2 <= reached < 12
    assert not (project / "reports/other").exists()
    if number == signal.SIGINT:
        assert f"epoch {reached + 1} after {reached}" in run(capfd, "train.small.epochs=12")[1]


def test_paths_outside_of_git_lead_to_the_same_place(project, capfd, tmp_path):
    (project / "outside").mkdir()  # ignored by git
    (project / "outside" / "c.png").write_text("c")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "d.png").write_text("d")
    code, _, err = run(capfd, "dataset.source=../elsewhere", "train.small.pretrained=outside/c.png")
    assert (code, err) == (0, "")
    assert "d.png" in (project / ".cache/beside/other/data/splits.csv").read_text()
    params = (project / ".cache/beside/other/params.yaml").read_text()
    assert f"source: {tmp_path / 'elsewhere'} " in params
    assert f"pretrained: {project / 'outside/c.png'}" in params


def test_images_keep_their_split_there_and_those_of_here_count(project, capfd, tmp_path):
    ours, its = project / "data/splits.csv", project / ".cache/beside/other/data/splits.csv"
    assert "Running stage" not in run(capfd)[1]  # what ran here is not run again there
    assert its.read_text() == ours.read_text()
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "c.png").write_text("c")
    run(capfd, f"dataset.source={tmp_path / 'c'}")
    of_others = its.read_text()
    assert "c.png" in of_others
    beside.carry_assignment(ours, its)  # images of another data set: neither list is touched
    assert its.read_text() == of_others
    its.write_text(ours.read_text().replace(",train", ",test") + "1,z.png,val\n")
    beside.carry_assignment(ours, its)
    assert its.read_text() == ours.read_text() + "1,z.png,val\n"


@pytest.mark.long
def test_a_copied_project_leaves_the_first_ones_folder_alone(project, capfd, tmp_path, monkeypatch):
    run(capfd, "train.small.epochs=3")
    first = state(project / ".cache/beside/other")
    shutil.copytree(project, tmp_path / "copy", symlinks=True)
    monkeypatch.chdir(tmp_path / "copy")
    (tmp_path / "copy" / "train.py").write_text(TRAIN + "# other\n")
    assert run(capfd, "train.small.epochs=5")[0] == 0
    assert (tmp_path / "copy/reports/other/report/report.md").read_text() == "detect 5"
    assert state(project / ".cache/beside/other") == first
    monkeypatch.chdir(project)
    shutil.rmtree(project / ".cache")  # it may be deleted
    assert run(capfd, "train.small.epochs=6")[0] == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Other", "the name 'Other' cannot be used, expected small letters"),
        ("../x", "cannot be used"),
        ("report", "that of a folder of reports/"),
        ("evaluate", "that of a folder of reports/"),
    ],
)
def test_names_that_cannot_be(project, capfd, name, message):
    code, _, err = run(capfd, name=name)
    assert code == 1
    assert message in err
    assert err.count("\n") == 1


def test_params_are_checked_first(project, capfd, monkeypatch):
    def refuse(*_: object) -> None:
        raise ParamsError("--set train.epoch=3: unknown parameter")

    monkeypatch.setattr(beside, "check_params", refuse)
    assert run(capfd, "train.epoch=3")[::2] == (1, "error: --set train.epoch=3: unknown parameter\n")
    assert not (project / ".cache/beside/other").exists()


def test_without_an_identity_git_is_told_of_first(project, capfd, monkeypatch):
    call(project, "git", "config", "--unset", "user.email")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    code, out, err = run(capfd)
    assert (code, out) == (1, "")
    assert "git has no user.email" in err
    assert "git config --global user.email" in err


def test_a_second_run_of_a_name_waits_for_nobody(project, capfd):
    place = project / ".cache/beside/other"
    with beside._alone(place):
        code, _, err = run(capfd)
    assert code == 1
    assert "a run of this name is under way" in err
