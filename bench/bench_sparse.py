"""Dense, sparse and int8 weights side by side: convolutions and linear layers; one thread.

Run with ``pytest bench/bench_sparse.py``; ``python bench/sparse_table.py`` prints all shapes and the bars.
"""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from gristmill.benchmark.sparse import FORMATS, Product, linear_calls

FORMS = {"float32, dense": ("dense", True), "int8, dense": ("dense", False)} | {
    name: (format_name, name.startswith("float32")) for name, format_name in FORMATS.items()
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("sparsity", [0.7, 0.9])
def test_convolution(benchmark: BenchmarkFixture, sparsity: float, form: str) -> None:
    benchmark.group = f"256x1152, 784 pixels, {sparsity:.0%} zeros"
    format_name, f32 = FORMS[form]
    benchmark(Product((256, 1152, 784), f32=f32).call(format_name, sparsity))


@pytest.mark.parametrize("name", ["dense", "70%", "90%"])
@pytest.mark.parametrize("rows", [1, 16, 64])
def test_linear(benchmark: BenchmarkFixture, rows: int, name: str) -> None:
    benchmark.group = f"int8 linear 2048x2048, batch {rows}"
    benchmark(linear_calls(rows, (0.7, 0.9))[name])
