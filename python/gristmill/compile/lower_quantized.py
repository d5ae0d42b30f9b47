"""Conversions between reals and bytes, and operators on bytes."""

from __future__ import annotations

import numpy as np

from gristmill.compile.arithmetic import FLOAT, INT32, cast, combine, spread_along, store
from gristmill.compile.program import Program, Value, unsupported
from gristmill.compile.registry import lowers
from gristmill.graph import Array, Node
from gristmill.operators import TensorType, find
from gristmill.operators.pooling import pool_window
from gristmill.operators.quantization import are_steps
from gristmill.operators.quantized_elementwise import is_whole, softmax_powers, softmax_steps
from gristmill.passes.quantized_movement import LOOKUP

_Map = tuple[float, int]


@lowers("QuantizeLinear", "DequantizeLinear")
def lower_conversion(program: Program, node: Node) -> None:
    """With one scale, one for each index of an axis, or one for each block of it."""
    scale, zero = program.known(node.inputs[1]), program.known(node.input(2))
    x, out = program.value(node.inputs[0]), program.result(node.outputs[0])
    quantizes = node.op == "QuantizeLinear"
    if quantizes:
        x = cast(program, node, x, FLOAT)
    if scale is None or not are_steps(scale) or (node.input(2) and zero is None) or node.integer("block_size", 0):
        (_quantize if quantizes else _dequantize)(program, node, x, out)
        return
    points = [0] * scale.size if zero is None else [int(point) for point in zero.reshape(-1)]
    axis = node.integer("axis", 1) if scale.size > 1 else None
    method = "quantize" if quantizes else "dequantize"
    program.step(method, node, [x], [out], [float(item) for item in scale.reshape(-1)], points, axis)


def _quantize(program: Program, node: Node, x: Value, out: Value) -> None:
    """With numbers that the run computes, or of blocks."""
    steps = combine(program, node, "div", x, _numbers(program, node, 1, x))
    store(program, node, steps, _numbers(program, node, 2, x) if node.input(2) else 0, out)


def _dequantize(program: Program, node: Node, x: Value, out: Value) -> None:
    wide = cast(program, node, x, INT32)
    if node.input(2):
        wide = combine(program, node, "sub", wide, cast(program, node, _numbers(program, node, 2, x), INT32))
    combine(program, node, "mul", cast(program, node, wide, FLOAT), _numbers(program, node, 1, x), out)


def _numbers(program: Program, node: Node, index: int, x: Value) -> Value:
    """Scales or zero points, shaped to go with x."""
    values, axis, block = program.value(node.inputs[index]), node.integer("axis", 1), node.integer("block_size", 0)
    if not block:
        return spread_along(values, axis % max(len(x.shape), 1), len(x.shape))
    places = np.arange(x.shape[axis], dtype=np.int64) // block
    each = program.scratch(values.dtype, x.shape)
    program.step("gather", node, [values, program.constant(places)], [each], axis)
    return each


@lowers("DynamicQuantizeLinear")
def lower_dynamic(program: Program, node: Node) -> None:
    """Scale and zero point from the range of x."""
    kinds = [program.type(node.inputs[0]).shape, (), ()]
    results = []
    for index, (shape, dtype) in enumerate(zip(kinds, ("uint8", "float32", "uint8"), strict=True)):
        name = node.outputs[index] if index < len(node.outputs) else ""
        results.append(program.result(name) if name else program.scratch(np.dtype(dtype), shape))
    program.step("dynamic_quantize", node, [program.value(node.inputs[0])], results)


@lowers(LOOKUP)
def lower_lookup(program: Program, node: Node) -> None:
    """A table of 256 entries."""
    look_up(program, node, program.value(node.inputs[0]), program.result(node.outputs[0]), node.array("table"))


@lowers("QLinearSigmoid", "QLinearLeakyRelu")
def lower_byte_curve(program: Program, node: Node) -> None:
    """A function of one byte, tabulated."""
    x, out = program.value(node.inputs[0]), program.result(node.outputs[0])
    constants = [_constant(program, node, index) for index in range(1, len(node.inputs))]
    (table,) = find(node).evaluate(node, [np.arange(256, dtype=np.uint8).view(x.dtype), *constants])
    look_up(program, node, x, out, table)


@lowers("QLinearAdd", "QLinearMul")
def lower_byte_pair(program: Program, node: Node) -> None:
    """The sum or product of what two tensors of bytes stand for."""
    a, b = program.value(node.inputs[0]), program.value(node.inputs[3])
    maps = [_map(program, node, index) for index in (1, 4, 6)]
    function = "add" if node.op == "QLinearAdd" else "mul"
    program.step("qbinary", node, [a, b], [program.result(node.outputs[0])], *maps, function=function)


@lowers("QLinearGlobalAveragePool")
def lower_byte_average(program: Program, node: Node) -> None:
    """The mean of each plane."""
    x, out = _channels_first(program, node)
    program.step("qglobal_average", node, [x], [out], _map(program, node, 1), _map(program, node, 3))
    _as_given(program, node, out)


@lowers("QLinearAveragePool")
def lower_byte_pool(program: Program, node: Node) -> None:
    """The mean of each window."""
    x, out = _channels_first(program, node)
    window, counts = pool_window(node, TensorType(x.dtype, x.shape)), bool(node.integer("count_include_pad", 0))
    shape = (window.kernel, window.strides, window.begins, window.ends, window.dilations, counts)
    maps = _map(program, node, 1), _map(program, node, 3)
    if is_whole(window, x.shape):
        program.step("qglobal_average", node, [x], [out], *maps)
    else:
        program.step("qaverage", node, [x], [out], *shape, *maps)
    _as_given(program, node, out)


@lowers("QLinearSoftmax")
def lower_byte_softmax(program: Program, node: Node) -> None:
    """Softmax along an axis."""
    x, out, axis = program.value(node.inputs[0]), program.result(node.outputs[0]), node.integer("axis", -1)
    (x_scale, _), (_, zero_point) = _map(program, node, 1), _map(program, node, 3)
    powers, steps = softmax_powers(x_scale, x.shape[axis]), softmax_steps(_constant(program, node, 3))
    program.step("qsoftmax", node, [x], [out], axis, powers.tolist(), float(steps), zero_point, in_place=x)


def _channels_first(program: Program, node: Node) -> tuple[Value, Value]:
    """The image with its channels second, wherever they are, and memory for such a result."""
    x, out = program.value(node.inputs[0]), program.type(node.outputs[0])
    if not node.integer("channels_last", 0):
        return x, program.result(node.outputs[0])
    rank = len(x.shape)
    turned = program.scratch(x.dtype, (x.shape[0], x.shape[-1], *x.shape[1:-1]))
    program.copy(node, x.view().permuted((0, rank - 1, *range(1, rank - 1))), turned)
    return turned, program.scratch(out.dtype, (out.shape[0], out.shape[-1], *out.shape[1:-1]))


def _as_given(program: Program, node: Node, out: Value) -> None:
    """Put the channels back where they were."""
    if node.integer("channels_last", 0):
        rank = len(out.shape)
        program.copy(node, out.view().permuted((0, *range(2, rank), 1)), program.result(node.outputs[0]))


@lowers("QLinearConcat")
def lower_byte_concat(program: Program, node: Node) -> None:
    """Parts one behind the other, each mapped to the scale of the whole."""
    out = program.result(node.outputs[0])
    scale, zero = _constant(program, node, 0), _constant(program, node, 1)
    axis, start = node.integer("axis", 0) % len(out.shape), 0
    for index in range(2, len(node.inputs), 3):
        part = program.value(node.inputs[index])
        part_scale, part_zero = _constant(program, node, index + 1), _constant(program, node, index + 2)
        integers = np.arange(256, dtype=np.uint8).view(part.dtype)
        joined = Node("QLinearConcat", ("",) * 5, ("",), {"axis": 0}, node.name)
        (table,) = find(joined).evaluate(joined, [scale, zero, integers, part_scale, part_zero])
        mapped = program.scratch(out.dtype, part.shape)
        look_up(program, node, part, mapped, table)
        program.copy(node, mapped, out.view().part(axis, start, part.shape[axis]), movable=True)
        start += part.shape[axis]


def look_up(program: Program, node: Node, x: Value, out: Value, table: Array) -> None:
    """Append a step that maps bytes by a table, which may overwrite them."""
    program.step("lookup", node, [x], [out], np.ascontiguousarray(table), in_place=x)


def _constant(program: Program, node: Node, index: int) -> Array:
    value = program.known(node.input(index))
    if value is None:
        raise unsupported(node, "scales and zero points that are not constant")
    return value


def _map(program: Program, node: Node, index: int) -> _Map:
    """The scale at an input, and the zero point behind it."""
    scale = _constant(program, node, index)
    zero = _constant(program, node, index + 1) if node.input(index + 1) else np.zeros(1)
    if scale.size != 1 or zero.size != 1:
        raise unsupported(node, "more than one scale")
    if not are_steps(scale):
        raise unsupported(node, f"a scale of {scale.item():g}; scales must be finite and greater than 0")
    return float(scale.item()), int(zero.item())
