"""The tracked file that remembers where each image was dealt, so that none moves when others come."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from plumbline.errors import DatasetError
from plumbline.files import write_text

SPLITS = ("train", "val", "test")
# Of an image that would join two others that stand in different splits: it is in none.
LEFT_OUT = "left_out"

SPLITS_SCHEMA = pa.schema(
    [
        ("image_id", pa.int64()),  # as in images.parquet, ascending
        ("split", pa.string()),  # train, val, test or left_out
        ("group", pa.int64()),  # images of one number are never parted; -1 for left_out
    ]
)

COLUMNS = ("sha256", "path", "split")

Names = npt.NDArray[np.object_]


def read_assignment(path: Path) -> pd.DataFrame:
    """Read the columns sha256, path and split; no file is no rows.

    Raises:
        DatasetError: A line is no such row, or a path stands there twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return pd.DataFrame({name: pd.Series(dtype=object) for name in COLUMNS})
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read ({error}); bring it back from git, or delete it") from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: dict[str, tuple[str, str, str]] = {}
    try:
        header = tuple(next(reader, ()))
        if header != COLUMNS:
            raise DatasetError(f"{path}:1: expected {','.join(COLUMNS)}, got {','.join(header)!r}; bring it back")
        for row in reader:
            where = f"{path}:{reader.line_num}"
            if len(row) != len(COLUMNS) or row[2] not in (*SPLITS, LEFT_OUT):
                raise DatasetError(
                    f"{where}: expected sha256,path,split with one of {', '.join((*SPLITS, LEFT_OUT))},"
                    f" got {','.join(row)!r}; mend the line (is it git's mark of a conflict?)"
                )
            if row[1] in rows:
                raise DatasetError(f"{where}: expected each path once, got {row[1]!r} again; keep one of the lines")
            rows[row[1]] = (row[0], row[1], row[2])
    except csv.Error as error:
        raise DatasetError(f"{path}:{reader.line_num}: expected CSV, got {error}; mend the line") from error
    return pd.DataFrame(list(rows.values()), columns=list(COLUMNS), dtype=object)


def write_assignment(images: pd.DataFrame, splits: Names, path: Path, gone: pd.DataFrame | None = None) -> None:
    """Write one row per image, sorted by path; the same images and splits give the same bytes.

    Args:
        images: Columns sha256 and path, shape (N,).
        splits: Of each row of `images`.
        path: Where the file shall stand.
        gone: Further rows, as `gone_images` returns them.
    """
    rows = list(zip(images["path"], images["sha256"], splits, strict=True))
    if gone is not None:
        rows += zip(gone["path"], gone["sha256"], gone["split"], strict=True)
    rows.sort()
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((sha256, name, split) for name, sha256, split in rows)
    write_text(path, text.getvalue())


def gone_images(images: pd.DataFrame, assignment: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of images that were dealt and are not there now, so that they have their place when they return.

    An image can be gone for a day, as when validate leaves it out until its label is mended. When none of the images
    is there, the assignment is that of another data set, and nothing of it is kept.

    Args:
        images: Columns sha256 and path.
        assignment: As `read_assignment` returns it.

    >>> images = pd.DataFrame({"sha256": ["1"], "path": ["a"]})
    >>> rows = [("1", "z", "val"), ("9", "b", "test")]
    >>> gone_images(images, pd.DataFrame(rows, columns=["sha256", "path", "split"]))["path"].tolist()
    ['b']
    """
    here = assignment["sha256"].isin(images["sha256"]) | assignment["path"].isin(images["path"])
    return assignment[~here & (assignment["split"] != LEFT_OUT) & here.any()]


def earlier_splits(images: pd.DataFrame, assignment: pd.DataFrame) -> Names:
    """Return where each image was dealt before, shape (N,); "" for a new one, and for one that was left out.

    An image is known by its bytes, wherever it stands now. A file whose bytes changed is known by its path; but not
    where the bytes that stood there have moved elsewhere: then what stands there now is another image.

    Args:
        images: Columns sha256 and path.
        assignment: As `read_assignment` returns it.

    >>> images = pd.DataFrame({"sha256": ["1", "2", "3"], "path": ["a", "b", "c"]})
    >>> rows = [("1", "z", "val"), ("9", "b", "test"), ("1", "c", "train")]
    >>> earlier_splits(images, pd.DataFrame(rows, columns=["sha256", "path", "split"])).tolist()
    ['train', 'test', '']
    """
    dealt = assignment[assignment["split"] != LEFT_OUT].sort_values("path", ascending=False)
    by_path = dict(zip(dealt["path"], zip(dealt["sha256"], dealt["split"], strict=True), strict=True))
    # The first path of one content is the last here, and so the one that counts.
    by_sha256 = dict(zip(dealt["sha256"], dealt["split"], strict=True))
    present = set(images["sha256"])
    splits = []
    for sha256, path in zip(images["sha256"], images["path"], strict=True):
        stood, split = by_path.get(path, ("", ""))
        if stood != sha256:
            split = by_sha256.get(sha256, "" if stood in present else split)
        splits.append(split)
    return np.array(splits, dtype=object)
