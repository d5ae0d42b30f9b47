"""Preparing: bring a network to the form that the optimizer works on, without changing what it computes.

BatchNormalization and constant offsets behind a layer go into its weights and bias, and products of matrices become
linear layers, so that what is pruned and quantized is what will run.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gristmill.graph import Array, Graph, Node
from gristmill.operators import Known, TensorType
from gristmill.optimizer.layers import Layer, find_layers, with_constants
from gristmill.reference import infer

__all__ = ["prepare"]


def prepare(graph: Graph, feeds: Mapping[str, Array]) -> Graph:
    """An equal network with layers in their simplest form; ``feeds`` tell the shapes of its inputs."""
    known = infer(graph, {name: TensorType(value.dtype, value.shape) for name, value in feeds.items()})
    graph = graph.replace(nodes=[_as_gemm(node, graph.constants, known) for node in graph.nodes])
    while (folded := _fold_one(graph, known)) is not None:
        graph = folded
    return graph.without_dead().check()


def _as_gemm(node: Node, constants: Mapping[str, Array], known: Mapping[str, Known]) -> Node:
    if node.op != "MatMul" or known[node.inputs[0]].ndim != 2 or node.inputs[1] not in constants:
        return node
    if constants[node.inputs[1]].ndim != 2 or constants[node.inputs[1]].dtype != np.float32:
        return node
    return Node("Gemm", node.inputs, node.outputs, {}, node.name)


def _fold_one(graph: Graph, known: Mapping[str, Known]) -> Graph | None:
    uses = graph.use_counts()
    layers = {layer.output: layer for layer in find_layers(graph)}
    for node in graph.nodes:
        for source in node.inputs if node.op == "Add" else node.inputs[:1]:
            layer = layers.get(source)
            if layer is None or uses[source] != 1:
                continue
            affine = _affine(node, source, layer, graph.constants, known)
            if affine is not None:
                return _folded(graph, layer, node, *affine)
    return None


def _affine(
    node: Node, source: str, layer: Layer, constants: Mapping[str, Array], known: Mapping[str, Known]
) -> tuple[Array, Array] | None:
    """Scale and offset per channel that the node applies to the layer's output, if that is all it does."""
    if node.op == "BatchNormalization" and all(name in constants for name in node.inputs[1:5]):
        if node.integer("training_mode", 0) or len([name for name in node.outputs if name]) > 1:
            return None
        gamma, beta, mean, variance = (constants[name].astype(np.float64) for name in node.inputs[1:5])
        scale = gamma / np.sqrt(variance + node.real("epsilon", 1e-5))
        return scale, beta - mean * scale
    other = next((name for name in node.inputs if name != source), "")
    if node.op != "Add" or other not in constants:
        return None
    rank = known[source].ndim
    channel = 1 if layer.is_conv else rank - 1
    offset = constants[other]
    shape = (1,) * (rank - offset.ndim) + offset.shape
    if offset.ndim > rank or any(extent != 1 for axis, extent in enumerate(shape) if axis != channel):
        return None
    return np.ones(layer.rows), np.broadcast_to(offset.reshape(-1).astype(np.float64), (layer.rows,))


def _folded(graph: Graph, layer: Layer, node: Node, scale: Array, offset: Array) -> Graph:
    matrix = layer.matrix(graph.constants)
    bias = layer.offsets(graph.constants)
    if np.any(scale != 1.0):
        matrix = (matrix * scale[:, None]).astype(np.float32)
    graph = with_constants(graph, [(layer, matrix, (bias * scale + offset).astype(np.float32))])
    nodes = []
    for item in graph.nodes:
        if item.name == layer.name:
            nodes.append(Node(item.op, item.inputs, node.outputs[:1], item.attributes, item.name))
        elif item.name != node.name:
            nodes.append(item)
    return graph.replace(nodes=nodes)
