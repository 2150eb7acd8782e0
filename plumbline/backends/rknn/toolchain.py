"""Environments of toolchains that cannot share the main one: made by a command, never in passing.

Each is a folder with a Python of its own and the packages that its requirements file pins. It is made for one main
environment, whose packages it sees behind its own.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plumbline.errors import BackendError
from plumbline.files import replacing

# Name -> a line of Python that works where the packages do.
TOOLCHAINS = {"rknn": "from rknn.api import RKNN"}

REQUIREMENTS = Path(__file__).parent  # beside the code: a change of the file makes its targets stale
STAMP = "made_from.json"
# Packages come before those of the files that sort before this one.
BEHIND = "zzz_main_environment.pth"
LAST_LINES = 5


def folder_of(name: str) -> Path:
    """Return where a toolchain's environment is: beside the main one, or below this folder where that is Python's own.

    A copy of the project that runs with the same main environment finds the same folder.
    """
    inside = sys.prefix != sys.base_prefix
    return (Path(sys.prefix).parent if inside else Path.cwd()) / ".cache" / name


def python_of(name: str) -> Path:
    """Return the Python of a toolchain's environment.

    Raises:
        BackendError: It was not made, or was made from other requirements or for another main environment.
    """
    folder = folder_of(name)
    python = folder / "bin" / "python"
    try:
        made_from = json.loads((folder / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        made_from = None
    if made_from is None or not python.exists():
        raise BackendError(
            f"{folder}: the {name} toolchain is not here, expected an environment with the packages of"
            f" {_requirements(name)}; run `make {name}`, or take its targets out of params.yaml"
        )
    for key, expected in _made_from(name).items():
        if made_from.get(key) != expected:
            raise BackendError(
                f"{folder}: the {name} toolchain was made for another {key}, expected {expected}, got"
                f" {made_from.get(key)}; run `make {name}`"
            )
    return python


def version_of(name: str, package: str) -> str:
    """Return the version that a toolchain's requirements pin.

    >>> version_of("rknn", "rknn-toolkit2")
    '2.3.2'
    """
    lines = _requirements(name).read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith(f"{package}==")).partition("==")[2]


def make(name: str) -> Path:
    """Make a toolchain's environment where there is none that fits, and return its folder.

    What was there before stays until the new one works.

    Raises:
        BackendError: A package cannot be had, or does not work here.
    """
    folder = folder_of(name)
    with replacing(folder) as temporary:
        _run("venv", [sys.executable, "-m", "venv", "--without-pip", str(temporary)])
        python = temporary / "bin" / "python"
        # pip of the main environment: one of its own would be 10 MB more.
        install = ["install", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:"]
        pip = [sys.executable, "-m", "pip", "--python", str(python), *install, "-r", str(_requirements(name))]
        _run("pip", pip)
        query = "import sysconfig; print(sysconfig.get_path('purelib'))"
        site_packages = Path(_run("python", [str(python), "-c", query]).strip())
        (site_packages / BEHIND).write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
        _run("import", [str(python), "-c", TOOLCHAINS[name]])
        (temporary / STAMP).write_text(json.dumps(_made_from(name), indent=2) + "\n", encoding="utf-8")
    return folder


def _made_from(name: str) -> dict[str, Any]:
    """Return what an environment depends on: one made from anything else does not fit."""
    return {
        "requirements": hashlib.sha256(_requirements(name).read_bytes()).hexdigest()[:12],
        "python": sys.version.split()[0],
        "environment": sysconfig.get_path("purelib"),
    }


def _requirements(name: str) -> Path:
    return REQUIREMENTS / f"{name}.txt"


def _run(step: str, command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        last = " | ".join((done.stderr or done.stdout).strip().splitlines()[-LAST_LINES:])
        raise BackendError(f"{step} failed with exit code {done.returncode}: {last}; mend that and run it again")
    return done.stdout


def main(argv: Sequence[str] | None = None) -> int:
    """Make one toolchain's environment, unless it is there."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("name", choices=TOOLCHAINS)
    name = parser.parse_args(argv).name
    tell = functools.partial(print, flush=True)
    try:
        try:
            python_of(name)
        except BackendError:
            tell(f"Making {folder_of(name)} (640 MB): about a minute, once.")
            make(name)
    except BackendError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    tell(f"{name}: {folder_of(name)} is ready")
    return 0


if __name__ == "__main__":
    sys.exit(main())
