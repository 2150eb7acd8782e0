"""Two runs compared on the images they share: whatever order images and classes stand in."""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scored_runs import NAMES, run_of, shuffled

from plumbline.errors import EvaluationError
from plumbline.score_comparison import compare_runs, count_other_labels, is_more_than_chance, pair_images
from plumbline.score_comparison_text import as_json, as_markdown, as_text
from plumbline.scores import BootstrapSettings
from plumbline.tasks import task_module

SETTINGS = BootstrapSettings(samples=40, level=0.9, seed=1, difficult="count")


@pytest.mark.parametrize("task", ["detect", "classify"])
@settings(max_examples=15)
@given(
    images=st.permutations(range(12)).flatmap(lambda order: st.integers(4, 12).map(lambda most: order[:most])),
    classes=st.permutations(range(3)),
    extra=st.integers(0, 3),
)
def test_a_run_is_no_better_than_itself_in_another_order(task, images, classes, extra):
    here = run_of(task)
    comparison = compare_runs(shuffled(here, images, classes, extra), here, SETTINGS)

    assert comparison.num_images == len(images)
    assert (comparison.num_only_there, comparison.num_only_here) == (extra, 12 - len(images))
    assert comparison.num_other_labels == 0
    assert set(comparison.intervals) == {"weights", "int8"}
    for metrics in comparison.intervals.values():
        assert metrics
        for each in metrics.values():
            assert (each.difference, each.difference_low, each.difference_high) == (0, 0, 0)


@pytest.mark.parametrize("task", ["detect", "classify"])
def test_values_and_intervals_are_those_of_the_scoring_room(task):
    here, there = run_of(task), run_of(task, seed=3, name="there")
    scoring = task_module(task, "scoring")
    truth = scoring.truth_of(here.data, here.images)
    both = {"here": here.predictions["weights"], "there": there.predictions["weights"]}
    wanted = scoring.bootstrap(truth, here.images, NAMES, both, "there", SETTINGS)

    comparison = compare_runs(shuffled(there, list(range(12)), [2, 0, 1], 2), here, SETTINGS)

    assert comparison.intervals["weights"] == wanted["here"]
    assert comparison.intervals["weights"][scoring.HEADLINE[0]].difference > 0
    assert is_more_than_chance(comparison.intervals["weights"][scoring.HEADLINE[0]])


def test_the_same_bytes_twice_are_paired_once_each():
    there = pd.DataFrame({"image_id": [0, 1, 2], "sha256": ["a", "a", "b"], "path": ["y", "x", "z"]})
    here = pd.DataFrame({"image_id": [7, 8, 9], "sha256": ["a", "c", "a"], "path": ["p", "q", "r"]})
    assert pair_images(there, here).values.tolist() == [[1, 7], [0, 9]]
    assert pair_images(there[:1], here).values.tolist() == [[0, 7]]


def test_nothing_that_was_given_is_changed():
    here, there = run_of("classify"), shuffled(run_of("classify", seed=2), [3, 1, 0], [1, 0, 2], 1)
    before = [there.predictions["weights"].copy(), there.images.copy(), here.predictions["weights"].copy()]
    compare_runs(there, here, SETTINGS)
    for old, new in zip(before, [there.predictions["weights"], there.images, here.predictions["weights"]], strict=True):
        pd.testing.assert_frame_equal(old, new)


def test_other_labels_are_counted_and_this_runs_count():
    here, there = run_of("detect"), run_of("detect", name="there")
    labels = there.data.annotations.copy()
    labels.loc[labels["image_id"] == 3, "x2"] += 1
    labels = labels[labels["image_id"] != 5]
    there = dataclasses.replace(there, data=dataclasses.replace(there.data, annotations=labels))
    pairs = pair_images(there.images, here.images)

    assert count_other_labels(labels, here.data.annotations, pairs) == 2
    comparison = compare_runs(there, here, SETTINGS)
    assert comparison.num_other_labels == 2
    assert comparison.intervals["weights"]["map50_95"].difference == 0


def test_artifacts_of_one_run_alone_are_named():
    here, there = run_of("detect"), run_of("detect", name="there")
    here = dataclasses.replace(here, predictions={**here.predictions, "new": here.predictions["weights"]})
    there = dataclasses.replace(there, predictions={"gone": here.predictions["weights"], **there.predictions})
    comparison = compare_runs(there, here, SETTINGS)
    assert (comparison.only_there, comparison.only_here) == (("gone",), ("new",))
    words = task_module("detect", "reporting").WORDS
    assert "Only in there: gone." in as_text(comparison, words)
    assert "Only in here: new." in as_markdown(comparison, words)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: dataclasses.replace(run, task="classify"), "there: its task is classify, expected detect"),
        (
            lambda run: dataclasses.replace(run, data=dataclasses.replace(run.data, class_names=("cat", "dog", "pig"))),
            r"expected the classes of here, cat, dog, cow, got cat, dog, pig.*not in both: cow, pig",
        ),
        (lambda run: dataclasses.replace(run, predictions={"x": run.predictions["int8"]}), "no artifact of the same"),
        (
            lambda run: dataclasses.replace(run, images=run.images.assign(sha256=run.images["sha256"] + "0")),
            r"scored no image in common \(12 and 12 images\)",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(change, message):
    with pytest.raises(EvaluationError, match=message):
        compare_runs(change(run_of("detect", name="there")), run_of("detect"), SETTINGS)


def test_the_page_says_what_differs_and_what_was_left_out():
    here = run_of("detect", num_images=30)
    there = shuffled(run_of("detect", seed=5, num_images=30), list(range(28)), [0, 1, 2], 1)
    comparison = compare_runs(there, here, SETTINGS)
    text, page = (write(comparison, task_module("detect", "reporting").WORDS) for write in (as_text, as_markdown))

    assert "higher than there for weights, int8, by more than chance (90 % intervals)" in text
    assert "28 images, each scored in both, by the labels of here; paired bootstrap of 40 samples." in text
    assert "Left out: 1 image of there that here did not score." in text
    assert "Left out: 2 images of here that there did not score." in page
    assert "little worth" not in text
    assert page.startswith("**")
    assert page.count("\n| ") == 2 + 2 * 3  # head, rule, and a row for each metric of each artifact
    values = as_json(comparison)["artifacts"]["weights"]["map50_95"]
    assert values["difference"] == pytest.approx(values["here"] - values["there"], abs=2e-6)
    assert values["more_than_chance"] is True


def test_few_images_are_said():
    comparison = compare_runs(run_of("detect", name="there"), run_of("detect"), SETTINGS)
    text = as_text(comparison, task_module("detect", "reporting").WORDS)
    assert "differs from there by no more than chance" in text
    assert "drawn from 12 images and groups alone" in text
