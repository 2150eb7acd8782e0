"""The photographs that the scan is measured on: BCCD as it is, and JPEGs of VOC's size made from it."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]

# Pascal VOC's usual size. With this grain the crops' JPEGs of quality 95 are as large as VOC2007's, 87 kB on average.
VOC_WH = (500, 375)
GRAIN = 13.0
ROOT = Path(__file__).parent.parent


def find_bccd() -> Path | None:
    """Return BCCD's photographs, where they are on this machine."""
    folder = Path(os.environ.get("PLUMBLINE_BCCD", ROOT.parent / "shared" / "data" / "bccd")) / "JPEGImages"
    return folder if folder.is_dir() else None


def draw_photo(seed: int) -> Image:
    """Draw something with the smooth areas and edges of a photograph: BGR, shape (480, 640, 3)."""
    rng = np.random.default_rng(seed)
    photo = cv2.resize(rng.integers(60, 200, (5, 7, 3), dtype=np.uint8), (640, 480), interpolation=cv2.INTER_CUBIC)
    for _ in range(25):
        center, color = rng.integers(0, 640, 2).tolist(), rng.integers(0, 255, 3).tolist()
        cv2.circle(photo, center, int(rng.integers(10, 60)), color, -1, cv2.LINE_AA)
    return cv2.GaussianBlur(photo, (3, 3), 0)


def crop_to_voc(photo: Image, seed: int) -> Image:
    """Cut a piece of VOC's size out of a larger photograph."""
    rng = np.random.default_rng(seed)
    width, height = VOC_WH
    y, x = rng.integers(0, photo.shape[0] - height + 1), rng.integers(0, photo.shape[1] - width + 1)
    return photo[y : y + height, x : x + width]


def add_grain(photo: Image, seed: int) -> Image:
    """Add the grain of a camera: a microscope's photographs are smoother than VOC's, so their JPEGs are smaller."""
    grain = np.random.default_rng(seed).normal(0, GRAIN, photo.shape).astype(np.float32)
    return np.clip(photo + 2 * cv2.GaussianBlur(grain, (3, 3), 0), 0, 255).astype(np.uint8)


def make_sets(folder: Path, num_images: int) -> dict[str, Path]:
    """Write the sets of images; returns what each is -> its folder of JPEGs, with a label of one box beside each."""
    bccd = find_bccd()
    sources = sorted(bccd.glob("*.jpg"))[:num_images] if bccd else []
    of = "BCCD" if bccd else "drawn photographs"
    names = [
        f"500x375, {of} with grain, quality 95",
        f"500x375, {of}, quality 90",
        f"640x480, {of}" + (" as it is" if bccd else ", quality 90"),
    ]
    folders = {name: folder / f"set{number}" for number, name in enumerate(names)}
    for one in folders.values():
        one.mkdir()
    for index in range(len(sources) or num_images):
        # One at a time: what is held here would count in the memory of the scan.
        photo = cv2.imread(str(sources[index])) if sources else draw_photo(index)
        crop = crop_to_voc(photo, index)
        whole = sources[index].read_bytes() if sources else _jpeg(photo, 90)
        files = (_jpeg(add_grain(crop, index), 95), _jpeg(crop, 90), whole)
        for one, data in zip(folders.values(), files, strict=True):
            (one / f"{index:04d}.jpg").write_bytes(data)
            (one / f"{index:04d}.txt").write_text("0 0.5 0.5 0.2 0.2\n", encoding="utf-8")
    return folders


def _jpeg(photo: Image, quality: int) -> bytes:
    encoded, data = cv2.imencode(".jpg", photo, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not encoded:
        raise RuntimeError("cv2 cannot encode a JPEG")
    return data.tobytes()
