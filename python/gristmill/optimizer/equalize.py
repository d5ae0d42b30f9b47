"""Equalization: share out the ranges of channels between a layer and the next, so that int8 suits both.

A channel that one layer scales down by s and the next scales up by s passes a ReLU between them unchanged. With
``s = sqrt(r1 / r2)``, r1 and r2 the largest weights of the channel in both layers, the two ranges become equal. It
matters for depthwise layers, whose channels often differ widely, and is done for pairs with one of those.
"""

from __future__ import annotations

import numpy as np

from gristmill.graph import Array, Graph
from gristmill.optimizer.layers import Layer, find_layers, with_constants

__all__ = ["equalizable_pairs", "equalize"]

_ROUNDS = 10


def equalizable_pairs(graph: Graph) -> list[tuple[Layer, Layer]]:
    """Convolutions that follow each other directly or through a ReLU, at least one of them depthwise."""
    layers = {layer.source: layer for layer in find_layers(graph) if layer.is_conv}
    uses = graph.use_counts()
    relus = {node.inputs[0]: node.outputs[0] for node in graph.nodes if node.op == "Relu"}
    found = []
    for first in layers.values():
        value = first.output
        if uses[value] == 1 and value in relus:
            value = relus[value]
        second = layers.get(value)
        if second is None or uses[value] != 1 or not (first.depthwise or second.depthwise):
            continue
        if second.groups == 1 or (second.depthwise and second.rows == second.groups):
            found.append((first, second))
    return found


def equalize(graph: Graph) -> Graph:
    """A network of the same function whose depthwise layers and their neighbours have balanced channels."""
    pairs = equalizable_pairs(graph)
    weights = {layer.name: layer.matrix(graph.constants).copy() for pair in pairs for layer in pair}
    biases = {layer.name: layer.offsets(graph.constants).copy() for pair in pairs for layer in pair}
    for _ in range(_ROUNDS):
        for first, second in pairs:
            # A view of the second layer's weights with its input channels in front.
            incoming = _by_input(second, weights[second.name])
            r1 = np.abs(weights[first.name]).max(axis=1)
            r2 = np.abs(incoming).reshape(len(r1), -1).max(axis=1)
            with np.errstate(divide="ignore", invalid="ignore"):
                down = np.sqrt(r1 / r2).astype(np.float32)
            down[(r1 == 0) | (r2 == 0) | ~np.isfinite(down)] = 1.0
            weights[first.name] /= down[:, None]
            biases[first.name] /= down
            incoming *= down.reshape(-1, *[1] * (incoming.ndim - 1))
    layers = {layer.name: layer for pair in pairs for layer in pair}
    changes = [(layer, weights[name], biases[name] if layer.bias else None) for name, layer in layers.items()]
    return with_constants(graph, changes)


def _by_input(layer: Layer, matrix: Array) -> Array:
    if layer.depthwise:
        return matrix
    return np.asarray(matrix.reshape(layer.rows, layer.shape[1], -1).swapaxes(0, 1))
