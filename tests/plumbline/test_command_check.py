"""`plumbline check`: what it says, what it writes, how it ends, and what it leaves alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from dataset_rows import write_params

from plumbline.commands import main
from plumbline.files import sha256_of_tree
from plumbline.manifest import read_dataset, write_dataset
from stages import validate

GOOD = ("cat", (10, 10, 40, 30))


def voc(name, *boxes):
    """A label file, an object a line, the first on line 3."""
    objects = [
        f"<object><name>{label}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
        "</bndbox></object>"
        for label, (x1, y1, x2, y2) in boxes
    ]
    size = "<size><width>100</width><height>50</height><depth>3</depth></size>"
    return "\n".join(["<annotation>", f"<filename>{name}</filename>{size}", *objects, "</annotation>\n"])


def photo(path, seed):
    """An image of 100 x 50 pixels that looks like no other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 255, (8, 16, 3), dtype=np.uint8)
    assert cv2.imwrite(str(path), cv2.resize(coarse, (100, 50), interpolation=cv2.INTER_CUBIC))


def write_source(folder, labels=None, **lists):
    """Six photographs as LabelImg leaves them; image number -> its boxes, and split -> numbers for ImageSets."""
    for number in range(6):
        photo(folder / "JPEGImages" / f"{number}.png", number)
        label = folder / "Annotations" / f"{number}.xml"
        label.parent.mkdir(exist_ok=True)
        label.write_text(voc(f"{number}.png", *(labels or {}).get(number, [GOOD])))
    for name, numbers in lists.items():
        listed = folder / "ImageSets" / "Main" / f"{name}.txt"
        listed.parent.mkdir(parents=True, exist_ok=True)
        listed.write_text("".join(f"{number}\n" for number in numbers))
    return folder


@pytest.fixture
def check(tmp_path, monkeypatch, capsys):
    """Run the command beside a source; gives exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, **values):
        write_params(tmp_path / "params.yaml", **values)
        code = main(["check", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


def findings(folder="reports/check"):
    return json.loads(Path(folder, "findings.json").read_text())["findings"]


def test_clean_labels_are_told_so_and_nothing_but_the_report_is_written(check, tmp_path):
    before = sha256_of_tree(write_source(tmp_path / "in"))
    code, out, err = check("in")
    assert code == 0
    assert out.splitlines() == [
        "in: 6 images, 6 labels (cat 6)",
        "Nothing found.",
        "",
        "Every finding: reports/check/findings.json; the worst as a picture: reports/check/findings.jpg",
    ]
    assert err.splitlines() == ["in: 12 files, labels of the format voc", "6 of 6 images scanned"]
    assert sha256_of_tree(tmp_path / "in") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "params.yaml", "reports"]
    assert [path.name for path in (tmp_path / "reports").iterdir()] == ["check"]
    assert sorted(path.name for path in (tmp_path / "reports/check").iterdir()) == [
        "findings.jpg", "findings.json", "split_leaks.json",
    ]  # fmt: skip
    assert findings() == []


def test_faults_are_counted_by_code_and_told_with_file_and_line(check, tmp_path):
    outside = ("cat", (60, 10, 100.5, 30))
    write_source(tmp_path / "in", {2: [GOOD, ("cat", (60, 10, 60, 30))], 3: [GOOD, outside], 4: []})
    code, out, _ = check("in", "--out", "seen")
    assert code == 1
    assert "\nE301  error          1  zero_area_box: no width or no height\n" in out
    assert "\nE303  fixed          1  box_out_of_bounds: a corner outside the image\n" in out
    assert (
        "\n1 of severity error:\n  in/Annotations/2.xml:4: E301 box has no area, expected x1 < x2 and y1 < y2, got"
        " (x1, y1, x2, y2) = (60, 10, 60, 30); fix the label, or set validate.severity.E301: warning in params.yaml,"
        " which leaves out the box\n"
    ) in out
    assert [(row["code"], row["severity"], row["line"]) for row in findings("seen")] == [
        ("E301", "error", 4), ("E303", "fixed", 4),
    ]  # fmt: skip
    assert cv2.imread("seen/findings.jpg").shape[1] > 700
    # A warning does not stop the line, and so not this.
    code, out, _ = check("in", E301="warning")
    assert code == 0
    assert "\n1 of severity warning:\n  in/Annotations/2.xml:4: E301 box has no area" in out


def test_ten_are_told_of_many_and_what_reads_the_same_is_told_once(check, tmp_path):
    write_source(tmp_path / "in", {1: [GOOD, *(("cat", (x, 40, x, 45)) for x in range(50, 63))]})
    code, out, _ = check("in")
    assert code == 1
    assert out.count("E301 box has no area") == 10
    assert "  ... and 3 more (all in reports/check/findings.json)\n" in out
    for number in range(6):
        photo(tmp_path / "coco" / "images" / f"{number}.png", number)
    good = {"images": [{"id": 0, "file_name": "0.png", "width": 100, "height": 50}], "annotations": [
        {"id": 1, "image_id": 0, "category_id": 1, "bbox": [10, 10, 30, 20]}], "categories": [{"id": 1, "name": "cat"}],
    }  # fmt: skip
    (tmp_path / "coco" / "annotations").mkdir()
    (tmp_path / "coco" / "annotations" / "a.json").write_text(json.dumps(good))
    (tmp_path / "coco" / "annotations" / "b.json").write_text(json.dumps(good, indent=1)[:-60])
    out = check("coco", "--from", "coco")[1]
    assert "\n5 of severity error:\n" in out
    assert out.count("E201 ") - out.count("\nE201 ") == 1
    assert "... and 4 more" in out


def test_a_split_of_the_sources_own_is_checked_for_leaks(check, tmp_path):
    folder = write_source(tmp_path / "in", train=(0, 1, 2), val=(3, 4), test=(5,))
    code, out, _ = check("in")
    assert code == 0
    assert "; its own split: train 3, val 2, test 1\n" in out
    assert "\nIts own split does not leak.\n" in out
    shutil.copy(folder / "JPEGImages/0.png", folder / "JPEGImages/5.png")
    code, out, _ = check("in", E107="off")
    assert code == 1
    assert (
        "\nIts own split leaks (1 pair of images):\n"
        "  images/JPEGImages/0.png (train) and images/JPEGImages/5.png (test): identical bytes\n"
    ) in out
    (leak,) = json.loads(Path("reports/check/split_leaks.json").read_text())
    assert (leak["split"], leak["other_split"]) == ("train", "test")


def test_labels_of_whole_images_are_checked_as_well(check, tmp_path):
    for number in range(6):
        photo(tmp_path / "in" / ("cat", "dog")[number % 2] / f"{number}.png", number)
    (tmp_path / "in" / "dog" / "1.png").write_bytes(b"no image")
    code, out, _ = check("in")
    assert code == 1
    assert "in: 6 images, 6 labels (cat 3, dog 3)\n" in out
    assert "  in/dog/1.png: E101 image cannot be decoded" in out


def test_a_data_set_that_nothing_is_left_of_would_stop_the_line(check, tmp_path):
    write_source(tmp_path / "in", {number: [("cat", (5, 5, 5, 9))] for number in range(6)})
    code, out, _ = check("in", E301="warning")
    assert code == 1
    assert "\nin: no box is left, expected at least one, got 0 after 6 left out\n" in out


def test_classes_that_are_given_are_the_ones_that_there_should_be(check, tmp_path):
    write_source(tmp_path / "in", {0: [("cta", (10, 10, 40, 30))]})
    assert check("in")[0] == 0
    code, out, _ = check("in", "--classes", "dog,cat")
    assert code == 1
    assert "  in/Annotations/0.xml:3: E206 unknown class, expected one of: dog, cat, got 'cta'" in out
    assert "labels (dog 0, cat 5)" in out


def test_what_validate_has_judged_is_not_found_twice(check, tmp_path):
    twice = [("cat", (10, 10, 40, 30)), ("cat", (10, 10, 40, 31)), ("cat", (60, 10, 60, 30))]
    write_source(tmp_path / "in", {2: twice})
    (tmp_path / "in" / "Annotations" / "4.xml").unlink()
    check("in", E301="warning")
    assert sorted(row["code"] for row in findings()) == ["E106", "E301", "E308"]
    from plumbline.intake import read_source

    data = read_source("in", "auto", ("cat",), tmp_path / "dataset", lambda line: None)
    write_dataset(data, tmp_path / "dataset")
    paths = {"dataset": "dataset", "out": "judged", "findings": "f.json", "sheet": "f.jpg", "metrics": "m.json"}
    assert validate.main([word for name, path in paths.items() for word in (f"--{name}", path)]) == 0
    assert sorted(read_dataset(tmp_path / "judged").findings["code"]) == ["E106", "E301", "E308"]
    # The box of no area has been left out.
    assert check("judged")[0] == 0
    assert sorted(row["code"] for row in findings()) == ["E106", "E308"]
    code, _, err = check("judged", "--classes", "dog")
    assert code == 1
    assert err == "error: judged: a dataset folder, expected its own classes (cat); leave --classes away\n"


def test_a_repair_that_is_taken_back_is_so_wherever_the_source_stands_and_those_of_others_do_no_harm(check, tmp_path):
    write_source(tmp_path / "in", {3: [GOOD, ("cat", (60, 10, 100.5, 30))]})
    from plumbline.checks import judge
    from plumbline.checks.settings import load_settings
    from plumbline.intake import read_source

    assert check("in")[0] == 0
    data = read_source("in", "auto", None, tmp_path / "work", lambda line: None)
    (edit_id,) = judge(data, load_settings(tmp_path / "params.yaml")).edits["edit_id"]
    (tmp_path / "in").rename(tmp_path / "elsewhere")
    code, out, err = check("elsewhere", undo=[edit_id, "edit-0123456789ab"])
    assert code == 1
    assert "  elsewhere/Annotations/3.xml:4: E303 box is outside its image" in out
    assert "validate.undo: 1 of 2 belong to no repair here\n" in err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["none"], "none: nothing there to read images from, expected "),
        (["empty"], "empty: empty, expected images and their labels; "),
        (["text"], "text: no labels of a known format, expected one of "),
        (["in", "--params", "none.yaml"], "none.yaml: no such file, expected the project's params.yaml; run in its"),
        (["in", "--out", "in/seen"], "in/seen: lies in the source in, which is only read; name a folder outside"),
        (["."], "reports/check: lies in the source ., which is only read; name a folder outside with --out"),
        (["in", "--out", "params.yaml"], "params.yaml: a file, expected a folder, or nothing yet; name another one"),
        (["in", "--out", "params.yaml/x"], "params.yaml/x: Not a directory, expected a place to write to; "),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing_behind(check, tmp_path, arguments, expected):
    write_source(tmp_path / "in")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("hello\n")
    before = sorted(tmp_path.rglob("*"))
    code, out, err = check(*arguments)
    assert (code, out) == (1, "")
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert lines[0] == err.splitlines()[-1]
    assert lines[0].startswith(f"error: {expected}")
    assert [path for path in sorted(tmp_path.rglob("*")) if path not in before] == [tmp_path / "params.yaml"]


def test_a_wrong_value_is_named_with_its_line(check, tmp_path):
    write_source(tmp_path / "in")
    code, _, err = check("in", E301="fatal")
    assert code == 1
    assert err.startswith("error: params.yaml:")
    assert "wrong value for validate.severity.E301, expected 'error', 'warning' or 'off', got 'fatal'" in err


def test_who_reads_only_the_first_lines_sees_no_traceback(check, tmp_path):
    write_source(tmp_path / "in")
    check("in")
    code = "import sys; from plumbline.commands import main; sys.exit(main(['check', 'in']))"
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as stdout:
        ended = subprocess.run([sys.executable, "-c", code], stdout=stdout, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == ["in: 12 files, labels of the format voc", "6 of 6 images scanned"]
