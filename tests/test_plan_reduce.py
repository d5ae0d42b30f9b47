"""Reductions, softmax, order, normalizations and products against numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gristmill as gm
from gristmill._core import Plan, Tensor
from plans import Array, random_array, run_step

_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "sum": np.sum,
    "mean": np.mean,
    "max": np.max,
    "min": np.min,
    "prod": np.prod,
}
_SHAPES: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((7,), (0,)), ((), ()), ((2, 3, 4, 5), (2, 3)), ((2, 3, 4, 5), (1,)), ((2, 3, 4, 5), (-1,)),
    ((2, 3, 4, 5), (0, 2)), ((2, 3, 4, 5), (0, 1, 2, 3)), ((2, 3, 4, 5), ()), ((5, 1, 4), (1,)),
    ((2, 37, 49), (2,)), ((3, 200, 33), (1,)), ((0, 3), (1,)), ((300, 400), (0,)), ((1, 64, 7, 7), (2, 3)),
]  # fmt: skip


def reduced(function: str, x: Array, axes: tuple[int, ...], keep: bool, threads: int = 1) -> Array:
    over = axes if axes else tuple(range(x.ndim))
    shape = np.sum(np.zeros(x.shape), axis=over, keepdims=keep).shape

    def add(plan: Plan, source: Tensor, out: Tensor) -> None:
        plan.reduce("r", function, source, out, axes)

    return run_step(add, [x], [(str(x.dtype), shape)], threads)[0]


@pytest.mark.parametrize("function", _REDUCTIONS)
@pytest.mark.parametrize(("shape", "axes"), _SHAPES)
def test_reductions_of_reals(function: str, shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    x = random_array(np.random.default_rng(1), "float32", shape)
    if function == "prod":
        x = np.asarray(1 + x / 100, np.float32)
    over = axes if axes else tuple(range(x.ndim))
    expected = _REDUCTIONS[function](x.astype(np.float64), axis=over)
    for keep in (False, True):
        for threads in (1, 2):
            y = reduced(function, x, axes, keep, threads)
            np.testing.assert_allclose(y.reshape(np.shape(expected)), expected, rtol=2e-5, atol=1e-3)


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "int8"])
@pytest.mark.parametrize("function", ["sum", "max", "min", "prod"])
def test_reductions_of_integers(function: str, dtype: str) -> None:
    x = random_array(np.random.default_rng(2), dtype, (3, 50, 40))
    if dtype in ("uint8", "int8") and function in ("sum", "prod"):
        with pytest.raises(gm.DTypeError, match=f"{function} takes float32 or int32 or int64"):
            reduced(function, x, (1,), False)
        return
    for axes in [(0,), (1,), (2,), (1, 2)]:
        expected = (
            _REDUCTIONS[function](x, axis=axes, dtype=dtype)
            if function in ("sum", "prod")
            else _REDUCTIONS[function](x, axis=axes)
        )
        np.testing.assert_array_equal(reduced(function, x, axes, False), expected)


def test_nothing_reduces_to_what_changes_nothing() -> None:
    x = np.zeros((3, 0), np.float32)
    for function, value in {"sum": 0, "prod": 1, "max": -np.inf, "min": np.inf, "mean": np.nan}.items():
        np.testing.assert_array_equal(reduced(function, x, (1,), False), np.full(3, value, np.float32))


def test_nan_makes_nan() -> None:
    for size in (5, 40, 1000):
        for at in (0, size // 2, size - 1):
            x = np.ones((2, size), np.float32)
            x[0, at] = np.nan
            for function in _REDUCTIONS:
                for axes in ((1,), (0,)):
                    y = reduced(function, x, axes, False)
                    np.testing.assert_array_equal(np.isnan(y), np.isnan(x.sum(axis=axes)))


def test_long_sums_keep_their_precision() -> None:
    x = np.full((1, 1 << 20), 0.1, np.float32)
    np.testing.assert_allclose(reduced("sum", x, (1,), False), [0.1 * (1 << 20)], rtol=3e-5)


@pytest.mark.parametrize("axes", [(2,), (-3,), (0, 0), (0, -2)])
def test_bad_axes_are_refused(axes: tuple[int, ...]) -> None:
    plan = Plan(64, [], [])
    with pytest.raises(gm.GristmillError, match="r: axes"):
        plan.reduce("r", "sum", Tensor.arena(0, "float32", (2, 3)), Tensor.arena(32, "float32", (3,)), axes)


def test_bad_reductions_are_refused() -> None:
    x, out = Tensor.arena(0, "float32", (2, 3)), Tensor.arena(32, "float32", (2,))
    with pytest.raises(gm.ShapeError, match=r"out: expected shape \(1, 3\) or \(3,\), got \(2,\)"):
        Plan(64, [], []).reduce("r", "sum", x, out, [0])
    with pytest.raises(gm.ArgumentError, match="unknown name 'median'; choose one of: sum, mean, max, min, prod"):
        Plan(64, [], []).reduce("r", "median", x, out, [1])


def softmax(x: Array, axis: int) -> Array:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return np.asarray(e / e.sum(axis=axis, keepdims=True))


@pytest.mark.parametrize("logarithm", [False, True])
@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((7,), 0),
        ((2, 1000), -1),
        ((2, 5, 130), 1),
        ((3, 4, 5), 0),
        ((2, 1), 1),
        ((0, 3), 1),
        ((3, 0), 0),
        ((40, 33), 1),
    ],
)
def test_softmax(shape: tuple[int, ...], axis: int, logarithm: bool) -> None:
    x = random_array(np.random.default_rng(3), "float32", shape) * 10
    expected = softmax(x.astype(np.float64), axis) if x.size else x
    expected = np.log(expected) if logarithm else expected

    def add(plan: Plan, source: Tensor, out: Tensor) -> None:
        plan.softmax("s", source, out, axis, logarithm)

    for threads in (1, 2):
        (y,) = run_step(add, [x], [("float32", shape)], threads)
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


def test_softmax_of_extremes() -> None:
    x = np.array([[3e38, -3e38, 0], [-np.inf, 0, 0], [np.nan, 0, 0]], np.float32)
    (y,) = run_step(lambda plan, x, out: plan.softmax("s", x, out), [x], [("float32", (3, 3))])
    np.testing.assert_array_equal(y, np.array([[1, 0, 0], [0, 0.5, 0.5], [np.nan] * 3], np.float32))


@pytest.mark.parametrize("dtype", ["float32", "int32", "int64", "uint8", "int8"])
@pytest.mark.parametrize("greatest", [True, False])
@pytest.mark.parametrize("last", [True, False])
def test_argmax(dtype: str, greatest: bool, last: bool) -> None:
    x = np.asarray(np.random.default_rng(4).integers(0, 6, (3, 40, 5)), dtype)
    pick = np.argmax if greatest else np.argmin
    for axis in (0, 1, -1):
        for keep in (False, True):
            expected = x.shape[axis] - 1 - pick(np.flip(x, axis), axis) if last else pick(x, axis)
            expected = np.expand_dims(expected, axis) if keep else expected

            def add(plan: Plan, source: Tensor, out: Tensor, axis: int = axis) -> None:
                plan.argmax("a", source, out, axis, greatest, last)

            (y,) = run_step(add, [x], [("int64", expected.shape)], threads=2)
            np.testing.assert_array_equal(y, expected)


def test_argmax_finds_the_first_nan() -> None:
    x = np.array([1, np.nan, 5, np.nan], np.float32)
    for greatest in (True, False):
        for last in (True, False):
            (y,) = run_step(
                lambda plan, x, out, how=(greatest, last): plan.argmax("a", x, out, 0, *how), [x], [("int64", ())]
            )
            assert y == 1


def test_argmax_of_nothing_is_refused() -> None:
    with pytest.raises(gm.ShapeError, match="no element along the axis"):
        Plan(64, [], []).argmax("a", Tensor.arena(0, "float32", (2, 0)), Tensor.arena(0, "int64", (2,)), 1)


def top_k(x: Array, k: int, axis: int, greatest: bool) -> tuple[Array, Array]:
    keys = np.where(np.isnan(x), np.inf, x) if x.dtype == np.float32 else x
    order = np.argsort(-keys.astype(np.float64) if greatest else keys, axis=axis, kind="stable")
    indices = np.take(order, range(k), axis)
    return np.take_along_axis(x, indices, axis), indices


@pytest.mark.parametrize("dtype", ["float32", "int32", "int64"])
@pytest.mark.parametrize("greatest", [True, False])
@pytest.mark.parametrize("shape", [(3, 40, 5), (2, 600, 1)])
def test_topk(dtype: str, greatest: bool, shape: tuple[int, ...]) -> None:
    x = np.asarray(np.random.default_rng(5).integers(-9, 9, shape), dtype)
    x[0, -1, 0] = 9 if greatest else -10
    if dtype == "float32":
        x[1, 7, 0] = np.nan
    for axis, extent in enumerate(shape):
        for k in {0, 1, min(2, extent), extent - 1, extent}:
            values, indices = top_k(x, k, axis, greatest)

            def add(plan: Plan, source: Tensor, out: Tensor, indices: Tensor, axis: int = axis) -> None:
                plan.topk("t", source, out, indices, axis, greatest)

            outputs = [(dtype, values.shape), ("int64", values.shape)]
            for threads in (1, 2):
                y, at = run_step(add, [x], outputs, threads)
                np.testing.assert_array_equal(y, values)
                np.testing.assert_array_equal(at, indices)


def test_topk_of_more_than_there_are_is_refused() -> None:
    x, v, i = (Tensor.arena(o, d, (s,)) for o, d, s in ((0, "float32", 3), (16, "float32", 4), (32, "int64", 4)))
    with pytest.raises(gm.ShapeError, match="asks for 4 of 3"):
        Plan(64, [], []).topk("t", x, v, i)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 20])
@pytest.mark.parametrize("beta", [0.75, 0.5])
def test_lrn(size: int, beta: float) -> None:
    x = random_array(np.random.default_rng(6), "float32", (2, 9, 5, 7))
    wide = x.astype(np.float64)
    before, after = (size - 1) // 2, size // 2
    squares = np.stack([(wide[:, max(0, c - before) : c + after + 1] ** 2).sum(axis=1) for c in range(9)], axis=1)
    expected = wide / (1.5 + 0.1 / size * squares) ** beta

    def add(plan: Plan, source: Tensor, out: Tensor) -> None:
        plan.lrn("lrn", source, out, size, 0.1, beta, 1.5)

    for threads in (1, 2):
        np.testing.assert_allclose(run_step(add, [x], [("float32", x.shape)], threads)[0], expected, rtol=1e-5)


def test_instance_norm() -> None:
    rng = np.random.default_rng(7)
    for shape in [(2, 3, 40, 50), (1, 4, 1), (2, 2, 3, 4, 5), (2, 3, 0)]:
        x = random_array(rng, "float32", shape) + 100
        scale, bias = random_array(rng, "float32", shape[1:2]), random_array(rng, "float32", shape[1:2])
        wide, axes = x.astype(np.float64), tuple(range(2, len(shape)))
        with np.errstate(all="ignore"):
            mean, var = (f(wide, axis=axes, keepdims=True) if x.size else 0 for f in (np.mean, np.var))
        per_channel = (-1, *[1] * (len(shape) - 2))
        expected = (wide - mean) / np.sqrt(var + 1e-5) * scale.reshape(per_channel) + bias.reshape(per_channel)

        def add(plan: Plan, source: Tensor, factor: Tensor, shift: Tensor, out: Tensor) -> None:
            plan.instance_norm("n", source, factor, shift, out, 1e-5)

        for threads in (1, 2):
            (y,) = run_step(add, [x, scale, bias], [("float32", shape)], threads)
            np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


_PRODUCTS: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((3, 4), (4, 5)), ((1, 1), (1, 1)), ((2, 3, 4), (2, 4, 5)), ((2, 3, 4), (4, 5)), ((3, 4), (2, 4, 5)),
    ((2, 1, 3, 4), (1, 6, 4, 5)), ((7, 300), (300, 600)), ((5, 0), (0, 3)), ((0, 4), (4, 3)), ((2, 3, 4), (2, 4, 0)),
    ((5, 33, 17), (5, 17, 40)), ((70, 300), (300, 600)), ((2, 1, 9, 20), (1, 3, 20, 33)), ((4, 515), (515, 16)),
    ((3, 4, 4), (3, 4, 257)), ((0, 4, 4), (0, 4, 16)), ((5, 1, 23, 8), (8, 300)),
]  # fmt: skip


@pytest.mark.parametrize(("left", "right"), _PRODUCTS)
@pytest.mark.parametrize(
    "types", [("float32", "float32"), ("uint8", "int8"), ("uint8", "uint8"), ("int8", "int8"), ("int8", "uint8")]
)
def test_matmul(left: tuple[int, ...], right: tuple[int, ...], types: tuple[str, str]) -> None:
    rng = np.random.default_rng(8)
    a, b = random_array(rng, types[0], left), random_array(rng, types[1], right)
    real = types[0] == "float32"
    zero = {"float32": 0, "uint8": 200, "int8": -77}
    za, zb = zero[types[0]], zero[types[1]]
    expected = (a.astype(np.float64) - za) @ (b.astype(np.float64) - zb)
    bound = np.abs(a.astype(np.float64)) @ np.abs(b.astype(np.float64)) * left[-1] * 2**-23

    def add(plan: Plan, left: Tensor, right: Tensor, out: Tensor) -> None:
        plan.matmul("m", left, right, out, za, zb)

    for threads in (None, 1, 3):
        (y,) = run_step(add, [a, b], [("float32" if real else "int32", expected.shape)], threads)
        assert (np.abs(y - expected) <= (bound if real else 0)).all()


def test_bad_products_are_refused() -> None:
    def arena(dtype: str, *shape: int) -> Tensor:
        return Tensor.arena({"float32": 0, "uint8": 0, "int32": 1 << 20}[dtype], dtype, shape)

    plan = Plan(1 << 22, [], [])
    out = Tensor.arena(1 << 21, "float32", (3, 5))
    with pytest.raises(gm.ShapeError, match="b: expected 4 rows"):
        plan.matmul("m", arena("float32", 3, 4), arena("float32", 3, 5), out)
    with pytest.raises(gm.ShapeError, match="out: expected matrices"):
        plan.matmul("m", arena("float32", 4, 4), arena("float32", 4, 5), out)
    with pytest.raises(gm.ShapeError, match="rank 2"):
        plan.matmul("m", arena("float32", 4), arena("float32", 4, 5), out)
    with pytest.raises(gm.ShapeError, match=r"a: .* cannot be broadcast"):
        plan.matmul("m", arena("float32", 2, 3, 4), arena("float32", 4, 5), out)
    with pytest.raises(gm.DTypeError, match="b: expected float32"):
        plan.matmul("m", arena("float32", 3, 4), arena("int32", 4, 5), out)
    with pytest.raises(gm.LimitError, match="could overflow int32"):
        plan.matmul("m", arena("uint8", 1, 33026), arena("uint8", 33026, 1), arena("int32", 1, 1))
    with pytest.raises(gm.ArgumentError, match="zero_point"):
        plan.matmul("m", arena("float32", 3, 4), arena("float32", 4, 5), out, a_zero_point=1)
