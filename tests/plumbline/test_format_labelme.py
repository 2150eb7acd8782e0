"""Labelme: its shapes, flags and embedded images, what is found in its files, and what comes back when written."""

from __future__ import annotations

import base64
import json
import math
import pickle
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline import faults
from plumbline.formats import labelme
from plumbline.formats.reading import ImageRecord, LabelRow, ReadResult, build_dataset
from plumbline.image_scan import ImageScan, scan_image
from plumbline.sources import open_source

GOLDEN = Path(__file__).parent.parent / "golden" / "labelme" / "b.json"
CLASS_NAMES = ("cat", "dog")


def png(size_wh: tuple[int, int] = (64, 32), value: int = 99) -> bytes:
    return cv2.imencode(".png", np.full(size_wh[::-1], value, np.uint8))[1].tobytes()


def add_image(path: Path, size_wh: tuple[int, int] = (64, 32)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(size_wh))


def shape(points="[[1, 2], [3, 4]]", kind='"rectangle"', label='"cat"', more="") -> str:
    return f'{{"label": {label}, "points": {points}, "shape_type": {kind}, "group_id": null{more}}}'


def text_of(*shapes: str, rest: str = '"imagePath": "a.png"', flags: str = "{}") -> str:
    """The first shape stands in line 4 where `flags` has one line; `rest` behind the last shape's."""
    body = ",\n".join(shapes)
    return f'{{"version": "5.0.0",\n"flags": {flags},\n"shapes": [\n{body}\n],\n{rest}\n}}'


def scans_of(folder: Path) -> dict[str, ImageScan]:
    return {name: scan_image(folder / name) for name in labelme.find_images(open_source(str(folder)))}


def read(folder: Path, scans: dict[str, ImageScan] | None = None) -> ReadResult:
    return labelme.read(open_source(str(folder)), CLASS_NAMES, scans_of(folder) if scans is None else scans)


@pytest.fixture
def source(tmp_path) -> Path:
    add_image(tmp_path / "a.png")
    return tmp_path


def read_one(source: Path, data: str | bytes, name: str = "a.json") -> ReadResult:
    path = source / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return read(source)


def found(result: ReadResult) -> list[tuple[str, int, str]]:
    return [(finding.code, finding.source_line, finding.image) for finding in result.findings]


@pytest.mark.parametrize("points", ["[[10, 5], [30, 8.5]]", "[[30, 8.5], [10, 5]]", "[[30, 5], [10, 8.5]]"])
def test_a_rectangle_may_be_drawn_from_any_corner(source, points):
    (row,) = read_one(source, text_of(shape(points))).rows
    assert row == LabelRow("a.png", 0, "cat", (10, 5, 30, 8.5), (source / "a.json").as_posix(), 4)


def test_a_rectangle_may_have_all_four_corners(source):
    upright = "[[10, 5], [30, 5], [30, 8], [10, 8]]"
    turned = "[[10, 5], [30, 6], [29, 9], [9, 8]]"
    result = read_one(source, text_of(shape(upright), shape(turned)))
    assert [row.xyxy for row in result.rows] == [(10, 5, 30, 8)]
    assert found(result) == [(faults.UNSUPPORTED_SHAPE, 5, "a.png")]


def test_a_polygon_is_a_ring_and_a_circle_a_box(source):
    ring = "[[1, 2], [9, 3.5], [4, 8]]"
    result = read_one(
        source,
        text_of(
            shape(ring, '"polygon"'),
            shape("[[20, 20], [23, 24]]", '"circle"'),
            f'{{"label": "old", "points": {ring}}}',
        ),
    )
    polygon, circle, old = result.rows
    assert (polygon.xyxy, polygon.polygon) == ((1, 2, 9, 8), ((1, 2, 9, 3.5, 4, 8),))
    assert (circle.xyxy, circle.polygon) == ((15, 15, 25, 25), None)
    assert (old.class_id, old.polygon) == (-1, polygon.polygon)
    assert result.findings == []


def test_polygons_of_one_label_and_group_are_rings_of_one_object(source):
    one, two = "[[0, 0], [4, 0], [4, 4]]", "[[6, 6], [8, 6], [8, 8]]"
    grouped = [
        f'{{"label": "{label}", "shape_type": "{kind}", "points": {points}, "group_id": {group}, "flags": {flags}}}'
        for label, kind, points, group, flags in (
            ("cat", "polygon", one, 1, "{}"),
            ("dog", "polygon", one, 1, "null"),
            ("cat", "rectangle", "[[1, 1], [2, 2]]", 1, "{}"),
            ("cat", "polygon", two, 1, '{"truncated": true}'),
            ("cat", "polygon", two, 2, "{}"),
            ("cat", "polygon", two, "null", "{}"),
            ("cat", "polygon", two, "null", "{}"),
        )
    ]
    rows = read_one(source, text_of(*grouped)).rows
    assert [row.source_line for row in rows] == [4, 5, 6, 8, 9, 10]
    assert rows[0].polygon == ((0, 0, 4, 0, 4, 4), (6, 6, 8, 6, 8, 8))
    assert (rows[0].xyxy, rows[0].truncated) == ((0, 0, 8, 8), True)


def test_true_flags_are_classes_of_the_whole_image_each_at_its_line(source):
    result = read_one(source, text_of(flags='{"dog": true,\n"cat": false,\n"rainy": true}'))
    assert [(row.class_id, row.class_name, row.xyxy, row.source_line) for row in result.rows] == [
        (1, "dog", None, 2),
        (-1, "rainy", None, 4),
    ]
    assert result.findings == []


def test_the_flags_of_a_shape_are_kept(source):
    flags = ', "flags": {"difficult": true, "crowd": true, "mine": true}'
    (row,) = read_one(source, text_of(shape(more=flags))).rows
    assert (row.difficult, row.truncated, row.crowd) == (True, False, True)


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        ("7", faults.MALFORMED_ROW),
        (shape("[[1, 2]]"), faults.MALFORMED_ROW),
        (shape("[[1, 2], [3, 4, 5]]"), faults.MALFORMED_ROW),
        (shape('[[1, 2], [3, "4"]]'), faults.MALFORMED_ROW),
        (shape("[1, 2, 3, 4]"), faults.MALFORMED_ROW),
        (shape("null"), faults.MALFORMED_ROW),
        (shape("[[1, 2], [3, NaN]]"), faults.NOT_FINITE),
        (shape("[[1, 2], [-Infinity, 4]]"), faults.NOT_FINITE),
        (shape("[[1e308, 2], [-1e308, 4]]", '"circle"'), faults.NOT_FINITE),
        (shape("[[1, 2], [3, 4]]", '"polygon"'), faults.MALFORMED_ROW),
        (shape("[]", '"polygon"'), faults.MALFORMED_ROW),
        (shape("[[1, 2]]", '"circle"'), faults.MALFORMED_ROW),
        (shape(label='""'), faults.MALFORMED_ROW),
        (shape(label="3"), faults.MALFORMED_ROW),
        (shape(label=r'"a\u0007"'), faults.MALFORMED_ROW),
        (shape(more=', "flags": {"difficult": "x"}'), faults.MALFORMED_ROW),
        (shape(more=', "flags": [1]'), faults.MALFORMED_ROW),
        (
            '{"label": "cat", "points": [[1, 2], [3, 4]], "shape_type": "rectangle", "group_id": {}}',
            faults.MALFORMED_ROW,
        ),
        (shape("[[1, 2]]", '"point"'), faults.UNSUPPORTED_SHAPE),
        (shape(kind='"line"'), faults.UNSUPPORTED_SHAPE),
        (shape(kind='"linestrip"'), faults.UNSUPPORTED_SHAPE),
        (shape(kind='"mask"'), faults.UNSUPPORTED_SHAPE),
        (shape(kind="3"), faults.MALFORMED_ROW),
        (shape(kind="[3]"), faults.MALFORMED_ROW),
    ],
)
def test_a_bad_shape_is_a_finding_at_its_line_and_the_others_are_rows(source, bad, code):
    result = read_one(source, text_of(shape(), bad, shape()))
    assert [row.source_line for row in result.rows] == [4, 6]
    assert found(result) == [(code, 5, "a.png")]


@pytest.mark.parametrize("flags", ["[1]", '"cat"', '{"cat": "yes"}', '{"": true}'])
def test_bad_flags_are_told_at_their_line(source, flags):
    result = read_one(source, text_of(shape(), flags=flags))
    assert found(result) == [(faults.MALFORMED_ROW, 2, "a.png")]
    assert len(result.rows) == 1


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"", 1),
        (text_of(shape()).encode()[:-1], 7),
        (text_of(shape() + ",").encode(), 5),
        (text_of("[" * 100_000 + "]" * 100_000).encode(), 4),
        (text_of(shape("[[" + "1" * 5000 + ", 2], [3, 4]]")).encode(), 4),
        (b'{"shapes":\n{}}', 2),
        (b"[]", 1),
        (b"\n\n{}", 1),
        (b'{"shapes": [],\n"shapes": []}', 2),
    ],
)
def test_a_file_that_is_not_labelmes_is_one_finding_at_its_line(source, data, line):
    result = read_one(source, data)
    assert found(result) == [(faults.MALFORMED_LABEL, line, "a.png")]
    assert result.rows == []


def test_latin_1_and_a_byte_order_mark_are_told(source):
    data = text_of(shape(label='"Käfer"'))
    result = read_one(source, data.encode("latin-1"))
    assert found(result) == [(faults.NOT_UTF8, 4, "a.png")]
    assert [row.class_name for row in result.rows] == ["Käfer"]
    assert found(read_one(source, b"\xef\xbb\xbf" + data.encode())) == [(faults.BYTE_ORDER_MARK, 1, "a.png")]


@pytest.mark.parametrize(
    ("size", "exif", "codes"),
    [
        ('"imageHeight": 32,\n"imageWidth": 64', 6, []),
        ('"imageHeight": 64,\n"imageWidth": 32', 6, [faults.EXIF_CONTRADICTS_LABEL]),
        ('"imageHeight": 64,\n"imageWidth": 32', 1, [faults.SIZE_MISMATCH]),
        ('"imageHeight": 32,\n"imageWidth": 65', 6, [faults.SIZE_MISMATCH]),
        ('"imageHeight": null,\n"imageWidth": null', 1, []),
        ('"imageHeight": 32,\n"imageWidth": "64"', 1, [faults.MALFORMED_ROW]),
    ],
)
def test_a_size_that_is_not_the_images_is_told(source, size, exif, codes):
    read_one(source, text_of(shape(), rest=f'"imagePath": "a.png",\n{size}'))
    scans = {name: replace(scan, exif_orientation=exif) for name, scan in scans_of(source).items()}
    result = read(source, scans)
    assert found(result) == [(code, 8, "a.png") for code in codes]
    assert len(result.rows) == 1


def test_missing_images_and_labels_are_told(source):
    read_one(source, text_of(shape(), rest='"imagePath":\n"gone.png"'), name="b.json")
    add_image(source / "x" / "a.png")
    result = read(source)
    assert sorted(found(result)) == [
        (faults.MISSING_IMAGE, 7, ""),
        (faults.MISSING_LABEL, 0, "a.png"),
        (faults.MISSING_LABEL, 0, "x/a.png"),
    ]
    assert result.rows == []


def test_a_second_label_is_told_in_the_order_of_names(source):
    read_one(source, text_of(shape()))
    result = read_one(source, text_of(shape()), name="b.json")
    assert found(result) == [(faults.SECOND_LABEL, 6, "a.png")]
    assert result.findings[0].source_file.endswith("b.json")


@pytest.mark.parametrize(
    ("label", "path", "image"),
    [
        ("a.json", "a.png", "a.png"),
        ("x/other.json", "a.png", "x/a.png"),
        ("x/a.json", r"..\\y\\a.png", "y/a.png"),
        ("x/a.json", "/home/me/a.png", "x/a.png"),
        ("x/a.json", r"C:\\photos\\a.png", "x/a.png"),
        ("x/a.json", "gone.jpg", "x/a.png"),
        ("labels/a.json", "a.png", "images/a.png"),
        ("labels/a.json", r"..\\a.png", "a.png"),
        ("x/a.b.json", "a.b.png", "x/a.b.png"),
    ],
)
def test_the_image_is_found(tmp_path, label, path, image):
    add_image(tmp_path / image)
    result = read_one(tmp_path, text_of(shape(), rest=f'"imagePath": "{path}"'), name=label)
    assert [row.image for row in result.rows] == [image]
    assert result.findings == []


def test_an_image_of_the_same_name_elsewhere_is_not_taken(tmp_path):
    add_image(tmp_path / "a.png")
    result = read_one(tmp_path, text_of(shape()), name="x/a.json")
    assert sorted(finding.code for finding in result.findings) == [faults.MISSING_IMAGE, faults.MISSING_LABEL]


def test_the_split_is_the_key_or_else_the_folder(tmp_path):
    for folder in ("train", "valid", "trains"):
        add_image(tmp_path / folder / "a.png")
        read_one(tmp_path, text_of(), name=f"{folder}/a.json")
    add_image(tmp_path / "train" / "b.png")
    result = read_one(tmp_path, text_of(rest='"split": "test"'), name="train/b.json")
    assert result.splits == {"train/a.png": "train", "train/b.png": "test", "valid/a.png": "val"}


def embedded(data: bytes | str, rest: str = '"imagePath": "a.jpg"') -> str:
    text = data if isinstance(data, str) else base64.b64encode(data).decode()
    return text_of(shape(), rest=f'{rest},\n"imageData": {json.dumps(text)}')


def test_an_embedded_image_is_a_file_of_the_wrapped_source(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.json").write_text(embedded(png(value=7)))
    (tmp_path / "x" / "b.json").write_text(embedded(png(value=8), '"imagePath": null'))
    add_image(tmp_path / "c.png")
    (tmp_path / "c.json").write_text(embedded(png(value=9), '"imagePath": "c.png"'))
    plain = open_source(str(tmp_path))
    source = labelme.wrap(plain)

    assert list(source.files()) == ["c.json", "c.png", "x/a.jpg", "x/a.json", "x/b.json", "x/b.png"]
    assert labelme.find_images(source) == ["c.png", "x/a.jpg", "x/b.png"]
    assert source.files()["x/a.jpg"] == len(png(value=7))
    assert source.read("x/a.jpg") == png(value=7)
    assert source.read("x/b.png") == png(value=8)
    # What is a file is read from the file.
    assert source.read("c.png") == png(value=99)
    assert source.where("x/a.jpg") == plain.where("x/a.json") + "/a.jpg"
    assert source.stamp("x/a.jpg") == plain.stamp("x/a.json")
    assert sorted(source.order(["x/b.png", "c.png", "x/a.jpg", "x/a.json"])) == [
        "c.png",
        "x/a.jpg",
        "x/a.json",
        "x/b.png",
    ]
    # Another process, which is told names only, does not list first.
    assert pickle.loads(pickle.dumps(labelme.wrap(open_source(source.address)))).read("x/a.jpg") == png(value=7)

    scan = scan_image(tmp_path / "c.png")
    result = labelme.read(source, CLASS_NAMES, dict.fromkeys(labelme.find_images(source), scan))
    assert sorted(row.image for row in result.rows) == ["c.png", "x/a.jpg", "x/b.png"]
    assert result.findings == []


@pytest.mark.parametrize("data", ["%%%", "AAA", "é", "A=AA"])
def test_an_embedded_image_that_is_no_base64_is_told(tmp_path, data):
    (tmp_path / "a.json").write_text(embedded(data))
    source = labelme.wrap(open_source(str(tmp_path)))
    assert labelme.find_images(source) == []
    result = labelme.read(source, CLASS_NAMES, {})
    assert found(result) == [(faults.MALFORMED_LABEL, 7, "")]
    with pytest.raises(OSError, match="base64"):
        source.read("a.png")
    with pytest.raises(OSError, match="nothing"):
        source.read("nothing.png")


def test_wrapping_survives_labels_that_cannot_be_read(tmp_path):
    (tmp_path / "a.json").write_bytes(b"{")
    (tmp_path / "b.json").write_bytes(b'{"imageData": 3, "imagePath": 4}')
    (tmp_path / "c.json").write_text(embedded(png()))
    source = labelme.wrap(open_source(str(tmp_path)))
    assert labelme.find_images(source) == ["c.jpg"]


def test_sniff_wants_shapes(tmp_path):
    assert not labelme.sniff(open_source(str(tmp_path)))
    (tmp_path / "a.json").write_text('{"images": [], "shapes": 3}')
    assert not labelme.sniff(open_source(str(tmp_path)))
    for number in range(40):
        (tmp_path / f"b{number}.json").write_text(text_of())
    assert labelme.sniff(open_source(str(tmp_path)))


@pytest.fixture(scope="module")
def golden_source(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("labelme")
    add_image(folder / "b.png", (32, 64))
    return folder


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_value_in_the_file_makes_the_reader_fail(golden_source, data):
    whole = json.loads(GOLDEN.read_text())
    for _ in range(data.draw(st.integers(1, 3))):
        entry = data.draw(st.sampled_from([whole, *(item for item in whole["shapes"] if isinstance(item, dict))]))
        entry[data.draw(st.sampled_from(sorted(set(entry) - {"shapes"})))] = data.draw(ANY_JSON)
    check_read(golden_source, json.dumps(whole, indent=data.draw(st.sampled_from([None, 1]))).encode())


@settings(max_examples=150, deadline=None)
@given(data=st.binary(max_size=300) | st.text(alphabet='{}[]",:.-0123456789eshap \n', max_size=300).map(str.encode))
def test_no_bytes_make_the_reader_fail(golden_source, data):
    check_read(golden_source, data)


def check_read(folder: Path, data: bytes) -> None:
    result = read_one(folder, data, name="b.json")
    assert all(finding.code in faults.FAULTS for finding in result.findings)
    assert all(row.xyxy is None or all(map(math.isfinite, row.xyxy)) for row in result.rows)
    build_dataset([ImageRecord("b.png", "", "")], scans_of(folder), result, CLASS_NAMES, folder)
    assert "b.png" in labelme.find_images(labelme.wrap(open_source(str(folder))))


def test_all_that_labelme_holds_comes_back(tmp_path):
    scans: dict[str, ImageScan] = {}
    for name in ("a.png", "a.jpg", "x/b.png"):
        add_image(tmp_path / "images" / name)
        scans[name] = scan_image(tmp_path / "images" / name)
    rings = ((1.25, 2.0, 11.5, 2.0, 11.5, 12.0), (2.0, 2.0, 3.0, 2.0, 3.0, 3.0))
    row = LabelRow("a.png", 1, "dog", (1.25, 2, 11.5, 12), "x", 1)
    rows = [
        replace(row, polygon=rings, difficult=True),
        replace(row, polygon=rings[:1], truncated=True),
        replace(row, image="a.jpg", crowd=True),
        replace(row, image="x/b.png", class_id=-1, class_name="rainy", xyxy=None),
    ]
    assert lost(tmp_path, scans, rows) == []
    out = tmp_path / "out"
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.json")) == [
        "images/a.jpg.json",
        "images/a.png.json",
        "images/x/b.json",
    ]
    back = read(out)
    assert back.findings == []
    plain = [replace(r, image=r.image.removeprefix("images/"), source_file="x", source_line=1) for r in back.rows]
    assert sorted(plain, key=repr) == sorted(rows, key=repr)


def lost(folder: Path, scans: dict[str, ImageScan], rows: list[LabelRow]) -> list[str]:
    records = [ImageRecord(name, "", "") for name in scans]
    dataset = build_dataset(records, scans, ReadResult(rows=rows), CLASS_NAMES, folder)
    (folder / "out").mkdir()
    return labelme.write(dataset, folder / "out")


def test_what_labelme_cannot_hold_is_counted(tmp_path):
    add_image(tmp_path / "images" / "a.png")
    row = LabelRow("a.png", 1, "dog", (1, 2, 11, 12), "x", 1)
    rows = [
        replace(row, rle='{"size": [1, 1], "counts": [1]}'),
        replace(row, class_id=-2, class_name="7"),
        replace(row, polygon=((1, 2, 3, 2, 3, 4),)),
        replace(row, xyxy=(11, 2, 1, 12)),
        replace(row, xyxy=None),
        replace(row, xyxy=None),
    ]
    sentences = lost(tmp_path, {"a.png": scan_image(tmp_path / "images" / "a.png")}, rows)
    kinds = ("masks", "class numbers beyond the list", "boxes became the bounds", "reversed boxes", "repeated classes")
    assert len(sentences) == len(kinds)
    assert all(kind in sentence and sentence.endswith(": 1") for kind, sentence in zip(kinds, sentences, strict=True))
