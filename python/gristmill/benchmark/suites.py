"""Tables of the kernels on this processor: what is measured, in which order, and the result."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from gristmill import kernels
from gristmill.benchmark import dense, shapes
from gristmill.benchmark.bars import Bar, table
from gristmill.benchmark.quantize import quantize_bars
from gristmill.benchmark.sparse import FORMATS, sparse_bars, speedups
from gristmill.console import Cell, Console, activity
from gristmill.errors import ArgumentError
from gristmill.kernels import Calibration
from gristmill.machine import machine

__all__ = ["TABLES", "Benchmark", "bench", "pinned"]

Curve = Mapping[str, Sequence[tuple[float, float]]]

#: What can be measured, with the titles of the tables.
TABLES = {
    "gemm": "Matrix products against the core's multiply-add rate",
    "conv": "Convolutions of ResNet-50 and MobileNetV1 against the core's multiply-add rate",
    "linear": "Linear layers at batch 1 against the bandwidth of the memory that holds their weights",
    "sparse": "Sparse weights against dense ones, a 256x1152 matrix and 784 pixels",
    "quantize": "Quantize and dequantize against a copy of the same bytes",
    "threads": "int8 convolutions on two threads against one",
}
_SHARES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
_QUICK_SHARES = (0.5, 0.7, 0.8, 0.9, 0.95)
_SPARSE_SHAPE = (256, 1152, 784)
_QUANTIZED, _QUICK_QUANTIZED = (65536, 1024), (16384, 1024)


@dataclass(frozen=True)
class Benchmark:
    """The result of :func:`bench`; printing it shows its tables.

    Attributes:
        machine: Processor, level, versions.
        bounds: What a core could do in the same run.
        tables: Bars by the names of :data:`TABLES`.
        curve: For each format of sparse weights, (part of zeros, times as fast as dense).
        notes: What was left out, and why.
    """

    machine: Mapping[str, object]
    bounds: Calibration
    tables: Mapping[str, list[Bar]]
    curve: Curve
    notes: tuple[str, ...] = ()

    def show(self, console: Console) -> None:
        """Print the tables."""
        console.print(Cell(f"{self.machine['cpu']}, level {self.machine['level']}", "bold"))
        console.print(bounds_line(self.bounds))
        for name, bars in self.tables.items():
            console.print()
            console.print(table(TABLES[name], bars))
        for note in self.notes:
            console.print()
            console.print(note)

    def __str__(self) -> str:
        import io

        text = io.StringIO()
        self.show(Console(text))
        return text.getvalue().rstrip("\n")

    def document(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "schema": 1,
            "machine": dict(self.machine),
            "bounds": asdict(self.bounds),
            "tables": {name: [asdict(bar) for bar in bars] for name, bars in self.tables.items()},
            "curve": {name: [list(point) for point in points] for name, points in self.curve.items()},
            "notes": list(self.notes),
        }

    def json(self) -> str:
        """A JSON document."""
        return json.dumps(self.document(), indent=2)

    def html(self) -> str:
        """A page that needs nothing else."""
        from gristmill.benchmark.report import benchmark_page

        return benchmark_page(self)


def bench(tables: Sequence[str] = (), *, seconds: float = 0.1, full: bool = False) -> Benchmark:
    """Measure kernels on one core of this machine, beside bounds of the same run.

    Args:
        tables: Names of :data:`TABLES`; all by default.
        seconds: For each group of candidates that take turns.
        full: Every shape instead of some.

    Raises:
        ArgumentError: A table is unknown, or the time makes no sense.

    Example:
        >>> found = bench(["gemm"], seconds=0.001)
        >>> found.tables["gemm"][0].name
        'int8 256x256x256'
    """
    for name in tables:
        if name not in TABLES:
            raise ArgumentError(f"must be among {', '.join(TABLES)}, got {name!r}", node="tables")
    if not 0 < seconds <= 3600:
        raise ArgumentError(f"must lie between 0 and 3600, got {seconds!r}", node="seconds")
    found: dict[str, list[Bar]] = {}
    curve: dict[str, list[tuple[float, float]]] = {}
    notes: list[str] = []
    with activity() as say, pinned() as fixed:
        if not fixed:
            notes.append("This system lets no process choose its cores: times are not pinned.")
        say("measuring what a core can do")
        bounds = kernels.calibrate(seconds=min(max(10 * seconds, 0.05), 1.0))
        for name, title in TABLES.items():
            if (tables and name not in tables) or name == "threads":
                continue
            say(title)
            if name == "sparse":
                curve = _curve(seconds, full, say)
                found[name] = sparse_bars(curve)
            else:
                found[name] = _MEASURES[name](bounds, seconds, full)
    if not tables or "threads" in tables:
        with activity() as say:
            say(TABLES["threads"])
            _measure_threads(seconds, full, found, notes)
    return Benchmark(machine(), bounds, found, curve, tuple(notes))


def _gemm(bounds: Calibration, seconds: float, full: bool) -> list[Bar]:
    return dense.gemm_bars(bounds, seconds, shapes.GEMM_SIZES if full else shapes.GEMM_SIZES[::2])


def _conv(bounds: Calibration, seconds: float, full: bool) -> list[Bar]:
    return dense.conv_bars(bounds, seconds, _layers(full))


def _linear(bounds: Calibration, seconds: float, full: bool) -> list[Bar]:
    return dense.linear_bars(bounds, seconds)


def _quantize(bounds: Calibration, seconds: float, full: bool) -> list[Bar]:
    return quantize_bars(_QUANTIZED if full else _QUICK_QUANTIZED, seconds)


_MEASURES: dict[str, Callable[[Calibration, float, bool], list[Bar]]] = {
    "gemm": _gemm,
    "conv": _conv,
    "linear": _linear,
    "quantize": _quantize,
}


def _layers(full: bool) -> list[shapes.Conv]:
    every = shapes.RESNET50 + shapes.MOBILENET_V1
    return every if full else every[1::7]


def _curve(seconds: float, full: bool, say: Callable[[str], None]) -> dict[str, list[tuple[float, float]]]:
    shares = _SHARES if full else _QUICK_SHARES
    found = {}
    for name, format_name in FORMATS.items():
        say(f"{TABLES['sparse']}: {name}")
        found[name] = list(zip(shares, speedups(_SPARSE_SHAPE, format_name, shares, 3 * seconds), strict=True))
    return found


def _measure_threads(seconds: float, full: bool, found: dict[str, list[Bar]], notes: list[str]) -> None:
    if kernels.cpu_info().usable_cores < 2:
        notes.append("One core is usable here, so two threads are not measured.")
    else:
        found["threads"] = dense.thread_bars(seconds, shapes.RESNET50[:: 2 if full else 6])


def bounds_line(bounds: Calibration) -> str:
    """The bounds in one line."""
    reads = ", ".join(f"{read.memory} {read.gigabytes.best:.0f}" for read in bounds.reads)
    return (
        f"One core now: int8 {bounds.int8_peak:.0f} GMAC/s, float32 {bounds.f32_fmas.best:.0f} GMAC/s, "
        f"reads in GB/s: {reads}"
    )


@contextmanager
def pinned() -> Iterator[bool]:
    """Keep the calling thread on the last core that it may use; gives False where that is not possible."""
    if not hasattr(os, "sched_setaffinity"):
        yield False
        return
    cores = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {max(cores)})
    except OSError:
        yield False
        return
    try:
        yield True
    finally:
        os.sched_setaffinity(0, cores)
