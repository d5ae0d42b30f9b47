"""Products of matrices and images that a run computes: activations by activations, or weights that are not constant."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gristmill.compile.arithmetic import INT32, cast, combine, fill, reduce, scaled
from gristmill.compile.program import Program, Value, View, dense_strides
from gristmill.graph import Node
from gristmill.operators.spatial import Window

Zero = Value | int


def multiply(program: Program, node: Node, a: Value, b: Value, out: Value, zeros: tuple[Zero, Zero] = (0, 0)) -> None:
    """Append ``(a - zeros[0]) @ (b - zeros[1])``, where vectors are matrices of one row or column.

    Sums of bytes are exact in int32. Zero points that the run computes, or that differ from row to row of a or from
    column to column of b, are taken out of the sums afterwards.
    """
    a = a.reshaped((1, *a.shape)) if len(a.shape) == 1 else a
    b = b.reshaped((*b.shape, 1)) if len(b.shape) == 1 else b
    shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
    out, fixed = out.reshaped(shape), [zero if isinstance(zero, int) else 0 for zero in zeros]
    corrections = _corrections(program, node, (a, b), zeros)
    sums = program.scratch(out.dtype, shape) if corrections else out
    program.step("matmul", node, [a, b], [sums], *(fixed if any(fixed) else ()))
    for index, correction in enumerate(corrections):
        last = index + 1 == len(corrections)
        sums = combine(program, node, "sub", sums, correction, out if last else None)


def _corrections(program: Program, node: Node, factors: tuple[Value, Value], zeros: tuple[Zero, Zero]) -> list[Value]:
    """What zero points of the run have added to the sums: each times the sums of the other factor.

    Both together count their product twice, so the second uses sums from which the first is already gone.
    """
    found = []
    a_zero, b_zero = zeros
    if isinstance(a_zero, Value):
        known = b_zero if isinstance(b_zero, int) else 0
        zero = _column(program, node, a_zero)
        found.append(combine(program, node, "mul", _sums(program, node, factors[1], -2, known), zero))
    if isinstance(b_zero, Value):
        sums = _sums(program, node, factors[0], -1, a_zero if isinstance(a_zero, int) else 0)
        if isinstance(a_zero, Value):
            whole = scaled(program, node, _column(program, node, a_zero), factors[0].shape[-1])
            sums = combine(program, node, "sub", sums, whole)
        found.append(combine(program, node, "mul", sums, cast(program, node, b_zero, INT32)))
    return found


def _column(program: Program, node: Node, zero: Value) -> Value:
    """Zero points of rows as they stand beside a matrix."""
    wide = cast(program, node, zero, INT32)
    return wide.reshaped((wide.size, 1)) if len(wide.shape) == 1 else wide


def _sums(program: Program, node: Node, x: Value, axis: int, zero: int) -> Value:
    """Sums along an axis of what lies above the zero point."""
    sums = reduce(program, node, "sum", cast(program, node, x, INT32), [axis % len(x.shape)])
    if not zero:
        return sums
    return combine(program, node, "sub", sums, program.constant(np.array(zero * x.shape[axis], np.int32)))


def convolve_images(
    program: Program,
    node: Node,
    x: Value,
    weights: Value,
    window: Window,
    out: Value,
    groups: int,
    zeros: tuple[Zero, Zero] = (0, 0),
) -> None:
    """Append a convolution with weights that are not constant: what every tap reads is laid out, then multiplied."""
    images, taps, pixels = x.shape[0], math.prod(weights.shape[1:]), math.prod(window.output)
    columns = lay_out(program, node, x, window, zeros[0])
    filters = weights.reshaped((groups, weights.shape[0] // groups, taps))
    x_zero, w_zero = zeros
    if isinstance(w_zero, Value) and w_zero.size > 1:
        w_zero = w_zero.reshaped((groups, w_zero.size // groups, 1))
    result = out.reshaped((images, *filters.shape[:2], pixels))
    multiply(program, node, filters, columns.reshaped((images, groups, taps, pixels)), result, (w_zero, x_zero))


def lay_out(program: Program, node: Node, x: Value, window: Window, fill_with: Value | float) -> Value:
    """What each tap reads for each output: (images, channels, taps, outputs)."""
    begins, extents = list(window.begins), list(x.shape[2:])
    reach = [
        (out - 1) * stride + span for out, stride, span in zip(window.output, window.strides, window.spans, strict=True)
    ]
    ends = [max(far - begin - extent, 0) for far, begin, extent in zip(reach, begins, extents, strict=True)]
    padded = pad(program, node, x, [0, 0, *begins], [0, 0, *ends], fill_with)
    strides = dense_strides(padded.shape)
    tap_strides = [step * dilation for step, dilation in zip(strides[2:], window.dilations, strict=True)]
    out_strides = [step * stride for step, stride in zip(strides[2:], window.strides, strict=True)]
    shape = (*x.shape[:2], *window.kernel, *window.output)
    columns = program.scratch(x.dtype, (*x.shape[:2], math.prod(window.kernel), math.prod(window.output)))
    if columns.size:
        source = View(padded, shape, (*strides[:2], *tap_strides, *out_strides))
        program.copy(node, source, columns.reshaped(shape))
    return columns


def pad(
    program: Program, node: Node, x: Value, begins: Sequence[int], ends: Sequence[int], fill_with: Value | float
) -> Value:
    """The value with something around it."""
    if not any(begins) and not any(ends):
        return x
    shape = [begin + extent + end for begin, extent, end in zip(begins, x.shape, ends, strict=True)]
    padded = program.scratch(x.dtype, shape)
    fill(program, node, padded, fill_with)
    if x.size:
        program.copy(node, x, padded.view().slices(begins, x.shape, [1] * len(shape)))
    return padded
