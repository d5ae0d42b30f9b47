"""Quantized steps against numpy, bit for bit, at every level."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import gristmill as gm
from gristmill._core import Plan, Tensor
from plans import Array, random_array, run_step

_LOW = {"uint8": 0, "int8": -128}
_Map = tuple[float, int]


def to_bytes(steps: Array, zero_point: Array | int, dtype: str) -> Array:
    """round(steps) + zero_point, saturated; NaN becomes the least byte."""
    low = _LOW[dtype]
    with np.errstate(all="ignore"):
        q = np.rint(steps.astype(np.float64)) + zero_point
    return np.asarray(np.clip(np.where(np.isnan(q), low, q), low, low + 255), np.int64).astype(dtype)


def real(q: Array, quantization: _Map) -> Array:
    return np.asarray((q.astype(np.float32) - np.float32(quantization[1])) * np.float32(quantization[0]))


_SHAPES: list[tuple[tuple[int, ...], int | None]] = [
    ((), None), ((1,), None), ((7,), 0), ((0, 3), 1), ((3, 5, 7), None), ((3, 5, 7), 1), ((3, 5, 7), -1),
    ((2, 4, 10, 10), 1), ((100, 1000), 0), ((100, 1000), None),
]  # fmt: skip


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize(("shape", "axis"), _SHAPES)
def test_conversions(isa: str, dtype: str, shape: tuple[int, ...], axis: int | None) -> None:
    rng = np.random.default_rng(1)
    channels = 1 if axis is None else shape[axis]
    scale = np.asarray(rng.uniform(0.01, 0.1, channels), np.float32)
    zero = np.asarray(rng.integers(_LOW[dtype], _LOW[dtype] + 256, channels))
    lanes = [1] * len(shape)
    if axis is not None:
        lanes[axis] = channels
    s, z = (scale.reshape(lanes), zero.reshape(lanes)) if axis is not None else (scale[0], int(zero[0]))
    x = random_array(rng, "float32", shape)
    acc = np.asarray(rng.integers(-3000, 3000, shape), np.int32)
    numbers = (scale.tolist(), zero.tolist(), axis)

    def run(method: str, source: Array, out: str, parameters: tuple[object, ...] = numbers) -> Array:
        def add(plan: Plan, a: Tensor, b: Tensor) -> None:
            getattr(plan, method)("c", a, b, *parameters)

        results = [run_step(add, [source], [(out, shape)], threads)[0] for threads in (1, 2)]
        np.testing.assert_array_equal(results[0], results[1])
        return results[0]

    q = run("quantize", x, dtype)
    np.testing.assert_array_equal(q, to_bytes(x / s, z, dtype))
    np.testing.assert_array_equal(run("dequantize", q, "float32"), (q.astype(np.float32) - np.float32(z)) * s)
    np.testing.assert_array_equal(run("requantize", acc, dtype), to_bytes(acc.astype(np.float32) * s, z, dtype))
    y = run("dequantize", acc, "float32", (scale.tolist(), [0], axis))
    np.testing.assert_array_equal(y, acc.astype(np.float32) * s)


@pytest.mark.parametrize("kind", ["both signs", "positive", "negative", "zeros", "one", "empty", "large"])
def test_dynamic_quantize(isa: str, kind: str) -> None:
    rng = np.random.default_rng(2)
    x = {
        "both signs": random_array(rng, "float32", (30, 40)),
        "positive": np.abs(random_array(rng, "float32", (300, 400))),
        "negative": -np.abs(random_array(rng, "float32", (5,))),
        "zeros": np.zeros((3, 3), np.float32),
        "one": np.full((), 3.5, np.float32),
        "empty": np.zeros((0,), np.float32),
        "large": np.array([-1e38, 1e38], np.float32),
    }[kind]
    low, high = (np.float32(f(x, initial=0)) for f in (np.min, np.max))
    scale = np.float32(1) if high == low else (high - low) / np.float32(255)
    zero = int(np.rint(np.clip(np.float32(0) - low / scale, 0, 255)))

    def add(plan: Plan, source: Tensor, q: Tensor, s: Tensor, z: Tensor) -> None:
        plan.dynamic_quantize("d", source, q, s, z)

    q, s, z = run_step(add, [x], [("uint8", x.shape), ("float32", ()), ("uint8", (1,))], threads=2)
    assert s == scale
    assert z == zero
    np.testing.assert_array_equal(q, to_bytes(x / scale, zero, "uint8"))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_dynamic_quantize_refuses_what_has_no_range(bad: float) -> None:
    x = np.array([0, bad, 1], np.float32)
    with pytest.raises(gm.ArgumentError, match="d: x: holds NaN"):
        run_step(
            lambda plan, *tensors: plan.dynamic_quantize("d", *tensors),
            [x],
            [("uint8", (3,)), ("float32", ()), ("uint8", ())],
        )


@pytest.mark.parametrize("dtypes", [("uint8", "int8"), ("int8", "int8"), ("int8", "uint8")])
def test_lookup(isa: str, dtypes: tuple[str, str]) -> None:
    rng = np.random.default_rng(3)
    table = random_array(rng, dtypes[1], (256,))
    for shape in [(), (0,), (31,), (500, 700)]:
        x = random_array(rng, dtypes[0], shape)
        for threads in (1, 2):
            (y,) = run_step(lambda plan, a, b: plan.lookup("l", a, b, table), [x], [(dtypes[1], shape)], threads)
            np.testing.assert_array_equal(y, table[x.view(np.uint8)])


_FUNCTIONS: dict[str, Callable[[Array, Array], Array]] = {"add": np.add, "mul": np.multiply}


@pytest.mark.parametrize("function", _FUNCTIONS)
@pytest.mark.parametrize(
    "shapes",
    [
        ((), ()),
        ((40,), (40,)),
        ((3, 5, 50), (5, 1)),
        ((1,), (77,)),
        ((9, 1), (1, 40)),
        ((300, 400), (300, 400)),
        ((0, 2), (2,)),
    ],
)
def test_arithmetic_on_bytes(isa: str, function: str, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    rng = np.random.default_rng(4)
    for types in [
        ("uint8", "uint8", "uint8"),
        ("int8", "int8", "int8"),
        ("uint8", "int8", "int8"),
        ("int8", "uint8", "uint8"),
    ]:
        maps: list[_Map] = [
            (float(np.float32(s)), int(rng.integers(_LOW[t], _LOW[t] + 256)))
            for s, t in zip((0.05, 0.03, 0.11), types, strict=True)
        ]
        a, b = (random_array(rng, t, s) for t, s in zip(types, shapes, strict=False))
        value = _FUNCTIONS[function](real(a, maps[0]), real(b, maps[1]))
        expected = to_bytes(value / np.float32(maps[2][0]), maps[2][1], types[2])

        def add(plan: Plan, left: Tensor, right: Tensor, out: Tensor, maps: list[_Map] = maps) -> None:
            plan.qbinary("q", function, left, right, out, *maps)

        for threads in (1, 2):
            (y,) = run_step(add, [a, b], [(types[2], expected.shape)], threads)
            np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("dtypes", [("uint8", "uint8"), ("int8", "int8"), ("uint8", "int8")])
@pytest.mark.parametrize("shape", [(2, 300, 7, 7), (1, 3, 1), (1, 2, 3, 4, 5), (3, 4), (0, 2, 3), (1, 5, 300, 300)])
def test_global_average_of_bytes(isa: str, dtypes: tuple[str, str], shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(5)
    x = random_array(rng, dtypes[0], shape)
    n = int(np.prod(shape[2:]))
    zx, zy = (int(rng.integers(_LOW[t], _LOW[t] + 256)) for t in dtypes)
    scale = np.float32(0.05) / (np.float32(0.02) * np.float32(n))
    acc = x.astype(np.int64).reshape(*shape[:2], n).sum(axis=2) - n * zx
    expected = to_bytes(acc.astype(np.float32) * scale, zy, dtypes[1])
    for out in (shape[:2], (*shape[:2], *[1] * (len(shape) - 2))):
        (y,) = run_step(
            lambda plan, a, b: plan.qglobal_average("g", a, b, (0.05, zx), (0.02, zy)),
            [x],
            [(dtypes[1], out)],
            threads=2,
        )
        np.testing.assert_array_equal(y.reshape(shape[:2]), expected)


_PLAIN: _Map = (1.0, 0)
_Q = Tensor.arena(0, "uint8", (2, 4))
_R = Tensor.arena(64, "float32", (2, 4))
_S = Tensor.arena(128, "uint8", (2, 4))
_P = Tensor.arena(0, "uint8", (1, 2, 4))
_BAD: dict[str, tuple[type[Exception], str, Callable[[Plan], None]]] = {
    "scale": (gm.ArgumentError, "scale", lambda p: p.quantize("q", _R, _Q, [0.0], [0])),
    "scales": (gm.ShapeError, "scale: expected 4 values", lambda p: p.quantize("q", _R, _Q, [1.0], [0], 1)),
    "no scale": (gm.ShapeError, "scale: expected one value", lambda p: p.quantize("q", _R, _Q, [], [])),
    "no zero point": (gm.ShapeError, "zero_point: expected one value", lambda p: p.quantize("q", _R, _Q, [1.0], [])),
    "zero point": (gm.ArgumentError, "zero_point", lambda p: p.dequantize("q", _Q, _R, [1.0], [-1])),
    "axis": (gm.ShapeError, "axis: is 2", lambda p: p.quantize("q", _R, _Q, [1.0], [0], 2)),
    "dtype": (gm.DTypeError, "x: expected float32", lambda p: p.quantize("q", _Q, _S, [1.0], [0])),
    "table": (gm.ShapeError, "table: expected 256", lambda p: p.lookup("q", _Q, _S, np.zeros(255, np.uint8))),
    "table dtype": (gm.DTypeError, "table", lambda p: p.lookup("q", _Q, _S, np.zeros(256, np.int16))),  # type: ignore[arg-type]
    "function": (
        gm.ArgumentError,
        "unknown name 'sub'",
        lambda p: p.qbinary("q", "sub", _Q, _Q, _S, _PLAIN, _PLAIN, _PLAIN),
    ),
    "map": (gm.ArgumentError, "b: zero_point", lambda p: p.qbinary("q", "add", _Q, _Q, _S, _PLAIN, (1, 256), _PLAIN)),
    "map scale": (
        gm.ArgumentError,
        "out: scale",
        lambda p: p.qbinary("q", "add", _Q, _Q, _S, _PLAIN, _PLAIN, (np.inf, 0)),
    ),
    "reals": (
        gm.DTypeError,
        "a: expected uint8 or int8",
        lambda p: p.qbinary("q", "add", _R, _Q, _S, _PLAIN, _PLAIN, _PLAIN),
    ),
    "average shape": (gm.ShapeError, "out", lambda p: p.qglobal_average("q", _P, _S, _PLAIN, _PLAIN)),
    "average of nothing": (
        gm.ShapeError,
        "without elements",
        lambda p: p.qglobal_average("q", Tensor.arena(0, "uint8", (2, 4, 0)), _S, _PLAIN, _PLAIN),
    ),
}


@pytest.mark.parametrize("case", _BAD)
def test_bad_steps_are_refused(case: str) -> None:
    kind, message, add = _BAD[case]
    with pytest.raises(kind, match="q: .*" + message):
        add(Plan(1024, [], []))
