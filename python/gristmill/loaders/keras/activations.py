"""Keras's activations, by name and as layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from gristmill.loaders.channels_last import Value
from gristmill.loaders.keras.layer import Layer

__all__ = ["ACTIVATION_LAYERS", "activate", "activate_output"]

#: What training for quantization puts around an activation.
_WRAPPERS = ("QuantizeAwareActivation", "NoOpActivation")

_Activation: TypeAlias = Callable[[Layer, Value, str], Value]


def activate(layer: Layer, value: Value, key: str = "activation") -> Value:
    """Apply the activation that the configuration names under ``key``."""
    named = layer.config.get(key)
    if isinstance(named, Mapping) and named.get("class_name") in _WRAPPERS:
        inner = named.get("config")
        named = inner.get("activation") if isinstance(inner, Mapping) else None
    if isinstance(named, Mapping):
        if named.get("class_name") in ACTIVATION_LAYERS and isinstance(named.get("config"), Mapping):
            inner = replace(layer, kind=str(named["class_name"]), config=named["config"], inputs=[value])
            return ACTIVATION_LAYERS[inner.kind](inner)
        named = named.get("config", named.get("class_name"))
    if named is None:
        return value
    if not isinstance(named, str) or named not in _ACTIVATIONS:
        raise layer.unsupported(f"activation {named!r} is not known; known are {', '.join(sorted(_ACTIVATIONS))}")
    return _ACTIVATIONS[named](layer, value, f"{layer.name}/{named}")


def activate_output(layer: Layer, output: str, shape: tuple[int | None, ...], *, planar: bool) -> list[Value]:
    """Wrap up the output of a layer that has an activation of its own."""
    return [activate(layer, Value(output, shape, planar))]


def _operator(op: str, **attributes: float) -> _Activation:
    return lambda layer, value, name: layer.build.unary(op, value, name, **attributes)


def _clip(low: float | None, high: float | None) -> _Activation:
    def clip(layer: Layer, value: Value, name: str) -> Value:
        bounds = [
            "" if bound is None else layer.build.constant(f"{name}/{side}", np.float32(bound))
            for side, bound in (("low", low), ("high", high))
        ]
        return Value(layer.build.add("Clip", [value.name, *bounds], name), value.shape, value.planar)

    return clip


def _softmax(op: str) -> _Activation:
    def softmax(layer: Layer, value: Value, name: str) -> Value:
        axis = 1 if value.planar else value.rank - 1
        return layer.build.unary(op, value, name, axis=axis)

    return softmax


def _combine(layer: Layer, op: str, a: Value, b: Value, name: str) -> Value:
    return Value(layer.build.add(op, [a.name, b.name], name), a.shape, a.planar)


def _softplus(layer: Layer, value: Value, name: str) -> Value:
    """log(1 + e^x) = max(x, 0) + log(1 + e^-|x|), which does not overflow."""
    build = layer.build
    falling = build.unary(
        "Exp", build.unary("Neg", build.unary("Abs", value, f"{name}/abs"), f"{name}/neg"), f"{name}/exp"
    )
    tail = build.unary("Log", build.binary("Add", falling, 1.0, name), f"{name}/log")
    return _combine(layer, "Add", build.unary("Relu", value, f"{name}/relu"), tail, name)


def _softsign(layer: Layer, value: Value, name: str) -> Value:
    size = layer.build.binary("Add", layer.build.unary("Abs", value, f"{name}/abs"), 1.0, name)
    return _combine(layer, "Div", value, size, name)


def _selu(layer: Layer, value: Value, name: str) -> Value:
    elu = layer.build.unary("Elu", value, f"{name}/elu", alpha=1.6732632423543772)
    return layer.build.binary("Mul", elu, 1.0507009873554805, name)


def _silu(layer: Layer, value: Value, name: str) -> Value:
    return _combine(layer, "Mul", value, layer.build.unary("Sigmoid", value, f"{name}/sigmoid"), name)


def _mish(layer: Layer, value: Value, name: str) -> Value:
    softplus = _softplus(layer, value, f"{name}/softplus")
    return _combine(layer, "Mul", value, layer.build.unary("Tanh", softplus, f"{name}/tanh"), name)


def _hard_sigmoid(layer: Layer, value: Value, name: str) -> Value:
    slope = 1 / 6 if layer.major >= 3 else 0.2
    return layer.build.unary("HardSigmoid", value, name, alpha=slope, beta=0.5)


def _linear(layer: Layer, value: Value, name: str) -> Value:
    return value


_ACTIVATIONS: dict[str, _Activation] = {
    "linear": _linear,
    "relu": _operator("Relu"),
    "relu6": _clip(0.0, 6.0),
    "leaky_relu": _operator("LeakyRelu", alpha=0.2),
    "sigmoid": _operator("Sigmoid"),
    "hard_sigmoid": _hard_sigmoid,
    "tanh": _operator("Tanh"),
    "softmax": _softmax("Softmax"),
    "log_softmax": _softmax("LogSoftmax"),
    "softplus": _softplus,
    "softsign": _softsign,
    "elu": _operator("Elu", alpha=1.0),
    "selu": _selu,
    "gelu": lambda layer, value, name: layer.build.unary("Gelu", value, name, approximate="none"),
    "silu": _silu,
    "swish": _silu,
    "mish": _mish,
    "hard_silu": _operator("HardSwish"),
    "hard_swish": _operator("HardSwish"),
    "exponential": _operator("Exp"),
}


def _relu_layer(layer: Layer) -> Value:
    """max_value caps, threshold cuts, negative_slope leaks: f(x) = slope * (x - threshold) below the threshold."""
    slope, threshold = layer.real("negative_slope", 0.0), layer.real("threshold", 0.0)
    most = None if layer.config.get("max_value") is None else layer.real("max_value", 0.0)
    value, build, name = layer.input, layer.build, layer.name
    if threshold:
        limit = build.constant(f"{name}/threshold", np.float32(threshold))
        above = build.add("GreaterOrEqual", [value.name, limit], f"{name}/above")
        below = build.binary("Mul", build.binary("Sub", value, threshold, f"{name}/below"), slope, f"{name}/below")
        kept = Value(build.add("Where", [above, value.name, below.name], f"{name}/kept"), value.shape, value.planar)
        return kept if most is None else _clip(None, most)(layer, kept, name)
    if slope:
        leaky = build.unary("LeakyRelu", value, f"{name}/leaky", alpha=slope)
        return leaky if most is None else _clip(None, most)(layer, leaky, name)
    return build.unary("Relu", value, name) if most is None else _clip(0.0, most)(layer, value, name)


def _leaky_relu_layer(layer: Layer) -> Value:
    key = "negative_slope" if "negative_slope" in layer.config else "alpha"
    return layer.build.unary("LeakyRelu", layer.input, layer.name, alpha=layer.real(key, 0.3))


def _thresholded_relu_layer(layer: Layer) -> Value:
    value, build, name = layer.input, layer.build, layer.name
    theta = build.constant(f"{name}/theta", np.float32(layer.real("theta", 1.0)))
    zero = build.constant(f"{name}/zero", np.float32(0))
    above = build.add("Greater", [value.name, theta], f"{name}/above")
    return Value(build.add("Where", [above, value.name, zero], name), value.shape, value.planar)


def _prelu_layer(layer: Layer) -> Value:
    value = layer.input
    shared = {int(axis) - 1 for axis in layer.config.get("shared_axes") or ()}
    shape = tuple(1 if i in shared else value.extent(i + 1, layer.name) for i in range(value.rank - 1))
    slope = layer.constant("alpha", layer.weight("alpha", 0, shape))
    return Value(layer.build.add("PRelu", [layer.build.plain(value), slope], layer.name), value.shape)


def _elu_layer(layer: Layer) -> Value:
    return layer.build.unary("Elu", layer.input, layer.name, alpha=layer.real("alpha", 1.0))


def _softmax_layer(layer: Layer) -> Value:
    axis = layer.config.get("axis", -1)
    if not isinstance(axis, int) or not -layer.input.rank <= axis < layer.input.rank:
        raise layer.unsupported(f"softmax over axis {axis!r}")
    name = layer.build.add("Softmax", [layer.build.plain(layer.input)], layer.name, axis=axis)
    return Value(name, layer.input.shape)


ACTIVATION_LAYERS: dict[str, Callable[[Layer], Value]] = {
    "Activation": lambda layer: activate(layer, layer.input),
    "ReLU": _relu_layer,
    "LeakyReLU": _leaky_relu_layer,
    "ThresholdedReLU": _thresholded_relu_layer,
    "PReLU": _prelu_layer,
    "ELU": _elu_layer,
    "Softmax": _softmax_layer,
}
