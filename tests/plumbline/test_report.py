from __future__ import annotations

import dataclasses
import math
import warnings

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_report import (
    BUDGET,
    CLASSES,
    CLASSIFY,
    DASH,
    DETECT,
    NO_DOG,
    SIZES,
    artifact,
    cells,
    content,
    intervals,
    results,
    rows_of,
    section,
    slices,
)

from plumbline.errors import EvaluationError
from plumbline.report import page
from plumbline.report_content import Content, Sampling, Training
from plumbline.report_json import row_values, units_of
from plumbline.report_markdown import points_with_interval, shared_and_own
from plumbline.report_picture import MIN_SPAN, accuracy_limits, colors_of, picture
from plumbline.report_rows import (
    Result,
    Row,
    build_rows,
    check_same_origin,
    choose_shown,
    evenly_spaced,
    scored_split,
)
from plumbline.report_table import verdict_of
from plumbline.runtime.artifact import (
    ClassifierDecode,
    ClassifierOutputs,
)
from plumbline.scores import Interval
from plumbline.tasks import TASKS, task_module


def test_rows_are_the_weights_then_as_given():
    given = dict(sorted(results().items()))
    assert list(given)[-1] == "weights"
    assert [row.name for row in rows_of(given)] == ["weights", "ncnn-int8", "onnx-fp32", "onnx-int8"]


def test_json_row_is_flat_with_the_keys_that_are_known():
    rows = {row.name: row_values(row, BUDGET) for row in rows_of()}
    row = rows["onnx-int8"]
    assert row["map50_95_difference"] == 0.8531 - 0.8561
    assert (row["map50_95_difference_low"], row["map50_95_difference_high"]) == (-0.0061, -0.0002)
    assert (row["map50_95"], row["map50"], row["map75_low"]) == (0.8531, 0.97, 0.8)
    assert (row["detection_precision"], row["detection_recall"], row["detection_f1"]) == (0.95, 0.94, 0.945)
    assert row["class_map50_95"] == {"cat": 0.8531, "dog|wolf": None}
    assert rows["weights"]["map50_95_difference"] == 0.0


def test_invalid_and_missing_latencies_are_none_and_told_apart():
    rows = {row.name: row for row in rows_of()}
    assert (rows["ncnn-int8"].latency_valid, rows["ncnn-int8"].latency_ms_p50) == (False, None)
    assert (rows["weights"].latency_valid, rows["weights"].latency_ms_p50) == (None, None)
    assert (rows["onnx-fp32"].latency_valid, rows["onnx-fp32"].latency_ms_p50) == (True, 4.0)


def test_every_number_of_a_row_has_its_unit_written():
    without = {"name", "backend", "threads", "num_queries", "duration_s"}
    rows = rows_of()
    for row in rows:
        assert set(row_values(row, BUDGET)) - without <= set(units_of(rows, DETECT))
        assert all(units_of(rows, DETECT).values())


@pytest.mark.parametrize("task", TASKS)
def test_what_is_bootstrapped_has_words(task):
    scoring, words = task_module(task, "scoring"), task_module(task, "reporting").WORDS
    assert words.headline.metric == scoring.HEADLINE[0]
    # What is compared is asked for by these keys, in report.json.
    assert words.headline.key == words.headline.metric
    assert set(scoring.HEADLINE) <= {score.metric for score in words.scores}


@pytest.mark.parametrize("key", ["map50_95", "map50", "precision"])
def test_missing_metric_is_an_error(key):
    given_results = results()
    del given_results["onnx-fp32"].metrics[key]
    with pytest.raises(EvaluationError, match=rf"onnx-fp32: .*'{key}'"):
        rows_of(given_results)


def test_missing_latency_of_a_valid_run_is_an_error():
    given_results = results()
    del given_results["onnx-fp32"].benchmark["latency_ms_p99"]
    with pytest.raises(EvaluationError, match="latency_ms_p99"):
        rows_of(given_results)


def test_missing_weights_is_an_error():
    given_results = results()
    del given_results["weights"]
    with pytest.raises(EvaluationError, match="trained weights"):
        rows_of(given_results)


def test_intervals_of_other_predictions_are_refused():
    others = intervals()
    others["onnx-fp32"]["map75"] = dataclasses.replace(others["onnx-fp32"]["map75"], value=0.91)
    with pytest.raises(EvaluationError, match=r"onnx-fp32: expected the map75 .* 0\.91, got 0\.9 in its metrics\.json"):
        build_rows(results(), SIZES, others, DETECT)


def test_artifacts_of_another_task_are_refused():
    with pytest.raises(EvaluationError, match="expected an artifact of the task classify, got detect"):
        check_same_origin(results(), "classify", CLASSES)


def empty_results() -> dict[str, Result]:
    reasons = {score.metric: "the images have no box" for score in DETECT.scores}
    empty = {"num_images": 12, "num_boxes": 0}
    return {n: dataclasses.replace(r, metrics=empty, undefined=reasons) for n, r in results().items()}


def test_without_a_box_everything_is_undefined_and_that_is_said():
    rows = build_rows(empty_results(), SIZES, {}, DETECT)
    assert all(row.score is None and row_values(row, BUDGET)["map50_95_difference"] is None for row in rows)
    curves = {row.name: pd.DataFrame({"recall": [], "precision": []}) for row in rows}
    assert picture(rows, curves, DETECT, level=0.95, max_drop=0.5, caption="nothing").startswith(b"\x89PNG")
    text = page(content(rows=rows, results=empty_results()))
    assert cells(text, "onnx-int8")[3:6] == [DASH] * 3
    assert cells(section(text, "Other scores"), "onnx-int8")[1:4] == [DASH] * 3
    assert "| Most accurate | none | mAP50-95 is undefined |" in text
    assert "`map50`, `map50_95`, `map75`, `precision`, `recall` | the images have no box | all |" in text
    assert "undefined, for the reasons below" in text


def test_table_of_the_page():
    text = page(content())
    assert cells(text, "trained weights") == [
        "trained weights", "torch", "fp32", "0.856 [0.836, 0.876]", DASH, DASH, DASH, "5.40", DASH, DASH, DASH,
    ]  # fmt: skip
    assert cells(text, "onnx-int8")[3:8] == ["0.853", "-0.30 [-0.61, -0.02]", DASH, "2.00", "2.90"]
    assert cells(text, "onnx-fp32")[4] == "+0.10 [-0.05, +0.25]"
    assert cells(text, "ncnn-int8")[6] == "INVALID"
    others = section(text, "Other scores")
    assert cells(others, "trained weights")[1:] == ["0.970", "0.950", "0.940"]
    assert cells(others, "onnx-int8")[1:] == ["0.970", "0.950", "0.940"]
    latencies = others[others.index("p50, p90 and p99") :]
    assert cells(latencies, "onnx-int8")[1:] == ["2.00", "2.20", "2.60"]
    assert cells(latencies, "ncnn-int8")[1:] == ["INVALID"] * 3
    assert cells(text, "ncnn-int8")[4] == "+0.00 [+0.00, +0.00]"
    assert "95 % interval of 1,000 bootstrap samples of the test split (12 images)" in text
    assert cells(section(text, "Other differences"), "onnx-fp32")[1:] == ["+0.00 [-1.00, +1.00]"]


def test_which_differences_are_real_is_said_in_words():
    text = page(content())
    assert "**onnx-int8** is worse than the trained weights: 0 is outside of the interval." in text
    assert "**onnx-fp32** is not told from the trained weights by these images: 0 is in the interval." in text
    assert "**ncnn-int8** is the same as the trained weights to 0.01 points." in text
    text = page(content(rows=rows_of(**{"onnx-fp32": (0.0002, 0.003), "onnx-int8": (-0.001, 0.001)})))
    assert "**onnx-fp32** is better than" in text
    assert "worse" not in text


@given(st.floats(-0.01, 0.01), st.floats(0, 0.02), st.floats(0, 1))
def test_verdict_is_what_the_shown_interval_says(low, width, place):
    found = Interval(0.8, 0.7, 0.9, low + place * width, low, low + width)
    row = dataclasses.replace(rows_of()[1], intervals={"map50_95": found})
    _, _, ends = points_with_interval(found.difference, found).partition(" ")
    shown_low, shown_high = (float(end) for end in ends.strip("[]").split(", "))
    verdict = verdict_of(row)
    assert (verdict == "better") == (shown_low > 0)
    assert (verdict == "worse") == (shown_high < 0)
    if verdict == "same":
        assert shown_low == shown_high == 0


def test_interval_that_no_sample_gave_is_not_shown():
    nan = math.nan
    unknown = {"map50_95": Interval(0.8531, nan, nan, -0.003, nan, nan)}
    rows = build_rows(results(), SIZES, intervals() | {"onnx-int8": unknown}, DETECT)
    row = next(row for row in rows if row.name == "onnx-int8")
    assert row_values(row, BUDGET)["map50_95_difference_low"] is None
    text = page(content(rows=rows))
    assert cells(text, "onnx-int8")[4] == "-0.30"
    assert "nan" not in text
    assert "**onnx-int8** is" not in text
    assert picture(rows, curves_of(rows), DETECT, level=0.95, max_drop=0.5, caption="caption").startswith(b"\x89PNG")


def test_few_groups_to_draw_from_are_said():
    text = page(content(sampling=Sampling(1000, 0.9, 3)))
    assert "90 % interval of 1,000 bootstrap samples of the test split (3 groups of images, each drawn whole)" in text
    assert "**3 is few to draw from: take the intervals as rough.**" in text
    assert "few to draw from" not in page(content(sampling=Sampling(1000, 0.9, 20)))


def test_page_tells_the_rest():
    text = page(content())
    assert cells(section(text, "AP50-95"), "cat")[:2] == ["cat", "18"]
    assert cells(text, "dog\\|wolf")[1:] == ["0", *[DASH] * 4]
    assert text.count("One class has no boxes in test, so nothing is known about: **dog\\|wolf**.") == 2
    assert "| `class_dog\\|wolf_map50`, `class_dog\\|wolf_map50_95` | no box is of the class dog\\|wolf | all |" in text
    assert cells(section(text, "Confidence"), "onnx-int8") == [
        "onnx-int8", "0.250", "0.910", "0.920", "0.915", "0.950", "0.940", "0.945",
    ]  # fmt: skip
    assert "on the 7 val images: the one with the best F1." in text
    assert cells(text, "brightness: below 80") == ["brightness: below 80", "8", "22", "0.750", "0.500"]
    assert cells(text, "brightness: 80 and above")[3:] == [DASH, DASH]
    assert "- Epochs: 22 of 30; the best was epoch 20" in text
    assert "- Parameters: 2.58 million" in text
    assert "- GFLOPs of one image of 160 x 96 pixels: 0.41" in text
    assert "- cpu_model: `A CPU`" in text
    assert "- git_commit: `abc123`" in text
    assert "The artifacts were made at `abc123`. Then" in text
    assert cells(text, "train") == ["train", "70", "200"]
    assert cells(text, "all") == ["all", "100", "250"]
    for link in (
        "report.png",
        "samples.jpg",
        "worst.jpg",
        "curves.png",
        "../train/training.png",
        "../train/labels.png",
    ):
        assert f"]({link})" in text
    # It stands in its own section, not among the notes.
    assert "best_f1" not in text


def test_nothing_is_said_where_nothing_is_undefined():
    complete = {n: dataclasses.replace(r, undefined={}) for n, r in results().items()}
    text = page(content(results=complete, class_counts=[18, 12]))
    assert "Undefined metrics" not in text
    assert "nothing is known" not in text


def test_what_only_some_lack_names_them():
    only = results()
    only["onnx-int8"] = dataclasses.replace(only["onnx-int8"], undefined={**NO_DOG, "best_f1": "nothing was found"})
    assert "| `best_f1` | nothing was found | onnx-int8 |" in page(content(results=only))


def test_machines_that_differ_are_told_apart():
    text = page(content())
    assert "| Artifact | duration_s |" not in text
    assert cells(section(text, "Where"), "onnx-fp32") == ["onnx-fp32", "`0.9`"]


def test_same_content_gives_the_same_page():
    assert page(content()) == page(content(results=dict(reversed(results().items()))))


def test_changed_code_is_told():
    dirty = {
        n: dataclasses.replace(r, artifact=artifact(n, lineage={"git_commit": "abc-dirty"}))
        for n, r in results().items()
    }
    text = page(content(results=dirty))
    assert "The artifacts were made at `abc`, with changes that were not committed." in text


def test_notes_are_shown():
    told = dataclasses.replace(results()["onnx-int8"], artifact=artifact("onnx-int8", notes={"float_nodes": ["a"]}))
    assert '- float_nodes: `["a"]` (onnx-int8)' in page(content(results={**results(), "onnx-int8": told}))


def classifier_content() -> Content:
    numbers = {
        "top1": 0.98, "top5": 1.0, "macro_f1": 0.97, "roc_auc": 0.99, "calibration_error": 0.02, "num_images": 12,
        "accepted_precision": 0.995, "coverage": 0.9, "class_cat_f1": 0.97, "class_cat_recall": 0.96,
        "class_cat_precision": 0.98,
    }  # fmt: skip
    changed = {"task": "classify", "outputs": ClassifierOutputs(), "decode": ClassifierDecode(0.6)}
    found = {
        name: dataclasses.replace(result, artifact=artifact(name, **changed), metrics=numbers, undefined={})
        for name, result in results().items()
    }
    same = {name: {"top1": Interval(0.98, 0.95, 1.0, 0.0, -0.01, 0.01)} for name in found}
    table = slices(0.9).rename(columns={"map50_95": "top1"})
    return content(
        words=CLASSIFY,
        results=found,
        rows=build_rows(found, SIZES, same, CLASSIFY),
        slices={"weights": table, "onnx-int8": table},
    )


def test_classifier_has_its_own_words():
    text = page(classifier_content())
    assert text.startswith("# Report\n\nA classifier of 2 classes")
    assert cells(text, "onnx-int8")[3:5] == ["0.980", "+0.00 [-1.00, +1.00]"]
    assert cells(section(text, "Other scores"), "onnx-int8")[1:5] == ["0.970", "1.000", "0.990", "0.020"]
    assert cells(section(text, "F1 per class"), "cat")[-2:] == ["0.980", "0.960"]
    assert cells(section(text, "Confidence"), "onnx-int8")[-2:] == ["0.995", "0.900"]
    assert cells(text, "train") == ["train", "70"]
    assert cells(text, "brightness: below 80") == ["brightness: below 80", "8", "0.900", "0.900"]
    for word in ("mAP", "box", "Box", "detect", "Detect"):
        assert word not in text.replace("Detections of onnx-int8.", "")
    row = row_values(classifier_content().rows[1], BUDGET)
    keys = {"top1", "top1_difference", "top1_difference_low", "macro_f1", "top5", "roc_auc", "calibration_error"}
    assert keys | {"class_f1", "class_precision", "class_recall"} <= set(row)
    assert set(row) - {"name", "backend", "threads", "num_queries", "duration_s"} <= set(
        units_of(classifier_content().rows, CLASSIFY)
    )


def test_smallest_int8_artifact_is_shown():
    rows = rows_of()
    assert choose_shown(rows) == "ncnn-int8"
    assert choose_shown([row for row in rows if row.precision != "int8"]) == "onnx-fp32"
    assert choose_shown(rows[:1]) == "weights"


def test_page_of_the_trained_weights_alone():
    alone = {"weights": results()["weights"]}
    rows = build_rows(alone, SIZES, intervals(), DETECT)
    text = page(content(rows=rows, results=alone, shown="weights", slices={"weights": slices(0.75)}))
    assert "Other differences" not in text
    assert cells(text, "brightness: below 80") == ["brightness: below 80", "8", "22", "0.750"]
    assert picture(rows, curves_of(rows), DETECT, level=0.95, max_drop=0.5, caption="caption").startswith(b"\x89PNG")


@given(st.lists(st.integers(0, 10_000), unique=True, min_size=1), st.integers(1, 20))
def test_samples_are_spread_and_do_not_depend_on_order(image_ids, count):
    chosen = evenly_spaced(image_ids, count)
    assert chosen == evenly_spaced(image_ids[::-1], count)
    assert len(chosen) == len(set(chosen)) == min(count, len(image_ids))
    assert set(chosen) <= set(image_ids)
    assert chosen[0] == min(image_ids)


def test_null_is_a_value_that_can_differ():
    assert shared_and_own({"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": None}}) == (
        {"x": 1},
        {"a": {"y": 2}, "b": {"y": None}},
    )


@given(st.lists(st.floats(0, 1), min_size=1))
def test_accuracy_axis_shows_all_and_blows_nothing_up(values):
    low, high = accuracy_limits(values)
    assert low < min(values)
    assert max(values) < high
    # Cut at most where an accuracy cannot be.
    assert high - low > MIN_SPAN - 1e-9 or high == 1.02 or low == -0.02


def curves_of(rows: list[Row]) -> dict[str, pd.DataFrame]:
    recall = np.linspace(0, 1, 11)
    return {row.name: pd.DataFrame({"recall": recall, "precision": 1 - recall**8}) for row in rows}


def drawn(rows: list[Row], words=DETECT) -> bytes:
    return picture(rows, curves_of(rows), words, level=0.95, max_drop=0.5, caption="caption")


def decoded(png: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)


def test_same_rows_give_the_same_picture_whatever_the_users_style():
    import matplotlib as mpl

    plain = drawn(rows_of())
    with mpl.rc_context({"font.size": 30, "axes.grid": False, "savefig.dpi": 20}):
        assert drawn(rows_of()) == plain
    assert b"matplotlib" not in plain.lower()


def test_picture_is_drawn_with_each_artifact_in_its_color():
    rows = rows_of()
    image = decoded(drawn(rows))
    for name, color in colors_of(rows).items():
        bgr = np.frombuffer(bytes.fromhex(color[1:]), np.uint8)[::-1]
        # Also the INVALID one: its accuracy is known.
        assert (image == bgr).all(axis=2).sum() > 100, name


def test_picture_has_a_bar_as_high_as_the_interval():
    def pixels(high: float) -> int:
        # In the first panel alone, whose axis shows -3 to +3 points in each.
        rows = rows_of(**{"onnx-int8": (-0.03, high), "onnx-fp32": (-0.03, 0.03)})
        orange = np.frombuffer(bytes.fromhex(colors_of(rows)["onnx-int8"][1:]), np.uint8)[::-1]
        where = (decoded(drawn(rows))[100:640, :900] == orange).all(axis=2)
        return int(where.any(axis=1).sum())

    assert pixels(0.03) > 1.4 * pixels(0.0) > 100


def test_picture_of_a_classifier():
    assert drawn(classifier_content().rows, CLASSIFY) != drawn(rows_of())


@pytest.mark.parametrize("latencies", [(None, None), (3.0, 3.0), (0.5, 80.0)])
def test_picture_of_any_latencies(latencies):
    rows = rows_of()
    timed = [
        dataclasses.replace(rows[i + 1], latency={**rows[i + 1].latency, "latency_ms_p50": latency})
        for i, latency in enumerate(latencies)
    ]
    assert drawn([rows[0], *timed]).startswith(b"\x89PNG")


def test_picture_of_many_classes_shows_the_lowest():
    names = [f"class {i}" for i in range(90)]
    values = {name: None if i == 0 else i / 100 for i, name in enumerate(names)}
    rows = [dataclasses.replace(row, class_scores={"class_map50_95": values}) for row in rows_of()]
    assert drawn(rows).startswith(b"\x89PNG")


def test_picture_numbers_classes_that_its_font_cannot_write():
    def with_name(name: str) -> bytes:
        scores = {"class_map50_95": {"cat": 0.5, name: 0.7}}
        return drawn([dataclasses.replace(row, class_scores=scores) for row in rows_of()])

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of characters that the font does not have
        assert with_name("血小板") == with_name("class 1")


def test_score_that_chose_the_epoch_says_whose_it_is():
    ours = {"num_epochs": 2, "best_epoch": 2, "val_map50_95_ultralytics": 0.8221}
    text = page(content(training=Training(ours, "../train")))
    assert "- mAP50-95 on val, by ultralytics' own evaluator, of that epoch: 0.8221" in text
    assert "- mAP50-95 on val of that epoch: 0.8374" in page(content())


def test_artifact_whose_threshold_was_chosen_in_another_way_is_named():
    given = results()
    for name in given:
        # Of the first of them, too: what is said of all must not be its reason.
        rule = "none: nothing was found on val" if name in ("weights", "onnx-int8") else "best_f1"
        notes = {"threshold": {"rule": rule, "split": "val", "num_images": 7}}
        given[name] = dataclasses.replace(given[name], artifact=dataclasses.replace(given[name].artifact, notes=notes))
    told = section(page(content(results=given)), "Confidence thresholds")
    assert "Chosen for each artifact on the 7 val images: the one with the best F1." in told
    assert "**trained weights** has one that was not chosen so: none: nothing was found on val." in told
    assert "**onnx-int8** has one that was not chosen so" in told
    assert "onnx-fp32** has" not in told


def test_class_that_looks_like_a_tag_is_no_tag():
    rows = [dataclasses.replace(row, class_scores={"class_map50_95": {}}) for row in rows_of()]
    text = page(content(rows=rows, class_names=("cat", "<unknown>")))
    assert "**&lt;unknown>**" in text
    assert "<unknown>" not in text


def test_split_of_which_nothing_was_predicted_is_the_one_asked_for():
    split_of = pd.Series(["train", "val", "test"])
    nothing, one = pd.DataFrame({"image_id": []}), {"num_images": 1}
    for split in split_of:
        assert scored_split(split_of, nothing, one, split) == split
    assert scored_split(split_of, pd.DataFrame({"image_id": [0]}), one, "test") == "train"
