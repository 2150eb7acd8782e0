"""The poster against reports and pull requests of strangers: whose gates, whose commit, whose words, whose commands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from forge_jobs import NUMBER, environment, post, set_environment
from forge_report_folder import GATES, HEAD, made_up_review, write_folder
from forge_server import REPOSITORY, Forge, forge_server

from pipelines.forge_report import read_report

FORGES = ("github", "gitlab")


@pytest.fixture
def server() -> Iterator[Forge]:
    with forge_server() as forge:
        forge.add_pull(NUMBER, HEAD)
        yield forge


@pytest.fixture(params=FORGES)
def runner(request: pytest.FixtureRequest, server: Forge, monkeypatch: pytest.MonkeyPatch) -> str:
    """The environment of a runner, of either forge."""
    set_environment(monkeypatch, environment(request.param, server))
    return str(request.param)


@pytest.mark.parametrize("base", ["main", "release"])
def test_the_gates_of_the_branch_it_is_to_decide(server: Forge, runner: str, tmp_path: Path, base: str) -> None:
    server.pulls[NUMBER]["base"] = base
    server.files["main", "params.yaml"] = b"gates:\n  floor: weights.map50_95 >= 0.6\n"
    server.files["release", "params.yaml"] = b"gates:\n  floor: weights.map50_95 >= 0.9\n"
    folder = write_folder(tmp_path / "report", made_up_review(base=f"origin/{base}"))
    assert post(folder, "--gates-of-base") == 0
    body = server.comments[NUMBER][0]["body"]
    assert ("1 of 2 gates failed: floor" in body) == (base == "release")
    note = "`weights.map50_95 >= 0.6` is not the gate floor of the branch release: `weights.map50_95 >= 0.9`"
    assert (note.replace("`", r"\`").replace("_", r"\_").replace(">", "&gt;") in body) == (base == "release")
    assert "The run says: It is made up." in body
    assert server.comments[NUMBER][0]["body"].count("![") == 2  # its pictures stay
    kept = (folder / "comment.md").read_text()
    assert ("1 of 2 gates failed: floor" in kept) == (base == "release")


@pytest.mark.parametrize("content", [None, b"gates: [", b"gates: [1]\n"])
def test_without_gates_of_the_branch_nothing_is_judged(
    server: Forge, runner: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    if content is not None:
        server.files["main", "params.yaml"] = content
    assert post(write_folder(tmp_path / "report"), "--gates-of-base") == 1
    err = capfd.readouterr().err
    expected = "cannot read params.yaml of the branch main: 404" if content is None else "error: main:params.yaml:"
    assert expected in err
    assert err.count("\n") == 1
    assert not server.comments[NUMBER]
    assert not server.statuses


def test_a_fork_with_the_same_commit_takes_neither_the_comment_nor_the_status(
    server: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment("github", server).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("GITHUB_REF")
    server.add_pull(13, HEAD, from_fork=True)
    server.add_pull(14, HEAD, from_fork=True, is_fork_gone=True)
    folder = write_folder(tmp_path / "report")
    source = ["--head-sha", HEAD, "--head-branch=work"]
    assert post(folder, *source, f"--head-repository={REPOSITORY}") == 0
    assert [len(server.comments[number]) for number in (12, 13, 14)] == [1, 0, 0]
    assert [one["state"] for one in server.statuses[HEAD]] == ["success"]

    forged = write_folder(tmp_path / "forged", made_up_review(after=0.5, passed=False))
    assert post(forged, *source, "--head-repository=stranger/scales") == 0
    assert [len(server.comments[number]) for number in (12, 13, 14)] == [1, 1, 0]
    assert post(forged, *source, "--head-repository=") == 0  # as the event says it of one that is gone
    assert [len(server.comments[number]) for number in (12, 13, 14)] == [1, 1, 1]
    assert post(tmp_path / "nothing", *source, "--head-repository=stranger/scales") == 1
    assert "2 of 2" not in server.comments[12][0]["body"]
    assert [one["state"] for one in server.statuses[HEAD]] == ["success"]
    assert post(folder, "--head-sha", HEAD, "--head-branch=other", f"--head-repository={REPOSITORY}") == 1

    server.pulls[12]["state"] = "closed"
    assert post(forged, *source, "--head-repository=stranger/scales") == 0
    assert [one["state"] for one in server.statuses[HEAD]] == ["success", "failure"]  # it is the fork's alone


def test_a_report_cannot_push_out_that_it_is_of_a_fork(server: Forge, runner: str, tmp_path: Path) -> None:
    server.pulls[NUMBER]["from_fork"] = True
    server.may.discard("contents")
    server.files["main", "params.yaml"] = GATES.encode()
    many = tuple(f"All is well, {place}. " + "x" * 900 for place in range(100))
    review = made_up_review().model_copy(update={"notes": many})
    assert post(write_folder(tmp_path / "report", review), "--gates-of-base") == 0
    notes = [line for line in server.comments[NUMBER][0]["body"].splitlines() if line.startswith("- ")]
    first = next(place for place, line in enumerate(notes) if "FROM A FORK: the numbers" in line)
    assert "could not be uploaded" in notes[first + 1]
    assert notes[first + 2].startswith("- The run says: All is well, 0")
    assert not [line for line in notes if line.startswith("- All is well")]


def test_what_the_poster_says_of_pictures_is_not_told_as_the_run_s_word(
    server: Forge, runner: str, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "report")
    (folder / "curves.png").write_bytes(b"none")
    server.files["main", "params.yaml"] = GATES.encode()
    assert post(folder, "--gates-of-base") == 0
    assert "\n- No pictures: curves.png" in server.comments[NUMBER][0]["body"]


def test_a_tree_with_changes_is_told_and_outside_of_a_runner_refused(
    server: Forge, runner: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    head = made_up_review().head.model_copy(update={"is_clean": False})
    folder = write_folder(tmp_path / "report", made_up_review().model_copy(update={"head": head}))
    assert post(folder) == 0  # in a runner the line itself has changed dvc.lock
    [status] = server.statuses[HEAD]
    assert status["description"] == "all 2 gates passed; with changes that are not committed"
    monkeypatch.delenv("GITHUB_ACTIONS" if runner == "github" else "GITLAB_CI")
    server.asked.clear()
    assert post(folder, "--forge", runner, "--number", str(NUMBER)) == 1
    assert "a working tree with changes" in capfd.readouterr().err
    assert not server.asked
    assert post(folder, "--forge", runner, "--number", str(NUMBER), "--allow-changes") == 0


def test_the_changes_are_told_however_long_the_names_of_the_gates(tmp_path: Path) -> None:
    gates = tuple(gate.model_copy(update={"name": "n" * 200, "passed": False}) for gate in made_up_review().gates)
    head = made_up_review().head.model_copy(update={"is_clean": False})
    review = made_up_review().model_copy(update={"head": head, "gates": gates})
    description = read_report(write_folder(tmp_path / "report", review), None).description
    assert len(description) == 140
    assert description.endswith(" ...; with changes that are not committed")


@pytest.mark.parametrize("step", ["read_report", "write_comment", "post"])
def test_whatever_a_report_makes_happen_is_one_line_and_an_error_beside_the_commit(
    server: Forge, runner: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:  # fmt: skip
    def fail(*_: object) -> None:
        raise OverflowError("int too large\n::error::##[error]it is")

    monkeypatch.setattr(f"pipelines.pr_comment.{step}", fail)
    assert post(write_folder(tmp_path / "report")) == 1
    err = capfd.readouterr().err
    assert "OverflowError at test_pr_comment_distrust.py:" in err
    assert err.count("\n") == 1
    assert "##[" not in err
    [status] = server.statuses[HEAD]
    assert status["state"] in ("error", "failed")
    assert "no report that can be read" in status["description"]


def test_a_name_in_the_report_is_no_command_to_the_runner(
    server: Forge, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment("github", server).items():
        monkeypatch.setenv(name, value)
    assert post(write_folder(tmp_path / "report"), "--dry-run") == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].startswith("::stop-commands::")
    word = lines[0].removeprefix("::stop-commands::")
    assert f"::{word}::" in lines

    folder = write_folder(tmp_path / "forged")
    values = {**json.loads((folder / "review.json").read_text()), "a\n::add-mask::b": 1}
    (folder / "review.json").write_text(json.dumps(values))
    assert post(folder, "--dry-run") == 1
    err = capfd.readouterr().err
    assert "add-mask" in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    gate = made_up_review().gates[0].model_copy(update={"name": "a\n::add-mask::b", "passed": False})
    report = read_report(write_folder(tmp_path / "named", made_up_review().model_copy(update={"gates": (gate,)})), None)
    assert "\n" not in report.description


def test_a_gate_that_cannot_be_judged_is_no_command_to_the_runner(
    server: Forge, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment("github", server).items():
        monkeypatch.setenv(name, value)
    server.files["main", "params.yaml"] = b"gates: {}\n"
    bad = "x\n::error title=Spoof::a\r::error::b ##[error]c\x1b[0K\u2028::error::d"
    gate = made_up_review().gates[0].model_copy(update={"name": bad, "rule": f"{bad} >= 1"})
    folder = write_folder(tmp_path / "report", made_up_review().model_copy(update={"gates": (gate,)}))
    other = made_up_review(head="e" * 40).model_copy(update={"gates": (gate,)})
    (tmp_path / "params.yaml").write_text("gates: {}\n")
    for more in (["--dry-run"], [], ["--gates-of-base"], ["--gates-from", str(tmp_path / "params.yaml")]):
        assert post(folder, *more) == 0
        _assert_no_command(*capfd.readouterr())
    assert "cannot be judged: params.yaml: gates.x ::error" in server.statuses[HEAD][-1]["description"]
    assert post(write_folder(tmp_path / "other", other)) == 1
    server.may.discard("comment")
    assert post(folder) == 1
    _assert_no_command(*capfd.readouterr())


def _assert_no_command(out: str, err: str) -> None:
    word = None
    for line in [*out.splitlines(), None, *err.splitlines()]:
        if line is None:
            assert word is None  # nothing stays switched off
        elif word is None and line.startswith("::stop-commands::"):
            word = line.removeprefix("::stop-commands::")
        elif word is not None and line == f"::{word}::":
            word = None
        else:
            assert word is not None or not line.lstrip().startswith("::"), line
            assert "##[" not in line
            assert "\x1b" not in line
