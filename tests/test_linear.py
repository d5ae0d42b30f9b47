"""Linear layers and epilogues against plain numpy: shapes, batches, extremes, activations, residuals, refusals."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import gristmill as gm
import oracles_dense as oracle
from gristmill import kernels

Array = oracle.Array

_CURVES = ["leaky_relu", "hardsigmoid", "hardswish", "sigmoid", "silu"]


def product(x: Array, weights: Array, zero_point: int = 0) -> Array:
    """The accumulators of a linear layer; exact, for every sum is below 2^53."""
    wide = x.astype(np.float64) - zero_point
    return np.asarray((wide @ weights.astype(np.float64).T).astype(np.int64))


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize("kind", ["small", "wide", "extreme", "with -128"])
def test_shapes_up_to_67_are_exact(isa: str, dtype: str, kind: str) -> None:
    rng = np.random.default_rng(11)
    low, high = oracle.RANGES[dtype]
    extents = [*range(1, 20), 31, 32, 33, 47, 48, 49, 63, 64, 65, 67]
    for k in extents:
        for _ in range(12):
            rows, channels = (int(n) for n in rng.choice(extents, 2))
            shape = (channels, k)
            weights = {
                "small": rng.integers(-64, 65, shape),
                "wide": rng.integers(-127, 128, shape),
                "extreme": rng.choice([-127, 127], shape),
                "with -128": rng.choice([-128, -128, 127, 0], shape),
            }[kind].astype(np.int8)
            x = rng.choice([low, high], (rows, k)) if kind == "extreme" else rng.integers(low, high + 1, (rows, k))
            x, zero_point = x.astype(dtype), int(rng.choice([low, low + 128, high]))
            y = kernels.linear(
                x, kernels.PackedLinear(weights), x_zero_point=zero_point, threads=int(rng.integers(1, 4))
            )
            np.testing.assert_array_equal(y, product(x, weights, zero_point), err_msg=f"{rows} x {channels} x {k}")


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 16, 200])
@pytest.mark.parametrize("most", [60, 127])
def test_large_layers_are_exact_on_any_thread_count(isa: str, rows: int, most: int) -> None:
    rng = np.random.default_rng(12)
    x = rng.integers(0, 256, (rows, 1000)).astype(np.uint8)
    weights = rng.integers(-most, most + 1, (777, 1000)).astype(np.int8)
    expected = product(x, weights, 131)
    for packed in (kernels.PackedLinear(weights), kernels.PackedLinear(weights, rows=16)):
        assert packed.batched <= (isa == "avx2" and most == 60)
        for threads in (1, 2, 3, 4):
            y = kernels.linear(x, packed, x_zero_point=131, threads=threads)
            np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 300, 77), (5, 64, 17), (33, 129, 65), (200, 50, 300)])
def test_f32_is_within_the_bound_of_float64(isa: str, shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(13)
    rows, k, channels = shape
    x, weights = (rng.standard_normal(s).astype(np.float32) for s in ((rows, k), (channels, k)))
    bias = rng.standard_normal(channels).astype(np.float32)
    packed = kernels.PackedLinear(weights)
    epilogue = kernels.Epilogue(output="float32", bias=bias)
    y = kernels.linear(x, packed, epilogue=epilogue, threads=1)
    expected = x.astype(np.float64) @ weights.astype(np.float64).T + bias
    magnitudes = np.abs(x).astype(np.float64) @ np.abs(weights).astype(np.float64).T + np.abs(bias)
    assert np.all(np.abs(y - expected) <= oracle.f32_bound(magnitudes, k + 1))
    np.testing.assert_array_equal(kernels.linear(x, packed, epilogue=epilogue, threads=3), y)


def layer(rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Activations, weights and a scale under which outputs use the whole range."""
    x = rng.integers(0, 256, (37, 90)).astype(np.uint8)
    weights = rng.integers(-127, 128, (70, 90)).astype(np.int8)
    return x, weights, rng.uniform(6e-4, 1.6e-3, 70).astype(np.float32)


@pytest.mark.parametrize("output", ["uint8", "int8", "float32"])
@pytest.mark.parametrize("name", ["relu", "clip"])
def test_clamps_are_those_of_a_separate_operator(isa: str, output: str, name: str) -> None:
    x, weights, scale = layer(np.random.default_rng(14))
    zero_point = {"uint8": 110, "int8": -11, "float32": 0}[output]
    bounds = {"relu": (0.0, np.inf), "clip": (-0.77, 6.0)}[name]
    activation = kernels.Activation(name, low=bounds[0], high=bounds[1])  # type: ignore[arg-type]
    epilogue = kernels.Epilogue(
        output=output,  # type: ignore[arg-type]
        scale=scale,
        zero_point=zero_point,
        output_scale=0.11,
        activation=activation,
    )
    y = kernels.linear(x, kernels.PackedLinear(weights), x_zero_point=128, epilogue=epilogue)
    stored = oracle.requantize(product(x, weights, 128), None, scale, zero_point, output, 1)
    if output == "float32":
        np.testing.assert_array_equal(y, np.clip(stored, np.float32(bounds[0]), np.float32(bounds[1])))
        return
    real = np.clip(oracle.dequantize(stored, 0.11, zero_point), np.float32(bounds[0]), np.float32(bounds[1]))
    np.testing.assert_array_equal(y, oracle.quantize(real, 0.11, zero_point, output))


@pytest.mark.parametrize("output", ["uint8", "int8"])
@pytest.mark.parametrize("name", _CURVES)
def test_curves_on_bytes_are_those_of_a_separate_operator(isa: str, output: str, name: str) -> None:
    x, weights, scale = layer(np.random.default_rng(15))
    stored, result = (0.07, 120 if output == "uint8" else -8), (0.031, 13 if output == "uint8" else -100)
    epilogue = kernels.Epilogue(
        output=output,  # type: ignore[arg-type]
        scale=scale,
        zero_point=stored[1],
        output_scale=stored[0],
        activation=kernels.Activation(name, alpha=0.1),  # type: ignore[arg-type]
        activation_output=result,
    )
    y = kernels.linear(x, kernels.PackedLinear(weights), x_zero_point=128, epilogue=epilogue)
    plain = oracle.requantize(product(x, weights, 128), None, scale, stored[1], output, 1)
    assert len(np.unique(plain)) > 200
    np.testing.assert_array_equal(y, oracle.separate_curve(plain, name, 0.1, stored, result))


@pytest.mark.parametrize("name", _CURVES)
def test_curves_on_f32_are_accurate_and_the_same_on_all_levels(isa: str, name: str) -> None:
    special = np.array([0, -0.0, np.inf, -np.inf, np.nan, 1e-40, 88.7, 89.5, 104.5, 1e30, -88.7, -104.5, -1e30])
    x = np.concatenate([special, np.linspace(-30, 30, 5001)]).astype(np.float32)[:, np.newaxis]
    activation = kernels.Activation(name, alpha=0.1)  # type: ignore[arg-type]
    epilogue = kernels.Epilogue(output="float32", activation=activation)
    y = kernels.linear(x, kernels.PackedLinear(np.ones((1, 1), np.float32)), epilogue=epilogue)
    before = gm.get_isa()
    gm.set_isa("scalar")
    scalar = kernels.linear(x, kernels.PackedLinear(np.ones((1, 1), np.float32)), epilogue=epilogue)
    gm.set_isa(before)
    np.testing.assert_array_equal(y.view(np.int32)[~np.isnan(scalar)], scalar.view(np.int32)[~np.isnan(scalar)])
    np.testing.assert_array_equal(np.isnan(y), np.isnan(scalar))
    finite = np.isfinite(x) & (np.abs(x) < 1e20)
    expected = oracle.curve(name, x[finite], 0.1)
    tolerance = 1e-6 * np.abs(expected) + 1e-37
    if name in ("hardsigmoid", "hardswish"):
        tolerance = tolerance + 2e-7 * np.maximum(1, np.abs(x[finite]))
    assert np.all(np.abs(y[finite] - expected) <= tolerance)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("curve", ["none", "hardswish"])
@pytest.mark.parametrize(("output", "added"), [("uint8", "uint8"), ("uint8", "int8"), ("int8", "uint8")])
def test_residuals_are_those_of_separate_operators(isa: str, output: str, added: str, curve: str, first: bool) -> None:
    rng = np.random.default_rng(16)
    x, weights, scale = layer(rng)
    offset = 0 if output == "uint8" else -128
    stored, result, total = (0.07, 130 + offset), (0.05, 20 + offset), (0.09, 77 + offset)
    low, high = oracle.RANGES[added]
    other, quantization = rng.integers(low, high + 1, (37, 70)).astype(added), (0.043, low + 99)
    epilogue = kernels.Epilogue(
        output=output,  # type: ignore[arg-type]
        scale=scale,
        zero_point=stored[1],
        output_scale=stored[0],
        activation=kernels.Activation(curve),  # type: ignore[arg-type]
        activation_output=result if curve != "none" else None,
        residual=kernels.Residual(
            added,  # type: ignore[arg-type]
            scale=quantization[0],
            zero_point=quantization[1],
            sum_scale=total[0],
            sum_zero_point=total[1],
            activation=kernels.Activation("relu"),
            first=first,
        ),
    )
    y = kernels.linear(x, kernels.PackedLinear(weights), x_zero_point=128, epilogue=epilogue, residual=other)
    plain = oracle.requantize(product(x, weights, 128), None, scale, stored[1], output, 1)
    if curve != "none":
        plain, stored = oracle.separate_curve(plain, curve, 0.0, stored, result), result
    sides = (other, quantization, plain, stored) if first else (plain, stored, other, quantization)
    expected = np.maximum(oracle.separate_add(*sides, total, output), total[1])
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("output", ["uint8", "int8", "int32", "float32"])
@pytest.mark.parametrize("rows", [1, 2, 8, 13, 16, 17, 24, 50])
def test_weights_for_batches_give_the_same_bits(isa: str, rows: int, output: str) -> None:
    rng = np.random.default_rng(19)
    weights = np.clip(np.rint(rng.standard_normal((150, 203)) * 30), -127, 127).astype(np.int8)
    x, other = (rng.integers(0, 256, (rows, n)).astype(np.uint8) for n in (203, 150))
    byte = output in ("uint8", "int8")
    epilogue = kernels.Epilogue(
        output=output,  # type: ignore[arg-type]
        bias=rng.integers(-1000, 1000, 150).astype(np.int32),
        scale=None if output == "int32" else rng.uniform(6e-4, 1.6e-3, 150).astype(np.float32),
        zero_point=7 if byte else 0,
        output_scale=0.1 if byte else 0.0,
        residual=kernels.Residual("uint8", scale=0.1, sum_scale=0.2) if byte else None,
    )
    packed = [kernels.PackedLinear(weights, rows=n) for n in (1, 16)]
    assert [p.batched for p in packed] == [False, isa == "avx2"]
    one, many = (
        kernels.linear(x, p, x_zero_point=128, epilogue=epilogue, residual=other if byte else None) for p in packed
    )
    assert len(np.unique(one)) > 50
    np.testing.assert_array_equal(one, many)


def test_f32_residual_and_relu(isa: str) -> None:
    rng = np.random.default_rng(17)
    x, weights, other = (rng.standard_normal(s).astype(np.float32) for s in ((9, 20), (33, 20), (9, 33)))
    packed = kernels.PackedLinear(weights)
    residual = kernels.Residual("float32", activation=kernels.Activation("relu"))
    epilogue = kernels.Epilogue(output="float32", residual=residual)
    y = kernels.linear(x, packed, epilogue=epilogue, residual=other)
    np.testing.assert_array_equal(y, np.maximum(kernels.linear(x, packed) + other, 0))


def test_a_channel_that_could_overflow_is_told_from_its_neighbors(isa: str) -> None:
    weights = np.full((2, 65_793), -128, np.int8)
    weights[1] = 0
    packed, x = kernels.PackedLinear(weights), np.zeros((1, 65_793), np.uint8)
    bias = np.array([0, 2**31 - 1], np.int32)
    y = kernels.linear(x, packed, epilogue=kernels.Epilogue(output="int32", bias=bias))
    np.testing.assert_array_equal(y, bias[None])
    with pytest.raises(gm.LimitError, match="bias: channel 0 could overflow"):
        kernels.linear(x, packed, epilogue=kernels.Epilogue(output="int32", bias=bias[::-1].copy()))


def test_extents_of_zero() -> None:
    packed = kernels.PackedLinear(np.zeros((3, 0), np.int8))
    np.testing.assert_array_equal(kernels.linear(np.zeros((2, 0), np.uint8), packed), np.zeros((2, 3), np.int32))
    empty = kernels.PackedLinear(np.zeros((0, 4), np.int8))
    assert kernels.linear(np.zeros((2, 4), np.uint8), empty).shape == (2, 0)
    assert kernels.linear(np.zeros((0, 0), np.uint8), packed).shape == (0, 3)


_X, _W = np.zeros((2, 4), np.uint8), np.zeros((3, 4), np.int8)
_RELU6 = kernels.Activation("clip", low=0, high=6)
_SILU = kernels.Activation("silu")


@pytest.mark.parametrize(
    ("error", "where", "fields"),
    [
        (gm.ArgumentError, "output", {"output": "float64"}),
        (gm.ArgumentError, "scale", {"output": "uint8"}),
        (gm.ArgumentError, "scale", {"output": "int32", "scale": 0.5}),
        (gm.ArgumentError, "scale", {"output": "uint8", "scale": float("nan")}),
        (gm.ShapeError, "scale", {"output": "uint8", "scale": np.ones(2, np.float32)}),
        (gm.DTypeError, "scale", {"output": "uint8", "scale": np.ones(3)}),
        (gm.ShapeError, "bias", {"output": "int32", "bias": np.ones(4, np.int32)}),
        (gm.DTypeError, "bias", {"output": "int32", "bias": np.ones(3, np.float32)}),
        (gm.DTypeError, "bias", {"output": "int32", "bias": np.ones(3, np.int64)}),
        (gm.ArgumentError, "zero_point", {"output": "uint8", "scale": 1.0, "zero_point": -1}),
        (gm.ArgumentError, "zero_point", {"output": "float32", "scale": 1.0, "zero_point": 1}),
        (gm.ArgumentError, "output", {"output": "int32", "activation": kernels.Activation("relu")}),
        (gm.ArgumentError, "output_scale", {"output": "uint8", "scale": 1.0, "activation": _RELU6}),
        (gm.ArgumentError, "output_scale", {"output": "uint8", "scale": 1.0, "activation": _SILU}),
        (
            gm.ArgumentError,
            "activation",
            {"output": "uint8", "scale": 1.0, "activation": kernels.Activation("clip", low=2, high=1)},
        ),
        (gm.DTypeError, "residual", {"output": "float32", "scale": 1.0, "residual": kernels.Residual("uint8")}),
        (
            gm.ArgumentError,
            "residual",
            {"output": "float32", "scale": 1.0, "residual": kernels.Residual("float32", activation=_SILU)},
        ),
        (
            gm.ArgumentError,
            "residual",
            {"output": "uint8", "scale": 1.0, "output_scale": 1.0, "residual": kernels.Residual("uint8", scale=0)},
        ),
    ],
)
def test_bad_epilogues_are_refused(error: type[gm.GristmillError], where: str, fields: dict[str, object]) -> None:
    with pytest.raises(error) as caught:
        kernels.linear(_X, kernels.PackedLinear(_W), epilogue=kernels.Epilogue(**fields))  # type: ignore[arg-type]
    assert caught.value.node == where


def test_residual_must_be_given_exactly_when_asked_for() -> None:
    packed = kernels.PackedLinear(_W)
    epilogue = kernels.Epilogue(output="float32", scale=1.0, residual=kernels.Residual("float32"))
    with pytest.raises(gm.ArgumentError, match="residual: needed exactly when"):
        kernels.linear(_X, packed, epilogue=epilogue)
    with pytest.raises(gm.ShapeError, match="residual: expected shape"):
        kernels.linear(_X, packed, epilogue=epilogue, residual=np.zeros((2, 4), np.float32))
    out = np.zeros((2, 3), np.float32)
    with pytest.raises(gm.ArgumentError, match="out: shares memory"):
        kernels.linear(_X, packed, epilogue=epilogue, residual=out, out=out)


@pytest.mark.parametrize(
    ("error", "where", "x"),
    [
        (gm.DTypeError, "x", [[0, 0, 0, 0]]),
        (gm.DTypeError, "x", np.zeros((2, 4), np.float32)),
        (gm.ShapeError, "x", np.zeros((2, 5), np.uint8)),
        (gm.ShapeError, "x", np.zeros(4, np.uint8)),
    ],
)
def test_bad_inputs_are_refused(error: type[gm.GristmillError], where: str, x: object) -> None:
    with pytest.raises(error) as caught:
        kernels.linear(x, kernels.PackedLinear(_W))  # type: ignore[arg-type]
    assert caught.value.node == where


def test_packed_weights_are_opaque(isa: str) -> None:
    packed = kernels.PackedLinear(_W)
    assert repr(packed).startswith("<PackedLinear 4 -> 3, s8")
    assert isa in repr(packed)
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(packed)
