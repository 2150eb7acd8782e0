"""The judgement: severities, what is left out, the order of findings, and that nothing goes without an edit."""

import json

import numpy as np
import pandas as pd
import pytest
from dataset_rows import CLASS_NAMES, NAN4, STRICT, box, dataset, finding, found, image, settings_with
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline import faults
from plumbline.checks import CHECKS, OF_WHAT_IS_LEFT, judge, with_findings
from plumbline.checks.repairs import EDIT_COLUMNS, REPAIRS
from plumbline.checks.view import XYXY
from plumbline.errors import DatasetError
from plumbline.faults import FAULTS
from plumbline.manifest import FINDINGS_SCHEMA, Dataset, table

ALL_WARNINGS = dict.fromkeys(FAULTS, "warning")
# Seen where files are read, and by Great Expectations.
FOUND_ELSEWHERE = {
    "E103", "E104", "E105", "E106", "E112", "E113", "E114", "E201", "E202", "E203", "E204", "E205", "E208", "E209",
    "E210", "E404",
}  # fmt: skip


def test_a_good_dataset_has_no_finding_and_no_edit():
    data = dataset(boxes=[box(0)])
    result = judge(data, STRICT)
    assert result.findings.empty
    assert result.edits.empty
    assert list(result.edits) == EDIT_COLUMNS
    pd.testing.assert_frame_equal(result.dataset.annotations, data.annotations)


def test_every_fault_has_a_finder_or_is_found_elsewhere():
    assert set(CHECKS) | FOUND_ELSEWHERE == set(FAULTS)
    assert not set(CHECKS) & FOUND_ELSEWHERE
    assert set(REPAIRS) == {faults.REVERSED_BOX, faults.BOX_OUT_OF_BOUNDS, faults.DUPLICATE_BOX}
    assert all(FAULTS[code].leaves_out == "" for code in OF_WHAT_IS_LEFT)


def test_off_is_not_told_and_what_cannot_be_kept_is_still_recorded():
    data = dataset(boxes=[box(0, (5, 5, 5, 9)), box(1, (30, 30, 31, 40))])
    result = judge(data, settings_with(E301="off", E304="off"))
    assert result.findings.empty
    assert result.edits[["action", "code", "ann_id"]].to_numpy().tolist() == [["leave_out_box", "E301", 0]]
    assert result.dataset.annotations["ann_id"].tolist() == [1, 90, 91]


def test_a_warning_tells_and_leaves_out_what_cannot_be_kept():
    result = judge(dataset(boxes=[box(0, (5, 5, 5, 9)), box(1, (30, 30, 31, 40))]), settings_with(**ALL_WARNINGS))
    assert result.errors.empty
    assert result.findings[["code", "severity"]].to_numpy().tolist() == [["E301", "warning"], ["E304", "warning"]]
    assert result.dataset.annotations["ann_id"].tolist() == [1, 90, 91]
    pd.testing.assert_frame_equal(result.dataset.findings, result.findings)


def test_errors_come_first_then_file_and_line():
    boxes = [box(2, (5, 5, 5, 5), source_line=30), box(0, (30, 30, 31, 40), image_id=1), box(1, (5, 5, 5, 6))]
    boxes.append(box(3, (40, 30, 41, 40), source_line=4))
    rows = judge(dataset(boxes=sorted(boxes, key=lambda row: row["ann_id"])), settings_with(E304="warning")).findings
    assert list(zip(rows["severity"], rows["source_file"], rows["source_line"], strict=True)) == [
        ("error", "in/0.xml", 11), ("error", "in/0.xml", 30), ("warning", "in/0.xml", 4), ("warning", "in/1.xml", 10),
    ]  # fmt: skip


def test_an_image_that_goes_takes_its_boxes_and_each_is_recorded_for_the_images_reason():
    data = dataset(
        [image(0), image(1, readable=False, problem="p")], [box(0, image_id=1), box(1, (5, 5, 5, 5), image_id=1)]
    )
    result = judge(data, settings_with(E101="warning", E301="warning"))
    edits = [(row.action, row.code, row.image, row.ann_id) for row in result.edits.itertuples()]
    assert edits == [
        ("leave_out_image", "E101", "images/1.jpg", -1),
        ("leave_out_box", "E101", "images/1.jpg", 0),
        ("leave_out_box", "E101", "images/1.jpg", 1),
    ]
    assert result.dataset.images["image_id"].tolist() == [0]
    assert result.dataset.annotations["ann_id"].tolist() == [90, 91]
    before = json.loads(result.edits["before"][0])
    assert (before["path"], before["phash"]) == ("images/1.jpg", int(data.images["phash"][1]))


def test_the_readers_findings_are_judged_too():
    rows = [finding("E202", source_line=line) for line in (4, 3, 3)]
    rows += [finding("E105", image_id=-1), finding("E106", image_id=1, source_line=0), finding("E201", image_id=-1)]
    result = judge(dataset([image(0), image(1), image(2)], findings=rows), settings_with(**ALL_WARNINGS))
    assert result.findings["code"].value_counts()[["E202", "E105", "E106", "E201"]].tolist() == [2, 1, 1, 1]
    # The image of a label that cannot be read goes: its objects would be taught as background. A label of no image
    # is a file that goes, and an image without a label stays.
    assert result.edits["action"].value_counts().to_dict() == {
        "leave_out_image": 1, "leave_out_box": 2, "leave_out_file": 2,
    }  # fmt: skip
    assert result.dataset.images["image_id"].tolist() == [1, 2]


def test_a_code_that_nobody_knows_is_refused():
    with pytest.raises(DatasetError, match=r"unknown finding, expected one of: E101, .*, got typo; run ingest"):
        judge(dataset(findings=[finding("typo")]), STRICT)


def test_no_images_and_no_boxes_are_no_fault_of_a_box():
    data = dataset([])
    empty = Dataset(data.images, data.annotations.iloc[:0], data.findings, CLASS_NAMES, data.root)
    assert found(empty, fix=tuple(REPAIRS)) == [("E401", -1)] * 2


def test_what_others_find_is_judged_with_the_rest():
    more = table([finding("E404", source_file="images.parquet", source_line=0)], FINDINGS_SCHEMA)
    judged = judge(dataset(boxes=[box(0, (30, 30, 31, 40))]), settings_with(E304="warning"))
    assert with_findings(judged, more, STRICT.severity).findings["code"].tolist() == ["E404", "E304"]
    off = with_findings(judged, more, {**STRICT.severity, "E404": "off"})
    assert off.findings["code"].tolist() == off.dataset.findings["code"].tolist() == ["E304"]


@pytest.mark.parametrize(
    ("class_id", "name", "code"), [(-1, "rcb", "E206"), (-1, "cow", "E206"), (-2, "7", "E207"), (2, "2", "E207")]
)
def test_a_class_that_is_not_known_is_found_for_boxes_and_images(class_id, name, code):
    values = {"class_id": class_id, "class_name": name}
    data = dataset(boxes=[box(0) | values, box(1, NAN4, image_id=1) | values])
    assert found(data) == [(code, 0), (code, 1)]
    message = judge(data, STRICT).findings["message"][0]
    assert repr(name) in message
    assert message.endswith("(did you mean 'RBC'?)") == (name == "rcb")


def test_a_class_is_empty_when_its_last_box_is_left_out():
    data = dataset(boxes=[])
    data.annotations.loc[data.annotations["ann_id"] == 91, "x2"] = 31.0
    result = judge(data, settings_with(E301="warning", E401="warning"))
    assert result.findings["code"].tolist() == ["E301", "E401"]
    assert "'WBC'" in result.findings["message"][1]


def test_classes_are_small_or_rare_or_neither_and_never_two_of_these():
    boxes = [box(n, (n, 20, n + 8, 28 + n % 20)) for n in range(29)]
    data = dataset(boxes=boxes, class_names=("RBC", "WBC", "none"))
    assert found(data, min_boxes_per_class=2) == [("E401", -1), ("E402", -1)]
    assert found(data, max_imbalance=29.0) == [("E401", -1), ("E403", -1)]
    assert found(data, max_imbalance=30.0) == [("E401", -1)]
    assert found(data, min_boxes_per_class=2, max_imbalance=2.0) == [("E401", -1), ("E402", -1)]


def test_labels_of_whole_images_count_for_their_class():
    data = dataset([image(0)], [box(0, NAN4, class_id=1)])
    boxes = data.annotations[data.annotations["ann_id"] != 91]
    assert found(Dataset(data.images, boxes, data.findings, CLASS_NAMES, data.root)) == []


CORNERS = st.one_of(st.integers(-4, 104), st.sampled_from([-0.5, 0.0, 50.5, 100.75]))
RANDOM_BOX = st.tuples(CORNERS, CORNERS, CORNERS, CORNERS, st.integers(0, 3), st.integers(-2, 1), st.booleans())


@settings(max_examples=30, deadline=None)
@given(
    st.lists(RANDOM_BOX, max_size=12),
    st.sampled_from([0.0, 1.0, 3.0]),
    st.sets(st.integers(0, 3)),
    st.sets(st.sampled_from(sorted(REPAIRS))),
)
def test_what_is_left_is_good_and_what_is_not_is_in_the_edits(rows, clip_px, unreadable, fix):
    images = [image(i, sha256=f"{i % 3:064x}", readable=i not in unreadable) for i in range(4)]
    boxes = [box(n, r[:4], image_id=r[4], class_id=max(r[5], -1), crowd=r[6]) for n, r in enumerate(rows)]
    data = dataset(images, boxes)
    before = data.annotations.copy(deep=True)
    result = judge(data, settings_with(**ALL_WARNINGS, fix=tuple(fix), clip_px=clip_px))
    pd.testing.assert_frame_equal(data.annotations, before)
    left = result.dataset
    # A second look at what is left finds nothing more to repair or leave out.
    again = judge(
        Dataset(left.images, left.annotations, data.findings, CLASS_NAMES, data.root),
        settings_with(fix=tuple(REPAIRS), clip_px=0.0),
    )
    assert again.edits.empty
    assert all(FAULTS[code].keepable for code in again.findings["code"])
    gone = result.edits[result.edits["action"].isin(["leave_out_box", "drop_duplicate"])]
    assert sorted([*gone["ann_id"], *left.annotations["ann_id"]]) == sorted(before["ann_id"])
    lost = result.edits[result.edits["action"] == "leave_out_image"]
    assert sorted([*lost["image_id"], *left.images["image_id"]]) == [0, 1, 2, 3]
    moved = before.set_index("ann_id")[XYXY].loc[left.annotations["ann_id"]].to_numpy()
    changed = left.annotations["ann_id"][(moved != left.annotations[XYXY].to_numpy()).any(axis=1)]
    moves = result.edits[result.edits["action"].isin(["swap_corners", "clip_box"])]
    assert set(changed) == set(moves["ann_id"]) & set(left.annotations["ann_id"])
    assert result.edits["edit_id"].is_unique
    assert not result.findings.duplicated(["code", "image_id", "ann_id", "message", "severity"]).any()
    assert np.isin(result.findings["severity"], ["warning", "fixed"]).all()
