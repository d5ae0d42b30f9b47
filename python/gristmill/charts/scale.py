"""Scales: from values to pixels, linear or logarithmic, with ticks at round numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Scale", "tick_text"]

_MOST_TICKS = 7


@dataclass(frozen=True)
class Scale:
    """Maps ``low`` to pixel ``start`` and ``high`` to pixel ``end``."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    @classmethod
    def fit(
        cls,
        values: Iterable[float],
        start: float,
        end: float,
        *,
        log: bool = False,
        zero: bool = False,
        exact: bool = False,
    ) -> Scale:
        """A scale that holds all values, with round ends unless they are to be exact.

        Args:
            values: What has to be shown; values that are not finite, or not positive on a logarithmic scale, count not.
            start: The pixel of the lower end.
            end: The pixel of the upper end.
            log: Whether equal ratios are equally far apart.
            zero: Whether a linear scale begins at 0.
            exact: Whether the scale ends at the outermost values, if they differ.

        Example:
            >>> scale = Scale.fit([3, 97], 0, 500, zero=True)
            >>> scale.low, scale.high, scale(50)
            (0.0, 100.0, 250.0)
        """
        known = [v for v in values if math.isfinite(v) and (v > 0 or not log)] or [1.0]
        low, high = min(known), max(known)
        if exact and low < high:
            return cls(low, high, start, end, log)
        if log:
            return cls(_round_log(low, up=False), _round_log(high, up=True), start, end, log=True)
        low = 0.0 if zero and low > 0 else low
        step = _step(high - low or abs(high) or 1.0)
        low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
        return cls(low, high if high > low else low + step, start, end)

    def __call__(self, value: float) -> float:
        """The pixel of a value; values beyond the ends are moved there."""
        value = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values from ``low`` to ``high``.

        Example:
            >>> Scale(1, 10000, 0, 90, log=True).ticks()
            [1.0, 10.0, 100.0, 1000.0, 10000.0]
        """
        if not self.log:
            step = _step(self.high - self.low)
            first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
            return [round(i * step, 12) for i in range(first, last + 1)]
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        for factors in ((1, 2, 5), (1, 3), (1,)):
            found = [f * 10.0**power for power in range(first, last + 1) for f in factors]
            found = [v for v in found if self.low * 0.999 <= v <= self.high * 1.001]
            if len(found) <= _MOST_TICKS:
                break
        return found[:: math.ceil(len(found) / _MOST_TICKS)]


def tick_text(value: float) -> str:
    """A short text for a round value.

    Example:
        >>> [tick_text(v) for v in (0.25, 20.0, 15000.0)]
        ['0.25', '20', '15,000']
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"


def _step(span: float) -> float:
    raw = span / (_MOST_TICKS - 2)
    power = 10.0 ** math.floor(math.log10(raw))
    return power * next(factor for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)


def _round_log(value: float, *, up: bool) -> float:
    """The next of 1, 2, 5 times a power of ten that leaves a little room."""
    power = 10.0 ** math.floor(math.log10(value))
    steps = [power * factor for factor in (0.2, 0.5, 1, 2, 5, 10, 20)]
    return min(s for s in steps if s > value * 1.03) if up else max(s for s in steps if s < value * 0.97)
