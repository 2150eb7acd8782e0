"""Pascal VOC's own ways: XML, corners, and which image a file is about."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from plumbline import faults
from plumbline.formats import voc
from plumbline.formats.reading import ReadResult
from plumbline.image_scan import ImageScan, scan_image
from plumbline.sources.folder import open_source

CLASS_NAMES = ("cat", "dog")


def add_image(path: Path, width: int = 64, height: int = 32) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((height, width), 99, np.uint8))


def xml(*objects: str, filename: str = "a.png", head: str = "", size: str = "") -> str:
    return f"{head}<annotation>\n<filename>{filename}</filename>\n{size}{''.join(objects)}</annotation>\n"


def box(corners: str = "1 2 3 4", name: str = "cat", extra: str = "") -> str:
    values = zip(("xmin", "ymin", "xmax", "ymax"), corners.split(" "), strict=True)
    inside = "".join(f"<{tag}>{value}</{tag}>" for tag, value in values)
    return f"<object>\n<name>{name}</name>{extra}\n<bndbox>{inside}</bndbox>\n</object>\n"


def read(folder: Path) -> ReadResult:
    source = open_source(str(folder))
    scans = {image: scan_image(folder / image) for image in voc.find_images(source)}
    return voc.read(source, CLASS_NAMES, scans)


@pytest.fixture
def source(tmp_path) -> Path:
    """A folder with one image, a.png of 64 x 32, and room for its label."""
    add_image(tmp_path / "JPEGImages" / "a.png")
    (tmp_path / "Annotations").mkdir()
    return tmp_path


def read_one(source: Path, text: str | bytes) -> ReadResult:
    data = text.encode() if isinstance(text, str) else text
    (source / "Annotations" / "a.xml").write_bytes(data)
    return read(source)


@pytest.mark.parametrize(
    ("corners", "xyxy"),
    [
        ("1 2 3 4", (1, 2, 3, 4)),
        ("0 0 64 32", (0, 0, 64, 32)),
        ("5 5 5 5", (5, 5, 5, 5)),  # a click without a drag has no area, and must keep having none
        ("9 9 2 2", (9, 9, 2, 2)),
        ("-3 -4 900 901", (-3, -4, 900, 901)),
        ("1.25 2.5 1e1 4", (1.25, 2.5, 10, 4)),
    ],
)
def test_corners_are_taken_as_written(source, corners, xyxy):
    result = read_one(source, xml(box(corners)))
    assert [row.xyxy for row in result.rows] == [xyxy]
    assert result.findings == []


def test_each_object_knows_its_line(source):
    text = xml(box(name="cat"), "<!-- two\nlines -->\n\n", box(name="dog"))
    rows = read_one(source, text).rows
    lines = text.split("\n")
    assert [lines[row.source_line - 1] for row in rows] == ["<object>", "<object>"]
    assert [lines[row.source_line] for row in rows] == ["<name>cat</name>", "<name>dog</name>"]


@pytest.mark.parametrize(
    ("head", "encoding"),
    [
        ("", "utf-8"),
        ('<?xml version="1.0" encoding="ISO-8859-1"?>\n', "latin-1"),
        ("<?xml version='1.0' encoding='gbk'?>\n", "gbk"),
        ('<?xml version="1.0" encoding="UTF-16"?>\n', "utf-16"),
        # .NET says that of what it saves as UTF-8.
        ('<?xml version="1.0" encoding="utf-16"?>\n', "utf-8"),
    ],
)
def test_declared_encodings_are_read(source, head, encoding):
    name = "细胞" if encoding == "gbk" else "Zelle für Ärzte"
    result = read_one(source, xml(box(name=name), head=head).encode(encoding))
    assert [row.class_name for row in result.rows] == [name]
    assert result.findings == []


@pytest.mark.parametrize(
    ("head", "encoding", "code", "line"),
    [
        ("", "utf-8-sig", faults.BYTE_ORDER_MARK, 1),
        ("", "latin-1", faults.NOT_UTF8, 4),
        ('<?xml version="1.0" encoding="UTF-8"?>\n', "latin-1", faults.NOT_UTF8, 5),
        ('<?xml version="1.0" encoding="ascii"?>\n', "latin-1", faults.NOT_UTF8, 5),
    ],
)
def test_an_odd_encoding_is_told_and_read_on(source, head, encoding, code, line):
    result = read_one(source, xml(box(name="Zelle für Ärzte"), head=head).encode(encoding))
    assert [row.class_name for row in result.rows] == ["Zelle für Ärzte"]
    (finding,) = result.findings
    assert (finding.code, finding.source_line, finding.image) == (code, line, "JPEGImages/a.png")


@pytest.mark.parametrize(
    ("data", "line", "message"),
    [
        (b"", 1, "not well-formed"),
        (b"<annotation>\n<object>\n", 3, "not well-formed"),
        (b"\xff\xfe<\0a\0n", 1, "not well-formed"),
        (b'<?xml version="1.0" encoding="klingon"?>\n<annotation/>', 1, "unknown encoding: klingon"),
        (b'<?xml version="1.0" encoding="hex"?>\n<annotation/>', 1, "not a text encoding"),
        (b"\n<kml/>\n", 2, "expected <annotation>, got <kml>"),
        (b"<!-- -->\n\n<kml/>\n", 3, "expected <annotation>, got <kml>"),
        (b'\n<k:annotation xmlns:k="k">\n</k:annotation>', 2, "expected <annotation>, got <{k}annotation>"),
        (
            b'<!DOCTYPE a [\n<!ENTITY l "lol">\n<!ENTITY m "&l;&l;&l;">]>\n<annotation>&m;</annotation>',
            2,
            "entities in XML are refused",
        ),
        (
            b'<!DOCTYPE a [\n<!ENTITY x SYSTEM "file:///etc/passwd">]>\n<annotation>&x;</annotation>',
            2,
            "entities in XML are refused",
        ),
    ],
)
def test_a_file_that_is_no_voc_label_is_one_finding(source, data, line, message):
    result = read_one(source, data)
    (finding,) = result.findings
    assert (finding.code, finding.image) == (faults.MALFORMED_LABEL, "JPEGImages/a.png")
    assert message in finding.message
    assert finding.source_line == line
    assert result.rows == []


@pytest.mark.parametrize(
    ("item", "message", "code"),
    [
        (box("nan 2 3 4"), "<xmin>: expected a finite number, got 'nan'", faults.NOT_FINITE),
        (box("1 -inf 3 4"), "<ymin>: expected a finite number", faults.NOT_FINITE),
        (box(f"1 2 {'9' * 400} 4"), "<xmax>: expected a finite number", faults.NOT_FINITE),
        (box("1 2 three 4"), "<xmax>: expected a number, got 'three'", faults.MALFORMED_ROW),
        (box("1 2 3 "), "<ymax>: expected a number, got ''", faults.MALFORMED_ROW),
        (box("1_0 2 30 4"), "<xmin>: expected a number, got '1_0'", faults.MALFORMED_ROW),
        (box("1 2 3 ²"), "<ymax>: expected a number, got '²'", faults.MALFORMED_ROW),
        (box(extra="<difficult>very</difficult>"), "<difficult>: expected a number", faults.MALFORMED_ROW),
        (box(extra="<difficult>nan</difficult>"), "<difficult>: expected a finite number", faults.NOT_FINITE),
        (box(name=" "), "no <name>", faults.MALFORMED_ROW),
        ("<object>\n<name>cat</name>\n</object>\n", "no <bndbox>", faults.MALFORMED_ROW),
    ],
)
def test_a_bad_object_is_a_finding_at_its_line_and_the_others_are_rows(source, item, message, code):
    result = read_one(source, xml(box(), item, box(name="dog")))
    assert [row.class_name for row in result.rows] == ["cat", "dog"]
    (finding,) = result.findings
    assert (finding.code, finding.source_line, finding.image) == (code, 7, "JPEGImages/a.png")
    assert message in finding.message


def test_the_box_of_a_part_is_not_the_objects(source):
    part = "<part><name>head</name><bndbox><xmin>0</xmin><ymin>0</ymin><xmax>1</xmax><ymax>1</ymax></bndbox></part>"
    rows = read_one(source, xml(box("5 6 7 8", extra=part))).rows
    assert [(row.class_name, row.xyxy) for row in rows] == [("cat", (5, 6, 7, 8))]


@pytest.mark.parametrize(
    ("text", "flag"), [("1", True), ("0", False), ("", False), ("True", True), ("Unspecified", False), ("0.4", True)]
)
def test_difficult_and_truncated_are_kept(source, text, flag):
    (row,) = read_one(source, xml(box(extra=f"<difficult>{text}</difficult>"))).rows
    assert (row.difficult, row.truncated) == (flag, False)
    (row,) = read_one(source, xml(box(extra=f"<truncated>{text}</truncated>"))).rows
    assert (row.difficult, row.truncated) == (False, flag)


@pytest.mark.parametrize(
    ("size", "codes"),
    [
        ("<size><width>64</width><height>32</height></size>", []),
        ("<size><width>32</width><height>64</height></size>", [faults.SIZE_MISMATCH]),
        ("<size><width>nan</width><height>64</height></size>", [faults.NOT_FINITE]),
        ("<size><width>0</width><height>0</height></size>", []),
        ("<size><width>wide</width><height>0</height></size>", [faults.MALFORMED_ROW]),
        ("", []),
    ],
)
def test_a_size_that_is_not_the_images_is_told(source, size, codes):
    result = read_one(source, xml(box(), size=size))
    assert [(finding.code, finding.source_line) for finding in result.findings] == [(code, 3) for code in codes]
    assert len(result.rows) == 1


@pytest.mark.parametrize(
    ("orientation", "size", "code"),
    [
        (1, "640x480", None),
        (1, "480x640", faults.SIZE_MISMATCH),
        (3, "480x640", faults.SIZE_MISMATCH),
        (5, "480x640", faults.EXIF_CONTRADICTS_LABEL),
        (8, "480x640", faults.EXIF_CONTRADICTS_LABEL),
        (6, "640x480", None),
        (6, "481x640", faults.SIZE_MISMATCH),
    ],
)
def test_a_size_before_exif_rotation_has_its_own_code(source, orientation, size, code):
    width, height = size.split("x")
    (source / "Annotations" / "a.xml").write_text(
        xml(box(), size=f"\n\n<size><width>{width}</width><height>{height}</height></size>")
    )
    scan = ImageScan("", 640, 480, 0, True, 0, 0, 0, "", exif_orientation=orientation)
    findings = voc.read(open_source(str(source)), CLASS_NAMES, {"JPEGImages/a.png": scan}).findings
    assert [(f.code, f.source_line, f.image) for f in findings] == ([(code, 5, "JPEGImages/a.png")] if code else [])


def test_an_image_that_cannot_be_read_keeps_its_boxes(source):
    (source / "JPEGImages" / "a.png").write_bytes(b"rubbish")
    result = read_one(source, xml(box(), size="<size><width>9</width><height>9</height></size>"))
    assert len(result.rows) == 1
    assert result.findings == []


@pytest.mark.parametrize(
    ("label", "filename", "image"),
    [
        ("Annotations/a.xml", "a.jpg", "JPEGImages/a.jpg"),
        ("Annotations/other.xml", "a.jpg", "JPEGImages/a.jpg"),
        ("Annotations/a.xml", r"C:\pictures\a.jpg", "JPEGImages/a.jpg"),
        ("Annotations/a.xml", "/home/me/a.jpg", "JPEGImages/a.jpg"),
        ("Annotations/a.xml", "gone.jpg", "JPEGImages/a.png"),
        ("Annotations/a.xml", "", "JPEGImages/a.PNG"),
        ("Annotations/a.b.xml", "a.b", "JPEGImages/a.b.jpg"),
        ("Annotations/a.xml", "a.jpg", "Annotations/a.jpg"),
        ("a.xml", "a.jpg", "a.jpg"),
        ("deep/er/a.xml", "a.jpg", "deep/er/a.jpg"),
        ("annotations/a.xml", "a.jpg", "images/a.jpg"),
        ("annotations/xmls/a.xml", "a.jpg", "images/a.jpg"),
        ("train/Annotations/a.xml", "a.jpg", "train/JPEGImages/a.jpg"),
        ("Annotations/train/a.xml", "a.jpg", "JPEGImages/train/a.jpg"),
        ("Annotations/a.xml", "a.jpg", "a.jpg"),
    ],
)
def test_the_image_is_found(tmp_path, label, filename, image):
    add_image(tmp_path / image)
    (tmp_path / label).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / label).write_text(xml(box(), filename=filename))
    result = read(tmp_path)
    assert [row.image for row in result.rows] == [image]
    assert result.findings == []


def test_an_image_of_the_same_name_in_another_split_is_not_taken(tmp_path):
    add_image(tmp_path / "train" / "JPEGImages" / "a.png")
    for split in ("train", "val"):
        (tmp_path / split / "Annotations").mkdir(parents=True)
        (tmp_path / split / "Annotations" / "a.xml").write_text(xml(box(name=split)))
    result = read(tmp_path)
    assert [row.class_name for row in result.rows] == ["train"]
    assert [(f.code, f.source_file) for f in result.findings] == [
        (faults.MISSING_IMAGE, str(tmp_path / "val" / "Annotations" / "a.xml"))
    ]


def test_two_label_files_about_one_image_are_told(source):
    (source / "Annotations" / "b.xml").write_text(xml(box()))
    result = read_one(source, xml(box()))
    (finding,) = result.findings
    assert (finding.code, finding.image) == (faults.SECOND_LABEL, "JPEGImages/a.png")
    assert finding.source_file.endswith("b.xml")
    assert re.search(r"a second label file for JPEGImages/a\.png, which .*a\.xml is about", finding.message)
    assert [Path(row.source_file).name for row in result.rows] == ["a.xml"]


def test_masks_and_hidden_files_are_no_images(source):
    add_image(source / "SegmentationClass" / "a.png")
    add_image(source / ".cache" / "a.png")
    add_image(source / "__MACOSX" / "a.png")
    (source / "JPEGImages" / "._a.png").write_bytes(b"rubbish")
    assert voc.find_images(open_source(str(source))) == ["JPEGImages/a.png"]


def test_linked_folders_are_followed_once(source):
    (source / "JPEGImages" / "loop").symlink_to(source, target_is_directory=True)
    assert voc.find_images(open_source(str(source))) == ["JPEGImages/a.png"]


def test_sniff_looks_into_xml_and_at_annotations(tmp_path):
    assert not voc.sniff(open_source(str(tmp_path)))
    (tmp_path / "map.xml").write_text("<kml/>")
    assert not voc.sniff(open_source(str(tmp_path)))
    (tmp_path / "a.xml").write_text(xml(box()))
    assert voc.sniff(open_source(str(tmp_path)))


def test_cvats_one_file_is_no_voc_label(tmp_path):
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / "a.xml").write_text("<annotations>\n<version>1.1</version></annotations>")
    assert not voc.sniff(open_source(str(tmp_path)))
    (tmp_path / "Annotations" / "b.xml").write_text("")
    assert voc.sniff(open_source(str(tmp_path)))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "<!-- <object> -->\n"),
        ("", "<a><![CDATA[\n<object>\n]]></a>"),
        ("", "<?note <object>?>\n"),
        ("<!DOCTYPE annotation>\n", ""),
        ('<?xml version="1.0"?>\n', "<objects/>\n<segmented/>"),
        ("", "<part>\n<object><name>no direct child</name></object>\n</part>"),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_lines_are_right_whatever_stands_around_an_object(source, before, after, newline):
    text = before + xml(box(), after, box(name="dog"))
    rows = read_one(source, text.replace("\n", newline)).rows
    lines = text.split("\n")
    assert [row.class_name for row in rows] == ["cat", "dog"]
    assert [lines[row.source_line] for row in rows] == ["<name>cat</name>", "<name>dog</name>"]


def test_bccd_is_read_whole(bccd):
    files = sorted((bccd / "Annotations").glob("*.xml"))
    texts = {str(path): path.read_text() for path in files}
    result = read(bccd)

    assert len(voc.find_images(open_source(str(bccd)))) == 364
    assert len(result.rows) == sum(text.count("<object>") for text in texts.values()) > 4000
    assert all(texts[row.source_file].split("\n")[row.source_line - 1].strip() == "<object>" for row in result.rows)
    assert len({(row.source_file, row.source_line) for row in result.rows}) == len(result.rows)
    assert result.findings == []
    lists = {part: (bccd / f"ImageSets/Main/{part}.txt").read_text().split() for part in ("train", "val", "test")}
    assert result.splits == {f"JPEGImages/{name}.jpg": part for part, names in lists.items() for name in names}
    assert len(result.splits) == 364


def test_bccds_two_boxes_without_area_stay_without(bccd):
    rows = [row for row in read(bccd).rows if row.xyxy[0] >= row.xyxy[2] or row.xyxy[1] >= row.xyxy[3]]
    assert [(Path(row.source_file).name, row.xyxy) for row in rows] == [
        ("BloodImage_00338.xml", (504, 337, 504, 337)),
        ("BloodImage_00343.xml", (181, 329, 181, 329)),
    ]
    for row in rows:
        following = Path(row.source_file).read_text().split("\n")[row.source_line - 1 : row.source_line + 11]
        assert following[0].strip() == "<object>"
        assert [re.sub(r"\D", "", line) for line in following if re.search("<[xy]m", line)] == [
            f"{value:.0f}" for value in row.xyxy
        ]
