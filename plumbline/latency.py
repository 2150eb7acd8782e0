"""Latency as MLPerf's single-stream scenario measures it.

The next query starts when the one before has ended. After a warm-up that is not counted, queries go on until
a minimum number AND a minimum duration are both met; a percentile is read off the sorted latencies. A run
that does not meet both minimums in the time allowed is INVALID and has no latency. Unlike MLPerf's own rules,
the minimums are the caller's, and no early-stopping estimate is added to the percentile.

Source: https://github.com/mlcommons/inference_policies/blob/master/inference_rules.adoc (scenarios, LoadGen
operation) and `PerformanceSummary::ProcessLatencies` in
https://github.com/mlcommons/inference/blob/master/loadgen/results.cc
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

PERCENTILES = (50, 90, 99)
NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000


class StageTimes(Protocol):
    """The three parts of one query, in nanoseconds; `plumbline.runtime` has the real one."""

    @property
    def preprocess_ns(self) -> int:
        """From the image to the engine's input."""

    @property
    def inference_ns(self) -> int:
        """The engine."""

    @property
    def postprocess_ns(self) -> int:
        """From the engine's outputs to detections."""


@dataclass(frozen=True)
class LatencyResult:
    """What `measure` saw.

    Attributes:
        valid: Both minimums were met.
        num_queries: Counted ones, without warm-up.
        duration_s: From the start of the first counted query to the end of the last.
        percentiles_ms: ``latency``, ``preprocess``, ``inference``, ``postprocess`` -> percentile ->
            milliseconds; empty when the run is invalid. ``latency`` is end to end; percentiles of parts do
            not add up to it.
    """

    valid: bool
    num_queries: int
    duration_s: float
    percentiles_ms: dict[str, dict[int, float]]

    def metrics(self) -> dict[str, float]:
        """Return flat numbers: valid (1 or 0), num_queries, duration_s, latency_ms_p50, inference_ms_p99..."""
        flat: dict[str, float] = {
            "valid": int(self.valid),
            "num_queries": self.num_queries,
            "duration_s": self.duration_s,
        }
        for part, percentiles in self.percentiles_ms.items():
            flat |= {f"{part}_ms_p{percentile}": value for percentile, value in percentiles.items()}
        return flat


def measure(
    query: Callable[[int], StageTimes],
    *,
    warmup_queries: int,
    min_queries: int,
    min_duration_s: float,
    max_duration_s: float,
    progress: Callable[[int, float], None] = lambda _queries, _seconds: None,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
) -> LatencyResult:
    """Ask one query after the other and time each.

    Args:
        query: Runs the query with this number (0.. in the warm-up, and again from 0) and returns its parts.
        warmup_queries: Not counted, and not limited by `max_duration_s`.
        min_queries: At least 1.
        min_duration_s: Seconds.
        max_duration_s: The run ends with the query that goes past this, met or not.
        progress: Told the counted queries and seconds so far after each query, outside of its latency.
        clock_ns: Where nanoseconds come from.
    """
    for number in range(warmup_queries):
        query(number)
    samples: dict[str, list[int]] = {"latency": [], "preprocess": [], "inference": [], "postprocess": []}
    start = clock_ns()
    duration_s, num_queries, valid = 0.0, 0, False
    while not valid and duration_s < max_duration_s:
        before = clock_ns()
        times = query(num_queries)
        after = clock_ns()
        samples["latency"].append(after - before)
        samples["preprocess"].append(times.preprocess_ns)
        samples["inference"].append(times.inference_ns)
        samples["postprocess"].append(times.postprocess_ns)
        num_queries += 1
        duration_s = (after - start) / NS_PER_S
        valid = num_queries >= min_queries and duration_s >= min_duration_s
        progress(num_queries, duration_s)
    percentiles = {part: _percentiles_ms(values) for part, values in samples.items()} if valid else {}
    return LatencyResult(valid, num_queries, duration_s, percentiles)


def percentile_of(values: Sequence[int], percentile: int) -> int:
    """Return a value that was measured: the one at ``floor(n * percentile / 100)``, 0-based, in rising order.

    Args:
        values: One or more, in any order.
        percentile: 0..99.

    >>> percentile_of([50, 10, 40, 20, 30], 50), percentile_of(list(range(100)), 99)
    (30, 99)
    """
    return sorted(values)[len(values) * percentile // 100]


def _percentiles_ms(values: list[int]) -> dict[int, float]:
    return {percentile: percentile_of(values, percentile) / NS_PER_MS for percentile in PERCENTILES}
