"""Which of an artifact's files a device needs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from plumbline.runtime.artifact import Artifact, size_bytes

# Folder in an artifact with what a stand-in for the device needs and the device does not.
SIMULATOR = "simulator"


def device_bytes(artifact: Artifact, folder: Path) -> int:
    """Return the bytes of the files that a device needs: neither `artifact.json` nor a simulator's."""
    files = {name: sha256 for name, sha256 in artifact.files.items() if not name.startswith(f"{SIMULATOR}/")}
    return size_bytes(dataclasses.replace(artifact, files=files), folder)
