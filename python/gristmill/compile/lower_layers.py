"""Layers: convolutions of one and two axes, linear layers, and transposed convolutions."""

from __future__ import annotations

from gristmill.compile.program import Program, Value, unsupported
from gristmill.compile.registry import lowers
from gristmill.graph import Array, Node
from gristmill.operators.convolution import conv_window
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
    assert weights is not None
    return weights


def _image(value: Value) -> Value:
    """Sequences as images of one row."""
    return value if len(value.shape) != 3 else value.reshaped((*value.shape[:2], 1, value.shape[2]))
