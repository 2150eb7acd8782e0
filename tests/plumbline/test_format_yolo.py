"""YOLO's own ways: rows, polygons, class numbers, and where labels are."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plumbline.boxes import xyxy_to_cxcywhn
from plumbline.errors import DatasetError
from plumbline.formats import yolo
from plumbline.formats.reading import ReadResult
from plumbline.image_scan import ImageScan, scan_image

CLASS_NAMES = ("cat", "dog")


def add_image(path: Path, width: int = 64, height: int = 32) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((height, width), 99, np.uint8))


def read(folder: Path) -> ReadResult:
    scans = {image: scan_image(folder / image) for image in yolo.find_images(folder)}
    return yolo.read(folder, CLASS_NAMES, scans)


@pytest.fixture
def source(tmp_path) -> Path:
    """A folder with one image, a.png of 64 x 32, and room for its label."""
    add_image(tmp_path / "images" / "a.png")
    (tmp_path / "labels").mkdir()
    return tmp_path


def read_one(source: Path, text: str | bytes) -> ReadResult:
    data = text.encode() if isinstance(text, str) else text
    (source / "labels" / "a.txt").write_bytes(data)
    return read(source)


def test_a_box_is_centre_and_size_as_fractions(source):
    (row,) = read_one(source, "1 0.5 0.25 0.25 0.5\n").rows
    assert (row.class_id, row.class_name) == (1, "dog")
    assert row.xyxy == (24, 0, 40, 16)
    assert row.polygon is None


def test_a_polygon_is_kept_and_its_bounds_are_the_box(source):
    (row,) = read_one(source, "0 0.25 0.25 0.75 0.5 0.5 1.0").rows
    assert row.polygon == (16, 8, 48, 16, 32, 32)
    assert row.xyxy == (16, 8, 48, 32)


def test_lines_are_the_files_own(source):
    result = read_one(source, "\n0 .5 .5 .1 .1\n\n \t\nrubbish\n1 .5 .5 .1 .1")
    assert [row.source_line for row in result.rows] == [2, 6]
    assert [finding.source_line for finding in result.findings] == [5]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0 .5 .5 .1", "expected 5 numbers .* got 4 columns"),
        ("0", "got 1 columns"),
        ("0 .5 .5 .1 .1 .9", "got 6 columns"),
        ("0 .1 .1 .2 .2 .3 .3 .4", "got 8 columns"),
        ("0 .5 .5 .1 nan", "expected a finite number, got 'nan'"),
        ("0 .5 .5 inf .1", "expected a finite number, got 'inf'"),
        ("0 .5 ,5 .1 .1", "expected a finite number, got ',5'"),
        ("cat .5 .5 .1 .1", "expected a finite number, got 'cat'"),
        ("0.5 .5 .5 .1 .1", "expected a whole number as class, got '0.5'"),
        ("0 1e308 .5 1e308 .1", "too large"),
    ],
)
def test_a_bad_row_is_a_finding_and_the_others_are_rows(source, row, message):
    result = read_one(source, f"0 .5 .5 .1 .1\n{row}\n1 .5 .5 .1 .1\n")
    assert [kept.class_id for kept in result.rows] == [0, 1]
    (finding,) = result.findings
    assert (finding.code, finding.source_line, finding.image) == ("malformed_label", 2, "images/a.png")
    assert re.search(message, finding.message)


def test_what_is_not_text_is_one_finding(source):
    (finding,) = read_one(source, b"0 .5 .5 .1 .1\n\xff\n").findings
    assert (finding.code, finding.source_line) == ("malformed_label", 0)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("data.yaml", "names: [zebra, dog, cat]\n"),
        ("data.yaml", "names:\n  0: zebra\n  1: dog\n  2: cat\n"),
        ("dataset.yml", "path: somewhere\nnames:\n- zebra\n- dog\n- cat\n"),
        ("classes.txt", "zebra\r\ndog\r\ncat\r\n"),
        ("labels/classes.txt", "zebra\ndog\ncat"),
    ],
)
def test_numbers_are_mapped_by_name(source, file, text):
    (source / file).write_text(text)
    result = read_one(source, "".join(f"{index} .5 .5 .1 .1\n" for index in (0, 1, 2, 3, -1)))
    assert [(row.class_name, row.class_id) for row in result.rows] == [
        ("zebra", -1),
        ("dog", 1),
        ("cat", 0),
        ("3", -1),
        ("-1", -1),
    ]
    assert result.findings == []


def test_without_names_a_number_is_the_class_id(source):
    (source / "data.yaml").write_text("train: images\n")
    rows = read_one(source, "0 .5 .5 .1 .1\n1.0 .5 .5 .1 .1\n2 .5 .5 .1 .1\n").rows
    assert [(row.class_name, row.class_id) for row in rows] == [("cat", 0), ("dog", 1), ("2", -1)]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"train: x\nnames: [a, b\nval: y: z\n", r"data\.yaml:\d+: not YAML"),
        (b"names: \xff\n", r"data\.yaml: not YAML"),
        (b"names: 7\n", r"data\.yaml: expected `names` as a list, or a mapping of number to name, got 7"),
        (b"names: {cat: 0}\n", r"data\.yaml: expected `names`"),
    ],
)
def test_class_names_that_cannot_be_read_are_an_error(source, data, message):
    (source / "data.yaml").write_bytes(data)
    with pytest.raises(DatasetError, match=message) as caught:
        read_one(source, "0 .5 .5 .1 .1\n")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/a.png", "labels/a.txt"),
        ("images/train/a.jpg", "labels/train/a.txt"),
        ("train/images/a.b.JPG", "train/labels/a.b.txt"),
        ("images/x/images/a.png", "images/x/labels/a.txt"),
        ("images/a.png", "images/a.txt"),
        ("a.png", "a.txt"),
        ("deep/er/a.png", "deep/er/a.txt"),
    ],
)
def test_the_label_is_found(tmp_path, image, label):
    add_image(tmp_path / image)
    (tmp_path / label).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / label).write_text("0 .5 .5 .1 .1\n")
    assert yolo.sniff(tmp_path)
    result = read(tmp_path)
    assert [(row.image, row.source_file) for row in result.rows] == [(image, str(tmp_path / label))]
    assert result.findings == []


def test_an_empty_label_file_says_that_there_is_nothing(source):
    result = read_one(source, "")
    assert (result.rows, result.findings) == ([], [])


def test_other_texts_and_pictures_are_left_alone(source):
    (source / "README.dataset.txt").write_text("Cells\n")
    (source / "train.txt").write_text("images/a.png\n")
    (source / "labels" / "classes.txt").write_text("cat\ndog\n")
    add_image(source / "results.png")
    result = read_one(source, "0 .5 .5 .1 .1\n")
    assert (len(result.rows), result.findings) == (1, [])
    assert yolo.find_images(source) == ["images/a.png"]


def test_a_label_beside_a_missing_image_is_told_in_a_flat_folder(tmp_path):
    add_image(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "b.txt").write_text("0 .5 .5 .1 .1\n")
    (tmp_path / "notes.txt").write_text("five words are no label\n")
    findings = read(tmp_path).findings
    assert [(finding.code, Path(finding.source_file).name) for finding in findings] == [("missing_image", "b.txt")]


def test_rows_of_an_image_without_a_size_are_told_not_placed(source):
    (source / "images" / "a.png").write_bytes(b"rubbish")
    result = read_one(source, "0 .5 .5 .1 .1\n1 .5 .5 .1 .1\n")
    assert result.rows == []
    (finding,) = result.findings
    assert (finding.code, finding.image) == ("unreadable_image", "images/a.png")
    assert finding.message.startswith("2 rows cannot be placed")


corner = st.floats(-50, 700, allow_nan=False)


@given(xyxy=st.tuples(corner, corner, corner, corner), width=st.integers(1, 4000), height=st.integers(1, 4000))
def test_boxes_come_back_from_fractions(tmp_path_factory, xyxy, width, height):
    folder = tmp_path_factory.mktemp("round")
    (folder / "labels").mkdir()
    fractions = xyxy_to_cxcywhn(np.array([xyxy]), (width, height))[0].tolist()
    (folder / "labels" / "a.txt").write_text(f"1 {' '.join(repr(value) for value in fractions)}\n")
    scan = ImageScan("", width, height, 0, readable=True, brightness=0, contrast=0, sharpness=0, problem="")
    (row,) = yolo.read(folder, CLASS_NAMES, {"images/a.png": scan}).rows
    assert row.xyxy == pytest.approx(xyxy, abs=1e-9)
