"""Maps between float32 and 8-bit integers on numpy arrays; public through :mod:`gristmill.kernels`.

A real ``x`` and its integer ``q`` are tied by a scale and a zero point, one pair per tensor or one per channel (the
index along ``axis``)::

    quantize      q = clamp(round_half_even(x / scale) + zero_point)
    dequantize    x = (q - zero_point) * scale
    requantize    q = clamp(round_half_even(acc * scale) + zero_point)

in float32 arithmetic, one operation at a time, so results are the same bits at every instruction-set level, with any
number of threads and for any memory layout, and equal those of ONNX's QuantizeLinear and DequantizeLinear.

Common to all functions: arrays must have exactly the stated type (nothing is converted silently) and may have any
shape, strides and memory order; a new result has the memory order of its input; ``out`` receives the result instead
and must be writeable, of the result's shape and type, and share no memory with the input; ``threads`` defaults to
:func:`gristmill.get_num_threads`. Scales are rounded to float32 and must then be finite and greater than 0; zero points
must lie in the integer type's range. The GIL is released while the kernels work.
"""

from __future__ import annotations

from typing import Any, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from gristmill import _core

__all__ = [
    "abs_max",
    "choose_qparams",
    "dequantize_per_channel",
    "dequantize_per_tensor",
    "min_max",
    "quantize_per_channel",
    "quantize_per_tensor",
    "range_qparams",
    "requantize",
]

Float32Array: TypeAlias = npt.NDArray[np.float32]
Int8Array: TypeAlias = npt.NDArray[np.int8] | npt.NDArray[np.uint8]
IntegerArray: TypeAlias = npt.NDArray[np.integer[Any]]


def quantize_per_tensor(
    x: Float32Array,
    scale: float,
    zero_point: int = 0,
    dtype: npt.DTypeLike = np.uint8,
    *,
    out: Int8Array | None = None,
    threads: int | None = None,
) -> Int8Array:
    """Quantize a float32 array with one scale and zero point.

    NaN becomes the least integer; infinities and values out of range saturate.

    Args:
        x: float32 array.
        scale: Step between neighbouring integers.
        zero_point: The integer that stands for zero.
        dtype: ``uint8`` or ``int8``.
        out: Receives the result.
        threads: Most threads to use.

    Returns:
        ``out``, or a new array of ``dtype`` with the shape and memory order of ``x``.

    Raises:
        DTypeError: An array or ``dtype`` has another type than stated.
        ShapeError: ``out`` has another shape than ``x``.
        ArgumentError: The scale or zero point is out of range, or ``out`` cannot be written safely.

    Example:
        >>> quantize_per_tensor(np.array([-1.0, 0.0, 0.25, 0.75, 300.0], np.float32), scale=0.5, zero_point=10)
        array([  8,  10,  10,  12, 255], dtype=uint8)
    """
    return _core.quantize(x, scale, zero_point, dtype, None, out, threads)


def quantize_per_channel(
    x: Float32Array,
    scale: Float32Array,
    zero_point: int | IntegerArray = 0,
    axis: int = 0,
    dtype: npt.DTypeLike = np.int8,
    *,
    out: Int8Array | None = None,
    threads: int | None = None,
) -> Int8Array:
    """Quantize a float32 array with a scale and zero point for each index along ``axis``.

    Args:
        x: float32 array of rank 1 or more.
        scale: float32 array of one scale per channel.
        zero_point: One integer for all channels, or an integer array of one per channel.
        axis: The channel axis; negative counts from the last.
        dtype: ``uint8`` or ``int8``.
        out: Receives the result.
        threads: Most threads to use.

    Returns:
        ``out``, or a new array of ``dtype`` with the shape and memory order of ``x``.

    Raises:
        DTypeError: An array or ``dtype`` has another type than stated.
        ShapeError: ``axis`` is out of range, or a count or shape does not match.
        ArgumentError: A scale or zero point is out of range, or ``out`` cannot be written safely.

    Example:
        >>> weights = np.array([[1.0, -2.0], [10.0, -20.0]], np.float32)
        >>> quantize_per_channel(weights, np.array([0.5, 5.0], np.float32), axis=0)
        array([[ 2, -4],
               [ 2, -4]], dtype=int8)
    """
    return _core.quantize(x, scale, zero_point, dtype, axis, out, threads)


def dequantize_per_tensor(
    q: Int8Array,
    scale: float,
    zero_point: int = 0,
    *,
    out: Float32Array | None = None,
    threads: int | None = None,
) -> Float32Array:
    """Map a uint8 or int8 array back to float32 with one scale and zero point.

    Args:
        q: uint8 or int8 array.
        scale: Step between neighbouring integers.
        zero_point: The integer that stands for zero, in the range of ``q``'s type.
        out: Receives the result.
        threads: Most threads to use.

    Returns:
        ``out``, or a new float32 array with the shape and memory order of ``q``.

    Raises:
        DTypeError: An array has another type than stated.
        ShapeError: ``out`` has another shape than ``q``.
        ArgumentError: The scale or zero point is out of range, or ``out`` cannot be written safely.

    Example:
        >>> dequantize_per_tensor(np.array([8, 10, 12], np.uint8), scale=0.5, zero_point=10)
        array([-1.,  0.,  1.], dtype=float32)
    """
    return _core.dequantize(q, scale, zero_point, None, out, threads)


def dequantize_per_channel(
    q: Int8Array,
    scale: Float32Array,
    zero_point: int | IntegerArray = 0,
    axis: int = 0,
    *,
    out: Float32Array | None = None,
    threads: int | None = None,
) -> Float32Array:
    """Map a uint8 or int8 array back to float32 with a scale and zero point for each index along ``axis``.

    Args:
        q: uint8 or int8 array of rank 1 or more.
        scale: float32 array of one scale per channel.
        zero_point: One integer for all channels, or an integer array of one per channel.
        axis: The channel axis; negative counts from the last.
        out: Receives the result.
        threads: Most threads to use.

    Returns:
        ``out``, or a new float32 array with the shape and memory order of ``q``.

    Raises:
        DTypeError: An array has another type than stated.
        ShapeError: ``axis`` is out of range, or a count or shape does not match.
        ArgumentError: A scale or zero point is out of range, or ``out`` cannot be written safely.

    Example:
        >>> q = np.array([[2, -4], [2, -4]], np.int8)
        >>> dequantize_per_channel(q, np.array([0.5, 5.0], np.float32), axis=0)
        array([[  1.,  -2.],
               [ 10., -20.]], dtype=float32)
    """
    return _core.dequantize(q, scale, zero_point, axis, out, threads)


def requantize(
    acc: npt.NDArray[np.int32],
    scale: float | Float32Array,
    zero_point: int | IntegerArray = 0,
    dtype: npt.DTypeLike = np.uint8,
    *,
    axis: int | None = None,
    out: Int8Array | Float32Array | None = None,
    threads: int | None = None,
) -> Int8Array | Float32Array:
    """Scale int32 accumulators to 8-bit integers, or to float32.

    The accumulator is rounded to float32 (exact up to 2**24), multiplied by the scale, rounded half to even, shifted by
    the zero point and saturated; for float32 only scaled.

    Args:
        acc: int32 array.
        scale: One multiplier; with ``axis`` a float32 array of one per channel.
        zero_point: The integer that stands for zero in the result; with ``axis`` one or one per channel. 0 for float32.
        dtype: ``uint8``, ``int8`` or ``float32``.
        axis: The channel axis, or None for one scale.
        out: Receives the result.
        threads: Most threads to use.

    Returns:
        ``out``, or a new array of ``dtype`` with the shape and memory order of ``acc``.

    Raises:
        DTypeError: An array or ``dtype`` has another type than stated.
        ShapeError: ``axis`` is out of range, or a count or shape does not match.
        ArgumentError: A scale or zero point is out of range, or ``out`` cannot be written safely.

    Example:
        >>> requantize(np.array([-100, 50, 150, 100000], np.int32), scale=0.01, zero_point=128)
        array([127, 128, 130, 255], dtype=uint8)
    """
    return _core.requantize(acc, scale, zero_point, dtype, axis, out, threads)


@overload
def min_max(x: Float32Array, axis: None = None, *, threads: int | None = None) -> tuple[np.float32, np.float32]: ...
@overload
def min_max(x: Float32Array, axis: int, *, threads: int | None = None) -> tuple[Float32Array, Float32Array]: ...
def min_max(
    x: Float32Array, axis: int | None = None, *, threads: int | None = None
) -> tuple[np.float32, np.float32] | tuple[Float32Array, Float32Array]:
    """Return the least and the greatest element, of the array or of each channel, in one pass.

    Args:
        x: float32 array; not empty.
        axis: The channel axis that is *kept*: one result for each index along it. None reduces everything.
        threads: Most threads to use.

    Returns:
        Minimum and maximum: scalars, or arrays of one value per channel. NaN wherever an element is NaN.

    Raises:
        DTypeError: ``x`` is no float32 array.
        ShapeError: ``axis`` is out of range.
        ArgumentError: There is no element to reduce.

    Example:
        >>> x = np.array([[1.0, -2.0], [5.0, 3.0]], np.float32)
        >>> [float(value) for value in min_max(x)]
        [-2.0, 5.0]
        >>> min_max(x, axis=0)
        (array([-2.,  3.], dtype=float32), array([1., 5.], dtype=float32))
    """
    low, high = _core.min_max(x, axis, threads)
    return (low, high) if axis is not None else (low[()], high[()])


@overload
def abs_max(x: Float32Array, axis: None = None, *, threads: int | None = None) -> np.float32: ...
@overload
def abs_max(x: Float32Array, axis: int, *, threads: int | None = None) -> Float32Array: ...
def abs_max(x: Float32Array, axis: int | None = None, *, threads: int | None = None) -> np.float32 | Float32Array:
    """Return the greatest magnitude, of the array or of each channel; otherwise like :func:`min_max`.

    Example:
        >>> float(abs_max(np.array([1.0, -3.0, 2.0], np.float32)))
        3.0
    """
    low, high = _core.min_max(x, axis, threads)
    largest: Float32Array = np.maximum(np.abs(low), np.abs(high))
    return largest if axis is not None else largest[()]


@overload
def choose_qparams(
    x: Float32Array,
    dtype: npt.DTypeLike = ...,
    *,
    symmetric: bool = ...,
    axis: None = None,
    threads: int | None = ...,
) -> tuple[float, int]: ...
@overload
def choose_qparams(
    x: Float32Array,
    dtype: npt.DTypeLike = ...,
    *,
    symmetric: bool = ...,
    axis: int,
    threads: int | None = ...,
) -> tuple[Float32Array, Int8Array]: ...
def choose_qparams(
    x: Float32Array,
    dtype: npt.DTypeLike = np.uint8,
    *,
    symmetric: bool = False,
    axis: int | None = None,
    threads: int | None = None,
) -> tuple[float, int] | tuple[Float32Array, Int8Array]:
    """Choose the scale and zero point that cover an array's values, for the array or for each channel.

    See :func:`range_qparams` for the rule.

    Args:
        x: float32 array; not empty, without NaN and infinities.
        dtype: ``uint8`` or ``int8``.
        symmetric: Put the zero point in the middle, as weights want it.
        axis: The channel axis, or None for one pair.
        threads: Most threads to use.

    Returns:
        Scale and zero point: ``(float, int)``, or arrays of float32 and of ``dtype`` with one value per channel.

    Raises:
        DTypeError: ``x`` is no float32 array, or ``dtype`` is neither uint8 nor int8.
        ShapeError: ``axis`` is out of range.
        ArgumentError: ``x`` is empty, or holds NaN or infinities.

    Example:
        >>> choose_qparams(np.array([-1.0, 0.0, 3.0], np.float32), np.int8, symmetric=True)[1]
        0
        >>> scale, zero_point = choose_qparams(np.array([-1.0, 0.0, 3.0], np.float32))
        >>> zero_point, quantize_per_tensor(np.array([-1.0, 0.0, 3.0], np.float32), scale, zero_point)
        (64, array([  0,  64, 255], dtype=uint8))
    """
    low, high = _core.min_max(x, axis, threads)
    scale, zero_point = _core.range_qparams(low.reshape(-1), high.reshape(-1), dtype, symmetric)
    return (scale, zero_point) if axis is not None else (scale[0].item(), zero_point[0].item())


@overload
def range_qparams(
    minimum: float, maximum: float, dtype: npt.DTypeLike = ..., *, symmetric: bool = ...
) -> tuple[float, int]: ...
@overload
def range_qparams(
    minimum: Float32Array, maximum: Float32Array, dtype: npt.DTypeLike = ..., *, symmetric: bool = ...
) -> tuple[Float32Array, Int8Array]: ...
def range_qparams(
    minimum: float | Float32Array,
    maximum: float | Float32Array,
    dtype: npt.DTypeLike = np.uint8,
    *,
    symmetric: bool = False,
) -> tuple[float, int] | tuple[Float32Array, Int8Array]:
    """Choose the finest scale and zero point that cover ``[minimum, maximum]`` and represent zero exactly.

    Symmetric: ``scale = max(|minimum|, |maximum|) / 127``, zero point 0 for int8 and 128 for uint8. Otherwise the range
    is widened to hold zero, ``scale = (maximum - minimum) / 255`` and ``zero_point = round_half_even(qmin - minimum /
    scale)``. A range of zeros alone gets scale 1; a scale is never below 2**-126, the least normal float32.

    Args:
        minimum: The least value to cover; a number, or a float32 array of one per channel.
        maximum: The greatest value to cover, of the same kind.
        dtype: ``uint8`` or ``int8``.
        symmetric: Put the zero point in the middle.

    Returns:
        Scale and zero point: ``(float, int)``, or arrays of float32 and of ``dtype`` with one value per channel.

    Raises:
        ArgumentError: A bound is NaN or infinite, or ``minimum > maximum``.

    Example:
        >>> range_qparams(-0.5, 127.0)
        (0.5, 1)
        >>> range_qparams(0.0, 0.0)
        (1.0, 0)
    """
    if isinstance(minimum, np.ndarray) or isinstance(maximum, np.ndarray):
        return _core.range_qparams(minimum, maximum, dtype, symmetric)
    low, high = (np.array([bound], np.float32) for bound in (minimum, maximum))
    scale, zero_point = _core.range_qparams(low, high, dtype, symmetric)
    return scale[0].item(), zero_point[0].item()
