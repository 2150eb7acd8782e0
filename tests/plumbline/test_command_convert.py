"""`plumbline convert`: whole or not at all, and nothing lost in silence."""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from plumbline.commands import main
from plumbline.commands.convert import convert
from plumbline.errors import DatasetError
from plumbline.faults import MALFORMED_ROW, MISSING_IMAGE, MISSING_LABEL
from plumbline.formats import open_format
from plumbline.formats.reading import ImageRecord, LabelRow, ReadFinding, ReadResult, build_dataset
from plumbline.image_scan import scan_image
from plumbline.manifest import Dataset, write_dataset
from plumbline.sources.folder import open_source

CLASS_NAMES = ("dog", "cat")


def dataset_in(folder: Path, **more) -> Dataset:
    """Make a dataset folder of two images, one of them a cat's, as a stage would write it."""
    scans = {}
    for name in ("a.png", "b.png"):
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), np.full((8, 16), len(scans), np.uint8))
        scans[name] = scan_image(path)
    result = replace(ReadResult(rows=[LabelRow("a.png", 1, "cat", None, "labels.csv", 2)]), **more)
    dataset = build_dataset([ImageRecord(name, "", name) for name in scans], scans, result, CLASS_NAMES, folder)
    write_dataset(dataset, folder)
    return dataset


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def read_back(folder: Path, format_name: str) -> Dataset:
    source, module = open_source(str(folder)), open_format(format_name)
    scans = {name: scan_image(folder / name) for name in module.find_images(source)}
    result = module.read(source, CLASS_NAMES, scans)
    return build_dataset([ImageRecord(name, "", name) for name in scans], scans, result, CLASS_NAMES, folder)


def test_writes_the_format_and_says_so(tmp_path, capsys):
    dataset_in(tmp_path / "in")
    out = tmp_path / "deep" / "er" / "out"
    assert main(["convert", str(tmp_path / "in"), str(out), "--to", "csv"]) == 0
    assert files(out) == ["images/a.png", "images/b.png", "labels.csv"]
    assert (out / "labels.csv").read_text() == "image,class,split\nimages/a.png,cat,\n"
    captured = capsys.readouterr()
    assert captured.out == f"{out}: csv: 2 images, 1 labels; nothing lost in writing; all of it read\n"
    assert captured.err == ""
    assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("format_name", ["csv", "imagefolder"])
def test_comes_back_as_it_went(tmp_path, format_name):
    dataset = dataset_in(tmp_path / "in", splits={"a.png": "train", "b.png": "val"})
    assert convert(dataset, tmp_path / "out", format_name) == []
    back = read_back(tmp_path / "out", format_name)
    assert back.images[["sha256", "split"]].values.tolist() == dataset.images[["sha256", "split"]].values.tolist()
    columns = ["image_id", "class_id", "class_name"]
    assert back.annotations[columns].values.tolist() == dataset.annotations[columns].values.tolist() == [[0, 1, "cat"]]


def test_images_keep_their_names_from_format_to_format_and_back(tmp_path):
    """Another format's folder of images becomes this one's, and is not put into it."""
    images = {"voc": "JPEGImages/a.png", "yolo": "images/a.png", "coco": "images/a.png", "cvat": "images/a.png"}
    source = tmp_path / "voc"
    (source / "JPEGImages").mkdir(parents=True)
    assert cv2.imwrite(str(source / "JPEGImages" / "a.png"), np.full((9, 9), 99, np.uint8))
    (source / "a.xml").write_text("<annotation></annotation>")
    for before, after in pairwise(["voc", "yolo", "coco", "labelme", "cvat", "csv", "voc2"]):
        arguments = ["--to", after.removesuffix("2"), "--from", before]
        assert main(["convert", str(tmp_path / before), str(tmp_path / after), *arguments]) == 0
        assert images.get(after.removesuffix("2"), "images/a.png") in files(tmp_path / after)


def test_what_is_lost_is_told_and_strict_refuses_it(tmp_path, capsys):
    box = LabelRow("b.png", 0, "dog", (1, 1, 5, 5), "b.xml", 3)
    dataset_in(tmp_path / "in", rows=[box])
    argv = ["convert", str(tmp_path / "in"), str(tmp_path / "out"), "--to", "csv"]
    assert main([*argv, "--strict"]) == 1
    assert capsys.readouterr().err.startswith("error: boxes left out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert main(argv) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith("boxes left out")
    assert "1 kinds of things lost; all of it read" in captured.out


def test_what_could_not_be_read_is_told_and_strict_refuses_it(tmp_path, capsys):
    findings = [ReadFinding("labels.csv", line, MALFORMED_ROW, "expected 2 columns, got 1") for line in range(3, 14)]
    findings += [ReadFinding("z.xml", 0, MISSING_IMAGE, "no image"), ReadFinding("b.png", 0, MISSING_LABEL, "no label")]
    dataset_in(tmp_path / "in", findings=findings)
    argv = ["convert", str(tmp_path / "in"), str(tmp_path / "out"), "--to", "csv"]
    assert main([*argv, "--strict"]) == 1
    assert not (tmp_path / "out").exists()
    assert "error: " in capsys.readouterr().err
    assert main(argv) == 0
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert lines[0].endswith("12 could not be read:")
    assert lines[1] == "labels.csv:3: E202 expected 2 columns, got 1"
    assert lines[11:] == ["... and 2 more"]
    assert captured.out.endswith("; 12 findings in reading\n")


@pytest.mark.parametrize("out", ["full", "file", "in", "in/out"])
def test_nothing_is_written_over_or_into_the_source(tmp_path, capsys, out):
    dataset_in(tmp_path / "in")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    (tmp_path / "file").write_text("mine")
    before = files(tmp_path)
    assert main(["convert", str(tmp_path / "in"), str(tmp_path / out), "--to", "csv"]) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / out}: ")
    assert files(tmp_path) == before


def test_an_empty_folder_may_be_there(tmp_path):
    dataset_in(tmp_path / "in")
    (tmp_path / "out").mkdir()
    assert main(["convert", str(tmp_path / "in"), str(tmp_path / "out"), "--to", "csv"]) == 0
    assert "labels.csv" in files(tmp_path / "out")


def test_a_failure_leaves_nothing_behind(tmp_path):
    dataset = dataset_in(tmp_path / "in")
    (tmp_path / "in" / "images" / "b.png").unlink()
    with pytest.raises(DatasetError, match=r"b\.png"):
        convert(dataset, tmp_path / "out", "csv")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("classes", ["cat,cat", "cat,,dog", ""])
def test_a_list_of_classes_is_names_each_once(tmp_path, capsys, classes):
    with pytest.raises(SystemExit):
        main(["convert", "in", "out", "--to", "csv", "--classes", classes])
    assert "expected names parted by commas" in capsys.readouterr().err


def test_a_source_is_read_where_it_is_and_the_classes_are_the_users(tmp_path, capsys):
    dataset = dataset_in(tmp_path / "in", splits={"a.png": "train"})
    convert(dataset, tmp_path / "table", "csv")
    (tmp_path / "table" / "labels.csv").open("a").write("images/z.png,cat,\n")
    archive = shutil.make_archive(str(tmp_path / "table"), "zip", tmp_path / "table")
    before = Path(archive).read_bytes()
    out = tmp_path / "out"
    assert main(["convert", archive, str(out), "--to", "yolo", "--classes", "dog,cat", "--from", "csv"]) == 0
    captured = capsys.readouterr()
    assert f"{archive}/labels.csv:3: E105 " in captured.err
    assert "classes of a whole image left out" in captured.err
    assert "2 images, 1 labels" in captured.out
    assert Path(archive).read_bytes() == before
    assert "dog" in (out / "data.yaml").read_text()

    assert main(["diff", archive, str(tmp_path / "table")]) == 0
    assert "Nothing changed: 2 images, 1 labels." in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out", "table", "table.zip"]
