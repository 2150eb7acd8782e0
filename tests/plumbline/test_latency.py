"""The single-stream protocol, on a clock that the test itself moves."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plumbline.latency import measure, percentile_of

MS = 1_000_000


class Bench:
    """A clock, and a query that takes as long as it is told: a fifth before, four fifths in the network."""

    def __init__(self, milliseconds):
        self.now = 0
        self.milliseconds = milliseconds
        self.asked = []

    def clock_ns(self):
        return self.now

    def query(self, number):
        took = int(self.milliseconds(number) * MS)
        self.asked.append(number)
        self.now += took
        return SimpleNamespace(preprocess_ns=took // 5, inference_ns=took - took // 5, postprocess_ns=0)

    def measure(self, **limits):
        rules = {"warmup_queries": 0, "min_queries": 1, "min_duration_s": 0.0, "max_duration_s": 1e9} | limits
        return measure(self.query, clock_ns=self.clock_ns, **rules)


def test_it_goes_on_until_both_minimums_are_met():
    assert Bench(lambda _: 10).measure(min_queries=7, min_duration_s=0.05).num_queries == 7
    assert Bench(lambda _: 10).measure(min_queries=7, min_duration_s=0.5).num_queries == 50
    assert Bench(lambda _: 10).measure(min_queries=1, min_duration_s=0.0).num_queries == 1


def test_warm_up_is_asked_first_and_never_counted():
    bench = Bench(lambda number: 10)
    slow_first = iter([1000, 1000])
    bench.milliseconds = lambda number: next(slow_first, 10)
    result = bench.measure(warmup_queries=2, min_queries=3, max_duration_s=0.5)
    assert bench.asked == [0, 1, 0, 1, 2]
    assert result.valid
    assert (result.num_queries, result.duration_s) == (3, pytest.approx(0.03))
    assert result.percentiles_ms["latency"] == {50: 10.0, 90: 10.0, 99: 10.0}


@pytest.mark.parametrize("minimums", [{"min_queries": 100}, {"min_duration_s": 2.0}])
def test_a_run_that_misses_a_minimum_is_invalid_and_has_no_latency(minimums):
    result = Bench(lambda _: 100).measure(max_duration_s=1.0, **minimums)
    assert not result.valid
    assert result.num_queries == 10
    assert result.metrics() == {"valid": 0, "num_queries": 10, "duration_s": pytest.approx(1.0)}


def test_the_last_allowed_query_may_still_meet_the_minimum():
    assert Bench(lambda _: 100).measure(min_queries=10, max_duration_s=1.0).valid


def test_percentiles_of_each_part():
    result = Bench(lambda number: number + 1).measure(min_queries=100)
    assert result.percentiles_ms["latency"] == {50: 51.0, 90: 91.0, 99: 100.0}
    assert result.percentiles_ms["preprocess"][50] == pytest.approx(51 / 5)
    assert result.percentiles_ms["inference"][99] == pytest.approx(80)
    assert result.percentiles_ms["postprocess"] == {50: 0.0, 90: 0.0, 99: 0.0}


def test_metrics_are_flat_numbers_with_the_names_that_a_person_knows():
    metrics = Bench(lambda number: number + 1).measure(min_queries=100).metrics()
    assert metrics["valid"] == 1
    assert (metrics["latency_ms_p50"], metrics["latency_ms_p90"], metrics["latency_ms_p99"]) == (51.0, 91.0, 100.0)
    assert len(metrics) == 3 + 4 * 3
    assert all(isinstance(value, int | float) for value in json.loads(json.dumps(metrics)).values())


def test_progress_is_told_and_not_timed():
    bench = Bench(lambda _: 10)
    told = []

    def progress(queries, seconds):
        told.append((queries, round(seconds, 3)))
        bench.now += 5 * MS

    result = bench.measure(min_queries=3, progress=progress)
    assert told == [(1, 0.01), (2, 0.025), (3, 0.04)]
    assert result.percentiles_ms["latency"][99] == 10.0


@given(values=st.lists(st.integers(0, 10**12), min_size=1), percentile=st.sampled_from([0, 50, 90, 99]))
def test_a_percentile_was_measured_and_so_many_are_below(values, percentile):
    got = percentile_of(values, percentile)
    assert got in values
    assert np.sum(np.array(values) <= got) > len(values) * percentile / 100 - 1e-9
    assert np.sum(np.array(values) < got) <= len(values) * percentile / 100
