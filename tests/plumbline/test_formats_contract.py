"""What every label format must do, whatever it looks like on disk."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plumbline import faults
from plumbline.errors import DatasetError
from plumbline.formats import FORMATS, open_format, sniff
from plumbline.formats.reading import SPLIT_NAMES, ImageRecord, LabelRow, ReadResult, build_dataset, to_class_id
from plumbline.image_scan import ImageScan, scan_image
from plumbline.manifest import Dataset, read_dataset, write_dataset
from plumbline.sources import open_source

GOLDEN = Path(__file__).parent.parent / "golden"
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
CLASS_NAMES = tuple(EXPECTED["class_names"])
STEMS = ("a", "b", "nothing")

# What a text editor, a YAML or XML parser, or a table could take for something else.
AWKWARD = (
    "no",
    "null",
    "1e3",
    "-1",
    "0",
    "~",
    "a: b # c",
    "<R&D>",
    '"',
    "'",
    "[x]",
    "a,b",
    "a;b",
    "Zelle für Ärzte",
    "日本",
)
ANY_CLASS = st.one_of(
    st.sampled_from(AWKWARD),
    st.text(st.characters(exclude_categories=["C", "Z"], include_characters=" \xa0"), min_size=1, max_size=9),
).filter(lambda name: name == name.strip())


@dataclass(frozen=True)
class Place:
    """How one format looks; a new format needs its row in PLACES, and a folder of its own in ``tests/golden``.

    Attributes:
        images: Where the golden images a, b and nothing stand.
        labels: The label file of each; one name three times where one file is about all; "" where there is none.
        tolerance: How far a coordinate may be off after `write` and `read`, as a share of the largest in its image.
        whole_image: Its labels are one class for a whole image (``whole_image`` in expected.json); else boxes.
        any_label: It holds both kinds.
        ordered: Its boxes are two corners in any order, so that none is reversed.
        codes: Of the findings in the golden folder.
        keeps: Further fields of `LabelRow` that come back; boxes, classes, negatives and splits always must.
        classes: The names of classes that it can hold.
    """

    images: tuple[str, str, str]
    labels: tuple[str, str, str]
    tolerance: float = 0
    whole_image: bool = False
    any_label: bool = False
    ordered: bool = False
    codes: tuple[str, ...] = ()
    keeps: frozenset[str] = frozenset()
    classes: st.SearchStrategy[str] = field(default=ANY_CLASS, repr=False)


PLACES = {
    "voc": Place(
        images=("JPEGImages/a.png", "JPEGImages/b.png", "JPEGImages/nothing.png"),
        labels=("Annotations/a.xml", "Annotations/b.xml", "Annotations/nothing.xml"),
        keeps=frozenset({"difficult", "truncated"}),
    ),
    "yolo": Place(
        images=("images/a.png", "images/b.png", "images/nothing.png"),
        labels=("labels/a.txt", "labels/b.txt", "labels/nothing.txt"),
        tolerance=1e-9,
    ),
    "coco": Place(
        images=("images/a.png", "images/b.png", "images/nothing.png"),
        labels=("annotations/instances.json",) * 3,
        tolerance=1e-9,
        keeps=frozenset({"crowd", "difficult", "truncated"}),
    ),
    "labelme": Place(
        images=("a.png", "b.png", "nothing.png"),
        labels=("a.json", "b.json", "nothing.json"),
        keeps=frozenset({"crowd", "difficult", "truncated"}),
        any_label=True,
        ordered=True,
    ),
    "cvat": Place(
        images=("images/a.png", "images/b.png", "images/nothing.png"),
        labels=("annotations.xml",) * 3,
        keeps=frozenset({"difficult", "truncated"}),
        any_label=True,
    ),
    "imagefolder": Place(
        images=("cat/a.png", "dog/b.png", "nothing.png"),
        labels=("", "", ""),
        whole_image=True,
        codes=(faults.MISSING_LABEL,),
        classes=ANY_CLASS.filter(
            lambda name: name.isprintable() and name[0] != "." and not set(name) & set("/\\")
        ).filter(lambda name: name.lower() not in SPLIT_NAMES),
    ),
    "csv": Place(
        images=("images/a.png", "images/b.png", "images/nothing.png"),
        labels=("labels.csv",) * 3,
        whole_image=True,
        codes=(faults.MISSING_LABEL,),
    ),
}

every_format = pytest.mark.parametrize("name", PLACES)
with_label_files = pytest.mark.parametrize("name", [name for name, place in PLACES.items() if any(place.labels)])
with_a_label_file_each = pytest.mark.parametrize(
    "name", [name for name, place in PLACES.items() if len(set(place.labels)) == len(STEMS)]
)


def add_image(path: Path, size_wh: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = cv2.imencode(".png", np.full(size_wh[::-1], 99, np.uint8))[1]
    path.write_bytes(data.tobytes())


def make_source(name: str, folder: Path) -> Path:
    """Copy a format's golden labels, and draw the images that they are about."""
    shutil.copytree(GOLDEN / name, folder)
    for stem, place in zip(STEMS, PLACES[name].images, strict=True):
        add_image(folder / place, EXPECTED["images"][stem]["size_wh"])
    return folder


def scans_of(name: str, folder: Path) -> dict[str, ImageScan]:
    images = open_format(name).find_images(open_source(str(folder)))
    return {image: scan_image(folder / image) for image in images}


def read(name: str, folder: Path, class_names: tuple[str, ...] = CLASS_NAMES) -> ReadResult:
    return open_format(name).read(open_source(str(folder)), class_names, scans_of(name, folder))


def expected_rows(name: str, source: Path) -> list[tuple[Any, ...]]:
    """Return what the golden folder of a format holds, as `facts` has it."""
    place, rows = PLACES[name], []
    for stem, image, label in zip(STEMS, place.images, place.labels, strict=True):
        golden = EXPECTED["images"][stem]
        boxes = [{"class_name": golden["whole_image"]}] if place.whole_image else golden["boxes"]
        lines = EXPECTED["source_lines"][name][stem]
        for box, line in zip([box for box in boxes if box["class_name"]], lines, strict=True):
            class_name, xyxy = box["class_name"], None if place.whole_image else tuple(box["xyxy"])
            class_id = to_class_id(class_name, CLASS_NAMES)
            rows.append((image, class_id, class_name, xyxy, str(source / (label or image)), line))
    return rows


def facts(rows: list[LabelRow]) -> list[tuple[Any, ...]]:
    return [(row.image, row.class_id, row.class_name, row.xyxy, row.source_file, row.source_line) for row in rows]


def codes(result: ReadResult) -> set[str]:
    """Return the codes of all findings, each of which must be in the table and say where it is."""
    assert all(finding.code in faults.FAULTS and finding.source_file for finding in result.findings)
    assert all(finding.source_line >= 0 and "\n" not in finding.message for finding in result.findings)
    return {finding.code for finding in result.findings}


def test_every_format_has_its_places_and_golden_labels():
    # Images without labels have a test of their own: there is nothing to recognise and nothing to bring back.
    assert set(PLACES) == set(FORMATS) - {"unlabelled"} == {p.name for p in GOLDEN.iterdir() if p.is_dir()}


@every_format
def test_reads_the_golden_labels_as_they_are(name, tmp_path):
    source = make_source(name, tmp_path / "source")
    result = read(name, source)
    assert sorted(facts(result.rows), key=str) == sorted(expected_rows(name, source), key=str)
    assert sorted(finding.code for finding in result.findings) == sorted(PLACES[name].codes)
    assert codes(result) == set(PLACES[name].codes)


@every_format
def test_class_order_is_the_users(name, tmp_path):
    source = make_source(name, tmp_path / "source")
    forwards, backwards = read(name, source), read(name, source, CLASS_NAMES[::-1])
    assert [row.class_name for row in backwards.rows] == [row.class_name for row in forwards.rows]
    flipped = {-1: -1, 0: 1, 1: 0}
    assert [row.class_id for row in backwards.rows] == [flipped[row.class_id] for row in forwards.rows]


@every_format
def test_is_recognised_and_alone(name, tmp_path):
    assert sniff(open_source(str(make_source(name, tmp_path / "source")))) == name


@every_format
def test_images_are_found_sorted_and_reading_leaves_the_source_alone(name, tmp_path):
    source = make_source(name, tmp_path / "source")
    before = {p: p.read_bytes() for p in source.rglob("*") if p.is_file()}
    first, second = read(name, source), read(name, source)
    assert first == second
    assert list(scans_of(name, source)) == sorted(PLACES[name].images)
    assert {p: p.read_bytes() for p in source.rglob("*") if p.is_file()} == before


@every_format
def test_an_archive_is_read_as_its_folder_is(name, tmp_path):
    source = make_source(name, tmp_path / "source")
    if PLACES[name].labels[0]:
        (source / PLACES[name].labels[0]).write_bytes(b"\xef\xbb\xbf" + (source / PLACES[name].labels[0]).read_bytes())
    archive = tmp_path / "source.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        # Not in the order of names: that of an archive is its own.
        for path in sorted((p for p in source.rglob("*") if p.is_file()), reverse=True):
            file.write(path, path.relative_to(source))
    scans = scans_of(name, source)
    results = []
    for address in (source, archive):
        opened = open_source(str(address))
        assert sniff(opened) == name
        assert open_format(name).find_images(opened) == list(scans)
        results.append(repr(open_format(name).read(opened, CLASS_NAMES, scans)).replace(str(address), ""))
    assert results[0] == results[1]
    assert results[0].count("LabelRow(") == len(expected_rows(name, source)) > 0


@with_a_label_file_each
def test_an_image_without_label_file_is_told(name, tmp_path):
    source = make_source(name, tmp_path / "source")
    (source / PLACES[name].labels[0]).unlink()
    (finding,) = read(name, source).findings
    assert (finding.code, finding.image) == (faults.MISSING_LABEL, PLACES[name].images[0])
    assert finding.source_file == str(source / PLACES[name].images[0])


@with_label_files
def test_a_label_without_image_is_told(name, tmp_path):
    source = make_source(name, tmp_path / "source")
    (source / PLACES[name].images[0]).unlink()
    result = read(name, source)
    (finding,) = (finding for finding in result.findings if finding.code not in PLACES[name].codes)
    assert (finding.code, finding.image) == (faults.MISSING_IMAGE, "")
    assert finding.source_file == str(source / PLACES[name].labels[0])
    assert {row.image for row in result.rows} == {PLACES[name].images[1]}


@with_label_files
def test_a_label_file_of_rubbish_is_a_finding_and_spoils_no_other(name, tmp_path):
    source = make_source(name, tmp_path / "source")
    label = source / PLACES[name].labels[0]
    label.write_bytes(b"\xff\xfe\x00rubbish \x80\n")
    result = read(name, source)
    of_label = {finding.code for finding in result.findings if finding.source_file == str(label)}
    assert of_label
    assert of_label <= {faults.MALFORMED_LABEL, faults.MALFORMED_ROW, faults.NOT_UTF8} - (codes(result) - of_label)
    others = [row for row in expected_rows(name, source) if row[4] != str(label)]
    assert sorted(facts(result.rows), key=str) == sorted(others, key=str)


@with_label_files
def test_a_label_file_that_cannot_be_opened_is_a_finding_and_spoils_no_other(name, tmp_path):
    source = make_source(name, tmp_path / "source")
    label, scans, opened = source / PLACES[name].labels[0], scans_of(name, source), open_source(str(source))
    opened.files()
    label.unlink()
    result = open_format(name).read(opened, CLASS_NAMES, scans)
    of_label = [finding for finding in result.findings if finding.source_file == str(label)]
    assert {(finding.code, finding.source_line) for finding in of_label} == {(faults.MALFORMED_LABEL, 0)}
    others = [row for row in expected_rows(name, source) if row[4] != str(label)]
    assert sorted(facts(result.rows), key=str) == sorted(others, key=str)


@with_label_files
def test_windows_line_ends_and_a_byte_order_mark_change_no_row(name, tmp_path):
    source = make_source(name, tmp_path / "source")
    plain = read(name, source)
    for label in set(PLACES[name].labels) - {""}:
        data = (source / label).read_bytes()
        (source / label).write_bytes(b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n"))
    result = read(name, source)
    assert result.rows == plain.rows
    found = [f for f in result.findings if f.code == faults.BYTE_ORDER_MARK]
    assert {f.source_file for f in found} == {str(source / label) for label in PLACES[name].labels if label}
    assert [f for f in result.findings if f.code != faults.BYTE_ORDER_MARK] == plain.findings


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, Path]:
    return {name: make_source(name, tmp_path_factory.mktemp("golden") / name) for name in PLACES}


@with_label_files
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_label_file_makes_the_reader_fail(sources, name, data):
    label = PLACES[name].labels[0]
    golden = (GOLDEN / name / label).read_bytes()
    cut = data.draw(st.integers(0, len(golden)))
    rubbish = data.draw(st.one_of(st.binary(max_size=40), st.text(max_size=40).map(str.encode)))
    (sources[name] / label).write_bytes(golden[:cut] + rubbish + golden[cut + data.draw(st.integers(0, 20)) :])
    result = read(name, sources[name])
    codes(result)
    assert all(row.xyxy is None or np.isfinite(row.xyxy).all() for row in result.rows)
    assert {row.image for row in result.rows} <= set(PLACES[name].images)


@with_a_label_file_each
def test_becomes_tables_that_can_be_written_and_read(name, tmp_path):
    source = make_source(name, tmp_path / "source")
    (source / PLACES[name].labels[2]).unlink()
    scans = scans_of(name, source)
    records = [ImageRecord(image, "", f"from/{image}") for image in reversed(scans)]
    dataset = build_dataset(records, scans, read(name, source), CLASS_NAMES, tmp_path)
    write_dataset(dataset, tmp_path)

    back = read_dataset(tmp_path)
    assert back.class_names == CLASS_NAMES
    assert back.images["path"].tolist() == [f"images/{image}" for image in scans]
    assert back.images["source"].tolist() == [f"from/{image}" for image in scans]
    assert back.images[["width", "height"]].values.tolist() == [i["size_wh"] for i in EXPECTED["images"].values()]
    assert back.annotations["image_id"].tolist() == [0, 0, 1, 1, 1]
    assert back.annotations["ann_id"].tolist() == list(range(5))
    assert back.annotations["class_name"].tolist() == ["cat", "dog", "dog", "zebra", "cat"]
    found = back.findings[["code", "severity", "image_id", "ann_id"]].values.tolist()
    assert found == [[faults.MISSING_LABEL, "", 2, -1]]


# A folder called as one of some format's own must change nothing.
FOLDERS = ("", "", "x/", "x/y z/", "images/", "JPEGImages/", "labels/", "train/", "a.b/")
FILE_NAME = st.text("abxyzäß日_-+.,;#%&'()[]{}= 019", min_size=1, max_size=8).filter(lambda name: name[0] != ".")
NUMBER = st.one_of(st.integers(-50, 700), st.floats(-9e3, 9e3))


@st.composite
def datasets(draw: st.DrawFn, place: Place, root: Path) -> Dataset:
    """Draw a small dataset, and put its images in place."""
    class_names = tuple(draw(st.lists(place.classes, min_size=1, max_size=4, unique=True)))
    any_class = st.one_of(st.sampled_from(class_names), place.classes)
    stems = draw(st.lists(FILE_NAME, min_size=1, max_size=4, unique_by=str.lower))
    split = st.sampled_from(["", "train", "val", "test"])
    scans, rows, splits = {}, [], {}
    for stem in stems:
        image = f"{draw(st.sampled_from(FOLDERS))}{stem}.png"
        add_image(root / "images" / image, draw(st.tuples(st.integers(1, 40), st.integers(1, 40))))
        scans[image], splits[image] = scan_image(root / "images" / image), draw(split)
        for line in range(draw(st.integers(0, 1 if place.whole_image else 3))):
            class_name, xyxy = draw(any_class), draw(st.tuples(NUMBER, NUMBER, NUMBER, NUMBER).map(_floats))
            xyxy = _ordered(xyxy) if place.ordered else xyxy
            extra = {key: draw(st.booleans()) for key in sorted(place.keeps)}
            box = None if place.whole_image else xyxy
            class_id = to_class_id(class_name, class_names)
            rows.append(LabelRow(image, class_id, class_name, box, "label", line + 1, **extra))
    return _dataset(scans, ReadResult(rows=rows, splits=splits), class_names, root)


def _ordered(xyxy: tuple[float, ...]) -> tuple[float, ...]:
    (x1, x2), (y1, y2) = sorted(xyxy[::2]), sorted(xyxy[1::2])
    return x1, y1, x2, y2


def _floats(numbers: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(map(float, numbers))


def _dataset(scans: dict[str, ImageScan], result: ReadResult, class_names: tuple[str, ...], root: Path) -> Dataset:
    return build_dataset([ImageRecord(image, "", "") for image in scans], scans, result, class_names, root)


def comparable(dataset: Dataset, keeps: Collection[str]) -> dict[str, Any]:
    """Return stem of the image -> its bytes, size and split, and the class and the further fields of each box."""
    columns = ["class_id", "class_name", *sorted(keeps)]
    by_image = {key: rows[columns].values.tolist() for key, rows in dataset.annotations.groupby("image_id")}
    images = dataset.images[["image_id", "path", "sha256", "width", "height", "split"]]
    return {
        PurePosixPath(path).stem: (rest, by_image.get(image_id, [])) for image_id, path, *rest in images.values.tolist()
    }


def corners(dataset: Dataset) -> dict[str, np.ndarray]:
    """Return stem of the image -> its boxes, shape (N, 4)."""
    by_image = {key: rows[["x1", "y1", "x2", "y2"]].values for key, rows in dataset.annotations.groupby("image_id")}
    images = dataset.images[["image_id", "path"]].values.tolist()
    return {PurePosixPath(path).stem: by_image.get(image_id, np.zeros((0, 4))) for image_id, path in images}


@every_format
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_what_is_written_is_read_again(tmp_path_factory, name, data):
    place, folder = PLACES[name], tmp_path_factory.mktemp("round")
    dataset = data.draw(datasets(place, folder / "dataset"))
    (folder / "out").mkdir()
    lost = open_format(name).write(dataset, folder / "out")
    assert lost == []

    back = _dataset(
        scans_of(name, folder / "out"), read(name, folder / "out", dataset.class_names), dataset.class_names, folder
    )
    assert comparable(back, place.keeps) == comparable(dataset, place.keeps)
    assert set(back.findings["code"]) <= {*place.codes}
    before, after = corners(dataset), corners(back)
    for stem, boxes in before.items():
        size = np.abs(boxes).max(initial=1)
        np.testing.assert_allclose(after[stem], boxes, rtol=0, atol=place.tolerance * size)
    shutil.rmtree(folder)


@every_format
def test_the_same_dataset_is_written_as_the_same_bytes(name, tmp_path):
    source = make_source(name, tmp_path / "source")
    dataset = _dataset(scans_of(name, source), read(name, source), CLASS_NAMES, tmp_path)
    shutil.copytree(source, tmp_path / "images")
    written = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        open_format(name).write(dataset, folder)
        written.append({p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()})
    assert written[0] == written[1]
    assert len(written[0]) >= len(STEMS)
    assert sniff(open_source(str(tmp_path / "one"))) == name


@pytest.mark.parametrize("name", [name for name, place in PLACES.items() if not place.any_label])
def test_what_a_format_cannot_hold_is_said(name, tmp_path):
    add_image(tmp_path / "images" / "a.png", (8, 8))
    rows = [
        LabelRow("a.png", 0, "cat", None, "label", 1),
        LabelRow("a.png", 0, "cat", (1.0, 2.0, 3.0, 4.0), "label", 2),
    ]
    dataset = _dataset({"a.png": scan_image(tmp_path / "images" / "a.png")}, ReadResult(rows=rows), ("cat",), tmp_path)
    (tmp_path / "out").mkdir()
    (sentence,) = open_format(name).write(dataset, tmp_path / "out")
    assert "boxes left out" in sentence if PLACES[name].whole_image else "classes of a whole image left out" in sentence
    assert sentence.endswith(": 1")


@every_format
def test_no_image_is_written_outside_of_the_folder(name, tmp_path):
    add_image(tmp_path / "a.png", (8, 8))
    scans = {"../../a.png": scan_image(tmp_path / "a.png")}
    dataset = _dataset(scans, ReadResult(), ("cat",), tmp_path / "in" / "dataset")
    (tmp_path / "out").mkdir()
    with pytest.raises(DatasetError, match=r"a\.png"):
        open_format(name).write(dataset, tmp_path / "out")
    assert [p.name for p in sorted(tmp_path.rglob("*"))] == ["a.png", "out"]


def test_no_format_is_one_error_that_says_what_was_looked_for(tmp_path):
    (tmp_path / "a.txt").write_text("no image beside it")
    with pytest.raises(DatasetError, match=r"no labels of a known format.*voc: .*yolo: .*dataset\.format"):
        sniff(open_source(str(tmp_path)))


def test_two_formats_are_one_error_that_says_how_to_choose(tmp_path):
    shutil.copytree(GOLDEN / "voc", tmp_path / "both")
    shutil.copytree(GOLDEN / "yolo", tmp_path / "both", dirs_exist_ok=True)
    with pytest.raises(DatasetError, match=r"more than one format.*voc and yolo.*dataset\.format"):
        sniff(open_source(str(tmp_path / "both")))


def test_an_unknown_format_is_refused():
    with pytest.raises(DatasetError, match="coco5: no such label format, expected one of: voc, yolo"):
        open_format("coco5")
