"""What the nodes of a graph hold: shapes of results, and of weights their shape, element type, bytes and zeros.

Weights belong to the layer that multiplies by them. Between the constant that stores them and the layer may be nodes
that only turn its form or its numbers, such as a DequantizeLinear: those hold nothing themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gristmill.errors import ArgumentError, GristmillError
from gristmill.graph import Array, Graph, Node
from gristmill.operators import Known, TensorType
from gristmill.operators.quantization import spread
from gristmill.reference import infer

__all__ = ["LayerSummary", "count_zeros", "is_weight", "output_shapes", "summarize"]


@dataclass(frozen=True)
class LayerSummary:
    """One node of a model.

    Attributes:
        name: The node.
        op: Its operator.
        shape: The shape of its first result, as far as it is known.
        parameters: How many weights it reads: of a convolution or linear layer those that it multiplies by, without
            its bias; of other nodes all learned constants.
        nbytes: The bytes that they take.
        zeros: How many of them stand for zero.
        weight: The constant that stores the weights of a convolution or linear layer; empty for other nodes.
        weight_shape: Its shape; None for other nodes.
        dtype: Its element type, such as int8 where weights are quantized; None for other nodes.
    """

    name: str
    op: str
    shape: tuple[int | str, ...] | None
    parameters: int
    nbytes: int
    zeros: int
    weight: str = ""
    weight_shape: tuple[int, ...] | None = None
    dtype: np.dtype[Any] | None = None

    @property
    def sparsity(self) -> float:
        """The part of the weights that is zero."""
        return self.zeros / self.parameters if self.parameters else 0.0


#: Where convolutions and products have their weights, and the zero point of those.
_OPERANDS: dict[str, tuple[tuple[int, int | None], ...]] = {
    "Conv": ((1, None),),
    "ConvTranspose": ((1, None),),
    "Gemm": ((1, None), (0, None)),
    "MatMul": ((1, None), (0, None)),
    "ConvInteger": ((1, 3),),
    "MatMulInteger": ((1, 3), (0, 2)),
    "QLinearConv": ((3, 5),),
    "QLinearMatMul": ((3, 5), (0, 2)),
    "QGemm": ((3, 5), (0, 2)),
}
_TURNING = frozenset({"Cast", "Flatten", "Identity", "QuantizeLinear", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
_BOOKKEEPING = frozenset(map(np.dtype, (np.int64, np.bool_)))


def is_weight(value: Array) -> bool:
    """Whether a constant carries what was learned: all but the integers of shape arithmetic do."""
    return value.dtype not in _BOOKKEEPING


def summarize(graph: Graph) -> list[LayerSummary]:
    """A summary of each node, in order."""
    shapes = output_shapes(graph)
    writers = {name: node for node in graph.nodes for name in node.outputs}
    found = [_stored_weights(node, graph, writers) for node in graph.nodes]
    passed = {name for stored in found if stored is not None for name in stored.path}
    result = []
    for node, stored in zip(graph.nodes, found, strict=True):
        shape = shapes.get(node.outputs[0])
        if stored is not None:
            value, zeros = graph.constants[stored.name], stored.zeros(graph)
            kind = (stored.name, value.shape, value.dtype)
            result.append(LayerSummary(node.name, node.op, shape, value.size, value.nbytes, zeros, *kind))
            continue
        known = [] if node.outputs[0] in passed else [graph.constants.get(name) for name in node.inputs]
        read = [value for value in known if value is not None and is_weight(value)]
        figures = [sum(part) for part in zip(*((w.size, w.nbytes, count_zeros(w)) for w in read), strict=True)]
        result.append(LayerSummary(node.name, node.op, shape, *(figures or (0, 0, 0))))
    return result


def count_zeros(values: Array) -> int:
    """How many values are zero."""
    return values.size - int(np.count_nonzero(values))


@dataclass(frozen=True)
class _Stored:
    """The constant that holds a layer's weights, and the values on the way from there.

    Attributes:
        name: The constant.
        reader: The node that reads the zero points.
        zero: These; empty if they are 0.
        axis: To which they belong.
        path: The values on the way.
    """

    name: str
    reader: Node
    zero: str
    axis: int
    path: tuple[str, ...]

    def zeros(self, graph: Graph) -> int:
        """How many weights stand for zero."""
        value, zero = graph.constants[self.name], graph.constants.get(self.zero)
        return count_zeros(value if zero is None else value != spread(self.reader, zero, value, self.axis))


def _stored_weights(node: Node, graph: Graph, writers: Mapping[str, Node]) -> _Stored | None:
    for place, zero_place in _OPERANDS.get(node.op, ()):
        reader, zero = node, node.input(zero_place) if zero_place is not None else ""
        axis = 0 if node.op in {"QLinearConv", "ConvInteger"} else -2 if place == 0 else -1
        name, path = node.input(place), []
        while name in writers and (writers[name].op in _TURNING or writers[name].op == "DequantizeLinear"):
            writer = writers[name]
            if writer.op == "DequantizeLinear":
                reader, zero, axis = writer, writer.input(2), writer.integer("axis", 1)
            path.append(name)
            name = writer.inputs[0]
        if name in graph.constants:
            return _Stored(name, reader, zero, axis, tuple(path))
    return None


def output_shapes(graph: Graph) -> dict[str, tuple[int | str, ...]]:
    """The shape of every value, with the names of open extents where they are passed on; empty if none can be told.

    Open extents are tried with two different numbers: what changes with them is named after them.
    """
    names = sorted({extent for info in graph.inputs for extent in info.shape or () if isinstance(extent, str)})
    try:
        small = infer(graph, _types(graph, dict.fromkeys(names, 224)))
        named = {name: 256 + 32 * index for index, name in enumerate(names)}
        large = infer(graph, _types(graph, named))
    except GristmillError:
        return {}
    back = {extent: name for name, extent in named.items()}
    return {name: _merged(value.shape, large[name].shape, back) for name, value in small.items()}


def _types(graph: Graph, extents: Mapping[str, int]) -> dict[str, Known]:
    types: dict[str, Known] = {}
    for info in graph.inputs:
        if info.shape is None:
            raise ArgumentError("has an unknown rank", node=info.name)
        shape = tuple(extent if isinstance(extent, int) else extents[extent] for extent in info.shape)
        types[info.name] = TensorType(info.dtype, shape)
    return types


def _merged(small: tuple[int, ...], large: tuple[int, ...], names: Mapping[int, str]) -> tuple[int | str, ...]:
    if len(small) != len(large):
        return ("...",)
    return tuple(a if a == b else names.get(b, "?") for a, b in zip(small, large, strict=True))
