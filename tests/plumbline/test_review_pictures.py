"""The pictures of two revisions: what is drawn, not only that something is."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pandas as pd
import pytest
from scored_runs import run_of
from small_reviews import MACHINE, images_in, revision_of, two_revisions

from plumbline import picture_style
from plumbline.review import picture_confusion, picture_curves, picture_latency, picture_notice, pictures
from plumbline.review.picture_confusion import confusion_difference, confusion_picture
from plumbline.review.picture_curves import curves_picture
from plumbline.review.picture_latency import latency_picture, moves

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def drawn(monkeypatch):
    """The figures that become pictures, in their order; they become pictures as ever."""
    figures = []

    def keep(figure):
        figures.append(figure)
        return picture_style.png_bytes(figure)

    for module in (picture_confusion, picture_curves, picture_latency, picture_notice):
        monkeypatch.setattr(module, "png_bytes", keep)
    return figures


def texts_of(figure):
    from matplotlib.text import Text

    return " | ".join(text.get_text() for text in figure.findobj(Text) if text.get_text())


def with_scored(revision, artifact, **values):
    scored = {**revision.scored, artifact: dataclasses.replace(revision.scored[artifact], **values)}
    return dataclasses.replace(revision, scored=scored)


def decoded(data):
    assert data.startswith(PNG)
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


# --- all of them


@pytest.mark.parametrize("task", ["detect", "classify"])
def test_every_picture_of_either_task_is_drawn_the_same_twice(tmp_path, task):
    base, head = two_revisions(task, tmp_path, latency={"int8": 8.0})
    first, second = (pictures.draw_all(base, head, "int8") for _ in range(2))
    assert list(first) == ["curves", "confusion", "latency", "changed"]
    assert first == second
    for data in first.values():
        assert decoded(data).shape[1] > 400
        assert len(data) < pictures.MOST_BYTES


@pytest.mark.parametrize("artifact", ["fp16", "int8"])
def test_what_cannot_be_drawn_becomes_a_picture_that_says_why(drawn, artifact):
    base, head = two_revisions("detect")
    if artifact == "int8":
        base = dataclasses.replace(base, scored={}, run=dataclasses.replace(base.run, predictions={}))
        head = with_scored(head, "int8", tables={}, device={})
    found = pictures.draw_all(base, head, artifact)
    assert all(data.startswith(PNG) for data in found.values())
    told = [texts_of(figure) for figure in drawn]
    curves, confusion, changed = told[0], told[1], told[-1]
    assert f"Neither main nor feature/x has curves of {artifact}" in curves
    assert f"main has no confusion matrix of {artifact}" in confusion
    assert f"main has no predictions of {artifact}" in changed
    if artifact == "int8":
        assert "No artifact of main or feature/x has a valid latency" in told[2]


def test_a_fault_of_ours_keeps_its_traceback():
    base, head = two_revisions("detect")
    tables = dict(head.scored["int8"].tables)
    broken = with_scored(head, "int8", tables={**tables, "confusion": tables["confusion"].drop(columns="actual")})
    with pytest.raises(KeyError):
        pictures.draw_all(base, broken, "int8")


def test_names_that_the_font_or_mathtext_trips_over_are_drawn(recwarn, drawn):
    names = ("$x^{$", "血小板", "a" * 300)
    base, head = two_revisions("detect", latency={"int8": 8.0})
    sides = []
    for revision, name in ((base, "$\\frac{"), (head, "b" * 250)):
        run = dataclasses.replace(revision.run, data=dataclasses.replace(revision.run.data, class_names=names))
        scored = {
            artifact: dataclasses.replace(
                one, tables={stem: table.replace(dict(zip(("cat", "dog", "cow"), names, strict=True)))
                             for stem, table in one.tables.items()})
            for artifact, one in revision.scored.items()
        }  # fmt: skip
        sides.append(dataclasses.replace(revision, name=name, run=run, scored=scored))
    found = pictures.draw_all(*sides, "int8")
    assert [decoded(found[stem]).shape[1] for stem in ("curves", "confusion", "latency")] == [1430] * 3
    assert "class 1" in texts_of(drawn[1])
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]


def test_a_sheet_of_noisy_images_is_kept_small(tmp_path, monkeypatch):
    base, head = (run_of("detect", seed) for seed in (0, 2))
    found = head.predictions["int8"]
    head = dataclasses.replace(head, predictions={"int8": found.assign(class_id=(found["class_id"] + 1) % 3)})
    files = images_in(tmp_path, base.images, noise=3)
    sides = revision_of(base, image_file=files), revision_of(head, image_file=files)
    all_nine = pictures.changed_picture(*sides, "int8")
    for limit in (len(all_nine) - 1, len(all_nine) // 8):  # fewer images; then smaller ones
        monkeypatch.setattr(pictures, "MOST_BYTES", limit)
        smaller = pictures.changed_picture(*sides, "int8")
        assert len(smaller) <= limit
        assert decoded(smaller).shape[0] < decoded(all_nine).shape[0]


# --- curves


def test_both_revisions_curves_and_thresholds_are_there(drawn):
    base, head = two_revisions("detect", threshold=0.55)
    curves_picture(base, head, "int8")
    recall, _, confidence, _ = drawn[0].axes
    for axes, stem, x, y in (
        (recall, "pr_curve", "recall", "precision"),
        (confidence, "confidence_curve", "confidence", "f1"),
    ):
        for revision, style in ((base, "--"), (head, "-")):
            table = revision.scored["int8"].tables[stem]
            if stem == "pr_curve":
                table = table[table["class"] == table["class"].iloc[0]]
            thickest = [line for line in axes.lines if line.get_linewidth() > 2 and line.get_linestyle() == style]
            assert len(thickest) == 1
            np.testing.assert_array_equal(thickest[0].get_xdata(), table[x])
            np.testing.assert_array_equal(thickest[0].get_ydata(), table[y])
    told = texts_of(drawn[0])
    for text in ("mean, main", "mean, feature/x", "F1, main", "F1, feature/x", "in use: 0.400", "in use: 0.550"):
        assert text in told


def test_the_strip_below_is_head_minus_base(drawn):
    base = revision_of(run_of("detect"))
    curve = base.scored["int8"].tables["confidence_curve"]
    tables = {**base.scored["int8"].tables, "confidence_curve": curve.assign(f1=curve["f1"] - 0.1)}
    curves_picture(base, with_scored(base, "int8", tables=tables), "int8")
    _, same, _, lower = drawn[0].axes
    assert same.get_ylim() == (-0.02, 0.02)
    assert lower.get_ylim() == pytest.approx((-0.115, 0.115))
    heights = np.concatenate([path.vertices[:, 1] for part in lower.collections for path in part.get_paths()])
    assert heights.min() == pytest.approx(-0.1)
    assert heights.max() == pytest.approx(0)


def test_the_class_that_changed_most_is_named(drawn):
    base = revision_of(run_of("detect"))
    curves = base.scored["int8"].tables["pr_curve"]
    worse = curves.assign(precision=np.where(curves["class"] == "dog", 0.2, curves["precision"]))
    head = with_scored(base, "int8", tables={**base.scored["int8"].tables, "pr_curve": worse})
    curves_picture(base, dataclasses.replace(head, name="x"), "int8")
    assert "dog, main" in texts_of(drawn[0])
    assert "dog, x" in texts_of(drawn[0])
    curves_picture(base, base, "int8")
    assert "dog" not in texts_of(drawn[1])


def test_an_artifact_of_one_revision_is_drawn_alone(drawn):
    base, head = two_revisions("detect")
    alone = dataclasses.replace(base, scored={"weights": base.scored["weights"]})
    curves_picture(alone, head, "int8")
    told = texts_of(drawn[0])
    assert "feature/x alone" in told
    assert told.count("one revision alone") == 2


def test_curves_without_anything_to_find_say_so(drawn):
    base = revision_of(run_of("detect"))
    tables = dict(base.scored["int8"].tables)
    tables["pr_curve"] = tables["pr_curve"].iloc[:0]
    tables["confidence_curve"] = tables["confidence_curve"].assign(precision=np.nan, recall=np.nan, f1=np.nan)
    empty = with_scored(base, "int8", tables=tables)
    curves_picture(empty, empty, "int8")
    assert "No class has anything to find." in texts_of(drawn[0])
    assert "Nothing to find, and nothing found." in texts_of(drawn[0])
    curves_picture(empty, base, "int8")  # one of the two has


# --- confusion matrix


def pairs(**counts):
    rows = [key.split("_") for key, count in counts.items() for _ in range(count)]
    return pd.DataFrame(rows, columns=["actual", "predicted"])


def cell(found, actual, predicted):
    return found.difference[found.names.index(actual), found.names.index(predicted)]


def test_the_difference_is_of_counts_where_as_many_objects_were_scored():
    base = pairs(cat_cat=8, cat_dog=2, dog_dog=5, background_dog=3)
    head = pairs(cat_cat=6, cat_dog=3, cat_background=1, dog_dog=5, background_dog=7)
    found = confusion_difference(base, head, ["cat", "dog"], ["cat", "dog"])
    assert found.names == ("cat", "dog", "background")
    assert found.difference.tolist() == [[-2, 1, 1], [0, 0, 0], [0, 4, 0]]
    assert not found.is_scaled.any()


def test_a_row_with_other_objects_is_held_against_the_bases_share():
    found = confusion_difference(pairs(cat_cat=8, cat_dog=2), pairs(cat_cat=18, cat_dog=2), ["cat"], ["cat"])
    assert found.is_scaled.tolist() == [True, False]
    assert found.totals[0].tolist() == [10, 20]
    assert found.difference[0].tolist() == [2, -2]


def test_false_alarms_and_new_classes_are_as_counted():
    base = pairs(cat_cat=2, horse_cat=3, background_cat=4)
    head = pairs(cat_cat=2, dog_dog=5, background_cat=1)
    found = confusion_difference(base, head, ["horse", "cat"], ["cat", "dog"])
    assert found.names == ("cat", "dog", "horse", "background")
    assert found.num_classes == 3
    assert (cell(found, "dog", "dog"), cell(found, "horse", "cat"), cell(found, "background", "cat")) == (5, -3, -3)
    assert not found.is_scaled.any()


def confused(base, before, after, names=("cat", "dog", "cow")):
    """The revision with these pairs, and another with those."""
    sides = []
    for name, table in (("main", before), ("x", after)):
        classes = pd.DataFrame({"class": list(names)})
        side = with_scored(base, "int8", tables={"confusion": table, "classes": classes})
        sides.append(dataclasses.replace(side, name=name))
    return sides


def test_better_and_worse_cells_have_their_colors_and_numbers(drawn):
    base = revision_of(run_of("detect"))
    confusion_picture(*confused(base, pairs(cat_cat=5, dog_cat=4, dog_dog=6), pairs(cat_cat=4, cat_dog=1, dog_dog=10)),
                      "int8")  # fmt: skip
    axes = drawn[0].axes[0]
    good = np.sign(axes.images[0].get_array().data)
    assert good.tolist() == [[-1, -1, 0], [1, 1, 0], [0, 0, 0]]
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "\N{MINUS SIGN}1", (1, 0): "+1", (0, 1): "\N{MINUS SIGN}4", (1, 1): "+4"}
    assert "+3 right, \N{MINUS SIGN}3 wrong" in texts_of(drawn[0])


def test_other_numbers_of_objects_and_images_are_noted(drawn):
    base = revision_of(run_of("detect"))
    before, after = confused(base, pairs(cat_cat=5, cat_dog=5), pairs(cat_cat=9, cat_dog=11, background_cat=1))
    fewer = dataclasses.replace(before, run=dataclasses.replace(before.run, images=before.run.images.iloc[:7]))
    confusion_picture(fewer, after, "int8")
    told = texts_of(drawn[0])
    assert "cat* 10→20" in told
    assert "* another number of objects than in the base" in told
    assert "The base scored 7 images, the head 12" in told


def test_of_many_classes_the_most_changed_are_shown(drawn):
    names = [f"c{number}" for number in range(60)]
    base = revision_of(run_of("detect"))
    before = pd.DataFrame({"actual": names * 3, "predicted": names * 3})
    after = before.copy()
    after.loc[[7, 23], "predicted"] = ["c31", "c31"]
    confusion_picture(*confused(base, before, after, names), "int8")
    labels = [text.get_text() for text in drawn[0].axes[0].get_yticklabels()]
    assert len(labels) == picture_confusion.MOST_CLASSES
    assert {"c7", "c23", "c31"} <= set(labels)
    assert "the 40 of 60 names that changed most" in texts_of(drawn[0])


def test_the_same_matrix_says_that_it_is(drawn):
    base = revision_of(run_of("classify"))
    confusion_picture(base, base, "int8")
    assert "every cell of the confusion matrix is the same" in texts_of(drawn[0])


# --- latency


def measured(**latency):
    """A revision with artifacts of these latencies."""
    run = run_of("detect")
    weights = run.predictions["weights"]
    predictions = {"weights": weights, **dict.fromkeys(latency, weights)}
    return revision_of(dataclasses.replace(run, predictions=predictions), latency=latency)


def arrows(axes):
    return [text for text in axes.texts if getattr(text, "arrow_patch", None) is not None]


def test_each_artifact_moves_from_the_base_to_the_head(drawn):
    base, head = measured(a=5.0, b=8.0, old=3.0), dataclasses.replace(measured(a=4.0, b=9.0, new=2.0), name="x")
    found = {move.name: move for move in moves(base, head, "map50_95")}
    score = base.scored["a"].metrics["map50_95"]
    assert list(found) == ["a", "b", "new", "old"]
    assert (found["a"].base, found["a"].head) == ((5.0, score), (4.0, score))
    assert (found["new"].title, found["old"].title) == ("new (new)", "old (gone)")
    latency_picture(base, head)
    axes = drawn[0].axes[0]
    assert [(arrow.xyann, arrow.xy) for arrow in arrows(axes)] == [
        ((5.0, score), (4.0, score)),
        ((8.0, score), (9.0, score)),
    ]
    assert {"a", "b", "new (new)", "old (gone)"} <= {text.get_text() for text in axes.texts}
    assert axes.get_xscale() == "linear"
    told = texts_of(drawn[0])
    assert "trained weights, main" in told
    assert "trained weights, x" in told


def test_names_do_not_cover_each_other(drawn):
    names = [f"backend{number}-int8" for number in range(8)]
    base = measured(**{name: 5.0 + 0.01 * number for number, name in enumerate(names)})
    latency_picture(base, measured(**{name: 5.2 + 0.01 * number for number, name in enumerate(names)}))
    axes = drawn[0].axes[0]
    boxes = [text.get_window_extent() for text in axes.texts if text.get_text() in names]
    assert len(boxes) == len(names)
    frame = axes.get_window_extent()
    for number, box in enumerate(boxes):
        assert frame.x0 <= box.x0 < box.x1 <= frame.x1
        assert not any(box.overlaps(other) for other in boxes[:number])


def test_a_wide_range_has_a_logarithmic_axis(drawn):
    latency_picture(measured(a=1.0), measured(a=80.0))
    assert drawn[0].axes[0].get_xscale() == "log"
    assert "logarithmic" in texts_of(drawn[0])


def test_on_other_machines_there_is_no_arrow_and_the_title_says_why(drawn):
    base, head = measured(a=5.0, b=8.0), measured(a=4.0, b=8.0)
    head = with_scored(head, "a", machine={**MACHINE, "cpu_model": "B"})
    latency_picture(base, head)
    axes = drawn[0].axes[0]
    assert len(arrows(axes)) == 1
    assert "the machines differ" in axes.get_title(loc="left")
    assert "cpu_model: A, here B" in texts_of(drawn[0])


@pytest.mark.parametrize("device", [{}, {"latency_ms_p50": 4.0, "valid": 0}, {"valid": 1, "measured": 0}])
def test_what_was_not_measured_is_named_and_not_drawn(drawn, device):
    base, head = measured(a=5.0, b=8.0), measured(a=4.0, b=8.0)
    both = [with_scored(side, "b", device=device) for side in (base, head)]
    assert [move.name for move in moves(*both, "map50_95")] == ["a"]
    latency_picture(*both)
    assert "Not measured, INVALID, or without a score: b." in texts_of(drawn[0])


def test_with_nothing_measured_the_picture_says_so(drawn):
    latency_picture(measured(), measured())
    assert "No artifact of main or main has a valid latency" in texts_of(drawn[0])
