"""Pruning: choose masks and refit what they leave, layer by layer, against the original network's outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gristmill.graph import Array, Graph
from gristmill.optimizer.admm import search_mask
from gristmill.optimizer.capture import Lockstep
from gristmill.optimizer.layers import Layer, find_layers, with_constants
from gristmill.optimizer.masks import Mask, Pattern, mask_of
from gristmill.optimizer.metric import Problem
from gristmill.optimizer.obs import affordable, greedy_mask
from gristmill.optimizer.refit import refit
from gristmill.optimizer.statistics import Sampler, Statistics

__all__ = [
    "METHODS",
    "Fitted",
    "Target",
    "added_to",
    "debt_of",
    "fit_layer",
    "gather",
    "prune_by_magnitude",
    "prune_calibrated",
]

Batches = Sequence[Mapping[str, Array]]

#: How masks are chosen with calibration data; ``magnitude`` needs none and changes no weight that stays.
METHODS = ("magnitude", "refit", "admm", "obs")
#: As far as refitted outputs are stretched.
_MOST_GAIN = 2.0


@dataclass(frozen=True)
class Target:
    """What is wanted of one layer.

    Attributes:
        pattern: What stays or goes together.
        sparsity: Share of the weights to drop.
        silent: Channels without weights give zeros, so that they can be removed, instead of their mean.
    """

    pattern: Pattern
    sparsity: float
    silent: bool = False


@dataclass(frozen=True)
class Fitted:
    """New weights and bias of a layer, and how far its outputs are from the original's on the calibration set.

    ``error`` is the mean square error over the mean square of the centred original outputs.
    """

    weights: Array
    bias: Array
    error: float


def prune_by_magnitude(graph: Graph, targets: Mapping[str, Target]) -> Graph:
    """Drop the weights of least magnitude; the others stay as they are."""
    changes: list[tuple[Layer, Array, Array | None]] = []
    for layer in find_layers(graph):
        if layer.name in targets:
            weights = layer.matrix(graph.constants)
            target = targets[layer.name]
            kept = weights * mask_of(weights.astype(np.float64) ** 2, _taps(layer), target.pattern, target.sparsity)
            changes.append((layer, kept, _silenced(layer.offsets(graph.constants), kept) if target.silent else None))
    return with_constants(graph, changes)


def prune_calibrated(
    graph: Graph,
    targets: Mapping[str, Target],
    batches: Batches,
    *,
    method: str = "admm",
    sequential: bool = True,
    seed: int = 0,
    on_layer: Callable[[Layer], None] = lambda _layer: None,
) -> tuple[Graph, dict[str, Fitted]]:
    """Prune and refit layer by layer, each for the inputs it gets from the layers already changed.

    Layers without a target keep all their weights, which are refitted too, so that they make up for those before them.

    Args:
        graph: The original network.
        targets: Pattern and sparsity by name of the layer.
        batches: Inputs of the network.
        method: One of :data:`METHODS`.
        sequential: Refit layers for the inputs that they get from the changed layers before them, rather than for those
            that they had.
        seed: Decides which positions of images are looked at.
        on_layer: Called before each layer.
    """
    layers = {layer.name: layer for layer in find_layers(graph)}
    images = sum(len(next(iter(batch.values()))) for batch in batches)
    step = Lockstep(graph, batches)
    changes: list[tuple[Layer, Array, Array | None]] = []
    fitted: dict[str, Fitted] = {}
    for node in graph.nodes:
        layer = layers.get(node.name)
        if layer is None:
            step.advance(node)
            continue
        on_layer(layer)
        target = targets.get(layer.name)
        if target is None and not sequential:
            step.advance(node)
            continue
        statistics = gather(graph, layer, step, images, seed)
        found = fit_layer(graph, layer, statistics, target, method, made_up_for=sequential)
        fitted[layer.name] = found
        change = (layer, found.weights, found.bias)
        changes.append(change)
        if not sequential:
            step.advance(node)
            continue
        changed = with_constants(graph.replace(nodes=[node]), [change])
        step.advance(node, changed.nodes[0], changed.constants)
    return with_constants(graph, changes), fitted


def gather(graph: Graph, layer: Layer, step: Lockstep, images: int, seed: int) -> list[Statistics]:
    """Statistics of each group of the layer that comes next."""
    sampler = Sampler(layer, images, seed)
    weights = layer.matrix(graph.constants)
    each = layer.rows // layer.groups
    statistics = [Statistics(weights[start : start + each]) for start in range(0, layer.rows, each)]
    beside = added_to(graph, layer)
    for batch in range(len(step)):
        x, z = step.original(batch, layer.source), step.changed(batch, layer.source)
        chosen = sampler.positions(x, batch)
        debts: list[Array] | list[None] = [None] * layer.groups
        debt = debt_of(step, batch, beside, sampler.shape(x))
        if debt is not None:
            debts = np.split(sampler.outputs(debt, chosen), layer.groups, axis=1)
        for group, one in enumerate(statistics):
            inputs = sampler.inputs(x, chosen, group)
            one.add(inputs, inputs if z is x else sampler.inputs(z, chosen, group), debts[group])
    return statistics


def added_to(graph: Graph, layer: Layer) -> str:
    """The value that an Add joins with the layer's output and that nothing else sees, or an empty name."""
    if graph.use_counts()[layer.output] != 1:
        return ""
    node = next((node for node in graph.nodes if layer.output in node.inputs), None)
    if node is None or node.op != "Add":
        return ""
    other = [name for name in node.inputs if name != layer.output]
    return other[0] if other else ""


def debt_of(step: Lockstep, batch: int, beside: str, shape: tuple[int, ...]) -> Array | None:
    """What a layer's outputs of this shape should make up for, where the value that they are added to has changed."""
    if not beside or not step.differs(batch, beside):
        return None
    debt = step.original(batch, beside) - step.changed(batch, beside)
    return np.asarray(debt) if debt.shape == shape else None


def fit_layer(
    graph: Graph,
    layer: Layer,
    statistics: Sequence[Statistics],
    target: Target | None,
    method: str,
    *,
    made_up_for: bool = True,
) -> Fitted:
    """Mask and refit one layer.

    Least squares shrinks what it cannot explain. If later layers will not make up for that, rows are given back the
    deviations that they had.
    """
    parts, shifts, lost, whole = [], [], 0.0, 0.0
    for one in statistics:
        problem = one.problem()
        mask, near = _mask(problem, one.weights, layer, target, method)
        scaled = problem.weights * mask if method == "magnitude" else refit(problem, mask, near)
        if method != "magnitude" and not made_up_for:
            scaled *= _regain(problem, scaled)
        weights = (scaled / problem.scale).astype(np.float32)
        parts.append(weights)
        shifts.append(one.bias_shift(weights))
        lost += float(problem.error(scaled).sum())
        whole += float(problem.power.sum())
    matrix, bias = np.concatenate(parts), layer.offsets(graph.constants) + np.concatenate(shifts)
    if target is not None and target.silent:
        bias = _silenced(bias, matrix)
    return Fitted(matrix, bias.astype(np.float32), lost / whole if whole > 0 else 0.0)


def _regain(problem: Problem, scaled: Array) -> Array:
    """What stretches each row's refitted outputs, which have the power that they explain, to the original one's."""
    explained = np.maximum(problem.power - problem.error(scaled), problem.power / _MOST_GAIN**2)
    gain = np.sqrt(np.divide(problem.power, explained, out=np.ones_like(explained), where=explained > 0.0))
    return np.asarray(gain.astype(np.float32)[:, None])


def _silenced(bias: Array, matrix: Array) -> Array:
    return np.where(matrix.any(axis=1), bias, np.float32(0))


def _mask(
    problem: Problem, weights: Array, layer: Layer, target: Target | None, method: str
) -> tuple[Mask, Array | None]:
    """A mask, and weights near its refit if it was searched for."""
    if target is None or target.sparsity <= 0.0:
        return np.ones(weights.shape, np.bool_), None
    if method == "magnitude":
        return mask_of(weights.astype(np.float64) ** 2, _taps(layer), target.pattern, target.sparsity), None
    if method == "refit":
        return mask_of(problem.weights.astype(np.float64) ** 2, _taps(layer), target.pattern, target.sparsity), None
    if method == "obs" and target.pattern.kind == "unstructured" and affordable(weights.shape):
        return greedy_mask(problem, target.sparsity), None
    return search_mask(problem, _taps(layer), target.pattern, target.sparsity)


def _taps(layer: Layer) -> int:
    return layer.columns // layer.shape[1]
