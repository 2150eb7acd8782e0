"""A clean data set of real photographs in any label format, and what was planted into it, with where it is."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from plumbline.formats import open_format
from plumbline.image_scan import scan_image
from plumbline.manifest import ANNOTATIONS_SCHEMA, FINDINGS_SCHEMA, IMAGES_SCHEMA, Dataset, table

CLASS_NAMES = ("cat", "dog", "bird", "rare", "unicorn", "scarce")
NUM_IMAGES = 96
NUM_SCARCE = 6
SIDE_WH = (160, 120)
BOX_FORMATS = ("voc", "yolo", "coco", "labelme", "cvat")
FORMATS = (*BOX_FORMATS, "imagefolder", "csv")
# Those whose labels name the image's size.
SIZED = ("voc", "coco", "labelme", "cvat")
ENDINGS = ("jpg", "png", "webp", "bmp", "tif")

Found = tuple[str, str, int]  # code, file as findings name it, line


@dataclass
class Plant:
    """A data set on its way to disk, and what was planted into it.

    Attributes:
        name: The format.
        folder: The data set on disk.
        images: Rows of images.parquet.
        boxes: Rows of annotations.parquet.
        found: What must be found, and nothing else.
    """

    name: str
    folder: Path
    images: list[dict]
    boxes: list[dict]
    found: list[Found] = field(default_factory=list)
    free: list[int] = field(default_factory=list)
    wanted_boxes: list[tuple[str, int, int]] = field(default_factory=list)

    def take(self, ending: str = "jpg") -> int:
        """Give the next image of that type that nothing was planted on."""
        index = next(i for i in self.free if self.images[i]["path"].endswith("." + ending))
        self.free.remove(index)
        return index

    def image_file(self, index: int) -> Path:
        (path,) = self.folder.rglob(Path(self.images[index]["path"]).name)
        return path

    def where(self, path: Path) -> str:
        return path.as_posix()

    def add(self, code: str, path: Path, line: int = 0) -> None:
        self.found.append((code, self.where(path), line))

    def rows_of(self, index: int) -> list[dict]:
        return [row for row in self.boxes if row["image_id"] == index]

    def box(self, index: int, xyxy, class_id: int = 0) -> int:
        """Add a box to an image; return its place among the image's."""
        self.boxes.append(box_row(index, class_id, xyxy))
        return len(self.rows_of(index)) - 1

    def label_file(self, index: int) -> Path:
        """The file that holds the labels of an image."""
        stem = Path(self.images[index]["path"]).stem
        if self.name in {"voc", "yolo", "labelme"}:
            ending = {"voc": "xml", "yolo": "txt", "labelme": "json"}[self.name]
            (path,) = self.folder.rglob(f"{stem}.{ending}")
            return path
        if self.name == "imagefolder":
            return self.image_file(index)
        ending = {"coco": "json", "cvat": "xml", "csv": "csv"}[self.name]
        (path,) = (p for p in self.folder.rglob(f"*.{ending}"))
        return path

    def line_of(self, index: int, place: int) -> int:  # noqa: PLR0911 - a format each
        """The line of the n-th label of an image, found by reading the text as a person would."""
        lines = self.label_file(index).read_bytes().decode("latin-1").split("\n")
        stem = Path(self.images[index]["path"]).stem
        if self.name == "yolo":
            return place + 1
        if self.name == "voc":
            return [n for n, text in enumerate(lines, 1) if "<object>" in text][place]
        if self.name == "labelme":
            return [n for n, text in enumerate(lines, 1) if '"label"' in text][place]
        if self.name == "csv":
            return next(n for n, text in enumerate(lines, 1) if f"{stem}." in text)
        if self.name == "imagefolder":
            return 0
        if self.name == "cvat":
            start = next(n for n, text in enumerate(lines, 1) if "<image" in text and f"{stem}." in text)
            return [n for n in range(start + 1, len(lines) + 1) if re.search("<(box|tag)", lines[n - 1])][place]
        entry = next(text for text in lines if '"file_name"' in text and f"{stem}." in text)
        image_id = re.search(r'"id": ?(\d+)', entry)[1]
        return [n for n, text in enumerate(lines, 1) if re.search(rf'"image_id": ?{image_id}\b', text)][place]


def photographs(count: int) -> list[np.ndarray]:
    """Pieces of scikit-learn's two photographs that do not look alike, BGR uint8."""
    from sklearn.datasets import load_sample_images

    from plumbline.image_scan import perceptual_hash

    rng = np.random.default_rng(3)
    whole = [cv2.cvtColor(image, cv2.COLOR_RGB2BGR) for image in load_sample_images().images]
    chosen: list[np.ndarray] = []
    hashes: list[int] = []
    width, height = SIDE_WH
    while len(chosen) < count:
        photo = whole[len(chosen) % 2]
        scale = rng.uniform(1.0, 1.8)
        w, h = int(width * scale), int(height * scale)
        x, y = rng.integers(photo.shape[1] - w), rng.integers(photo.shape[0] - h)
        piece = cv2.resize(photo[y : y + h, x : x + w], SIDE_WH, interpolation=cv2.INTER_AREA)
        piece = cv2.flip(piece, 1) if rng.random() < 0.5 else piece
        bits = perceptual_hash(cv2.cvtColor(piece, cv2.COLOR_BGR2GRAY))
        if all((bits ^ other).bit_count() > 12 for other in hashes):
            chosen.append(piece)
            hashes.append(bits)
    return chosen


def box_row(image_id: int, class_id: int, xyxy) -> dict:
    x1, y1, x2, y2 = (float("nan"),) * 4 if xyxy is None else xyxy
    return {
        "image_id": image_id, "class_id": class_id, "class_name": CLASS_NAMES[class_id],
        "x1": float(x1), "y1": float(y1), "x2": float(x2), "y2": float(y2),
        "difficult": False, "truncated": False, "crowd": False, "polygon": None, "rle": "",
        "source_file": "", "source_line": 0,
    }  # fmt: skip


def make_plant(name: str, folder: Path) -> Plant:
    """Draw the images and clean labels, not yet written as the format."""
    raw = folder / "raw"
    images, boxes = [], []
    for index, photo in enumerate(photographs(NUM_IMAGES)):
        # Enough of each type; most photographs in the wild are JPEG.
        ending = ENDINGS[index % 5] if index < 40 else "jpg"
        path = raw / "images" / f"photo_{index:03d}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), photo)
        scanned = scan_image(path)
        row = dict.fromkeys(IMAGES_SCHEMA.names)
        row |= {"image_id": index, "path": f"images/{path.name}", "sha256": scanned.sha256, "width": scanned.width}
        row |= {"height": scanned.height, "phash": scanned.phash, "group": "", "source": str(path), "split": ""}
        row |= {"readable": True, "problem": "", "damaged": False, "exif_orientation": 1}
        row |= {"brightness": 0.0, "contrast": 0.0, "sharpness": 0.0}
        images.append(row)
        class_id = 5 if index >= NUM_IMAGES - NUM_SCARCE else index % 3
        if name in BOX_FORMATS:
            boxes.append(box_row(index, class_id, (10 + index / 8, 20, 50, 60 + index / 8)))
            boxes.append(box_row(index, (index + 1) % 3, (70, 15.5, 110 + index / 16, 80)))
        else:
            boxes.append(box_row(index, class_id, None))
    return Plant(name, folder / name, images, boxes, free=list(range(NUM_IMAGES - NUM_SCARCE)))


def write(plant: Plant) -> None:
    """Write what there is as the plant's format."""
    boxes = sorted(plant.boxes, key=lambda row: row["image_id"])
    boxes = [{**row, "ann_id": number} for number, row in enumerate(boxes)]
    dataset = Dataset(
        images=table(plant.images, IMAGES_SCHEMA),
        annotations=table(boxes, ANNOTATIONS_SCHEMA),
        findings=table([], FINDINGS_SCHEMA),
        class_names=CLASS_NAMES,
        root=plant.folder.parent / "raw",
    )
    plant.folder.mkdir()
    open_format(plant.name).write(dataset, plant.folder)
    for code, index, place in plant.wanted_boxes:
        plant.add(code, plant.label_file(index), plant.line_of(index, place))
