"""Activations, computed in float64 and rounded once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gristmill.graph import Array, Node
from gristmill.operators.elementwise import erf, float_same, wide
from gristmill.operators.registry import (
    Known,
    TensorType,
    broadcast_shapes,
    common_dtype,
    enter,
    normal_axis,
    operator,
    require_float,
    same,
)


def sigmoid(x: Array) -> Array:
    """The logistic function, without overflow."""
    small = np.exp(-np.abs(x))
    return np.asarray(np.where(x < 0, small, 1) / (1 + small))


def _gelu(node: Node, x: Array) -> Array:
    approximate = node.text("approximate", "none")
    if approximate == "none":
        return np.asarray(0.5 * x * (1 + erf(x / np.sqrt(2))))
    if approximate != "tanh":
        raise node.error(f"approximate must be none or tanh, got {approximate!r}")
    return np.asarray(0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))))


def _hard_sigmoid(node: Node, x: Array) -> Array:
    return np.clip(node.real("alpha", 0.2) * x + node.real("beta", 0.5), 0, 1)


def _softplus(x: Array) -> Array:
    return np.asarray(np.logaddexp(x, 0))


def _exponential(x: Array, alpha: float) -> Array:
    return np.asarray(np.where(x < 0, alpha * np.expm1(np.minimum(x, 0)), x))


#: What Selu takes its attributes to be.
SELU_ALPHA, SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875
_CURVES: dict[str, Callable[[Node, Array], Array]] = {
    "Celu": lambda node, x: (
        np.maximum(x, 0) + np.minimum(0, node.real("alpha", 1.0) * np.expm1(x / node.real("alpha", 1.0)))
    ),
    "Elu": lambda node, x: _exponential(x, node.real("alpha", 1.0)),
    "Gelu": _gelu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda node, x: x * np.clip(x / 6 + 0.5, 0, 1),
    "LeakyRelu": lambda node, x: np.where(x < 0, node.real("alpha", 0.01) * x, x),
    "Mish": lambda node, x: x * np.tanh(_softplus(x)),
    "QuickGelu": lambda node, x: x * sigmoid(node.real("alpha", 1.702) * x),
    "Selu": lambda node, x: node.real("gamma", SELU_GAMMA) * _exponential(x, node.real("alpha", SELU_ALPHA)),
    "Sigmoid": lambda node, x: sigmoid(x),
    "Softplus": lambda node, x: _softplus(x),
    "Softsign": lambda node, x: x / (1 + np.abs(x)),
    "Swish": lambda node, x: x * sigmoid(node.real("alpha", 1.0) * x),
    "Tanh": lambda node, x: np.tanh(x),
    "ThresholdedRelu": lambda node, x: np.where((x > node.real("alpha", 1.0)) | np.isnan(x), x, 0),
}


def _in_float64(curve: Callable[[Node, Array], Array]) -> Callable[[Node, Array], Array]:
    return lambda node, x: curve(node, wide(x))


for _name, _curve in _CURVES.items():
    enter(_name, _in_float64(_curve), float_same)


@operator("Relu", rule=same)
def relu(_node: Node, x: Array) -> Array:
    """What is below zero becomes zero; integers too."""
    return np.asarray(np.maximum(x, x.dtype.type(0)))


def _prelu(node: Node, x: Known, slope: Known) -> TensorType:
    common_dtype(node, (x, slope))
    if broadcast_shapes(node, x.shape, slope.shape) != x.shape:
        raise node.error(f"slopes of shape {list(slope.shape)} do not fit {list(x.shape)}")
    return same(node, x)


@operator("PRelu", rule=_prelu)
def prelu(_node: Node, x: Array, slope: Array) -> Array:
    """LeakyRelu with a slope per element, broadcast to x."""
    return np.asarray(np.where(x < 0, x * slope, x))


def _softmax_type(node: Node, x: Known) -> TensorType:
    require_float(node, x)
    normal_axis(node, node.integer("axis", -1), x.ndim)
    return same(node, x)


def _shifted(x: Array, axis: int) -> Array:
    return np.asarray(wide(x) - np.max(wide(x), axis=axis, keepdims=True, initial=-np.inf))


@operator("Softmax", rule=_softmax_type)
def softmax(node: Node, x: Array) -> Array:
    """Exponentials that sum to one along an axis."""
    axis = node.integer("axis", -1)
    exponentials = np.exp(_shifted(x, axis))
    return np.asarray(exponentials / exponentials.sum(axis=axis, keepdims=True))


@operator("LogSoftmax", rule=_softmax_type)
def log_softmax(node: Node, x: Array) -> Array:
    """The logarithm of Softmax."""
    axis = node.integer("axis", -1)
    shifted = _shifted(x, axis)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True)))


@operator("Hardmax", rule=_softmax_type)
def hardmax(node: Node, x: Array) -> Array:
    """One at the first maximum along an axis, zero elsewhere."""
    axis = node.integer("axis", -1)
    result = np.zeros_like(x)
    np.put_along_axis(result, np.expand_dims(np.argmax(x, axis=axis), axis), 1, axis=axis)
    return result
