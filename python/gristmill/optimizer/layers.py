"""Layer: a convolution or linear node with constant weights, seen as a matrix of rows (outputs) times columns (inputs).

Columns run over (input channel, tap) in the order of the weights, so a linear layer is the case of one tap. Grouped
convolutions have one matrix per group, stacked: row r multiplies the inputs of its own group.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from gristmill.graph import Array, Graph, Node

__all__ = ["Layer", "find_layers", "owner_of", "with_constants"]


@dataclass(frozen=True)
class Layer:
    """Where a layer sits in its graph, and the shape of its weights.

    Attributes:
        node: The Conv or Gemm node.
        shape: Of the weights as convolutions have it: (output channels, input channels / groups, *kernel).
        groups: Groups of a convolution.
        transposed: The constant holds (inputs, outputs), as a plain Gemm has it.
    """

    node: Node
    shape: tuple[int, ...]
    groups: int = 1
    transposed: bool = False

    @property
    def name(self) -> str:
        """The node's name."""
        return self.node.name

    @property
    def source(self) -> str:
        """The value it reads."""
        return self.node.inputs[0]

    @property
    def weight(self) -> str:
        """The constant that holds the weights."""
        return self.node.inputs[1]

    @property
    def bias(self) -> str:
        """The constant that holds the bias, or an empty name."""
        return self.node.input(2)

    @property
    def output(self) -> str:
        """The value it writes."""
        return self.node.outputs[0]

    @property
    def rows(self) -> int:
        """Output channels."""
        return self.shape[0]

    @property
    def columns(self) -> int:
        """Weights per output channel."""
        return math.prod(self.shape[1:])

    @property
    def size(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def depthwise(self) -> bool:
        """Whether each output channel reads one input channel alone."""
        return self.groups > 1 and self.shape[1] == 1

    @property
    def is_conv(self) -> bool:
        """Whether it walks over an image."""
        return self.node.op == "Conv"

    def matrix(self, constants: Mapping[str, Array]) -> Array:
        """The weights as (rows, columns) in float32."""
        weights = constants[self.weight]
        return np.ascontiguousarray(weights.T if self.transposed else weights.reshape(self.rows, -1), np.float32)

    def offsets(self, constants: Mapping[str, Array]) -> Array:
        """The bias, zeros if there is none, in float32."""
        if not self.bias:
            return np.zeros(self.rows, np.float32)
        return np.broadcast_to(constants[self.bias].astype(np.float32).reshape(-1), (self.rows,))

    def constant(self, matrix: Array) -> Array:
        """A (rows, columns) matrix in the form of the weights' constant."""
        return np.ascontiguousarray(matrix.T if self.transposed else matrix.reshape(self.shape))


def find_layers(graph: Graph) -> list[Layer]:
    """The layers of a graph in execution order, those that share their weights with another node left out.

    A Conv of any rank and a Gemm without scaling count if their weights are a float32 constant, and their bias is one
    too if they have one. Products of matrices become Gemm before (:mod:`gristmill.optimizer.prepare`).
    """
    uses = graph.use_counts()
    found = (_layer(graph, node) for node in graph.nodes)
    return [layer for layer in found if layer is not None and uses[layer.weight] == 1]


def _layer(graph: Graph, node: Node) -> Layer | None:
    weights = graph.constants.get(node.input(1))
    bias = node.input(2)
    if weights is None or weights.dtype != np.float32 or not weights.size or node.input(0) in graph.constants:
        return None
    if bias and (bias not in graph.constants or graph.constants[bias].dtype != np.float32):
        return None
    if node.op == "Conv":
        return Layer(node, weights.shape, node.integer("group", 1))
    if node.op == "Gemm" and not node.integer("transA", 0) and node.real("alpha", 1.0) == node.real("beta", 1.0) == 1.0:
        flipped = not node.integer("transB", 0)
        shape = weights.shape[::-1] if flipped else weights.shape
        fits = not bias or graph.constants[bias].size in {1, shape[0]}
        return Layer(node, shape, transposed=flipped) if fits else None
    return None


def owner_of(constant: str, layers: Iterable[Layer]) -> str:
    """The name of the layer whose weights a constant of a compiled network holds, or an empty name.

    Passes append to the name of what they change.
    """
    owners = [
        (len(layer.weight), layer.name)
        for layer in layers
        if constant == layer.weight or constant.startswith(f"{layer.weight}.")
    ]
    return max(owners, default=(0, ""))[1]


def with_constants(graph: Graph, changes: Iterable[tuple[Layer, Array, Array | None]]) -> Graph:
    """A copy of a graph with the weight matrices, and biases where given, of some layers exchanged."""
    constants = dict(graph.constants)
    renamed: dict[str, Node] = {}
    for layer, matrix, offsets in changes:
        constants[layer.weight] = layer.constant(matrix)
        if offsets is None:
            continue
        name, node = _own_bias(layer, graph, constants)
        constants[name] = offsets.astype(np.float32)
        renamed[node.name] = node
    return graph.replace(nodes=[renamed.get(node.name, node) for node in graph.nodes], constants=constants)


def _own_bias(layer: Layer, graph: Graph, constants: Mapping[str, Array]) -> tuple[str, Node]:
    """The name of a bias that no other node reads, and the node that reads it."""
    if layer.bias and graph.use_counts()[layer.bias] == 1:
        return layer.bias, layer.node
    name = f"{layer.name}.bias"
    while name in constants:
        name += "_"
    node = layer.node
    return name, Node(node.op, (*node.inputs[:2], name), node.outputs, node.attributes, node.name)
