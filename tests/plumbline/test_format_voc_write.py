"""Pascal VOC as it is written: LabelImg's XML, lists of images, and what is lost."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from plumbline.errors import DatasetError
from plumbline.formats import voc
from plumbline.formats.reading import ImageRecord, LabelRow, ReadResult, build_dataset
from plumbline.image_scan import scan_image
from plumbline.sources.folder import open_source


def write(folder: Path, *rows: LabelRow, names: tuple[str, ...] = ("a.png",)) -> list[str]:
    for name in names:
        (folder / "images").mkdir(exist_ok=True)
        assert cv2.imwrite(str(folder / "images" / name), np.full((32, 64), 99, np.uint8))
    scans = {name: scan_image(folder / "images" / name) for name in names}
    records = [ImageRecord(name, "", "") for name in names]
    dataset = build_dataset(
        records, scans, ReadResult(rows=list(rows), splits={"a.png": "val"}), ("cat", "dog"), folder
    )
    (folder / "out").mkdir()
    return voc.write(dataset, folder / "out")


def test_writes_what_labelimg_writes(tmp_path):
    row = LabelRow("a.png", 0, "<R&D>", (1.0, 0.1, 1e300, -4.0), "", 1, truncated=True)
    assert write(tmp_path, row) == []
    assert (tmp_path / "out" / "ImageSets" / "Main" / "val.txt").read_text() == "a\n"
    text = (tmp_path / "out" / "Annotations" / "a.xml").read_text()
    assert (
        text
        == """<annotation>
\t<folder>JPEGImages</folder>
\t<filename>a.png</filename>
\t<source>
\t\t<database>Unknown</database>
\t</source>
\t<size>
\t\t<width>64</width>
\t\t<height>32</height>
\t\t<depth>3</depth>
\t</size>
\t<segmented>0</segmented>
\t<object>
\t\t<name>&lt;R&amp;D&gt;</name>
\t\t<pose>Unspecified</pose>
\t\t<truncated>1</truncated>
\t\t<difficult>0</difficult>
\t\t<bndbox>
\t\t\t<xmin>1</xmin>
\t\t\t<ymin>0.1</ymin>
\t\t\t<xmax>1e+300</xmax>
\t\t\t<ymax>-4</ymax>
\t\t</bndbox>
\t</object>
</annotation>
"""
    )


def test_every_loss_is_counted(tmp_path):
    polygon = ((0.0, 0.0, 9.0, 0.0, 9.0, 9.0),)
    rows = [
        LabelRow("a.png", 0, "cat", (0.0, 0.0, 9.0, 9.0), "", 1, polygon=polygon),
        LabelRow("a.png", 0, "cat", (0.0, 0.0, 9.0, 9.0), "", 2, polygon=polygon, crowd=True),
        LabelRow("a.png", 0, " cat", (0.0, 0.0, 9.0, 9.0), "", 3, rle="{}"),
    ]
    assert write(tmp_path, *rows) == [
        "polygons became their boxes (Pascal VOC cannot hold more): 2",
        "masks became their boxes (Pascal VOC cannot hold more): 1",
        "crowd regions became boxes like any other (Pascal VOC cannot hold more): 1",
        "spaces around a class name (Pascal VOC cannot hold more): 1",
    ]


@pytest.mark.parametrize(
    ("class_name", "names", "message"),
    [
        ("a\x01b", ("a.png",), r"'a\\x01b': holds a character that XML cannot"),
        ("cat", ("a.png", "a.bmp"), r"a\.png: would share the label file Annotations/a\.xml with a\.bmp"),
    ],
)
def test_what_cannot_be_written_is_an_error(tmp_path, class_name, names, message):
    with pytest.raises(DatasetError, match=message):
        write(tmp_path, LabelRow("a.png", 0, class_name, (0.0, 0.0, 9.0, 9.0), "", 1), names=names)


def test_a_folder_called_train_is_not_taken_for_a_split_that_the_dataset_has_not(tmp_path):
    (tmp_path / "images" / "train").mkdir(parents=True)
    assert cv2.imwrite(str(tmp_path / "images" / "train" / "a.png"), np.full((32, 64), 99, np.uint8))
    scans = {"train/a.png": scan_image(tmp_path / "images" / "train" / "a.png")}
    records = [ImageRecord("train/a.png", "", "")]
    assert voc.write(build_dataset(records, scans, ReadResult(), ("cat",), tmp_path), tmp_path / "out") == []
    source = open_source(str(tmp_path / "out"))
    (image,) = voc.find_images(source)
    result = voc.read(source, ("cat",), {image: scans["train/a.png"]})
    assert (image, result.splits) == ("JPEGImages/train/a.png", {})
