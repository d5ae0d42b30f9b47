"""QuantizeLinear, DequantizeLinear and DynamicQuantizeLinear, and the rounding that all integer operators share.

float32 arithmetic, one operation at a time: a real becomes ``clamp(round_half_even(x / scale) + zero_point)``, an
accumulator ``clamp(round_half_even(acc * scale) + zero_point)``; NaN becomes the least integer.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gristmill.graph import Array, Node
from gristmill.operators.registry import (
    Known,
    TensorType,
    element_type,
    normal_axis,
    operator,
    require_float,
    unsupported,
)

_QUANTIZED = frozenset(map(np.dtype, (np.uint8, np.int8, np.uint16, np.int16)))


def store(steps: Array, zero_point: Array, dtype: np.dtype[Any]) -> Array:
    """Reals that count steps of a scale, rounded to even, moved by the zero point and saturated."""
    bounds = np.iinfo(dtype)
    rounded = np.rint(steps) + zero_point.astype(np.float32)
    kept = np.where(np.isnan(rounded), np.float32(bounds.min), rounded)
    return np.asarray(np.clip(kept, bounds.min, bounds.max)).astype(dtype)


def saturate(steps: Array, dtype: np.dtype[Any]) -> Array:
    """Reals rounded to even, as integers of a type: the nearest that it has."""
    bounds = np.iinfo(dtype)
    return np.asarray(np.clip(np.rint(steps), bounds.min, bounds.max)).astype(dtype)


def are_steps(scales: Array | float) -> bool:
    """Whether scales are finite and above zero: only then do integers have the order of what they stand for.

    Other scales mean what arithmetic makes of them, as in ONNX Runtime, and nothing may be concluded from the integers.
    """
    values = np.asarray(scales)
    if values.size == 1:
        return 0 < float(values.item()) < math.inf
    return bool(np.count_nonzero((values > 0) & (values < np.inf)) == values.size)


def quantize(x: Array, scale: Array, zero_point: Array) -> Array:
    """float32 reals to integers of the zero point's type."""
    return store(x.astype(np.float32) / scale, zero_point, zero_point.dtype)


def dequantize(q: Array, scale: Array, zero_point: Array | int) -> Array:
    """Integers to float32 reals."""
    return np.asarray((q.astype(np.int32) - np.asarray(zero_point, np.int32)).astype(np.float32) * scale)


def fused_multiply_add(a: Array, b: Array, c: Array) -> Array:
    """``a * b + c`` in float32, rounded once, for a of at most 24 bits times b that float64 holds.

    float64 rounds the sum to odd (its last bit set wherever it is inexact), so that rounding it again does no harm.
    """
    product, addend = np.asarray(a, np.float64) * b, np.asarray(c, np.float64)
    total = product + addend
    rest = total - product
    error = (product - (total - rest)) + (addend - rest)
    even = total.view(np.int64) & 1 == 0
    odd = np.where((error != 0) & even, np.nextafter(total, np.copysign(np.inf, error)), total)
    return np.asarray(odd, np.float32)


def _layout(node: Node, x: Known, axis: int | None = None) -> tuple[int, tuple[int, ...]]:
    """The axis and the shape of scales that are more than one: one per index of the axis, or one per block of it."""
    block = node.integer("block_size", 0)
    axis = normal_axis(node, node.integer("axis", 1) if axis is None else axis, x.ndim)
    if block < 0:
        raise node.error(f"block_size must not be below zero, got {block}")
    if not block:
        return axis, (x.shape[axis],)
    return axis, (*x.shape[:axis], -(-x.shape[axis] // block), *x.shape[axis + 1 :])


def _is_single(node: Node, values: Known) -> bool:
    return values.size == 1 and not node.integer("block_size", 0)


def spread(node: Node, values: Array, x: Known, axis: int | None = None) -> Array:
    """Scales or zero points shaped to broadcast against x: one, one per index of ``axis``, or one per block of it.

    Raises:
        ModelFormatError: There are more or fewer of them.
    """
    if _is_single(node, values):
        return values.reshape(())
    axis, expected = _layout(node, x, axis)
    if values.size != math.prod(expected):
        raise node.error(f"scales or zero points of shape {list(values.shape)}, expected {list(expected)}")
    if block := node.integer("block_size", 0):
        return np.repeat(values.reshape(expected), block, axis=axis)[tuple(slice(extent) for extent in x.shape)]
    return values.reshape([-1 if index == axis else 1 for index in range(x.ndim)])


def _check_scale(node: Node, x: Known, scale: Known, zero_point: Known | None) -> None:
    require_float(node, scale)
    if zero_point is not None and zero_point.shape != scale.shape and zero_point.size != scale.size:
        raise node.error(f"scale of shape {list(scale.shape)}, but zero point of shape {list(zero_point.shape)}")
    if _is_single(node, scale) and scale.ndim <= 1:
        return
    _, expected = _layout(node, x)
    if scale.shape != expected:
        raise node.error(f"scale of shape {list(scale.shape)}, expected {list(expected)} or a single number")


def _quantize(node: Node, x: Known, scale: Known, zero_point: Known | None = None) -> TensorType:
    if x.dtype not in {np.dtype(np.float32), np.dtype(np.int32)}:
        raise node.error(f"needs float32, got {x.dtype.name}")
    dtype = zero_point.dtype if zero_point is not None else np.dtype(np.uint8)
    if zero_point is None and node.integer("output_dtype", 0):
        dtype = element_type(node, "output_dtype", 0)
    if dtype not in _QUANTIZED:
        raise unsupported(node, f"quantizing to {dtype.name}; 8 and 16 bits are supported")
    _check_scale(node, x, scale, zero_point)
    return TensorType(dtype, x.shape)


@operator("QuantizeLinear", rule=_quantize)
def quantize_linear(node: Node, x: Array, scale: Array, zero_point: Array | None = None) -> Array:
    """Reals to integers."""
    if zero_point is None:
        zero_point = np.zeros(scale.shape, _quantize(node, x, scale).dtype)
    return quantize(x, spread(node, scale, x), spread(node, zero_point, x))


def _dequantize(node: Node, x: Known, scale: Known, zero_point: Known | None = None) -> TensorType:
    if x.dtype not in _QUANTIZED | {np.dtype(np.int32)}:
        raise node.error(f"needs integers of 8, 16 or 32 bits, got {x.dtype.name}")
    if zero_point is not None and zero_point.dtype != x.dtype:
        raise node.error(f"a zero point of {zero_point.dtype.name} for {x.dtype.name}")
    _check_scale(node, x, scale, zero_point)
    return TensorType(scale.dtype, x.shape)


@operator("DequantizeLinear", rule=_dequantize)
def dequantize_linear(node: Node, x: Array, scale: Array, zero_point: Array | None = None) -> Array:
    """Integers to reals."""
    return dequantize(x, spread(node, scale, x), 0 if zero_point is None else spread(node, zero_point, x))


def _dynamic(node: Node, x: Known) -> list[TensorType]:
    if x.dtype != np.float32:
        raise node.error(f"needs float32, got {x.dtype.name}")
    one = TensorType(np.dtype(np.uint8), ())
    return [TensorType(one.dtype, x.shape), TensorType(x.dtype, ()), one]


@operator("DynamicQuantizeLinear", rule=_dynamic)
def dynamic_quantize_linear(_node: Node, x: Array) -> tuple[Array, Array, Array]:
    """uint8 integers with the scale and zero point that the range of x, with zero in it and no NaN, asks for.

    Of a range that float32 cannot hold, the scale is infinite; finite numbers become the zero point, others 0.
    """
    zero, bounds = np.float32(0), np.finfo(np.float32)
    low, high = np.fmin.reduce(x, axis=None, initial=zero), np.fmax.reduce(x, axis=None, initial=zero)
    with np.errstate(over="ignore", invalid="ignore"):
        scale = np.asarray(np.maximum((high - low) / np.float32(255), bounds.tiny)) if high > low else np.float32(1)
        zero_point = np.asarray(255 if np.isneginf(low) else np.clip(np.rint(-low / scale), 0, 255)).astype(np.uint8)
        return quantize(x, np.asarray(scale), zero_point), np.asarray(scale), zero_point
