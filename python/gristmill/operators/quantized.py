"""Operators on 8-bit integers: sums are exact in int32, then requantized by one float32 multiplication.

QLinearConv, QLinearMatMul, ConvInteger and MatMulInteger are ONNX's; QGemm, QLinearAdd, QLinearMul, QLinearSigmoid,
QLinearLeakyRelu, QLinearConcat, QLinearAveragePool and QLinearGlobalAveragePool are ONNX Runtime's.
"""

from __future__ import annotations

import math

import numpy as np

from gristmill.graph import Array, Node
from gristmill.operators.activation import sigmoid
from gristmill.operators.convolution import check_bias, conv_window, convolve, per_channel
from gristmill.operators.elementwise import wide
from gristmill.operators.matmul import gemm_shape, product_shape
from gristmill.operators.movement import concatenated
from gristmill.operators.pooling import average_pool, pool_window
from gristmill.operators.quantization import dequantize, quantize, store
from gristmill.operators.registry import Known, TensorType, broadcast_shapes, operator

_BYTES = frozenset(map(np.dtype, (np.uint8, np.int8)))
_INT32 = np.dtype(np.int32)


def _check_bytes(node: Node, *inputs: Known) -> None:
    for item in inputs:
        if item.dtype not in _BYTES:
            raise node.error(f"needs uint8 or int8, got {item.dtype.name}")


def _check_qparams(node: Node, x: Known | None, scale: Known | None, zero: Known | None, channels: int = 1) -> None:
    """A scale and a zero point: single numbers, or one per channel."""
    for item in (scale, zero):
        if item is not None and (item.ndim > 1 or item.size not in {1, channels}):
            raise node.error(f"scales and zero points must be single or {channels}, got shape {list(item.shape)}")
    if scale is not None and scale.dtype != np.float32:
        raise node.error(f"scales must be float32, got {scale.dtype.name}")
    if zero is not None and x is not None and zero.dtype != x.dtype:
        raise node.error(f"a zero point of {zero.dtype.name} for {x.dtype.name}")


def _result(node: Node, x: Known, scale: Known, zero: Known | None, shape: tuple[int, ...]) -> TensorType:
    """The type of a result: that of its zero point."""
    _check_qparams(node, None, scale, zero)
    kind = x.dtype if zero is None else zero.dtype
    if kind not in _BYTES:
        raise node.error(f"results are uint8 or int8, not {kind.name}")
    return TensorType(kind, shape)


def _centred(x: Array, zero_point: Array | None) -> Array:
    """Distances from the zero point, exact."""
    return wide(x) if zero_point is None else wide(x) - wide(zero_point)


def _single(values: Array) -> Array:
    return values.reshape(()) if values.size == 1 else values


def _zero(x: Array, zero_point: Array | None) -> Array:
    return np.zeros((), x.dtype) if zero_point is None else _single(zero_point)


def _int32(sums: Array) -> Array:
    return np.asarray(sums).astype(np.int64).astype(np.int32)


def _convolved(node: Node, x: Array, w: Array, x_zero: Array | None, w_zero: Array | None) -> Array:
    kernel_zero = None if w_zero is None else per_channel(_single(w_zero), w.ndim + 1)
    sums = convolve(
        _centred(x, None if x_zero is None else _single(x_zero)),
        _centred(w, kernel_zero),
        conv_window(node, x, w),
        node.integer("group", 1),
    )
    return _int32(sums)


def _qconv(
    node: Node,
    x: Known,
    x_scale: Known,
    x_zero: Known,
    w: Known,
    w_scale: Known,
    w_zero: Known,
    y_scale: Known,
    y_zero: Known,
    bias: Known | None = None,
) -> TensorType:
    _check_bytes(node, x, w)
    shape = (x.shape[0], w.shape[0], *conv_window(node, x, w).output)
    _check_qparams(node, x, x_scale, x_zero)
    _check_qparams(node, w, w_scale, w_zero, w.shape[0])
    check_bias(node, bias, w.shape[0])
    if bias is not None and bias.dtype != _INT32:
        raise node.error(f"the bias must be int32, got {bias.dtype.name}")
    return _result(node, x, y_scale, y_zero, shape)


@operator("QLinearConv", rule=_qconv)
def qlinear_conv(
    node: Node,
    x: Array,
    x_scale: Array,
    x_zero: Array,
    w: Array,
    w_scale: Array,
    w_zero: Array,
    y_scale: Array,
    y_zero: Array,
    bias: Array | None = None,
) -> Array:
    """A convolution of integers, requantized."""
    sums = _convolved(node, x, w, x_zero, w_zero)
    if bias is not None:
        sums = sums + per_channel(bias, x.ndim)
    scale = per_channel(_single(_single(x_scale) * w_scale / _single(y_scale)), x.ndim)
    return store(sums.astype(np.float32) * scale, _single(y_zero), y_zero.dtype)


def _conv_integer(
    node: Node, x: Known, w: Known, x_zero: Known | None = None, w_zero: Known | None = None
) -> TensorType:
    _check_bytes(node, x, w)
    _check_qparams(node, x, None, x_zero)
    _check_qparams(node, w, None, w_zero, w.shape[0])
    return TensorType(_INT32, (x.shape[0], w.shape[0], *conv_window(node, x, w).output))


@operator("ConvInteger", rule=_conv_integer)
def conv_integer(node: Node, x: Array, w: Array, x_zero: Array | None = None, w_zero: Array | None = None) -> Array:
    """A convolution of integers, in int32."""
    return _convolved(node, x, w, x_zero, w_zero)


def _rows(values: Array | None) -> Array | None:
    return values[:, None] if values is not None and values.ndim == 1 and values.size > 1 else values


def _multiplied(a: Array, b: Array, a_zero: Array | None, b_zero: Array | None) -> Array:
    left = None if a_zero is None else _single(a_zero)
    right = None if b_zero is None else _single(b_zero)
    return _int32(np.matmul(_centred(a, _rows(left)), _centred(b, right)))


def _check_product(node: Node, a: Known, b: Known, *qparams: Known | None) -> tuple[int, ...]:
    """The shape of a product whose scales and zero points may be one per row and one per column."""
    a_scale, a_zero, b_scale, b_zero = qparams
    _check_bytes(node, a, b)
    shape = product_shape(node, a, b)
    _check_qparams(node, a, a_scale, a_zero, a.shape[-2] if a.ndim > 1 else 1)
    _check_qparams(node, b, b_scale, b_zero, b.shape[-1] if b.ndim > 1 else 1)
    return shape


def _qmatmul(
    node: Node,
    a: Known,
    a_scale: Known,
    a_zero: Known,
    b: Known,
    b_scale: Known,
    b_zero: Known,
    y_scale: Known,
    y_zero: Known,
) -> TensorType:
    return _result(node, a, y_scale, y_zero, _check_product(node, a, b, a_scale, a_zero, b_scale, b_zero))


@operator("QLinearMatMul", rule=_qmatmul)
def qlinear_matmul(
    _node: Node,
    a: Array,
    a_scale: Array,
    a_zero: Array,
    b: Array,
    b_scale: Array,
    b_zero: Array,
    y_scale: Array,
    y_zero: Array,
) -> Array:
    """A matrix product of integers, requantized."""
    sums = _multiplied(a, b, a_zero, b_zero)
    rows = _rows(_single(a_scale))
    assert rows is not None
    scale = rows * _single(b_scale) / _single(y_scale)
    return store(sums.astype(np.float32) * scale, _single(y_zero), y_zero.dtype)


def _matmul_integer(
    node: Node, a: Known, b: Known, a_zero: Known | None = None, b_zero: Known | None = None
) -> TensorType:
    return TensorType(_INT32, _check_product(node, a, b, None, a_zero, None, b_zero))


@operator("MatMulInteger", rule=_matmul_integer)
def matmul_integer(_node: Node, a: Array, b: Array, a_zero: Array | None = None, b_zero: Array | None = None) -> Array:
    """A matrix product of integers, in int32."""
    return _multiplied(a, b, a_zero, b_zero)


def _qgemm(
    node: Node,
    a: Known,
    a_scale: Known,
    a_zero: Known,
    b: Known,
    b_scale: Known,
    b_zero: Known,
    c: Known | None = None,
    y_scale: Known | None = None,
    y_zero: Known | None = None,
) -> TensorType:
    _check_bytes(node, a, b)
    shape = gemm_shape(node, a, b, c)
    _check_qparams(node, a, a_scale, a_zero)
    _check_qparams(node, b, b_scale, b_zero, shape[1])
    if c is not None and c.dtype != _INT32:
        raise node.error(f"C must be int32, got {c.dtype.name}")
    if y_scale is None:
        return TensorType(np.dtype(np.float32), shape)
    return _result(node, a, y_scale, y_zero, shape)


@operator("QGemm", rule=_qgemm)
def qgemm(
    node: Node,
    a: Array,
    a_scale: Array,
    a_zero: Array,
    b: Array,
    b_scale: Array,
    b_zero: Array,
    c: Array | None = None,
    y_scale: Array | None = None,
    y_zero: Array | None = None,
) -> Array:
    """Gemm of integers: requantized, or in float32 if there is no scale for the result."""
    left = a.T if node.integer("transA", 0) else a
    right = b.T if node.integer("transB", 0) else b
    sums = _multiplied(left, right, a_zero, b_zero) + (0 if c is None else c)
    scale = np.float32(node.real("alpha", 1.0)) * _single(a_scale) * _single(b_scale)
    if y_scale is None:
        return np.asarray(sums.astype(np.float32) * scale)
    zero = _zero(a, y_zero)
    return store(sums.astype(np.float32) * (scale / _single(y_scale)), zero, zero.dtype)


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
    _check_bytes(node, a, b)
    _check_qparams(node, a, a_scale, a_zero)
    _check_qparams(node, b, b_scale, b_zero)
    return _result(node, a, y_scale, y_zero, broadcast_shapes(node, a.shape, b.shape))


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
    """Dequantized, added in float32, quantized."""
    total = dequantize(a, _single(a_scale), _zero(a, a_zero)) + dequantize(b, _single(b_scale), _zero(b, b_zero))
    return quantize(total, _single(y_scale), _zero(a, y_zero))


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
    """Dequantized, multiplied in float32, quantized."""
    product = dequantize(a, _single(a_scale), _zero(a, a_zero)) * dequantize(b, _single(b_scale), _zero(b, b_zero))
    return quantize(product, _single(y_scale), _zero(a, y_zero))


def _qcurve(
    node: Node, x: Known, x_scale: Known, x_zero: Known | None, y_scale: Known, y_zero: Known | None = None
) -> TensorType:
    _check_bytes(node, x)
    _check_qparams(node, x, x_scale, x_zero)
    return _result(node, x, y_scale, y_zero, x.shape)


@operator("QLinearSigmoid", "QLinearLeakyRelu", rule=_qcurve)
def qlinear_curve(
    node: Node, x: Array, x_scale: Array, x_zero: Array | None, y_scale: Array, y_zero: Array | None = None
) -> Array:
    """Dequantized, through the curve, quantized."""
    real = dequantize(x, _single(x_scale), _zero(x, x_zero))
    if node.op == "QLinearSigmoid":
        curve = sigmoid(wide(real)).astype(np.float32)
    else:
        curve = np.where(real < 0, real * np.float32(node.real("alpha", 0.01)), real)
    return quantize(curve, _single(y_scale), _zero(x, y_zero))


def _qconcat(node: Node, y_scale: Known, y_zero: Known, *parts: Known) -> TensorType:
    if not parts or len(parts) % 3:
        raise node.error(f"needs a scale and a zero point for each input, got {len(parts)} for all")
    tensors = parts[::3]
    for x, scale, zero in zip(tensors, parts[1::3], parts[2::3], strict=True):
        _check_bytes(node, x)
        _check_qparams(node, x, scale, zero)
    return _result(node, tensors[0], y_scale, y_zero, concatenated(node, *tensors))


@operator("QLinearConcat", rule=_qconcat)
def qlinear_concat(node: Node, y_scale: Array, y_zero: Array, *parts: Array) -> Array:
    """Each dequantized and quantized by the result's scale, then joined."""
    pieces = [
        quantize(dequantize(x, _single(scale), _single(zero)), _single(y_scale), _single(y_zero))
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
    _check_bytes(node, x)
    _check_qparams(node, x, x_scale, x_zero)
    image = _channels_first(node, x)
    if image.ndim < 3 or 0 in image.shape[2:]:
        raise node.error(f"nothing to pool in shape {list(x.shape)}")
    averages = node.op == "QLinearAveragePool"
    spatial = pool_window(node, image).output if averages else (1,) * (image.ndim - 2)
    last = bool(node.integer("channels_last", 0))
    shape = (image.shape[0], *spatial, image.shape[1]) if last else (*image.shape[:2], *spatial)
    return _result(node, x, y_scale, y_zero, shape)


@operator("QLinearAveragePool", rule=_qpool)
def qlinear_average_pool(
    node: Node, x: Array, x_scale: Array, x_zero: Array | None, y_scale: Array, y_zero: Array | None = None
) -> Array:
    """Dequantized, averaged, quantized."""
    image = np.asarray(_channels_first(node, dequantize(x, _single(x_scale), _zero(x, x_zero))))
    means = average_pool(node, image).astype(np.float32)
    return _as_given(node, quantize(means, _single(y_scale), _zero(x, y_zero)))


@operator("QLinearGlobalAveragePool", rule=_qpool)
def qlinear_global_average_pool(
    node: Node, x: Array, x_scale: Array, x_zero: Array | None, y_scale: Array, y_zero: Array | None = None
) -> Array:
    """The exact sum of each channel, requantized by the scale over the number of pixels."""
    image = np.asarray(_channels_first(node, x))
    pixels = math.prod(image.shape[2:])
    sums = _int32(_centred(image, _zero(x, x_zero)).sum(axis=tuple(range(2, image.ndim)), keepdims=True))
    scale = _single(x_scale) / (_single(y_scale) * np.float32(pixels))
    zero = _zero(x, y_zero)
    return _as_given(node, store(sums.astype(np.float32) * scale, zero, zero.dtype))
