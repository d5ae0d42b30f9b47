"""Layers: convolutions and linear layers with what passes have fused into them."""

from __future__ import annotations

from gristmill.compile.convolution import Convolution
from gristmill.compile.packer import Layer
from gristmill.compile.program import Program, unsupported
from gristmill.compile.registry import lowers
from gristmill.graph import Array, Node
from gristmill.operators.convolution import conv_window
from gristmill.passes.layers import CONV, LINEAR, epilogue_of


@lowers(CONV)
def lower_conv(program: Program, node: Node) -> None:
    """A convolution."""
    x, weights = program.value(node.inputs[0]), _weights(program, node)
    window = conv_window(node, program.type(node.inputs[0]), weights)
    epilogue = epilogue_of(node, program.known(node.input(2)))
    convolution = Convolution(weights, window, node.integer("group", 1), epilogue, node.integer("x_zero_point", 0))
    residual = program.value(node.input(3)) if node.input(3) else None
    convolution.append(program, node, x, program.result(node.outputs[0]), residual)


@lowers(LINEAR)
def lower_linear(program: Program, node: Node) -> None:
    """A product with constant weights."""
    x, weights = program.value(node.inputs[0]), _weights(program, node)
    out = program.result(node.outputs[0])
    residual = [program.value(node.input(3))] if node.input(3) else []
    epilogue = epilogue_of(node, program.known(node.input(2)))
    program.layer(node, Layer("linear", weights, {}, (x, out, *residual), epilogue, node.integer("x_zero_point", 0)))


def _weights(program: Program, node: Node) -> Array:
    weights = program.known(node.inputs[1])
    if weights is None:
        raise unsupported(node, "weights that are not constant")
    return weights
