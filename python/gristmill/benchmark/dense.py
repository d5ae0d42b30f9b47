"""Dense layers with random operands, and what they reach of the bounds of a core."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill import kernels
from gristmill.benchmark import shapes
from gristmill.benchmark.bars import Bar
from gristmill.kernels import Calibration, Epilogue
from gristmill.timing import interleave

__all__ = ["Layer", "conv_bars", "gemm_bars", "gemm_calls", "linear_bars", "thread_bars"]

Array = npt.NDArray[Any]
Call = Callable[[], object]


@dataclass(frozen=True)
class Layer:
    """A convolution with random operands."""

    shape: shapes.Conv
    x: Array
    weights: Array
    scale: Array
    zero_point: int = 128

    @classmethod
    def random_s8(cls, shape: shapes.Conv) -> Layer:
        """An int8 layer whose outputs fill the range of uint8 without saturating much."""
        generator = np.random.default_rng(0)
        taps = shape.channels // shape.groups * shape.kernel**2
        size = (shape.filters, shape.channels // shape.groups, shape.kernel, shape.kernel)
        weights = np.clip(np.rint(generator.standard_normal(size) * 30), -127, 127).astype(np.int8)
        x = generator.integers(0, 256, (1, shape.channels, shape.size, shape.size), np.uint8)
        scale = np.full(shape.filters, 1.0 / (30 * 74 * taps**0.5 / 40), np.float32)
        return cls(shape, x, weights, scale)

    @classmethod
    def random_f32(cls, shape: shapes.Conv) -> Layer:
        """A float32 layer."""
        generator = np.random.default_rng(0)
        size = (shape.filters, shape.channels // shape.groups, shape.kernel, shape.kernel)
        weights = generator.standard_normal(size).astype(np.float32)
        x = generator.standard_normal((1, shape.channels, shape.size, shape.size)).astype(np.float32)
        return cls(shape, x, weights, np.ones(shape.filters, np.float32))

    def ours(self, threads: int = 1) -> Call:
        """Our call, output allocated once."""
        shape = self.shape
        packed = kernels.PackedConv(self.weights, stride=shape.stride, padding=shape.padding, groups=shape.groups)
        if self.weights.dtype == np.float32:
            epilogue = Epilogue(output="float32", bias=np.zeros(shape.filters, np.float32))
            zero_point = 0
        else:
            epilogue = Epilogue(output="uint8", scale=self.scale, zero_point=self.zero_point)
            zero_point = self.zero_point
        out = kernels.conv2d(self.x, packed, x_zero_point=zero_point, epilogue=epilogue, threads=threads)
        return lambda: kernels.conv2d(
            self.x, packed, x_zero_point=zero_point, epilogue=epilogue, out=out, threads=threads
        )


def gemm_calls(m: int, k: int, n: int) -> dict[str, tuple[Call, float]]:
    """Return our int8 and float32 products of that size, each with its multiplications in 10^9."""
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (n, k), np.uint8)
    weights = np.clip(np.rint(generator.standard_normal((m, k)) * 30), -127, 127).astype(np.int8)
    epilogue = Epilogue(output="uint8", scale=np.full(m, 1e-4, np.float32), zero_point=128)
    packed = kernels.PackedLinear(weights, rows=n)
    out = kernels.linear(x, packed, x_zero_point=128, epilogue=epilogue, threads=1)
    xf, packed_f = x.astype(np.float32), kernels.PackedLinear(weights.astype(np.float32))
    out_f = kernels.linear(xf, packed_f, threads=1)
    return {
        "int8": (
            lambda: kernels.linear(x, packed, x_zero_point=128, epilogue=epilogue, out=out, threads=1),
            m * k * n / 1e9,
        ),
        "f32": (lambda: kernels.linear(xf, packed_f, out=out_f, threads=1), m * k * n / 1e9),
    }


def _rate_bar(name: str, giga_macs: float, seconds: float, limit: float) -> Bar:
    rate = giga_macs / seconds
    return Bar(name, f"{rate:.1f} GMAC/s", f"bound {limit:.1f}", rate / limit)


def gemm_bars(
    bound: Calibration, seconds: float, sizes: Sequence[tuple[int, int, int]] = shapes.GEMM_SIZES
) -> list[Bar]:
    """Matrix products against the core's multiply-add rates; activation packing counts."""
    result = []
    limits = {"int8": bound.int8_macs.best, "f32": bound.f32_fmas.best}
    for m, k, n in sizes:
        calls = gemm_calls(m, k, n)
        timings = interleave({name: call for name, (call, _) in calls.items()}, seconds=seconds)
        for name, (_, giga_macs) in calls.items():
            result.append(_rate_bar(f"{name} {m}x{k}x{n}", giga_macs, timings[name].best, limits[name]))
    return result


def linear_bars(
    bound: Calibration, seconds: float, sizes: Sequence[tuple[int, int]] = shapes.LINEAR_SIZES
) -> list[Bar]:
    """Batch-1 linear layers against the read bandwidth of the memory that holds their weights."""
    result = []
    caches = {f"L{cache.level}": cache.bytes for cache in kernels.cpu_info().caches}
    for m, k in sizes:
        generator = np.random.default_rng(0)
        packed = kernels.PackedLinear(generator.integers(-127, 128, (m, k), np.int8))
        x = generator.integers(0, 256, (1, k), np.uint8)
        out = kernels.linear(x, packed, threads=1)
        call = functools.partial(kernels.linear, x, packed, out=out, threads=1)
        timing = interleave({"ours": call}, seconds=seconds)
        level = next((name for name, size in caches.items() if m * k <= size), "DRAM")
        found = next((read for read in bound.reads if read.memory == level), bound.reads[-1])
        limit, rate = found.gigabytes.best, m * k / timing["ours"].best / 1e9
        against = f"{found.memory} {limit:.1f}"
        result.append(Bar(f"int8 {m}x{k}, batch 1", f"{rate:.1f} GB/s", against, rate / limit))
    return result


def conv_bars(bound: Calibration, seconds: float, layers: Sequence[shapes.Conv]) -> list[Bar]:
    """Single convolutions against the core's multiply-add rates."""
    result = []
    for shape in layers:
        calls = {"int8": Layer.random_s8(shape).ours(), "f32": Layer.random_f32(shape).ours()}
        timings = interleave(calls, seconds=seconds)
        for name, limit in (("int8", bound.int8_peak), ("f32", bound.f32_fmas.best)):
            result.append(_rate_bar(f"{name} {shape.name}", shape.macs / 1e9, timings[name].best, limit))
    return result


def thread_bars(
    seconds: float, layers: Sequence[shapes.Conv], target: Callable[[float], float] = lambda one: 0.0
) -> list[Bar]:
    """int8 convolutions on two threads against one; the target may depend on the seconds of one.

    Calls follow one another in turns, as the layers of a session do: the second thread is awake, and waking it (20 µs
    on a virtual machine) is no part of a layer's time.
    """
    result = []
    for shape in layers:
        layer = Layer.random_s8(shape)
        timings = interleave({"one": layer.ours(1), "two": layer.ours(2)}, seconds=seconds, turn=3e-3)
        one, two = timings["one"].best, timings["two"].best
        against = f"one thread {one * 1e6:.0f} µs"
        result.append(Bar(shape.name, f"{two * 1e6:.0f} µs", against, one / two, target(one)))
    return result
