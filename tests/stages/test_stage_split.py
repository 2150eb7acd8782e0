"""The split stage writes one row per image, the same bytes each time, moves none, and stops at a leak."""

import json
import re
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from plumbline.image_scan import scan_image
from plumbline.manifest import ANNOTATIONS_SCHEMA, FINDINGS_SCHEMA, IMAGES_SCHEMA, Dataset, table, write_dataset
from plumbline.splitting import SPLITS_SCHEMA
from stages.split import main

PARAMS = """\
near_duplicates: {max_hash_bits: 6}
split:
  seed: 0
  fractions: {train: 0.6, val: 0.2, test: 0.2}
  group_by: none
  take_source: false
  leak: error
"""
FILES = {
    "labels": "labels",
    "assignment": "splits.csv",
    "out": "splits.parquet",
    "metrics": "m.json",
    "leaks": "leaks.json",
    "params": "params.yaml",
}


def write_labels(folder, hashes, groups=None, *, splits=None, names=None, shas=None):
    """Write images whose ids have gaps, as they have after a drop, with two boxes each."""
    ids = [3 * number for number in range(len(hashes))]
    images = [
        {
            "image_id": image_id, "path": names[n] if names else f"images/{image_id:03d}.jpg",
            "sha256": shas[n] if shas else f"sha{image_id}", "width": 10, "height": 10, "phash": int(phash),
            "group": groups[n] if groups else "", "source": "", "split": splits[n] if splits else "",
            "readable": True, "problem": "", "damaged": False, "exif_orientation": 1, "brightness": 1.0,
            "contrast": 1.0, "sharpness": 1.0,
        }
        for n, (image_id, phash) in enumerate(zip(ids, hashes, strict=True))
    ]  # fmt: skip
    boxes = [
        {
            "image_id": ids[n // 2], "ann_id": n, "class_id": n % 2, "class_name": "ab"[n % 2], "x1": 0.0, "y1": 0.0,
            "x2": 5.0, "y2": 5.0, "difficult": False, "truncated": False, "crowd": False, "polygon": None, "rle": "",
            "source_file": "a", "source_line": n,
        }
        for n in range(2 * len(ids))
    ]  # fmt: skip
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    tables = (table(images, IMAGES_SCHEMA), table(boxes, ANNOTATIONS_SCHEMA), table([], FINDINGS_SCHEMA))
    write_dataset(Dataset(*tables, ("a", "b"), folder), folder)


class Stage:
    """The stage in a folder of its own; what it said last."""

    def __init__(self, folder, capsys):
        self.folder, self.capsys = folder, capsys

    def run(self, hashes, params=PARAMS, *, out="splits.parquet", **columns):
        write_labels(self.folder / "labels", hashes, **columns)
        (self.folder / "params.yaml").write_text(params)
        files = FILES | {"out": out}
        code = main([word for name, file in files.items() for word in (f"--{name}", str(self.folder / file))])
        self.said, self.err = self.capsys.readouterr()
        return code

    def ok(self, hashes, params=PARAMS, **columns):
        """Run, and return the rows of splits.parquet with the paths, and the metrics."""
        assert self.run(hashes, params, **columns) == 0, self.err
        assert self.err == ""
        rows = pq.read_table(self.folder / "splits.parquet").to_pandas()
        rows["path"] = pq.read_table(self.folder / "labels" / "images.parquet", columns=["path"])["path"]
        new, kept = re.search(r"\((\d+) new, (\d+) where they were", self.said).groups()
        return rows, self.json("m.json") | {"num_images_new": int(new), "num_images_kept": int(kept)}

    def json(self, name):
        return json.loads((self.folder / name).read_text())

    def csv(self):
        return (self.folder / "splits.csv").read_text().splitlines()


@pytest.fixture
def stage(tmp_path, capsys):
    return Stage(tmp_path, capsys)


def far_apart(count, seed=0):
    return np.random.default_rng(seed).integers(0, 2**64, count, dtype=np.uint64)


def test_every_image_gets_one_split_and_the_counts_add_up(stage):
    hashes = far_apart(50)
    hashes[7] = hashes[31] ^ np.uint64(0b111)
    rows, metrics = stage.ok(hashes)
    assert pq.read_table(stage.folder / "splits.parquet").schema.remove_metadata() == SPLITS_SCHEMA
    assert rows["image_id"].tolist() == [3 * n for n in range(50)]
    assert rows["split"][7] == rows["split"][31]
    assert rows["group"][7] == rows["group"][31] == 7
    assert metrics["num_groups"] == 49
    assert metrics["num_near_duplicate_pairs"] == 1
    for name, expected in (("train", 30), ("val", 10), ("test", 10)):
        assert metrics[f"num_images_{name}"] == (rows["split"] == name).sum() == pytest.approx(expected, abs=1)
        assert metrics[f"num_boxes_{name}"] == 2 * metrics[f"num_images_{name}"]
    assert metrics["worst_class_share_deviation"] <= 0.02
    assert {name: metrics[f"num_images_{name}"] for name in ("new", "kept", "left_out")} == {
        "new": 50,
        "kept": 0,
        "left_out": 0,
    }
    assert metrics["num_leaks"] == 0
    assert stage.json("leaks.json") == []
    expected = [f"sha{i},images/{i:03d}.jpg,{s}" for i, s in zip(rows["image_id"], rows["split"], strict=True)]
    assert stage.csv() == ["sha256,path,split", *expected]


def test_a_declared_group_is_never_parted(stage):
    groups = [f"pool_{n % 5}" for n in range(40)]
    rows, _ = stage.ok(far_apart(40), groups=groups)
    assert (rows.assign(pool=groups).groupby("pool")["split"].nunique() == 1).all()
    assert set(rows["split"]) == {"train", "val", "test"}


def test_a_group_of_the_users_own_is_never_parted_and_who_has_none_is_told(stage):
    names = [f"images/p{n % 8}_{n:03d}.jpg" if n < 40 else f"images/{n:03d}.jpg" for n in range(44)]
    params = PARAMS.replace("group_by: none", r"group_by: regex:^(p\d+)_")
    rows, metrics = stage.ok(far_apart(44), params, names=names)
    patients = rows["path"].str.extract(r"/(p\d+)_")[0]
    assert (rows.groupby(patients)["split"].nunique() == 1).all()
    assert metrics["num_groups"] == 8 + 4
    assert "4 of 44 images have no group by split.group_by" in stage.said


def test_groups_that_are_asked_for_after_the_dealing_can_be_changed_back(stage):
    names = [f"images/p{n % 4}_{n:03d}.jpg" for n in range(20)]
    stage.ok(far_apart(20), names=names)
    assert stage.run(far_apart(20), PARAMS.replace("group_by: none", r"group_by: regex:^(p\d+)_"), names=names) == 1
    assert r", or change split.group_by (regex:^(p\d+)_), or set split.leak to warning in params.yaml:" in stage.err
    assert "by split.group_by" in stage.err


def test_the_same_input_gives_the_same_bytes_and_moves_none(stage):
    kept = {}
    for out in ("a.parquet", "b.parquet"):
        stage.run(far_apart(30), out=out)
        kept[out] = [(stage.folder / name).read_bytes() for name in (out, "splits.csv", "m.json", "leaks.json")]
    assert kept["a.parquet"] == kept["b.parquet"]
    assert "(0 new, 30 where they were)" in stage.said


def test_added_images_move_none_and_gone_ones_come_back_to_where_they_were(stage):
    hashes, names = far_apart(60), [f"images/{n:03d}.jpg" for n in range(60)]
    shas = [f"s{n}" for n in range(60)]
    before, _ = stage.ok(hashes[:40], names=names[:40], shas=shas[:40])
    # Ten are gone, twenty are new, one has moved to another name and one has changed its bytes; another seed.
    shas[12] = "changed"
    names[13] = "images/elsewhere/013.jpg"
    part = slice(10, 60)
    after, metrics = stage.ok(hashes[part], PARAMS.replace("seed: 0", "seed: 1"), names=names[part], shas=shas[part])
    assert after["split"][:30].tolist() == before["split"][10:].tolist()
    assert (metrics["num_images_new"], metrics["num_images_kept"]) == (20, 30)
    assert len(stage.csv()) == 1 + 60
    assert "s9,images/009.jpg," + before["split"][9] in stage.csv()
    again, metrics = stage.ok(hashes, names=names, shas=shas)
    assert again["split"][:40].tolist() == before["split"].tolist()
    assert (metrics["num_images_new"], metrics["num_images_kept"]) == (0, 60)


def test_other_images_altogether_are_dealt_as_if_there_had_been_none(stage):
    stage.ok(far_apart(30))
    names, shas = [f"images/other/{n}.jpg" for n in range(40)], [f"other{n}" for n in range(40)]
    after, _ = stage.ok(far_apart(40, 1), names=names, shas=shas)
    assert len(stage.csv()) == 1 + 40
    (stage.folder / "splits.csv").unlink()
    fresh, _ = stage.ok(far_apart(40, 1), names=names, shas=shas)
    assert after["split"].tolist() == fresh["split"].tolist()


def test_a_bridge_between_two_splits_is_left_out_told_and_remembered(stage):
    hashes, names = far_apart(31), [f"images/{n:03d}.jpg" for n in range(31)]
    shas = [f"s{n}" for n in range(31)]
    hashes[1] = hashes[0] ^ np.uint64(0xFF)
    hashes[30] = hashes[0] ^ np.uint64(0xF)
    stage.ok(hashes[:30], names=names[:30], shas=shas[:30])
    header, *lines = stage.csv()
    # By hand, the two far ends come into two splits.
    for row, split in ((0, "train"), (1, "val")):
        lines[row] = lines[row].rpartition(",")[0] + "," + split
    (stage.folder / "splits.csv").write_text("\n".join([header, *lines]) + "\n")
    for _ in range(2):
        rows, metrics = stage.ok(hashes, names=names, shas=shas)
        assert rows["split"][[0, 1, 30]].tolist() == ["train", "val", "left_out"]
        assert rows["group"][30] == -1
        assert rows["group"][0] != rows["group"][1]
        assert (metrics["num_images_left_out"], metrics["num_images_new"], metrics["num_leaks"]) == (1, 0, 0)
        assert (
            "images/030.jpg: left out, as it belongs to images/000.jpg in train (near-duplicates that differ in 4 bits)"
            " and to images/001.jpg in val (near-duplicates that differ in 4 bits)"
        ) in stage.said
    assert stage.csv()[-1] == "s30,images/030.jpg,left_out"
    # When one of the two ends is gone, the other gets it.
    rows, metrics = stage.ok(hashes[1:], names=names[1:], shas=shas[1:])
    assert rows["split"].iloc[-1] == "val"
    assert metrics["num_images_new"] == 1


def test_a_leak_that_was_there_before_stops_and_every_one_is_in_the_file(stage):
    hashes = far_apart(30)
    before, _ = stage.ok(hashes)
    train, val = (before.index[before["split"] == name].tolist() for name in ("train", "val"))
    for a, b in zip(train, val, strict=False):
        hashes[b] = hashes[a] ^ np.uint64(1)
    written = (stage.folder / "splits.csv").read_bytes()
    assert stage.run(hashes) == 1
    assert stage.err.startswith(f"error: {len(val)} leaks between the splits, expected none; remove one of each two,")
    assert "splits.csv to deal all images afresh" in stage.err
    a, b = sorted((before["path"][train[0]], before["path"][val[0]]))
    split_of = dict(zip(before["path"], before["split"], strict=True))
    assert f"{a} ({split_of[a]}) and {b} ({split_of[b]}): near-duplicates that differ in 1 bit" in stage.err
    leaks = stage.json("leaks.json")
    assert len(leaks) == len(val)
    assert leaks[0].keys() == {"path", "other_path", "split", "other_split", "why"}
    assert (stage.folder / "splits.csv").read_bytes() == written
    # The same may be told only.
    rows, metrics = stage.ok(hashes, PARAMS.replace("leak: error", "leak: warning"))
    assert rows["split"].tolist() == before["split"].tolist()
    assert metrics["num_leaks"] == len(val)
    assert f"warning: {len(val)} leaks between the splits" in stage.said
    # And a fresh start has none.
    (stage.folder / "splits.csv").unlink()
    assert stage.ok(hashes)[1]["num_leaks"] == 0


TAKE = PARAMS.replace("take_source: false", "take_source: true")


def test_the_sources_own_split_is_taken_as_it_is_and_wins(stage):
    hashes = far_apart(20)
    before, _ = stage.ok(hashes)
    source = ["val", "test", "train", "train"] * 5
    rows, metrics = stage.ok(hashes, TAKE, splits=source)
    assert rows["split"].tolist() == source
    moved = sum(a != b for a, b in zip(before["split"], source, strict=True))
    assert metrics["num_images_kept"] == 20 - moved
    assert f"{moved} moved to where the source puts them" in stage.said


def test_what_the_source_deals_nowhere_is_dealt_like_new_images(stage):
    hashes = far_apart(20)
    hashes[19] = hashes[0] ^ np.uint64(1)
    source = ["val", "test", "train", "train"] * 4 + [""] * 4
    rows, metrics = stage.ok(hashes, TAKE, splits=source)
    assert rows["split"][:16].tolist() == source[:16]
    assert rows["split"][19] == "val"
    assert set(rows["split"][16:]) <= {"train", "val", "test"}
    assert metrics["num_images_new"] == 20
    assert "the source puts 4 of 20 images into no split" in stage.said


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ([""] * 9, "into train, val, test, got no split at all and none in train, val, test; add its list"),
        (["train", "val", ""] * 3, "into train, val, test, got 3 in train, 3 in val and none in test; add its list"),
        (["train", "val", "dev"] * 3, "expected the source's splits to be train, val, test, got 'dev'"),
    ],
)
def test_a_source_without_a_whole_split_of_its_own_is_refused(stage, source, expected):
    assert stage.run(far_apart(9), TAKE, splits=source) == 1
    assert expected in stage.err
    assert stage.err.count("\n") == 1


def test_the_official_split_of_bccd_is_refused_for_its_two_near_duplicates(stage, bccd):
    paths = sorted((bccd / "JPEGImages").glob("*.jpg"))
    scans = [scan_image(path) for path in paths]
    lists = {
        name: (bccd / "ImageSets" / "Main" / f"{name}.txt").read_text().split() for name in ("train", "val", "test")
    }
    split_of = {stem: name for name, stems in lists.items() for stem in stems}
    code = stage.run(
        [scan.phash for scan in scans],
        TAKE,
        names=[f"images/JPEGImages/{path.name}" for path in paths],
        shas=[scan.sha256 for scan in scans],
        splits=[split_of[path.stem] for path in paths],
    )
    assert code == 1
    assert stage.err.startswith("error: 1 leak between the splits, expected none; correct the source's lists, or set")
    (leak,) = stage.json("leaks.json")
    folder = "images/JPEGImages"
    assert (leak["path"], leak["split"]) == (f"{folder}/BloodImage_00037.jpg", "val")
    assert (leak["other_path"], leak["other_split"]) == (f"{folder}/BloodImage_00038.jpg", "train")
    assert leak["why"].startswith("near-duplicates that differ in ")
    assert f"{folder}/BloodImage_00037.jpg (val) and {folder}/BloodImage_00038.jpg (train)" in stage.err


def test_too_few_groups_leave_no_output(stage):
    assert stage.run([0, 1, 2, 3, 2**60 - 1]) == 1
    err = stage.err
    assert err.startswith("error: too few independent groups of images, expected at least 3 (one for each of train,")
    assert err.count("\n") == 1
    assert sorted(path.name for path in stage.folder.iterdir()) == ["labels", "params.yaml"]


def test_a_file_with_the_marks_of_a_conflict_is_refused_and_kept(stage):
    stage.ok(far_apart(9))
    text = (stage.folder / "splits.csv").read_text() + "<<<<<<< HEAD\n"
    (stage.folder / "splits.csv").write_text(text)
    assert stage.run(far_apart(9)) == 1
    assert stage.err.startswith(f"error: {stage.folder / 'splits.csv'}:11: expected sha256,path,split")
    assert (stage.folder / "splits.csv").read_text() == text


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "train: 0.6",
            "train: 0.7",
            ":4: wrong value for split.fractions, expected three fractions that sum to 1 (they",
        ),
        (
            "train: 0.6, val: 0.2",
            "train: 0.8, val: 0",
            ":4: wrong value for split.fractions.val, expected greater than 0",
        ),
        ("bits: 6", "bits: 17", ":1: wrong value for near_duplicates.max_hash_bits, expected less than or equal to 16"),
        ("seed: 0", "sede: 0", ":3: unknown parameter split.sede"),
        ("val: 0.2", "dev: 0.2", ":4: unknown parameter split.fractions.dev, expected one of: train, val, test"),
        ("group_by: none", "group_by: patient", ":5: wrong value for split.group_by, expected none, folder, regex:"),
        ("group_by: none", "group_by: 'regex:^p'", ":5: wrong value for split.group_by, expected a regular expression"),
        ("leak: error", "leak: off", ":7: wrong value for split.leak, expected 'error' or 'warning', got 'off'"),
    ],
)
def test_wrong_parameters_are_named_with_their_line(stage, old, new, expected):
    assert stage.run(far_apart(3), PARAMS.replace(old, new)) == 1
    assert stage.err.startswith(f"error: {stage.folder / 'params.yaml'}{expected}")
    assert stage.err.count("\n") == 1


def test_fractions_that_sum_to_1_but_for_rounding_are_fine(stage):
    assert stage.run(far_apart(9), PARAMS.replace("0.6, val: 0.2, test: 0.2", "0.7, val: 0.2, test: 0.1")) == 0
