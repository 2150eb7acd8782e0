"""Every fault that can be planted into a data set of any format: wrong boxes, bad images, names, copies.

The clean set is made by the format's own `write`; boxes that are wrong are written so, everything else is planted into
the files afterwards, without the readers' help.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from planted_data import BOX_FORMATS, CLASS_NAMES, SIZED, Plant, box_row, make_plant, write
from planted_labels import TEXTS

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
