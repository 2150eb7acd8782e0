"""Faults in the text of labels, format by format, planted without the readers' help: by text and by bytes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from planted_data import CLASS_NAMES, Plant


def bytes_of(plant: Plant, index: int, change: Callable[[bytes], bytes]) -> Path:
    path = plant.label_file(index)
    path.write_bytes(change(path.read_bytes()))
    return path


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


TEXTS: dict[str, Callable[[Plant], None]] = {
    "voc": plant_voc,
    "yolo": plant_yolo,
    "coco": plant_coco,
    "labelme": plant_labelme,
    "cvat": plant_cvat,
    "imagefolder": plant_imagefolder,
    "csv": plant_csv,
}
