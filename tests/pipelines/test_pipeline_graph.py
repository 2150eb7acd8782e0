"""The graph is dvc.yaml's: order, edges, foreach entries, what has changed, and errors in one line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.graph import GraphError, graph_of, in_order, read_graph, read_graph_and_changes


def test_stages_come_in_an_order_that_can_run_and_else_as_declared(project):
    graph = read_graph(project.root)

    assert graph.names == ("prepare", "fragile", "behind", "make@b-two", "make@a-one", "report")


def test_a_stage_needs_what_makes_its_dependencies(project):
    needs = {stage.name: stage.needs for stage in read_graph(project.root).stages}

    assert needs["prepare"] == ()
    assert needs["make@a-one"] == ("prepare",)
    assert needs["report"] == ("make@b-two", "make@a-one")  # through the folder that holds their outputs
    assert needs["behind"] == ("fragile",)


def test_descriptions_are_read_with_the_key_of_a_foreach(project):
    descs = {stage.name: stage.desc for stage in read_graph(project.root).stages}

    assert descs["make@b-two"] == "Make b-two"
    assert descs["fragile"] == ""


def test_the_current_folder_does_not_matter(project, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert read_graph(project.root).names[0] == "prepare"


def test_files_and_folders_apart_from_the_root_are_named_as_dvc_addresses_them(project):
    project.write(raw_bin="raw")
    project.dvc("add", "--quiet", "raw.bin", "source.txt")
    (project.root / "sub").mkdir()
    (project.root / "sub" / "dvc.yaml").write_text("stages: {deep: {cmd: echo deep}}")

    graph = read_graph(project.root)

    assert "sub/dvc.yaml:deep" in graph.names
    assert graph.names.index("source.txt.dvc") < graph.names.index("prepare")
    assert "raw.bin.dvc" not in graph.names  # no stage reads it


def test_a_frozen_stage_waits_for_nothing(project):
    project.dvc("freeze", "behind")

    assert {stage.name: stage.needs for stage in read_graph(project.root).stages}["behind"] == ()


def test_changed_stages_are_those_that_dvc_would_run_or_cannot_know(project):
    assert read_graph_and_changes(project.root)[1] == {
        "prepare",
        "make@b-two",
        "make@a-one",
        "report",
        "fragile",
        "behind",
    }

    project.dvc("repro", "--quiet")
    assert read_graph_and_changes(project.root)[1] == frozenset()

    project.write(params_yaml="targets:\n  b-two: {size: 3}\n  a-one: {size: 1}\n")
    assert read_graph_and_changes(project.root)[1] == {"make@b-two"}


def test_a_fault_in_dvc_yaml_is_one_line_that_names_it(empty_project):
    empty_project.write(
        dvc_yaml="stages:\n  a: {cmd: echo, deps: [b], outs: [a]}\n  b: {cmd: echo, deps: [a], outs: [b]}\n"
    )

    with pytest.raises(GraphError, match=r"dvc\.yaml: .*both a dependency and an output.*; mend it") as caught:
        read_graph(empty_project.root)
    assert "\n" not in str(caught.value)


def test_a_folder_without_dvc_is_refused(tmp_path):
    with pytest.raises(GraphError, match="not inside of a DVC repository"):
        read_graph(tmp_path)


@st.composite
def acyclic(draw) -> dict[str, list[str]]:
    """Names with what each needs, declared in any order."""
    names = [f"s{number}" for number in range(draw(st.integers(0, 8)))]
    needs = {
        name: draw(st.lists(st.sampled_from(names[:at]), unique=True)) if at else [] for at, name in enumerate(names)
    }
    return {name: needs[name] for name in draw(st.permutations(names))}


@given(acyclic())
def test_every_name_stands_once_after_what_it_needs(needs):
    order = in_order(needs)

    assert sorted(order) == sorted(needs)
    assert all(order.index(need) < order.index(name) for name, its in needs.items() for need in its)


@given(acyclic())
def test_needs_are_in_the_order_of_the_graph(needs):
    graph = graph_of(needs, {})

    for stage in graph.stages:
        assert [name for name in graph.names if name in needs[stage.name]] == list(stage.needs)


def test_names_that_wait_for_each_other_are_refused():
    with pytest.raises(GraphError, match="wait for each other: a, b"):
        in_order({"first": [], "a": ["b"], "b": ["a"]})
