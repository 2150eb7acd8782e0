"""A repair does one safe thing, says what was there before, can be refused by its id, and can be taken back exactly."""

import io
import json

import numpy as np
import pandas as pd
import pytest
from dataset_rows import NAN4, box, dataset, found, image, settings_with
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline.checks import judge
from plumbline.checks.repairs import EDIT_COLUMNS, REPAIRS, apply_edits, undo_edits
from plumbline.checks.view import XYXY
from plumbline.errors import DatasetError
from plumbline.faults import FAULTS
from plumbline.manifest import ANNOTATIONS_SCHEMA, IMAGES_SCHEMA, Dataset, read_dataset, write_dataset

ALL = tuple(REPAIRS)


def judged(boxes, **values):
    return judge(dataset(boxes=boxes), settings_with(**{"fix": ALL, **values}))


def corners_of(result, ann_id):
    return result.dataset.annotations.set_index("ann_id").loc[ann_id, XYXY].tolist()


def actions(result):
    return result.edits[["action", "ann_id"]].to_numpy().tolist()


@pytest.mark.parametrize("xyxy", [(20, 10, 10, 30), (10, 30, 20, 10), (20, 30, 10, 10)])
def test_reversed_corners_are_swapped(xyxy):
    result = judged([box(0, xyxy)])
    assert corners_of(result, 0) == [10, 10, 20, 30]
    assert result.findings[["code", "severity", "ann_id"]].to_numpy().tolist() == [["E302", "fixed", 0]]
    (edit,) = result.edits.to_dict("records")
    assert list(edit) == EDIT_COLUMNS
    assert (edit["action"], edit["code"], edit["image"]) == ("swap_corners", "E302", "images/0.jpg")
    assert json.loads(edit["before"]) == list(xyxy)
    assert json.loads(edit["after"]) == [10, 10, 20, 30]


@pytest.mark.parametrize(
    ("xyxy", "after"),
    [
        ((-1, 0, 10, 10), (0, 0, 10, 10)),
        ((-0.5, -0.25, 100.75, 51), (0, 0, 100, 50)),
        ((-1.01, 0, 10, 10), None),
        ((90, 0, 101.5, 10), None),
        ((90, 0, np.inf, 10), None),
        ((100, 0, 100.5, 10), None),  # clipping would leave nothing
        ((-0.9, 0, 0, 10), None),
        ((-0.5, 0, 0.5, 30), (0, 0, 0.5, 30)),  # a sliver is something, and is then tiny
    ],
)
def test_a_box_is_clipped_within_clip_px_and_never_to_nothing(xyxy, after):
    result = judged([box(0, xyxy)], E303="warning", E304="off", E305="off")
    if after is None:
        assert result.findings[["code", "severity"]].to_numpy().tolist() == [["E303", "warning"]]
        assert actions(result) == [["leave_out_box", 0]]
    else:
        assert result.findings[["code", "severity"]].to_numpy().tolist() == [["E303", "fixed"]]
        assert actions(result) == [["clip_box", 0]]
        assert corners_of(result, 0) == list(after)


def test_a_box_on_an_unreadable_image_is_not_clipped():
    data = dataset([image(0), image(1, readable=False, width=0, height=0)], [box(0, (-1, 0, 10, 10), image_id=1)])
    assert "clip_box" not in judge(data, settings_with(fix=ALL)).edits["action"].tolist()


def test_repeats_are_dropped_also_where_swapping_and_clipping_made_them_equal():
    boxes = [box(0, (0, 0, 9, 9)), box(1, (-0.5, 0, 9, 9)), box(2, (9, 9, 0, 0)), box(3, (19, 9, -0.5, 0))]
    result = judged(boxes)
    assert actions(result) == [
        ["clip_box", 1], ["drop_duplicate", 1], ["swap_corners", 2], ["drop_duplicate", 2],
        ["swap_corners", 3], ["clip_box", 3],
    ]  # fmt: skip
    assert corners_of(result, 0) == [0, 0, 9, 9]
    assert corners_of(result, 3) == [0, 0, 19, 9]
    assert set(result.findings["severity"]) == {"fixed"}


def test_only_what_fix_names_is_repaired():
    boxes = [box(0, (20, 10, 10, 30)), box(1, (-1, 0, 10, 10)), box(2), box(3)]
    kinds = {"E302": [["swap_corners", 0]], "E303": [["clip_box", 1]], "E307": [["drop_duplicate", 3]]}
    for code, expected in kinds.items():
        result = judged(boxes, fix=(code,))
        assert [row for row in actions(result) if not row[0].startswith("leave_out")] == expected
        assert sorted(result.errors["code"]) == sorted(set(kinds) - {code})
    assert judged(boxes, fix=(), **dict.fromkeys(FAULTS, "off")).findings.empty


def test_a_repair_of_what_is_off_is_recorded_and_not_told():
    result = judged([box(0, (-1, 0, 10, 10))], E303="off")
    assert result.findings.empty
    assert actions(result) == [["clip_box", 0]]


def test_an_undone_repair_is_not_made_and_its_finding_keeps_its_severity():
    boxes = [box(0, (-1, 0, 10, 10)), box(1, (-1, 20, 10, 30)), box(2), box(3)]
    first = judged(boxes)
    by_ann = first.edits.set_index("ann_id")["edit_id"]
    second = judged(boxes, undo=(by_ann[0], by_ann[3]))
    assert second.errors[["code", "ann_id"]].to_numpy().tolist() == [["E303", 0], ["E307", 3]]
    assert second.findings["severity"].tolist() == ["error", "error", "fixed"]
    # What cannot be kept is left out where it does not stop.
    lenient = judged(boxes, undo=(by_ann[0],), E303="warning")
    assert actions(lenient) == [["leave_out_box", 0], ["clip_box", 1], ["drop_duplicate", 3]]


def test_one_of_three_repeats_can_be_undone():
    boxes = [box(n, source_line=1) for n in range(3)]
    ids = judged(boxes).edits["edit_id"].tolist()
    assert len(set(ids)) == 2
    assert actions(judged(boxes, undo=(ids[1],), E307="off")) == [["drop_duplicate", 1], ["leave_out_box", 2]]


def test_undoing_a_swap_takes_the_clip_that_followed_it_along():
    boxes = [box(0, (10, 10, -1, 30))]
    ids = judged(boxes).edits["edit_id"].tolist()
    assert len(ids) == 2
    for undo in (ids[:1], ids):
        assert judged(boxes, undo=tuple(undo)).errors["code"].tolist() == ["E302"]


def test_an_id_of_no_repair_is_refused():
    left_out = judged([box(0, (5, 5, 5, 9))], E301="warning").edits["edit_id"][0]
    for wrong in ("edit-000000000000", left_out):
        with pytest.raises(DatasetError, match=rf"validate.undo: no repair has the id '{wrong}', expected an edit_id"):
            judged([box(0, (5, 5, 5, 9)), box(1, (-1, 0, 10, 10))], undo=(wrong,))


def test_an_edit_keeps_its_id_when_images_and_boxes_are_added():
    before = judged([box(0, (-1, 0, 10, 10)), box(1), box(2)]).edits
    images = [image(0, path="images/new.jpg"), image(1, path="images/0.jpg"), image(2, path="images/1.jpg")]
    moved = [
        box(5, (3, 3, 8, 8), image_id=1, source_file="in/0.xml"),
        box(6, (-1, 0, 10, 10), image_id=1, source_file="in/0.xml", source_line=10),
        box(7, image_id=1, source_file="in/0.xml", source_line=11),
        box(8, image_id=1, source_file="in/0.xml", source_line=12),
    ]
    after = judge(dataset(images, moved), settings_with(fix=ALL)).edits
    assert before["edit_id"].tolist() == after["edit_id"].tolist()
    assert len(after) == 2
    # YAML would read twelve digits, or digits around an e, as a number.
    assert before["edit_id"].str.fullmatch("edit-[0-9a-f]{12}").all()


def test_an_edit_keeps_its_id_when_lines_are_added_before_it_and_the_source_stands_elsewhere():
    rows = [(0, (-1, 0, 10, 10)), (1, (60, 5, 50, 9)), (2, (10, 10, 20, 20)), (3, (10, 10, 20, 20))]
    before = judged([box(n, xyxy, source_file="a/0.txt", source_line=n + 1) for n, xyxy in rows]).edits
    after = judged([box(n, xyxy, source_file="/b/0.txt", source_line=n + 5) for n, xyxy in rows]).edits
    assert len(before) == 3
    assert before["edit_id"].tolist() == after["edit_id"].tolist()


def assert_same(left, right):
    pd.testing.assert_frame_equal(left.images, right.images, check_exact=True)
    pd.testing.assert_frame_equal(left.annotations, right.annotations, check_exact=True)


NUMBER = st.one_of(st.integers(-3, 104), st.floats(-3, 104))
ROW = st.tuples(NUMBER, NUMBER, NUMBER, NUMBER, st.integers(0, 3), st.integers(-1, 1), st.integers(0, 2))
POLYGONS = (None, [[1.5, 2.0, 3.0, 4.0, 0.1, 0.2]], [[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [1.0] * 6])


@settings(max_examples=40, deadline=None)
@given(
    st.lists(ROW, max_size=10),
    st.lists(st.integers(0, 9), max_size=4),
    st.sets(st.integers(0, 3)),
    st.sets(st.sampled_from(ALL)),
)
def test_what_is_applied_and_undone_is_as_before(rows, repeated, unreadable, fix):
    rows = [*rows, *(rows[n] for n in repeated if n < len(rows))]
    images = [image(i, readable=i not in unreadable, brightness=float("nan") if i == 1 else i / 7) for i in range(4)]
    boxes = [
        box(
            n, r[:4] if r[6] else NAN4, image_id=r[4], class_id=r[5], polygon=POLYGONS[r[6]], rle='{"é": "\\n,"}' * r[6]
        )
        for n, r in enumerate(rows)
    ]
    data = dataset(images, boxes)
    result = judge(data, settings_with(**dict.fromkeys(FAULTS, "warning"), fix=tuple(fix), clip_px=3.0))
    assert_same(apply_edits(data, result.edits), result.dataset)
    # As a reviewer has it, the table has been to disk.
    text = result.edits.to_csv(index=False)
    edits = pd.read_csv(io.StringIO(text), keep_default_na=False)
    assert_same(undo_edits(result.dataset, edits), data)


def test_everything_left_out_comes_back_even_where_nothing_is_left():
    data = dataset([image(0, readable=False)], [])
    result = judge(data, settings_with(**dict.fromkeys(FAULTS, "warning")))
    assert result.dataset.images.empty
    assert result.dataset.annotations.empty
    assert_same(undo_edits(result.dataset, result.edits), data)


def test_edits_fit_tables_that_were_written_and_read(tmp_path):
    data = dataset(boxes=[box(0, (20, 10, 10, 30), polygon=POLYGONS[2]), box(1, (5, 5, 5, 9), polygon=POLYGONS[1])])
    write_dataset(data, tmp_path)
    result = judge(read_dataset(tmp_path), settings_with(**dict.fromkeys(FAULTS, "warning"), fix=ALL))
    write_dataset(result.dataset, tmp_path)
    restored = undo_edits(read_dataset(tmp_path), result.edits)
    assert list(restored.annotations) == ANNOTATIONS_SCHEMA.names
    assert list(restored.images) == IMAGES_SCHEMA.names
    assert_same(restored, data)


def test_a_repair_changes_no_table_that_it_is_given():
    data = dataset(boxes=[box(0, (20, 10, 10, 30)), box(1, (-1, 0, 10, 10)), box(2), box(3)])
    images, boxes = data.images.copy(deep=True), data.annotations.copy(deep=True)
    result = judge(data, settings_with(fix=ALL))
    result.dataset.annotations.loc[:, "x1"] = -7.0
    assert_same(data, Dataset(images, boxes, data.findings, data.class_names, data.root))


def test_found_after_a_repair_is_what_is_left():
    # The sliver that clipping leaves is tiny; the swapped box is out of bounds by more than clip_px.
    data = dataset(boxes=[box(0, (-0.5, 0, 0.5, 30)), box(1, (40, 10, -9, 20))])
    assert found(data, fix=ALL) == [("E302", 1), ("E303", 0), ("E303", 1), ("E304", 0)]
