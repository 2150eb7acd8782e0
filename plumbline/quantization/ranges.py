"""Ranges of tensors from one pass over the calibration images, for any clipping afterwards.

A histogram's bins are a power of two wide and start at multiples of it, so that two of them make one of twice the width
exactly: the bins grow with what is seen, and the order of the images changes nothing. They always reach to 0, as a
quantized range does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from plumbline.errors import BackendError

MINMAX, MSE, PERCENTILE = "minmax", "mse", "percentile_"
CLIPPINGS = (MINMAX, "percentile_99.99", "percentile_99.9", MSE)
# The weights' granularity and the clipping of activations. Clipping as a rule costs SiLU networks accuracy.
METHODS = (
    "per_channel-minmax",
    "per_channel-percentile_99.99",
    "per_channel-mse",
    "per_tensor-minmax",
    "per_tensor-percentile_99.9",
)

# At most; at least half as many are in use, so a bin is narrower than an eighth of an int8 step.
MAX_BINS = 4096
# Shares of the full range that `mse` tries for each end, and then around the best of them.
_SHARES = tuple(float(share) for share in np.linspace(1, 0.05, 20))
_NEARER = tuple(float(share) for share in np.linspace(0.04, -0.04, 9))
# Powers of two below are not normal numbers in float32.
_MIN_EXPONENT = -120

Values = npt.NDArray[np.floating[Any]]


class Ranges:
    """What was seen of each tensor, by its name.

    >>> ranges = Ranges()
    >>> ranges.observe("x", np.linspace(-1, 3, 401, dtype=np.float32))
    >>> ranges.low_high("x", "minmax"), ranges.absmax("x", "minmax")
    ((-1.0, 3.0), 3.0)
    """

    def __init__(self) -> None:
        self._seen: dict[str, _Histogram] = {}
        # The least squares take milliseconds for each tensor, and are asked for once per file.
        self._found: dict[tuple[str, str], tuple[float, float]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """Of the tensors, in the order in which they were first seen."""
        return tuple(self._seen)

    def observe(self, name: str, values: Values) -> None:
        """Count the values of one tensor for one image; the array may have any shape.

        Raises:
            BackendError: A value is not finite.
        """
        if values.size == 0:
            return
        # float64 would be slower and tell no more: networks compute in float32 at most.
        flat = np.asarray(values, dtype=np.float32).ravel()
        low, high = float(flat.min()), float(flat.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise BackendError(
                f"tensor {name}: a value is not finite (NaN or infinite) on a calibration image, expected numbers; "
                "look at the trained weights and the images"
            )
        if name not in self._seen:
            self._seen[name] = _Histogram.starting_with(low, high)
        self._seen[name].add(flat, low, high)
        self._found.clear()

    def low_high(self, name: str, clipping: str) -> tuple[float, float]:
        """Return the range of asymmetric quantization, in the tensor's own unit; it always holds 0.

        A percentile cuts half of what is left on either side.

        Raises:
            KeyError: The tensor was never seen.
        """
        if (name, clipping) not in self._found:
            self._found[name, clipping] = self._seen[name].low_high(clipping)
        return self._found[name, clipping]

    def absmax(self, name: str, clipping: str) -> float:
        """Return the largest absolute value of symmetric quantization, in the tensor's own unit.

        Raises:
            KeyError: The tensor was never seen.
        """
        return self._seen[name].end(clipping)


@dataclass
class _Histogram:
    """Counts of one tensor's values.

    Attributes:
        exponent: Bin i holds the values in [i, i + 1) * 2**exponent.
        first: Index of the first bin in `counts`.
        counts: Of the bins from `first` on.
        low: The smallest value seen, exactly.
        high: The largest value seen, exactly.
    """

    exponent: int
    first: int
    counts: npt.NDArray[np.int64]
    low: float
    high: float

    @staticmethod
    def starting_with(low: float, high: float) -> _Histogram:
        """Return an empty one with the narrowest bins that can hold a range."""
        exponent = _MIN_EXPONENT
        reach = max(high, 0.0) - min(low, 0.0)
        if reach > 0:
            exponent = max(exponent, math.floor(math.log2(reach / MAX_BINS)) - 1)
        return _Histogram(exponent, 0, np.zeros(1, dtype=np.int64), low, high)

    @property
    def absmax(self) -> float:
        """The largest absolute value seen, exactly."""
        return max(abs(self.low), abs(self.high))

    @property
    def width(self) -> float:
        """Of a bin."""
        return math.ldexp(1.0, self.exponent)

    @property
    def centres(self) -> npt.NDArray[np.float64]:
        """Of the bins; never outside of what was seen."""
        centres = (self.first + np.arange(len(self.counts)) + 0.5) * self.width
        return np.clip(centres, self.low, self.high)

    def add(self, flat: npt.NDArray[np.float32], low: float, high: float) -> None:
        """Count values whose extremes are known."""
        self.low, self.high = min(self.low, low), max(self.high, high)
        while True:
            first, last = self._bin(min(self.low, 0.0)), self._bin(max(self.high, 0.0))
            if last - first < MAX_BINS:
                break
            self._double_the_width()
        self._widen(first, last)
        scaled = np.floor(flat * np.float32(math.ldexp(1.0, -self.exponent)))
        # A negative number too small for float32 becomes -0 here, and may be the largest of all.
        index = np.minimum(scaled.astype(np.int64), last) - self.first
        self.counts += np.bincount(index, minlength=len(self.counts))

    def low_high(self, clipping: str) -> tuple[float, float]:
        """See `Ranges.low_high`."""
        if clipping == MSE:
            return _least_squares(self)
        low, high = self.low, self.high
        if clipping != MINMAX:
            cut = (1 - _percentile(clipping)) / 2
            low, high = self.quantile(cut), self.quantile(1 - cut)
        return min(low, 0.0), max(high, 0.0)

    def end(self, clipping: str) -> float:
        """See `Ranges.absmax`."""
        if clipping == MINMAX:
            return self.absmax
        return _least_squares_symmetric(self) if clipping == MSE else self.quantile_of_absolute(_percentile(clipping))

    def quantile(self, share: float) -> float:
        """Return the value that `share` of those seen lie below, to within a bin."""
        return float(np.clip(_crossing(self.counts, share, self.first) * self.width, self.low, self.high))

    def quantile_of_absolute(self, share: float) -> float:
        """Return the same of the absolute values."""
        # Bin -1 mirrors onto bin 0, -2 onto 1...
        index = self.first + np.arange(len(self.counts))
        counts = np.bincount(np.where(index < 0, -index - 1, index), weights=self.counts)
        return float(min(_crossing(counts, share, 0) * self.width, self.absmax))

    def _bin(self, value: float) -> int:
        return math.floor(math.ldexp(value, -self.exponent))

    def _double_the_width(self) -> None:
        counts, first = self.counts, self.first
        if first % 2:
            counts, first = np.concatenate([[0], counts]), first - 1
        if len(counts) % 2:
            counts = np.concatenate([counts, [0]])
        self.exponent, self.first, self.counts = self.exponent + 1, first // 2, counts.reshape(-1, 2).sum(axis=1)

    def _widen(self, first: int, last: int) -> None:
        before = max(0, self.first - first)
        after = max(0, last - (self.first + len(self.counts) - 1))
        if before or after:
            self.counts = np.pad(self.counts, (before, after))
            self.first -= before


def _crossing(counts: npt.NDArray[Any], share: float, first: int) -> float:
    """Return where the running sum of counts reaches a share of all, in bins, between a bin's ends in proportion."""
    running = np.cumsum(counts)
    wanted = share * float(running[-1])
    index = min(int(np.searchsorted(running, wanted)), len(counts) - 1)
    below = float(running[index - 1]) if index else 0.0
    inside = (wanted - below) / float(counts[index]) if counts[index] else 0.0
    return first + index + inside


def _percentile(clipping: str) -> float:
    """Return the share that ``percentile_99.9`` keeps: 0.999."""
    assert clipping.startswith(PERCENTILE), clipping
    percent = float(clipping.removeprefix(PERCENTILE))
    assert 50 < percent <= 100, clipping
    return percent / 100


def _least_squares(seen: _Histogram) -> tuple[float, float]:
    """Return the range of 256 levels with the least mean squared error, one end after the other."""
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    used = seen.counts > 0
    centres, counts = seen.centres[used], seen.counts[used]

    def error(low: float, high: float) -> float:
        step = (high - low) / 255
        zero = np.round(-low / step)
        levels = np.clip(np.round(centres / step) + zero, 0, 255) - zero
        return float(np.sum(counts * (levels * step - centres) ** 2))

    if high > 0:
        high = _best(lambda end: error(low, end), high)
    if low < 0:
        low = _best(lambda end: error(end, high), low)
    return low, high


def _least_squares_symmetric(seen: _Histogram) -> float:
    """Return the end of the 255 levels around 0 with the least mean squared error."""
    used = seen.counts > 0
    centres, counts = seen.centres[used], seen.counts[used]

    def error(end: float) -> float:
        step = end / 127
        levels = np.clip(np.round(centres / step), -127, 127)
        return float(np.sum(counts * (levels * step - centres) ** 2))

    return _best(error, seen.absmax) if seen.absmax > 0 else 0.0


def _best(error: Callable[[float], float], end: float) -> float:
    """Return the share of `end` with the least error; of equals the widest."""
    near = min(_SHARES, key=lambda share: error(share * end))
    shares = [near + nearer for nearer in _NEARER if near + nearer <= 1]
    return end * min(shares, key=lambda share: error(share * end))
