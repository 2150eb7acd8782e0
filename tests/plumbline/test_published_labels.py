"""labels.csv: which label file says what is on each image, with the hash of its bytes, for every format."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from plumbline.errors import DatasetError
from plumbline.intake import read_source
from plumbline.published_labels import COLUMNS, label_table, num_label_files, write_label_table
from plumbline.sources import open_source

VOC = """<annotation><filename>{0}.png</filename><size><width>40</width><height>30</height><depth>3</depth></size>{1}
</annotation>"""
VOC_BOX = """<object><name>red</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>20</xmax><ymax>20</ymax></bndbox>
</object>"""


def draw(*paths: Path) -> None:
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((30, 40, 3), 40 + 50 * number, np.uint8)
        pixels[:, number::9] = 255
        cv2.imwrite(str(path), pixels)


def labels_of(folder: Path, work: Path, splits: tuple[str, ...] | None = None) -> pd.DataFrame:
    work.mkdir()
    dataset = read_source(str(folder), "auto", ("red", "green"), work, lambda line: None)
    names = splits or ("train",) * len(dataset.images)
    table = pd.DataFrame({"image_id": dataset.images["image_id"], "split": names})
    return label_table(dataset, dataset.images, table, open_source(str(folder)), lambda file: file)


def rows(table: pd.DataFrame, root: Path) -> list[tuple[str, str, str]]:
    """Image, label file below the root, where the hash is from; each hash of a file is checked."""
    found = []
    for row in table.itertuples():
        if row.label_from in {"file", "folder"}:
            assert row.label_sha256 == hashlib.sha256(Path(row.label_file).read_bytes()).hexdigest()
        file = row.label_file.removeprefix(f"{root.as_posix()}/")
        found.append((row.image.removeprefix("images/"), file, row.label_from))
    return found


def test_yolo_with_an_empty_label_a_missing_one_and_lists(tmp_path):
    root = tmp_path / "yolo"
    draw(*(root / "images" / split / "1.png" for split in ("train", "val")), root / "images" / "train" / "2.png")
    for split in ("train", "val"):
        (root / "labels" / split).mkdir(parents=True)
    (root / "labels" / "train" / "1.txt").write_text("0 0.5 0.5 0.5 0.5\n1 0.5 0.5 0.2 0.2\n")
    (root / "labels" / "val" / "1.txt").write_text("")
    (root / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [red, green]\n")
    table = labels_of(root, tmp_path / "work", ("train", "test", "val"))
    assert rows(table, root) == [
        ("", "data.yaml", "file"),
        ("images/train/1.png", "labels/train/1.txt", "file"),
        ("images/train/2.png", "", ""),
        ("images/val/1.png", "labels/val/1.txt", "file"),
    ]
    assert list(table["split"]) == ["", "train", "test", "val"]
    for row in table.itertuples():
        if row.image:
            path = root / row.image.removeprefix("images/")
            assert row.image_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert num_label_files(table) == 3


def test_an_archive_has_its_label_files_by_their_bytes(tmp_path):
    root = tmp_path / "yolo"
    draw(root / "images" / "1.png")
    (root / "labels").mkdir()
    (root / "labels" / "1.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (root / "data.yaml").write_text("train: images\nnames: [red, green]\n")
    archive = Path(shutil.make_archive(str(tmp_path / "yolo"), "zip", root))
    table = labels_of(archive, tmp_path / "work").set_index("label_file")
    assert set(table.index) == {f"{archive}/data.yaml", f"{archive}/labels/1.txt"}
    expected = hashlib.sha256((root / "labels" / "1.txt").read_bytes()).hexdigest()
    assert table.loc[f"{archive}/labels/1.txt", "label_sha256"] == expected


def test_voc_with_an_image_without_objects(tmp_path):
    root = tmp_path / "voc"
    draw(root / "JPEGImages" / "a.png", root / "JPEGImages" / "b.png")
    (root / "Annotations").mkdir()
    (root / "Annotations" / "a.xml").write_text(VOC.format("a", VOC_BOX))
    (root / "Annotations" / "b.xml").write_text(VOC.format("b", ""))
    assert rows(labels_of(root, tmp_path / "work"), root) == [
        ("JPEGImages/a.png", "Annotations/a.xml", "file"),
        ("JPEGImages/b.png", "Annotations/b.xml", "file"),
    ]


def test_coco_has_one_file_for_all_images(tmp_path):
    root = tmp_path / "coco"
    draw(root / "images" / "a.png", root / "images" / "b.png")
    images = [{"id": k, "file_name": f"{name}.png", "width": 40, "height": 30} for k, name in enumerate("ab")]
    boxes = [
        {"id": k, "image_id": k, "category_id": 1, "bbox": [2, 2, 10, 10], "area": 100, "iscrowd": 0} for k in range(2)
    ]
    (root / "annotations").mkdir()
    text = json.dumps({"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "red"}]})
    (root / "annotations" / "instances.json").write_text(text)
    table = labels_of(root, tmp_path / "work")
    assert rows(table, root) == [
        ("images/a.png", "annotations/instances.json", "file"),
        ("images/b.png", "annotations/instances.json", "file"),
    ]
    assert num_label_files(table) == 1


def test_a_class_by_its_folder_is_labelled_by_the_images_place(tmp_path):
    root = tmp_path / "folders"
    draw(root / "red" / "a.png", root / "green" / "b.png")
    assert rows(labels_of(root, tmp_path / "work"), root) == [
        ("green/b.png", "green/b.png", "folder"),
        ("red/a.png", "red/a.png", "folder"),
    ]


def test_what_was_left_out_by_the_checks_is_in_no_row(tmp_path):
    root = tmp_path / "folders"
    draw(root / "red" / "a.png", root / "green" / "b.png")
    (tmp_path / "work").mkdir()
    dataset = read_source(str(root), "auto", ("red", "green"), tmp_path / "work", lambda line: None)
    kept = dataset.images[dataset.images["path"] != "images/red/a.png"]
    splits = pd.DataFrame({"image_id": kept["image_id"], "split": ["train"]})
    table = label_table(dataset, kept, splits, open_source(str(root)), lambda file: file)
    assert list(table["image"]) == ["images/green/b.png"]


def test_drawn_images_have_the_hash_of_their_rows(tmp_path):
    root = tmp_path / "folders"
    draw(root / "red" / "a.png", root / "green" / "b.png")
    (tmp_path / "work").mkdir()
    dataset = read_source(str(root), "auto", ("red", "green"), tmp_path / "work", lambda line: None)
    splits = pd.DataFrame({"image_id": dataset.images["image_id"], "split": "val"})
    table = label_table(dataset, dataset.images, splits, None, lambda file: file)
    assert set(table["label_from"]) == {"table"}
    expected = hashlib.sha256(b"[[1,NaN,NaN,NaN,NaN]]").hexdigest()
    assert table.set_index("image").loc["images/green/b.png", "label_sha256"] == expected
    assert num_label_files(table) == 0
    dataset.annotations.loc[0, "class_id"] = 0
    other = label_table(dataset, dataset.images, splits, None, lambda file: file)
    assert list(other["label_sha256"] != table["label_sha256"]) == [True, False]


def test_a_label_file_that_has_gone_is_an_error(tmp_path):
    root = tmp_path / "voc"
    draw(root / "JPEGImages" / "a.png")
    (root / "Annotations").mkdir()
    (root / "Annotations" / "a.xml").write_text(VOC.format("a", VOC_BOX))
    (tmp_path / "work").mkdir()
    dataset = read_source(str(root), "auto", ("red",), tmp_path / "work", lambda line: None)
    (root / "Annotations" / "a.xml").unlink()
    splits = pd.DataFrame({"image_id": [0], "split": ["train"]})
    with pytest.raises(DatasetError, match=r"Annotations/a.xml: a label file that ingest read.*1 such are gone"):
        label_table(dataset, dataset.images, splits, open_source(str(root)), lambda file: file)


def test_the_file_is_the_same_each_time_and_csv_reads_it(tmp_path):
    table = pd.DataFrame([["images/a,b.png", "0", "train", 'a "b".txt', "1", "file"]], columns=list(COLUMNS))
    write_label_table(table, tmp_path / "labels.csv")
    text = (tmp_path / "labels.csv").read_text()
    assert list(csv.DictReader(io.StringIO(text))) == table.to_dict("records")
    write_label_table(table, tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_text() == text
