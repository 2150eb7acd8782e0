"""Reading what `torch.save` wrote, checksums first.

`torch.load` compares no checksum (2.15: of all files with one flipped bit it takes three quarters without a word), and
its unpickler answers damaged bytes with any exception there is, or asks for all memory.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

_FOLDER = 0x10  # in a ZIP entry's external attributes


class DamagedFileError(ValueError):
    """A file is not one that `torch.save` wrote, or is damaged; the text says how, in a few words."""


def check_torch_file(path: Path) -> None:
    """Compare every checksum of a file that `torch.save` wrote, which is a ZIP archive.

    Raises:
        FileNotFoundError: There is none.
        DamagedFileError: It is no such archive, or damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(path)
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
            folders = [entry.filename for entry in archive.infolist() if entry.external_attr & _FOLDER]
    except Exception as error:  # zipfile reads names and fields from what is damaged: from OSError to struct.error
        raise DamagedFileError(f"not a whole ZIP archive, as torch.save writes: {type(error).__name__}") from error
    # Of what is marked as a folder torch reads no byte: the tensor is what the memory happens to hold.
    damaged = damaged or next(iter(folders), None)
    if damaged is not None:
        raise DamagedFileError(f"{damaged} in it is damaged")


def read_torch_file(path: Path, *, weights_only: bool) -> Any:
    """Read a file that `torch.save` wrote, to the CPU.

    Args:
        path: The file.
        weights_only: Refuse all but tensors and plain values: a pickle can run anything.

    Raises:
        FileNotFoundError: There is none.
        DamagedFileError: It is damaged, or holds what is not allowed or not installed.
    """
    check_torch_file(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=weights_only)
    except Exception as error:  # the pickle module's documentation: any exception
        raise DamagedFileError(f"torch cannot read it: {type(error).__name__}") from error
