"""Convolution and linear steps against the same layers outside of plans, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import gristmill as gm
from gristmill import kernels
from gristmill._core import Plan, Tensor
from plans import Array, random_array, run_step


def weights_of(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> Array:
    if dtype == "float32":
        return random_array(rng, dtype, shape)
    return np.asarray(rng.integers(-127, 128, shape), np.int8)


@pytest.mark.parametrize("dtype", ["float32", "uint8", "int8"])
@pytest.mark.parametrize("padding", [0, 1])
def test_conv(isa: str, dtype: str, padding: int) -> None:
    rng = np.random.default_rng(1)
    x = random_array(rng, dtype, (2, 6, 9, 11))
    for groups in (1, 2, 6):
        packed = kernels.PackedConv(weights_of(rng, dtype, (12, 6 // groups, 3, 3)), padding=padding, groups=groups)
        zero = {"float32": 0, "uint8": 77, "int8": -5}[dtype]
        expected = kernels.conv2d(x, packed, x_zero_point=zero)

        def add(plan: Plan, source: Tensor, out: Tensor, packed: kernels.PackedConv = packed, zero: int = zero) -> None:
            plan.conv("conv", source, out, packed, None, zero)

        for threads in (1, 2):
            (y,) = run_step(add, [x], [(str(expected.dtype), expected.shape)], threads)
            np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_layers_in_the_arena(isa: str, dtype: str) -> None:
    """Input, residual and output beside each other: nothing but the output may change."""
    rng = np.random.default_rng(2)
    x, residual = (random_array(rng, dtype, (1, 4, 5, 5)) for _ in range(2))
    weights = kernels.PackedConv(weights_of(rng, dtype, (4, 4, 3, 3)), padding=1)
    kind = (dtype, x.shape)
    if dtype == "float32":
        stage = kernels.Epilogue(output="float32", residual=kernels.Residual("float32"))
    else:
        stage = kernels.Epilogue(
            output="uint8",
            scale=0.001,
            zero_point=9,
            output_scale=0.1,
            residual=kernels.Residual("uint8", 0.2, 3, 0.3, 4),
        )
    expected = kernels.conv2d(x, weights, epilogue=stage, residual=residual)
    size = x.nbytes + 12  # not a multiple of any alignment that kernels like
    plan = Plan(3 * size, [kind, kind], [kind] * 3)
    a, r, out = (Tensor.arena(size * i, *kind) for i in range(3))
    plan.copy("x", Tensor.input(0, *kind), a)
    plan.copy("r", Tensor.input(1, *kind), r)
    plan.conv("conv", a, out, weights, stage._core, 0, r)
    for i, tensor in enumerate((out, a, r)):
        plan.copy("out", tensor, Tensor.output(i, *kind))
    for threads in (1, 2):
        for y, wanted in zip(plan.run([x, residual], threads=threads), (expected, x, residual), strict=True):
            np.testing.assert_array_equal(y, wanted)


@pytest.mark.parametrize("lead", [(), (1,), (3,), (2, 3), (0,)])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_linear_over_the_last_axis(isa: str, dtype: str, lead: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    x, weights = random_array(rng, dtype, (*lead, 33)), weights_of(rng, dtype, (17, 33))
    expected = kernels.linear(x.reshape(-1, 33), kernels.PackedLinear(weights)).reshape(*lead, 17)
    for packed in (kernels.PackedLinear(weights), kernels.PackedGemm(np.ascontiguousarray(weights.T))):

        def add(
            plan: Plan, source: Tensor, out: Tensor, packed: kernels.PackedLinear | kernels.PackedGemm = packed
        ) -> None:
            plan.linear("linear", source, out, packed)

        (y,) = run_step(add, [x], [(str(expected.dtype), expected.shape)], threads=2)
        np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_zero_points_may_come_with_the_data(isa: str, dtype: str) -> None:
    rng = np.random.default_rng(4)
    x, weights = random_array(rng, dtype, (3, 20)), weights_of(rng, dtype, (5, 20))
    images, taps = random_array(rng, dtype, (1, 2, 5, 5)), weights_of(rng, dtype, (3, 2, 3, 3))
    linear, conv = kernels.PackedLinear(weights), kernels.PackedConv(taps, padding=1)
    for zero in (np.iinfo(dtype).min, 3, np.iinfo(dtype).max):

        def add(plan: Plan, *t: Tensor) -> None:
            plan.linear("linear", t[0], t[3], linear, None, t[2])
            plan.conv("conv", t[1], t[4], conv, None, t[2])

        inputs = [x, images, np.array(zero, dtype)]
        y, z = run_step(add, inputs, [("int32", (3, 5)), ("int32", (1, 3, 5, 5))])
        np.testing.assert_array_equal(y, kernels.linear(x, linear, x_zero_point=int(zero)))
        np.testing.assert_array_equal(z, kernels.conv2d(images, conv, x_zero_point=int(zero)))


def test_weights_keep_the_level_they_were_packed_for() -> None:
    weights = np.ones((4, 4), np.float32)
    kind = ("float32", (1, 4))
    before = gm.get_isa()
    gm.set_isa("scalar")
    plan = Plan(0, [kind], [kind])
    plan.linear("layer", Tensor.input(0, *kind), Tensor.output(0, *kind), kernels.PackedLinear(weights))
    gm.set_isa(before)
    np.testing.assert_array_equal(plan.run([np.ones((1, 4), np.float32)])[0], [[4] * 4])


_X, _Y = Tensor.arena(0, "float32", (1, 2, 4, 4)), Tensor.arena(512, "float32", (1, 3, 4, 4))
_U, _S = Tensor.arena(0, "uint8", (1, 2, 4, 4)), Tensor.arena(512, "int32", (1, 3, 4, 4))
_REALS = kernels.PackedConv(np.ones((3, 2, 1, 1), np.float32))
_BYTES = kernels.PackedConv(np.ones((3, 2, 1, 1), np.int8))
_ROWS = kernels.PackedLinear(np.ones((5, 4), np.float32))
_RESIDUAL = kernels.Epilogue(output="float32", residual=kernels.Residual("float32"))._core
_OVERFLOW = kernels.Epilogue(output="int32", bias=np.full(3, 2**31 - 256, np.int32))._core
_FOUR = kernels.Epilogue(output="float32", bias=np.zeros(4, np.float32))._core
_BAD: dict[str, tuple[type[Exception], str, Callable[[Plan], None]]] = {
    "rank": (
        gm.ShapeError,
        "x: expected rank 4",
        lambda p: p.conv("c", Tensor.arena(0, "float32", (2, 4)), _Y, _REALS),
    ),
    "channels": (gm.ShapeError, "x: expected 2 channels", lambda p: p.conv("c", _Y, _X, _REALS)),
    "dtype": (gm.DTypeError, "x: expected float32, got uint8", lambda p: p.conv("c", _U, _Y, _REALS)),
    "int8 dtype": (gm.DTypeError, "x: expected uint8 or int8", lambda p: p.conv("c", _X, _Y, _BYTES)),
    "out": (
        gm.ShapeError,
        "out: expected shape",
        lambda p: p.conv("c", _X, Tensor.arena(512, "float32", (1, 3, 4)), _REALS),
    ),
    "out dtype": (gm.DTypeError, "out: expected int32", lambda p: p.conv("c", _U, _Y, _BYTES)),
    "zero point": (gm.ArgumentError, "x_zero_point", lambda p: p.conv("c", _U, _S, _BYTES, None, -1)),
    "f32 zero point": (gm.ArgumentError, "x_zero_point", lambda p: p.conv("c", _X, _Y, _REALS, None, 1)),
    "zero point tensor": (
        gm.DTypeError,
        "x_zero_point: expected uint8",
        lambda p: p.conv("c", _U, _S, _BYTES, None, _X),
    ),
    "zero points": (gm.ShapeError, "x_zero_point: expected one", lambda p: p.conv("c", _U, _S, _BYTES, None, _U)),
    "f32 zero point tensor": (gm.DTypeError, "x_zero_point", lambda p: p.conv("c", _X, _Y, _REALS, None, _X)),
    "bias": (gm.ShapeError, "bias", lambda p: p.conv("c", _X, _Y, _REALS, _FOUR)),
    "overflow": (gm.LimitError, "bias: channel 0 could overflow", lambda p: p.conv("c", _U, _S, _BYTES, _OVERFLOW)),
    "no residual": (gm.ArgumentError, "residual: needed", lambda p: p.conv("c", _X, _Y, _REALS, _RESIDUAL)),
    "residual": (gm.ArgumentError, "residual: needed", lambda p: p.conv("c", _X, _Y, _REALS, None, 0, _Y)),
    "residual shape": (gm.ShapeError, "residual: expected", lambda p: p.conv("c", _X, _Y, _REALS, _RESIDUAL, 0, _X)),
    "residual in place": (gm.ArgumentError, "shares memory", lambda p: p.conv("c", _X, _Y, _REALS, _RESIDUAL, 0, _Y)),
    "columns": (
        gm.ShapeError,
        "x: expected 4 columns",
        lambda p: p.linear("c", Tensor.arena(0, "float32", (4, 3)), _Y, _ROWS),
    ),
    "scalar": (
        gm.ShapeError,
        "x: expected 4 columns",
        lambda p: p.linear("c", Tensor.arena(0, "float32", ()), _Y, _ROWS),
    ),
    "rows": (gm.ShapeError, r"out: expected shape \(1, 2, 4, 5\)", lambda p: p.linear("c", _X, _Y, _ROWS)),
}


@pytest.mark.parametrize("case", _BAD)
def test_bad_layers_are_refused(case: str) -> None:
    kind, message, add = _BAD[case]
    with pytest.raises(kind, match="c: .*" + message):
        add(Plan(1024, [], []))
