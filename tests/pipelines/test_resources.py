"""Cores and GPUs are given to one stage at a time, and never more than there are."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.graph import ALL, GraphError, Stage, read_meta
from pipelines.resources import Resources, machine_resources, visible_gpus

AMOUNTS = st.one_of(st.just(ALL), st.integers(0, 4))


@given(
    cpu=st.integers(1, 4),
    num_gpus=st.integers(0, 3),
    needs=st.lists(st.fixed_dictionaries({"cpu": AMOUNTS, "gpu": AMOUNTS}), max_size=12),
    data=st.data(),
)
def test_what_is_given_is_never_more_than_there_is_and_comes_back(cpu, num_gpus, needs, data):
    machine = Resources(cpu, [f"gpu{index}" for index in range(num_gpus)])
    grants = []
    for need in needs:
        grant = machine.take(need)
        if grant is not None:
            grants.append(grant)
        given_gpus = [gpu for each in grants for gpu in each.gpus]
        assert sum(each.cpu for each in grants) <= cpu
        assert len(given_gpus) == len(set(given_gpus)) <= num_gpus
        if grants and data.draw(st.booleans()):
            machine.give_back(grants.pop(data.draw(st.integers(0, len(grants) - 1))))
    for grant in grants:
        machine.give_back(grant)
    everything = machine.take({"cpu": ALL, "gpu": ALL})
    assert everything is not None
    assert (everything.cpu, everything.gpus) == (cpu, machine.gpus)


def test_a_stage_sees_the_gpus_it_was_given_and_one_that_asked_for_none_sees_all():
    machine = Resources(2, ["3", "5"])
    first, second = machine.take({"gpu": 1}), machine.take({"gpu": 1})
    assert first is not None
    assert second is not None
    assert first.environment() == {"CUDA_VISIBLE_DEVICES": "3"}
    assert second.environment() == {"CUDA_VISIBLE_DEVICES": "5"}
    assert machine.take({"gpu": 1}) is None
    none = machine.take({"cpu": 1})
    assert none is not None
    assert none.environment() == {}


@pytest.mark.parametrize(
    ("needs", "pool", "refused"),
    [({"cpu": 3}, "", True), ({"gpu": 1}, "", True), ({"gpu": ALL}, "", True), ({"gpu": 1}, "gpu", False)],
)
def test_what_could_never_start_is_refused_before_anything_runs(needs, pool, refused):
    stage = Stage("train", (), "", needs, pool)
    if not refused:
        Resources(2, []).check([stage])
        return
    with pytest.raises(GraphError, match=r"stage 'train' needs .* this machine has"):
        Resources(2, []).check([stage])


def test_limits_say_how_much_of_the_machine():
    assert machine_resources({"cpu": 0, "gpu": 0}).cpu == len(os.sched_getaffinity(0))
    assert machine_resources({"cpu": 3, "gpu": 2}).cpu == 3
    assert len(machine_resources({"cpu": 3, "gpu": 2}).gpus) == 2


@pytest.mark.parametrize(
    ("named", "gpus"), [("", ()), ("-1", ()), ("0,2", ("0", "2")), ("GPU-a, GPU-b", ("GPU-a", "GPU-b"))]
)
def test_the_gpus_are_those_that_the_environment_leaves(named, gpus):
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": named}) == gpus


@pytest.mark.parametrize("meta", [{"cpu": "two"}, {"gpu": -1}, {"cpu": True}, {"gpu": 0.5}, {"pool": 3}])
def test_a_need_that_is_none_is_told(meta):
    with pytest.raises(GraphError, match=r"dvc.yaml: stage 'train': meta\.(cpu|gpu|pool) is"):
        read_meta("train", meta)


def test_what_a_user_keeps_in_meta_is_left_alone():
    assert read_meta("train", {"owner": "ann", "cpu": 2}) == ({"cpu": 2}, "")
    assert read_meta("train", "a note") == ({"cpu": 1}, "")
