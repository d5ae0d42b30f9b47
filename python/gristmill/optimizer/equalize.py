"""Equalization: share out the ranges of channels between a layer and the next, so that int8 suits both.

A channel that one layer scales down by s and the next scales up by s passes a ReLU or a maximum between them unchanged.

With ``s = sqrt(r1 / r2)``, r1 and r2 the largest weights of the channel in both layers, the two ranges become equal. It
matters for depthwise layers, whose channels often differ widely, and is done for pairs with one of those
(:func:`equalize`).

The value between two layers has one scale for all its channels. Pruning may leave channels that hardly ever speak, and
to which the next layer listens with huge weights: int8 would drown them. They are scaled up by powers of two, toward
the range of the loudest channel, where that leaves a tenth or less of the noise that int8 is expected to add
(:func:`balance_ranges`); rows of weights have scales of their own, so it costs nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from gristmill.graph import Array, Graph
from gristmill.optimizer.capture import Lockstep
from gristmill.optimizer.layers import Layer, find_layers, with_constants

__all__ = ["balance_ranges", "consecutive_layers", "equalizable_pairs", "equalize"]

_ROUNDS = 10

#: How far quiet channels may be raised toward the loudest, and what part of the noise has to be left at most.
_STRENGTHS, _WORTHWHILE = (0.25, 0.5, 0.75, 1.0), 0.1
_PASSES_SCALES = frozenset({"Relu", "MaxPool"})

Pair = tuple[Layer, Layer]


def consecutive_layers(graph: Graph) -> list[Pair]:
    """Layers of one kind that follow each other, with nothing between them but what a positive scale passes."""
    layers = {layer.source: layer for layer in find_layers(graph)}
    uses = graph.use_counts()
    passing = {node.inputs[0]: node.outputs[0] for node in graph.nodes if node.op in _PASSES_SCALES}
    found = []
    for first in layers.values():
        value = first.output
        while uses[value] == 1 and value in passing:
            value = passing[value]
        second = layers.get(value)
        if second is not None and uses[value] == 1 and first.is_conv == second.is_conv:
            found.append((first, second))
    return found


def equalizable_pairs(graph: Graph) -> list[Pair]:
    """Consecutive convolutions, at least one of them depthwise."""
    return [
        (first, second)
        for first, second in consecutive_layers(graph)
        if first.is_conv
        and (first.depthwise or second.depthwise)
        and (second.groups == 1 or (second.depthwise and second.rows == second.groups))
    ]


def equalize(graph: Graph) -> Graph:
    """A network of the same function whose depthwise layers and their neighbours have balanced channels."""
    change = _Rescaling(graph, equalizable_pairs(graph))
    for _ in range(_ROUNDS):
        for first, second in change.pairs:
            # A view of the second layer's weights with its input channels in front.
            incoming = change.incoming(second)
            r1 = np.abs(change.weights[first.name]).max(axis=1)
            r2 = np.abs(incoming).reshape(len(r1), -1).max(axis=1)
            with np.errstate(divide="ignore", invalid="ignore"):
                down = np.sqrt(r1 / r2).astype(np.float32)
            down[(r1 == 0) | (r2 == 0) | ~np.isfinite(down)] = 1.0
            change.apply(first, second, down)
    return change.graph()


def balance_ranges(graph: Graph, batches: Sequence[Mapping[str, Array]], ignored: Collection[str] = ()) -> Graph:
    """A network of the same function whose quiet channels use more of the int8 range, where that pays.

    Args:
        graph: In float32.
        batches: Inputs of the network.
        ignored: Names of layers that stay float32.
    """
    pairs = [
        (first, second)
        for first, second in consecutive_layers(graph)
        if second.groups == 1 and second.shape[1] == first.rows and second.name not in ignored
    ]
    change = _Rescaling(graph, pairs)
    spans = _spans(graph, pairs, batches)
    for first, second in pairs:
        raised = _raise(np.abs(change.incoming(second)), *spans[second.source])
        change.apply(first, second, 1.0 / raised)
    return change.graph()


class _Rescaling:
    """Weights and biases of pairs of layers, on the way to others of the same function."""

    def __init__(self, graph: Graph, pairs: Sequence[Pair]) -> None:
        self._graph, self.pairs = graph, pairs
        self._layers = {layer.name: layer for pair in pairs for layer in pair}
        self.weights = {name: layer.matrix(graph.constants).copy() for name, layer in self._layers.items()}
        self._biases = {name: layer.offsets(graph.constants).copy() for name, layer in self._layers.items()}

    def incoming(self, layer: Layer) -> Array:
        """A view of a layer's weights as (input channels, rows, taps), or as they are if it is depthwise."""
        matrix = self.weights[layer.name]
        if layer.depthwise:
            return np.asarray(matrix)
        return np.asarray(matrix.reshape(layer.rows, layer.shape[1], -1).swapaxes(0, 1))

    def apply(self, first: Layer, second: Layer, down: Array) -> None:
        """Scale channels between two layers down."""
        self.weights[first.name] /= down[:, None]
        self._biases[first.name] /= down
        incoming = self.incoming(second)
        incoming *= down.reshape(-1, *[1] * (incoming.ndim - 1))

    def graph(self) -> Graph:
        """The network as it is now."""
        changes = [
            (layer, self.weights[name], self._biases[name] if layer.bias else None)
            for name, layer in self._layers.items()
        ]
        return with_constants(self._graph, changes)


def _spans(
    graph: Graph, pairs: Sequence[Pair], batches: Sequence[Mapping[str, Array]]
) -> dict[str, tuple[Array, Array]]:
    """Largest magnitude and mean square of each channel of what second layers read."""
    found = {second.source: (np.zeros(first.rows), np.zeros(first.rows), second.is_conv) for first, second in pairs}
    if not found:
        return {}
    step = Lockstep(graph, batches)
    for node in graph.nodes:
        step.advance(node)
        for name in filter(found.__contains__, node.outputs):
            largest, square, is_conv = found[name]
            for batch in range(len(step)):
                x = np.moveaxis(step.original(batch, name), 1 if is_conv else -1, 0).reshape(len(largest), -1)
                np.maximum(largest, np.abs(x).max(axis=1, initial=0.0), out=largest)
                square += np.square(x).mean(axis=1, dtype=np.float64) / len(step)
    return {name: (largest, square) for name, (largest, square, _) in found.items()}


def _raise(incoming: Array, largest: Array, square: Array) -> Array:
    """Powers of two to scale channels up by, all 1 if that is not worth it.

    Args:
        incoming: Magnitudes of the next layer's weights, (channels, rows, taps).
        largest: Magnitude of each channel.
        square: Mean square of each channel.
    """
    top = float(largest.max(initial=0.0))
    room = np.log2(np.divide(top, largest, out=np.ones_like(largest), where=largest > 0))
    best = np.ones(len(largest), np.float32)
    least = _WORTHWHILE * _noise(incoming, best, top, square)
    for strength in _STRENGTHS:
        scale = np.exp2(np.floor(strength * room)).astype(np.float32)
        noise = _noise(incoming, scale, top, square)
        if noise < least:
            least, best = noise, scale
    return best


def _noise(incoming: Array, scale: Array, top: float, square: Array) -> float:
    """What rounding scaled channels, and the weights that read them, adds to the next layer's outputs: mean square."""
    weights = incoming / scale[:, None, None]
    values = (top / 255.0) ** 2 * np.square(weights).sum(dtype=np.float64)
    steps = weights.max(axis=(0, 2)) / 127.0
    read = ((weights > 0).sum(axis=2) * (square * scale.astype(np.float64) ** 2)[:, None]).sum(axis=0)
    return float(values + np.sum(steps**2 * read))
