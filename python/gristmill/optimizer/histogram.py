"""Histogram: the distribution of a stream of values whose range is not known beforehand, in constant memory."""

from __future__ import annotations

import numpy as np

from gristmill.errors import ArgumentError
from gristmill.graph import Array
from gristmill.quantization import min_max

__all__ = ["Histogram"]

_HALF = 2048


class Histogram:
    """Counts in bins of equal width around zero; when values come that lie outside, neighbouring bins are joined.

    The width is always a power of two, so counts do not depend on the order in which arrays come.

    Example:
        >>> histogram = Histogram()
        >>> histogram.add(np.array([0.0, 1.0, 2.0, -4.0], np.float32))
        >>> histogram.low, histogram.high, int(histogram.counts.sum())
        (-4.0, 2.0, 4)
    """

    def __init__(self) -> None:
        """Start empty. ``zeros`` counts exact zeros, which are also in the bin that starts at zero."""
        self.counts = np.zeros(2 * _HALF, np.int64)
        self.low, self.high = np.inf, -np.inf
        self.width = 0.0
        self.zeros = 0

    @property
    def empty(self) -> bool:
        """Whether no value has come."""
        return self.low > self.high

    def occupied(self) -> tuple[Array, Array]:
        """The middle of each bin with values other than exact zero, and how many there are."""
        counts = self.counts.copy()
        counts[_HALF] -= self.zeros
        used = np.flatnonzero(counts)
        return self.centers()[used], counts[used].astype(np.float64)

    def centers(self) -> Array:
        """The middle of each bin."""
        return np.asarray((np.arange(-_HALF, _HALF) + 0.5) * self.width)

    def add(self, values: Array, name: str = "calibration") -> None:
        """Count values; ``name`` is named if one is not finite.

        Raises:
            ArgumentError: A value is NaN or infinite.
        """
        if not values.size:
            return
        low, high = map(float, min_max(np.ascontiguousarray(values, np.float32)))
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ArgumentError("holds NaN or infinities on the calibration data", node=name)
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._widen(max(abs(low), abs(high)))
        self.zeros += values.size - int(np.count_nonzero(values))
        if self.width == 0.0:
            self.counts[_HALF] += values.size
            return
        bins = np.floor(values.reshape(-1) * np.float32(1.0 / self.width)).astype(np.int32)
        bins += _HALF
        np.clip(bins, 0, 2 * _HALF - 1, out=bins)
        self.counts += np.bincount(bins, minlength=2 * _HALF)

    def _widen(self, reach: float) -> None:
        """Join bins until ``reach`` lies within; zeros that came before anything else stay in place."""
        if reach == 0.0:
            return
        needed = 2.0 ** max(np.ceil(np.log2(reach)) - np.log2(_HALF), -120.0)
        if self.width == 0.0:
            self.width = needed
        while self.width < needed:
            half = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts[:] = 0
            self.counts[_HALF // 2 : _HALF // 2 + _HALF] = half
            self.width *= 2.0
