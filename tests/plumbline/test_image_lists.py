"""Which image is for what: lists of images, as VOC's ImageSets and YOLO's data.yaml name them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from plumbline import faults
from plumbline.formats import voc, yolo
from plumbline.formats.reading import ReadResult
from plumbline.image_scan import ImageScan
from plumbline.sources.folder import open_source

SCAN = ImageScan("", 64, 32, 0, readable=True, brightness=0, contrast=0, sharpness=0, problem="")
PNG = cv2.imencode(".png", np.full((32, 64), 99, np.uint8))[1].tobytes()


def add_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(PNG)


def read_voc(folder: Path) -> ReadResult:
    source = open_source(str(folder))
    return voc.read(source, ("cat",), dict.fromkeys(voc.find_images(source), SCAN))


def read_yolo(folder: Path) -> ReadResult:
    source = open_source(str(folder))
    return yolo.read(source, ("cat",), dict.fromkeys(yolo.find_images(source), SCAN))


def add_label(source: Path, *names: str) -> None:
    for name in names:
        add_image(source / "JPEGImages" / f"{name}.png")
        path = source / "Annotations" / f"{name}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"<annotation><filename>{Path(name).name}.png</filename></annotation>")


def add_lists(source: Path, folder: str, lists: dict[str, str]) -> None:
    (source / folder).mkdir(parents=True, exist_ok=True)
    for name, text in lists.items():
        (source / folder / f"{name}.txt").write_text(text)


def splits(source: Path) -> dict[str, str]:
    return {image.removeprefix("JPEGImages/"): split for image, split in read_voc(source).splits.items()}


@pytest.mark.parametrize("folder", ["ImageSets/Main", "ImageSets", ""])
@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ({"train": "a\nx/b\n", "val": "c"}, {"a.png": "train", "x/b.png": "train", "c.png": "val"}),
        ({"train": "a.png\r\n\r\n", "test": " c \n"}, {"a.png": "train", "c.png": "test"}),
        (
            {"train": "JPEGImages/a.png\n", "val": "/home/me/JPEGImages/c.png\n", "trainval": "x/b"},
            {"a.png": "train", "c.png": "val"},
        ),
        ({"trainval": "a\nx/b", "test": "c"}, {"a.png": "train", "x/b.png": "train", "c.png": "test"}),
        ({"train": "b\na", "cat_train": "a 1\nc -1"}, {"a.png": "train", "x/b.png": "train"}),
        # What is held out stays so.
        ({"train": "a\nc", "val": "c\n", "test": "c\n"}, {"a.png": "train", "c.png": "test"}),
    ],
)
def test_lists_of_images_say_the_split(tmp_path, folder, lists, expected):
    add_label(tmp_path, "a", "x/b", "c")
    add_lists(tmp_path, folder, lists)
    assert splits(tmp_path) == expected
    again = sum("c" in text.split() for name, text in lists.items() if name in {"train", "val", "test"}) - 1
    told = [(finding.code, finding.source_file) for finding in read_voc(tmp_path).findings]
    assert told == [(faults.TWO_SPLITS, str(tmp_path / "JPEGImages/c.png"))] * again


def test_each_of_several_voc_folders_has_its_own_lists(tmp_path):
    for year, part in (("2007", "train"), ("2012", "val")):
        add_label(tmp_path / year, "a", "b")
        add_lists(tmp_path, f"{year}/ImageSets/Main", {part: "a\n"})
    assert read_voc(tmp_path).splits == {"2007/JPEGImages/a.png": "train", "2012/JPEGImages/a.png": "val"}


def test_the_main_list_is_taken_before_one_at_the_top(tmp_path):
    add_label(tmp_path, "a", "b")
    add_lists(tmp_path, "ImageSets/Main", {"train": "a\n"})
    add_lists(tmp_path, "", {"train": "b\n", "val": "a\n"})
    assert splits(tmp_path) == {"a.png": "train"}


def test_a_line_that_names_no_image_is_told(tmp_path):
    add_label(tmp_path, "a", "b/c", "d/c")
    add_lists(tmp_path, "ImageSets/Main", {"train": "\na\n../../etc/passwd\nc\nx/a\n"})
    result = read_voc(tmp_path)
    assert set(result.splits) == {"JPEGImages/a.png"}
    assert [(f.code, f.source_line) for f in result.findings] == [(faults.MISSING_IMAGE, line) for line in (3, 4, 5)]
    assert {f.source_file for f in result.findings} == {str(tmp_path / "ImageSets/Main/train.txt")}


def test_a_text_at_the_top_that_lists_no_image_is_no_list(tmp_path):
    add_label(tmp_path, "a")
    add_lists(tmp_path, "", {"train": "How the model was trained\n"})
    result = read_voc(tmp_path)
    assert (result.splits, result.findings) == ({}, [])


def test_without_lists_voc_folders_are_splits(tmp_path):
    """As Roboflow exports VOC."""
    for part in ("train", "valid", "test"):
        add_image(tmp_path / part / "a.png")
        (tmp_path / part / "a.xml").write_text("<annotation><filename>a.png</filename></annotation>")
    result = read_voc(tmp_path)
    assert result.splits == {"train/a.png": "train", "valid/a.png": "val", "test/a.png": "test"}
    assert result.findings == []
    add_lists(tmp_path, "ImageSets/Main", {"train": "valid/a\n"})
    assert read_voc(tmp_path).splits == {"valid/a.png": "train"}


def test_yolo_lists_at_the_top_say_the_split(tmp_path):
    images = ("up/images/a.png", "up/images/b.png", "up/images/train/c.png")
    make_images(tmp_path, *images)
    add_lists(tmp_path, "up", {"train": "/home/me/up/images/b.png\nimages/no.png\n", "valid": "images/a.png\n"})
    result = read_yolo(tmp_path)
    assert result.splits == {"up/images/a.png": "val", "up/images/b.png": "train"}
    assert [(f.code, f.source_line) for f in result.findings] == [(faults.MISSING_IMAGE, 2)]
    (tmp_path / "data.yaml").write_text("names: [cat]\ntest: up/images\n")
    assert set(read_yolo(tmp_path).splits.values()) == {"test"}


def make_images(folder: Path, *images: str) -> None:
    for image in images:
        add_image(folder / image)
        label = folder / image.replace("images/", "labels/").replace(".png", ".txt")
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text("0 .5 .5 .1 .1\n")


IMAGES = ("images/train/a.png", "images/train/b.png", "images/dev/c.png", "images/d.png")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train: images/train\nval: images/dev\n", "train train val -"),
        ("train: images/train/\nval: ./images/dev\ntest:\n", "train train val -"),
        ("path: .\ntrain: images/train\n", "train train - -"),
        ("path: /home/me/cells\ntrain: images/train\nvalid: [images/dev]\n", "train train val -"),
        ("path: ../datasets/cells\ntrain: ../images/train\nvalidation: images/dev\n", "train train val -"),
        ("train: /content/cells/images/train\nval: 'C:\\cells\\images\\dev'\n", "train train val -"),
        ("train: [images/train, images/dev]\ntest: images/d.png\n", "train train train test"),
        ("train: lists/train.txt\ntest: [lists/test.txt]\n", "train train test test"),
        ("train: .\nval: images/dev\n", "train train val train"),
        ("train: []\nval: []\n", "- - - -"),
        ("nc: 2\n", "train train - -"),
        ("", "train train - -"),
    ],
)
def test_data_yaml_says_the_split(tmp_path, text, expected):
    make_images(tmp_path, *IMAGES)
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "train.txt").write_text("./images/train/a.png\n../images/train/b.png\r\n\n")
    (tmp_path / "lists" / "test.txt").write_text("/home/me/cells/images/dev/c.png\nimages\\\\d.png\n")
    if text:
        (tmp_path / "data.yaml").write_text("names: [cat]\n" + text)
    result = read_yolo(tmp_path)
    assert [result.splits.get(image, "-") for image in IMAGES] == expected.split()
    # All images are for training, says the one, and some are not.
    assert [finding.code for finding in result.findings] == [faults.TWO_SPLITS] * text.startswith("train: .\n")
    assert len(result.rows) == 4


def test_the_data_set_may_stand_in_a_folder_of_its_own(tmp_path):
    make_images(tmp_path, "cells/train/images/a.png", "cells/valid/images/b.png")
    (tmp_path / "cells" / "data.yaml").write_text("names: [cat]\ntrain: ../train/images\nval: ../valid/images\n")
    result = read_yolo(tmp_path)
    assert result.splits == {"cells/train/images/a.png": "train", "cells/valid/images/b.png": "val"}
    assert result.findings == []


def test_images_beside_no_folder_called_images_count_where_data_yaml_names_them(tmp_path):
    make_images(tmp_path, "images/a.png")
    add_image(tmp_path / "more" / "b.png")
    add_image(tmp_path / "plots" / "results.png")
    (tmp_path / "data.yaml").write_text("names: [cat]\ntrain: images\nval: more\n")
    assert yolo.find_images(open_source(str(tmp_path))) == ["images/a.png", "more/b.png"]


def test_what_data_yaml_and_lists_name_but_is_not_there_is_told(tmp_path):
    make_images(tmp_path, "images/a.png")
    (tmp_path / "data.yaml").write_text(
        "names: [cat]\ntrain: train.txt\nval: ../valid/images\ntest: [/etc, https://example.org/x.zip]\n"
    )
    (tmp_path / "train.txt").write_text("images/gone.png\nimages/a.png\n/etc/passwd\n../../etc/passwd\n")
    result = read_yolo(tmp_path)
    assert result.splits == {"images/a.png": "train"}
    assert {finding.code for finding in result.findings} == {faults.MISSING_IMAGE}
    assert [(Path(finding.source_file).name, finding.source_line) for finding in result.findings] == [
        ("train.txt", 1),
        ("train.txt", 3),
        ("train.txt", 4),
        ("data.yaml", 3),
        ("data.yaml", 4),
        ("data.yaml", 4),
    ]


def test_a_list_that_is_no_text_is_told(tmp_path):
    make_images(tmp_path, "images/a.png")
    (tmp_path / "data.yaml").write_text("names: [cat]\ntrain: train.txt\n")
    (tmp_path / "train.txt").write_bytes(b"images/a.png\n\0\n")
    (finding,) = read_yolo(tmp_path).findings
    assert (finding.code, finding.source_line) == (faults.MALFORMED_LABEL, 2)
