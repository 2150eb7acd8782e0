"""CVAT's XML: what is read from it and found in it, line by line, and what comes back when it is written."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from xml.sax.saxutils import quoteattr

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline import faults
from plumbline.errors import DatasetError
from plumbline.formats import cvat
from plumbline.formats.reading import ImageRecord, LabelRow, ReadResult, build_dataset
from plumbline.image_scan import ImageScan, scan_image
from plumbline.sources import open_source

GOLDEN = Path(__file__).parent.parent / "golden" / "cvat" / "annotations.xml"
CLASS_NAMES = ("cat", "dog")
CORNERS = 'xtl="1" ytl="2" xbr="3.50" ybr="4"'
BOX = f'<box label="cat" occluded="1" {CORNERS} z_order="0"></box>'


def add_image(path: Path, size_wh: tuple[int, int] = (64, 32)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full(size_wh[::-1], 99, np.uint8))


def text_of(*shapes: str, image: str = 'id="0" name="a.png" width="64" height="32"', meta: str = "") -> str:
    """The image stands in line 4, its first shape in line 5, where `meta` has one line."""
    body = "\n".join(shapes)
    head = f"<?xml version='1.0'?>\n<annotations><version>1.1</version>\n<meta>{meta}</meta>"
    return f"{head}\n<image {image}>\n{body}\n</image>\n</annotations>"


def scans_of(folder: Path) -> dict[str, ImageScan]:
    return {name: scan_image(folder / name) for name in cvat.find_images(open_source(str(folder)))}


def read(folder: Path, scans: dict[str, ImageScan] | None = None) -> ReadResult:
    return cvat.read(open_source(str(folder)), CLASS_NAMES, scans_of(folder) if scans is None else scans)


@pytest.fixture
def source(tmp_path) -> Path:
    add_image(tmp_path / "images" / "a.png")
    return tmp_path


def read_one(source: Path, data: str | bytes, name: str = "annotations.xml") -> ReadResult:
    path = source / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return read(source)


def found(result: ReadResult) -> list[tuple[str, int, str]]:
    return [(finding.code, finding.source_line, finding.image) for finding in result.findings]


def test_boxes_polygons_and_tags_are_read_as_they_are(source):
    result = read_one(
        source,
        text_of(
            BOX,
            '<polygon label="dog" points="1.00,2.00;9.5,2;4,8.25" occluded="0" group_id="0"/>',
            '<tag label="rainy"></tag>',
            '<box label="cat" xtl="9" ytl="9" xbr="1" ybr="2" rotation="0.00"/>',
        ),
    )
    where = (source / "annotations.xml").as_posix()
    assert result.findings == []
    assert result.rows == [
        LabelRow("images/a.png", 0, "cat", (1, 2, 3.5, 4), where, 5),
        LabelRow("images/a.png", 1, "dog", (1, 2, 9.5, 8.25), where, 6, polygon=((1, 2, 9.5, 2, 4, 8.25),)),
        LabelRow("images/a.png", -1, "rainy", None, where, 7),
        LabelRow("images/a.png", 0, "cat", (9, 9, 1, 2), where, 8),
    ]


def test_attributes_named_difficult_and_truncated_are_kept(source):
    texts = ("true", "1", "False", "", "0", " yes ")
    boxes = [
        f'<box label="cat" {CORNERS}>\n<attribute name="Difficult">{text}</attribute>'
        '<attribute name="colour">true</attribute></box>'
        for text in texts
    ]
    truncated = f'<box label="cat" {CORNERS}><attribute name="truncated">true</attribute></box>'
    rows = read_one(source, text_of(*boxes, truncated)).rows
    assert [row.difficult for row in rows] == [True, True, False, False, False, True, False]
    assert [row.truncated for row in rows] == [False] * 6 + [True]
    assert [row.source_line for row in rows] == [5, 7, 9, 11, 13, 15, 17]


def test_polygons_of_one_label_and_group_are_rings_of_one_object(source):
    polygon = '<polygon label="{}" points="{}" group_id="{}"/>'
    one, two = "0,0;4,0;4,4", "6,6;8,6;8,8"
    shapes = [("cat", one, 3), ("dog", one, 3), ("cat", two, 3), ("cat", two, 0), ("cat", two, 0)]
    rows = read_one(source, text_of(*(polygon.format(*shape) for shape in shapes))).rows
    assert [row.source_line for row in rows] == [5, 6, 8, 9]
    assert rows[0].polygon == ((0, 0, 4, 0, 4, 4), (6, 6, 8, 6, 8, 8))
    assert rows[0].xyxy == (0, 0, 8, 8)


def test_classes_are_those_of_the_task_without_the_parts_of_skeletons(source):
    labels = "".join(
        f"<label><name>{name}</name><attributes><attribute><name>no</name></attribute></attributes>{more}</label>"
        for name, more in (("dog", ""), ("a &amp;\nb", ""), ("nose", "<parent>dog</parent>"), ("cat", ""))
    )
    result = read_one(source, text_of(meta=f"<task><name>x</name><labels>{labels}</labels></task>"))
    assert result.declared_names == ("dog", "a & b", "cat")


@pytest.mark.parametrize(
    ("shape", "code"),
    [
        ('<box label="cat" ytl="2" xbr="3" ybr="4"/>', faults.MALFORMED_ROW),
        ('<box label="cat" xtl="" ytl="2" xbr="3" ybr="4"/>', faults.MALFORMED_ROW),
        ('<box label="cat" xtl="one" ytl="2" xbr="3" ybr="4"/>', faults.MALFORMED_ROW),
        ('<box label="cat" xtl="1_0" ytl="2" xbr="3" ybr="4"/>', faults.MALFORMED_ROW),
        ('<box label="cat" xtl="nan" ytl="2" xbr="3" ybr="4"/>', faults.NOT_FINITE),
        ('<box label="cat" xtl="1" ytl="2" xbr="-inf" ybr="4"/>', faults.NOT_FINITE),
        ('<box label="cat" xtl="1" ytl="2" xbr="1e999" ybr="4"/>', faults.NOT_FINITE),
        (f"<box {CORNERS}/>", faults.MALFORMED_ROW),
        (f'<box label=" " {CORNERS}/>', faults.MALFORMED_ROW),
        (f'<box label="cat" {CORNERS} rotation="x"/>', faults.MALFORMED_ROW),
        (f'<box label="cat" {CORNERS}><attribute name="difficult">maybe</attribute></box>', faults.MALFORMED_ROW),
        ('<polygon label="cat"/>', faults.MALFORMED_ROW),
        ('<polygon label="cat" points="1,2;3,4"/>', faults.MALFORMED_ROW),
        ('<polygon label="cat" points="1,2;3,4;5"/>', faults.MALFORMED_ROW),
        ('<polygon label="cat" points="1,2;3,4;5,x"/>', faults.MALFORMED_ROW),
        ('<polygon label="cat" points="1,2;3,4;5,nan"/>', faults.NOT_FINITE),
        ("<tag/>", faults.MALFORMED_ROW),
        (f'<box label="cat" {CORNERS} rotation="12.5"/>', faults.UNSUPPORTED_SHAPE),
        ('<mask label="cat" rle="1, 2" left="0" top="0" width="1" height="3"/>', faults.UNSUPPORTED_SHAPE),
        ('<ellipse label="cat" cx="9" cy="9" rx="3" ry="4"/>', faults.UNSUPPORTED_SHAPE),
        ('<polyline label="cat" points="1,2;3,4;5,6"/>', faults.UNSUPPORTED_SHAPE),
        ('<points label="cat" points="1,2"/>', faults.UNSUPPORTED_SHAPE),
        ('<cuboid label="cat" xtl1="1"/>', faults.UNSUPPORTED_SHAPE),
        (f'<skeleton label="cat"><points label="nose" points="1,2"/><box label="x" {CORNERS}/></skeleton>', "E209"),
        ("<surprise/>", faults.UNSUPPORTED_SHAPE),
    ],
)
def test_a_bad_shape_is_a_finding_at_its_line_and_the_others_are_rows(source, shape, code):
    result = read_one(source, text_of(BOX, shape, BOX))
    assert [row.source_line for row in result.rows] == [5, 7]
    assert found(result) == [(code, 6, "images/a.png")]


def test_a_track_is_refused(source):
    data = text_of(BOX).replace("</annotations>", f'\n<track id="0" label="cat">{BOX}</track></annotations>')
    result = read_one(source, data)
    assert found(result) == [(faults.UNSUPPORTED_SHAPE, 8, "")]
    assert len(result.rows) == 1


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"", 1),
        (b"<annotations>\n<image>\n", 3),
        (text_of(BOX).replace("</image>", "</imag>").encode(), 6),
        (text_of(BOX, "<box label='a\0'/>").encode(), 6),
        (b"\n<annotation/>\n", 2),
        (
            b'<!DOCTYPE a [\n<!ENTITY l "lol">\n<!ENTITY m "&l;&l;">]>\n<annotations>&m;</annotations>',
            2,
        ),
        (b'<!DOCTYPE a [\n<!ENTITY x SYSTEM "file:///etc/passwd">]>\n<annotations>&x;</annotations>', 2),
        (b'<!DOCTYPE a SYSTEM "http://127.0.0.1:9/x.dtd">\n<annotations>\n&x;</annotations>', 3),
        (b"<annotations>\n&undefined;</annotations>", 2),
    ],
)
def test_a_file_that_is_not_cvats_is_told_at_its_line(source, data, line):
    result = read_one(source, data)
    assert (faults.MALFORMED_LABEL, line) in {(f.code, f.source_line) for f in result.findings}
    # What is on the image is not known, so it must not count as an image of nothing.
    assert {f.code for f in result.findings if f.image} == {faults.MALFORMED_LABEL, faults.MISSING_LABEL}
    assert result.rows == []


def test_a_file_that_breaks_late_gives_nothing_and_spoils_no_other(source):
    read_one(source, text_of(BOX))
    result = read_one(source, text_of(BOX)[:-3], name="second.xml")
    assert found(result) == [(faults.MALFORMED_LABEL, 7, "")]
    assert len(result.rows) == 1


def test_latin_1_and_a_byte_order_mark_are_told(source):
    data = text_of(BOX.replace("cat", "Käfer"))
    result = read_one(source, data.encode("latin-1"))
    assert found(result) == [(faults.NOT_UTF8, 5, "")]
    assert [row.class_name for row in result.rows] == ["Käfer"]
    result = read_one(source, b"\xef\xbb\xbf" + data.encode())
    assert found(result) == [(faults.BYTE_ORDER_MARK, 1, "")]
    assert [row.class_name for row in result.rows] == ["Käfer"]


@pytest.mark.parametrize(
    ("size", "exif", "codes"),
    [
        ('width="64" height="32"', 6, []),
        ('width="32" height="64"', 6, [faults.EXIF_CONTRADICTS_LABEL]),
        ('width="32" height="64"', 2, [faults.SIZE_MISMATCH]),
        ('width="64" height="33"', 6, [faults.SIZE_MISMATCH]),
        ('width="0" height="0"', 1, []),
        ("", 1, []),
        ('width="wide" height="32"', 1, [faults.MALFORMED_ROW]),
        ('width="inf" height="32"', 1, [faults.NOT_FINITE]),
    ],
)
def test_a_size_that_is_not_the_images_is_told(source, size, exif, codes):
    read_one(source, text_of(BOX, image=f'name="a.png" {size}'))
    scans = {name: replace(scan, exif_orientation=exif) for name, scan in scans_of(source).items()}
    result = read(source, scans)
    assert found(result) == [(code, 4, "images/a.png") for code in codes]
    assert len(result.rows) == 1


def test_missing_images_and_labels_are_told(source):
    result = read_one(source, text_of(BOX, image='name="gone.png"'))
    assert found(result) == [(faults.MISSING_IMAGE, 4, ""), (faults.MISSING_LABEL, 0, "images/a.png")]
    assert result.rows == []


@pytest.mark.parametrize("image", ['id="0"', 'name=""', 'name="&#10;"'])
def test_an_image_without_a_name_is_told(source, image):
    assert (faults.MALFORMED_ROW, 4, "") in found(read_one(source, text_of(BOX, image=image)))


def test_a_second_image_of_one_name_is_told(source):
    twice = re.sub(r"(?s)(<image.*</image>)", r"\1\n\1", text_of(BOX))
    result = read_one(source, twice)
    assert found(result) == [(faults.SECOND_LABEL, 7, "images/a.png")]
    read_one(source, text_of(BOX))
    result = read_one(source, text_of(BOX), name="b.xml")
    assert [(f.code, f.source_line, Path(f.source_file).name) for f in result.findings] == [
        (faults.SECOND_LABEL, 4, "b.xml")
    ]


@pytest.mark.parametrize(
    ("label", "name", "subset", "image", "split"),
    [
        ("annotations.xml", "a.png", None, "images/a.png", ""),
        ("annotations.xml", "a.png", "", "a.png", ""),
        ("annotations.xml", "a.png", "Train", "images/a.png", "train"),
        ("annotations.xml", "a.png", "Validation", "images/Validation/a.png", "val"),
        ("annotations.xml", "test/a.png", "test", "images/test/a.png", "test"),
        ("annotations.xml", "a.png", "monday", "images/monday/a.png", ""),
        ("valid/annotations.xml", "a.png", None, "valid/images/a.png", "val"),
        ("annotations/train.xml", "a.png", None, "images/a.png", "train"),
        ("annotations.xml", "upload/a.png", None, "images/a.png", ""),
        # So CVAT calls the frames of a video.
        ("annotations.xml", "frame_000001", None, "images/frame_000001.PNG", ""),
        ("annotations.xml", "frame_000001", None, "clip/frame_000001.png", ""),
        ("clip/annotations.xml", "frame_000001", None, "clip/frame_000001.png", ""),
    ],
)
def test_the_image_and_its_split_are_found(tmp_path, label, name, subset, image, split):
    add_image(tmp_path / image)
    attributes = f"name={quoteattr(name)}" + ("" if subset is None else f" subset={quoteattr(subset)}")
    result = read_one(tmp_path, text_of(BOX, image=attributes), name=label)
    assert [row.image for row in result.rows] == [image]
    assert result.findings == []
    assert result.splits == ({image: split} if split else {})


def test_a_loose_match_takes_no_image_that_is_named_exactly(tmp_path):
    add_image(tmp_path / "cam2" / "a.png")
    data = text_of(BOX, image='name="cam1/a.png"')
    data = data.replace("</annotations>", f'\n<image name="cam2/a.png">{BOX}</image></annotations>')
    result = read_one(tmp_path, data)
    assert found(result) == [(faults.MISSING_IMAGE, 4, "")]
    assert [row.image for row in result.rows] == ["cam2/a.png"]


def test_sniff_wants_the_root(tmp_path):
    assert not cvat.sniff(open_source(str(tmp_path)))
    (tmp_path / "a.xml").write_text("<annotation/>")
    (tmp_path / "b.xml").write_text("<annotationset/>")
    assert not cvat.sniff(open_source(str(tmp_path)))
    (tmp_path / "c.xml").write_text(text_of(BOX))
    assert cvat.sniff(open_source(str(tmp_path)))


@pytest.fixture(scope="module")
def golden_source(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cvat")
    for name, size in (("a", (64, 32)), ("b", (32, 64)), ("nothing", (16, 16))):
        add_image(folder / "images" / f"{name}.png", size)
    return folder


PIECES = re.findall(r"<[^>]*>|[^<]+", GOLDEN.read_text())
VALUE = st.sampled_from(["", "nan", "1e999", "-1", "a.png", "b.png", "0,0;1,1", "&lt;", "&x;", "difficult", "\x85"])


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_change_of_the_file_makes_the_reader_fail(golden_source, data):
    pieces = list(PIECES)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(pieces) - 1))
        what = data.draw(st.sampled_from(["drop", "double", "value", "insert"]))
        if what == "drop":
            pieces[at] = ""
        elif what == "double":
            pieces[at] *= 2
        elif what == "value":
            pieces[at] = re.sub('"[^"]*"', f'"{data.draw(VALUE)}"', pieces[at])
        else:
            pieces[at] += data.draw(st.sampled_from(PIECES) | st.text(max_size=5))
    check_read(golden_source, "".join(pieces).encode())


@settings(max_examples=100, deadline=None)
@given(data=st.binary(max_size=300) | st.text(alphabet='<>/!?="[]&;annotis \n', max_size=300).map(str.encode))
def test_no_bytes_make_the_reader_fail(golden_source, data):
    check_read(golden_source, data)


def test_a_very_deep_file_is_read(golden_source):
    deep = "<label>" * 100_000 + "</label>" * 100_000
    check_read(golden_source, f"<annotations>{deep}</annotations>".encode())
    check_read(golden_source, f"<annotations>{deep[:-1]}".encode())


def check_read(folder: Path, data: bytes) -> None:
    result = read_one(folder, data)
    assert all(finding.code in faults.FAULTS for finding in result.findings)
    assert all(row.xyxy is None or all(map(math.isfinite, row.xyxy)) for row in result.rows)
    records = [ImageRecord(name, "", "") for name in scans_of(folder)]
    build_dataset(records, scans_of(folder), result, CLASS_NAMES, folder)


ROW = LabelRow("a.png", 1, "dog", (1.25, 2, 11.5, 12), "x", 1)


def write(folder: Path, rows: list[LabelRow], class_names: tuple[str, ...] = CLASS_NAMES) -> list[str]:
    scans, splits = {}, {"a.png": "train", "x/b.png": "val"}
    for name in ("a.png", "x/b.png", "c.png"):
        add_image(folder / "images" / name)
        scans[name] = scan_image(folder / "images" / name)
    records = [ImageRecord(name, "", "") for name in scans]
    dataset = build_dataset(records, scans, ReadResult(rows=rows, splits=splits), class_names, folder)
    (folder / "out").mkdir(exist_ok=True)
    return cvat.write(dataset, folder / "out")


def test_all_that_cvat_holds_comes_back(tmp_path):
    rings = ((1.25, 2.0, 11.5, 2.0, 11.5, 12.0), (2.0, 2.0, 3.0, 2.0, 3.0, 3.0))
    rows = [
        replace(ROW, polygon=rings, difficult=True),
        replace(ROW, polygon=rings[:1], truncated=True),
        replace(ROW, class_id=-1, class_name='<"zebra" & co>', xyxy=(9.0, 9.0, 1.0, 1e20)),
        replace(ROW, image="x/b.png", xyxy=None, difficult=True),
        replace(ROW, image="x/b.png", class_id=0, class_name="cat", xyxy=None),
    ]
    assert write(tmp_path, rows) == []
    back = read(tmp_path / "out")
    assert back.findings == []
    assert back.declared_names == ("cat", "dog", '<"zebra" & co>')
    assert back.splits == {"images/a.png": "train", "images/x/b.png": "val"}
    plain = [replace(r, image=r.image.removeprefix("images/"), source_file="x", source_line=1) for r in back.rows]
    assert plain == rows


def test_what_cvat_cannot_hold_is_counted(tmp_path):
    rows = [
        replace(ROW, crowd=True, rle='{"size": [1, 1], "counts": [1]}'),
        replace(ROW, class_id=-2, class_name="7"),
        replace(ROW, polygon=((1, 2, 3, 2, 3, 4),)),
    ]
    kinds = ("masks", "crowd", "class numbers beyond the list", "boxes became the bounds")
    sentences = write(tmp_path, rows)
    assert len(sentences) == len(kinds)
    assert all(kind in sentence and sentence.endswith(": 1") for kind, sentence in zip(kinds, sentences, strict=True))


def test_a_class_that_xml_cannot_hold_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(DatasetError, match=r"'a\\x07'.*rename it"):
        write(tmp_path, [], ("a\x07",))
    assert list((tmp_path / "out").iterdir()) == []
