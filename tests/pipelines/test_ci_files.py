"""The CI files: who runs whose code with which secrets, and that what they call is there."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions, requires
from pathlib import Path
from typing import Any

import pytest
from forge_report_folder import write_folder
from packaging.requirements import Requirement
from ruamel.yaml import YAML

from pipelines.forge_report import read_report, write_comment
from pipelines.forge_schedule import FOLDER, JOB

ROOT = Path(__file__).parents[2]
WORKFLOWS = ROOT / ".github/workflows"
SAME_REPOSITORY = "github.event.pull_request.head.repo.full_name == github.repository"
# Written by whoever opens a pull request: in a script they would be code.
TEXT_OF_STRANGERS = re.compile(r"head_ref|head\.ref|head_branch|\.title|\.body|head\.label|user\.login|commit\.message")


def _read(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    return values


@pytest.fixture(scope="module")
def run() -> dict[str, Any]:
    return _read(WORKFLOWS / "pull_request.yml")


@pytest.fixture(scope="module")
def poster() -> dict[str, Any]:
    return _read(WORKFLOWS / "pull_request_comment.yml")


@pytest.fixture(scope="module")
def gitlab() -> dict[str, Any]:
    return _read(ROOT / ".gitlab-ci.yml")


def _steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inside in value.items():
            yield from _strings(key)
            yield from _strings(inside)
    elif isinstance(value, list):
        for inside in value:
            yield from _strings(inside)


def _scripts() -> dict[str, str]:
    scripts = {}
    for path in sorted(WORKFLOWS.glob("*.yml")):
        for place, step in enumerate(_steps(_read(path))):
            scripts[f"{path.name} {place}"] = step.get("run", "")
    for name, job in _read(ROOT / ".gitlab-ci.yml").items():
        if isinstance(job, dict):
            scripts[f"gitlab {name}"] = "\n".join(job.get("script", []))
    return scripts


def test_the_run_of_a_pull_request_can_write_nothing(run: dict[str, Any]) -> None:
    assert list(run["on"]) == ["pull_request"]
    # The base that it is changed to may have other gates; by its title alone nothing changes, and nothing is canceled.
    assert run["on"]["pull_request"]["types"] == ["opened", "synchronize", "reopened", "edited"]
    assert run["jobs"]["report"]["if"] == "github.event.action != 'edited' || github.event.changes.base"
    text_only = "github.event.action == 'edited' && !github.event.changes.base && "
    assert f"{text_only}', text only'" in run["run-name"]
    assert f"{text_only}github.run_id" in run["concurrency"]["group"]
    assert run["permissions"] == {"contents": "read"}
    assert all("permissions" not in job for job in run["jobs"].values())
    [checkout] = [step for step in _steps(run) if step.get("uses", "").startswith("actions/checkout@")]
    assert checkout["with"]["persist-credentials"] is False
    assert checkout["with"]["fetch-depth"] == 0
    assert checkout["with"]["ref"] == "${{ github.event.pull_request.head.sha }}"


def test_secrets_reach_only_pull_requests_of_the_same_repository(run: dict[str, Any]) -> None:
    steps = _steps(run)
    with_secrets = [step for step in steps if any("secrets" in text for text in _strings(step))]
    assert len(with_secrets) == 1
    assert with_secrets[0]["if"] == SAME_REPOSITORY
    rest = {key: value for key, value in run.items() if key != "jobs"}
    outside = [rest, *({k: v for k, v in job.items() if k != "steps"} for job in run["jobs"].values())]
    assert not [text for text in _strings(outside) if "secrets" in text]
    assert not [text for text in _strings(run) if "github.token" in text]


def test_the_poster_runs_no_code_of_the_pull_request(poster: dict[str, Any], run: dict[str, Any]) -> None:
    assert list(poster["on"]) == ["workflow_run"]
    assert poster["on"]["workflow_run"]["workflows"] == [run["name"]]
    assert poster["permissions"] == {}
    job = poster["jobs"]["post"]
    assert job["permissions"] == {
        "contents": "write", "pull-requests": "write", "statuses": "write", "actions": "read",
    }  # fmt: skip
    for one in poster["jobs"].values():
        assert "workflow_run.event == 'pull_request'" in one["if"]
        [checkout] = [step for step in one["steps"] if step.get("uses", "").startswith("actions/checkout@")]
        assert set(checkout["with"]) == {"persist-credentials"}  # no ref, no repository: the default branch
        assert not [text for text in _strings(one) if re.search(r"git (fetch|checkout|pull|merge)|actions/cache", text)]
    [download] = [step for step in job["steps"] if step.get("uses", "").startswith("actions/download-artifact@")]
    assert download["with"]["path"] == "${{ runner.temp }}/report"  # outside of the code
    command = job["steps"][-1]
    assert command["env"]["HEAD_SHA"] == "${{ github.event.workflow_run.head_sha }}"
    assert '--head-sha "$HEAD_SHA"' in command["run"]
    # Of whom it is, so that a fork with somebody's commit for its head is not taken for them.
    assert command["env"]["HEAD_REPOSITORY"] == "${{ github.event.workflow_run.head_repository.full_name }}"
    assert command["env"]["HEAD_BRANCH"] == "${{ github.event.workflow_run.head_branch }}"
    # One word each, whatever they begin with.
    assert '--head-repository="$HEAD_REPOSITORY" --head-branch="$HEAD_BRANCH"' in command["run"]
    assert "--gates-of-base" in command["run"]
    assert "secrets." not in str(job)


def test_a_run_that_is_asked_for_takes_back_the_status_of_before(poster: dict[str, Any], run: dict[str, Any]) -> None:
    assert poster["on"]["workflow_run"]["types"] == ["requested", "completed"]
    pending, post = poster["jobs"]["pending"], poster["jobs"]["post"]
    assert "github.event.action == 'requested'" in pending["if"]
    assert "github.event.action == 'completed'" in post["if"]
    assert pending["permissions"] == {"contents": "read", "pull-requests": "read", "statuses": "write"}
    assert not [step for step in pending["steps"] if "download-artifact" in step.get("uses", "")]
    command, posting = pending["steps"][-1], post["steps"][-1]
    assert "pr_comment --pending --head-sha" in command["run"]
    assert command["env"] == posting["env"]
    assert '--head-repository="$HEAD_REPOSITORY" --head-branch="$HEAD_BRANCH"' in command["run"]
    # An edit of a text asks for a run, too, of which nothing is ever posted.
    title = ", text only"
    assert f"'{title}'" in run["run-name"]
    assert f"!endsWith(github.event.workflow_run.display_title, '{title}')" in pending["if"]
    # Both in one group of a pull request, in their order; what has nothing to say is in none.
    group = poster["concurrency"]["group"]
    assert "cancel-in-progress" not in poster["concurrency"]
    assert "display_title" in group
    told = 'contains(fromJSON(\'["success", "failure", "timed_out"]\'), github.event.workflow_run.conclusion)'
    assert told in post["if"]
    assert f"(github.event.action == 'requested' || {told}) && 'says' || github.run_id" in group


def test_what_the_stages_made_is_kept_whatever_the_gates_say(run: dict[str, Any], gitlab: dict[str, Any]) -> None:
    steps = _steps(run)
    [restore] = [step for step in steps if step.get("uses", "").startswith("actions/cache/restore@")]
    [place] = [place for place, step in enumerate(steps) if step.get("uses", "").startswith("actions/cache/save@")]
    assert steps[place - 1]["run"] == "make flow"
    assert steps[place]["if"].startswith("always()")
    assert steps[place]["with"]["path"] == restore["with"]["path"] == ".dvc/cache"
    # Not computed again: by then the line has changed dvc.lock.
    assert steps[place]["with"]["key"] == f"${{{{ steps.{restore['id']}.outputs.cache-primary-key }}}}"
    assert "github.run_attempt" in restore["with"]["key"]
    [cache] = [one for one in gitlab[JOB]["cache"] if one["paths"] == [".dvc/cache"]]
    assert cache["when"] == "always"


def test_the_summary_of_a_run_shows_no_picture_that_is_not_there(run: dict[str, Any], tmp_path: Path) -> None:
    [script] = [step["run"] for step in _steps(run) if "GITHUB_STEP_SUMMARY" in step.get("run", "")]
    folder = write_folder(tmp_path / "report")
    text = write_comment(read_report(folder, None), folder, "github")
    summary = _summary(script, tmp_path)
    assert text.count("![") == 2
    assert "![" not in summary
    assert "curves" not in summary
    expected = re.sub(r"<details><summary>[^\n]*\n\n!\[[^\n]*\n\n</details>\n\n", "", text)
    assert summary.strip() == expected.strip()
    assert "mAP50-95" in summary
    (tmp_path / "report/comment.md").unlink()
    (tmp_path / "report/error.txt").write_text("it is so\n")
    assert _summary(script, tmp_path) == "it is so\n"


def _summary(script: str, place: Path) -> str:
    path = place / "summary.md"
    path.unlink(missing_ok=True)
    environment = {**os.environ, "GITHUB_STEP_SUMMARY": str(path)}
    subprocess.run(["bash", "-e", "-c", script], cwd=place, env=environment, check=True)
    return path.read_text()


def test_no_text_promises_a_report_without_the_base() -> None:
    for path in (WORKFLOWS / "pull_request.yml", ROOT / ".gitlab-ci.yml"):
        text = " ".join(path.read_text().replace("#", " ").split())
        assert "says what of the base" not in text
        assert "there is no report" in text
        assert "`make pr-report`" in text


def test_no_workflow_has_a_trigger_with_secrets_and_a_stranger_s_code() -> None:
    for path in WORKFLOWS.glob("*.yml"):
        assert "pull_request_target" not in path.read_text()


def test_the_artifact_is_named_alike_on_both_sides(run: dict[str, Any], poster: dict[str, Any]) -> None:
    [upload] = [step for step in _steps(run) if step.get("uses", "").startswith("actions/upload-artifact@")]
    [download] = [step for step in _steps(poster) if step.get("uses", "").startswith("actions/download-artifact@")]
    assert upload["with"]["name"] == download["with"]["name"]
    assert upload["if"] == "always()"
    assert download["with"]["run-id"] == "${{ github.event.workflow_run.id }}"


def test_no_text_of_a_stranger_is_put_into_a_script() -> None:
    for name, script in _scripts().items():
        assert not re.search(r"\$\{\{", script), f"{name}: an expression in a script; hand it over by env"


def test_no_expression_reads_a_text_of_a_stranger_but_for_a_group_s_name_and_a_variable() -> None:
    for path in WORKFLOWS.glob("*.yml"):
        values = _read(path)
        values.pop("concurrency")
        for step in _steps(values):
            if "run" in step:
                step.pop("env", None)  # to a script it is a value then, not code
        found = [text for text in _strings(values) if "${{" in text and TEXT_OF_STRANGERS.search(text)]
        assert not found, path


def test_actions_have_a_version() -> None:
    for path in WORKFLOWS.glob("*.yml"):
        for step in _steps(_read(path)):
            if "uses" in step:
                assert re.fullmatch(r"actions/[a-z-]+(/[a-z-]+)?@(v\d+|[0-9a-f]{40})", step["uses"])


def test_what_the_scripts_call_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    called = " ".join(_scripts().values())
    targets, modules = (
        set(re.findall(r"\bmake ([a-z-]+)", called)),
        set(re.findall(r"python -m (pipelines\.\w+)", called)),
    )
    assert targets == {"setup", "flow", "pr-report"}
    assert modules == {"pipelines.pr_comment"}
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
    assert all(importlib.util.find_spec(module) for module in modules)


def test_the_scripts_are_bash() -> None:
    for name, script in _scripts().items():
        checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
        assert checked.returncode == 0, f"{name}: {checked.stderr}"


def test_the_poster_installs_what_it_imports(poster: dict[str, Any], gitlab: dict[str, Any]) -> None:
    packages = poster["env"]["POSTER"]
    assert gitlab["post"]["variables"]["POSTER"] == packages
    installed = _closure(packages.split())
    code = (
        "import sys, json; import pipelines.pr_comment, pipelines.forge_github, pipelines.forge_gitlab;"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    loaded = json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    distributions = packages_distributions()
    missing = {
        module
        for module in loaded
        if not {_name(one) for one in distributions.get(module, ["plumbline"])} & (installed | {"plumbline"})
    }
    # Loaded where they are there, and done without where they are not; setuptools by a .pth file.
    assert missing <= {"cloudpickle", "_ruamel_yaml", "ruamel_yaml_clib", "setuptools", "_distutils_hack"}, missing


def _closure(names: list[str]) -> set[str]:
    known: set[str] = set()
    waiting = list(names)
    while waiting:
        name = _name(waiting.pop())
        if name not in known:
            known.add(name)
            for line in requires(name) or []:
                one = Requirement(line)
                if one.marker is None or one.marker.evaluate({"extra": ""}) or "crypto" in line:
                    waiting.append(one.name)
    return known


def _name(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def test_on_gitlab_only_a_schedule_on_the_protected_default_branch_posts(gitlab: dict[str, Any]) -> None:
    posting = {name for name, script in _scripts().items() if "pr_comment" in script and name.startswith("gitlab ")}
    assert posting == {"gitlab post"}
    [rule] = gitlab["post"]["rules"]
    assert set(rule) == {"if"}
    assert rule["if"].split(" && ") == [
        '$CI_PIPELINE_SOURCE == "schedule"', "$CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH",
        '$CI_COMMIT_REF_PROTECTED == "true"',
    ]  # fmt: skip
    assert not re.search(r"git (fetch|checkout|pull|merge)|cache", str(gitlab["post"]))
    assert "--all --gates-of-base" in gitlab["post"]["script"][-1]
    [run] = gitlab["pull-request"]["rules"]
    assert run["if"] == '$CI_PIPELINE_SOURCE == "merge_request_event"'
    assert {job for job, values in gitlab.items() if isinstance(values, dict) and "script" in values} == {"post", JOB}
    assert not [text for text in _strings(gitlab) if "TOKEN" in text or "AWS_" in text]


def test_on_gitlab_the_file_says_which_settings_keep_a_fork_from_the_variables(gitlab: dict[str, Any]) -> None:
    first = gitlab["workflow"]["rules"][0]
    assert "$CI_MERGE_REQUEST_SOURCE_PROJECT_ID != $CI_PROJECT_ID" in first["if"]
    assert first["when"] == "never"
    # It is the fork's file that decides there: the rule is no guard, and the text must not say that it is.
    text = " ".join((ROOT / ".gitlab-ci.yml").read_text().replace("#", " ").split())
    assert "ci_allow_fork_pipelines_to_run_in_parent_project=false" in text
    assert "GITLAB_TOKEN, masked AND PROTECTED" in text
    assert "has no job" not in text


def test_on_gitlab_the_poster_finds_the_job_and_its_report(gitlab: dict[str, Any]) -> None:
    assert gitlab[JOB]["artifacts"]["paths"] == [f"{FOLDER}/"]  # GitLab shows a folder by its slash
    assert gitlab[JOB]["artifacts"]["when"] == "always"
    assert f"OUT={FOLDER}" in gitlab[JOB]["script"][-1]
