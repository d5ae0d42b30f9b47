"""Calibrators: which range of a value's distribution 256 steps should cover.

Zero is always met exactly, so exact zeros, half of all values behind a ReLU, do not count in ``mse`` and ``entropy``.

``minmax`` covers everything. ``percentile`` leaves out a small share at each end. ``mse`` weighs the rounding error
inside against the error of what is cut off, and takes the range of least mean square error. ``entropy`` takes the
range whose quantized distribution is closest to the real one (Kullback-Leibler).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gristmill.errors import ArgumentError
from gristmill.graph import Array
from gristmill.optimizer.histogram import Histogram

__all__ = ["CALIBRATORS", "choose_range"]

Range = tuple[float, float]

_SHRINKS = np.geomspace(1.0, 0.02, 120)
_LEVELS = 255


def choose_range(histogram: Histogram, calibrator: str, percentile: float = 99.99) -> Range:
    """The range to quantize; contains zero.

    Args:
        histogram: Not empty.
        calibrator: One of :data:`CALIBRATORS`.
        percentile: Share of the values, in percent, that ``percentile`` keeps.

    Raises:
        ArgumentError: The calibrator is unknown, or the percentile is no share.
    """
    if calibrator not in CALIBRATORS:
        raise ArgumentError(f"must be one of {', '.join(CALIBRATORS)}, got {calibrator!r}", node="calibrator")
    if not 50.0 < percentile <= 100.0:
        raise ArgumentError(f"must be above 50 and at most 100, got {percentile!r}", node="percentile")
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    if histogram.width == 0.0:
        return low, high
    return CALIBRATORS[calibrator](histogram, (low, high), percentile)


def _minmax(_histogram: Histogram, full: Range, _percentile: float) -> Range:
    return full


def _percentile(histogram: Histogram, full: Range, percentile: float) -> Range:
    share = np.cumsum(histogram.counts) / histogram.counts.sum()
    outside = (1.0 - percentile / 100.0) / 2.0
    edges = histogram.centers()
    low = edges[int(np.searchsorted(share, outside))] - histogram.width / 2
    high = edges[min(int(np.searchsorted(share, 1.0 - outside)), len(edges) - 1)] + histogram.width / 2
    return max(full[0], min(low, 0.0)), min(full[1], max(high, 0.0))


def _mse(histogram: Histogram, full: Range, _percentile: float) -> Range:
    return _search(histogram, full, _square_error)


def _entropy(histogram: Histogram, full: Range, _percentile: float) -> Range:
    return _search(histogram, full, _divergence)


def _search(histogram: Histogram, full: Range, loss: Callable[[Array, Array, Range], float]) -> Range:
    """Move one end at a time to where the loss is least, twice."""
    centers, counts = histogram.occupied()
    best = full
    for side in (0, 1, 0, 1):
        tried = [_moved(best, side, float(full[side] * shrink)) for shrink in _SHRINKS]
        best = min(tried, key=lambda bounds: loss(centers, counts, bounds))
    return best


CALIBRATORS: dict[str, Callable[[Histogram, Range, float], Range]] = {
    "mse": _mse,
    "minmax": _minmax,
    "percentile": _percentile,
    "entropy": _entropy,
}


def _moved(bounds: Range, side: int, value: float) -> Range:
    return (value, bounds[1]) if side == 0 else (bounds[0], value)


def _square_error(centers: Array, counts: Array, bounds: Range) -> float:
    step = (bounds[1] - bounds[0]) / _LEVELS
    beyond = centers - np.clip(centers, *bounds)
    return float(np.sum(counts * np.where(beyond == 0.0, step * step / 12.0, beyond * beyond)))


def _divergence(centers: Array, counts: Array, bounds: Range) -> float:
    """How far the distribution is from one that is even within each step of the range."""
    step = (bounds[1] - bounds[0]) / _LEVELS
    if step == 0.0:
        return np.inf
    place = np.rint((np.clip(centers, *bounds) - bounds[0]) / step).astype(np.int64)
    inside = (centers >= bounds[0]) & (centers <= bounds[1])
    filled = np.bincount(place[inside], minlength=_LEVELS + 1)
    mass = np.bincount(place[inside], counts[inside], minlength=_LEVELS + 1)
    clipped = counts * inside
    for end, outside in ((0, centers < bounds[0]), (-1, centers > bounds[1])):
        edge = np.flatnonzero(inside)
        if edge.size:
            clipped[edge[end]] += counts[outside].sum()
    model = np.zeros_like(counts)
    model[inside] = (mass / np.maximum(filled, 1))[place[inside]]
    used = clipped > 0
    p, q = clipped[used] / clipped.sum(), np.maximum(model[used] / max(model.sum(), 1.0), 1e-12)
    return float(np.sum(p * np.log(p / q)))
