"""CVAT's XML as a stream of images: one <image> is held at a time, with the line of each element."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from xml.etree.ElementTree import ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from plumbline.faults import MALFORMED_LABEL
from plumbline.formats.reading import MalformedError

# Attributes of a shape, in CVAT's sense: those that a task defines, and that mean something here.
FLAGS = ("difficult", "truncated")
_CHUNK = 1 << 20


@dataclass
class CvatShape:
    """An element within an <image>; `flags` is the text of each <attribute> by its name."""

    kind: str
    attributes: dict[str, str]
    line: int
    flags: dict[str, str] = field(default_factory=dict)


@dataclass
class CvatImage:
    """An <image>, or what stands in its place."""

    kind: str
    attributes: dict[str, str]
    line: int
    shapes: list[CvatShape] = field(default_factory=list)


def parse(text: str, take: Callable[[CvatImage], None]) -> list[str]:
    """Read one XML text as a stream.

    Args:
        text: The file.
        take: Called with each <image> and <track>.

    Returns:
        The names of the classes, in the order of the file.

    Raises:
        MalformedError: It is not XML, is dangerous XML, or is not CVAT's.
    """
    target = _Target(take)
    parser = DefusedXMLParser(target=target)
    target.expat = parser.parser
    try:
        for at in range(0, len(text), _CHUNK):
            parser.feed(text[at : at + _CHUNK])
        parser.close()
    except ParseError as error:
        message = f"not well-formed XML ({error}), expected <annotations>; correct or remove the file"
        raise MalformedError(message, error.position[0], MALFORMED_LABEL) from error
    except DefusedXmlException as error:
        message = f"entities in XML are refused ({error!r}), expected none; remove its DOCTYPE"
        raise MalformedError(message, parser.parser.CurrentLineNumber, MALFORMED_LABEL) from error
    except ValueError as error:
        raise MalformedError(f"cannot be read ({error}); correct the file", code=MALFORMED_LABEL) from error
    return target.class_names


class _Target:
    """Receives the parser's events, and holds one <image> at a time."""

    def __init__(self, take: Callable[[CvatImage], None]) -> None:
        self.expat: Any = None
        self.class_names: list[str] = []
        self._take = take
        self._path: list[str] = []
        self._image: CvatImage | None = None
        self._text: list[str] | None = None
        self._label: dict[str, str] = {}
        self._flag = ""

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        depth = len(self._path)
        self._path.append(tag)
        if depth == 0 and tag != "annotations":
            message = f"expected <annotations>, got <{tag}>; remove the file"
            raise MalformedError(message, self.expat.CurrentLineNumber, MALFORMED_LABEL)
        if depth == 1 and tag in {"image", "track"}:
            self._image = CvatImage(tag, attributes, self.expat.CurrentLineNumber)
        elif depth == 2 and self._image is not None:
            self._image.shapes.append(CvatShape(tag, attributes, self.expat.CurrentLineNumber))
        elif depth == 3 and self._image is not None and tag == "attribute":
            self._flag = attributes.get("name", "").strip().lower()
            self._text = [] if self._flag in FLAGS else None
        elif self._path[-3:-1] == ["labels", "label"] and tag in {"name", "parent"}:
            self._text = []

    def data(self, text: str) -> None:
        if self._text is not None:
            self._text.append(text)

    def end(self, tag: str) -> None:
        self._path.pop()
        depth = len(self._path)
        if self._text is not None:
            # As in an attribute, where a line break is a space.
            text, self._text = re.sub(r"[\t\r\n]", " ", "".join(self._text)).strip(), None
            if self._image is not None:
                self._image.shapes[-1].flags[self._flag] = text
            else:
                self._label[tag] = text
        if depth == 1 and self._image is not None:
            self._take(self._image)
            self._image = None
        elif tag == "label" and self._path[-1:] == ["labels"]:
            # A part of a skeleton has a parent, and is no class.
            if self._label.get("name") and not self._label.get("parent"):
                self.class_names.append(self._label["name"])
            self._label = {}

    def close(self) -> None:
        """End the stream."""
