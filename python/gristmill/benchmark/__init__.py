"""Measuring the kernels on this machine: layers of real models, sparse weights, quantization, beside bounds."""

from __future__ import annotations

from gristmill.benchmark.bars import Bar
from gristmill.benchmark.suites import TABLES, Benchmark, bench

__all__ = ["TABLES", "Bar", "Benchmark", "bench"]
