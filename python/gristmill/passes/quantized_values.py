"""Quantized values in a graph: which bytes a real value comes from, and to which bytes it goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gristmill.graph import Array, Node
from gristmill.operators.quantization import are_steps
from gristmill.passes.editor import Editor

BYTES = frozenset(map(np.dtype, (np.uint8, np.int8)))
#: Operators that only move elements of their first input, or leave some out.
MOVES = (
    "DepthToSpace", "Flatten", "MaxPool", "Pad", "Reshape", "Slice", "SpaceToDepth", "Squeeze", "Transpose",
    "Unsqueeze",
)  # fmt: skip
_NO_ZEROS = np.zeros(1, np.int8)
#: The greatest sum that an accumulator holds.
_MOST = int(np.iinfo(np.int32).max)


@dataclass(frozen=True)
class Quantized:
    """A value stored as integers with one scale and zero point.

    Attributes:
        name: The integers.
        scale: Step between neighbouring integers, a float32 as :func:`are_steps` wants it.
        zero_point: The integer that stands for zero.
        dtype: Of the integers.
    """

    name: str
    scale: np.float32
    zero_point: int
    dtype: np.dtype[Any]

    def same_map(self, other: Quantized) -> bool:
        """Whether equal integers mean equal reals."""
        return (self.scale, self.zero_point, self.dtype) == (other.scale, other.zero_point, other.dtype)


def source_of(editor: Editor, name: str) -> Quantized | None:
    """The bytes that a value was dequantized from."""
    node = editor.writer(name, "DequantizeLinear")
    return None if node is None else map_of(editor, node, node.inputs[0])


def target_of(editor: Editor, name: str) -> tuple[Node, Quantized] | None:
    """The node that alone reads a value, if it quantizes it to bytes, and those."""
    node = editor.only_reader(name, "QuantizeLinear")
    found = None if node is None else map_of(editor, node, node.outputs[0])
    return None if node is None or found is None else (node, found)


def map_of(editor: Editor, node: Node, integers: str) -> Quantized | None:
    """The integers of a QuantizeLinear or DequantizeLinear, if they are bytes with one usual scale."""
    scale = editor.constant(node.inputs[1])
    if scale is None or scale.size != 1 or scale.dtype != np.float32:
        return None
    zero = editor.constant(node.input(2)) if node.input(2) else _zero_of(editor, integers)
    return None if zero is None or zero.dtype not in BYTES else quantized(integers, scale, zero)


def _zero_of(editor: Editor, integers: str) -> Array | None:
    """The zero point of integers for which none is named: 0 of their type, where that is plain to see."""
    while (writer := editor.writer(integers, *MOVES)) is not None:
        integers = writer.inputs[0]
    writer = editor.writer(integers)
    if writer is None:
        dtype = editor.input_type(integers)
        return None if dtype is None else np.zeros(1, dtype)
    if writer.op != "QuantizeLinear" or writer.integer("output_dtype", 0):
        return None
    zero = editor.constant(writer.input(2))
    return np.zeros(1, np.uint8 if zero is None else zero.dtype) if zero is not None or not writer.input(2) else None


def quantized(integers: str, scale: Array | None, zero: Array | None) -> Quantized | None:
    """Integers with a scale and a zero point, if these are single constants and the scale is a step."""
    if scale is None or zero is None or scale.size != 1 or zero.size != 1 or not are_steps(scale):
        return None
    return Quantized(integers, np.float32(scale.item()), int(zero.item()), zero.dtype)


@dataclass(frozen=True)
class QuantizedWeights:
    """Constant int8 weights whose zero is 0.

    Attributes:
        values: Output channels along the first axis.
        scales: One per output channel, float32.
    """

    values: Array
    scales: Array


def channel_axis(node: Node) -> int:
    """Where the weights of a convolution or product have its output channels."""
    if "Conv" in node.op:
        return 0
    return 0 if node.op in {"Gemm", "QGemm"} and node.integer("transB", 0) else 1


def layer_weights(editor: Editor, node: Node) -> QuantizedWeights | None:
    """The weights of a convolution or of a product with a matrix, if they are dequantized from a constant."""
    stored, axis = editor.writer(node.inputs[1], "DequantizeLinear"), channel_axis(node)
    values = editor.constant(stored.inputs[0]) if stored is not None else None
    scale = editor.constant(stored.inputs[1]) if stored is not None else None
    if stored is None or values is None or scale is None or stored.integer("block_size", 0):
        return None
    zero = editor.constant(stored.input(2))
    if (stored.input(2) and zero is None) or not ("Conv" in node.op or values.ndim == 2):
        return None
    if scale.size > 1 and stored.integer("axis", 1) % values.ndim != axis:
        return None
    return centred_weights(values if axis == 0 else values.T, scale, zero)


def centred_weights(values: Array, scale: Array, zero: Array | None) -> QuantizedWeights | None:
    """Bytes with their zero moved to 0, if they then still are int8 and their scales are steps."""
    if values.dtype not in BYTES or scale.dtype != np.float32 or scale.size not in {1, len(values)} or not len(values):
        return None
    zeros = _NO_ZEROS if zero is None else zero.reshape(-1)
    moved = None if not (are_steps(scale) and all_equal(zeros)) else centred_bytes(values, int(zeros[0]))
    if moved is None:
        return None
    return QuantizedWeights(moved, scale.reshape(-1) if scale.size == len(values) else np.full(len(values), scale))


def sums_fit(values: Array, bias: Array | float = 0) -> bool:
    """Whether no sum of products of weights with bytes, and of a bias for each output channel, leaves int32."""
    bias = np.abs(bias, dtype=np.float64)
    if 128 * 255 * values[0].size <= _MOST - bias.max():
        return True
    rows = np.abs(values.reshape(len(values), -1).astype(np.int64)).sum(axis=1)
    return bool((rows * 255 <= _MOST - bias).all())


def all_equal(values: Array) -> bool:
    """Whether a row of at least one element holds one number alone."""
    first = values[0]
    return bool(first == values[-1]) and not np.count_nonzero(values != first)


def centred_bytes(values: Array, zero: int) -> Array | None:
    """Bytes with their zero moved to 0, if they then are int8."""
    if values.dtype == np.int8 and not zero:
        return np.ascontiguousarray(values)
    moved = values.astype(np.int16) - zero
    fits = not moved.size or -128 <= moved.min() <= moved.max() <= 127
    return np.ascontiguousarray(moved, np.int8) if fits else None
