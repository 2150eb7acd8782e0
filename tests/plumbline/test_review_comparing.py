"""Two revisions held against each other: intervals are the evaluator's own, and every kind of change has a row."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from made_revision import DEVICE, MACHINE, revision_of
from scored_runs import run_of, shuffled

from plumbline.detect.scoring.intervals import bootstrap
from plumbline.errors import EvaluationError
from plumbline.review.changes import Verdict
from plumbline.review.comparing import compare, pair_of
from plumbline.review.gates import judge_gates
from plumbline.score_comparison import pair_images
from plumbline.scores import BootstrapSettings
from plumbline.tasks import task_module

SETTINGS = BootstrapSettings(samples=50, level=0.9, seed=1, difficult="count")


def rows_of(base, head, **more):
    changes, notes, num_images = compare(base, head, more.get("settings", SETTINGS), 0.1, lambda _: None)
    keyed = {(row.artifact, row.metric): row for row in changes}
    assert len(keyed) == len(changes), "a gate finds each row by artifact and metric"
    return keyed, notes, num_images


@pytest.mark.parametrize("task", ["detect", "classify"])
def test_a_revision_is_unchanged_beside_itself(task):
    one = revision_of(run_of(task))
    rows, notes, num_images = rows_of(one, one)
    assert {row.verdict for row in rows.values()} == {Verdict.UNCHANGED}
    assert len([row for row in rows.values() if row.kind == "slice"]) == 4, "a gate on a slice finds it"
    assert (notes, num_images) == ([], 12)


@pytest.mark.parametrize("task", ["detect", "classify"])
def test_in_another_order_of_images_and_classes_nothing_changed_either(task):
    head = run_of(task)
    base = revision_of(shuffled(head, list(range(12))[::-1], [2, 0, 1], 0))
    rows, _, _ = rows_of(base, revision_of(head))
    scores = [row for row in rows.values() if row.kind in ("score", "class", "size") and row.difference is not None]
    assert scores
    assert all(abs(row.difference) < 1e-12 for row in scores)
    assert not {row.verdict for row in scores} & {Verdict.BETTER, Verdict.WORSE, Verdict.CHANGED}


@pytest.mark.parametrize(("task", "metric"), [("detect", "map50_95"), ("classify", "top1")])
def test_the_overall_intervals_are_those_of_the_one_evaluator(task, metric):
    base, head = revision_of(run_of(task, 6, 30)), revision_of(run_of(task, 0, 30))
    rows, _, _ = rows_of(base, head)
    pair = pair_of(base, head, "weights", pair_images(base.run.images, head.run.images))
    found = {"base": pair.base, "head": pair.head}
    scoring = task_module(task, "scoring")
    expected = scoring.bootstrap(pair.truth, pair.images, pair.class_names, found, "base", SETTINGS)["head"][metric]

    row = rows["weights", metric]
    assert row.head == pytest.approx(expected.value)
    assert (row.low, row.high) == pytest.approx((expected.difference_low, expected.difference_high))
    assert row.verdict is Verdict.BETTER


def test_the_interval_of_a_class_is_that_of_a_data_set_of_this_class_alone():
    base, head = revision_of(run_of("detect", 3, 30)), revision_of(run_of("detect", 0, 30))
    rows, _, _ = rows_of(base, head)
    pair = pair_of(base, head, "weights", pair_images(base.run.images, head.run.images))
    for class_id, name in enumerate(pair.class_names):
        only = [
            frame[frame["class_id"] == class_id].reset_index(drop=True) for frame in (pair.truth, pair.base, pair.head)
        ]
        found = {"base": only[1], "head": only[2]}
        expected = bootstrap(only[0], pair.images, pair.class_names, found, "base", SETTINGS)["head"]["map50_95"]
        row = rows["weights", f"class_{name}_map50_95"]
        assert row.title == name
        assert (row.head, row.low, row.high) == pytest.approx(
            (expected.value, expected.difference_low, expected.difference_high)
        )


def test_the_interval_of_a_slice_is_that_of_its_images_alone():
    base, head = revision_of(run_of("detect", 3, 30)), revision_of(run_of("detect", 0, 30))
    rows, _, _ = rows_of(base, head)
    slices = [row for row in rows.values() if row.kind == "slice" and row.artifact == "weights"]
    assert len(slices) == 2
    pair = pair_of(base, head, "weights", pair_images(base.run.images, head.run.images))
    bright = pair.images["brightness"] >= pair.images["brightness"].median()
    images = pair.images[bright.to_numpy()].reset_index(drop=True)
    parts = [frame[frame["image_id"].isin(images["image_id"])] for frame in (pair.truth, pair.base, pair.head)]
    found = {"base": parts[1], "head": parts[2]}
    expected = bootstrap(parts[0], images, pair.class_names, found, "base", SETTINGS)["head"]["map50_95"]
    (row,) = [row for row in slices if "and above" in row.title]
    assert (row.head, row.low, row.high) == pytest.approx(
        (expected.value, expected.difference_low, expected.difference_high)
    )


def test_sizes_precision_and_recall_are_those_that_metrics_json_has():
    base, head = revision_of(run_of("detect", 3, 30)), revision_of(run_of("detect", 0, 30))
    rows, _, _ = rows_of(base, head)
    for metric in ("map_small", "precision", "recall", "f1", "map50"):
        row = rows["int8", metric]
        assert row.head == pytest.approx(head.scored["int8"].metrics[metric])
        assert row.base == pytest.approx(base.scored["int8"].metrics[metric])
        assert row.low is not None
        assert row.low <= row.high
    undefined = rows["int8", "map_large"]
    assert (undefined.base, undefined.head) == (None, None)
    assert "96" in undefined.note


def test_an_artifact_that_came_or_went_has_rows_that_say_so():
    both = run_of("detect")
    fewer = dataclasses.replace(both, predictions={"weights": both.predictions["weights"]})
    gone, _, _ = rows_of(revision_of(both), revision_of(fewer))
    assert gone["int8", "map50_95"].verdict is Verdict.GONE
    assert gone["int8", "latency_ms_p50"].verdict is Verdict.GONE
    assert gone["weights", "map50_95"].verdict is Verdict.UNCHANGED
    new, _, _ = rows_of(revision_of(fewer), revision_of(both))
    assert new["int8", "map50_95"].verdict is Verdict.NEW


def test_an_image_more_and_another_label_are_told_and_the_whole_is_kept_for_gates():
    head = run_of("detect", 2)
    base = shuffled(head, list(range(12)), [0, 1, 2], 2)
    labels = base.data.annotations.assign(class_id=0, class_name="cat")
    base = dataclasses.replace(base, data=dataclasses.replace(base.data, annotations=labels))
    rows, notes, num_images = rows_of(revision_of(base), revision_of(head))
    assert num_images == 12
    assert any("2 scored images of there are not in here's" in note for note in notes)
    assert any("have other labels in there; here's count for both" in note for note in notes)
    row = rows["weights", "map50_95"]
    assert (row.low, row.high, row.verdict) == (0, 0, Verdict.UNCHANGED)
    assert row.whole == pytest.approx(revision_of(head).scored["weights"].metrics["map50_95"])


@pytest.mark.parametrize(("task", "metric"), [("detect", "best_f1"), ("classify", "log_loss")])
def test_a_number_without_an_interval_is_not_compared_where_the_images_or_labels_are_others(task, metric):
    head = run_of(task, 2, 30)
    for count in (2, 30):
        base = with_other_images(run_of(task, 0, 30, name="there"), count)
        rows, notes, num_images = rows_of(revision_of(base), revision_of(head))
        assert num_images == 30 - count
        row = rows["weights", metric]
        assert (row.verdict, row.note) == (Verdict.OTHER_TEST_SET, "other images or labels in the base")
        beside = [
            one for one in rows.values() if one.kind == "score" and one.low is None and one.difference is not None
        ]
        assert {one.verdict for one in beside} == {Verdict.OTHER_TEST_SET}
        (result,) = judge_gates({"gate": f"{metric} drop <= 0"}, list(rows.values()))
        assert (result.passed, result.judged) == (True, False)
        assert any("No image was scored in both" in note for note in notes) is (count == 30)
        assert any("differences leave them out" in note for note in notes) is (count < 30)
    assert rows["weights", "map50_95" if task == "detect" else "top1"].verdict is Verdict.OTHER_TEST_SET


def with_other_images(run, count):
    """The same run, of which so many images have other bytes."""
    hashes = [f"other{n}" if n < count else sha256 for n, sha256 in enumerate(run.images["sha256"])]
    images = run.images.assign(sha256=hashes)
    return dataclasses.replace(run, images=images, data=dataclasses.replace(run.data, images=images))


def test_other_labels_of_the_same_images_are_another_test_set():
    head = run_of("detect", 2)
    labels = head.data.annotations.assign(difficult=True)
    base = dataclasses.replace(head, data=dataclasses.replace(head.data, annotations=labels))
    rows, _, _ = rows_of(revision_of(base), revision_of(head))
    assert rows["weights", "best_f1"].verdict is Verdict.OTHER_TEST_SET
    rows, _, _ = rows_of(revision_of(run_of("detect")), revision_of(head))
    assert rows["weights", "best_f1"].verdict is Verdict.CHANGED


def test_other_classes_leave_scores_beside_each_other_without_an_interval():
    head, base = run_of("detect"), run_of("detect", name="there")
    names = ("cat", "dog", "horse")
    labels = base.data.annotations.assign(class_name=[names[one] for one in base.data.annotations["class_id"]])
    base = dataclasses.replace(base, data=dataclasses.replace(base.data, annotations=labels, class_names=names))
    rows, notes, _ = rows_of(revision_of(base), revision_of(head))
    assert rows["weights", "map50_95"].low is None
    assert rows["weights", "class_horse_map50_95"].verdict is Verdict.GONE
    assert rows["weights", "class_cow_map50_95"].verdict is Verdict.NEW
    assert any("classes are others" in note for note in notes)


def test_runs_of_two_tasks_are_refused():
    with pytest.raises(EvaluationError, match="its task is classify, expected detect"):
        rows_of(revision_of(run_of("classify")), revision_of(run_of("detect")))


@pytest.mark.parametrize(
    ("device", "machine", "metric", "expected"),
    [
        ({"latency_ms_p50": 10.9}, {}, "latency_ms_p50", Verdict.WITHIN_NOISE),
        ({"latency_ms_p50": 12.0}, {}, "latency_ms_p50", Verdict.WORSE),
        ({"latency_ms_p50": 8.0}, {}, "latency_ms_p50", Verdict.BETTER),
        ({"latency_ms_p50": 8.0}, {"cpu_model": "other"}, "latency_ms_p50", Verdict.OTHER_MACHINE),
        ({"speedup_own_fp32": 1.3, "speedup_own_fp32_high": 1.45}, {}, "speedup_own_fp32", Verdict.WITHIN_NOISE),
        ({"speedup_own_fp32": 1.3, "speedup_own_fp32_low": 1.25, "speedup_own_fp32_high": 1.35}, {},
         "speedup_own_fp32", Verdict.WORSE),
        ({"speedup_own_fp32": 1.39, "speedup_own_fp32_low": 1.385, "speedup_own_fp32_high": 1.395}, {},
         "speedup_own_fp32", Verdict.WORSE),
        ({"speedup_own_fp32": 1.49, "speedup_own_fp32_low": None, "speedup_own_fp32_high": None}, {},
         "speedup_own_fp32", Verdict.WITHIN_NOISE),
        ({"speedup_own_fp32": 1.39, "speedup_own_fp32_low": 1.385, "speedup_own_fp32_high": 1.395}, {"cpu_model": "x"},
         "speedup_own_fp32", Verdict.OTHER_MACHINE),
    ],
)  # fmt: skip
def test_what_was_measured_on_a_device(device, machine, metric, expected):
    base = revision_of(run_of("detect"))
    head = revision_of(run_of("detect"), device={**DEVICE, **device}, machine={**MACHINE, **machine})
    rows, _, _ = rows_of(base, head)
    assert rows["int8", metric].verdict is expected


def test_params_validation_and_split_moves_have_rows():
    base = revision_of(run_of("detect"), params={"train": {"epochs": 1}}, validation={"num_errors": 0, "num_old": 2})
    head = revision_of(run_of("detect"), params={"train": {"epochs": 2}, "more": 1}, validation={"num_errors": 3})
    splits = head.splits.assign(split=np.where(head.splits["image_id"] < 2, "train", "test"))
    rows, _, _ = rows_of(base, dataclasses.replace(head, splits=splits))
    assert (rows["", "train.epochs"].base, rows["", "train.epochs"].head) == ("1", "2")
    assert rows["", "more"].verdict is Verdict.NEW
    assert rows["", "num_errors"].verdict is Verdict.WORSE
    assert rows["", "num_old"].verdict is Verdict.GONE
    moves = rows["", "num_split_moves"]
    assert (moves.head, moves.note, moves.verdict) == (2, "2 test → train", Verdict.WORSE)


def test_boxes_and_images_that_changed_are_counted_by_class():
    before = run_of("detect")
    rows = before.data.annotations
    after = rows.iloc[1:].assign(
        class_name=[("dog" if place == 0 else name) for place, name in enumerate(rows["class_name"].iloc[1:])]
    )
    after["class_id"] = [before.data.class_names.index(name) for name in after["class_name"]]
    head = dataclasses.replace(before, data=dataclasses.replace(before.data, annotations=after))
    found, _, _ = rows_of(revision_of(before), revision_of(head))
    assert (found["", "num_boxes"].base, found["", "num_boxes"].head) == (36, 35)
    assert "1 removed" in found["", "num_boxes"].note
    by_class = {row.title: row for row in found.values() if row.metric.startswith("num_boxes_class_")}
    counts = after["class_name"].value_counts()
    assert {name: row.head for name, row in by_class.items()} == counts.to_dict()
