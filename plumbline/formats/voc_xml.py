"""One Pascal VOC file as XML: its elements, the line of each, and what is odd about its encoding."""

from __future__ import annotations

import re
from typing import Any
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from plumbline.faults import MALFORMED_LABEL
from plumbline.formats.reading import MalformedError, ReadFinding, decode_text, to_number

_DECLARED = re.compile(rb"""<\?xml[^>]*?\sencoding\s*=\s*["']([A-Za-z0-9._:-]+)["']""")
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


class VocXml:
    """The elements of one file.

    Args:
        data: The file's bytes.
        source_file: What findings call it.

    Attributes:
        root: The ``<annotation>``.
        findings: What is odd about the encoding; of no image, as the caller finds that by what is in here.

    Raises:
        MalformedError: It is not XML, is dangerous XML, or is no VOC label.
    """

    def __init__(self, data: bytes, source_file: str) -> None:
        text, self.findings = _decode(data, source_file)
        self._text = text.replace("\r\n", "\n").replace("\r", "\n")
        self._lines: dict[Element, int] = {}
        # Without declarations, comments and instructions there is nothing to be defended from, and a tag in the text
        # is a tag of the tree: the parser in C is five times as fast as one that calls back for every line number.
        plain = "<!" not in text and "<?" not in text[2:]
        try:
            self.root = self._parse_plain() if plain else self._parse()
        except ParseError as error:
            message = f"not well-formed XML ({error}), expected an <annotation>; correct or remove the file"
            raise MalformedError(message, error.position[0], MALFORMED_LABEL) from error
        except ValueError as error:
            raise MalformedError(f"cannot be read ({error}); correct the file", code=MALFORMED_LABEL) from error
        if self.root.tag != "annotation":
            message = f"expected <annotation>, got <{self.root.tag}>; remove the file"
            raise MalformedError(message, self.line(self.root), MALFORMED_LABEL)

    def text(self, path: str) -> str:
        """Return the text at a path below the root, "" where there is none."""
        return (self.root.findtext(path) or "").strip()

    def line(self, element: Element) -> int:
        """Return the 1-based line on which an element begins."""
        if element not in self._lines:
            # A prefix is not in the text as it is in the tree.
            tag = re.escape(element.tag.rpartition("}")[2])
            starts = [match.start() for match in re.finditer(rf"<(?:[^\s<>/]+:)?{tag}(?=[\s/>])", self._text)]
            line, at = 1, 0
            for found, start in zip(self.root.iter(element.tag), starts, strict=False):
                line, at = line + self._text.count("\n", at, start), start
                self._lines[found] = line
        return self._lines.get(element, 1)

    def _parse_plain(self) -> Element:
        parser = XMLParser()  # noqa: S314 - there is no entity in it
        parser.feed(self._text)
        return parser.close()

    def _parse(self) -> Element:
        parser = DefusedXMLParser(target=_LinedBuilder())
        builder = parser.target
        builder.expat = parser.parser
        try:
            parser.feed(self._text)
            root: Element = parser.close()
        except DefusedXmlException as error:
            message = f"entities in XML are refused ({error!r}), expected none; remove its DOCTYPE"
            raise MalformedError(message, parser.parser.CurrentLineNumber, MALFORMED_LABEL) from error
        self._lines = builder.lines
        return root


class _LinedBuilder:
    """A tree builder that remembers on which line each element begins."""

    def __init__(self) -> None:
        self.lines: dict[Element, int] = {}
        self.expat: Any = None
        self._builder = TreeBuilder()
        self.data = self._builder.data
        self.end = self._builder.end
        self.close = self._builder.close

    def start(self, tag: str, attributes: dict[str, str]) -> Element:
        element = self._builder.start(tag, attributes)
        self.lines[element] = self.expat.CurrentLineNumber
        return element


def _decode(data: bytes, source_file: str) -> tuple[str, list[ReadFinding]]:
    """Return the text of a file in the encoding that it declares, else in UTF-8, else in Latin-1.

    Raises:
        MalformedError: The encoding is unknown.
    """
    declared = _DECLARED.match(data)
    name = declared.group(1).decode().lower() if declared else "utf-8"
    if data.startswith(_UTF16_MARKS):
        name = "utf-16"
    elif name.startswith(("utf-8", "utf8", "utf-16", "utf16", "utf-32", "utf32")):
        # That could be read as bytes, so it is none of the wide ones, whatever it says.
        return decode_text(data, source_file)
    try:
        return data.decode(name), []
    except UnicodeDecodeError:
        return decode_text(data, source_file)
    except (LookupError, UnicodeError) as error:
        message = f"its encoding cannot be read ({error}), expected UTF-8; save it so"
        raise MalformedError(message, 1, MALFORMED_LABEL) from error


def number_in(parent: Element, tag: str) -> float:
    """Return the number in a child.

    Raises:
        MalformedError: There is none, or it is no finite number.
    """
    try:
        return to_number(parent.findtext(tag) or "")
    except MalformedError as error:
        raise MalformedError(f"<{tag}>: {error}", code=error.code) from error
