"""Which image a Labelme file is about: a file, or the bytes that it holds itself."""

from __future__ import annotations

import base64
import posixpath
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from plumbline.faults import MALFORMED_LABEL
from plumbline.formats.image_names import ImageFinder, beside
from plumbline.formats.json_lines import read_members, shown
from plumbline.formats.reading import MalformedError, ReadFinding, decode_text, list_images, names_ending
from plumbline.image_scan import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from plumbline.sources import Source


# The address of a source with the embedded images: this before the address of the source itself.
SCHEME = "labelme://"


def find_image(finder: ImageFinder, label: str, written: str) -> str:
    """Return the image of a label file, or "".

    Args:
        finder: Knows the images.
        label: Name of the label file.
        written: Its imagePath, with folders of whatever computer; "" for none.
    """
    folders = beside(label)
    last = written.replace("\\", "/").rpartition("/")[2]
    named = (finder.find(written, folders[:1]) or finder.find(last, folders)) if last else ""
    return named or finder.find_stem(posixpath.splitext(posixpath.basename(label))[0], folders)


def decode_image(data: object) -> bytes:
    r"""Return the bytes of an imageData.

    Raises:
        MalformedError: It is no base64.

    >>> decode_image("AAEC")
    b'\x00\x01\x02'
    """
    try:
        # Some tools break it into lines.
        return base64.b64decode("".join(data.split()), validate=True)  # type: ignore[attr-defined]
    except (AttributeError, ValueError):
        message = f"imageData: expected null or an image as base64, got {shown(data)}; remove it"
        raise MalformedError(message, code=MALFORMED_LABEL) from None


def wrap(source: Source) -> Source:
    """Return the source with the images that labels hold themselves as files beside them.

    Those that are in a file as well stay that file.
    """
    return EmbeddedImages(source)


class EmbeddedImages:
    """A source, and the images within its Labelme files; see `plumbline.sources.Source`.

    Such an image is called like its label, with the suffix that the label says. `read` needs no more than that, so
    that a process which is given names only does not look into all labels first.
    """

    def __init__(self, source: Source) -> None:
        inner = source.address
        # Opens the same from the folder of another process.
        self.address = SCHEME + (inner if "://" in inner else str(Path.cwd() / inner))
        self._source = source
        self._files: dict[str, int] = {}
        self._labels: dict[str, str] = {}

    def files(self) -> Mapping[str, int]:  # noqa: D102 - as in the protocol, like all below
        if not self._files:
            self._files = dict(sorted({**self._embedded(), **self._source.files()}.items()))
        return self._files

    def findings(self) -> list[ReadFinding]:  # noqa: D102
        return self._source.findings()

    def read(self, name: str) -> bytes:  # noqa: D102
        label = self._label(name)
        if not label:
            return self._source.read(name)
        try:
            return self._open(label)[1]
        except MalformedError as error:
            raise OSError(str(error)) from error

    def stamp(self, name: str) -> str:  # noqa: D102
        return self._source.stamp(self._label(name) or name)

    def where(self, name: str) -> str:  # noqa: D102
        label = self._label(name)
        return f"{self._source.where(label)}/{posixpath.basename(name)}" if label else self._source.where(name)

    def group(self, name: str) -> str:  # noqa: D102
        return self._source.group(self._label(name) or name)

    def order(self, names: Iterable[str]) -> list[str]:  # noqa: D102
        by_file: dict[str, list[str]] = defaultdict(list)
        for name in names:
            by_file[self._label(name) or name].append(name)
        return [name for file in self._source.order(by_file) for name in sorted(by_file[file])]

    def _label(self, name: str) -> str:
        """Return the label file that holds an image, "" for a file of the source itself."""
        if name in self._source.files():
            return ""
        if not self._labels:
            labels = names_ending(self._source, (".json",))
            self._labels = {posixpath.splitext(label)[0]: label for label in reversed(labels)}
        return self._labels.get(posixpath.splitext(name)[0], "")

    def _embedded(self) -> dict[str, int]:
        """Return the size of each embedded image that is no file; reads the labels that have no image of their name."""
        finder = ImageFinder(list_images(self._source))
        labels = names_ending(self._source, (".json",))
        found: dict[str, int] = {}
        for label in self._source.order(name for name in labels if not find_image(finder, name, "")):
            try:
                written, data = self._open(label)
            except (OSError, MalformedError):
                continue  # `read` of the format says what is wrong with it
            if data and not find_image(finder, label, written):
                suffix = posixpath.splitext(written)[1]
                # What it is shows in its bytes: any suffix of an image will do.
                suffix = suffix if suffix.lower() in IMAGE_SUFFIXES else ".png"
                found[posixpath.splitext(label)[0] + suffix] = len(data)
        return found

    def _open(self, label: str) -> tuple[str, bytes]:
        """Return what a label calls its image, and the image that it holds, b"" for none."""
        text, _ = decode_text(self._source.read(label), "")
        found = read_members(text)
        written, data = (found[key].value if key in found else None for key in ("imagePath", "imageData"))
        return written if isinstance(written, str) else "", decode_image(data) if data else b""
