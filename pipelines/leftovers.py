"""Half-made outputs, which a stage that was killed left beside its outputs.

A stage writes into a folder beside its output, which takes the output's place at the end (`plumbline.files.replacing`).
A stage that ends with an error removes it; one that is killed cannot. DVC does not look at them (.dvcignore): they
would be a part of what depends on all of ``models/artifacts``.
"""

from __future__ import annotations

import glob
import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from pipelines.clone_lock import RWLOCK

_RANDOM = re.compile(r"[a-z0-9_]{8}")  # Source: tempfile._RandomNameSequence


def remove_leftovers(root: Path, outs: Iterable[Path]) -> list[Path]:
    """Remove what is left of outputs that nobody is making now, and return what it was. Call it as the sole flow.

    Args:
        root: The DVC project's root.
        outs: Absolute paths of all outputs.
    """
    making = _being_written(root)
    removed = []
    for out in outs:
        for left in sorted(out.parent.glob(f".{glob.escape(out.name)}.????????")):
            if left.is_dir() and out not in making and _RANDOM.fullmatch(left.name[-8:]):
                shutil.rmtree(left, ignore_errors=True)
                removed.append(left)
    return removed


def _being_written(root: Path) -> set[Path]:
    """Return what a `dvc repro` by hand makes at this moment: no flow's lock keeps it out."""
    try:
        return {Path(path) for path in json.loads((root / RWLOCK).read_text(encoding="utf-8")).get("write", {})}
    except (OSError, ValueError):
        return set()
