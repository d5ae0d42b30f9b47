"""What dense layers must compute, in plain numpy: sums in int64 (or float64), each step as its definition reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

RANGES = {"uint8": (0, 255), "int8": (-128, 127)}


def columns(
    x: Array,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    fill: float,
) -> Array:
    """The elements that each tap reads for each output pixel: (images, channels, taps, rows, columns)."""
    top, left, bottom, right = padding
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)
    rows = (padded.shape[2] - (kernel[0] - 1) * dilation[0] - 1) // stride[0] + 1
    cols = (padded.shape[3] - (kernel[1] - 1) * dilation[1] - 1) // stride[1] + 1
    taps = []
    for kh in range(kernel[0]):
        for kw in range(kernel[1]):
            h, w = kh * dilation[0], kw * dilation[1]
            taps.append(
                padded[:, :, h : h + (rows - 1) * stride[0] + 1 : stride[0], w:][
                    ..., : (cols - 1) * stride[1] + 1 : stride[1]
                ]
            )
    return np.stack(taps, axis=2)


def convolve(
    x: Array,
    weights: Array,
    *,
    zero_point: int = 0,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
) -> Array:
    """Sums of (x - zero_point) * w: int64 for integers, float64 for floats."""
    wide = np.float64 if x.dtype.kind == "f" else np.int64
    taps = columns(x.astype(wide) - wide(zero_point), weights.shape[2:], stride, padding, dilation, 0)
    n, c, t, h, w = taps.shape
    split = taps.reshape(n, groups, c // groups * t, h * w)
    matrices = weights.astype(wide).reshape(groups, weights.shape[0] // groups, -1)
    sums = np.einsum("gmk,ngkp->ngmp", matrices, split, optimize=True)
    return np.asarray(sums).reshape(n, weights.shape[0], h, w)


def requantize(acc: Array, bias: Array | None, scale: Array, zero_point: int, output: str, channel_axis: int) -> Array:
    """Accumulators to stored outputs, with one float32 multiplication and rounding to even."""
    shape = [1] * acc.ndim
    shape[channel_axis] = -1
    total = acc if bias is None else acc + bias.astype(np.int64).reshape(shape)
    value: Array = total.astype(np.float32) * np.asarray(scale, np.float32).reshape(shape)
    if output == "float32":
        return value
    low, high = RANGES[output]
    return np.asarray(np.clip(np.rint(value) + np.float32(zero_point), low, high)).astype(output)


def curve(name: str, x: Array, alpha: float) -> Array:
    """An activation in float64."""
    x = np.asarray(x, np.float64)
    with np.errstate(over="ignore"):
        sigmoid = 1 / (1 + np.exp(-x))
    hardsigmoid = np.clip(x / 6 + 0.5, 0, 1)
    return np.asarray(
        {
            "leaky_relu": np.where(x < 0, np.float64(np.float32(alpha)) * x, x),
            "hardsigmoid": hardsigmoid,
            "hardswish": x * hardsigmoid,
            "sigmoid": sigmoid,
            "silu": x * sigmoid,
        }[name]
    )


def dequantize(q: Array, scale: float, zero_point: int) -> Array:
    return np.asarray((q.astype(np.int32) - zero_point).astype(np.float32) * np.float32(scale))


def quantize(x: Array, scale: float, zero_point: int, output: str) -> Array:
    """A float32 (or float64) tensor to 8 bits by true division."""
    low, high = RANGES[output]
    steps = np.rint(x / x.dtype.type(np.float32(scale))) + zero_point
    return np.asarray(np.clip(steps, low, high)).astype(output)


def separate_curve(q: Array, name: str, alpha: float, stored: tuple[float, int], result: tuple[float, int]) -> Array:
    """The operator that maps stored integers: dequantize, apply, quantize, all in float64."""
    real = (q.astype(np.float64) - stored[1]) * np.float64(np.float32(stored[0]))
    return quantize(curve(name, real, alpha), result[0], result[1], q.dtype.name)


def fused(a: npt.ArrayLike, b: np.float32, c: npt.ArrayLike) -> Array:
    """a * b + c, rounded to float32 once: long doubles hold more bits than the sum needs here."""
    return np.asarray(np.asarray(a, np.longdouble) * np.longdouble(b) + np.asarray(c, np.longdouble), np.float32)


def separate_add(
    a: Array, a_map: tuple[float, int], b: Array, b_map: tuple[float, int], result: tuple[float, int], output: str
) -> Array:
    """ONNX Runtime's QLinearAdd: both in steps of the sum."""
    scale = np.float32(result[0])
    a_ratio, b_ratio = np.float32(a_map[0]) / scale, np.float32(b_map[0]) / scale
    offset = fused(a_map[1], a_ratio, b_ratio * np.float32(b_map[1]))
    steps = fused(a, a_ratio, fused(b, b_ratio, np.float32(result[1]) - offset))
    return np.asarray(np.clip(np.rint(steps), *RANGES[output])).astype(output)


def f32_bound(magnitudes: Array, terms: int) -> Array:
    """The error that a float32 sum of that many products may have; magnitudes are the sums of |a * b|."""
    unit = 2.0**-24
    return (terms + 1) * unit / (1 - (terms + 1) * unit) * magnitudes + 1e-38
