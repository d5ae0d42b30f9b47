"""Repair: give the channels of a pruned network the means and deviations that they had.

Least squares shrinks what it cannot explain, so outputs of refitted layers vary less than the original's. A channel is
stretched by ``g = 1 + k (s / t - 1)`` about its mean, s and t its deviations in the original and the changed network;
a layer that makes up for what it is added to is given the moments of its original outputs and that debt together.
Stretched weights differ in the scales of their int8 rows, so the repair costs nothing at run time. Channels without
weights stay as they are.

The answers' deviations are a network's confidence, and are given back in full by one gain for all. One k for all other
layers is taken, the one of which the answers are closest to the original's, on samples that the moments do not come
from. Answers are compared up to a common scale, as confidence in general says nothing about what a network prefers. The
network stays as it is unless the repair brings its answers closer by more than the standard error of the differences
between pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gristmill.graph import Array, Graph
from gristmill.optimizer.answers import answers_of, distances
from gristmill.optimizer.capture import Lockstep
from gristmill.optimizer.layers import Layer, find_layers, with_constants
from gristmill.optimizer.pruning import added_to, debt_of

__all__ = ["repair"]

Batches = Sequence[Mapping[str, Array]]

_STRENGTHS = (0.25, 0.5, 1.0)
_LEAST, _MOST = 0.5, 2.0
_SAMPLES = 512


@dataclass(frozen=True)
class _Repaired:
    """A network, and how far each of its answers is from the original's."""

    graph: Graph
    distances: Array


def repair(original: Graph, changed: Graph, batches: Batches) -> Graph:
    """The changed network with repaired channels, or as it is if no repair clearly brings its answers closer.

    Args:
        original: The network before pruning.
        changed: The same nodes, with other weights.
        batches: Inputs of the network.
    """
    few = _few(batches)
    if len(few) < 2:
        return changed
    untouched = _stretched(original, changed, few, None)
    tried = [_stretched(original, changed, few, strength) for strength in _STRENGTHS]
    best = min(tried, key=lambda one: float(one.distances.mean()))
    gains = untouched.distances - best.distances
    return best.graph if gains.mean() > gains.std() / np.sqrt(gains.size) else changed


def _few(batches: Batches) -> list[Mapping[str, Array]]:
    few: list[Mapping[str, Array]] = []
    count = 0
    for batch in batches:
        if count < _SAMPLES:
            few.append(batch)
            count += len(next(iter(batch.values())))
    return few


def _stretched(original: Graph, changed: Graph, batches: Batches, strength: float | None) -> _Repaired:
    """Repair in execution order on even batches, and compare the answers on odd ones."""
    layers = {layer.name: layer for layer in find_layers(changed)}
    answers = answers_of(original)
    step = Lockstep(original, batches, keep=[answers])
    changes: list[tuple[Layer, Array, Array | None]] = []
    for node in original.nodes:
        layer = layers.get(node.name)
        if layer is None:
            step.advance(node)
            continue
        step.advance(node, layer.node, changed.constants)
        if strength is not None:
            changes.append(_repaired(layer, changed, step, strength, answers=layer.output == answers))
    odd = range(1, len(step), 2)
    reference, given = ([value(batch, answers) for batch in odd] for value in (step.original, step.changed))
    return _Repaired(with_constants(changed, changes), distances(reference, given))


def _repaired(
    layer: Layer, graph: Graph, step: Lockstep, strength: float, *, answers: bool
) -> tuple[Layer, Array, Array | None]:
    """Stretch channels by a strength; if they are the answers, all by what they lack together."""
    even = range(0, len(step), 2)
    beside = added_to(graph, layer)
    wanted, deviation = _moments([_wanted(layer, step, batch, beside) for batch in even], layer)
    mean, narrowed = _moments([step.changed(batch, layer.output) for batch in even], layer)
    if answers:
        strength = 1.0
        deviation, narrowed = (np.full_like(found, np.linalg.norm(found)) for found in (deviation, narrowed))
    alive = narrowed > 1e-6 * deviation.max(initial=0.0)
    ratio = np.divide(deviation, narrowed, out=np.ones_like(deviation), where=alive)
    gain = 1.0 + strength * (np.clip(ratio, _LEAST, _MOST) - 1.0)
    matrix = layer.matrix(graph.constants)
    shift = np.where(matrix.any(axis=1), wanted - gain * mean, 0.0)
    shape = [1, -1, *[1] * (step.changed(0, layer.output).ndim - 2)] if layer.is_conv else [-1]
    for batch in range(len(step)):
        y = step.changed(batch, layer.output)
        repaired = y * gain.reshape(shape) + shift.reshape(shape)
        step.replace(batch, layer.output, repaired.astype(np.float32))
    return (
        layer,
        (matrix * gain[:, None]).astype(np.float32),
        (gain * layer.offsets(graph.constants) + shift).astype(np.float32),
    )


def _wanted(layer: Layer, step: Lockstep, batch: int, beside: str) -> Array:
    """What the layer should give: the original outputs, and what it makes up for."""
    outputs = step.original(batch, layer.output)
    debt = debt_of(step, batch, beside, outputs.shape)
    return outputs if debt is None else outputs + debt


def _moments(outputs: Sequence[Array], layer: Layer) -> tuple[Array, Array]:
    """Mean and deviation of each channel."""
    axes = (0, *range(2, outputs[0].ndim)) if layer.is_conv else tuple(range(outputs[0].ndim - 1))
    count = sum(item.size for item in outputs) / layer.rows
    mean = sum(item.sum(axis=axes, dtype=np.float64) for item in outputs) / count
    square = sum(np.square(item).sum(axis=axes, dtype=np.float64) for item in outputs) / count
    return np.asarray(mean), np.sqrt(np.maximum(square - mean**2, 0.0))
