"""Layers: convolutions and linear layers with everything fused into them, as two operators that passes make.

``ConvLayer`` and ``LinearLayer`` read x, weights (out channels, in channels / groups, taps...; constant), a bias or
nothing, and a residual or nothing. What happens is what :class:`gristmill.kernels.Epilogue` says, with these
attributes:

- ``strides``, ``pads``, ``dilations``, ``group``, ``auto_pad`` as in Conv;
- ``activation``, ``low``, ``high``, ``alpha``: of the output, as in :class:`gristmill.kernels.Activation`;
- ``sum_activation``, ``sum_low``, ``sum_high``: of the sum with the residual.

Weights of int8 make an integer layer. It has ``x_zero_point``, ``output`` (the name of its element type) and ``scale``;
for bytes also ``zero_point`` and ``output_scale``; ``curve_scale`` and ``curve_zero_point`` of what a curve yields; and
with a residual ``residual_scale``, ``residual_zero_point``, ``residual_first`` (whether it is the sum's first operand),
``sum_scale`` and ``sum_zero_point``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast

import numpy as np

from gristmill.dense import Activation, Epilogue, Residual
from gristmill.graph import Array, Attribute, Node
from gristmill.operators.activation import sigmoid
from gristmill.operators.convolution import conv_window, convolve, per_channel
from gristmill.operators.quantization import dequantize, quantize, store
from gristmill.operators.quantized_elementwise import Scaled, add_bytes
from gristmill.operators.registry import Known, TensorType, operator

CONV, LINEAR = "ConvLayer", "LinearLayer"
LAYERS = (CONV, LINEAR)
#: Activations that narrow a clamp instead of computing something.
CLAMPS = ("none", "relu", "clip")


def activation_of(node: Node, prefix: str = "") -> Activation:
    """The activation of a layer, or with the prefix ``sum_`` that of its sum."""
    name = node.text(f"{prefix}activation", "none")
    bounds = node.real(f"{prefix}low", -np.inf), node.real(f"{prefix}high", np.inf)
    return Activation(name, *bounds, node.real("alpha", 0.01) if not prefix else 0.0)  # type: ignore[arg-type]


def activation_attributes(activation: Activation, prefix: str = "") -> dict[str, Attribute]:
    """The attributes that say it."""
    found: dict[str, Attribute] = {f"{prefix}activation": activation.name}
    if activation.name == "clip":
        found |= {f"{prefix}low": activation.low, f"{prefix}high": activation.high}
    if activation.name == "leaky_relu":
        found["alpha"] = activation.alpha
    return found


def is_integer(node: Node) -> bool:
    """Whether a layer works on integers."""
    return "x_zero_point" in node.attributes


def scale_of(node: Node) -> Array:
    """The multipliers of an integer layer's sums: one, or one per channel."""
    return np.atleast_1d(cast("Array", node.attributes["scale"]))


def epilogue_of(node: Node, bias: Array | None) -> Epilogue:
    """What becomes of a layer's sums."""
    residual = None
    if node.input(3):
        residual = Residual(
            _type(node, "residual_type"),
            node.real("residual_scale", 1.0),
            node.integer("residual_zero_point", 0),
            node.real("sum_scale", 1.0),
            node.integer("sum_zero_point", 0),
            activation_of(node, "sum_"),
            bool(node.integer("residual_first", 0)),
        )
    curve = None
    if "curve_scale" in node.attributes:
        curve = node.real("curve_scale", 1.0), node.integer("curve_zero_point", 0)
    return Epilogue(
        output=_type(node, "output"),
        bias=bias,
        scale=scale_of(node) if "scale" in node.attributes else None,
        zero_point=node.integer("zero_point", 0),
        output_scale=node.real("output_scale", 0.0),
        activation=activation_of(node),
        activation_output=curve,
        residual=residual,
    )


def _type(node: Node, name: str) -> Literal["uint8", "int8", "int32", "float32"]:
    return cast("Literal['uint8', 'int8', 'int32', 'float32']", node.text(name, "float32"))


def _result(node: Node, shape: tuple[int, ...], residual: Known | None) -> TensorType:
    if residual is not None and residual.shape != shape:
        raise node.error(f"a residual of shape {list(residual.shape)} for {list(shape)}")
    return TensorType(np.dtype(_type(node, "output")), shape)


def _conv(node: Node, x: Known, w: Known, _bias: Known | None = None, residual: Known | None = None) -> TensorType:
    return _result(node, (x.shape[0], w.shape[0], *conv_window(node, x, w).output), residual)


def _linear(node: Node, x: Known, w: Known, _bias: Known | None = None, residual: Known | None = None) -> TensorType:
    if x.ndim < 1 or x.shape[-1] != w.shape[1]:
        raise node.error(f"{list(x.shape)} has other features than the weights {list(w.shape)}")
    return _result(node, (*x.shape[:-1], w.shape[0]), residual)


@operator(CONV, rule=_conv)
def conv_layer(node: Node, x: Array, w: Array, bias: Array | None = None, residual: Array | None = None) -> Array:
    """A convolution and its epilogue."""
    sums = convolve(_centred(node, x), w, conv_window(node, x, w), node.integer("group", 1))
    return _finish(node, sums, x.ndim, bias, residual)


@operator(LINEAR, rule=_linear)
def linear_layer(node: Node, x: Array, w: Array, bias: Array | None = None, residual: Array | None = None) -> Array:
    """A linear layer and its epilogue."""
    centred = _centred(node, x)
    return _finish(node, centred @ w.astype(centred.dtype).T, 2, bias, residual)


def _centred(node: Node, x: Array) -> Array:
    return x.astype(np.float64) - node.integer("x_zero_point", 0) if is_integer(node) else x


def _finish(node: Node, sums: Array, rank: int, bias: Array | None, residual: Array | None) -> Array:
    """The epilogue. ``rank`` is that for which numbers per channel are shaped."""
    if bias is not None:
        sums = sums + per_channel(bias, rank)
    output = np.dtype(_type(node, "output"))
    if is_integer(node) and "scale" in node.attributes:
        sums = sums.astype(np.float32) * per_channel(scale_of(node), rank)
    if output.kind == "f":
        y = _activate(activation_of(node), sums).astype(np.float32)
        return y if residual is None else _activate(activation_of(node, "sum_"), y + residual)
    if output.itemsize > 1:
        return sums
    return _bytes(node, sums, output, residual)


def _bytes(node: Node, steps: Array, output: np.dtype[Any], residual: Array | None) -> Array:
    scale, zero_point = np.float32(node.real("output_scale", 1.0)), np.asarray(node.integer("zero_point", 0), output)
    y = store(steps, zero_point, output)
    activation = activation_of(node)
    if activation.name in CLAMPS:
        y = _clamp_bytes(y, activation, scale, zero_point)
    else:
        real = _activate(activation, dequantize(y, scale, zero_point).astype(np.float64))
        scale = np.float32(node.real("curve_scale", float(scale)))
        zero_point = np.asarray(node.integer("curve_zero_point", int(zero_point)), output)
        y = quantize(real, scale, zero_point)
    if residual is None:
        return y
    own: Scaled = y, scale, zero_point
    other: Scaled = residual, np.float32(node.real("residual_scale", 1.0)), node.integer("residual_zero_point", 0)
    sides = (other, own) if node.integer("residual_first", 0) else (own, other)
    scale, zero_point = np.float32(node.real("sum_scale", 1.0)), np.asarray(node.integer("sum_zero_point", 0), output)
    total = add_bytes(*sides, np.asarray(scale), zero_point)
    return _clamp_bytes(total, activation_of(node, "sum_"), scale, zero_point)


def _clamp_bytes(y: Array, activation: Activation, scale: np.float32, zero_point: Array) -> Array:
    if activation.name == "none":
        return y
    bounds = (0.0, np.inf) if activation.name == "relu" else (activation.low, activation.high)
    low, high = quantize(np.array(bounds, np.float32), np.asarray(scale), zero_point)
    return np.clip(y, low, high)


def _activate(activation: Activation, x: Array) -> Array:
    curves: dict[str, Callable[[Array], Array]] = {
        "none": lambda x: x,
        "relu": lambda x: np.maximum(x, 0),
        "clip": lambda x: np.clip(x, activation.low, activation.high),
        "leaky_relu": lambda x: np.where(x < 0, activation.alpha * x, x),
        "hardsigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
        "hardswish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
        "sigmoid": sigmoid,
        "silu": lambda x: x * sigmoid(x),
    }
    return curves[activation.name](x)
