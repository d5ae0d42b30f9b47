"""Quantize, dequantize, requantize and reductions against the oracle, ONNX Runtime, and misuse."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

import gristmill as gm
import oracles
import strategies
from gristmill import kernels
from onnxruntime_peer import exact_session

Array = npt.NDArray[Any]
Shape = tuple[int, ...]

INT8_TYPES = (np.uint8, np.int8)
TYPE_PROTOS: dict[type, int] = {np.uint8: TensorProto.UINT8, np.int8: TensorProto.INT8}


def same_bits(actual: Array, expected: Array) -> bool:
    return actual.dtype == expected.dtype and actual.shape == expected.shape and actual.tobytes() == expected.tobytes()


def zero_points(dtype: type) -> st.SearchStrategy[int]:
    bounds = np.iinfo(dtype)
    return st.sampled_from([int(bounds.min), int(bounds.max), 0]) | st.integers(int(bounds.min), int(bounds.max))


@given(data=st.data(), dtype=st.sampled_from(INT8_TYPES), shape=strategies.shapes)
def test_per_tensor_equals_oracle_in_any_layout(
    isa: str, data: st.DataObject, dtype: type, shape: tuple[int, ...]
) -> None:
    x = data.draw(strategies.arrays(shape, np.float32))
    scale, zero_point = data.draw(strategies.scales(1))[0], data.draw(zero_points(dtype))
    q = kernels.quantize_per_tensor(data.draw(strategies.laid_out(x)), scale, zero_point, dtype)
    assert same_bits(q, oracles.quantize(x, scale, zero_point, dtype))
    y = kernels.dequantize_per_tensor(data.draw(strategies.laid_out(q)), scale, zero_point)
    assert same_bits(y, oracles.dequantize(q, scale, zero_point))


@given(data=st.data(), dtype=st.sampled_from(INT8_TYPES), shape=strategies.channel_shapes)
def test_per_channel_equals_oracle_in_any_layout(
    isa: str, data: st.DataObject, dtype: type, shape: tuple[int, ...]
) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = data.draw(strategies.arrays(shape, np.float32))
    scale = data.draw(strategies.scales(shape[axis]))
    generator = np.random.default_rng(data.draw(st.integers(0, 1000)))
    zero_point: Array = generator.integers(np.iinfo(dtype).min, np.iinfo(dtype).max + 1, shape[axis]).astype(dtype)
    wide_scale, wide_zero = (oracles.along(axis, values, len(shape)) for values in (scale, zero_point))
    out = data.draw(strategies.laid_out(np.zeros(shape, dtype)))
    q = kernels.quantize_per_channel(data.draw(strategies.laid_out(x)), scale, zero_point, axis, dtype, out=out)
    assert q is out
    assert same_bits(q, oracles.quantize(x, wide_scale, wide_zero, dtype))
    y = kernels.dequantize_per_channel(q, scale, zero_point, axis)
    assert same_bits(y, oracles.dequantize(q, wide_scale, wide_zero))


@given(data=st.data(), dtype=st.sampled_from([np.uint8, np.int8, np.float32]), shape=strategies.channel_shapes)
def test_requantize_equals_oracle(isa: str, data: st.DataObject, dtype: type, shape: Shape) -> None:
    axis = data.draw(st.none() | st.integers(-len(shape), len(shape) - 1))
    acc = data.draw(strategies.arrays(shape, np.int32))
    zero_point = 0 if dtype is np.float32 else data.draw(zero_points(dtype))
    scale = data.draw(strategies.scales(1 if axis is None else shape[axis]))
    wide = scale[0] if axis is None else oracles.along(axis, scale, len(shape))
    y = kernels.requantize(acc, scale[0] if axis is None else scale, zero_point, dtype, axis=axis)
    assert same_bits(y, oracles.requantize(acc, wide, zero_point, dtype))


@given(data=st.data(), shape=strategies.channel_shapes)
def test_min_max_equals_numpy(isa: str, data: st.DataObject, shape: Shape) -> None:
    axis = data.draw(st.none() | st.integers(-len(shape), len(shape) - 1))
    x = data.draw(strategies.arrays(shape, np.float32))
    others = tuple(d for d in range(len(shape)) if axis is None or d != axis % len(shape))
    with np.errstate(invalid="ignore"):
        expected = x.min(axis=others), x.max(axis=others), np.abs(x).max(axis=others)
    view = data.draw(strategies.laid_out(x))
    actual = (*kernels.min_max(view, axis), kernels.abs_max(view, axis))
    for got, wanted in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("dtype", INT8_TYPES)
@pytest.mark.parametrize("axis", [None, 0, 1, -1])
@pytest.mark.parametrize("threads", [1, 2, 7])
def test_large_arrays_do_not_depend_on_threads(isa: str, dtype: type, axis: int | None, threads: int) -> None:
    x = np.random.default_rng(0).normal(0, 40, (3, 700, 513)).astype(np.float32)
    count = 1 if axis is None else x.shape[axis]
    scale = np.linspace(0.1, 2.0, count).astype(np.float32)
    wide = scale[0] if axis is None else oracles.along(axis, scale, 3)
    if axis is None:
        q = kernels.quantize_per_tensor(x, float(scale[0]), 3, dtype, threads=threads)
        y = kernels.dequantize_per_tensor(q, float(scale[0]), 3, threads=threads)
    else:
        q = kernels.quantize_per_channel(x, scale, 3, axis, dtype, threads=threads)
        y = kernels.dequantize_per_channel(q, scale, 3, axis, threads=threads)
    assert same_bits(q, oracles.quantize(x, wide, 3, dtype))
    assert same_bits(y, oracles.dequantize(q, wide, 3))
    low, high = kernels.min_max(x, axis, threads=threads) if axis is not None else kernels.min_max(x, threads=threads)
    others = tuple(d for d in range(3) if axis is None or d != axis % 3)
    np.testing.assert_array_equal(low, x.min(axis=others))
    np.testing.assert_array_equal(high, x.max(axis=others))


@pytest.mark.parametrize("dtype", INT8_TYPES)
@pytest.mark.parametrize("scale", [1.0, 0.1, 1 / 255, 3e-39, 1e-45, 3e38])
@pytest.mark.parametrize("zero_point", [0, 77, 127])
def test_equals_onnxruntime(isa: str, dtype: type, scale: float, zero_point: int) -> None:
    generator = np.random.default_rng(1)
    bits = generator.integers(0, 2**32, 200_000, dtype=np.uint32).view(np.float32)
    with np.errstate(all="ignore"):
        ties = (np.arange(-600, 600) * np.float32(0.5) * np.float32(scale)).astype(np.float32)
    x = np.concatenate([bits, ties, np.array([np.nan, np.inf, -np.inf, 0.0, -0.0], np.float32)])
    info, proto = helper.make_tensor_value_info, TYPE_PROTOS[dtype]
    inputs = [info("x", TensorProto.FLOAT, [None]), info("s", TensorProto.FLOAT, []), info("z", proto, [])]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    outputs = [info("q", proto, [None]), info("y", TensorProto.FLOAT, [None])]
    model = helper.make_model(
        helper.make_graph(nodes, "pair", inputs, outputs), opset_imports=[helper.make_opsetid("", 13)], ir_version=8
    )
    session = exact_session(model)
    feeds = {"x": x, "s": np.array(scale, np.float32), "z": np.array(zero_point, dtype)}
    expected_q, expected_y = session.run(None, feeds)
    q = kernels.quantize_per_tensor(x, scale, zero_point, dtype)
    assert same_bits(q, expected_q)
    np.testing.assert_array_equal(kernels.dequantize_per_tensor(q, scale, zero_point), expected_y)


def test_new_results_keep_the_memory_order() -> None:
    x = np.asfortranarray(np.ones((5, 6, 7), np.float32))
    assert kernels.quantize_per_tensor(x, 1.0).flags.f_contiguous
    assert kernels.quantize_per_tensor(np.array(2.0, np.float32), 1.0).shape == ()


def test_empty_arrays() -> None:
    x = np.zeros((0, 3), np.float32)
    assert kernels.quantize_per_tensor(x, 1.0).shape == (0, 3)
    assert kernels.quantize_per_channel(x, np.ones(3, np.float32), axis=1).shape == (0, 3)
    assert kernels.min_max(x, 0)[0].shape == (0,)
    with pytest.raises(gm.ArgumentError, match="empty"):
        kernels.min_max(x)
    with pytest.raises(gm.ArgumentError, match="empty"):
        kernels.min_max(x, 1)


X = np.ones((4, 5), np.float32)
READ_ONLY = np.zeros((4, 5), np.uint8)
READ_ONLY.flags.writeable = False
REPEATED = np.lib.stride_tricks.as_strided(np.zeros(8, np.uint8), (4, 5), (1, 1))
untyped: Any = kernels

MISUSES: list[tuple[Any, type[gm.GristmillError], str]] = [
    (lambda: untyped.quantize_per_tensor([1.0], 1.0), gm.DTypeError, "x: expected a numpy array, got list"),
    (lambda: kernels.quantize_per_tensor(X.astype(np.float64), 1.0), gm.DTypeError, "x: expected float32, got float64"),
    (lambda: kernels.quantize_per_tensor(X.astype(">f4"), 1.0), gm.DTypeError, "x: is byte-swapped"),
    (lambda: kernels.quantize_per_tensor(X, 0.0), gm.ArgumentError, "scale: must be finite and greater than 0"),
    (lambda: kernels.quantize_per_tensor(X, -1.0), gm.ArgumentError, "scale: must be"),
    (lambda: kernels.quantize_per_tensor(X, np.nan), gm.ArgumentError, "scale: must be"),
    (lambda: kernels.quantize_per_tensor(X, np.inf), gm.ArgumentError, "scale: must be"),
    (lambda: kernels.quantize_per_tensor(X, 1e-60), gm.ArgumentError, "scale: must be"),
    (lambda: untyped.quantize_per_tensor(X, "wide"), gm.DTypeError, "scale: expected a number"),
    (lambda: untyped.quantize_per_tensor(X, np.ones(2, np.float32)), gm.ShapeError, "scale: expected rank 0"),
    (lambda: kernels.quantize_per_tensor(X, 1.0, 256), gm.ArgumentError, r"zero_point: must be in 0\.\.255, got 256"),
    (lambda: kernels.quantize_per_tensor(X, 1.0, -1), gm.ArgumentError, "zero_point: must be in"),
    (lambda: kernels.quantize_per_tensor(X, 1.0, 2**70), gm.ArgumentError, "zero_point: must be in"),
    (
        lambda: kernels.quantize_per_tensor(X, 1.0, 128, np.int8),
        gm.ArgumentError,
        r"zero_point: must be in -128\.\.127",
    ),
    (lambda: untyped.quantize_per_tensor(X, 1.0, 0.5), gm.DTypeError, "zero_point: expected a whole number"),
    (lambda: kernels.quantize_per_tensor(X, 1.0, 0, np.int16), gm.DTypeError, "dtype: expected uint8 or int8"),
    (lambda: kernels.quantize_per_tensor(X, 1.0, 0, "no type"), gm.DTypeError, "dtype: is no numpy type"),
    (lambda: kernels.quantize_per_tensor(X, 1.0, out=READ_ONLY), gm.ArgumentError, "out: is read-only"),
    (lambda: kernels.quantize_per_tensor(X, 1.0, out=REPEATED), gm.ArgumentError, "out: has several elements"),
    (lambda: kernels.quantize_per_tensor(X, 1.0, out=np.zeros((5, 4), np.uint8)), gm.ShapeError, "out: expected shape"),
    (lambda: kernels.quantize_per_tensor(X, 1.0, out=np.zeros((4, 5), np.int8)), gm.DTypeError, "out: expected uint8"),
    (lambda: kernels.quantize_per_tensor(X, 1.0, out=X.view(np.uint8)[:, ::4]), gm.ArgumentError, "out: shares memory"),
    (lambda: kernels.quantize_per_tensor(X, 1.0, threads=0), gm.ArgumentError, "threads: must be in"),
    (lambda: untyped.quantize_per_tensor(X, 1.0, threads=1.5), gm.DTypeError, "threads: expected a whole number"),
    (
        lambda: kernels.quantize_per_channel(X, np.ones(4, np.float32), axis=2),
        gm.ShapeError,
        "axis: is 2, out of range",
    ),
    (lambda: kernels.quantize_per_channel(X, np.ones(4, np.float32), axis=-3), gm.ShapeError, "axis: is -3"),
    (lambda: kernels.quantize_per_channel(X, np.ones(5, np.float32)), gm.ShapeError, "scale: expected 4 values"),
    (lambda: untyped.quantize_per_channel(X, np.ones(4)), gm.DTypeError, "scale: expected float32, got float64"),
    (
        lambda: kernels.quantize_per_channel(X, np.array([1, 1, 0, 1], np.float32)),
        gm.ArgumentError,
        "scale: .* at channel 2",
    ),
    (
        lambda: kernels.quantize_per_channel(X, np.ones(4, np.float32), np.zeros(3, np.int8)),
        gm.ShapeError,
        "zero_point: expected 4 values",
    ),
    (
        lambda: kernels.quantize_per_channel(X, np.ones(4, np.float32), np.zeros(4, np.float32)),
        gm.DTypeError,
        "zero_point: expected an integer type",
    ),
    (lambda: untyped.dequantize_per_tensor(X, 1.0), gm.DTypeError, "q: expected uint8 or int8, got float32"),
    (lambda: untyped.requantize(X, 1.0), gm.DTypeError, "acc: expected int32"),
    (lambda: kernels.requantize(X.astype(np.int32), 1.0, 3, np.float32), gm.ArgumentError, "zero_point: must be 0"),
    (lambda: kernels.min_max(X, 7), gm.ShapeError, "axis: is 7"),
    (lambda: kernels.choose_qparams(np.array([1, np.nan], np.float32)), gm.ArgumentError, "range: .*remove NaN"),
    (lambda: kernels.choose_qparams(np.array([[1], [np.inf]], np.float32), axis=0), gm.ArgumentError, "of channel 1"),
    (lambda: kernels.range_qparams(2.0, 1.0), gm.ArgumentError, "minimum exceeds the maximum"),
]


@pytest.mark.parametrize(("call", "error", "message"), MISUSES, ids=[message for _, _, message in MISUSES])
def test_misuse_is_a_typed_error(call: Callable[[], object], error: type[gm.GristmillError], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("dtype", INT8_TYPES)
@pytest.mark.parametrize("symmetric", [False, True])
@given(data=st.data())
def test_chosen_params_cover_the_range_and_hold_zero(dtype: type, symmetric: bool, data: st.DataObject) -> None:
    bounds = st.floats(-(2.0**127), 2.0**127, width=32)
    low, high = sorted((data.draw(bounds), data.draw(bounds)))
    scale, zero_point = kernels.range_qparams(low, high, dtype, symmetric=symmetric)
    assert np.float32(scale) == scale
    assert scale >= 2.0**-126
    ends = np.array([min(low, 0.0), 0.0, max(high, 0.0)], np.float32)
    q = kernels.quantize_per_tensor(ends, scale, zero_point, dtype)
    back = kernels.dequantize_per_tensor(q, scale, zero_point)
    assert back[1] == 0
    assert (np.abs(back.astype(np.float64) - ends) <= scale * 1.0001).all()
    if symmetric:
        assert zero_point == (128 if dtype is np.uint8 else 0)
        assert (np.abs(q.astype(int) - zero_point) <= 127).all()


def test_chosen_params_of_constant_and_tiny_tensors() -> None:
    assert kernels.choose_qparams(np.zeros(3, np.float32)) == (1.0, 0)
    assert kernels.choose_qparams(np.zeros(3, np.float32), np.uint8, symmetric=True) == (1.0, 128)
    assert kernels.choose_qparams(np.full(3, 5.1, np.float32))[1] == 0
    assert kernels.choose_qparams(np.full(3, -5.1, np.float32))[1] == 255
    assert kernels.choose_qparams(np.full(3, 1e-44, np.float32)) == (2.0**-126, 0)
    scale, zero_point = kernels.choose_qparams(np.array([[-1, 2], [0, 0]], np.float32), np.int8, axis=0)
    assert scale.dtype == np.float32
    assert zero_point.dtype == np.int8
    assert scale.tolist() == [np.float32(3 / 255), 1.0]


def test_gil_is_released() -> None:
    """Another thread sees results of which the first is there and the last is not; a busy machine gets 20 tries."""
    x = np.zeros(10_000_000, np.float32)
    out = np.empty(x.shape, np.uint8)

    def seen_between() -> bool:
        out.fill(77)
        worker = threading.Thread(target=lambda: kernels.quantize_per_tensor(x, 1.0, out=out, threads=1))
        worker.start()
        found = False
        while worker.is_alive():
            found = found or (out[0] == 0 and out[-1] == 77)
        assert not out.any()
        return found

    level = gm.get_isa()
    gm.set_isa("scalar")  # calls that take much longer than a turn of the scheduler
    try:
        assert any(seen_between() for _ in range(20))
    finally:
        gm.set_isa(level)
