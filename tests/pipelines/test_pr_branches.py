"""Pull requests of a small project, from the flow's run of each branch to the comment on a forge."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import cv2
import pytest
from flow_runs import run_flow
from forge_jobs import environment, set_environment
from forge_server import Forge, forge_server
from git_project import output
from review_project import BRANCHES, CHANGES, GATES, TARGETS, ReviewProject, read_yaml, run_project, write_yaml

from pipelines import pr_comment, pr_report
from plumbline.review.changes import Change, Verdict
from plumbline.review.review import Review, read_review

MARKER = "<!-- plumbline:review -->"
STEMS = {"curves", "confusion", "latency", "changed"}
INTERVALS = ("map50_95", "map50", "map75", "precision", "recall", "f1")
EXIT_CODES = {"better": 0, "worse": 1, "noise": 0, "gone": 1}
FAILED = {
    "better": set(),
    "worse": {"floor", "no_loss", "int8", "latency"},
    "noise": set(),
    "gone": {"floor", "no_loss", "int8", "latency", "size"},
}


@pytest.fixture(scope="module")
def flown(tmp_path_factory, prefect_api) -> ReviewProject:
    """The project with its branches, each run by the flow and committed; ``main`` is checked out."""
    project = ReviewProject.make(tmp_path_factory.mktemp("flown") / "project")
    run_and_commit(project, "main")
    for name in BRANCHES:
        project.branch(name)
        run_and_commit(project, name)
        project.checkout("main")
    return project


def run_and_commit(project: ReviewProject, name: str) -> None:
    state = run_flow(project.root).flow_run().state
    assert state.is_completed(), state.message
    project.commit(f"The line's results of {name}")


@pytest.fixture(scope="module")
def reports(flown, tmp_path_factory) -> dict[str, Path]:
    """Branch -> the folder of its report."""
    folders = {}
    for name in BRANCHES:
        folder = tmp_path_factory.mktemp("reports") / name
        code = pr_report.main(["--root", str(flown.root), "--base", "main", "--head", name, "--out", str(folder)])
        assert code == EXIT_CODES[name], name
        folders[name] = folder
    return folders


@pytest.fixture(scope="module")
def small(tmp_path_factory, alone) -> ReviewProject:
    """The project with ``main`` and ``worse`` alone, without the flow; not to be changed."""
    return run_project(tmp_path_factory.getbasetemp())


@pytest.fixture
def forge() -> Iterator[Forge]:
    with forge_server() as served:
        yield served


@pytest.fixture(params=["github", "gitlab"])
def runner(request, forge, monkeypatch) -> Forge:
    """A forge, and the environment of its runner on the pull request 12."""
    set_environment(monkeypatch, environment(request.param, forge))
    return forge


def rows(review: Review, kind: str, metric: str) -> dict[str, Change]:
    return {row.artifact: row for row in review.changes if (row.kind, row.metric) == (kind, metric)}


def verdicts(review: Review, kind: str, metrics: tuple[str, ...]) -> set[Verdict]:
    return {row.verdict for row in review.changes if row.kind == kind and row.metric in metrics}


def top_of(comment: str) -> list[str]:
    """The comment's lines above what is folded."""
    return comment.partition("<details>")[0].splitlines()


def bullets(comment: str) -> list[str]:
    """What matters most; the notes below are told with other dots."""
    return [line for line in top_of(comment) if line.startswith(("- 🟢", "- 🔴", "- ❌"))]


# What the flow's runs of the branches are judged as


@pytest.mark.long
def test_the_numbers_are_those_that_the_line_committed(flown, reports):
    for name, folder in reports.items():
        review = read_review(folder)
        commits = [flown.git("rev-parse", revision) for revision in ("main", name)]
        assert [review.base.commit, review.head.commit] == commits
        assert (review.base.name, review.head.name, review.num_images) == ("main", name, 36)
        for artifact, row in rows(review, "score", "map50_95").items():
            if name == "gone" and artifact == "onnx-int8":
                continue
            path = f"reports/evaluate/{artifact}/metrics.json"
            told = [json.loads(flown.git("show", f"{commit}:{path}"))["map50_95"] for commit in commits]
            assert [row.base, row.head] == pytest.approx(told, abs=1e-9)
            assert row.low is None or row.low <= told[1] - told[0] <= row.high
        latency = rows(review, "device", "latency_ms_p50")["onnx-fp32"]
        assert (latency.base, latency.head) == (10.0, CHANGES[name].get("latency_ms", 10.0))


@pytest.mark.long
def test_every_row_has_its_verdict(reports):
    review = {name: read_review(folder) for name, folder in reports.items()}
    named = ("weights", *TARGETS)

    for name, verdict in (("better", Verdict.BETTER), ("worse", Verdict.WORSE), ("noise", Verdict.WITHIN_NOISE)):
        found = rows(review[name], "score", "map50_95")
        assert {artifact: found[artifact].verdict for artifact in named} == dict.fromkeys(named, verdict)
    assert verdicts(review["better"], "score", INTERVALS) == {Verdict.BETTER, Verdict.WITHIN_NOISE}
    assert verdicts(review["worse"], "score", INTERVALS) == {Verdict.WORSE}
    assert verdicts(review["noise"], "score", INTERVALS) == {Verdict.WITHIN_NOISE}
    devices = {name: verdicts(one, "device", ("latency_ms_p50",)) for name, one in review.items()}
    same, gone = {Verdict.UNCHANGED}, {Verdict.UNCHANGED, Verdict.GONE}
    assert devices == {"better": same, "worse": {Verdict.WORSE}, "noise": same, "gone": gone}
    for kind, metric in (("score", "map50_95"), ("device", "latency_ms_p50"), ("device", "size_bytes")):
        found = rows(review["gone"], kind, metric)
        assert (found["onnx-int8"].verdict, found["onnx-int8"].head) == (Verdict.GONE, None)
        assert found["onnx-fp32"].verdict == Verdict.UNCHANGED
    for name in ("better", "worse", "noise"):
        params = {row.metric: str(row.head) for row in review[name].changes if row.kind == "params"}
        assert params == {f"network.{key}": str(value) for key, value in CHANGES[name].items()}
        assert not any(row.is_significant for row in review[name].changes if row.kind in ("data", "validation"))


@pytest.mark.long
def test_the_gates_decide(reports):
    for name, folder in reports.items():
        review = read_review(folder)
        assert [gate.name for gate in review.gates] == sorted(GATES)
        assert {gate.name for gate in review.gates if not gate.passed} == FAILED[name]
        assert review.state == ("failed" if FAILED[name] else "passed")


@pytest.mark.long
def test_the_comment_is_short_at_the_top_and_folded_below(reports):
    comments = {name: (folder / "comment.md").read_text() for name, folder in reports.items()}
    for name, text in comments.items():
        top = top_of(text)
        assert top[0] == MARKER
        assert text.count(MARKER) == 1
        mark, count = ("❌", f"{len(FAILED[name])} of 6 gates failed") if FAILED[name] else ("✅", "all 6 gates passed")
        assert top[2].startswith(f"### {mark} plumbline: {count}")
        assert len(bullets(text)) <= 3
        assert len(top) < 25
        assert text.count("<details>") == text.count("</details>") >= 5
        assert {f"({stem}.png)" for stem in STEMS} == set(re.findall(r"\([a-z]+\.png\)", text))
    assert [line.split(":")[0] for line in bullets(comments["better"])] == ["- 🟢 better"] * 3
    assert [line.split(":")[0] for line in bullets(comments["worse"])] == ["- 🔴 worse"] * 3
    assert any("mAP50-95" in line for line in bullets(comments["worse"]))
    assert bullets(comments["noise"]) == []
    # Numbers without an interval differ, and nobody knows by how much they do by chance.
    said = r"No score, latency p50 or size is known to be better or worse; the rest: \d+ changed\."
    assert any(re.fullmatch(said, line) for line in top_of(comments["noise"]))
    (gone,) = bullets(comments["gone"])
    assert gone.startswith("- ❌ gone: onnx-int8")
    assert "network.noise\\_px" in comments["worse"].partition("Params")[2]


@pytest.mark.long
def test_the_pictures_decode_and_differ_between_the_branches(reports):
    for name, folder in reports.items():
        assert read_review(folder).pictures == {stem: f"{stem}.png" for stem in STEMS}
        for stem in STEMS:
            data = (folder / f"{stem}.png").read_bytes()
            assert data.startswith(b"\x89PNG\r\n\x1a\n")
            height, width, channels = cv2.imread(str(folder / f"{stem}.png")).shape
            assert (width >= 600, 60 <= height <= 4000, channels) == (True, True, 3), (name, stem)
            assert len(data) <= 4_000_000
    for stem in STEMS:
        for one, other in combinations(("better", "worse", "noise"), 2):
            assert (reports[one] / f"{stem}.png").read_bytes() != (reports[other] / f"{stem}.png").read_bytes()
    # Images where the model got worse: there are such, and in the better branch none or fewer.
    heights = {name: cv2.imread(str(folder / "changed.png")).shape[0] for name, folder in reports.items()}
    assert heights["worse"] > heights["better"]


@pytest.mark.long
def test_the_page_needs_no_network(reports):
    for name, folder in reports.items():
        page = (folder / "report.html").read_text("utf-8")
        assert_self_contained(page)
        assert page.count("data:image/png;base64,") >= len(STEMS)
        assert all(word in page for word in ("onnx-int8", "weights", *GATES, name))


def assert_self_contained(page: str) -> None:
    links = re.findall(r"""(?:src|href|data|poster|action)\s*=\s*["']?([^"'\s>]+)""", page)
    assert {link.split(",")[0] for link in links if not link.startswith("#")} == {"data:image/png;base64"}
    assert not re.search(r"@import|url\((?!data:)|<script[^>]+src|fetch\(|XMLHttpRequest", page)


@pytest.mark.long
def test_the_working_tree_is_judged_as_its_commit(flown, reports, tmp_path):
    project = flown.copy(tmp_path / "project")
    project.checkout("worse")
    code = pr_report.main(["--root", str(project.root), "--base", "main", "--out", str(tmp_path / "out")])
    here, there = read_review(tmp_path / "out"), read_review(reports["worse"])
    assert code == 1
    assert (here.head.commit, here.head.is_clean) == (there.head.commit, True)
    assert here.changes == there.changes
    assert here.gates == there.gates


@pytest.mark.long
def test_each_branch_has_one_comment_and_one_status(flown, reports, runner):
    for name, folder in reports.items():
        sha = flown.git("rev-parse", name)
        runner.pulls.clear()
        runner.add_pull(12, sha)
        assert pr_comment.main(["--report", str(folder), "--pauses", "0,0"]) == 0
        assert pr_comment.main(["--report", str(folder), "--pauses", "0,0"]) == 0
        (comment,) = runner.comments[12]
        wanted = (folder / "comment.md").read_text()
        assert top_of(comment["body"]) == top_of(wanted)
        assert comment["body"].count("![") == len(STEMS)
        assert not re.search(r"\([a-z]+\.png\)", comment["body"])  # a forge has them elsewhere
        state = {"passed": ("success", "success"), "failed": ("failure", "failed")}[read_review(folder).state]
        assert runner.statuses[sha][-1]["state"] in state


@pytest.mark.long
def test_one_pull_request_that_gets_worse_and_better_has_one_comment(flown, reports, runner):
    bodies = []
    for name in ("worse", "better"):
        sha = flown.git("rev-parse", name)
        if 12 in runner.pulls:
            runner.pulls[12]["sha"] = sha
        else:
            runner.add_pull(12, sha)
        assert pr_comment.main(["--report", str(reports[name]), "--pauses", "0,0"]) == 0
        (comment,) = runner.comments[12]
        bodies.append((comment["id"], comment["body"].splitlines()[2]))
    assert bodies[0][0] == bodies[1][0]
    assert [body.split(":")[0] for _, body in bodies] == ["### ❌ plumbline", "### ✅ plumbline"]


# The same of one branch without the flow, and what is wrong with a repository


def test_a_branch_that_is_worse_is_refused(small, forge, monkeypatch, tmp_path, capsys):
    arguments = ["--root", str(small.root), "--base", "main", "--head", "worse", "--out", str(tmp_path / "out")]
    assert pr_report.main(arguments) == 1
    told = capsys.readouterr()
    assert told.err == ""
    assert told.out.splitlines()[-1].startswith("4 of 6 gates failed: ")
    review = read_review(tmp_path / "out")
    assert {gate.name for gate in review.gates if not gate.passed} == FAILED["worse"]
    assert verdicts(review, "score", INTERVALS) == {Verdict.WORSE}
    assert bullets((tmp_path / "out/comment.md").read_text())[0].startswith("- 🔴 worse: ")
    assert_self_contained((tmp_path / "out/report.html").read_text("utf-8"))
    assert small.git("status", "--porcelain") == ""


def report(project: ReviewProject, capsys, base: str, *more: str) -> str:
    """Run the command where it must say what is wrong in one line, and leave that line alone."""
    out = project.root / "report"
    assert pr_report.main(["--root", str(project.root), "--base", base, "--out", str(out), *more]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert told.count("\n") == 1
    assert [path.name for path in out.iterdir()] == ["error.txt"]
    assert told.removeprefix("error: ").startswith((out / "error.txt").read_text().strip().removesuffix(" ..."))
    return told


def test_to_a_base_of_before_the_line_was_run_everything_is_new(small, tmp_path, capsys):
    arguments = ["--root", str(small.root), "--base", "unrun", "--head", "main", "--out", str(tmp_path / "out")]
    assert pr_report.main(arguments) == 0
    assert "unrun: has no " in capsys.readouterr().out
    review = read_review(tmp_path / "out")
    assert "unrun has no results of the line: all of main is new." in review.notes
    assert (
        verdicts(review, "score", ("map50_95", "f1"))
        == verdicts(review, "device", ("latency_ms_p50",))
        == {Verdict.NEW}
    )
    (images,) = rows(review, "data", "num_images").values()
    assert (images.base, images.head) == (0, 60)
    assert not [row for row in review.changes if row.kind == "params"]
    for stem in STEMS:
        assert cv2.imread(str(tmp_path / "out" / f"{stem}.png")) is not None


def test_a_head_in_which_the_line_was_not_run_has_no_numbers(small, capsys):
    told = report(small, capsys, "main", "--head", "unrun")
    assert re.match(r"error: unrun: has no \S+, expected what the line writes; run dvc repro", told)


def test_a_base_that_a_rewritten_history_has_lost_is_told(small, tmp_path, capsys):
    project = small.copy(tmp_path / "project")
    lost = project.git("rev-parse", "worse")
    project.git("branch", "--quiet", "-D", "worse")
    project.git("reflog", "expire", "--expire=now", "--all")
    project.git("gc", "--quiet", "--prune=now")
    told = report(project, capsys, lost, "--head", "main")
    assert f"no commit {lost!r}" in told
    assert "git fetch" in told


@pytest.fixture
def shallow(small, tmp_path) -> ReviewProject:
    """A clone of ``worse`` with one commit, which shares the cache."""
    url = small.root.as_uri()
    output(tmp_path, "git", "clone", "--quiet", "--depth", "1", "--branch", "worse", url, str(tmp_path / "shallow"))
    project = ReviewProject(tmp_path / "shallow")
    project.dvc("cache", "dir", "--local", "--quiet", str(small.root / ".dvc" / "cache"))
    return project


def test_a_shallow_clone_says_what_to_fetch(shallow, capsys):
    told = report(shallow, capsys, "main", "--head", "HEAD")
    assert "no commit 'main'" in told
    assert "git fetch --unshallow" in told
    assert "fetch-depth: 0" in told
    assert "GIT_DEPTH: 0" in told


def cached(project: ReviewProject, path: str) -> Path:
    """The cache's object of a file that dvc.lock names."""
    stages = read_yaml(project.root / "dvc.lock")["stages"].values()
    (md5,) = {out["md5"] for stage in stages for out in stage["outs"] if out["path"] == path}
    return project.root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]


def test_a_missing_cache_object_is_named_with_what_brings_it(small, tmp_path, capsys):
    project = small.copy(tmp_path / "project")
    path = "reports/evaluate/onnx-int8/predictions.parquet"
    cached(project, path).unlink()
    told = report(project, capsys, "main", "--head", "worse")
    assert f"main: {path} is neither in DVC's cache nor in a remote" in told
    assert "dvc pull" in told
    assert "dvc fetch" in told


def test_an_old_report_does_not_stand_for_one_that_could_not_be_made(small, tmp_path, capsys, runner):
    arguments = ["--root", str(small.root), "--head", "worse", "--out", str(tmp_path / "out")]
    assert pr_report.main([*arguments, "--base", "main"]) == 1
    assert pr_report.main([*arguments, "--base", "nowhere"]) == 2
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["error.txt"]
    runner.add_pull(12, small.git("rev-parse", "worse"))
    assert pr_comment.main(["--report", str(tmp_path / "out"), "--pauses", "0,0"]) == 0
    (comment,) = runner.comments[12]
    assert "### ⚪ plumbline: no report" in comment["body"]
    assert "no commit 'nowhere'" in comment["body"]
    assert pr_report.main([*arguments, "--base", "main"]) == 1
    assert "error.txt" not in [path.name for path in (tmp_path / "out").iterdir()]


def test_missing_labels_are_named_too(small, tmp_path, capsys):
    project = small.copy(tmp_path / "project")
    shutil.rmtree(project.root / ".dvc/cache")
    told = report(project, capsys, "main", "--head", "worse")
    assert "main: " in told
    assert " is neither in DVC's cache nor in a remote" in told


def test_one_missing_file_of_the_base_is_an_error_and_no_new_beginning(small, tmp_path, capsys):
    """Else every gate on a drop would pass, as there would be nothing to compare with."""
    project = small.copy(tmp_path / "project")
    project.git("rm", "--quiet", "reports/evaluate/onnx-int8/metrics.json")
    project.commit("One file less")
    told = report(project, capsys, "HEAD", "--head", "worse")
    assert "HEAD: has no reports/evaluate/onnx-int8/metrics.json" in told


def test_a_change_does_not_choose_how_it_is_judged(small, tmp_path):
    project = small.copy(tmp_path / "project")
    project.checkout("worse")
    params = read_yaml(project.root / "params.yaml")
    params["review"]["latency_noise"] = 0.99
    params["report"]["bootstrap_samples"] = 10
    write_yaml(project.root / "params.yaml", params)
    assert pr_report.main(["--root", str(project.root), "--base", "main", "--out", str(tmp_path / "out")]) == 1
    review = read_review(tmp_path / "out")
    assert verdicts(review, "device", ("latency_ms_p50",)) == {Verdict.WORSE}
    assert not {gate.name: gate.passed for gate in review.gates}["no_loss"]


@pytest.mark.parametrize(
    ("path", "text", "said"),
    [
        ("reports/evaluate/weights/metrics.json", "<<<<<<< HEAD\n{}", "not JSON"),
        ("reports/benchmark/onnx-int8.json", "[]", "expected an object, got list"),
        ("params.yaml", None, "gates"),
    ],
)
def test_what_cannot_be_read_is_one_line(small, tmp_path, capsys, path, text, said):
    project = small.copy(tmp_path / "project")
    if text is None:
        params = read_yaml(project.root / path)
        params["gates"] = ["map50_95 >= 0.5"]
        write_yaml(project.root / path, params)
    else:
        (project.root / path).write_text(text)
    told = report(project, capsys, "main")
    assert path in told
    assert said in told


@pytest.mark.parametrize("name", ["new", "floor"])
def test_a_gate_of_what_does_not_exist_is_no_pass(small, tmp_path, capsys, name):
    """Also where the base has a gate of that name, which is in force: the next change would be judged by this one."""
    project = small.copy(tmp_path / "project")
    params = read_yaml(project.root / "params.yaml")
    params["gates"][name] = "map50_59 >= 0.3"
    write_yaml(project.root / "params.yaml", params)
    told = report(project, capsys, "main")
    assert f"gates.{name}: neither revision has a metric 'map50_59'" in told
    assert "map50_95" in told


def test_histories_without_a_common_commit_are_compared_and_it_is_said(small, tmp_path):
    project = small.copy(tmp_path / "project")
    commit = ("-c", "user.name=a", "-c", "user.email=a@b.c", "commit-tree", "main^{tree}", "-m", "alone")
    alone = project.git(*commit)
    code = pr_report.main(
        ["--root", str(project.root), "--base", "main", "--head", alone, "--out", str(tmp_path / "o")]
    )
    assert code == 0
    assert "no commit in common" in " ".join(read_review(tmp_path / "o").notes)


def test_it_is_a_command(small, tmp_path):
    """In a process of its own, as make runs it: the exit code, and nothing but one line on stderr."""
    command = [sys.executable, "-m", "pipelines.pr_report", "--base", "nowhere", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=small.root, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: no commit 'nowhere'")
    assert done.stderr.count("\n") == 1
