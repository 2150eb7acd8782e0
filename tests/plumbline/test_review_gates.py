"""Gates: what a rule means, and that none passes by being misspelled."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from plumbline.errors import ParamsError
from plumbline.review.changes import Change, Verdict
from plumbline.review.gates import gates_in_force, judge_gates, parse_gate


def change(metric="map50_95", base=0.8, head=0.79, verdict=Verdict.WORSE, artifact="weights", kind="score", **more):
    return Change(
        kind=kind, artifact=artifact, metric=metric, title=more.pop("title", metric), base=base, head=head,
        verdict=verdict, **more,
    )  # fmt: skip


def passed(rule: str, *rows: Change) -> bool:
    (result,) = judge_gates({"gate": rule}, rows)
    assert result.rule == rule
    assert result.why
    return result.passed


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("map50_95 >= 0.79", True),
        ("map50_95 >= 0.791", False),
        ("map50_95 > 0.79", False),
        ("map50_95 <= 0.79", True),
        ("map50_95 < 0.79", False),
        ("map50_95 drop <= 0.02", True),
        ("map50_95 drop <= 0.005", False),
        ("map50_95 drop <= 2 %", True),
        ("map50_95 drop <= 1 %", False),
        ("map50_95 rise <= 0", True),
        ("map50_95>=.5", True),
        ("weights.map50_95 >= 0.9", False),
        ("w*.map50_95 >= 0.9", False),
    ],
)
def test_a_rule_holds_or_does_not(rule, expected):
    assert passed(rule, change()) is expected


@pytest.mark.parametrize(("verdict", "expected"), [(Verdict.WITHIN_NOISE, True), (Verdict.WORSE, False)])
def test_a_difference_within_noise_passes_where_the_gate_says_so(verdict, expected):
    row = change(head=0.7, verdict=verdict)
    assert passed("map50_95 drop <= 0.01 and significant", row) is expected
    assert not passed("map50_95 drop <= 0.01", row)


def test_a_metric_without_an_interval_that_differs_counts_as_significant():
    row = change("ar100", 0.8, 0.6, Verdict.CHANGED, note="no interval")
    assert not passed("ar100 drop <= 0.01 and significant", row)


def test_every_artifact_is_held_to_a_gate_without_one_and_the_reason_names_those_that_fail():
    rows = [change(artifact="weights", head=0.8), change(artifact="a-int8", head=0.5), change(artifact="b", head=0.4)]
    (result,) = judge_gates({"floor": "map50_95 >= 0.6"}, rows)
    assert not result.passed
    assert result.why == "a-int8 map50_95 is 0.500; b map50_95 is 0.400"
    assert passed("weights.map50_95 >= 0.6", *rows)
    assert not passed("*-int8.map50_95 >= 0.6", *rows)


def test_between_two_machines_a_rise_is_not_judged_and_that_is_said():
    row = change("latency_ms_p50", 10.0, 50.0, Verdict.OTHER_MACHINE, "a", "device", note="cpu_model: x, here y")
    for rule in ("latency_ms_p50 rise <= 20 %", "latency_ms_p50 rise <= 20 % and significant"):
        (result,) = judge_gates({"gate": rule}, [row])
        assert (result.passed, result.judged) == (True, False)
        assert result.why == "not judged, as measured on another machine (cpu_model: x, here y): 1 of 1"
    assert not passed("latency_ms_p50 <= 20", row)
    (both,) = judge_gates({"gate": "latency_ms_p50 rise <= 20 %"}, [row, change("latency_ms_p50", 10.0, 13.0)])
    assert not both.passed


def test_between_two_test_sets_a_drop_is_not_judged_and_that_is_said():
    row = change("best_f1", 0.8, 0.1, Verdict.OTHER_TEST_SET, note="other images or labels in the base")
    for rule in ("best_f1 drop <= 0.05", "best_f1 drop <= 5 % and significant"):
        (result,) = judge_gates({"gate": rule}, [row])
        assert (result.passed, result.judged) == (True, False)
        assert result.why == "not judged, as scored on other images or labels: 1 of 1"
    assert not passed("best_f1 >= 0.5", row)


def test_what_vanished_fails_every_gate_on_it():
    row = change(head=None, verdict=Verdict.GONE)
    for rule in ("map50_95 >= 0", "map50_95 <= 1", "map50_95 drop <= 1", "map50_95 drop <= 1 and significant"):
        (result,) = judge_gates({"gate": rule}, [row])
        assert not result.passed
        assert "is gone: it was 0.800" in result.why


def test_what_is_undefined_in_both_does_not_pass():
    row = change("map_large", None, None, Verdict.UNCHANGED, note="no box is larger than 96 x 96 pixels")
    (result,) = judge_gates({"gate": "map_large >= 0"}, [row])
    assert not result.passed
    assert "undefined (no box is larger" in result.why


def test_what_is_new_has_nothing_to_fall_from_but_has_a_limit():
    row = change(base=None, head=0.5, verdict=Verdict.NEW)
    assert passed("map50_95 drop <= 0.0", row)
    assert not passed("map50_95 >= 0.6", row)


def test_an_absolute_gate_judges_all_that_was_scored_and_a_relative_one_what_both_scored():
    row = change(base=0.8, head=0.8, verdict=Verdict.UNCHANGED, whole=0.5)
    assert not passed("map50_95 >= 0.6", row)
    assert passed("map50_95 drop <= 0.01", row)
    (result,) = judge_gates({"gate": "map50_95 >= 0.4"}, [row])
    assert result.why == "weights map50_95 is 0.500"


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("map50_96 >= 0.5", "did you mean 'map50_95'?"),
        ("weigths.map50_95 >= 0.5", "expected one of: weights"),
        ("nothing_like_it >= 1", "expected one such as map50_95"),
    ],
)
def test_a_gate_on_a_metric_that_does_not_exist_is_an_error(rule, said):
    with pytest.raises(ParamsError, match=r"gates\.gate: ") as error:
        judge_gates({"gate": rule}, [change()])
    assert said in str(error.value)


@pytest.mark.parametrize(
    "rule",
    [
        "", "map50_95", "map50_95 >=", "map50_95 = 0.5", "map50_95 >= high", "map50_95 >= 0.5 %", "map50_95 >= 1.2.3",
        "map50_95 >= 0.5 and significant", "map50_95 drop >= 0.1", "map50_95 drop <= 0.1 and important", ">= 0.5",
    ],
)  # fmt: skip
def test_what_is_no_gate_is_refused(rule):
    with pytest.raises(ParamsError, match=r"gates\.gate"):
        judge_gates({"gate": rule}, [change()])


def test_a_slice_is_known_by_a_key_with_blanks_and_dots():
    row = change("slice_brightness_below 113.4_map50_95", 0.8, 0.5, kind="slice")
    assert not passed("slice_brightness_below 113.4_map50_95 >= 0.6", row)
    assert not passed("weights.slice_brightness_below 113.4_map50_95 drop <= 0.1", row)


def test_a_param_is_no_metric():
    row = change("split.seed", "0", "1", Verdict.CHANGED, artifact="", kind="params")
    with pytest.raises(ParamsError, match="neither revision"):
        judge_gates({"gate": "split.seed <= 1"}, [row])


def test_a_change_is_judged_by_the_gates_of_its_base_and_by_those_that_it_adds():
    gates, told = gates_in_force({"a": "x >= 0.9", "b": "y >= 1"}, {"a": "x >= 0.1", "c": "z >= 2"})
    assert gates == {"a": "x >= 0.9", "b": "y >= 1", "c": "z >= 2"}
    assert [sentence.split()[1] for sentence in told] == ["a", "b"]
    assert gates_in_force({}, {"c": "z >= 2"}) == ({"c": "z >= 2"}, ())
    assert gates_in_force({"c": "z >= 2"}, {"c": "z >= 2"})[1] == ()


HUNDREDTHS = st.integers(0, 100)


@given(low=HUNDREDTHS, limit=HUNDREDTHS, more=st.integers(-1, 1))
def test_a_drop_or_rise_of_exactly_the_limit_is_within_it(low, limit, more):
    high = low + limit + more
    fallen, risen = change(base=high / 100, head=low / 100), change(base=low / 100, head=high / 100)
    for rule, row in ((f"map50_95 drop {{}} {limit / 100}", fallen), (f"map50_95 rise {{}} {limit / 100}", risen)):
        assert passed(rule.format("<="), row) is (more <= 0)
        assert passed(rule.format("<"), row) is (more < 0)


@given(percent=HUNDREDTHS, base=st.integers(1, 1000), more=st.integers(-1, 1))
def test_a_drop_of_exactly_the_percent_is_within_them(percent, base, more):
    row = change(base=base / 10, head=base * (100 - percent - more) / 1000)
    assert passed(f"map50_95 drop <= {percent} %", row) is (more <= 0)
    assert passed(f"map50_95 drop < {percent} %", row) is (more < 0)


@given(base=st.floats(0, 1), head=st.floats(0, 1), limit=st.floats(0, 1))
def test_a_drop_is_what_it_says(base, head, limit):
    assume(abs(base - head - limit) > 1e-8)
    gate = parse_gate("gate", f"map50_95 drop <= {limit!r}")
    assert gate.limit == limit
    assert passed(gate.rule, change(base=base, head=head)) is (base - head <= limit)
