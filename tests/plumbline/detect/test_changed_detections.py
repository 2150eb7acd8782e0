"""What a detector newly misses and invents, against boxes made by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scored_runs import run_of, shuffled
from small_reviews import images_in, no_image, revision_of

from plumbline.detect.reviewing.changed import COLUMNS, changed_detections, changed_sheet
from plumbline.detect.scoring import truth_of
from plumbline.detect.scoring.worst import FALSE_ALARM, MISSED
from plumbline.errors import EvaluationError
from plumbline.review.picture_images import shared_images

XYXY = ["x1", "y1", "x2", "y2"]
A, B, C = (0, 0, 20, 20), (40, 0, 60, 20), (0, 30, 20, 50)


def labels(*rows):
    """(image_id, class_id, box[, difficult])."""
    filled = [(*row, False)[:4] for row in rows]
    return pd.DataFrame(
        [(image, name, *map(float, box), difficult) for image, name, box, difficult in filled],
        columns=["image_id", "class_id", *XYXY, "difficult"],
    ).astype({"image_id": np.int64, "class_id": np.int64})


def found(*rows):
    """(image_id, class_id, box, confidence)."""
    return pd.DataFrame(
        [(image, name, *map(float, box), confidence) for image, name, box, confidence in rows],
        columns=["image_id", "class_id", *XYXY, "confidence"],
    ).astype({"image_id": np.int64, "class_id": np.int64, "confidence": np.float32})


def moved(box, by):
    return (box[0] + by, box[1], box[2] + by, box[3])


def changed(truth, base, head, images=(0, 1, 2), base_threshold=0.5, head_threshold=0.5, difficult="count"):
    rows = changed_detections(
        truth, base, head, list(images), base_threshold=base_threshold, head_threshold=head_threshold,
        difficult=difficult,
    )  # fmt: skip
    assert rows.columns.tolist() == COLUMNS
    return rows


def kinds(rows):
    return list(zip(rows["image_id"], rows["change"], rows["class_id"], strict=True))


def test_an_object_that_the_base_found_and_the_head_does_not_is_missed():
    rows = changed(labels((0, 1, A), (0, 1, B)), found((0, 1, A, 0.9), (0, 1, B, 0.9)), found((0, 1, B, 0.9)))
    assert kinds(rows) == [(0, "missed", 1)]
    assert rows.loc[0, [*XYXY, "after", "badness"]].tolist() == [0, 0, 20, 20, 0, 1]
    assert rows.loc[0, "before"] == pytest.approx(0.9)


def test_an_object_still_seen_below_the_threshold_is_missed_and_weighs_less():
    rows = changed(labels((0, 1, A)), found((0, 1, A, 0.9)), found((0, 1, A, 0.4)))
    assert kinds(rows) == [(0, "missed", 1)]
    assert rows.loc[0, ["after", "badness"]].tolist() == pytest.approx([0.4, 0.6])


def test_each_side_is_judged_at_its_own_threshold():
    truth, both = labels((0, 1, A)), found((0, 1, A, 0.55), (0, 1, B, 0.55))
    assert kinds(changed(truth, both, both, head_threshold=0.6)) == [(0, "missed", 1), (0, "no longer invented", 1)]
    assert kinds(changed(truth, both, both, base_threshold=0.6)) == [(0, "invented", 1), (0, "found", 1)]
    assert changed(truth, both, both).empty


def test_an_invention_of_both_is_none_of_the_head():
    # 20 x 20 moved by 6 has an IoU of 14/26 with the other, by 8 one of 12/28.
    assert changed(labels(), found((0, 1, B, 0.9)), found((0, 1, moved(B, 6), 0.7))).empty
    rows = changed(labels(), found((0, 1, B, 0.9)), found((0, 1, moved(B, 8), 0.7)))
    assert kinds(rows) == [(0, "invented", 1), (0, "no longer invented", 1)]
    rows = changed(labels(), found((0, 1, B, 0.9)), found((0, 2, B, 0.7)))
    assert kinds(rows) == [(0, "invented", 2), (0, "no longer invented", 1)]
    rows = changed(labels(), found((0, 1, B, 0.9)), found((1, 1, B, 0.7)))
    assert kinds(rows) == [(1, "invented", 1), (0, "no longer invented", 1)]


def test_a_second_invention_in_the_place_of_one_is_new():
    rows = changed(labels(), found((0, 1, B, 0.9)), found((0, 1, B, 0.9), (0, 1, moved(B, 1), 0.8)))
    assert kinds(rows) == [(0, "invented", 1)]


def test_a_second_detection_of_a_found_object_is_invented():
    rows = changed(labels((0, 1, A)), found((0, 1, A, 0.9)), found((0, 1, A, 0.9), (0, 1, moved(A, 1), 0.8)))
    assert kinds(rows) == [(0, "invented", 1)]


def test_another_class_in_the_place_of_an_object_is_missed_and_invented():
    rows = changed(labels((0, 1, A)), found((0, 1, A, 0.9)), found((0, 2, A, 0.8)))
    assert kinds(rows) == [(0, "missed", 1), (0, "invented", 2)]
    assert rows["label_class_id"].tolist() == [1, 1]
    assert rows["badness"].tolist() == pytest.approx([1, 0.8])


def test_an_object_missed_or_found_by_both_is_no_change():
    truth = labels((0, 1, A), (0, 1, B))
    assert changed(truth, found((0, 1, A, 0.9)), found((0, 1, moved(A, 2), 0.6))).empty


def test_a_difficult_object_is_neither_where_it_is_ignored():
    truth, base, none = labels((0, 1, A, True)), found((0, 1, A, 0.9)), found()
    assert kinds(changed(truth, base, none)) == [(0, "missed", 1)]
    assert changed(truth, base, none, difficult="ignore").empty
    assert changed(truth, none, base, difficult="ignore").empty


def test_only_the_images_asked_for_are_looked_at():
    truth, base = labels((0, 1, A), (1, 1, A)), found((0, 1, A, 0.9), (1, 1, A, 0.9))
    assert kinds(changed(truth, base, found(), images=[1])) == [(1, "missed", 1)]


def test_the_worst_image_comes_first_and_in_it_the_worst_row():
    truth = labels((0, 1, A), (1, 1, A), (1, 1, B), (2, 1, A))
    base = found((0, 1, A, 0.9), (1, 1, A, 0.9), (1, 1, B, 0.9))
    head = found((0, 1, A, 0.3), (1, 1, B, 0.2), (2, 1, A, 0.9))
    rows = changed(truth, base, head)
    assert kinds(rows) == [(1, "missed", 1), (1, "missed", 1), (0, "missed", 1), (2, "found", 1)]
    assert rows["badness"].tolist() == pytest.approx([1, 0.8, 0.7, 0])


@pytest.mark.parametrize("seed", range(3))
def test_the_other_way_round_gives_the_opposite(seed):
    one, other = run_of("detect", 1 + seed), run_of("detect", 5 + seed)
    truth, ids = truth_of(one.data, one.images), one.images["image_id"].tolist()
    rows = changed(truth, one.predictions["int8"], other.predictions["int8"], ids)
    back = changed(truth, other.predictions["int8"], one.predictions["int8"], ids)
    opposite = {"missed": "found", "found": "missed", "invented": "no longer invented"}
    opposite |= {value: key for key, value in opposite.items()}
    assert {"missed", "found"} & set(rows["change"])
    key = ["image_id", "change", "class_id", *XYXY]
    expected = back.assign(change=back["change"].map(opposite))[key].sort_values(key, ignore_index=True)
    pd.testing.assert_frame_equal(rows[key].sort_values(key, ignore_index=True), expected)


def test_images_and_classes_that_are_numbered_otherwise_are_the_same():
    base, head = run_of("detect", 0), run_of("detect", 2)
    other = shuffled(base, images=[3, 1, 0, 2, *range(4, 12)], classes=[2, 0, 1], extra=2)
    sides = [shared_images(revision_of(one), revision_of(head), "int8") for one in (base, other)]
    truth = truth_of(head.data, head.images)
    rows = [changed(truth, side.base, side.head, side.images["image_id"], 0.4, 0.4) for side in sides]
    assert len(rows[0])
    pd.testing.assert_frame_equal(*rows)


def test_a_class_that_only_the_base_has_keeps_its_name():
    base, head = revision_of(run_of("detect", 0)), revision_of(run_of("detect", 2))
    data = dataclasses.replace(base.run.data, class_names=("cat", "horse", "cow"))
    shared = shared_images(dataclasses.replace(base, run=dataclasses.replace(base.run, data=data)), head, "int8")
    assert shared.class_names == ("cat", "dog", "cow", "horse")
    assert set(shared.base["class_id"]) == {0, 2, 3}


def one_image(folder, image_file=None):
    """A base that finds the one object of an image, and a head that sees something else elsewhere."""
    run = run_of("detect", num_images=1)
    annotations = run.data.annotations.iloc[:1].assign(x1=10.0, y1=10.0, x2=30.0, y2=30.0, class_id=0)
    data = dataclasses.replace(run.data, annotations=annotations)
    sides = []
    for name, row in (("main", (0, 0, (10, 10, 30, 30), 0.9)), ("x", (0, 1, (60, 10, 90, 40), 0.9))):
        one = dataclasses.replace(run, data=data, predictions={"int8": found(row)})
        sides.append(revision_of(one, name, image_file=image_file or images_in(folder, run.images)))
    return sides


def has_color(image, color):
    # Letters have some pixels of any grey.
    return bool((image == np.array(color, np.uint8)).all(axis=2).sum() > 50)


def test_the_sheet_draws_what_is_missed_and_invented(tmp_path):
    base, head = one_image(tmp_path)
    sheet = changed_sheet(base, head, "int8", 9)
    tile = sheet[90:]  # below title and legend
    assert has_color(tile, (120, 120, 120))
    assert has_color(tile, MISSED)
    assert has_color(tile, FALSE_ALARM)
    unchanged = changed_sheet(base, base, "int8", 9)
    assert unchanged.shape[0] < 200
    assert not has_color(unchanged, MISSED)


def test_an_image_that_is_not_to_be_had_is_said_on_its_tile(tmp_path):
    sheet = changed_sheet(*one_image(tmp_path, no_image), "int8", 9)
    assert not has_color(sheet[90:], (120, 120, 120))
    # The caption has two lines more: why.
    assert sheet.shape[0] > changed_sheet(*one_image(tmp_path), "int8", 9).shape[0]


def test_at_most_so_many_images_are_on_the_sheet(tmp_path):
    base, head = run_of("detect", 0), run_of("detect", 2)
    head.predictions["int8"].drop(index=head.predictions["int8"].index, inplace=True)
    files = images_in(tmp_path, base.images)
    sides = revision_of(base, image_file=files), revision_of(head, image_file=files)
    few, many = (changed_sheet(*sides, "int8", most) for most in (3, 6))
    assert many.shape[0] > few.shape[0] + 250
    assert many.shape[1] == few.shape[1]


def test_without_the_artifact_or_a_common_image_there_is_no_sheet():
    base, head = revision_of(run_of("detect"), "main"), revision_of(run_of("detect"), "x")
    with pytest.raises(EvaluationError, match="main has no predictions of fp16"):
        changed_sheet(base, dataclasses.replace(head, run=dataclasses.replace(head.run, predictions={
            **head.run.predictions, "fp16": head.run.predictions["int8"]})), "fp16", 9)  # fmt: skip
    others = head.run.images.assign(sha256="other")
    with pytest.raises(EvaluationError, match="no image in common"):
        changed_sheet(base, dataclasses.replace(head, run=dataclasses.replace(head.run, images=others)), "int8", 9)
    with pytest.raises(EvaluationError, match="the task of main is classify, expected detect"):
        changed_sheet(revision_of(run_of("classify"), "main"), head, "int8", 9)
