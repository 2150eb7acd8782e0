"""The line on real photographs: 364 blood-cell images in Pascal VOC, two of whose boxes have no area."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from project_clone import TINY, Clone

NO_AREA = {"BloodImage_00338.xml": 158, "BloodImage_00343.xml": 50}
CLASSES = "dataset.class_names=[RBC,WBC,Platelets]"


@pytest.fixture(scope="module")
def clone(tmp_path_factory, bccd):
    clone = Clone(tmp_path_factory.mktemp("bccd"))
    source = f"dataset.source={bccd.resolve()}"
    clone.sets = [source, CLASSES, "train.image_size=192", "train.epochs=1", "train.batch=16"]
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
        assert f"{name}:{line}: box has no area, expected x1 < x2 and y1 < y2, got" in failed.stderr
    assert "set validate.severity.zero_area_box: drop in params.yaml" in failed.stderr
    assert not (clone.folder / "data/validated").exists()
    # DVC makes the folders of outputs beforehand.
    assert not [path for path in (clone.folder / "models").rglob("*") if path.is_file()]
    (clone.folder / "params.yaml").write_text(before)


@pytest.mark.long
def test_one_command_trains_and_reports(clone):
    experiment(clone, "validate.severity.zero_area_box=drop")
    report = json.loads((clone.folder / "reports/report/report.json").read_text())
    assert (report["num_images"], report["num_boxes"]) == (364, 4886)
    assert report["class_names"] == ["RBC", "WBC", "Platelets"]
    assert len(report["rows"]) == 5
    findings = pd.read_csv(clone.folder / "reports/findings.csv")
    found = {
        path.rpartition("/")[2]: line for path, line in zip(findings.source_file, findings.source_line, strict=True)
    }
    assert found == NO_AREA
    assert set(findings["code"]) == {"zero_area_box"}
    edits = pd.read_csv(clone.folder / "data/validated/edits.csv")
    assert edits["action"].tolist() == ["drop_box", "drop_box"]
