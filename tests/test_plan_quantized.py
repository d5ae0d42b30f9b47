"""Quantized steps against numpy, bit for bit, at every level."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gristmill as gm
import oracles_dense as oracle
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


@pytest.mark.parametrize("dtypes", [("uint8", "int8"), ("int8", "int8"), ("int8", "uint8")])
def test_lookup(isa: str, dtypes: tuple[str, str]) -> None:
    rng = np.random.default_rng(3)
    table = random_array(rng, dtypes[1], (256,))
    for shape in [(), (0,), (31,), (500, 700)]:
        x = random_array(rng, dtypes[0], shape)
        for threads in (1, 2):
            (y,) = run_step(lambda plan, a, b: plan.lookup("l", a, b, table), [x], [(dtypes[1], shape)], threads)
            np.testing.assert_array_equal(y, table[x.view(np.uint8)])


def product_of_bytes(a: Array, a_map: _Map, b: Array, b_map: _Map, out_map: _Map, dtype: str) -> Array:
    """ONNX Runtime's QLinearMul: the zero point is added before rounding."""
    product = (a.astype(np.int32) - a_map[1]) * (b.astype(np.int32) - b_map[1])
    ratio = np.float32(a_map[0]) * np.float32(b_map[0]) / np.float32(out_map[0])
    return to_bytes(product.astype(np.float32) * ratio + np.float32(out_map[1]), 0, dtype)


_FUNCTIONS: dict[str, Callable[[Array, _Map, Array, _Map, _Map, str], Array]] = {
    "add": oracle.separate_add,
    "mul": product_of_bytes,
}


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
        expected = _FUNCTIONS[function](a, maps[0], b, maps[1], maps[2], types[2])

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


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("counts", [False, True])
@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "pads", "dilation"),
    [
        ((2, 3, 9), (3,), (2,), (1, 1), (1,)),
        ((2, 3, 7, 600), (3, 2), (1, 1), (1, 0, 1, 1), (1, 1)),
        ((1, 2, 9, 8), (2, 3), (3, 2), (0, 2, 1, 2), (2, 2)),
        ((1, 2, 4, 5, 6), (2, 2, 3), (1, 2, 1), (1, 0, 1, 0, 1, 1), (1, 1, 1)),
        ((1, 0, 4), (2,), (1,), (0, 0), (1,)),
    ],
)
def test_average_of_windows_of_bytes(
    isa: str,
    shape: tuple[int, ...],
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    pads: tuple[int, ...],
    dilation: tuple[int, ...],
    counts: bool,
    dtype: str,
) -> None:
    rng, rank = np.random.default_rng(6), len(kernel)
    x = random_array(rng, dtype, shape)
    x_map, y_map = (0.05, 100 + _LOW[dtype]), (0.04, 131 + _LOW[dtype])
    real = (x.astype(np.float32) - np.float32(x_map[1])) * np.float32(x_map[0])
    spread = [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)]
    padded, inside = np.pad(real, spread), np.pad(np.ones(shape), spread, constant_values=float(counts))
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    extents = [(n - span) // step + 1 for n, span, step in zip(padded.shape[2:], spans, stride, strict=True)]
    sums, number = np.zeros((*shape[:2], *extents), np.float32), np.zeros((*shape[:2], *extents))
    for tap in np.ndindex(*kernel):
        starts = [t * d for t, d in zip(tap, dilation, strict=True)]
        steps: list[Any] = [...]
        for at, n, step in zip(starts, extents, stride, strict=True):
            steps.append(slice(at, at + (n - 1) * step + 1, step))
        sums, number = sums + padded[tuple(steps)], number + inside[tuple(steps)]
    expected = to_bytes(sums / number.astype(np.float32) / np.float32(y_map[0]) + np.float32(y_map[1]), 0, dtype)
    for threads in (1, 2):
        (y,) = run_step(
            lambda plan, a, b: plan.qaverage(
                "a", a, b, kernel, stride, pads[:rank], pads[rank:], dilation, counts, x_map, y_map
            ),
            [x],
            [(dtype, expected.shape)],
            threads,
        )
        np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize(("shape", "axis"), [((5, 12), -1), ((3, 7, 2), 1), ((1, 1000), 1), ((0, 3), 1), ((4, 1), 1)])
def test_softmax_of_bytes(isa: str, dtype: str, shape: tuple[int, ...], axis: int) -> None:
    rng = np.random.default_rng(7)
    x = random_array(rng, dtype, shape)
    powers = np.exp(np.arange(256) * 0.05, dtype=np.float32)
    offset = x.astype(np.int64) - _LOW[dtype]
    p = powers[offset + 255 - offset.max(axis=axis, initial=0, keepdims=True)]
    sums = np.zeros_like(p.take([0], axis)) if p.size else np.ones((), np.float32)
    for index in range(p.shape[axis]):
        sums = sums + p.take([index], axis)
    expected = to_bytes(p * np.float32(254) / sums, _LOW[dtype], dtype)
    for threads in (1, 2):
        (y,) = run_step(
            lambda plan, a, b: plan.qsoftmax("s", a, b, axis, powers.tolist(), 254.0, _LOW[dtype]),
            [x],
            [(dtype, shape)],
            threads,
        )
        np.testing.assert_array_equal(y, expected)


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
    "range": (
        gm.LimitError,
        "out: its scale is too small",
        lambda p: p.qbinary("q", "add", _Q, _Q, _S, (1e30, 0), _PLAIN, (1e-30, 0)),
    ),
    "product": (
        gm.LimitError,
        "out: its scale is too small",
        lambda p: p.qbinary("q", "mul", _Q, _Q, _S, (1e20, 0), (1e20, 0), _PLAIN),
    ),
    "powers": (
        gm.ArgumentError,
        "powers",
        lambda p: p.qsoftmax("q", _Q, _S, 0, [np.inf] * 256, 255.0, 0),
    ),
    "steps": (gm.ArgumentError, "steps", lambda p: p.qsoftmax("q", _Q, _S, 0, [1.0] * 256, 0.5, 0)),
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
