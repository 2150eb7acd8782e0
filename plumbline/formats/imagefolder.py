"""ImageFolder: one folder per class, ``cat/a.jpg``, or per split and class, ``train/cat/a.jpg``.

**Splits.** A folder at the top that is called train, val, valid, validation or test is a split, and never a class. An
image that stands directly in it has no label.

**Classes.** Any other folder at the top, or below a split, is a class. Folders below it belong to it. An image that
stands in none has no label.

**A folder around it all**, as archives have one, counts for nothing: one folder at the top, with no image directly in
it, that is no split.

A label has no file and no line of its own: `source_file` is the image.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from plumbline.formats.reading import (
    SPLIT_NAMES,
    LabelRow,
    MalformedError,
    ReadResult,
    list_images,
    missing_labels,
    names_ending,
    to_class_id,
    to_number,
)
from plumbline.formats.writing import ImageEntry, Losses, boxes_by_image, inside, place_images
from plumbline.image_scan import ImageScan
from plumbline.manifest import Dataset

if TYPE_CHECKING:
    from plumbline.sources import Source

LAYOUT = "images in folders of two or more classes, or in train/, val/, test/ and such folders below; no label files"

# Folders that people keep images, or another format's files, in; when read, they are classes like any other.
_NOT_CLASS_LIKE = {
    *("annotations", "data", "image", "images", "img", "imgs", "jpegimages", "labels", "mask", "masks", "photos"),
    *("segmentationclass", "segmentationobject"),
}
_LABEL_SUFFIXES = (".csv", ".json", ".tsv", ".xml")
_DATA_FILES = {"data.yaml", "data.yml", "dataset.yaml", "dataset.yml"}
_TEXTS_LOOKED_AT = 20
_HOLDS = frozenset({"whole_image", "negatives", "split", "polygon", "rle", "crowd", "difficult", "truncated"})


def sniff(source: Source) -> bool:
    """Say whether images stand in at least two folders that can be classes, and no file is another format's label."""
    images = list_images(source)
    if any(source.group(image) for image in images):  # frames: the folder is the video's
        return False
    classes = {class_name for _, class_name in _places(images).values()} - {""}
    if len(classes) < 2 or any(name.lower() in _NOT_CLASS_LIKE for name in classes):
        return False
    return not _has_label_files(source, images)


def find_images(source: Source) -> list[str]:
    """Return every image."""
    return list_images(source)


def read(source: Source, class_names: tuple[str, ...], scans: Mapping[str, ImageScan]) -> ReadResult:
    """Read the classes off the folders; see `plumbline.formats.Format.read`."""
    places = _places(scans)
    rows = [
        LabelRow(image, to_class_id(class_name, class_names), class_name, None, source.where(image), 0)
        for image, (_, class_name) in places.items()
        if class_name
    ]
    labelled = {row.image for row in rows}
    return ReadResult(
        rows=rows,
        findings=missing_labels(source, places, labelled, "a folder of its class around it"),
        splits={image: split for image, (split, _) in places.items() if split},
        declared_names=tuple(sorted({row.class_name for row in rows})),
    )


def write(dataset: Dataset, folder: Path) -> list[str]:
    """Write class folders, in split folders where a split is set; see `plumbline.formats.Format.write`.

    An image keeps its name where it already stands in its class' folder; else it goes directly into it. One without a
    class goes to the top, or directly into its split's folder.
    """
    losses = Losses(dataset, "ImageFolder", _HOLDS)
    labels: list[tuple[ImageEntry, str]] = []
    for entry, rows in boxes_by_image(dataset):
        inside(folder, entry.name)  # a name that leads elsewhere is refused, though only its end would be used
        names = [row.class_name for row in rows if row.xyxy is None]
        labels.append((entry, names[0] if names else ""))
        losses.add("further classes of an image left out", max(len(names) - 1, 0))
    folders = _class_folders({name for _, name in labels if name})
    renamed = sum(folders.get(name, "") != name for _, name in labels)
    losses.add("images whose class is spelled otherwise, for it cannot be a folder's name", renamed)
    places = _targets({entry.name: (entry.split, folders.get(name, "")) for entry, name in labels})
    place_images(dataset, folder, places.__getitem__)
    return losses.sentences()


def _places(images: Collection[str]) -> dict[str, tuple[str, str]]:
    """Return image -> (split, class), "" for none, sorted by image.

    >>> _places(["train/cat/a.jpg", "valid/cat/deep/b.jpg", "test/c.jpg"])
    {'test/c.jpg': ('test', ''), 'train/cat/a.jpg': ('train', 'cat'), 'valid/cat/deep/b.jpg': ('val', 'cat')}
    >>> _places(["pets/cat/a.jpg", "pets/dog/a.jpg"])
    {'pets/cat/a.jpg': ('', 'cat'), 'pets/dog/a.jpg': ('', 'dog')}
    """
    folders = {image: PurePosixPath(image).parts[:-1] for image in sorted(images)}
    while _is_wrapped(folders.values()):
        folders = {image: parts[1:] for image, parts in folders.items()}
    found = {}
    for image, parts in folders.items():
        split = SPLIT_NAMES.get(parts[0].lower(), "") if parts else ""
        inside = parts[1:] if split else parts
        found[image] = (split, inside[0] if inside else "")
    return found


def _is_wrapped(folders: Collection[tuple[str, ...]]) -> bool:
    """Say whether one folder that is neither class nor split is around all images."""
    tops = {parts[0] for parts in folders if parts}
    return (
        len(tops) == 1
        and all(len(parts) > 1 for parts in folders)
        and not SPLIT_NAMES.keys() & {top.lower() for top in tops}
    )


def _has_label_files(source: Source, images: Collection[str]) -> bool:
    if names_ending(source, _LABEL_SUFFIXES):
        return True
    if any(PurePosixPath(name).name.lower() in _DATA_FILES for name in source.files()):
        return True
    texts = [PurePosixPath(name) for name in names_ending(source, (".txt",))]
    stems = {str(PurePosixPath(image).with_suffix("")) for image in images}
    if any("labels" in text.parts[:-1] or str(text.with_suffix("")) in stems for text in texts):
        return True
    return any(_begins_with_a_row(source, str(text)) for text in texts[:_TEXTS_LOOKED_AT])


def _begins_with_a_row(source: Source, text: str) -> bool:
    try:
        words = source.read(text).split(b"\n", 1)[0].decode("latin-1").split()
        return len([to_number(word) for word in words]) >= 5
    except (OSError, MalformedError):
        return False


def _class_folders(class_names: set[str]) -> dict[str, str]:
    """Return class -> a folder's name that is read as it: the same wherever it can be.

    >>> _class_folders({"cat", "a/b", "train"})
    {'a/b': 'a_b', 'cat': 'cat', 'train': 'train_'}
    """
    taken = {name for name in class_names if _is_folder_name(name)}
    found = {}
    for name in sorted(class_names):
        folder = name
        if name not in taken:
            folder = "".join(c if c.isprintable() and c not in "/\\" else "_" for c in name).lstrip(".") or "_"
            while folder in taken or not _is_folder_name(folder):
                folder += "_"
            taken.add(folder)
        found[name] = folder
    return found


def _is_folder_name(name: str) -> bool:
    hidden = name.startswith((".", "__MACOSX"))
    return name.isprintable() and not set(name) & set("/\\") and not hidden and name.lower() not in SPLIT_NAMES


def _targets(labels: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """Return where each image goes, by its name.

    Args:
        labels: Name of the image -> its split and its class' folder, "" for none.

    >>> _targets({"cat/deep/a.jpg": ("", "cat"), "x/b.jpg": ("val", "cat"), "x/c.jpg": ("", ""), "y/c.jpg": ("", "")})
    {'cat/deep/a.jpg': 'cat/deep/a.jpg', 'x/b.jpg': 'val/cat/b.jpg', 'x/c.jpg': 'x_c.jpg', 'y/c.jpg': 'y_c.jpg'}
    """
    around = {name: PurePosixPath(split, folder) for name, (split, folder) in labels.items()}
    places = {name: str(folder / PurePosixPath(name).name) for name, folder in around.items()}
    # All in folders below one class, and none directly in it, would be read as a folder around it all.
    if not _is_wrapped([PurePosixPath(name).parts[:-1] for name in labels]):
        deep = [name for name, (_, folder) in labels.items() if folder and name.startswith(f"{around[name]}/")]
        places.update({name: name for name in deep})
    count = Counter(places.values())
    return {
        name: place if count[place] == 1 else str(around[name] / name.replace("/", "_"))
        for name, place in places.items()
    }
