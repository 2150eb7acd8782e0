"""Which names a source takes: what leads elsewhere, cannot be shown or cannot be stored is a finding, and no file."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import TypeVar

from plumbline.faults import UNSAFE_MEMBER, UNSAFE_NAME
from plumbline.formats.reading import ReadFinding

T = TypeVar("T")

# What Linux file systems hold in one part of a path, and object stores in a key: both in bytes.
MAX_PART_BYTES = 255
MAX_NAME_BYTES = 1024
# A file is read into memory as a whole. COCO's largest label files are about 1 GiB; no photograph comes near its limit.
MAX_TEXT_BYTES = 2 << 30
MAX_OTHER_BYTES = 512 << 20
_TEXT_SUFFIXES = (".csv", ".json", ".tsv", ".txt", ".xml", ".yaml", ".yml")
_SHOWN = 120


def is_hidden(name: str) -> bool:
    """Say whether a file or folder of that name is left out.

    >>> is_hidden(".DS_Store"), is_hidden("__MACOSX"), is_hidden("a.jpg")
    (True, True, False)
    """
    return name.startswith(".") or name == "__MACOSX"


def is_plain(text: str) -> bool:
    r"""Say whether every character can be shown; all kinds of spaces can (macOS puts U+202F into screenshots' names).

    Surrogates, which stand for bytes that are not UTF-8, cannot.

    >>> is_plain("a\u202fb.png"), is_plain("a\x00b"), is_plain("\udcff"), is_plain("a\u2028b")
    (True, False, False, False)
    """
    return text.isprintable() or all(c.isprintable() or unicodedata.category(c) == "Zs" for c in text)


def unsafe_name(where: str, name: str) -> ReadFinding:
    """Return the finding for a name that could not be shown or stored."""
    message = (
        f"the file name {shown(name)} is not UTF-8, holds unprintable characters, or is longer than file systems hold,"
        " expected plain text; rename it"
    )
    return ReadFinding(where, 0, UNSAFE_NAME, message)


def shown(name: str) -> str:
    r"""Return a name as it can be printed, cut when it is long; the bytes that are not UTF-8 are shown as such.

    >>> print(shown("a\x07.jpg"))
    'a\x07.jpg'
    """
    # A surrogate is the byte that it stands for: \udcff is \xff.
    text = ascii(name).replace("\\udc", "\\x")
    return text if len(text) <= _SHOWN else text[: _SHOWN - 4] + "...'"


def tidy(name: str) -> str:
    """Drop the parts of a relative name that say nothing.

    >>> tidy("./photos//a.jpg")
    'photos/a.jpg'
    """
    return "/".join(part for part in name.split("/") if part not in {"", "."})


def escape_of(name: str) -> str:
    r"""Return how a name could lead out of the folder that it is put into, or "" .

    >>> escape_of("a/../../b"), escape_of("/a"), escape_of("C:a"), escape_of("a\\b"), escape_of("a/b..c")
    ("holds '..'", 'is absolute', 'begins with a drive letter', 'holds a backslash', '')
    """
    if name.startswith("/"):
        return "is absolute"
    if re.match("[A-Za-z]:", name):
        return "begins with a drive letter"
    if "\\" in name:
        return "holds a backslash"
    return "holds '..'" if ".." in name.split("/") else ""


def unsafe_member(where: str, name: str, what: str, remedy: str) -> ReadFinding:
    """Return the finding for an entry that is no file here.

    >>> unsafe_member("a.zip", "b", "is a link, expected a plain file", "make the archive again without").message
    "entry 'b' is a link, expected a plain file; make the archive again without"
    """
    return ReadFinding(where, 0, UNSAFE_MEMBER, f"entry {shown(name)} {what}; {remedy}")


def admit(where: str, entries: Iterable[tuple[str, T]]) -> tuple[dict[str, T], list[ReadFinding]]:
    """Return the entries whose names are safe, by tidy name and sorted, and what is wrong with the others.

    Hidden ones are left out. Of several with one name the last counts, as when they are unpacked.

    Args:
        where: What holds the entries, as people call it.
        entries: Name as it is written, and whatever belongs to it.
    """
    taken: dict[str, T] = {}
    findings: list[ReadFinding] = []
    for raw, value in entries:
        escape = escape_of(raw)
        name = tidy(raw)
        if not is_plain(raw) or _is_long(name) or not name:
            findings.append(unsafe_name(where, raw))
        elif escape:
            remedy = "rename it, so that it stays below the top"
            findings.append(
                unsafe_member(where, raw, f"{escape}, expected a relative path with forward slashes", remedy)
            )
        elif not any(is_hidden(part) for part in name.split("/")):
            if name in taken:
                findings.append(
                    unsafe_member(where, raw, "is there twice, expected once", "remove one; the last is read")
                )
            taken[name] = value
    return _without_files_below_files(where, dict(sorted(taken.items())), findings)


def _is_long(name: str) -> bool:
    sizes = [len(part.encode()) for part in name.split("/")] if is_plain(name) else []
    return sum(sizes) + len(sizes) > MAX_NAME_BYTES or max(sizes, default=0) > MAX_PART_BYTES


def _without_files_below_files(
    where: str, taken: dict[str, T], findings: list[ReadFinding]
) -> tuple[dict[str, T], list[ReadFinding]]:
    """Leave out ``a.jpg/b.jpg`` where ``a.jpg`` is a file: no disk can hold both."""
    kept: dict[str, T] = {}
    for name, value in taken.items():
        parts = name.split("/")
        file = next((above for n in range(1, len(parts)) if (above := "/".join(parts[:n])) in taken), "")
        if file:
            what = f"lies below {shown(file)}, which is a file, expected a folder"
            findings.append(unsafe_member(where, name, what, "rename one of the two"))
        else:
            kept[name] = value
    return kept, findings


def max_bytes(name: str) -> int:
    """Return how many bytes a file of that name may hold to be read.

    >>> max_bytes("a.json") > max_bytes("a.jpg")
    True
    """
    return MAX_TEXT_BYTES if name.lower().endswith(_TEXT_SUFFIXES) else MAX_OTHER_BYTES
