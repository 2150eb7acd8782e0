"""The canonical tables come back as they were written, byte for byte the same each time."""

from pathlib import Path

import pandas as pd
import pandas.testing as pdt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from plumbline.errors import DatasetError
from plumbline.manifest import (
    ANNOTATIONS_SCHEMA,
    FINDINGS_SCHEMA,
    IMAGES_SCHEMA,
    Dataset,
    read_dataset,
    table,
    write_dataset,
)

IMAGE = {
    "image_id": 0, "path": "images/ä.jpg", "sha256": "ab", "width": 640, "height": 480, "phash": 2**64 - 1, "group": "",
    "source": "in/ä.jpg", "readable": True, "brightness": 1.5, "contrast": 2.0, "sharpness": 3.0,
}  # fmt: skip
BOX = {
    "image_id": 0, "ann_id": 0, "class_id": 1, "class_name": "dog", "x1": -1.0, "y1": 2.0, "x2": 3.5, "y2": 4.0,
    "difficult": False, "truncated": True, "polygon": None, "source_file": "in/ä.xml", "source_line": 7,
}  # fmt: skip


def a_dataset(images=(IMAGE,), boxes=(BOX,), class_names=("cat", "dog", "a, b")):
    return Dataset(
        table(list(images), IMAGES_SCHEMA),
        table(list(boxes), ANNOTATIONS_SCHEMA),
        table([], FINDINGS_SCHEMA),
        tuple(class_names),
        Path(),
    )


def test_a_dataset_comes_back(tmp_path):
    polygon = {**BOX, "ann_id": 1, "polygon": [[0.0, 0.0, 1.0, 0.0, 1.0, 1.0]]}
    dataset = a_dataset(boxes=[BOX, polygon])
    write_dataset(dataset, tmp_path)
    back = read_dataset(tmp_path)
    pdt.assert_frame_equal(back.images, dataset.images)
    pdt.assert_frame_equal(back.annotations.drop(columns="polygon"), dataset.annotations.drop(columns="polygon"))
    assert back.annotations["polygon"][0] is None
    assert [ring.tolist() for ring in back.annotations["polygon"][1]] == polygon["polygon"]
    assert back.class_names == dataset.class_names
    assert back.images["phash"][0] == 2**64 - 1
    assert back.image_path("images/ä.jpg") == tmp_path / "images/ä.jpg"


def test_the_images_may_be_in_another_folder(tmp_path):
    write_dataset(a_dataset(), tmp_path)
    assert read_dataset(tmp_path, root=Path("data")).image_path("images/a.jpg") == Path("data/images/a.jpg")


def test_an_empty_dataset_keeps_its_columns_and_types(tmp_path):
    write_dataset(a_dataset([], [], ()), tmp_path)
    back = read_dataset(tmp_path)
    assert back.class_names == ()
    assert back.images["phash"].dtype == "uint64"
    assert list(back.annotations) == ANNOTATIONS_SCHEMA.names


def test_the_same_rows_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_dataset(a_dataset(), tmp_path / name)
    for file in ("images", "annotations", "findings"):
        a, b = (tmp_path / name / f"{file}.parquet" for name in ("a", "b"))
        assert a.read_bytes() == b.read_bytes()


def test_an_index_left_by_filtering_changes_no_byte(tmp_path):
    dataset = a_dataset(boxes=[BOX, {**BOX, "ann_id": 1}])
    kept = dataset.annotations[dataset.annotations["ann_id"] == 1]
    frames = [kept, kept.reset_index(drop=True)]
    texts = []
    for frame in frames:
        write_dataset(Dataset(dataset.images, frame, dataset.findings, ("cat",), Path()), tmp_path)
        texts.append((tmp_path / "annotations.parquet").read_bytes())
    assert texts[0] == texts[1]


def test_a_missing_or_foreign_table_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"images\.parquet: not a readable Parquet table"):
        read_dataset(tmp_path)
    write_dataset(a_dataset(), tmp_path)
    pq.write_table(pa.table({"image_id": [1]}), tmp_path / "annotations.parquet")
    with pytest.raises(DatasetError, match=r"annotations\.parquet: wrong columns, expected .*, got \['image_id'\]"):
        read_dataset(tmp_path)
    (tmp_path / "annotations.parquet").write_text("no parquet")
    with pytest.raises(DatasetError, match=r"annotations\.parquet: not a readable"):
        read_dataset(tmp_path)


def test_a_table_of_the_wrong_type_is_not_made():
    with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError)):
        table([{**BOX, "x1": "left"}], ANNOTATIONS_SCHEMA)
    assert isinstance(table([BOX], ANNOTATIONS_SCHEMA), pd.DataFrame)
