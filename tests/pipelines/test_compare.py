"""The working tree against another commit, read through DVC: from the cache, from a remote, or a clear no."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from ruamel.yaml import YAML
from scored_runs import run_of, shuffled

from pipelines.compare import main, read_run
from plumbline.files import write_json
from plumbline.manifest import write_dataset
from plumbline.score_comparison import ScoredRun, compare_runs
from plumbline.score_comparison_text import as_json
from plumbline.scores import BootstrapSettings

ROOT = Path(__file__).parent.parent.parent
WHO = ("-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "core.hooksPath=/dev/null")


def call(root: Path, *command: str) -> str:
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout.strip()


def write_run(root: Path, run: ScoredRun) -> None:
    """Write what the line writes, as far as a comparison reads it, and let DVC and git keep it."""
    params = YAML(typ="safe").load((ROOT / "params.yaml").read_text())
    params |= {"task": run.task, "targets": {"int8": {}}}
    params["report"] |= {"bootstrap_samples": 50, "confidence_level": 0.9, "seed": 1}
    with (root / "params.yaml").open("w") as file:
        YAML(typ="safe").dump(params, file)
    shutil.rmtree(root / "data", ignore_errors=True)
    (root / "data" / "validated").mkdir(parents=True)
    write_dataset(run.data, root / "data" / "validated")
    splits = pd.DataFrame({"image_id": run.images["image_id"], "split": "test", "group": 0})
    splits.to_parquet(root / "data" / "splits.parquet")
    files = [root / "data" / "validated", root / "data" / "splits.parquet"]
    for name, predictions in run.predictions.items():
        folder = root / "reports" / "evaluate" / name
        folder.mkdir(parents=True, exist_ok=True)
        predictions.to_parquet(folder / "predictions.parquet")
        write_json(folder / "metrics.json", {"num_images": len(run.images)})
        files.append(folder / "predictions.parquet")
    call(root, sys.executable, "-m", "dvc", "add", "--quiet", *map(str, files))
    call(root, "git", "add", "-A")
    call(root, "git", *WHO, "commit", "--quiet", "-m", "run")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A project with an empty commit, the commit `old`, a `classifier`, and newer scores in the working tree."""
    root = tmp_path_factory.mktemp("compare") / "project"
    root.mkdir()
    call(root, "git", "init", "--quiet")
    call(root, "git", *WHO, "commit", "--quiet", "--allow-empty", "-m", "empty")
    call(root, "git", "tag", "empty")
    call(root, sys.executable, "-m", "dvc", "init", "--quiet")
    write_run(root, run_of("classify"))
    call(root, "git", "tag", "classifier")
    write_run(root, old_run())
    call(root, "git", "tag", "old")
    write_run(root, run_of("detect", num_images=30))
    return root


def old_run() -> ScoredRun:
    return shuffled(run_of("detect", seed=4, num_images=30), list(range(5, 30)), [2, 0, 1], 2, name="old")


@pytest.fixture
def project(made, tmp_path) -> Path:
    shutil.copytree(made, tmp_path / "project", symlinks=True)
    return tmp_path / "project"


def compare(root: Path, capsys, *arguments: str) -> tuple[int, str, str]:
    code = main(["--root", str(root), *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_commit_is_read_as_it_was_written(made):
    run, wanted = read_run(made, "old"), old_run()
    assert (run.name, run.task, run.data.class_names) == ("old", "detect", ("cow", "cat", "dog"))
    pd.testing.assert_frame_equal(run.images, wanted.images)
    for name in ("weights", "int8"):
        pd.testing.assert_frame_equal(run.predictions[name], wanted.predictions[name])


def test_the_working_tree_is_compared_with_a_commit(made, tmp_path, capsys):
    arguments = ("--rev", "old", "--json", str(tmp_path / "a.json"), "--markdown", str(tmp_path / "a.md"))
    code, out, err = compare(made, capsys, *arguments)

    assert (code, err) == (0, "")
    settings = BootstrapSettings(samples=50, level=0.9, seed=1, difficult="count")
    wanted = as_json(compare_runs(old_run(), run_of("detect", num_images=30), settings))
    values = json.loads((tmp_path / "a.json").read_text())
    assert values == wanted
    assert values["artifacts"]["weights"]["map50_95"]["more_than_chance"] is True
    assert "mAP50-95 is higher than old for weights, int8, by more than chance (90 % intervals)." in out
    assert "Left out: 2 images of old that here did not score." in out
    assert "| int8 | mAP50-95 |" in (tmp_path / "a.md").read_text()
    assert call(made, "git", "status", "--porcelain") == ""


def test_two_commits_are_compared_and_one_does_not_differ_from_itself(made, tmp_path, capsys):
    code, out, _ = compare(made, capsys, "--rev", "classifier", "--here", "classifier", "--json", str(tmp_path / "a"))
    assert code == 0
    assert "Top-1 differs from classifier by no more than chance" in out
    top1 = json.loads((tmp_path / "a").read_text())["artifacts"]["int8"]["top1"]
    assert (top1["difference_low"], top1["difference_high"], top1["more_than_chance"]) == (0, 0, False)


def test_level_and_samples_can_be_said(made, tmp_path, capsys):
    arguments = ("--rev", "old", "--json", str(tmp_path / "a.json"), "--level", "0.99", "--samples", "20")
    assert "99 % interval" in compare(made, capsys, *arguments)[1]
    assert json.loads((tmp_path / "a.json").read_text())["bootstrap_samples"] == 20


def test_without_its_cache_a_commit_is_a_clear_no_and_a_remote_helps(project, tmp_path, capsys):
    call(project, sys.executable, "-m", "dvc", "remote", "add", "--quiet", "--default", "r", str(tmp_path / "remote"))
    shutil.move(project / ".dvc" / "cache", tmp_path / "kept")

    code, out, err = compare(project, capsys, "--rev", "old")
    assert (code, out) == (1, "")
    assert err.startswith("error: old: data/validated/images.parquet is neither in DVC's cache nor in a remote")
    assert "dvc fetch --all-commits" in err
    assert err.count("\n") == 1

    # A remote is laid out as a cache; the commit is older than it, and does not name it.
    shutil.move(tmp_path / "kept" / "files", tmp_path / "remote" / "files")
    assert compare(project, capsys, "--rev", "old")[0] == 0


def test_a_cache_of_another_place_serves_an_old_commit(project, tmp_path, capsys):
    shutil.move(project / ".dvc" / "cache", tmp_path / "kept")
    call(project, sys.executable, "-m", "dvc", "cache", "dir", "--local", "--quiet", str(tmp_path / "kept"))
    assert compare(project, capsys, "--rev", "old")[0] == 0


@pytest.mark.parametrize(
    ("rev", "parts"),
    [
        ("nothing", ("no commit 'nothing'", "branch, tag or DVC experiment")),
        ("empty", ("empty: has no params.yaml", "run dvc repro")),
        ("classifier", ("classifier: its task is classify, expected detect as in here",)),
    ],
)
def test_what_cannot_be_compared_is_one_line(made, capsys, rev, parts):
    code, out, err = compare(made, capsys, "--rev", rev)
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for part in parts:
        assert part in err


def test_a_commits_broken_file_is_named_as_git_does(project, capsys):
    (project / "params.yaml").write_text("a: [\n")
    call(project, "git", *WHO, "commit", "--quiet", "-am", "broken")
    call(project, "git", "checkout", "--quiet", "HEAD~1", "--", "params.yaml")
    code, _, err = compare(project, capsys, "--rev", "HEAD")
    assert code == 1
    assert err.startswith("error: HEAD:params.yaml:")


@pytest.mark.parametrize("arguments", [("--level", "95"), ("--samples", "1")])
def test_wrong_arguments_are_refused(made, capsys, arguments):
    with pytest.raises(SystemExit):
        main(["--rev", "old", *arguments])
    assert "expected" in capsys.readouterr().err
