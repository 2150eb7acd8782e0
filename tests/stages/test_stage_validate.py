"""The gate stops with one line per error, or passes and records what it repaired and left out."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pytest
from dataset_rows import box, dataset, image, write_params
from ruamel.yaml import YAML

from plumbline.checks.repairs import EDIT_COLUMNS
from plumbline.checks.settings import SeverityParams
from plumbline.faults import FAULTS
from plumbline.manifest import Dataset, read_dataset, write_dataset
from stages.validate import SECTIONS, main

PARAMS = Path(__file__).parents[2] / "params.yaml"
OUTPUTS = {"out": "out", "findings": "reports/findings.json", "sheet": "reports/findings.jpg", "metrics": "m.json"}


def arguments(folder):
    paths = {"dataset": "dataset", **OUTPUTS}
    return [word for name, file in paths.items() for word in (f"--{name}", str(folder / file))]


@pytest.fixture
def stage(tmp_path, capsys):
    """Run the stage's command in a folder of its own; gives exit code, stdout, stderr, folder."""

    def run(images=None, boxes=(), findings=(), **values):
        write_params(tmp_path / "params.yaml", **values)
        data = dataset(images, boxes or (), findings)
        if boxes is None:
            data = Dataset(data.images, data.annotations.iloc[:0], data.findings, data.class_names, data.root)
        folder = tmp_path / "dataset"
        (folder / "images").mkdir(parents=True, exist_ok=True)
        for name in ("0.jpg", "1.jpg"):
            cv2.imwrite(str(folder / "images" / name), np.full((50, 100, 3), 200, np.uint8))
        write_dataset(data, folder)
        code = main([*arguments(tmp_path), "--params", str(tmp_path / "params.yaml")])
        captured = capsys.readouterr()
        return code, captured.out, captured.err, tmp_path

    return run


def edits_of(folder):
    with (folder / "out" / "edits.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def findings_of(folder):
    return json.loads((folder / OUTPUTS["findings"]).read_text())["findings"]


def test_a_good_dataset_passes_with_zeros_in_the_metrics_and_an_empty_record(stage):
    code, out, err, folder = stage()
    assert (code, err) == (0, "")
    assert out == "validate: 2 images and 2 labels to check\nvalidate: 2 images and 2 labels pass\n"
    metrics = json.loads((folder / "m.json").read_text())
    assert {key: value for key, value in metrics.items() if value} == {"num_images": 2, "num_boxes": 2}
    assert (folder / "out" / "edits.csv").read_text() == ",".join(EDIT_COLUMNS) + "\n"
    assert findings_of(folder) == []
    assert cv2.imread(str(folder / OUTPUTS["sheet"])) is not None
    assert (folder / "reports" / "data_docs" / "index.html").is_file()


def test_errors_stop_with_a_line_each_and_only_the_reports(stage):
    code, out, err, folder = stage(boxes=[box(0, (5, 6, 5, 8)), box(1, (-9, 0, 9, 9), image_id=1)])
    assert code == 1
    assert out == "validate: 2 images and 4 labels to check\n"
    assert err.splitlines() == [
        "error: 2 errors in 2 files stop the run:",
        "in/0.xml:10: E301 box has no area, expected x1 < x2 and y1 < y2, got (x1, y1, x2, y2) = (5, 6, 5, 8);"
        " fix the label, or set validate.severity.E301: warning in params.yaml, which leaves out the box",
        "in/1.xml:11: E303 box is outside its image, expected 0 <= x <= 100 and 0 <= y <= 50,"
        " got (x1, y1, x2, y2) = (-9, 0, 9, 9); fix the label, or add E303 to validate.fix,"
        " or set validate.severity.E303: warning in params.yaml, which leaves out the box",
    ]
    assert sorted(path.name for path in folder.iterdir()) == ["dataset", "params.yaml", "reports"]
    assert sorted(path.name for path in (folder / "reports").iterdir()) == [
        "data_docs",
        "findings.jpg",
        "findings.json",
    ]
    assert [row["code"] for row in findings_of(folder)] == ["E301", "E303"]
    assert cv2.imread(str(folder / OUTPUTS["sheet"])).shape[1] > 700


def test_many_errors_are_counted_and_all_are_in_the_file(stage):
    _, _, err, folder = stage(boxes=[box(n, (n, 6, n, 8)) for n in range(13)])
    lines = err.splitlines()
    assert lines[0] == "error: 13 errors in 1 file stop the run:"
    assert len(lines) == 12
    assert lines[-1] == f"... and 3 more (all in {folder / OUTPUTS['findings']})"
    assert len(findings_of(folder)) == 13


def test_repairs_and_what_is_left_out_are_told_recorded_and_applied(stage):
    boxes = [box(0, (5, 6, 5, 8)), box(1, (-0.5, 0, 9, 9)), box(2, (20, 20, 30, 30)), box(3, (20, 20, 30, 30))]
    code, out, err, folder = stage(boxes=boxes, E301="warning")
    assert (code, err) == (0, "")
    assert "warning: 1 x E301 zero_area_box (no width or no height), box left out; see" in out
    assert "fixed: 1 x E303 box_out_of_bounds (a corner outside the image), repaired; see" in out
    assert f"is in {folder / 'out' / 'edits.csv'}\n" in out
    assert [(row["action"], row["code"], row["ann_id"]) for row in edits_of(folder)] == [
        ("leave_out_box", "E301", "0"), ("clip_box", "E303", "1"), ("drop_duplicate", "E307", "3"),
    ]  # fmt: skip
    left = read_dataset(folder / "out", root=folder / "dataset")
    assert left.annotations["ann_id"].tolist() == [1, 2, 90, 91]
    assert left.annotations["x1"].tolist() == [0, 20, 1, 31]
    assert left.findings["severity"].tolist() == ["warning", "fixed", "fixed"]
    assert left.image_path(left.images["path"][0]).is_file()
    metrics = json.loads((folder / "m.json").read_text())
    assert (metrics["num_boxes"], metrics["num_left_out_boxes"], metrics["num_clipped_boxes"]) == (4, 1, 1)
    assert (metrics["num_warnings"], metrics["num_fixed"], metrics["num_box_out_of_bounds"]) == (1, 2, 1)


def test_a_repair_can_be_refused_by_its_id(stage):
    boxes = [box(0, (-0.5, 0, 9, 9)), box(1, (20, 20, 30, 30)), box(2, (20, 20, 30, 30))]
    folder = stage(boxes=boxes)[3]
    clip, drop = (row["edit_id"] for row in edits_of(folder))
    code, _, err, _ = stage(boxes=boxes, undo=[clip])
    assert code == 1
    assert "in/0.xml:10: E303 box is outside its image" in err
    assert stage(boxes=boxes, undo=[clip, drop], E303="warning", E307="off")[0] == 0
    assert [row["action"] for row in edits_of(folder)] == ["leave_out_box", "leave_out_box"]
    code, _, err, _ = stage(boxes=boxes, undo=["edit-0"])
    assert code == 1
    assert err.startswith("error: params.yaml: validate.undo: no repair has the id 'edit-0', expected an edit_id of")


def test_a_failed_expectation_is_an_error_like_any_other(stage):
    code, _, err, folder = stage([image(0, exif_orientation=9), image(1)])
    assert code == 1
    assert err.splitlines()[1].startswith(
        "images.parquet: E404 expect_column_values_to_be_between fails on images.parquet, column exif_orientation,"
    )
    assert [row["code"] for row in findings_of(folder)] == ["E404"]
    assert stage([image(0, exif_orientation=9), image(1)], E404="warning")[0] == 0


def test_the_same_input_gives_the_same_bytes(stage):
    texts = []
    for _ in range(2):
        folder = stage(boxes=[box(0, (-0.5, 6, 5, 8)), box(1, (5, 6, 5, 8))], E301="warning")[3]
        files = [
            *sorted((folder / "out").iterdir()),
            *(folder / OUTPUTS[key] for key in ("findings", "sheet", "metrics")),
        ]
        texts.append({path.name: path.read_bytes() for path in files})
    assert texts[0] == texts[1]
    assert len(texts[0]) == 7


@pytest.mark.parametrize(
    ("images", "boxes", "what"), [([], None, "no image is left"), (None, None, "no box is left")], ids=["image", "box"]
)
def test_nothing_left_is_an_error(stage, images, boxes, what):
    code, _, err, folder = stage(images, boxes)
    assert code == 1
    assert what in err
    assert err.count("\n") == 1
    assert not (folder / "out").exists()
    assert not (folder / "m.json").exists()
    assert (folder / OUTPUTS["findings"]).is_file()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"E301": "drop"}, "wrong value for validate.severity.E301, expected 'error', 'warning' or 'off', got 'drop'"),
        ({"fix": ["E301"]}, "wrong value for validate.fix, expected a list of codes that can be repaired, each once"),
        ({"fix": ["E303", "E303"]}, "wrong value for validate.fix, expected a list of codes"),
        ({"near_duplicate_iou": 0.2}, "wrong value for validate.near_duplicate_iou, expected greater than or equal to"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_its_line(stage, values, expected):
    code, _, err, folder = stage(**values)
    assert code == 1
    assert err.startswith(f"error: {folder / 'params.yaml'}:")
    assert expected in err


def test_a_mistyped_code_is_refused_with_the_one_that_was_meant(stage, tmp_path, capsys):
    stage()
    path = tmp_path / "params.yaml"
    path.write_text(path.read_text().replace("E301: ", "E3O1: "))
    assert main([*arguments(tmp_path), "--params", str(path)]) == 1
    said = capsys.readouterr().err
    assert "unknown parameter validate.severity.E3O1, expected one of: E101, " in said
    assert "did you mean 'E301'?" in said


def test_a_missing_dataset_is_one_line(tmp_path, capsys):
    assert main([*arguments(tmp_path), "--params", str(PARAMS)]) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'dataset' / 'images.parquet'}: not a readable")


def test_there_is_a_severity_for_every_fault():
    assert list(SeverityParams.model_fields) == list(FAULTS)
    for field in SeverityParams.model_fields.values():
        assert get_args(field.annotation) == ("error", "warning", "off")
        assert field.is_required()


def test_the_projects_own_section_is_good_and_stops_for_what_cannot_be_kept():
    values = YAML(typ="safe").load(PARAMS.read_text(encoding="utf-8"))
    assert SECTIONS["near_duplicates"].model_validate(values["near_duplicates"])
    assert SECTIONS["validate"].model_validate(values["validate"])
    stops = {code for code, severity in values["validate"]["severity"].items() if severity == "error"}
    # An image of a foreign type is as good as not there; the four others would spoil what is measured.
    lost = {code for code, fault in FAULTS.items() if fault.leaves_out} - {"E112"}
    assert stops == lost | {"E103", "E108", "E210", "E404"}


def test_the_stage_imports_great_expectations_only_when_it_runs():
    # Its import takes seconds, and the check of params.yaml imports every stage.
    code = "import sys, stages.validate; sys.exit('great_expectations' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=PARAMS.parent).returncode == 0
