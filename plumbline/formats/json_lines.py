"""JSON with the line of each label, read at nearly the speed of the standard library's decoder.

The decoder is called once for each element of the arrays that hold labels, and the line breaks between are counted.
``NaN``, ``Infinity`` and ``-Infinity`` are read as numbers, which JSON forbids: such a coordinate is then a fault of
its own box, and not of the whole file.
"""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TextIO

from plumbline.faults import MALFORMED_LABEL, NOT_FINITE
from plumbline.formats.reading import MalformedError

_DECODER = json.JSONDecoder()
_COMMA = re.compile(r"[ \t\n\r]*,[ \t\n\r]*")
_SPACE = re.compile(r"[ \t\n\r]*")
_IS_FINITE = float("inf").__gt__
# bool is a kind of int to isinstance, not here.
_NUMBERS = frozenset({int, float})
# No table could hold them: control characters, and halves of a character as "\ud800" makes them.
_UNWRITABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True)
class Member:
    """One ``"key": value`` of a JSON object.

    Attributes:
        value: Decoded; None for an array that is to be read by `elements`.
        line: 1-based, where the value begins.
        at: Index in the text where the value begins.
        is_array: To be read by `elements`.
    """

    value: Any
    line: int
    at: int
    is_array: bool = False


def read_members(text: str, arrays: Collection[str] = ()) -> dict[str, Member]:
    r"""Check a whole JSON text and return the members of its object.

    Args:
        text: One JSON object.
        arrays: Keys whose array is checked, but not kept: `elements` gives it one by one, so that labels of any number
            need no more memory than one of them.

    Raises:
        MalformedError: It is not JSON, not an object, holds a key twice, or is too deep; with the line.

    >>> read_members('{"a": 1,\n "b": [2, 3]}')["b"]
    Member(value=[2, 3], line=2, at=15, is_array=False)
    """
    reader = _Reader(text, 0, 1)
    if reader.peek() != "{":
        reader.refuse("a JSON object {...}")
    found = reader.members(arrays)
    if reader.peek():
        reader.refuse("nothing after the JSON object")
    return found


def elements(text: str, array: Member) -> Iterator[tuple[int, Any]]:
    r"""Yield the line and the value of each element of an array that `read_members` has checked.

    >>> text = '{"a": [1,\n 2]}'
    >>> list(elements(text, read_members(text, ["a"])["a"]))
    [(1, 1), (2, 2)]
    """
    return _Reader(text, array.at, array.line).elements()


def members(text: str, item: Member) -> dict[str, Member]:
    r"""Return the members of an object within the object, with their own lines; see `read_members`.

    >>> text = '{"a": {"b":\n 1}}'
    >>> members(text, read_members(text)["a"])["b"].line
    2
    """
    return _Reader(text, item.at, item.line).members(())


def finite_numbers(values: object, expected: str) -> tuple[float, ...]:
    """Return the numbers of a decoded JSON array.

    Raises:
        MalformedError: It is no array of numbers; or one is NaN, infinite or too large, which has a code of its own.

    >>> finite_numbers([1, 2.5], "two numbers")
    (1.0, 2.5)
    """
    if not isinstance(values, list) or not _NUMBERS.issuperset(map(type, values)):
        raise MalformedError(f"expected {expected}, got {shown(values)}; correct it")
    try:
        numbers = tuple(map(float, values))
    except OverflowError:
        numbers = (float("inf"),)
    # abs() also turns NaN away, for which every comparison is false.
    if not all(map(_IS_FINITE, map(abs, numbers))):
        raise MalformedError(f"expected {expected}, all finite, got {shown(values)}; correct it", code=NOT_FINITE)
    return numbers


def clean_text(value: object, expected: str) -> str:
    """Return a string as it is written.

    Raises:
        MalformedError: It is no string, blank, or holds what no table can.

    >>> clean_text("cat", "a class")
    'cat'
    """
    if not isinstance(value, str) or not value.strip() or _UNWRITABLE.search(value):
        raise MalformedError(f"expected {expected}, got {shown(value)}; correct it")
    return value


def flag(item: Mapping[str, Any], key: str) -> bool:
    """Return a flag, written as 0, 1, true or false; one that is absent or null is False.

    Raises:
        MalformedError: It is something else.

    >>> flag({"iscrowd": 1}, "iscrowd"), flag({}, "iscrowd")
    (True, False)
    """
    value = item.get(key)
    if value not in (0, 1, None):
        raise MalformedError(f"{key}: expected 0 or 1, got {shown(value)}; correct it")
    return bool(value)


def shown(value: object) -> str:
    """Return a short text of what a file holds, safe to print whatever that is.

    >>> shown([1, 2, 3, 4, 5, 6, 7, 8])
    '[1, 2, 3, 4, 5, 6, ...]'
    """
    try:
        return reprlib.repr(value)
    except ValueError:  # an int of more digits than Python turns into text
        return "a huge number"


class LineWriter:
    """Writes the elements of a JSON array, one on each line, so that a difference reads well.

    Attributes:
        written: How many.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.written = 0

    def add(self, element: object) -> None:
        """Write one element; a NaN is refused."""
        text = json.dumps(element, ensure_ascii=False, allow_nan=False)
        self._file.write(f",\n{text}" if self.written else f"\n{text}")
        self.written += 1


def short_number(value: float) -> float:
    """Return a whole number as such, for 12 reads better than 12.0 and is read as the same.

    >>> short_number(12.0), short_number(0.5)
    (12, 0.5)
    """
    return int(value) if float(value).is_integer() and abs(value) < 1e15 else value


class _Reader:
    """A place in a JSON text that only goes forward, and so counts each line break once."""

    def __init__(self, text: str, at: int, line: int) -> None:
        self._text = text
        self._at = at
        self._line = line
        self._counted = at

    def peek(self) -> str:
        """Skip white space and return the next character, "" at the end."""
        self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]  # it matches nothing, too
        return self._text[self._at : self._at + 1]

    def line(self) -> int:
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def refuse(self, expected: str) -> NoReturn:
        got = self._text[self._at : self._at + 20]
        message = f"not the JSON that was expected: expected {expected}, got {got!r}; correct or replace the file"
        raise MalformedError(message, self.line(), MALFORMED_LABEL)

    def take(self, character: str) -> None:
        if self.peek() != character:
            self.refuse(repr(character))
        self._at += 1

    def value(self) -> Any:
        """Return the value that begins here."""
        try:
            value, self._at = _DECODER.raw_decode(self._text, self._at)
        except json.JSONDecodeError as error:
            self._at = error.pos
            self.refuse(f"JSON ({error.msg})")
        except (ValueError, RecursionError) as error:  # a number of thousands of digits; brackets in brackets
            reason = str(error).partition(";")[0]
            message = f"JSON that cannot be read ({reason}), expected label values; correct or replace the file"
            raise MalformedError(message, self.line(), MALFORMED_LABEL) from error
        return value

    def elements(self) -> Iterator[tuple[int, Any]]:
        self.take("[")
        if self.peek() != "]":
            line = self.line()
            yield line, self.value()
            while comma := _COMMA.match(self._text, self._at):
                self._at = comma.end()
                line = self.line()
                yield line, self.value()
        self.take("]")

    def members(self, arrays: Collection[str]) -> dict[str, Member]:
        found: dict[str, Member] = {}
        self.take("{")
        while self.peek() != "}" or found:
            if self._text[self._at : self._at + 1] != '"':
                self.refuse("a key in quotes")
            key = self.value()
            if key in found:
                self.refuse(f"the key {key!r} once")
            self.take(":")
            self.peek()
            found[key] = self._member(key in arrays)
            if self.peek() != ",":
                break
            self._at += 1
        self.take("}")
        return found

    def _member(self, is_array: bool) -> Member:
        line, at = self.line(), self._at
        if not (is_array and self._text[at : at + 1] == "["):
            return Member(self.value(), line, at)
        for _ in self.elements():
            pass
        return Member(None, line, at, is_array=True)
