"""The line on real photographs: 364 blood-cell images in Pascal VOC, two of whose boxes have no area."""

from __future__ import annotations

import json

import cv2
import pandas as pd
import pytest
from project_clone import ROOT, TINY, Clone

from plumbline.commands import main
from plumbline.params import read_params

NO_AREA = {"BloodImage_00338.xml": 158, "BloodImage_00343.xml": 50}
CLASSES = "dataset.class_names=[RBC,WBC,Platelets]"


@pytest.fixture(scope="module")
def clone(tmp_path_factory, bccd):
    clone = Clone(tmp_path_factory.mktemp("bccd"))
    source = f"dataset.source={bccd.resolve()}"
    clone.sets = [source, CLASSES, "train.detect.image_size=192", "train.detect.epochs=1", "train.detect.batch=16"]
    clone.sets += [f"{key}={value}" for key, value in TINY.items() if key.split(".")[0] in ("benchmark", "report")]
    return clone


def experiment(clone, *sets, expect=0):
    flags = [word for pair in (*clone.sets, *sets) for word in ("--set-param", pair)]
    return clone.run("dvc", "exp", "run", *flags, expect=expect)


def test_boxes_without_area_stop_the_line_and_are_named(clone):
    before = (clone.folder / "params.yaml").read_text()
    failed = experiment(clone, expect=255)
    assert "error: 2 errors in 2 files stop the run:" in failed.stderr
    for name, line in NO_AREA.items():
        assert f"{name}:{line}: E301 box has no area, expected x1 < x2 and y1 < y2, got" in failed.stderr
    assert "set validate.severity.E301: warning in params.yaml" in failed.stderr
    assert not (clone.folder / "data/validated").exists()
    # DVC makes the folders of outputs beforehand.
    assert not [path for path in (clone.folder / "models").rglob("*") if path.is_file()]
    (clone.folder / "params.yaml").write_text(before)


@pytest.mark.long
def test_one_command_trains_and_reports(clone):
    experiment(clone, "validate.severity.E301=warning")
    report = json.loads((clone.folder / "reports/report/report.json").read_text())
    assert (report["num_images"], report["num_boxes"]) == (364, 4886)
    assert report["class_names"] == ["RBC", "WBC", "Platelets"]
    targets = read_params(clone.folder / "params.yaml")["targets"]
    assert [row["name"] for row in report["rows"]] == ["weights", *targets]
    findings = json.loads((clone.folder / "reports/findings.json").read_text())["findings"]
    found = {row["file"].rpartition("/")[2]: row["line"] for row in findings if row["code"] == "E301"}
    assert found == NO_AREA
    assert {row["code"] for row in findings} == {"E301", "E308", "E109"}
    edits = pd.read_csv(clone.folder / "data/validated/edits.csv")
    assert edits["action"].tolist() == ["leave_out_box", "leave_out_box"]


def test_one_command_names_what_is_known_to_be_wrong(bccd, tmp_path, capsys):
    assert main(["check", str(bccd), f"--out={tmp_path / 'check'}", f"--params={ROOT / 'params.yaml'}"]) == 1
    printed = capsys.readouterr().out
    for name, line in NO_AREA.items():
        assert f"{name}:{line}: E301 box has no area" in printed
    assert "BloodImage_00037.jpg (val) and images/JPEGImages/BloodImage_00038.jpg (train): near-dup" in printed
    assert cv2.imread(str(tmp_path / "check" / "findings.jpg")).shape[0] > 500
    gate = json.loads((tmp_path / "check" / "findings.json").read_text())
    assert gate["counts"]["error"] == 2
    assert [row["box"][:2] for row in gate["findings"] if row["code"] == "E301"] == [[504.0, 337.0], [181.0, 329.0]]
