"""YOLO's own ways: rows, polygons, class numbers, and where labels are."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline import faults
from plumbline.boxes import xyxy_to_cxcywhn
from plumbline.errors import DatasetError
from plumbline.formats import yolo
from plumbline.formats.reading import ImageRecord, LabelRow, ReadResult, build_dataset
from plumbline.image_scan import ImageScan, scan_image
from plumbline.manifest import CLASS_OUT_OF_RANGE_ID
from plumbline.sources.folder import open_source

CLASS_NAMES = ("cat", "dog")


def add_image(path: Path, width: int = 64, height: int = 32) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((height, width), 99, np.uint8))


def read(folder: Path) -> ReadResult:
    source = open_source(str(folder))
    scans = {image: scan_image(folder / image) for image in yolo.find_images(source)}
    return yolo.read(source, CLASS_NAMES, scans)


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
    assert row.polygon == ((16, 8, 48, 16, 32, 32),)
    assert row.xyxy == (16, 8, 48, 32)


def test_lines_are_the_files_own(source):
    result = read_one(source, "\n0 .5 .5 .1 .1\n\n \t\nrubbish\n1 .5 .5 .1 .1")
    assert [row.source_line for row in result.rows] == [2, 6]
    assert [finding.source_line for finding in result.findings] == [5]


@pytest.mark.parametrize(
    ("row", "message", "code"),
    [
        ("0 .5 .5 .1", "expected 5 numbers .* got 4 columns", faults.MALFORMED_ROW),
        ("0", "got 1 columns", faults.MALFORMED_ROW),
        ("0 .5 .5 .1 .1 .9", "got 6 columns", faults.MALFORMED_ROW),
        ("0 .1 .1 .2 .2 .3 .3 .4", "got 8 columns", faults.MALFORMED_ROW),
        ("0 .5 .5 .1 nan", "expected a finite number, got 'nan'", faults.NOT_FINITE),
        ("0 .5 .5 inf .1", "expected a finite number, got 'inf'", faults.NOT_FINITE),
        ("0 .5 .5 .1 1e999", "expected a finite number, got '1e999'", faults.NOT_FINITE),
        ("nan .5 .5 .1 .1", "expected a finite number, got 'nan'", faults.NOT_FINITE),
        ("0 .5 ,5 .1 .1", "expected a number, got ',5'", faults.MALFORMED_ROW),
        ("0 .5 .5 .1 1_0", "expected a number, got '1_0'", faults.MALFORMED_ROW),
        ("cat .5 .5 .1 .1", "expected a number, got 'cat'", faults.MALFORMED_ROW),
        ("0.5 .5 .5 .1 .1", "expected a whole number as class, got '0.5'", faults.MALFORMED_ROW),
        ("0 1e308 .5 1e308 .1", "too large", faults.NOT_FINITE),
        ("0 0 0 1 1 1e308 0", "too large", faults.NOT_FINITE),
        ("0 0 0 .5 nan 1 0", "expected a finite number, got 'nan'", faults.NOT_FINITE),
        ("inf .5 .5 .1 .1", "expected a finite number, got 'inf'", faults.NOT_FINITE),
    ],
)
def test_a_bad_row_is_a_finding_and_the_others_are_rows(source, row, message, code):
    result = read_one(source, f"0 .5 .5 .1 .1\n{row}\n1 .5 .5 .1 .1\n")
    assert [kept.class_id for kept in result.rows] == [0, 1]
    (finding,) = result.findings
    assert (finding.code, finding.source_line, finding.image) == (code, 2, "images/a.png")
    assert re.search(message, finding.message)


def test_what_is_not_utf8_is_told_and_read_on(source):
    result = read_one(source, b"0 .5 .5 .1 .1\n\xe9\n1 .5 .5 .1 .1\n")
    assert [row.source_line for row in result.rows] == [1, 3]
    found = [(finding.code, finding.source_line, finding.image) for finding in result.findings]
    assert found == [(faults.NOT_UTF8, 2, "images/a.png"), (faults.MALFORMED_ROW, 2, "images/a.png")]


def test_binary_data_is_one_finding(source):
    (finding,) = read_one(source, b"0 .5 .5 .1 .1\n\x89PNG\0\0\n\0\n").findings
    assert (finding.code, finding.source_line) == (faults.MALFORMED_LABEL, 2)


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
        ("3", CLASS_OUT_OF_RANGE_ID),
        ("-1", CLASS_OUT_OF_RANGE_ID),
    ]
    assert result.findings == []
    assert result.declared_names == ("zebra", "dog", "cat")


def test_without_names_a_number_is_the_class_id(source):
    (source / "data.yaml").write_text("train: images\n")
    rows = read_one(source, "0 .5 .5 .1 .1\n1.0 .5 .5 .1 .1\n2 .5 .5 .1 .1\n").rows
    assert [(row.class_name, row.class_id) for row in rows] == [("cat", 0), ("dog", 1), ("2", CLASS_OUT_OF_RANGE_ID)]


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
        ("Images/a.png", "Labels/a.txt"),
        ("Images/a.png", "labels/a.txt"),
    ],
)
def test_the_label_is_found(tmp_path, image, label):
    add_image(tmp_path / image)
    (tmp_path / label).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / label).write_text("0 .5 .5 .1 .1\n")
    assert yolo.sniff(open_source(str(tmp_path)))
    result = read(tmp_path)
    assert [(row.image, row.source_file) for row in result.rows] == [(image, str(tmp_path / label))]
    assert result.findings == []


@pytest.mark.parametrize("text", ["", "0 .5", "cat 0.5 0.5 0.1 0.1\n", "nan nan nan nan nan"])
def test_a_label_without_an_image_is_told_however_bad(source, text):
    (source / "labels" / "b.txt").write_text(text)
    findings = read_one(source, "").findings
    assert [(f.code, Path(f.source_file).name) for f in findings] == [(faults.MISSING_IMAGE, "b.txt")]


def test_names_may_stand_in_darknets_file(tmp_path):
    """As CVAT exports "YOLO 1.1"."""
    add_image(tmp_path / "obj_train_data" / "a.png")
    (tmp_path / "obj_train_data" / "a.txt").write_text("1 .5 .5 .1 .1\n")
    (tmp_path / "obj.names").write_text("dog\ncat\n")
    (tmp_path / "train.txt").write_text("data/obj_train_data/a.png\n")
    result = read(tmp_path)
    assert [(row.class_name, row.class_id) for row in result.rows] == [("cat", 0)]
    assert result.declared_names == ("dog", "cat")
    assert (result.splits, result.findings) == ({"obj_train_data/a.png": "train"}, [])


def test_classes_txt_may_be_in_capitals(source):
    (source / "Classes.TXT").write_text("dog\ncat\n")
    result = read_one(source, "1 .5 .5 .1 .1\n")
    assert ([row.class_name for row in result.rows], result.findings) == (["cat"], [])


def test_a_name_given_twice_is_one_class_and_a_blank_one_is_none(source):
    (source / "data.yaml").write_text("names: [cat, cat, '']\n")
    result = read_one(source, "0 .5 .5 .1 .1\n1 .5 .5 .1 .1\n2 .5 .5 .1 .1\n")
    assert result.declared_names == ("cat",)
    assert [row.class_id for row in result.rows] == [0, 0, -1]


def test_rows_that_end_as_on_old_macs_are_no_polygon(source):
    rows = read_one(source, "0 .5 .5 .1 .1\r1 .5 .5 .1 .1\r0 .2 .2 .1 .1\r").rows
    assert [(row.source_line, row.class_name, row.polygon) for row in rows] == [
        (1, "cat", None),
        (2, "dog", None),
        (3, "cat", None),
    ]


def test_an_empty_label_file_says_that_there_is_nothing(source):
    result = read_one(source, "")
    assert (result.rows, result.findings) == ([], [])


def test_other_texts_and_pictures_are_left_alone(source):
    (source / "README.dataset.txt").write_text("Cells\n")
    (source / "train.txt").write_text("images/a.png\n")
    (source / "labels" / "classes.txt").write_text("cat\ndog\n")
    (source / "labels" / "README.txt").write_text("Drawn by hand\n0 .5 .5 .1 .1\n")
    add_image(source / "results.png")
    result = read_one(source, "0 .5 .5 .1 .1\n")
    assert (len(result.rows), result.findings) == (1, [])
    assert yolo.find_images(open_source(str(source))) == ["images/a.png"]


def test_a_label_beside_a_missing_image_is_told_in_a_flat_folder(tmp_path):
    add_image(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "b.txt").write_text("0 .5 .5 .1 .1\n")
    (tmp_path / "notes.txt").write_text("five words are no label\n")
    findings = read(tmp_path).findings
    assert [(finding.code, Path(finding.source_file).name) for finding in findings] == [(faults.MISSING_IMAGE, "b.txt")]


def test_rows_of_an_image_without_a_size_are_told_not_placed(source):
    (source / "images" / "a.png").write_bytes(b"rubbish")
    result = read_one(source, "0 .5 .5 .1 .1\n1 .5 .5 .1 .1\n")
    assert result.rows == []
    (finding,) = result.findings
    assert (finding.code, finding.image) == (faults.UNREADABLE_IMAGE, "images/a.png")
    assert finding.message.startswith("2 rows cannot be placed")


def test_two_label_files_about_one_image_are_told(source):
    (source / "images" / "a.txt").write_text("1 .5 .5 .1 .1\n")
    result = read_one(source, "0 .5 .5 .1 .1\n")
    assert [row.class_name for row in result.rows] == ["cat"]
    (finding,) = result.findings
    assert (finding.code, finding.image) == (faults.SECOND_LABEL, "images/a.png")
    assert finding.source_file == str(source / "images" / "a.txt")
    assert str(source / "labels" / "a.txt") in finding.message


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"labels/x/classes.txt": "cat\n", "labels/y/classes.txt": "cat\ndog\n"}, ""),
        ({"labels/x/classes.txt": "cat\n", "labels/y/classes.txt": "dog\n"}, r"y/classes\.txt:1: expected class 'cat'"),
        ({"x/data.yaml": "names: [cat]", "y/data.yaml": "names: [dog]"}, "more than one data set"),
        ({"classes.txt": "\udcff"}, r"classes\.txt: not UTF-8"),
        ({"data.yaml": "names: [cat]\nkpt_shape: [17, 3]"}, "keypoints"),
        ({"data.yaml": "names: [cat]\n\ntrain: 7"}, r"data\.yaml:3: expected `train` as a folder"),
        ({"data.yaml": "[" * 500}, r"data\.yaml.*not YAML"),
        ({"data.yaml": "names: {.inf: cat}"}, r"data\.yaml: expected `names`"),
        ({"deep/data.yaml": "names: [dog]", "data.yaml": "names: [cat]"}, ""),
    ],
)
def test_one_data_set_has_one_list_of_classes(source, files, message):
    for name, text in files.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(text.encode(errors="surrogateescape"))
    if not message:
        assert [row.class_name for row in read_one(source, "0 .5 .5 .1 .1\n").rows] == ["cat"]
        return
    with pytest.raises(DatasetError, match=message):
        read_one(source, "0 .5 .5 .1 .1\n")


def make_images(folder: Path, *images: str) -> None:
    for image in images:
        add_image(folder / image)
        label = folder / image.replace("images/", "labels/").replace(".png", ".txt")
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text("0 .5 .5 .1 .1\n")


@settings(max_examples=100, deadline=None)
@given(data=st.one_of(st.binary(max_size=60), st.text("names:[]{}&*!<-?|>'\"\n #01ab", max_size=60).map(str.encode)))
def test_any_data_yaml_is_read_or_refused(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("yaml")
    make_images(folder, "images/a.png")
    (folder / "data.yaml").write_bytes(data)
    try:
        result = read(folder)
    except DatasetError as error:
        assert "data.yaml" in str(error)  # noqa: PT017 - it need not be raised
    else:
        assert len(result.rows) == 1


def write(folder: Path, *rows: LabelRow, split: str = "", names: tuple[str, ...] = ("a.png",)) -> list[str]:
    for name in names:
        add_image(folder / "images" / name)
    scans = {name: scan_image(folder / "images" / name) for name in names}
    records = [ImageRecord(name, "", "") for name in names]
    dataset = build_dataset(records, scans, ReadResult(rows=list(rows), splits={"a.png": split}), CLASS_NAMES, folder)
    (folder / "out").mkdir()
    return yolo.write(dataset, folder / "out")


def test_writes_labels_names_and_lists(tmp_path):
    rows = [
        LabelRow("a.png", 1, "dog", (16.0, 8.0, 48.0, 24.0), "", 1),
        LabelRow("a.png", -1, 'no "x":\x85-', (0.0, 0.0, 64.0, 32.0), "", 2),
        LabelRow("a.png", CLASS_OUT_OF_RANGE_ID, "7", (0.0, 0.0, 64.0, 32.0), "", 3),
    ]
    assert write(tmp_path, *rows, split="test") == []
    out = tmp_path / "out"
    assert (out / "labels" / "a.txt").read_text() == "1 0.5 0.5 0.5 0.5\n2 0.5 0.5 1.0 1.0\n7 0.5 0.5 1.0 1.0\n"
    assert (out / "test.txt").read_text() == "./images/a.png\n"
    names = 'names:\n  0: "cat"\n  1: "dog"\n  2: "no \\"x\\":\\U00000085-"\n'
    assert (out / "data.yaml").read_text() == f"train: []\nval: []\ntest: test.txt\n{names}"
    result = read(out)
    assert [(row.class_id, row.class_name, row.xyxy) for row in result.rows] == [
        (row.class_id, row.class_name, row.xyxy) for row in rows
    ]
    assert result.splits == {"images/a.png": "test"}


def test_spaces_around_a_class_name_are_a_loss(tmp_path):
    row = LabelRow("a.png", -1, " dog\t", (16.0, 8.0, 48.0, 24.0), "", 1)
    assert write(tmp_path, row) == ["spaces around a class name (YOLO cannot hold more): 1"]
    assert [row.class_name for row in read(tmp_path / "out").rows] == ["dog"]


def test_a_folder_called_train_is_not_taken_for_a_split_that_the_dataset_has_not(tmp_path):
    assert write(tmp_path, names=("train/a.png",)) == []
    assert read(tmp_path / "out").splits == {}


def test_one_ring_is_written_as_a_polygon_and_what_is_not_is_counted(tmp_path):
    ring = (16.0, 8.0, 48.0, 8.0, 32.0, 24.0)
    rows = [
        LabelRow("a.png", 0, "cat", (16.0, 8.0, 48.0, 24.0), "", 1, polygon=(ring,)),
        LabelRow("a.png", 0, "cat", (16.0, 8.0, 48.01, 24.0), "", 2, polygon=(ring,)),
        LabelRow("a.png", 0, "cat", (16.0, 8.0, 50.0, 24.0), "", 3, polygon=(ring,)),
        LabelRow("a.png", 0, "cat", (16.0, 8.0, 48.0, 24.0), "", 4, polygon=(ring, ring), crowd=True),
        LabelRow("a.png", 0, "cat", (16.0, 8.0, 48.0, 24.0), "", 5, polygon=(ring[:4],), rle="{}"),
    ]
    assert write(tmp_path, *rows) == [
        "masks became their boxes (YOLO cannot hold more): 1",
        "crowd regions became boxes like any other (YOLO cannot hold more): 1",
        "polygons became their boxes (YOLO cannot hold more): 3",
    ]
    result = read(tmp_path / "out")
    assert [row.polygon for row in result.rows] == [(ring,), (ring,), None, None, None]
    assert [row.xyxy for row in result.rows[:3]] == [(16, 8, 48, 24), (16, 8, 48, 24), (16, 8, 50, 24)]


def test_boxes_of_an_image_without_a_size_are_counted(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "b.png").write_bytes(b"rubbish")
    scan = scan_image(tmp_path / "images" / "b.png")
    rows = [LabelRow("b.png", 0, "cat", (16.0, 8.0, 48.0, 24.0), "", 1)]
    dataset = build_dataset(
        [ImageRecord("b.png", "", "")], {"b.png": scan}, ReadResult(rows=rows), CLASS_NAMES, tmp_path
    )
    (tmp_path / "out").mkdir()
    assert yolo.write(dataset, tmp_path / "out") == [
        "boxes of images that cannot be decoded (YOLO cannot hold more): 1"
    ]


def test_two_images_that_would_share_a_label_file_are_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"a\.png: would share the label file labels/a\.txt with a\.bmp"):
        write(tmp_path, names=("a.png", "a.bmp"))


corner = st.floats(-50, 700, allow_nan=False)


@given(xyxy=st.tuples(corner, corner, corner, corner), width=st.integers(1, 4000), height=st.integers(1, 4000))
def test_boxes_come_back_from_fractions(tmp_path_factory, xyxy, width, height):
    folder = tmp_path_factory.mktemp("round")
    (folder / "labels").mkdir()
    fractions = xyxy_to_cxcywhn(np.array([xyxy]), (width, height))[0].tolist()
    (folder / "labels" / "a.txt").write_text(f"1 {' '.join(repr(value) for value in fractions)}\n")
    scan = ImageScan("", width, height, 0, readable=True, brightness=0, contrast=0, sharpness=0, problem="")
    (row,) = yolo.read(open_source(str(folder)), CLASS_NAMES, {"images/a.png": scan}).rows
    assert row.xyxy == pytest.approx(xyxy, abs=1e-9)
