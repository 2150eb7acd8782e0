"""The poster against a forge on loopback: both real clients, over HTTP."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from forge_jobs import NUMBER, environment, post, set_environment
from forge_report_folder import GATES, HEAD, made_up_review, write_folder
from forge_server import REPOSITORY, TOKEN, Forge, forge_server

from plumbline.review.comment import MARKER

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


def test_one_comment_is_made_and_then_updated_in_place(server: Forge, runner: str, tmp_path: Path) -> None:
    assert post(write_folder(tmp_path / "report")) == 0
    [comment] = server.comments[NUMBER]
    assert comment["body"].startswith(MARKER)
    assert "0.81" in comment["body"] or "81" in comment["body"]
    [status] = server.statuses[HEAD]
    assert status["state"] == "success"
    assert status.get("context", status.get("name")) == "plumbline"

    server.pulls[NUMBER]["sha"] = "c" * 40
    worse = made_up_review(head="c" * 40, after=0.5, passed=False)
    assert post(write_folder(tmp_path / "worse", worse)) == 0
    assert [one["id"] for one in server.comments[NUMBER]] == [comment["id"]]
    assert "2 of 2 gates failed" in comment["body"]
    [status] = server.statuses["c" * 40]
    assert status["state"] == {"github": "failure", "gitlab": "failed"}[runner]
    assert "floor" in status["description"]


def test_the_same_report_again_sends_only_the_status(server: Forge, runner: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "report")
    assert post(folder) == 0
    body = server.comments[NUMBER][0]["body"]
    server.asked.clear()
    assert post(folder) == 0
    # On GitLab each status that is written is one more row of the commit's pipelines.
    assert [one.path.split("/")[-2] for one in server.writes()] == (["statuses"] if runner == "github" else [])
    assert server.comments[NUMBER][0]["body"] == body


def test_our_comment_is_found_among_those_of_others_on_a_later_page(server: Forge, runner: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "report")
    server.per_page_most = 3
    for place in range(7):
        server.add_comment(NUMBER, f"user{place}", "a word" if place else f"{MARKER}\nnot ours")
    server.add_comment(NUMBER, server.login, "ours, and of something else")
    ours = server.add_comment(NUMBER, server.login, f"{MARKER}\nold")
    twin = server.add_comment(NUMBER, server.login, f"{MARKER}\nof a second poster")
    assert post(folder) == 0
    assert "gates passed" in ours["body"]
    assert server.comments[NUMBER][0]["body"] == f"{MARKER}\nnot ours"
    assert twin not in server.comments[NUMBER]
    assert len(server.comments[NUMBER]) == 9


def test_the_pictures_are_where_the_comment_links_to(server: Forge, runner: str, tmp_path: Path) -> None:
    assert post(write_folder(tmp_path / "report")) == 0
    body = server.comments[NUMBER][0]["body"]
    if runner == "gitlab":
        assert all(url in body for url in server.uploads)
        assert len(server.uploads) == 2
        return
    tip = server.refs["refs/heads/plumbline-pictures"]
    assert f"{server.url}/{REPOSITORY}/blob/{tip}/pull-{NUMBER}/curves.png?raw=true" in body
    assert set(server.pictures(tip)) == {f"pull-{NUMBER}/curves.png", f"pull-{NUMBER}/latency.png"}


def test_pictures_of_another_pull_request_stay(server: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment("github", server).items():
        monkeypatch.setenv(name, value)
    other = "d" * 40
    server.add_pull(13, other)
    assert post(write_folder(tmp_path / "report")) == 0
    first = server.refs["refs/heads/plumbline-pictures"]
    assert post(write_folder(tmp_path / "other", made_up_review(head=other), shade=9), "--number", "13") == 0
    second = server.refs["refs/heads/plumbline-pictures"]
    assert set(server.pictures(second)) == {f"pull-{n}/{s}.png" for n in (12, 13) for s in ("curves", "latency")}
    body = server.comments[NUMBER][0]["body"]
    server.asked.clear()
    assert post(tmp_path / "report") == 0  # the branch has moved, its pictures have not
    assert server.comments[NUMBER][0]["body"] == body
    assert first in body
    assert not [one for one in server.writes() if "/git/" in one.path]


def test_a_race_for_the_branch_of_pictures_loses_nobody(
    server: Forge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment("github", server).items():
        monkeypatch.setenv(name, value)
    assert post(write_folder(tmp_path / "report")) == 0
    server.fail("PATCH", r"/git/refs/", status=422, message="Update is not a fast forward", times=2)
    assert post(write_folder(tmp_path / "report", shade=50)) == 0
    tip = server.refs["refs/heads/plumbline-pictures"]
    assert f"/blob/{tip}/" in server.comments[NUMBER][0]["body"]
    blobs = [one for one in server.writes() if one.path.endswith("/git/blobs")]
    assert len(blobs) == 4  # two and two: not again for each turn


@pytest.mark.parametrize("lost", ["cut", "gateway", "late"])
def test_a_comment_whose_answer_is_lost_is_not_made_twice(
    server: Forge, runner: str, tmp_path: Path, lost: str
) -> None:
    how = {"cut": {"status": None}, "gateway": {"status": 502}, "late": {"status": 201, "wait_s": 60.0}}[lost]
    server.fail("POST", r"/(comments|notes)$", after=True, **how)
    # Only what waits on purpose has to be given up on.
    assert post(write_folder(tmp_path / "report"), *(("--timeout", "1") if lost == "late" else ())) == 0
    assert len(server.comments[NUMBER]) == 1
    creates = [one for one in server.asked if one.method == "POST" and one.path.endswith(("/comments", "/notes"))]
    assert len(creates) == 1


@pytest.mark.parametrize("fault", [{"status": 503}, {"status": None}, {"status": 429, "headers": {"Retry-After": "0"}}])
@pytest.mark.parametrize("route", ["GET", "POST"])
def test_what_passes_is_tried_again(
    server: Forge, runner: str, tmp_path: Path, fault: dict[str, object], route: str
) -> None:
    path = r"/(comments|notes)$" if route == "POST" else r"/(pulls|merge_requests)/12$"
    server.fail(route, path, times=2, **fault)
    code = post(write_folder(tmp_path / "report"))
    assert code == 0
    assert len(server.comments[NUMBER]) == 1


REFUSALS = {
    "not allowed": (403, {}, "403", "needs"),
    "rate limit": (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "99999999999"}, "403", "rate limit"),
    "asks too long": (429, {"Retry-After": "86400"}, "429", "in 86400 s"),
    "not there": (404, {}, "404", "may not see it"),
    "refused": (422, {}, "422 it is broken", "as it is"),
    "broken": (500, {}, "500", "3 times"),
    "token": (401, {}, "401", "is not accepted"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_stays_is_told_and_the_comment_is_in_the_log(
    server: Forge, runner: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], case: str
) -> None:
    status, headers, *said = REFUSALS[case]
    server.fail("POST", r"/(comments|notes)$", times=99, status=status, headers=headers)
    folder = write_folder(tmp_path / "report")
    assert post(folder) == 1
    out, err = capfd.readouterr()
    assert MARKER in out
    assert "comment on pull request 12" in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert all(text in err for text in said), err
    assert TOKEN not in out + err
    assert (folder / "comment.md").read_text().startswith(MARKER)
    assert server.statuses[HEAD][0]["state"] == "success"  # one fault does not keep back the other


def test_pictures_that_cannot_be_uploaded_keep_back_no_comment(server: Forge, runner: str, tmp_path: Path) -> None:
    server.may.discard("contents")
    assert post(write_folder(tmp_path / "report")) == 0
    [comment] = server.comments[NUMBER]
    assert "could not be uploaded" in comment["body"]
    assert "![" not in comment["body"]


def test_a_status_that_is_refused_is_an_error_and_the_comment_stands(
    server: Forge, runner: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server.may.discard("status")
    assert post(write_folder(tmp_path / "report")) == 1
    assert len(server.comments[NUMBER]) == 1
    assert "set the status" in capfd.readouterr().err


def test_a_report_of_another_commit_is_refused(
    server: Forge, runner: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_folder(tmp_path / "report", made_up_review(head="e" * 40))
    assert post(folder) == 1
    assert "the report is of commit eeee" in capfd.readouterr().err
    monkeypatch.delenv("GITHUB_REF" if runner == "github" else "CI_MERGE_REQUEST_IID")
    assert post(folder, "--head-sha", HEAD) == 1  # as the event says it
    assert "the report is of commit eeee" in capfd.readouterr().err
    assert not server.writes()


def test_the_pull_request_is_found_by_its_head(
    server: Forge, runner: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_REF" if runner == "github" else "CI_MERGE_REQUEST_IID")
    server.per_page_most = 2
    for number in (1, 2, 3, 4):
        server.add_pull(number, f"{number:040x}")
    server.add_pull(20, HEAD, base="release")
    for base in ("main", "origin/main", "base/main"):
        server.comments[NUMBER].clear()
        side = made_up_review().base.model_copy(update={"name": base})
        folder = write_folder(tmp_path / "report", made_up_review().model_copy(update={"base": side}))
        assert post(folder, "--head-sha", HEAD) == 0
        assert server.comments[NUMBER]  # of the two with that head: the one into the report's base
        assert not server.comments[20]
    server.pulls[NUMBER]["base"] = "next"
    assert post(folder, "--head-sha", HEAD) == 1
    assert "got 12, 20" in capfd.readouterr().err
    server.pulls[NUMBER]["state"] = server.pulls[20]["state"] = "closed"
    assert post(folder, "--head-sha", HEAD) == 1
    assert "no open pull request" in capfd.readouterr().err


def test_the_gates_of_the_base_decide(server: Forge, runner: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(GATES)
    forged = made_up_review(after=0.5, passed=True)  # it says that all is well
    forged = forged.model_copy(update={"gates": forged.gates[:1]})
    assert post(write_folder(tmp_path / "report", forged), "--gates-from", str(tmp_path / "params.yaml")) == 0
    assert server.statuses[HEAD][0]["state"] in ("failure", "failed")
    body = server.comments[NUMBER][0]["body"]
    assert "2 of 2 gates failed" in body
    assert "The run has no gate no\\_loss of the poster's params.yaml" in body
    assert "by this change" not in body  # which may be none of it: the base has moved, or is another branch


def test_gates_that_cannot_be_judged_are_an_error_and_no_pass(server: Forge, runner: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("gates:\n  speed: latency_ms_p50 <= 5\n")
    assert post(write_folder(tmp_path / "report"), "--gates-from", str(tmp_path / "params.yaml")) == 0
    assert server.statuses[HEAD][0]["state"] in ("error", "failed")
    assert "neither revision has a metric" in server.comments[NUMBER][0]["body"]


def test_without_a_report_the_commit_says_so(
    server: Forge, runner: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert post(tmp_path / "nothing", "--head-sha", HEAD, "--status-url", "https://example.org/run/1") == 1
    assert "review.json: no file" in capfd.readouterr().err
    [status] = server.statuses[HEAD]
    assert status["state"] in ("error", "failed")
    assert status["target_url"] == "https://example.org/run/1"
    assert not server.comments[NUMBER]
    assert (
        post(tmp_path / "nothing", "--head-sha", "f" * 40) == 1
    )  # of a commit that is the head no more: its own affair
    assert list(server.statuses) == [HEAD]
    assert len(server.statuses[HEAD]) == 1


def test_a_long_comment_is_cut_to_what_the_forge_takes(server: Forge, runner: str, tmp_path: Path) -> None:
    review = made_up_review()
    rows = [review.changes[0].model_copy(update={"title": f"{i} " + "x|" * 190, "note": "n" * 900}) for i in range(190)]
    kinds = {"github": ("class",), "gitlab": ("score", "class", "slice", "size", "device", "data")}[runner]
    many = tuple(row.model_copy(update={"kind": kind}) for kind in kinds for row in rows)
    assert post(write_folder(tmp_path / "report", review.model_copy(update={"changes": many}))) == 0
    body = server.comments[NUMBER][0]["body"]
    assert "Cut to the size" in body


def test_without_a_token_nothing_is_asked(
    server: Forge, runner: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GITHUB_TOKEN" if runner == "github" else "GITLAB_TOKEN")
    assert post(write_folder(tmp_path / "report")) == 1
    out, err = capfd.readouterr()
    assert MARKER in out
    assert f"no token for {runner}" in err
    assert not server.asked


def test_a_dry_run_asks_nothing(server: Forge, runner: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert post(write_folder(tmp_path / "report"), "--dry-run") == 0
    out = capfd.readouterr().out
    assert "curves.png" in out
    assert "success: all 2 gates passed" in out
    assert not server.asked


@pytest.mark.parametrize("forge", FORGES)
def test_the_token_is_in_no_log_whatever_happens(server: Forge, forge: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "report")
    server.fail("GET", "/(pulls|merge_requests)/", status=None)
    server.fail("POST", "/(comments|notes)$", status=403, message=f"no, {TOKEN}", times=9)
    server.fail("POST", "/(statuses)/", status=500, times=1)
    # Every logger at its most talkative, and a traceback in the end.
    code = (
        "import logging, sys; logging.basicConfig(level=logging.DEBUG);"
        "import pipelines.forge_post as p; from pipelines.pr_comment import main;"
        f"done = main(['--report', {str(folder)!r}, '--pauses', '0,0']);"
        "p.post = lambda *a: 1 / 0;"
        "import pipelines.pr_comment as c; c.post = p.post; c.exit_code = lambda work: work();"
        f"main(['--report', {str(folder)!r}, '--pauses', '0,0'])"
    )
    variables = {**_bare_environment(), **environment(forge, server)}
    run = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True)
    assert run.returncode == 1
    assert "ZeroDivisionError" in run.stderr
    assert "403" in run.stderr
    assert "urllib3" in run.stderr
    assert TOKEN not in run.stdout + run.stderr


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "ümlaut", "€"])
def test_a_token_that_no_header_takes_is_not_quoted(
    server: Forge, runner: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    token: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("GITHUB_TOKEN" if runner == "github" else "GITLAB_TOKEN", token)
    assert post(write_folder(tmp_path / "report")) == 1
    out, err = capfd.readouterr()
    assert "holds no token" in err
    assert token not in out + err


def _bare_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("GITHUB_", "GITLAB_", "CI"))}
