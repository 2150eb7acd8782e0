"""What the report says of int8 artifacts: how each was made, whether it is accepted, what it costs each class."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_report import (
    BUDGET,
    DASH,
    DETECT,
    SIZES,
    benchmark,
    by_name,
    cells,
    content,
    quantization,
    quantized,
    results,
    rows_of,
    section,
    speedups,
    trials,
)

from plumbline.report import page
from plumbline.report_acceptance import judge
from plumbline.report_build import Quantized, Speedup
from plumbline.report_content import TRIAL_NUMBERS, TRIAL_TEXTS
from plumbline.report_json import report_values, row_values
from plumbline.report_origin import MOST_CLASSES, class_losses
from plumbline.report_picture import colors_of, picture
from plumbline.report_rows import Result, Row, choose_shown


def given_results(**changed: Result) -> dict[str, Result]:
    """The made-up artifacts, some of them replaced; underscores stand for hyphens."""
    return results() | {name.replace("_", "-"): result for name, result in changed.items()}


def page_of(found: dict[str, Result], **changed: object) -> str:
    return page(content(**{"results": found, "rows": rows_of(found), **changed}))


def simulated() -> Result:
    """An artifact of a chip that is not here."""
    base = quantized(
        "ncnn-int8", run={"valid": 0, "measured": 0, "threads": 1}, stands_in="x86 simulator", chip="rk3588"
    )
    return dataclasses.replace(base, artifact=dataclasses.replace(base.artifact, backend="rknn"))


def test_accepted_artifact_in_the_table():
    text = page_of(given_results(onnx_int8=quantized("onnx-int8")))
    assert cells(text, "onnx-int8") == [
        "onnx-int8", "onnx", "int8", "0.853", "-0.30 [-0.61, -0.02]", "1.93 [1.88, 1.98]", "2.00", "2.90", "2 of 87",
        "128 images, f390d9df", "yes",
    ]  # fmt: skip
    assert "not accepted" not in text
    assert "Speed-up: how many times as fast as ONNX fp32" in text
    others = section(text, "Other scores")
    latencies = others[others.index("p50, p90 and p99") :]
    assert cells(latencies, "Artifact")[4:] == ["Speed-up over ONNX fp32", "Speed-up over its backend's fp32"]
    assert cells(latencies, "onnx-int8")[4:] == ["1.93 [1.88, 1.98]", "1.90 [1.85, 1.95]"]
    assert cells(latencies, "onnx-fp32")[4:] == [DASH, DASH]


@pytest.mark.parametrize(
    ("note", "own", "short", "sentence"),
    [
        (
            {"inside_budget": False, "reason": "0.92 points lost on val, more than 0.5"}, 1.9,
            "no: not inside the budget", "it is not inside the budget: 0.92 points lost on val, more than 0.5.",
        ),
        ({"num_int8": 0}, 1.9, "no: nothing in int8", "nothing of it is computed in int8."),
        (
            {}, 0.64, "no: slower than its fp32",
            "it is slower than its backend's fp32: 0.64 [0.59, 0.69] times as fast.",
        ),
        (
            {"inside_budget": False, "reason": "much lost"}, 0.64, "no: not inside the budget, slower than its fp32",
            "it is not inside the budget: much lost; it is slower than its backend's fp32: 0.64 [0.59, 0.69] times",
        ),
    ],
)  # fmt: skip
def test_artifact_that_is_not_accepted_says_why(note, own, short, sentence):
    run = {**benchmark(2.0), **speedups(1.9, own)}
    found = given_results(onnx_int8=quantized("onnx-int8", quantization(**note), run))
    text = page_of(found)
    assert cells(text, "onnx-int8")[-1] == short
    assert f"**onnx-int8 is not accepted as int8:** {sentence}" in text
    # Above the table.
    assert text.index("is not accepted as int8") < text.index("| Artifact |")
    row = row_values(by_name(rows_of(found))["onnx-int8"], BUDGET)
    assert row["accepted"] is False
    assert row["accepted_why"]


def test_slower_within_the_noise_is_accepted():
    run = {**benchmark(2.0), **speedups(0.98, 0.98)}
    row = by_name(rows_of(given_results(onnx_int8=quantized("onnx-int8", run=run))))["onnx-int8"]
    assert row.verdict.accepted is True


@given(
    st.booleans(), st.integers(0, 5), st.none() | st.tuples(st.floats(0.1, 5), st.floats(0, 1), st.floats(0, 1))
)  # fmt: skip
def test_accepted_is_what_has_no_fault(inside, num_int8, ends):
    own = None if ends is None else Speedup(ends[0], ends[0] - ends[1], ends[0] + ends[2])
    verdict = judge("int8", Quantized(inside_budget=inside, num_int8=num_int8), own)
    slower = own is not None and own.high < 1
    assert verdict.accepted == (inside and num_int8 > 0 and not slower)
    assert verdict.short.startswith("yes" if verdict.accepted else "no: ")
    assert bool(verdict.why) == (not verdict.accepted or own is None)
    assert judge("fp16", None, own).accepted is None


def test_simulator_is_labelled_and_not_timed():
    found = given_results(ncnn_int8=simulated(), onnx_int8=quantized("onnx-int8"))
    text = page_of(found)
    told = cells(text, "ncnn-int8")
    assert told[2] == "int8 (x86 simulator)"
    assert told[5:7] == [DASH, "not measured (x86 simulator)"]
    assert told[-1] == "yes, speed not measured"
    assert "**ncnn-int8**: its speed against its backend's fp32 was not measured here." in text
    assert cells(section(text, "How each was made"), "ncnn-int8")[1] == "rk3588"
    row = row_values(by_name(rows_of(found))["ncnn-int8"], BUDGET)
    assert (row["latency_valid"], row["latency_ms_p50"], row["stands_in"]) == (None, None, "x86 simulator")
    assert row["speedup_onnx_fp32"] is None


def test_invalid_run_has_no_ratio():
    run = {**benchmark(2.0, valid=False), **speedups(1.9, 0.5)}
    row = by_name(rows_of(given_results(onnx_int8=quantized("onnx-int8", run=run))))["onnx-int8"]
    assert not row.speedups
    assert row.verdict.short == "yes, speed not measured"


def test_loss_on_test_beyond_the_budget_is_said():
    found = given_results(onnx_int8=quantized("onnx-int8"))
    assert "past its" not in page_of(found)
    text = page_of(found, budget=dataclasses.replace(BUDGET, max_drop=0.2))
    assert (
        "\n- Inside the budget on val, but past its 0.2 points on test: **onnx-int8** (-0.30 [-0.61, -0.02]).\n" in text
    )


def test_artifact_of_an_older_export_shows_dashes():
    text = page_of(results())
    assert cells(text, "onnx-int8")[-3:] == [DASH] * 3
    assert "**onnx-int8**: its artifact.json does not tell how it was quantized: export it again." in text
    told = section(text, "How each was made")
    assert cells(told, "onnx-int8") == ["onnx-int8", DASH, DASH, DASH]
    assert "### onnx-int8" not in told
    row = row_values(by_name(rows_of())["onnx-int8"], BUDGET)
    assert (row["accepted"], row["num_int8"], row["left_in_float"], row["parity_error"]) == (None, None, [], None)


@pytest.mark.parametrize(
    ("notes", "shown"),
    [
        ({}, "fp32"),
        ({"computes_in": "fp32"}, "fp32"),
        ({"computes_in": "bf16"}, "bf16, stored as fp32"),
        ({"stands_in": "x86 simulator"}, "fp32 (x86 simulator)"),
    ],
)
def test_precision_that_is_really_used(notes, shown):
    base = results()["onnx-fp32"]
    changed = dataclasses.replace(base, artifact=dataclasses.replace(base.artifact, notes=notes))
    assert cells(page_of(given_results(onnx_fp32=changed)), "onnx-fp32")[2] == shown


def test_int8_that_computes_nothing_in_int8_is_not_called_so():
    note = quantization(num_int8=0, computes_in="fp32")
    assert cells(page_of(given_results(onnx_int8=quantized("onnx-int8", note))), "onnx-int8")[2] == "fp32, not int8"


def facts_of(text: str, name: str) -> dict[str, str]:
    """The table of what and how below an artifact's own heading."""
    lines = section(text, name).split("\n\n")[1].splitlines()[2:]
    return dict(line.strip("| ").split(" | ") for line in lines)


def test_how_it_was_made_is_told_in_full():
    text = page_of(given_results(onnx_int8=quantized("onnx-int8")))
    assert cells(section(text, "How each was made"), "onnx-int8")[2] == "2.4e-06 of 0.001 allowed, 4 images"
    assert facts_of(text, "onnx-int8") == {
        "Method": "per_channel-minmax",
        "Operators": "all",
        "In int8": "85 of 87 convolutions",
        "Left in float": "`/body.2/conv`, `/body.2/b\\|c`",
        "Blocks that the search left in float": "`/body.2`",
        "Calibrated on": f"128 images of train, sha256 `f390d9df51{54 * '0'}`",
        "Lost on val": "0.31 points of mAP50-95, upper end 0.92 (allowed: 0.5, upper end 2)",
        "Fine-tuned for int8": "no",
        "range_images": "`16`",
    }
    assert "quantization: " not in section(text, "Lineage")
    tuned = quantization(aware_steps=300, float_blocks=[], float_names=[])
    facts = facts_of(page_of(given_results(onnx_int8=quantized("onnx-int8", tuned))), "onnx-int8")
    assert facts["Fine-tuned for int8"] == "300 steps"
    assert facts["Left in float"] == facts["Blocks that the search left in float"] == "none"


def test_toolchain_is_said_once():
    found = {}
    for name, result in results().items():
        own = {"ncnn": "1.0"} if name == "ncnn-int8" else {}
        changed = dataclasses.replace(result.artifact, toolchain={"torch": "2.15.0", **own})
        found[name] = dataclasses.replace(result, artifact=changed)
    told = section(page_of(found), "How each was made")
    assert "All were made with torch 2.15.0." in told
    assert [cells(told, name)[3] for name in ("ncnn-int8", "onnx-fp32")] == ["ncnn 1.0", DASH]


SEARCH = trials(
    ("fp32", "", "", 0, 0, 0.0, 0.861, 0.0, 0.0, 1),
    ("method", "per_tensor-minmax", "all", 1, 0, 1.0, 0.8487, 1.23, 1.9, 0),
    ("blocks", "per_channel-minmax", "all", 2, 2, 0.71, 0.8579, 0.31, 0.92, 1),
)


def test_search_is_shown_and_what_was_taken():
    text = page_of(given_results(onnx_int8=quantized("onnx-int8")), trials={"onnx-int8": SEARCH})
    told = section(text, "onnx-int8")
    assert "2 files were made and scored on val. mAP50-95 on val (fp32: 0.861); drop in points:" in told
    assert cells(told, "1") == ["1", "method", "per_tensor-minmax", "all", "0", "100 %", "0.849", "1.23", "1.90", "no"]
    assert cells(told, "2 (taken)")[1:] == [
        "blocks", "per_channel-minmax", "all", "2", "71 %", "0.858", "0.31", "0.92", "yes",
    ]  # fmt: skip
    outside = SEARCH.assign(inside=[1.0, 0.0, 0.0])
    told = page_of(given_results(onnx_int8=quantized("onnx-int8")), trials={"onnx-int8": outside})
    assert "2 files were made and scored on val; none was inside the budget." in told
    assert "made and scored" not in page_of(
        given_results(onnx_int8=quantized("onnx-int8")), trials={"onnx-int8": SEARCH[:1]}
    )


def rows_with_classes(before: Mapping[str, float | None], after: Mapping[str, float | None]) -> list[Row]:
    rows = rows_of(given_results(onnx_int8=quantized("onnx-int8")))
    scores = {"weights": before, "onnx-int8": after}
    return [dataclasses.replace(row, class_scores={"class_map50_95": scores.get(row.name, before)}) for row in rows]


def test_classes_that_lost_most_come_first():
    before = {f"c{i}": 0.5 for i in range(8)} | {"never": None}
    after = {f"c{i}": 0.5 - i / 100 for i in range(8)} | {"never": None}
    rows = rows_with_classes(before, after)
    told = section(page_of(given_results(onnx_int8=quantized("onnx-int8")), rows=rows), "onnx-int8")
    assert "the largest loss of AP50-95 first; 3 more stand at -3.00 points or better." in told
    shown = told[told.index("| Class |") : told.index("## Training")].strip().splitlines()[2:]
    assert shown == [f"| c{i} | {0.5 - i / 100:.3f} (-{i}.00) |" for i in (7, 6, 5, 4, 3)]


@given(
    st.dictionaries(st.sampled_from("abcdefghij"), st.none() | st.floats(0, 1), min_size=1),
    st.dictionaries(st.sampled_from("abcdefghij"), st.none() | st.floats(0, 1)),
)
def test_class_losses_are_ordered_and_complete(before, after):
    after = {name: after.get(name) for name in before}
    rows = by_name(rows_with_classes(before, after))
    losses = class_losses(rows["onnx-int8"], rows["weights"])
    assert sorted(loss.name for loss in losses) == sorted(before)
    told = [loss.differences["class_map50_95"] for loss in losses]
    known = [value for value in told if value is not None]
    assert told == [*sorted(known), *[None] * (len(told) - len(known))]
    assert len(known) == sum(before[name] is not None and after[name] is not None for name in before)


def test_few_classes_are_all_shown():
    before = {f"c{i}": 0.5 for i in range(MOST_CLASSES)}
    text = page_of(given_results(onnx_int8=quantized("onnx-int8")), rows=rows_with_classes(before, before))
    assert "largest loss of AP50-95 first. In brackets" in text


def test_json_has_all_that_a_decision_needs():
    found = given_results(onnx_int8=quantized("onnx-int8"), ncnn_int8=simulated())
    given_content = content(results=found, rows=rows_of(found), trials={"onnx-int8": SEARCH.assign(metric=np.nan)})
    values = json.loads(json.dumps(report_values("detect", given_content, [1], 0), allow_nan=False))
    row = next(row for row in values["rows"] if row["name"] == "onnx-int8")
    expected = {
        "accepted": True, "accepted_why": "", "keeps_budget": True, "quantization_method": "per_channel-minmax",
        "quantization_operators": "all", "num_convolutions": 87, "num_int8": 85, "val_inside_budget": True,
        "left_in_float": ["/body.2/conv", "/body.2/b|c"], "float_blocks": ["/body.2"], "val_drop": 0.31,
        "val_drop_upper": 0.92, "num_trials": 3, "aware_steps": 0, "num_calibration_images": 128,
        "calibration_sha256": "f390d9df51" + 54 * "0", "parity_error": 2.4e-6, "parity_tolerance": 1e-3,
        "parity_images": 4, "chip": "", "stands_in": "", "toolchain": {}, "speedup_onnx_fp32": 1.93,
        "speedup_onnx_fp32_low": 1.93 - 0.05, "speedup_own_fp32": 1.9,
    }  # fmt: skip
    assert {key: row[key] for key in expected} == expected
    assert set(row) - {"name", "backend", "threads", "num_queries", "duration_s"} <= set(values["units"])
    assert values["budget"] == {"max_drop": 0.5, "max_drop_upper": 2.0}
    assert set(values["recommended"]) == {choice.need for choice in given_content.choices}
    assert values["trials"]["onnx-int8"][1]["method"] == "per_tensor-minmax"
    assert values["trials"]["onnx-int8"][1]["metric"] is None
    assert set(values["trials"]["onnx-int8"][0]) == {*TRIAL_TEXTS, *TRIAL_NUMBERS}


def test_accepted_artifact_is_shown_before_a_smaller_one():
    refused = quantized("ncnn-int8", quantization(inside_budget=False))
    rows = rows_of(given_results(onnx_int8=quantized("onnx-int8"), ncnn_int8=refused))
    assert SIZES["ncnn-int8"] < SIZES["onnx-int8"]
    assert choose_shown(rows) == "onnx-int8"


def drawn(found: dict[str, Result], max_drop: float = 0.5) -> np.ndarray:
    rows = rows_of(found)
    curves = {row.name: pd.DataFrame({"recall": [0.0, 1.0], "precision": [1.0, 0.0]}) for row in rows}
    png = picture(rows, curves, DETECT, level=0.95, max_drop=max_drop, caption="caption")
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)


def test_picture_has_a_line_of_the_budget_and_hollow_marks():
    accepted = drawn(given_results(onnx_int8=quantized("onnx-int8")))
    refused = drawn(given_results(onnx_int8=quantized("onnx-int8", quantization(inside_budget=False))))
    other_budget = drawn(given_results(onnx_int8=quantized("onnx-int8")), max_drop=0.9)
    first_panel = (slice(100, 640), slice(0, 900))
    color = np.frombuffer(bytes.fromhex(colors_of(rows_of())["onnx-int8"][1:]), np.uint8)[::-1]
    filled, hollow = ((image[first_panel] == color).all(axis=2).sum() for image in (accepted, refused))
    assert filled > hollow > 50
    assert (accepted[first_panel] != other_budget[first_panel]).any()
    assert (accepted[700:] == other_budget[700:]).all()


def test_picture_names_what_was_not_measured():
    plain, told = drawn(results()), drawn(given_results(ncnn_int8=simulated()))
    assert (plain != told).any()
