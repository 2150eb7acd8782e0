"""A data set from real photographs in any format, and every fault that can be planted into it, with where it is.

The clean set is made by the format's own `write`; boxes that are wrong are written so, everything else is planted into
the files afterwards, by text and by bytes, without the readers' help.
"""

from __future__ import annotations

import re
import shutil
import struct
from collections.abc import Callable
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


# Boxes that are wrong: code, and the boxes to add (the last one is the one that is found).
BAD_BOXES: tuple[tuple[str, tuple[tuple[int, tuple[float, ...]], ...]], ...] = (
    ("E301", ((0, (120, 20, 120, 60)),)),
    ("E301", ((0, (120, 20, 150, 20)),)),
    ("E301", ((0, (120, 20, 120, 20)),)),
    ("E302", ((0, (150, 20, 120, 60)),)),
    ("E302", ((0, (120, 60, 150, 20)),)),
    ("E302", ((0, (150, 60, 120, 20)),)),
    ("E303", ((0, (-8, 90, 20, 110)),)),
    ("E303", ((0, (120, -6, 150, 14)),)),
    ("E303", ((0, (130, 20, 168, 60)),)),
    ("E303", ((0, (120, 90, 150, 125)),)),
    ("E303", ((0, (200, 200, 250, 260)),)),
    ("E304", ((0, (120, 20, 121.5, 50)),)),
    ("E304", ((0, (120, 90, 150, 91)),)),
    ("E305", ((0, (0, 0, 160, 119)),)),
    ("E306", ((0, (5, 90, 155, 94)),)),
    ("E306", ((0, (120, 2, 123.5, 118)),)),
    ("E307", ((1, (120, 20, 150, 60)), (1, (120, 20, 150, 60)))),
    ("E308", ((1, (115, 20, 155, 60)), (1, (115.5, 20, 155, 60)))),
    ("E309", ((1, (115, 20, 155, 60)), (2, (115, 20, 155, 60)))),
)


def plant_boxes(plant: Plant) -> None:
    for code, boxes in BAD_BOXES:
        if code == "E302" and plant.name == "labelme":
            continue  # labelme's rectangle is two opposite corners in any order: none is reversed
        index = plant.take()
        place = [plant.box(index, xyxy, class_id) for class_id, xyxy in boxes][-1]
        plant.wanted_boxes.append((code, index, place))


def plant_sizes(plant: Plant) -> list[tuple[str, int]]:
    """Let labels say another size than the image's; returns what was planted, to be located when written."""
    wanted = []
    for width, height in ((161, 120), (320, 240)):
        index = plant.take()
        plant.images[index] |= {"width": width, "height": height}
        wanted.append(("E104", index))
    for _ in range(2):
        index = plant.take()
        wanted.append(("E103", index))
    return wanted


def with_exif_orientation(jpeg: bytes, orientation: int) -> bytes:
    """Put an Exif segment behind a JPEG's first marker."""
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    tiff = b"II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 0)
    body = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def cut(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3]


def zeroed(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(200) + data[middle + 200 :]


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0x10]) + data[middle + 1 :]


BAD_IMAGES: tuple[tuple[str, str, Callable[[bytes], bytes]], ...] = (
    ("E101", "jpg", lambda data: b"this is no image, whatever its name says"),
    ("E101", "png", lambda data: b""),
    ("E101", "tif", lambda data: b"GIF89a" + data),
    ("E102", "jpg", cut),
    ("E102", "jpg", zeroed),
    ("E102", "jpg", lambda data: cut(data) + b"\xff\xd9"),
    ("E102", "png", cut),
    ("E102", "png", flipped),
    ("E102", "webp", cut),
    ("E102", "bmp", cut),
    ("E102", "tif", cut),
)


def plant_images(plant: Plant) -> None:
    for code, ending, spoil in BAD_IMAGES:
        index = plant.take(ending)
        path = plant.image_file(index)
        path.write_bytes(spoil(path.read_bytes()))
        plant.add(code, path)
        if plant.name == "yolo":
            # Its rows are fractions of a size that nobody knows now.
            plant.add(code, plant.label_file(index))


def plant_files(plant: Plant) -> None:
    """Faults of files beside the labels."""
    moving = plant.folder / "moving.gif"
    moving.write_bytes(b"GIF89a\x01\0\x01\0\0\0\0;")
    plant.add("E112", moving)
    bad = plant.folder / "bad\x07name.jpg"
    shutil.copy(plant.image_file(0), bad)
    plant.add("E114", plant.folder)


def rename(plant: Plant, index: int, name: str) -> Path:
    """Give an image another name, in its label too."""
    path = plant.image_file(index)
    label = plant.label_file(index)
    old_stem, new_stem = path.stem, Path(name).stem
    target = path.with_name(name)
    path.rename(target)
    if plant.name in {"voc", "yolo", "labelme"}:
        text = label.read_text().replace(path.name, name)
        label.unlink()
        label.with_name(label.name.replace(old_stem, new_stem)).write_text(text)
    elif plant.name != "imagefolder":
        label.write_text(label.read_text().replace(path.name, name))
    plant.images[index] |= {"path": f"images/{name}"}
    return target


def bytes_of(plant: Plant, index: int, change: Callable[[bytes], bytes]) -> Path:
    path = plant.label_file(index)
    path.write_bytes(change(path.read_bytes()))
    return path


def plant_copies(plant: Plant, pairs: dict[str, tuple[int, int]]) -> None:
    """Bytes and looks that come twice; names that collide."""
    for code, (first, second) in pairs.items():
        plant.image_file(second).write_bytes(plant.image_file(first).read_bytes())
        renamed = rename(plant, first, f"{code}.jpg"), rename(plant, second, f"{code}_again.jpg")
        plant.add(code, max(renamed))
    first, second = plant.take(), plant.take()
    photo = cv2.imread(str(plant.image_file(first)))
    assert cv2.imwrite(str(plant.image_file(second)), cv2.convertScaleAbs(photo, alpha=0.97, beta=4))
    plant.add("E109", plant.image_file(first))
    plant.add("E109", plant.image_file(second))
    plant.add("E110", rename(plant, plant.take(), "aux.jpg"))
    plant.add("E110", rename(plant, plant.take(), "what?.jpg"))
    # Photographs three apart have one class, so that they stand in one folder in every format.
    first = next(i for i in plant.free if i + 3 in plant.free and i >= 40)
    for index, name in ((first, "Twice.jpg"), (first + 3, "twice.jpg")):
        plant.free.remove(index)
        renamed = rename(plant, index, name)
    plant.add("E110", renamed)


def plant_sized(plant: Plant, wanted: list[tuple[str, int]]) -> None:
    """Find what `plant_sizes` planted, and turn the images whose label does not know it."""
    for code, index in wanted:
        if code == "E103":
            path = plant.image_file(index)
            path.write_bytes(with_exif_orientation(path.read_bytes(), 6))
        plant.add(code, plant.label_file(index), size_line(plant, index))


def size_line(plant: Plant, index: int) -> int:
    lines = plant.label_file(index).read_text().split("\n")
    stem = Path(plant.images[index]["path"]).stem
    wanted = {
        "voc": "<size>",
        "labelme": "imageWidth",
        "coco": f"{stem}.",
        "cvat": f"{stem}.",
    }[plant.name]
    return next(n for n, text in enumerate(lines, 1) if wanted in text) if wanted else 0


def add_line(text: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data.rstrip(b"\n") + b"\n" + text + b"\n"


def plant_yolo(plant: Plant) -> None:
    data_yaml = plant.folder / "data.yaml"
    data_yaml.write_text(data_yaml.read_text().rstrip("\n") + '\n  6: "zebra"\n')
    for code, row in (
        ("E202", b"0 0.5 0.5 0.1"),
        ("E202", b"0 0.5 half 0.1 0.1"),
        ("E202", b"0 0.1 0.1 0.2 0.2 0.3"),
        ("E202", b"0.5 0.5 0.5 0.1 0.1"),
        ("E205", b"0 nan 0.5 0.1 0.1"),
        ("E205", b"0 0.5 0.5 inf 0.1"),
        ("E206", b"6 0.8 0.5 0.1 0.1"),
        ("E207", b"7 0.8 0.5 0.1 0.1"),
        ("E207", b"-1 0.8 0.5 0.1 0.1"),
    ):
        plant.add(code, bytes_of(plant, plant.take(), add_line(row)), 3)
    path = bytes_of(plant, plant.take(), add_line(b"0 0.8 0.5 0.1 0.1 \xe9"))
    plant.add("E203", path, 3)
    plant.add("E202", path, 3)
    plant.add("E204", bytes_of(plant, plant.take(), lambda data: b"\xef\xbb\xbf" + data), 1)
    lonely = plant.folder / "labels" / "lonely.txt"
    lonely.write_text("0 0.5 0.5 0.1 0.1\n")
    plant.add("E105", lonely)
    index = plant.take()
    second = plant.image_file(index).with_suffix(".txt")
    second.write_bytes(plant.label_file(index).read_bytes())
    plant.add("E208", second)
    plant_missing_label(plant)
    plant_two_splits(plant, lambda path: f"images/{path.name}")
    text = data_yaml.read_text().replace("train: []", "train: train.txt").replace("val: []", "val: val.txt")
    data_yaml.write_text(text)


def plant_voc(plant: Plant) -> None:
    for code, old, new in (
        ("E202", b"<xmin>70</xmin>", b"<xmin>seventy</xmin>"),
        ("E202", b"<xmin>70</xmin>", b""),
        ("E205", b"<xmin>70</xmin>", b"<xmin>nan</xmin>"),
    ):
        index = plant.take()
        path = bytes_of(plant, index, lambda data, old=old, new=new: data.replace(old, new))
        plant.add(code, path, plant.line_of(index, 1))
    index = plant.take()
    path = bytes_of(plant, index, lambda data: data.replace(b"<name>", b"<name>z", 1))
    plant.add("E206", path, plant.line_of(index, 0))
    path = bytes_of(plant, plant.take(), lambda data: data[: len(data) // 2])
    plant.add("E201", path, path.read_text().count("\n") + 1)
    plant.add("E201", bytes_of(plant, plant.take(), lambda data: b"no XML at all"), 1)
    plant.add("E203", bytes_of(plant, plant.take(), lambda data: data.replace(b"<folder>", b"<folder>\xe9", 1)), 2)
    plant.add("E204", bytes_of(plant, plant.take(), lambda data: b"\xef\xbb\xbf" + data), 1)
    index = plant.take()
    label = plant.label_file(index)
    second = label.with_name("zz_second.xml")
    second.write_bytes(label.read_bytes())
    plant.add("E208", second)
    plant_lonely(plant)
    plant_missing_label(plant)
    plant_two_splits(plant, lambda path: path.stem)


def plant_two_splits(plant: Plant, entry: Callable[[Path], str]) -> None:
    """Lists of the data set's own that name one image twice."""
    path = plant.image_file(plant.take())
    plant.add("E210", path)
    for name in ("train", "val"):
        target = plant.folder / ("ImageSets/Main" if plant.name == "voc" else ".") / f"{name}.txt"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(entry(path) + "\n")


def plant_lonely(plant: Plant) -> None:
    """A label whose image is gone."""
    index = plant.take()
    plant.image_file(index).unlink()
    plant.add("E105", plant.label_file(index))


def plant_missing_label(plant: Plant) -> None:
    index = plant.take()
    plant.label_file(index).unlink()
    plant.add("E106", plant.image_file(index))


def plant_tiny(plant: Plant) -> int:
    """Make an image too small to train on, with nothing on it."""
    index = plant.take("png")
    raw = Path(plant.images[index]["source"])
    assert cv2.imwrite(str(raw), np.full((9, 160, 3), 7, np.uint8))
    plant.images[index] |= {"width": 160, "height": 9}
    if plant.name in BOX_FORMATS:
        plant.boxes = [row for row in plant.boxes if row["image_id"] != index]
    return index


def plant_pairs(plant: Plant) -> dict[str, tuple[int, int]]:
    """Choose two pairs of images that will have the same bytes, the one with the same labels, the other not."""
    pairs = {code: (plant.take(), plant.take()) for code in ("E107", "E108")}
    first, second = pairs["E107"]
    plant.boxes = [row for row in plant.boxes if row["image_id"] != second]
    plant.boxes += [{**row, "image_id": second} for row in plant.rows_of(first)]
    first, second = pairs["E108"]
    for row in plant.rows_of(second):
        row["class_id"] = (plant.rows_of(first)[0]["class_id"] + 1) % 3
        row["class_name"] = CLASS_NAMES[row["class_id"]]
    return pairs


def change_line(plant: Plant, index: int, place: int, old: str, new: str) -> tuple[Path, int]:
    """Replace text on the line of an image's n-th label."""
    path, line = plant.label_file(index), plant.line_of(index, place)
    lines = path.read_text().split("\n")
    changed = re.sub(old, new, lines[line - 1], count=1)
    assert changed != lines[line - 1], (old, lines[line - 1])
    lines[line - 1] = changed
    path.write_text("\n".join(lines))
    return path, line


def insert_line(path: Path, before: str, text: str) -> int:
    """Insert a line before the first one that holds a text; return where it stands now."""
    lines = path.read_text().split("\n")
    at = next(n for n, line in enumerate(lines) if before in line)
    lines.insert(at, text)
    path.write_text("\n".join(lines))
    return at + 1


def plant_labelme(plant: Plant) -> None:
    for code, old, new in (
        ("E202", '"label": "[a-z]+"', '"label": 7.5'),
        ("E202", r"\[\[70, 15.5\], ", "["),
        ("E202", "70", '"seventy"'),
        ("E205", "70", "NaN"),
        ("E205", "70", "Infinity"),
        ("E206", '"label": "[a-z]+"', '"label": "zebra"'),
        ("E209", '"rectangle"', '"point"'),
        ("E209", '"rectangle"', '"linestrip"'),
    ):
        plant.add(code, *change_line(plant, plant.take(), 1, old, new))
    plant.add("E201", bytes_of(plant, plant.take(), lambda data: b'{"shapes": [\n{"label": "cat",\n'), 3)
    plant.add("E203", bytes_of(plant, plant.take(), lambda data: data.replace(b'"5.0.0"', b'"5.0.\xe9"')), 2)
    plant.add("E204", bytes_of(plant, plant.take(), lambda data: b"\xef\xbb\xbf" + data), 1)
    index = plant.take()
    label = plant.label_file(index)
    second = label.with_name("zz_second.json")
    second.write_bytes(label.read_bytes())
    line = next(n for n, text in enumerate(label.read_text().split("\n"), 1) if '"imagePath"' in text)
    plant.add("E208", second, line)
    index = plant.take()
    plant.image_file(index).unlink()
    plant.add("E105", plant.label_file(index), line)
    plant_missing_label(plant)


def plant_coco(plant: Plant) -> None:
    for code, old, new in (
        ("E202", r'"bbox": \[70', '"bbox": ["seventy"'),
        ("E202", r'"bbox": \[70, ', '"bbox": ['),
        ("E202", '"bbox"', '"box"'),
        ("E205", r'"bbox": \[70', '"bbox": [NaN'),
        ("E205", r'"bbox": \[70', '"bbox": [1e999'),
        ("E207", r'"category_id": ?\d+', '"category_id": 77'),
    ):
        plant.add(code, *change_line(plant, plant.take(), 1, old, new))
    path = plant.label_file(0)
    line = insert_line(path, '"id": 1,', '{"id": 901, "file_name": "gone.jpg", "width": 160, "height": 120},')
    shift(plant, path, line)
    plant.add("E105", path, line)
    name = plant.image_file(plant.take()).name
    line = insert_line(path, "],", f',{{"id": 902, "file_name": "{name}", "width": 160, "height": 120}}')
    shift(plant, path, line)
    plant.add("E208", path, line)
    index = plant.take()
    path, line = change_line(plant, index, 1, '"category_id": ?[0-9]+', '"category_id": 78')
    plant.add("E206", path, line)
    line = insert_line(path, '"categories"', "")
    text = path.read_text()
    at = text.index("[", text.index('"categories"')) + 1
    path.write_text(text[:at] + '{"id": 78, "name": "zebra"},' + text[at:])
    plant.found = [(code, file, n + (file == plant.where(path) and n >= line > 0)) for code, file, n in plant.found]
    unlabelled = plant.folder / "images" / "unlabelled.jpg"
    assert cv2.imwrite(str(unlabelled), np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8))
    plant.add("E106", unlabelled)
    broken = plant.folder / "annotations" / "instances_broken.json"
    broken.write_text('{"images": [],\n"annotations": [\n')
    plant.add("E201", broken, 3)
    empty = '"images": [], "annotations": [], "categories": []}'
    marked = plant.folder / "annotations" / "instances_marked.json"
    marked.write_bytes(b"\xef\xbb\xbf{" + empty.encode())
    plant.add("E204", marked, 1)
    latin = plant.folder / "annotations" / "instances_latin.json"
    latin.write_bytes(b'{"info": "\xe9",\n' + empty.encode())
    plant.add("E203", latin, 1)


def shift(plant: Plant, path: Path, line: int) -> None:
    """Move what was planted below a line that was inserted."""
    where = plant.where(path)
    plant.found = [(code, file, n + (file == where and n >= line)) for code, file, n in plant.found]


def plant_cvat(plant: Plant) -> None:
    for code, old, new in (
        ("E202", ' xtl="70"', ' xtl="seventy"'),
        ("E202", ' xtl="70"', ""),
        ("E205", ' xtl="70"', ' xtl="nan"'),
        ("E206", ' label="[a-z]+"', ' label="zebra"'),
        ("E209", ' occluded="0"', ' occluded="0" rotation="30"'),
        ("E209", r"<box (.*)></box>", r'<box \1><!-- --></box><ellipse label="cat" cx="9" cy="9" rx="2" ry="3"/>'),
    ):
        plant.add(code, *change_line(plant, plant.take(), 1, old, new))
    path = plant.label_file(0)
    line = insert_line(path, '<image id="0"', '<image id="901" name="gone.jpg" width="160" height="120"></image>')
    shift(plant, path, line)
    plant.add("E105", path, line)
    name = plant.image_file(plant.take()).name
    line = insert_line(path, "</annotations>", f'<image id="902" name="{name}" width="160" height="120"></image>')
    plant.add("E208", path, line)
    unlabelled = plant.folder / "images" / "unlabelled.jpg"
    assert cv2.imwrite(str(unlabelled), np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8))
    plant.add("E106", unlabelled)
    head = "<annotations><version>1.1</version>"
    broken = plant.folder / "broken.xml"
    broken.write_text(f"{head}\n<image id='0' name='a.jpg'\n")
    plant.add("E201", broken, 2)
    marked = plant.folder / "marked.xml"
    marked.write_bytes(b"\xef\xbb\xbf" + head.encode() + b"</annotations>")
    plant.add("E204", marked, 1)
    latin = plant.folder / "latin.xml"
    latin.write_bytes(head.encode() + b"\n<meta>\xe9</meta></annotations>")
    plant.add("E203", latin, 2)


def plant_csv(plant: Plant) -> None:
    path = plant.label_file(0)
    for code, old, new in (
        ("E202", ",[a-z]+,", ",,"),
        ("E202", ",[a-z]+,", ""),
        ("E206", ",[a-z]+,", ",zebra,"),
    ):
        plant.add(code, *change_line(plant, plant.take(), 0, old, new))
    count = path.read_text().rstrip("\n").count("\n") + 1
    first, second = plant.image_file(plant.take()).name, plant.image_file(plant.take()).name
    rows = path.read_text().split("\n")
    class_name = next(row for row in rows if first in row).split(",")[1]
    other = next(name for name in CLASS_NAMES[:3] if name not in next(row for row in rows if second in row))
    with path.open("a") as file:
        file.write(f"images/gone.jpg,cat,\nimages/{first},{class_name},\nimages/{second},{other},\n")
    plant.add("E105", path, count + 1)
    plant.add("E208", path, count + 2)
    plant.add("E309", path, count + 3)
    unlabelled = plant.folder / "images" / "unlabelled.jpg"
    assert cv2.imwrite(str(unlabelled), np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8))
    plant.add("E106", unlabelled)
    marked = plant.folder / "marked.csv"
    marked.write_bytes(b"\xef\xbb\xbfimage,class\n")
    plant.add("E204", marked, 1)
    latin = plant.folder / "latin.csv"
    latin.write_bytes(b"image,class,note\n,,\xe9\n")
    plant.add("E203", latin, 2)
    plant.add("E202", latin, 2)


def plant_imagefolder(plant: Plant) -> None:
    stray = plant.image_file(plant.take())
    target = plant.folder / stray.name
    stray.rename(target)
    plant.add("E106", target)
    zebra = plant.image_file(plant.take())
    target = plant.folder / "zebra" / zebra.name
    target.parent.mkdir()
    zebra.rename(target)
    plant.add("E206", target)


def make_planted(name: str, folder: Path) -> Plant:
    """Make the data set with every fault of the format."""
    plant = make_plant(name, folder)
    # A class of one label, one of none, and (in `make_plant`) one of a few.
    rare = plant.take()
    plant.boxes = [row for row in plant.boxes if row["image_id"] != rare]
    plant.boxes.append(box_row(rare, 3, (120, 90, 150, 110) if name in BOX_FORMATS else None))
    plant.found += [(code, "params.yaml", 0) for code in ("E401", "E402", "E403")]
    if name in BOX_FORMATS:
        plant_boxes(plant)
    wanted = plant_sizes(plant) if name in SIZED else []
    pairs, tiny = plant_pairs(plant), plant_tiny(plant)
    write(plant)
    plant.add("E111", plant.image_file(tiny))
    plant_sized(plant, wanted)
    plant_images(plant)
    plant_copies(plant, pairs)
    plant_files(plant)
    TEXTS[name](plant)
    return plant


TEXTS: dict[str, Callable[[Plant], None]] = {
    "voc": plant_voc,
    "yolo": plant_yolo,
    "coco": plant_coco,
    "labelme": plant_labelme,
    "cvat": plant_cvat,
    "imagefolder": plant_imagefolder,
    "csv": plant_csv,
}
