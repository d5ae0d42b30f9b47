"""Matrix products against plain numpy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import gristmill as gm
import oracles_dense as oracle
from gristmill import kernels


def product(a: oracle.Array, b: oracle.Array, zero_point: int = 0) -> oracle.Array:
    return np.asarray((a.astype(np.float64) - zero_point) @ b.astype(np.float64)).astype(np.int64)


def test_every_shape_up_to_17_is_exact(isa: str) -> None:
    rng = np.random.default_rng(21)
    a, b = rng.integers(0, 256, (17, 17)).astype(np.uint8), rng.integers(-127, 128, (17, 17)).astype(np.int8)
    for k, n in itertools.product(range(1, 18), range(1, 18)):
        packed = kernels.PackedGemm(b[:k, :n])
        for m in range(1, 18):
            np.testing.assert_array_equal(kernels.gemm(a[:m, :k], packed, threads=1), product(a[:m, :k], b[:k, :n]))


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("shape", [(64, 576, 64), (1, 2048, 100), (130, 300, 257), (3, 5000, 33)])
def test_extremes_are_exact(isa: str, dtype: str, shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(22)
    m, k, n = shape
    low, high = oracle.RANGES[dtype]
    for a_value, b_value in itertools.product([low, high], [-128, -127, 127]):
        a, b = np.full((m, k), a_value, dtype), np.full((k, n), b_value, np.int8)
        np.testing.assert_array_equal(kernels.gemm(a, kernels.PackedGemm(b), a_zero_point=low), product(a, b, low))
    a, b = rng.choice([low, high], (m, k)).astype(dtype), rng.choice([-127, 127], (k, n)).astype(np.int8)
    np.testing.assert_array_equal(kernels.gemm(a, kernels.PackedGemm(b), a_zero_point=high), product(a, b, high))


@pytest.mark.parametrize("scale_of_7", [2e-3, 1e6, -1e6], ids=["small", "beyond int32", "negative"])
@pytest.mark.parametrize("output", ["uint8", "int8", "float32"])
def test_outputs_are_requantized_as_defined(isa: str, output: str, scale_of_7: float) -> None:
    rng = np.random.default_rng(23)
    a, b = rng.integers(-128, 128, (45, 77)).astype(np.int8), rng.integers(-127, 128, (77, 51)).astype(np.int8)
    scale = rng.uniform(1e-3, 2e-3, 51).astype(np.float32)
    scale[7] = scale_of_7
    zero_point = {"uint8": 101, "int8": 5, "float32": 0}[output]
    epilogue = kernels.Epilogue(output=output, scale=scale, zero_point=zero_point)  # type: ignore[arg-type]
    y = kernels.gemm(a, kernels.PackedGemm(b), a_zero_point=-3, epilogue=epilogue)
    np.testing.assert_array_equal(y, oracle.requantize(product(a, b, -3), None, scale, zero_point, output, 1))


def test_f32_is_within_the_bound_of_float64(isa: str) -> None:
    rng = np.random.default_rng(24)
    a, b = rng.standard_normal((70, 130)).astype(np.float32), rng.standard_normal((130, 90)).astype(np.float32)
    y = kernels.gemm(a, kernels.PackedGemm(b))
    magnitudes = np.abs(a).astype(np.float64) @ np.abs(b).astype(np.float64)
    assert np.all(np.abs(y - a.astype(np.float64) @ b.astype(np.float64)) <= oracle.f32_bound(magnitudes, 130))


def test_equals_a_linear_layer_with_transposed_weights(isa: str) -> None:
    rng = np.random.default_rng(25)
    a, b = rng.integers(0, 256, (9, 40)).astype(np.uint8), rng.integers(-127, 128, (40, 30)).astype(np.int8)
    y = kernels.gemm(a, kernels.PackedGemm(b))
    np.testing.assert_array_equal(y, kernels.linear(a, kernels.PackedLinear(np.ascontiguousarray(b.T))))
    np.testing.assert_array_equal(y, kernels.gemm(a, kernels.PackedGemm(np.asfortranarray(b))))


def test_errors_name_the_operands() -> None:
    packed = kernels.PackedGemm(np.zeros((4, 3), np.int8))
    calls: list[tuple[oracle.Array, int, str]] = [
        (np.zeros((2, 3), np.uint8), 0, "a"),
        (np.zeros((2, 4), np.float32), 0, "a"),
        (np.zeros((2, 4), np.uint8), 256, "a_zero_point"),
    ]
    for a, zero_point, where in calls:
        with pytest.raises(gm.GristmillError) as caught:
            kernels.gemm(a, packed, a_zero_point=zero_point)
        assert caught.value.node == where
    for b in (np.zeros(4, np.int8), np.zeros((2, 2), np.uint8), np.full((70_000, 1), 127, np.int8)):
        with pytest.raises(gm.GristmillError) as caught:
            kernels.PackedGemm(b)
        assert caught.value.node == "b"
    assert repr(packed).startswith("<PackedGemm 4 -> 3, s8")
