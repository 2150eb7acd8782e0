"""Text files that name one image a line, by which data sets say what is for training and what is not."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from plumbline.faults import MISSING_IMAGE, TWO_SPLITS
from plumbline.formats.reading import SPLIT_NAMES, MalformedError, ReadFinding, read_text, split_lines

if TYPE_CHECKING:
    from plumbline.sources import Source

# What is held out stays so where a data set names an image twice.
_ORDER = ("train", "val", "test")


def deal(
    parts: Mapping[str, Iterable[str]], where: Callable[[str], str], findings: list[ReadFinding]
) -> dict[str, str]:
    """Return image -> part, from part -> images; of an image in two, which is a finding, the later of them.

    Args:
        parts: Images of train, val and test.
        where: How an image is named to people.
        findings: Added to.

    >>> deal({"test": ["c"], "train": ["a", "b", "c"]}, str, [])
    {'a': 'train', 'b': 'train', 'c': 'test'}
    """
    dealt: dict[str, str] = {}
    for part in _ORDER:
        for image in parts.get(part, ()):
            other = dealt.get(image, part)
            if other != part:
                message = f"the data set's own lists deal this image to {other} and {part}, expected one of them"
                findings.append(ReadFinding(where(image), 0, TWO_SPLITS, f"{message}; correct the lists", image))
            dealt[image] = part
    return dealt


def read_list(source: Source, name: str, find: Callable[[str], str], findings: list[ReadFinding]) -> list[str]:
    """Return the images that a list names; a line without one is a finding.

    Args:
        source: Where the list is.
        name: The list.
        find: Gives the image that a line means, "" for none.
        findings: Added to.
    """
    where = source.where(name)
    try:
        text, odd = read_text(source, name)
    except MalformedError as error:
        findings.append(ReadFinding(where, error.line, error.code, str(error)))
        return []
    findings.extend(odd)
    images = []
    for number, line in enumerate(split_lines(text), start=1):
        if not line.strip():
            continue
        image = find(line) or find(line.strip())
        if image:
            images.append(image)
        else:
            message = f"no image {line.strip()[:200]!r} for this line of the list; add the image, or remove the line"
            findings.append(ReadFinding(where, number, MISSING_IMAGE, message))
    return images


def places_of(text: str, bases: Sequence[str]) -> Iterable[str]:
    r"""Yield the names in a source that a path can mean, the likeliest first.

    A path that is absolute, or that leaves the source, is that of another machine: its end is what counts. The name
    of a part (train, valid...) is never cut off, as what follows it means something else without.

    Args:
        text: The path, with either kind of slash.
        bases: Folders in the source that it can be relative to.

    >>> list(places_of("../images/a.jpg", ["lists"]))
    ['images/a.jpg', 'lists/images/a.jpg', 'a.jpg']
    >>> list(places_of(r"C:\me\valid\images\a.jpg", [""]))
    ['C:/me/valid/images/a.jpg', 'me/valid/images/a.jpg', 'valid/images/a.jpg']
    """
    given = text.replace("\\", "/")
    if not given.startswith("/"):
        for base in bases:
            place = posixpath.normpath(posixpath.join(base, given))
            if place != ".." and not place.startswith("../"):
                yield place
    parts = [part for part in given.split("/") if part not in ("", ".")]
    while parts and parts[0] == "..":
        parts.pop(0)
    if ".." in parts:
        return
    if parts:
        yield from (posixpath.join(base, *parts) for base in bases if parts != given.split("/"))
    # A path deeper than that is none, and would take for ever in a file of rubbish.
    for at in range(1, min(len(parts), 64)):
        if parts[at - 1].lower() in SPLIT_NAMES:
            return
        yield "/".join(parts[at:])
