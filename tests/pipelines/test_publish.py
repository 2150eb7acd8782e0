"""Publishing from a real project in git and DVC: what is refused, what is registered, what the version holds."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess

import pytest
from published_project import change, commit, dvc, environment, git, make_project

from pipelines.clone_lock import RECORD, sole_flow
from pipelines.publish import main
from pipelines.publish_content import make_content
from pipelines.publish_gates import (
    artifacts_are_accepted,
    check_gates,
    files_are_as_exported,
    find_candidate,
    stages_are_up_to_date,
    tree_is_clean,
)
from pipelines.publish_params import PublishParams
from pipelines.publish_registry import check_registry, push_tag, register
from plumbline.errors import ParamsError
from plumbline.files import sha256_of
from plumbline.params import check_section
from plumbline.published import PublishError


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A project whose line is up to date and committed."""
    return make_project(tmp_path_factory.mktemp("finished") / "project")


@pytest.fixture
def project(finished, tmp_path, monkeypatch):
    """A copy of it."""
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    return shutil.copytree(finished, tmp_path / "project", symlinks=True)


def gates(root, *targets):
    candidate = find_candidate(root, targets)
    check_gates(candidate, print)
    return candidate


def with_report(candidate, change_values):
    """The candidate as if its report said something else."""
    report = json.loads(json.dumps(candidate.report))
    change_values(report)
    return dataclasses.replace(candidate, report=report)


def row_of(report, name):
    return next(row for row in report["rows"] if row["name"] == name)


def test_the_recommended_artifacts_of_a_clean_commit_pass(project, tmp_path):
    candidate = gates(project)
    assert candidate.targets == ("onnx-fp32", "onnx-int8")
    content = make_content(candidate, "signs", "v1.0.0", tmp_path)
    manifest = content.manifest
    assert manifest.git_commit == git(project, "rev-parse", "HEAD").strip()
    assert dict(manifest.recommended) == {"fastest inside the budget": "onnx-int8", "most accurate": "onnx-fp32"}
    assert manifest.dvc_lock_sha256 == sha256_of(project / "dvc.lock")
    assert {file.path for file in manifest.targets["onnx-int8"].files} == {"model.onnx", "artifact.json"}
    assert manifest.targets["onnx-int8"].metrics["top1"] == 0.9
    for file in manifest.files():
        path = content.files[file.key]
        assert (path.stat().st_size, sha256_of(path)) == (file.size, file.sha256)
    table = (tmp_path / "labels.csv").read_text().splitlines()
    assert len(table) == 1 + 4 + 1
    label = project / "data" / "photos" / "labels" / "0.txt"
    (line,) = [line for line in table if "data/photos/labels/0.txt" in line]
    assert line.split(",")[2:] == ["train", "data/photos/labels/0.txt", sha256_of(label), "file"]
    assert (manifest.labels.num_images, manifest.labels.num_label_files, manifest.labels.num_edits) == (4, 5, 0)


def test_the_same_commit_gives_the_same_manifest_elsewhere(project, finished, tmp_path):
    made = []
    for number, root in enumerate((project, finished)):
        work = tmp_path / str(number)
        work.mkdir()
        made.append(make_content(find_candidate(root, ()), "signs", "v1.0.0", work).manifest)
    assert made[0] == made[1]


@pytest.mark.parametrize("name", ["params.yaml", "line.py", "reports/report/report.json", "dvc.lock"])
def test_a_changed_file_is_refused(project, name):
    with (project / name).open("a") as file:
        file.write("\n")
    with pytest.raises(PublishError, match=rf"{name}: changed since commit .* commit it, or take it back"):
        tree_is_clean(find_candidate(project, ()))


def test_new_code_is_refused_and_other_new_files_are_not(project):
    (project / "notes.txt").write_text("note")
    tree_is_clean(find_candidate(project, ()))
    (project / "stages").mkdir()
    (project / "stages" / "extra.py").write_text("")
    with pytest.raises(PublishError, match=r"stages/extra.py: changed since commit"):
        tree_is_clean(find_candidate(project, ()))


def test_a_stage_that_is_not_up_to_date_is_refused(project):
    change(project / "params.yaml", "gain: 8.0", "gain: 9.0")
    commit(project, "gain, and the line was not run")
    with pytest.raises(PublishError, match=r"dvc.lock: not up to date: line, expected a clean `dvc status`"):
        gates(project)


def test_a_label_that_changed_since_is_refused(project):
    change(project / "data" / "photos" / "labels" / "0.txt", "0 0.5", "1 0.5")
    commit(project, "label")
    with pytest.raises(PublishError, match="not up to date: ingest"):
        gates(project)


def test_a_changed_artifact_is_refused(project):
    path = project / "models" / "artifacts" / "onnx-int8" / "model.onnx"
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-1] + b"x")
    candidate = find_candidate(project, ())
    with pytest.raises(PublishError, match="not up to date: line"):
        stages_are_up_to_date(candidate)
    with pytest.raises(PublishError, match=r"model.onnx: damaged, expected sha256"):  # even if DVC took it as meant so
        files_are_as_exported(candidate)


def test_a_file_that_is_no_part_of_the_artifact_is_refused(project):
    (project / "models" / "artifacts" / "onnx-int8" / "manifest.json").write_text("{}")
    with pytest.raises(PublishError, match=r"onnx-int8/manifest.json: no file of the artifact"):
        files_are_as_exported(find_candidate(project, ()))


def test_artifacts_of_other_labels_are_refused(project):
    (project / "data" / "splits.parquet").unlink()
    (project / "data" / "splits.parquet").write_bytes(b"other")
    with pytest.raises(PublishError, match=r"made from other labels or splits than data/validated and"):
        files_are_as_exported(find_candidate(project, ()))


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        (
            "onnx-int8",
            {"accepted": False, "accepted_why": "slower than fp32"},
            "onnx-int8 is not accepted (slower than",
        ),
        ("onnx-int8", {"accepted": None, "accepted_why": "no speed"}, "onnx-int8 is not accepted (no speed)"),
        ("onnx-fp32", {"keeps_budget": False}, "onnx-fp32 is not accepted (its loss is past the budget"),
        ("onnx-fp32", {"keeps_budget": None}, "onnx-fp32 is not accepted"),
    ],
)
def test_what_the_report_does_not_accept_is_refused(finished, name, values, said):
    candidate = with_report(find_candidate(finished, ()), lambda report: row_of(report, name).update(values))
    with pytest.raises(PublishError) as caught:
        artifacts_are_accepted(candidate)
    assert said in str(caught.value)
    other = {"onnx-int8": "onnx-fp32", "onnx-fp32": "onnx-int8"}[name]
    artifacts_are_accepted(dataclasses.replace(candidate, targets=(other,)))


def test_a_report_about_another_export_is_refused(finished):
    candidate = find_candidate(finished, ())
    files_are_as_exported(candidate)
    changed = with_report(candidate, lambda report: report["lineage"]["onnx-int8"].update(hub_sha256="0" * 64))
    with pytest.raises(PublishError, match=r"onnx-int8: not what reports/report/report.json is about"):
        files_are_as_exported(changed)


def test_a_report_that_recommends_nothing_is_refused(project):
    path = project / "reports" / "report" / "report.json"
    report = json.loads(path.read_text())
    for choice in report["recommended"].values():
        choice["artifact"] = None
    path.write_text(json.dumps(report))
    with pytest.raises(PublishError, match="recommends no artifact"):
        find_candidate(project, ())
    path.unlink()
    with pytest.raises(PublishError, match="not a report"):
        find_candidate(project, ())


def test_a_target_that_is_not_there_is_refused(project):
    with pytest.raises(PublishError, match="no artifact 'ncnn-int8', expected one of: onnx-fp32, onnx-int8"):
        artifacts_are_accepted(find_candidate(project, ("ncnn-int8",)))


def test_a_folder_that_is_no_project_is_refused(project, tmp_path):
    with pytest.raises(PublishError, match="git"):
        find_candidate(tmp_path, ())
    with pytest.raises(PublishError, match="not the root of its git repository"):
        find_candidate(project / "data", ())


def test_the_registry_and_dvc_see_the_version(project, tmp_path):
    head = git(project, "rev-parse", "HEAD").strip()
    content = make_content(find_candidate(project, ()), "signs", "v1.0.0", tmp_path)
    check_registry(project, "signs", "v1.0.0", head)
    assert register(project, content.manifest, "s3://shop/models/signs/v1.0.0")
    assert not register(project, content.manifest, "s3://shop/models/signs/v1.0.0")
    check_registry(project, "signs", "v1.0.0", head)
    assert git(project, "cat-file", "-t", "signs@v1.0.0") == "tag\n"  # annotated
    assert git(project, "rev-parse", "signs@v1.0.0^{commit}").strip() == head
    message = git(project, "tag", "-l", "-n9", "signs@v1.0.0")
    assert "s3://shop/models/signs/v1.0.0" in message
    shown = subprocess.run(["gto", "show", "signs", "--json"], cwd=project, capture_output=True, text=True, check=True)
    assert '"version": "v1.0.0"' in shown.stdout
    dvc(project, "artifacts", "get", ".", "signs", "--rev", "v1.0.0", "-o", str(tmp_path / "got"))
    for file in content.manifest.targets["onnx-int8"].files:
        assert sha256_of(tmp_path / "got" / "onnx-int8" / file.path) == file.sha256
    with pytest.raises(PublishError, match=r"registered as signs@v1\.0\.0, expected v1\.1\.0"):
        check_registry(project, "signs", "v1.1.0", head)
    (project / "notes.txt").write_text("note")
    later = commit(project, "later")
    with pytest.raises(PublishError, match=rf"signs@v1\.0\.0: registered at commit {head[:12]}, expected none or this"):
        check_registry(project, "signs", "v1.0.0", later)
    check_registry(project, "signs", "v1.1.0", later)


def test_the_tag_is_pushed_where_it_is_asked_for(project, tmp_path):
    git(tmp_path, "init", "-q", "--bare", "remote")
    manifest = make_content(find_candidate(project, ()), "signs", "v1.0.0", tmp_path).manifest
    register(project, manifest, "s3://shop")
    with pytest.raises(
        PublishError, match=r"published and registered, but not pushed .*`git push origin signs@v1.0.0`"
    ):
        push_tag(project, manifest, "origin")
    git(project, "remote", "add", "origin", str(tmp_path / "remote"))
    push_tag(project, manifest, "origin")
    push_tag(project, manifest, "origin")
    assert git(tmp_path / "remote", "tag").strip() == "signs@v1.0.0"


def test_what_could_not_be_registered_is_refused_before_anything_is_written(project, monkeypatch):
    with pytest.raises(PublishError, match=r"dvc.yaml: no artifact 'cats', .* add it: `artifacts: {cats: "):
        check_registry(project, "cats", "v1.0.0", "0" * 40)
    for name in ("GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    monkeypatch.setenv("HOME", str(project))
    git(project, "config", "user.useConfigOnly", "true")
    done = subprocess.run(["git", "var", "GIT_COMMITTER_IDENT"], cwd=project, capture_output=True, check=False)
    assert done.returncode
    with pytest.raises(PublishError, match="git has no name for who publishes"):
        check_registry(project, "signs", "v1.0.0", git(project, "rev-parse", "HEAD").strip())


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"model": "Street signs", "destination": ""}, "small letters, digits and dashes"),
        ({"model": "signs", "destination": "bucket/models"}, "s3://bucket/prefix"),
        ({"model": "signs"}, "missing parameter publish.destination"),
        ({"model": "signs", "destination": "", "bucket": "b"}, "unknown parameter publish.bucket"),
    ],
)
def test_a_wrong_value_in_params_is_named(project, values, said):
    with pytest.raises(ParamsError, match=said):
        check_section(project / "params.yaml", "publish", values, PublishParams)


def test_without_a_destination_nothing_is_started(project, capsys):
    change(project / "params.yaml", "destination: s3://nowhere/models", 'destination: ""')
    assert main(["v1.0.0", "--root", str(project)]) == 1
    error = capsys.readouterr().err
    assert "params.yaml:" in error
    assert "publish.destination is empty, expected s3://bucket/prefix; set it" in error
    assert not (project / ".prefect").exists()


def test_beside_a_flow_nothing_is_published(project, capsys):
    """A flow may export the very files that are being published."""
    with sole_flow(project, {}):
        assert main(["v1.0.0", "--root", str(project)]) == 1
        record = json.loads((project / RECORD).read_text())
    assert capsys.readouterr().err == (
        f"error: {project}: a flow or another publish runs on this folder, expected none; wait for its end, or end it\n"
    )
    assert record == {"pid": os.getpid()}
    assert not (project / ".prefect").exists()


def test_a_version_that_is_none_is_refused(project, capsys):
    assert main(["1.0", "--root", str(project)]) == 1
    assert "version '1.0': expected one such as v1.2.3" in capsys.readouterr().err
