"""The finder for file names that another file system cannot tell apart, or cannot hold."""

from __future__ import annotations

import re
import unicodedata

import numpy as np
import pandas as pd

from plumbline.checks.view import CheckSettings, View, image_findings
from plumbline.faults import NAME_COLLISION

_LONGEST_BYTES = 255  # of one component, on ext4, APFS and NTFS alike

# Source: Microsoft, "Naming Files, Paths, and Namespaces", section "Naming Conventions".
_RESERVED = re.compile(
    r"(?:^|/)((?:con|prn|aux|nul|(?:com|lpt)[0-9\u00b9\u00b2\u00b3]) *(?:\.[^/]*)?)(?=/|$)", re.IGNORECASE
)
_FORBIDDEN = re.compile(r'[<>:"|?*\\\x00-\x1f]')
_ENDING = re.compile(r"[. ](?=/|$)")


def find_name_collision(view: View, settings: CheckSettings) -> pd.DataFrame:  # noqa: ARG001
    """Find images whose name is another's but for case or composed letters, or which Windows or a disk cannot hold.

    Of names that collide, the second and later by image_id are found.
    """
    images = view.dataset.images.sort_values("image_id")
    first: dict[str, str] = {}
    messages = []
    for path in images["path"]:
        holder = first.setdefault(folded(path), path)
        problem = unportable(path)
        if holder is not path:
            taken = f"only case or accents tell its name from {holder}" if holder != path else "its name is taken"
            problem = f"{taken}; {problem}" if problem else taken
        messages.append(f"{problem}, expected a name that every file system can hold, got {path!r}" if problem else "")
    bad = np.array([bool(message) for message in messages], dtype=bool)
    return image_findings(NAME_COLLISION, images[bad], [message for message in messages if message])


def folded(path: str) -> str:
    r"""Return what a file system that ignores case and the composition of letters takes a path for.

    >>> folded("Images/STRA\u00dfE.jpg") == folded("images/strasse.jpg")
    True
    >>> folded("cafe\u0301.jpg") == folded("caf\u00e9.jpg")
    True
    """
    if path.isascii():
        return path.lower()
    # Folding can take a composed letter apart, and composing can make one that folds.
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def unportable(path: str) -> str:
    """Say why some file system cannot hold a path, or return "".

    >>> unportable("images/aux.jpg"), unportable("images/auxiliary.jpg")
    ("'aux.jpg' is a device on Windows", '')
    >>> unportable("images/a?.jpg"), unportable("images/a ./b.jpg")
    ("Windows allows no '?' in a name", 'Windows cuts a dot or space from the end of a name')
    """
    if found := _FORBIDDEN.search(path):
        return f"Windows allows no {found[0]!r} in a name"
    if found := _RESERVED.search(path):
        return f"{found[1]!r} is a device on Windows"
    if _ENDING.search(path):
        return "Windows cuts a dot or space from the end of a name"
    if len(path) * 4 > _LONGEST_BYTES:
        longest = max(len(part.encode(errors="surrogateescape")) for part in path.split("/"))
        if longest > _LONGEST_BYTES:
            return f"a part of its name has {longest} bytes, and disks hold {_LONGEST_BYTES}"
    return ""
