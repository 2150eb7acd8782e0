"""Queries that take turns, on a clock that the test itself moves."""

import statistics
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plumbline.latency_ratio import median_ranks, order_of, speedup, take_turns

MS = 1_000_000


class Machine:
    """A clock, and queries that take their own time times the machine's slowness at that moment."""

    def __init__(self, slowness=lambda _now_ms: 1.0):
        self.now = 0
        self.slowness = slowness
        self.asked = []

    def query(self, name, milliseconds, inference_share=0.5):
        def ask(number):
            took = int(milliseconds * self.slowness(self.now / MS) * MS)
            self.now += took
            self.asked.append((name, number))
            return SimpleNamespace(preprocess_ns=0, inference_ns=int(took * inference_share), postprocess_ns=0)

        return ask

    def take_turns(self, queries, **how):
        return take_turns(queries, clock_ns=lambda: self.now, **({"rounds": 3, "warmup_queries": 0} | how))


def test_all_are_asked_the_same_in_turns_after_a_warm_up():
    machine = Machine()
    rounds = machine.take_turns(
        {"a": machine.query("a", 1), "b": machine.query("b", 2)}, rounds=2, warmup_queries=2, block=3
    )
    expected = [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    turns = [("a", 0), ("b", 0), ("b", 3), ("a", 3), ("b", 6), ("a", 6), ("a", 9), ("b", 9)]
    for name, first in turns:
        expected += [(name, first), *((name, first + number) for number in range(3))]
    assert machine.asked == expected
    assert rounds == {
        "a": {"latency": [1 * MS] * 2, "inference": [MS // 2] * 2},
        "b": {"latency": [2 * MS] * 2, "inference": [1 * MS] * 2},
    }


def test_progress_is_told_after_each_round_and_not_timed():
    machine, told = Machine(), []

    def progress(number):
        machine.now += 1000 * MS
        told.append(number)

    rounds = machine.take_turns({"a": machine.query("a", 1)}, rounds=4, progress=progress)
    assert told == [1, 2, 3, 4]
    assert rounds["a"]["latency"] == [MS] * 4


def test_the_first_query_of_a_turn_is_not_counted():
    machine = Machine()
    quick = machine.query("a", 1)

    def slow_after_another(number):
        if machine.asked[-1][0] == "b":
            machine.now += 500 * MS
        return quick(number)

    rounds = machine.take_turns({"b": machine.query("b", 1), "a": slow_after_another}, rounds=3, block=1)
    assert rounds["a"]["latency"] == [MS] * 3


@given(st.integers(1, 5))
def test_each_has_each_place_equally_often(count):
    names = tuple("abcde"[:count])
    orders = [order_of(number, names) for number in range(2 * count)]
    assert all(sorted(order) == sorted(names) for order in orders)
    places = Counter((place, name) for order in orders for place, name in enumerate(order))
    assert set(places.values()) == {2}


@given(
    base=st.floats(0.5, 50),
    ratio=st.floats(0.2, 5),
    slowness=st.lists(st.floats(0.3, 10), min_size=5, max_size=31),
)
def test_what_slows_all_queries_of_a_round_cancels(base, ratio, slowness):
    num = len(slowness)
    machine = Machine()
    turn = {"now": 0}
    machine.slowness = lambda _now: slowness[min(turn["now"], num - 1)]
    queries = {"reference": machine.query("reference", base * ratio), "it": machine.query("it", base)}
    rounds = machine.take_turns(queries, rounds=num, progress=lambda number: turn.update(now=number))
    found = speedup(rounds["reference"]["latency"], rounds["it"]["latency"])
    assert found.times == pytest.approx(ratio, rel=1e-4)
    assert found.low == pytest.approx(ratio, rel=1e-4)
    assert found.high == pytest.approx(ratio, rel=1e-4)
    inference = speedup(rounds["reference"]["inference"], rounds["it"]["inference"])
    assert inference.times == pytest.approx(ratio, rel=1e-4)


@given(st.floats(1.1, 4), st.floats(-3, 3))
def test_a_steady_drift_cancels_which_two_runs_in_sequence_would_take_for_a_difference(ratio, drift):
    """The machine grows slower (or faster) by this share over about the time that all rounds take."""
    num, block, base = 21, 10, 5.0
    total = 2 * num * (block + 1) * base * (1 + ratio)
    machine = Machine(lambda now: 1 + drift * min(now / total, 3) if drift > 0 else 1 / (1 - drift * now / total))
    queries = {"reference": machine.query("reference", base * ratio), "it": machine.query("it", base)}
    rounds = machine.take_turns(queries, rounds=num, block=block)
    found = speedup(rounds["reference"]["latency"], rounds["it"]["latency"])
    assert found.times == pytest.approx(ratio, rel=0.03)

    if abs(drift) > 0.5:
        machine.now = 0
        apart = {
            name: machine.take_turns({name: query}, rounds=num, block=block)[name]["latency"]
            for name, query in queries.items()
        }
        assert abs(statistics.median(apart["reference"]) / statistics.median(apart["it"]) / ratio - 1) > 0.1


@given(st.floats(0.5, 4), st.integers(0, 2**32 - 1))
def test_other_processes_that_hold_up_most_queries_do_not_draw_the_result_to_1(ratio, seed):
    """Waiting for them takes as long for the quick as for the slow."""
    rng = np.random.default_rng(seed)
    machine = Machine()

    def held_up(name, milliseconds):
        query = machine.query(name, milliseconds)

        def ask(number):
            machine.now += int(rng.exponential(20) * MS) if rng.random() < 0.7 else 0
            return query(number)

        return ask

    queries = {"reference": held_up("reference", 5 * ratio), "it": held_up("it", 5)}
    rounds = machine.take_turns(queries, rounds=15)
    assert speedup(rounds["reference"]["latency"], rounds["it"]["latency"]).times == pytest.approx(ratio, rel=0.1)


def test_a_pause_of_one_round_does_not_move_the_result():
    machine = Machine()
    queries = {"reference": machine.query("reference", 4), "it": machine.query("it", 2)}
    rounds = machine.take_turns(queries, rounds=9)
    rounds["it"]["latency"][3] *= 50
    rounds["reference"]["latency"][7] *= 50
    assert speedup(rounds["reference"]["latency"], rounds["it"]["latency"]).times == 2


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=40))
def test_an_interval_holds_the_ratio_and_none_is_outside_of_what_was_seen(values):
    found = speedup(values, [1.0] * len(values))
    assert min(values) <= found.low <= found.times <= found.high <= max(values)


@given(st.integers(6, 200))
def test_ranks_have_the_confidence_that_they_promise_and_are_the_narrowest(num):
    binomial = [float(c) for c in _binomial(num)]

    def covered(low, high):
        # The median is between the values at these places if more than `low` and at most `high` values lie below it.
        return sum(binomial[low + 1 : high + 1])

    low, high = median_ranks(num)
    assert low + high == num - 1
    assert covered(low, high) >= 0.95 - 1e-12
    if low + 1 < high - 1:
        assert covered(low + 1, high - 1) < 0.95 + 1e-12


def _binomial(num):
    row = np.array([1.0])
    for _ in range(num):
        row = np.convolve(row, [0.5, 0.5])
    return row


def test_intervals_hold_the_true_median_as_often_as_they_say():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(1000):
        found = speedup(np.exp(rng.normal(np.log(1.8), 0.1, 21)), np.ones(21))
        held += found.low <= 1.8 <= found.high
    assert 940 <= held <= 990
