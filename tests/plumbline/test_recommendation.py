from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_report import BUDGET, benchmark, by_name, content, quantization, quantized, results, rows_of, speedups

from plumbline.recommendation import Budget, Choice, is_faster, keeps_budget, recommend
from plumbline.report import page
from plumbline.report_acceptance import Verdict
from plumbline.report_build import Speedup
from plumbline.report_rows import Row
from plumbline.scores import Interval

FASTEST, SMALLEST, ACCURATE = "fastest inside the budget", "smallest inside the budget", "most accurate"


def row(
    name: str,
    *,
    difference: float = 0.0,
    ends: tuple[float, float] = (0.0, 0.0),
    ms: float | None = 5.0,
    speed: tuple[float, float, float] | None = None,
    size: int = 10_000_000,
    accepted: bool | None = None,
) -> Row:
    """A row; one that is accepted or not is int8, the others are fp32."""
    plain = rows_of()[1]
    found = Interval(0.85 + difference, 0.8, 0.9, difference, *ends)
    return dataclasses.replace(
        plain,
        name=name,
        precision="fp32" if accepted is None else "int8",
        scores={**plain.scores, "map50_95": 0.85 + difference},
        intervals={"map50_95": found},
        latency={**plain.latency, "latency_ms_p50": ms},
        speedups={} if speed is None else {"speedup_onnx_fp32": Speedup(*speed)},
        size_bytes=size,
        verdict=Verdict(accepted, "", ""),
    )


def chosen(rows: list[Row], budget: Budget = BUDGET) -> dict[str, Choice]:
    return {choice.need: choice for choice in recommend(rows, budget, "mAP50-95")}


def test_each_need_has_its_artifact_with_its_numbers():
    found = chosen(
        [
            row("fp32", ms=4.0, speed=(1.0, 1.0, 1.0)),
            row("fast", difference=-0.004, ends=(-0.006, -0.001), ms=2.0, speed=(1.9, 1.8, 2.0), accepted=True),
            row(
                "small", difference=-0.003, ends=(-0.004, -0.001), ms=3.0, speed=(1.3, 1.2, 1.4), size=10, accepted=True
            ),
        ]
    )
    assert {need: choice.name for need, choice in found.items()} == {
        FASTEST: "fast", SMALLEST: "small", ACCURATE: "fp32",
    }  # fmt: skip
    assert found[FASTEST].reason == (
        "1.90 [1.80, 2.00] times as fast as ONNX fp32, 2.00 ms (p50); -0.40 [-0.60, -0.10] points of mAP50-95"
    )
    assert found[SMALLEST].reason == "0.00 MB; -0.30 [-0.40, -0.10] points of mAP50-95"
    assert found[ACCURATE].reason == "mAP50-95 0.850; +0.00 [+0.00, +0.00] points of mAP50-95"
    assert not found[FASTEST].ties
    assert not found[ACCURATE].ties


def test_what_is_not_accepted_or_over_the_budget_is_no_candidate():
    found = chosen(
        [
            row("refused", ms=1.0, size=1, difference=0.1, ends=(0.1, 0.1), accepted=False),
            dataclasses.replace(row("silent", ms=1.0, size=1, difference=0.2), precision="int8"),
            row("lossy-fp16", ms=2.0, size=2, difference=-0.0051),
            row("fp32", ms=9.0),
        ]
    )
    assert {choice.name for choice in found.values()} == {"fp32"}


def test_int8_is_judged_on_val_alone():
    over = row("int8", difference=-0.02, ends=(-0.03, -0.01), ms=1.0, accepted=True)
    assert keeps_budget(over, BUDGET) is False
    fastest = chosen([over, row("fp32")])[FASTEST]
    assert fastest.name == "int8"
    assert fastest.reason.endswith("points of mAP50-95 (past the budget on these images)")


def test_interleaved_ratios_go_before_latencies_of_separate_runs():
    fast = row("a", ms=3.0, speed=(2.0, 1.9, 2.1))
    lucky = row("b", ms=2.0, speed=(1.5, 1.4, 1.6))
    assert chosen([fast, lucky])[FASTEST].name == "a"
    # One without a ratio: then only the latencies compare.
    assert chosen([fast, dataclasses.replace(lucky, speedups={})])[FASTEST].name == "b"


def test_ties_within_the_noise_are_told_with_what_speaks_for_them():
    best = row("a", speed=(2.0, 1.9, 2.1), size=5_000_000)
    near = row("b", speed=(1.95, 1.85, 2.05), size=2_900_000)
    slow = row("c", speed=(1.5, 1.4, 1.6), size=1_000_000)
    assert chosen([slow, near, best])[FASTEST].ties == (("b", "smaller: 2.90 MB"),)
    accurate = row("x", difference=0.001, ends=(-0.001, 0.003), ms=9.0)
    other = row("y", difference=0.0, ends=(0.0, 0.0), ms=3.0)
    worse = row("z", difference=-0.004, ends=(-0.006, -0.002), ms=1.0)
    found = chosen([accurate, other, worse])[ACCURATE]
    assert (found.name, found.ties) == ("x", (("y", "faster: 3.00 ms"),))


def test_equally_accurate_ones_go_to_the_faster():
    assert chosen([row("slow", ms=9.0, difference=1e-7), row("fast", ms=2.0)])[ACCURATE].name == "fast"


def test_nothing_measured_has_a_smallest_but_no_fastest():
    found = chosen([row("a", ms=None)])
    assert (found[FASTEST].name, found[SMALLEST].name) == (None, "a")
    assert found[FASTEST].reason == "no artifact inside the budget has a latency that was measured here"


def test_nothing_at_all():
    assert [choice.name for choice in recommend(rows_of()[:1], BUDGET, "mAP50-95")] == [None] * 3


def test_undefined_score_keeps_no_budget():
    nothing = dataclasses.replace(row("a"), intervals={}, scores={"map50_95": None})
    assert keeps_budget(nothing, BUDGET) is None
    assert {choice.name for choice in chosen([nothing]).values()} == {None}


def test_undefined_interval_is_no_tie_but_to_the_same():
    ends = (math.nan, math.nan)
    found = chosen([row("a", ends=ends), row("b", ends=ends, ms=9.0), row("c", ends=ends, difference=-0.001)])
    assert found[ACCURATE].ties == (("b", ""),)


@pytest.mark.parametrize(("difference", "kept"), [(-0.005, True), (-0.00504, True), (-0.0051, False), (0.3, True)])
def test_budget_is_kept_as_the_page_shows_it(difference, kept):
    assert keeps_budget(row("a", difference=difference), BUDGET) is kept


def test_simulated_and_chips_are_told():
    plain = row("a", accepted=True)
    build = dataclasses.replace(plain.build, chip="rk3588", stands_in="x86 simulator")
    found = chosen([dataclasses.replace(plain, build=build, latency={**plain.latency, "latency_ms_p50": None})])
    assert found[SMALLEST].reason.endswith("points of mAP50-95 (for rk3588, scored by the x86 simulator)")


speeds = st.tuples(st.floats(0.5, 4), st.floats(0, 0.3))
candidate = st.tuples(speeds, st.integers(1, 9), st.integers(-60, 20), st.sampled_from([None, True, False]))
candidates = st.lists(candidate, min_size=1, max_size=7)


@given(candidates)
def test_chosen_is_best_and_order_does_not_matter(drawn):
    rows = [
        row(
            f"r{i}",
            speed=(value, value - noise, value + noise),
            ms=10 / value,
            size=size,
            difference=loss / 1e4,
            ends=(loss / 1e4 - 0.001, loss / 1e4 + 0.001),
            accepted=accepted,
        )
        for i, ((value, noise), size, loss, accepted) in enumerate(drawn)
    ]
    found = chosen(rows)
    assert chosen(rows[::-1]) == {
        need: dataclasses.replace(choice, ties=choice.ties[::-1]) for need, choice in found.items()
    }
    named = by_name(rows)
    usable = [one for one in rows if one.verdict.accepted is not False]
    inside = [one for one in usable if one.verdict.accepted or keeps_budget(one, BUDGET)]
    assert (found[ACCURATE].name is None) == (not usable)
    assert (found[FASTEST].name is None) == (found[SMALLEST].name is None) == (not inside)
    if inside:
        fastest, smallest = named[found[FASTEST].name], named[found[SMALLEST].name]
        assert not any(is_faster(one, fastest) for one in inside)
        assert smallest.size_bytes == min(one.size_bytes for one in inside)
        tied = {name for name, _ in found[FASTEST].ties}
        assert tied == {one.name for one in inside if not is_faster(fastest, one)} - {fastest.name}


def test_page_names_what_to_take():
    found = results() | {
        "onnx-int8": quantized("onnx-int8"),
        "onnx-fp32": dataclasses.replace(results()["onnx-fp32"], benchmark={**benchmark(4.0), **speedups(1.0, 1.0, 0)}),
        "ncnn-int8": quantized("ncnn-int8", quantization(inside_budget=False), {**benchmark(1.0), **speedups(3, 3)}),
    }
    text = page(content(results=found, rows=rows_of(found)))
    assert "The fastest artifact inside the budget is **onnx-int8**: 2.00 ms (p50)" in text
    assert "| Fastest inside the budget | onnx-int8 | 1.93 [1.88, 1.98] times as fast as ONNX fp32, 2.00 ms" in text
    assert "| Smallest inside the budget | onnx-int8 | 2.90 MB;" in text
    assert "| Most accurate | onnx-fp32 | mAP50-95 0.857; +0.10 [-0.05, +0.25] points of mAP50-95 |" in text
    assert "The budget: at most 0.5 points of mAP50-95 lost, and at most 2 at the upper end" in text
