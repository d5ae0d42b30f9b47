"""Prints how dense layers compare with the core's limits and with onnxruntime and OpenVINO, and writes JSON.

    python bench/dense_table.py [gemm] [linear] [conv] [conv-f32] [threads] [--quick] [--json FILE]

One thread on one core, best of interleaved rounds. The bound is what a calibration of the same process measured; peers
run the same single layer. Without names all tables are printed.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import bars
import gristmill as gm
import peers
import shapes
from bars import Bar, geometric_mean
from gristmill import kernels
from gristmill.kernels import Epilogue
from gristmill.timing import interleave
from peers import Array

_Call = Callable[[], object]

_GEMM_TARGET = {"avx512vnni": 0.92, "avx2": 0.88}
_F32_TARGET = 0.90


@dataclass(frozen=True)
class Layer:
    """A convolution with random operands, as ours and as peers take it."""

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

    def ours(self, threads: int = 1) -> _Call:
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

    def model(self) -> peers.Model:
        """The layer as an ONNX model for peers."""
        if self.weights.dtype == np.float32:
            return peers.conv_model_f32(self.shape, self.weights, np.zeros(self.shape.filters, np.float32))
        bias = np.zeros(self.shape.filters, np.int32)
        return peers.conv_model_qdq(
            self.shape, self.weights, self.scale, bias, x_scale=1.0, y_scale=1.0, zero_point=self.zero_point
        )


def gemm_calls(m: int, k: int, n: int) -> dict[str, tuple[_Call, float]]:
    """Return our int8 and float32 products of that size, each with its multiplications in 10^9."""
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (n, k), np.uint8)
    weights = np.clip(np.rint(generator.standard_normal((m, k)) * 30), -127, 127).astype(np.int8)
    epilogue = Epilogue(output="uint8", scale=np.full(m, 1e-4, np.float32), zero_point=128)
    packed = kernels.PackedLinear(weights)
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


def gemm_bars(seconds: float) -> list[Bar]:
    """Matrix products against the core's multiply-add rates; activation packing counts."""
    result = []
    bound = kernels.calibrate(seconds=1.0)
    targets = {"int8": _GEMM_TARGET.get(gm.get_isa(), 0.0), "f32": _F32_TARGET if gm.get_isa() in _GEMM_TARGET else 0.0}
    for m, k, n in shapes.GEMM_SIZES:
        calls = gemm_calls(m, k, n)
        timings = interleave({name: call for name, (call, _) in calls.items()}, seconds=seconds)
        for name, (_, giga_macs) in calls.items():
            rate = giga_macs / timings[name].best
            limit = bound.int8_macs.best if name == "int8" else bound.f32_fmas.best
            result.append(
                Bar(f"{name} {m}x{k}x{n}", f"{rate:.1f} GMAC/s", f"bound {limit:.1f}", rate / limit, targets[name])
            )
    return result


def linear_bars(seconds: float) -> list[Bar]:
    """Batch-1 linear layers against the read bandwidth of the memory that holds their weights."""
    result = []
    bound = kernels.calibrate(seconds=1.0)
    caches = {f"L{cache.level}": cache.bytes for cache in kernels.cpu_info().caches}
    for m, k in shapes.LINEAR_SIZES:
        generator = np.random.default_rng(0)
        packed = kernels.PackedLinear(generator.integers(-127, 128, (m, k), np.int8))
        x = generator.integers(0, 256, (1, k), np.uint8)
        out = kernels.linear(x, packed, threads=1)
        call = functools.partial(kernels.linear, x, packed, out=out, threads=1)
        timing = interleave({"ours": call}, seconds=seconds)
        level = next((name for name, size in caches.items() if m * k <= size), "DRAM")
        limit = next(read.gigabytes.best for read in bound.reads if read.memory == level)
        rate = m * k / timing["ours"].best / 1e9
        result.append(Bar(f"int8 {m}x{k}, batch 1", f"{rate:.1f} GB/s", f"{level} {limit:.1f}", rate / limit, 0.85))
    return result


def _peer_calls(layer: Layer) -> dict[str, _Call]:
    builders = {"onnxruntime": peers.onnxruntime_call, "openvino": peers.openvino_call}
    installed = {name: build for name, build in builders.items() if importlib.util.find_spec(name) is not None}
    return {name: build(layer.model(), layer.x)[0] for name, build in installed.items()}


def conv_bars(seconds: float, *, f32: bool, quick: bool) -> list[Bar]:
    """Single convolutions against the better peer."""
    result: list[Bar] = []
    plain: list[float] = []
    layers = shapes.RESNET50 + shapes.MOBILENET_V1
    for shape in layers[::6] if quick else layers:
        layer = Layer.random_f32(shape) if f32 else Layer.random_s8(shape)
        timings = interleave({"ours": layer.ours(), **_peer_calls(layer)}, seconds=seconds)
        best = timings["ours"].best
        name, peer = min(((n, t.best) for n, t in timings.items() if n != "ours"), key=lambda item: item[1])
        rates = f"{shape.macs / best / 1e9:.1f} GMAC/s, {best * 1e6:.0f} us"
        target = 0.0 if f32 else 1.5 if shape.depthwise else 0.9
        result.append(Bar(shape.name, rates, f"{name} {peer * 1e6:.0f} us", peer / best, target))
        plain.append(peer / best)
    mean = geometric_mean(plain)
    result.append(Bar("geometric mean", "", "the better peer", mean, 1.0 if f32 else 1.1))
    return result


def thread_bars(seconds: float, *, quick: bool) -> list[Bar]:
    """Two threads against one, on layers above 100 µs."""
    result = []
    for shape in shapes.RESNET50[:: 5 if quick else 1]:
        layer = Layer.random_s8(shape)
        timings = interleave({"one": layer.ours(1), "two": layer.ours(2)}, seconds=seconds)
        one, two = timings["one"].best, timings["two"].best
        target = 1.8 if one > 100e-6 else 1.0
        result.append(Bar(shape.name, f"{two * 1e6:.0f} us", f"one thread {one * 1e6:.0f} us", one / two, target))
    return result


def main() -> None:
    """Print the tables."""
    parser = bars.argument_parser(__doc__)
    names = ("gemm", "linear", "conv", "conv-f32", "threads")
    parser.add_argument("tables", nargs="*", choices=[*names, []], help="which tables (default: all)")
    parser.add_argument("--quick", action="store_true", help="a few layers only")
    arguments = parser.parse_args()
    tables = arguments.tables or names
    seconds = 0.2 if arguments.quick else 1.0
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})
    report = bars.Report(arguments.json)
    if "gemm" in tables:
        report.add("Matrix products, one thread", gemm_bars(seconds))
    if "linear" in tables:
        report.add("Linear layers at batch 1, one thread", linear_bars(seconds))
    if "conv" in tables:
        report.add("int8 convolutions, one thread", conv_bars(seconds, f32=False, quick=arguments.quick))
    if "conv-f32" in tables:
        report.add("float32 convolutions, one thread", conv_bars(seconds, f32=True, quick=arguments.quick))
    if "threads" in tables:
        os.sched_setaffinity(0, set(cores))
        report.add("int8 convolutions, two threads", thread_bars(seconds, quick=arguments.quick))
    report.close()


if __name__ == "__main__":
    main()
