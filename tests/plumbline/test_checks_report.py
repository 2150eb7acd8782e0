"""Findings in words, as JSON and as a picture."""

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from dataset_rows import NAN4, STRICT, box, dataset, finding, image, settings_with

from plumbline.checks import judge
from plumbline.checks.repairs import REPAIRS
from plumbline.checks.report import count, error_line, finding_line, findings_json, findings_text
from plumbline.checks.sheet import choose, findings_sheet
from plumbline.faults import FAULTS
from plumbline.manifest import FINDINGS_SCHEMA, Dataset, table


def line(code, message, source_line=0):
    return error_line(SimpleNamespace(code=code, source_file="a", source_line=source_line, message=message))


def test_a_line_says_where_which_code_what_and_what_to_do():
    (row,) = judge(dataset(boxes=[box(7, (504, 337, 504, 337))]), STRICT).errors.itertuples()
    said = (
        "in/0.xml:17: E301 box has no area, expected x1 < x2 and y1 < y2, got (x1, y1, x2, y2) = (504, 337, 504, 337)"
    )
    assert finding_line(row) == said
    assert error_line(row) == (
        said + "; fix the label, or set validate.severity.E301: warning in params.yaml, which leaves out the box"
    )


def test_the_readers_own_advice_is_kept_where_it_knows_better():
    leaves_out = "or set validate.severity.E202: warning in params.yaml, which leaves out the image"
    assert line("E202", "bad; mend its row", 3) == f"a:3: E202 bad; mend its row, {leaves_out}"
    assert line("E202", "bad") == f"a: E202 bad; fix the label, {leaves_out}"
    assert line("E106", "no label; it is kept") == (
        "a: E106 no label; add the label or remove the image,"
        " or set validate.severity.E106: warning in params.yaml, which keeps it"
    )


@pytest.mark.parametrize("code", sorted(REPAIRS))
def test_what_can_be_repaired_says_so(code):
    assert f", or add {code} to validate.fix, or set validate.severity.{code}: warning" in line(code, "bad")


def test_the_json_holds_every_finding_with_its_place_and_the_counts():
    boxes = [box(0, (-1, 0, 10, 10)), box(1, (5, 5, 5, 9)), box(2, NAN4, class_id=-1, class_name="Ünknown", image_id=1)]
    data = dataset(boxes=boxes, findings=[finding("E105", image_id=-1), finding("E106", image_id=1, source_line=0)])
    judged = judge(data, settings_with(fix=("E303",), E106="warning"))
    record = findings_json(judged)
    assert record["findings"] == [
        {"code": "E105", "name": "missing_image", "severity": "error", "file": "in/0.xml", "line": 3, "image": None,
         "box": None, "message": "m"},
        {"code": "E301", "name": "zero_area_box", "severity": "error", "file": "in/0.xml", "line": 11,
         "image": "images/0.jpg", "box": [5, 5, 5, 9], "message": judged.findings["message"][1]},
        {"code": "E206", "name": "unknown_class", "severity": "error", "file": "in/1.xml", "line": 12,
         "image": "images/1.jpg", "box": None, "message": judged.findings["message"][2]},
        {"code": "E106", "name": "missing_label", "severity": "warning", "file": "in/0.xml", "line": 0,
         "image": "images/1.jpg", "box": None, "message": "m"},
        # As the label says it, not as it was repaired.
        {"code": "E303", "name": "box_out_of_bounds", "severity": "fixed", "file": "in/0.xml", "line": 10,
         "image": "images/0.jpg", "box": [-1, 0, 10, 10], "message": judged.findings["message"][4]},
    ]  # fmt: skip
    counts = record["counts"]
    assert (counts["error"], counts["warning"], counts["fixed"]) == (3, 1, 1)
    assert list(counts["by_code"]) == ["E105", "E106", "E206", "E301", "E303"]
    assert counts["by_code"]["E303"] == {"name": "box_out_of_bounds", "error": 0, "warning": 0, "fixed": 1}
    text = findings_text(judged)
    assert json.loads(text) == record
    assert sum('"code": ' in row for row in text.splitlines()) == 5
    assert "Ünknown" in text


def test_the_json_of_no_findings_and_of_boxes_without_end_is_json():
    empty = judge(dataset(), STRICT)
    assert json.loads(findings_text(empty)) == {
        "counts": {"error": 0, "warning": 0, "fixed": 0, "by_code": {}}, "findings": [],
    }  # fmt: skip
    endless = judge(dataset(boxes=[box(0, (0, 0, np.inf, 10))]), STRICT)
    assert json.loads(findings_text(endless))["findings"][0]["box"] is None


def test_the_counts_are_flat_and_hold_every_code_by_name():
    counts = count(judge(dataset(boxes=[box(0, (-1, 0, 10, 10)), box(1, (5, 5, 5, 9))]), settings_with(fix=("E303",))))
    assert {f"num_{fault.name}" for fault in FAULTS.values()} <= set(counts)
    assert {key: value for key, value in counts.items() if value} == {
        "num_images": 2, "num_boxes": 3, "num_errors": 1, "num_fixed": 1, "num_clipped_boxes": 1,
        "num_left_out_boxes": 1, "num_box_out_of_bounds": 1, "num_zero_area_box": 1,
    }  # fmt: skip


def test_the_sheet_takes_errors_first_and_the_codes_and_images_in_turn():
    rows = [finding("E301", severity="error", image_id=n // 2, ann_id=n) for n in range(6)]
    rows += [finding("E206", severity="error", ann_id=9), finding("E404", severity="error", image_id=-1)]
    rows += [finding("E304", severity="warning", ann_id=10), finding("E303", severity="fixed", ann_id=11)]
    chosen = choose(table(rows, FINDINGS_SCHEMA), 5)
    assert list(zip(chosen["code"], chosen["ann_id"], strict=True)) == [
        ("E206", 9), ("E301", 0), ("E301", 2), ("E301", 4), ("E301", 1),
    ]  # fmt: skip
    assert choose(table(rows, FINDINGS_SCHEMA), 50)["code"].tolist()[-2:] == ["E304", "E303"]
    assert len(choose(table(rows, FINDINGS_SCHEMA), 50)) == 9


def test_the_sheet_shows_a_box_a_damaged_image_and_nothing_at_all(tmp_path):
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images/0.jpg"), np.full((50, 100, 3), 200, np.uint8))
    (tmp_path / "images/1.jpg").write_bytes(b"no image")
    data = dataset([image(0), image(1, readable=False, problem="p")], [box(0, (40, 20, 41, 40))])
    data = Dataset(data.images, data.annotations, data.findings, data.class_names, tmp_path)
    full = findings_sheet(judge(data, STRICT), data)
    assert full.dtype == np.uint8
    vermilion = (np.abs(full.astype(int) - (0, 94, 213)) < 12).all(axis=2).sum()
    assert vermilion > 100
    empty = findings_sheet(judge(dataset(), STRICT), data)
    assert empty.shape[0] < full.shape[0] + 1
    assert empty.shape[1] < full.shape[1]
