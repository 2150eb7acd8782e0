"""Which image a label means by the name that it writes, which split that name tells, and whether the sizes agree."""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import islice

from plumbline.faults import EXIF_CONTRADICTS_LABEL, SIZE_MISMATCH
from plumbline.formats.reading import SPLIT_NAMES, ReadFinding
from plumbline.image_scan import IMAGE_SUFFIXES, ImageScan

# What may stand beside the split in a label file's name: "instances_train2017", "_annotations.coco", "train_labels".
_LABEL_WORDS = {"annotation", "annotations", "bbox", "coco", "cvat", "data", "dataset", "instances", "labels"}
IMAGE_FOLDERS = ("images", "Images", "JPEGImages")
_LABEL_FOLDERS = {"annotation", "annotations", "json", "jsons", "label", "labels", "xml", "xmls"}


def split_of_folder(name: str) -> str:
    """Return the split that the folders of a file tell, the innermost first, or "".

    >>> split_of_folder("a/valid/b.jpg"), split_of_folder("images/train2017/b.jpg"), split_of_folder("train.jpg")
    ('val', 'train', '')
    """
    for folder in reversed(name.split("/")[:-1]):
        words = re.findall("[a-z]+", folder.lower())
        if len(words) == 1 and words[0] in SPLIT_NAMES:
            return SPLIT_NAMES[words[0]]
    return ""


def split_of_label(name: str) -> str:
    """Return the split that the name of a label file tells, or else its folders, or "".

    >>> split_of_label("annotations/instances_train2017.json"), split_of_label("valid/_annotations.coco.json")
    ('train', 'val')
    >>> split_of_label("train_station.json")  # a picture of trains
    ''
    """
    words = re.findall("[a-z]+", posixpath.splitext(posixpath.basename(name))[0].lower())
    splits = [SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES]
    if len(splits) == 1 and _LABEL_WORDS.issuperset(word for word in words if word not in SPLIT_NAMES):
        return splits[0]
    return split_of_folder(name)


def has_suffix(name: str) -> bool:
    """Say whether a name ends as an image's.

    >>> has_suffix("a/b.JPG"), has_suffix("frame_000001"), has_suffix("v1.2")
    (True, False, False)
    """
    return name.lower().endswith(IMAGE_SUFFIXES)


def _alike(name: str) -> str:
    r"""Return a name with its suffix in small letters, and accents as Windows and Linux write them, not macOS.

    >>> _alike("A/B.JPG"), _alike("e\u0301.png") == "\xe9.png"
    ('A/B.jpg', True)
    """
    stem, suffix = posixpath.splitext(name)
    return unicodedata.normalize("NFC", stem) + suffix.lower()


def _without_suffix(name: str) -> str:
    """Return a name as a label writes it that leaves the suffix of its image away.

    >>> _without_suffix("clip/frame_000001.png"), _without_suffix("clip/frame_000001")
    ('clip/frame_000001', 'clip/frame_000001')
    """
    return unicodedata.normalize("NFC", posixpath.splitext(name)[0] if has_suffix(name) else name)


_Way = Callable[[str], str]
# How a label can write a name, the strictest first.
_WAYS: tuple[_Way, ...] = (str, _alike, _without_suffix)


class ImageFinder:
    """Finds images by what labels call them.

    Args:
        names: Of all images, in the source.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._names = set(names)
        self._by_stem: dict[str, str] = {}
        self._by_end: dict[_Way, dict[str, list[str]]] = {}
        for name in sorted(self._names):
            self._by_stem.setdefault(posixpath.splitext(name)[0], name)

    def find(self, written: str, folders: Sequence[str]) -> str:
        """Return the image of exactly that name in the first of the folders that has it, or "".

        A name without a suffix, as CVAT gives to the frames of a video, is that of an image with any.
        """
        for folder in folders:
            name = posixpath.normpath(folder + written.replace("\\", "/"))
            if name in self._names:
                return name
            alike = [] if has_suffix(name) else self._ending(_without_suffix, _two_parts(f"/{name}"))
            found = [image for image in alike if posixpath.splitext(image)[0] == name]
            if len(found) == 1:
                return found[0]
        return ""

    def find_stem(self, stem: str, folders: Sequence[str]) -> str:
        """Return the image of that name, but for its suffix, in the first of the folders that has one, or ""."""
        return next((self._by_stem[folder + stem] for folder in folders if folder + stem in self._by_stem), "")

    def find_anywhere(self, written: str, split: str, taken: Collection[str]) -> str:
        """Return the only image whose last folders and name are the same, or else whose name is, or "".

        Where there is none, a suffix may be in capitals or not, and an accent be a character of its own or not; and a
        name without a suffix is that of an image with any.

        Args:
            written: As the label writes it, with or without folders, of whatever computer.
            split: Of the label, or ""; an image in a folder of another split is not meant.
            taken: Images that are known to be meant by another name.
        """
        written = posixpath.normpath("/" + written.replace("\\", "/"))
        # With a suffix of its own, a.jpg is not a.png.
        for way in _WAYS[:-1] if has_suffix(written) else _WAYS:
            path = way(written)
            last, end = posixpath.basename(path), _two_parts(path)
            same_folder = [
                name
                for name in (*self._ending(way, end), *self._ending(way, f"/{last}"))
                if way(name).endswith(path) or path.endswith("/" + way(name))
            ]
            # A bare name says nothing of a folder.
            for names in (() if end == f"/{last}" else same_folder, self._ending(way, last)):
                free = (name for name in names if name not in taken and _can_be_of(name, split))
                # One more is enough: of many with one name none is guessed.
                found = list(islice(free, 2))
                if len(found) == 1:
                    return found[0]
        return ""

    def _ending(self, way: _Way, end: str) -> list[str]:
        """Return the images whose last part is that, or whose last two are; "/a.jpg" is one at the top."""
        if way not in self._by_end:
            # Made when it is needed: most data sets name their images exactly.
            by_end = self._by_end[way] = defaultdict(list)
            for name in sorted(self._names):
                by_end[posixpath.basename(way(name))].append(name)
                by_end[_two_parts("/" + way(name))].append(name)
        return self._by_end[way].get(end, [])


def _two_parts(path: str) -> str:
    """Return the last folder and the name of an absolute path.

    >>> _two_parts("/a/b/c.jpg"), _two_parts("/c.jpg")
    ('b/c.jpg', '/c.jpg')
    """
    return "/".join(path.split("/")[-2:])


def _can_be_of(name: str, split: str) -> bool:
    return not split or split_of_folder(name) in {"", split}


def beside(label: str) -> list[str]:
    """Return where the image of a label file of its own can be, likeliest first, each with the slash behind.

    >>> beside("a/b.json"), beside("a/labels/b.json")
    (['a/'], ['a/labels/', 'a/', 'a/images/', 'a/Images/', 'a/JPEGImages/'])
    """
    own = posixpath.dirname(label)
    if posixpath.basename(own).lower() not in _LABEL_FOLDERS:
        return _with_slash([own])
    base = posixpath.dirname(own)
    return _with_slash([own, base, *(posixpath.join(base, folder) for folder in IMAGE_FOLDERS)])


def _with_slash(folders: list[str]) -> list[str]:
    return [folder + "/" if folder else "" for folder in dict.fromkeys(folders)]


def image_folders(label: str, words: Iterable[str] = ()) -> list[str]:
    """Return where the images of a label file about many can be, likeliest first, each with the slash behind.

    Args:
        label: Name of the label file.
        words: Further folders that the label tells, such as a subset.

    >>> image_folders("annotations/instances_train2017.json")[:5]
    ['images/', 'annotations/', '', 'images/train2017/', 'train2017/']
    >>> image_folders("train/_annotations.coco.json")[:2]
    ['train/images/', 'train/']
    """
    own = posixpath.dirname(label)
    base = posixpath.dirname(own) if posixpath.basename(own).lower() in _LABEL_FOLDERS else own
    split = split_of_label(label)
    last_word = posixpath.splitext(posixpath.basename(label))[0].rpartition("_")[2]  # train2017
    same_split = [word for word, meaning in SPLIT_NAMES.items() if meaning == split]
    parts = [*words, *([last_word] if split_of_folder(f"{last_word}/") else []), *same_split]
    inner = [posixpath.join(first, part) for part in parts for first in ("images", "")]
    # "images" goes first, as what is written from here has all images below it, be they called "images/a.jpg".
    below = [posixpath.join(base, folder) for folder in (*inner, *IMAGE_FOLDERS[1:])]
    folders = [posixpath.join(base, IMAGE_FOLDERS[0]), own, base, *below, ""]
    return _with_slash(folders)


def size_findings(
    size_wh: tuple[float, float], scan: ImageScan, image: str, where: tuple[str, int]
) -> list[ReadFinding]:
    """Return a finding if a label's width and height are not those of the image.

    Args:
        size_wh: Pixels, as the label says; a 0 says nothing.
        scan: Of the image; of one that cannot be read nothing can be said.
        image: Its name.
        where: The label file and line that say it.
    """
    width, height = size_wh
    if not scan.readable or 0 in size_wh or (width, height) == (scan.width, scan.height):
        return []
    has = f"the label says {width:g} x {height:g} pixels, {image} has {scan.width} x {scan.height}"
    # Equal sides would have been equal above.
    if scan.exif_orientation >= 5 and (height, width) == (scan.width, scan.height):
        message = f"{has} once its EXIF tag has turned it; check that the boxes fit the image as it is shown"
        return [ReadFinding(*where, EXIF_CONTRADICTS_LABEL, message, image)]
    message = f"{has}; check that the boxes fit, then correct it"
    return [ReadFinding(*where, SIZE_MISMATCH, message, image)]
