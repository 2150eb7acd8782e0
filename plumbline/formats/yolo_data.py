"""What a YOLO data set says of itself: the names of its classes, and which images are for what.

Both stand in data.yaml. LabelImg writes the names alone, to classes.txt beside the labels; Darknet, and CVAT after it,
to obj.names, with lists of images called train.txt, val.txt (or valid.txt) and test.txt. Paths in data.yaml and in
its lists of images are those of the machine that wrote them: they are looked for inside the source, by their end where
they are absolute, and nothing outside of it is ever opened.
"""

from __future__ import annotations

import posixpath
import re
import reprlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from plumbline.errors import DatasetError
from plumbline.faults import MISSING_IMAGE
from plumbline.formats.image_lists import deal, places_of, read_list
from plumbline.formats.image_names import split_of_folder
from plumbline.formats.reading import SPLIT_NAMES, ReadFinding, names_ending

if TYPE_CHECKING:
    from plumbline.sources import Source

_DATA_FILES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
CLASSES_FILE = "classes.txt"


@dataclass(frozen=True)
class YoloData:
    """What data.yaml says, or classes.txt, or obj.names.

    Attributes:
        file: Name of data.yaml in the source; "" where there is none.
        names: Class number -> name; None where there is no list of names.
        path: The folder that the entries are relative to, says the file; "" for its own.
        parts: train, val or test -> (line, folders and lists of images).
    """

    file: str = ""
    names: dict[int, str] | None = None
    path: str = ""
    parts: dict[str, tuple[int, list[str]]] = field(default_factory=dict)

    @property
    def declared_names(self) -> tuple[str, ...]:
        """Return the names in the order of their numbers, each once, without those that are blank."""
        return tuple(dict.fromkeys(name for _, name in sorted((self.names or {}).items()) if name))


def data_file(source: Source) -> str:
    """Return the name of data.yaml, the one nearest to the top, or "".

    Raises:
        DatasetError: There are several, side by side.
    """
    found = [name for name in names_ending(source, (".yaml", ".yml")) if _last(name) in _DATA_FILES]
    if not found:
        return ""
    top = min(name.count("/") for name in found)
    nearest = sorted(
        (name for name in found if name.count("/") == top),
        key=lambda name: _DATA_FILES.index(_last(name)),
    )
    folders = {posixpath.dirname(name) for name in nearest}
    if len(folders) > 1:
        first, second = (source.where(name) for name in nearest[:2])
        raise DatasetError(
            f"{source.address}: more than one data set, expected one data.yaml, got {first} and {second}; "
            "set dataset.source to the folder of one"
        )
    return nearest[0]


def is_class_list(name: str) -> bool:
    """Say whether a file is LabelImg's list of classes.

    >>> is_class_list("photos/Classes.txt"), is_class_list("photos/classes_2.txt")
    (True, False)
    """
    return _last(name) == CLASSES_FILE


def _last(name: str) -> str:
    return posixpath.basename(name).lower()


def read_data(source: Source) -> YoloData:
    """Read data.yaml, or else classes.txt, or else obj.names.

    Raises:
        DatasetError: It cannot be read, or is of keypoints.
    """
    name = data_file(source)
    if not name:
        return YoloData(names=_classes(source))
    values, text = _load(source, name)
    where = source.where(name)
    if "kpt_shape" in values:
        raise DatasetError(f"{where}: expected boxes or polygons, got keypoints (kpt_shape); export the boxes alone")
    parts: dict[str, tuple[int, list[str]]] = {}
    for key, part in SPLIT_NAMES.items():
        if key not in values:
            continue
        entries = values[key] if isinstance(values[key], list) else [values[key]]
        entries = [entry for entry in entries if entry not in (None, "")]
        line = _line(text, key)
        if not all(isinstance(entry, str) for entry in entries):
            raise DatasetError(
                f"{where}:{line}: expected `{key}` as a folder, a list of images, or several, "
                f"got {reprlib.repr(values[key])}; correct it"
            )
        parts[part] = line, [*parts.get(part, (0, []))[1], *entries]
    path = values.get("path")
    names = _names(values.get("names"), where)
    return YoloData(name, _classes(source) if names is None else names, path if isinstance(path, str) else "", parts)


def _load(source: Source, name: str) -> tuple[dict[Any, Any], str]:
    """Return what a YAML file holds, and its text."""
    where = source.where(name)
    try:
        data = source.read(name)
        values = YAML(typ="safe", pure=True).load(data)
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise DatasetError(f"{where}:{line}: not YAML ({error.problem}), expected `names:`; mend the line") from error
    except OSError as error:
        raise DatasetError(f"{where}: cannot be read ({error}); make it readable") from error
    # The parser lets out what its own code stumbles over in YAML that nobody would write.
    except (YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise DatasetError(f"{where}: not YAML ({reason}), expected `names:`; mend it") from error
    return values if isinstance(values, dict) else {}, data.decode("utf-8", "replace")


def _line(text: str, key: str) -> int:
    """Return the 1-based line of a key at the top of a YAML text; 1 where it is written in some other way."""
    found = re.search(rf"""^["']?{key}["']?\s*:""", text, re.MULTILINE)
    return text.count("\n", 0, found.start()) + 1 if found else 1


def _names(names: object, where: str) -> dict[int, str] | None:
    """Return `names` of data.yaml by number.

    Raises:
        DatasetError: It is neither a list nor a mapping of numbers.
    """
    if names is None:
        return None
    pairs = enumerate(names) if isinstance(names, list) else names.items() if isinstance(names, dict) else None
    try:
        return {int(key): str(name).strip() for key, name in pairs or [("", "")]}
    except (ValueError, TypeError, OverflowError, RecursionError):
        got = reprlib.repr(names)
        raise DatasetError(
            f"{where}: expected `names` as a list, or a mapping of number to name, got {got}; correct it"
        ) from None


def _classes(source: Source) -> dict[int, str] | None:
    """Return the lines of classes.txt, or else obj.names, by number.

    LabelImg writes one to each folder of labels, and they must agree.

    Raises:
        DatasetError: One cannot be read, or two of them disagree.
    """
    found: dict[int, tuple[str, str]] = {}
    files = list(filter(is_class_list, names_ending(source, (".txt",)))) or names_ending(source, (".names",))
    for file in files:
        where = source.where(file)
        try:
            lines = source.read(file).decode("utf-8-sig").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise DatasetError(f"{where}: not UTF-8 ({error}), expected one class per line; save it so") from error
        for index, line in enumerate(lines):
            name, other = line.strip(), found.get(index)
            if name and other is not None and other[0] != name:
                raise DatasetError(
                    f"{where}:{index + 1}: expected class {other[0]!r} as in {other[1]}, got {name!r}; "
                    "read the folders one by one, or give them one list of classes"
                )
            if name and other is None:
                found[index] = name, where
    return {index: name for index, (name, _) in found.items()} if files else None


def read_splits(source: Source, data: YoloData, images: Collection[str], findings: list[ReadFinding]) -> dict[str, str]:
    """Return image -> train, val or test, as data.yaml says, or else lists, or folders (``images/train``).

    Args:
        source: Where lists of images are.
        data: What data.yaml says.
        images: Names of all images.
        findings: Added to: entries and lines that lead to no image.
    """
    known = set(images)
    if not data.parts:
        parts = _lists(source, known, findings)
        if parts:
            return deal(parts, source.where, findings)
        return {image: split for image in images if (split := split_of_folder(image))}
    texts = set(names_ending(source, (".txt",)))
    folders = {"", "."} | {above for image in images for above in _folders(image)}
    own = posixpath.dirname(data.file)
    bases = list(dict.fromkeys([posixpath.join(own, data.path), own]))
    parts = {}
    for part, (line, entries) in data.parts.items():
        parts[part] = []
        for entry in entries:
            found = _entry(source, entry, bases, (known, texts, folders), findings)
            if found is None:
                message = f"`{entry[:200]}` leads to no image for {part}; add the images, or correct the entry"
                findings.append(ReadFinding(source.where(data.file), line, MISSING_IMAGE, message))
            parts[part] += found or []
    return deal(parts, source.where, findings)


def _lists(source: Source, images: Collection[str], findings: list[ReadFinding]) -> dict[str, list[str]]:
    """Return the images of each part as train.txt, val.txt and test.txt say.

    One that names none is no list, and neither is one that does not stand in a folder around all images.
    """
    parts: dict[str, list[str]] = {}
    for name in names_ending(source, (".txt",)):
        part = SPLIT_NAMES.get(_last(name).removesuffix(".txt"))
        folder = posixpath.dirname(name)
        if part is None or not all(image.startswith(posixpath.join(folder, "")) for image in images):
            continue
        told: list[ReadFinding] = []
        bases = list(dict.fromkeys([folder, ""]))
        found = read_list(source, name, partial(_image, bases=bases, images=images), told)
        if found:
            parts.setdefault(part, []).extend(found)
            findings.extend(told)
    return parts


def _entry(
    source: Source, entry: str, bases: list[str], names: tuple[set[str], ...], findings: list[ReadFinding]
) -> list[str] | None:
    """Return the images of one entry of data.yaml: a folder, a list of images, or an image; None for none of them."""
    images, texts, folders = names
    for place in places_of(entry, bases):
        if place in texts:
            beside = list(dict.fromkeys([posixpath.dirname(place), *bases]))
            return read_list(source, place, partial(_image, bases=beside, images=images), findings)
        if place in images:
            return [place]
        if place in folders:
            return [image for image in images if place in {"", "."} or image.startswith(f"{place}/")]
    return None


def _folders(name: str) -> Iterator[str]:
    """Yield the folders above a file.

    >>> list(_folders("a/b/c.jpg"))
    ['a', 'a/b']
    """
    parts = name.split("/")
    return ("/".join(parts[:depth]) for depth in range(1, len(parts)))


def _image(line: str, bases: list[str], images: Collection[str]) -> str:
    """Return the image that a line of a list means, or ""."""
    places = (posixpath.join(base, place) for place in places_of(line, bases) for base in ("", *bases))
    return next((place for place in places if place in images), "")
