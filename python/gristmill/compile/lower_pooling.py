"""Pooling with windows, and over whole images."""

from __future__ import annotations

import numpy as np

from gristmill.compile.program import Program, unsupported
from gristmill.compile.registry import lowers
from gristmill.graph import Node
from gristmill.operators.pooling import pool_window


@lowers("MaxPool", "AveragePool")
def lower_pool(program: Program, node: Node) -> None:
    """The greatest or the mean of each window."""
    if any(node.outputs[1:]):
        raise unsupported(node, "the places of the greatest elements")
    x, out = program.value(node.inputs[0]), program.result(node.outputs[0])
    window = pool_window(node, program.type(node.inputs[0]))
    kind = "max" if node.op == "MaxPool" else "average"
    counts = bool(node.integer("count_include_pad", 0)) and kind == "average"
    shape = (window.kernel, window.strides, window.begins, window.ends, window.dilations)
    program.step("pool", node, [x], [out], *shape, counts, function=kind)


@lowers("GlobalMaxPool", "GlobalAveragePool")
def lower_global_pool(program: Program, node: Node) -> None:
    """One window that covers the image, laid out as one row of pixels."""
    x, out = program.value(node.inputs[0]), program.result(node.outputs[0])
    pixels = int(np.prod(x.shape[2:], dtype=np.int64))
    kind = "max" if node.op == "GlobalMaxPool" else "average"
    row, one = x.reshaped((*x.shape[:2], pixels)), out.reshaped((*out.shape[:2], 1))
    program.step("pool", node, [row], [one], (pixels,), (1,), (0,), (0,), (1,), False, function=kind)
