"""Sums, means and functions of 8-bit integers: ONNX Runtime's QLinearAdd, QLinearMul, QLinearSigmoid, QLinearLeakyRelu,
QLinearConcat, QLinearAveragePool, QLinearGlobalAveragePool and QLinearSoftmax.

They round where ONNX Runtime rounds on x86-64.
"""

from __future__ import annotations

import math

import numpy as np

from gristmill.graph import Array, Node
from gristmill.operators.activation import sigmoid
from gristmill.operators.elementwise import wide
from gristmill.operators.movement import concatenated
from gristmill.operators.pooling import average_counts, pool_window
from gristmill.operators.quantization import dequantize, fused_multiply_add, quantize, saturate, store
from gristmill.operators.quantized import (
    centred,
    check_bytes,
    check_qparams,
    quantized_result,
    single,
    to_int32,
    zero_of,
)
from gristmill.operators.registry import Known, TensorType, broadcast_shapes, normal_axis, operator
from gristmill.operators.spatial import Window, taps

#: Integers with their scale and zero point.
Scaled = tuple[Array, Array | np.float32, Array | int]


def _qbinary(
    node: Node,
    a: Known,
    a_scale: Known,
    a_zero: Known | None,
    b: Known,
    b_scale: Known,
    b_zero: Known | None,
    y_scale: Known,
    y_zero: Known | None = None,
) -> TensorType:
    check_bytes(node, a, b)
    check_qparams(node, a, a_scale, a_zero)
    check_qparams(node, b, b_scale, b_zero)
    return quantized_result(node, a, y_scale, y_zero, broadcast_shapes(node, a.shape, b.shape))


@operator("QLinearAdd", rule=_qbinary)
def qlinear_add(
    _node: Node,
    a: Array,
    a_scale: Array,
    a_zero: Array | None,
    b: Array,
    b_scale: Array,
    b_zero: Array | None,
    y_scale: Array,
    y_zero: Array | None = None,
) -> Array:
    """Added in steps of the result, as :func:`add_bytes` does."""
    left, right = (a, single(a_scale), zero_of(a, a_zero)), (b, single(b_scale), zero_of(b, b_zero))
    return add_bytes(left, right, single(y_scale), zero_of(a, y_zero))


def add_bytes(left: Scaled, right: Scaled, scale: Array, zero_point: Array) -> Array:
    """The sum of two tensors of bytes, in the order in which ONNX Runtime computes it on x86-64 with AVX2."""
    (a, a_scale, a_zero), (b, b_scale, b_zero) = left, right
    a_ratio, b_ratio, zero = np.float32(a_scale / scale), np.float32(b_scale / scale), np.float32(zero_point)
    offset = fused_multiply_add(a_ratio, np.float32(a_zero), b_ratio * np.float32(b_zero))
    partial = fused_multiply_add(b, b_ratio, zero - offset)
    return saturate(fused_multiply_add(a, a_ratio, partial), zero_point.dtype)


@operator("QLinearMul", rule=_qbinary)
def qlinear_mul(
    _node: Node,
    a: Array,
    a_scale: Array,
    a_zero: Array | None,
    b: Array,
    b_scale: Array,
    b_zero: Array | None,
    y_scale: Array,
    y_zero: Array | None = None,
) -> Array:
    """The exact product of integers, brought to steps of the result, plus its zero point, rounded."""
    product = to_int32(centred(a, zero_of(a, a_zero)) * centred(b, zero_of(b, b_zero))).astype(np.float32)
    zero = zero_of(a, y_zero)
    ratio = single(a_scale) * single(b_scale) / single(y_scale)
    return saturate(product * ratio + zero.astype(np.float32), zero.dtype)


def _qcurve(
    node: Node, x: Known, x_scale: Known, x_zero: Known | None, y_scale: Known, y_zero: Known | None = None
) -> TensorType:
    check_bytes(node, x)
    check_qparams(node, x, x_scale, x_zero)
    return quantized_result(node, x, y_scale, y_zero, x.shape)


@operator("QLinearSigmoid", "QLinearLeakyRelu", rule=_qcurve)
def qlinear_curve(
    node: Node, x: Array, x_scale: Array, x_zero: Array | None, y_scale: Array, y_zero: Array | None = None
) -> Array:
    """Dequantized, through the curve, quantized."""
    real = dequantize(x, single(x_scale), zero_of(x, x_zero))
    if node.op == "QLinearSigmoid":
        curve = sigmoid(wide(real)).astype(np.float32)
    else:
        curve = np.where(real < 0, real * np.float32(node.real("alpha", 0.01)), real)
    return quantize(curve, single(y_scale), zero_of(x, y_zero))


def _qconcat(node: Node, y_scale: Known, y_zero: Known, *parts: Known) -> TensorType:
    if not parts or len(parts) % 3:
        raise node.error(f"needs a scale and a zero point for each input, got {len(parts)} for all")
    tensors = parts[::3]
    for x, scale, zero in zip(tensors, parts[1::3], parts[2::3], strict=True):
        check_bytes(node, x)
        check_qparams(node, x, scale, zero)
    return quantized_result(node, tensors[0], y_scale, y_zero, concatenated(node, *tensors))


@operator("QLinearConcat", rule=_qconcat)
def qlinear_concat(node: Node, y_scale: Array, y_zero: Array, *parts: Array) -> Array:
    """Each dequantized and quantized by the result's scale, then joined."""
    pieces = [
        quantize(dequantize(x, single(scale), single(zero)), single(y_scale), single(y_zero))
        for x, scale, zero in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    ]
    return np.concatenate(pieces, axis=node.integer("axis", 0))


def _channels_first(node: Node, x: Known) -> Known:
    """The image with its channels second, wherever ``channels_last`` says they are."""
    if not node.integer("channels_last", 0) or x.ndim < 3:
        return x
    if isinstance(x, np.ndarray):
        return np.moveaxis(x, -1, 1)
    return TensorType(x.dtype, (x.shape[0], x.shape[-1], *x.shape[1:-1]))


def _as_given(node: Node, y: Array) -> Array:
    return np.moveaxis(y, 1, -1) if node.integer("channels_last", 0) and y.ndim > 2 else y


def _qpool(
    node: Node, x: Known, x_scale: Known, x_zero: Known | None, y_scale: Known, y_zero: Known | None = None
) -> TensorType:
    check_bytes(node, x)
    check_qparams(node, x, x_scale, x_zero)
    image = _channels_first(node, x)
    if image.ndim < 3 or 0 in image.shape[2:]:
        raise node.error(f"nothing to pool in shape {list(x.shape)}")
    averages = node.op == "QLinearAveragePool"
    spatial = pool_window(node, image).output if averages else (1,) * (image.ndim - 2)
    last = bool(node.integer("channels_last", 0))
    shape = (image.shape[0], *spatial, image.shape[1]) if last else (*image.shape[:2], *spatial)
    return quantized_result(node, x, y_scale, y_zero, shape)


def is_whole(window: Window, shape: tuple[int, ...]) -> bool:
    """Whether the only window of an image is the image itself."""
    return window.kernel == shape[2:] and not any((*window.begins, *window.ends))


@operator("QLinearAveragePool", rule=_qpool)
def qlinear_average_pool(
    node: Node, x: Array, x_scale: Array, x_zero: Array | None, y_scale: Array, y_zero: Array | None = None
) -> Array:
    """Reals added up tap by tap in float32, divided by their number and the scale, plus the zero point, rounded.

    A window that is the whole image makes it QLinearGlobalAveragePool.
    """
    image = np.asarray(_channels_first(node, dequantize(x, single(x_scale), zero_of(x, x_zero))))
    found, zero = pool_window(node, image), zero_of(x, y_zero)
    if is_whole(found, image.shape):
        return qlinear_global_average_pool(node, x, x_scale, x_zero, y_scale, y_zero)
    reals = taps(image, found, 0).reshape(*image.shape[:2], *found.output, -1)
    means = np.add.accumulate(reals, axis=-1)[..., -1] / average_counts(node, image).astype(np.float32)
    return _as_given(node, saturate(means / single(y_scale) + zero.astype(np.float32), zero.dtype))


@operator("QLinearGlobalAveragePool", rule=_qpool)
def qlinear_global_average_pool(
    node: Node, x: Array, x_scale: Array, x_zero: Array | None, y_scale: Array, y_zero: Array | None = None
) -> Array:
    """The exact sum of each channel, requantized by the scale over the number of pixels."""
    image = np.asarray(_channels_first(node, x))
    pixels = math.prod(image.shape[2:])
    sums = to_int32(centred(image, zero_of(x, x_zero)).sum(axis=tuple(range(2, image.ndim)), keepdims=True))
    scale = single(x_scale) / (single(y_scale) * np.float32(pixels))
    zero = zero_of(x, y_zero)
    return _as_given(node, store(sums.astype(np.float32) * scale, zero, zero.dtype))


def _qsoftmax(
    node: Node, x: Known, x_scale: Known, x_zero: Known | None, y_scale: Known, y_zero: Known | None = None
) -> TensorType:
    normal_axis(node, node.integer("axis", -1), x.ndim)
    return _qcurve(node, x, x_scale, x_zero, y_scale, y_zero)


@operator("QLinearSoftmax", rule=_qsoftmax)
def qlinear_softmax(
    node: Node, x: Array, x_scale: Array, _x_zero: Array | None, y_scale: Array, y_zero: Array | None = None
) -> Array:
    """Powers from a table, added up in float32; each times a whole number of steps, divided by the sum, rounded."""
    axis, zero = node.integer("axis", -1), zero_of(x, y_zero)
    if not x.size:
        return x.astype(zero.dtype)
    bytes_ = x.astype(np.int16) - np.iinfo(x.dtype).min
    powers = softmax_powers(float(x_scale.item()), x.shape[axis])[bytes_ + (255 - bytes_.max(axis=axis, keepdims=True))]
    sums = np.take(np.add.accumulate(powers, axis=axis), [-1], axis=axis)
    return store(powers * softmax_steps(y_scale) / sums, zero, zero.dtype)


def softmax_powers(scale: float, extent: int) -> Array:
    """E to the power of byte b times the scale, for b from 0 to 255, times what lets the sum of ``extent`` fit float32.

    A softmax does not depend on that factor, so that its greatest element may be taken for 255.
    """
    room = max(0.0, math.log(np.finfo(np.float32).max / np.float32(extent)) - 5) / scale
    return np.array([math.exp((b - 255 + room) * scale) for b in range(256)], np.float32)


def softmax_steps(scale: Array) -> Array:
    """How many steps of the result make one, without the rest."""
    return np.asarray(np.floor(np.float32(1) / np.float32(scale.item())), np.float32)
