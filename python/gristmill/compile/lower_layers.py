"""Layers: convolutions of one and two axes, linear layers, and transposed convolutions."""

from __future__ import annotations

import numpy as np

from gristmill.compile.program import Program, Value, unsupported
from gristmill.compile.registry import lowers
from gristmill.graph import Array, Node
from gristmill.operators.convolution import conv_window, transposed_window
from gristmill.operators.spatial import Window
from gristmill.passes.layers import CONV, LINEAR, epilogue_of


@lowers(CONV)
def lower_conv(program: Program, node: Node) -> None:
    """A convolution, whose single axis becomes the columns of one row."""
    x, weights = program.value(node.inputs[0]), _weights(program, node)
    window = conv_window(node, program.type(node.inputs[0]), weights)
    out = program.result(node.outputs[0])
    _convolve(program, node, x, weights, window, out)


def _convolve(program: Program, node: Node, x: Value, weights: Array, window: Window, out: Value) -> None:
    rank = len(window.kernel)
    if rank > 2:
        raise unsupported(node, f"{rank} spatial axes; convolutions of one and two can be run")
    more = 2 - rank
    residual = program.value(node.input(3)) if node.input(3) else None
    packed = program.packer.conv(
        weights,
        stride=(*[1] * more, *window.strides),  # type: ignore[arg-type]
        padding=(*[0] * more, *window.begins, *[0] * more, *window.ends),  # type: ignore[arg-type]
        dilation=(*[1] * more, *window.dilations),  # type: ignore[arg-type]
        groups=node.integer("group", 1),
    )
    parameters = (packed, epilogue_of(node, program.known(node.input(2)))._core, node.integer("x_zero_point", 0))
    images = [_image(value) for value in (x, out, residual) if value is not None]
    program.layer("conv", node, images, parameters)


@lowers("ConvTranspose")
def lower_conv_transpose(program: Program, node: Node) -> None:
    """A convolution with turned kernels over an image with zeros between its elements."""
    x, weights = program.value(node.inputs[0]), _weights(program, node)
    if x.dtype != np.float32 or (node.input(2) and program.known(node.input(2)) is None):
        raise unsupported(node, "only float32 with a constant bias can be run")
    window, groups = transposed_window(node, program.type(node.inputs[0]), weights), node.integer("group", 1)
    out = program.result(node.outputs[0])
    extents = [(n - 1) * stride + 1 for n, stride in zip(x.shape[2:], window.strides, strict=True)]
    spread = program.scratch(x.dtype, (*x.shape[:2], *extents))
    if max(window.strides) > 1:
        program.step("fill", node, [], [spread], 0.0)
        program.copy(node, x, spread.view().slices([0] * len(x.shape), x.shape, (1, 1, *window.strides)))
    else:
        spread = x
    spans, edges = window.spans, zip(window.spans, window.begins, strict=True)
    begins = [span - 1 - begin for span, begin in edges]
    ends = [
        out_extent - extent - begin + span - 1
        for out_extent, extent, begin, span in zip(window.output, extents, begins, spans, strict=True)
    ]
    ones = (1,) * len(extents)
    padded = tuple(max(begin, 0) for begin in begins), tuple(max(end, 0) for end in ends)
    whole = [extent + begin + end - span + 1 for extent, begin, end, span in zip(extents, *padded, spans, strict=True)]
    target = out if tuple(whole) == window.output else program.scratch(out.dtype, (*out.shape[:2], *whole))
    turned = program.packer.derived(weights, f"turned in {groups}", lambda w: _turned(w, groups))
    forward = Window(window.kernel, ones, window.dilations, *padded, tuple(whole))
    _convolve(program, node, spread, turned, forward, target)
    if target is not out:
        starts = [0, 0, *(max(-begin, 0) for begin in begins)]
        program.copy(node, target.view().slices(starts, out.shape, [1] * len(out.shape)), out)


def _turned(weights: Array, groups: int) -> Array:
    """Kernels mirrored, output channels first."""
    blocks = weights.reshape(groups, len(weights) // groups, *weights.shape[1:]).swapaxes(1, 2)
    mirrored: Array = np.flip(blocks, tuple(range(3, blocks.ndim)))
    return np.ascontiguousarray(mirrored.reshape(-1, *mirrored.shape[2:]))


@lowers(LINEAR)
def lower_linear(program: Program, node: Node) -> None:
    """A product with constant weights."""
    x, weights = program.value(node.inputs[0]), _weights(program, node)
    out = program.result(node.outputs[0])
    residual = [program.value(node.input(3))] if node.input(3) else []
    epilogue = epilogue_of(node, program.known(node.input(2)))._core
    parameters = (program.packer.linear(weights), epilogue, node.integer("x_zero_point", 0))
    program.layer("linear", node, [x, out, *residual], parameters)


def _weights(program: Program, node: Node) -> Array:
    weights = program.known(node.inputs[1])
    if weights is None:
        raise unsupported(node, "weights that are not constant")
    return weights


def _image(value: Value) -> Value:
    """Sequences as images of one row."""
    return value if len(value.shape) != 3 else value.reshaped((*value.shape[:2], 1, value.shape[2]))
