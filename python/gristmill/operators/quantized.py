"""Convolutions and products of 8-bit integers: sums are exact in int32, then requantized by one float32 multiplication.

QLinearConv, QLinearMatMul, ConvInteger and MatMulInteger are ONNX's, QGemm is ONNX Runtime's.
"""

from __future__ import annotations

import numpy as np

from gristmill.graph import Array, Node
from gristmill.operators.convolution import check_bias, conv_window, convolve, per_channel
from gristmill.operators.elementwise import wide
from gristmill.operators.matmul import gemm_shape, product_shape
from gristmill.operators.quantization import store
from gristmill.operators.registry import Known, TensorType, operator

_BYTES = frozenset(map(np.dtype, (np.uint8, np.int8)))
_INT32 = np.dtype(np.int32)


def check_bytes(node: Node, *inputs: Known) -> None:
    """Refuse what is not of 8-bit integers."""
    for item in inputs:
        if item.dtype not in _BYTES:
            raise node.error(f"needs uint8 or int8, got {item.dtype.name}")


def check_qparams(node: Node, x: Known | None, scale: Known | None, zero: Known | None, channels: int = 1) -> None:
    """A scale and a zero point: single numbers, or one per channel."""
    for item in (scale, zero):
        if item is not None and (item.ndim > 1 or item.size not in {1, channels}):
            raise node.error(f"scales and zero points must be single or {channels}, got shape {list(item.shape)}")
    if scale is not None and scale.dtype != np.float32:
        raise node.error(f"scales must be float32, got {scale.dtype.name}")
    if zero is not None and x is not None and zero.dtype != x.dtype:
        raise node.error(f"a zero point of {zero.dtype.name} for {x.dtype.name}")


def quantized_result(
    node: Node, x: Known, scale: Known | None, zero: Known | None, shape: tuple[int, ...]
) -> TensorType:
    """The type of a result: that of its zero point."""
    check_qparams(node, None, scale, zero)
    kind = x.dtype if zero is None else zero.dtype
    if kind not in _BYTES:
        raise node.error(f"results are uint8 or int8, not {kind.name}")
    return TensorType(kind, shape)


def centred(x: Array, zero_point: Array | None) -> Array:
    """Distances from the zero point, exact."""
    return wide(x) if zero_point is None else wide(x) - wide(zero_point)


def single(values: Array) -> Array:
    """One number without axes; several as they are."""
    return values.reshape(()) if values.size == 1 else values


def zero_of(x: Array, zero_point: Array | None) -> Array:
    """The zero point, or that of x if there is none."""
    return np.zeros((), x.dtype) if zero_point is None else single(zero_point)


def to_int32(sums: Array) -> Array:
    """Whole numbers as int32, which wraps."""
    return np.asarray(sums).astype(np.int64).astype(np.int32)


def _convolved(node: Node, x: Array, w: Array, x_zero: Array | None, w_zero: Array | None) -> Array:
    kernel_zero = None if w_zero is None else per_channel(single(w_zero), w.ndim + 1)
    sums = convolve(
        centred(x, None if x_zero is None else single(x_zero)),
        centred(w, kernel_zero),
        conv_window(node, x, w),
        node.integer("group", 1),
    )
    return to_int32(sums)


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
    check_bytes(node, x, w)
    shape = (x.shape[0], w.shape[0], *conv_window(node, x, w).output)
    check_qparams(node, x, x_scale, x_zero)
    check_qparams(node, w, w_scale, w_zero, w.shape[0])
    check_bias(node, bias, w.shape[0])
    if bias is not None and bias.dtype != _INT32:
        raise node.error(f"the bias must be int32, got {bias.dtype.name}")
    return quantized_result(node, x, y_scale, y_zero, shape)


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
    scale = per_channel(single(single(x_scale) * w_scale / single(y_scale)), x.ndim)
    return store(sums.astype(np.float32) * scale, single(y_zero), y_zero.dtype)


def _conv_integer(
    node: Node, x: Known, w: Known, x_zero: Known | None = None, w_zero: Known | None = None
) -> TensorType:
    check_bytes(node, x, w)
    check_qparams(node, x, None, x_zero)
    check_qparams(node, w, None, w_zero, w.shape[0])
    return TensorType(_INT32, (x.shape[0], w.shape[0], *conv_window(node, x, w).output))


@operator("ConvInteger", rule=_conv_integer)
def conv_integer(node: Node, x: Array, w: Array, x_zero: Array | None = None, w_zero: Array | None = None) -> Array:
    """A convolution of integers, in int32."""
    return _convolved(node, x, w, x_zero, w_zero)


def _rows(values: Array | None) -> Array | None:
    return values[:, None] if values is not None and values.ndim == 1 and values.size > 1 else values


def _multiplied(a: Array, b: Array, a_zero: Array | None, b_zero: Array | None) -> Array:
    left = None if a_zero is None else single(a_zero)
    right = None if b_zero is None else single(b_zero)
    return to_int32(np.matmul(centred(a, _rows(left)), centred(b, right)))


def _check_product(node: Node, a: Known, b: Known, *qparams: Known | None) -> tuple[int, ...]:
    """The shape of a product whose scales and zero points may be one per row and one per column."""
    a_scale, a_zero, b_scale, b_zero = qparams
    check_bytes(node, a, b)
    shape = product_shape(node, a, b)
    check_qparams(node, a, a_scale, a_zero, a.shape[-2] if a.ndim > 1 else 1)
    check_qparams(node, b, b_scale, b_zero, b.shape[-1] if b.ndim > 1 else 1)
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
    return quantized_result(node, a, y_scale, y_zero, _check_product(node, a, b, a_scale, a_zero, b_scale, b_zero))


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
    rows = _rows(single(a_scale))
    assert rows is not None
    scale = rows * single(b_scale) / single(y_scale)
    return store(sums.astype(np.float32) * scale, single(y_zero), y_zero.dtype)


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
    check_bytes(node, a, b)
    shape = gemm_shape(node, a, b, c)
    check_qparams(node, a, a_scale, a_zero)
    check_qparams(node, b, b_scale, b_zero, shape[1])
    if c is not None and c.dtype != _INT32:
        raise node.error(f"C must be int32, got {c.dtype.name}")
    kind = quantized_result(node, a, y_scale, y_zero, shape)
    return kind if y_zero is not None else TensorType(np.dtype(np.float32), shape)


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
    """Gemm of integers, over the scale of the result if it has one: bytes if it has a zero point, else float32."""
    left = a.T if node.integer("transA", 0) else a
    right = b.T if node.integer("transB", 0) else b
    sums = _multiplied(left, right, a_zero, b_zero) + (0 if c is None else c)
    scale = np.float32(node.real("alpha", 1.0)) * single(a_scale) * single(b_scale)
    steps = np.asarray(sums.astype(np.float32) * (scale if y_scale is None else scale / single(y_scale)))
    return steps if y_zero is None else store(steps, single(y_zero), y_zero.dtype)
