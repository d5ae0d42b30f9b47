"""Convolutions that are no layers: of bytes, transposed, or with weights or a bias that the run computes."""

from __future__ import annotations

import math

import numpy as np

from gristmill.compile.arithmetic import INT32, combine, fill, number, spread_along
from gristmill.compile.convolution import Convolution
from gristmill.compile.lower_matmul import requantize
from gristmill.compile.products import Zero, convolve_images, multiply
from gristmill.compile.program import Program, Value
from gristmill.compile.registry import lowers
from gristmill.dense import Epilogue
from gristmill.graph import Array, Node
from gristmill.operators.convolution import conv_window, transposed_window
from gristmill.operators.spatial import Window
from gristmill.passes.quantized_values import centred_bytes


@lowers("Conv")
def lower_conv(program: Program, node: Node) -> None:
    """A convolution of float32, bias and weights constant or not."""
    x, out = program.value(node.inputs[0]), program.result(node.outputs[0])
    window = conv_window(node, program.type(node.inputs[0]), program.type(node.inputs[1]))
    known = program.known(node.inputs[1])
    _convolve(program, node, x, program.value(node.inputs[1]) if known is None else known, window, out)


@lowers("ConvInteger")
def lower_conv_integer(program: Program, node: Node) -> None:
    """Sums of bytes less their zero points, exact."""
    zeros = number(program, node.input(2)), number(program, node.input(3))
    _convolve_bytes(program, node, (node.inputs[0], node.inputs[1]), zeros, program.result(node.outputs[0]))


@lowers("QLinearConv")
def lower_byte_conv(program: Program, node: Node) -> None:
    """A convolution of bytes, requantized; those with constant scales are layers already."""
    out = program.result(node.outputs[0])
    sums = program.scratch(INT32, out.shape)
    zeros = number(program, node.inputs[2]), number(program, node.inputs[5])
    _convolve_bytes(program, node, (node.inputs[0], node.inputs[3]), zeros, sums)
    if node.input(8):
        sums = combine(program, node, "add", sums, _per_channel(program.value(node.input(8)), out))
    scales = [program.value(node.inputs[1]), _per_channel(program.value(node.inputs[4]), out)]
    requantize(program, node, sums, [*scales, program.value(node.inputs[6])], number(program, node.inputs[7]), out)


@lowers("ConvTranspose")
def lower_conv_transpose(program: Program, node: Node) -> None:
    """A convolution with turned kernels over an image with zeros between its elements.

    Zeros times infinity are no numbers: weights that are not known to be finite go another way.
    """
    x, out, weights = program.value(node.inputs[0]), program.result(node.outputs[0]), program.known(node.inputs[1])
    window = transposed_window(node, program.type(node.inputs[0]), program.type(node.inputs[1]))
    if weights is None or not np.isfinite(weights).all():
        _scatter(program, node, x, window, out)
        return
    spread, forward = _spread(program, node, x, window)
    whole = (*out.shape[:2], *forward.output)
    target = out if whole == out.shape else program.scratch(out.dtype, whole)
    _convolve(program, node, spread, _turned(program, node, weights), forward, target)
    if target is not out:
        starts = [0, 0, *(max(begin - span + 1, 0) for begin, span in zip(window.begins, window.spans, strict=True))]
        program.copy(node, target.view().slices(starts, out.shape, [1] * len(out.shape)), out)


def _scatter(program: Program, node: Node, x: Value, window: Window, out: Value) -> None:
    """Every element times a kernel, added to the result where it goes, tap by tap; what is cut is computed too."""
    weights, groups = program.value(node.inputs[1]), node.integer("group", 1)
    extents, taps, rows = x.shape[2:], math.prod(window.kernel), weights.shape[0] // groups
    turned = program.scratch(x.dtype, (groups, math.prod(weights.shape[1:]), rows))
    program.copy(node, weights.reshaped((groups, rows, turned.shape[1])).view().permuted((0, 2, 1)), turned)
    products = program.scratch(x.dtype, (x.shape[0], *turned.shape[:2], math.prod(extents)))
    multiply(program, node, turned, x.reshaped((x.shape[0], groups, rows, products.shape[3])), products)
    terms = products.reshaped((*out.shape[:2], taps, *extents)).view()

    before = [max(-begin, 0) for begin in window.begins]
    starts = [begin + more for begin, more in zip(window.begins, before, strict=True)]
    reach = [(n - 1) * stride + span for n, stride, span in zip(extents, window.strides, window.spans, strict=True)]
    sides = zip(before, reach, starts, window.output, strict=True)
    whole = program.scratch(x.dtype, (*out.shape[:2], *(max(a + n, start + m) for a, n, start, m in sides)))
    fill(program, node, whole, 0.0)
    shape, steps = (*out.shape[:2], *extents), (1, 1, *window.strides)
    for index, tap in enumerate(np.ndindex(*window.kernel)):
        at = [a + t * dilation for a, t, dilation in zip(before, tap, window.dilations, strict=True)]
        place = whole.view().slices([0, 0, *at], shape, steps)
        held, term = program.scratch(x.dtype, shape), program.scratch(x.dtype, shape)
        program.copy(node, place, held)
        program.copy(node, terms.part(2, index, 1), term.reshaped((*out.shape[:2], 1, *extents)))
        program.copy(node, combine(program, node, "add", held, term), place)
    sums = program.scratch(x.dtype, out.shape) if node.input(2) else out
    program.copy(node, whole.view().slices([0, 0, *starts], out.shape, [1] * len(out.shape)), sums)
    if node.input(2):
        combine(program, node, "add", sums, _per_channel(program.value(node.input(2)), out), out)


def _spread(program: Program, node: Node, x: Value, window: Window) -> tuple[Value, Window]:
    """The image with zeros between its elements, and how the turned kernel walks over it.

    Where the result is cut by more than the kernel's reach, the convolution makes more than is wanted.
    """
    extents = [(n - 1) * stride + 1 for n, stride in zip(x.shape[2:], window.strides, strict=True)]
    spread = x
    if max(window.strides) > 1:
        spread = program.scratch(x.dtype, (*x.shape[:2], *extents))
        fill(program, node, spread, 0.0)
        program.copy(node, x, spread.view().slices([0] * len(x.shape), x.shape, (1, 1, *window.strides)))
    begins, ends, output = [], [], []
    sides = zip(extents, window.spans, window.begins, window.output, strict=True)
    for extent, span, begin, wanted in sides:
        before = span - 1 - begin
        begins.append(max(before, 0))
        ends.append(max(wanted - extent - before + span - 1, 0))
        output.append(extent + begins[-1] + ends[-1] - span + 1)
    ones = (1,) * len(extents)
    return spread, Window(window.kernel, ones, window.dilations, tuple(begins), tuple(ends), tuple(output))


def _turned(program: Program, node: Node, weights: Array) -> Array:
    """Kernels mirrored, output channels first."""
    groups = node.integer("group", 1)
    return program.packer.derived(weights, f"turned in {groups}", lambda weights: _mirrored(weights, groups))


def _mirrored(weights: Array, groups: int) -> Array:
    blocks = weights.reshape(groups, len(weights) // groups, *weights.shape[1:]).swapaxes(1, 2)
    mirrored: Array = np.flip(blocks, tuple(range(3, blocks.ndim)))
    return np.ascontiguousarray(mirrored.reshape(-1, *mirrored.shape[2:]))


def _convolve(program: Program, node: Node, x: Value, weights: Array | Value, window: Window, out: Value) -> None:
    """A convolution of float32 plus the node's bias, which is part of it if both are known.

    Without input channels or filters nothing is added up.
    """
    bias, groups = program.known(node.input(2)), node.integer("group", 1)
    empty = isinstance(weights, np.ndarray) and not weights.size
    apart = bool(node.input(2)) and (bias is None or empty or isinstance(weights, Value))
    sums = program.scratch(out.dtype, out.shape) if apart else out
    if empty:
        fill(program, node, sums, 0.0)
    elif isinstance(weights, Value):
        convolve_images(program, node, x, weights, window, sums, groups)
    else:
        epilogue = Epilogue(output="float32", bias=None if apart else bias)
        Convolution(weights, window, groups, epilogue).append(program, node, x, sums)
    if apart:
        combine(program, node, "add", sums, _per_channel(program.value(node.input(2)), out), out)


def _convolve_bytes(program: Program, node: Node, names: tuple[str, str], zeros: tuple[Zero, Zero], out: Value) -> None:
    x, known = program.value(names[0]), program.known(names[1])
    window = conv_window(node, program.type(names[0]), program.type(names[1]))
    groups, (x_zero, w_zero) = node.integer("group", 1), zeros
    moved = centred_bytes(known, w_zero) if known is not None and isinstance(w_zero, int) else None
    if known is None or moved is None:
        convolve_images(program, node, x, program.value(names[1]), window, out, groups, zeros)
        return
    weights = program.packer.derived(known, f"less {w_zero}", lambda _: moved)
    Convolution(weights, window, groups, Epilogue(output="int32"), x_zero).append(program, node, x, out)


def _per_channel(values: Value, image: Value) -> Value:
    """One number for all, or one for each channel of an image."""
    return spread_along(values, 1, len(image.shape))
