"""Reductions, normalizations along axes, products of activations, and elements taken by index."""

from __future__ import annotations

import numpy as np

from gristmill.compile.lower_elementwise import binary
from gristmill.compile.program import Program, Value, unsupported
from gristmill.compile.registry import lowers
from gristmill.graph import Node

_REDUCTIONS = {"ReduceSum": "sum", "ReduceMean": "mean", "ReduceMax": "max", "ReduceMin": "min", "ReduceProd": "prod"}


@lowers(*_REDUCTIONS)
def lower_reduce(program: Program, node: Node) -> None:
    """Over the axes named, or all if none are and that does not mean nothing."""
    x = program.value(node.inputs[0])
    axes = program.known(node.input(1)) if node.input(1) else np.zeros(0, np.int64)
    if axes is None:
        raise unsupported(node, "axes that are not constant")
    if not axes.size and node.integer("noop_with_empty_axes", 0):
        program.alias(node.outputs[0], x)
        return
    wanted = [int(axis) for axis in axes.reshape(-1)] or list(range(len(x.shape)))
    out = program.result(node.outputs[0])
    program.step("reduce", node, [x], [out], wanted, function=_REDUCTIONS[node.op])


@lowers("Softmax", "LogSoftmax")
def lower_softmax(program: Program, node: Node) -> None:
    """Along an axis."""
    x, out = program.value(node.inputs[0]), program.result(node.outputs[0])
    program.step("softmax", node, [x], [out], node.integer("axis", -1), node.op == "LogSoftmax", in_place=x)


@lowers("ArgMax", "ArgMin")
def lower_arg(program: Program, node: Node) -> None:
    """The place of the extreme along an axis."""
    x, out = program.value(node.inputs[0]), program.result(node.outputs[0])
    last = bool(node.integer("select_last_index", 0))
    program.step("argmax", node, [x], [out], node.integer("axis", 0), node.op == "ArgMax", last)


@lowers("TopK")
def lower_top_k(program: Program, node: Node) -> None:
    """The greatest along an axis, and where they are."""
    x = program.value(node.inputs[0])
    shape = program.type(node.outputs[0] or node.outputs[1]).shape
    results = []
    for index, dtype in enumerate((x.dtype, np.dtype(np.int64))):
        name = node.outputs[index] if index < len(node.outputs) else ""
        results.append(program.result(name) if name else program.scratch(dtype, shape))
    program.step("topk", node, [x], results, node.integer("axis", -1), bool(node.integer("largest", 1)))


@lowers("LRN")
def lower_lrn(program: Program, node: Node) -> None:
    """Over neighbouring channels."""
    x, out = program.value(node.inputs[0]), program.result(node.outputs[0])
    size = node.integer("size", 1)
    parameters = node.real("alpha", 1e-4), node.real("beta", 0.75), node.real("bias", 1.0)
    program.step("lrn", node, [x], [out], size, *parameters)


@lowers("InstanceNormalization")
def lower_instance_norm(program: Program, node: Node) -> None:
    """Each plane by its own statistics."""
    x, scale, bias = (program.value(name) for name in node.inputs)
    out = program.result(node.outputs[0])
    program.step("instance_norm", node, [x, scale, bias], [out], node.real("epsilon", 1e-5), in_place=x)


@lowers("Gather")
def lower_gather(program: Program, node: Node) -> None:
    """Elements by their indices along an axis."""
    x, indices = (program.value(name) for name in node.inputs)
    program.step("gather", node, [x, indices], [program.result(node.outputs[0])], node.integer("axis", 0))


@lowers("Cast")
def lower_cast(program: Program, node: Node) -> None:
    """Another element type."""
    x = program.value(node.inputs[0])
    if program.type(node.outputs[0]).dtype == x.dtype:
        program.alias(node.outputs[0], x)
    else:
        program.step("cast", node, [x], [program.result(node.outputs[0])])


@lowers("MatMul")
def lower_matmul(program: Program, node: Node) -> None:
    """The product of two activations, of which vectors are matrices of one row or column."""
    a, b = (program.value(name) for name in node.inputs)
    out = program.result(node.outputs[0])
    multiply(program, node, a, b, out)


@lowers("MatMulInteger")
def lower_matmul_integer(program: Program, node: Node) -> None:
    """Bytes less their zero points; the sums are exact."""
    zeros = []
    for index in (2, 3):
        zero = program.known(node.input(index)) if node.input(index) else np.zeros(1)
        if zero is None or zero.size != 1:
            raise unsupported(node, "zero points that are not one constant")
        zeros.append(int(zero.item()))
    a, b = (program.value(name) for name in node.inputs[:2])
    multiply(program, node, a, b, program.result(node.outputs[0]), *zeros)


@lowers("Gemm")
def lower_gemm(program: Program, node: Node) -> None:
    """The product of two activations, either transposed, plus a third."""
    a, b = (program.value(name) for name in node.inputs[:2])
    a, b = (_turned(program, node, x, f"trans{side}") for x, side in ((a, "A"), (b, "B")))
    kind = program.type(node.outputs[0])
    alpha, beta = node.real("alpha", 1.0), node.real("beta", 1.0)
    value = program.scratch(kind.dtype, kind.shape)
    multiply(program, node, a, b, value)
    value = _scaled(program, node, value, alpha)
    if node.input(2) and beta:
        bias = _scaled(program, node, program.value(node.input(2)), beta)
        total = program.scratch(kind.dtype, kind.shape)
        binary(program, node, "add", value, bias, total)
        value = total
    program.alias(node.outputs[0], value)


def multiply(program: Program, node: Node, a: Value, b: Value, out: Value, *zero_points: int) -> None:
    """Append a product of matrices, as which vectors are seen."""
    a = a.reshaped((1, *a.shape)) if len(a.shape) == 1 else a
    b = b.reshaped((*b.shape, 1)) if len(b.shape) == 1 else b
    shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
    program.step("matmul", node, [a, b], [out.reshaped(shape)], *zero_points)


def _turned(program: Program, node: Node, x: Value, attribute: str) -> Value:
    if not node.integer(attribute, 0):
        return x
    out = program.scratch(x.dtype, x.shape[::-1])
    program.copy(node, x.view().permuted((1, 0)), out)
    return out


def _scaled(program: Program, node: Node, x: Value, factor: float) -> Value:
    if factor == 1.0:
        return x
    out = program.scratch(x.dtype, x.shape)
    binary(program, node, "mul", x, program.constant(np.array(factor, x.dtype)), out)
    return out
