"""Layers with sparse weights beside dense ones of the same shape, random masks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill import kernels
from gristmill.benchmark.bars import Bar
from gristmill.kernels import Epilogue, PackedConv, PackedLinear
from gristmill.timing import interleave

__all__ = ["FORMATS", "Product", "break_even", "linear_calls", "pruned", "sparse_bars", "speedups"]

Array = npt.NDArray[Any]
Call = Callable[[], object]
Shape = tuple[int, int, int]

#: Formats of sparse weights by what they are called in tables.
FORMATS = {"int8, any pattern": "quads", "int8, 1x4 blocks": "blocks", "float32, any pattern": "singles"}


def pruned(weights: Array, sparsity: float, block: int = 1) -> Array:
    """The weights with a random mask of zeros, in aligned blocks of that many columns."""
    rows, columns = weights.shape
    mask = np.random.default_rng(1).random((rows, columns // block)) >= sparsity
    return np.where(np.repeat(mask, block, axis=1), weights, 0).astype(weights.dtype)


class Product:
    """A 1x1 convolution Y[M, P] = W[M, K] X[K, P], dense and sparse."""

    def __init__(self, shape: Shape, *, f32: bool) -> None:
        """Make random operands of shape (M, K, P)."""
        m, k, p = shape
        generator = np.random.default_rng(0)
        rows = next(r for r in range(int(p**0.5), 0, -1) if p % r == 0)
        if f32:
            self.weights: Array = generator.standard_normal((m, k)).astype(np.float32)
            self.x: Array = generator.standard_normal((1, k, rows, p // rows)).astype(np.float32)
        else:
            self.weights = generator.integers(-127, 128, (m, k)).astype(np.int8)
            self.x = generator.integers(0, 256, (1, k, rows, p // rows)).astype(np.uint8)
        self.epilogue = Epilogue(output="float32") if f32 else Epilogue(output="uint8", scale=1e-4, zero_point=128)

    def call(self, format_name: str, sparsity: float = 0.0) -> Call:
        """Our call in that format, output allocated once."""
        weights = pruned(self.weights, sparsity, 4 if format_name == "blocks" else 1)[:, :, None, None]
        packed = PackedConv(weights, format=format_name)
        out = kernels.conv2d(self.x, packed, epilogue=self.epilogue, threads=1)
        return lambda: kernels.conv2d(self.x, packed, epilogue=self.epilogue, out=out, threads=1)


def speedups(shape: Shape, format_name: str, sparsities: Sequence[float], seconds: float) -> list[float]:
    """How much faster sparse weights are than dense ones of the same shape."""
    product = Product(shape, f32=format_name == "singles")
    calls = {str(s): product.call(format_name, s) for s in sparsities}
    timings = interleave({"dense": product.call("dense"), **calls}, seconds=seconds)
    return [timings["dense"].best / timings[str(s)].best for s in sparsities]


def linear_calls(rows: int, sparsities: Sequence[float], size: int = 2048) -> dict[str, Call]:
    """A square int8 linear layer, dense and unstructured."""
    generator = np.random.default_rng(0)
    weights = generator.integers(-127, 128, (size, size)).astype(np.int8)
    x = generator.integers(0, 256, (rows, size)).astype(np.uint8)
    epilogue = Epilogue(output="uint8", scale=1e-4, zero_point=128)

    def call(packed: PackedLinear) -> Call:
        out = kernels.linear(x, packed, epilogue=epilogue, threads=1)
        return lambda: kernels.linear(x, packed, epilogue=epilogue, out=out, threads=1)

    sparse = {f"{s:.0%}": call(PackedLinear(pruned(weights, s), format="quads")) for s in sparsities}
    return {"dense": call(PackedLinear(weights, rows=rows)), **sparse}


def sparse_bars(points: dict[str, list[tuple[float, float]]]) -> list[Bar]:
    """Measured points of (zeros, times as fast as dense) by name, with where each begins to win."""
    result = []
    for name, found in points.items():
        start = break_even(found)
        wins = "never wins here" if start is None else f"wins from {start:.0%} zeros"
        result += [Bar(f"{name}, {share:.0%} zeros", wins, "dense", ratio) for share, ratio in found]
    return result


def break_even(points: Sequence[tuple[float, float]]) -> float | None:
    """From which part of zeros on sparse weights are as fast as dense ones, interpolated; None if they never are.

    Example:
        >>> round(break_even([(0.5, 0.8), (0.7, 1.25)]), 3), break_even([(0.5, 1.1)]), break_even([(0.9, 0.7)])
        (0.6, 0.5, None)
    """
    for index, (share, ratio) in enumerate(points):
        if ratio < 1.0:
            continue
        if index == 0:
            return share
        before, lower = points[index - 1]
        return before + (share - before) * math.log(1 / lower) / math.log(ratio / lower)
    return None
