"""QDQ: write quantization into a graph as QuantizeLinear and DequantizeLinear around what runs in integers.

Which values are quantized follows from which layers are: the inputs of int8 layers, and, upstream of those, the inputs
of operators that work on 8-bit values as well, so that no float32 value comes between two integer layers. A ReLU or
Clip behind its producer only narrows the clamp that stores the result, so nothing is quantized between them. Operators
that move values or pick among them keep the scale of what they read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from gristmill.graph import Array, Graph, GraphBuilder, Node
from gristmill.optimizer.layers import Layer
from gristmill.quantization import quantize_per_channel

__all__ = ["Activation", "insert_qdq", "insert_weight_qdq", "quantize_rows", "quantized_values"]

#: Operators whose result has the scale of their first input.
KEEPS_SCALE = frozenset(
    {"DepthToSpace", "Dropout", "Expand", "Flatten", "GlobalMaxPool", "Identity", "MaxPool", "Reshape", "Slice"}
    | {"Squeeze", "Transpose", "Unsqueeze"}
)
#: Operators on 8-bit values whose result has a scale of its own; those in the second set read one value each.
_OWN_SCALE = frozenset(["Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "Pad", "Resize"])
_CURVES = frozenset(["LeakyRelu", "Sigmoid", "HardSigmoid", "HardSwish", "Swish", "Tanh", "Elu"])
_CLAMPS = frozenset({"Relu", "Clip"})
#: The most steps of a bias: the sum of a layer's products comes on top.
_BIAS_STEPS = 2**30
#: The largest weight that layers of zeros are taken to have.
_NOTHING = np.float32(127 * 2.0**-20)
_BYTEWISE = KEEPS_SCALE | _OWN_SCALE | _CURVES


@dataclass(frozen=True)
class Activation:
    """Scale and zero point of a quantized value; the zero point's type is the value's."""

    scale: np.float32
    zero_point: np.uint8 | np.int8


def quantized_values(graph: Graph, layers: Iterable[Layer]) -> dict[str, str]:
    """The values to quantize when these layers run in integers, each with the value whose scale it takes."""
    producers, uses = graph.producers(), graph.use_counts()
    marked: set[str] = set()
    pending = [layer.source for layer in layers]
    while pending:
        name = pending.pop()
        if name in marked or name in graph.constants:
            continue
        marked.add(name)
        node = producers.get(name)
        if node is not None and node.op in _CLAMPS:
            source = node.inputs[0]
            node = producers.get(source)
            if node is not None and node.op in _BYTEWISE and not (node.op in _OWN_SCALE and uses[source] == 1):
                pending.append(source)
                continue
        if node is not None and node.op in _BYTEWISE:
            pending.extend(_data_inputs(node))
    return {name: _scale_owner(name, producers, marked) for name in marked}


def quantize_rows(matrix: Array, *, per_channel: bool = True, least: Array | float = 0.0) -> tuple[Array, Array]:
    """Weights as int8 and a scale for each row, the same for all unless ``per_channel``; zeros stay zeros.

    Rows of zeros have the scale of the coarsest other row, or a fine one; no scale is below ``least``.
    """
    largest = np.abs(matrix).max(axis=1)
    top = largest.max(initial=0.0)
    largest = (
        np.where(largest == 0, top or _NOTHING, largest) if per_channel else np.full_like(largest, top or _NOTHING)
    )
    scale = np.maximum(largest / np.float32(127), np.maximum(least, np.float32(2.0**-126))).astype(np.float32)
    values = quantize_per_channel(np.ascontiguousarray(matrix, np.float32), scale, axis=0)
    return np.maximum(values, np.int8(-127)), scale


def insert_qdq(
    graph: Graph, layers: Iterable[Layer], activations: Mapping[str, Activation], *, per_channel: bool = True
) -> Graph:
    """A graph in which these layers and the values between them are quantized.

    Args:
        graph: In float32.
        layers: Those that run in integers.
        activations: Scale and zero point of each of :func:`quantized_values`.
        per_channel: Whether each row of weights has a scale of its own.
    """
    integer = {layer.name: layer for layer in layers}
    taken = {*graph.constants, *(name for node in graph.nodes for name in (*node.outputs, node.name))}
    builder = GraphBuilder({*taken, *(info.name for info in graph.inputs)})
    nodes: list[Node] = []
    constants = dict(graph.constants)
    read: dict[str, str] = {}

    def quantize(name: str) -> None:
        scale, zero = builder.fresh(f"{name}.scale"), builder.fresh(f"{name}.zero_point")
        stored, restored = builder.fresh(f"{name}.quantized"), builder.fresh(f"{name}.dequantized")
        constants[scale] = np.asarray(activations[name].scale, np.float32)
        constants[zero] = np.asarray(activations[name].zero_point)
        nodes.append(Node("QuantizeLinear", (name, scale, zero), (stored,), {}, builder.fresh(f"{name}.quantize")))
        nodes.append(
            Node("DequantizeLinear", (stored, scale, zero), (restored,), {}, builder.fresh(f"{name}.dequantize"))
        )
        read[name] = restored

    for info in graph.inputs:
        if info.name in activations:
            quantize(info.name)
    for node in graph.nodes:
        inputs = [read.get(name, name) for name in node.inputs]
        if layer := integer.get(node.name):
            x_scale = activations[layer.source].scale
            inputs[1:] = _quantized_weights(layer, x_scale, per_channel, constants, nodes, builder)
        nodes.append(Node(node.op, tuple(inputs), node.outputs, node.attributes, node.name))
        for name in node.outputs:
            if name in activations:
                quantize(name)
    return graph.replace(nodes=nodes, constants=constants).without_dead().check()


def insert_weight_qdq(graph: Graph, layers: Iterable[Layer], *, dynamic: bool, per_channel: bool = True) -> Graph:
    """A graph in which the weights of these layers are int8, and their inputs too if ``dynamic``.

    Dynamic inputs are quantized to the range that each run has. Biases stay float32.
    """
    integer = {layer.name: layer for layer in layers}
    taken = {*graph.constants, *(name for node in graph.nodes for name in (*node.outputs, node.name))}
    builder = GraphBuilder({*taken, *(info.name for info in graph.inputs)})
    nodes: list[Node] = []
    constants = dict(graph.constants)
    read: dict[str, str] = {}
    for node in graph.nodes:
        inputs = list(node.inputs)
        if layer := integer.get(node.name):
            inputs[1] = _quantized_matrix(layer, per_channel, constants, nodes, builder)[0]
            if dynamic:
                if layer.source not in read:
                    read[layer.source] = _dynamic(layer.source, nodes, builder)
                inputs[0] = read[layer.source]
        nodes.append(Node(node.op, tuple(inputs), node.outputs, node.attributes, node.name))
    return graph.replace(nodes=nodes, constants=constants).without_dead().check()


def _dynamic(name: str, nodes: list[Node], builder: GraphBuilder) -> str:
    parts = tuple(builder.fresh(f"{name}.{part}") for part in ("quantized", "scale", "zero_point"))
    restored = builder.fresh(f"{name}.dequantized")
    nodes.append(Node("DynamicQuantizeLinear", (name,), parts, {}, builder.fresh(f"{name}.quantize")))
    nodes.append(Node("DequantizeLinear", parts, (restored,), {}, builder.fresh(f"{name}.dequantize")))
    return restored


def _quantized_matrix(
    layer: Layer,
    per_channel: bool,
    constants: dict[str, Array],
    nodes: list[Node],
    builder: GraphBuilder,
    least: Array | float = 0.0,
) -> tuple[str, Array]:
    values, scale = quantize_rows(layer.matrix(constants), per_channel=per_channel, least=least)
    axis = int(layer.transposed)
    return _dequantized(layer.weight, layer.constant(values), scale, axis, constants, nodes, builder), scale


def _quantized_weights(
    layer: Layer,
    x_scale: np.float32,
    per_channel: bool,
    constants: dict[str, Array],
    nodes: list[Node],
    builder: GraphBuilder,
) -> list[str]:
    """Replace a layer's constants by integers; return the names of its dequantized weights and bias.

    A bias counts in steps of the scales of inputs and weights, so weights next to nothing are rounded to zero where
    their bias would take more than 31 bits.
    """
    least = np.abs(layer.offsets(constants)) / (x_scale * np.float32(_BIAS_STEPS))
    least = least if per_channel else least.max(initial=0.0)
    restored, scale = _quantized_matrix(layer, per_channel, constants, nodes, builder, least)
    names = [restored]
    if layer.bias:
        step = (x_scale * scale).astype(np.float32)
        steps = np.rint(layer.offsets(constants).astype(np.float64) / step)
        bias = np.clip(steps, -(2**31), 2**31 - 1).astype(np.int32)
        names.append(_dequantized(layer.bias, bias, step, 0, constants, nodes, builder))
    return names


def _dequantized(
    name: str,
    values: Array,
    scale: Array,
    axis: int,
    constants: dict[str, Array],
    nodes: list[Node],
    builder: GraphBuilder,
) -> str:
    stored, steps, zero = (builder.fresh(f"{name}.{part}") for part in ("quantized", "scale", "zero_point"))
    restored = builder.fresh(f"{name}.dequantized")
    constants |= {stored: values, steps: scale, zero: np.zeros(len(scale), values.dtype)}
    node_name = builder.fresh(f"{name}.dequantize")
    nodes.append(Node("DequantizeLinear", (stored, steps, zero), (restored,), {"axis": axis}, node_name))
    return restored


def _data_inputs(node: Node) -> list[str]:
    if node.op in {"Add", "Mul", "Concat"}:
        return [name for name in node.inputs if name]
    return [node.inputs[0]]


def _scale_owner(name: str, producers: Mapping[str, Node], marked: set[str]) -> str:
    while (node := producers.get(name)) is not None and node.op in KEEPS_SCALE and node.inputs[0] in marked:
        name = node.inputs[0]
    return name
