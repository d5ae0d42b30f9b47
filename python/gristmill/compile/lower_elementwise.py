"""Functions of each element, and of pairs that broadcast."""

from __future__ import annotations

import numpy as np

from gristmill.compile.program import Program, Value, unsupported
from gristmill.compile.registry import lowers
from gristmill.graph import Node

_UNARY = {
    "Abs": "abs",
    "Ceil": "ceil",
    "Cos": "cos",
    "Erf": "erf",
    "Exp": "exp",
    "Floor": "floor",
    "HardSwish": "hardswish",
    "IsNaN": "isnan",
    "Log": "log",
    "Neg": "neg",
    "Not": "not",
    "Reciprocal": "reciprocal",
    "Relu": "relu",
    "Round": "round",
    "Sigmoid": "sigmoid",
    "Sign": "sign",
    "Sin": "sin",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Sqrt": "sqrt",
    "Tanh": "tanh",
}

_BINARY = {
    "Add": "add",
    "And": "and",
    "Div": "div",
    "Equal": "equal",
    "Greater": "greater",
    "GreaterOrEqual": "greater_or_equal",
    "Less": "less",
    "LessOrEqual": "less_or_equal",
    "Max": "max",
    "Min": "min",
    "Mul": "mul",
    "Or": "or",
    "PRelu": "prelu",
    "Pow": "pow",
    "Sub": "sub",
    "Sum": "add",
    "Xor": "xor",
}


@lowers(*_UNARY)
def lower_unary(program: Program, node: Node) -> None:
    """A function without parameters."""
    unary(program, node, _UNARY[node.op])


@lowers("LeakyRelu", "Elu", "HardSigmoid", "Swish", "Gelu")
def lower_curve(program: Program, node: Node) -> None:
    """A function with attributes."""
    if node.op == "Swish":
        if node.real("alpha", 1.0) != 1.0:
            raise unsupported(node, "an alpha other than 1")
        unary(program, node, "silu")
    elif node.op == "Gelu":
        unary(program, node, "gelu_tanh" if node.text("approximate", "none") == "tanh" else "gelu")
    elif node.op == "HardSigmoid":
        unary(program, node, "hardsigmoid", node.real("alpha", 0.2), node.real("beta", 0.5))
    else:
        default = 0.01 if node.op == "LeakyRelu" else 1.0
        unary(program, node, {"LeakyRelu": "leaky_relu", "Elu": "elu"}[node.op], node.real("alpha", default))


@lowers("Clip")
def lower_clip(program: Program, node: Node) -> None:
    """Constant bounds of float32 clamp in one step; others are a maximum and a minimum."""
    low, high = (program.known(node.input(index)) for index in (1, 2))
    x = program.type(node.inputs[0])
    missing = [name for name, bound in ((node.input(1), low), (node.input(2), high)) if name and bound is None]
    if x.dtype == np.float32 and not missing:
        bounds = (-np.inf if low is None else float(low.item()), np.inf if high is None else float(high.item()))
        if bounds[0] <= bounds[1]:
            unary(program, node, "clip", *bounds)
            return
    value = program.value(node.inputs[0])
    for function, name in (("max", node.input(1)), ("min", node.input(2))):
        if name:
            out = program.scratch(x.dtype, x.shape)
            binary(program, node, function, value, program.value(name), out)
            value = out
    program.alias(node.outputs[0], value)


@lowers(*_BINARY, "Mean")
def lower_binary(program: Program, node: Node) -> None:
    """Two operands, or a chain of them."""
    names = node.inputs
    out_type = program.type(node.outputs[0])
    value = program.value(names[0])
    for count, name in enumerate(names[1:], 2):
        shape = out_type.shape if count == len(names) else np.broadcast_shapes(value.shape, program.type(name).shape)
        out = program.scratch(out_type.dtype, shape)
        binary(program, node, _BINARY.get(node.op, "add"), value, program.value(name), out)
        value = out
    if node.op == "Mean" and len(names) > 1:
        out = program.scratch(out_type.dtype, out_type.shape)
        count_value = program.constant(np.array(1 / len(names), np.float32))
        binary(program, node, "mul", value, count_value, out)
        value = out
    program.alias(node.outputs[0], value)


@lowers("Mod")
def lower_mod(program: Program, node: Node) -> None:
    """The remainder, with the sign of the divisor or, like C's fmod, of the dividend."""
    a, b = (program.value(name) for name in node.inputs)
    function = "fmod" if node.integer("fmod", 0) else "mod"
    binary(program, node, function, a, b, program.result(node.outputs[0]))


@lowers("Where")
def lower_where(program: Program, node: Node) -> None:
    """One of two values by a condition."""
    operands = [program.value(name) for name in node.inputs]
    program.step("select", node, operands, [program.result(node.outputs[0])])


@lowers("BatchNormalization")
def lower_batch_normalization(program: Program, node: Node) -> None:
    """A scale and an offset per channel, for normalization that no layer could take in."""
    values = [program.known(name) for name in node.inputs[1:5]]
    known = [np.asarray(value, np.float64) for value in values if value is not None]
    if len(known) < 4 or any(node.outputs[1:]) or node.integer("training_mode", 0):
        raise unsupported(node, "only inference with constant statistics can be run")
    gamma, beta, mean, variance = known
    scale = gamma / np.sqrt(variance + node.real("epsilon", 1e-5))
    x = program.value(node.inputs[0])
    shape = (scale.size, *[1] * max(len(x.shape) - 2, 0))
    factors = [program.constant(part.astype(np.float32).reshape(shape)) for part in (scale, beta - mean * scale)]
    scaled = program.scratch(x.dtype, x.shape)
    binary(program, node, "mul", x, factors[0], scaled)
    binary(program, node, "add", scaled, factors[1], program.result(node.outputs[0]))


def unary(program: Program, node: Node, function: str, alpha: float = 0.0, beta: float = 0.0) -> None:
    """Append a function of one value, which may overwrite it."""
    x = program.value(node.inputs[0])
    out = program.result(node.outputs[0])
    in_place = x if x.dtype == out.dtype else None
    program.step("unary", node, [x], [out], alpha, beta, function=function, in_place=in_place)


def binary(program: Program, node: Node, function: str, a: Value, b: Value, out: Value) -> None:
    """Append a function of two values, which may overwrite one that is not broadcast."""
    in_place = next((x for x in (a, b) if x.shape == out.shape and x.dtype == out.dtype), None)
    if in_place is not None and a.storage is b.storage:
        in_place = None
    program.step("binary", node, [a, b], [out], function=function, in_place=in_place)
