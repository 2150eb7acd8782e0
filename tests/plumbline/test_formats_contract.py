"""What every label format must do, whatever it looks like on disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline.errors import DatasetError
from plumbline.formats import FORMATS, open_format, sniff
from plumbline.formats.reading import ImageRecord, ReadResult, build_dataset
from plumbline.image_scan import scan_image
from plumbline.manifest import read_dataset, write_dataset

GOLDEN = Path(__file__).parent.parent / "golden"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
CLASS_NAMES = tuple(EXPECTED["class_names"])

# Where the golden folder of each format has its images and labels. A new format needs its row.
PLACES = {
    "voc": ("JPEGImages/{}.png", "Annotations/{}.xml"),
    "yolo": ("images/{}.png", "labels/{}.txt"),
}
READER_CODES = {"malformed_label", "missing_image", "missing_label", "size_mismatch", "unreadable_image"}

every_format = pytest.mark.parametrize("name", FORMATS)


def make_source(name: str, folder: Path) -> Path:
    """Copy a format's golden labels, and draw the images that they are about."""
    shutil.copytree(GOLDEN / name, folder)
    for stem, image in EXPECTED["images"].items():
        width, height = image["size_wh"]
        path = folder / PLACES[name][0].format(stem)
        path.parent.mkdir(exist_ok=True)
        assert cv2.imwrite(str(path), np.full((height, width), 99, np.uint8))
    return folder


def read(name: str, folder: Path, class_names: tuple[str, ...] = CLASS_NAMES) -> ReadResult:
    module = open_format(name)
    scans = {image: scan_image(folder / image) for image in module.find_images(folder)}
    return module.read(folder, class_names, scans)


def test_every_format_has_its_places_and_golden_labels():
    assert set(PLACES) == set(FORMATS) == {p.name for p in GOLDEN.iterdir() if p.is_dir()}


@every_format
def test_reads_the_golden_labels_as_they_are(name, tmp_path):
    source = make_source(name, tmp_path / "source")
    image_place, label_place = PLACES[name]
    result = read(name, source)

    got = {(row.image, row.class_id, row.class_name, row.xyxy, row.source_file, row.source_line) for row in result.rows}
    want = {
        (
            image_place.format(stem),
            CLASS_NAMES.index(box["class_name"]) if box["class_name"] in CLASS_NAMES else -1,
            box["class_name"],
            tuple(box["xyxy"]),
            str(source / label_place.format(stem)),
            line,
        )
        for stem, image in EXPECTED["images"].items()
        for box, line in zip(image["boxes"], EXPECTED["source_lines"][name][stem], strict=True)
    }
    assert got == want
    assert len(result.rows) == len(want)
    assert result.findings == []


@every_format
def test_class_order_is_the_users(name, tmp_path):
    source = make_source(name, tmp_path / "source")
    forwards, backwards = read(name, source), read(name, source, CLASS_NAMES[::-1])
    assert [row.class_name for row in backwards.rows] == [row.class_name for row in forwards.rows]
    flipped = {-1: -1, 0: 1, 1: 0}
    assert [row.class_id for row in backwards.rows] == [flipped[row.class_id] for row in forwards.rows]


@every_format
def test_is_recognised_and_alone(name, tmp_path):
    assert sniff(make_source(name, tmp_path / "source")) == name


@every_format
def test_images_are_found_sorted_and_reading_leaves_the_source_alone(name, tmp_path):
    source = make_source(name, tmp_path / "source")
    before = {p: p.read_bytes() for p in source.rglob("*") if p.is_file()}
    first, second = read(name, source), read(name, source)
    assert first == second
    assert open_format(name).find_images(source) == [PLACES[name][0].format(stem) for stem in ("a", "b", "nothing")]
    assert {p: p.read_bytes() for p in source.rglob("*") if p.is_file()} == before


@every_format
def test_an_image_without_label_file_is_told(name, tmp_path):
    source = make_source(name, tmp_path / "source")
    image, label = (place.format("a") for place in PLACES[name])
    (source / label).unlink()
    (finding,) = read(name, source).findings
    assert (finding.code, finding.image) == ("missing_label", image)
    assert finding.source_file == str(source / image)


@every_format
def test_a_label_file_without_image_is_told(name, tmp_path):
    source = make_source(name, tmp_path / "source")
    image, label = (place.format("a") for place in PLACES[name])
    (source / image).unlink()
    result = read(name, source)
    (finding,) = result.findings
    assert (finding.code, finding.image, finding.source_file) == ("missing_image", "", str(source / label))
    assert {row.image for row in result.rows} == {PLACES[name][0].format("b")}


@every_format
def test_a_label_file_of_rubbish_is_a_finding_and_spoils_no_other(name, tmp_path):
    source = make_source(name, tmp_path / "source")
    label = source / PLACES[name][1].format("a")
    label.write_bytes(b"\xff\xfe\x00rubbish \x80\n")
    result = read(name, source)
    assert {(finding.code, finding.source_file) for finding in result.findings} == {("malformed_label", str(label))}
    assert len(result.rows) == len(EXPECTED["images"]["b"]["boxes"])


@every_format
def test_windows_line_ends_and_a_byte_order_mark_change_nothing(name, tmp_path):
    source = make_source(name, tmp_path / "source")
    plain = read(name, source)
    for stem in EXPECTED["images"]:
        label = source / PLACES[name][1].format(stem)
        label.write_bytes(b"\xef\xbb\xbf" + label.read_bytes().replace(b"\n", b"\r\n"))
    assert read(name, source) == plain


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, Path]:
    return {name: make_source(name, tmp_path_factory.mktemp("golden") / name) for name in FORMATS}


@every_format
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_label_file_makes_the_reader_fail(sources, name, data):
    label = sources[name] / PLACES[name][1].format("a")
    golden = (GOLDEN / name / PLACES[name][1].format("a")).read_bytes()
    cut = data.draw(st.integers(0, len(golden)))
    label.write_bytes(golden[:cut] + data.draw(st.binary(max_size=40)) + golden[cut + data.draw(st.integers(0, 20)) :])
    result = read(name, sources[name])
    assert {finding.code for finding in result.findings} <= READER_CODES
    assert all(np.isfinite(row.xyxy).all() for row in result.rows)


@every_format
def test_becomes_tables_that_can_be_written_and_read(name, tmp_path):
    source = make_source(name, tmp_path / "source")
    (source / PLACES[name][1].format("nothing")).unlink()
    images = open_format(name).find_images(source)
    scans = {image: scan_image(source / image) for image in images}
    records = [ImageRecord(image, "", f"from/{image}") for image in reversed(images)]
    dataset = build_dataset(records, scans, read(name, source), CLASS_NAMES, tmp_path)
    write_dataset(dataset, tmp_path)

    back = read_dataset(tmp_path)
    assert back.class_names == CLASS_NAMES
    assert back.images["path"].tolist() == [f"images/{image}" for image in images]
    assert back.images["source"].tolist() == [f"from/{image}" for image in images]
    assert back.images[["width", "height"]].values.tolist() == [i["size_wh"] for i in EXPECTED["images"].values()]
    assert back.annotations["image_id"].tolist() == [0, 0, 1, 1, 1]
    assert back.annotations["ann_id"].tolist() == list(range(5))
    assert back.annotations["class_name"].tolist() == ["cat", "dog", "dog", "zebra", "cat"]
    assert back.findings[["code", "severity", "image_id", "ann_id"]].values.tolist() == [["missing_label", "", 2, -1]]


def test_no_format_is_one_error_that_says_what_was_looked_for(tmp_path):
    (tmp_path / "a.txt").write_text("no image beside it")
    with pytest.raises(DatasetError, match=r"no labels of a known format.*voc: .*yolo: .*dataset\.source"):
        sniff(tmp_path)


def test_two_formats_are_one_error_that_says_how_to_choose(tmp_path):
    shutil.copytree(GOLDEN / "voc", tmp_path / "both")
    shutil.copytree(GOLDEN / "yolo", tmp_path / "both", dirs_exist_ok=True)
    with pytest.raises(DatasetError, match=r"more than one format.*voc and yolo.*dataset\.format"):
        sniff(tmp_path / "both")


def test_an_unknown_format_is_refused():
    with pytest.raises(DatasetError, match="coco5: no such label format, expected one of: voc, yolo"):
        open_format("coco5")
