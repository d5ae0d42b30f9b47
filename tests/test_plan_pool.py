"""Pooling steps against plain loops."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest

import gristmill as gm
from gristmill._core import Plan, Tensor
from plans import Array, random_array, run_step


def extent(size: int, kernel: int, stride: int, dilation: int, pads: int, ceil: bool, before: int) -> int:
    """The output's extent as ONNX defines it: no window may start in the padding behind."""
    covered = (kernel - 1) * dilation + 1
    steps = (size + pads - covered) / stride
    out = (math.ceil(steps) if ceil else math.floor(steps)) + 1
    return out - 1 if ceil and (out - 1) * stride >= size + before else out


class Window:
    """Attributes of one pooling."""

    def __init__(
        self,
        kernel: Sequence[int],
        stride: Sequence[int] | None = None,
        begin: Sequence[int] | None = None,
        end: Sequence[int] | None = None,
        dilation: Sequence[int] | None = None,
        ceil: bool = False,
    ) -> None:
        n = len(kernel)
        self.kernel, self.ceil = list(kernel), ceil
        self.stride, self.dilation = list(stride or [1] * n), list(dilation or [1] * n)
        self.begin, self.end = list(begin or [0] * n), list(end or [0] * n)

    def out_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        return (
            *shape[:2],
            *(
                extent(size, k, s, d, b + e, self.ceil, b)
                for size, k, s, d, b, e in zip(
                    shape[2:], self.kernel, self.stride, self.dilation, self.begin, self.end, strict=True
                )
            ),
        )


def planes_at(x: Array, place: Sequence[int]) -> Array:
    """One place of all planes, as a view."""
    for index in place:
        x = x[:, :, index]
    return x


def pooled(x: Array, window: Window, kind: str, count_include_pad: bool = False) -> Array:
    """The definition, one output after the other."""
    out = np.zeros(window.out_shape(x.shape), np.float64)
    sizes = x.shape[2:]
    for at in itertools.product(*(range(n) for n in out.shape[2:])):
        values, counted = [], 0
        for tap in itertools.product(*(range(k) for k in window.kernel)):
            place = [
                o * s + t * d - b
                for o, s, t, d, b in zip(at, window.stride, tap, window.dilation, window.begin, strict=True)
            ]
            inside = all(0 <= p < n for p, n in zip(place, sizes, strict=True))
            padded = all(p < n + e for p, n, e in zip(place, sizes, window.end, strict=True))
            counted += inside or (count_include_pad and padded)
            if inside:
                values.append(planes_at(x, place).astype(np.float64))
        if kind == "max":
            least = -np.inf if x.dtype == np.float32 else np.iinfo(x.dtype).min
            result = np.max(values, axis=0) if values else np.full(x.shape[:2], least)
        else:
            result = np.sum(values, axis=0) / counted if counted else np.full(x.shape[:2], np.nan)
        planes_at(out, at)[...] = result
    return out.astype(x.dtype)


def pool(x: Array, window: Window, kind: str, count_include_pad: bool = False, threads: int = 1) -> Array:
    def add(plan: Plan, source: Tensor, out: Tensor) -> None:
        plan.pool(
            "pool",
            kind,
            source,
            out,
            window.kernel,
            window.stride,
            window.begin,
            window.end,
            window.dilation,
            count_include_pad,
        )

    return run_step(add, [x], [(str(x.dtype), window.out_shape(x.shape))], threads)[0]


_WINDOWS: dict[str, tuple[tuple[int, ...], Window]] = {
    "resnet": ((1, 5, 30, 31), Window([3, 3], [2, 2], [1, 1], [1, 1])),
    "2x2": ((2, 3, 8, 9), Window([2, 2], [2, 2])),
    "one tap": ((2, 3, 5, 4), Window([1, 1])),
    "one tap, strided": ((1, 2, 7, 7), Window([1, 1], [3, 2])),
    "whole plane": ((2, 2, 5, 6), Window([5, 6])),
    "ceil": ((1, 2, 6, 7), Window([3, 2], [2, 2], ceil=True)),
    "ceil, last window in the padding": ((1, 1, 5, 5), Window([2, 2], [3, 3], [1, 1], [1, 1], ceil=True)),
    "ceil beyond the padding": ((1, 2, 7, 7), Window([3, 3], [2, 2], [0, 0], [1, 1], ceil=True)),
    "uneven padding": ((1, 2, 9, 8), Window([4, 3], [1, 2], [3, 0], [1, 2])),
    "dilated": ((1, 2, 11, 12), Window([3, 3], [1, 2], [2, 2], [2, 2], [2, 3])),
    "more padding than kernel": ((1, 1, 3, 3), Window([2, 2], [1, 1], [3, 3], [3, 3])),
    "sequence": ((2, 3, 33), Window([3], [2], [1], [1])),
    "volume": ((1, 2, 5, 6, 7), Window([2, 3, 2], [2, 1, 2], [1, 1, 0], [0, 1, 1])),
    "volume, ceil": ((1, 2, 5, 4, 6), Window([2, 2, 2], [2, 2, 4], ceil=True)),
    "no images": ((0, 3, 5, 5), Window([2, 2])),
    "rows beyond what is kept at a time": ((2, 2, 120, 200), Window([3, 3], [2, 2], [1, 1], [1, 1])),
    "wide": ((1, 2, 3, 700), Window([3, 5], [1, 3], [1, 2], [1, 2])),
}


@pytest.mark.parametrize("case", _WINDOWS)
@pytest.mark.parametrize("dtype", ["float32", "uint8", "int8"])
def test_max_pool(isa: str, case: str, dtype: str) -> None:
    shape, window = _WINDOWS[case]
    x = random_array(np.random.default_rng(1), dtype, shape)
    for threads in (1, 2):
        np.testing.assert_array_equal(pool(x, window, "max", threads=threads), pooled(x, window, "max"))


@pytest.mark.parametrize("case", _WINDOWS)
@pytest.mark.parametrize("count_include_pad", [False, True])
def test_average_pool(isa: str, case: str, count_include_pad: bool) -> None:
    shape, window = _WINDOWS[case]
    x = random_array(np.random.default_rng(2), "float32", shape)
    with np.errstate(all="ignore"):
        expected = pooled(x, window, "average", count_include_pad)
    for threads in (1, 2):
        y = pool(x, window, "average", count_include_pad, threads)
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


def test_no_images_of_many_rows_take_no_space() -> None:
    x = np.empty((0, 1, 2**31 - 1, 1), np.uint8)
    assert pool(x, Window([1, 1]), "max").shape == x.shape


def test_many_planes_on_threads() -> None:
    x = random_array(np.random.default_rng(3), "uint8", (2, 64, 40, 40))
    window = Window([3, 3], [2, 2], [1, 1], [1, 1])
    np.testing.assert_array_equal(pool(x, window, "max", threads=3), pooled(x, window, "max"))


def test_nan_and_infinities() -> None:
    x = np.array([[[1, np.nan, 3, -np.inf, -np.inf, -np.inf, np.inf, 2]]], np.float32)
    y = pool(x, Window([3]), "max")
    np.testing.assert_array_equal(y, [[[np.nan, np.nan, 3, -np.inf, np.inf, np.inf]]])
    np.testing.assert_array_equal(np.isnan(pool(x, Window([3]), "average")), [[[True, True, False, False, True, True]]])


_BAD: dict[str, tuple[type[Exception], str, str, tuple[int, ...], tuple[int, ...], Window]] = {
    "kernel": (gm.ArgumentError, "kernel: expected 1", "max", (1, 1, 4, 4), (1, 1, 4, 4), Window([0, 1])),
    "stride": (gm.ArgumentError, "stride: expected 1", "max", (1, 1, 4, 4), (1, 1, 4, 4), Window([1, 1], [0, 1])),
    "dilation": (
        gm.ArgumentError,
        "dilation",
        "max",
        (1, 1, 4, 4),
        (1, 1, 4, 4),
        Window([1, 1], dilation=[-1, 1]),
    ),
    "padding": (
        gm.ArgumentError,
        "padding: expected 0",
        "max",
        (1, 1, 4, 4),
        (1, 1, 4, 4),
        Window([1, 1], begin=[-1, 0]),
    ),
    "huge padding": (
        gm.ArgumentError,
        "padding",
        "max",
        (1, 1, 4, 4),
        (1, 1, 4, 4),
        Window([1, 1], begin=[1 << 40, 0]),
    ),
    "axes": (gm.ShapeError, "one for each spatial axis", "max", (1, 1, 4, 4), (1, 1, 4, 4), Window([1])),
    "too large": (gm.ShapeError, "out: has extent 4", "max", (1, 1, 4, 4), (1, 1, 4, 3), Window([2, 2])),
    "one too many": (gm.ShapeError, "out", "max", (1, 1, 4, 4), (1, 1, 5, 4), Window([1, 1])),
    "too small": (gm.ShapeError, "out", "max", (1, 1, 4, 4), (1, 1, 2, 3), Window([2, 2])),
    "channels": (gm.ShapeError, "batch and channels", "max", (1, 2, 4, 4), (1, 1, 4, 4), Window([1, 1])),
    "rank": (gm.ShapeError, "rank 3 to 5", "max", (4, 4), (4, 4), Window([])),
    "kind": (gm.ArgumentError, "unknown name 'mean'", "mean", (1, 1, 4), (1, 1, 4), Window([1])),
}


@pytest.mark.parametrize("case", _BAD)
def test_bad_pools_are_refused(case: str) -> None:
    error, message, kind, shape, out, window = _BAD[case]
    plan = Plan(1024, [], [])
    with pytest.raises(error, match="p: .*" + message):
        plan.pool(
            "p",
            kind,
            Tensor.arena(0, "float32", shape),
            Tensor.arena(512, "float32", out),
            window.kernel,
            window.stride,
            window.begin,
            window.end,
            window.dilation,
        )


def test_means_of_bytes_are_refused() -> None:
    with pytest.raises(gm.DTypeError, match="expected float32"):
        pool(np.zeros((1, 1, 4), np.uint8), Window([2]), "average")


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 7, 7), (1, 16, 5, 25), (3, 11, 2, 3, 4), (1, 33, 300)])
def test_whole_images_are_summed_in_the_order_of_their_elements(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    sums = np.add.accumulate(x.reshape(*shape[:2], -1), axis=2, dtype=np.float32)[..., -1]
    expected = sums / np.float32(math.prod(shape[2:]))
    builder = gm.graph.GraphBuilder()
    given = builder.input("x", np.float32, shape)
    whole = builder.add("GlobalAveragePool", [given])
    window = builder.add("AveragePool", [given], kernel_shape=shape[2:])
    for got in gm.InferenceSession(builder.build([whole, window])).run(None, {"x": x}):
        np.testing.assert_array_equal(got.reshape(shape[:2]), expected)
