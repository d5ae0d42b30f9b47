"""Sparse weights beside dense ones: convolutions, linear layers, products; one thread.

Run with ``pytest bench/bench_sparse.py``; ``python bench/sparse_table.py`` prints all shapes and the bars.
"""

from __future__ import annotations

from typing import Any

import pytest

from sparse_table import Product, linear_calls


@pytest.mark.parametrize("sparsity", [0.7, 0.9])
@pytest.mark.parametrize("format_name", ["dense", "quads", "blocks"])
def test_int8_convolution(benchmark: Any, format_name: str, sparsity: float) -> None:  # noqa: ANN401
    benchmark.group = f"int8 256x1152, 784 pixels, {sparsity:.0%} zeros"
    benchmark(Product((256, 1152, 784), f32=False).call(format_name, sparsity))


@pytest.mark.parametrize("sparsity", [0.7, 0.9])
@pytest.mark.parametrize("format_name", ["dense", "singles"])
def test_f32_convolution(benchmark: Any, format_name: str, sparsity: float) -> None:  # noqa: ANN401
    benchmark.group = f"float32 256x1152, 784 pixels, {sparsity:.0%} zeros"
    benchmark(Product((256, 1152, 784), f32=True).call(format_name, sparsity))


@pytest.mark.parametrize("name", ["dense", "70%", "90%"])
@pytest.mark.parametrize("rows", [1, 16, 64])
def test_linear(benchmark: Any, rows: int, name: str) -> None:  # noqa: ANN401
    benchmark.group = f"int8 linear 2048x2048, batch {rows}"
    benchmark(linear_calls(rows, (0.7, 0.9))[name])
