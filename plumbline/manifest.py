"""The canonical dataset: one Parquet table of images and one of annotations.

A dataset is a folder::

    dataset/
      images.parquet        one row per image, sorted by path
      annotations.parquet   one row per box, as the label file says it: nothing clipped, nothing dropped
      findings.parquet      what was wrong with files that could not become rows
      images/...            the bytes as they came: in shards (`plumbline.image_shards`), or at the paths that
                            images.parquet names

Nothing else (a YOLO folder, a COCO file) is ever the truth: those are views made from this.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from plumbline.errors import DatasetError
from plumbline.image_shards import open_shards

IMAGES_SCHEMA = pa.schema(
    [
        ("image_id", pa.int64()),  # 0.. in the order of path
        ("path", pa.string()),  # relative to the dataset folder, with forward slashes
        ("sha256", pa.string()),  # of the file's bytes
        ("width", pa.int64()),  # pixels, after EXIF orientation; 0 when unreadable
        ("height", pa.int64()),
        ("phash", pa.uint64()),  # 64-bit perceptual hash; 0 when unreadable
        ("group", pa.string()),  # images that must never be parted by a split; "" for none
        ("source", pa.string()),  # where the image came from: a path, or the generator's own note
        ("split", pa.string()),  # train, val or test where the source says so itself; "" where it does not
        ("readable", pa.bool_()),
        ("problem", pa.string()),  # why it is not readable; "" when it is
        ("damaged", pa.bool_()),  # it is an image, but cut short or damaged; not readable then
        ("exif_orientation", pa.int64()),  # 1..8; 1 is upright
        ("brightness", pa.float64()),  # mean of the grey image, 0..255
        ("contrast", pa.float64()),  # standard deviation of the grey image
        ("sharpness", pa.float64()),  # variance of its Laplacian
    ]
)

ANNOTATIONS_SCHEMA = pa.schema(
    [
        ("image_id", pa.int64()),
        ("ann_id", pa.int64()),  # 0.. in the order of image, then of the label file
        ("class_id", pa.int64()),  # index into class_names; UNKNOWN_CLASS_ID or CLASS_OUT_OF_RANGE_ID
        ("class_name", pa.string()),  # as the label file writes it
        ("x1", pa.float64()),  # pixels, 0-based, half-open; all four NaN for a label of the whole image
        ("y1", pa.float64()),
        ("x2", pa.float64()),
        ("y2", pa.float64()),
        ("difficult", pa.bool_()),
        ("truncated", pa.bool_()),
        ("crowd", pa.bool_()),  # COCO's iscrowd: a region of many, which counts neither as found nor as missed
        ("polygon", pa.list_(pa.list_(pa.float64()))),  # rings of x, y, x, y... in pixels, or null
        ("rle", pa.string()),  # COCO's run-length mask as its JSON; "" for none
        ("source_file", pa.string()),  # the label file, as it can be opened
        ("source_line", pa.int64()),  # 1-based; 0 where the format has no lines, such as a folder of a class
    ]
)

# A class that is not in class_names, by its name; or a number beyond the data set's own list of names.
UNKNOWN_CLASS_ID = -1
CLASS_OUT_OF_RANGE_ID = -2

FINDINGS_SCHEMA = pa.schema(
    [
        ("code", pa.string()),  # a row of plumbline.faults.FAULTS
        ("severity", pa.string()),  # error, warning or fixed; "" until the gate has judged it
        ("source_file", pa.string()),
        ("source_line", pa.int64()),  # 1-based; 0 when the whole file is meant
        ("message", pa.string()),
        ("image_id", pa.int64()),  # -1 when no image is meant
        ("ann_id", pa.int64()),  # -1 when no box is meant
    ]
)


@dataclass(frozen=True)
class Dataset:
    """Images, boxes and read findings in memory, with the order of classes.

    Attributes:
        images: Columns of `IMAGES_SCHEMA`.
        annotations: Columns of `ANNOTATIONS_SCHEMA`.
        findings: Columns of `FINDINGS_SCHEMA`.
        class_names: Index is class_id; the order comes from params.yaml.
        root: The folder that `images.path` is relative to.
    """

    images: pd.DataFrame
    annotations: pd.DataFrame
    findings: pd.DataFrame
    class_names: tuple[str, ...]
    root: Path

    def image_path(self, path: str) -> Path:
        """Return where the file of one images row is; of an image in a shard, where it was unpacked to.

        Raises:
            DatasetError: A shard is missing or damaged.
        """
        shards = open_shards(self.root)
        return shards.unpacked(path) if shards is not None and path in shards else self.root / path

    def image_data(self, path: str) -> bytes:
        """Return the bytes of the file of one images row, without unpacking it to anywhere.

        Raises:
            DatasetError: A shard is missing or damaged.
            OSError: A loose file cannot be read.
        """
        shards = open_shards(self.root)
        return shards.data(path) if shards is not None and path in shards else (self.root / path).read_bytes()


def table(rows: list[dict[str, object]], schema: pa.Schema) -> pd.DataFrame:
    """Make a DataFrame with exactly the columns and types of a schema, also from no rows at all."""
    return pa.Table.from_pylist(rows, schema=schema).to_pandas()


def write_table(frame: pd.DataFrame, schema: pa.Schema, path: Path, class_names: tuple[str, ...] = ()) -> None:
    """Write one table; the same rows give the same bytes."""
    arrow = pa.Table.from_pandas(frame[schema.names], schema=schema, preserve_index=False)
    metadata = {"class_names": "\n".join(class_names)} if class_names else {}
    pq.write_table(arrow.replace_schema_metadata(metadata), path, compression="zstd")


def write_dataset(dataset: Dataset, folder: Path) -> None:
    """Write the three tables into an existing folder; the images are the caller's to place."""
    write_table(dataset.images, IMAGES_SCHEMA, folder / "images.parquet", dataset.class_names)
    write_table(dataset.annotations, ANNOTATIONS_SCHEMA, folder / "annotations.parquet")
    write_table(dataset.findings, FINDINGS_SCHEMA, folder / "findings.parquet")


def read_dataset(folder: Path, root: Path | None = None) -> Dataset:
    """Read what `write_dataset` wrote.

    Args:
        folder: Holds the three tables.
        root: The folder that holds the images, where it is another one: the validated tables stand in a
            folder of their own, the bytes stay where ingest put them.

    Raises:
        DatasetError: A table is missing or has other columns.
    """
    images, metadata = _read(folder / "images.parquet", IMAGES_SCHEMA)
    annotations, _ = _read(folder / "annotations.parquet", ANNOTATIONS_SCHEMA)
    findings, _ = _read(folder / "findings.parquet", FINDINGS_SCHEMA)
    names = metadata.get(b"class_names", b"").decode()
    class_names = tuple(names.split("\n")) if names else ()
    return Dataset(images, annotations, findings, class_names, folder if root is None else root)


def _read(path: Path, schema: pa.Schema) -> tuple[pd.DataFrame, dict[bytes, bytes]]:
    try:
        arrow = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise DatasetError(f"{path}: not a readable Parquet table; run the stage that writes it again") from error
    if arrow.schema.names != schema.names:
        raise DatasetError(
            f"{path}: wrong columns, expected {schema.names}, got {arrow.schema.names}; run ingest again"
        )
    return arrow.to_pandas(), arrow.schema.metadata or {}
