"""Prints how dense layers compare with the core's limits and with onnxruntime and OpenVINO, and writes JSON.

    python bench/dense_table.py [gemm] [linear] [conv] [conv-f32] [threads] [--quick] [--json FILE]

One thread on one core, best of interleaved rounds. The bound is what a calibration of the same process measured; peers
run the same single layer. Without names all tables are printed.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import replace

import bars
import gristmill as gm
import peers
from bars import Bar, geometric_mean
from gristmill import kernels
from gristmill.benchmark import dense, shapes
from gristmill.benchmark.dense import Layer
from gristmill.timing import interleave

_Call = Callable[[], object]

_GEMM_TARGET = {"avx512vnni": 0.92, "avx2": 0.88}
_F32_TARGET = 0.90


def gemm_bars(seconds: float) -> list[Bar]:
    """Matrix products against the core's multiply-add rates; activation packing counts."""
    targets = {"int8": _GEMM_TARGET.get(gm.get_isa(), 0.0), "f32": _F32_TARGET if gm.get_isa() in _GEMM_TARGET else 0.0}
    measured = dense.gemm_bars(kernels.calibrate(seconds=1.0), seconds)
    return [replace(bar, target=targets[bar.name.split()[0]]) for bar in measured]


def linear_bars(seconds: float) -> list[Bar]:
    """Batch-1 linear layers against the read bandwidth of the memory that holds their weights."""
    return [replace(bar, target=0.85) for bar in dense.linear_bars(kernels.calibrate(seconds=1.0), seconds)]


def _peer_calls(layer: Layer) -> dict[str, _Call]:
    builders = {"onnxruntime": peers.onnxruntime_call, "openvino": peers.openvino_call}
    installed = {name: build for name, build in builders.items() if importlib.util.find_spec(name) is not None}
    return {name: build(peers.conv_model(layer), layer.x)[0] for name, build in installed.items()}


def conv_bars(seconds: float, *, f32: bool, quick: bool) -> list[Bar]:
    """Single convolutions against every installed peer, the better one first, which the ratio is to."""
    calibration = kernels.calibrate(seconds=1.0)
    bound = 1e9 * (calibration.f32_fmas.best if f32 else calibration.int8_peak)
    result: list[Bar] = []
    plain: list[float] = []
    layers = shapes.RESNET50 + shapes.MOBILENET_V1
    for shape in layers[::6] if quick else layers:
        layer = Layer.random_f32(shape) if f32 else Layer.random_s8(shape)
        timings = interleave({"ours": layer.ours(), **_peer_calls(layer)}, seconds=seconds)
        best = timings["ours"].best
        theirs = sorted((t.best, name) for name, t in timings.items() if name != "ours")
        rate = shape.macs / best
        rates = f"{rate / 1e9:.1f} GMAC/s, {rate / bound:.0%} of bound, {best * 1e6:.0f} us"
        against = ", ".join(f"{name} {peer * 1e6:.0f} us ({peer / best:.2f})" for peer, name in theirs)
        target = 0.0 if f32 else 1.5 if shape.depthwise else 0.9
        plain.append(theirs[0][0] / best)
        result.append(Bar(shape.name, rates, against, plain[-1], target))
    mean = geometric_mean(plain)
    result.append(Bar("geometric mean", "", "the better peer", mean, 1.0 if f32 else 1.1))
    return result


def thread_bars(seconds: float, *, quick: bool) -> list[Bar]:
    """Two threads against one; a gain is asked of layers above 100 µs."""
    return dense.thread_bars(seconds, shapes.RESNET50[:: 5 if quick else 1], lambda one: 1.8 if one > 100e-6 else 1.0)


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
