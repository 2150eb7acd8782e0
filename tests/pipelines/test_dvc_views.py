"""DVC's own views of two revisions: `dvc metrics diff`, `dvc params diff`, `dvc plots diff` and `dvc exp show`."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from review_project import CHANGES, NETWORK, ReviewProject, read_yaml, run_project

ROOT = Path(__file__).parent.parent.parent
EVALUATED = ("weights", "onnx-fp32", "onnx-int8")
# DVC's own, beside those in .dvc/plots. Source: dvc_render.vega_templates
BUILT_IN = {"linear", "simple", "scatter", "scatter_jitter", "smooth", "confusion", "confusion_normalized"}
BUILT_IN |= {"bar_horizontal", "bar_horizontal_sorted"}


@pytest.fixture(scope="module")
def run(tmp_path_factory, alone) -> ReviewProject:
    """The small project with ``main`` and ``worse``, both run and committed; ``main`` is checked out."""
    return run_project(tmp_path_factory.getbasetemp())


def dvc(root: Path, *arguments: str) -> str:
    """What a DVC command says; it must have nothing to complain about."""
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=root, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def ask(root: Path, *arguments: str) -> Any:
    found = json.loads(dvc(root, *arguments, "--json"))
    assert list(faults(found)) == []
    return found


def faults(value: Any) -> Iterator[Any]:
    """What DVC puts into its JSON where a file cannot be read."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("error", "errors") and inner:
                yield inner
            yield from faults(inner)


def committed(project: ReviewProject, revision: str, path: str) -> dict[str, float]:
    return json.loads(project.git("show", f"{revision}:{path}"))


def test_metrics_diff_is_what_the_evaluator_wrote(run):
    found = ask(run.root, "metrics", "diff", "main", "worse")

    wanted = {f"reports/evaluate/{name}/metrics.json" for name in EVALUATED}
    wanted |= {f"reports/benchmark/{name}.json" for name in EVALUATED if name != "weights"}
    assert set(found) == wanted  # and nothing of the data, which is the same
    for path in wanted:
        old, new = committed(run, "main", path), committed(run, "worse", path)
        changed = {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
        assert set(found[path]) == changed
        for key in changed:
            assert (found[path][key].get("old"), found[path][key].get("new")) == (old.get(key), new.get(key))
    score = found["reports/evaluate/weights/metrics.json"]["map50_95"]
    assert score["diff"] == pytest.approx(score["new"] - score["old"])
    assert score["diff"] < -0.1


def test_metrics_diff_reads_well(run):
    lines = dvc(run.root, "metrics", "diff", "main", "worse").splitlines()
    assert lines[0].split() == ["Path", "Metric", "main", "worse", "Change"]
    (latency,) = [line.split() for line in lines if "onnx-int8.json" in line and " latency_ms_p50 " in line]
    assert latency == ["reports/benchmark/onnx-int8.json", "latency_ms_p50", "5.0", "7.0", "2.0"]


def test_params_diff_tells_what_was_changed(run):
    found = ask(run.root, "params", "diff", "main", "worse")
    changes = {f"network.{key}": (NETWORK[key], value) for key, value in CHANGES["worse"].items()}
    told = {key: (each["old"], each["new"]) for key, each in found["params.yaml"].items()}
    assert (list(found), told) == (["params.yaml"], changes)


def test_plots_diff_draws_both_revisions(run, tmp_path):
    found = ask(run.root, "plots", "diff", "main", "worse", "--split", "--out", str(tmp_path))["data"]

    declared = dict(plots_of(read_yaml(run.root / "dvc.yaml")))
    assert set(found) == {path.replace("${key}", name) for path in declared for name in EVALUATED}
    for path, plots in found.items():
        if path.endswith(".csv"):
            (plot,) = plots
            assert set(plot["revisions"]) == {"main", "worse"}
            rows = plot["anchor_definitions"]["<DVC_METRIC_DATA>"]
            assert {row["rev"] for row in rows} == {"main", "worse"}
            artifact = Path(path).parent.name
            assert plot["anchor_definitions"]["<DVC_METRIC_TITLE>"].endswith(f", {artifact}")
        else:
            assert [plot["revisions"] for plot in plots] == [["main"], ["worse"]]
            assert all(Path(plot["url"]).stat().st_size > 0 for plot in plots)


def test_plots_diff_is_a_page(run, tmp_path):
    dvc(run.root, "plots", "diff", "main", "worse", "--out", str(tmp_path))
    page = (tmp_path / "index.html").read_text()
    for name in EVALUATED:
        assert f"Precision and recall, {name}" in page


def test_exp_show_has_a_row_for_each_revision(run):
    show = ("exp", "show", "--rev", "main", "--rev", "worse")
    rows = {row["name"] or row["rev"]: row for row in ask(run.root, *show)}

    assert set(rows) == {"workspace", "main", "worse"}
    for name, network in (("main", NETWORK), ("worse", NETWORK | CHANGES["worse"])):
        data = rows[name]["data"]
        assert data["params"]["params.yaml"]["data"]["network"] == network
        for artifact in EVALUATED:
            path = f"reports/evaluate/{artifact}/metrics.json"
            assert data["metrics"][path]["data"] == committed(run, name, path)
    table = pd.read_csv(io.StringIO(dvc(run.root, *show, "--csv", "--only-changed"))).set_index("rev")
    assert {"network.noise_px", "reports/evaluate/weights/metrics.json:map50_95"} <= set(table.columns)
    assert not any(column.startswith("dataset") for column in table.columns)  # the same in both
    assert table.loc[["main", "worse"], "network.noise_px"].tolist() == [NETWORK["noise_px"], 3.0]


def plots_of(graph: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The plots of a dvc.yaml, templates of stages as they are written: path -> settings."""
    for stage in graph["stages"].values():
        for plot in stage.get("do", stage).get("plots", ()):
            yield from ({plot: {}} if isinstance(plot, str) else plot).items()


def test_the_graph_of_this_repository_has_the_metrics_and_plots_of_the_small_one(run):
    real, small = read_yaml(ROOT / "dvc.yaml")["stages"], read_yaml(run.root / "dvc.yaml")["stages"]
    for name, stage in small.items():
        for key in ("metrics", "plots", "outs"):
            assert stage.get("do", stage).get(key) == real[name].get("do", real[name]).get(key), name


def test_every_plot_of_this_repository_has_its_template_and_every_metric_is_in_git():
    graph = read_yaml(ROOT / "dvc.yaml")
    templates = BUILT_IN | {path.stem for path in (ROOT / ".dvc" / "plots").glob("*.json")}
    for path, settings in plots_of(graph):
        assert settings.get("template", "linear") in templates, path
    for name, stage in graph["stages"].items():
        for metric in stage.get("do", stage).get("metrics", ()):
            assert all(settings == {"cache": False} for settings in metric.values()), name


@pytest.fixture
def checkout(tmp_path, alone) -> Path:
    """This repository's own graph and the results that git has of it, in a clone without data."""
    subprocess.run(["git", "clone", "--quiet", "--local", os.fspath(ROOT), tmp_path / "clone"], check=True)
    return tmp_path / "clone"


def test_the_views_of_this_repository_need_git_alone(checkout, tmp_path):
    metrics = ask(checkout, "metrics", "show")[""]["data"]
    assert metrics["reports/evaluate/weights/metrics.json"]["data"]["map50_95"] > 0
    assert {"data"} == {key for each in metrics.values() for key in each}

    curves = "reports/evaluate/weights/pr_curve.csv"
    path = checkout / curves
    before = path.read_text().splitlines()
    path.write_text("\n".join(before[:-1]) + "\n")
    shown = ask(checkout, "plots", "diff", "HEAD", "--targets", curves, "--split", "--out", str(tmp_path / "plots"))
    (plot,) = shown["data"][curves]
    counts = {"workspace": len(before) - 2, "HEAD": len(before) - 1}
    rows = [row["rev"] for row in plot["anchor_definitions"]["<DVC_METRIC_DATA>"]]
    assert {rev: rows.count(rev) for rev in counts} == counts
