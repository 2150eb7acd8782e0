from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plumbline.errors import EvaluationError
from plumbline.report import (
    UNITS,
    Content,
    Result,
    Row,
    build_rows,
    choose_sampled,
    evenly_spaced,
    page,
    shared_and_own,
)
from plumbline.report_picture import MIN_SPAN, accuracy_limits, colors_of, picture
from plumbline.runtime.artifact import Artifact, DecodeSpec, InputSpec, OutputSpec, Preprocessing

CLASSES = ("cat", "dog|wolf")


def artifact(name: str, backend: str = "onnx", precision: str = "fp32", **changed) -> Artifact:
    values = {
        "task": "detect",
        "class_names": CLASSES,
        "input": InputSpec("images", (160, 160)),
        "preprocessing": Preprocessing(),
        "outputs": OutputSpec(("b", "c"), (8,), 16, nms_free=False),
        "decode": DecodeSpec(0.25, 0.7, 300),
        "files": {},
        "toolchain": {},
        "lineage": {"git_commit": "abc123", "dataset_sha256": "d" * 64},
        "notes": {},
    }
    return Artifact(name=name, backend=backend, precision=precision, **{**values, **changed})


def metrics(map50_95: float) -> dict[str, float]:
    return {
        "map50_95": map50_95, "map50": 0.97, "map75": 0.9, "precision": 0.95, "recall": 0.94, "f1": 0.945,
        "class_cat_map50_95": map50_95, "num_images": 12, "num_boxes": 30,
    }  # fmt: skip


def benchmark(p50: float, valid: bool = True) -> dict[str, float]:
    run = {"valid": int(valid), "num_queries": 200, "duration_s": 5.0, "threads": 1, "size_bytes": 9}
    parts = {f"{part}_ms_p50": p50 / 4 for part in ("preprocess", "inference", "postprocess")}
    latency = {"latency_ms_p50": p50, "latency_ms_p90": p50 * 1.1, "latency_ms_p99": p50 * 1.3}
    return run | parts | latency if valid else run


def results() -> dict[str, Result]:
    machine = {"cpu_model": "A CPU", "load_average": 0.5}
    return {
        "onnx-int8": Result(artifact("onnx-int8", precision="int8"), metrics(0.8531), benchmark(2.0), machine),
        "weights": Result(artifact("weights", "torch"), metrics(0.8561), None, {}),
        "ncnn-int8": Result(artifact("ncnn-int8", "ncnn", "int8"), metrics(0.8561), benchmark(3, valid=False), machine),
        "onnx-fp32": Result(artifact("onnx-fp32"), metrics(0.8571), benchmark(4.0), {**machine, "load_average": 0.9}),
    }


SIZES = {"weights": 5_400_000, "onnx-int8": 2_900_000, "onnx-fp32": 10_400_000, "ncnn-int8": 2_800_000}


def content(**changed) -> Content:
    values = {
        "rows": build_rows(results(), SIZES),
        "class_names": CLASSES,
        "class_counts": [18, 0],
        "splits": {"train": (70, 200), "test": (12, 30)},
        "scored_split": "test",
        "num_images": 100,
        "num_boxes": 250,
        "results": results(),
        "samples_note": "Detections of onnx-int8.",
    }
    return Content(**{**values, **changed})


def test_rows_are_the_weights_then_as_given():
    given = dict(sorted(results().items()))
    assert list(given)[-1] == "weights"
    assert [row.name for row in build_rows(given, SIZES)] == ["weights", "ncnn-int8", "onnx-fp32", "onnx-int8"]


def test_difference_is_to_the_trained_weights_at_full_precision():
    rows = {row.name: row for row in build_rows(results(), SIZES)}
    assert rows["onnx-int8"].map50_95_difference == 0.8531 - 0.8561
    assert rows["weights"].map50_95_difference == 0.0


def test_invalid_and_missing_latencies_are_none_and_told_apart():
    rows = {row.name: row for row in build_rows(results(), SIZES)}
    assert (rows["ncnn-int8"].latency_valid, rows["ncnn-int8"].latency_ms_p50) == (False, None)
    assert (rows["weights"].latency_valid, rows["weights"].latency_ms_p50) == (None, None)
    assert (rows["onnx-fp32"].latency_valid, rows["onnx-fp32"].latency_ms_p50) == (True, 4.0)


def test_every_number_of_a_row_has_its_unit_written():
    without = {"name", "backend", "threads", "num_queries", "duration_s"}
    assert {field.name for field in dataclasses.fields(Row)} - without == set(UNITS)


@pytest.mark.parametrize("key", ["map50_95", "map50", "precision"])
def test_missing_metric_is_an_error(key):
    given_results = results()
    del given_results["onnx-fp32"].metrics[key]
    with pytest.raises(EvaluationError, match=rf"onnx-fp32: .*'{key}'"):
        build_rows(given_results, SIZES)


def test_missing_latency_of_a_valid_run_is_an_error():
    given_results = results()
    del given_results["onnx-fp32"].benchmark["latency_ms_p99"]
    with pytest.raises(EvaluationError, match="latency_ms_p99"):
        build_rows(given_results, SIZES)


def test_missing_weights_is_an_error():
    given_results = results()
    del given_results["weights"]
    with pytest.raises(EvaluationError, match="trained weights"):
        build_rows(given_results, SIZES)


def test_without_a_box_everything_is_undefined():
    empty = {"num_images": 12, "num_boxes": 0}
    given_results = {name: dataclasses.replace(result, metrics=empty) for name, result in results().items()}
    rows = build_rows(given_results, SIZES)
    assert all(row.map50_95 is None and row.map50_95_difference is None for row in rows)
    curves = {row.name: pd.DataFrame({"recall": [], "precision": []}) for row in rows}
    assert picture(rows, curves, "nothing").startswith(b"\x89PNG")
    assert "| – |" in page(content(rows=rows))  # noqa: RUF001


def cells(text: str, name: str) -> list[str]:
    return next(line for line in text.splitlines() if line.startswith(f"| {name} |")).strip("| ").split(" | ")


def test_table_of_the_page():
    text = page(content())
    assert cells(text, "trained weights") == [
        "trained weights", "torch", "fp32", "0.856", "–", "0.970", "0.950", "0.940", "–", "–", "5.40",  # noqa: RUF001
    ]  # fmt: skip
    assert cells(text, "onnx-int8")[3:5] == ["0.853", "-0.30"]
    assert cells(text, "onnx-int8")[8:] == ["2.00", "2.60", "2.90"]
    assert cells(text, "onnx-fp32")[4] == "+0.10"
    assert cells(text, "ncnn-int8")[8:10] == ["INVALID", "INVALID"]
    assert cells(text, "ncnn-int8")[4] == "+0.00"


def test_page_tells_the_rest():
    text = page(content())
    assert cells(text, "cat")[:2] == ["cat", "18"]
    assert cells(text, "dog\\|wolf")[2:] == ["–"] * 4  # noqa: RUF001
    assert "- cpu_model: `A CPU`" in text
    assert "- git_commit: `abc123`" in text
    assert "The artifacts were made at `abc123`. Then" in text
    assert "report.png" in text
    assert "samples.jpg" in text
    assert cells(text, "train") == ["train", "70", "200"]
    assert cells(text, "all") == ["all", "100", "250"]


def test_machines_that_differ_are_told_apart():
    text = page(content())
    assert "| Artifact | duration_s |" not in text
    assert cells(text[text.index("## Where") :], "onnx-fp32") == ["onnx-fp32", "`0.9`"]


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


def test_smallest_int8_artifact_is_drawn():
    rows = build_rows(results(), SIZES)
    assert choose_sampled(rows) == "ncnn-int8"
    assert choose_sampled([row for row in rows if row.precision != "int8"]) == "onnx-fp32"
    assert choose_sampled(rows[:1]) == "weights"


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


def test_same_rows_give_the_same_picture_whatever_the_users_style():
    import matplotlib as mpl

    rows = build_rows(results(), SIZES)
    plain = picture(rows, curves_of(rows), "caption")
    with mpl.rc_context({"font.size": 30, "axes.grid": False, "savefig.dpi": 20}):
        assert picture(rows, curves_of(rows), "caption") == plain
    assert b"matplotlib" not in plain.lower()


def test_picture_is_drawn_with_each_artifact_in_its_color():
    rows = build_rows(results(), SIZES)
    image = cv2.imdecode(np.frombuffer(picture(rows, curves_of(rows), "caption"), np.uint8), cv2.IMREAD_COLOR)
    for name, color in colors_of(rows).items():
        bgr = np.frombuffer(bytes.fromhex(color[1:]), np.uint8)[::-1]
        # Also the INVALID one: its accuracy is known.
        assert (image == bgr).all(axis=2).sum() > 100, name


@pytest.mark.parametrize("latencies", [(None, None), (3.0, 3.0), (0.5, 80.0)])
def test_picture_of_any_latencies(latencies):
    rows = build_rows(results(), SIZES)
    timed = [dataclasses.replace(rows[i + 1], latency_ms_p50=latency) for i, latency in enumerate(latencies)]
    assert picture([rows[0], *timed], curves_of(rows), "caption").startswith(b"\x89PNG")


def test_picture_of_many_classes_shows_the_lowest():
    names = [f"class {i}" for i in range(90)]
    values = {name: None if i == 0 else i / 100 for i, name in enumerate(names)}
    rows = [dataclasses.replace(row, class_map50_95=values) for row in build_rows(results(), SIZES)]
    assert picture(rows, curves_of(rows), "caption").startswith(b"\x89PNG")
