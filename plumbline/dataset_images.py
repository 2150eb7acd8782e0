"""The pixels of a dataset's images, wherever their bytes are."""

from __future__ import annotations

import numpy as np

from plumbline.errors import DatasetError
from plumbline.manifest import Dataset
from plumbline.runtime.preprocess import Image, decode_image


def load_image(dataset: Dataset, path: str) -> Image:
    """Decode one image to BGR of shape (H, W, 3), uint8, as `read_image` does a file.

    Args:
        dataset: Its shards or loose files hold the bytes.
        path: As images.path has it.

    Raises:
        DatasetError: The image or its shard is missing, damaged, or cannot be decoded.
    """
    name = str(dataset.root / path)
    try:
        data = dataset.image_data(path)
    except OSError as error:
        raise DatasetError(f"{name}: cannot be read ({error.strerror}); run ingest again") from error
    return decode_image(np.frombuffer(data, np.uint8), name)
