"""Reductions, normalizations along axes, and elements taken by index."""

from __future__ import annotations

import math

import numpy as np

from gristmill.compile.arithmetic import apply, cast, combine, reduce, spread_along
from gristmill.compile.program import Program
from gristmill.compile.registry import lowers
from gristmill.graph import Node
from gristmill.operators.reduction import reduced_axes

#: What becomes of the elements, how they are reduced, and what becomes of that.
_REDUCTIONS = {
    "ReduceL1": ("abs", "sum", ""),
    "ReduceL2": ("square", "sum", "sqrt"),
    "ReduceLogSum": ("", "sum", "log"),
    "ReduceMax": ("", "max", ""),
    "ReduceMean": ("", "mean", ""),
    "ReduceMin": ("", "min", ""),
    "ReduceProd": ("", "prod", ""),
    "ReduceSum": ("", "sum", ""),
    "ReduceSumSquare": ("square", "sum", ""),
}


@lowers(*_REDUCTIONS)
def lower_reduce(program: Program, node: Node) -> None:
    """Over the axes named, or all if none are and that does not mean nothing."""
    before, function, after = _REDUCTIONS[node.op]
    x = program.value(node.inputs[0])
    axes = reduced_axes(node, program.type(node.inputs[0]), program.known(node.input(1)))
    if before:
        x = combine(program, node, "mul", x, x) if before == "square" else apply(program, node, before, x)
    x = reduce(program, node, function, x, axes) if axes else x
    program.alias(node.outputs[0], apply(program, node, after, x) if after else x)


@lowers("ReduceLogSumExp")
def lower_log_sum_exp(program: Program, node: Node) -> None:
    """Of what lies below the greatest element, which is finite here, so that exponentials do not overflow."""
    x = program.value(node.inputs[0])
    axes = reduced_axes(node, program.type(node.inputs[0]), program.known(node.input(1)))
    bounds = np.finfo(np.float32)
    greatest = reduce(program, node, "max", x, axes) if axes else x
    top = apply(program, node, "clip", greatest, None, float(bounds.min), float(bounds.max))
    powers = apply(program, node, "exp", combine(program, node, "sub", x, top))
    sums = reduce(program, node, "sum", powers, axes) if axes else powers
    program.alias(node.outputs[0], combine(program, node, "add", apply(program, node, "log", sums), top))


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


@lowers("Hardmax")
def lower_hardmax(program: Program, node: Node) -> None:
    """One where the index is that of the greatest."""
    x, out = program.value(node.inputs[0]), program.result(node.outputs[0])
    axis, rank = node.integer("axis", -1) % len(x.shape), len(x.shape)
    places = program.scratch(np.dtype(np.int64), (*x.shape[:axis], 1, *x.shape[axis + 1 :]))
    program.step("argmax", node, [x], [places], axis, True, False)
    indices = spread_along(program.constant(np.arange(x.shape[axis])), axis, rank)
    found = program.scratch(np.dtype(np.bool_), x.shape)
    cast(program, node, combine(program, node, "equal", places, indices, found), x.dtype, out)


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


@lowers("LayerNormalization")
def lower_layer_norm(program: Program, node: Node) -> None:
    """Each row, which is all axes from one on, by its own statistics; then scaled and moved."""
    x, out = program.value(node.inputs[0]), program.result(node.outputs[0])
    inner = math.prod(x.shape[node.integer("axis", -1) % len(x.shape) :])
    if not x.size:
        return
    rows = x.reshaped((x.size // inner, 1, inner))
    one, zero = (program.constant(np.array([value], np.float32)) for value in (1, 0))
    standard = program.scratch(x.dtype, rows.shape)
    program.step("instance_norm", node, [rows, one, zero], [standard], node.real("epsilon", 1e-5), in_place=rows)
    value, scale = standard.reshaped(x.shape), program.value(node.inputs[1])
    bias = program.value(node.input(2)) if node.input(2) else None
    value = combine(program, node, "mul", value, scale, None if bias else out)
    if bias:
        combine(program, node, "add", value, bias, out)


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
