"""The machine that a latency was measured on, as far as Linux tells it without any package or privilege."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

HOTTEST_CREDIBLE_C = 150.0
COLDEST_CREDIBLE_C = -50.0


@dataclass(frozen=True)
class Machine:
    """What could be read; None for what could not.

    Attributes:
        cpu_model: ``AMD EPYC ...``, or a board's name where /proc/cpuinfo has no model name (ARM).
        architecture: ``x86_64``, ``aarch64``...
        logical_cores: Of the machine.
        usable_cores: That this process may run on.
        memory_bytes: Of the machine.
        governor: Of the cores' frequency, each one that is in use, with commas.
        temperature_c: The hottest thermal zone, degrees Celsius.
        load_average: Runnable processes over the last minute: what else the machine was doing.
        kernel: Release of the operating system's kernel.
        python: Version.
    """

    cpu_model: str | None
    architecture: str
    logical_cores: int | None
    usable_cores: int | None
    memory_bytes: int | None
    governor: str | None
    temperature_c: float | None
    load_average: float | None
    kernel: str
    python: str


def describe_machine(root: Path = Path("/")) -> Machine:
    """Read the description.

    Args:
        root: The folder that holds ``proc`` and ``sys``.
    """
    return Machine(
        cpu_model=_cpu_model(root),
        architecture=platform.machine(),
        logical_cores=os.cpu_count(),
        usable_cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        memory_bytes=_memory_bytes(root),
        governor=_governor(root),
        temperature_c=read_temperature_c(root),
        load_average=_number((_text(root / "proc/loadavg") or "").split(" ")[0]),
        kernel=platform.release(),
        python=platform.python_version(),
    )


def read_temperature_c(root: Path = Path("/")) -> float | None:
    """Return the hottest thermal zone in degrees Celsius; a sensor with an impossible value is left out."""
    values = [_number(_text(path)) for path in root.glob("sys/class/thermal/thermal_zone*/temp")]
    degrees = [value / 1000 for value in values if value is not None]
    return max((value for value in degrees if COLDEST_CREDIBLE_C < value < HOTTEST_CREDIBLE_C), default=None)


def _cpu_model(root: Path) -> str | None:
    # "Hardware" is what 32-bit ARM kernels write; 64-bit ones leave only the device tree.
    cpuinfo = _text(root / "proc/cpuinfo")
    for key in ("model name", "Hardware"):
        value = _field(cpuinfo, key)
        if value:
            return value
    return _text(root / "proc/device-tree/model")


def _memory_bytes(root: Path) -> int | None:
    total = _field(_text(root / "proc/meminfo"), "MemTotal")
    kibibytes = _number((total or "").removesuffix("kB"))
    return None if kibibytes is None else int(kibibytes) * 1024


def _governor(root: Path) -> str | None:
    paths = root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor")
    found = {text for text in map(_text, paths) if text}
    return ",".join(sorted(found)) or None


def _field(text: str | None, key: str) -> str | None:
    for line in (text or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return None


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def _text(path: Path) -> str | None:
    """Read a small text file; None where it is not, may not be read, or its sensor fails."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ") or None
    except OSError:
        return None
