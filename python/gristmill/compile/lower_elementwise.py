"""Functions of each element, and of pairs that broadcast."""

from __future__ import annotations

import numpy as np

from gristmill.compile.arithmetic import apply, cast, combine, scaled, spread_along
from gristmill.compile.program import Program
from gristmill.compile.registry import lowers
from gristmill.graph import Node
from gristmill.operators.activation import SELU_ALPHA, SELU_GAMMA

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
    "Mish": "mish",
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


#: Functions with attributes, and the defaults of these.
_CURVES: dict[str, tuple[str, dict[str, float]]] = {
    "Celu": ("celu", {"alpha": 1.0}),
    "Elu": ("elu", {"alpha": 1.0}),
    "HardSigmoid": ("hardsigmoid", {"alpha": 0.2, "beta": 0.5}),
    "LeakyRelu": ("leaky_relu", {"alpha": 0.01}),
    "QuickGelu": ("swish", {"alpha": 1.702}),
    "Selu": ("selu", {"alpha": SELU_ALPHA, "gamma": SELU_GAMMA}),
    "Swish": ("swish", {"alpha": 1.0}),
    "ThresholdedRelu": ("thresholded_relu", {"alpha": 1.0}),
}


@lowers(*_CURVES, "Gelu")
def lower_curve(program: Program, node: Node) -> None:
    """A function with attributes."""
    if node.op == "Gelu":
        unary(program, node, "gelu_tanh" if node.text("approximate", "none") == "tanh" else "gelu")
        return
    function, defaults = _CURVES[node.op]
    numbers = [node.real(name, default) for name, default in defaults.items()]
    if function == "swish" and numbers == [1.0]:
        function, numbers = "silu", []
    unary(program, node, function, *numbers)


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
            value = combine(program, node, function, value, program.value(name).reshaped(()))
    program.alias(node.outputs[0], value)


@lowers(*_BINARY, "Mean")
def lower_binary(program: Program, node: Node) -> None:
    """Two operands, or a chain of them."""
    out_type, function = program.type(node.outputs[0]), _BINARY.get(node.op, "add")
    value = program.value(node.inputs[0])
    for name in node.inputs[1:]:
        other = program.value(name)
        if node.op == "Pow":
            other = cast(program, node, other, value.dtype)
        out = program.scratch(out_type.dtype, np.broadcast_shapes(value.shape, other.shape))
        value = combine(program, node, function, value, other, out)
    if node.op == "Mean":
        value = scaled(program, node, value, 1 / len(node.inputs))
    program.alias(node.outputs[0], value)


@lowers("Mod")
def lower_mod(program: Program, node: Node) -> None:
    """The remainder, with the sign of the divisor or, like C's fmod, of the dividend."""
    a, b = (program.value(name) for name in node.inputs)
    function = "fmod" if node.integer("fmod", 0) else "mod"
    combine(program, node, function, a, b, program.result(node.outputs[0]))


@lowers("Where")
def lower_where(program: Program, node: Node) -> None:
    """One of two values by a condition."""
    operands = [program.value(name) for name in node.inputs]
    program.step("select", node, operands, [program.result(node.outputs[0])])


@lowers("BatchNormalization")
def lower_batch_normalization(program: Program, node: Node) -> None:
    """A scale and an offset per channel, for normalization that no layer could take in."""
    x, epsilon = program.value(node.inputs[0]), node.real("epsilon", 1e-5)
    known = [program.known(name) for name in node.inputs[1:5]]
    values = [np.asarray(value, np.float64) for value in known if value is not None]
    if len(values) == 4:
        scale = values[0] / np.sqrt(values[3] + epsilon)
        constants = scale, values[1] - values[2] * scale
        factor, offset = (program.constant(part.astype(np.float32)) for part in constants)
    else:
        gamma, beta, mean, variance = (program.value(name) for name in node.inputs[1:5])
        moved = combine(program, node, "add", variance, program.constant(np.array(epsilon, np.float32)))
        factor = combine(program, node, "div", gamma, apply(program, node, "sqrt", moved))
        offset = combine(program, node, "sub", beta, combine(program, node, "mul", mean, factor))
    rank = len(x.shape)
    product = combine(program, node, "mul", x, spread_along(factor, 1, rank))
    combine(program, node, "add", product, spread_along(offset, 1, rank), program.result(node.outputs[0]))


def unary(program: Program, node: Node, function: str, *numbers: float) -> None:
    """Append a function of the node's input."""
    apply(program, node, function, program.value(node.inputs[0]), program.result(node.outputs[0]), *numbers)
