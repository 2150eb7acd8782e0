"""What a search may ask for, and what a backend gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """How one int8 file is made.

    Attributes:
        method: Of the backend's `Quantizer.methods`: how ranges come from the calibration images, and the weights'
            granularity, such as ``per_channel-minmax`` or ``per_tensor-percentile_99.9``.
        operators: Of the backend's `Quantizer.operators`: ``all`` that have an int8 form, or ``convolutions``.
        float_blocks: Names of blocks that stay in float.
    """

    method: str
    operators: str
    float_blocks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Block:
    """Neighbouring operators that are quantized, or left in float, together.

    Attributes:
        name: As a person finds it in the network: ``/body.2``...
        share: Of the network's multiply-adds, 0..1.
    """

    name: str
    share: float


@dataclass(frozen=True)
class Written:
    """What a backend says of a file that it has written.

    Attributes:
        num_convolutions: Of the network, matrix products included.
        num_int8: Of these, those that the engine really computes in int8 (counted in what the engine loads where it can
            be asked, not in what was asked for).
        float_names: Those left in float, as a person finds them in the network, in its order.
        notes: What else `artifact.json` shall tell; JSON values.
    """

    num_convolutions: int
    num_int8: int
    float_names: tuple[str, ...]
    notes: dict[str, Any]


@dataclass(frozen=True)
class Quantizer:
    """One network, calibrated for one backend.

    Attributes:
        methods: That `write` knows; the one that does best as a rule comes first.
        operators: That `write` knows; the fastest comes first.
        blocks: In the order of the network; none where the backend's converter cannot leave some in float.
        write: Folder and recipe -> the engine's files in that folder. It never changes what it has calibrated, and the
            same recipe gives the same bytes.
    """

    methods: tuple[str, ...]
    operators: tuple[str, ...]
    blocks: tuple[Block, ...]
    write: Callable[[Path, Recipe], Written]
