"""How many times faster one thing is than another, from blocks of queries that take turns.

A machine's speed drifts (clock, heat, neighbours), and two runs one after the other differ by that alone. Here each
round asks all of them a short block of the same queries, there and back again (a b c, c b a), and compares times within
the round: what is slow for all in a round cancels, and so does a steady drift through it. Which comes first changes
from round to round. The result is the median over rounds.

Of each block the fastest query counts: what disturbs a query (an interrupt, another process) only ever adds to its
time. With 8 other processes on 2 cores, medians of blocks drew a ratio of 1.4 to 1.5 down to 1.2.

Source: for the fastest, Chen and Revels, Robust benchmarking in noisy environments, 2016, arXiv 1608.04295. For the
interval of a median by order statistics, which asks nothing of how rounds are distributed, Conover, Practical
Nonparametric Statistics, 3rd edition, 1999, section 3.2.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from plumbline.latency import StageTimes

# In a block, after one that is not counted: it pays for caches that another's block has filled, and meets threads of
# another's pool that still spin.
BLOCK = 10
CONFIDENCE = 0.95
PARTS = ("latency", "inference")

# Name -> part -> nanoseconds of each round.
Rounds = dict[str, dict[str, list[float]]]


@dataclass(frozen=True)
class Speedup:
    """How many times faster.

    Attributes:
        times: 1.8: takes 1 / 1.8 of the time.
        low: Lower end of its 95 % interval; of fewer than 6 rounds, the lowest one.
        high: Upper end.
    """

    times: float
    low: float
    high: float

    def metrics(self, name: str) -> dict[str, float]:
        """Return flat numbers.

        >>> Speedup(1.8, 1.7, 1.9).metrics("speedup_onnx_fp32")
        {'speedup_onnx_fp32': 1.8, 'speedup_onnx_fp32_low': 1.7, 'speedup_onnx_fp32_high': 1.9}
        """
        return {name: self.times, f"{name}_low": self.low, f"{name}_high": self.high}


def take_turns(
    queries: Mapping[str, Callable[[int], StageTimes]],
    *,
    rounds: int,
    warmup_queries: int,
    block: int = BLOCK,
    progress: Callable[[int], None] = lambda _round: None,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
) -> Rounds:
    """Time blocks of queries in turn.

    Args:
        queries: Name -> runs the query with this number and returns its parts. All get the same numbers.
        rounds: How often each has its turn.
        warmup_queries: Of each, before the first round; not counted.
        block: Queries of one turn that are counted; each has two in a round.
        progress: Told the number of rounds so far after each, outside of all latencies.
        clock_ns: Where nanoseconds come from.
    """
    for query in queries.values():
        for number in range(warmup_queries):
            query(number)
    found: Rounds = {name: {part: [] for part in PARTS} for name in queries}
    for number in range(rounds):
        halves: dict[str, list[tuple[int, int]]] = {name: [] for name in queries}
        there = order_of(number, tuple(queries))
        for half, names in enumerate((there, there[::-1])):
            for name in names:
                halves[name].append(_fastest(queries[name], (2 * number + half) * block, block, clock_ns))
        for name, both in halves.items():
            for part, values in zip(PARTS, zip(*both, strict=True), strict=True):
                found[name][part].append(statistics.mean(values))
        progress(number + 1)
    return found


def order_of(number: int, names: Sequence[str]) -> tuple[str, ...]:
    """Return who comes when in the first half of a round.

    >>> [" ".join(order_of(number, "abc")) for number in range(4)]
    ['a b c', 'b c a', 'c a b', 'a b c']
    """
    start = number % len(names)
    return (*names[start:], *names[:start])


def speedup(reference: Sequence[float], measured: Sequence[float]) -> Speedup:
    """Compare the times of two, round by round.

    Args:
        reference: Of what the other is compared with, above 0, as many as rounds.
        measured: Of the same rounds.

    >>> speedup([10, 20, 30], [5, 10, 10])
    Speedup(times=2.0, low=2.0, high=3.0)
    """
    ratios = sorted(slow / fast for slow, fast in zip(reference, measured, strict=True))
    low, high = median_ranks(len(ratios))
    return Speedup(statistics.median(ratios), ratios[low], ratios[high])


def median_ranks(num: int, confidence: float = CONFIDENCE) -> tuple[int, int]:
    """Return the places, from 0 in rising order, between which the true median lies with so much confidence or more.

    Of values too few for that, the first and the last.

    >>> median_ranks(5), median_ranks(6), median_ranks(21)
    ((0, 4), (0, 5), (5, 15))
    """
    assert num >= 1
    outside, place = 0.0, -1
    # The median lies below the value at `place` if at most `place` of the values lie below the median.
    while place + 1 < num // 2:
        outside += 2 * math.comb(num, place + 1) / 2**num
        if outside > 1 - confidence:
            break
        place += 1
    place = max(place, 0)
    return place, num - 1 - place


def _fastest(
    query: Callable[[int], StageTimes], first: int, block: int, clock_ns: Callable[[], int]
) -> tuple[int, int]:
    """Return the shortest latency and the shortest inference of a block."""
    query(first)
    latencies, inferences = [], []
    for number in range(first, first + block):
        before = clock_ns()
        times = query(number)
        latencies.append(clock_ns() - before)
        inferences.append(times.inference_ns)
    return min(latencies), min(inferences)
