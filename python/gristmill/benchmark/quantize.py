"""Quantize and dequantize beside copies that move the same bytes, and beside numpy."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill import _core, kernels
from gristmill.benchmark.bars import Bar
from gristmill.timing import interleave

__all__ = ["AXES", "OPS", "Call", "Case", "aligned", "copies", "quantize_bars"]

Call = Callable[[], object]
Array = npt.NDArray[Any]

AXES: dict[str, int | None] = {"per tensor": None, "per channel, axis 0": 0, "per channel, last axis": -1}
OPS = ("quantize", "dequantize")


def aligned(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """Return an array of zeros whose pages exist and whose first byte begins a cache line."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(size + 64, np.uint8)
    raw.fill(0)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)


@dataclass(frozen=True)
class Case:
    """Data of one shape and its maps along one axis."""

    x: Array
    q: Array
    axis: int | None
    scale: Array
    zero_point: Array

    @classmethod
    def random(cls, shape: tuple[int, ...], axis: int | None) -> Case:
        """Normal values that use the range of uint8 and saturate now and then."""
        generator = np.random.default_rng(0)
        x, q = aligned(shape, np.float32), aligned(shape, np.uint8)
        generator.standard_normal(out=x, dtype=np.float32)
        q[...] = generator.integers(0, 256, shape[-1], np.uint8)
        count = 1 if axis is None else shape[axis]
        scale = generator.uniform(0.02, 0.03, count).astype(np.float32)
        return cls(x, q, axis, scale, generator.integers(100, 156, count).astype(np.uint8))

    def quantize(self) -> Call:
        """Our call."""
        out = aligned(self.x.shape, np.uint8)
        if self.axis is None:
            scale, zero_point = float(self.scale[0]), int(self.zero_point[0])
            return functools.partial(
                kernels.quantize_per_tensor, self.x, scale, zero_point, np.uint8, out=out, threads=1
            )
        maps = self.scale, self.zero_point, self.axis
        return functools.partial(kernels.quantize_per_channel, self.x, *maps, np.uint8, out=out, threads=1)

    def dequantize(self) -> Call:
        """Our call."""
        out = aligned(self.q.shape, np.float32)
        if self.axis is None:
            scale, zero_point = float(self.scale[0]), int(self.zero_point[0])
            return functools.partial(kernels.dequantize_per_tensor, self.q, scale, zero_point, out=out, threads=1)
        maps = self.scale, self.zero_point, self.axis
        return functools.partial(kernels.dequantize_per_channel, self.q, *maps, out=out, threads=1)

    def numpy_quantize(self) -> Call:
        """The expression that one would write in numpy."""
        x, (scale, zero_point) = self.x, self._wide()
        return lambda: np.clip(np.rint(x / scale) + zero_point, 0, 255).astype(np.uint8)

    def numpy_dequantize(self) -> Call:
        """The expression that one would write in numpy."""
        q, (scale, zero_point) = self.q, self._wide()
        return lambda: (q.astype(np.float32) - zero_point) * scale

    def _wide(self) -> tuple[Array, Array]:
        if self.axis is None:
            return self.scale[0], self.zero_point[0].astype(np.float32)
        shape = [1] * self.x.ndim
        shape[self.axis] = -1
        return self.scale.reshape(shape), self.zero_point.reshape(shape).astype(np.float32)


def copies(case: Case, op: str) -> dict[str, Call]:
    """Return what moves the same bytes and hardly computes, with and without stores around the caches."""
    if op == "quantize":
        copy, source, target = _core.bench.narrow, case.x, aligned(case.x.shape, np.uint8)
    else:
        copy, source, target = _core.bench.widen, case.q, aligned(case.q.shape, np.float32)
    return {
        "copy": functools.partial(copy, source, target, streaming=False),
        "streaming copy": functools.partial(copy, source, target, streaming=True),
    }


def quantize_bars(shape: tuple[int, int], seconds: float) -> list[Bar]:
    """Both directions and all axes against the better copy of the same run."""
    result = []
    for op in OPS:
        for name, axis in AXES.items():
            case = Case.random(shape, axis)
            ours = case.quantize() if op == "quantize" else case.dequantize()
            timings = interleave({"ours": ours, **copies(case, op)}, seconds=seconds)
            own = timings.pop("ours").best
            bound = min(timings, key=lambda copy: timings[copy].best)
            limit = timings[bound].best
            rate = 5 * case.x.size / own / 1e9
            figure = f"{1e3 * own:.2f} ms, {rate:.1f} GB/s"
            result.append(Bar(f"{op} {name}", figure, f"{bound} {1e3 * limit:.2f} ms", limit / own))
    return result
