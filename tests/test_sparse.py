"""Sparse matrices and layers with sparse weights: equal to dense ones, bit for bit in int8; and what is refused."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gristmill as gm
import oracles_dense as oracle
from gristmill import kernels
from test_conv import random_activations, random_attributes, random_f32, random_weights

Array = oracle.Array

_S8_FORMATS = ["quads", "blocks"]


def pruned(rng: np.random.Generator, weights: Array, keep: float) -> Array:
    """The weights with about that share of them kept; some rows empty, some full."""
    mask = rng.random(weights.shape) < keep
    rows = rng.random(len(weights))
    mask[rows < 0.1] = False
    mask[rows > 0.95] = True
    return np.asarray(np.where(mask, weights, 0).astype(weights.dtype))


@given(seed=st.integers(0, 2**32 - 1), keep=st.sampled_from([0.0, 0.02, 0.1, 0.3, 0.6, 1.0]), threads=st.integers(1, 4))
def test_convolutions_equal_dense_ones(isa: str, seed: int, keep: float, threads: int) -> None:
    rng = np.random.default_rng(seed)
    case = random_attributes(rng)
    x, zero_point = random_activations(rng, case["x"])
    weights = pruned(rng, random_weights(rng, case["weights"]), keep)
    expected = oracle.convolve(x, weights, zero_point=zero_point, **case["attributes"])
    for name in _S8_FORMATS:
        packed = kernels.PackedConv(weights, format=name, **case["attributes"])
        y = kernels.conv2d(x, packed, x_zero_point=zero_point, threads=threads)
        np.testing.assert_array_equal(y, expected, err_msg=repr(packed))


@pytest.mark.parametrize("columns", [1, 7, 8, 9, 23])
def test_every_byte_is_found_at_every_place(columns: int) -> None:
    dense = np.zeros((256 * columns, columns), np.int8)
    rows = np.arange(len(dense))
    dense[rows, rows % columns] = (rows // columns).astype(np.uint8).view(np.int8)
    dense[:, columns // 2] |= 1
    found = kernels.CsrMatrix.from_dense(dense)
    row, column = np.nonzero(dense)
    np.testing.assert_array_equal(found.indices, column)
    np.testing.assert_array_equal(found.data, dense[row, column])
    np.testing.assert_array_equal(np.diff(found.indptr), np.count_nonzero(dense, axis=1))


@pytest.mark.parametrize("keep", [0.03, 0.3, 1.0])
@pytest.mark.parametrize(
    ("channels", "outputs", "size", "kernel", "stride", "padding", "groups"),
    [
        (300, 40, 9, 3, 1, 1, 1),  # K of many K blocks
        (1200, 20, 7, 1, 1, 0, 1),
        (48, 90, 14, 3, 2, 1, 3),
        (3, 64, 30, 7, 2, 3, 1),
        (24, 24, 11, 3, 1, 1, 24),
        (300, 1100, 7, 1, 1, 0, 1),  # rows of several bands
    ],
)
def test_layers_of_real_networks_equal_dense_ones(
    isa: str, channels: int, outputs: int, size: int, kernel: int, stride: int, padding: int, groups: int, keep: float
) -> None:
    rng = np.random.default_rng(1)
    x = rng.choice([0, 255, 77], (2, channels, size, size)).astype(np.uint8)
    weights = pruned(
        rng, rng.choice([-127, 127, 3], (outputs, channels // groups, kernel, kernel)).astype(np.int8), keep
    )
    residual = rng.integers(0, 256, (2, outputs, *kernels.PackedConv(
        weights, stride=stride, padding=padding, groups=groups).output_size(size, size))).astype(np.uint8)  # fmt: skip
    epilogue = kernels.Epilogue(
        output="uint8",
        bias=rng.integers(-1000, 1000, outputs).astype(np.int32),
        scale=rng.uniform(1e-5, 1e-3, outputs).astype(np.float32),
        zero_point=31,
        output_scale=0.1,
        activation=kernels.Activation("hardswish"),
        residual=kernels.Residual("uint8", scale=0.2, zero_point=9, sum_scale=0.3, sum_zero_point=100),
    )
    results = []
    for name in ["dense", *_S8_FORMATS]:
        packed = kernels.PackedConv(weights, stride=stride, padding=padding, groups=groups, format=name)
        for threads in (1, 2, 5):
            y = kernels.conv2d(x, packed, x_zero_point=7, epilogue=epilogue, residual=residual, threads=threads)
            results.append(y)
    for y in results[1:]:
        np.testing.assert_array_equal(y, results[0])


@pytest.mark.parametrize(("outputs", "channels", "kernel", "stride", "groups"), [(33, 300, 3, 1, 1), (8, 12, 1, 2, 4)])
@pytest.mark.parametrize("activation", [kernels.Activation("relu"), kernels.Activation("hardswish")], ids=repr)
def test_float_layers_add_residuals_as_a_separate_step(
    isa: str, outputs: int, channels: int, kernel: int, stride: int, groups: int, activation: kernels.Activation
) -> None:
    rng = np.random.default_rng(6)
    x = rng.standard_normal((2, channels, 9, 11)).astype(np.float32)
    weights = pruned(rng, rng.standard_normal((outputs, channels // groups, kernel, kernel)).astype(np.float32), 0.1)
    packed = kernels.PackedConv(weights, stride=stride, padding=kernel // 2, groups=groups, format="singles")
    plain = kernels.Epilogue(output="float32", activation=activation)
    added = kernels.Epilogue(
        output="float32",
        activation=activation,
        residual=kernels.Residual("float32", activation=kernels.Activation("clip", low=-1, high=2)),
    )
    for threads in (1, 3):
        first = kernels.conv2d(x, packed, epilogue=plain, threads=threads)
        residual = rng.standard_normal(first.shape).astype(np.float32)
        y = kernels.conv2d(x, packed, epilogue=added, residual=residual, threads=threads)
        np.testing.assert_array_equal(y, np.clip(first + residual, -1, 2))


@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(0, 150),
    k=st.integers(1, 700),
    outputs=st.integers(1, 150),
    keep=st.sampled_from([0.0, 0.02, 0.1, 0.3, 0.6, 1.0]),
    output=st.sampled_from(["uint8", "int8", "int32", "float32"]),
)
def test_linear_layers_equal_dense_ones(
    isa: str, seed: int, rows: int, k: int, outputs: int, keep: float, output: str
) -> None:
    rng = np.random.default_rng(seed)
    x, zero_point = random_activations(rng, (rows, k))
    weights = pruned(rng, random_weights(rng, (outputs, k)), keep)
    epilogue = kernels.Epilogue(
        output=output,  # type: ignore[arg-type]
        bias=rng.integers(-1000, 1000, outputs).astype(np.int32),
        scale=None if output == "int32" else rng.uniform(1e-5, 1e-3, outputs).astype(np.float32),
        zero_point=5 if output in oracle.RANGES else 0,
    )
    expected = kernels.linear(x, kernels.PackedLinear(weights), x_zero_point=zero_point, epilogue=epilogue)
    for name in _S8_FORMATS:
        packed = kernels.PackedLinear(weights, format=name)
        threads = int(rng.integers(1, 5))
        y = kernels.linear(x, packed, x_zero_point=zero_point, epilogue=epilogue, threads=threads)
        np.testing.assert_array_equal(y, expected, err_msg=repr(packed))


def test_linear_layers_equal_dense_ones_at_every_batch(isa: str) -> None:
    rng = np.random.default_rng(2)
    x = rng.integers(0, 256, (131, 530)).astype(np.uint8)
    weights = pruned(rng, random_weights(rng, (70, 530)), 0.2)
    expected = x.astype(np.int64) @ weights.astype(np.int64).T
    for name in _S8_FORMATS:
        packed = kernels.PackedLinear(weights, format=name)
        for rows in range(1, 132, 1 if isa != "scalar" else 13):
            np.testing.assert_array_equal(kernels.linear(x[:rows], packed), expected[:rows], err_msg=str(rows))


def test_many_weights_equal_dense_ones_for_one_row_and_two(isa: str) -> None:
    rng = np.random.default_rng(29)
    x = rng.integers(0, 256, (2, 4000)).astype(np.uint8)
    weights = pruned(rng, random_weights(rng, (1500, 4000)), 0.1)
    packed = kernels.PackedLinear(weights, format="quads")
    expected = x.astype(np.int64) @ weights.astype(np.int64).T
    for rows in (1, 2):
        np.testing.assert_array_equal(kernels.linear(x[:rows], packed), expected[:rows], err_msg=str(rows))


def test_linear_passes_equal_dense_ones(isa: str) -> None:
    rng = np.random.default_rng(3)
    weights = pruned(rng, random_weights(rng, (50, 90)), 0.3)
    epilogue = kernels.Epilogue(
        output="int8",
        scale=1e-3,
        output_scale=0.1,
        activation=kernels.Activation("silu"),
        residual=kernels.Residual("int8", scale=0.2, sum_scale=0.3),
    )
    for rows in (1, 3, 40, 70):
        x, residual = (rng.integers(-128, 128, (rows, n)).astype(np.int8) for n in (90, 50))
        dense = kernels.linear(x, kernels.PackedLinear(weights), epilogue=epilogue, residual=residual)
        for threads in (1, 3):
            sparse = kernels.linear(
                x, kernels.PackedLinear(weights, format="quads"), epilogue=epilogue, residual=residual, threads=threads
            )
            np.testing.assert_array_equal(sparse, dense)


@given(seed=st.integers(0, 2**32 - 1), keep=st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_f32_convolutions_are_within_the_bound_of_float64(isa: str, seed: int, keep: float) -> None:
    rng = np.random.default_rng(seed)
    case = random_attributes(rng)
    x, weights = random_f32(rng, case["x"]), pruned(rng, random_f32(rng, case["weights"]), keep)
    packed = kernels.PackedConv(weights, format="singles", **case["attributes"])
    y = kernels.conv2d(x, packed, threads=1)
    expected = oracle.convolve(x, weights, **case["attributes"])
    magnitudes = oracle.convolve(np.abs(x), np.abs(weights), **case["attributes"])
    assert np.all(np.abs(y - expected) <= oracle.f32_bound(magnitudes, int(np.prod(case["weights"][1:])) + 1)), case
    np.testing.assert_array_equal(kernels.conv2d(x, packed, threads=3), y)


@pytest.mark.parametrize("rows", [1, 2, 7, 33, 64, 100])
def test_f32_linear_layers_are_within_the_bound_of_float64(isa: str, rows: int) -> None:
    rng = np.random.default_rng(rows)
    x, weights = random_f32(rng, (rows, 333)), pruned(rng, random_f32(rng, (77, 333)), 0.2)
    packed = kernels.PackedLinear(weights, format="singles")
    y = kernels.linear(x, packed, threads=1)
    expected = x.astype(np.float64) @ weights.astype(np.float64).T
    magnitudes = np.abs(x).astype(np.float64) @ np.abs(weights).astype(np.float64).T
    assert np.all(np.abs(y - expected) <= oracle.f32_bound(magnitudes, 334))
    np.testing.assert_array_equal(kernels.linear(x, packed, threads=3), y)


def test_products_of_matrices(isa: str) -> None:
    rng = np.random.default_rng(4)
    dense = pruned(rng, random_weights(rng, (30, 200)), 0.2)
    a = kernels.CsrMatrix.from_dense(dense)
    x = rng.integers(0, 256, (200, 90)).astype(np.uint8)
    expected = dense.astype(np.int64) @ (x.astype(np.int64) - 3)
    for name in _S8_FORMATS:
        np.testing.assert_array_equal(kernels.spmm(a, x, x_zero_point=3, format=name), expected)  # type: ignore[arg-type]
        np.testing.assert_array_equal(
            kernels.spmm(a, x[:, 5].copy(), x_zero_point=3, format=name),  # type: ignore[arg-type]
            expected[:, 5],
        )
    np.testing.assert_array_equal(a @ x, dense.astype(np.int64) @ x.astype(np.int64))
    out, column = np.empty((30, 90), np.int32), np.empty(30, np.int32)
    assert kernels.spmm(a, x, x_zero_point=3, out=out) is out
    assert kernels.spmm(a, x[:, 0], x_zero_point=3, out=column) is column
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(column, expected[:, 0])
    epilogue = kernels.Epilogue(output="int8", scale=1e-3, zero_point=4)
    result = kernels.spmm(a, x, x_zero_point=3, epilogue=epilogue)
    np.testing.assert_array_equal(result, oracle.requantize(expected, None, np.float32(1e-3), 4, "int8", 0))


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0), (3, 4)])
@pytest.mark.parametrize("dtype", [np.int8, np.float32])
def test_matrices_without_entries(isa: str, shape: tuple[int, int], dtype: type) -> None:
    a = kernels.CsrMatrix.from_dense(np.zeros(shape, dtype))
    assert (a.nnz, a.density, a.shape) == (0, 0.0, shape)
    x = np.ones((shape[1], 6), np.uint8 if dtype == np.int8 else np.float32)
    np.testing.assert_array_equal(a @ x, np.zeros((shape[0], 6)))
    np.testing.assert_array_equal(a @ x[:, 0], np.zeros(shape[0]))
    np.testing.assert_array_equal(a.to_dense(), np.zeros(shape))


def test_matrices_survive_all_conversions() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    rng = np.random.default_rng(5)
    for dtype in (np.int8, np.float32):
        dense = pruned(rng, rng.integers(-100, 100, (13, 40)).astype(dtype), 0.3)
        a = kernels.CsrMatrix.from_dense(dense)
        for other in (
            kernels.CsrMatrix(a.indptr, a.indices, a.data, a.shape),
            kernels.CsrMatrix(a.indptr.astype(np.int32), a.indices.astype(np.int64), a.data, a.shape),
            kernels.CsrMatrix.from_scipy(a.to_scipy()),
            kernels.CsrMatrix.from_scipy(sparse.coo_array(dense)),
            kernels.CsrMatrix.from_scipy(sparse.csc_matrix(dense)),
            copy.deepcopy(a),
            pickle.loads(pickle.dumps(a)),
        ):
            np.testing.assert_array_equal(other.to_dense(), dense)
            assert other.dtype == dense.dtype
            assert other.nnz == np.count_nonzero(dense)
        np.testing.assert_array_equal(a.to_scipy().toarray(), dense)
    twice = sparse.coo_array((np.array([2, 3], np.int8), ([0, 0], [1, 1])), shape=(1, 2))
    np.testing.assert_array_equal(kernels.CsrMatrix.from_scipy(twice).to_dense(), [[0, 5]])
    unsorted = sparse.csr_array((np.array([1, 2], np.int8), np.array([1, 0]), np.array([0, 2])), shape=(1, 2))
    np.testing.assert_array_equal(kernels.CsrMatrix.from_scipy(unsorted).to_dense(), [[2, 1]])


def test_explicit_zeros_and_nan() -> None:
    a = kernels.CsrMatrix(np.array([0, 2]), np.array([0, 1]), np.array([0, np.nan], np.float32), (1, 3))
    assert a.nnz == 2
    y = a @ np.array([[np.inf], [1.0], [np.inf]], np.float32)
    assert np.isnan(y).all()
    zero = kernels.CsrMatrix(np.array([0, 1]), np.array([0]), np.array([0], np.float32), (1, 1))
    assert (zero @ np.array([[np.inf]], np.float32)).item() == 0
    assert np.isnan(kernels.CsrMatrix.from_dense(np.array([[np.nan]], np.float32)).data).all()


_ONE = np.array([1], np.int8)


@pytest.mark.parametrize(
    ("error", "where", "indptr", "indices", "data", "shape"),
    [
        (gm.ShapeError, "indptr", [0], [], [], (1, 2)),
        (gm.ShapeError, "indptr", [], [], [], (0, 2)),
        (gm.ShapeError, "indptr", [0, 0, 0], [], [], (1, 2)),
        (gm.ArgumentError, "indptr", [1, 1], [0], [1], (1, 2)),
        (gm.ArgumentError, "indptr", [0, 2, 1], [0], [1], (2, 2)),
        (gm.ArgumentError, "indptr", [0, -1, 1], [0], [1], (2, 2)),
        (gm.ArgumentError, "indptr", [0, 1], [0, 1], [1, 2], (1, 2)),
        (gm.ArgumentError, "indptr", [0, 2**62], [0], [1], (1, 2)),
        (gm.ShapeError, "data", [0, 2], [0, 1], [1], (1, 2)),
        (gm.ArgumentError, "indices", [0, 1], [2], [1], (1, 2)),
        (gm.ArgumentError, "indices", [0, 1], [-1], [1], (1, 2)),
        (gm.ArgumentError, "indices", [0, 1], [2**32], [1], (1, 2)),
        (gm.ArgumentError, "indices", [0, 2], [1, 0], [1, 2], (1, 2)),
        (gm.ArgumentError, "indices", [0, 2], [1, 1], [1, 2], (1, 2)),
        (gm.ArgumentError, "indices", [0, 1], [0], [1], (1, 0)),
        (gm.ArgumentError, "shape", [0, 1], [0], [1], (1, -2)),
        (gm.ArgumentError, "shape", [0, 1], [0], [1], (1,)),
        (gm.LimitError, "shape", [0, 1], [0], [1], (1, 2**40)),
    ],
)
def test_invalid_matrices_are_refused(
    error: type[gm.GristmillError], where: str, indptr: list[int], indices: list[int], data: list[int], shape: object
) -> None:
    arrays = np.array(indptr, np.int64), np.array(indices, np.int64), np.array(data, np.int8)
    with pytest.raises(error) as caught:
        kernels.CsrMatrix(*arrays, shape)  # type: ignore[arg-type]
    assert caught.value.node == where


@pytest.mark.parametrize(
    ("error", "where", "make"),
    [
        (gm.DTypeError, "indptr", lambda: kernels.CsrMatrix(np.array([0.0, 1.0]), np.array([0]), _ONE, (1, 1))),
        (gm.DTypeError, "indices", lambda: kernels.CsrMatrix(np.array([0, 1]), [0], _ONE, (1, 1))),  # type: ignore[arg-type]
        (gm.ShapeError, "indices", lambda: kernels.CsrMatrix(np.array([0, 1]), np.array([[0]]), _ONE, (1, 1))),
        (gm.DTypeError, "data", lambda: kernels.CsrMatrix(np.array([0, 1]), np.array([0]), np.array([1]), (1, 1))),
        (gm.ShapeError, "array", lambda: kernels.CsrMatrix.from_dense(_ONE)),
        (gm.DTypeError, "array", lambda: kernels.CsrMatrix.from_dense(np.zeros((1, 1)))),
        (gm.DTypeError, "matrix", lambda: kernels.CsrMatrix.from_scipy(np.zeros((1, 1)))),
        (gm.ArgumentError, "format", lambda: kernels.PackedLinear(np.zeros((1, 1), np.int8), format="singles")),
        (gm.ArgumentError, "format", lambda: kernels.PackedLinear(np.zeros((1, 1), np.float32), format="quads")),
        (gm.ArgumentError, "format", lambda: kernels.PackedConv(np.zeros((1, 1, 1, 1), np.int8), format="csr")),
        (gm.ShapeError, "kernel", lambda: kernels.PackedConv(_matrix(10), kernel=3)),
        (gm.ShapeError, "kernel", lambda: kernels.PackedConv(_matrix(10), kernel=0)),
        (gm.ShapeError, "x", lambda: _matrix(10) @ np.zeros((9, 1), np.uint8)),
        (gm.ShapeError, "x", lambda: _matrix(10) @ np.zeros((10, 1, 1), np.uint8)),
        (gm.DTypeError, "x", lambda: _matrix(10) @ np.zeros((10, 1), np.float32)),
        (gm.ShapeError, "out", lambda: kernels.spmm(_matrix(10), np.zeros(10, np.uint8), out=np.zeros(2, np.int32))),
        (gm.LimitError, "weights", lambda: kernels.PackedLinear(np.full((1, 65_794), -128, np.int8), format="quads")),
    ],
)
def test_wrong_uses_are_refused(error: type[gm.GristmillError], where: str, make: Callable[[], object]) -> None:
    with pytest.raises(error) as caught:
        make()
    assert caught.value.node == where


def _matrix(columns: int) -> kernels.CsrMatrix:
    return kernels.CsrMatrix.from_dense(np.ones((1, columns), np.int8))


def test_accumulators_at_their_limit(isa: str) -> None:
    weights = np.full((1, 65_793), -128, np.int8)
    for name in _S8_FORMATS:
        packed = kernels.PackedLinear(weights, format=name)
        for rows in (1, 70):
            y = kernels.linear(np.full((rows, 65_793), 255, np.uint8), packed)
            assert (y == -255 * 128 * 65_793).all()


def test_blocks_are_channels_of_a_tap(isa: str) -> None:
    weights = np.zeros((8, 16, 3, 3), np.int8)
    weights[:, :8, 1, 2] = 3
    weights[5:7, 8:, 0, 0] = -60
    assert kernels.PackedConv(weights, padding=1, format="blocks").executed_macs == 4 * (8 * 2 + 2 * 2)
    weights[5, 12:16, 0, 0] = -128
    packed = kernels.PackedConv(weights, padding=1, format="blocks")
    x = np.random.default_rng(0).integers(0, 256, (2, 16, 5, 7), np.uint8)
    dense = kernels.PackedConv(weights, padding=1, format="dense")
    y, expected = (kernels.conv2d(x, each, x_zero_point=9) for each in (packed, dense))
    np.testing.assert_array_equal(y, expected)


def test_formats_say_what_they_execute(isa: str) -> None:
    weights = np.zeros((8, 64, 1, 1), np.int8)
    weights[:, 16:24] = 1
    weights[:2, 40:43] = weights[:2, 44:47] = 1
    dense, quads, blocks = (kernels.PackedConv(weights, format=name) for name in ("dense", *_S8_FORMATS))
    assert (dense.format, quads.format, blocks.format) == ("dense", "quads", "blocks")
    assert dense.executed_macs == 8 * 64
    assert quads.executed_macs == blocks.executed_macs == 8 * 8 + 2 * 8
    assert blocks.nbytes < quads.nbytes < dense.nbytes
    singles = kernels.PackedConv(weights.astype(np.float32), format="singles")
    assert (singles.executed_macs, singles.format) == (8 * 8 + 2 * 6, "singles")
    matrix = kernels.CsrMatrix.from_dense(weights)
    assert kernels.PackedConv(matrix).format == kernels.PackedLinear(matrix).format == "quads"
    assert kernels.PackedConv(matrix, format="dense").format == "dense"
    assert kernels.PackedConv(matrix, kernel=(4, 2)).output_size(4, 2) == (1, 1)
