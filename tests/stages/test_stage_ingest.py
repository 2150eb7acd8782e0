"""The ingest stage: a source in, the canonical dataset out, and one clear line when it cannot be."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from object_store import fill_bucket, object_store
from ruamel.yaml import YAML
from sklearn.datasets import load_digits

from plumbline.files import sha256_of_tree
from plumbline.manifest import read_dataset
from stages.ingest import main

ROOT = Path(__file__).parent.parent.parent
DIGIT_NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
DIGITS = {
    "seed": 0,
    "num_scenes": 9,
    "num_pools": 4,
    "scene_size": 64,
    "min_digits": 1,
    "max_digits": 3,
    "min_size": 12,
    "max_size": 20,
    "digit_size": 32,
}
VOC_LABEL = (
    "<annotation>\n<filename>{}</filename>\n<object>\n<name>cat</name>\n"
    "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox>\n</object>\n</annotation>\n"
)


@pytest.fixture
def ingest(tmp_path, capsys, monkeypatch):
    """Run the stage's command in `tmp_path`; return (exit code, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(
        source: Path | str,
        dataset: dict | None = None,
        digits: dict | None = None,
        scan: dict | None = None,
        task: str = "detect",
    ) -> tuple[int, str]:
        video = {"every_s": 1.0, "max_hash_bits": 6}
        given = {
            "source": str(source),
            "format": "auto",
            "class_names": ["cat", "dog"],
            "video": video,
            "images_per_shard": 4,
        }
        values = {
            "dataset": {**given, **(dataset or {})},
            "digits": {**DIGITS, **(digits or {})},
            "scan": {"workers": 1, "shard_size": 500, "cluster": "", **(scan or {})},
        }
        params = tmp_path / "params.yaml"
        with params.open("w") as file:
            YAML(typ="safe").dump(values, file)
        paths = {"source": source, "out": tmp_path / "made" / "dataset", "metrics": tmp_path / "made" / "ingest.json"}
        code = main([*(f"--{key}={path}" for key, path in paths.items()), f"--task={task}", f"--params={params}"])
        captured = capsys.readouterr()
        run.told = captured.out
        return code, captured.err

    return run


@pytest.fixture
def voc(tmp_path) -> Path:
    """A VOC folder: one image with a box, one without objects' label, one that cannot be read."""
    folder = tmp_path / "voc"
    for name in ("Annotations", "JPEGImages/more"):
        (folder / name).mkdir(parents=True)
    for index, name in enumerate(("a.jpg", "more/b.png")):
        image = np.random.default_rng(index).integers(0, 255, (20 + index, 30, 3), dtype=np.uint8)
        assert cv2.imwrite(str(folder / "JPEGImages" / name), image)
    (folder / "JPEGImages" / "broken.png").write_bytes(b"rubbish")
    for stem, name in (("a", "a.jpg"), ("broken", "broken.png")):
        (folder / "Annotations" / f"{stem}.xml").write_text(VOC_LABEL.format(name))
    return folder


def assert_refused(tmp_path: Path, result: tuple[int, str], *parts: str) -> None:
    code, err = result
    assert code == 1
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    for part in parts:
        assert part in err
    made = tmp_path / "made"
    assert not made.exists() or list(made.iterdir()) == []


def test_a_folder_of_labelled_images_becomes_a_dataset(ingest, voc, tmp_path):
    assert ingest(voc) == (0, "")
    dataset = read_dataset(tmp_path / "made" / "dataset")
    names = ["JPEGImages/a.jpg", "JPEGImages/broken.png", "JPEGImages/more/b.png"]

    assert dataset.images["path"].tolist() == [f"images/{name}" for name in names]
    assert dataset.images["source"].tolist() == [str(voc / name) for name in names]
    assert dataset.images["readable"].tolist() == [True, False, True]
    assert dataset.images[["width", "height"]].values.tolist() == [[30, 20], [0, 0], [30, 21]]
    assert dataset.images["group"].tolist() == ["", "", ""]
    for name, path, sha256 in zip(names, dataset.images["path"], dataset.images["sha256"], strict=True):
        copy = dataset.image_path(path)
        assert copy.read_bytes() == (voc / name).read_bytes()
        assert hashlib.sha256(copy.read_bytes()).hexdigest() == sha256
        assert copy.stat().st_nlink == 1
        assert not copy.is_symlink()
    assert dataset.annotations["image_id"].tolist() == [0, 1]
    assert dataset.annotations[["source_file", "source_line"]].values.tolist() == [
        [str(voc / "Annotations" / "a.xml"), 3],
        [str(voc / "Annotations" / "broken.xml"), 3],
    ]
    assert dataset.findings[["code", "image_id"]].values.tolist() == [["E106", 2]]


def test_why_an_image_cannot_be_read_is_kept(ingest, voc, tmp_path):
    ingest(voc)
    images = read_dataset(tmp_path / "made" / "dataset").images
    assert images["problem"].tolist() == ["", "it is no JPEG, PNG, WebP, BMP or TIFF", ""]
    assert images["damaged"].tolist() == [False, False, False]


def test_images_of_another_type_are_findings(ingest, voc, tmp_path):
    others = [voc / "moving.gif", voc / "phone.HEIC", voc / "saved.jfif"]
    for path in others:
        path.write_bytes(b"GIF89a")
    ingest(voc)
    findings = read_dataset(tmp_path / "made" / "dataset").findings
    assert findings.loc[findings["code"] == "E112", "source_file"].tolist() == list(map(str, others))


def test_videos_that_are_not_read_are_told(ingest, voc, tmp_path):
    (voc / "clip.wmv").write_bytes(b"video")
    (voc / "clip.mp4").write_bytes(b"video")
    archive = shutil.make_archive(str(tmp_path / "photos"), "zip", voc)
    ingest(archive)
    assert "videos left out, for only .avi, .m4v, .mkv, .mov, .mp4, .webm in a folder are read: 2" in ingest.told


def test_images_in_another_place_than_the_formats_are_told(ingest, voc):
    (voc / "SegmentationClass").mkdir()
    shutil.copy(voc / "JPEGImages" / "more" / "b.png", voc / "SegmentationClass" / "a.png")
    ingest(voc)
    assert "in another place than the format's: 1: SegmentationClass/a.png" in ingest.told


def test_the_sources_own_split_is_kept(ingest, voc, tmp_path):
    (voc / "ImageSets" / "Main").mkdir(parents=True)
    (voc / "ImageSets" / "Main" / "train.txt").write_text("a\n")
    (voc / "ImageSets" / "Main" / "test.txt").write_text("broken\n")
    ingest(voc)
    assert read_dataset(tmp_path / "made" / "dataset").images["split"].tolist() == ["train", "test", ""]


@pytest.mark.parametrize("kind", ["zip", "gztar"])
def test_an_archive_gives_what_its_folder_gives(ingest, voc, tmp_path, kind):
    ingest(voc)
    folder = read_dataset(tmp_path / "made" / "dataset")
    archive = shutil.make_archive(str(tmp_path / "photos"), kind, voc)
    assert ingest(archive)[0] == 0
    dataset = read_dataset(tmp_path / "made" / "dataset")
    same = [name for name in folder.images.columns if name != "source"]
    assert dataset.images[same].equals(folder.images[same])
    assert dataset.images["source"][0] == f"{archive}/JPEGImages/a.jpg"
    boxes = ["image_id", "class_id", "x1", "y1", "x2", "y2", "source_line"]
    assert dataset.annotations[boxes].equals(folder.annotations[boxes])
    assert dataset.image_data("images/JPEGImages/a.jpg") == (voc / "JPEGImages/a.jpg").read_bytes()


def test_a_bucket_gives_what_its_folder_gives(ingest, voc, tmp_path):
    ingest(voc)
    folder = read_dataset(tmp_path / "made" / "dataset")
    with object_store():
        files = {path.relative_to(voc).as_posix(): path.read_bytes() for path in voc.rglob("*") if path.is_file()}
        fill_bucket("photos", {f"cells/{name}": data for name, data in files.items()})
        assert ingest("s3://photos/cells", scan={"workers": 2, "shard_size": 1}) == (0, "")
    dataset = read_dataset(tmp_path / "made" / "dataset")
    assert dataset.images["sha256"].tolist() == folder.images["sha256"].tolist()
    assert dataset.annotations["source_file"][0] == "s3://photos/cells/Annotations/a.xml"
    assert dataset.annotations["source_line"].tolist() == folder.annotations["source_line"].tolist()


def test_frames_of_a_video_are_images_of_one_group(ingest, tmp_path):
    video = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    rng = np.random.default_rng(0)
    for _ in range(4):
        still = np.full((48, 64, 3), 99, np.uint8)
        cv2.circle(still, (int(rng.integers(64)), int(rng.integers(48))), 20, (255, 255, 255), -1)
        for _ in range(10):
            video.write(still)
    video.release()
    every = {"every_s": 0.5, "max_hash_bits": 6}
    assert ingest(tmp_path / "clip.avi", {"format": "unlabelled", "video": every}) == (0, "")
    images = read_dataset(tmp_path / "made" / "dataset").images
    assert 2 <= len(images) <= 4, "two frames of each still, and one of them kept"
    assert len(set(images["group"])) == 1
    assert images["group"][0] != ""
    assert ingest(tmp_path / "clip.avi", {"format": "unlabelled", "video": {"every_s": 0.01, "max_hash_bits": -1}})
    assert len(read_dataset(tmp_path / "made" / "dataset").images) == 40, "every frame, as all may have a label"


def test_a_killed_scan_goes_on_and_gives_the_same(ingest, voc, tmp_path, monkeypatch):
    ingest(voc)
    expected = sha256_of_tree(tmp_path / "made" / "dataset")
    shutil.rmtree(tmp_path / "made")

    from plumbline import scan_shards

    scanned: list[str] = []

    def scan_until_killed(source, name, images, real=scan_shards._scan_one):
        if name.endswith("b.png") and not scanned[2:]:
            scanned.append("killed")
            raise KeyboardInterrupt
        scanned.append(name)
        return real(source, name, images)

    monkeypatch.setattr(scan_shards, "_scan_one", scan_until_killed)
    with pytest.raises(KeyboardInterrupt):
        ingest(voc, scan={"shard_size": 1})
    assert ingest(voc, scan={"shard_size": 1}) == (0, "")
    assert sorted(scanned) == ["JPEGImages/a.jpg", "JPEGImages/broken.png", "JPEGImages/more/b.png", "killed"]
    assert sha256_of_tree(tmp_path / "made" / "dataset") == expected
    assert not any(path.is_file() for path in (tmp_path / ".cache").rglob("*"))


def test_metrics_are_counts(ingest, voc, tmp_path):
    ingest(voc)
    assert json.loads((tmp_path / "made" / "ingest.json").read_text()) == {
        "num_boxes": 2,
        "num_classes": 2,
        "num_findings": 1,
        "num_images": 3,
        "num_unreadable_images": 1,
    }


def test_the_source_is_not_written_to(ingest, voc):
    before = sha256_of_tree(voc)
    ingest(voc)
    assert sha256_of_tree(voc) == before


def test_two_runs_give_the_same_bytes_and_what_was_there_is_replaced(ingest, voc, tmp_path):
    ingest(voc)
    first = sha256_of_tree(tmp_path / "made")
    (tmp_path / "made" / "dataset" / "images" / "stale.png").write_bytes(b"")
    ingest(voc)
    assert sha256_of_tree(tmp_path / "made") == first
    assert sorted(p.name for p in (tmp_path / "made").iterdir()) == ["dataset", "ingest.json"]


def test_a_yolo_folder_is_recognised(ingest, tmp_path):
    source = tmp_path / "yolo"
    shutil.copytree(ROOT / "tests" / "golden" / "yolo", source)
    (source / "images").mkdir()
    for stem in ("a", "b", "nothing"):
        cv2.imwrite(str(source / "images" / f"{stem}.png"), np.zeros((32, 64), np.uint8))
    assert ingest(source)[0] == 0
    assert len(read_dataset(tmp_path / "made" / "dataset").annotations) == 5


def test_images_per_shard_of_0_leave_loose_files(ingest, voc, tmp_path):
    assert ingest(voc)[0] == 0
    sharded = read_dataset(tmp_path / "made" / "dataset")
    data = {path: sharded.image_data(path) for path in sharded.images["path"]}
    assert ingest(voc, {"images_per_shard": 0})[0] == 0
    loose = read_dataset(tmp_path / "made" / "dataset")

    assert loose.images.equals(sharded.images)
    files = {path.relative_to(loose.root).as_posix(): path for path in (loose.root / "images").rglob("*.*")}
    assert {name: path.read_bytes() for name, path in files.items()} == data


def test_digits_are_drawn(ingest, tmp_path):
    assert ingest(ROOT / "data" / "digits", {"class_names": DIGIT_NAMES}) == (0, "")
    dataset = read_dataset(tmp_path / "made" / "dataset")
    images, boxes = dataset.images, dataset.annotations

    assert images["path"].tolist() == [f"images/scene_{index:05d}.png" for index in range(9)]
    assert images["group"].tolist() == [f"pool_{index % 4:02d}" for index in range(9)]
    assert (images["readable"] & (images["width"] == 64) & (images["height"] == 64)).all()
    assert [cv2.imread(str(dataset.image_path(path))).shape for path in images["path"]] == [(64, 64, 3)] * 9
    assert all(path.suffix in (".tar", ".parquet") for path in (dataset.root / "images").iterdir())
    notes = {image_id: note.removeprefix("digits:").split(",") for image_id, note in enumerate(images["source"])}
    assert boxes.groupby("image_id").size().to_dict() == {key: len(samples) for key, samples in notes.items()}
    assert boxes["class_name"].tolist() == [DIGIT_NAMES[class_id] for class_id in boxes["class_id"]]
    assert set(boxes["source_file"]) == {"digits"}

    from sklearn.datasets import load_digits

    drawn = [int(notes[row.image_id][row.source_line - 1]) for row in boxes.itertuples()]
    assert load_digits().target[drawn].tolist() == boxes["class_id"].tolist()
    pools = {}
    for row, sample in zip(boxes.itertuples(), drawn, strict=True):
        assert pools.setdefault(sample, images["group"][row.image_id]) == images["group"][row.image_id]


def test_digits_are_drawn_the_same_twice(ingest, tmp_path):
    ingest(ROOT / "data" / "digits", {"class_names": DIGIT_NAMES})
    first = sha256_of_tree(tmp_path / "made")
    ingest(ROOT / "data" / "digits", {"class_names": DIGIT_NAMES, "format": "digits"})
    assert sha256_of_tree(tmp_path / "made") == first


def test_for_classification_every_digit_is_an_image_with_one_label(ingest, tmp_path):
    assert ingest(ROOT / "data" / "digits", {"class_names": DIGIT_NAMES}, task="classify") == (0, "")
    dataset = read_dataset(tmp_path / "made" / "dataset")
    images, labels = dataset.images, dataset.annotations
    bundled = load_digits()

    assert images["path"].tolist() == [f"images/digit_{index:05d}.png" for index in range(1797)]
    assert images["source"].tolist() == [f"digits:{index}" for index in range(1797)]
    assert (images[["width", "height"]] == 32).all(axis=None)
    assert images["readable"].all()
    assert (images["group"] == "").all()  # whose hand it is is not known
    assert labels["image_id"].tolist() == images["image_id"].tolist()
    assert labels["class_id"].tolist() == bundled.target.tolist()
    assert labels["class_name"].tolist() == [DIGIT_NAMES[class_id] for class_id in bundled.target]
    assert labels[["x1", "y1", "x2", "y2"]].isna().all(axis=None)
    assert len(dataset.findings) == 0
    # Shrunk again, it is the ink that the bundled sample has, white on black.
    for index in range(0, 1797, 100):
        image = cv2.imread(str(dataset.image_path(images["path"][index])), cv2.IMREAD_UNCHANGED)
        small = cv2.resize(image, (8, 8), interpolation=cv2.INTER_AREA).mean(axis=2)
        assert image.shape == (32, 32, 3)
        assert np.corrcoef(small.ravel(), bundled.images[index].ravel())[0, 1] > 0.98


def test_single_digits_are_of_the_size_asked_for_and_the_same_twice(ingest, tmp_path):
    digits, names = {"digit_size": 48}, {"class_names": DIGIT_NAMES}
    ingest(ROOT / "data" / "digits", names, digits, task="classify")
    first = sha256_of_tree(tmp_path / "made")
    assert (read_dataset(tmp_path / "made" / "dataset").images["width"] == 48).all()
    ingest(ROOT / "data" / "digits", names, {**digits, "seed": 7, "num_scenes": 3}, task="classify")
    assert sha256_of_tree(tmp_path / "made") == first


def test_the_task_changes_no_other_source(ingest, tmp_path, voc):
    ingest(voc)
    first = sha256_of_tree(tmp_path / "made")
    ingest(voc, task="classify")
    assert sha256_of_tree(tmp_path / "made") == first


def test_a_missing_folder(ingest, tmp_path):
    gone = tmp_path / "gone"
    assert_refused(tmp_path, ingest(gone), f"{gone}: nothing there to read images from", "a folder", "dataset.source")


def test_a_file_that_is_no_archive(ingest, tmp_path):
    (tmp_path / "a.zip").write_bytes(b"")
    assert_refused(tmp_path, ingest(tmp_path / "a.zip"), f"{tmp_path / 'a.zip'}: ", "zip")


def test_a_folder_without_images(ingest, tmp_path, voc):
    shutil.rmtree(voc / "JPEGImages")
    assert_refused(tmp_path, ingest(voc), "no image there", ".jpg", "dataset.source")


def test_a_folder_without_labels(ingest, tmp_path, voc):
    shutil.rmtree(voc / "Annotations")
    assert_refused(tmp_path, ingest(voc), "no labels of a known format", "voc: ", "yolo: ", "dataset.format")


def test_labels_of_two_formats_need_a_choice(ingest, tmp_path, voc):
    (voc / "labels").mkdir()
    (voc / "labels" / "a.txt").write_text("0 .5 .5 .1 .1\n")
    assert_refused(tmp_path, ingest(voc), "more than one format", "voc and yolo", "dataset.format in params.yaml")
    assert ingest(voc, {"format": "voc"}) == (0, "")


def test_class_names_of_a_yolo_folder_that_cannot_be_read(ingest, tmp_path, voc):
    (voc / "data.yaml").write_text("a: b\nnames: [\n")
    assert_refused(tmp_path, ingest(voc, {"format": "yolo"}), "data.yaml:3: not YAML")


def test_an_output_inside_the_source(ingest, tmp_path, voc):
    (tmp_path / "made").mkdir()
    assert_refused(tmp_path, ingest(tmp_path), "overlaps the output")


def test_a_file_name_that_no_table_can_hold_is_a_finding(ingest, tmp_path, voc):
    (Path(os.fsdecode(bytes(voc / "JPEGImages") + b"/\xff.png"))).write_bytes(b"")
    assert ingest(voc)[0] == 0
    findings = read_dataset(tmp_path / "made" / "dataset").findings
    assert "\\xff.png" in findings.set_index("code")["message"]["E114"]


@pytest.mark.parametrize("text", ["generator: letters\n", "digits\n", "generator: [\n", ""])
def test_an_unknown_generator(ingest, tmp_path, text):
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "generator.yaml").write_text(text)
    assert_refused(tmp_path, ingest(tmp_path / "source"), "generator.yaml: ", "expected `generator: digits`")


def test_digits_of_a_folder_that_has_none(ingest, tmp_path, voc):
    result = ingest(voc, {"format": "digits", "class_names": DIGIT_NAMES})
    assert_refused(tmp_path, result, "generator.yaml: no such file", "dataset.format in params.yaml")


def test_digits_need_ten_class_names(ingest, tmp_path):
    result = ingest(ROOT / "data" / "digits")
    assert_refused(tmp_path, result, "expected 10 names, got 2", "dataset.class_names in params.yaml")


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        (
            {"dataset": {"format": "coco5"}},
            ("dataset.format", "expected one of: auto, digits, voc, yolo, coco, labelme", "got 'coco5'"),
        ),
        ({"dataset": {"class_names": []}}, ("dataset.class_names",)),
        ({"dataset": {"class_names": ["cat", "cat"]}}, ("dataset.class_names", "every name once")),
        ({"dataset": {"class_names": ["cat", "a\nb"]}}, ("dataset.class_names", "printable")),
        ({"dataset": {"class_names": "cat"}}, ("dataset.class_names", "list")),
        ({"dataset": {"folder": "x"}}, ("unknown parameter dataset.folder",)),
        ({"digits": {"min_digits": 4}}, ("digits.max_digits", "expected min_digits (4) or more, got 3")),
        ({"digits": {"num_pools": 2}}, ("digits.num_pools", "3")),
        ({"digits": {"min_size": 7}}, ("digits.min_size", "8")),
        ({"digits": {"min_size": 21}}, ("digits.max_size", "expected min_size (21) to scene_size (64), got 20")),
        ({"digits": {"max_size": 65}}, ("digits.max_size", "expected min_size (12) to scene_size (64), got 65")),
        ({"digits": {"digit_size": 9}}, ("digits.digit_size", "16")),
        ({"digits": {"num_scenes": 0}}, ("digits.num_scenes",)),
        ({"digits": {"seed": "0"}}, ("digits.seed", "integer, got '0' (str)")),
        ({"digits": {"scene_size": 64.0}}, ("digits.scene_size", "(float)")),
    ],
)
def test_wrong_params_name_their_line(ingest, tmp_path, voc, values, parts):
    assert_refused(tmp_path, ingest(voc, **values), f"{tmp_path / 'params.yaml'}:", *parts)


def test_bccd_becomes_a_dataset(ingest, bccd, tmp_path):
    names = ["RBC", "WBC", "Platelets"]
    assert ingest(bccd, {"class_names": names}) == (0, "")
    dataset = read_dataset(tmp_path / "made" / "dataset")
    objects = sum(path.read_text().count("<object>") for path in (bccd / "Annotations").glob("*.xml"))
    assert (len(dataset.images), len(dataset.annotations), len(dataset.findings)) == (364, objects, 0)
    assert (dataset.annotations["class_id"] >= 0).all()
    boxes = dataset.annotations
    flat = boxes[(boxes["x2"] <= boxes["x1"]) | (boxes["y2"] <= boxes["y1"])]
    assert [Path(file).name for file in flat["source_file"]] == ["BloodImage_00338.xml", "BloodImage_00343.xml"]
