"""How an artifact came about, as its artifact.json tells it. What an older one does not tell is None, or empty."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from plumbline.runtime.artifact import Artifact

# Keys of the notes that have a place of their own on the page.
PLACED = ("threshold", "quantization", "parity", "chip", "computes_in", "weights_stored_as", "stands_in")


@dataclass(frozen=True)
class Quantized:
    """How an int8 artifact was made.

    Attributes:
        method: How the ranges were found, and the weights' granularity.
        operators: Which operators were quantized.
        float_blocks: Blocks that were left in float.
        num_convolutions: Of the network, matrix products included.
        num_int8: Of these, what the engine computes in int8.
        float_names: Those left in float.
        inside_budget: What the search found on val.
        reason: Why it is not inside; empty where it is.
        drop: Points lost on val; below 0 where int8 is better.
        drop_upper: Upper end of its interval.
        metric: That the drop is of.
        num_trials: Files that were scored.
        aware_steps: Of the fine-tuning before; 0 for none.
        others: What else the backend tells.
    """

    method: str | None = None
    operators: str | None = None
    float_blocks: tuple[str, ...] = ()
    num_convolutions: int | None = None
    num_int8: int | None = None
    float_names: tuple[str, ...] = ()
    inside_budget: bool | None = None
    reason: str = ""
    drop: float | None = None
    drop_upper: float | None = None
    metric: str | None = None
    num_trials: int | None = None
    aware_steps: int | None = None
    others: tuple[tuple[str, Any], ...] = ()

    @property
    def num_float(self) -> int | None:
        """Convolutions that were left in float."""
        if self.num_convolutions is None or self.num_int8 is None:
            return None
        return self.num_convolutions - self.num_int8


@dataclass(frozen=True)
class Build:
    """How an artifact was made.

    Attributes:
        computes_in: Precision that the engine really computes in, where the backend tells it.
        stands_in: What ran it here in the device's place (``x86 simulator``); empty where it is the engine itself.
        chip: That it was made for; empty where it fits every machine that the engine runs on.
        parity_error: Largest difference of the float export's raw outputs from the trained weights', as a share of the
            largest absolute value of that output.
        parity_tolerance: Allowed.
        parity_images: Compared.
        calibration_sha256: Of the calibration images; empty where there were none.
        num_calibration_images: None where there were none.
        toolchain: Package -> version.
        quantized: None where it is no int8 artifact, or does not tell.
    """

    computes_in: str | None
    stands_in: str
    chip: str
    parity_error: float | None
    parity_tolerance: float | None
    parity_images: int | None
    calibration_sha256: str
    num_calibration_images: int | None
    toolchain: dict[str, str]
    quantized: Quantized | None


@dataclass(frozen=True)
class Speedup:
    """How many times as fast as another artifact, measured interleaved with it; the ends of its interval, or None."""

    value: float
    low: float | None
    high: float | None


def build_of(artifact: Artifact, machine: Mapping[str, Any]) -> Build:
    """Read how an artifact was made.

    Args:
        artifact: Its artifact.json.
        machine: What it was benchmarked on, which may tell what stands in for its device.
    """
    notes, lineage = artifact.notes, artifact.lineage
    parity = _mapping(notes.get("parity"))
    return Build(
        # What a quantizer tells stands among its own notes.
        computes_in=notes.get("computes_in") or _mapping(notes.get("quantization")).get("computes_in"),
        stands_in=str(notes.get("stands_in") or machine.get("stands_in") or ""),
        chip=str(notes.get("chip") or ""),
        parity_error=parity.get("max_error"),
        parity_tolerance=parity.get("tolerance"),
        parity_images=parity.get("num_images"),
        calibration_sha256=str(lineage.get("calibration_sha256") or ""),
        num_calibration_images=lineage.get("num_calibration_images"),
        toolchain=dict(artifact.toolchain),
        quantized=quantized_of(notes.get("quantization")),
    )


def quantized_of(note: object) -> Quantized | None:
    """Read ``notes["quantization"]``.

    >>> quantized_of({"method": "minmax", "num_convolutions": 9, "num_int8": 7, "per": "channel"}).others
    (('per', 'channel'),)
    """
    if not isinstance(note, dict):
        return None
    known = {field.name for field in fields(Quantized)} - {"others"}
    values: dict[str, Any] = {key: value for key, value in note.items() if key in known}
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    others = tuple((key, note[key]) for key in sorted(note) if key not in {*known, *PLACED})
    return Quantized(**values, others=others)


def speedup_of(benchmark: Mapping[str, Any], key: str) -> Speedup | None:
    """Read a ratio and its interval from what the benchmark wrote; None where it has none.

    >>> speedup_of({"speedup_own_fp32": 1.5, "speedup_own_fp32_low": 1.4}, "speedup_own_fp32")
    Speedup(value=1.5, low=1.4, high=None)
    """
    value = benchmark.get(key)
    return None if value is None else Speedup(value, benchmark.get(f"{key}_low"), benchmark.get(f"{key}_high"))


def _mapping(note: object) -> Mapping[str, Any]:
    return note if isinstance(note, dict) else {}
