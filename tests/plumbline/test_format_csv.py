"""The CSV table's own ways: columns, quotes, rows that are wrong, and which image a row is about."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from plumbline.faults import (
    BYTE_ORDER_MARK,
    MALFORMED_LABEL,
    MALFORMED_ROW,
    MISSING_IMAGE,
    MISSING_LABEL,
    NOT_UTF8,
    SECOND_LABEL,
)
from plumbline.formats import csv_table
from plumbline.formats.reading import ImageRecord, LabelRow, ReadResult, build_dataset
from plumbline.image_scan import ImageScan
from plumbline.sources.folder import open_source

CLASS_NAMES = ("cat", "dog")
SCAN = ImageScan("", 8, 8, 0, readable=True, brightness=0, contrast=0, sharpness=0, problem="")


def add(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"no reader of labels looks into an image")


def read(folder: Path) -> ReadResult:
    source = open_source(str(folder))
    return csv_table.read(source, CLASS_NAMES, dict.fromkeys(csv_table.find_images(source), SCAN))


@pytest.fixture
def source(tmp_path) -> Path:
    """A folder with the images a.png to d.png."""
    add(tmp_path, "a.png", "b.png", "c.png", "d.png")
    return tmp_path


def read_one(source: Path, text: str | bytes) -> ReadResult:
    (source / "labels.csv").write_bytes(text.encode() if isinstance(text, str) else text)
    return read(source)


def rows(result: ReadResult) -> list[tuple[str, str, int]]:
    return [(row.image, row.class_name, row.source_line) for row in result.rows]


def faults(result: ReadResult) -> list[tuple[str, int, str]]:
    """Return code, line and image of the findings, but for images without a row."""
    return [(f.code, f.source_line, f.image) for f in result.findings if f.code != MISSING_LABEL]


def unlabelled(result: ReadResult) -> list[str]:
    return [finding.image for finding in result.findings if finding.code == MISSING_LABEL]


def test_a_row_is_a_class_of_a_whole_image(source):
    result = read_one(source, "image,class\nb.png,dog\na.png,cow\nc.png,7\n")
    where = f"{source}/labels.csv"
    assert result.rows == [
        LabelRow("b.png", 1, "dog", None, where, 2),
        LabelRow("a.png", -1, "cow", None, where, 3),
        LabelRow("c.png", -1, "7", None, where, 4),
    ]
    assert (unlabelled(result), result.splits, result.declared_names) == (["d.png"], {}, ())
    assert faults(result) == []


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("image", ["image", "Path", "FILE", "filename", "filepath", "file_name", "image_path"])
@pytest.mark.parametrize("class_name", ["class", "Label", "class_name", "category", "TARGET"])
def test_the_header_names_the_columns(source, delimiter, image, class_name):
    lines = [("width", class_name, "note, or so", image), ("8", "cat", "x, y; z", "a.png")]
    text = "\n".join(delimiter.join(f'"{cell}"' for cell in cells) for cells in lines)
    assert rows(read_one(source, text)) == [("a.png", "cat", 2)]
    assert csv_table.sniff(open_source(str(source)))


# What Roboflow writes for TensorFlow: a class for each box, not for the image.
BOX_TABLE = "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,8,8,cat,1,2,3,4\n"


@pytest.mark.parametrize(
    "text", ["", "\n\n", "image,size\na.png,train\n", "class\ncat\n", "a.png,cat\n", "\0\0", '"', BOX_TABLE]
)
def test_what_is_no_such_table_is_one_finding(source, text):
    result = read_one(source, text)
    assert result.rows == []
    assert faults(result) == [(MALFORMED_LABEL, 1, "")]
    assert len(unlabelled(result)) == 4
    assert not csv_table.sniff(open_source(str(source)))


def test_other_lists_beside_a_table_are_passed_over(source):
    (source / "classes.csv").write_text("name,colour\ncat,grey\n")
    assert faults(read_one(source, "image,class\na.png,cat\n")) == []


def test_a_table_that_cannot_be_read_is_a_finding(source):
    class Failing(type(open_source(str(source)))):
        def read(self, name):
            raise PermissionError(13, "Permission denied")

    (source / "labels.csv").write_text("image,class\n")
    failing = Failing(str(source))
    assert not csv_table.sniff(failing)
    (finding, *_) = csv_table.read(failing, CLASS_NAMES, {}).findings
    assert (finding.code, finding.source_line) == (MALFORMED_LABEL, 0)
    assert "Permission denied" in finding.message


def test_lines_are_the_files_own(source):
    text = '\n\n"image", "class", note\n\na.png,cat,"two\nlines"\n , ,\n"b.png","dog",x\r\n\r\nc.png, "cat",x'
    result = read_one(source, text)
    assert rows(result) == [("a.png", "cat", 5), ("b.png", "dog", 8), ("c.png", "cat", 10)]
    assert faults(result) == []


@pytest.mark.parametrize(
    ("row", "image"),
    [
        ("b.png", "b.png"),
        ("b.png,cat,extra", "b.png"),
        ("b.png,", "b.png"),
        ("b.png,  ", "b.png"),
        (",cat", ""),
        ("b.png,c\0at", "b.png"),
        ("z.png,", ""),
        ('"b.png"x,cat', ""),
        ('b.png,"cat', "b.png"),
        ('b.png,"cat"s', "b.png"),
        ("b.png," + "x" * 200_000, "b.png"),
    ],
)
def test_a_bad_row_is_a_finding_and_the_others_are_rows(source, row, image):
    result = read_one(source, f"image,class\na.png,cat\n{row}\nc.png,dog\nd.png,dog\n")
    assert rows(result) == [("a.png", "cat", 2), ("c.png", "dog", 4), ("d.png", "dog", 5)]
    assert faults(result) == [(MALFORMED_ROW, 3, image)]
    assert unlabelled(result) == ([] if image else ["b.png"])


def test_quotes_that_are_not_closed_spoil_no_other_row(source):
    result = read_one(source, 'image,class\na.png,"cat\nb.png,dog\nc.png,"cat\nd.png,dog\n')
    assert rows(result) == [("b.png", "dog", 3), ("d.png", "dog", 5)]
    assert faults(result) == [(MALFORMED_ROW, 2, "a.png"), (MALFORMED_ROW, 4, "c.png")]


def test_an_image_that_is_not_there_is_told_with_its_line(source):
    assert faults(read_one(source, "image,class\nz.png,cat\na.png,dog\n")) == [(MISSING_IMAGE, 2, "")]


def test_the_same_row_again_is_a_second_label_and_another_class_a_second_row(source):
    result = read_one(source, "image,class\na.png,cat\nb.png,dog\n./a.png,cat\na.png,dog\n")
    assert rows(result) == [("a.png", "cat", 2), ("b.png", "dog", 3), ("a.png", "dog", 5)]
    assert faults(result) == [(SECOND_LABEL, 4, "a.png")]


def test_encodings_are_told_and_read(source):
    result = read_one(source, b"\xef\xbb\xbfimage,class\r\na.png,cat\r\nb.png,caf\xe9\r\n")
    assert rows(result) == [("a.png", "cat", 2), ("b.png", "café", 3)]
    assert faults(result) == [(BYTE_ORDER_MARK, 1, ""), (NOT_UTF8, 3, "")]


@pytest.mark.parametrize(
    ("written", "image"),
    [
        ("x/one.png", "lists/x/one.png"),
        ("./x//one.png", "lists/x/one.png"),
        ("x\\one.png", "lists/x/one.png"),
        ("images/two.png", "images/two.png"),
        ("../images/two.png", "images/two.png"),
        ("two.png", "images/two.png"),
        ("/home/someone/two.png", "images/two.png"),
        ("C:\\someone\\two.png", "images/two.png"),
        ("../../../two.png", "images/two.png"),
        ("both.png", ""),
        ("images/both.png", "images/both.png"),
        ("../../outside.png", ""),
        ("../outside.png", ""),
        (".", ""),
        ("..", ""),
        ("/", ""),
        ("two", ""),
    ],
)
def test_the_image_is_found_and_never_outside(tmp_path, written, image):
    add(tmp_path, "outside.png")
    source = tmp_path / "source"
    add(source, "lists/x/one.png", "images/two.png", "images/both.png", "other/both.png")
    (source / "lists" / "all.csv").write_text(f"path;class\n{written};cat\n")
    result = read(source)
    assert [row.image for row in result.rows] == ([image] if image else [])
    assert faults(result) == ([] if image else [(MISSING_IMAGE, 2, "")])


def test_the_splits_are_the_columns_or_the_files(source):
    (source / "Train.csv").write_text("image,class\na.png,cat\n")
    (source / "valid.tsv").write_text("image\tclass\tsplit\nb.png\tdog\t\nc.png\tdog\tTest\n")
    result = read_one(source, "image,class,split\nd.png,cat,\n")
    assert result.splits == {"a.png": "train", "b.png": "val", "c.png": "test"}
    assert faults(result) == []


def test_an_image_in_two_files_stays_in_the_first_and_is_told(source):
    (source / "test.csv").write_text("image,class\na.png,cat\n")
    (source / "train.csv").write_text("image,class\nb.png,cat\na.png,cat\n")
    result = read(source)
    assert result.splits == {"a.png": "test", "b.png": "train"}
    (second,) = (f for f in result.findings if f.code == SECOND_LABEL)
    assert (second.source_file, second.source_line) == (f"{source}/train.csv", 3)
    assert f"{source}/test.csv:2" in second.message


def test_a_split_of_another_name_is_a_malformed_row(source):
    result = read_one(source, "image,class,split\na.png,cat,fold3\nb.png,cat,train\n")
    assert faults(result) == [(MALFORMED_ROW, 2, "a.png")]
    assert rows(result) == [("b.png", "cat", 3)]


def write(folder: Path, images: list[str], labels: list[tuple[str, str]], splits: dict[str, str]) -> tuple[Path, list]:
    add(folder / "in" / "images", *images)
    rows = [LabelRow(image, 0, class_name, None, "", line) for line, (image, class_name) in enumerate(labels)]
    records = [ImageRecord(name, "", name) for name in images]
    result = ReadResult(rows=rows, splits=splits)
    dataset = build_dataset(records, dict.fromkeys(images, SCAN), result, CLASS_NAMES, folder / "in")
    out = folder / "out"
    out.mkdir()
    return out, csv_table.write(dataset, out)


def test_writes_a_table_and_the_images(tmp_path):
    labels = [("x/a.png", "cat"), ("b.png", 'a "b", c'), ("b.png", "dog")]
    out, losses = write(tmp_path, ["x/a.png", "b.png", "none.png"], labels, {"x/a.png": "val"})
    text = 'image,class,split\nimages/b.png,"a ""b"", c",\nimages/b.png,dog,\nimages/x/a.png,cat,val\n'
    assert (out / "labels.csv").read_text() == text
    files = sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())
    assert files == ["images/b.png", "images/none.png", "images/x/a.png", "labels.csv"]
    assert losses == []


def test_an_image_without_a_class_keeps_its_split_in_a_table_of_its_own(tmp_path):
    out, losses = write(tmp_path, ["a.png", "b.png"], [("a.png", "cat")], {"b.png": "train"})
    assert (out / "splits.csv").read_text() == "image,split\nimages/b.png,train\n"
    result = read(out)
    assert (rows(result), result.splits) == ([("images/a.png", "cat", 2)], {"images/b.png": "train"})
    assert (faults(result), unlabelled(result), losses) == ([], ["images/b.png"], [])


def test_a_table_of_splits_alone_is_no_table_of_classes(source):
    (source / "splits.csv").write_text("image,split\na.png,train\n")
    assert not csv_table.sniff(open_source(str(source)))
    result = read_one(source, "image,class\na.png,cat\n")
    assert (result.splits, faults(result)) == ({"a.png": "train"}, [])
    (source / "splits.csv").write_text("image,split\n,train\nz.png,train\na.png,\n")
    assert faults(read(source)) == [(MALFORMED_ROW, 2, ""), (MISSING_IMAGE, 3, "")]


def test_what_it_cannot_hold_is_counted(tmp_path):
    _, losses = write(tmp_path, ["a.png"], [("a.png", " cat")], {})
    assert [(loss.partition(" (")[0], int(loss.rpartition(": ")[2])) for loss in losses] == [
        ("classes that do not come back as they were", 1),
    ]


names = st.sampled_from(
    ["a.png", "x/a.png", "x, y/b.png", 'q"uote.png', "images/a.png", "ü.png", "#.png", "back\\slash.png"]
)
printable = st.text(st.characters(exclude_categories=("C", "Z")) | st.sampled_from(",;\" '#"), min_size=1, max_size=6)
class_names = printable.map(str.strip).filter(lambda name: name and name.isprintable())


@settings(max_examples=60, deadline=None)
@given(data=st.dictionaries(names, st.tuples(class_names, st.sampled_from(["", "train", "val", "test"])), min_size=1))
def test_what_is_written_is_read_back(tmp_path_factory, data):
    labels = [(name, class_name) for name, (class_name, _) in data.items()]
    splits = {name: split for name, (_, split) in data.items() if split}
    out, losses = write(tmp_path_factory.mktemp("round"), list(data), labels, splits)
    result = read(out)
    inside = all(name.startswith("images/") for name in data)
    want = {(name if inside else f"images/{name}"): label for name, label in data.items()}
    assert {row.image: (row.class_name, result.splits.get(row.image, "")) for row in result.rows} == want
    assert (losses, result.findings) == ([], [])


@settings(max_examples=150, deadline=None)
@given(at=st.integers(0, 60), junk=st.binary(max_size=30), cut=st.integers(0, 20))
@example(at=0, junk="image,class\n".encode("utf-16"), cut=60)
def test_no_bytes_make_the_reader_fail(tmp_path_factory, at, junk, cut):
    good = b"image,class,split\na.png,cat,train\nb.png,dog,\nc.png,cat,val\nd.png,dog,\n"
    source = tmp_path_factory.mktemp("bytes")
    add(source, "a.png", "b.png", "c.png", "d.png")
    result = read_one(source, good[:at] + junk + good[at + cut :])
    assert {row.image for row in result.rows} <= {"a.png", "b.png", "c.png", "d.png"}
    assert all(1 <= row.source_line <= 40 for row in result.rows)
    known = {row.image for row in result.rows} | {finding.image for finding in result.findings}
    assert known >= {"a.png", "b.png", "c.png", "d.png"}
