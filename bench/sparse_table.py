"""Prints how layers with sparse weights compare with our own dense ones, and draws where each wins.

    python bench/sparse_table.py [quads] [blocks] [singles] [avx2] [linear] [batches] [peers] [nnz]
                                 [--quick] [--json FILE] [--plot FILE]

One thread on one core, at level avx512vnni where the machine has it; random masks; best of rounds in which sparse and
dense calls of one shape take turns. Without names all tables are printed; ``--plot`` draws time over nonzeros and the
speedup over sparsity (with matplotlib).
"""

from __future__ import annotations

import functools
import importlib
import itertools
import operator
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import bars
import gristmill as gm
from bars import Bar, geometric_mean
from gristmill import kernels
from gristmill.benchmark.sparse import Product, linear_calls, pruned, speedups
from gristmill.kernels import CsrMatrix
from gristmill.timing import interleave

_Call = Callable[[], object]
_Product = Callable[[Any, Any], object]
_Floats = npt.NDArray[np.float64]

_SPARSITIES = (0.5, 0.7, 0.8, 0.9, 0.95)
_TARGETS = {
    "quads": (1.0, 1.65, 2.5, 4.6, 8.0),
    "blocks": (1.6, 2.6, 3.8, 6.5, 10.0),
    "singles": (1.4, 2.3, 3.5, 6.5, 11.0),
    "avx2": (1.0, 1.5, 2.4, 4.5, 8.0),
}
#: The level that bars are of, where the machine has it: higher ones run dense weights on units that sparse ones lack.
_LEVEL = "avx512vnni"
_LINEAR_TARGETS = (0.0, 1.3, 2.0, 4.0, 7.0)
_SMALL_SHARE = 0.6
_CURVE = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99)

_SHAPES = tuple(itertools.product((128, 256, 512), (512, 1152, 2304), (196, 784, 3136)))
_SMALL_SHAPES = ((64, 64, 3136), (64, 256, 784), (64, 576, 784), (128, 128, 784), (256, 256, 196))
_QUICK_SHAPES = ((128, 1152, 784), (256, 512, 196), (512, 2304, 196))


def format_bars(title: str, format_name: str, seconds: float, *, quick: bool) -> list[Bar]:
    """Geometric means over the large shapes, and over small ones, whose epilogues weigh more."""
    result = []
    for name, shapes, share in [
        ("", _QUICK_SHAPES if quick else _SHAPES, 1.0),
        (", small layers", _SMALL_SHAPES[:2] if quick else _SMALL_SHAPES, _SMALL_SHARE),
    ]:
        found = [speedups(shape, format_name, _SPARSITIES, seconds) for shape in shapes]
        for i, sparsity in enumerate(_SPARSITIES):
            ratios = [row[i] for row in found]
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            target = _TARGETS[title][i] * share
            result.append(Bar(f"{sparsity:.0%} zeros{name}", spread, "dense", geometric_mean(ratios), target))
    return result


def linear_bars(seconds: float) -> list[Bar]:
    """A linear layer of one row."""
    timings = interleave(linear_calls(1, _SPARSITIES), seconds=seconds)
    dense = timings["dense"].best
    return [
        Bar(f"{s:.0%} zeros", f"{timings[f'{s:.0%}'].best * 1e6:.1f} us", f"dense {dense * 1e6:.1f} us",
            dense / timings[f"{s:.0%}"].best, target)
        for s, target in zip(_SPARSITIES, _LINEAR_TARGETS, strict=True)
    ]  # fmt: skip


def batch_bars(seconds: float, *, quick: bool) -> list[Bar]:
    """Time never falls much when a row is added to the batch: against the fastest larger batch."""
    batches = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 31, 32, 33, 34, 48, 63, 64, 65, 66, 80, 96, 97, 127, 128, 129, 130]
    best = {}
    for rows in batches[:: 4 if quick else 1]:
        timings = interleave({"sparse": linear_calls(rows, (0.9,), 1024)["90%"]}, seconds=seconds / 4)
        best[rows] = timings["sparse"].best
    result = []
    for rows, time in best.items():
        later = min((t for r, t in best.items() if r > rows), default=time)
        result.append(Bar(f"batch {rows}", f"{time * 1e6:.1f} us", f"{later * 1e6:.1f} us later", later / time, 0.9))
    return result


def function_of(module: str, name: str) -> _Product | None:
    """A function of an optional module; if that is missing, None, and a line on standard error."""
    try:
        function: _Product = getattr(importlib.import_module(module), name)
    except ImportError as error:
        print(f"{module} is skipped: {error}", file=sys.stderr)
        return None
    return function


def peer_bars(seconds: float) -> list[Bar]:
    """Products of float32 matrices at 90 % zeros against scipy and MKL."""
    result = []
    found = {"scipy": function_of("scipy.sparse", "csr_array") and operator.matmul}
    found["MKL"] = found["scipy"] and function_of("sparse_dot_mkl", "dot_product_mkl")
    peers = {name: product for name, product in found.items() if product}
    for m, k, p in _QUICK_SHAPES:
        generator = np.random.default_rng(0)
        a = CsrMatrix.from_dense(pruned(generator.standard_normal((m, k)).astype(np.float32), 0.9))
        x = generator.standard_normal((k, p)).astype(np.float32)
        out = np.empty((m, p), np.float32)
        calls: dict[str, _Call] = {"ours": lambda a=a, x=x, out=out: kernels.spmm(a, x, out=out, threads=1)}  # type: ignore[misc]
        calls |= {name: functools.partial(product, a.to_scipy(), x) for name, product in peers.items()}
        timings = interleave(calls, seconds=seconds)
        for name, target in (("scipy", 10.0), ("MKL", 2.0)):
            if name in timings:
                ours, peer = timings["ours"].best, timings[name].best
                figures = f"{ours * 1e6:.0f} us", f"{name} {peer * 1e6:.0f} us"
                result.append(Bar(f"spmm {m}x{k}x{p}, 90%", *figures, peer / ours, target))
    return result


def nonzero_curve(format_name: str, seconds: float) -> tuple[_Floats, _Floats]:
    """Nonzeros and seconds of one shape over the sparsities of the curve."""
    product = Product((256, 1152, 784), f32=format_name == "singles")
    timings = interleave({str(s): product.call(format_name, s) for s in _CURVE}, seconds=seconds)
    block = 4 if format_name == "blocks" else 1
    counts = [np.count_nonzero(pruned(product.weights, s, block)) for s in _CURVE]
    return np.array(counts, np.float64), np.array([timings[str(s)].best for s in _CURVE])


def explained_variance(x: _Floats, y: _Floats) -> float:
    """R squared of the least-squares line.

    Example:
        >>> round(explained_variance(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0])), 6)
        1.0
    """
    rest = y - np.polyval(np.polyfit(x, y, 1), x)
    return float(1 - rest.var() / y.var())


def nonzero_bars(seconds: float) -> list[Bar]:
    """How far time is a line through the number of nonzeros."""
    result = []
    for format_name in ("quads", "blocks", "singles"):
        counts, times = nonzero_curve(format_name, seconds)
        slope = float(np.polyfit(counts, times, 1)[0])
        figure = f"{slope * 1e12:.1f} us for a million"
        result.append(Bar(format_name, figure, "a line", explained_variance(counts, times), 0.98))
    return result


def draw(path: Path, seconds: float) -> None:
    """Draws time over nonzeros, and the speedup over sparsity for each format and x86 level, as PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for format_name in ("quads", "blocks", "singles"):
        counts, times = nonzero_curve(format_name, seconds)
        left.plot(counts / 1e3, times * 1e6, "o-", markersize=3, label=format_name)
    left.set(xlabel="nonzeros, thousands", ylabel="microseconds", title="256 x 1152 weights, 784 pixels")
    before = gm.get_isa()
    for isa in kernels.supported_isas()[1:]:
        gm.set_isa(isa)
        for format_name in ("quads", "blocks", "singles"):
            ratios = speedups((256, 1152, 784), format_name, _CURVE, seconds)
            right.plot([100 * s for s in _CURVE], ratios, "o-", markersize=3, label=f"{format_name}, {isa}")
    gm.set_isa(before)
    right.axhline(1, color="black", linewidth=0.8)
    right.set(xlabel="zeros, %", ylabel="times as fast as dense", yscale="log", title="where sparse weights win")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=130)


def main() -> None:
    """Print the tables."""
    parser = bars.argument_parser(__doc__)
    names = ("quads", "blocks", "singles", "avx2", "linear", "batches", "peers", "nnz")
    parser.add_argument("tables", nargs="*", choices=[*names, []], help="which tables (default: all)")
    parser.add_argument("--quick", action="store_true", help="a few layers only")
    parser.add_argument("--plot", metavar="FILE", type=Path, help="also draw the curves to FILE, a PNG")
    arguments = parser.parse_args()
    tables = arguments.tables or ([] if arguments.plot else names)
    seconds = 0.1 if arguments.quick else 0.3
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    level = _LEVEL if _LEVEL in kernels.supported_isas() else gm.get_isa()
    gm.set_isa(level)
    report = bars.Report(arguments.json)
    for name in ("quads", "blocks", "singles"):
        if name in tables:
            report.add(f"{name}, {level}", format_bars(name, name, seconds, quick=arguments.quick))
    if "avx2" in tables and "avx2" in kernels.supported_isas():
        gm.set_isa("avx2")
        report.add("quads, avx2", format_bars("avx2", "quads", seconds, quick=arguments.quick))
        gm.set_isa(level)
    if "linear" in tables:
        report.add("int8 linear 2048x2048, batch 1", linear_bars(10 * seconds))
    if "batches" in tables:
        report.add("int8 linear 1024x1024, 90 % zeros: batches", batch_bars(seconds, quick=arguments.quick))
    if "peers" in tables:
        report.add("float32 products", peer_bars(3 * seconds))
    if "nnz" in tables:
        report.add("Time over nonzeros, 256x1152, 784 pixels", nonzero_bars(3 * seconds))
    if arguments.plot:
        draw(arguments.plot, 3 * seconds)
    report.close()


if __name__ == "__main__":
    main()
