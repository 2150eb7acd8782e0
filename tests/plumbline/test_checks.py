"""Each check finds its fault and nothing else; the gate leaves nothing out without a row in the edits."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline.checks import CHECKS, EDIT_COLUMNS, NEW_XYXY, XYXY, error_line, finding_line, judge
from plumbline.errors import DatasetError
from plumbline.manifest import ANNOTATIONS_SCHEMA, FINDINGS_SCHEMA, IMAGES_SCHEMA, Dataset, table

CLASS_NAMES = ("RBC", "WBC")
ALL_ERRORS = dict.fromkeys(CHECKS, "error")
STRICTEST_DROP = {code: "drop" if "drop" in check.severities else "warning" for code, check in CHECKS.items()}


def image(image_id, **values):
    row = {
        "image_id": image_id, "path": f"images/{image_id}.jpg", "sha256": f"sha{image_id}", "width": 100, "height": 50,
        "phash": image_id, "group": "", "source": f"in/{image_id}.jpg", "readable": True, "brightness": 1.0,
        "contrast": 1.0, "sharpness": 1.0,
    }  # fmt: skip
    return row | values


def box(ann_id, xyxy=(10, 10, 20, 20), image_id=0, class_id=0, **values):
    row = {
        "image_id": image_id, "ann_id": ann_id, "class_id": class_id, "class_name": (*CLASS_NAMES, "?")[class_id],
        "difficult": False, "truncated": False, "polygon": None, "source_file": f"in/{image_id}.xml",
        "source_line": 10 + ann_id, **dict(zip(XYXY, map(float, xyxy), strict=True)),
    }  # fmt: skip
    return row | values


def finding(code, **values):
    row = {"code": code, "severity": "", "source_file": "in/0.xml", "source_line": 3, "message": "m", "image_id": 0}
    return {**row, "ann_id": -1, **values}


def dataset(images=None, boxes=(), findings=()):
    # One good box of each class, so that no class is empty.
    good = [box(90, (1, 1, 9, 9)), box(91, (1, 1, 9, 9), class_id=1)]
    return Dataset(
        table(list(images if images is not None else [image(0), image(1)]), IMAGES_SCHEMA),
        table([*boxes, *good], ANNOTATIONS_SCHEMA),
        table(list(findings), FINDINGS_SCHEMA),
        CLASS_NAMES,
        Path("data/dataset"),
    )


def judged(data, tolerance_px=1.0, **severity):
    return judge(data, ALL_ERRORS | severity, tolerance_px)


def codes(data, tolerance_px=1.0):
    return [(row.code, row.ann_id) for row in judged(data, tolerance_px).findings.itertuples()]


def test_a_good_dataset_has_no_finding_and_no_edit():
    result = judged(dataset(boxes=[box(0)]))
    assert result.findings.empty
    assert result.edits.empty
    assert list(result.edits) == EDIT_COLUMNS
    pd.testing.assert_frame_equal(result.dataset.annotations, dataset(boxes=[box(0)]).annotations)


@pytest.mark.parametrize(
    "xyxy",
    [(10, 10, 10, 20), (10, 10, 20, 10), (5, 5, 5, 5), (20, 10, 10, 20), (10, 20, 20, 10), (np.nan, 1, 2, 3)],
)
def test_a_box_without_area_is_found(xyxy):
    assert codes(dataset(boxes=[box(0, xyxy)])) == [("zero_area_box", 0)]


def test_the_line_of_a_finding_says_what_was_expected_and_what_to_do():
    result = judged(dataset(boxes=[box(7, (504, 337, 504, 337))]))
    (row,) = result.errors.itertuples()
    assert finding_line(row) == (
        "in/0.xml:17: box has no area, expected x1 < x2 and y1 < y2, got (x1, y1, x2, y2) = (504, 337, 504, 337)"
    )
    assert error_line(row) == (
        finding_line(row) + "; fix the label, or set validate.severity.zero_area_box: drop in params.yaml"
    )


@pytest.mark.parametrize(
    ("xyxy", "found"),
    [
        ((0, 0, 100, 50), False),
        ((-1, 0, 10, 10), False),
        ((-1.01, 0, 10, 10), True),
        ((0, -2, 10, 10), True),
        ((90, 0, 101, 10), False),
        ((90, 0, 101.5, 10), True),
        ((90, 0, 95, 51.5), True),
        ((90, 0, np.inf, 10), True),
        ((200, 200, 210, 210), True),
        ((100, 0, 101, 10), True),  # within the tolerance, but wholly outside: clipping would leave nothing
        ((-1, 0, 0, 10), True),
    ],
)
def test_a_box_outside_its_image_is_found(xyxy, found):
    assert codes(dataset(boxes=[box(0, xyxy)])) == ([("box_outside_image", 0)] if found else [])


def test_a_box_of_an_unreadable_image_is_not_compared_with_it():
    data = dataset([image(0), image(1, readable=False, width=0, height=0)], [box(0, image_id=1)])
    result = judged(data, unreadable_image="drop")
    assert [row.code for row in result.findings.itertuples()] == ["unreadable_image"]
    assert result.findings["source_file"][0] == "in/1.jpg"


@pytest.mark.parametrize(("class_id", "name"), [(-1, "rcb"), (2, "2")])
def test_an_unknown_class_is_found_and_the_known_ones_named(class_id, name):
    result = judged(dataset(boxes=[box(0, class_id=-1) | {"class_id": class_id, "class_name": name}]))
    (row,) = result.errors.itertuples()
    assert row.code == "unknown_class"
    assert row.message.startswith(f"unknown class, expected one of: RBC, WBC, got {name!r}")
    assert row.message.endswith("(did you mean 'RBC'?)") == (name == "rcb")
    assert "add the class to dataset.class_names" in error_line(row)


def test_duplicate_boxes_are_the_second_and_later_ones():
    boxes = [box(0), box(1), box(2, class_id=1), box(3, image_id=1), box(4, (10, 10, 20, 20.5)), box(5)]
    assert codes(dataset(boxes=boxes)) == [("duplicate_box", 1), ("duplicate_box", 5)]


def test_boxes_that_clipping_makes_equal_are_duplicates():
    boxes = [box(0, (0, 0, 9, 9)), box(1, (-0.5, 0, 9, 9))]
    assert codes(dataset(boxes=boxes)) == [("duplicate_box", 1)]
    assert codes(dataset(boxes=boxes), tolerance_px=0.25) == [("box_outside_image", 1)]


def test_two_unknown_classes_at_one_place_are_no_duplicates():
    boxes = [box(0, class_id=-1, class_name="a"), box(1, class_id=-1, class_name="b")]
    assert codes(dataset(boxes=boxes)) == [("unknown_class", 0), ("unknown_class", 1)]


def test_duplicate_images_keep_the_first_path():
    data = dataset(
        [image(0, path="images/z.jpg"), image(1, sha256="sha0"), image(2)],
        [box(0, image_id=1), box(1, class_id=1, image_id=1)],
    )
    result = judged(data, duplicate_image="drop")
    (row,) = result.findings.itertuples()
    assert (row.code, row.image_id, row.source_file) == ("duplicate_image", 0, "in/0.jpg")
    assert result.dataset.images["image_id"].tolist() == [1, 2]
    assert "got the bytes of in/1.jpg" in row.message


def test_unreadable_files_are_not_called_duplicates():
    broken = [image(index, sha256="empty", readable=False) for index in (1, 2)]
    assert [code for code, _ in codes(dataset([image(0), *broken]))] == ["unreadable_image"] * 2


def test_a_class_is_empty_when_its_last_box_is_dropped():
    data = dataset(boxes=[])
    data.annotations.loc[data.annotations["ann_id"] == 91, "x2"] = -5.0
    result = judged(data, zero_area_box="drop", empty_class="warning")
    found = set(zip(result.findings["code"], result.findings["severity"], strict=True))
    assert found == {("zero_area_box", "drop"), ("empty_class", "warning")}
    assert "'WBC'" in result.findings.set_index("code")["message"]["empty_class"]


def test_dropping_an_image_takes_its_boxes_and_records_each():
    data = dataset([image(0), image(1, readable=False)], [box(0, image_id=1), box(1, (5, 5, 5, 5), image_id=1)])
    result = judged(data, unreadable_image="drop", zero_area_box="drop")
    edits = [(row.action, row.code, row.image, row.ann_id) for row in result.edits.itertuples()]
    assert edits == [
        ("drop_image", "unreadable_image", "images/1.jpg", -1),
        ("drop_box", "unreadable_image", "images/1.jpg", 0),
        ("drop_box", "unreadable_image", "images/1.jpg", 1),
    ]
    assert result.dataset.images["image_id"].tolist() == [0]
    assert result.dataset.annotations["ann_id"].tolist() == [90, 91]


def test_a_clip_is_recorded_with_before_and_after_and_changes_a_copy():
    data = dataset(boxes=[box(0, (-0.5, 2, 100.75, 9))])
    before = data.annotations.copy()
    result = judged(data)
    (edit,) = result.edits.to_dict("records")
    assert (edit["action"], edit["code"], edit["ann_id"]) == ("clip_box", "box_tolerance_px", 0)
    assert [edit[key] for key in XYXY] == [-0.5, 2, 100.75, 9]
    assert [edit[key] for key in NEW_XYXY] == [0, 2, 100, 9]
    assert result.dataset.annotations.set_index("ann_id").loc[0, XYXY].tolist() == [0, 2, 100, 9]
    pd.testing.assert_frame_equal(data.annotations, before)


def test_reader_findings_are_judged_too_and_every_malformed_row_is_kept():
    rows = [finding("malformed_label", source_line=line) for line in (4, 3)]
    rows += [finding("missing_image", image_id=-1), finding("missing_label", image_id=1, source_line=0)]
    data = dataset([image(0), image(1), image(2)], findings=rows)
    result = judged(data, malformed_label="drop", missing_image="drop", missing_label="drop")
    dropped = result.findings[result.findings["severity"] == "drop"]
    assert dropped["code"].value_counts().to_dict() == {"malformed_label": 2, "missing_image": 1, "missing_label": 1}
    # The image of a label that cannot be read goes: its objects would be taught as background.
    assert result.edits["action"].value_counts().to_dict() == {"drop_image": 2, "drop_box": 2, "drop_label": 1}
    assert result.dataset.images["image_id"].tolist() == [2]


def test_an_image_has_a_code_once_also_when_the_reader_says_it_too():
    data = dataset([image(0), image(1, readable=False)], findings=[finding("unreadable_image", image_id=1)])
    assert codes(data) == [("unreadable_image", -1)]


def test_a_code_that_nobody_knows_is_refused():
    with pytest.raises(DatasetError, match=r"unknown finding, expected one of: unreadable_image, .*, got typo; run"):
        judged(dataset(findings=[finding("typo")]))


def test_findings_are_sorted_by_file_line_code_and_box():
    boxes = [box(2, (5, 5, 5, 5), source_line=30), box(0, (5, 5, 5, 5), image_id=1)]
    boxes.append(box(1, (5, 5, 5, 5), source_line=4))
    found = judged(dataset(boxes=boxes)).findings
    order = list(zip(found["source_file"], found["source_line"], found["code"], found["ann_id"], strict=True))
    assert order == sorted(order)
    assert len(order) == 4  # box 1 is a duplicate of box 2 too


def test_no_images_and_no_boxes_are_no_fault_of_the_gate():
    data = dataset([])
    empty = Dataset(data.images, data.annotations.iloc[:0], data.findings, CLASS_NAMES, data.root)
    assert [code for code, _ in codes(empty)] == ["empty_class"] * 2


def test_the_readers_own_advice_is_kept_where_it_knows_better():
    def line(code, message):
        return error_line(SimpleNamespace(code=code, source_file="a", source_line=0, message=message))

    way_round = "or set validate.severity.malformed_label: drop in params.yaml"
    assert line("malformed_label", "bad; mend its row") == f"a: bad; mend its row, {way_round}"
    assert line("malformed_label", "bad") == f"a: bad; fix the label, {way_round}"
    assert "kept" not in line("missing_label", "no label; it is kept")


CORNERS = st.integers(-4, 104)
RANDOM_BOX = st.tuples(CORNERS, CORNERS, CORNERS, CORNERS, st.integers(0, 3), st.integers(-1, 1))


@settings(max_examples=50, deadline=None)
@given(st.lists(RANDOM_BOX, max_size=12), st.sampled_from([0.0, 1.0, 3.0]), st.sets(st.integers(0, 3)))
def test_what_is_left_is_good_and_what_is_not_is_in_the_edits(rows, tolerance_px, unreadable):
    images = [image(i, sha256=f"sha{i % 3}", readable=i not in unreadable) for i in range(4)]
    boxes = [box(n, row[:4], image_id=row[4], class_id=row[5]) for n, row in enumerate(rows)]
    data = dataset(images, boxes)
    result = judge(data, STRICTEST_DROP, tolerance_px)
    left = result.dataset
    # A second look at what is left finds nothing more to stop or leave out, and nothing to move.
    again = judge(Dataset(left.images, left.annotations, data.findings, CLASS_NAMES, data.root), STRICTEST_DROP, 0.0)
    assert again.edits.empty
    assert set(again.findings["code"]) <= {"empty_class"}
    for kind, before, after, key in (
        ("drop_box", data.annotations, left.annotations, "ann_id"),
        ("drop_image", data.images, left.images, "image_id"),
    ):
        dropped = result.edits.loc[result.edits["action"] == kind, key].tolist()
        assert sorted([*dropped, *after[key]]) == sorted(before[key])
    moved = data.annotations.set_index("ann_id")[XYXY].loc[left.annotations["ann_id"]].to_numpy()
    changed = (moved != left.annotations[XYXY].to_numpy()).any(axis=1).sum()
    assert changed == (result.edits["action"] == "clip_box").sum()
    assert not result.findings.duplicated(["code", "image_id", "ann_id", "message"]).any()
