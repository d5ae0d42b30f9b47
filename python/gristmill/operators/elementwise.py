"""Operators on elements: arithmetic, comparisons, logic, rounding and casts, with broadcasting."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from gristmill.graph import Array, Node
from gristmill.operators.registry import (
    Known,
    TensorType,
    broadcast,
    broadcast_shapes,
    common_dtype,
    element_type,
    enter,
    operator,
    require_float,
    same,
)


def wide(x: Array) -> Array:
    """Reals in float64, so that one rounding at the end is the only one."""
    return x.astype(np.float64)


def float_same(node: Node, x: Known, *rest: Known | None) -> TensorType:
    """Rule: the type of the first input, which is floating-point."""
    require_float(node, x)
    return same(node, x, *rest)


def erf(x: Array) -> Array:
    """The error function in float64."""
    return np.fromiter(map(math.erf, x.ravel().tolist()), np.float64, x.size).reshape(x.shape)


def divide(a: Array, b: Array) -> Array:
    """A quotient; that of integers is truncated."""
    if a.dtype.kind == "f":
        return np.asarray(a / b)
    return np.asarray((a - np.fmod(a, b)) // b)


_REALS: dict[str, Callable[[Array], Array]] = {
    "Ceil": np.ceil,
    "Cos": lambda x: np.cos(wide(x)),
    "Erf": erf,
    "Exp": lambda x: np.exp(wide(x)),
    "Floor": np.floor,
    "Log": lambda x: np.log(wide(x)),
    "Reciprocal": lambda x: x.dtype.type(1) / x,
    "Round": np.rint,
    "Sin": lambda x: np.sin(wide(x)),
    "Sqrt": np.sqrt,
}
_NUMBERS: dict[str, Callable[[Array], Array]] = {"Abs": np.abs, "Neg": np.negative, "Sign": np.sign}
_PAIRS: dict[str, Callable[[Array, Array], Array]] = {
    "Add": np.add,
    "Div": divide,
    "Mul": np.multiply,
    "Sub": np.subtract,
}
_MANY: dict[str, Callable[[Array, Array], Array]] = {"Max": np.maximum, "Min": np.minimum, "Sum": np.add}
_COMPARISONS: dict[str, Callable[[Array, Array], Array]] = {
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
}
_LOGIC: dict[str, Callable[[Array, Array], Array]] = {
    "And": np.logical_and,
    "Or": np.logical_or,
    "Xor": np.logical_xor,
}


def _numbers(node: Node, x: Known, *rest: Known) -> TensorType:
    if x.dtype == np.bool_:
        raise node.error("needs numbers, got bool")
    return broadcast(node, x, *rest)


def _comparison(node: Node, a: Known, b: Known) -> TensorType:
    return TensorType(np.dtype(np.bool_), broadcast(node, a, b).shape)


def _logic(node: Node, *inputs: Known) -> TensorType:
    if common_dtype(node, inputs) != np.bool_:
        raise node.error(f"needs bool, got {inputs[0].dtype.name}")
    return broadcast(node, *inputs)


def _each(function: Callable[[Array], Array]) -> Callable[[Node, Array], Array]:
    return lambda node, x: function(x)


def _both(function: Callable[[Array, Array], Array]) -> Callable[[Node, Array, Array], Array]:
    return lambda node, a, b: function(a, b)


def _chain(function: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    return lambda node, first, *rest: reduce(function, rest, first)


for _name, _unary in _REALS.items():
    enter(_name, _each(_unary), float_same)
for _name, _unary in _NUMBERS.items():
    enter(_name, _each(_unary), _numbers)
for _name, _binary in _PAIRS.items():
    enter(_name, _both(_binary), _numbers)
for _name, _binary in _MANY.items():
    enter(_name, _chain(_binary), _numbers)
for _name, _binary in _COMPARISONS.items():
    enter(_name, _both(_binary), _comparison)
for _name, _binary in _LOGIC.items():
    enter(_name, _both(_binary), _logic)
enter("Not", _each(np.logical_not), _logic)


@operator("Mean", rule=_numbers)
def mean(_node: Node, first: Array, *rest: Array) -> Array:
    """The mean of the inputs."""
    return np.asarray(reduce(np.add, rest, first) / first.dtype.type(1 + len(rest)))


def _modulo(node: Node, a: Known, b: Known) -> TensorType:
    if a.dtype.kind == "f" and not node.integer("fmod", 0):
        raise node.error("floating-point values need fmod=1")
    return _numbers(node, a, b)


@operator("Mod", rule=_modulo)
def modulo(node: Node, a: Array, b: Array) -> Array:
    """A remainder with the sign of the divisor, or with ``fmod`` that of the dividend."""
    return np.asarray(np.fmod(a, b) if node.integer("fmod", 0) else np.mod(a, b))


def _power(node: Node, base: Known, exponent: Known) -> TensorType:
    if np.bool_ in (base.dtype, exponent.dtype):
        raise node.error("needs numbers, got bool")
    return TensorType(base.dtype, broadcast_shapes(node, base.shape, exponent.shape))


@operator("Pow", rule=_power)
def power(_node: Node, base: Array, exponent: Array) -> Array:
    """A power of the base's type."""
    if base.dtype.kind != "f" and exponent.dtype.kind != "f":
        return np.asarray(np.power(base.astype(np.int64), exponent.astype(np.int64)))
    return np.asarray(np.power(wide(base), wide(exponent)))


def _clip(node: Node, x: Known, low: Known | None = None, high: Known | None = None) -> TensorType:
    if any(bound is not None and bound.size != 1 for bound in (low, high)):
        raise node.error("bounds must be single numbers")
    common_dtype(node, (x, low, high))
    return same(node, x)


@operator("Clip", rule=_clip)
def clip(_node: Node, x: Array, low: Array | None = None, high: Array | None = None) -> Array:
    """The least bound wins over x, the greatest over both."""
    bounded = x if low is None else np.maximum(x, low.reshape(()))
    return np.asarray(bounded if high is None else np.minimum(bounded, high.reshape(())))


def _where(node: Node, condition: Known, a: Known, b: Known) -> TensorType:
    if condition.dtype != np.bool_:
        raise node.error(f"the condition must be bool, got {condition.dtype.name}")
    return TensorType(common_dtype(node, (a, b)), broadcast_shapes(node, condition.shape, a.shape, b.shape))


@operator("Where", rule=_where)
def where(_node: Node, condition: Array, a: Array, b: Array) -> Array:
    """The first where the condition holds, else the second."""
    return np.where(condition, a, b)


def _cast(node: Node, x: Known) -> TensorType:
    return TensorType(element_type(node, "to", 0), x.shape)


@operator("Cast", rule=_cast)
def cast(node: Node, x: Array) -> Array:
    """Another element type: integers wrap, reals are truncated to the nearest integer there is, NaN to 0."""
    dtype = element_type(node, "to", 0)
    return _truncated(x, dtype) if x.dtype.kind == "f" and dtype.kind in "iu" else x.astype(dtype)


def _truncated(x: Array, dtype: np.dtype[Any]) -> Array:
    bounds, real = np.iinfo(dtype), wide(x)
    end = float(bounds.max) + (dtype.itemsize < 8)  # rounded to float64 it is 2^63 or 2^64 already
    known = np.where((real > bounds.min - 1.0) & (real < end), real, 0.0).astype(dtype)
    return np.asarray(np.where(real >= end, bounds.max, np.where(real <= bounds.min, bounds.min, known)), dtype)
