"""ImageFolder's own ways: which folder is a split, which a class, and which is around it all."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline.faults import MISSING_LABEL
from plumbline.formats import imagefolder
from plumbline.formats.reading import ImageRecord, LabelRow, ReadResult, build_dataset
from plumbline.image_scan import scan_image
from plumbline.manifest import Dataset
from plumbline.sources.folder import open_source

CLASS_NAMES = ("cat", "dog")
PIXELS = cv2.imencode(".png", np.full((8, 8), 99, np.uint8))[1].tobytes()


def add(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PIXELS if path.suffix in {".png", ".jpg"} else b"words and nothing else\n")
    return folder


def read(folder: Path) -> ReadResult:
    source = open_source(str(folder))
    scan = scan_image(folder / imagefolder.find_images(source)[0])
    return imagefolder.read(source, CLASS_NAMES, dict.fromkeys(imagefolder.find_images(source), scan))


def labels(result: ReadResult) -> dict[str, str]:
    assert len({row.image for row in result.rows}) == len(result.rows)
    return {row.image: row.class_name for row in result.rows}


def test_a_folder_is_a_class_and_has_no_line(tmp_path):
    result = read(add(tmp_path, "dog/a.png", "cat/deep/er/b.png", "cow/c.png"))
    assert result.rows == [
        LabelRow("cat/deep/er/b.png", 0, "cat", None, f"{tmp_path}/cat/deep/er/b.png", 0),
        LabelRow("cow/c.png", -1, "cow", None, f"{tmp_path}/cow/c.png", 0),
        LabelRow("dog/a.png", 1, "dog", None, f"{tmp_path}/dog/a.png", 0),
    ]
    assert (result.findings, result.splits, result.declared_names) == ([], {}, ("cat", "cow", "dog"))


def test_folders_of_splits_are_no_classes(tmp_path):
    names = ("train/cat/a.png", "Valid/dog/b.png", "validation/dog/c.png", "test/dog/test/d.png", "test/e.png")
    result = read(add(tmp_path, *names))
    assert labels(result) == {names[0]: "cat", names[1]: "dog", names[2]: "dog", names[3]: "dog"}
    assert result.splits == dict(zip(names, ("train", "val", "val", "test", "test"), strict=True))
    assert result.declared_names == ("cat", "dog")
    assert [(f.code, f.image, f.source_file) for f in result.findings] == [
        (MISSING_LABEL, "test/e.png", f"{tmp_path}/test/e.png")
    ]


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (("pets/cat/a.png", "pets/dog/b.png"), ["cat", "dog"]),
        (("my/pets/train/cat/a.png", "my/pets/train/dog/b.png"), ["cat", "dog"]),
        (("cat/a.png", "cat/b.png"), ["cat", "cat"]),
        (("train/cat/a.png", "train/cat/b.png"), ["cat", "cat"]),
        (("pets/cat/a.png", "b.png"), ["pets"]),
        (("a.png", "b.png"), []),
    ],
)
def test_a_folder_around_it_all_counts_for_nothing(tmp_path, names, classes):
    assert [row.class_name for row in read(add(tmp_path, *names)).rows] == classes


@pytest.mark.parametrize(
    ("names", "recognised"),
    [
        (("cat/a.png", "dog/b.png"), True),
        (("cat/a.png", "dog/b.png", "README.txt", "LICENSE"), True),
        (("train/cat/a.png", "test/dog/b.png"), True),
        (("x/train/cat/a.png", "x/train/dog/b.png"), True),
        (("images/a.png", "images/b.png"), False),
        (("images/a.png", "masks/a.png"), False),
        (("cat/a.png", "images/a.png"), False),
        (("train/a.png", "val/b.png"), False),
        (("train/images/a.png", "val/images/b.png"), False),
        (("cat/a.png",), False),
        (("a.png", "b.png"), False),
        (("cat/notes.md", "dog/notes.md"), False),
        (("cat/a.png", "dog/b.png", "cat/a.txt"), False),
        (("cat/a.png", "dog/b.png", "dog/b.xml"), False),
        (("cat/a.png", "dog/b.png", "all.json"), False),
        (("cat/a.png", "dog/b.png", "all.CSV"), False),
        (("cat/a.png", "dog/b.png", "data.yaml"), False),
        (("cat/a.png", "dog/b.png", "labels/z.txt"), False),
    ],
)
def test_it_is_recognised_only_where_nothing_else_fits(tmp_path, names, recognised):
    assert imagefolder.sniff(open_source(str(add(tmp_path, *names)))) is recognised


def test_a_text_that_begins_with_a_row_of_boxes_is_a_label(tmp_path):
    add(tmp_path, "cat/a.png", "dog/b.png", "dog/z.txt")
    assert imagefolder.sniff(open_source(str(tmp_path)))
    (tmp_path / "dog" / "z.txt").write_text("0 .5 .5 .1 .1\n")
    assert not imagefolder.sniff(open_source(str(tmp_path)))


def dataset_of(root: Path, rows: list[LabelRow], images: list[str], splits: dict[str, str] | None = None) -> Dataset:
    """Make a dataset of images that stand below ``root/images``."""
    add(root / "images", *images)
    scans = {name: scan_image(root / "images" / name) for name in images}
    records = [ImageRecord(name, "", name) for name in images]
    return build_dataset(records, scans, ReadResult(rows=rows, splits=splits or {}), CLASS_NAMES, root)


def whole(image: str, class_name: str) -> LabelRow:
    return LabelRow(image, 0, class_name, None, "labels.csv", 2)


def write(dataset: Dataset, out: Path) -> tuple[list[str], list[str]]:
    out.mkdir()
    losses = imagefolder.write(dataset, out)
    return sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()), losses


def test_writes_class_folders_in_split_folders(tmp_path):
    images = ["x/a.png", "x/b.png", "train/dog/c.png", "n.png", "x/none.png"]
    rows = [whole("x/a.png", "cat"), whole("x/b.png", "dog"), whole("train/dog/c.png", "dog")]
    splits = {"x/b.png": "val", "train/dog/c.png": "train", "n.png": "test"}
    files, losses = write(dataset_of(tmp_path / "in", rows, images, splits), tmp_path / "out")
    assert files == ["cat/a.png", "none.png", "test/n.png", "train/dog/c.png", "val/dog/b.png"]
    assert losses == []
    result = read(tmp_path / "out")
    assert labels(result) == {"cat/a.png": "cat", "train/dog/c.png": "dog", "val/dog/b.png": "dog"}
    assert result.splits == {"test/n.png": "test", "train/dog/c.png": "train", "val/dog/b.png": "val"}


def test_what_it_cannot_hold_is_counted(tmp_path):
    box = LabelRow("a.png", 0, "cat", (0, 0, 4, 4), "a.xml", 1, difficult=True)
    rows = [box, whole("b.png", "dog"), whole("b.png", "cat"), whole("c.png", "a/b"), whole("d.png", "train")]
    files, losses = write(dataset_of(tmp_path / "in", rows, ["a.png", "b.png", "c.png", "d.png"]), tmp_path / "out")
    assert files == ["a.png", "a_b/c.png", "dog/b.png", "train_/d.png"]
    assert [(loss.partition(" (")[0], int(loss.rpartition(": ")[2])) for loss in losses] == [
        ("boxes left out", 1),
        ("further classes of an image left out", 1),
        ("images whose class is spelled otherwise, for it cannot be a folder's name", 2),
    ]


names = st.sampled_from(
    ["a.png", "cat/a.png", "cat/deep/a.png", "train/cat/a.png", "train/a.png", "x/y/a.png", "x/a.png"]
)
class_names = st.sampled_from(["", "cat", "dog", "train", "images", "a/b", "..", ".hidden", "a_b"])


@settings(max_examples=60, deadline=None)
@given(data=st.dictionaries(names, st.tuples(class_names, st.sampled_from(["", "train", "val"])), min_size=1))
def test_every_image_comes_back_in_its_split_with_its_class_or_one_spelled_otherwise(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("round")
    rows = [whole(name, class_name) for name, (class_name, _) in data.items() if class_name]
    dataset = dataset_of(folder / "in", rows, list(data), {name: split for name, (_, split) in data.items() if split})
    files, _ = write(dataset, folder / "out")
    result = read(folder / "out")
    assert len(files) == len(data)
    spelled = {"train": "train_", "a/b": "a_b", "..": "_", ".hidden": "hidden"}
    if "a_b" in {class_name for class_name, _ in data.values()}:
        spelled["a/b"] = "a_b_"
    want = sorted((split, spelled.get(name, name)) for name, split in data.values())
    got = labels(result)
    assert sorted((result.splits.get(name, ""), got.get(name, "")) for name in files) == want
