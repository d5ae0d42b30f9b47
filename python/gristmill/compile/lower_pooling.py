"""Pooling with windows, and over whole images."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from gristmill.compile.arithmetic import FLOAT, apply, cast, combine
from gristmill.compile.products import lay_out
from gristmill.compile.program import Program, Value
from gristmill.compile.registry import lowers
from gristmill.graph import Array, Node
from gristmill.operators.pooling import average_counts, pool_window
from gristmill.operators.spatial import Window, taps


@lowers("MaxPool", "AveragePool")
def lower_pool(program: Program, node: Node) -> None:
    """The greatest or the mean of each window."""
    window, kind = pool_window(node, program.type(node.inputs[0])), "max" if node.op == "MaxPool" else "average"
    if node.outputs[0]:
        counts = bool(node.integer("count_include_pad", 0)) and kind == "average"
        pool(program, node, kind, program.value(node.inputs[0]), window, program.result(node.outputs[0]), counts)
    if any(node.outputs[1:]):
        _pool_places(program, node, window)


def pool(program: Program, node: Node, kind: str, x: Value, window: Window, out: Value, pads_count: bool) -> None:
    """Append a pooling step."""
    shape = (window.kernel, window.strides, window.begins, window.ends, window.dilations)
    program.step("pool", node, [x], [out], *shape, pads_count, function=kind)


def _pool_places(program: Program, node: Node, window: Window) -> None:
    """Where the greatest elements are in the whole tensor: which tap of each window, and what that tap reads."""
    x, out = program.value(node.inputs[0]), program.result(node.outputs[1])
    if not out.size:
        return
    columns = lay_out(program, node, cast(program, node, x, FLOAT), window, -math.inf)
    count, outputs = columns.shape[2:]
    best = program.scratch(out.dtype, (*out.shape[:2], outputs))
    program.step("argmax", node, [columns], [best], 2, True, False)
    places = _places(x.shape[2:], window, bool(node.integer("storage_order", 0)))
    rows = program.constant(np.arange(outputs) * count)
    found = program.scratch(out.dtype, best.shape)
    program.step("gather", node, [program.constant(places), combine(program, node, "add", best, rows)], [found], 0)
    planes = np.arange(math.prod(x.shape[:2])).reshape(*x.shape[:2], 1) * math.prod(x.shape[2:])
    combine(program, node, "add", found, program.constant(planes), out.reshaped(best.shape))


def _places(extents: tuple[int, ...], window: Window, column_major: bool) -> Array:
    """The index within a plane that each tap of each window reads; beyond the plane, that of the first within it.

    Padding is the greatest only where nothing is greater than -inf: then the first element is.
    """
    numbers = np.arange(math.prod(extents)).reshape(extents[::-1] if column_major else extents)
    plane = numbers.T if column_major else numbers
    read = np.ascontiguousarray(taps(plane[None, None], window, -1)).reshape(-1, math.prod(window.kernel))
    first = np.take_along_axis(read, np.argmax(read >= 0, axis=1)[:, None], 1)
    return np.asarray(np.where(read < 0, first, read)).reshape(-1)


@lowers("LpPool")
def lower_lp_pool(program: Program, node: Node) -> None:
    """The root of the sum of powers, which is a mean times the number of elements."""
    x, out, power = program.value(node.inputs[0]), program.result(node.outputs[0]), node.integer("p", 2)
    window = pool_window(node, program.type(node.inputs[0]))
    sizes = apply(program, node, "abs", x)
    if power > 1:
        sizes = combine(program, node, "pow", sizes, program.constant(np.array(power, np.float32)))
    means = program.scratch(out.dtype, out.shape)
    pool(program, node, "average", sizes, window, means, True)
    counting = replace(node, attributes={**node.attributes, "count_include_pad": 1})
    counts = average_counts(counting, program.type(node.inputs[0])).astype(np.float32)
    sums = combine(program, node, "mul", means, program.constant(counts))
    combine(program, node, "pow", sums, program.constant(np.array(1 / power, np.float32)), out)


@lowers("GlobalMaxPool", "GlobalAveragePool")
def lower_global_pool(program: Program, node: Node) -> None:
    """One window that covers the image, laid out as one row of pixels."""
    x, out = program.value(node.inputs[0]), program.result(node.outputs[0])
    pixels = int(np.prod(x.shape[2:], dtype=np.int64))
    kind = "max" if node.op == "GlobalMaxPool" else "average"
    row, one = x.reshaped((*x.shape[:2], pixels)), out.reshaped((*out.shape[:2], 1))
    program.step("pool", node, [row], [one], (pixels,), (1,), (0,), (0,), (1,), False, function=kind)
