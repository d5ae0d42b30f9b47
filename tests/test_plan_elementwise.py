"""Unary, binary and select steps against numpy: every function, type, broadcast and special value."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gristmill as gm
from gristmill._core import Plan, Tensor
from plans import Array, random_array, run_step

_SPECIAL = np.array(
    [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, -1e-40, 3e38, -3e38, 0.5, 1.5, -2.5, 100, -100], np.float32
)
_erf = np.vectorize(math.erf, otypes=[np.float64])


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x: np.where(x < 0, 0.3 * x, x),
    "elu": lambda x: np.where(x < 0, 0.3 * np.expm1(x), x),
    "selu": lambda x: 0.7 * np.where(x < 0, 0.3 * np.expm1(x), x),
    "celu": lambda x: np.maximum(x, 0) + np.minimum(0.3 * np.expm1(x / 0.3), 0),
    "clip": lambda x: np.clip(x, 0.3, 0.7),
    "thresholded_relu": lambda x: np.where(x <= np.float32(0.3), 0, x),
    "sigmoid": sigmoid,
    "hardsigmoid": lambda x: np.clip(0.3 * x + 0.7, 0, 1),
    "hardswish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "silu": lambda x: x * sigmoid(x),
    "swish": lambda x: x * sigmoid(0.3 * x),
    "mish": lambda x: x * np.tanh(np.logaddexp(0, x)),
    "tanh": np.tanh,
    "gelu": lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "softplus": lambda x: np.logaddexp(0, x),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "sqrt": np.sqrt,
    "reciprocal": lambda x: 1 / x,
    "exp": np.exp,
    "log": np.log,
    "erf": _erf,
    "sin": np.sin,
    "cos": np.cos,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.rint,
    "sign": np.sign,
    "neg": np.negative,
    "abs": np.abs,
}


def unary(function: str, x: Array, dtype: str | None = None, threads: int = 1) -> Array:
    def add(plan: Plan, source: Tensor, out: Tensor) -> None:
        plan.unary("f", function, source, out, alpha=0.3, beta=0.7)

    return run_step(add, [x], [(dtype or str(x.dtype), x.shape)], threads)[0]


@pytest.mark.parametrize("function", _FUNCTIONS)
def test_unary_functions_of_reals(isa: str, function: str) -> None:
    rng = np.random.default_rng(1)
    for shape in [(), (1,), (7,), (0, 3), (2, 3, 5), (129, 257)]:
        x = random_array(rng, "float32", shape)
        with np.errstate(all="ignore"):
            expected = _FUNCTIONS[function](x.astype(np.float64))
        for threads in (1, 2):
            np.testing.assert_allclose(unary(function, x, threads=threads), expected, rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize(
    "function", sorted(set(_FUNCTIONS) - {"silu", "swish", "mish", "hardswish", "gelu", "gelu_tanh", "sin", "cos"})
)
def test_unary_functions_of_special_values(isa: str, function: str) -> None:
    with np.errstate(all="ignore"):
        expected = np.asarray(_FUNCTIONS[function](_SPECIAL.astype(np.float64)), np.float32)
    if function == "softsign":
        expected[1:3] = np.nan  # inf / inf
    np.testing.assert_allclose(unary(function, _SPECIAL), expected, rtol=2e-6, atol=1e-37)


@pytest.mark.parametrize("function", _FUNCTIONS)
def test_nan_stays_nan(isa: str, function: str) -> None:
    assert np.isnan(unary(function, np.full(40, np.nan, np.float32))).all()


@pytest.mark.parametrize(
    ("function", "dtype"),
    [(f, t) for f in ("relu", "neg", "abs", "sign") for t in ("int8", "int32", "int64") if (f, t) != ("sign", "int8")],
)
def test_unary_functions_of_integers(function: str, dtype: str) -> None:
    x = random_array(np.random.default_rng(2), dtype, (333,))
    x[:2] = np.iinfo(dtype).min, np.iinfo(dtype).max
    np.testing.assert_array_equal(unary(function, x), _FUNCTIONS[function](x))


def test_predicates() -> None:
    np.testing.assert_array_equal(unary("isnan", _SPECIAL, "bool"), np.isnan(_SPECIAL))
    np.testing.assert_array_equal(unary("isinf", _SPECIAL, "bool"), np.isinf(_SPECIAL))
    np.testing.assert_array_equal(unary("not", np.array([True, False])), [False, True])


def wrapping(function: Callable[[Any, Any], Any]) -> Callable[[Array, Array], Array]:
    """An integer function that wraps around silently."""

    def wrapped(a: Array, b: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(function(a, b))

    return wrapped


def truncated_division(a: Array, b: Array) -> Array:
    """Rounds toward zero; x / 0 is 0, and the one quotient beyond the type wraps around."""

    def divide(x: int, y: int) -> int:
        quotient = 0 if y == 0 else abs(x) // abs(y)
        return -quotient if (x < 0) != (y < 0) else quotient

    bits = 8 * a.itemsize
    pairs = zip(*(v.ravel().tolist() for v in np.broadcast_arrays(a, b)), strict=True)
    wrapped = [(divide(x, y) + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1) for x, y in pairs]
    return np.array(wrapped, a.dtype).reshape(np.broadcast_shapes(a.shape, b.shape))


def division(a: Array, b: Array) -> Array:
    return np.asarray(a / b) if a.dtype == np.float32 else truncated_division(a, b)


def power(a: Array, b: Array) -> Array:
    if a.dtype == np.float32:
        return np.asarray(np.power(a, b))
    return (
        np.asarray(
            [
                int(x) ** int(y) if y >= 0 else {1: 1, -1: (-1) ** int(y)}.get(int(x), 0)
                for x, y in zip(a.ravel(), b.ravel(), strict=True)
            ],
            object,
        )
        .astype(a.dtype)
        .reshape(a.shape)
    )


_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": division,
    "min": np.minimum,
    "max": np.maximum,
    "fmod": lambda a, b: np.where(b == 0, 0 if a.dtype != np.float32 else np.nan, np.fmod(a, np.where(b == 0, 1, b))),
}
_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "equal": np.equal,
    "less": np.less,
    "less_or_equal": np.less_equal,
    "greater": np.greater,
    "greater_or_equal": np.greater_equal,
}
_BROADCASTS = [
    ((), ()),
    ((5,), (5,)),
    ((5,), ()),
    ((), (5,)),
    ((1,), (700,)),
    ((4, 5), (5,)),
    ((4, 5), (4, 1)),
    ((4, 1), (1, 5)),
    ((2, 3, 4, 5), (3, 1, 1)),
    ((3, 1, 1), (2, 3, 4, 5)),
    ((2, 3, 4, 5), (2, 1, 4, 1)),
    ((2, 1, 4, 1), (1, 3, 1, 5)),
    ((0, 3), (3,)),
    ((64, 1030), (64, 1030)),
    ((130, 1030), (130, 1)),
]


def binary(function: str, a: Array, b: Array, dtype: str | None = None, threads: int = 1, **clamp: float) -> Array:
    shape = np.broadcast_shapes(a.shape, b.shape)

    def add(plan: Plan, left: Tensor, right: Tensor, out: Tensor) -> None:
        plan.binary("f", function, left, right, out, **clamp)

    return run_step(add, [a, b], [(dtype or str(a.dtype), shape)], threads)[0]


@pytest.mark.parametrize("shapes", _BROADCASTS)
@pytest.mark.parametrize("dtype", ["float32", "int32", "int64"])
def test_arithmetic_broadcasts_as_numpy_does(dtype: str, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    rng = np.random.default_rng(3)
    a, b = (random_array(rng, dtype, shape) for shape in shapes)
    for name, function in _ARITHMETIC.items():
        with np.errstate(all="ignore"):
            expected = np.asarray(function(a, b), dtype)
        for threads in (1, 2):
            np.testing.assert_array_equal(binary(name, a, b, threads=threads), expected, err_msg=name)


@pytest.mark.parametrize("dtype", ["float32", "int32", "int64", "uint8", "int8"])
def test_comparisons(dtype: str) -> None:
    rng = np.random.default_rng(4)
    a, b = (np.asarray(rng.integers(0, 5, (30, 40)), dtype) for _ in range(2))
    if dtype == "float32":
        a[0, :9], b[0, 3:12] = np.nan, np.nan
    for name, function in _COMPARISONS.items():
        np.testing.assert_array_equal(binary(name, a, b, "bool"), function(a, b), err_msg=name)
        np.testing.assert_array_equal(binary(name, a, b[:, :1], "bool"), function(a, b[:, :1]), err_msg=name)


def test_logic() -> None:
    a, b = np.array([False, False, True, True]), np.array([False, True, False, True])
    for name, function in {
        "and": np.logical_and,
        "or": np.logical_or,
        "xor": np.logical_xor,
        "equal": np.equal,
    }.items():
        np.testing.assert_array_equal(binary(name, a, b), function(a, b), err_msg=name)


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_integers_wrap_around_and_never_trap(dtype: str) -> None:
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    a, b = (x.ravel().astype(dtype) for x in np.meshgrid([low, high, 0, 7, -7], [low, high, 0, -1, 1, 3, -3]))
    for name in ("add", "sub", "mul"):
        np.testing.assert_array_equal(binary(name, a, b), wrapping(_ARITHMETIC[name])(a, b), err_msg=name)
    np.testing.assert_array_equal(binary("div", a, b), truncated_division(a, b))
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(binary("mod", a, b), np.where(b == 0, 0, np.mod(a, b)))


@pytest.mark.parametrize("dtype", ["int32", "int64", "float32"])
def test_powers(dtype: str) -> None:
    a, b = (x.astype(dtype) for x in np.meshgrid([-3, -1, 0, 1, 2, 5], [-2, -1, 0, 1, 2, 3, 9]))
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(binary("pow", a, b), power(a, b))


def test_extremes_of_reals_keep_nan() -> None:
    a, b = (x.ravel() for x in np.meshgrid(_SPECIAL, _SPECIAL))
    for name in ("min", "max"):
        np.testing.assert_array_equal(binary(name, a, b), _ARITHMETIC[name](a, b), err_msg=name)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_extremes_of_bytes(dtype: str) -> None:
    rng = np.random.default_rng(5)
    a, b = random_array(rng, dtype, (50, 3)), random_array(rng, dtype, (3,))
    for name in ("min", "max"):
        np.testing.assert_array_equal(binary(name, a, b), _ARITHMETIC[name](a, b), err_msg=name)


def test_a_sum_may_be_clamped(isa: str) -> None:
    rng = np.random.default_rng(6)
    a, b = random_array(rng, "float32", (30, 40)), random_array(rng, "float32", (30, 40))
    np.testing.assert_array_equal(binary("add", a, b, low=0.0), np.maximum(a + b, 0))
    np.testing.assert_array_equal(binary("add", a, b[:1], low=-1.0, high=2.0), np.clip(a + b[:1], -1, 2))
    with pytest.raises(gm.ArgumentError, match="low <= high"):
        binary("add", a, b, low=1.0, high=0.0)
    with pytest.raises(gm.ArgumentError, match="only a sum"):
        binary("sub", a, b, low=0.0)


def test_prelu_takes_a_slope_for_each_channel() -> None:
    rng = np.random.default_rng(7)
    x, slope = random_array(rng, "float32", (2, 3, 4, 5)), random_array(rng, "float32", (3, 1, 1))
    np.testing.assert_array_equal(binary("prelu", x, slope), np.where(x < 0, x * slope, x))


@pytest.mark.parametrize("dtype", ["uint8", "float32", "int64", "bool"])
def test_select(dtype: str) -> None:
    rng = np.random.default_rng(8)
    for shapes in [((4, 5), (4, 5), (4, 5)), ((4, 1), (5,), ()), ((), (4, 5), (1, 5)), ((0,), (1,), (0,))]:
        condition, a, b = (random_array(rng, d, s) for d, s in zip(("bool", dtype, dtype), shapes, strict=True))
        expected = np.where(condition, a, b)

        def add(plan: Plan, where: Tensor, left: Tensor, right: Tensor, out: Tensor) -> None:
            plan.select("select", where, left, right, out)

        np.testing.assert_array_equal(run_step(add, [condition, a, b], [(dtype, expected.shape)])[0], expected)


def test_steps_work_in_place() -> None:
    kind = ("float32", (50, 60))
    x = random_array(np.random.default_rng(9), *kind)
    plan = Plan(12000, [kind], [kind])
    at = Tensor.arena(0, *kind)
    plan.copy("copy", Tensor.input(0, *kind), at)
    plan.unary("neg", "neg", at, at)
    plan.binary("double", "add", at, at, at)
    plan.copy("out", at, Tensor.output(0, *kind))
    np.testing.assert_array_equal(plan.run([x], threads=2)[0], -2 * x)


def test_broadcast_operands_may_not_be_overwritten() -> None:
    x, out = Tensor.arena(0, "float32", (4,)), Tensor.arena(0, "float32", (3, 4))
    with pytest.raises(gm.ArgumentError, match="shares memory with b"):
        Plan(64, [], []).binary("f", "add", Tensor.constant(np.ones((3, 4), np.float32)), x, out)


_F = Tensor.arena(0, "float32", (4,))
_I = Tensor.arena(16, "int32", (4,))
_G = Tensor.arena(32, "float32", (4,))
_BAD: dict[str, tuple[type[Exception], str, Callable[[Plan], None]]] = {
    "unary name": (
        gm.ArgumentError,
        "unknown name 'tan'; choose one of: relu, leaky_relu",
        lambda p: p.unary("f", "tan", _F, _G),
    ),
    "unary type": (gm.DTypeError, "x: tanh takes float32, got int32", lambda p: p.unary("f", "tanh", _I, _I)),
    "unary out": (gm.DTypeError, "out: expected float32", lambda p: p.unary("f", "tanh", _F, _I)),
    "unary shape": (gm.ShapeError, "out", lambda p: p.unary("f", "tanh", _F, Tensor.arena(32, "float32", (3,)))),
    "binary name": (gm.ArgumentError, "unknown name 'plus'", lambda p: p.binary("f", "plus", _F, _F, _G)),
    "binary type": (gm.DTypeError, "a: prelu takes float32", lambda p: p.binary("f", "prelu", _I, _I, _I)),
    "binary types": (gm.DTypeError, "b: expected float32, got int32", lambda p: p.binary("f", "add", _F, _I, _G)),
    "binary out": (gm.DTypeError, "out: expected bool", lambda p: p.binary("f", "less", _F, _F, _G)),
    "broadcast": (
        gm.ShapeError,
        "b: .* cannot be broadcast",
        lambda p: p.binary("f", "add", _F, Tensor.arena(32, "float32", (3,)), _G),
    ),
    "rank": (
        gm.ShapeError,
        "a: .* cannot be broadcast",
        lambda p: p.binary("f", "add", Tensor.arena(32, "float32", (1, 4)), _F, _G),
    ),
    "condition": (gm.DTypeError, "condition: expected bool", lambda p: p.select("f", _F, _F, _F, _G)),
}


@pytest.mark.parametrize("case", _BAD)
def test_bad_steps_are_refused(case: str) -> None:
    kind, message, add = _BAD[case]
    with pytest.raises(kind, match="f: .*" + message):
        add(Plan(64, [], []))
