"""What the kernels should compute, in plain numpy with wide types; independent of the compiled core."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def quantize(x: Array, scale: npt.ArrayLike, zero_point: npt.ArrayLike, dtype: npt.DTypeLike) -> Array:
    """q = clamp(rne(x / scale) + zero_point); scale and zero point broadcast against x."""
    bounds = np.iinfo(np.dtype(dtype))
    with np.errstate(all="ignore"):
        quotient = np.asarray(x, np.float32) / np.asarray(scale, np.float32)
    assert quotient.dtype == np.float32
    rounded = np.where(np.isnan(quotient), -np.inf, np.rint(quotient.astype(np.float64)))
    clamped: Array = np.clip(rounded + np.asarray(zero_point, np.float64), bounds.min, bounds.max)
    return clamped.astype(dtype)


def dequantize(q: Array, scale: npt.ArrayLike, zero_point: npt.ArrayLike) -> Array:
    """x = (q - zero_point) * scale in float32."""
    difference = q.astype(np.int32) - np.asarray(zero_point, np.int32)
    with np.errstate(all="ignore"):
        return np.asarray(difference.astype(np.float32) * np.asarray(scale, np.float32))


def requantize(acc: Array, scale: npt.ArrayLike, zero_point: npt.ArrayLike, dtype: npt.DTypeLike) -> Array:
    """q = clamp(rne(f32(acc) * scale) + zero_point), or f32(acc) * scale for float32."""
    with np.errstate(all="ignore"):
        real = acc.astype(np.float32) * np.asarray(scale, np.float32)
    if np.dtype(dtype) == np.float32:
        return np.asarray(real)
    bounds = np.iinfo(np.dtype(dtype))
    shifted = np.rint(real.astype(np.float64)) + np.asarray(zero_point, np.float64)
    clamped: Array = np.clip(shifted, bounds.min, bounds.max)
    return clamped.astype(dtype)


def along(axis: int, values: Array, rank: int) -> Array:
    """The values of one axis, shaped to broadcast against an array of that rank."""
    shape = [1] * rank
    shape[axis] = -1
    return np.asarray(values).reshape(shape)
