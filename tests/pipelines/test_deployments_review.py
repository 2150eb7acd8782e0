"""The deployed flow of a pull request: the line in a clean clone, the comparison, the artifact, the comment."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from flow_runs import History
from forge_jobs import set_environment
from forge_server import REPOSITORY, TOKEN, Forge, forge_server
from review_project import ReviewProject, run_project

from pipelines.clones import HOME_VARIABLE
from plumbline.review.review import read_review

pytestmark = pytest.mark.long


@pytest.fixture
def project(tmp_path_factory, tmp_path, alone) -> ReviewProject:
    return run_project(tmp_path_factory.getbasetemp()).copy(tmp_path / "project")


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """Where clones and reports are; and no forge is known."""
    set_environment(monkeypatch, {})
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def forge(home, monkeypatch) -> Iterator[Forge]:
    """A forge whose token the worker has."""
    with forge_server() as served:
        named = {"GITHUB_REPOSITORY": REPOSITORY, "GITHUB_API_URL": served.url, "GITHUB_SERVER_URL": served.url}
        for name, value in {**named, "GITHUB_TOKEN": TOKEN}.items():
            monkeypatch.setenv(name, value)
        yield served


def run(project: ReviewProject, revision: str, **parameters):
    """Run the flow in this process; its last state."""
    from pipelines.deployments import pull_request

    return pull_request(str(project.root), revision, return_state=True, **parameters)


def report_of(message: str) -> Path:
    return Path(message.rpartition("report: ")[2])


def test_a_change_that_is_worse_fails_with_the_gates_and_its_report_stays(project, home, prefect_api):
    before = project.git("status", "--porcelain", "--ignored")
    state = run(project, "worse")

    assert state.is_failed()
    assert state.message.startswith("gates failed: floor, int8, latency, no_loss; report: ")
    folder = report_of(state.message)
    assert folder.is_relative_to(home / "reports")
    review = read_review(folder)
    commits = [project.git("rev-parse", name) for name in ("main", "worse")]
    assert [review.base.commit, review.head.commit] == commits
    assert (review.base.name, review.head.is_clean) == ("main", True)
    assert {path.name for path in folder.iterdir()} >= {"comment.md", "report.html", "changed.png", "curves.png"}
    artifact = History(state.state_details.flow_run_id).artifact("pull-request")
    assert artifact.type == "markdown"
    assert artifact.data.startswith("<!-- plumbline:review -->")
    assert len(re.findall(r"\]\(data:image/png;base64,", artifact.data)) == 4
    assert project.git("status", "--porcelain", "--ignored") == before


def test_a_change_of_nothing_passes(project, home, prefect_api):
    state = run(project, "main", base=project.git("rev-parse", "main"))
    assert (state.is_completed(), state.message.partition(";")[0]) == (True, "all 6 gates passed")


def test_stages_that_were_not_run_are_run_and_then_judged(project, home, prefect_api):
    project.git("checkout", "--quiet", "-b", "slower", "main")
    params = project.root / "params.yaml"
    params.write_text(params.read_text().replace("latency_ms: 10.0", "latency_ms: 19.0"))
    project.commit("Slower, and nothing is run")
    state = run(project, "slower")

    assert state.message.startswith("gates failed: latency; report: "), state.message
    review = read_review(report_of(state.message))
    assert (review.head.commit, review.head.is_clean) == (project.git("rev-parse", "slower"), False)


def test_the_base_is_the_one_of_now(project, home, prefect_api):
    commit = project.git("rev-parse", "worse")
    assert run(project, commit).is_failed()
    project.git("update-ref", "refs/heads/main", commit)
    assert run(project, commit).message.startswith("gates failed: floor; report: ")


def test_what_cannot_be_compared_is_one_line(project, home, prefect_api):
    state = run(project, "main", base="nowhere")
    assert state.is_failed()
    assert "no commit 'nowhere'" in state.message
    assert "\n" not in state.message
    first = run(project, "main", base="unrun")
    assert first.is_completed(), "to a base that was never run all is new, and its limits are judged"


def test_with_a_token_and_a_number_it_is_posted(project, forge, prefect_api):
    sha = project.git("rev-parse", "worse")
    forge.add_pull(12, sha)
    state = run(project, "worse", number=12)

    assert state.is_failed()
    assert re.match(r"gates failed: .*; comment created http.*; report: ", state.message)
    (comment,) = forge.comments[12]
    assert comment["body"].count("![") == 4
    assert forge.statuses[sha][-1]["state"] == "failure"
    assert os.environ["GITHUB_TOKEN"] == TOKEN  # given back


def test_a_line_that_fails_is_an_error_beside_the_commit_and_in_the_comment(project, forge, prefect_api):
    project.git("checkout", "--quiet", "-b", "broken", "main")
    graph = project.root / "dvc.yaml"
    graph.write_text(graph.read_text().replace("stages:\n", "stages:\n  broken:\n    cmd: exit 1\n", 1))
    project.commit("It cannot run")
    sha = project.git("rev-parse", "broken")
    forge.add_pull(12, sha)
    comment = forge.add_comment(12, forge.login, "<!-- plumbline:review -->\nall 6 gates passed")
    assert run(project, "broken", number=12).is_failed()

    (status,) = forge.statuses[sha]
    assert status["state"] == "error"
    assert status["description"].startswith("The line has failed: ")
    assert "gates passed" not in comment["body"]
    assert sha[:8] in comment["body"]


def test_what_cannot_be_compared_is_an_error_beside_the_commit(project, forge, prefect_api):
    sha = project.git("rev-parse", "worse")
    forge.add_pull(12, sha)
    assert "no commit 'nowhere'" in run(project, "worse", base="nowhere", number=12).message
    (status,) = forge.statuses[sha]
    assert status["description"].startswith("There is no report: ")
    assert not forge.comments[12]
    forge.pulls[12]["sha"] = "c" * 40  # what was run is not its head any more
    forge.may.clear()
    assert run(project, "worse", base="nowhere", number=12).is_failed()
    assert list(forge.statuses) == [sha]


def test_without_a_number_or_a_token_nothing_is_asked(project, forge, monkeypatch, prefect_api):
    assert run(project, "main").is_completed()
    monkeypatch.delenv("GITHUB_TOKEN")
    assert run(project, "main", number=12).is_completed()
    assert forge.asked == []


def test_a_forge_that_refuses_leaves_the_report(project, forge, prefect_api):
    forge.add_pull(12, project.git("rev-parse", "main"))
    forge.may.clear()
    state = run(project, "main", number=12)

    assert state.is_failed()
    assert state.message.startswith("all 6 gates passed; the comment is not posted: ")
    assert TOKEN not in state.message
    assert (report_of(state.message) / "comment.md").is_file()
    logs = History(state.state_details.flow_run_id).logs(number=0)  # every stage was up to date
    assert any("all 6 gates passed" in line for line in logs)
    assert not any(TOKEN in line for line in logs)


def test_stages_do_not_see_the_token(home, monkeypatch):
    from pipelines.review_flow import withheld

    monkeypatch.setenv("GITHUB_TOKEN", TOKEN)
    with withheld() as tokens:
        assert "GITHUB_TOKEN" not in os.environ
        assert tokens == {"GITHUB_TOKEN": TOKEN}
    assert os.environ["GITHUB_TOKEN"] == TOKEN
