"""Stages that were not run on what a revision holds: of a commit as of the working tree, without its data."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from review_project import ReviewProject, read_yaml, run_project, write_yaml

from pipelines.publish_gates import Candidate, gates_of_params_pass
from pipelines.stale import stale_row, stale_stages
from plumbline.errors import EvaluationError
from plumbline.published import PublishError
from plumbline.review.changes import Verdict


@pytest.fixture
def project(tmp_path_factory, tmp_path, alone) -> ReviewProject:
    return run_project(tmp_path_factory.getbasetemp()).copy(tmp_path / "project")


def test_a_commit_whose_results_are_its_own_has_no_stale_stage(project):
    assert stale_stages(project.root, "main") == []
    assert stale_stages(project.root, "worse") == []
    assert stale_stages(project.root, None) == []
    assert stale_row([]).verdict is Verdict.UNCHANGED


def test_what_was_changed_and_not_run_is_named_with_and_without_the_data(project):
    params = read_yaml(project.root / "params.yaml")
    params["network"]["seed"] = 7
    write_yaml(project.root / "params.yaml", params)
    here = stale_stages(project.root, None)
    assert "evaluate_weights" in here
    assert "ingest" not in here
    project.commit("Changed, and not run")
    told = stale_stages(project.root, "HEAD")
    assert set(told) == {name for name in here if name != "report"}, "of what another makes, the lock is asked"
    assert stale_stages(project.root, "HEAD~1") == []
    shutil.rmtree(project.root / ".dvc" / "cache")
    assert stale_stages(project.root, "HEAD") == told
    row = stale_row(told)
    assert row.verdict is Verdict.WORSE
    assert "run dvc repro and commit: " in row.note


def test_numbers_that_the_stage_did_not_write_are_stale(project):
    path = project.root / "reports/benchmark/onnx-int8.json"
    path.write_text(re.sub(r'"latency_ms_p50": [\d.]+', '"latency_ms_p50": 1.0', path.read_text()))
    assert "benchmark@onnx-int8" in stale_stages(project.root, None)
    project.commit("Faster by hand")
    assert stale_stages(project.root, "HEAD") == ["benchmark@onnx-int8"]


def test_a_commit_of_before_the_line_was_run_is_stale_altogether(project):
    assert {"ingest", "report", "split"} <= set(stale_stages(project.root, "unrun"))


def test_a_revision_that_is_none_is_told(project):
    with pytest.raises(EvaluationError, match="no commit 'nowhere'"):
        stale_stages(project.root, "nowhere")


def gate(project: ReviewProject, gates: dict[str, str] | None) -> Path:
    params = read_yaml(project.root / "params.yaml")
    params.pop("gates")
    if gates is not None:
        params["gates"] = gates
    write_yaml(project.root / "params.yaml", params)
    return project.root / "params.yaml"


def test_publishing_asks_the_gates_of_params(project):
    candidate = Candidate(project.root, project.git("rev-parse", "HEAD"), {}, ("onnx-int8",))
    gate(project, {"floor": "map50_95 >= 0.1", "no_loss": "map50_95 drop <= 0", "size": "size_bytes rise <= 0 %"})
    gates_of_params_pass(candidate)
    path = gate(project, {"floor": "map50_95 >= 0.1", "high": "onnx-int8.map50_95 >= 0.999"})
    with pytest.raises(PublishError, match=rf"^{path}:\d+: gate high fails: onnx-int8 mAP50-95 is 0\.\d+, expected"):
        gates_of_params_pass(candidate)
    gate(project, None)
    gates_of_params_pass(candidate)
