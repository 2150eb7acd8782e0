"""What is said of a commit whose run left no report, or one that is not of it: no older verdict stands for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from forge_jobs import NUMBER, environment, post, set_environment
from forge_report_folder import GATES, HEAD, made_up_review, write_folder
from forge_server import REPOSITORY, TOKEN, Forge, forge_server

from pipelines.pr_comment import main
from pipelines.pr_reason import MOST_CHARACTERS, REASON, read_reason, write_reason
from plumbline.review.comment import MARKER
from plumbline.review.review import REVIEW

FORGES = ("github", "gitlab")
NEXT = "c" * 40
OF_RUN = ["--gates-of-base", "--head-branch=work", "--status-url", "https://example.org/run/1"]
HOSTILE = "x [a](http://b) @everybody\n/merge\n# no\n::error::##[error] <b> \x1b[0K" + "y" * 9000


@pytest.fixture
def server() -> Iterator[Forge]:
    with forge_server() as forge:
        forge.add_pull(NUMBER, HEAD)
        forge.files["main", "params.yaml"] = GATES.encode()
        forge.files["lax", "params.yaml"] = b"gates: {}\n"
        yield forge


@pytest.fixture(params=FORGES)
def runner(request: pytest.FixtureRequest, server: Forge, monkeypatch: pytest.MonkeyPatch) -> str:
    """The environment of a runner, of either forge, that knows a commit and no number."""
    values = environment(request.param, server)
    set_environment(monkeypatch, {k: v for k, v in values.items() if k not in ("GITHUB_REF", "CI_MERGE_REQUEST_IID")})
    return str(request.param)


@pytest.fixture
def schedule(server: Forge, monkeypatch: pytest.MonkeyPatch) -> Forge:
    """The environment of the parent project's scheduled pipeline, which posts all."""
    values = {"GITLAB_CI": "true", "CI_API_V4_URL": f"{server.url}/api/v4", "CI_PROJECT_ID": "7", "GITLAB_TOKEN": TOKEN}
    set_environment(monkeypatch, values)
    return server


def _states(server: Forge, sha: str) -> list[str]:
    return [one["state"] for one in server.statuses.get(sha, [])]


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _reason(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / REASON).write_text(text)
    return folder


# A base that was changed


def test_a_report_against_another_base_is_refused(
    server: Forge, runner: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server.pulls[NUMBER]["base"] = "lax"
    folder = write_folder(tmp_path / "lax", made_up_review(base="origin/lax").model_copy(update={"gates": ()}))
    assert post(folder, "--head-sha", HEAD, *OF_RUN) == 0
    assert _states(server, HEAD) == ["success"]
    server.pulls[NUMBER]["base"] = "main"
    assert post(folder, "--head-sha", HEAD, *OF_RUN) == 1
    assert "The report is against origin/lax, expected main" in capfd.readouterr().err
    assert _states(server, HEAD)[-1] in ("error", "failed")
    assert "against origin/lax, expected main" in server.statuses[HEAD][-1]["description"]
    [comment] = server.comments[NUMBER]
    assert "### ⚪ plumbline: no report" in comment["body"]
    assert post(write_folder(tmp_path / "main", made_up_review(base="origin/main")), "--head-sha", HEAD, *OF_RUN) == 0
    assert _states(server, HEAD)[-1] == "success"
    assert "all 2 gates passed" in comment["body"]


def test_with_one_s_own_token_a_base_may_be_a_commit(server: Forge, runner: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "report", made_up_review(base="b" * 12))
    assert post(folder, "--number", str(NUMBER)) == 0
    assert _states(server, HEAD) == ["success"]


def test_on_gitlab_a_report_against_an_old_target_is_refused(
    schedule: Forge, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    schedule.pulls[NUMBER]["base"] = "lax"
    schedule.add_report(NUMBER, _files(write_folder(tmp_path / "1", made_up_review(base="base/lax"))))
    assert main(["--all", "--pauses", "0"]) == 0
    schedule.pulls[NUMBER]["base"] = "main"
    assert main(["--all", "--pauses", "0"]) == 0
    assert "!12: not posted: The report is against base/lax, expected main" in capfd.readouterr().out
    assert _states(schedule, HEAD) == ["success", "failed"]
    assert "no report" in schedule.comments[NUMBER][0]["body"]


def test_one_commit_of_two_pull_requests_passes_for_neither(server: Forge, runner: str, tmp_path: Path) -> None:
    """There is one status of a commit: the one to the lax branch would let the other into main."""
    server.add_pull(13, HEAD, base="lax")
    if runner == "github":
        server.add_pull(14, HEAD, base="next", from_fork=True)  # which sets no status on it, and so takes none away
    lax = write_folder(tmp_path / "lax", made_up_review(base="origin/lax"))
    source = ["--head-repository", REPOSITORY if runner == "github" else "7"]
    assert post(lax, "--head-sha", HEAD, *source, *OF_RUN) == 0
    assert _states(server, HEAD)[-1] in ("error", "failed")
    assert "also the head of 12 (to main)" in server.statuses[HEAD][-1]["description"]
    assert "also the head of 12" in server.comments[13][0]["body"]
    server.pulls[13]["state"] = "closed"
    folder = write_folder(tmp_path / "main", made_up_review(base="origin/main"))
    assert post(folder, "--head-sha", HEAD, *source, *OF_RUN) == 0
    assert _states(server, HEAD)[-1] == "success"


# A run that was asked for


def test_a_run_that_is_asked_for_makes_the_status_pending(server: Forge, runner: str, tmp_path: Path) -> None:
    assert post(write_folder(tmp_path / "report"), "--number", str(NUMBER)) == 0
    server.add_pull(13, HEAD, base="lax")  # the status is the commit's, whichever of the two it is
    ask = ["--pauses", "0", "--pending", "--head-sha", HEAD, "--head-branch=work", "--status-url", "https://a.b/1"]
    source = f"--head-repository={REPOSITORY if runner == 'github' else '7'}"
    body = server.comments[NUMBER][0]["body"]
    assert main([*ask, source]) == 0
    assert _states(server, HEAD) == ["success", "pending"]
    assert server.statuses[HEAD][-1]["target_url"] == "https://a.b/1"
    assert server.comments[NUMBER][0]["body"] == body
    assert main([*ask, "--head-repository=stranger/scales"]) == 0  # who has somebody's commit for a head
    server.pulls[14] = {**server.pulls[13], "from_fork": True}
    fork = "stranger/scales" if runner == "github" else "8"
    assert main([*ask, f"--head-repository={fork}"]) == 0
    assert _states(server, HEAD) == ["success", "pending"]


def test_pending_is_of_a_commit(server: Forge, runner: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--pending"]) == 1
    assert "expected --head-sha" in capfd.readouterr().err
    assert not server.asked


# A reason in the report's place


def test_the_reason_is_the_comment_and_the_status_an_error(server: Forge, runner: str, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    write_reason(folder, "main: data/splits.parquet is neither in DVC's cache nor in a remote; `dvc pull` brings it")
    assert post(folder, "--head-sha", HEAD, *OF_RUN) == 0
    [comment] = server.comments[NUMBER]
    assert comment["body"].startswith(MARKER)
    assert "data/splits.parquet is neither in DVC's cache" in comment["body"]
    assert "(https://example.org/run/1)" in comment["body"]
    assert "FROM A FORK" not in comment["body"]
    [status] = server.statuses[HEAD]
    assert status["state"] in ("error", "failed")
    assert "left no report: main: data/splits.parquet" in status["description"]
    assert post(write_folder(tmp_path / "next"), "--head-sha", HEAD, *OF_RUN) == 0
    assert "all 2 gates passed" in comment["body"]


def test_a_stranger_s_reason_is_one_line_without_a_meaning(
    server: Forge, runner: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server.pulls[NUMBER]["from_fork"] = True
    folder = _reason(tmp_path / "report", HOSTILE)
    assert post(folder, "--head-sha", HEAD, *OF_RUN) == 0
    body = server.comments[NUMBER][0]["body"]
    notes = [line for line in body.splitlines() if line.startswith("- ")]
    assert "FROM A FORK" in notes[0]
    assert len(notes) == 2
    assert len(body) < MOST_CHARACTERS * 2 + 600
    assert not any(
        text in body for text in ("@everybody", "[a](http", "http://b", "<b>", "\x1b", "##[", "\n/merge", "\n# no")
    )
    out, err = capfd.readouterr()
    assert "##[" not in out + err
    assert not [line for line in err.splitlines() if line.startswith("::")]


def test_a_reason_of_an_older_commit_is_not_told(server: Forge, runner: str, tmp_path: Path) -> None:
    folder = _reason(tmp_path / "report", "it is so")
    assert post(folder, "--head-sha", NEXT, *OF_RUN) == 1
    assert post(folder, "--head-sha", NEXT, "--number", str(NUMBER)) == 1
    assert not server.writes()


def test_a_reason_beside_a_report_or_behind_a_link_is_none(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "report")
    (folder / REASON).write_text("it is so")
    assert read_reason(folder) is None
    (folder / REVIEW).unlink()
    assert read_reason(folder) == "it is so"
    (folder / REASON).rename(tmp_path / "secret")
    (folder / REASON).symlink_to(tmp_path / "secret")
    assert read_reason(folder) is None


def test_a_reason_takes_the_place_of_a_report_and_of_nothing_else(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "report")
    write_reason(folder, "s3: cannot read https://me:secret@example.org/x\nmore")
    assert [path.name for path in folder.iterdir()] == [REASON]
    assert read_reason(folder) == "s3: cannot read https://***@example.org/x more"
    other = tmp_path / "other"
    other.mkdir()
    (other / "work.txt").write_text("mine")
    write_reason(other, "it is so")
    assert {path.name for path in other.iterdir()} == {"work.txt", REASON}


def test_on_gitlab_a_fork_s_reason_reaches_the_comment(schedule: Forge, tmp_path: Path) -> None:
    schedule.pulls[NUMBER]["from_fork"] = True
    schedule.add_report(NUMBER, {REASON: HOSTILE.encode()}, status="failed")
    assert main(["--all", "--pauses", "0"]) == 0
    [comment] = schedule.comments[NUMBER]
    assert "FROM A FORK" in comment["body"]
    assert "The run left no report: x" in comment["body"]
    schedule.asked.clear()
    assert main(["--all", "--pauses", "0"]) == 0  # the next time
    assert not schedule.writes()


# Neither a report nor a reason


def test_a_newer_commit_without_a_report_takes_the_old_verdict_out(server: Forge, runner: str, tmp_path: Path) -> None:
    server.pulls[NUMBER]["from_fork"] = True
    assert post(write_folder(tmp_path / "report"), "--head-sha", HEAD, *OF_RUN) == 0
    [comment] = server.comments[NUMBER]
    assert "all 2 gates passed" in comment["body"]
    server.pulls[NUMBER]["sha"] = NEXT
    assert post(tmp_path / "nothing", "--head-sha", NEXT, *OF_RUN) == 1
    assert "gates passed" not in comment["body"]
    assert f"Nothing is known of **{NEXT[:8]}**" in comment["body"]
    assert post(tmp_path / "report", "--head-sha", NEXT, *OF_RUN) == 1  # forged: of another commit
    assert _states(server, NEXT) == (["error", "error"] if runner == "github" else [])


ENDS = {
    "no artifact": ({}, "left no report"),
    "an empty one": ({"other.txt": b"x"}, "left no report"),
    "one that is none": ({REVIEW: b"{}"}, "no report that can be read"),
}


@pytest.mark.parametrize("from_fork", [False, True])
@pytest.mark.parametrize("case", ENDS)
def test_on_gitlab_a_run_that_ended_without_a_report_is_told(
    schedule: Forge, tmp_path: Path, capfd: pytest.CaptureFixture[str], case: str, from_fork: bool
) -> None:
    schedule.pulls[NUMBER]["from_fork"] = from_fork
    schedule.add_report(NUMBER, _files(write_folder(tmp_path / "1")))
    assert main(["--all", "--pauses", "0"]) == 0
    schedule.pulls[NUMBER]["sha"] = NEXT
    files, said = ENDS[case]
    schedule.add_report(NUMBER, files, status="running")
    assert main(["--all", "--pauses", "0"]) == 0
    [comment] = schedule.comments[NUMBER]
    assert "all 2 gates passed" in comment["body"]  # of its commit: the new one's run has not ended
    schedule.add_report(NUMBER, files, status="failed")
    assert main(["--all", "--pauses", "0"]) == 0  # and a stranger's artifact fails no schedule
    assert said in comment["body"]
    assert NEXT[:8] in comment["body"]
    assert _states(schedule, NEXT) == ([] if from_fork else ["failed"])
    schedule.asked.clear()
    assert main(["--all", "--pauses", "0"]) == 0
    assert not schedule.writes()
    assert "error: " not in capfd.readouterr().out


def test_on_gitlab_a_pipeline_without_the_job_has_ended_too(schedule: Forge) -> None:
    schedule.add_report(NUMBER, {}, status="failed")
    pipeline = schedule.pulls[NUMBER]["head_pipeline"]
    schedule.jobs[pipeline["id"]].clear()
    assert main(["--all", "--pauses", "0"]) == 0
    [status] = schedule.statuses[HEAD]
    assert (status["state"], status["target_url"]) == ("failed", pipeline["web_url"])
    assert not schedule.comments[NUMBER]


@pytest.mark.parametrize("gone", [{"artifacts_expire_at": "2020-01-01T00:00:00.000Z"}, {"erased_at": "2020-01-01"}])
def test_on_gitlab_a_report_that_has_expired_takes_nothing_back(
    schedule: Forge, tmp_path: Path, gone: dict[str, str]
) -> None:
    schedule.add_report(NUMBER, _files(write_folder(tmp_path / "1")))
    assert main(["--all", "--pauses", "0"]) == 0
    [job] = schedule.jobs[schedule.pulls[NUMBER]["head_pipeline"]["id"]]
    job.update({**gone, "artifacts_file": None})
    assert main(["--all", "--pauses", "0"]) == 0
    assert "all 2 gates passed" in schedule.comments[NUMBER][0]["body"]
    assert _states(schedule, HEAD) == ["success"]


def test_on_gitlab_a_picture_that_is_not_there_is_told_in_the_comment(schedule: Forge, tmp_path: Path) -> None:
    files = _files(write_folder(tmp_path / "1"))
    del files["latency.png"]
    schedule.add_report(NUMBER, files)
    assert main(["--all", "--pauses", "0"]) == 0
    assert "No pictures: latency.png" in schedule.comments[NUMBER][0]["body"]


# GitLab is writing another status of that commit


def test_a_status_while_another_is_written_is_tried_again(schedule: Forge, tmp_path: Path) -> None:
    schedule.updates_in_progress = 2
    schedule.add_report(NUMBER, _files(write_folder(tmp_path / "1")))
    assert main(["--all", "--pauses", "0,0"]) == 0
    assert _states(schedule, HEAD) == ["success"]


def test_one_that_stays_is_told(schedule: Forge, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    schedule.updates_in_progress = 9
    schedule.add_report(NUMBER, _files(write_folder(tmp_path / "1")))
    assert main(["--all", "--pauses", "0,0"]) == 1
    err = capfd.readouterr().err
    assert "409 Conflict" in err.replace("409 409", "409")
    assert "3 times; run again later" in err
    # Of another verb it is the last word.
    schedule.fail("POST", r"/notes$", status=409, times=9)
    schedule.comments[NUMBER].clear()
    schedule.asked.clear()
    assert main(["--all", "--pauses", "0,0"]) == 1
    assert len([one for one in schedule.writes() if one.path.endswith("/notes")]) == 1
