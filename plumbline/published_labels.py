"""labels.csv: every image that a version was made from, with the label files that say what is on it, and their hashes.

Its columns:

- ``image``: its path in the dataset; empty for a file that is about the data set as a whole (a list of classes).
- ``image_sha256``: of its bytes.
- ``split``: train, val, test or left_out.
- ``label_file``: as it was called when it was read; empty where the image has none.
- ``label_sha256``: what ``label_from`` says.
- ``label_from``: ``file``: of the label file's bytes. ``folder``: the label is the name of the image's folder, so the
  file is the image. ``table``: there are no label files (drawn digits): of the image's rows in annotations.parquet, as
  `sha256_of_rows` writes them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath

import pandas as pd

from plumbline.errors import DatasetError
from plumbline.image_scan import IMAGE_SUFFIXES
from plumbline.manifest import Dataset
from plumbline.sources import Source
from plumbline.sources.video import VIDEO_SUFFIXES

COLUMNS = ("image", "image_sha256", "split", "label_file", "label_sha256", "label_from")
FROM_FILE, FROM_FOLDER, FROM_TABLE = "file", "folder", "table"
# What label files end in where no label that was read tells; lists of classes may end in YAML's always.
_SUFFIXES = {".txt", ".xml", ".json", ".csv"}
_LISTS = {".yaml", ".yml"}
_IMAGES_FOLDER = "images/"


def label_table(
    dataset: Dataset, images: pd.DataFrame, splits: pd.DataFrame, source: Source | None, shorten: Callable[[str], str]
) -> pd.DataFrame:
    """Return the rows of labels.csv, by image and label file.

    Args:
        dataset: As ingest wrote it: what the label files say, before any repair.
        images: The rows of images.parquet that the line went on with.
        splits: Columns image_id and split.
        source: Where the label files are; None where there are none, as for drawn digits.
        shorten: Makes of `Source.where` what ingest called the file.

    Raises:
        DatasetError: A label file that ingest read is not there any more, or cannot be read.
    """
    split_of = splits.set_index("image_id")["split"]
    path_of = dataset.images.set_index("image_id")["path"]
    rows = dataset.annotations.assign(image=dataset.annotations["image_id"].map(path_of))
    labels = _from_tables(rows) if source is None else _from_files(rows, images["path"], source, shorten)
    known = pd.DataFrame(
        {
            "image": images["path"].to_numpy(object),
            "image_sha256": images["sha256"].to_numpy(object),
            "split": images["image_id"].map(split_of).fillna("").to_numpy(object),
        }
    )
    # Outer: images without a label file, and label files that are about no image, are rows too.
    table = known.merge(labels[~labels["image"].isin(set(path_of) - set(images["path"]))], on="image", how="outer")
    return table.fillna("")[list(COLUMNS)].sort_values(["image", "label_file"], ignore_index=True)


def write_label_table(table: pd.DataFrame, path: Path) -> None:
    """Write it; the same rows give the same bytes."""
    table.to_csv(path, index=False, lineterminator="\n")


def num_label_files(table: pd.DataFrame) -> int:
    """Return how many label files have a hash of their own."""
    return int(table.loc[table["label_from"].isin([FROM_FILE, FROM_FOLDER]), "label_file"].nunique())


def sha256_of_rows(rows: pd.DataFrame) -> str:
    """Return the hash of one image's labels: a JSON list of [class_id, x1, y1, x2, y2] in their order, without spaces.

    >>> row = {"class_id": 3, "x1": 0.0, "y1": 1.0, "x2": 2.5, "y2": 3.0}
    >>> sha256_of_rows(pd.DataFrame([row])) == hashlib.sha256(b"[[3,0.0,1.0,2.5,3.0]]").hexdigest()
    True
    """
    columns = [rows[name].tolist() for name in ("class_id", "x1", "y1", "x2", "y2")]
    text = json.dumps(list(zip(*columns, strict=True)), separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _from_tables(rows: pd.DataFrame) -> pd.DataFrame:
    return _frame(
        (image, str(of_image["source_file"].iloc[0]), sha256_of_rows(of_image), FROM_TABLE)
        for image, of_image in rows.groupby("image", sort=True)
    )


def _from_files(rows: pd.DataFrame, images: pd.Series, source: Source, shorten: Callable[[str], str]) -> pd.DataFrame:
    name_of = {shorten(source.where(name)): name for name in source.files()}
    pairs = rows[["image", "source_file"]].drop_duplicates()
    gone = sorted(set(pairs["source_file"]) - set(name_of))
    if gone:
        raise DatasetError(
            f"{gone[0]}: a label file that ingest read, expected it in {source.address}, where {len(gone)} such are"
            " gone; bring them back, or run dvc repro"
        )
    found = list(pairs.itertuples(index=False, name=None))
    unlabelled = sorted(set(images) - set(pairs["image"]))
    found += _without_rows(name_of, unlabelled, set(pairs["source_file"]))
    hash_of = {file: _sha256(source, name_of[file], file) for file in sorted({file for _, file in found})}
    return _frame((image, file, hash_of[file], _kind(file)) for image, file in found)


def _without_rows(name_of: Mapping[str, str], unlabelled: Iterable[str], read: set[str]) -> list[tuple[str, str]]:
    """Return (image, label file) of the label files that no row names: of images without objects, and of none.

    Such a file belongs to the one image without rows whose name it has, but for the suffix, as in all formats with a
    file for each image; else it is about the data set: a list of classes or of a split.
    """
    suffixes = ({PurePosixPath(file).suffix.lower() for file in read} - set(IMAGE_SUFFIXES) or _SUFFIXES) | _LISTS
    by_stem: dict[str, list[str]] = {}
    for image in unlabelled:
        by_stem.setdefault(PurePosixPath(image).stem, []).append(image)
    pairs = []
    for file, name in name_of.items():
        suffix = PurePosixPath(name).suffix.lower()
        if file in read or suffix not in suffixes or suffix in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES):
            continue
        images = by_stem.get(PurePosixPath(name).stem, [])
        pairs.append((_nearest(name, images), file))
    return pairs


def _nearest(name: str, images: list[str]) -> str:
    """Return the image whose folders have the most in common with a label file's, or "" where two have as much.

    >>> _nearest("train/labels/1.txt", ["images/train/images/1.png", "images/val/images/1.png"])
    'images/train/images/1.png'
    """
    folders = set(PurePosixPath(name).parent.parts)
    shared = [len(folders & set(PurePosixPath(image.removeprefix(_IMAGES_FOLDER)).parent.parts)) for image in images]
    best = [image for count, image in zip(shared, images, strict=True) if count == max(shared)]
    return best[0] if len(best) == 1 else ""


def _kind(file: str) -> str:
    return FROM_FOLDER if file.lower().endswith(tuple(IMAGE_SUFFIXES)) else FROM_FILE


def _sha256(source: Source, name: str, file: str) -> str:
    try:
        return hashlib.sha256(source.read(name)).hexdigest()
    except OSError as error:
        raise DatasetError(f"{file}: cannot be read ({error}), expected a label file; make it readable") from error


def _frame(rows: Iterable[tuple[str, str, str, str]]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=["image", "label_file", "label_sha256", "label_from"], dtype=object)
