"""COCO: what is read from its files and found in them, line by line, and what comes back when it is written."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO

from plumbline import faults
from plumbline.formats import coco
from plumbline.formats.image_names import ImageFinder
from plumbline.formats.reading import ImageRecord, LabelRow, ReadResult, build_dataset
from plumbline.image_scan import ImageScan, scan_image
from plumbline.sources import open_source

GOLDEN = Path(__file__).parent.parent / "golden" / "coco" / "annotations" / "instances.json"
CLASS_NAMES = ("cat", "dog")
IMAGE = '{"id": 1, "file_name": "a.png", "width": 64, "height": 32}'
CATEGORIES = '{"id": 1, "name": "cat"},\n{"id": 2, "name": "dog"}'
BOX = '{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}'
LABEL = "annotations/instances.json"


def add_image(path: Path, size_wh: tuple[int, int] = (64, 32)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full(size_wh[::-1], 99, np.uint8))


def text_of(*annotations: str, images: str = IMAGE, categories: str = CATEGORIES) -> str:
    """The first annotation stands in line 5 where `images` has one line."""
    body = ",\n".join(annotations)
    return f'{{"images": [\n{images}\n],\n"annotations": [\n{body}\n], "categories": [\n{categories}\n]}}'


def scans_of(folder: Path) -> dict[str, ImageScan]:
    return {name: scan_image(folder / name) for name in coco.find_images(open_source(str(folder)))}


def read(folder: Path, scans: dict[str, ImageScan] | None = None) -> ReadResult:
    return coco.read(open_source(str(folder)), CLASS_NAMES, scans_of(folder) if scans is None else scans)


@pytest.fixture
def source(tmp_path) -> Path:
    add_image(tmp_path / "images" / "a.png")
    return tmp_path


def read_one(source: Path, data: str | bytes, name: str = LABEL) -> ReadResult:
    path = source / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return read(source)


def found(result: ReadResult) -> list[tuple[str, int, str]]:
    return [(finding.code, finding.source_line, finding.image) for finding in result.findings]


def test_a_box_is_left_top_width_height(source):
    (row,) = read_one(source, text_of('{"image_id": 1, "category_id": 2, "bbox": [1.5, -2, 10, 4.25]}')).rows
    assert row == LabelRow(
        image="images/a.png",
        class_id=1,
        class_name="dog",
        xyxy=(1.5, -2, 11.5, 2.25),
        source_file=(source / LABEL).as_posix(),
        source_line=5,
    )


def test_a_negative_width_stays_for_the_checks_to_find(source):
    (row,) = read_one(source, text_of('{"image_id": 1, "category_id": 2, "bbox": [10, 10, -4, 5]}')).rows
    assert row.xyxy == (10, 10, 6, 15)


def test_flags_rings_and_masks_are_kept(source):
    start = '{"image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4]'
    mask = '{"size": [32, 64], "counts": [2000, 40, 8]}'
    packed = r'{"counts": "0\\`1o", "size": [32, 64]}'
    result = read_one(
        source,
        text_of(
            start + ', "segmentation": [[0, 0, 4, 0, 4, 4], [1, 1, 2, 1, 2.5, 2]], "iscrowd": 0}',
            start + f', "segmentation": {mask}, "iscrowd": 1}}',
            start + f', "segmentation": {packed}, "difficult": 1}}',
            start + ', "segmentation": [[]], "truncated": true}',
        ),
    )
    assert result.findings == []
    rings, crowd, text, empty = result.rows
    assert rings.polygon == ((0, 0, 4, 0, 4, 4), (1, 1, 2, 1, 2.5, 2))
    assert (crowd.crowd, crowd.rle, crowd.polygon) == (True, mask, None)
    assert (text.difficult, json.loads(text.rle)) == (True, json.loads(packed))
    assert (empty.truncated, empty.polygon, empty.rle, empty.crowd) == (True, None, "", False)


def test_classes_are_those_of_the_file_in_the_order_of_their_ids(source):
    categories = '{"id": 18, "name": "zebra"}, {"id": 3, "name": "dog"}, {"id": 7, "name": "cat"}'
    annotations = (f'{{"image_id": 1, "category_id": {n}, "bbox": [0, 0, 1, 1]}}' for n in (18, 3, 99))
    result = read_one(source, text_of(*annotations, categories=categories))
    assert [(row.class_id, row.class_name) for row in result.rows] == [(-1, "zebra"), (1, "dog"), (-2, "99")]
    assert result.declared_names == ("dog", "cat", "zebra")
    assert result.findings == []


@pytest.mark.parametrize(
    ("annotation", "code"),
    [
        ('{"image_id": 1, "category_id": 1}', faults.MALFORMED_ROW),
        ('{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3]}', faults.MALFORMED_ROW),
        ('{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, "4"]}', faults.MALFORMED_ROW),
        ('{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, true]}', faults.MALFORMED_ROW),
        ('{"image_id": 1, "category_id": 1, "bbox": {"x": 1}}', faults.MALFORMED_ROW),
        ('{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, null]}', faults.MALFORMED_ROW),
        ('{"image_id": 1, "category_id": 1, "bbox": [NaN, 2, 3, 4]}', faults.NOT_FINITE),
        ('{"image_id": 1, "category_id": 1, "bbox": [1, 2, Infinity, 4]}', faults.NOT_FINITE),
        ('{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, -Infinity]}', faults.NOT_FINITE),
        ('{"image_id": 1, "category_id": 1, "bbox": [1e999, 2, 3, 4]}', faults.NOT_FINITE),
        ('{"image_id": 1, "category_id": 1, "bbox": [1e308, 2, 1e308, 4]}', faults.NOT_FINITE),
        (f'{{"image_id": 1, "category_id": 1, "bbox": [{"9" * 400}, 2, 3, 4]}}', faults.NOT_FINITE),
        ('{"image_id": 1, "bbox": [1, 2, 3, 4]}', faults.MALFORMED_ROW),
        ('{"image_id": 1, "category_id": 1.5, "bbox": [1, 2, 3, 4]}', faults.MALFORMED_ROW),
        ('{"image_id": 1, "category_id": [1], "bbox": [1, 2, 3, 4]}', faults.MALFORMED_ROW),
        ('{"image_id": 1, "category_id": "\\ud800", "bbox": [1, 2, 3, 4]}', faults.MALFORMED_ROW),
        ('{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": 2}', faults.MALFORMED_ROW),
        ('{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "difficult": "no"}', faults.MALFORMED_ROW),
        ('{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "segmentation": "x"}', faults.MALFORMED_ROW),
        (
            '{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "segmentation": [[1, 2, 3, 4]]}',
            faults.MALFORMED_ROW,
        ),
        (
            '{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "segmentation": [1, 2, 3, 4, 5, 6]}',
            faults.MALFORMED_ROW,
        ),
        (
            '{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "segmentation": [[1, 2, 3, 4, 5, NaN]]}',
            faults.NOT_FINITE,
        ),
        (
            '{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "segmentation": {"size": [2, 2], "counts": [9]}}',
            faults.MALFORMED_ROW,
        ),
        (
            '{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "segmentation": {"size": [2, 2], "counts": "!"}}',
            faults.MALFORMED_ROW,
        ),
    ],
)
def test_a_bad_annotation_is_a_finding_at_its_line_and_the_others_are_rows(source, annotation, code):
    result = read_one(source, text_of(BOX, annotation, BOX))
    assert [row.source_line for row in result.rows] == [5, 7]
    assert found(result) == [(code, 6, "images/a.png")]


@pytest.mark.parametrize("annotation", ["7", "null", '["x"]', '{"category_id": 1, "bbox": [1, 2, 3, 4]}'])
def test_an_annotation_of_no_image_is_a_finding_at_its_line(source, annotation):
    assert found(read_one(source, text_of(BOX, annotation))) == [(faults.MALFORMED_ROW, 6, "")]


def test_an_annotation_of_an_image_that_is_not_listed_is_told(source):
    result = read_one(source, text_of(BOX, BOX.replace('"image_id": 1', '"image_id": 5')))
    assert found(result) == [(faults.MISSING_IMAGE, 6, "")]
    assert "5" in result.findings[0].message
    assert len(result.rows) == 1


def test_an_image_that_is_not_there_is_told_once_at_its_line(source):
    images = IMAGE + ',\n{"id": 2, "file_name": "gone.png"}'
    result = read_one(source, text_of(BOX, BOX.replace('"image_id": 1', '"image_id": 2'), images=images))
    assert found(result) == [(faults.MISSING_IMAGE, 3, "")]
    assert len(result.rows) == 1


def test_an_image_that_is_not_in_the_file_is_told(source):
    add_image(source / "images" / "b.png")
    result = read_one(source, text_of(BOX))
    assert found(result) == [(faults.MISSING_LABEL, 0, "images/b.png")]


@pytest.mark.parametrize(
    ("size", "exif", "codes"),
    [
        ('"width": 64, "height": 32', 6, []),
        ('"width": 32, "height": 64', 6, [faults.EXIF_CONTRADICTS_LABEL]),
        ('"width": 32, "height": 64', 3, [faults.SIZE_MISMATCH]),
        ('"width": 63, "height": 32', 8, [faults.SIZE_MISMATCH]),
        ('"width": 0, "height": 0', 1, []),
        ('"width": null', 1, []),
        ('"width": "wide", "height": 32', 1, [faults.MALFORMED_ROW]),
        ('"width": NaN, "height": 32', 1, [faults.NOT_FINITE]),
    ],
)
def test_a_size_that_is_not_the_images_is_told(source, size, exif, codes):
    read_one(source, text_of(BOX, images=f'{{"id": 1, "file_name": "a.png",\n{size}}}'))
    scans = {name: replace(scan, exif_orientation=exif) for name, scan in scans_of(source).items()}
    result = read(source, scans)
    assert found(result) == [(code, 2, "images/a.png") for code in codes]
    assert len(result.rows) == 1


def test_an_image_that_cannot_be_read_keeps_its_boxes(source):
    (source / "images" / "a.png").write_bytes(b"rubbish")
    result = read_one(source, text_of(BOX, images='{"id": 1, "file_name": "a.png", "width": 9, "height": 9}'))
    assert (len(result.rows), result.findings) == (1, [])


def test_an_id_twice_spoils_both_images(source):
    add_image(source / "images" / "b.png")
    result = read_one(source, text_of(BOX, images='{"id": 1, "file_name": "a.png"},\n{"id": 1, "file_name": "b.png"}'))
    assert found(result) == [(faults.SECOND_LABEL, 3, "images/a.png"), (faults.SECOND_LABEL, 3, "images/b.png")]


@pytest.mark.parametrize("second", ['{"id": 2, "file_name": "a.png"}', '{"id": 1, "file_name": "a.png"}'])
def test_two_entries_for_one_image_are_told_at_the_second(source, second):
    result = read_one(source, text_of(BOX, images=f"{IMAGE},\n{second}"))
    assert found(result) == [(faults.SECOND_LABEL, 3, "images/a.png")]


def test_two_files_about_one_image_are_told_at_the_second(source):
    read_one(source, text_of(BOX))
    result = read_one(source, text_of(BOX), name="annotations/second.json")
    assert found(result) == [(faults.SECOND_LABEL, 2, "images/a.png")]
    assert result.findings[0].source_file.endswith("second.json")
    assert "instances.json:2" in result.findings[0].message


@pytest.mark.parametrize("entry", ["3", '{"file_name": "a.png"}', '{"id": 1}', '{"id": true, "file_name": "a.png"}'])
def test_a_bad_image_entry_is_told_at_its_line(source, entry):
    result = read_one(source, text_of(images=f'{{"id": 9, "file_name": "gone.png"}},\n{entry}'))
    assert (faults.MALFORMED_ROW, 3, "") in found(result)


@pytest.mark.parametrize(
    "entry", ["3", '{"id": 2}', '{"name": "dog"}', '{"id": 1, "name": "dog"}', '{"id": 2, "name": " "}']
)
def test_a_bad_category_is_told_at_its_line(source, entry):
    result = read_one(source, text_of(BOX, categories=f'{{"id": 1, "name": "cat"}},\n{entry}'))
    assert found(result) == [(faults.MALFORMED_ROW, 8, "")]
    assert result.declared_names == ("cat",)


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"", 1),
        (b"{\n", 2),
        (text_of(BOX).replace("]", "", 1).encode(), 4),
        (text_of(BOX).encode()[:-1], 9),
        ((text_of(BOX) + "\n{}").encode(), 10),
        (text_of(BOX + ",").encode(), 6),
        (text_of(BOX, "{'image_id': 1}").encode(), 6),
        (text_of(BOX, '{"image_id": 1, "bbox": [nan]}').encode(), 6),
        (text_of(BOX, "[" * 100_000 + "]" * 100_000).encode(), 6),
        (text_of(BOX, '{"image_id": ' + "1" * 5000 + "}").encode(), 6),
        (text_of(BOX).replace('"categories"', '"images"').encode(), 6),
        (b'{"images":\n{}, "annotations": []}', 2),
        (b'{"images": []}', 1),
        (b"[]", 1),
        (b"\n{}", 1),
        (b'{"images": [], "annotations": [],\n "categories": {}}', 1),
    ],
)
def test_a_file_that_is_not_coco_is_told_at_its_line(source, data, line):
    result = read_one(source, data)
    assert (faults.MALFORMED_LABEL, line) in {(f.code, f.source_line) for f in result.findings}
    # What is on the image is not known, so it must not count as an image of nothing.
    assert {f.code for f in result.findings if f.image == "images/a.png"} == {
        faults.MALFORMED_LABEL,
        faults.MISSING_LABEL,
    }
    assert result.rows == []


def test_a_broken_file_spoils_no_image_of_another(source):
    read_one(source, text_of(BOX))
    result = read_one(source, b"{", name="annotations/more.json")
    assert found(result) == [(faults.MALFORMED_LABEL, 1, "")]
    assert len(result.rows) == 1


def test_many_broken_files_do_not_each_spoil_every_image(tmp_path):
    for number in range(3):
        add_image(tmp_path / "images" / f"{number}.png")
        read_one(tmp_path, b"{", name=f"{number}.coco.json")
    findings = [finding for finding in read(tmp_path).findings if finding.code == faults.MALFORMED_LABEL]
    assert len({finding.source_file for finding in findings}) == 3
    assert sorted(finding.image for finding in findings) == ["", "", *(f"images/{number}.png" for number in range(3))]


def test_other_json_is_left_alone(source):
    for name in ("captions", "person_keypoints", "stuff"):
        (source / "annotations").mkdir(exist_ok=True)
        (source / "annotations" / f"{name}_val2017.json").write_text(text_of(BOX))
    (source / "package.json").write_text('{"name": "x"}')
    (source / "list.json").write_text('{"a": [1]}')
    (source / "detections.json").write_text('\n[{"image_id": 1, "score": 0.5}]')
    result = read_one(source, text_of(BOX), name="annotations/instances_val2017.json")
    assert (len(result.rows), result.findings) == (1, [])


def test_latin_1_and_a_byte_order_mark_are_told(source):
    data = text_of(BOX, categories='{"id": 1, "name": "Käfer"}')
    result = read_one(source, data.encode("latin-1"))
    assert found(result) == [(faults.NOT_UTF8, 7, "")]
    assert [row.class_name for row in result.rows] == ["Käfer"]
    result = read_one(source, b"\xef\xbb\xbf" + data.encode())
    assert found(result) == [(faults.BYTE_ORDER_MARK, 1, "")]
    assert [(row.class_name, row.source_line) for row in result.rows] == [("Käfer", 5)]


@pytest.mark.parametrize(
    ("label", "file_name", "image", "split"),
    [
        ("annotations/instances.json", "a.png", "images/a.png", ""),
        ("annotations/instances_train2017.json", "a.png", "train2017/a.png", "train"),
        ("annotations/instances_val2017.json", "a.png", "images/val2017/a.png", "val"),
        ("annotations/instances_test.json", "a.png", "images/test/a.png", "test"),
        ("annotations/train.json", "a.png", "train/a.png", "train"),
        ("valid/_annotations.coco.json", "a.png", "valid/a.png", "val"),
        ("x/test/_annotations.coco.json", "a.png", "x/test/a.png", "test"),
        ("labels.json", "images/a.png", "images/a.png", ""),
        ("labels.json", "./deep/a.png", "deep/a.png", ""),
        ("labels.json", "../a.png", "a.png", ""),
        ("result.json", r"C:\photos\a.png", "images/x/a.png", ""),
        ("result.json", "/home/me/x/a.png", "images/x/a.png", ""),
        ("annotations/train_station.json", "a.png", "images/a.png", ""),
        ("labels.json", "a.PNG", "images/a.png", ""),
        ("labels.json", "m\u00fctze.png", "images/mu\u0308tze.png", ""),
        ("labels.json", "clip/a", "clip/a.png", ""),
        ("labels.json", "a", "clip/deep/a.png", ""),
    ],
)
def test_the_image_and_its_split_are_found(tmp_path, label, file_name, image, split):
    add_image(tmp_path / image)
    entry = json.dumps({"id": 1, "file_name": file_name})
    result = read_one(tmp_path, text_of(BOX, images=entry), name=label)
    assert [row.image for row in result.rows] == [image]
    assert result.findings == []
    assert result.splits == ({image: split} if split else {})


def test_of_two_images_of_one_name_none_is_guessed(tmp_path):
    for folder in ("p", "q"):
        add_image(tmp_path / folder / "a.png")
    result = read_one(tmp_path, text_of(BOX), name="x/labels.json")
    assert sorted(finding.code for finding in result.findings) == [faults.MISSING_IMAGE, *[faults.MISSING_LABEL] * 2]
    result = read_one(tmp_path, text_of(BOX, images='{"id": 1, "file_name": "q/a.png"}'), name="x/labels.json")
    assert [row.image for row in result.rows] == ["q/a.png"]


def test_an_image_of_another_suffix_is_not_taken(tmp_path):
    add_image(tmp_path / "a.png")
    result = read_one(tmp_path, text_of(BOX, images='{"id": 1, "file_name": "a.jpg"}'), name="labels.json")
    assert sorted(finding.code for finding in result.findings) == [faults.MISSING_IMAGE, faults.MISSING_LABEL]
    shutil.copy(tmp_path / "a.png", tmp_path / "a.jpg")
    result = read_one(tmp_path, text_of(BOX, images='{"id": 1, "file_name": "a"}'), name="labels.json")
    assert sorted(finding.code for finding in result.findings) == [faults.MISSING_IMAGE, *[faults.MISSING_LABEL] * 2]


def test_many_images_of_one_name_are_looked_at_once():
    images = [f"clip{number}/a.png" for number in range(2000)]
    finder = ImageFinder(images)
    looked_at = CountingDict()
    assert {finder.find_anywhere(f"elsewhere/{image}", "", looked_at) for image in images} == set(images)
    assert {finder.find_anywhere(f"{number}/a.png", "", looked_at) for number in range(2000)} == {""}
    assert looked_at.count < 10 * len(images)


class CountingDict(dict[str, str]):
    """Counts how often something is looked up."""

    count = 0

    def __contains__(self, key: object) -> bool:
        self.count += 1
        return super().__contains__(key)


def test_an_image_of_another_split_is_not_taken(tmp_path):
    add_image(tmp_path / "train" / "a.png")
    read_one(tmp_path, text_of(BOX), name="train/_annotations.coco.json")
    result = read_one(tmp_path, text_of(BOX), name="valid/_annotations.coco.json")
    assert [(f.code, Path(f.source_file).parent.name) for f in result.findings] == [(faults.MISSING_IMAGE, "valid")]


def test_a_loose_match_takes_no_image_that_is_named_exactly(tmp_path):
    add_image(tmp_path / "cam2" / "a.png")
    images = '{"id": 2, "file_name": "cam1/a.png"},\n{"id": 1, "file_name": "cam2/a.png"}'
    result = read_one(tmp_path, text_of(BOX, images=images), name="labels.json")
    assert found(result) == [(faults.MISSING_IMAGE, 2, "")]
    assert [row.image for row in result.rows] == ["cam2/a.png"]


def test_sniff_wants_the_lists_or_the_name(tmp_path):
    assert not coco.sniff(open_source(str(tmp_path)))
    (tmp_path / "a.json").write_text('{"shapes": [], "images": 3}')
    assert not coco.sniff(open_source(str(tmp_path)))
    (tmp_path / "b.json").write_text(text_of(BOX))
    assert coco.sniff(open_source(str(tmp_path)))
    (tmp_path / "b.json").unlink()
    (tmp_path / "_annotations.coco.json").write_text("broken")
    assert coco.sniff(open_source(str(tmp_path)))


@pytest.fixture(scope="module")
def golden_source(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("coco")
    for name, size in (("a", (64, 32)), ("b", (32, 64)), ("nothing", (16, 16))):
        add_image(folder / "images" / f"{name}.png", size)
    return folder


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["id", "name", "bbox", "image_id", "size", "counts"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_value_in_the_file_makes_the_reader_fail(golden_source, data):
    whole = json.loads(GOLDEN.read_text())
    for _ in range(data.draw(st.integers(1, 3))):
        part = whole[data.draw(st.sampled_from(["images", "annotations", "categories"]))]
        entry = data.draw(st.integers(0, len(part) - 1))
        if isinstance(part[entry], dict) and part[entry] and data.draw(st.booleans()):
            part[entry][data.draw(st.sampled_from(sorted(part[entry])))] = data.draw(ANY_JSON)
        else:
            part[entry] = data.draw(ANY_JSON)
    check_read(golden_source, json.dumps(whole, indent=data.draw(st.sampled_from([None, 1]))).encode())


@settings(max_examples=150, deadline=None)
@given(
    data=st.binary(max_size=300) | st.text(alphabet='{}[]",:.-0123456789eimagesnot \n', max_size=300).map(str.encode)
)
def test_no_bytes_make_the_reader_fail(golden_source, data):
    check_read(golden_source, data)


def check_read(folder: Path, data: bytes) -> None:
    result = read_one(folder, data)
    assert all(finding.code in faults.FAULTS for finding in result.findings)
    assert all(all(map(math.isfinite, row.xyxy)) for row in result.rows)
    records = [ImageRecord(name, "", "") for name in scans_of(folder)]
    build_dataset(records, scans_of(folder), result, CLASS_NAMES, folder)


MASK = '{"size": [32, 64], "counts": [2000, 40, 8]}'


def test_all_that_coco_holds_comes_back_and_pycocotools_reads_it(tmp_path):
    scans, rows = {}, []
    for name in ("a.png", "x/b.png", "c.png"):
        add_image(tmp_path / "images" / name)
        scans[name] = scan_image(tmp_path / "images" / name)
    row = LabelRow("a.png", 1, "dog", (1.25, 2, 11.5, 12), "x", 1)
    rings = ((1.25, 2.0, 11.5, 2.0, 11.5, 12.0), (2.0, 2.0, 3.0, 2.0, 3.0, 3.0))
    rows = [
        replace(row, polygon=rings, difficult=True),
        replace(row, class_id=-1, class_name="zebra", truncated=True),
        replace(row, class_id=-2, class_name="7", xyxy=(3.0, 3.0, 1.0, 3.0)),
        replace(row, image="x/b.png", class_id=0, class_name="cat", crowd=True, rle=MASK),
    ]
    result = ReadResult(rows=rows, splits={"a.png": "train", "x/b.png": "val", "c.png": "train"})
    records = [ImageRecord(name, "", "") for name in scans]
    dataset = build_dataset(records, scans, result, CLASS_NAMES, tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    assert coco.write(dataset, out) == []

    back = read(out)
    assert back.findings == []
    assert back.declared_names == ("cat", "dog", "zebra")
    assert back.splits == {f"images/{name}": split for name, split in result.splits.items()}
    plain = [replace(r, image=r.image.removeprefix("images/"), source_file="x", source_line=1) for r in back.rows]
    assert plain == rows
    lines = (out / "annotations" / "instances_train.json").read_text().split("\n")
    assert all('"bbox"' in lines[r.source_line - 1] for r in back.rows if "train" in r.source_file)

    api = COCO(str(out / "annotations" / "instances_train.json"))
    polygon, *_ = api.loadAnns(api.getAnnIds())
    assert (polygon["area"], polygon["bbox"], polygon["id"]) == (10.25 * 10 / 2 + 0.5, [1.25, 2, 10.25, 10], 1)
    api = COCO(str(out / "annotations" / "instances_val.json"))
    (crowd,) = api.loadAnns(api.getAnnIds())
    assert crowd["area"] == 40 == api.annToMask(crowd).sum()
