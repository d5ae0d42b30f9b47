"""Allocation: how to share out an overall sparsity over the layers.

Two things are measured per layer: how its output error grows with its sparsity (on a few of its rows, pruned and
refitted for real), and how much of an error the network's answers bear, by adding noise of a known share to its outputs
and watching the divergence of the answers. A layer that keeps only the part ``1 - e`` of what its outputs vary by is
read by layers that make it as loud again, which is noise of the share ``e / (1 - e)``: the harm of a sparsity is the
divergence that this much noise gives. The allocation of least total harm at a given cost lets all layers pay the same
price per unit of cost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gristmill.errors import ArgumentError
from gristmill.graph import Array, Graph, Node
from gristmill.optimizer.answers import answers_of, divergence
from gristmill.optimizer.capture import Executor, Lockstep
from gristmill.optimizer.layers import Layer, find_layers
from gristmill.optimizer.masks import Pattern, mask_of
from gristmill.optimizer.metric import Problem
from gristmill.optimizer.pruning import gather
from gristmill.optimizer.refit import refit

__all__ = ["HIGHEST", "LEVELS", "Curve", "allocate", "measure_curves"]

#: Sparsities at which errors are measured, and those that are handed out: fewer zeros than 30 % never pay.
LEVELS = (0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.94, 0.97, 0.99)
_GRID = np.concatenate([[0.0], np.round(np.arange(0.3, 0.991, 0.005), 3)])
HIGHEST = float(_GRID[-1])
_NOISE, _PROBED = 0.05, 128
#: Rows on which errors are measured: bounds, and the multiplications for all of them that are worth it.
_FEWEST, _MOST, _EFFORT = 16, 32, 5e8
#: The relative error from which on nothing is left of a layer.
_LOST = 0.999
#: Errors are wanted to a few percent.
_PROGRESS = 0.01

Cost = Callable[[Layer, float], float]


@dataclass(frozen=True)
class Curve:
    """What sparsity does to one layer.

    Attributes:
        layer: The layer.
        errors: Relative output error at each of :data:`LEVELS`.
        sensitivity: Divergence of the network's answers per unit of noise relative to the outputs.
    """

    layer: Layer
    errors: tuple[float, ...]
    sensitivity: float

    def harm(self, sparsity: Array) -> Array:
        """Expected divergence of the answers at some sparsities."""
        levels = np.concatenate([[0.0], LEVELS])
        # Errors span decades: interpolate their square roots, which start at zero.
        roots = np.concatenate([[0.0], np.sqrt(np.maximum.accumulate(self.errors))])
        share = np.minimum(np.interp(sparsity, levels, roots) ** 2, _LOST)
        return np.asarray(self.sensitivity * share / (1.0 - share))


def measure_curves(
    graph: Graph,
    layers: Sequence[Layer],
    batches: Sequence[Mapping[str, Array]],
    patterns: Sequence[Pattern],
    seed: int,
    on_layer: Callable[[Layer], None] = lambda _layer: None,
) -> dict[Pattern, list[Curve]]:
    """Error curve in each pattern and sensitivity of each layer, in one pass over the network each."""
    wanted = {layer.name for layer in layers}
    images = sum(len(next(iter(batch.values()))) for batch in batches)
    sensitivity = _sensitivities(graph, layers, batches, seed)
    step = Lockstep(graph, batches)
    by_name = {layer.name: layer for layer in find_layers(graph)}
    curves: dict[Pattern, list[Curve]] = {pattern: [] for pattern in patterns}
    for node in graph.nodes:
        if node.name in wanted:
            layer = by_name[node.name]
            on_layer(layer)
            errors = _errors(graph, layer, step, images, patterns, seed)
            for pattern, found in errors.items():
                curves[pattern].append(Curve(layer, found, sensitivity[layer.name]))
        step.advance(node)
    return curves


def allocate(curves: Sequence[Curve], total: float, sparsity: float, cost: Cost | None = None) -> dict[str, float]:
    """Sparsity by layer so that ``sparsity * total`` is saved with the least harm.

    Args:
        curves: The layers that may be pruned.
        total: Cost of the whole network when dense: the number of weights, unless ``cost`` says otherwise.
        sparsity: Share of it to save.
        cost: Cost of a layer at a sparsity; the number of its nonzero weights by default.

    Raises:
        ArgumentError: The layers that may be pruned do not suffice.
    """
    price_of = cost or (lambda layer, share: layer.size * (1.0 - share))
    costs = [np.array([price_of(curve.layer, float(share)) for share in _GRID]) for curve in curves]
    harms = [curve.harm(_GRID) for curve in curves]
    fixed = total - sum(one[0] for one in costs)
    budget = (1.0 - sparsity) * total - fixed
    if sum(one.min() for one in costs) > budget:
        reach = 1.0 - (sum(one.min() for one in costs) + fixed) / total
        raise ArgumentError(f"{sparsity:.3g} cannot be reached: the layers that may be pruned give {reach:.3f}")

    def choose(price: float) -> list[int]:
        return [int(np.argmin(harm + price * paid)) for harm, paid in zip(harms, costs, strict=True)]

    low, high = -80.0, 20.0
    for _ in range(80):
        middle = (low + high) / 2
        spent = sum(paid[at] for paid, at in zip(costs, choose(float(np.exp(middle))), strict=True))
        low, high = (middle, high) if spent > budget else (low, middle)
    return {curve.layer.name: float(_GRID[at]) for curve, at in zip(curves, choose(float(np.exp(high))), strict=True)}


def _errors(
    graph: Graph, layer: Layer, step: Lockstep, images: int, patterns: Sequence[Pattern], seed: int
) -> dict[Pattern, tuple[float, ...]]:
    """Relative output error of a layer at each level, by pattern."""
    shape = (len(patterns), len(LEVELS))
    lost, whole = np.zeros(shape), 0.0
    for one in gather(graph, layer, step, images, seed):
        problem = _some_rows(one.problem())
        count = len(problem.weights)
        whole += float(problem.power.sum())
        scores = problem.weights.astype(np.float64) ** 2
        taps = layer.columns // layer.shape[1]
        masks = [mask_of(scores, taps, pattern, level) for pattern in patterns for level in LEVELS]
        # All at once: a few rows at a time would wait for memory.
        stacked = problem.rows(np.tile(np.arange(count), len(masks)))
        fitted = refit(stacked, np.concatenate(masks), progress=_PROGRESS)
        lost += stacked.error(fitted).reshape(*shape, count).sum(axis=-1)
    errors = lost / max(whole, 1e-300)
    return {pattern: tuple(map(float, row)) for pattern, row in zip(patterns, errors, strict=True)}


def _some_rows(problem: Problem) -> Problem:
    rows = len(problem.weights)
    wanted = int(np.clip(_EFFORT / problem.metric.apply_cost(), _FEWEST, _MOST))
    return problem.rows(np.linspace(0, rows - 1, min(wanted, rows)).astype(int))


def _sensitivities(
    graph: Graph, layers: Sequence[Layer], batches: Sequence[Mapping[str, Array]], seed: int
) -> dict[str, float]:
    """Divergence of the answers per share of noise in each layer's outputs, on a few samples."""
    executor = Executor()
    few: list[Mapping[str, Array]] = []
    for batch in batches:
        if sum(len(next(iter(item.values()))) for item in few) < _PROBED:
            few.append(batch)
    found = dict.fromkeys((layer.name for layer in layers), 0.0)
    logits = answers_of(graph)
    for index, batch in enumerate(few):
        values = dict(batch)
        for node in graph.nodes:
            values.update(_computed(graph, executor, node, values))
        for layer in layers:
            generator = np.random.default_rng((seed, index))
            y = values[layer.output]
            axes = (0, *range(2, y.ndim)) if layer.is_conv else tuple(range(y.ndim - 1))
            spread = y.std(axis=axes, keepdims=True) * np.sqrt(_NOISE)
            noisy = y + spread * generator.standard_normal(y.shape, np.float32)
            changed = _rerun(graph, executor, values, layer.output, noisy.astype(np.float32))
            found[layer.name] += divergence(values[logits], changed.get(logits, values[logits])) / _NOISE / len(few)
    return found


def _rerun(graph: Graph, executor: Executor, values: Mapping[str, Array], name: str, value: Array) -> dict[str, Array]:
    """The values that change when one value does."""
    changed = {name: value}
    for node in graph.nodes:
        if any(item in changed for item in node.inputs) and name not in node.outputs:
            changed.update(_computed(graph, executor, node, {**values, **changed}))
    return changed


def _computed(graph: Graph, executor: Executor, node: Node, values: Mapping[str, Array]) -> dict[str, Array]:
    read = [
        None if not name else graph.constants[name] if name in graph.constants else values[name] for name in node.inputs
    ]
    results = executor.compute(node, read)
    return {name: value for name, value in zip(node.outputs, results, strict=False) if name}
