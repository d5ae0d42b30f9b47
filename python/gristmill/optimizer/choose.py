"""Choosing: for each layer a pattern, or none, and a sparsity, by expected harm, weights and measured kernel times.

Of all ways to reach an overall sparsity one harms least; blocks of four always harm more than single weights at the
same sparsity, but their kernels are faster. What is chosen is the fastest way whose expected harm is at most a little
more than the least: the harms are known no better than that. It is found by putting prices on weights and time, which
may miss the very fastest by a little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gristmill.errors import ArgumentError
from gristmill.graph import Array
from gristmill.optimizer.allocate import HIGHEST, Curve
from gristmill.optimizer.kernel_times import KernelTimes
from gristmill.optimizer.layers import Layer
from gristmill.optimizer.masks import Pattern

__all__ = ["Way", "choose"]

#: Sparsities that are handed out.
_GRID = np.round(np.arange(0.3, HIGHEST + 1e-9, 0.005), 3)
#: How much more harm than the least is accepted for speed: this part of it, or divergence that never matters.
SLACK, _NEGLIGIBLE = 0.03, 1e-4
_HALVINGS, _PRICES = 60, (-80.0, 20.0)


@dataclass(frozen=True)
class Way:
    """What is to become of one layer.

    Attributes:
        pattern: None if it stays dense.
        sparsity: Share of the weights to drop.
        harm: Expected divergence of the network's answers.
        milliseconds: What a run of it takes.
        dense: What a run of it takes without zeros.
    """

    pattern: Pattern | None
    sparsity: float
    harm: float
    milliseconds: float
    dense: float


def choose(
    curves: Mapping[Pattern, Sequence[Curve]], times: KernelTimes, total: float, sparsity: float, slack: float = SLACK
) -> dict[str, Way]:
    """The fastest way to an overall sparsity among those that harm little more than the best.

    Args:
        curves: Error curves of the layers that may be pruned, for each pattern in the same order.
        times: Of these layers.
        total: Weights of all layers, including those that may not be pruned.
        sparsity: Share of the total to drop.
        slack: How much more harm than the least is accepted, as a part of it.

    Raises:
        ArgumentError: The layers that may be pruned do not suffice.
    """
    layers = [curve.layer for curve in next(iter(curves.values()))]
    options = [_Options(layer, {kind: curves[kind][at] for kind in curves}, times) for at, layer in enumerate(layers)]
    least = sum(float(one.weights.min()) for one in options)
    budget = sum(layer.size for layer in layers) - sparsity * total
    if least > budget:
        reach = (sum(layer.size for layer in layers) - least) / total
        raise ArgumentError(f"{sparsity:.3g} cannot be reached: the layers that may be pruned give {reach:.3f}")
    safest = _filled(options, _cheapest(options, budget, 0.0), budget)
    allowed = max((1.0 + slack) * _harm(options, safest), _NEGLIGIBLE)
    best = _switched(options, safest, allowed)
    low, high = _PRICES
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        found = _filled(options, _cheapest(options, budget, float(np.exp(middle))), budget)
        fits = _harm(options, found) <= allowed
        low, high = (middle, high) if fits else (low, middle)
        if fits:
            best = min(best, _switched(options, found, allowed), key=lambda ways: _time(options, ways))
    return {layer.name: one.way(at) for layer, one, at in zip(layers, options, best, strict=True)}


class _Options:
    """All ways of one layer as arrays; the first leaves it dense."""

    def __init__(self, layer: Layer, curves: Mapping[Pattern, Curve], times: KernelTimes) -> None:
        self._kinds = list(curves)
        parts: list[tuple[Array, Array, Array]] = []
        for kind, curve in curves.items():
            parts.append((_GRID, curve.harm(_GRID), times.milliseconds(layer, kind, _GRID)))
        dense = times.dense.get(layer.name, 0.0)
        self.sparsity, self.harm, self.milliseconds = (
            np.concatenate([[first], *(part[index] for part in parts)]) for index, first in enumerate((0.0, 0.0, dense))
        )
        self.weights = layer.size * (1.0 - self.sparsity)

    def denser(self, at: int) -> int:
        """The next way of the same pattern with fewer zeros, or the same way."""
        return at - 1 if at and (at - 1) % len(_GRID) else at

    def twins(self, at: int) -> range:
        """The ways of all patterns with as many zeros."""
        return range((at - 1) % len(_GRID) + 1, len(self.sparsity), len(_GRID)) if at else range(0)

    def way(self, at: int) -> Way:
        """One of them."""
        kind = self._kinds[(at - 1) // len(_GRID)] if at else None
        sparsity, harm, time, dense = (
            float(value) for value in (self.sparsity[at], self.harm[at], self.milliseconds[at], self.milliseconds[0])
        )
        return Way(kind, sparsity, harm, time, dense)


def _cheapest(options: Sequence[_Options], budget: float, price_of_time: float) -> list[int]:
    """The ways of least harm and time that keep no more weights than the budget."""
    costs = [one.harm + price_of_time * one.milliseconds for one in options]

    def at(price: float) -> list[int]:
        return [int(np.argmin(cost + price * one.weights)) for cost, one in zip(costs, options, strict=True)]

    low, high = _PRICES
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        kept = sum(float(one.weights[way]) for one, way in zip(options, at(float(np.exp(middle))), strict=True))
        low, high = (middle, high) if kept > budget else (low, middle)
    return at(float(np.exp(high)))


def _filled(options: Sequence[_Options], ways: Sequence[int], budget: float) -> list[int]:
    """The ways with what is left of the budget spent on less sparsity, where a weight saves most harm."""
    ways = list(ways)
    left = budget - sum(float(one.weights[way]) for one, way in zip(options, ways, strict=True))
    while True:
        steps = []
        for index, (one, way) in enumerate(zip(options, ways, strict=True)):
            denser = one.denser(way)
            more = float(one.weights[denser] - one.weights[way])
            if 0.0 < more <= left:
                steps.append((float(one.harm[way] - one.harm[denser]) / more, index, denser, more))
        if not steps:
            return ways
        _, index, ways[index], more = max(steps)
        left -= more


def _switched(options: Sequence[_Options], ways: Sequence[int], allowed: float) -> list[int]:
    """The ways with layers in a faster pattern at the same sparsity, as far as the allowed harm goes."""
    ways = list(ways)
    left = allowed - _harm(options, ways)
    while True:
        steps = []
        for index, (one, way) in enumerate(zip(options, ways, strict=True)):
            for other in one.twins(way):
                harm = float(one.harm[other] - one.harm[way])
                gain = float(one.milliseconds[way] - one.milliseconds[other])
                if gain > 0.0 and harm <= left:
                    steps.append((gain / max(harm, 1e-300), index, other, harm))
        if not steps:
            return ways
        _, index, ways[index], harm = max(steps)
        left -= harm


def _time(options: Sequence[_Options], ways: Sequence[int]) -> float:
    return sum(float(one.milliseconds[way]) for one, way in zip(options, ways, strict=True))


def _harm(options: Sequence[_Options], ways: Sequence[int]) -> float:
    return sum(float(one.harm[way]) for one, way in zip(options, ways, strict=True))
