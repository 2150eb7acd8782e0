"""The split stage writes one row per image, the same bytes each time, and says what it could not keep."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from plumbline.manifest import ANNOTATIONS_SCHEMA, FINDINGS_SCHEMA, IMAGES_SCHEMA, Dataset, table, write_dataset
from plumbline.splitting import SPLITS_SCHEMA
from stages.split import main

PARAMS = """\
split:
  seed: 0
  fractions: {train: 0.6, val: 0.2, test: 0.2}
  near_duplicate_bits: 6
"""


def write_labels(folder, hashes, groups=None):
    """Write images whose ids have gaps, as they have after a drop, with two boxes each."""
    ids = [3 * number for number in range(len(hashes))]
    images = [
        {
            "image_id": image_id, "path": f"images/{image_id:03d}.jpg", "sha256": f"sha{image_id}", "width": 10,
            "height": 10, "phash": int(phash), "group": groups[n] if groups else "", "source": "", "readable": True,
            "brightness": 1.0, "contrast": 1.0, "sharpness": 1.0,
        }
        for n, (image_id, phash) in enumerate(zip(ids, hashes, strict=True))
    ]  # fmt: skip
    boxes = [
        {
            "image_id": ids[n // 2], "ann_id": n, "class_id": n % 2, "class_name": "ab"[n % 2], "x1": 0.0, "y1": 0.0,
            "x2": 5.0, "y2": 5.0, "difficult": False, "truncated": False, "polygon": None, "source_file": "a",
            "source_line": n,
        }
        for n in range(2 * len(ids))
    ]  # fmt: skip
    folder.mkdir()
    tables = (table(images, IMAGES_SCHEMA), table(boxes, ANNOTATIONS_SCHEMA), table([], FINDINGS_SCHEMA))
    write_dataset(Dataset(*tables, ("a", "b"), folder), folder)


@pytest.fixture
def stage(tmp_path, capsys):
    def run(hashes, groups=None, params=PARAMS, out="splits.parquet"):
        if not (tmp_path / "labels").exists():
            write_labels(tmp_path / "labels", hashes, groups)
        (tmp_path / "params.yaml").write_text(params)
        names = {"labels": "labels", "out": out, "metrics": "m.json", "params": "params.yaml"}
        code = main([word for name, file in names.items() for word in (f"--{name}", str(tmp_path / file))])
        return code, capsys.readouterr().err, tmp_path

    return run


def far_apart(count):
    return np.random.default_rng(0).integers(0, 2**64, count, dtype=np.uint64)


def test_every_image_gets_one_split_and_the_counts_add_up(stage):
    hashes = far_apart(50)
    hashes[7] = hashes[31] ^ np.uint64(0b111)
    code, err, folder = stage(hashes)
    assert (code, err) == (0, "")
    arrow = pq.read_table(folder / "splits.parquet")
    assert arrow.schema.remove_metadata() == SPLITS_SCHEMA
    rows = arrow.to_pandas()
    assert rows["image_id"].tolist() == [3 * n for n in range(50)]
    assert rows["split"][7] == rows["split"][31]
    assert rows["group"][7] == rows["group"][31] == 7
    metrics = json.loads((folder / "m.json").read_text())
    assert metrics["num_groups"] == 49
    assert metrics["num_near_duplicate_pairs"] == 1
    for name, expected in (("train", 30), ("val", 10), ("test", 10)):
        assert metrics[f"num_images_{name}"] == (rows["split"] == name).sum() == pytest.approx(expected, abs=1)
        assert metrics[f"num_boxes_{name}"] == 2 * metrics[f"num_images_{name}"]
    assert metrics["worst_class_share_deviation"] <= 0.02


def test_a_declared_group_is_never_parted(stage):
    groups = [f"pool_{n % 5}" for n in range(40)]
    _, _, folder = stage(far_apart(40), groups)
    rows = pq.read_table(folder / "splits.parquet").to_pandas().assign(pool=groups)
    assert (rows.groupby("pool")["split"].nunique() == 1).all()
    assert set(rows["split"]) == {"train", "val", "test"}


def test_the_same_input_gives_the_same_bytes(stage):
    for out in ("a.parquet", "b.parquet"):
        _, _, folder = stage(far_apart(30), out=out)
    assert (folder / "a.parquet").read_bytes() == (folder / "b.parquet").read_bytes()


def test_too_few_groups_leave_no_output(stage):
    code, err, folder = stage([0, 1, 2, 3, 2**60 - 1])
    assert code == 1
    assert err.startswith("error: too few independent groups of images, expected at least 3 (one for each of train,")
    assert err.count("\n") == 1
    assert sorted(path.name for path in folder.iterdir()) == ["labels", "params.yaml"]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "train: 0.6",
            "train: 0.7",
            ":3: wrong value for split.fractions, expected three fractions that sum to 1 (they",
        ),
        (
            "train: 0.6, val: 0.2",
            "train: 0.8, val: 0",
            ":3: wrong value for split.fractions.val, expected greater than 0",
        ),
        ("bits: 6", "bits: 17", ":4: wrong value for split.near_duplicate_bits, expected less than or equal to 16"),
        ("seed: 0", "sede: 0", ":2: unknown parameter split.sede"),
        ("val: 0.2", "dev: 0.2", ":3: unknown parameter split.fractions.dev, expected one of: train, val, test"),
    ],
)
def test_wrong_parameters_are_named_with_their_line(stage, old, new, expected):
    code, err, folder = stage(far_apart(3), params=PARAMS.replace(old, new))
    assert code == 1
    assert err.startswith(f"error: {folder / 'params.yaml'}{expected}")
    assert err.count("\n") == 1


def test_fractions_that_sum_to_1_but_for_rounding_are_fine(stage):
    assert stage(far_apart(9), params=PARAMS.replace("0.6, val: 0.2, test: 0.2", "0.7, val: 0.2, test: 0.1"))[0] == 0
