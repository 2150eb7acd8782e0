"""The gate stops with one line per error and leaves no output, or passes and records what it left out."""

import csv
import json
from pathlib import Path
from typing import get_args

import pytest
from ruamel.yaml import YAML

from plumbline.checks import CHECKS, EDIT_COLUMNS, XYXY
from plumbline.manifest import (
    ANNOTATIONS_SCHEMA,
    FINDINGS_SCHEMA,
    IMAGES_SCHEMA,
    Dataset,
    read_dataset,
    table,
    write_dataset,
)
from stages.validate import SECTIONS, SeverityParams, main

PARAMS = Path(__file__).parents[2] / "params.yaml"


def image(image_id, **values):
    row = {
        "image_id": image_id, "path": f"images/{image_id}.jpg", "sha256": f"sha{image_id}", "width": 100, "height": 50,
        "phash": image_id, "group": "", "source": f"in/{image_id}.jpg", "readable": True, "brightness": 1.0,
        "contrast": 1.0, "sharpness": 1.0,
    }  # fmt: skip
    return row | values


def box(ann_id, xyxy, image_id=0, **values):
    row = {
        "image_id": image_id, "ann_id": ann_id, "class_id": 0, "class_name": "RBC", "difficult": False,
        "truncated": False, "polygon": None, "source_file": f"in/{image_id}.xml", "source_line": 10 + ann_id,
        **dict(zip(XYXY, map(float, xyxy), strict=True)),
    }  # fmt: skip
    return row | values


@pytest.fixture
def stage(tmp_path, capsys):
    """Run the stage's command in a folder of its own; gives exit code, stdout, stderr, folder."""

    def run(images=None, boxes=(), findings=(), **severity):
        params = YAML(typ="safe").load(PARAMS.read_text(encoding="utf-8"))
        params["validate"]["severity"] |= severity
        with (tmp_path / "params.yaml").open("w") as file:
            YAML().dump(params, file)
        data = tmp_path / "dataset"
        data.mkdir(exist_ok=True)
        tables = (
            table(images if images is not None else [image(0), image(1)], IMAGES_SCHEMA),
            table([box(90, (1, 1, 9, 9)), *boxes] if boxes is not None else [], ANNOTATIONS_SCHEMA),
            table(list(findings), FINDINGS_SCHEMA),
        )
        write_dataset(Dataset(*tables, ("RBC",), data), data)
        names = {"dataset": "dataset", "out": "out", "findings": "findings.csv", "metrics": "m.json"}
        argv = [word for name, file in names.items() for word in (f"--{name}", str(tmp_path / file))]
        code = main([*argv, "--params", str(tmp_path / "params.yaml")])
        captured = capsys.readouterr()
        return code, captured.out, captured.err, tmp_path

    return run


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_good_dataset_passes_with_zeros_in_the_metrics_and_an_empty_record(stage):
    code, out, err, folder = stage()
    assert (code, err) == (0, "")
    assert out == "validate: 2 images and 1 box pass\n"
    metrics = json.loads((folder / "m.json").read_text())
    assert {f"num_{name}" for name in CHECKS} <= set(metrics)
    assert {key: value for key, value in metrics.items() if value} == {"num_images": 2, "num_boxes": 1}
    assert (folder / "out" / "edits.csv").read_text() == ",".join(EDIT_COLUMNS) + "\n"
    assert (folder / "findings.csv").read_text() == ",".join(FINDINGS_SCHEMA.names) + "\n"


def test_errors_stop_with_a_line_each_and_no_output(stage):
    code, out, err, folder = stage(boxes=[box(0, (5, 6, 5, 8)), box(1, (-9, 0, 9, 9), image_id=1)])
    assert (code, out) == (1, "")
    assert err.splitlines() == [
        "error: 2 errors in 2 files stop the run:",
        "in/0.xml:10: box has no area, expected x1 < x2 and y1 < y2, got (x1, y1, x2, y2) = (5, 6, 5, 8);"
        " fix the label, or set validate.severity.zero_area_box: drop in params.yaml",
        "in/1.xml:11: box is outside its image, expected 0 <= x <= 100 and 0 <= y <= 50,"
        " got (x1, y1, x2, y2) = (-9, 0, 9, 9);"
        " fix the label, or set validate.severity.box_outside_image: drop in params.yaml",
    ]
    assert sorted(path.name for path in folder.iterdir()) == ["dataset", "findings.csv", "params.yaml"]
    assert [row["code"] for row in rows(folder / "findings.csv")] == ["zero_area_box", "box_outside_image"]


def test_many_errors_are_counted_and_all_are_in_the_file(stage):
    _, _, err, folder = stage(boxes=[box(n, (n, 6, n, 8)) for n in range(13)])
    lines = err.splitlines()
    assert lines[0] == "error: 13 errors in 1 file stop the run:"
    assert len(lines) == 12
    assert lines[-1] == f"... and 3 more (all in {folder / 'findings.csv'})"
    assert len(rows(folder / "findings.csv")) == 13


def test_drops_and_clips_are_told_recorded_and_applied(stage):
    boxes = [box(0, (5, 6, 5, 8)), box(1, (-0.5, 0, 9, 9)), box(2, (20, 20, 30, 30)), box(3, (20, 20, 30, 30))]
    code, out, err, folder = stage(boxes=boxes, zero_area_box="drop")
    assert (code, err) == (0, "")
    assert "drop: 1 x zero_area_box" in out
    assert "clip: 1 box within box_tolerance_px" in out
    edits = [(row["action"], row["code"], row["ann_id"]) for row in rows(folder / "out" / "edits.csv")]
    assert edits == [
        ("drop_box", "zero_area_box", "0"),
        ("clip_box", "box_tolerance_px", "1"),
        ("drop_box", "duplicate_box", "3"),
    ]
    left = read_dataset(folder / "out", root=folder / "dataset")
    assert left.annotations["ann_id"].tolist() == [90, 1, 2]
    assert left.annotations["x1"].tolist() == [1, 0, 20]
    assert left.findings["severity"].tolist() == ["drop", "drop"]
    assert left.image_path(left.images["path"][0]) == folder / "dataset/images/0.jpg"
    metrics = json.loads((folder / "m.json").read_text())
    assert (metrics["num_boxes"], metrics["num_dropped_boxes"], metrics["num_clipped_boxes"]) == (3, 2, 1)


def test_a_warning_is_told_and_kept(stage):
    code, out, _, folder = stage([image(0), image(1, sha256="sha0")])
    assert code == 0
    assert "warning: 1 x duplicate_image (the same bytes twice), kept" in out
    assert len(read_dataset(folder / "out").images) == 2
    assert json.loads((folder / "m.json").read_text())["num_warnings"] == 1


def test_the_same_input_gives_the_same_bytes(stage):
    texts = []
    for _ in range(2):
        folder = stage(boxes=[box(0, (-0.5, 6, 5, 8)), box(1, (5, 6, 5, 8))], zero_area_box="drop")[3]
        files = [*sorted((folder / "out").iterdir()), folder / "findings.csv", folder / "m.json"]
        texts.append({path.name: path.read_bytes() for path in files})
    assert texts[0] == texts[1]
    assert len(texts[0]) == 6


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


def test_a_severity_that_cannot_be_is_refused_with_its_line(stage):
    code, _, err, folder = stage(zero_area_box="warning")
    lines = (folder / "params.yaml").read_text().splitlines()
    line = next(number for number, text in enumerate(lines, start=1) if "zero_area_box" in text)
    assert code == 1
    assert err == (
        f"error: {folder / 'params.yaml'}:{line}: wrong value for validate.severity.zero_area_box,"
        " expected 'error' or 'drop', got 'warning' (str); change it\n"
    )


def test_a_missing_dataset_is_one_line(tmp_path, capsys):
    paths = [word for name in ("dataset", "out", "findings", "metrics") for word in (f"--{name}", str(tmp_path / name))]
    assert main([*paths, "--params", str(PARAMS)]) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'dataset' / 'images.parquet'}: not a readable")


def test_the_table_of_checks_and_the_parameters_agree():
    assert set(SeverityParams.model_fields) == set(CHECKS)
    for code, field in SeverityParams.model_fields.items():
        assert get_args(field.annotation) == CHECKS[code].severities, code


def test_the_projects_own_section_is_good():
    values = YAML(typ="safe").load(PARAMS.read_text(encoding="utf-8"))
    assert SECTIONS["validate"].model_validate(values["validate"])
